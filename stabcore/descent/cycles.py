"""Periodic orbits: a search for all cycles of one period, with error bounds for each.

`_shooting` has the solver and `_certificates` the bounds; both serve every function that follows
a cycle, on a line or in the space of all parameters.

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
from stabcore._constants import SAME_POINT
from stabcore._validation import Array
from stabcore.descent._certificates import (
    SINGULAR,
    Cycle,
    certified,
    eigenvalues,
    isolation,
    transfer,
)
from stabcore.descent._shooting import (
    Dynamics,
    as_dynamics,
    iterate,
    repeats_after,
    shooting,
    solve,
)
from stabcore.descent._symmetries import symmetries_of
from stabcore.descent.lines import LineMap, MapLike
from stabcore.problems.base import Problem

ESCAPE = 1e3  # an orbit that is this many times farther out than the box has diverged

NEARLY_SAME = 1e-2  # relative distance of degenerate cycles that may be one

REDRAWS = 1000  # of the dead among random starts

KINK = 1e-8  # distance of the neighbours that must be smooth too


class SearchOutcome(Enum):
    """What became of one start."""

    FOUND = "found"
    """The first to find its cycle (or an image of it by a symmetry of the map)."""
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
    hits : tuple of int
        How many starts found each cycle, or an image of it by a symmetry of the map.
    missing : float
        How many more cycles there are at least, by the estimate of Chao: (C/c) f₁²/(2f₂) for C
        cycles that are c up to symmetry, of which f₁ were hit once and f₂ twice (f₁(f₁ − 1)/2
        instead if f₂ = 0). 0 says that each was found again; NaN that none was found.
    coverage : float
        The share of the starts which find a cycle that find one of these, by the estimate of Good
        and Turing: 1 − f₁/Σ hits; NaN if none was found.
    """

    period: int
    cycles: tuple[Cycle, ...]
    outcomes: tuple[SearchOutcome, ...]
    divisor_periods: dict[int, int]
    hits: tuple[int, ...]
    missing: float
    coverage: float

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
        """Return the counts in words, and what they say about cycles that were not found."""
        counts = ", ".join(f"{n} {kind.value}" for kind, n in Counter(self.outcomes).items())
        text = (
            f"{len(self.cycles)} cycles of period {self.period} "
            f"from {len(self.outcomes)} starts: {counts}"
        )
        if not self.cycles:
            return text
        least = min(self.hits)
        often = "once" if least == 1 else f"{least} times"
        return (
            f"{text}; each was hit at least {often}, which points to about "
            f"{self.missing:.0f} missing"
        )


