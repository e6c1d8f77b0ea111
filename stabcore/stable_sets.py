r"""Where an exponent is negative: disjoint intervals, and how their ends are found.

λ(η) is not monotone, and a minimum or a saddle may be stable on several disjoint intervals of step
sizes. Where the exponent is a finite sum of logarithms, f(η) = Σ_m w_m log|1 − ηc_m|, it is concave
between its poles 1/c_m, so that *all* its sign changes can be found (`negative_steps`). Elsewhere
it is scanned, and every sign change that the scan sees is refined (`stable_set`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

from stabcore import _validation as check
from stabcore._constants import EPSILON
from stabcore._log_sums import log_abs_one_minus
from stabcore._validation import Array
from stabcore.exponent import Exponent

__all__ = ["StableSet", "stable_set", "negative_steps", "intersection"]  # noqa: RUF022

Interval = tuple[float, float]
LARGE = 100.0  # an exponent of −∞ takes part in the search for a root with this modulus
ROOT = 1e-12  # relative width to which a sign change is refined


@dataclass(frozen=True, kw_only=True)
class StableSet:
    """The part of [lower, upper] where an exponent is negative, as disjoint intervals.

    They are open, but for ends that are the domain's own (and positive: η = 0 is no step).

    Attributes
    ----------
    intervals : tuple of (float, float)
        Ascending. An interval of zero width is a point where the exponent is −∞ but which has no
        neighbours in floating point at which it is negative.
    brackets : tuple of (float, float)
        One per end of an interval inside the domain: the true end lies between these numbers, as
        surely as the signs of the exponent are known there (a statistical one: 95 %).
    lower, upper : float
        The domain that was searched; `upper` may be infinite.
    resolution : float
        0 when every sign change is found by construction. Otherwise intervals or gaps narrower than
        this may have been missed: the largest spacing of the scan, or the widest interval between
        sign changes on which no sign could be proven. Where brackets overlap no sign is known
        between two ends, so that what lies there need not exist; the resolution is no finer.
    """

    intervals: tuple[Interval, ...]
    brackets: tuple[Interval, ...]
    lower: float
    upper: float
    resolution: float = 0.0

    def __contains__(self, value: float) -> bool:
        """Whether the exponent is negative at `value`."""
        return bool(self.contains(value))

    def __bool__(self) -> bool:
        """Whether there is a stable interval at all."""
        return bool(self.intervals)

    def contains(self, values: ArrayLike) -> np.ndarray:
        """Return elementwise whether the exponent is negative at `values`."""
        array = np.asarray(values, dtype=np.float64)
        inside = np.zeros(array.shape, dtype=bool)
        for low, high in self.intervals:
            closed = low == high or (0 < low == self.lower and not self._is_end(low))
            above = (low <= array) if closed else (low < array)
            closed = low == high or (high == self.upper and not self._is_end(high))
            below = (array <= high) if closed else (array < high)
            inside |= above & below
        return inside

    def _is_end(self, value: float) -> bool:
        """Whether a sign change is known at `value`."""
        return any(low < value < high or low == value == high for low, high in self.brackets)

    def restricted(self, lower: float, upper: float = math.inf) -> StableSet:
        """Return the part of this set inside [lower, upper]."""
        start = check.real("lower", lower)
        if upper != math.inf:
            check.real("upper", upper, above=start)
        low, high = max(start, self.lower), min(upper, self.upper)
        cut = ((max(a, low), min(b, high)) for a, b in self.intervals if b > low and a < high)
        return StableSet(
            intervals=tuple(cut),
            brackets=tuple(b for b in self.brackets if low <= b[1] and b[0] <= high),
            lower=low,
            upper=high,
            resolution=self.resolution,
        )

    def scaled(self, factor: float) -> StableSet:
        """Return the set with every number multiplied by `factor` > 0."""
        check.real("factor", factor, above=0.0)
        return StableSet(
            intervals=tuple((a * factor, b * factor) for a, b in self.intervals),
            brackets=tuple((a * factor, b * factor) for a, b in self.brackets),
            lower=self.lower * factor,
            upper=self.upper * factor,
            resolution=self.resolution * factor,
        )

    def __str__(self) -> str:
        """Return the intervals the way one writes them."""
        text = " and ".join(f"({a:.7g}, {b:.7g})" for a, b in self.intervals) or "empty"
        return text if self.resolution == 0 else f"{text} (resolution {self.resolution:.2g})"


NOWHERE = StableSet(intervals=(), brackets=(), lower=0.0, upper=math.inf)


def intersection(sets: Sequence[StableSet]) -> StableSet:
    """Return where all of several exponents are negative.

    Parameters
    ----------
    sets : sequence of StableSet
        At least one.

    Returns
    -------
    StableSet
        On the domain that they share.

    Examples
    --------
    >>> one, two = (negative_steps(np.ones(1), np.array([c])) for c in (1.0, 4.0))
    >>> print(intersection([one, two]))
    (0, 0.5)
    """
    first, *others = sets
    intervals = list(first.intervals)
    for other in others:
        # An interval of zero width is a point at which the exponent is −∞.
        intervals = [
            (max(a, c), min(b, d))
            for a, b in intervals
            for c, d in other.intervals
            if max(a, c) < min(b, d) or c < a == b < d or a < c == d < b or a == b == c == d
        ]
    ends = {end for interval in intervals for end in interval}
    brackets = {b for s in sets for b in s.brackets if any(b[0] <= end <= b[1] for end in ends)}
    return StableSet(
        intervals=tuple(sorted(intervals)),
        brackets=tuple(sorted(brackets)),
        lower=max(s.lower for s in sets),
        upper=min(s.upper for s in sets),
        resolution=max(s.resolution for s in sets),
    )


def negative_steps(weights: Array, coefficients: Array) -> StableSet:
    r"""Return {η > 0 : Σ_m w_m log|1 − ηc_m| < 0} for coefficients of any sign, all intervals.

    Source: our derivation.

    Parameters
    ----------
    weights : array, shape (M,)
        w_m ≥ 0.
    coefficients : array, shape (M,)

    Returns
    -------
    StableSet

    Examples
    --------
    >>> print(negative_steps(np.array([0.5, 0.5]), np.array([1.0, 16.0])))
    (0, 0.134732) and (0.927768, 1.0625)
    """
    # The sum f has f(0) = 0, f'(0) = −Σ wc and f'' < 0. Up to the first pole it is negative, or
    # first positive if f'(0) > 0; between two poles it is positive on one interval around its
    # summit, or nowhere; beyond the last pole it increases from −∞ to +∞.
    used = (weights > 0) & (coefficients != 0)
    total = _LogSum(weights[used], coefficients[used])
    poles = np.unique(total.poles[total.poles > 0])
    if poles.size == 0:
        return NOWHERE
    roots: list[float] = []
    drift = -float(total.weights @ total.coefficients)
    if drift > 4 * EPSILON * float(total.weights @ np.abs(total.coefficients)):
        first = float(poles[0])
        roots.append(_root(total.value, first, total.summit(0.0, first)))
    start = roots[0] if roots else 0.0
    intervals = []
    for left, right in zip(poles.tolist(), [*poles[1:].tolist(), math.inf], strict=True):
        summit = total.beyond(left) if math.isinf(right) else total.summit(left, right)
        if total.value(summit) <= 0:
            continue
        roots.append(_root(total.value, left, summit))
        intervals.append((start, roots[-1]))
        if math.isfinite(right):
            start = _root(total.value, right, summit)
            roots.append(start)
    return StableSet(
        intervals=tuple(intervals),
        brackets=tuple(neighbours(root) for root in roots),
        lower=0.0,
        upper=math.inf,
    )


class _LogSum:
    """f(η) = Σ w log|1 − ηc| and its slope, for c ≠ 0."""

    def __init__(self, weights: Array, coefficients: Array) -> None:
        self.weights, self.coefficients, self.poles = weights, coefficients, 1 / coefficients

    def value(self, eta: float) -> float:
        """Return f(η); near a pole from the distance to it, near 0 by log1p."""
        distance = np.abs((eta - self.poles) * self.coefficients)
        if not distance.all():
            return -math.inf
        return float(self.weights @ log_abs_one_minus(eta * self.coefficients, distance))

    def slope(self, eta: float) -> float:
        """Return f'(η)."""
        return float((self.weights / (eta - self.poles)).sum())

    def summit(self, left: float, right: float) -> float:
        """Return where f is largest between 0 or a pole and the next pole."""
        low, high = np.nextafter(left, right), np.nextafter(right, left)
        if low >= high or self.slope(low) <= 0:
            return float(low)
        if self.slope(high) >= 0:
            return float(high)
        return float(brentq(self.slope, low, high, xtol=1e-300, rtol=4 * EPSILON))

    def beyond(self, last: float) -> float:
        """Return a point beyond the last pole at which f is positive."""
        eta = 2 * last
        while self.value(eta) <= 0:
            eta *= 2
        return eta


