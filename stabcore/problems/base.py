"""Learning problems: a model, its data and the square loss, at any parameter θ.

A `Problem` knows its residuals φ_i(θ) = F(θ, x_i) − y_i and their Jacobian; loss, gradient and
Hessian follow. Everything is batched: θ may have leading axes (one row per replica), and
`samples` picks rows of the data, one batch per replica, which is all SGD needs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stabcore import _validation as check
from stabcore._validation import Array

Indices = NDArray[np.intp]


class Problem(ABC):
    r"""A least-squares problem L(θ) = Σ_i p_i ½ φ_i(θ)².

    Subclasses set `n_parameters` (D) and `probabilities` (shape (N,)), and define `residuals` and
    `jacobian`; `residual_curvature` only where the Hessian is wanted away from the minima.

    Source: the setting of papers A and D.

    Examples
    --------
    A model of one's own, F(θ, x) = θx on one sample (x, y) = (2, 6):

    >>> import numpy as np
    >>> from stabcore import Problem
    >>> class Line(Problem):
    ...     n_parameters, probabilities = 1, np.ones(1)
    ...     def residuals(self, theta, samples=None):
    ...         return 2.0 * theta - 6.0
    ...     def jacobian(self, theta, samples=None):
    ...         return np.full((*theta.shape[:-1], 1, 1), 2.0)
    >>> float(Line().loss(np.array([2.0]))), Line().gradient(np.array([2.0]))
    (2.0, array([-4.]))
    """

    n_parameters: int
    probabilities: Array

    @property
    def n_samples(self) -> int:
        """Number of samples N."""
        return self.probabilities.size

    @abstractmethod
    def residuals(self, theta: Array, samples: Indices | None = None) -> Array:
        """Return φ(θ): shape (..., D) -> (..., N), or (..., B) for `samples` of shape (..., B)."""

    @abstractmethod
    def jacobian(self, theta: Array, samples: Indices | None = None) -> Array:
        """Return Dφ(θ), rows g_i: shape (..., D) -> (..., N, D), or (..., B, D)."""

    def residual_curvature(self, theta: Array, weights: Array) -> Array:
        """Return Σ_i weights_i ∇²φ_i(θ): shapes (..., D), (..., N) -> (..., D, D)."""
        raise NotImplementedError(
            f"{type(self).__name__} does not define residual_curvature, which the Hessian away "
            "from a minimum needs; define it, or ask for the Hessian at a minimum only."
        )

    def loss(self, theta: Array) -> Array:
        """Return L(θ): shape (..., D) -> (...)."""
        return np.asarray(0.5 * self.residuals(theta) ** 2 @ self.probabilities)[()]

    def gradient(self, theta: Array) -> Array:
        """Return ∇L(θ) = Σ_i p_i φ_i g_i: shape (..., D) -> (..., D)."""
        return _combine(self.probabilities * self.residuals(theta), self.jacobian(theta))

    def batch_gradient(self, theta: Array, samples: Indices) -> Array:
        """Return (1/B) Σ_{i in samples} φ_i g_i, what SGD follows: shapes (..., D), (..., B)."""
        residuals = self.residuals(theta, samples)
        return _combine(residuals / samples.shape[-1], self.jacobian(theta, samples))

    def hessian(self, theta: Array) -> Array:
        """Return ∇²L(θ) = JᵀPJ + Σ_i p_i φ_i ∇²φ_i: shape (..., D) -> (..., D, D)."""
        jacobian = self.jacobian(theta)
        gauss_newton = np.swapaxes(jacobian, -1, -2) @ (self.probabilities[:, None] * jacobian)
        return gauss_newton + self.residual_curvature(
            theta, self.probabilities * self.residuals(theta)
        )


def _combine(weights: Array, jacobian: Array) -> Array:
    """Return Σ_i weights_i g_i for the rows g_i of `jacobian`."""
    return np.asarray((weights[..., None, :] @ jacobian)[..., 0, :])


def _samples(inputs: ArrayLike, targets: ArrayLike) -> tuple[Array, Array]:
    """Validate a data set: inputs of shape (N, d), targets of shape (N,)."""
    x = check.finite_array("inputs", inputs, ndim=2)
    y = check.finite_array("targets", targets, ndim=1)
    if len(x) != len(y):
        raise ValueError(
            f"targets has length {len(y)} but inputs has {len(x)} rows; pass one per sample."
        )
    return x, y


def _rows(array: Array, samples: Indices | None) -> Array:
    """Return the rows of the data that a batch asks for."""
    return array if samples is None else array[samples]
