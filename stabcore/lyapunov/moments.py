r"""Moments of random matrix products, and the bounds of λ that need no limit.

L(q) = lim (1/n) log E‖A_n ⋯ A_1‖^q is convex in q, L(0) = 0, and L(q)/q falls to λ as q falls to 0.
Hence L(2)/2 ≥ λ: stability in mean square implies λ < 0, and not the other way round. In between
lies Kesten's tail index, the q > 0 with L(q) = 0.

Of the second moment all that matters is TX = E[A X Aᵀ] on symmetric matrices, a linear map that
keeps the cone of positive semidefinite ones. With h_i = g_i g_iᵀ and H = Σ p_i h_i, SGD has

    TX = (1 − s) (I − ηH) X (I − ηH) + s Σ p_i (I − ηh_i) X (I − ηh_i),

s = 1/B with replacement and (N − B)/(B(N − 1)) without (the first and second moments of how often a
batch contains a sample): in mean square a batch is a lottery between a step of gradient descent and
a step of batch size one. No batch is ever written out.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh
from scipy.ndimage import map_coordinates
from scipy.optimize import brentq
from scipy.sparse.linalg import LinearOperator, eigs, eigsh, gmres
from scipy.special import logsumexp

from stabcore import _validation as check
from stabcore._validation import Array
from stabcore.exponent import Exponent, ExponentWarning, exact, log_abs_one_minus
from stabcore.lyapunov.closed_form import LogSum, log_sum, log_sums
from stabcore.minima import Minimum, as_minimum
from stabcore.products import FiniteLaw, Law, SGDLaw, require_law
from stabcore.sampling import Sampling

# Weights, logarithms log|a|, and relative errors (in roundings) of random numbers a.
Scalars = tuple[Array, Array, Array]

EPSILON = float(np.finfo(float).eps)
MOST_ORDER = 44  # of symmetric matrices whose linear maps are written out, for finite laws
MOST_ORDER_SGD = 12  # the same for SGD, where a few applications are enough
TIGHT = 1e-10  # tolerance of eigenvalues found by iteration
MARGINS = 10.0 ** np.arange(-14, 5)  # tried around ρ until it is bracketed
COARSE_MARGINS = 10.0 ** np.arange(-8, 3, 2)  # the same where equations are solved by iteration
MOST_BATCHES = 2_000
GRIDS = tuple(48 * 2**k for k in range(10))  # directions of the plane
SWEEPS = 2_000  # of the power iteration on one grid
MOST_EVALUATIONS = 8_000_000  # interpolations of the power iteration
SAFETY = 2.0  # of error estimates
STEADY = 4.0  # how much a change from grid to grid is expected to shrink, at the most
SMALLEST_MOMENT, LARGEST_MOMENT = 2.0**-20, 2.0**12  # where to look for the tail index


def mean_square_exponent(law: Law) -> Exponent:
    r"""Return ½ log ρ(E[A⊗A]) = L(2)/2 ≥ λ, negative exactly for stability in mean square.

    For finite laws ρ is bracketed by a test that is exact but for rounding. Solve sX − TX = I at a
    level s > 0. If X is positive definite, TX < sX, hence ρ < s (Collatz and Wielandt, on the cone
    of positive semidefinite matrices); and if ρ < s, then X = Σ Tᵏ I / sᵏ⁺¹ is positive definite.
    For SGD T is self-adjoint, T = Δ + η²s Σ p_i (h_i, ·) h_i with Δ diagonal in the eigenbasis of
    H, and ρ is the level where the largest eigenvalue of the second term reaches sI − Δ.

    Source: Wu, Ma & E 2018; Ma & Ying 2021; Mulayoff & Michaeli 2024; the bracket is our
    derivation.

    Parameters
    ----------
    law : FiniteLaw or SGDLaw
        With any number of batches.

    Returns
    -------
    Exponent
        Of kind "exact" in one dimension and "deterministic" above.

    Raises
    ------
    TypeError
        If `law` is not a law.

    Examples
    --------
    E A² = (2² + 0²)/2 = 2:

    >>> result = mean_square_exponent(FiniteLaw([[[2.0]], [[0.0]]]))
    >>> round(result.value / math.log(2), 12)
    0.5
    """
    _require_independent_steps(law)
    if isinstance(law, SGDLaw):
        return _sgd_mean_square(law)
    parts = _scalar_parts(law)
    return _finite_mean_square(law) if parts is None else _affine(_scalar_moment(parts, 2.0), 0.5)


def mean_square_edge(
    minimum: Minimum | ArrayLike,
    batch_size: int = 1,
    probabilities: ArrayLike | None = None,
    replacement: bool | None = None,
) -> float:
    r"""Return the step size η* with: SGD is stable in mean square exactly for 0 < η < η*.

    Write TX = X − η(2C − ηD)X with 2CX = HX + XH and DX = (1 − s) HXH + s Σ p_i h_i X h_i. T is
    self-adjoint (for tr XY) and keeps the cone of positive semidefinite matrices, so its spectral
    radius is its largest eigenvalue (Krein and Rutman), 1 − η λ_min(2C − ηD). Hence stability is
    2C − ηD ≻ 0. As D ⪰ 0, that holds on an interval: η* = 2/λ_max(C⁻¹D), all on the normal space.

    Source: Mulayoff & Michaeli 2024 for uniform batches without replacement; our derivation for
    the others.

    Parameters
    ----------
    minimum : Minimum or array, shape (N, N)
        The minimum, or its kernel.
    batch_size : int
        B.
    probabilities : array, shape (N,), optional
        Those of the minimum by default.
    replacement : bool, optional
        Whether a batch may repeat a sample; see `Sampling`.

    Returns
    -------
    float
        η*, to about twelve digits; 0 if no sample that is drawn moves some normal direction.

    Raises
    ------
    ValueError
        If an argument is invalid; the message names it.

    Examples
    --------
    In one dimension E(1 − ηk)² < 1 for η < 2 E k / E k²:

    >>> round(mean_square_edge([[1.0, 2.0], [2.0, 4.0]]), 12)
    0.588235294118
    """
    point = as_minimum(minimum)
    weights = point.probabilities if probabilities is None else probabilities
    sampling = Sampling(point.n_samples, batch_size, weights, replacement)
    if point.hessian_spectrum(sampling.probabilities)[0] == 0:
        return 0.0
    lottery = _Lottery.of(point, sampling)
    space = _SymmetricMatrices(point.rank)
    first, second = lottery.curvatures[space.rows], lottery.curvatures[space.columns]
    diagonal = (1 - lottery.share) * first * second / (first + second)
    return 1 / lottery.largest_eigenvalue(space, diagonal, 1 / np.sqrt(first + second))


def moment_exponent(law: Law, q: float, *, tolerance: float = 1e-10) -> Exponent:
    r"""Return L(q) = lim (1/n) log E‖A_n ⋯ A_1‖^q for q > 0.

    Covered are: laws that split into random numbers (one dimension, triangular factors, gradients
    that are parallel or in orthogonal groups of parallel ones, the whole data set as batch), where
    L(q) = log Σ p_m |a_m|^q, the largest over the parts; q = 2 for any law; q = 4, 6, ... through
    tensor powers in few dimensions; and every q in two dimensions, where e^L(q) is the spectral
    radius of (Tf)(v) = Σ p_i |A_i v|^q f(A_i v) on directions v, |v| = 1. T is applied to
    splines on grids of angles, finer and finer, until a power iteration makes the smallest and the
    largest Tf/f agree, between which the spectral radius of a positive operator lies.

    Source: Le Page 1982 for the operator; the discretisation is our derivation.

    Parameters
    ----------
    law : FiniteLaw or SGDLaw
    q : float
        q > 0.
    tolerance : float
        Wanted error in two dimensions.

    Returns
    -------
    Exponent
        Of kind "exact" or "deterministic"; `status` says when the tolerance was not reached.

    Raises
    ------
    ValueError
        If the law is not covered, or an argument is invalid.
    TypeError
        If `law` is not a law.

    Examples
    --------
    E A² = (1² + 3²)/2 = 5:

    >>> round(moment_exponent(FiniteLaw([[[1.0]], [[-3.0]]]), 2.0).value / math.log(5), 12)
    1.0
    """
    _require_independent_steps(law)
    q = check.real("q", q, above=0.0)
    goal = check.real("tolerance", tolerance, above=0.0)
    parts = _scalar_parts(law)
    if parts is not None:
        return _scalar_moment(parts, q)
    if q == 2 or (isinstance(law, FiniteLaw) and (law.probabilities > 0).sum() == 1):
        return _affine(mean_square_exponent(law), q)
    even = q % 2 == 0 and law.dimension ** (q / 2) <= MOST_ORDER
    if not even and law.dimension != 2:
        raise ValueError(
            f"moment_exponent does not cover q = {q:g} for {law!r}: it covers every q > 0 where "
            "the law splits into numbers or has dimension 2, q = 2 for every law, and even q where "
            f"dimension ** (q / 2) <= {MOST_ORDER}."
        )
    matrices, weights, logarithm = _normalised(law.finite() if isinstance(law, SGDLaw) else law)
    if even:
        power = FiniteLaw(_tensor_power(matrices, int(q) // 2), weights)
        return _affine(mean_square_exponent(power), 2.0, q * logarithm)
    return _affine(_planar_moment(matrices, weights, q, goal), 1.0, q * logarithm)


def tail_index(law: Law, *, tolerance: float = 1e-8) -> float:
    r"""Return Kesten's tail index: the q > 0 with L(q) = 0, for a law with λ < 0.

    The products converge to 0 almost surely, and so do their moments of order below q, while those
    above explode: with a little noise added at each step, |θ − θ*| has tails of order t^(−q).

    Source: Kesten 1973; Gürbüzbalaban, Şimşekli & Zhu 2021 (for SGD).

    Parameters
    ----------
    law : FiniteLaw or SGDLaw
        One that `moment_exponent` covers for every q.
    tolerance : float
        Of L(q), in two dimensions.

    Returns
    -------
    float
        ∞ when no factor expands (all norms are at most 1) or the products vanish.

    Raises
    ------
    ValueError
        If λ ≥ 0, if the law is not covered, or if there is no zero below q = 4096.
    TypeError
        If `law` is not a law.

    Examples
    --------
    Label flips 1 ± η with η < 1: E|A| = 1.

    >>> round(tail_index(FiniteLaw([[[0.2]], [[1.8]]])), 12)
    1.0
    """
    _require_independent_steps(law)
    if _largest_norm(law) <= 1 + 8 * law.dimension * EPSILON:
        return math.inf

    def moment(q: float) -> Exponent:
        return moment_exponent(law, q, tolerance=tolerance)

    low = 1.0
    while (first := moment(low)).sign != -1:
        low /= 2
        if low < SMALLEST_MOMENT:
            raise ValueError(
                f"tail_index needs λ < 0, but L({2 * low:.1e}) is {first.value:.3e} for {law!r}: "
                "λ is not negative, or too close to 0 to tell; choose another step_size."
            )
    if math.isinf(first.value):
        return math.inf
    high = 2 * low
    while moment(high).value <= 0:
        high *= 2
        if high > LARGEST_MOMENT:
            raise ValueError(
                f"tail_index found no zero of L(q) below q = {LARGEST_MOMENT:g} for {law!r}: long "
                "products may never expand, although single factors do."
            )
    index = brentq(lambda q: moment(q).value, high / 2, high, xtol=1e-14)
    at_index = moment(index)
    if not at_index.converged:
        warnings.warn(
            f"the tail index {index:.6g} cannot be trusted to all digits: {at_index.status}",
            ExponentWarning,
            stacklevel=2,
        )
    return float(index)


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
        If there are more than `limit` products, or an argument is invalid.

    Examples
    --------
    >>> law = FiniteLaw([[[2, 1], [1, 1]], [[3, 1], [2, 1]]])
    >>> subadditive_bound(law, 1).value > subadditive_bound(law, 2).value > 1.1433110351029492
    True
    """
    _require_independent_steps(law)
    length = check.integer("n", n)
    most = check.integer("limit", limit)
    matrices, weights, logarithm = _normalised(law.finite(most) if isinstance(law, SGDLaw) else law)
    if len(matrices) ** length > most:
        raise ValueError(
            f"there are {len(matrices)} ** {length} products of length n = {length}, above the "
            f"limit {most}; choose a smaller n or raise limit."
        )
    factors = products = _Products.of(matrices, weights)
    for _ in range(length - 1):
        products = products.followed_by(factors)
    value, upper = products.mean_log_norm()
    return Exponent(
        value=value / length + logarithm,
        lower=-math.inf,
        upper=upper / length + logarithm,
        kind="enclosure",
        method=f"subadditivity, products of {length}",
        evaluations=len(products.weights),
    )


