r"""Gradient descent with momentum near a minimum: the exponent and the edge, in closed form.

In a direction of curvature κ, with x = ηκ and momentum β, the positions follow a recursion of
second order whose characteristic polynomial is

    heavy ball  z² − (1 + β − x) z + β,        Nesterov  z² − (1 + β) y z + βy,  y = 1 − x.

The exponent is the largest log|z|. Complex roots have |z|² = β (Nesterov: βy). All roots lie inside
the unit circle for 0 < x < 2(1 + β), and 0 < x < 2(1 + β)/(1 + 2β) for Nesterov. (Our derivation;
the edges are well known.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stabcore._constants import EPSILON
from stabcore._validation import Array
from stabcore.exponent import Exponent
from stabcore.sampling import SGD


def momentum_exponent(curvatures: Array, step_size: float, method: SGD) -> Exponent:
    """Return max_j log|z_j| over the curvatures, with the rounding of the ηκ_j.

    Parameters
    ----------
    curvatures : array, shape (r,)
        κ_j ≥ 0.
    step_size : float
        η > 0.
    method : SGD
        With momentum.

    Returns
    -------
    Exponent
        Of kind "exact".
    """
    scaled = step_size * curvatures
    # Eigenvalues, products and sums are off by a few roundings of the largest.
    reach = 4 * EPSILON * scaled.size * (1 + float(scaled.max()))
    value, ends = _largest_root(scaled, method), (scaled - reach, scaled + reach)
    roots = np.stack([value, *(_largest_root(end, method) for end in ends)])
    # |z| falls and then rises with x. Its smallest value is √β (Nesterov: 0), and inside an
    # interval of x that contains where it is taken, that is the lower end.
    floor = 0.0 if method.nesterov else np.sqrt(method.momentum)
    lower = np.where(_turns_within(ends, method), floor, roots.min(axis=0))
    with np.errstate(divide="ignore"):
        logs = np.log([value.max(), lower.max(), roots.max()])
    slack = 4 * EPSILON * (1 + abs(logs[2]))
    if np.isneginf(logs[0]):
        return Exponent(
            value=-np.inf, lower=-np.inf, upper=-np.inf, kind="exact", method="closed form"
        )
    return Exponent(
        value=float(logs[0]),
        lower=float(min(logs[1], logs[0]) - slack),
        upper=float(logs[2] + slack),
        kind="exact",
        method="closed form",
        evaluations=scaled.size,
    )


def momentum_edge(largest: float, method: SGD) -> float:
    """Return the step size below which gradient descent is stable at a largest curvature.

    Parameters
    ----------
    largest : float
        κ_max > 0.
    method : SGD
        With momentum or without.

    Returns
    -------
    float
    """
    beta = method.momentum
    edge = 2 * (1 + beta) / (1 + 2 * beta) if method.nesterov else 2 * (1 + beta)
    return edge / largest


def _largest_root(scaled: Array, method: SGD) -> Array:
    """Return the largest |z| for each x = ηκ."""
    beta = method.momentum
    if method.nesterov:
        middle, product = (1 + beta) * (1 - scaled), beta * (1 - scaled)
    else:
        middle, product = 1 + beta - scaled, np.full_like(scaled, beta)
    square = middle**2 / 4 - product
    real = np.abs(middle) / 2 + np.sqrt(np.maximum(square, 0.0))
    return np.where(square < 0, np.sqrt(np.maximum(product, 0.0)), real)


def _turns_within(ends: tuple[Array, Array], method: SGD) -> NDArray[np.bool_]:
    """Return where the smallest |z| is taken between the ends."""
    low, high = ends
    if method.nesterov:
        return np.asarray((low <= 1) & (high >= 1))
    root = np.sqrt(method.momentum)  # complex roots for (1 − √β)² < x < (1 + √β)²
    return np.asarray((low <= (1 + root) ** 2) & (high >= (1 - root) ** 2))
