"""The type of a saddle of any problem, and the law of the factors of SGD near it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from stabcore import _validation as check
from stabcore._validation import Array
from stabcore.lyapunov.laws import FiniteLaw
from stabcore.problems.base import Problem
from stabcore.problems.checking import GRADIENT, HESSIAN, require_problem
from stabcore.sampling import SGD, covered_method

TYPES = ("I", "II", "undecided")


@dataclass(frozen=True, kw_only=True)
class SaddleType:
    """What kind of saddle a point is.

    Attributes
    ----------
    kind : str
        "I" (gradient noise in an escape direction), "II" (none in any of them) or "undecided"
        (no direction of negative curvature, but flat ones: the second order does not tell).
    eigenvalues : array, shape (D,)
        Of Hess L, ascending.
    directions : array, shape (E, D)
        The escape directions v, one per negative eigenvalue, orthonormal.
    noise : array, shape (E,)
        The standard deviation (Σ p_i (φ_i g_i·v)²)^½ of the gradient along each.
    gradient_norm : float
        |∇L|.
    tolerance : float
        The noise, an eigenvalue and |∇L| up to this much count as zero (see `saddle_type`).
    """

    kind: str
    eigenvalues: Array
    directions: Array
    noise: Array
    gradient_norm: float
    tolerance: float

    def __str__(self) -> str:
        """Return the type with its escape directions."""
        noise = ", ".join(f"{one:.3g}" for one in self.noise)
        return f"type {self.kind}, {len(self.noise)} escape directions with noise [{noise}]"


@check.public()
def saddle_type(problem: Problem, point: ArrayLike, *, tolerance: float = 1e-8) -> SaddleType:
    r"""Tell a Type I saddle from a Type II saddle by the gradient noise in its escape directions.

    The directions are the eigenvectors of Hess L with negative eigenvalues; the noise along v is
    Σ p_i (φ_i g_i·v)², the variance of a sample's gradient since their mean ∇L is zero.

    Source: paper B (the types); the numerical test is ours.

    Parameters
    ----------
    problem : Problem
        One that defines its Hessian (`residual_curvature`).
    point : array, shape (D,)
    tolerance : float
        Relative to (2L)^½ max(1, max_i |g_i|) for gradients, and to the largest entry of a sample's
        Hessian for curvatures.

    Returns
    -------
    SaddleType

    Raises
    ------
    ValueError
        If the point is not critical, or is a minimum.

    Examples
    --------
    >>> from stabcore.problems.models import OneNeuron
    >>> saddle_type(OneNeuron([1.0, 1.0], [2.0, -1.0]), [0.0, 0.0]).kind
    'II'
    """
    relative = check.real("tolerance", tolerance, above=0.0)
    theta = _one_point(problem, point)
    residuals, jacobian = problem.residuals(theta), problem.jacobian(theta)
    largest = max(1.0, float(np.linalg.norm(jacobian, axis=-1).max()))
    threshold = relative * largest * math.sqrt(2 * float(problem.loss(theta)))
    slope = float(np.linalg.norm(problem.gradient(theta)))
    if slope > threshold:
        raise ValueError(
            f"point is not critical: |∇L| = {slope:.3g} is above {threshold:.3g}; refine it, or "
            "raise tolerance."
        )
    eigenvalues, vectors = np.linalg.eigh(problem.hessian(theta))
    flat = relative * float(np.abs(_sample_hessians(problem, theta)).max())
    loss = float(problem.loss(theta))
    if eigenvalues[0] > flat or math.sqrt(2 * loss) <= relative:
        raise ValueError(
            f"point is a minimum: its loss is {loss:.3g} and its smallest curvature "
            f"{eigenvalues[0]:.3g}; a saddle has a negative one."
        )
    directions = vectors.T[eigenvalues < -flat]
    slopes = residuals[:, None] * (jacobian @ directions.T)  # of every row along each direction
    slopes = slopes.reshape(problem.n_samples, problem.n_outputs, -1).sum(axis=1)
    noise = np.sqrt(problem.probabilities @ slopes**2)
    kind = "undecided"
    if len(directions):
        kind = "I" if (noise > threshold).any() else "II"
    return SaddleType(
        kind=kind,
        eigenvalues=eigenvalues,
        directions=directions,
        noise=noise,
        gradient_norm=slope,
        tolerance=threshold,
    )


@check.public()
def saddle_law(
    problem: Problem,
    point: ArrayLike,
    step_size: float,
    method: SGD = SGD(),
    *,
    tolerance: float = 1e-10,
) -> FiniteLaw:
    r"""Return the law of the factors I − ηH of SGD linearised at a point, H = g gᵀ + φ∇²φ.

    H is the Hessian of one sample's loss, or its mean over a batch. The factors act on the span of
    the ranges of all H; on what is orthogonal to it each of them is the identity, whose exponent 0
    would hide a negative one. At a saddle where every sample's gradient vanishes SGD near it is a
    product of these factors, which it leaves or not by the sign of their exponent.

    Source: paper B (dynamics at a saddle of Type II); the restriction to the span is ours.

    Parameters
    ----------
    problem : Problem
        One that defines `residual_curvature`.
    point : array, shape (D,)
    step_size : float
        η > 0.
    method : SGD
        How batches are drawn, in independent steps: not reshuffled.
    tolerance : float
        Relative size below which a direction counts as one in which nothing moves.

    Returns
    -------
    FiniteLaw
        Of dimension at most D, one factor per batch.

    Raises
    ------
    ValueError
        If every H is zero, there are too many batches, or they are reshuffled.
    NotImplementedError
        If the method has momentum or weight decay.

    Examples
    --------
    Two uncoupled copies of the neuron that `saddle_exponents` knows, 2 × 2 each:

    >>> from stabcore import DiagonalLinearNetwork
    >>> from stabcore.lyapunov import lyapunov_exponent
    >>> network = DiagonalLinearNetwork([[1.0, 1.0]], [1.0, 1.0])
    >>> law = saddle_law(network, np.zeros(4), 0.5)
    >>> law.dimension, round(lyapunov_exponent(law).value - math.log(2), 12)
    (4, 0.0)
    """
    eta = check.step_size(step_size)
    relative = check.real("tolerance", tolerance, above=0.0)
    theta = _one_point(problem, point)
    covered_method(method, "saddle_law")
    if method.reshuffle:
        raise ValueError(
            "the factors of reshuffled batches are not independent; use a method with "
            "reshuffle=False."
        )
    law = method.batches(problem.n_samples, problem.probabilities)
    batches, weights = law.listed()
    hessians = _sample_hessians(problem, theta)
    _, singular, rows = np.linalg.svd(hessians.reshape(-1, theta.size), full_matrices=False)
    if singular[0] == 0:
        raise ValueError(
            "point is flat: every sample's Hessian is zero there, and nothing moves to first order."
        )
    span = rows[singular > relative * singular[0]]
    if len(span) == theta.size:
        span = np.eye(theta.size)  # everything moves: keep the coordinates of the problem
    reduced = span @ hessians @ span.T
    means = (law.scales[:, None, None] * reduced)[batches].mean(axis=1)
    return FiniteLaw(np.eye(len(span)) - eta * means, weights / weights.sum())


def _one_point(problem: Problem, point: ArrayLike, name: str = "point") -> Array:
    """Return `point` as parameters of `problem`, shape (D,)."""
    require_problem(problem, GRADIENT, HESSIAN)
    theta = check.parameters(name, point, problem.n_parameters)
    if theta.ndim != 1:
        raise ValueError(f"{name} must have 1 dimension, got shape {theta.shape}; pass one point.")
    return theta


def _sample_hessians(problem: Problem, theta: Array) -> Array:
    """Return J_iᵀJ_i + Σ_c φ_ic ∇²φ_ic, the Hessian of every sample's loss, shape (N, D, D)."""
    outputs = problem.n_outputs
    jacobian = problem.jacobian(theta).reshape(-1, outputs, theta.size)
    own = np.repeat(np.eye(problem.n_samples), outputs, axis=1) * problem.residuals(theta)
    bend = [problem.residual_curvature(theta, one_sample) for one_sample in own]
    return np.swapaxes(jacobian, 1, 2) @ jacobian + np.array(bend)
