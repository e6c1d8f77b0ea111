r"""How the cycles of a map change with its parameter: diagrams and doublings.

Beyond the step size at which a minimum loses its stability, gradient descent on an invariant line
oscillates between two points, then four, eight, ...: a cycle whose multiplier (G^p)' passes −1
hands its stability to one of twice the period. The step sizes of these period doublings accumulate
geometrically, with ratios that tend to Feigenbaum's constant; chaos begins where they do.

The same happens in the space of all D parameters around an isolated minimum: there the multipliers
are D eigenvalues, and the one that passes −1 is the largest in modulus. The functions take a start
of shape (D,) for that, and then ask for no invariant line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numba.extending import is_jitted
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

from stabcore import _validation as check
from stabcore._random import run_replicas
from stabcore._validation import Array
from stabcore.gd import gd_jacobian
from stabcore.orbits import refine_orbit
from stabcore.problems import Problem
from stabcore.scalar_maps import (
    CEILING,
    EPS,
    LineMap,
    MapLike,
    ScalarMap,
    as_scalar_map,
    chain_slope,
    refine_cycle,
)

FEIGENBAUM = 4.669201609102990  # the limit of the ratios of period doublings
CHUNK = 2**21  # values of the map computed at a time
REFINEMENT = 33  # points that look closer at an extremum of G^p − id
LEVELS = 3
SAME = 1e-6  # points closer than this, relative to 1 + |x|, are one point of an orbit
FLAT = 1e-7  # a minimum with curvatures below this fraction of the largest is not isolated
MARCH = 8  # expected distances to a doubling within which it must come
DISTINCT = 1e-9  # cycles whose smallest points are closer, relative to 1 + |x|, are one


@dataclass(frozen=True, kw_only=True)
class BifurcationDiagram:
    """Where the orbit of a map settles, for every parameter.

    Attributes
    ----------
    parameters : array, shape (P,)
    points : array, shape (P, keep), or (P, keep, D) in the space of a problem's parameters
        Consecutive points of the orbit after the transient; NaN where it diverged.
    diverged : array of bool, shape (P,)
    """

    parameters: Array
    points: Array
    diverged: NDArray[np.bool_]


def bifurcation_diagram(
    map: Callable[..., Any] | Problem,
    parameters: ArrayLike,
    start: ArrayLike = 0.5,
    *,
    transient: int = 5000,
    keep: int = 512,
) -> BifurcationDiagram:
    r"""Iterate a map at many parameters and keep what remains after a transient.

    A callable is iterated for all parameters together; one compiled by numba (`@njit`, of two
    scalars) in a compiled loop on all cores, and so are a `BalancedChain` and the lines of a
    `ScalarChain`, a `ScalarFactorization` and a `ReluPair`. Any other problem is asked for its
    gradient at every step, which costs more than a formula.

    Source: standard.

    Parameters
    ----------
    map : callable or Problem
        `map(x, parameter)`, elementwise over arrays of one shape; a problem stands for its
        `LineMap`, unless the start is a point of its parameters.
    parameters : array, shape (P,)
        Step sizes, for gradient descent.
    start : float or array, shape (P,); for a problem also (D,), (1, D) or (P, D)
        A number, or one for every step size, is a point of the line. The other shapes are points
        in the space of a problem's parameters, where no invariant line is needed; use (1, D) if
        there are as many step sizes as parameters.
    transient, keep : int
        Steps before the first kept point, and number of kept points.

    Returns
    -------
    BifurcationDiagram

    Raises
    ------
    TypeError
        If `map` is neither a problem nor a function.
    ValueError
        If an argument is invalid; the message names it.

    Examples
    --------
    A minimum, a 2-cycle, and a diverging orbit of the scalar factorisation:

    >>> from stabcore.scalar_maps import BalancedChain
    >>> diagram = bifurcation_diagram(BalancedChain(2), [0.9, 1.1, 2.1], 0.9)
    >>> [len(set(row.round(9))) for row in diagram.points[:2]], diagram.diverged.tolist()
    ([1, 2], [False, False, True])

    Off the diagonal the same 2-cycle is reached by both parameters:

    >>> from stabcore import ScalarFactorization
    >>> diagram = bifurcation_diagram(ScalarFactorization(), [1.1], [0.9, 0.8], keep=2)
    >>> diagram.points.shape, float(np.ptp(diagram.points, axis=-1).max().round(9))
    ((1, 2, 2), 0.0)
    """
    values = check.finite_array("parameters", parameters, ndim=1)
    x = check.finite_array("start", start)
    wait = check.integer("transient", transient, minimum=0)
    size = check.integer("keep", keep)
    if isinstance(map, Problem) and _in_space(map, values, x):
        return _diagram_in_space(map, values, x, wait, size)
    if x.shape not in {(), values.shape}:
        raise ValueError(
            f"start must be a number or have one entry per parameter ({values.size}), "
            f"got shape {x.shape}."
        )
    points = np.empty((size, values.size))
    x = np.broadcast_to(x, values.shape).copy()
    step = LineMap(map) if isinstance(map, Problem) else map
    if not callable(step):
        raise TypeError(
            f"map must be a Problem or a function map(x, parameter), got {type(map).__name__}."
        )
    slope = chain_slope(step)
    if slope is not None:
        run_replicas(
            lambda part: _follow_chain(*slope, x[part], values[part], wait, points[:, part]),
            values.size,
        )
    elif is_jitted(step):
        run_replicas(
            lambda part: _follow(step, x[part], values[part], wait, points[:, part]), values.size
        )
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(wait):
                x = step(x, values)
            for row in points:
                x = step(x, values)
                row[:] = x
    return _diagram(values, points.T.copy())


def _diagram(values: Array, kept: Array) -> BifurcationDiagram:
    """Return the diagram of the kept points, shape (P, keep) or (P, keep, D)."""
    diverged = np.asarray(~(np.abs(kept) < CEILING).reshape(values.size, -1).all(axis=1))
    kept[diverged] = np.nan
    return BifurcationDiagram(parameters=values, points=kept, diverged=diverged)


def _in_space(problem: Problem, values: Array, start: Array) -> bool:
    """Return whether a start is a point of the problem's parameters, not of its line."""
    dimension = problem.n_parameters
    if start.shape == (dimension,) == values.shape:
        raise ValueError(
            f"start of shape ({dimension},) may be one point of all {dimension} parameters or a "
            f"number for each of {dimension} step sizes; pass [start] for the first, "
            "LineMap(problem) for the second."
        )
    return start.shape in {(dimension,), (1, dimension), (values.size, dimension)}


