"""Where the cycles of periods 1, 2, 4, ... lose their stability."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from stabcore import _validation as check
from stabcore._validation import Array
from stabcore.descent.cycles import refine_orbit
from stabcore.descent.diagrams import SAME
from stabcore.descent.lines import (
    EPS,
    LineMap,
    MapLike,
    ScalarMap,
    as_scalar_map,
    refine_cycle,
)
from stabcore.descent.map import gd_jacobian
from stabcore.problems.base import Problem

FEIGENBAUM = 4.669201609102990  # the limit of the ratios of period doublings

FLAT = 1e-7  # a minimum with curvatures below this fraction of the largest is not isolated

MARCH = 8  # expected distances to a doubling within which it must come


@dataclass(frozen=True, kw_only=True)
class PeriodDoublings:
    """The parameters at which the cycles of periods 1, 2, 4, ... lose their stability.

    A sequence of these parameters: `len`, indices, iteration and `numpy.asarray` work.

    Attributes
    ----------
    step_sizes : array, shape (n,)
        Where the multiplier of the cycle of period 2^i is −1.
    errors : array, shape (n,)
        Estimated numerical error of each.
    cycles : tuple of arrays, shapes (1,), (2,), (4,), ...; or (1, D), (2, D), (4, D), ...
        The cycles there.
    """

    step_sizes: Array
    errors: Array
    cycles: tuple[Array, ...]

    def __len__(self) -> int:
        return self.step_sizes.size

    def __iter__(self) -> Iterator[float]:
        return iter(self.step_sizes.tolist())

    def __getitem__(self, index: int) -> float:
        return float(self.step_sizes[index])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self.step_sizes, dtype=dtype)

    @property
    def ratios(self) -> Array:
        """(η_i − η_{i−1}) / (η_{i+1} − η_i), shape (n − 2,); they tend to 4.669201609."""
        gaps = np.diff(self.step_sizes)
        return np.asarray(gaps[:-1] / gaps[1:])

    @property
    def accumulation(self) -> float:
        """The estimated limit η_n + (η_n − η_{n−1}) / (4.669… − 1); NaN for a single value."""
        return _limit(self.step_sizes)

    @property
    def accumulation_error(self) -> float:
        """How far the estimate moved with the last value, a pessimistic error; NaN for two."""
        return abs(_limit(self.step_sizes) - _limit(self.step_sizes[:-1]))


def _limit(values: Array) -> float:
    """Return the limit of a geometric sequence with Feigenbaum's ratio through the last two."""
    if values.size < 2:
        return float("nan")
    return float(values[-1] + (values[-1] - values[-2]) / (FEIGENBAUM - 1))


