r"""Sums of weighted logarithms, Σ_m w_m log|a_m|, with a bound on their rounding error.

These are the exponents of everything that commutes: random numbers a with finitely many values.
`stabcore.problems._log_means` has the same sum compiled, for grids of many laws and steps.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from stabcore._constants import EPSILON
from stabcore._validation import Array
from stabcore.exponent import Exponent, exact

# Weights, logarithms log|a|, and relative errors (in roundings) of random numbers a.
Scalars = tuple[Array, Array, Array]


def log_abs_one_minus(x: Array, distance: Array | None = None) -> Array:
    """Return log|1 − x|, also where 1 − x rounds to 1; `distance` is |1 − x| if known better."""
    small = np.abs(x) < 0.5
    far = np.abs(1 - x) if distance is None else distance
    with np.errstate(divide="ignore"):
        return np.where(small, np.log1p(-np.where(small, x, 0.0)), np.log(far))


def one_minus(weights: Array, scaled: Array, errors: Array | float = 0.0) -> Scalars:
    """Return the numbers 1 − x; x has an error of one rounding and of `errors`, in units of ε."""
    return shifted(weights, 1.0, -scaled, errors)


def shifted(weights: Array, offset: float, moved: Array, errors: Array | float = 0.0) -> Scalars:
    """Return the numbers a + x; x has an error of one rounding and more, a that of 1 − ηγ."""
    factors = np.abs(offset + moved)
    small = np.abs(moved) < 0.5 * abs(offset)  # keep the digits of a small step
    ratio = np.divide(moved, offset, out=np.zeros_like(moved), where=small)
    with np.errstate(divide="ignore"):
        logs = np.where(small, np.log(np.abs(offset)) + np.log1p(ratio), np.log(factors))
    safe = np.where(factors > 0, factors, 1.0)
    return weights, logs, (2 * ((1 + abs(offset)) * (offset != 1) + np.abs(moved)) + errors) / safe


def mean_log(numbers: Scalars, method: str = "closed form") -> Exponent:
    """Return Σ w_m log|a_m|."""
    weights, logs, roundings = _where(numbers[0] > 0, numbers)
    if np.isneginf(logs).any():
        return exact(-math.inf, 0.0, method, evaluations=weights.size)
    value = math.fsum(weights * logs)
    if value == 0:
        return exact(value, 0.0, method, evaluations=weights.size)
    # |a|(1 ± δ) with δ up to 1: a number that is known to no digit may be 0.
    relative = np.minimum(4 * EPSILON * roundings, 1.0)
    rounding = 4 * EPSILON * float(weights @ np.abs(logs))
    with np.errstate(divide="ignore"):
        below = float(weights @ np.log1p(-relative))
    return Exponent(
        value=value,
        lower=value + below - rounding,
        upper=value + float(weights @ np.log1p(relative)) + rounding,
        kind="exact",
        method=method,
        evaluations=weights.size,
    )


def log_moment(numbers: Scalars, q: float) -> Exponent:
    """Return log Σ w_m |a_m|^q."""
    used = (numbers[0] > 0) & ~np.isneginf(numbers[1])
    if not used.any():
        return exact(-math.inf, 0.0, "scalar moment")
    weights, logs, roundings = _where(used, numbers)
    value = float(logsumexp(q * logs, b=weights))
    shares = weights * np.exp(q * logs - value)
    error = 4 * EPSILON * (1 + q * float(shares @ (np.abs(logs) + roundings)))
    return exact(value, error, "scalar moment", evaluations=weights.size)


def largest(exponents: list[Exponent]) -> Exponent:
    """Return the exact exponent of a product that splits into parts with the given ones."""
    return Exponent(
        value=max(e.value for e in exponents),
        lower=max(e.lower for e in exponents),
        upper=max(e.upper for e in exponents),
        kind="exact",
        method=exponents[0].method,
        evaluations=sum(e.evaluations for e in exponents),
    )


def _where(chosen: NDArray[np.bool_], numbers: Scalars) -> Scalars:
    """Return some of the values."""
    weights, logs, roundings = (part[chosen] for part in numbers)
    return weights, logs, roundings