def _diagram_in_space(
    problem: Problem, values: Array, start: Array, wait: int, size: int
) -> BifurcationDiagram:
    """Follow gradient descent at all step sizes together."""
    x = np.broadcast_to(start, (values.size, problem.n_parameters))
    kept = np.empty((values.size, size, problem.n_parameters))
    with np.errstate(over="ignore", invalid="ignore"):
        for i in range(-wait, size):
            x = x - values[:, None] * problem.gradient(x)
            if i >= 0:
                kept[:, i] = x
    return _diagram(values, kept)


@njit(nogil=True)
def _follow(step, x, parameters, transient, points):  # type: ignore[no-untyped-def]
    """Iterate a compiled map; parameters in the inner loop, so that it is vectorised."""
    for _ in range(transient):
        for j in range(x.size):
            x[j] = step(x[j], parameters[j])
    for i in range(points.shape[0]):
        for j in range(x.size):
            x[j] = step(x[j], parameters[j])
            points[i, j] = x[j]


@njit(nogil=True, cache=True)
def _follow_chain(  # type: ignore[no-untyped-def]
    depth, product, weight, side, x, parameters, transient, points
):
    """Iterate a chain; see `ChainSlope`. Loops over the parameters are innermost: vectorised."""
    lower = np.empty_like(x)  # x^{k−1}
    for i in range(-transient, points.shape[0]):
        lower[:] = 1.0
        for _ in range(depth - 1):
            for j in range(x.size):
                lower[j] *= x[j]
        for j in range(x.size):
            # The roundings are those of BalancedChain.__call__.
            moved = x[j] - parameters[j] * weight * (product * (lower[j] * x[j]) - 1.0) * lower[j]
            x[j] = moved if side * x[j] >= 0.0 else x[j]
        if i >= 0:
            points[i, :] = x


