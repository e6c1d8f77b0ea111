r"""Exponents that are known in closed form, recognised and summed.

The laws with a density that are isotropic are in `stabcore.lyapunov.isotropic`, and the series for
two factors of which one has rank one in `stabcore.lyapunov.renewal`. Here are those that are a
finite sum of logarithms.

For SGD the gradients may split into mutually orthogonal groups (`Minimum.blocks`). The product
then splits too, and λ is the largest exponent of the groups. In a group whose gradients are
parallel everything is a number: a batch S multiplies by 1 − ηc_S, c_S = (1/B) Σ_{i∈S} k_i over
the samples of S in the group, and its exponent is E log|1 − ηc_S|, a *log-sum*
Σ_m w_m log|1 − ηc_m|. When the batch is the whole data set, SGD is GD and λ = μ, a log-sum per
eigenvalue. Between two of its poles 1/c_m a log-sum is a concave function of η, which is what
makes *all* its sign changes findable (`stabcore.stable_sets.negative_steps`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from math import comb

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eig

from stabcore import _validation as check
from stabcore._constants import EPSILON
from stabcore._log_sums import Scalars, largest, mean_log, one_minus
from stabcore._validation import Array
from stabcore.exponent import Exponent, affine, exact
from stabcore.lyapunov._factors import listed
from stabcore.lyapunov.isotropic import isotropic_exponent
from stabcore.lyapunov.laws import (
    AnyLaw,
    FiniteLaw,
    IsotropicLaw,
    Law,
    MomentumLaw,
    SampledLaw,
    SGDLaw,
    require_law,
)
from stabcore.lyapunov.momentum import momentum_exponent
from stabcore.lyapunov.renewal import exact_factors, renewal_series, times
from stabcore.sampling import MOST_LISTED, SGD, Batches

# A log-sum: weights w_m ≥ 0 and coefficients c_m ≥ 0 of Σ_m w_m log|1 − ηc_m|.
LogSum = tuple[Array, Array]


PARALLEL_TOLERANCE = 1e-13

MOST_EXACT = 64  # factors that are multiplied as fractions


@check.public()
def closed_form(law: AnyLaw) -> Exponent | None:
    r"""Return the exponent of `law` if it has a closed form that is known here, else None.

    Known are

    * SGD whose gradients are parallel, mutually orthogonal, or split into such groups;
    * SGD with the whole data set as its batch;
    * finite laws of one factor, of triangular ones, or of 2×2 matrices with a common real
      eigenvector;
    * 2×2 factors that preserve or exchange two lines (of SGD: on two samples, such as ηk_1 = 2 and
      gradients at 45°), decided in exact arithmetic;
    * two factors in the plane, one of rank one, and SGD on two samples with ηk = 1 for one of them
      (the renewal series, where its error can be bounded);
    * `GaussianMatrixLaw`, `GaussianInputLaw` and `UniformDirectionLaw`, of any dimension.

    Source: our derivation.

    Parameters
    ----------
    law : FiniteLaw, SGDLaw or SampledLaw

    Returns
    -------
    Exponent or None
        Of kind "exact", or "deterministic" where the closed form is an integral.

    Raises
    ------
    TypeError
        If `law` is not a law.

    Examples
    --------
    Parallel gradients, λ = Σ p_i log|1 − ηk_i|:

    >>> from stabcore.lyapunov.laws import GaussianMatrixLaw
    >>> closed_form(SGDLaw([[1.0, 2.0], [2.0, 4.0]], 1.0)).value
    -inf
    >>> round(closed_form(SGDLaw([[1.0, 2.0], [2.0, 4.0]], 3.0)).value, 12) == round(
    ...     math.log(2 * 11) / 2, 12
    ... )
    True

    Gaussian matrices in two dimensions, λ = (log 2 − γ)/2:

    >>> print(closed_form(GaussianMatrixLaw(2)))
    +0.0579658 (exact, closed form)
    """
    require_law(law, AnyLaw)
    if isinstance(law, IsotropicLaw):
        return isotropic_exponent(law)
    if isinstance(law, SampledLaw):
        return None
    if isinstance(law, MomentumLaw):
        if not law.batches.full_batch:
            return None
        return momentum_exponent(law.minimum.hessian_spectrum, law.step_size, law.method)
    parts = scalar_parts(law)
    if parts is not None:
        return largest([mean_log(part) for part in parts])
    known = _finite(law) if isinstance(law, FiniteLaw) else None
    if known is None:
        known = _exchanged_lines(law)
    return renewal_series(law) if known is None else known


def log_sums(law: SGDLaw) -> list[LogSum] | None:
    """Return λ(η) = max over the returned log-sums, or None if it is not of this form.

    The step size of `law` plays no part.

    Parameters
    ----------
    law : SGDLaw

    Returns
    -------
    list of (weights, coefficients), or None
    """
    minimum, batches = law.minimum, law.batches
    if batches.full_batch:
        one = np.ones(1)
        return [(one, kappa[None]) for kappa in np.unique(minimum.hessian_spectrum)]
    diagonal = np.diag(minimum.kernel)
    sums = []
    for block in minimum.blocks:
        if not diagonal[block].any():
            continue  # a gradient that vanishes: its sample moves nothing, no normal direction
        if not _parallel(minimum.kernel[np.ix_(block, block)]):
            return None
        owners, positions = np.unique(block // minimum.n_outputs, return_inverse=True)
        norms = np.bincount(positions, diagonal[block]) * batches.scales[owners]
        terms = _batch_means(batches, owners, norms)
        if terms is None:
            return None
        sums.append(terms)
    return sums


def scalar_parts(law: Law) -> list[Scalars] | None:
    """Return the random numbers into which a law splits, or None if it does not.

    Parameters
    ----------
    law : FiniteLaw or SGDLaw

    Returns
    -------
    list of (weights, logarithms, roundings), or None
        Of each number its probabilities, the logarithms of its moduli, and their relative errors.
    """
    if isinstance(law, SGDLaw):
        sums = log_sums(law)
        if sums is None:
            return None
        # Entries of the kernel are known to a rounding, its eigenvalues to n ε of the largest.
        spectrum = law.minimum.hessian_spectrum
        full = law.batches.full_batch
        errors = 4 * spectrum.size * law.step_size * float(spectrum[-1]) if full else 0.0
        return [one_minus(weights, law.step_size * c, errors) for weights, c in sums]
    used = law.probabilities > 0
    matrices, weights = law.matrices[used], law.probabilities[used]
    if np.tril(matrices, -1).any() and np.triu(matrices, 1).any():
        return None
    with np.errstate(divide="ignore"):
        logs = np.log(np.abs(np.diagonal(matrices, axis1=1, axis2=2)))
    return [(weights, column, np.zeros(column.size)) for column in logs.T]


def _parallel(gram: Array) -> bool:
    """Whether the gradients with this Gram matrix are all parallel."""
    norms = np.sqrt(np.diag(gram))
    cosines = gram / norms / norms[:, None]
    return bool((np.abs(cosines**2 - 1) <= PARALLEL_TOLERANCE).all())


def _batch_means(batches: Batches, block: NDArray[np.intp], norms: Array) -> LogSum | None:
    """Return the law of c_S = (1/B) Σ_{i in S and block} k_i, or None if it has too many atoms."""
    size = batches.batch_size
    inside = float(batches.probabilities[block].sum())
    if inside == 0:
        return np.ones(1), np.zeros(1)  # never drawn: a direction that does not move
    if size == 1:
        return (
            np.append(batches.probabilities[block], max(0.0, 1 - inside)),
            np.append(norms, 0.0),
        )
    atoms: defaultdict[float, float] = defaultdict(float)
    outside = batches.n_samples - block.size
    conditional = batches.probabilities[block] / inside
    for drawn in range(size + 1):
        if batches.independent:
            share = comb(size, drawn) * inside**drawn * max(0.0, 1 - inside) ** (size - drawn)
        else:
            share = comb(block.size, drawn) * comb(outside, size - drawn) / batches.count
        if share == 0:
            continue
        if drawn == 0:
            atoms[0.0] += share
            continue
        part = SGD(batch_size=drawn, replacement=batches.replacement)
        part_of_block = part.batches(block.size, conditional)
        if part_of_block.count > MOST_LISTED:
            return None
        for members, probability in zip(*part_of_block.listed(), strict=True):
            atoms[float(norms[members].sum()) / size] += share * float(probability)
    return np.array(list(atoms.values())), np.array(list(atoms.keys()))


def _exchanged_lines(law: Law) -> Exponent | None:
    """Return (1/2) E log|det A| if some factors exchange two lines and all others preserve them."""
    # From either line the growth rates are averages over both, so that the two exponents are equal.
    # With D diagonal and not scalar in these lines, A preserves them if AD = DA, and exchanges them
    # if tr A = tr AD = 0. Decided exactly: λ is not continuous here to any useful degree.
    if law.dimension != 2 or (isinstance(law, FiniteLaw) and len(law.matrices) > MOST_EXACT):
        return None
    found = exact_factors(law)
    if found is None:
        return None
    factors, weights = found
    turning = [a for a in factors if a[0] != a[3] or a[1] or a[2]]
    traceless = [a for a in turning if a[0] + a[3] == 0]
    determinants = [a * d - b * c for a, b, c, d in factors]
    if not traceless or not all(determinants):
        return None
    # Not one of those that may exchange the lines; if there is no other, a product of two of them.
    diagonal = next((a for a in turning if a not in traceless), None)
    diagonal = diagonal or times(traceless[0], traceless[-1])
    if (
        4 * (diagonal[0] * diagonal[3] - diagonal[1] * diagonal[2])
        == (diagonal[0] + diagonal[3]) ** 2
    ):
        return None  # the two lines are one, or all of them
    exchanging = []
    for factor in factors:
        product, other = times(factor, diagonal), times(diagonal, factor)
        exchanging.append(factor[0] + factor[3] == 0 == product[0] + product[3])
        if not exchanging[-1] and product != other:
            return None
    if not any(exchanging):
        return None
    sizes = np.array([float(abs(x)) for x in determinants])
    if not (np.isfinite(sizes) & (sizes > 0)).all():
        return None
    numbers = np.asarray(weights), np.log(sizes) / 2, np.ones(sizes.size)
    return mean_log(numbers)


def _finite(law: FiniteLaw) -> Exponent | None:
    matrices, sizes, weights = listed(law)
    if not matrices.any(axis=(1, 2)).all():
        return exact(-math.inf, 0.0, "closed form")  # a factor is 0
    if len(matrices) == 1:
        return affine(_spectral_radius(matrices[0]), 1.0, float(sizes[0]))
    return _common_line(matrices, sizes, weights) if law.dimension == 2 else None


def _spectral_radius(matrix: Array) -> Exponent:
    """Return log ρ(A), whose error grows with the condition numbers 1/|y·x| of the eigenvalues."""
    eigenvalues, left, right = eig(matrix, left=True)
    moduli = np.abs(eigenvalues)
    radius = float(moduli.max())
    if radius == 0:
        return exact(-math.inf, 0.0, "closed form")
    overlaps = np.abs((left.conj() * right).sum(axis=0))[moduli >= radius * (1 - 1e-6)]
    with np.errstate(divide="ignore"):
        condition = float(np.linalg.norm(matrix, 2) / radius / overlaps.min())
    error = 4 * EPSILON * len(matrix) * condition
    return exact(math.log(radius), error, "closed form")


def _common_line(matrices: Array, sizes: Array, weights: Array) -> Exponent | None:
    """Return the exponent of e^size A, A 2×2 with a real eigenvector in common: one of two sums."""
    scalar = matrices[:, :1, :1] * np.eye(2)
    turning = np.flatnonzero((matrices != scalar).any(axis=(1, 2)))[0]
    candidates = eig(matrices[turning])[1].T
    for line in candidates.real[np.abs(candidates.imag).max(axis=1) == 0]:
        images = matrices @ line
        along = images @ line
        norms = np.linalg.norm(matrices, axis=(1, 2))
        if (np.abs(images - along[:, None] * line).max(axis=1) > PARALLEL_TOLERANCE * norms).any():
            continue
        across = np.trace(matrices, axis1=1, axis2=2) - along
        with np.errstate(divide="ignore"):
            logs = np.log(np.abs([along, across]))
            roundings = norms / np.abs([along, across])
        if np.isinf(roundings).any() or roundings.max() > 1e6:
            return None  # a factor that is nearly singular: its small entry is all rounding
        pairs = zip(logs + sizes, 8 * roundings, strict=True)
        return largest([mean_log((weights, *pair)) for pair in pairs])
    return None
