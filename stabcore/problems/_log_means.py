"""Compiled sums and quadratures behind E log|a + bz|, see `stabcore.problems.signals`."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from numba import njit
from scipy.special import dawsn

from stabcore._constants import EPSILON
from stabcore._random import run_replicas
from stabcore._validation import Array

BLOCK = 8

TINY, HUGE = 1e-35, 1e35  # eight factors between them multiply to a number in the range of floats

TABLE_END = 12  # beyond, F(t) is its asymptotic series

TABLE_DENSITY = 64  # panels per unit

QUADRATURE_HALF = 128  # a multiple of 4: rules with a half and a quarter of the nodes are nested


def finite_mean_log(
    offset: Array, scale: Array, values: Array, weights: Array
) -> tuple[Array, Array]:
    """Return Σ w_m log|offset + scale·z_m| over a grid, and a bound on its rounding error."""
    family = np.broadcast_shapes(values.shape[:-1], weights.shape[:-1])
    shape = np.broadcast_shapes(offset.shape, scale.shape, family)
    size = values.shape[-1]
    z, w = (
        np.ascontiguousarray(np.broadcast_to(part, (*family, size))).reshape(-1, size)
        for part in (values, weights)
    )
    row = np.broadcast_to(np.arange(len(z)).reshape(family), shape).reshape(-1)
    a, b = (np.broadcast_to(part, shape).reshape(-1) for part in (offset, scale))
    value, nearest = np.empty((2, row.size))
    # An offset is 1 − ηγ as a rule, and known to a rounding of 1 only, however small it is.
    largest = 1 + np.abs(a) + np.abs(b) * np.abs(z).max(axis=1)[row]
    at_once = (w == w[:, :1]).all(axis=1)[row] & (largest < HUGE)

    def add(part: slice) -> None:
        _log_sums(a[part], b[part], row[part], z, w, at_once[part], value[part], nearest[part])

    run_replicas(add, row.size)
    # A factor a + bz has the error ε(1 + |a| + |bz|); eight of them are multiplied with 4ε, weights
    # and logarithms are off by ε each of |log|a + bz||, and the compensated sum by ε of itself.
    with np.errstate(divide="ignore"):
        logs = np.maximum(np.abs(np.log(nearest)), np.log(largest))
        error = EPSILON * (largest / nearest + 4 + 2 * logs + np.abs(value))
    error[np.isneginf(value)] = 0.0
    return value.reshape(shape)[()], error.reshape(shape)[()]


@njit(nogil=True, cache=True)
def _log_sums(  # type: ignore[no-untyped-def]
    offsets, scales, rows, values, weights, at_once, sums, nearest
):
    """Sum w log|a + bz| per cell, and find the smallest factor."""
    size = values.shape[1]
    for cell in range(sums.size):
        a, b, z, w = offsets[cell], scales[cell], values[rows[cell]], weights[rows[cell]]
        total, lost, smallest = 0.0, 0.0, np.inf
        m = 0
        while m < size:
            count, product, least = 0, 1.0, np.inf
            if at_once[cell] and m + BLOCK <= size:
                # Factors of equal weight are multiplied before the logarithm.
                count = BLOCK
                for j in range(BLOCK):
                    factor = abs(a + b * z[m + j])
                    product *= factor
                    least = min(least, factor)
            if count == 0 or least < TINY:
                count = 1
                least = product = abs(a + b * z[m])
            weight = w[m]
            m += count
            if weight == 0.0:
                continue
            smallest = min(smallest, least)
            if least == 0.0:
                break
            term = weight * np.log(product)
            following = total + term  # Neumaier's compensated sum
            if abs(total) >= abs(term):
                lost += (total - following) + term
            else:
                lost += (term - following) + total
            total = following
        sums[cell] = total + lost if smallest > 0.0 else -np.inf
        nearest[cell] = smallest


@cache
def normal_table() -> Array:
    """Return F(t) = E log|t + ε| on [0, TABLE_END]: six coefficients per panel, error 1e-14."""
    h = 1 / TABLE_DENSITY
    nodes = np.arange(TABLE_END * TABLE_DENSITY + 1) * h

    def slope(t: Any) -> Any:
        return math.sqrt(2) * dawsn(t / math.sqrt(2))

    abscissas, weights = np.polynomial.legendre.leggauss(8)
    increments = slope(nodes[:-1, None] + h * (abscissas + 1) / 2) @ weights * h / 2
    f = np.cumsum(np.append(-(np.euler_gamma + math.log(2)) / 2, increments))
    first = h * slope(nodes)
    second = h * h * (1 - nodes * slope(nodes))
    # Hermite interpolation of value, slope and curvature at both ends of a panel.
    f0, d0, c0 = f[:-1], first[:-1], second[:-1] / 2
    rise = f[1:] - f0 - d0 - c0
    d1 = first[1:] - d0 - 2 * c0
    c1 = second[1:] / 2 - c0
    table = np.stack(
        [f0, d0, c0, 10 * rise - 4 * d1 + c1, -15 * rise + 7 * d1 - 2 * c1, 6 * rise - 3 * d1 + c1],
        axis=1,
    )
    table.setflags(write=False)
    return table


@njit(inline="always")
def _normal_log(a, b, table):  # type: ignore[no-untyped-def]
    """Return E log|a + bε| for ε ~ N(0, 1), b ≥ 0."""
    a = abs(a)
    if b == 0.0:
        return np.log(a) if a > 0.0 else -np.inf
    t = a / b
    if t < TABLE_END:
        scaled = t * TABLE_DENSITY
        panel = int(scaled)
        x = scaled - panel
        c = table[panel]
        tail = c[3] + x * (c[4] + x * c[5])
        return np.log(b) + c[0] + x * (c[1] + x * (c[2] + x * tail))
    # E log|1 + ε/t| = −Σ_k (2k − 1)!!/(2k) t^(−2k), cut off below 1e-15.
    r = 1.0 / (t * t)
    term, series = 1.0, 0.0
    for k in range(1, 13):
        term *= (2 * k - 1) * r
        series += term / (2 * k)
        if term < 1e-17:
            break
    return np.log(a) - series


@njit(nogil=True, cache=True)
def normal_logs(a, b, table, out):  # type: ignore[no-untyped-def]
    for k in range(out.size):
        out[k] = _normal_log(a[k], b[k], table)


@cache
def double_exponential() -> tuple[Array, Array, Array]:
    """Return a tanh-sinh rule on (0, 1): distances from the left, from the right, and weights."""
    t = np.linspace(-3.5, 3.5, 2 * QUADRATURE_HALF + 1)
    left = 1 / (1 + np.exp(-math.pi * np.sinh(t)))
    right = 1 / (1 + np.exp(math.pi * np.sinh(t)))
    return left, right, (t[1] - t[0]) * math.pi * np.cosh(t) * left * right


@njit(nogil=True, cache=True)
def gaussian_mean_logs(  # type: ignore[no-untyped-def]
    offsets, slopes, noises, size, norm, left, right, weights, table, values, errors
):
    """Average E log|a + m x² + s x ε| over the chi law of x, per cell."""
    # The density of x falls at least like exp(−d²/2) above √B, like exp(−d²) below.
    low = max(0.0, np.sqrt(size) - 6.5)
    high = np.sqrt(size) + 8.5
    for cell in range(values.size):
        a, m, s = offsets[cell], slopes[cell], noises[cell]
        root = np.sqrt(-a / m) if a * m < 0.0 else 0.0
        # Split where the conditional mean vanishes, and where spread and mean become comparable.
        even = abs(a) / s if s > 0.0 else 0.0
        first = min(root, even) if root > 0.0 else even
        cuts = (low, min(max(first, low), high), min(max(root, first, low), high), high)
        full, half, quarter = 0.0, 0.0, 0.0
        for part in range(3):
            start, end = cuts[part], cuts[part + 1]
            width = end - start
            if width <= 0.0:
                continue
            for k in range(weights.size):
                x = start + width * left[k] if left[k] < 0.5 else end - width * right[k]
                centre = a + m * x * x
                if start == root > 0.0:  # without cancellation close to the root
                    centre = m * width * left[k] * (x + root)
                elif end == root:
                    centre = -m * width * right[k] * (x + root)
                power = (size - 1) * np.log(x) if size > 1 and x > 0.0 else 0.0
                term = weights[k] * np.exp(power - 0.5 * x * x - norm) * width
                if term == 0.0 or (size > 1 and x == 0.0):
                    continue
                term *= _normal_log(centre, s * x, table)
                full += term
                if k % 2 == 0:
                    half += 2.0 * term
                if k % 4 == 0:
                    quarter += 4.0 * term
        values[cell] = full
        errors[cell] = _extrapolated(abs(full - half), abs(full - quarter))


@njit(inline="always")
def _extrapolated(last, previous):  # type: ignore[no-untyped-def]
    """Estimate the error of a rule whose digits double with its nodes (after Bailey)."""
    floor = 1e-13
    if last <= floor or previous >= 1.0 or last >= previous:
        return floor + last
    guess = np.exp(np.log(last) ** 2 / np.log(previous))
    return floor + 10.0 * min(max(guess, last * last), last)
