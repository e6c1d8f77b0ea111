r"""From which starts does gradient descent converge? Basins, shares, asymptotic gradient norms.

Convergence is never judged by a small loss: near an unstable minimum a run can come close and
leave again, and rounding can hold it there. Instead:

- For `ScalarFactorization`, `ReluPair` and `ScalarChain` the residual δ = 1 − x₁⋯x_k is only ever
  multiplied, δ' = δ(1 − ηT), with T = Σ_i q_i² + O(δ) and q_i the product of all factors but x_i.
  A run is converged when an inequality proves that |1 − ηT| stays below one number below 1 for
  ever: the steps then form a geometric series too short to lead out of the set where that holds.
- For any other `Problem` a run is converged when its gradient is small and still falling and the
  Hessian says that the critical point is one gradient descent can stay at: ηλ_max < 2, and no
  negative eigenvalue (a slow passage by a saddle has a small gradient too). This is a numerical
  criterion, not a proof.

(Our derivation.) A run that does neither that nor leave every bound is undecided: bounded, and
not converging within the steps given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv

from stabcore import _validation as check
from stabcore._constants import EXACT_CEILING
from stabcore._random import run_replicas
from stabcore._validation import Array
from stabcore.problems.base import Problem, declared_product
from stabcore.problems.checking import GRADIENT, HESSIAN, require_problem

Endings = NDArray[np.int64]

UNDECIDED, CONVERGED, DEAD, DIVERGED, CRITICAL = range(5)  # plain integers for the compiled loops

RESET = 0.1  # above it 1 − x₁⋯x_k is as accurate as the product that δ is, and nothing adds up

LANES = 16

STRIDE = 10  # steps between two looks at a scalar model

CHECK_EVERY = 50  # steps between two looks at a general problem

GRADIENT_TOLERANCE = 1e-6  # in units of λ_max (1 + |θ|): the relative distance still to go

NEGATIVE_TOLERANCE = 1e-3  # in units of λ_max: curvature that the residuals still left explain


class Ending(IntEnum):
    """How gradient descent ends."""

    UNDECIDED = UNDECIDED
    """Bounded and not converging when the steps ran out."""
    CONVERGED = CONVERGED
    """It tends to a critical point, by the criterion of this module."""
    DEAD = DEAD
    """The gradient is 0 on a plateau: a ReLU died."""
    DIVERGED = DIVERGED
    """It left every bound."""
    CRITICAL = CRITICAL
    """The gradient is exactly 0 at a saddle or a maximum: the run stays, its neighbours leave."""


@dataclass(frozen=True, kw_only=True)
class ConvergedFraction:
    """The share of random starts from which gradient descent converges.

    Attributes
    ----------
    value : float
        Share of the runs that converged.
    lower, upper : float
        Exact (Clopper-Pearson) confidence interval of the probability to converge.
    confidence : float
        Its level.
    counts : dict from Ending to int
        Runs by fate; undecided ones do not count as converged.
    """

    value: float
    lower: float
    upper: float
    confidence: float
    counts: dict[Ending, int]

    def __str__(self) -> str:
        """Return the share with its interval, and the counts in words."""
        counts = ", ".join(f"{n} {end.name.lower()}" for end, n in self.counts.items() if n)
        return (
            f"{self.value:.4g} of the runs converge (probability in [{self.lower:.4g}, "
            f"{self.upper:.4g}] at {self.confidence:.0%} confidence): {counts}"
        )


@check.public()
def endings(problem: Problem, starts: ArrayLike, step_size: float, steps: int) -> Endings:
    """Return how gradient descent ends from each start.

    Source: our derivation.

    Parameters
    ----------
    problem : Problem
        With a Hessian, unless it is one of the scalar models.
    starts : array, shape (..., D)
    step_size : float
        η > 0.
    steps : int
        Most steps per run; a run stops when its fate is decided.

    Returns
    -------
    array of int, shape (...)
        Values of `Ending`: converged (see above), dead (zero gradient on a plateau: a ReLU died),
        diverged (beyond 10¹⁵⁰), critical (zero gradient at a saddle or a maximum) or undecided.

    Examples
    --------
    >>> from stabcore import ScalarFactorization
    >>> ends = endings(ScalarFactorization(), [[1.2, 0.6], [4.0, 4.0]], 0.5, 500)
    >>> [Ending(end).name for end in ends]
    ['CONVERGED', 'DIVERGED']
    """
    theta, rate = _arguments(problem, starts, step_size, GRADIENT, HESSIAN)
    limit = check.integer("steps", steps)
    flat = theta.reshape(-1, problem.n_parameters)
    ends = np.zeros(len(flat), np.int64)
    kernel = _fate_kernel(problem, flat, rate, limit, ends)
    if kernel is None:
        _general_fates(problem, flat, rate, limit, ends)
    else:
        run_replicas(kernel, len(flat))
    return ends.reshape(theta.shape[:-1])


@check.public()
def basin(problem: Problem, x: ArrayLike, y: ArrayLike, step_size: float, steps: int) -> Endings:
    """Return how gradient descent ends from every point of a rectangle, for two parameters.

    For another plane in a larger space call `endings` with its points.

    Parameters
    ----------
    problem : Problem
        With D = 2.
    x, y : arrays, shapes (n,), (m,)
        The values of θ₁ and θ₂.
    step_size : float
        η > 0.
    steps : int

    Returns
    -------
    array of int, shape (m, n)
        Values of `Ending`; row j belongs to y[j], as `pcolormesh(x, y, basin)` wants it.

    Examples
    --------
    >>> from stabcore import ScalarFactorization
    >>> basin(ScalarFactorization(), [0.5, 2.0, 2.5], [1.0, 2.5], 0.5, 500)
    array([[1, 1, 1],
           [1, 3, 3]])
    """
    require_problem(problem)
    if problem.n_parameters != 2:
        raise ValueError(
            f"problem must have two parameters, got {problem.n_parameters}; call endings with the "
            "points of a plane."
        )
    first, second = check.finite_array("x", x, ndim=1), check.finite_array("y", y, ndim=1)
    return endings(problem, np.stack(np.meshgrid(first, second), axis=-1), step_size, steps)


@check.public()
def converged_fraction(
    problem: Problem, starts: ArrayLike, step_size: float, steps: int, *, confidence: float = 0.95
) -> ConvergedFraction:
    """Return the share of random starts from which gradient descent converges.

    Parameters
    ----------
    problem : Problem
    starts : array, shape (..., D)
        Independent draws from the law of the starts.
    step_size : float
        η > 0.
    steps : int
    confidence : float
        Level of the interval, in (0, 1).

    Returns
    -------
    ConvergedFraction

    Examples
    --------
    >>> import numpy as np
    >>> from stabcore import ScalarFactorization
    >>> starts = np.random.default_rng(0).uniform(0.5, 1.5, size=(1000, 2))
    >>> share = converged_fraction(ScalarFactorization(), starts, 0.5, 1_000)
    >>> share.value, share.lower > 0.996
    (1.0, True)
    """
    level = check.real("confidence", confidence, above=0.0, below=1.0)
    ends = endings(problem, starts, step_size, steps)
    counts = {fate: int((ends == fate).sum()) for fate in Ending}
    hits, total, tail = counts[Ending.CONVERGED], ends.size, (1 - level) / 2
    return ConvergedFraction(
        value=hits / total,
        # Clopper and Pearson: quantiles of beta laws, and nothing to leave out at the ends.
        lower=float(betaincinv(hits, total - hits + 1, tail)) if hits else 0.0,
        upper=float(betaincinv(hits + 1, total - hits, 1 - tail)) if hits < total else 1.0,
        confidence=level,
        counts=counts,
    )


@check.public()
def asymptotic_gradient_norm(
    problem: Problem, starts: ArrayLike, step_size: float, steps: int, *, average: int = 100
) -> Array:
    r"""Return |∇L|, averaged over the last steps, for each start.

    It tends to 0 where gradient descent converges. For `ScalarFactorization()` above η = 1 it
    is √(2(1 − 1/η))/η on the 2-cycle, which is stable up to η = √5 − 1 (our derivation); every
    bounded start that we tried tends to it.

    Source: paper C (the quantity).

    Parameters
    ----------
    problem : Problem
    starts : array, shape (..., D)
    step_size : float
        η > 0.
    steps : int
    average : int
        How many of the last steps to average over, an even number so that 2-cycles come out even.

    Returns
    -------
    array, shape (...)
        ∞ where the run diverged.

    Examples
    --------
    >>> import numpy as np
    >>> from stabcore import ScalarFactorization
    >>> norm = asymptotic_gradient_norm(ScalarFactorization(), [1.2, 0.9], 1.2, 10_000)
    >>> float((norm / (np.sqrt(2 * (1 - 1 / 1.2)) / 1.2)).round(9))
    1.0
    """
    theta, rate = _arguments(problem, starts, step_size, GRADIENT)
    limit = check.integer("steps", steps)
    window = check.integer("average", average)
    if window > limit:
        raise ValueError(f"average must be at most steps = {limit}, got {window}; lower it.")
    flat = theta.reshape(-1, problem.n_parameters)
    norms = np.zeros(len(flat))
    kernel = _norm_kernel(problem, flat, rate, limit, window, norms)
    if kernel is None:
        _general_norms(problem, flat, rate, limit, window, norms)
    else:
        run_replicas(kernel, len(flat))
    return norms.reshape(theta.shape[:-1])[()]


def _arguments(
    problem: Problem, starts: ArrayLike, step_size: float, *uses: str
) -> tuple[Array, float]:
    require_problem(problem, *uses)
    return check.parameters("starts", starts, problem.n_parameters), check.step_size(step_size)


def _fate_kernel(
    problem: Problem, theta: Array, rate: float, limit: int, ends: Endings
) -> Callable[[slice], None] | None:
    """Return the compiled loop that decides the fates of a slice of the runs, if there is one."""
    model = declared_product(problem)
    if model is None:
        return None
    c = rate * model.curvature
    if model.depth == 2:
        return lambda part: _factorisation_fates(c, model.relu, limit, theta[part], ends[part])
    points = theta.copy()
    return lambda part: _chain_fates(c, limit, points[part], ends[part])


def _norm_kernel(
    problem: Problem, theta: Array, rate: float, limit: int, window: int, norms: Array
) -> Callable[[slice], None] | None:
    """Return the compiled loop that averages the gradient norms of a slice, if there is one."""
    model = declared_product(problem)
    if model is None or model.relu:
        return None
    kappa, c = model.curvature, rate * model.curvature
    if model.depth == 2:
        return lambda part: _factorisation_norms(kappa, c, limit, window, theta[part], norms[part])
    points = theta.copy()
    if kappa != 1:
        return None
    return lambda part: _chain_norms(c, limit, window, points[part], norms[part])


@njit(inline="always")
def _coordinates(c, x, y):  # type: ignore[no-untyped-def]
    """Return t = c(1 − θ₁θ₂) = cδ, u = c(θ₁ + θ₂)²/2 and v = c(θ₁ − θ₂)²/2; u + v is cs."""
    return c * (1.0 - x * y), 0.5 * c * (x + y) ** 2, 0.5 * c * (x - y) ** 2


@njit(inline="always")
def _advance(c, t, u, v):  # type: ignore[no-untyped-def]
    """Take one step: t' = t(1 − u − v − t(u − v)/2), u' = u(1 + t)², v' = v(1 − t)²."""
    # All three are only multiplied, so that the lines u = 0 and v = 0 are kept, too. The product
    # θ₁θ₂ is taken from u and v, not from t: then t = c − (u − v)/2 is conserved and rounding
    # errors do not grow.
    moved = t * (1.0 - (u + v) - t * (0.5 * (u - v)))
    u *= (1.0 + t) ** 2
    v *= (1.0 - t) ** 2
    direct = c - 0.5 * (u - v)
    return direct if abs(moved) > c * RESET else moved, u, v


