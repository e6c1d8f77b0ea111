"""The two exponents of a minimum, μ for gradient descent and λ for SGD, and when it is regular."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from stabcore import _validation as check
from stabcore._constants import EPSILON
from stabcore._log_sums import log_abs_one_minus
from stabcore._validation import Array
from stabcore.exponent import Exponent, exact
from stabcore.lyapunov.automatic import lyapunov_exponent
from stabcore.lyapunov.laws import SGDLaw
from stabcore.lyapunov.simulated_products import check_options
from stabcore.problems.minimum import Minimum, as_minimum
from stabcore.sampling import SGD, covered_method


@check.public()
def gd_exponent(minimum: Minimum | ArrayLike, step_size: float, method: SGD = SGD()) -> Exponent:
    r"""Return μ = log max_j |1 − ηκ_j|, whose sign decides whether GD can end at the minimum.

    κ_j are the eigenvalues of Hess L on the normal space, those of P^½ K P^½ with P = diag(p).
    μ < 0 exactly when 0 < η < 2/κ_max and no κ_j is 0. It is the exponent of the method with full
    batches, so how the batches are drawn plays no part.

    Source: paper A (Theorem A).

    Parameters
    ----------
    minimum : Minimum or array, shape (N, N)
        The minimum, or its kernel.
    step_size : float
        η > 0.
    method : SGD
        How one trains, but for its batches.

    Returns
    -------
    Exponent
        Of kind "exact"; its interval bounds the rounding error of the eigenvalues.

    Raises
    ------
    NotImplementedError
        If the method has momentum or weight decay.

    Examples
    --------
    >>> gd_exponent([[2.0]], 1.5).value == math.log(2)
    True
    >>> gd_exponent([[2.0]], 0.5).value
    -inf
    """
    eta = check.step_size(step_size)
    covered_method(method, "gd_exponent")
    return _spectral_exponent(eta * as_minimum(minimum).hessian_spectrum)


def _spectral_exponent(scaled: Array) -> Exponent:
    """Return log max_j |1 − x_j| for eigenvalues x_j = ηκ_j, with its rounding error."""
    value = float(log_abs_one_minus(scaled).max())
    rounding = 4 * EPSILON * scaled.size * float(scaled.max())
    return exact(value, rounding * math.exp(-value), "closed form", evaluations=scaled.size)


@check.public(more=check_options)
def sgd_exponent(
    minimum: Minimum | ArrayLike,
    step_size: float,
    method: SGD = SGD(),
    *,
    algorithm: str = "auto",
    rng: int | np.random.Generator | None = None,
    tolerance: float = 1e-10,
    **options: Any,
) -> Exponent:
    r"""Return λ = lim (1/n) log‖A_{ξ_n} ⋯ A_{ξ_1}‖, whose sign decides for SGD.

    A_S = I − (η/B) Σ_{i∈S} J_iᵀJ_i on the normal space, J_i the rows of J that belong to sample i
    (one for each output). λ < 0: SGD can end at the minimum; λ > 0: it cannot (for minima that are
    regular, see `irregularities`).

    Source: papers A (Theorem B) and D.

    Parameters
    ----------
    minimum : Minimum or array, shape (N, N)
        The minimum, or its kernel.
    step_size : float
        η > 0.
    method : SGD
        How one trains.
    algorithm : str
        How λ is computed; as in `lyapunov_exponent`.
    rng : int, numpy.random.Generator or None
        For Monte Carlo.
    tolerance : float
        As in `lyapunov_exponent`.
    **options
        Of Monte Carlo: `steps`, `replicas`, `transient` and its others.

    Returns
    -------
    Exponent

    Raises
    ------
    NotImplementedError
        If the method has momentum or weight decay.

    Examples
    --------
    Orthogonal gradients, λ = max_i p_i log|1 − ηk_i|:

    >>> sgd_exponent([[1.0, 0.0], [0.0, 2.0]], 1.5).value == math.log(2) / 2
    True
    """
    covered_method(method, "sgd_exponent")
    law = SGDLaw(minimum, step_size, method)
    return lyapunov_exponent(law, algorithm, rng=rng, tolerance=tolerance, **options)


@check.public()
def irregularities(
    minimum: Minimum | ArrayLike, step_size: float, method: SGD = SGD()
) -> tuple[str, ...]:
    r"""Return what keeps a minimum from being *regular*, the extra hypothesis of Theorem B.

    Our reading for batches of one: no ηk is 1 (a singular factor) or 2 (a reflection), k the
    curvatures of a sample's loss, and the gradients do not split into orthogonal groups (the
    product is then reducible). λ is computed and meaningful in all these cases; it is the theorem's
    conclusion that is not claimed. The theorem also needs gradients whose minima form a manifold,
    which a singular K leaves open unless the minimum was built with its Jacobian.

    Source: the reading is ours; we could not verify it against the wording of paper A.

    Parameters
    ----------
    minimum : Minimum or array, shape (N, N)
    step_size : float
        η > 0.
    method : SGD
        Importance sampling multiplies k by w = p/q.

    Returns
    -------
    tuple of str
        Empty for a regular minimum.

    Examples
    --------
    >>> irregularities([[2.0]], 0.5)
    ('step_size * k_i is 1 for sample 0: its factor is singular',)
    """
    law = SGDLaw(minimum, step_size, method)
    point, scaled = law.minimum, law.step_size * law.curvatures
    found = []
    for level, what in ((1.0, "its factor is singular"), (2.0, "its factor is a reflection")):
        where = np.flatnonzero(np.isclose(scaled, level, rtol=1e-12, atol=0).any(axis=1))
        if where.size:
            samples = ", ".join(str(i) for i in where)
            found.append(f"step_size * k_i is {level:g} for sample {samples}: {what}")
    groups = sum(bool(point.kernel[block, block].any()) for block in point.blocks)
    if groups > 1:
        found.append(
            f"the gradients split into {groups} mutually orthogonal groups: "
            "the product is reducible"
        )
    if point.rank < len(point.kernel) and point.jacobian is None:
        found.append(
            f"the gradients are linearly dependent (rank {point.rank} of {len(point.kernel)}): "
            "from the kernel alone it is open whether the minima form a manifold"
        )
    return tuple(found)
