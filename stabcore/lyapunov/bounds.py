r"""Bounds of λ that need no limit: subadditivity from above, the determinant from below.

log‖A_n ⋯ A_1‖ is subadditive, hence λ is the infimum of (1/n) E log‖A_n ⋯ A_1‖ over n, and each of
these means is an upper bound. The d exponents sum to E log|det A|, so that
their mean is a lower bound of the largest. Both are finite sums, evaluated with a bound on their
rounding error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stabcore import _validation as check
from stabcore._constants import EPSILON
from stabcore._log_sums import mean_log, one_minus
from stabcore._validation import Array
from stabcore.exponent import Exponent
from stabcore.lyapunov._factors import listed, require_independent_steps, rescaled
from stabcore.lyapunov.closed_forms import LogSum
from stabcore.lyapunov.laws import FiniteLaw, Law, SGDLaw, require_law

MOST_BATCHES = 20_000  # of SGD, whose determinants are computed one by one


@check.public()
def subadditive_bound(law: Law, n: int, *, limit: int = 100_000) -> Exponent:
    r"""Return the upper bound (1/n) E log‖A_n ⋯ A_1‖ ≥ λ (spectral norm).

    It decreases along n, 2n, 4n, ... and tends to λ. All products are enumerated.

    Source: Furstenberg & Kesten 1960.

    Parameters
    ----------
    law : FiniteLaw or SGDLaw
        Of m factors (batches).
    n : int
        Length of the products.
    limit : int
        Largest number mⁿ of products.

    Returns
    -------
    Exponent
        Of kind "enclosure": `value` is the bound, `upper` adds its rounding error, `lower` is −∞.

    Raises
    ------
    ValueError
        If there are more than `limit` products.

    Examples
    --------
    >>> law = FiniteLaw([[[2, 1], [1, 1]], [[3, 1], [2, 1]]])
    >>> subadditive_bound(law, 1).value > subadditive_bound(law, 2).value > 1.1433110351029492
    True
    """
    require_independent_steps(law)
    length = check.integer("n", n)
    most = check.integer("limit", limit)
    matrices, logs, weights = listed(law, most)
    if len(matrices) ** length > most:
        raise ValueError(
            f"there are {len(matrices)} ** {length} products of length n = {length}, above the "
            f"limit {most}; choose a smaller n or raise limit."
        )
    factors = products = _Products.of(matrices, logs, weights)
    for _ in range(length - 1):
        products = products.followed_by(factors)
    value, upper = products.mean_log_norm()
    return Exponent(
        value=value / length,
        lower=-math.inf,
        upper=upper / length,
        kind="enclosure",
        method=f"subadditivity, products of {length}",
        evaluations=len(products.weights),
    )


@check.public()
def determinant_bound(law: Law) -> Exponent:
    r"""Return the lower bound (1/d) E log|det A| ≤ λ: the mean of all d exponents.

    For SGD it is (1/r) E Σ_j log|1 − ηκ_j/B|, κ_j the eigenvalues of the batch's kernel K_SS.

    Source: the sum rule of Furstenberg & Kesten 1960; the form for SGD is our derivation.

    Parameters
    ----------
    law : FiniteLaw or SGDLaw
        With at most 20,000 different batches; reshuffled ones are fine, whose determinants
        multiply as well.

    Returns
    -------
    Exponent
        Of kind "enclosure": `value` is the bound, `lower` subtracts its rounding error, `upper` is
        ∞. It says nothing, −∞, when a factor is singular.

    Raises
    ------
    ValueError
        If there are too many batches.

    Examples
    --------
    >>> law = FiniteLaw([[[4.0, 1.0], [0.0, 1.0]], [[1.0, 0.0], [3.0, 1.0]]])
    >>> round(determinant_bound(law).value / math.log(2), 12)
    0.5
    """
    require_law(law)
    if isinstance(law, FiniteLaw):
        bound = _mean_log_determinant(law)
    else:
        terms, coefficients = determinant_log_sum(law, *law.batches.listed(MOST_BATCHES))
        rows = law.batches.batch_size * law.minimum.n_outputs
        scaled = law.step_size * coefficients
        # Diagonal entries are known to a rounding, eigenvalues to n ε of the largest (LAPACK).
        errors = 4 * rows * float(scaled.max()) if rows > 1 else 0.0
        bound = mean_log(one_minus(terms, scaled, errors))
    return Exponent(
        value=bound.value,
        lower=bound.lower,
        upper=math.inf,
        kind="enclosure",
        method="determinant",
        evaluations=bound.evaluations,
    )


def determinant_log_sum(law: SGDLaw, batches: NDArray[np.intp], weights: Array) -> LogSum:
    r"""Return (1/r) Σ_S w_S log|det A_S| as a log-sum in η; the step size of `law` plays no part.

    Parameters
    ----------
    law : SGDLaw
    batches : array of int, shape (M, B)
    weights : array, shape (M,)
        w_S, the probabilities of the batches.

    Returns
    -------
    (weights, coefficients)
        Of Σ_m w_m log|1 − ηc_m|, one term per eigenvalue of a batch's kernel.

    Examples
    --------
    >>> law = SGDLaw([[1.0, 0.0], [0.0, 3.0]], 1.0)
    >>> determinant_log_sum(law, np.array([[0], [1]]), np.array([0.5, 0.5]))
    (array([0.25, 0.25]), array([1., 3.]))
    """
    rows = law.rows(batches)
    grams = law.kernel[rows[:, :, None], rows[:, None, :]]
    eigenvalues = np.maximum(np.linalg.eigvalsh(grams), 0) / law.batches.batch_size
    return np.repeat(weights, rows.shape[1]) / law.dimension, eigenvalues.reshape(-1)


@dataclass(frozen=True)
class _Products:
    """All products of some length: matrix times e^logarithm, and how large it could have been."""

    matrices: Array
    weights: Array
    logarithms: Array
    majorants: Array  # log of the product of the Frobenius norms
    supports: NDArray[np.bool_]  # where the product of the moduli of the factors is not 0
    length: int

    @classmethod
    def of(cls, matrices: Array, logarithms: Array, weights: Array) -> _Products:
        with np.errstate(divide="ignore"):
            majorants = np.log(np.linalg.norm(matrices, axis=(1, 2))) + logarithms
        return cls(matrices, weights, logarithms, majorants, matrices != 0, 1)

    def followed_by(self, other: _Products) -> _Products:
        """Return all products of these with one more factor, rescaled."""
        shape = (-1, *self.matrices.shape[1:])
        products, logs = rescaled((other.matrices[:, None] @ self.matrices).reshape(shape))
        return _Products(
            products,
            np.outer(other.weights, self.weights).ravel(),
            np.add.outer(other.logarithms, self.logarithms).ravel() + logs,
            np.add.outer(other.majorants, self.majorants).ravel(),
            (other.supports[:, None] @ self.supports).reshape(shape),
            self.length + 1,
        )

    def mean_log_norm(self) -> tuple[float, float]:
        """Return the mean logarithm of the norms, and a bound with all rounding errors."""
        if not self.supports.any(axis=(1, 2)).all():
            return -math.inf, -math.inf
        with np.errstate(divide="ignore"):
            logs = np.log(np.linalg.norm(self.matrices, 2, axis=(1, 2))) + self.logarithms
        errors = math.log(4 * EPSILON * self.length * self.matrices.shape[1]) + self.majorants
        uppers = np.logaddexp(logs, errors)
        roundings = 4 * EPSILON * np.abs(uppers)
        return float(self.weights @ logs), float(self.weights @ (uppers + roundings))


def _mean_log_determinant(law: FiniteLaw) -> Exponent:
    """Return (1/d) E log|det A|, with the smallest values that rounding leaves possible."""
    matrices, logs, weights = listed(law)
    singular = np.linalg.svd(matrices, compute_uv=False)
    least = singular - 4 * law.dimension * EPSILON * singular[:, :1]
    with np.errstate(divide="ignore"):
        value, lower = (
            float(weights @ (np.log(np.maximum(values, 0)).mean(axis=1) + logs))
            for values in (singular, least)
        )
    return Exponent(
        value=value,
        lower=lower - 4 * EPSILON * (1 + float(weights @ np.abs(logs))),
        upper=math.inf,
        kind="enclosure",
        method="determinant",
        evaluations=weights.size,
    )
