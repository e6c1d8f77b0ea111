"""Learning problems: a model, its data and the square loss, at any parameter θ.

A `Problem` knows its residuals φ_i(θ) = F(θ, x_i) − y_i and their Jacobian; loss, gradient and
Hessian follow. Everything is batched: θ may have leading axes (one row per replica), and
`samples` picks rows of the data, one batch per replica, which is all SGD needs.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Sequence

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


class LinearRegression(Problem):
    r"""F(θ, x) = θ·x, whose Hessian is the same everywhere.

    Source: standard; the case in which the GD map has bad step sizes.

    Parameters
    ----------
    inputs : array, shape (N, D)
    targets : array, shape (N,)
    probabilities : array, shape (N,), optional
        Uniform by default.

    Examples
    --------
    >>> import numpy as np
    >>> LinearRegression([[2.0]], [6.0]).hessian(np.zeros(1))
    array([[4.]])
    """

    def __init__(
        self, inputs: ArrayLike, targets: ArrayLike, probabilities: ArrayLike | None = None
    ) -> None:
        self.inputs, self.targets = _samples(inputs, targets)
        self.probabilities = check.probabilities(probabilities, len(self.inputs))
        self.n_parameters = self.inputs.shape[1]

    def residuals(self, theta: Array, samples: Indices | None = None) -> Array:
        """Return θ·x_i − y_i."""
        inputs, targets = _rows(self.inputs, samples), _rows(self.targets, samples)
        return (inputs @ theta[..., None])[..., 0] - targets

    def jacobian(self, theta: Array, samples: Indices | None = None) -> Array:
        """Return the rows x_i."""
        rows = _rows(self.inputs, samples)
        return np.broadcast_to(rows, (*theta.shape[:-1], *rows.shape[-2:]))

    def residual_curvature(self, theta: Array, weights: Array) -> Array:
        """Return 0."""
        return np.zeros((*theta.shape, self.n_parameters))


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

    @property
    def curvatures(self) -> Array:
        """Return c_i = x_i², shape (N,): sample i has curvature c_i s at the minimum s."""
        return self.inputs[:, 0] ** 2

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
        return np.where(self.alive(theta)[..., None], super().residuals(theta, samples), dead)

    def jacobian(self, theta: Array, samples: Indices | None = None) -> Array:
        """Return the rows (θ₂x_i, θ₁x_i) where both parameters are positive, 0 elsewhere."""
        return super().jacobian(theta, samples) * self.alive(theta)[..., None, None]

    def residual_curvature(self, theta: Array, weights: Array) -> Array:
        """Return that of the factorisation where alive, 0 elsewhere."""
        return super().residual_curvature(theta, weights) * self.alive(theta)[..., None, None]

    def alive(self, theta: Array) -> NDArray[np.bool_]:
        """Return whether the network responds to its inputs: θ > 0, shape (..., 2) -> (...)."""
        return np.asarray((theta > 0).all(axis=-1))


class OneNeuron(Problem):
    r"""F(θ, x) = uwx with θ = (u, w), on scalar data (x_i, y_i) that no uw need fit.

    The origin is a saddle (for E[xy] ≠ 0) at which every sample's gradient vanishes.

    Source: paper B's example.

    Parameters
    ----------
    inputs, targets : array, shape (N,)
    probabilities : array, shape (N,), optional
        Uniform by default.

    Examples
    --------
    >>> import numpy as np
    >>> neuron = OneNeuron([1.0, 2.0], [1.0, -1.0])
    >>> neuron.gradient(np.zeros(2)), neuron.hessian(np.zeros(2))
    (array([0., 0.]), array([[0. , 0.5],
           [0.5, 0. ]]))
    """

    n_parameters = 2

    def __init__(
        self, inputs: ArrayLike, targets: ArrayLike, probabilities: ArrayLike | None = None
    ) -> None:
        column = check.finite_array("inputs", inputs, ndim=1)[:, None]
        self.inputs, self.targets = _samples(column, targets)
        self.probabilities = check.probabilities(probabilities, len(self.inputs))

    def residuals(self, theta: Array, samples: Indices | None = None) -> Array:
        """Return φ_i = uwx_i − y_i."""
        inputs, targets = _rows(self.inputs, samples)[..., 0], _rows(self.targets, samples)
        return np.asarray(theta.prod(axis=-1)[..., None] * inputs - targets)

    def jacobian(self, theta: Array, samples: Indices | None = None) -> Array:
        """Return the rows g_i = (wx_i, ux_i)."""
        return np.asarray(theta[..., None, ::-1] * _rows(self.inputs, samples))

    def residual_curvature(self, theta: Array, weights: Array) -> Array:
        """Return Σ_i w_i x_i [[0, 1], [1, 0]]."""
        curvature = weights @ self.inputs[:, 0]
        return np.asarray(curvature[..., None, None] * np.array([[0.0, 1.0], [1.0, 0.0]]))


class TwoLayerNetwork(Problem):
    r"""F(θ, x) = aᵀ tanh(Wx + b), θ = (W, b, a) flattened, with an analytic Jacobian.

    Source: standard; the book's real-data example.

    Parameters
    ----------
    inputs : array, shape (N, d)
    targets : array, shape (N,)
    width : int
        Hidden units h; D = h(d + 2) parameters.
    probabilities : array, shape (N,), optional
        Uniform by default.

    Examples
    --------
    >>> import numpy as np
    >>> network = TwoLayerNetwork([[0.0], [1.0]], [0.0, 1.0], width=1)
    >>> network.residuals(np.array([1.0, 0.0, 1.0])) + [0.0, 1.0] == np.tanh([0.0, 1.0])
    array([ True,  True])
    """

    def __init__(
        self,
        inputs: ArrayLike,
        targets: ArrayLike,
        width: int,
        probabilities: ArrayLike | None = None,
    ) -> None:
        self.inputs, self.targets = _samples(inputs, targets)
        self.width = check.integer("width", width)
        self.probabilities = check.probabilities(probabilities, len(self.inputs))
        self.n_parameters = self.width * (self.inputs.shape[1] + 2)

    def initial(self, rng: int | np.random.Generator | None = None) -> Array:
        """Return random parameters: W ~ N(0, 1/d), b = 0, a ~ N(0, 1/h); shape (D,)."""
        generator = check.generator(rng)
        h, d = self.width, self.inputs.shape[1]
        hidden = generator.normal(size=h * d) / np.sqrt(d)
        return np.concatenate([hidden, np.zeros(h), generator.normal(size=h) / np.sqrt(h)])

    def residuals(self, theta: Array, samples: Indices | None = None) -> Array:
        """Return F(θ, x_i) − y_i."""
        inputs, targets = _rows(self.inputs, samples), _rows(self.targets, samples)
        activation, output = self._forward(theta, inputs)
        return (activation @ output[..., None])[..., 0] - targets

    def jacobian(self, theta: Array, samples: Indices | None = None) -> Array:
        """Return the rows (a_k (1 − t_k²) x_i, a_k (1 − t_k²), t_k), t = tanh(Wx_i + b)."""
        inputs = _rows(self.inputs, samples)
        activation, output = self._forward(theta, inputs)
        slope = output[..., None, :] * (1 - activation**2)
        weights = slope[..., None] * inputs[..., None, :]
        flat = weights.reshape(*weights.shape[:-2], -1)
        return np.concatenate([flat, slope, activation], axis=-1)

    def residual_curvature(self, theta: Array, weights: Array) -> Array:
        """Return Σ_i w_i ∇²φ_i: unit k couples only with itself, through (x_i, 1) and t_k."""
        activation, output = self._forward(theta, self.inputs)
        h, d = self.width, self.inputs.shape[1]
        extended = np.concatenate([self.inputs, np.ones((self.n_samples, 1))], axis=1)
        slope = weights[..., None] * (1 - activation**2)
        bend = -2 * output[..., None, :] * activation * slope
        inner = np.einsum("...ik,ia,ib->...kab", bend, extended, extended, optimize=True)
        mixed = np.einsum("...ik,ia->...ka", slope, extended)
        result = np.zeros((*inner.shape[:-3], self.n_parameters, self.n_parameters))
        for k in range(h):
            own = np.append(np.arange(k * d, (k + 1) * d), h * d + k)
            result[..., own[:, None], own] = inner[..., k, :, :]
            result[..., own, h * (d + 1) + k] = mixed[..., k, :]
            result[..., h * (d + 1) + k, own] = mixed[..., k, :]
        return result

    def _forward(self, theta: Array, inputs: Array) -> tuple[Array, Array]:
        h, d = self.width, self.inputs.shape[1]
        hidden = theta[..., : h * d].reshape(*theta.shape[:-1], h, d)
        bias = theta[..., None, h * d : h * (d + 1)]
        activation = np.tanh(inputs @ np.swapaxes(hidden, -1, -2) + bias)
        return activation, theta[..., h * (d + 1) :]


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


class LinearNetwork(Problem):
    r"""F(θ, x) = W_D⋯W_1 x with several outputs, θ = (W_1, ..., W_D) flattened row by row.

    Every pair of a sample i and an output o is one residual, number i·m + o of N = n·m, of
    probability p_i/m: L = Σ_i p_i/(2m) |W_D⋯W_1 x_i − y_i|². With whitened inputs,
    Σ p_i x_i x_iᵀ = I, this is (κ/2) ‖W_D⋯W_1 − W*‖² + constant, κ = 1/m, W* the least-squares
    solution (`target_map`). The batches of SGD are made of such pairs.

    Source: paper C (the model); the formulas are our derivation.

    Parameters
    ----------
    inputs : array, shape (n, d)
    targets : array, shape (n, m), or (n,) for one output
    widths : sequence of int
        Widths of the hidden layers, D − 1 of them; () is linear regression.
    probabilities : array, shape (n,), optional
        Those of the samples; uniform by default.

    Examples
    --------
    >>> import numpy as np
    >>> network = LinearNetwork(np.eye(2), 2 * np.eye(2), widths=[2])
    >>> theta = np.array([1.0, 0.0, 0.0, 1.0, 2.0, 0.0, 0.0, 2.0])
    >>> network.product(theta)
    array([[2., 0.],
           [0., 2.]])
    >>> float(network.loss(theta)), network.n_parameters, network.n_samples
    (0.0, 8, 4)
    """

    def __init__(
        self,
        inputs: ArrayLike,
        targets: ArrayLike,
        widths: Sequence[int] = (),
        probabilities: ArrayLike | None = None,
    ) -> None:
        self.inputs = check.finite_array("inputs", inputs, ndim=2)
        array = check.finite_array("targets", targets)
        self.targets = (
            array[:, None] if array.ndim == 1 else check.finite_array("targets", array, ndim=2)
        )
        n, d = self.inputs.shape
        if len(self.targets) != n:
            raise ValueError(
                f"targets has length {len(self.targets)} but inputs has {n} rows; "
                "pass one per sample."
            )
        outputs = self.targets.shape[1]
        hidden = [check.integer("widths", width) for width in widths]
        sizes = [d, *hidden, outputs]
        self.shapes = tuple(zip(sizes[1:], sizes[:-1], strict=True))
        self.n_parameters = sum(rows * columns for rows, columns in self.shapes)
        self.sample_probabilities = check.probabilities(probabilities, n)
        self.probabilities = np.repeat(self.sample_probabilities, outputs) / outputs

    @property
    def depth(self) -> int:
        """Number of matrices D."""
        return len(self.shapes)

    @property
    def n_outputs(self) -> int:
        """Number of outputs m."""
        return int(self.targets.shape[1])

    @property
    def target_map(self) -> Array:
        """The least-squares solution W* (of least norm), shape (m, d): the best linear map."""
        root = np.sqrt(self.sample_probabilities)[:, None]
        return np.asarray(np.linalg.lstsq(root * self.inputs, root * self.targets, rcond=None)[0].T)

    def layers(self, theta: Array) -> list[Array]:
        """Return [W_1, ..., W_D], each of shape (..., rows, columns)."""
        ends = np.cumsum([rows * columns for rows, columns in self.shapes])[:-1]
        parts = np.split(theta, ends, axis=-1)
        return [
            part.reshape(*theta.shape[:-1], *shape)
            for part, shape in zip(parts, self.shapes, strict=True)
        ]

    def product(self, theta: Array) -> Array:
        """Return W_D⋯W_1: shape (..., D) -> (..., m, d)."""
        return _chain(self.layers(theta), self.inputs.shape[1])

    def residuals(self, theta: Array, samples: Indices | None = None) -> Array:
        """Return the entries of W_D⋯W_1 x_i − y_i."""
        sample, output = self._pairs(samples)
        weights = _pick(self.product(theta), output)
        fitted = (weights * self.inputs[sample]).sum(axis=-1)
        return np.asarray(fitted - self.targets[sample, output])

    def jacobian(self, theta: Array, samples: Indices | None = None) -> Array:
        """Return the rows: block l is a row of W_D⋯W_{l+1} times (W_{l−1}⋯W_1 x_i)ᵀ."""
        sample, output = self._pairs(samples)
        layers = self.layers(theta)
        blocks = []
        for index, (size, _) in enumerate(self.shapes):
            after = _pick(_chain(layers[index + 1 :], size), output)
            before = _chain(layers[:index], self.inputs.shape[1])
            signal = self.inputs[sample] @ np.swapaxes(before, -1, -2)
            block = after[..., :, None] * signal[..., None, :]
            blocks.append(block.reshape(*block.shape[:-2], -1))
        rows = np.concatenate(blocks, axis=-1)
        return np.broadcast_to(rows, (*theta.shape[:-1], *rows.shape[-2:]))

    def residual_curvature(self, theta: Array, weights: Array) -> Array:
        """Return Σ w ∇²φ: with M = Σ w e_o x_iᵀ, the second derivative of tr(MᵀW_D⋯W_1)."""
        layers, (d, outputs) = self.layers(theta), (self.inputs.shape[1], self.n_outputs)
        moment = np.einsum(
            "...io,ij->...oj", weights.reshape(*weights.shape[:-1], -1, outputs), self.inputs
        )
        starts = np.cumsum([0, *(rows * columns for rows, columns in self.shapes)])
        result = np.zeros((*theta.shape, self.n_parameters))
        for high in range(self.depth):
            after = _chain(layers[high + 1 :], self.shapes[high][0])
            for low in range(high):
                before = _chain(layers[:low], d)
                outer = np.swapaxes(after, -1, -2) @ moment @ np.swapaxes(before, -1, -2)
                inner = _chain(layers[low + 1 : high], self.shapes[low][0])
                block = np.einsum("...ae,...bc->...abce", outer, inner)
                shape = [starts[high + 1] - starts[high], starts[low + 1] - starts[low]]
                block = block.reshape(*block.shape[:-4], *shape)
                rows, columns = slice(*starts[high : high + 2]), slice(*starts[low : low + 2])
                result[..., rows, columns] = block
                result[..., columns, rows] = np.swapaxes(block, -1, -2)
        return result

    def initial(self, rng: int | np.random.Generator | None = None) -> Array:
        """Return random parameters: the entries of each W are N(0, 1/columns); shape (D,)."""
        generator = check.generator(rng)
        parts = [generator.normal(size=shape) / np.sqrt(shape[1]) for shape in self.shapes]
        return np.concatenate([part.reshape(-1) for part in parts])

    def balanced_minimum(self) -> Array:
        r"""Return the balanced global minimum: W* = UΣVᵀ shared evenly among the layers.

        W_1 = Σ^{1/D} Vᵀ, W_l = Σ^{1/D}, W_D = U Σ^{1/D}, padded with zeros. With whitened inputs
        no global minimum is flatter: its sharpness is κ D σ₁^{2−2/D}, so gradient descent can end
        at a global minimum only for η ≤ 2/(κ D σ₁^{2−2/D}). Source: our derivation.

        Returns
        -------
        array, shape (D,)

        Raises
        ------
        ValueError
            If a hidden layer is narrower than the rank of W*.
        """
        left, singular, right = np.linalg.svd(self.target_map, full_matrices=False)
        rank = int((singular > 1e-12 * singular[0]).sum())
        narrowest = min((rows for rows, _ in self.shapes[:-1]), default=rank)
        if narrowest < rank:
            raise ValueError(
                f"widths must be at least the rank {rank} of the least-squares solution, got "
                f"{narrowest}; widen the narrowest layer."
            )
        share = singular[:rank] ** (1 / self.depth)
        parts = [np.zeros(shape) for shape in self.shapes]
        for part in parts:
            part[:rank, :rank] = np.diag(share)
        parts[0] = parts[0][:, :rank] @ right[:rank]
        parts[-1] = left[:, :rank] @ parts[-1][:rank]
        return np.concatenate([part.reshape(-1) for part in parts])

    def _pairs(self, samples: Indices | None) -> tuple[Indices, Indices]:
        """Return the sample and the output of each residual asked for."""
        number = np.arange(self.n_samples) if samples is None else samples
        return number // self.n_outputs, number % self.n_outputs


class PiecewiseQuartic(Problem):
    r"""L(θ) = θ⁴/2 − 3θ² + 8 on [−2, 2] and θ² outside: smooth enough, and yet a bad step size.

    L is C¹, with minima at θ = ±√3 and a local maximum at 0. At η = 1/2 gradient descent sends
    all of |θ| > 2, a set of infinite measure, to the maximum: G is singular. At η = 1/4 it is not.
    Any positive loss is a square loss of one residual, φ = √(2L); this one is nowhere 0, so there
    is no interpolating minimum.

    Source: paper D (Figure 1).

    Examples
    --------
    >>> import numpy as np
    >>> from stabcore import gd_map
    >>> problem = PiecewiseQuartic()
    >>> problem.loss(np.array([[0.0], [2.0], [3.0]]))
    array([8., 4., 9.])
    >>> gd_map(problem, np.array([[2.5], [-7.0], [1.0]]), 0.5)
    array([[0.],
           [0.],
           [3.]])
    """

    n_parameters = 1

    def __init__(self) -> None:
        self.probabilities = np.ones(1)

    def loss(self, theta: Array) -> Array:
        """Return L(θ)."""
        square = theta[..., 0] ** 2
        return np.where(square <= 4, (square / 2 - 3) * square + 8, square)[()]

    def gradient(self, theta: Array) -> Array:
        """Return L'(θ) = 2θ³ − 6θ inside, 2θ outside."""
        return np.where(np.abs(theta) <= 2, 2 * (theta**2 - 3), 2.0) * theta

    def hessian(self, theta: Array) -> Array:
        """Return L''(θ) = 6θ² − 6 inside (and, from inside, at ±2), 2 outside."""
        return np.where(np.abs(theta) <= 2, 6 * theta**2 - 6, 2.0)[..., None]

    def residuals(self, theta: Array, samples: Indices | None = None) -> Array:
        """Return √(2L)."""
        return np.sqrt(2 * self.loss(theta))[..., None] * _rows(self.probabilities, samples)

    def jacobian(self, theta: Array, samples: Indices | None = None) -> Array:
        """Return L'/√(2L)."""
        slope = self.gradient(theta) / self.residuals(theta)
        return slope[..., None, :] * _rows(self.probabilities, samples)[..., None]

    def residual_curvature(self, theta: Array, weights: Array) -> Array:
        """Return w (L'' − φ'²)/φ."""
        bend = (self.hessian(theta) - self.jacobian(theta) ** 2) / self.residuals(theta)[..., None]
        return weights[..., None] * bend


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


def _chain(layers: Sequence[Array], size: int) -> Array:
    """Return the product of the layers, the first one rightmost; of none, the identity."""
    if not layers:
        return np.eye(size)
    return functools.reduce(lambda product, layer: layer @ product, layers)


def _pick(matrix: Array, rows: Indices) -> Array:
    """Return rows of (..., m, h) matrices, for shared `rows` (B,) or one row of them each."""
    if rows.ndim == 1:
        return np.asarray(matrix[..., rows, :])
    if matrix.ndim == 2:
        return np.asarray(matrix[rows])
    return np.take_along_axis(matrix, rows[..., None], axis=-2)
