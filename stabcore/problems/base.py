"""Learning problems: a model, its data and the square loss, at any parameter θ.

A `Problem` knows its residuals φ_i(θ) = F(θ, x_i) − y_i and their Jacobian; loss, gradient and
Hessian follow. Everything is batched: θ may have leading axes (one row per replica), and
`samples` picks rows of the data, one batch per replica, which is all SGD needs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stabcore import _validation as check
from stabcore._validation import Array

Indices = NDArray[np.intp]


# What a subclass must not change to be still the product model that its parent declares.
DYNAMICS = {
    "residuals",
    "jacobian",
    "residual_curvature",
    "loss",
    "gradient",
    "batch_gradient",
    "hessian",
    "smooth",
}


class ProductModel(NamedTuple):
    """The loss (κ/2)(1 − x₁⋯x_k)², for which there are compiled loops and proofs."""

    curvature: float  # κ
    depth: int  # k
    relu: bool  # the model is dead, with gradient 0, unless all factors are positive


class Problem(ABC):
    r"""A least-squares problem L(θ) = Σ_i p_i l_i(θ), l_i = ½ Σ_c φ_ic(θ)².

    Subclasses set `n_parameters` (D) and `probabilities` (shape (N,)), and define `residuals` and
    `jacobian`; `residual_curvature` only where the Hessian is wanted away from the minima. A model
    with C outputs sets `n_outputs` too: a sample then owns C rows. In the shapes below the rows
    i·C, ..., i·C + C − 1 belong to sample i; with one output, the default, a row is a sample.

    Source: the setting of papers A and D.

    Attributes
    ----------
    n_parameters, n_outputs : int
        D and C.
    probabilities : array, shape (N,)
        p, the weight of each sample in the loss.

    Examples
    --------
    A model of one's own, F(θ, x) = θ²x on two samples (1, 1) and (2, 2). `check_problem` compares
    it with everything that is asked of it, derivatives included:

    >>> import numpy as np
    >>> from stabcore import Problem
    >>> from stabcore.problems import check_problem
    >>> class Square(Problem):
    ...     n_parameters, probabilities, x = 1, np.full(2, 0.5), np.array([1.0, 2.0])
    ...     def residuals(self, theta, samples=None):
    ...         x = self.x if samples is None else self.x[samples]
    ...         return theta**2 * x - x
    ...     def jacobian(self, theta, samples=None):
    ...         x = self.x if samples is None else self.x[samples]
    ...         return 2 * theta[..., None] * x[..., None]
    ...     def residual_curvature(self, theta, weights):
    ...         return 2 * (weights @ self.x)[..., None, None] * np.ones((1, 1))
    >>> check_problem(Square())
    >>> Square().gradient(np.array([2.0]))
    array([30.])
    """

    n_parameters: int
    n_outputs: int = 1
    probabilities: Array

    @property
    def n_samples(self) -> int:
        """Number of samples N."""
        return self.probabilities.size

    @property
    def row_probabilities(self) -> Array:
        """Probability of the sample that owns each row, shape (N·C,)."""
        return np.repeat(self.probabilities, self.n_outputs)

    @abstractmethod
    def residuals(self, theta: Array, samples: Indices | None = None) -> Array:
        """Return φ(θ): shape (..., D) -> (..., N·C), or (..., B·C) for `samples` (..., B)."""

    @abstractmethod
    def jacobian(self, theta: Array, samples: Indices | None = None) -> Array:
        """Return Dφ(θ), one gradient a row: shape (..., D) -> (..., N·C, D), or (..., B·C, D)."""

    def residual_curvature(self, theta: Array, weights: Array) -> Array:
        """Return Σ weights ∇²φ over the rows: shapes (..., D), (..., N·C) -> (..., D, D)."""
        raise NotImplementedError(
            f"{type(self).__name__} does not define residual_curvature, which the Hessian away "
            "from a minimum needs; define it, or ask for the Hessian at a minimum only."
        )

    def smooth(self, theta: Array) -> NDArray[np.bool_]:
        """Return where the loss is smooth and its network alive: shape (..., D) -> (...)."""
        return np.ones(theta.shape[:-1], dtype=np.bool_)

    def product_model(self) -> ProductModel | None:
        """Return the product model that this problem is, None if it is another one."""
        return None

    def loss(self, theta: Array) -> Array:
        """Return L(θ): shape (..., D) -> (...)."""
        return np.asarray(0.5 * self.residuals(theta) ** 2 @ self.row_probabilities)[()]

    def gradient(self, theta: Array) -> Array:
        """Return ∇L(θ) = Σ p φ g over the rows: shape (..., D) -> (..., D)."""
        return _combine(self.row_probabilities * self.residuals(theta), self.jacobian(theta))

    def batch_gradient(self, theta: Array, samples: Indices, weights: Array | None = None) -> Array:
        """Return (1/B) Σ_{i in samples} w_i ∇l_i, what SGD follows: shapes (..., D), (..., B)."""
        residuals = self.residuals(theta, samples) / samples.shape[-1]
        if weights is not None:
            residuals = residuals * np.repeat(weights, self.n_outputs, axis=-1)
        return _combine(residuals, self.jacobian(theta, samples))

    def hessian(self, theta: Array) -> Array:
        """Return ∇²L(θ) = JᵀPJ + Σ p φ ∇²φ: shape (..., D) -> (..., D, D)."""
        jacobian, weights = self.jacobian(theta), self.row_probabilities
        gauss_newton = np.swapaxes(jacobian, -1, -2) @ (weights[:, None] * jacobian)
        return gauss_newton + self.residual_curvature(theta, weights * self.residuals(theta))


def declared_product(problem: Problem) -> ProductModel | None:
    """Return the product model a problem declares, unless a subclass of it changes the loss."""
    parents = type(problem).__mro__
    declared = next(k for k, kind in enumerate(parents) if "product_model" in vars(kind))
    changed = any(vars(kind).keys() & DYNAMICS for kind in parents[:declared])
    return None if changed else problem.product_model()


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
