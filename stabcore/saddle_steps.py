r"""All step sizes at which a neuron's saddle contracts: every interval, not only the first.

For finite data Λ±(η) = Σ w_m log|1 − ηc_m|, c_m = γ ∓ z_m, is concave in η between the poles 1/c_m,
where it is −∞. So *all* its sign changes can be found, and around every pole there is a sliver of
step sizes at which it is negative. (Our derivation.)
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from stabcore import _validation as check
from stabcore._validation import Array
from stabcore.saddles import DIRECTIONS, non_negative
from stabcore.signals import FiniteSignal, Signal, as_signal
from stabcore.stability import StableSet

MOST_POLES = 5_000  # beyond, sign changes are found by a scan
SCAN_POINTS = 1_024
EPSILON = float(np.finfo(float).eps)


def contracting_steps(
    signal: Signal | ArrayLike,
    direction: str,
    probabilities: ArrayLike | None = None,
    batch_size: int = 1,
    weight_decay: float = 0.0,
    *,
    upper: float | None = None,
    replacement: bool | None = None,
    rng: int | np.random.Generator | None = 0,
) -> StableSet:
    r"""Return all step sizes at which Λ₊ (or Λ₋) is negative, as disjoint intervals.

    For laws with at most 5000 values all sign changes are found, by concavity between the poles.
    Other laws are scanned, at 1024 points equally spaced in log η, and the sign changes refined.

    Source: our derivation.

    Parameters
    ----------
    signal : Signal or array, shape (N,)
        The law of xy, or its values.
    direction : str
        "plus" or "minus".
    probabilities : array, shape (N,), optional
        Of the values; uniform by default.
    batch_size : int
        B.
    weight_decay : float
        γ ≥ 0.
    upper : float, optional
        Largest step size to look at; by default all of them, or for a scan up to where the exponent
        has become positive for good as far as two more doublings show.
    replacement : bool, optional
        As in `Sampling`.
    rng : int, numpy.random.Generator or None
        Used where the batches are too many to be listed.

    Returns
    -------
    StableSet

    Raises
    ------
    ValueError
        If an argument is invalid; the message names it.

    Examples
    --------
    >>> print(contracting_steps([1.0, -1.0], "plus"))
    (0, 1.414214)
    """
    check.choice("direction", direction, DIRECTIONS)
    decay = non_negative("weight_decay", weight_decay)
    end = math.inf if upper is None else check.step_size(upper, "upper")
    law = as_signal(signal, probabilities).batched(batch_size, replacement, rng)
    law.require_single()
    sign = 1 if direction == "plus" else -1
    if isinstance(law, FiniteSignal) and law.values.size <= MOST_POLES:
        found = negative_steps(law.weights, decay - sign * law.values)
        return found if upper is None else found.restricted(0.0, end)
    return _scan(law, sign, decay, upper)


def stable_saddle_steps(
    signal: Signal | ArrayLike,
    probabilities: ArrayLike | None = None,
    batch_size: int = 1,
    weight_decay: float = 0.0,
    *,
    upper: float | None = None,
    replacement: bool | None = None,
    rng: int | np.random.Generator | None = 0,
) -> StableSet:
    r"""Return all step sizes at which the saddle attracts (phase III), as disjoint intervals.

    Source: our derivation, for paper B's neuron.

    Parameters
    ----------
    signal, probabilities, batch_size, weight_decay, upper, replacement, rng
        As in `contracting_steps`.

    Returns
    -------
    StableSet
        See `contracting_steps` for what has been searched.

    Examples
    --------
    Labels flipped with probability 0.4:

    >>> print(stable_saddle_steps([1.0, -1.0], [0.6, 0.4]))
    (0.3893907, 1.288795)
    """
    plus, minus = (
        contracting_steps(
            signal,
            direction,
            probabilities,
            batch_size,
            weight_decay,
            upper=upper,
            replacement=replacement,
            rng=rng,
        )
        for direction in DIRECTIONS
    )
    return _intersection(plus, minus)


def _intersection(first: StableSet, second: StableSet) -> StableSet:
    """Return where both exponents are negative."""
    intervals = tuple(
        sorted(
            {
                (max(a, c), min(b, d))
                for a, b in first.intervals
                for c, d in second.intervals
                if max(a, c) < min(b, d) or c < a == b < d or a < c == d < b or a == b == c == d
            }
        )
    )
    ends = {end for interval in intervals for end in interval}
    brackets = {
        bracket
        for bracket in (*first.brackets, *second.brackets)
        if any(bracket[0] <= end <= bracket[1] for end in ends)
    }
    return StableSet(
        intervals=intervals,
        brackets=tuple(sorted(brackets)),
        lower=0.0,
        upper=min(first.upper, second.upper),
        resolution=max(first.resolution, second.resolution),
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
        return StableSet(intervals=(), brackets=(), lower=0.0, upper=math.inf)
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
        brackets=tuple(_neighbours(root) for root in roots),
        lower=0.0,
        upper=math.inf,
    )


class _LogSum:
    """f(η) = Σ w log|1 − ηc| and its slope, for c ≠ 0."""

    def __init__(self, weights: Array, coefficients: Array) -> None:
        self.weights, self.coefficients, self.poles = weights, coefficients, 1 / coefficients

    def value(self, eta: float) -> float:
        """Return f(η); near a pole from the distance to it, near 0 by log1p."""
        moved = eta * self.coefficients
        distance = np.abs((eta - self.poles) * self.coefficients)
        if not distance.all():
            return -math.inf
        near = np.abs(moved) < 0.5
        logs = np.where(near, np.log1p(-np.where(near, moved, 0.0)), np.log(distance))
        return float(self.weights @ logs)

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


def _neighbours(root: float) -> tuple[float, float]:
    """Return the bracket of a root known to a few roundings."""
    return root * (1 - 1e-14), root * (1 + 1e-14)


def _scan(law: Signal, sign: int, decay: float, upper: float | None) -> StableSet:
    """Return where the exponent of a law without poles is negative, by a scan of its step sizes."""

    def value(eta: float | Array) -> Array:
        eta = np.asarray(eta)
        return law.mean_log(1 - eta * decay, sign * eta)[0]

    # Below `low` the second order in η decides, beyond `end` the logarithm of η.
    mean, second = decay - sign * float(law.mean), float(law.second_moment)
    scale = 1 / math.sqrt(second + decay**2)
    low = 1e-3 * min(scale, max(abs(mean) / second, 1e-6 * scale) if mean else scale)
    end = 4 * scale if upper is None else upper
    while upper is None and not (value(end * np.array([1.0, 2.0, 4.0])) > 0).all():
        end *= 2
    low = min(low, end / 2)
    grid = np.geomspace(low, end, SCAN_POINTS)
    negative = value(grid) < 0
    roots = [
        float(brentq(lambda eta: float(value(eta)), grid[k], grid[k + 1], xtol=1e-300, rtol=1e-13))
        for k in np.flatnonzero(negative[1:] != negative[:-1])
    ]
    ends = [0.0] * bool(negative[0]) + roots + [end] * bool(negative[-1])
    return StableSet(
        intervals=tuple(zip(ends[::2], ends[1::2], strict=True)),
        brackets=tuple((root * (1 - 1e-10), root * (1 + 1e-10)) for root in roots),
        lower=0.0,
        upper=end,
        resolution=float(grid[-1] - grid[-2]),
    )
