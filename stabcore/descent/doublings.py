"""Where the cycles of periods 1, 2, 4, ... lose their stability."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from stabcore import _validation as check
from stabcore._constants import EPSILON
from stabcore._validation import Array
from stabcore.descent._certificates import transfer
from stabcore.descent._shooting import (
    Dynamics,
    Solutions,
    in_space,
    iterate,
    on_line,
    repeats_after,
    solve,
)
from stabcore.descent.lines import LineMap, MapLike, as_scalar_map
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

    def __str__(self) -> str:
        """Return a table: the period that loses its stability, where, and the error."""
        lines = ["period  loses its stability at   error"]
        for cycle, value, error in zip(self.cycles, self.step_sizes, self.errors, strict=True):
            lines.append(f"{len(cycle):6d}  {value:<23.15g}  {error:.0e}")
        return "\n".join(lines)

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

    From the isolated minimum near the start the stable cycle is continued in the step size, by
    Newton's method on all its points, until a multiplier leaves the unit circle, and that must be
    at −1. The cycle of twice the period just beyond is found by iteration, and where to look for
    the next doubling follows from Feigenbaum's constant. The first value is 2/λ_max of the Hessian.

    With a start of shape (D,) this happens in the space of a problem's parameters, without a line.

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
        dynamics = in_space(problem)
        point = check.finite_array("start", start, ndim=1)
        points = check.parameters("start", point, problem.n_parameters)[None]
    else:
        family = as_scalar_map(problem)
        if first is None and not isinstance(family, LineMap):
            raise ValueError("first must be given for a map that does not come from a problem.")
        dynamics = on_line(family)
        points = np.array([[check.real("start", start)]])
    if first is None:
        points, steepest = _isolated_minimum(dynamics, points)
        guess = 1.9 / steepest  # where the minimum is still stable
        window = 0.4 / steepest  # about as far as the next doubling
    else:
        guess = check.real("first", first)
        window = 0.2 * abs(guess)
    values, errors, cycles = [], [], []
    for _ in range(total):
        value, error, points, direction = _flip(dynamics, points, guess, window)
        values.append(value)
        errors.append(error)
        cycles.append(points if np.ndim(start) > 0 else points[:, 0])
        if len(values) > 1:
            window = (value - values[-2]) / FEIGENBAUM
        if len(values) < total:
            guess, points = _doubled(dynamics, points, direction, value, window)
    return PeriodDoublings(
        step_sizes=np.array(values), errors=np.array(errors), cycles=tuple(cycles)
    )


def _isolated_minimum(dynamics: Dynamics, points: Array) -> tuple[Array, float]:
    """Return the isolated minimum near a guess, shape (1, D), and the largest curvature there."""
    solution = solve(dynamics, 1.0, points[None])
    curvatures = np.zeros(1)
    if _converged(solution):  # a fixed point at every step size
        (derivative,) = solution.derivatives[0]
        curvatures = np.linalg.eigvalsh(np.eye(dynamics.dimension) - derivative)
    if curvatures[0] > FLAT * curvatures[-1]:
        return solution.points[0], float(curvatures[-1])
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


def _converged(solution: Solutions) -> bool:
    """Return whether the one guess led to a cycle."""
    scale = 1 + np.abs(solution.points[0]).max()
    return bool(solution.gaps[0] <= 1e-12 * scale)


def _leading(dynamics: Dynamics, points: Array, parameter: float) -> tuple[complex, Array, Array]:
    """Return the multiplier of largest modulus near a guess, its direction, and the cycle."""
    # NaN where the guess leads to no cycle, or to one of a smaller period.
    solution = solve(dynamics, parameter, points[None])
    cycle = solution.points[0]
    if not _converged(solution) or repeats_after(cycle) < len(cycle):
        return complex("nan"), np.full(dynamics.dimension, np.nan), cycle
    values, vectors = np.linalg.eig(transfer(solution.derivatives[0]))
    first = int(np.abs(values).argmax())
    return complex(values[first]), vectors[:, first].real, cycle


def _flip(
    dynamics: Dynamics, points: Array, guess: float, window: float
) -> tuple[float, float, Array, Array]:
    """Return where a stable cycle has the multiplier −1, the error, the cycle, the direction."""
    points, low, high = _bracket(dynamics, points, guess, window)

    latest = points

    def excess(parameter: float) -> float:
        nonlocal latest
        multiplier, _, latest = _leading(dynamics, latest, parameter)
        if np.isnan(multiplier):
            raise ValueError(_lost(len(points), guess, parameter))
        return abs(multiplier) - 1

    value = brentq(excess, low, high, xtol=EPSILON * abs(high), rtol=4 * EPSILON)
    multiplier, direction, cycle = _leading(dynamics, latest, value)
    if not abs(multiplier + 1) < 1e-4:
        raise ValueError(
            f"the cycle of period {len(points)} loses its stability at {value:.12g}, but not by a "
            f"period doubling: the multiplier {multiplier:.4g} leaves the unit circle; "
            "a smaller count returns the doublings before it."
        )
    # The scatter of the multiplier at neighbouring floats over its slope.
    width = 1e-3 * window
    slope = excess(value + width) / width
    offsets = EPSILON * abs(value) * np.arange(-4, 5)
    noise = max(abs(excess(value + offset) - slope * offset) for offset in offsets)
    return value, noise / abs(slope) + EPSILON * abs(value), cycle, direction


def _bracket(
    dynamics: Dynamics, points: Array, guess: float, window: float
) -> tuple[Array, float, float]:
    """Return a stable cycle near a guess, its parameter, and one at which it is not stable."""
    multiplier, _, following = _leading(dynamics, points, guess)
    stable = abs(multiplier) < 1
    near, ahead = guess, window / 8 if stable else -window / 8
    for _ in range(8 * MARCH):  # until the modulus of a multiplier passes 1
        if np.isnan(multiplier):
            break
        points, before, near = following, near, near + ahead
        multiplier, _, following = _leading(dynamics, points, near)
        if stable and abs(multiplier) >= 1:
            return points, before, near
        if not stable and abs(multiplier) < 1:
            return following, near, before
    raise ValueError(_lost(len(points), guess, near))


def _lost(period: int, guess: float, near: float) -> str:
    """Return what went wrong."""
    return (
        f"the stable cycle of period {period} could not be followed from {guess:.12g} to a "
        f"doubling: it ends near {near:.6g}, or keeps its stability; pass start and first closer "
        "to the first doubling, or a smaller count."
    )


def _doubled(
    dynamics: Dynamics, points: Array, direction: Array, value: float, window: float
) -> tuple[float, Array]:
    """Return a parameter beyond a doubling, and the stable cycle of twice the period there."""
    period = 2 * len(points)
    neighbour = points[0] + 1e-3 * (1 + np.abs(points[0]).max()) * direction
    # Half-way to the next doubling the new cycle is about as stable as it can be.
    for fraction in (0.5, 0.7, 0.35, 0.2, 0.1, 0.05):
        parameter = value + fraction * window
        with np.errstate(over="ignore", invalid="ignore"):
            orbit = iterate(dynamics, neighbour, parameter, 64 * period + 1)[-period:]
        multiplier, _, cycle = _leading(dynamics, orbit, parameter)
        if abs(multiplier) < 1:
            return parameter, cycle
    raise ValueError(
        f"no stable cycle of period {period} follows the doubling at {value:.12g}: the flip is "
        "subcritical, or the count is too large for double precision."
    )