@njit(inline="always")
def _trapped(c, t, curvature):  # type: ignore[no-untyped-def]
    """Whether t → 0 is proved: |t'/t| ≤ r < 1 now and ever after; `curvature` is u + v."""
    # With g = 1 − |1 − cs| and r = 1 − g/2: while |δ'/δ| ≤ r, Σ|δ| ≤ 2|δ|/g, so that cs changes by
    # less than c²(2|δ|/g)(4 + 6|δ|), and |δ'/δ| ≤ |1 − cs| + c²|δ|(1 + |δ|). Both together leave
    # |δ'/δ| ≤ r if they are below g/2.
    size, gap = abs(t), 1.0 - abs(1.0 - curvature)
    return gap > 0.0 and 2 * size * (8 * c + 12 * size + gap * (c + size)) <= gap * gap


@njit(nogil=True, cache=True)
def _factorisation_fates(c, relu, limit, theta, ends):  # type: ignore[no-untyped-def]
    # Runs advance side by side, `LANES` of them, which the processor does at once; between two
    # looks at their fates a decided run goes on, which costs nothing and harms nobody.
    t, u, v, dead = np.zeros(LANES), np.zeros(LANES), np.zeros(LANES), np.zeros(LANES, np.bool_)
    for first in range(0, len(theta), LANES):
        size = min(LANES, len(theta) - first)
        for j in range(size):
            x, y = theta[first + j, 0], theta[first + j, 1]
            t[j], u[j], v[j] = _coordinates(c, x, y)
            dead[j] = relu and not (x > 0.0 and y > 0.0)
        step = 0
        while True:
            going = False
            for j in range(size):
                if ends[first + j] == UNDECIDED:
                    ends[first + j] = _factorisation_fate(c, relu, t[j], u[j], v[j], dead[j])
                    going |= ends[first + j] == UNDECIDED
            if step == limit or not going:
                break
            stride = min(STRIDE, limit - step)
            for _ in range(stride):
                for j in range(LANES):
                    dead[j] |= relu & (t[j] <= -1.0)
                    t[j], u[j], v[j] = _advance(c, t[j], u[j], v[j])
                    dead[j] |= relu & (t[j] >= c)
            step += stride


