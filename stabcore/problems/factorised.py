"""Models whose parameters enter as products: diagonal networks, the pair, the ReLU pair, chains."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stabcore import _validation as check
from stabcore._validation import Array
from stabcore.problems.base import Indices, Problem, ProductModel, _rows


class DiagonalLinearNetwork(Problem):
    r"""F(θ, x) = Σ_j u_j v_j x_j with θ = (u_1, v_1, u_2, v_2, ...) and targets β·x.

    The minima with linearly independent inputs are u_j v_j = β_j. Writing s_j = u_j² + v_j² ≥
    2|β_j|, the kernel there is K = Σ_j s_j a_j a_jᵀ, a_j the j-th column of the inputs: every s_j
    of the manifold of minima that matters for stability is a coordinate of one figure.

    Source: our derivation.

    Parameters
    ----------
    inputs : array, shape (N, d)
        One sample per row.
    coefficients : array, shape (d,)
        The target's coefficients β.
    probabilities : array, shape (N,), optional
        Probability of each sample in the loss; uniform by default.

    Examples
    --------
    >>> import numpy as np
    >>> network = DiagonalLinearNetwork([[1.0, 0.0], [1.0, 2.0]], [1.0, 0.0])
    >>> point = network.minimum(2.0, 3.0)
    >>> point.round(12) + 0.0, float(network.loss(point).round(12))
    (array([1.        , 1.        , 1.73205081, 0.        ]), 0.0)
    >>> jacobian = network.jacobian(point)
    >>> (jacobian @ jacobian.T).round(12)
    array([[ 2.,  2.],
           [ 2., 14.]])
    """

    def __init__(
        self,
        inputs: ArrayLike,
        coefficients: ArrayLike,
        probabilities: ArrayLike | None = None,
    ) -> None:
        self.inputs = check.finite_array("inputs", inputs, ndim=2)
        self.coefficients = check.finite_array("coefficients", coefficients, ndim=1)
        n_samples, n_features = self.inputs.shape
        if self.coefficients.size != n_features:
            raise ValueError(
                f"coefficients has length {self.coefficients.size} but inputs has {n_features} "
                "columns; pass one coefficient per column."
            )
        self.probabilities = check.probabilities(probabilities, n_samples)
        self.n_parameters = 2 * n_features

    def residuals(self, theta: Array, samples: Indices | None = None) -> Array:
        """Return φ_i = Σ_j (u_j v_j − β_j) x_ij."""
        error = theta[..., 0::2] * theta[..., 1::2] - self.coefficients
        return (_rows(self.inputs, samples) @ error[..., None])[..., 0]

    def jacobian(self, theta: Array, samples: Indices | None = None) -> Array:
        """Return the rows g_i = (v_1 x_i1, u_1 x_i1, v_2 x_i2, u_2 x_i2, ...)."""
        rows = _rows(self.inputs, samples)
        swapped = theta.reshape(*theta.shape[:-1], -1, 2)[..., ::-1].reshape(theta.shape)
        return np.repeat(rows, 2, axis=-1) * swapped[..., None, :]

    def residual_curvature(self, theta: Array, weights: Array) -> Array:
        """Return Σ_i w_i ∇²φ_i: one block [[0, c], [c, 0]], c = Σ_i w_i x_ij, per feature j."""
        curvature = weights @ self.inputs
        result = np.zeros((*curvature.shape[:-1], self.n_parameters, self.n_parameters))
        feature = np.arange(curvature.shape[-1])
        result[..., 2 * feature, 2 * feature + 1] = curvature
        result[..., 2 * feature + 1, 2 * feature] = curvature
        return result

    def minimum(self, *squares: float) -> Array:
        r"""Return the minimum with u_j² + v_j² = s_j and u_j ≥ |v_j|.

        u_j² = (s_j + √(s_j² − 4β_j²))/2 and v_j = β_j/u_j.

        Parameters
        ----------
        *squares : float
            One s_j ≥ 2|β_j| per feature.

        Returns
        -------
        array, shape (2d,)

        Raises
        ------
        ValueError
            If the number of values is wrong or some s_j < 2|β_j| (there is no such minimum).
        """
        s = check.finite_array("squares", squares, ndim=1)
        if s.size != self.coefficients.size:
            raise ValueError(
                f"squares must give one value per feature ({self.coefficients.size}), got {s.size}."
            )
        smallest = 2 * np.abs(self.coefficients)
        if (s < smallest).any():
            raise ValueError(
                f"squares must be at least 2|β| = {smallest.tolist()}, got {s.tolist()}; "
                "u² + v² ≥ 2|uv| leaves no minimum below."
            )
        u = np.sqrt((s + np.sqrt(s**2 - smallest**2)) / 2)
        v = np.divide(self.coefficients, u, out=np.zeros_like(u), where=u > 0)
        return np.stack([u, v], axis=-1).reshape(-1)


class ScalarFactorization(DiagonalLinearNetwork):
    r"""F(θ, x) = θ₁θ₂x with targets y_i = x_i; one input 1 gives L = ½(1 − θ₁θ₂)².

    Minima θ₁θ₂ = 1, indexed by s = θ₁² + θ₂² ≥ 2; all gradients there are parallel and
    K = s x xᵀ. The whole dynamics depends on (δ, s) with δ = 1 − θ₁θ₂ (`exact_coordinates`).

    Source: our derivation.

    Parameters
    ----------
    inputs : array, shape (N,)
    probabilities : array, shape (N,), optional
        Uniform by default.

    Examples
    --------
    >>> problem = ScalarFactorization()
    >>> problem.hessian(problem.minimum(2.0)).round(12)
    array([[1., 1.],
           [1., 1.]])
    """

    def __init__(self, inputs: ArrayLike = (1.0,), probabilities: ArrayLike | None = None) -> None:
        column = check.finite_array("inputs", inputs, ndim=1)[:, None]
        super().__init__(column, [1.0], probabilities)
        if not self.curvatures @ self.probabilities > 0:
            raise ValueError(
                f"inputs must not all be 0 (or have probability 0), got {column[:, 0].tolist()}; "
                "the loss would be 0 everywhere."
            )

    @property
    def curvatures(self) -> Array:
        """Return c_i = x_i², shape (N,): sample i has curvature c_i s at the minimum s."""
        return self.inputs[:, 0] ** 2

    def product_model(self) -> ProductModel | None:
        """Return κ = Σ p_i x_i² of L = (κ/2)(1 − θ₁θ₂)²."""
        return ProductModel(float(self.curvatures @ self.probabilities), 2, relu=False)

    def exact_coordinates(self, theta: Array) -> tuple[Array, Array]:
        """Return (δ, s) = (1 − θ₁θ₂, θ₁² + θ₂²): shape (..., 2) -> two arrays of shape (...)."""
        return 1 - theta[..., 0] * theta[..., 1], (theta**2).sum(axis=-1)


class ReluPair(ScalarFactorization):
    r"""Paper D's example: F(θ, x) = ReLU(θ₂ ReLU(θ₁x)) with positive inputs and targets y = x.

    For θ > 0 this is `ScalarFactorization`; elsewhere the network is dead (F = 0, zero gradient),
    a flat plateau of positive loss. At a minimum μ = log|1 − ηs Σp_i x_i²| and
    λ = Σ p_i log|1 − ηs x_i²|.

    Source: paper D, section 5 and appendix C (the model, its data and its minima); the formulas
    for μ and λ are our derivation.

    Parameters
    ----------
    inputs : array, shape (N,)
        Positive; the paper's data are (0.9, 2.5).
    probabilities : array, shape (N,), optional
        Uniform by default; the paper's p is the first of two.

    Examples
    --------
    >>> import numpy as np
    >>> problem = ReluPair()
    >>> problem.residuals(np.array([1.0, 1.0]))
    array([0., 0.])
    >>> problem.gradient(np.array([-1.0, 1.0]))
    array([0., 0.])
    """

    def __init__(
        self, inputs: ArrayLike = (0.9, 2.5), probabilities: ArrayLike | None = None
    ) -> None:
        super().__init__(inputs, probabilities)
        if (self.inputs <= 0).any():
            raise ValueError(
                f"inputs must be positive, got {self.inputs[:, 0].tolist()}; the minima θ₁θ₂ = 1 "
                "with θ > 0 see positive inputs only."
            )

    def residuals(self, theta: Array, samples: Indices | None = None) -> Array:
        """Return (θ₁θ₂ − 1)x_i where both parameters are positive, −x_i elsewhere."""
        dead = -_rows(self.inputs, samples)[..., 0]
        return np.where(self.smooth(theta)[..., None], super().residuals(theta, samples), dead)

    def jacobian(self, theta: Array, samples: Indices | None = None) -> Array:
        """Return the rows (θ₂x_i, θ₁x_i) where both parameters are positive, 0 elsewhere."""
        return super().jacobian(theta, samples) * self.smooth(theta)[..., None, None]

    def residual_curvature(self, theta: Array, weights: Array) -> Array:
        """Return that of the factorisation where alive, 0 elsewhere."""
        return super().residual_curvature(theta, weights) * self.smooth(theta)[..., None, None]

    def product_model(self) -> ProductModel | None:
        """Return that of the factorisation, alive for positive factors only."""
        return ProductModel(float(self.curvatures @ self.probabilities), 2, relu=True)

    def smooth(self, theta: Array) -> NDArray[np.bool_]:
        """Return whether the network responds to its inputs: θ > 0, shape (..., 2) -> (...)."""
        return np.asarray((theta > 0).all(axis=-1))


class ScalarChain(Problem):
    r"""F(x) = x₁x₂⋯x_k with target 1: L = ½(x₁⋯x_k − 1)², a deep linear network of width one.

    The minima are x₁⋯x_k = 1; the sharpness there is Σ_i 1/x_i² ≥ k, with equality at the balanced
    ones, |x_i| = 1. So gradient descent can end at a minimum only if η ≤ 2/k. Depth 2 is
    `ScalarFactorization()`.

    Source: paper C (the model); the formulas are our derivation.

    Parameters
    ----------
    depth : int
        Number of factors k.

    Examples
    --------
    >>> import numpy as np
    >>> chain = ScalarChain(3)
    >>> float(chain.loss(np.array([1.0, 2.0, 3.0]))), chain.gradient(np.array([1.0, 2.0, 0.0]))
    (12.5, array([ 0.,  0., -2.]))
    >>> float(np.trace(chain.hessian(chain.minimum(2.0, 0.5)))) == 1 / 4 + 4 + 1
    True
    """

    def __init__(self, depth: int) -> None:
        self.n_parameters = check.integer("depth", depth)
        self.probabilities = np.ones(1)

    @property
    def depth(self) -> int:
        """Number of factors k."""
        return self.n_parameters

    def product_model(self) -> ProductModel | None:
        """Return κ = 1 and the depth."""
        return ProductModel(1.0, self.depth, relu=False)

    def residuals(self, theta: Array, samples: Indices | None = None) -> Array:
        """Return x₁⋯x_k − 1."""
        error = theta.prod(axis=-1)[..., None] - 1
        return np.asarray(error * _rows(self.probabilities, samples))

    def jacobian(self, theta: Array, samples: Indices | None = None) -> Array:
        """Return the row whose entry i is the product of all factors but x_i."""
        others = np.where(np.eye(self.depth, dtype=bool), 1.0, theta[..., None, :]).prod(axis=-1)
        return np.asarray(others[..., None, :] * _rows(self.probabilities, samples)[..., None])

    def residual_curvature(self, theta: Array, weights: Array) -> Array:
        """Return w ∇²φ: entry i ≠ j is the product of all factors but x_i and x_j."""
        own = np.eye(self.depth, dtype=bool)
        left_out = own[:, None, :] | own[None, :, :]
        others = np.where(left_out, 1.0, theta[..., None, None, :]).prod(axis=-1)
        return np.where(own, 0.0, others) * weights[..., None]

    def minimum(self, *factors: float) -> Array:
        r"""Return the minimum (x₁, ..., x_{k−1}, 1/(x₁⋯x_{k−1})).

        Parameters
        ----------
        *factors : float
            The first k − 1 factors, none of them 0.

        Returns
        -------
        array, shape (k,)

        Raises
        ------
        ValueError
            If the number of factors is wrong or one is 0.
        """
        if len(factors) != self.depth - 1:
            raise ValueError(
                f"factors must be the first {self.depth - 1} of {self.depth}, got {len(factors)}; "
                "the last one follows from x₁⋯x_k = 1."
            )
        first = np.array([check.real("factors", factor) for factor in factors])
        if (first == 0).any():
            raise ValueError(f"factors must not be 0, got {first.tolist()}; their product is 1.")
        return np.append(first, 1 / first.prod())