def _root(value: Callable[[float], float], pole: float, positive: float) -> float:
    """Return the sign change between a pole (value −∞) and a point where the value is positive."""
    inner = float(np.nextafter(pole, positive))
    if inner == positive or value(inner) >= 0:
        return pole  # the sliver around the pole is thinner than a rounding
    return float(brentq(value, inner, positive, xtol=1e-300, rtol=4 * EPSILON))


def neighbours(root: float) -> tuple[float, float]:
    """Return the bracket of a root known to a few roundings."""
    return root * (1 - 1e-14), root * (1 + 1e-14)


def stable_set(
    exponent: Callable[[float], Exponent], lower: float, upper: float, *, points: int = 64
) -> StableSet:
    """Return where an exponent is negative on [lower, upper], by a scan and refined brackets.

    For a family of minima t ↦ θ(t) pass `lambda t: sgd_exponent(minimum(t), step_size, rng=0)`.
    Every sign change between neighbouring points is refined to one part in 10¹²; `brackets` are the
    nearest numbers around it that were found to have a sign that the error of the exponent does not
    hide.

    Parameters
    ----------
    exponent : callable
        t -> Exponent.
    lower, upper : float
        The domain, `lower` < `upper`, both finite.
    points : int
        Points of the scan, at least 2.

    Returns
    -------
    StableSet

    Raises
    ------
    ValueError
        If the domain is empty or not finite, or `points` is too small.

    Examples
    --------
    >>> from stabcore import gd_exponent
    >>> found = stable_set(lambda t: gd_exponent([[t]], 1.0), 0.5, 3.0)
    >>> print(found)
    (0.5, 2) (resolution 0.04)
    """
    low = check.real("lower", lower)
    high = check.real("upper", upper, above=low)
    grid = np.linspace(low, high, check.integer("points", points, minimum=2))
    found = [exponent(float(t)) for t in grid]
    wrong = next((e for e in found if not isinstance(e, Exponent)), None)
    if wrong is not None:
        raise TypeError(
            f"exponent must return an Exponent, got {check.short(wrong)}; pass for instance "
            "lambda t: sgd_exponent(kernel(t), step_size)."
        )
    known = np.array([e.sign is not None for e in found])
    return scanned(exponent, grid, np.array([e.value for e in found]), known)


