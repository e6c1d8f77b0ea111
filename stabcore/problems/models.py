"""Small models: regression, one neuron, a piecewise quartic, a network with one hidden layer."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike

from stabcore import _validation as check
from stabcore._validation import Array
from stabcore.problems.base import Indices, Problem, _rows, _samples


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


class NeuronFate(IntEnum):
    """How a run of SGD on one neuron ended."""

    UNDECIDED = 0
    """Still open when the steps ran out: uw is small, or changes its sign."""
    CORRECT = 1
    """uw has the sign of E[xy] for good (near the saddle: it left that way, the other shrank)."""
    INCORRECT = 2
    """The same with the opposite sign."""
    ORIGIN = 3
    """Both coordinates vanished: SGD converged to the saddle."""
    DIVERGENT = 4
    """A coordinate exceeded 10¹⁵⁰ (near the saddle: one left, and the other has grown as well)."""


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
