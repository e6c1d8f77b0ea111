r"""Exponents that are a finite sum of logarithms, recognised and summed.

For SGD the gradients may split into mutually orthogonal groups (`Minimum.blocks`). The product
then splits too, and λ is the largest exponent of the groups. In a group whose gradients are
parallel everything is a number: a batch S multiplies by 1 − ηc_S, c_S = (1/B) Σ_{i∈S} k_i over
the samples of S in the group, and its exponent is E log|1 − ηc_S|, a *log-sum*
Σ_m w_m log|1 − ηc_m|. When the batch is the whole data set, SGD is GD and λ = μ, a log-sum per
eigenvalue. Between two of its poles 1/c_m a log-sum is a concave function of η, which is what
makes *all* its sign changes findable (`stabcore.stability`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from math import comb

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eig

from stabcore._validation import Array
from stabcore.exponent import Exponent, exact, log_abs_one_minus
from stabcore.products import FiniteLaw, Law, SGDLaw
from stabcore.sampling import Sampling

# A log-sum: weights w_m ≥ 0 and coefficients c_m ≥ 0 of Σ_m w_m log|1 − ηc_m|.
LogSum = tuple[Array, Array]

MOST_TERMS = 200_000
PARALLEL_TOLERANCE = 1e-13


def closed_form(law: Law) -> Exponent | None:
    r"""Return the exponent of `law` if it has a closed form that is known here, else None.

    Known: SGD whose gradients are parallel, mutually orthogonal, or split into such groups; SGD
    with the whole data set as its batch; finite laws of one factor, of triangular ones, or of 2×2
    matrices with a common real eigenvector.

    Source: our derivation.

    Parameters
    ----------
    law : FiniteLaw or SGDLaw

    Returns
    -------
    Exponent or None
        Of kind "exact".

    Examples
    --------
    Parallel gradients, λ = Σ p_i log|1 − ηk_i|:

    >>> closed_form(SGDLaw([[1.0, 2.0], [2.0, 4.0]], 1.0)).value
    -inf
    >>> round(closed_form(SGDLaw([[1.0, 2.0], [2.0, 4.0]], 3.0)).value, 12) == round(
    ...     math.log(2 * 11) / 2, 12
    ... )
    True
    """
    if isinstance(law, FiniteLaw):
        return _finite(law)
    sums = log_sums(law)
    if sums is None:
        return None
    return _largest([log_sum(weights, law.step_size * c) for weights, c in sums])


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
    minimum, sampling = law.minimum, law.sampling
    if sampling.full_batch:
        one = np.ones(1)
        spectrum = minimum.hessian_spectrum(sampling.probabilities)
        return [(one, kappa[None]) for kappa in np.unique(spectrum)]
    diagonal = np.diag(minimum.kernel)
    sums = []
    for block in minimum.blocks:
        norms = diagonal[block]
        if not norms.any():
            continue  # a gradient that vanishes: its sample moves nothing, no normal direction
        gram = minimum.kernel[np.ix_(block, block)]
        if not _parallel(gram):
            return None
        terms = _batch_means(sampling, block, norms)
        if terms is None:
            return None
        sums.append(terms)
    return sums


def log_sum(weights: Array, scaled: Array) -> Exponent:
    """Return Σ_m w_m log|1 − x_m| with a bound on its rounding error.

    An error of one rounding in x_m changes its term by |x_m| / |1 − x_m| roundings.

    Parameters
    ----------
    weights : array, shape (M,)
    scaled : array, shape (M,)
        x_m = ηc_m.

    Returns
    -------
    Exponent

    Examples
    --------
    >>> log_sum(np.array([0.5, 0.5]), np.array([3.0, 1.5])).value
    0.0
    """
    distance = np.abs(1 - scaled)
    safe = np.where(distance > 0, distance, 1.0)
    return _mean_log(weights, log_abs_one_minus(scaled), 2 * scaled / safe)


def _mean_log(weights: Array, logs: Array, roundings: Array) -> Exponent:
    """Return Σ w_m log f_m for factors f_m ≥ 0 with relative errors of `roundings` roundings."""
    used = weights > 0
    weights, logs, roundings = weights[used], logs[used], roundings[used]
    if np.isneginf(logs).any():
        return exact(-math.inf, 0.0, "closed form", evaluations=weights.size)
    error = 4 * np.finfo(float).eps * float(weights @ (np.abs(logs) + roundings))
    return exact(math.fsum(weights * logs), error, "closed form", evaluations=weights.size)


def _largest(exponents: list[Exponent]) -> Exponent:
    """Return the exponent of a product that splits into parts with the given ones."""
    return Exponent(
        value=max(e.value for e in exponents),
        lower=max(e.lower for e in exponents),
        upper=max(e.upper for e in exponents),
        kind="exact",
        method="closed form",
        evaluations=sum(e.evaluations for e in exponents),
    )


def _parallel(gram: Array) -> bool:
    """Whether the gradients with this Gram matrix are all parallel."""
    norms = np.sqrt(np.diag(gram))
    cosines = gram / norms / norms[:, None]
    return bool((np.abs(cosines**2 - 1) <= PARALLEL_TOLERANCE).all())


def _batch_means(sampling: Sampling, block: NDArray[np.intp], norms: Array) -> LogSum | None:
    """Return the law of c_S = (1/B) Σ_{i in S and block} k_i, or None if it has too many atoms."""
    size = sampling.batch_size
    inside = float(sampling.probabilities[block].sum())
    if size == 1:
        return (
            np.append(sampling.probabilities[block], max(0.0, 1 - inside)),
            np.append(norms, 0.0),
        )
    atoms: defaultdict[float, float] = defaultdict(float)
    outside = sampling.n_samples - block.size
    for drawn in range(size + 1):
        if sampling.independent:
            share = comb(size, drawn) * inside**drawn * max(0.0, 1 - inside) ** (size - drawn)
        else:
            share = comb(block.size, drawn) * comb(outside, size - drawn) / sampling.count
        if share == 0:
            continue
        if drawn == 0:
            atoms[0.0] += share
            continue
        conditional = sampling.probabilities[block] / inside
        part = Sampling(block.size, drawn, conditional, sampling.replacement)
        if part.count > MOST_TERMS:
            return None
        for batch, probability in part.batches():
            atoms[float(norms[list(batch)].sum()) / size] += share * probability
    return np.array(list(atoms.values())), np.array(list(atoms.keys()))


def _finite(law: FiniteLaw) -> Exponent | None:
    used = law.probabilities > 0
    matrices, weights = law.matrices[used], law.probabilities[used]
    if np.tril(matrices, -1).any() and np.triu(matrices, 1).any():
        if len(matrices) == 1:
            return _spectral_radius(matrices[0])
        return _common_line(matrices, weights) if law.dimension == 2 else None
    with np.errstate(divide="ignore"):
        logs = np.log(np.abs(np.diagonal(matrices, axis1=1, axis2=2)))
    return _largest([_mean_log(weights, column, np.zeros(len(column))) for column in logs.T])


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
    error = 4 * np.finfo(float).eps * len(matrix) * condition
    return exact(math.log(radius), error, "closed form")


def _common_line(matrices: Array, weights: Array) -> Exponent | None:
    """Return the exponent of 2×2 matrices that share a real eigenvector: the larger of two sums."""
    scalar = matrices[:, :1, :1] * np.eye(2)
    turning = np.flatnonzero((matrices != scalar).any(axis=(1, 2)))[0]
    candidates = eig(matrices[turning])[1].T
    for line in candidates.real[np.abs(candidates.imag).max(axis=1) == 0]:
        images = matrices @ line
        along = images @ line
        sizes = np.linalg.norm(matrices, axis=(1, 2))
        if (np.abs(images - along[:, None] * line).max(axis=1) > PARALLEL_TOLERANCE * sizes).any():
            continue
        across = np.trace(matrices, axis1=1, axis2=2) - along
        with np.errstate(divide="ignore"):
            logs = np.log(np.abs([along, across]))
            roundings = sizes / np.abs([along, across])
        if np.isinf(roundings).any() or roundings.max() > 1e6:
            return None  # a factor that is nearly singular: its small entry is all rounding
        return _largest(
            [_mean_log(weights, *pair) for pair in zip(logs, 8 * roundings, strict=True)]
        )
    return None