def scanned(
    exponent: Callable[[float], Exponent], grid: Array, values: Array, known: NDArray[np.bool_]
) -> StableSet:
    """Return where an exponent is negative, from a scan: its values, and where their sign is known.

    Parameters
    ----------
    exponent : callable
        t -> Exponent.
    grid, values : array, shape (M,)
    known : array of bool, shape (M,)

    Returns
    -------
    StableSet
    """
    negative, sure = values < 0, grid[known]
    lower, upper = float(grid[0]), float(grid[-1])
    roots, brackets = [], []
    for k in np.flatnonzero(negative[1:] != negative[:-1]).tolist():
        low, high = float(grid[k]), float(grid[k + 1])
        limits = (
            float(sure[sure <= low].max(initial=lower)),
            float(sure[sure >= high].min(initial=upper)),
        )
        slope = (np.clip(values[k : k + 2], -LARGE, LARGE) @ [-1.0, 1.0]) / (high - low)
        root, bracket = _crossing(exponent, low, high, limits, float(slope))
        roots.append(root)
        brackets.append(bracket)
    ends = [lower] * bool(negative[0]) + roots + [upper] * bool(negative[-1])
    return StableSet(
        intervals=tuple(zip(ends[::2], ends[1::2], strict=True)),
        brackets=tuple(brackets),
        lower=lower,
        upper=upper,
        resolution=max(float(np.diff(grid).max(initial=0.0)), overlap(brackets)),
    )


def overlap(brackets: Sequence[Interval]) -> float:
    """Return the width of the widest stretch under brackets that overlap; 0 if none do.

    Parameters
    ----------
    brackets : sequence of (float, float)

    Returns
    -------
    float

    Examples
    --------
    >>> overlap([(1.0, 3.0), (2.0, 5.0), (5.0, 9.0)])
    4.0
    """
    widest, start, end = 0.0, 0.0, -math.inf
    for low, high in sorted(brackets):
        if low < end:
            end = max(end, high)
            widest = max(widest, end - start)
        else:
            start, end = low, high
    return widest


def _crossing(
    exponent: Callable[[float], Exponent],
    low: float,
    high: float,
    limits: Interval,
    slope: float,
) -> tuple[float, Interval]:
    """Return where the sign changes in (low, high), and between which limits it surely does."""

    def value(t: float) -> float:
        return float(np.clip(exponent(t).value, -LARGE, LARGE))

    root = float(brentq(value, low, high, xtol=1e-300, rtol=ROOT))
    there = exponent(root)
    if there.sign == 0:
        return root, (root, root)
    blur = min((there.upper - there.lower) / abs(slope), limits[1] - limits[0])
    bracket = []
    for limit, expected in zip(limits, (-np.sign(slope), np.sign(slope)), strict=True):
        spread = max(ROOT * abs(root), blur)
        end = root
        while end != limit and exponent(end).sign != expected:
            end = max(root - spread, limit) if limit < root else min(root + spread, limit)
            spread *= 2
        bracket.append(end)
    return root, (bracket[0], bracket[1])