@njit(inline="always")
def _factorisation_fate(c, relu, t, u, v, dead):  # type: ignore[no-untyped-def]
    if dead:
        return DEAD
    # While |δ| < 1 and c|δ| < 1 no ReLU dies.
    safe = not relu or abs(t) < min(1.0, c)
    if t == 0.0 or (safe and _trapped(c, t, u + v)):
        return CONVERGED
    if u == 0.0 and v == 0.0:
        return CRITICAL
    if not (abs(t) < EXACT_CEILING and u + v < EXACT_CEILING):
        return DIVERGED
    return UNDECIDED


@njit(nogil=True, cache=True)
def _factorisation_norms(kappa, c, limit, window, theta, norms):  # type: ignore[no-untyped-def]
    t, u, v, total = np.zeros(LANES), np.zeros(LANES), np.zeros(LANES), np.zeros(LANES)
    for first in range(0, len(theta), LANES):
        size = min(LANES, len(theta) - first)
        for j in range(size):
            t[j], u[j], v[j] = _coordinates(c, theta[first + j, 0], theta[first + j, 1])
        total[:] = 0.0
        for step in range(limit):
            if step >= limit - window:
                total += np.abs(t) * np.sqrt(u + v)
            for j in range(LANES):
                t[j], u[j], v[j] = _advance(c, t[j], u[j], v[j])
        for j in range(size):
            bounded = abs(t[j]) < EXACT_CEILING and u[j] + v[j] < EXACT_CEILING
            mean = kappa * total[j] / (c**1.5 * window)  # |∇L| = κ|δ|√s
            norms[first + j] = mean if bounded and mean < EXACT_CEILING else np.inf


