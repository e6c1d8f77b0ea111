"""All cycles of one period on a line, stable or not, for every step size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import elementwise
from scipy.spatial import cKDTree

from stabcore import _validation as check
from stabcore._constants import EPSILON, SAME_POINT
from stabcore._validation import Array
from stabcore.descent._shooting import Dynamics, iterate, on_line, solve
from stabcore.descent.lines import MapLike, ScalarMap, as_scalar_map

CHUNK = 2**21  # values of the map computed at a time

REFINEMENT = 33  # points that look closer at an extremum of G^p − id

LEVELS = 3

MOST_VALUES = 2**23  # of the map in one refinement: a bound on memory

DISTINCT = 1e-9  # cycles whose points are all closer, relative to 1 + |x|, are one


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
        For every parameter of the call, between how many points of the finest grid cycles may have
        been missed: G^p(x) − x came close to 0 without a sign change that the scan could see, or
        G^p turns too often.
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

    def __str__(self) -> str:
        """Return the counts in words."""
        return (
            f"{len(self.points)} cycles of period {self.points.shape[1]} at "
            f"{self.unresolved.size} parameters, {self.stable.sum()} of them stable; "
            f"{self.unresolved.sum()} places unresolved"
        )


@check.public()
def cycle_branches(
    family: MapLike,
    parameters: ArrayLike,
    period: int,
    interval: tuple[float, float],
    *,
    grid: int = 4097,
) -> Branches:
    r"""Return the cycles of exactly this period, stable or not, that meet an interval.

    The sign changes of G^p(x) − x are bracketed on a grid that is denser towards the ends of the
    interval, where chaotic maps have most of their periodic points, and refined where the function
    comes close to 0 between two grid points, and where G^p has turning points in neighbouring gaps
    (where it turns is seen from the sides of the turning points of G on which an orbit lies). A
    bracket proves, up to rounding, that a cycle exists; `unresolved` counts where some may have
    been missed. Cycles of a dead network are left out.

    Source: our derivation.

    Parameters
    ----------
    family : Problem or ScalarMap
    parameters : array, shape (P,), or float
        Step sizes, for gradient descent.
    period : int
        p ≥ 1.
    interval : tuple of float
        Where at least one point of each cycle is looked for.
    grid : int
        Number of grid points at first.

    Returns
    -------
    Branches

    Warns
    -----
    RuntimeWarning
        If G^p turns more often than the refined grid can follow, so that cycles are missing.

    Examples
    --------
    At η = 2 the map is conjugate to the third Chebyshev polynomial, with 3^p zeros:

    >>> from stabcore.descent.lines import BalancedChain
    >>> [len(cycle_branches(BalancedChain(2), 2.0, p, (-1.5, 1.5)).points) for p in (1, 2, 3, 4)]
    [3, 3, 8, 18]
    """
    line = as_scalar_map(family)
    values = np.atleast_1d(check.finite_array("parameters", parameters))
    count = check.integer("period", period)
    low, high = check.finite_array("interval", interval, ndim=1)
    if low >= high:
        raise ValueError(f"interval must be ascending, got ({low}, {high}); swap its ends.")
    size = check.integer("grid", grid, minimum=3)
    x = (low + high) / 2 - (high - low) / 2 * np.cos(np.pi * np.arange(size) / (size - 1))
    unresolved, folded = np.zeros((2, values.size), np.int64)
    nothing = np.empty(0, np.int64), np.empty((0, count)), np.empty(0), np.empty(0)
    found = [nothing]
    rows = max(1, CHUNK // size)
    with np.errstate(over="ignore", invalid="ignore"):
        for first in range(0, values.size, rows):
            index = np.arange(first, min(first + rows, values.size))
            owners, brackets = _brackets(
                line,
                values,
                count,
                index,
                np.broadcast_to(x, (index.size, size)),
                (unresolved, folded),
            )
            if owners.size:
                roots, radius = _roots(line, values[owners], count, brackets)
                found.append(_distinct(on_line(line), values, count, owners, roots, radius))
    if folded.any():
        worst = int(np.argmax(folded))
        check.warn(
            f"at parameter {values[worst]:g} iterate {count} of the map turns too often for the "
            f"refined grid in {folded[worst]} places, and cycles may be missing; pass a larger "
            "grid, or a shorter period.",
            RuntimeWarning,
        )
    owners, points, multipliers, radius = (
        np.concatenate(part) for part in zip(*found, strict=True)
    )
    return Branches(
        parameters=values[owners],
        points=points,
        multipliers=multipliers,
        radius=radius,
        unresolved=unresolved + folded,
    )


def _displacement(family: ScalarMap, x: Array, parameters: Array, period: int) -> Array:
    """Return G^p(x) − x."""
    y = x
    for _ in range(period):
        y = family(y, parameters)
    return y - x


def _folded(family: ScalarMap, x: Array, parameters: Array, period: int) -> NDArray[np.bool_]:
    """Return between which neighbours in a row G^p turns, and has others too close to see how."""
    turns = np.zeros((len(x), x.shape[1] - 1), np.int64)
    for _ in range(period):
        rising = family.derivative(x, parameters[:, None]) > 0
        turns += rising[:, 1:] != rising[:, :-1]
        x = family(x, parameters[:, None])
    turns[~np.isfinite(x[:, 1:] + x[:, :-1])] = 0  # of orbits that leave every bound
    around = turns.copy()
    around[:, 1:] += turns[:, :-1]
    around[:, :-1] += turns[:, 1:]
    return np.asarray((turns > 0) & (around > 1))


def _brackets(
    family: ScalarMap,
    values: Array,
    period: int,
    owners: NDArray[np.int64],
    x: Array,
    missed: tuple[NDArray[np.int64], NDArray[np.int64]],
    level: int = 0,
) -> tuple[NDArray[np.int64], Array]:
    """Return (index of the parameter, ends of the bracket) of the sign changes on rows of x."""
    # What no refinement resolves is counted in `missed`: near-contacts, and folds.
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
    contacts, folds = np.nonzero(towards), np.nonzero(_folded(family, x, values[owners], period))
    if level == LEVELS or (contacts[0].size + folds[0].size) * REFINEMENT > MOST_VALUES:
        for count, (row, _) in zip(missed, (contacts, folds), strict=True):
            np.add.at(count, owners[row], 1)
        return found, brackets
    for width, (row, k) in ((2, contacts), (1, folds)):
        if row.size:
            # One fine cell more on either side: an extremum needs both of its neighbours.
            left, right = x[row, k], x[row, k + width]
            beyond = (right - left) / (REFINEMENT - 3)
            low, high = np.maximum(left - beyond, x[row, 0]), np.minimum(right + beyond, x[row, -1])
            fine = np.linspace(low, high, REFINEMENT, axis=1)
            more, further = _brackets(family, values, period, owners[row], fine, missed, level + 1)
            found, brackets = np.append(found, more), np.vstack([brackets, further])
    return found, brackets


def _roots(
    family: ScalarMap, parameters: Array, period: int, brackets: Array
) -> tuple[Array, Array]:
    """Return the zeros of G^p(x) − x and the half-widths of brackets that prove them."""

    def displacement(x: Array, parameter: Array) -> Array:
        return _displacement(family, x, parameter, period)

    x = elementwise.find_root(displacement, tuple(brackets.T), args=(parameters,)).x
    # The smallest bracket whose signs are beyond rounding; the one that is known where none is.
    radius = np.maximum(np.abs(brackets[:, 0] - x), np.abs(brackets[:, 1] - x))
    noise = _rounding(family, x, parameters, period)
    for width in (EPSILON * 4.0**n * (1 + np.abs(x)) for n in range(16, -1, -1)):
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
        error = slope * error + 4 * EPSILON * (slope * np.abs(x) + np.abs(following) + np.abs(x))
        x = following
    return error


def _distinct(
    dynamics: Dynamics,
    values: Array,
    period: int,
    owners: NDArray[np.int64],
    roots: Array,
    radius: Array,
) -> tuple[NDArray[np.int64], Array, Array, Array]:
    """Return each cycle of exactly this period once: owners, points, multipliers, radius."""
    guesses = iterate(dynamics, roots[:, None], values[owners], period)
    solution = solve(dynamics, values[owners], guesses)
    points = solution.points[..., 0]
    slope = solution.derivatives[..., 0, 0].prod(axis=1)
    scale = 1 + np.abs(points).max(axis=1)
    genuine = np.asarray(np.isfinite(points).all(axis=1))
    genuine &= dynamics.alive(solution.points).all(axis=1)
    for q in (q for q in range(1, period) if period % q == 0):
        genuine &= np.abs(points - np.roll(points, -q, axis=1)).max(axis=1) > SAME_POINT * scale
    first = points.argmin(axis=1)
    shift = (np.arange(period) + first[:, None]) % period
    points = np.take_along_axis(points, shift, axis=1)
    order = np.lexsort((points[:, 0], owners))
    order = order[genuine[order]]
    # Whole cycles are compared: near a turning point many begin within a rounding of each other.
    # Different parameters are told apart by a coordinate of their own.
    rows = np.column_stack([points / scale[:, None], owners])[order]
    pairs = cKDTree(rows).query_pairs(DISTINCT, p=np.inf, output_type="ndarray")
    kept = np.delete(order, np.unique(pairs.max(axis=1, initial=0))) if pairs.size else order
    return owners[kept], points[kept], slope[kept], radius[kept]
