"""Random numbers with finitely many values: their mean logarithm and the logarithms of moments."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from stabcore._validation import Array
from stabcore.exponent import Exponent, exact, log_abs_one_minus

# Weights, logarithms log|a|, and relative errors (in roundings) of random numbers a.
Scalars = tuple[Array, Array, Array]
EPSILON = float(np.finfo(float).eps)


def one_minus(weights: Array, scaled: Array) -> Scalars:
    """Return the numbers 1 − x for x ≥ 0 with an error of one rounding."""
    distance = np.abs(1 - scaled)
    safe = np.where(distance > 0, distance, 1.0)
    return weights, log_abs_one_minus(scaled), 2 * scaled / safe


def mean_log(numbers: Scalars) -> Exponent:
    """Return Σ w_m log|a_m|."""
    weights, logs, roundings = _where(numbers[0] > 0, numbers)
    if np.isneginf(logs).any():
        return exact(-math.inf, 0.0, "closed form", evaluations=weights.size)
    error = 4 * EPSILON * float(weights @ (np.abs(logs) + roundings))
    return exact(math.fsum(weights * logs), error, "closed form", evaluations=weights.size)


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