@njit(inline="always")
def _others(x, others):  # type: ignore[no-untyped-def]
    """Write the products of all factors but one, without division; return that of all."""
    product = 1.0
    for i in range(x.size):
        others[i] = product
        product *= x[i]
    tail = 1.0
    for i in range(x.size - 1, -1, -1):
        others[i] *= tail
        tail *= x[i]
    return product


@njit(inline="always")
def _chain_move(rate, delta, x, others):  # type: ignore[no-untyped-def]
    """Take one step and return δ' = δ(1 − ηT)."""
    # T = (Π(x_i + ηδq_i) − Πx_i)/(ηδ), built up factor by factor, so that nothing cancels.
    growth, head = 0.0, 1.0
    for i in range(x.size):
        moved = x[i] + rate * delta * others[i]
        growth = growth * moved + head * others[i]
        head *= x[i]
        x[i] = moved
    return delta * (1.0 - rate * growth)


@njit(inline="always")
def _chain_trapped(rate, delta, product, x, others):  # type: ignore[no-untyped-def]
    """Whether δ → 0 is proved: |δ'/δ| ≤ r < 1 now and ever after."""
    # With g = 1 − |1 − ηΣq²| and r = 1 − g/2: while no factor has changed by more than its share
    # ρ = g/(16k), T is within a factor (1 ± ρ)^(2k−2) of Σq², so that |δ'/δ| ≤ r; and then all
    # changes together, η q_i (1 + ρ)^(k−1) Σ|δ| with Σ|δ| ≤ 2|δ|/g, are below ρ|x_i|.
    curvature, smallest = 0.0, np.inf
    for i in range(x.size):
        curvature += others[i] ** 2
        smallest = min(smallest, x[i] ** 2)
    gap = 1.0 - abs(1.0 - rate * curvature)
    reach = 1.07 * 32 * x.size * rate * abs(delta * product)
    return gap > 0.0 and reach <= gap * gap * smallest


