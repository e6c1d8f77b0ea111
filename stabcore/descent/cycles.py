r"""Periodic orbits of gradient descent: cycles of G(θ) = θ − η∇L(θ) for any problem.

A cycle of period p is a list of points X = (x_1, ..., x_p) with x_{i+1} = G(x_i), indices modulo
p; it is a zero of

    F(X)_i = G(x_i) − x_{i+1}.

Solving for all points at once (multiple shooting) keeps every factor of the derivative of size
‖DG‖, where Newton on G^p − id would meet their product. The solver is Levenberg–Marquardt, whose
steps (DFᵀDF + μI) s = −DFᵀF exist everywhere; with μ ∝ ‖F‖² it converges quadratically, also to
zeros that are not isolated, such as the manifolds of global minima.

The eigenvalues of DG(x_p)⋯DG(x_1), the *multipliers*, decide stability: the cycle attracts if all
have modulus below 1 and repels something if one is above.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stabcore import _validation as check
from stabcore._validation import Array
from stabcore.descent.map import gd_jacobian
from stabcore.problems.base import Problem

ESCAPE = 1e3  # an orbit that is this many times farther out than the box has diverged

SAME = 1e-6  # points closer than this, relative to 1 + |θ|, are one point

SINGULAR = 1e-7  # a derivative with a singular value below this is taken to be singular

NEIGHBOURHOOD = 1e-5  # radius of the ball in which the Hessian's Lipschitz constant is sampled

NEIGHBOURS = 16

KINK = 1e-8  # distance of the neighbours that must be smooth too

EPS = float(np.finfo(float).eps)


class SearchOutcome(Enum):
    """What became of one start."""

    FOUND = "found"
    """The first to find its cycle."""
    DUPLICATE = "duplicate"
    """Found a cycle that was known, possibly from another of its points."""
    DIVISOR = "divisor period"
    """Found a cycle whose smallest period is a proper divisor (a fixed point is one)."""
    DIVERGED = "diverged"
    """Its orbit left every bound."""
    LEFT_DOMAIN = "left the domain of smoothness"
    """Its orbit met a point without a Hessian, a kink of the gradient, or a dead network."""
    NOT_CONVERGED = "Newton did not converge"
    """The solver stopped at a point that is no cycle."""


@dataclass(frozen=True, kw_only=True)
class Cycle:
    """A periodic orbit of the gradient descent map, with what is known about its error.

    Attributes
    ----------
    points : array, shape (p, D)
        In the order of the orbit, the lexicographically smallest first.
    multipliers : array of complex, shape (D,)
        Eigenvalues of the derivative along the cycle, the largest modulus first.
    multiplier_error : float
        How far off each can be, by the theorem of Bauer and Fike: as good as the radius.
    residual : float
        max_i |G(x_i) − x_{i+1}|, as computed.
    radius : float
        A true cycle lies within this distance of the points, by the theorem of Newton and
        Kantorovich with an *estimated* Lipschitz constant (see `find_cycles`); ∞ where the
        theorem does not apply.
    stability : str
        "stable", "unstable", "neutral" (not isolated, and nothing else repels), or "undecided"
        (a modulus is 1 up to its error).
    status : str
        "isolated", or "not isolated" and why the radius is infinite.
    """

    points: Array
    multipliers: NDArray[np.complex128]
    multiplier_error: float
    residual: float
    radius: float
    stability: str
    status: str

    @property
    def period(self) -> int:
        """The number of points."""
        return len(self.points)

    @property
    def isolated(self) -> bool:
        """Whether no other cycle of this period is arbitrarily close."""
        return self.status == "isolated"


@dataclass(frozen=True, kw_only=True)
class Cycles:
    """The distinct cycles that were found, and what became of every start.

    A sequence of `Cycle`: `len`, indices and iteration work.

    Attributes
    ----------
    period : int
        The smallest period of every one of them.
    cycles : tuple of Cycle
    outcomes : tuple of SearchOutcome
        One for each start.
    divisor_periods : dict
        How many starts ended on a cycle of each proper divisor.
    """

    period: int
    cycles: tuple[Cycle, ...]
    outcomes: tuple[SearchOutcome, ...]
    divisor_periods: dict[int, int]

    def __len__(self) -> int:
        return len(self.cycles)

    def __iter__(self) -> Iterator[Cycle]:
        return iter(self.cycles)

    def __getitem__(self, index: int) -> Cycle:
        return self.cycles[index]

    def count(self, outcome: SearchOutcome) -> int:
        """Return how many starts had this outcome."""
        return self.outcomes.count(outcome)

    @property
    def stable(self) -> tuple[Cycle, ...]:
        """The stable ones."""
        return tuple(cycle for cycle in self.cycles if cycle.stability == "stable")

    def __str__(self) -> str:
        """Return the counts in words."""
        counts = ", ".join(f"{n} {kind.value}" for kind, n in Counter(self.outcomes).items())
        return (
            f"{len(self.cycles)} cycles of period {self.period} "
            f"from {len(self.outcomes)} starts: {counts}"
        )


@check.public()
def find_cycles(
    problem: Problem,
    step_size: float,
    period: int,
    *,
    starts: ArrayLike | None = None,
    box: ArrayLike = (-2.0, 2.0),
    n_starts: int = 300,
    transient: int = 1000,
    tolerance: float = 1e-12,
    max_iterations: int = 100,
    rng: int | np.random.Generator | None = 0,
) -> Cycles:
    r"""Return the distinct cycles of exactly this period that Newton's method finds.

    Every start θ is used three times, since stable and unstable cycles need different guesses:
    after a transient of the map (stable cycles), as the piece of orbit θ, G(θ), ... (unstable
    ones), and, when starts are drawn at random, as p independent points of the box. There is no
    proof that all cycles were found; in one dimension `cycle_branches` comes closer to one.

    **The radius.** Let A = DF(X)^{-1}, δ = ‖A‖ (‖F(X)‖ + what rounding can have added), and M a
    Lipschitz constant of the Hessian near the cycle, so that A·DF has the Lipschitz constant
    ‖A‖ η M. By Newton and Kantorovich, if h = ‖A‖ η M δ ≤ ½ there is exactly one cycle within
    (1 − √(1 − 2h)) / (‖A‖ η M) ≤ 2δ. Here M is *estimated*: twice the largest quotient
    ‖Hess L(x) − Hess L(y)‖ / |x − y| seen at sampled neighbours. The radius is as good as M.

    Source: multiple shooting, Levenberg–Marquardt and Newton–Kantorovich are standard; their use
    for this map is ours.

    Parameters
    ----------
    problem : Problem
        With a Hessian (`residual_curvature`). Points where `smooth` is false are
        outside the domain of smoothness; so are points where the Hessian jumps.
    step_size : float
        η > 0.
    period : int
        p ≥ 1.
    starts : array, shape (R, D), optional
        Drawn from the box by default.
    box : array, shape (2,) or (2, D)
        Lower and upper corner.
    n_starts : int
        Number of random starts; rounded up to a multiple of three.
    transient : int
        Steps of the map before a start is used as a guess for a stable cycle.
    tolerance : float
        Largest |G(x_i) − x_{i+1}| of a cycle, relative to 1 + |x|.
    max_iterations : int
        Of the solver.
    rng : int, numpy.random.Generator or None
        Seed of the starts.

    Returns
    -------
    Cycles

    Examples
    --------
    Beyond η = 1 the scalar factorisation oscillates: the diagonal 2-cycle and its mirror image.

    >>> from stabcore import ScalarFactorization
    >>> cycles = find_cycles(ScalarFactorization(), 1.2, 2, n_starts=60)
    >>> [float(cycle.multipliers[0].real.round(10)) for cycle in cycles.stable]
    [-0.68, -0.68]
    """
    check.instance("problem", problem, Problem)
    rate = check.step_size(step_size)
    count = check.integer("period", period)
    threshold = check.real("tolerance", tolerance, above=0.0)
    iterations = check.integer("max_iterations", max_iterations)
    wait = check.integer("transient", transient, minimum=0)
    corners = _corners(box, problem.n_parameters)
    generator = check.generator(rng)
    if starts is None:
        rows = -(-check.integer("n_starts", n_starts) // 3)
        low, high = corners
        seeds = generator.uniform(low, high, size=(rows, problem.n_parameters))
        loose = generator.uniform(low, high, size=(rows, count, problem.n_parameters))
    else:
        seeds = check.parameters("starts", starts, problem.n_parameters)
        seeds = seeds.reshape(-1, problem.n_parameters)
        loose = np.empty((0, count, problem.n_parameters))
    bound = ESCAPE * (1 + max(np.abs(corners).max(), np.abs(seeds).max()))
    settled = _iterate(problem, seeds, rate, wait, bound)
    guesses = np.concatenate(
        [_orbit(problem, settled, rate, count), _orbit(problem, seeds, rate, count), loose]
    )
    return _sort_out(problem, rate, guesses, bound, threshold, iterations, generator)


@check.public()
def multipliers(
    problem: Problem, step_size: float, points: ArrayLike, *, tolerance: float = 1e-8
) -> NDArray[np.complex128]:
    r"""Return the eigenvalues of DG(x_p)⋯DG(x_1) along a cycle, the largest modulus first.

    Source: paper D (the definition of stability).

    Parameters
    ----------
    problem : Problem
        With a Hessian (`residual_curvature`).
    step_size : float
        η > 0.
    points : array, shape (p, D)
        The cycle, in the order of the orbit.
    tolerance : float
        Largest |G(x_i) − x_{i+1}| that is accepted, relative to 1 + |x|.

    Returns
    -------
    array of complex, shape (D,)

    Raises
    ------
    ValueError
        If the points are no cycle.

    Examples
    --------
    A minimum of the scalar factorisation: 1 along the manifold, 1 − ηs across it.

    >>> from stabcore import ScalarFactorization
    >>> problem = ScalarFactorization()
    >>> multipliers(problem, 1.5, [problem.minimum(2.0)]).real.round(12)
    array([-2.,  1.])
    """
    check.instance("problem", problem, Problem)
    rate = check.step_size(step_size)
    limit = check.real("tolerance", tolerance, above=0.0)
    cycle = check.finite_array("points", points, ndim=2)
    check.parameters("points", cycle, problem.n_parameters)
    gap = float(_norms(_shooting(problem, rate, cycle)))
    if gap > limit * (1 + np.abs(cycle).max()):
        raise ValueError(
            f"points is no cycle: the map misses the next point by up to {gap:.3g}; "
            "take points from find_cycles, or raise tolerance."
        )
    return _eigenvalues(_transfer(gd_jacobian(problem, cycle, rate)))


@check.public()
def refine_orbit(problem: Problem, step_size: float, points: ArrayLike) -> tuple[Array, bool]:
    r"""Return the cycle near a guess, by the solver of `find_cycles`.

    Source: standard (multiple shooting).

    Parameters
    ----------
    problem : Problem
        With a Hessian (`residual_curvature`).
    step_size : float
        η > 0.
    points : array, shape (p, D)
        The guess, in the order of the orbit.

    Returns
    -------
    points : array, shape (p, D)
    converged : bool
        Whether they are a cycle inside the domain of smoothness; its smallest period may be a
        divisor of p.

    Examples
    --------
    >>> from stabcore import ScalarFactorization
    >>> cycle, converged = refine_orbit(ScalarFactorization(), 1.2, [[0.7, 0.7], [1.1, 1.1]])
    >>> float(multipliers(ScalarFactorization(), 1.2, cycle)[0].real.round(12)), converged
    (-0.68, True)
    """
    check.instance("problem", problem, Problem)
    rate = check.step_size(step_size)
    guess = check.finite_array("points", points, ndim=2)
    check.parameters("points", guess, problem.n_parameters)
    if not _smooth(problem, guess).all():
        return guess, False
    solved = _solve(problem, rate, guess[None], 1e-12, 100)[0]
    gap = float(_norms(_shooting(problem, rate, solved)))
    converged = gap <= 1e-12 * (1 + float(np.abs(solved).max()))
    return solved, converged and _inside(problem, solved)


def _corners(box: ArrayLike, dimension: int) -> Array:
    """Return the corners of a box, shape (2, D)."""
    corners = check.finite_array("box", box)
    if corners.ndim == 1:
        corners = corners[:, None]
    if corners.shape not in {(2, 1), (2, dimension)} or (corners[0] >= corners[1]).any():
        raise ValueError(
            f"box must be a lower and a higher corner, shape (2,) or (2, {dimension}), "
            f"got {np.asarray(box).tolist()}."
        )
    return np.asarray(np.broadcast_to(corners, (2, dimension)))


def _step(problem: Problem, points: Array, rate: float) -> Array:
    """Return G(points), without complaint about overflow."""
    with np.errstate(over="ignore", invalid="ignore"):
        return points - rate * problem.gradient(points)


def _iterate(problem: Problem, points: Array, rate: float, steps: int, bound: float) -> Array:
    """Return G^steps(points), NaN where the orbit passes the bound."""
    for _ in range(steps):
        points = _step(problem, points, rate)
        points = np.where((np.abs(points) <= bound).all(axis=-1, keepdims=True), points, np.nan)
    return points


def _orbit(problem: Problem, points: Array, rate: float, period: int) -> Array:
    """Return `period` points of the orbit of each start, shape (R, period, D)."""
    orbit = [points]
    for _ in range(period - 1):
        orbit.append(_step(problem, orbit[-1], rate))
    return np.stack(orbit, axis=1)


def _smooth(problem: Problem, points: Array) -> NDArray[np.bool_]:
    """Return whether each point has a Hessian and, where that is defined, a network alive."""
    with np.errstate(over="ignore", invalid="ignore"):
        smooth = np.isfinite(problem.hessian(points)).all(axis=(-1, -2))
    return np.asarray(smooth & problem.smooth(points))


def _inside(problem: Problem, points: Array) -> bool:
    """Return whether the points have smooth neighbours and the Hessian does not jump there."""
    offsets = KINK * np.vstack([np.eye(points.shape[1]), -np.eye(points.shape[1])])
    neighbours = points + offsets[:, None, :]
    if not _smooth(problem, neighbours).all():
        return False
    hessian = problem.hessian(points)
    jump = np.abs(problem.hessian(neighbours) - hessian).max()
    return bool(jump <= 1e-3 * (1 + np.abs(hessian).max()))


def _shooting(problem: Problem, rate: float, points: Array) -> Array:
    """Return F(X), shape (..., p, D)."""
    return _step(problem, points, rate) - np.roll(points, -1, axis=-2)


def _shooting_jacobian(problem: Problem, rate: float, points: Array) -> Array:
    """Return DF(X), shape (..., pD, pD): DG(x_i) in block (i, i), −I in block (i, i + 1)."""
    *leading, period, dimension = points.shape
    blocks = np.zeros((*leading, period, dimension, period, dimension))
    index = np.arange(period)
    derivative = gd_jacobian(problem, points, rate)
    for i in index:  # added, since for p = 1 the two blocks are the same
        blocks[..., i, :, i, :] += derivative[..., i, :, :]
        blocks[..., i, :, (i + 1) % period, :] -= np.eye(dimension)
    return blocks.reshape(*leading, period * dimension, period * dimension)


def _norms(shooting: Array) -> Array:
    """Return max_i |F_i|, infinite where it is not a number."""
    with np.errstate(over="ignore", invalid="ignore"):
        gaps = np.linalg.norm(shooting, axis=-1).max(axis=-1)
    return np.where(np.isfinite(gaps), gaps, np.inf)


def _solve(problem: Problem, rate: float, guesses: Array, tolerance: float, limit: int) -> Array:
    """Improve all guesses together by Levenberg–Marquardt, each with its own damping."""
    points = guesses.copy()
    values = _shooting(problem, rate, points)
    gaps = _norms(values)
    damping = np.ones(len(points))
    active = np.arange(len(points))
    for _ in range(limit):
        # A guess is done when it is at rounding level, or when no damping helps any more.
        scale = 1 + np.abs(points[active]).max(axis=(1, 2))
        active = active[(gaps[active] > 1e-3 * tolerance * scale) & (damping[active] < 1e12)]
        if active.size == 0:
            break
        with np.errstate(over="ignore", invalid="ignore"):
            step = _marquardt_step(problem, rate, points[active], values[active], damping[active])
        trial = points[active] + step
        usable = _smooth(problem, trial).all(axis=1)
        trial_values = _shooting(problem, rate, trial)
        trial_gaps = np.where(usable, _norms(trial_values), np.inf)
        better = trial_gaps < gaps[active]
        kept = active[better]
        points[kept], values[kept], gaps[kept] = (
            trial[better],
            trial_values[better],
            trial_gaps[better],
        )
        damping[active] = np.where(
            better, np.maximum(damping[active] / 8, 1e-6), damping[active] * 8
        )
    return points


def _marquardt_step(
    problem: Problem, rate: float, points: Array, values: Array, damping: Array
) -> Array:
    """Return s with (DFᵀDF + μI) s = −DFᵀF, μ = damping · ‖F‖² (but never numerically 0)."""
    jacobian = _shooting_jacobian(problem, rate, points)
    flat = values.reshape(len(values), -1, 1)
    transposed = np.swapaxes(jacobian, -1, -2)
    normal = transposed @ jacobian
    trace = np.trace(normal, axis1=-2, axis2=-1)
    shift = np.maximum(damping * (flat**2).sum(axis=(1, 2)), 64 * EPS * trace)
    normal = normal + shift[:, None, None] * np.eye(normal.shape[-1])
    return -np.asarray(np.linalg.solve(normal, transposed @ flat)).reshape(points.shape)


def _sort_out(
    problem: Problem,
    rate: float,
    guesses: Array,
    bound: float,
    tolerance: float,
    limit: int,
    rng: np.random.Generator,
) -> Cycles:
    """Solve from every guess and tell apart what came of it."""
    period = guesses.shape[1]
    outcomes = [SearchOutcome.NOT_CONVERGED] * len(guesses)
    finite = np.asarray((np.abs(guesses) <= bound).all(axis=(1, 2)))
    smooth = np.zeros(len(guesses), dtype=bool)
    if finite.any():
        smooth[finite] = _smooth(problem, guesses[finite]).all(axis=1)
    for i in np.flatnonzero(~smooth):
        outcomes[i] = SearchOutcome.LEFT_DOMAIN if finite[i] else SearchOutcome.DIVERGED
    tried = np.flatnonzero(smooth)
    solved = guesses[tried]
    converged = np.zeros(tried.size, dtype=bool)
    if tried.size:  # problems need not be able to evaluate no points at all
        solved = _solve(problem, rate, solved, tolerance, limit)
        gaps = _norms(_shooting(problem, rate, solved))
        converged = gaps <= tolerance * (1 + np.abs(solved).max(axis=(1, 2)))
    divisors: Counter[int] = Counter()
    found: list[Array] = []
    for i, points in zip(tried[converged], solved[converged], strict=True):
        smallest = _minimal_period(points)
        if not _inside(problem, points):
            outcomes[i] = SearchOutcome.LEFT_DOMAIN
        elif smallest < period:
            divisors[smallest] += 1
            outcomes[i] = SearchOutcome.DIVISOR
        elif _known(points, found):
            outcomes[i] = SearchOutcome.DUPLICATE
        else:
            found.append(points)
            outcomes[i] = SearchOutcome.FOUND
    ordered = sorted((_rotated(points) for points in found), key=lambda x: x.ravel().tolist())
    return Cycles(
        period=period,
        cycles=tuple(_certified(problem, rate, points, rng) for points in ordered),
        outcomes=tuple(outcomes),
        divisor_periods=dict(sorted(divisors.items())),
    )


def _near(points: Array, others: Array) -> NDArray[np.bool_]:
    """Return whether sets of points agree, one by one: shape (..., p, D) -> (...)."""
    distance = np.abs(points - others).max(axis=(-1, -2))
    return np.asarray(distance <= SAME * (1 + np.abs(points).max()))


def _minimal_period(points: Array) -> int:
    """Return the smallest divisor of p after which the points repeat."""
    period = len(points)
    shifts = (q for q in range(1, period) if period % q == 0)
    return next((q for q in shifts if _near(points, np.roll(points, -q, axis=0))), period)


def _known(points: Array, found: list[Array]) -> bool:
    """Return whether a cycle, however rotated, is among those found."""
    if not found:
        return False
    known = np.stack(found)
    return any(np.any(_near(np.roll(points, -q, axis=0), known)) for q in range(len(points)))


def _rotated(points: Array) -> Array:
    """Return the cycle from its lexicographically smallest point on."""
    first = min(range(len(points)), key=lambda i: points[i].tolist())
    return np.roll(points, -first, axis=0)


def _transfer(jacobians: Array) -> Array:
    """Return DG(x_p)⋯DG(x_1)."""
    product = jacobians[0]
    for factor in jacobians[1:]:
        product = np.asarray(factor @ product)
    return np.asarray(product)


def _eigenvalues(matrix: Array) -> NDArray[np.complex128]:
    """Return the eigenvalues, the largest modulus first."""
    values = np.linalg.eigvals(matrix).astype(complex)
    order = np.lexsort((-values.imag, -values.real, -np.abs(values)))
    return np.asarray(values[order])


def _certified(problem: Problem, rate: float, points: Array, rng: np.random.Generator) -> Cycle:
    """Return the cycle with its multipliers and error bounds."""
    jacobian = _shooting_jacobian(problem, rate, points)
    smallest = float(np.linalg.svd(jacobian, compute_uv=False)[-1])
    isolated = smallest > SINGULAR
    newton = float(
        np.linalg.norm(_shooting(problem, rate, points)) + _rounding(problem, rate, points)
    )
    newton /= smallest if isolated else 1.0
    lipschitz = rate * _hessian_lipschitz(problem, points, 2 * newton, rng)
    radius = math.inf
    status = "not isolated: a multiplier is 1, as on a manifold of minima or at a bifurcation"
    if isolated:
        radius = _kantorovich_radius(newton, lipschitz / smallest)
        status = "isolated"
    derivatives = gd_jacobian(problem, points, rate)
    matrix = _transfer(derivatives)
    spectrum = _eigenvalues(matrix)
    residual = float(_norms(_shooting(problem, rate, points)))
    # Bauer–Fike: the eigenvalues move by at most cond(V) times the change of the product.
    sizes = np.linalg.norm(derivatives, 2, axis=(1, 2)) + EPS
    reach = radius if math.isfinite(radius) else residual
    change = sizes.prod() * ((8 * EPS * (1 + sizes) + lipschitz * reach) / sizes).sum()
    error = float(np.linalg.cond(np.linalg.eig(matrix)[1]) * change)
    return Cycle(
        points=points,
        multipliers=spectrum,
        multiplier_error=error,
        residual=residual,
        radius=radius,
        stability=_stability(spectrum, error, isolated),
        status=status,
    )


def _stability(spectrum: NDArray[np.complex128], error: float, isolated: bool) -> str:
    """Return the verdict of the multipliers, each known to within `error`."""
    modulus = np.abs(spectrum)
    if modulus[0] > 1 + max(error, 0 if isolated else SINGULAR):
        return "unstable"
    if not isolated:
        return "neutral"
    return "stable" if modulus[0] < 1 - error else "undecided"


def _rounding(problem: Problem, rate: float, points: Array) -> float:
    """Return a bound for what rounding can have changed in F(X)."""
    # A gradient is computed as exactly as if its argument had been changed by a few ulps.
    hessians = np.linalg.norm(problem.hessian(points), axis=(-2, -1))
    sizes = np.linalg.norm(points, axis=-1)
    moves = rate * np.linalg.norm(problem.gradient(points), axis=-1)
    return float(8 * EPS * np.linalg.norm((1 + rate * hessians) * sizes + moves))


def _hessian_lipschitz(
    problem: Problem, points: Array, reach: float, rng: np.random.Generator
) -> float:
    """Return twice the largest ‖Hess L(x) − Hess L(y)‖ / |x − y| among sampled neighbours y."""
    radius = max(NEIGHBOURHOOD * (1 + float(np.abs(points).max())), reach)
    direction = rng.normal(size=(NEIGHBOURS, *points.shape))
    direction *= radius / np.linalg.norm(direction, axis=-1, keepdims=True)
    change = problem.hessian(points + direction) - problem.hessian(points)
    return float(2 * np.linalg.norm(change, 2, axis=(-2, -1)).max() / radius)


def _kantorovich_radius(newton: float, slope: float) -> float:
    """Return (1 − √(1 − 2h)) / slope with h = slope · newton; infinite where h > ½."""
    h = slope * newton
    return 2 * newton / (1 + math.sqrt(1 - 2 * h)) if h <= 0.5 else math.inf