@check.public()
def find_cycles(
    problem: MapLike,
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
    ones), and, when starts are drawn at random, as p independent points of the box. Random points
    are drawn where the loss is smooth and the network alive.

    **Recall.** There is no proof that all cycles were found; in one dimension `cycle_branches`
    comes closer to one. But cycles that are missing betray themselves by others that were hit only
    once: `missing` and `coverage` are the usual estimates from such counts. Where the map has a
    symmetry (a swap of two coordinates, changes of sign), the images of a cycle are cycles and are
    added, unless you pass the starts yourself.

    **The radius.** Let A = DF(X)^{-1}, δ = ‖A‖ (‖F(X)‖ + what rounding can have added), and M a
    Lipschitz constant of the Hessian near the cycle, so that A·DF has the Lipschitz constant
    ‖A‖ η M. By Newton and Kantorovich, if h = ‖A‖ η M δ ≤ ½ there is exactly one cycle within
    (1 − √(1 − 2h)) / (‖A‖ η M) ≤ 2δ. Here M is *estimated*: twice the largest quotient
    ‖Hess L(x) − Hess L(y)‖ / |x − y| seen at sampled neighbours. The radius is as good as M.

    Source: multiple shooting, Newton–Kantorovich and the estimates of Good, Turing and Chao are
    standard; their use for this map is ours.

    Parameters
    ----------
    problem : Problem or ScalarMap
        A problem is searched in the space of its parameters and needs a Hessian
        (`residual_curvature`); for a line of them pass its `LineMap`. Points where `smooth` is
        false are outside the domain of smoothness; so are points where the Hessian jumps.
    step_size : float
        η > 0; the parameter, of a map of one's own.
    period : int
        p ≥ 1.
    starts : array, shape (R, D), optional
        Drawn from the box by default.
    box : array, shape (2,) or (2, D)
        Lower and upper corner of where random starts are drawn.
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
    dynamics, rate = _arguments(problem, step_size)
    count = check.integer("period", period)
    threshold = check.real("tolerance", tolerance, above=0.0)
    iterations = check.integer("max_iterations", max_iterations)
    wait = check.integer("transient", transient, minimum=0)
    size = dynamics.dimension
    corners = _corners(box, size)
    generator = check.generator(rng)
    if starts is None:
        rows = -(-check.integer("n_starts", n_starts) // 3)
        seeds = _drawn(dynamics, corners, (rows, size), generator)
        loose = _drawn(dynamics, corners, (rows, count, size), generator)
    else:
        seeds = check.parameters("starts", starts, size).reshape(-1, size)
        loose = np.empty((0, count, size))
    bound = ESCAPE * (1 + max(np.abs(corners).max(), np.abs(seeds).max()))
    with np.errstate(over="ignore", invalid="ignore"):
        settled = _settled(dynamics, seeds, rate, wait, bound)
        orbits = [iterate(dynamics, points, rate, count) for points in (settled, seeds)]
    guesses = np.concatenate([*orbits, loose])
    symmetries = symmetries_of(dynamics, rate, corners) if starts is None else ()
    return _sort_out(dynamics, rate, guesses, symmetries, bound, threshold, iterations, generator)


@check.public()
def multipliers(
    problem: MapLike, step_size: float, points: ArrayLike, *, tolerance: float = 1e-8
) -> NDArray[np.complex128]:
    r"""Return the eigenvalues of DG(x_p)⋯DG(x_1) along a cycle, the largest modulus first.

    Source: paper D (the definition of stability).

    Parameters
    ----------
    problem : Problem or ScalarMap
        A problem needs a Hessian (`residual_curvature`).
    step_size : float
        η > 0; the parameter, of a map of one's own.
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
    dynamics, rate = _arguments(problem, step_size)
    limit = check.real("tolerance", tolerance, above=0.0)
    cycle = check.finite_array("points", points, ndim=2)
    check.parameters("points", cycle, dynamics.dimension)
    gap = float(np.linalg.norm(shooting(dynamics, cycle, rate), axis=-1).max())
    if gap > limit * (1 + np.abs(cycle).max()):
        raise ValueError(
            f"points is no cycle: the map misses the next point by up to {gap:.3g}; "
            "take points from find_cycles, or raise tolerance."
        )
    return eigenvalues(transfer(dynamics.derivative(cycle, rate)))


@check.public()
def refine_orbit(problem: MapLike, step_size: float, points: ArrayLike) -> tuple[Array, bool]:
    r"""Return the cycle near a guess, by the solver of `find_cycles`.

    Source: standard (multiple shooting).

    Parameters
    ----------
    problem : Problem or ScalarMap
        A problem needs a Hessian (`residual_curvature`).
    step_size : float
        η > 0; the parameter, of a map of one's own.
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
    dynamics, rate = _arguments(problem, step_size)
    guess = check.finite_array("points", points, ndim=2)
    check.parameters("points", guess, dynamics.dimension)
    (cycle,), _, (gap,) = solve(dynamics, rate, guess[None])
    converged = gap <= 1e-12 * (1 + np.abs(cycle).max()) and _inside(dynamics, rate, cycle)
    return cycle, bool(converged)


def _arguments(problem: MapLike, step_size: float) -> tuple[Dynamics, float]:
    """Return the map and its parameter, which may be any number for a map of one's own."""
    dynamics = as_dynamics(problem)
    if isinstance(problem, Problem | LineMap):
        return dynamics, check.step_size(step_size)
    return dynamics, check.real("step_size", step_size)


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


def _drawn(
    dynamics: Dynamics, corners: Array, shape: tuple[int, ...], rng: np.random.Generator
) -> Array:
    """Return points that are uniform on the smooth and living part of a box."""
    low, high = corners
    points = rng.uniform(low, high, size=shape)
    for _ in range(REDRAWS):
        dead = ~dynamics.alive(points)
        if not dead.any():
            return points
        points[dead] = rng.uniform(low, high, size=(int(dead.sum()), shape[-1]))
    raise ValueError(
        f"box from {corners[0].tolist()} to {corners[1].tolist()} has hardly a point where the "
        "loss is smooth and the network alive; choose another box, or pass starts."
    )


def _settled(
    dynamics: Dynamics, points: Array, parameter: float, steps: int, bound: float
) -> Array:
    """Return G^steps(points), NaN where the orbit passes the bound."""
    for _ in range(steps):
        points = dynamics.step(points, parameter)
        points = np.where((np.abs(points) <= bound).all(axis=-1, keepdims=True), points, np.nan)
    return points


def _inside(dynamics: Dynamics, parameter: float, points: Array) -> bool:
    """Return whether the points have smooth neighbours and the derivative does not jump there."""
    offsets = KINK * np.vstack([np.eye(dynamics.dimension), -np.eye(dynamics.dimension)])
    neighbours = points + offsets[:, None, :]
    derivative = dynamics.derivative(points, parameter)
    beside = dynamics.derivative(neighbours, parameter)
    if not (np.isfinite(beside).all() and dynamics.alive(neighbours).all()):
        return False
    bend = 1 + np.abs(np.eye(dynamics.dimension) - derivative).max()
    return bool(np.abs(beside - derivative).max() <= 1e-3 * bend)


def _sort_out(
    dynamics: Dynamics,
    parameter: float,
    guesses: Array,
    symmetries: tuple[Array, ...],
    bound: float,
    tolerance: float,
    limit: int,
    rng: np.random.Generator,
) -> Cycles:
    """Solve from every guess and tell apart what came of it."""
    period = guesses.shape[1]
    outcomes = [SearchOutcome.DIVERGED] * len(guesses)
    divisors: Counter[int] = Counter()
    found: list[Array] = []
    families: list[int] = []  # of each cycle: the first of its images
    hits: Counter[int] = Counter()
    tried = np.flatnonzero((np.abs(guesses) <= bound).all(axis=(1, 2)))
    solved = solve(dynamics, parameter, guesses[tried], tolerance=tolerance, limit=limit)
    for i, points, gap in zip(tried, solved.points, solved.gaps, strict=True):
        if np.isinf(gap):
            outcomes[i] = SearchOutcome.LEFT_DOMAIN
        elif gap > tolerance * (1 + np.abs(points).max()):
            outcomes[i] = SearchOutcome.NOT_CONVERGED
        elif not _inside(dynamics, parameter, points):
            outcomes[i] = SearchOutcome.LEFT_DOMAIN
        elif (smallest := _true_period(dynamics, parameter, points)) < period:
            divisors[smallest] += 1
            outcomes[i] = SearchOutcome.DIVISOR
        elif (known := _known(points, found)) is not None:
            hits[families[known]] += 1
            outcomes[i] = SearchOutcome.DUPLICATE
        else:
            family = len(found)
            _add_images(points, symmetries, found)
            families += [family] * (len(found) - family)
            hits[family] += 1
            outcomes[i] = SearchOutcome.FOUND
    turned = [_rotated(points) for points in found]
    order = sorted(range(len(found)), key=lambda i: turned[i].ravel().tolist())
    missing, coverage = _recall(hits, len(found))
    return Cycles(
        period=period,
        cycles=tuple(certified(dynamics, parameter, turned[i], rng) for i in order),
        outcomes=tuple(outcomes),
        divisor_periods=dict(sorted(divisors.items())),
        hits=tuple(hits[families[i]] for i in order),
        missing=missing,
        coverage=coverage,
    )


def _add_images(points: Array, symmetries: tuple[Array, ...], found: list[Array]) -> None:
    """Append a new cycle and all that symmetries make of it."""
    waiting = [points]
    while waiting:
        points = waiting.pop()
        if _known(points, found) is None:
            found.append(points)
            waiting += [points @ symmetry.T for symmetry in symmetries]


def _recall(hits: Counter[int], cycles: int) -> tuple[float, float]:
    """Return the estimates of Chao and of Good and Turing, from the hits up to symmetry."""
    if not hits:
        return math.nan, math.nan
    counts = list(hits.values())
    once, twice = counts.count(1), counts.count(2)
    missing = once**2 / (2 * twice) if twice else once * (once - 1) / 2
    return missing * cycles / len(counts), 1 - once / sum(counts)


def _true_period(dynamics: Dynamics, parameter: float, points: Array) -> int:
    """Return the smallest period of the cycle that Newton's method approached."""
    period, reach = repeats_after(points), NEARLY_SAME * (1 + np.abs(points).max())
    if period == 1 or isolation(dynamics.derivative(points, parameter)) > SINGULAR:
        return period
    # At a bifurcation the p-cycle and one of a divisor period are one, and G^p − id has a zero of
    # third order: points that are off by 10⁻⁴ have gaps of 10⁻¹².
    for divisor in (q for q in range(1, period) if period % q == 0):
        short = points[:divisor]
        if np.abs(points[:period] - np.tile(short, (period // divisor, 1))).max() > reach:
            continue
        (solution,), _, (gap,) = solve(dynamics, parameter, short[None])
        if np.abs(solution - short).max() <= reach and gap <= 1e-12 * reach / NEARLY_SAME:
            return repeats_after(solution)
    return period


def _known(points: Array, found: list[Array]) -> int | None:
    """Return which of those found a cycle is, however rotated."""
    if not found:
        return None
    known, reach = np.stack(found), SAME_POINT * (1 + np.abs(points).max())
    for q in range(len(points)):
        same = np.abs(np.roll(points, -q, axis=0) - known).max(axis=(1, 2)) <= reach
        if same.any():
            return int(np.argmax(same))
    return None


def _rotated(points: Array) -> Array:
    """Return the cycle from its lexicographically smallest point on."""
    first = min(range(len(points)), key=lambda i: points[i].tolist())
    return np.roll(points, -first, axis=0)