@check.public()
def period_doublings(
    problem: MapLike,
    count: int = 6,
    *,
    start: ArrayLike = 1.0,
    first: float | None = None,
) -> PeriodDoublings:
    r"""Return the first step sizes of the period-doubling cascade.

    The cycle is followed by Newton's method on all its points, and the step size at which its
    multiplier is −1 by secants. The cycle of twice the period just beyond is found by iteration,
    and where to look for the next doubling follows from Feigenbaum's constant.

    With a start of shape (D,) this happens in the space of a problem's parameters, without a line.
    From the isolated minimum near the start the stable cycle is continued in the step size until a
    multiplier leaves the unit circle, and that must be at −1. The first value is 2/λ_max of the
    Hessian.

    Source: standard; first value 2/k for chains and √5 − 1 for the second of the scalar
    factorisation: our derivation.

    Parameters
    ----------
    problem : Problem or ScalarMap
        A problem stands for its `LineMap` along (1, ..., 1) unless `start` has shape (D,).
    count : int
        How many.
    start : float, or array of shape (D,) for a problem
        Near the minimum (the fixed point).
    first : float, optional
        Near the first doubling. Needed unless the map comes from a problem, where it is
        2 / (the curvature at the minimum); not with a start of shape (D,).

    Returns
    -------
    PeriodDoublings

    Raises
    ------
    ValueError
        If there is no minimum near `start`, or no stable cycle of twice
        the period follows a doubling; in the space of parameters also if the minimum is not
        isolated (a multiplier is 1 at every step size), or a multiplier leaves the unit circle
        elsewhere than at −1.

    Examples
    --------
    >>> from stabcore import ScalarFactorization
    >>> doublings = period_doublings(ScalarFactorization(), 3)
    >>> doublings.step_sizes.round(10).tolist()
    [1.0, 1.2360679775, 1.2880317545]

    A minimum in the plane, L = ½(u² − 1)² + ½v²: the same cascade with half the step sizes.

    >>> from stabcore import Problem
    >>> class Valley(Problem):
    ...     n_parameters, probabilities = 2, np.full(2, 0.5)
    ...     def residuals(self, theta, samples=None):
    ...         return np.sqrt(2) * (theta ** [2, 1] - [1, 0])
    ...     def jacobian(self, theta, samples=None):
    ...         return np.sqrt(2) * (theta * [2, 0] + [0, 1])[..., None] * np.eye(2)
    ...     def residual_curvature(self, theta, weights):
    ...         return np.sqrt(8) * weights[..., None] * np.diag([1, 0])
    >>> period_doublings(Valley(), 3, start=[1.1, 0.1]).step_sizes.round(10).tolist()
    [0.5, 0.6180339887, 0.6440158772]
    """
    total = check.integer("count", count)
    if isinstance(problem, Problem) and np.ndim(start) > 0:
        if first is not None:
            raise ValueError("first must not be given with a start of shape (D,): it is computed.")
        return _doublings_in_space(problem, total, start)
    family = as_scalar_map(problem)
    points = np.array([check.real("start", start)])
    if first is not None:
        guess = check.real("first", first)
    elif isinstance(family, LineMap):
        points, guess = _first_flip(family, points)
    else:
        raise ValueError("first must be given for a map that does not come from a problem.")
    values, errors, cycles = [], [], []
    window = 0.2 * abs(guess)  # about as far as the next doubling
    for _ in range(total):
        value, error, points = _flip(family, points, guess, window)
        values.append(value)
        errors.append(error)
        cycles.append(points)
        if len(values) > 1:
            window = (value - values[-2]) / FEIGENBAUM
        if len(values) < total:
            guess, points = _doubled(family, points, value, window)
    return PeriodDoublings(
        step_sizes=np.array(values), errors=np.array(errors), cycles=tuple(cycles)
    )


def _first_flip(line: LineMap, points: Array) -> tuple[Array, float]:
    """Return the minimum on the line near the start, and 2 / its curvature."""
    x = points.copy()
    for _ in range(100):
        curvature = float(line.curvature(x)[0])
        if curvature <= 0:
            break
        change = line.slope(x) / curvature
        x = x - change
        if abs(change[0]) <= 4 * EPS * (1 + abs(x[0])):
            return x, 2 / float(line.curvature(x)[0])
    raise ValueError(
        f"no minimum with positive curvature was found from start = {points[0]:g}; "
        "pass a start closer to it."
    )


def _multiplier(family: ScalarMap, points: Array, parameter: float) -> tuple[float, Array]:
    """Return the multiplier of the cycle near a guess, and its points; NaN if there is none."""
    cycle, derivatives, converged = refine_cycle(family, points, parameter)
    return (float(derivatives.prod()) if converged else float("nan")), cycle