def determinant_bound(law: Law) -> Exponent:
    r"""Return the lower bound (1/d) E log|det A| ≤ λ: the mean of all d exponents.

    For SGD it is (1/r) E Σ_j log|1 − ηκ_j/B|, κ_j the eigenvalues of the batch's kernel K_SS.

    Source: the sum rule of Furstenberg & Kesten 1960; the form for SGD is our derivation.

    Parameters
    ----------
    law : FiniteLaw or SGDLaw
        With at most 2000 different batches.

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
    _require_independent_steps(law)
    if isinstance(law, FiniteLaw):
        bound = _mean_log_determinant(law)
    elif law.sampling.count > MOST_BATCHES:
        raise ValueError(
            f"the law has {law.sampling.count} different batches, above the limit {MOST_BATCHES}; "
            "use a smaller batch_size."
        )
    else:
        batches, weights = (np.array(part) for part in zip(*law.sampling.batches(), strict=True))
        terms, coefficients = determinant_log_sum(law, batches, weights)
        bound = log_sum(terms, law.step_size * coefficients)
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
    grams = law.minimum.kernel[batches[:, :, None], batches[:, None, :]]
    size = batches.shape[1]
    eigenvalues = np.maximum(np.linalg.eigvalsh(grams), 0) / size
    return np.repeat(weights, size) / law.dimension, eigenvalues.reshape(-1)


def _require_independent_steps(law: Law) -> None:
    """Refuse what is not a law, and reshuffled epochs, whose steps depend on each other."""
    require_law(law)
    if isinstance(law, SGDLaw) and law.sampling.epoch_length > 1:
        raise ValueError(
            "law has reshuffled epochs, and moments are computed for independent steps only; "
            "use a law with reshuffle=False."
        )


class _SymmetricMatrices:
    """Orthonormal coordinates (for tr XY) of the symmetric matrices of one order."""

    def __init__(self, order: int) -> None:
        self.order = order
        self.rows, self.columns = np.triu_indices(order)
        self.weights = np.where(self.rows == self.columns, 1.0, math.sqrt(2))
        self.indices = self.rows, self.columns
        self.size = self.rows.size
        self.identity = np.where(self.rows == self.columns, 1.0, 0.0)

    def pack(self, matrix: Array) -> Array:
        """Return the coordinates of a symmetric matrix."""
        return np.asarray(matrix[self.rows, self.columns] * self.weights)

    def unpack(self, coordinates: Array) -> Array:
        """Return the matrix with these coordinates."""
        matrix = np.empty((self.order, self.order))
        matrix[self.rows, self.columns] = matrix[self.columns, self.rows] = (
            coordinates / self.weights
        )
        return matrix


@dataclass(frozen=True)
class _Lottery:
    """SGD in mean square: gradient descent, or with probability `share` one sample at a time."""

    curvatures: Array  # eigenvalues of H, shape (r,)
    gradients: Array  # of the samples that are drawn, in the eigenbasis of H, shape (N, r)
    probabilities: Array
    share: float

    @classmethod
    def of(cls, minimum: Minimum, sampling: Sampling) -> _Lottery:
        drawn = sampling.probabilities > 0
        gradients, probabilities = minimum.gradients[drawn], sampling.probabilities[drawn]
        curvatures, vectors = np.linalg.eigh((gradients.T * probabilities) @ gradients)
        return cls(np.maximum(curvatures, 0), gradients @ vectors, probabilities, _share(sampling))

    def single_sample(self, matrix: Array) -> Array:
        """Return Σ p_i h_i X h_i."""
        forms = np.einsum("nr,nr->n", self.gradients @ matrix, self.gradients)
        return np.asarray((self.gradients.T * (self.probabilities * forms)) @ self.gradients)

    def largest_eigenvalue(self, space: _SymmetricMatrices, diagonal: Array, root: Array) -> float:
        """Return that of `diagonal` + s `root` (Σ p_i h_i X h_i) `root`, all in coordinates."""
        if space.order > MOST_ORDER_SGD:

            def apply(x: Array) -> Array:
                single = space.pack(self.single_sample(space.unpack(root * x.ravel())))
                return np.asarray(diagonal * x.ravel() + self.share * root * single)

            operator = LinearOperator((space.size, space.size), apply, dtype=np.float64)
            # The identity is inside the cone, so it has a part in the direction of the eigenvector.
            start = space.identity
            return float(
                eigsh(operator, 1, which="LA", v0=start, tol=TIGHT, return_eigenvectors=False)[0]
            )
        products = self.gradients[:, space.rows] * self.gradients[:, space.columns]
        products *= space.weights * root
        matrix = self.share * (products.T * self.probabilities) @ products + np.diag(diagonal)
        last = space.size - 1
        return float(eigh(matrix, eigvals_only=True, subset_by_index=[last, last])[0])


def _sgd_mean_square(law: SGDLaw) -> Exponent:
    lottery, space = _Lottery.of(law.minimum, law.sampling), _SymmetricMatrices(law.dimension)
    norms = law.step_size * np.diag(law.minimum.kernel)[law.sampling.probabilities > 0]
    share, weights = lottery.share, lottery.probabilities
    if law.dimension == 1:
        parts = np.append(1 - share, share * weights), np.append(weights @ norms, norms)
        return _affine(_scalar_moment([_one_minus(*parts)], 2.0), 0.5)
    scaled = law.step_size * lottery.curvatures
    first, second = scaled[space.rows], scaled[space.columns]
    diagonal = (1 - share) * (1 - first) * (1 - second) + share * (1 - first - second)
    zeros = np.zeros(space.size)

    def excess(level: float) -> float:
        """Return something increasing that is 0 at ρ."""
        above = level - diagonal
        if above.min() <= 0:
            return -1.0
        root = law.step_size / np.sqrt(above)
        return 1 / lottery.largest_eigenvalue(space, zeros, root) - 1

    lowest, least = float(diagonal.max()), float(diagonal.min())
    accuracy = TIGHT if space.order > MOST_ORDER_SGD else space.size * EPSILON
    norm = (1 - share) * (1 - scaled) ** 2 + share * max(1.0, float(((1 - norms) ** 2).max()))
    radius = lowest
    if share > 0:
        close = accuracy * (lowest - least) + 1e-300
        radius = float(brentq(excess, lowest, 2 * norm.max() + 1, xtol=close, rtol=4 * EPSILON))
    if radius <= 0:
        return exact(-math.inf, 0.0, "mean square")
    rounding = 8 * space.order * EPSILON * (1 + float(max(scaled.max(), norms.max()))) ** 2
    return _half_log(radius, 2 * accuracy * (radius - least) + rounding, space.size)


def _half_log(x: float, error: float, evaluations: int) -> Exponent:
    """Return ½ log x for a number known up to an error."""
    return Exponent(
        value=math.log(x) / 2,
        lower=math.log(x - error) / 2 if error < x else -math.inf,
        upper=math.log(x + error) / 2,
        kind="deterministic",
        method="mean square",
        evaluations=evaluations,
    )


def _share(sampling: Sampling) -> float:
    size, count = sampling.batch_size, sampling.n_samples
    if sampling.full_batch:
        return 0.0
    return 1 / size if sampling.independent else (count - size) / (size * (count - 1))


def _finite_mean_square(law: FiniteLaw) -> Exponent:
    matrices, weights, logarithm = _normalised(law)
    moment = _SecondMoment(matrices, weights)
    if moment.vanishes():
        return exact(-math.inf, 0.0, "mean square")
    lower, radius, upper = moment.spectral_radius()
    with np.errstate(divide="ignore"):
        low, middle, high = (float(x) for x in np.log([lower, radius, upper]) / 2)
    result = Exponent(
        value=middle,
        lower=low,
        upper=high,
        kind="deterministic",
        method="mean square",
        evaluations=moment.space.size,
    )
    return _affine(result, 1.0, logarithm)


class _SecondMoment:
    """The map TX = Σ w_m A_m X A_mᵀ in coordinates."""

    def __init__(self, matrices: Array, weights: Array) -> None:
        self.space = space = _SymmetricMatrices(matrices.shape[1])
        self.bulk = float(weights @ (matrices**2).sum(axis=(1, 2)))  # at least the norm of T
        self.operator: Array | LinearOperator
        if space.order > MOST_ORDER:

            def apply(x: Array) -> Array:
                moved = matrices @ space.unpack(x.ravel()) @ np.swapaxes(matrices, 1, 2)
                return space.pack(np.tensordot(weights, moved, 1))

            self.operator = LinearOperator((space.size, space.size), apply, dtype=np.float64)
            return
        flat = matrices.reshape(len(matrices), -1)
        shape = (space.order,) * 4
        tensor = ((flat.T * weights) @ flat).reshape(shape)  # Σ w A_ik A_jl at i, k, j, l
        i, j = space.rows[:, None], space.columns[:, None]
        once, swapped = (tensor[i, k, j, m] for k, m in (space.indices, space.indices[::-1]))
        self.operator = np.outer(space.weights, space.weights / 2) * (once + swapped)

    def vanishes(self) -> bool:
        """Whether T is nilpotent: Tᵏ I = 0 for some k, at most the order."""
        x = self.space.identity
        for _ in range(self.space.order):
            x = self.operator @ x
            if not x.any():
                return True
            x = x / np.abs(x).max()
        return False

    def spectral_radius(self) -> tuple[float, float, float]:
        """Return a lower bound, an estimate and an upper bound."""
        written_out = isinstance(self.operator, np.ndarray)
        if written_out:
            values, vectors = np.linalg.eig(self.operator)
        else:
            values, vectors = eigs(
                self.operator, k=1, which="LR", v0=self.space.identity, tol=TIGHT
            )
        index = int(np.abs(values).argmax())
        radius, vector = float(abs(values[index])), np.real(vectors[:, index])
        if radius == 0:
            return 0.0, 0.0, self.bulk
        margins = 1 + (MARGINS if written_out else COARSE_MARGINS)
        above = (s for s in radius * margins if self._side(s, radius, vector) < 0)
        below = (s for s in radius / margins if self._side(s, radius, vector) > 0)
        return float(next(below, 0.0)), radius, float(next(above, max(radius, self.bulk)))

    def _side(self, level: float, radius: float, vector: Array) -> int:
        """Return −1 if ρ < level is certain, 1 if ρ ≥ level is, and 0 otherwise."""
        try:
            solution = self._resolvent(level, radius, vector)
        except np.linalg.LinAlgError:  # the level is an eigenvalue
            return 0
        residual = self.space.unpack(level * solution - self.operator @ solution)
        matrix = self.space.unpack(solution)
        rounding = 8 * self.space.order * EPSILON * float(np.linalg.norm(matrix))
        if not np.linalg.eigvalsh(residual)[0] > rounding * (level + self.bulk):
            return 0
        lowest = float(np.linalg.eigvalsh(matrix)[0])
        return 0 if abs(lowest) <= rounding else -int(math.copysign(1, lowest))

    def _resolvent(self, level: float, radius: float, vector: Array) -> Array:
        """Return X with level X − TX = I, roughly (what is left over is looked at later)."""
        identity, operator = self.space.identity, self.operator
        if isinstance(operator, np.ndarray):
            return np.asarray(np.linalg.solve(level * np.eye(identity.size) - operator, identity))
        system = LinearOperator(
            operator.shape, lambda x: level * x - operator @ x, dtype=np.float64
        )
        guess = vector * (vector @ identity) / (level - radius)
        tolerance = 0.5 / math.sqrt(self.space.order)
        return np.asarray(
            gmres(system, identity, x0=guess, rtol=tolerance, restart=30, maxiter=3)[0]
        )


def _normalised(law: FiniteLaw) -> tuple[Array, Array, float]:
    """Return the factors that are drawn, divided by their largest entry, and its logarithm."""
    used = law.probabilities > 0
    matrices = law.matrices[used]
    largest = float(np.abs(matrices).max()) or 1.0
    return matrices / largest, law.probabilities[used], math.log(largest)


def _tensor_power(matrices: Array, power: int) -> Array:
    """Return A ⊗ ... ⊗ A for every factor."""
    result = matrices
    for _ in range(power - 1):
        size = result.shape[1] * matrices.shape[1]
        product = result[:, :, None, :, None] * matrices[:, None, :, None, :]
        result = product.reshape(-1, size, size)
    return result


def _affine(exponent: Exponent, factor: float, shift: float = 0.0) -> Exponent:
    """Return factor * exponent + shift."""
    rounding = EPSILON * abs(shift)
    return Exponent(
        value=factor * exponent.value + shift,
        lower=factor * exponent.lower + shift - rounding,
        upper=factor * exponent.upper + shift + rounding,
        kind=exponent.kind,
        method=exponent.method,
        status=exponent.status,
        evaluations=exponent.evaluations,
    )


def _scalar_parts(law: Law) -> list[Scalars] | None:
    """Return the random numbers into which a law splits, or None if it does not."""
    if isinstance(law, SGDLaw):
        sums = log_sums(law)
        if sums is None:
            return None
        return [_one_minus(weights, law.step_size * c) for weights, c in sums]
    used = law.probabilities > 0
    matrices, weights = law.matrices[used], law.probabilities[used]
    if np.tril(matrices, -1).any() and np.triu(matrices, 1).any():
        return None
    with np.errstate(divide="ignore"):
        logs = np.log(np.abs(np.diagonal(matrices, axis1=1, axis2=2)))
    return [(weights, column, np.zeros(column.size)) for column in logs.T]


def _one_minus(weights: Array, scaled: Array) -> Scalars:
    distance = np.abs(1 - scaled)
    roundings = 2 * scaled / np.where(distance > 0, distance, 1.0)
    return weights, log_abs_one_minus(scaled), roundings


def _scalar_moment(parts: list[Scalars], q: float) -> Exponent:
    """Return the largest log Σ w_m |a_m|^q."""
    moments = [_log_moment(*part, q) for part in parts]
    return Exponent(
        value=max(moment.value for moment in moments),
        lower=max(moment.lower for moment in moments),
        upper=max(moment.upper for moment in moments),
        kind="exact",
        method="scalar moment",
        evaluations=sum(moment.evaluations for moment in moments),
    )


def _log_moment(weights: Array, logs: Array, roundings: Array, q: float) -> Exponent:
    used = (weights > 0) & ~np.isneginf(logs)
    if not used.any():
        return exact(-math.inf, 0.0, "scalar moment")
    weights, logs, roundings = weights[used], logs[used], roundings[used]
    value = float(logsumexp(q * logs, b=weights))
    shares = weights * np.exp(q * logs - value)
    error = 4 * EPSILON * (1 + q * float(shares @ (np.abs(logs) + roundings)))
    return exact(value, error, "scalar moment", evaluations=weights.size)


def _largest_norm(law: Law) -> float:
    """Return the largest spectral norm of a factor that is drawn."""
    parts = _scalar_parts(law) if isinstance(law, SGDLaw) or law.dimension == 1 else None
    if parts is not None:
        return float(np.exp(max(logs[weights > 0].max() for weights, logs, _ in parts)))
    matrices, _, logarithm = _normalised(law.finite() if isinstance(law, SGDLaw) else law)
    with np.errstate(over="ignore"):
        return float(np.linalg.norm(matrices, 2, axis=(1, 2)).max() * np.exp(logarithm))


def _planar_moment(matrices: Array, weights: Array, q: float, goal: float) -> Exponent:
    """Return L(q) of a law in the plane, or of its transpose, whose L(q) is the same."""
    norm = float(np.linalg.norm(matrices, 2, axis=(1, 2)).max())  # |Av|^q ≤ 1 after division
    result = _power_iteration(matrices / norm, weights, q, goal)
    if not result.converged:
        # Where the plane has an invariant direction one of the two eigenfunctions may vanish there.
        transposed = np.swapaxes(matrices, 1, 2) / norm
        other = _power_iteration(transposed, weights, q, goal)
        result = min(result, other, key=lambda found: found.upper - found.lower)
    return _affine(result, 1.0, q * math.log(norm))


def _power_iteration(matrices: Array, weights: Array, q: float, goal: float) -> Exponent:
    f, half_width, work = np.ones(GRIDS[0]), math.inf, 0
    values: list[float] = []
    bounds = (-math.inf, math.inf)
    for points in GRIDS:
        grid = _Directions(points, matrices, weights, q)
        f = _positive(_spline(f, grid.angles))
        # Between the points of the last grid these ones tell what interpolation has cost.
        lower, _, upper = _ratios(grid.apply(f), f)
        bounds = max(bounds[0], lower), min(bounds[1], upper)
        f, residual, sweeps = grid.leading(f, goal)
        values.append(residual[1])
        half_width = _half_width(values, bounds) + residual[2] - residual[0]
        work += sweeps * grid.positions.size
        if half_width <= goal or work > MOST_EVALUATIONS:
            break
    return Exponent(
        value=values[-1],
        lower=values[-1] - half_width,
        upper=values[-1] + half_width,
        kind="deterministic",
        method="transfer operator of moments",
        status="converged"
        if half_width <= goal
        else f"error estimate {half_width:.1e} above the tolerance {goal:.1e}: the moments depend "
        "on the starting direction, or do so in a rough way",
        evaluations=work,
    )


def _half_width(values: list[float], bounds: tuple[float, float]) -> float:
    """Return an error estimate from the change from grid to grid, or from bounds if smaller."""
    changes = np.abs(np.diff(values))[::-1]
    rounding = 1e-14 * (1 + abs(values[-1]))
    if changes.size < 2:
        return math.inf
    error = SAFETY * max(changes[0], changes[1] / STEADY)
    if bounds[0] <= values[-1] <= bounds[1]:
        error = min(error, SAFETY * (bounds[1] - bounds[0]))
    return float(error) + rounding


class _Directions:
    """The operator T_q, from functions of the direction to functions on a grid."""

    def __init__(self, points: int, matrices: Array, weights: Array, q: float) -> None:
        self.angles = np.arange(points, dtype=np.float64) * (math.pi / points)
        moved: Array = matrices @ np.stack([np.cos(self.angles), np.sin(self.angles)])
        self.positions = np.arctan2(moved[:, 1], moved[:, 0])
        self.factors = weights[:, None] * np.hypot(moved[:, 0], moved[:, 1]) ** q

    def apply(self, f: Array) -> Array:
        """Return Tf."""
        return np.asarray((self.factors * _spline(f, self.positions)).sum(axis=0))

    def leading(self, f: Array, goal: float) -> tuple[Array, tuple[float, float, float], int]:
        """Return the leading eigenfunction, its ratios, and the steps of the power iteration."""
        for sweep in range(1, SWEEPS):
            image = self.apply(f)
            ratios = _ratios(image, f)
            if ratios[2] - ratios[0] <= goal / 4 or not image.any():
                return f, ratios, sweep
            # Adding f keeps factors that exchange directions from going round in circles.
            f = _positive(image / image.sum() + f / f.sum())
        return f, _ratios(self.apply(f), f), SWEEPS


def _spline(f: Array, angles: Array) -> Array:
    """Return the periodic spline of degree 5 through f at other angles."""
    positions = angles * (f.size / math.pi)
    return np.asarray(map_coordinates(f, positions[None], order=5, mode="grid-wrap"))


def _positive(f: Array) -> Array:
    """Return f divided by its largest value, cut off at a tiny positive number."""
    return np.asarray(np.maximum(f / f.max(), 1e-200))


def _ratios(image: Array, f: Array) -> tuple[float, float, float]:
    """Return the logarithms of the smallest, the mean and the largest Tf/f."""
    with np.errstate(divide="ignore"):
        logs = np.log(np.maximum(image, 0) / f)
        mean = np.log(max(image.sum(), 0) / f.sum())
    lower, upper = float(logs.min()), float(logs.max())
    return lower, min(max(float(mean), lower), upper), upper


@dataclass(frozen=True)
class _Products:
    """All products of some length: matrix times e^logarithm, and how large it could have been."""

    matrices: Array
    weights: Array
    logarithms: Array
    majorants: Array  # log of the product of the Frobenius norms
    length: int

    @classmethod
    def of(cls, matrices: Array, weights: Array) -> _Products:
        with np.errstate(divide="ignore"):
            majorants = np.log(np.linalg.norm(matrices, axis=(1, 2)))
        return cls(matrices, weights, np.zeros(weights.size), majorants, 1)

    def followed_by(self, other: _Products) -> _Products:
        """Return all products of these with one more factor, rescaled."""
        products = (other.matrices[:, None] @ self.matrices).reshape(-1, *self.matrices.shape[1:])
        sizes = np.abs(products).max(axis=(1, 2))
        sizes[sizes == 0] = 1.0
        return _Products(
            products / sizes[:, None, None],
            np.outer(other.weights, self.weights).ravel(),
            np.tile(self.logarithms, other.weights.size) + np.log(sizes),
            np.add.outer(other.majorants, self.majorants).ravel(),
            self.length + 1,
        )

    def mean_log_norm(self) -> tuple[float, float]:
        """Return the mean logarithm of the norms, and a bound with all rounding errors."""
        norms = np.linalg.norm(self.matrices, 2, axis=(1, 2))
        if not norms.all():
            return -math.inf, -math.inf
        logs = np.log(norms) + self.logarithms
        errors = math.log(4 * EPSILON * self.length * self.matrices.shape[1]) + self.majorants
        value, bound = float(self.weights @ logs), float(self.weights @ np.logaddexp(logs, errors))
        return value, bound + 4 * EPSILON * float(self.weights @ np.abs(logs))


def _mean_log_determinant(law: FiniteLaw) -> Exponent:
    """Return (1/d) E log|det A|, with the smallest values that rounding leaves possible."""
    matrices, weights, logarithm = _normalised(law)
    singular = np.linalg.svd(matrices, compute_uv=False)
    least = singular - 4 * law.dimension * EPSILON * singular[:, :1]
    with np.errstate(divide="ignore"):
        value, lower = (
            float(weights @ np.log(np.maximum(values, 0)).mean(axis=1)) + logarithm
            for values in (singular, least)
        )
    return Exponent(
        value=value,
        lower=lower - 4 * EPSILON * (1 + abs(logarithm)),
        upper=math.inf,
        kind="enclosure",
        method="determinant",
        evaluations=weights.size,
    )