@dataclass(frozen=True, kw_only=True)
class Branches:
    """The cycles of one period in an interval, for every parameter; one row per cycle.

    Attributes
    ----------
    parameters : array, shape (m,)
        The parameter of each cycle, ascending in the order in which they were given.
    points : array, shape (m, p)
        In the order of the orbit, the smallest first.
    multipliers : array, shape (m,)
        (G^p)' along the cycle; stable when its modulus is below 1.
    radius : array, shape (m,)
        G^p(x) − x changes its sign within this distance of a point of the cycle, by more than what
        rounding is estimated to explain; half of the bracket on the grid where no distance does.
    unresolved : array of int
        For every parameter of the call, how often G^p(x) − x came close to 0 without a sign change
        that the scan could see: pairs of cycles that may have been missed.
    """

    parameters: Array
    points: Array
    multipliers: Array
    radius: Array
    unresolved: NDArray[np.int64]

    @property
    def stable(self) -> NDArray[np.bool_]:
        """Whether each cycle attracts, shape (m,)."""
        return np.asarray(np.abs(self.multipliers) < 1)


def cycle_branches(
    map: MapLike,
    parameters: ArrayLike,
    period: int,
    interval: tuple[float, float],
    *,
    grid: int = 4097,
) -> Branches:
    r"""Return the cycles of exactly this period, stable or not, that meet an interval.

    The sign changes of G^p(x) − x are bracketed on a grid that is denser towards the ends of the
    interval, where chaotic maps have most of their periodic points, and refined where the function
    comes close to 0 between two grid points; safeguarded Newton steps find the zeros. A bracket
    proves, up to rounding, that a cycle exists; `unresolved` counts where two may have been missed.
    Cycles of a dead network are left out.

    Source: our derivation.

    Parameters
    ----------
    map : Problem or ScalarMap
    parameters : array, shape (P,), or float
        Step sizes, for gradient descent.
    period : int
        p ≥ 1.
    interval : tuple of float
        Where at least one point of each cycle is looked for.
    grid : int
        Number of grid points; the degree-3 map has up to 3^p zeros.

    Returns
    -------
    Branches

    Raises
    ------
    ValueError
        If an argument is invalid; the message names it.

    Examples
    --------
    At η = 2 the map is conjugate to the third Chebyshev polynomial, with 3^p zeros:

    >>> from stabcore.scalar_maps import BalancedChain
    >>> [len(cycle_branches(BalancedChain(2), 2.0, p, (-1.5, 1.5)).points) for p in (1, 2, 3, 4)]
    [3, 3, 8, 18]
    """
    family = as_scalar_map(map)
    values = np.atleast_1d(check.finite_array("parameters", parameters))
    count = check.integer("period", period)
    low, high = check.finite_array("interval", interval, ndim=1)
    if low >= high:
        raise ValueError(f"interval must be ascending, got ({low}, {high}); swap its ends.")
    size = check.integer("grid", grid, minimum=3)
    x = (low + high) / 2 - (high - low) / 2 * np.cos(np.pi * np.arange(size) / (size - 1))
    unresolved = np.zeros(values.size, np.int64)
    nothing = np.empty(0, np.int64), np.empty((0, count)), np.empty(0), np.empty(0)
    found = [nothing]
    rows = max(1, CHUNK // size)
    with np.errstate(over="ignore", invalid="ignore"):
        for first in range(0, values.size, rows):
            index = np.arange(first, min(first + rows, values.size))
            owners, brackets = _brackets(
                family, values, count, index, np.broadcast_to(x, (index.size, size)), unresolved
            )
            if owners.size:
                roots, radius = _roots(family, values[owners], count, brackets)
                found.append(_distinct(family, values, count, owners, roots, radius))
    owners, points, multipliers, radius = (
        np.concatenate(part) for part in zip(*found, strict=True)
    )
    return Branches(
        parameters=values[owners],
        points=points,
        multipliers=multipliers,
        radius=radius,
        unresolved=unresolved,
    )


def _displacement(family: ScalarMap, x: Array, parameters: Array, period: int) -> Array:
    """Return G^p(x) − x."""
    y = x
    for _ in range(period):
        y = family(y, parameters)
    return y - x


def _brackets(
    family: ScalarMap,
    values: Array,
    period: int,
    owners: NDArray[np.int64],
    x: Array,
    unresolved: NDArray[np.int64],
    level: int = 0,
) -> tuple[NDArray[np.int64], Array]:
    """Return (index of the parameter, ends of the bracket) of the sign changes on rows of x."""
    f = _displacement(family, x, values[owners, None], period)
    # A zero on a grid point belongs to the interval on its left.
    row, k = np.nonzero((f[:, :-1] < 0) & (f[:, 1:] >= 0) | (f[:, :-1] > 0) & (f[:, 1:] <= 0))
    if level == 0:  # except the very first, which has none
        edge = np.flatnonzero(f[:, 0] == 0)
        row, k = np.append(edge, row), np.append(np.zeros_like(edge), k)
    brackets = np.stack([x[row, k], x[row, k + 1]], axis=1)
    found = owners[row]
    # Extrema towards 0 that a parabola through three points takes to 0 or most of the way.
    left, middle, right = f[:, :-2], f[:, 1:-1], f[:, 2:]
    bend = left - 2 * middle + right
    drop = (right - left) ** 2 / (8 * np.where(bend == 0, np.inf, bend))
    towards = (left * middle > 0) & (middle * right > 0) & (middle * bend > 0)
    towards &= np.abs(middle) <= np.minimum(np.abs(left), np.abs(right))
    towards &= np.abs(middle) < np.abs(drop) + np.abs(bend) / 2
    row, k = np.nonzero(towards)
    if level == LEVELS:
        np.add.at(unresolved, owners[row], 1)
        return found, brackets
    if row.size == 0:
        return found, brackets
    fine = np.linspace(x[row, k], x[row, k + 2], REFINEMENT, axis=1)
    more, further = _brackets(family, values, period, owners[row], fine, unresolved, level + 1)
    return np.append(found, more), np.vstack([brackets, further])


def _roots(
    family: ScalarMap, parameters: Array, period: int, brackets: Array
) -> tuple[Array, Array]:
    """Return the zeros of G^p(x) − x and the half-widths of brackets that prove them."""
    low, high = brackets.T.copy()
    sign = np.sign(_displacement(family, high, parameters, period))
    x = np.where(sign == 0, high, (low + high) / 2)
    previous = np.abs(high - low)
    for _ in range(120):
        orbit, slope = _orbit_and_slope(family, x, parameters, period)
        f = family(orbit[-1], parameters) - x
        above = f * sign > 0
        low, high = np.where(above, low, x), np.where(above, x, high)
        newton = x - f / np.where(slope == 1, np.inf, slope - 1)
        # Where the map escapes, G^p is of so high a degree that Newton creeps: bisect instead.
        fast = np.abs(newton - x) < previous / 2
        inside = (newton > np.minimum(low, high)) & (newton < np.maximum(low, high))
        following = np.where(f == 0, x, np.where(inside & fast, newton, (low + high) / 2))
        previous = np.abs(following - x)
        x = following
        if not (previous > 2 * EPS * (1 + np.abs(x))).any():
            break
    # The smallest bracket whose signs are beyond rounding; the one that is known where none is.
    radius = np.maximum(np.abs(brackets[:, 0] - x), np.abs(brackets[:, 1] - x))
    noise = _rounding(family, x, parameters, period)
    for width in (EPS * 4.0**n * (1 + np.abs(x)) for n in range(16, -1, -1)):
        below = _displacement(family, x - width, parameters, period)
        beyond = _displacement(family, x + width, parameters, period)
        clear = (below * beyond < 0) & (np.minimum(np.abs(below), np.abs(beyond)) > noise)
        radius = np.where(clear & (width < radius), width, radius)
    return x, radius


def _rounding(family: ScalarMap, x: Array, parameters: Array, period: int) -> Array:
    """Return an estimate of what rounding can have changed in G^p(x) − x."""
    error = np.zeros_like(x)
    for _ in range(period):
        following = family(x, parameters)
        # One step is as exact as if its argument and its result had been changed by a few ulps.
        slope = np.abs(family.derivative(x, parameters))
        error = slope * error + 4 * EPS * (slope * np.abs(x) + np.abs(following) + np.abs(x))
        x = following
    return error


def _orbit_and_slope(
    family: ScalarMap, x: Array, parameters: Array, period: int
) -> tuple[list[Array], Array]:
    """Return x, G(x), ..., G^{p−1}(x) and (G^p)'(x)."""
    orbit, slope = [x], family.derivative(x, parameters)
    for _ in range(period - 1):
        orbit.append(family(orbit[-1], parameters))
        slope = slope * family.derivative(orbit[-1], parameters)
    return orbit, slope


def _distinct(
    family: ScalarMap,
    values: Array,
    period: int,
    owners: NDArray[np.int64],
    roots: Array,
    radius: Array,
) -> tuple[NDArray[np.int64], Array, Array, Array]:
    """Return each cycle of exactly this period once: owners, points, multipliers, radius."""
    orbit, slope = _orbit_and_slope(family, roots, values[owners], period)
    points = np.stack(orbit, axis=1)
    scale = 1 + np.abs(points).max(axis=1)
    genuine = np.asarray(np.isfinite(points).all(axis=1))
    if isinstance(family, LineMap):
        genuine &= family.smooth(points).all(axis=1)
    for q in (q for q in range(1, period) if period % q == 0):
        genuine &= np.abs(points - np.roll(points, -q, axis=1)).max(axis=1) > SAME * scale
    first = points.argmin(axis=1)
    shift = (np.arange(period) + first[:, None]) % period
    points = np.take_along_axis(points, shift, axis=1)
    order = np.lexsort((points[:, 0], owners))
    order = order[genuine[order]]
    gap = np.diff(points[order, 0], prepend=-np.inf) > DISTINCT * scale[order]
    new = gap | (np.diff(owners[order], prepend=-1) != 0)
    kept = order[new]
    return owners[kept], points[kept], slope[kept], radius[kept]


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
        If an argument is invalid, there is no minimum near `start`, or no stable cycle of twice
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
        "subcritical (see flip_is_supercritical), or the count is too large for double precision."
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


def flip_is_supercritical(second: float, third: float, fourth: float) -> bool:
    r"""Return whether a stable 2-cycle appears as a minimum loses its stability at η = 2/f″.

    For g(x) = x − ηf'(x) the flip at g' = −1 is supercritical when ½g″² + ⅓g‴ > 0, which with
    η = 2/f″ reads 3f‴² − f″f⁗ > 0.

    Source: our derivation.

    Parameters
    ----------
    second, third, fourth : float
        Derivatives of the loss at the minimum; `second` > 0.

    Returns
    -------
    bool

    Raises
    ------
    ValueError
        If an argument is invalid, or the criterion is exactly 0 and decides nothing.

    Examples
    --------
    The balanced scalar factorisation f' = x³ − x at 1, and f = x² + x⁴ at 0:

    >>> flip_is_supercritical(2.0, 6.0, 6.0), flip_is_supercritical(2.0, 0.0, 24.0)
    (True, False)
    """
    curvature = check.real("second", second, above=0.0)
    criterion = 3 * check.real("third", third) ** 2 - curvature * check.real("fourth", fourth)
    if criterion == 0:
        raise ValueError("3f‴² − f″f⁗ is 0: higher derivatives decide; compute the cycle.")
    return criterion > 0


def balanced_two_cycle(step_size: float) -> Array:
    r"""Return the 2-cycle of u' = u + a u(1 − u²) between two positive points, for a > 1.

    x², y² = [(1 + 1/a) ± √((1 − 1/a)(1 + 3/a))]/2 and xy = 1/a. Its multiplier along the diagonal
    of the scalar factorisation is 9 − 2(1 + a)², across it 3 − 2a.

    Source: our derivation.

    Parameters
    ----------
    step_size : float
        a > 1: the step size of the scalar factorisation with one input 1; in general, the step
        size times the mean squared input.

    Returns
    -------
    array, shape (2,)
        Ascending.

    Raises
    ------
    ValueError
        If a ≤ 1: there is no such cycle.

    Examples
    --------
    >>> from stabcore.scalar_maps import BalancedChain
    >>> cycle = balanced_two_cycle(1.2)
    >>> BalancedChain(2)(cycle, 1.2).round(12)[::-1] == cycle.round(12)
    array([ True,  True])
    """
    a = check.real("step_size", step_size, above=1.0)
    high = np.sqrt(((1 + 1 / a) + np.sqrt((1 - 1 / a) * (1 + 3 / a))) / 2)
    return np.array([1 / (a * high), high])