def _flip(
    family: ScalarMap, points: Array, guess: float, window: float
) -> tuple[float, float, Array]:
    """Return the parameter near a guess where the multiplier is −1, its error, and the cycle."""
    value, following = guess, guess + 1e-3 * window
    multiplier, points = _multiplier(family, points, value)
    slope, previous = float("nan"), float("inf")
    for _ in range(50):
        other, moved = _multiplier(family, points, following)
        if abs(following - value) > 1e-6 * window:  # else rounding would decide the slope
            slope = (other - multiplier) / (following - value)
        value, multiplier, points = following, other, moved
        if not np.isfinite(slope * multiplier) or slope == 0:
            break
        step = -(multiplier + 1) / slope
        if abs(step) <= EPS * abs(value) or previous / 2 <= abs(step) < 1e-6 * window:
            return value, *_flip_error(family, points, value, slope)
        following, previous = value + step, abs(step)
    raise ValueError(
        f"the multiplier of the cycle of period {points.size} could not be brought to -1 near "
        f"{guess:g}; pass start and first closer to the first doubling, or a smaller count."
    )


def _flip_error(
    family: ScalarMap, points: Array, value: float, slope: float
) -> tuple[float, Array]:
    """Return the scatter of the multiplier at neighbouring floats, over its slope."""
    offsets = EPS * abs(value) * np.arange(-4, 5)
    near = [_multiplier(family, points, value + offset)[0] for offset in offsets]
    noise = np.abs(np.array(near) + 1 - slope * offsets).max()
    return float(noise / abs(slope) + EPS * abs(value)), points


def _doubled(family: ScalarMap, points: Array, value: float, window: float) -> tuple[float, Array]:
    """Return a parameter beyond a doubling, and the stable cycle of twice the period there."""
    period = 2 * points.size
    # Half-way to the next doubling the new cycle is about as stable as it can be.
    for fraction in (0.5, 0.7, 0.35, 0.2, 0.1, 0.05):
        parameter = value + fraction * window
        orbit = _settle(family, points[0], parameter, period)
        multiplier, cycle = _multiplier(family, orbit, parameter)
        half = points.size
        apart = np.abs(cycle - np.roll(cycle, half)).max() > SAME * (1 + np.abs(cycle).max())
        if abs(multiplier) < 1 and apart:
            return parameter, cycle
    raise ValueError(
        f"no stable cycle of period {period} follows the doubling at {value:.12g}: the flip is "
        "subcritical, or the count is too large for double precision."
    )


def _settle(family: ScalarMap, x: float, parameter: float, period: int) -> Array:
    """Return one turn of the orbit of a neighbour of x, after a transient of 64 turns."""
    orbit = np.empty(period)
    orbit[-1] = x + 1e-3 * (1 + abs(x))
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(64):
            for i in range(period):
                orbit[i] = family(orbit[i - 1], parameter)
    return orbit


def _doublings_in_space(problem: Problem, total: int, start: ArrayLike) -> PeriodDoublings:
    """Return the cascade that begins at an isolated minimum near the start, shape (D,)."""
    point = check.finite_array("start", start, ndim=1)
    points = check.parameters("start", point, problem.n_parameters)[None]
    points, steepest = _isolated_minimum(problem, points)
    guess = 1.9 / steepest  # where the minimum is still stable
    window = 0.4 / steepest  # about as far as the next doubling
    values, errors, cycles = [], [], []
    for _ in range(total):
        value, error, points, direction = _flip_in_space(problem, points, guess, window)
        values.append(value)
        errors.append(error)
        cycles.append(points)
        if len(values) > 1:
            window = (value - values[-2]) / FEIGENBAUM
        if len(values) < total:
            guess, points = _doubled_in_space(problem, points, direction, value, window)
    return PeriodDoublings(
        step_sizes=np.array(values), errors=np.array(errors), cycles=tuple(cycles)
    )


def _isolated_minimum(problem: Problem, points: Array) -> tuple[Array, float]:
    """Return the isolated minimum near a guess, shape (1, D), and the largest curvature there."""
    minimum, converged = refine_orbit(problem, 1.0, points)
    curvatures = np.linalg.eigvalsh(problem.hessian(minimum[0])) if converged else np.zeros(1)
    if curvatures[0] > FLAT * curvatures[-1]:
        return minimum, float(curvatures[-1])
    if curvatures[-1] > 0 and curvatures[0] >= -FLAT * curvatures[-1]:
        raise ValueError(
            "the minimum near start is not isolated: its smallest curvature is 0, a multiplier is "
            "1 at every step size, and each minimum of a manifold has a first doubling of its own; "
            "pass LineMap(problem, direction) for an invariant line across the manifold."
        )
    raise ValueError(
        f"no minimum with positive curvatures was found from start = {points[0].tolist()}; "
        "pass a start closer to it."
    )


