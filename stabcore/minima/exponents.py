"""The two exponents of a minimum, μ for gradient descent and λ for SGD, and when it is regular."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from stabcore import _validation as check
from stabcore._constants import EPSILON
from stabcore._log_sums import log_abs_one_minus
from stabcore._validation import Array
from stabcore.exponent import Exponent, exact
from stabcore.lyapunov.automatic import lyapunov_exponent
from stabcore.lyapunov.laws import MomentumLaw, SGDLaw
from stabcore.lyapunov.momentum import momentum_edge, momentum_exponent
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
        How one trains, but for its batches. With momentum β it is the largest log|z| of the roots
        of z² − (1 + β − ηκ_j)z + β (Nesterov: z² − (1 + β)yz + βy, y = 1 − ηκ_j).

    Returns
    -------
    Exponent
        Of kind "exact"; its interval bounds the rounding error of the eigenvalues.

    Raises
    ------
    NotImplementedError
        If the method has weight decay.

    Examples
    --------
    >>> gd_exponent([[2.0]], 1.5).value == math.log(2)
    True
    >>> print(gd_exponent([[2.0]], 0.5, SGD(momentum=0.25)))  # complex roots, |z|² = β
    -0.693147 (exact, closed form)
    >>> gd_exponent([[2.0]], 0.5).value
    -inf
    """
    eta = check.step_size(step_size)
    covered_method(method, "gd_exponent", "momentum")
    spectrum = as_minimum(minimum).hessian_spectrum
    if method.momentum:
        return momentum_exponent(spectrum, eta, method)
    return _spectral_exponent(eta * spectrum)


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
    regular, see `irregularities`). With momentum the factors act on pairs of positions
    (`MomentumLaw`), and λ ≥ ½ log β for the heavy ball.

    Source: papers A (Theorem B) and D; momentum is our derivation.

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
        If the method has weight decay.

    Examples
    --------
    Orthogonal gradients, λ = max_i p_i log|1 − ηk_i|:

    >>> sgd_exponent([[1.0, 0.0], [0.0, 2.0]], 1.5).value == math.log(2) / 2
    True
    """
    covered_method(method, "sgd_exponent", "momentum")
    law = law_of(minimum, step_size, method)
    return lyapunov_exponent(law, algorithm, rng=rng, tolerance=tolerance, **options)


def law_of(minimum: Minimum | ArrayLike, step_size: float, method: SGD) -> SGDLaw | MomentumLaw:
    """Return the law of the factors of a method."""
    kind = MomentumLaw if method.momentum else SGDLaw
    return kind(minimum, step_size, method)


@check.public()
def irregularities(
    minimum: Minimum | ArrayLike, step_size: float, method: SGD = SGD()
) -> tuple[str, ...]:
    r"""Return what keeps a minimum from being *regular*, the extra hypothesis of Theorem B.

    Our reading for batches of one: no ηk is 1 (a singular factor) or 2 (a reflection; with momentum
    −1 is an eigenvalue at 2(1 + β), and only Nesterov's factors can be singular), k the curvatures
    of a sample's loss, and the gradients do not split into orthogonal groups (the
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
    plain = replace(method, momentum=0.0, nesterov=False)
    law = SGDLaw(minimum, step_size, plain)
    point, scaled = law.minimum, law.step_size * law.curvatures
    found = []
    levels = {momentum_edge(1.0, method): "its factor is a reflection"}
    if not method.momentum or method.nesterov:
        levels = {1.0: "its factor is singular"} | levels
    for level, what in levels.items():
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