@njit(nogil=True, cache=True)
def _chain_fates(rate, limit, points, ends):  # type: ignore[no-untyped-def]
    others = np.empty(points.shape[1])
    for run in range(len(points)):
        x, fate = points[run], UNDECIDED
        delta, step = 1.0, 0
        while True:
            product = _others(x, others)
            if step == 0 or abs(delta) > RESET:
                delta = 1.0 - product
            if delta == 0.0 or _chain_trapped(rate, delta, product, x, others):
                fate = CONVERGED
            elif not (abs(delta) < EXACT_CEILING and np.abs(x).max() < EXACT_CEILING):
                fate = DIVERGED
            elif not others.any():
                fate = CRITICAL
            if fate != UNDECIDED or step == limit:
                break
            delta = _chain_move(rate, delta, x, others)
            step += 1
        ends[run] = fate


@njit(nogil=True, cache=True)
def _chain_norms(rate, limit, window, points, norms):  # type: ignore[no-untyped-def]
    others = np.empty(points.shape[1])
    for run in range(len(points)):
        x, delta, total = points[run], 1.0, 0.0
        for step in range(limit):
            product = _others(x, others)
            if step == 0 or abs(delta) > RESET:
                delta = 1.0 - product
            if not (abs(delta) < EXACT_CEILING and np.abs(x).max() < EXACT_CEILING):
                total = np.inf
                break
            if step >= limit - window:
                total += abs(delta) * np.sqrt((others**2).sum())
            delta = _chain_move(rate, delta, x, others)
        norms[run] = total / window


def _general_fates(problem: Problem, theta: Array, rate: float, limit: int, ends: Endings) -> None:
    """Follow all runs together; every `CHECK_EVERY` steps the decided ones drop out."""
    active = np.arange(len(theta))
    with np.errstate(over="ignore", invalid="ignore"):
        before = np.linalg.norm(problem.gradient(theta), axis=-1)
        for done in range(0, limit, CHECK_EVERY):
            for _ in range(min(CHECK_EVERY, limit - done)):
                theta = theta - rate * problem.gradient(theta)
            gradient = np.linalg.norm(problem.gradient(theta), axis=-1)
            bounded = np.abs(theta).max(axis=-1) < EXACT_CEILING  # false for NaN
            ends[active[~bounded]] = DIVERGED
            settled = bounded & ((gradient < before) | (gradient == 0))
            if settled.any():
                ends[active[settled]] = _settled(problem, theta[settled], gradient[settled], rate)
            going = bounded & (ends[active] == UNDECIDED)
            active, theta, before = active[going], theta[going], gradient[going]
            if active.size == 0:
                return


def _settled(problem: Problem, theta: Array, gradient: Array, rate: float) -> Endings:
    """Return the fate of runs whose gradient falls, by the Hessian where they are."""
    ends = np.full(len(theta), UNDECIDED, np.int64)
    # With λ_max < 2/η the test below implies this one, which needs no Hessian.
    scale = 1 + np.linalg.norm(theta, axis=-1)
    near = np.flatnonzero(rate * gradient <= 2 * GRADIENT_TOLERANCE * scale)
    if near.size == 0:
        return ends
    spectrum = np.linalg.eigvalsh(problem.hessian(theta[near]))
    low, high = spectrum[:, 0], spectrum[:, -1]
    small = gradient[near] <= GRADIENT_TOLERANCE * high * scale[near]
    stable = (rate * high < 2) & (low >= -NEGATIVE_TOLERANCE * high)
    still, minimum = gradient[near] == 0, low >= -NEGATIVE_TOLERANCE * high
    ends[near[still]] = np.where(minimum[still], CONVERGED, CRITICAL)
    ends[near[small & stable]] = CONVERGED
    ends[near[still & (low == 0) & (high == 0)]] = DEAD
    return ends


def _general_norms(
    problem: Problem, theta: Array, rate: float, limit: int, window: int, norms: Array
) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        for step in range(limit):
            gradient = problem.gradient(theta)
            if step >= limit - window:
                norms += np.linalg.norm(gradient, axis=-1) / window
            theta = theta - rate * gradient
    norms[~np.isfinite(norms)] = np.inf