def _leading(problem: Problem, points: Array, rate: float) -> tuple[complex, Array, Array]:
    """Return the multiplier of largest modulus near a guess, its direction, and the cycle."""
    # NaN where the guess leads to no cycle, or to one of half the period.
    cycle, converged = refine_orbit(problem, rate, points)
    half = np.roll(cycle, len(cycle) // 2, axis=0)
    merged = len(cycle) > 1 and np.abs(cycle - half).max() <= SAME * (1 + np.abs(cycle).max())
    if merged or not converged:
        return complex("nan"), np.full(problem.n_parameters, np.nan), cycle
    product = np.eye(problem.n_parameters)
    for factor in gd_jacobian(problem, cycle, rate):
        product = factor @ product
    eigenvalues, vectors = np.linalg.eig(product)
    first = int(np.abs(eigenvalues).argmax())
    return complex(eigenvalues[first]), vectors[:, first].real, cycle


def _flip_in_space(
    problem: Problem, points: Array, guess: float, window: float
) -> tuple[float, float, Array, Array]:
    """Return where a stable cycle has the multiplier −1, the error, the cycle, the direction."""
    low = high = guess
    for _ in range(8 * MARCH):  # until the modulus of a multiplier passes 1
        multiplier, _, following = _leading(problem, points, high)
        if not abs(multiplier) < 1:
            break
        points, low, high = following, high, high + window / 8
    if not abs(multiplier) >= 1:
        raise ValueError(
            f"the stable cycle of period {len(points)} could not be followed from "
            f"{guess:.12g} to a doubling: it ends near {high:.6g}, or stays stable beyond."
        )

    def excess(rate: float) -> float:
        return abs(_leading(problem, points, rate)[0]) - 1

    value = brentq(excess, low, high, xtol=EPS * high, rtol=4 * EPS)
    multiplier, direction, cycle = _leading(problem, points, value)
    if not abs(multiplier + 1) < 1e-4:
        raise ValueError(
            f"the cycle of period {len(points)} loses its stability at {value:.12g}, but not by a "
            f"period doubling: the multiplier {multiplier:.4g} leaves the unit circle; "
            "a smaller count returns the doublings before it."
        )
    # The scatter of the multiplier at neighbouring floats over its slope, as in one dimension.
    width = 1e-3 * window
    slope = excess(value + width) / width
    offsets = EPS * value * np.arange(-4, 5)
    noise = max(abs(excess(value + offset) - slope * offset) for offset in offsets)
    return value, noise / abs(slope) + EPS * value, cycle, direction


def _doubled_in_space(
    problem: Problem, points: Array, direction: Array, value: float, window: float
) -> tuple[float, Array]:
    """Return a step size beyond a doubling, and the stable cycle of twice the period there."""
    period = 2 * len(points)
    for fraction in (0.5, 0.7, 0.35, 0.2, 0.1, 0.05):
        rate = value + fraction * window
        orbit = np.empty((period, problem.n_parameters))
        orbit[-1] = points[0] + 1e-3 * (1 + np.abs(points[0]).max()) * direction
        with np.errstate(over="ignore", invalid="ignore"):
            for t in range(64 * period):
                before = orbit[(t - 1) % period]
                orbit[t % period] = before - rate * problem.gradient(before)
        if not np.isfinite(orbit).all():
            continue
        multiplier, _, cycle = _leading(problem, orbit, rate)
        if abs(multiplier) < 1:
            return rate, cycle
    raise ValueError(
        f"no stable cycle of period {period} follows the doubling at {value:.12g}: the flip is "
        "subcritical, or the count is too large for double precision."
    )
