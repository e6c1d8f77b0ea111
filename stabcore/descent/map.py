"""Gradient descent as a map: G_η(θ) = θ − η∇L(θ), its derivative, and its exponent μ."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from stabcore import _validation as check
from stabcore._constants import EPSILON
from stabcore._validation import Array
from stabcore.problems.base import Problem
from stabcore.problems.checking import GRADIENT, HESSIAN, require_problem


@check.public()
def gd_map(problem: Problem, theta: Array, step_size: float) -> Array:
    """Return G_η(θ) = θ − η∇L(θ), one step of gradient descent.

    Parameters
    ----------
    problem : Problem
    theta : array, shape (..., D)
    step_size : float
        η > 0.

    Returns
    -------
    array, shape (..., D)

    Examples
    --------
    >>> import numpy as np
    >>> from stabcore import ScalarFactorization
    >>> gd_map(ScalarFactorization(), np.array([2.0, 1.0]), 0.5)
    array([1.5, 0. ])
    """
    require_problem(problem, GRADIENT)
    point = check.parameters("theta", theta, problem.n_parameters)
    return gd_step(problem, point, check.step_size(step_size))


@check.public()
def gd_jacobian(problem: Problem, theta: Array, step_size: float) -> Array:
    """Return DG_η(θ) = I − η∇²L(θ).

    Parameters
    ----------
    problem : Problem
    theta : array, shape (..., D)
    step_size : float
        η > 0.

    Returns
    -------
    array, shape (..., D, D)

    Examples
    --------
    >>> from stabcore import ScalarFactorization
    >>> problem = ScalarFactorization()
    >>> gd_jacobian(problem, problem.minimum(2.0), 0.5).round(12)
    array([[ 0.5, -0.5],
           [-0.5,  0.5]])
    """
    require_problem(problem, HESSIAN)
    point = check.parameters("theta", theta, problem.n_parameters)
    return gd_derivative(problem, point, check.step_size(step_size))


@check.public()
def gd_log_abs_det(problem: Problem, theta: Array, step_size: float) -> Array:
    """Return log|det DG_η(θ)|; −∞ where the map is singular.

    Parameters
    ----------
    problem : Problem
    theta : array, shape (..., D)
    step_size : float
        η > 0.

    Returns
    -------
    array, shape (...)

    Examples
    --------
    det = (1 − ηθ₁²)(1 − ηθ₂²) − η²(2θ₁θ₂ − 1)² for the scalar factorisation:

    >>> import numpy as np
    >>> from stabcore import ScalarFactorization
    >>> value = gd_log_abs_det(ScalarFactorization(), np.array([2.0, 1.0]), 1.0)
    >>> float(value.round(12)) == float(np.log(9).round(12))
    True
    """
    return np.asarray(np.linalg.slogdet(gd_jacobian(problem, theta, step_size))[1])[()]


@check.public()
def bad_step_sizes(
    problem: Problem,
    *,
    around: ArrayLike | None = None,
    samples: int = 8,
    scale: float = 1.0,
    rng: int | np.random.Generator | None = 0,
) -> Array:
    r"""Return the step sizes at which the GD map is singular on a set of positive measure.

    On a connected domain where L is analytic these are η = 1/c for the eigenvalues c > 0 that
    Hess L(θ) has at *every* θ: at most D of them. They are found as the eigenvalues common to the
    Hessians at random points; an eigenvalue that is not constant differs between such points with
    probability one. For a piecewise analytic L the answer holds for the piece the points fall in.

    Source: non-singularity for almost every step size is paper D's (Lemma 10, Proposition 11,
    Theorem 1); this description of the exceptions is our derivation.

    Parameters
    ----------
    problem : Problem
        With a Hessian (`residual_curvature`).
    around : array, shape (D,), optional
        Centre of the random points, for another piece than that of 0, the default.
    samples : int
        Number of random points, at least 2.
    scale : float
        Their standard deviation.
    rng : int, numpy.random.Generator or None
        Seed of the points.

    Returns
    -------
    array, shape (m,)
        Ascending, m ≤ D; empty when every step size is good.

    Examples
    --------
    >>> from stabcore import DiagonalLinearNetwork
    >>> bad_step_sizes(DiagonalLinearNetwork([[1.0]], [1.0]))
    array([], dtype=float64)
    """
    require_problem(problem, HESSIAN)
    count = check.integer("samples", samples, minimum=2)
    spread = check.real("scale", scale, above=0.0)
    size = problem.n_parameters
    centre = np.zeros(size) if around is None else check.parameters("around", around, size)
    points = centre + check.generator(rng).normal(scale=spread, size=(count, size))
    spectra = np.linalg.eigvalsh(problem.hessian(points))
    # Eigenvalues of a symmetric matrix are known to a few roundings of its norm.
    tolerance = 16 * size * EPSILON * np.abs(spectra).max()
    distance = np.abs(spectra[0][:, None, None] - spectra[None, 1:, :]).min(axis=-1).max(axis=-1)
    common = spectra[0][(distance < tolerance) & (spectra[0] > tolerance)]
    distinct = common[np.diff(common, prepend=-np.inf) > tolerance]
    return np.sort(1 / distinct)


def gd_step(problem: Problem, theta: Array, rate: float | Array) -> Array:
    """Return θ − η∇L(θ): the step that everything here takes, without a look at the arguments."""
    return np.asarray(theta - rate * problem.gradient(theta))


def gd_derivative(problem: Problem, theta: Array, rate: float | Array) -> Array:
    """Return I − η∇²L(θ), without a look at the arguments."""
    return np.asarray(np.eye(problem.n_parameters) - rate * problem.hessian(theta))
