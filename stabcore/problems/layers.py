r"""Networks of real layers as `Problem`s, differentiated by JAX (the extra ``networks``).

The theorem on non-singularity is about layers (fully connected, convolution, softmax attention)
with piecewise analytic activations. Here they are small enough for exact Hessians: scalar output
F(θ, x), all parameters in one vector θ, residuals and derivatives to second order in double
precision, whatever the switch of the process says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from stabcore import _validation as check
from stabcore._jax import double_precision, jax, jnp
from stabcore._validation import Array
from stabcore.problems.base import Indices, Problem

__all__ = [
    # layers as problems
    "Network",
    "attention",
    "convolutional",
    "fully_connected",
]

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "leaky_relu": jax.nn.leaky_relu,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "linear": lambda x: x,
}

AT_ONCE = 64  # parameter vectors differentiated in one go: a bound on memory

Shape = tuple[int, ...]


class Network(Problem):
    r"""F(θ, x) = apply(arrays, x), any differentiable scalar function written with JAX.

    Source: standard; the layers below are those of paper D's Theorem 1.

    Parameters
    ----------
    apply : callable
        ``apply(arrays, x)`` returns the scalar output for one input; `arrays` is a list with the
        shapes below.
    shapes : sequence of tuples
        Shapes of the parameter arrays; θ is their entries in this order, D in all. Arrays of one
        axis are biases: `initial` sets them to 0.
    inputs : array, shape (N, ...)
    targets : array, shape (N,)
    probabilities : array, shape (N,), optional
        Uniform by default.

    Raises
    ------
    TypeError, ValueError
        If `apply` does not return a scalar.

    Examples
    --------
    F(θ, x) = θ₁θ₂x on one sample (x, y) = (2, 6):

    >>> network = Network(lambda a, x: a[0][0] * a[1][0] * x, [(1,), (1,)], [2.0], [6.0])
    >>> network.hessian(np.array([1.0, 1.0]))  # JᵀJ = [[4, 4], [4, 4]], residual −4, F'' = 2
    array([[ 4., -4.],
           [-4.,  4.]])
    """

    def __init__(
        self,
        apply: Callable[[list[Any], Any], Any],
        shapes: Sequence[Shape],
        inputs: ArrayLike,
        targets: ArrayLike,
        probabilities: ArrayLike | None = None,
    ) -> None:
        self.inputs = check.finite_array("inputs", inputs)
        self.targets = check.finite_array("targets", targets, ndim=1)
        if len(self.inputs) != self.targets.size:
            raise ValueError(
                f"inputs has {len(self.inputs)} samples but targets has {self.targets.size}; "
                "pass one target per sample."
            )
        self.probabilities = check.probabilities(probabilities, self.targets.size)
        self.shapes = [tuple(check.integer("shapes", n) for n in shape) for shape in shapes]
        sizes = [math.prod(shape) for shape in self.shapes]
        self.n_parameters = sum(sizes)
        ends = np.cumsum([0, *sizes]).tolist()

        def outputs(theta: Any, inputs: Any) -> Any:
            parts = (theta[a:b] for a, b in pairwise(ends))
            arrays = [part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True)]
            return jax.vmap(partial(apply, arrays))(inputs)

        def weighted(theta: Any, inputs: Any, weights: Any) -> Any:
            return weights @ outputs(theta, inputs)

        def loss(theta: Any, inputs: Any) -> Any:
            return 0.5 * (outputs(theta, inputs) - self.targets) ** 2 @ self.probabilities

        with double_precision():
            found = jax.eval_shape(outputs, jnp.zeros(self.n_parameters), self.inputs)
        if found.shape != self.targets.shape:
            raise ValueError(
                f"apply must return a scalar, got shape {found.shape[1:]} for one input; "
                "add a read-out."
            )
        self._outputs = _over_points(outputs)
        self._jacobian = _over_points(jax.jacrev(outputs))
        self._curvature = _over_points(jax.hessian(weighted))
        self._hessian = _over_points(jax.hessian(loss))

    def initial(self, rng: int | np.random.Generator | None = None) -> Array:
        """Return random parameters: weights N(0, 1/fan-in), biases 0; shape (D,)."""
        generator = check.generator(rng)
        arrays = (
            np.zeros(shape)
            if len(shape) == 1
            else generator.normal(size=shape) / math.sqrt(math.prod(shape[1:]))
            for shape in self.shapes
        )
        return np.concatenate([array.ravel() for array in arrays])

    def residuals(self, theta: Array, samples: Indices | None = None) -> Array:
        """Return F(θ, x_i) − y_i."""
        targets = self.targets if samples is None else self.targets[samples]
        return self._evaluate(self._outputs, theta, samples) - targets

    def jacobian(self, theta: Array, samples: Indices | None = None) -> Array:
        """Return the rows ∇F(θ, x_i)."""
        return self._evaluate(self._jacobian, theta, samples)

    def residual_curvature(self, theta: Array, weights: Array) -> Array:
        """Return Σ_i w_i ∇²F(θ, x_i)."""
        return self._evaluate(self._curvature, theta, None, weights)

    def hessian(self, theta: Array) -> Array:
        """Return ∇²L(θ), as one function: to compile its three parts takes twice as long."""
        return self._evaluate(self._hessian, theta, None)

    def _evaluate(
        self, function: Any, theta: Array, samples: Indices | None, *more: Array
    ) -> Array:
        """Call `function` at every point of a batch of parameters."""
        leading = theta.shape[:-1]
        points = math.prod(leading)
        chosen = self.inputs if samples is None else self.inputs[samples]
        inputs = np.broadcast_to(
            chosen, (*leading, *chosen.shape[chosen.ndim - self.inputs.ndim :])
        )
        arguments = [
            theta,
            inputs,
            *(np.broadcast_to(one, (*leading, one.shape[-1])) for one in more),
        ]
        rows = [one.reshape(points, *one.shape[len(leading) :]) for one in arguments]
        with double_precision():
            result = np.asarray(function(*rows))
        return result.reshape(*leading, *result.shape[1:])


def fully_connected(
    inputs: ArrayLike,
    targets: ArrayLike,
    widths: Sequence[int] = (4,),
    activation: str = "tanh",
    probabilities: ArrayLike | None = None,
) -> Network:
    r"""Return F(θ, x) = aᵀ σ(W_k ⋯ σ(W_1 x + b_1) ⋯ + b_k).

    Source: standard.

    Parameters
    ----------
    inputs : array, shape (N, d)
    targets : array, shape (N,)
    widths : sequence of int
        Hidden units of each layer.
    activation : str
        One of `ACTIVATIONS`.
    probabilities : array, shape (N,), optional
        Uniform by default.

    Returns
    -------
    Network

    Examples
    --------
    >>> fully_connected([[1.0, 2.0]], [1.0], widths=(3,)).n_parameters
    12
    """
    rows = check.finite_array("inputs", inputs, ndim=2)
    sigma = _activation(activation)
    sizes = [rows.shape[1], *(check.integer("widths", width) for width in widths)]
    layers: list[Shape] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [(fan_out, fan_in), (fan_out,)]

    def apply(arrays: list[Any], x: Any) -> Any:
        for weight, bias in zip(arrays[:-1:2], arrays[1:-1:2], strict=True):
            x = sigma(weight @ x + bias)
        return arrays[-1][0] @ x

    return Network(apply, [*layers, (1, sizes[-1])], rows, targets, probabilities)


def convolutional(
    images: ArrayLike,
    targets: ArrayLike,
    channels: int = 4,
    size: int = 3,
    activation: str = "tanh",
    probabilities: ArrayLike | None = None,
) -> Network:
    r"""Return F(θ, x) = Σ_c a_c mean σ(w_c ∗ x + b_c): one convolution, mean pooling, a read-out.

    Source: standard.

    Parameters
    ----------
    images : array, shape (N, height, width)
    targets : array, shape (N,)
    channels : int
        Filters c.
    size : int
        Height and width of a filter.
    activation : str
        One of `ACTIVATIONS`.
    probabilities : array, shape (N,), optional
        Uniform by default.

    Returns
    -------
    Network

    Raises
    ------
    ValueError
        If the filters are larger than the images.

    Examples
    --------
    >>> convolutional(np.zeros((2, 8, 8)), [0.0, 1.0]).n_parameters
    44
    """
    pictures = check.finite_array("images", images, ndim=3)
    sigma = _activation(activation)
    count, side = check.integer("channels", channels), check.integer("size", size)
    if side > min(pictures.shape[1:]):
        raise ValueError(
            f"size is {side} but the images are {pictures.shape[1]} × {pictures.shape[2]}; "
            "use smaller filters."
        )

    def apply(arrays: list[Any], x: Any) -> Any:
        filters, bias, output = arrays
        maps = jax.lax.conv(x[None, None], filters[:, None], (1, 1), "VALID")[0]
        return output[0] @ sigma(maps + bias[:, None, None]).mean(axis=(1, 2))

    shapes = [(count, side, side), (count,), (1, count)]
    return Network(apply, shapes, pictures, targets, probabilities)


def attention(
    tokens: ArrayLike,
    targets: ArrayLike,
    width: int = 3,
    activation: str = "tanh",
    probabilities: ArrayLike | None = None,
) -> Network:
    r"""Return F(θ, X) = aᵀ mean σ(softmax(Q Kᵀ/√w) V + b), Q, K, V = X W_q, X W_k, X W_v.

    Source: standard.

    Parameters
    ----------
    tokens : array, shape (N, n, d)
        n tokens of dimension d per sample; for an image, its rows.
    targets : array, shape (N,)
    width : int
        w, the columns of the three weight matrices.
    activation : str
        One of `ACTIVATIONS`.
    probabilities : array, shape (N,), optional
        Uniform by default.

    Returns
    -------
    Network

    Examples
    --------
    >>> attention(np.zeros((2, 8, 8)), [0.0, 1.0]).n_parameters
    78
    """
    sequences = check.finite_array("tokens", tokens, ndim=3)
    sigma = _activation(activation)
    columns, dimension = check.integer("width", width), sequences.shape[2]

    def apply(arrays: list[Any], x: Any) -> Any:
        query, key, value = (x @ array.T for array in arrays[:3])
        mixed = jax.nn.softmax(query @ key.T / math.sqrt(columns)) @ value
        return arrays[4][0] @ sigma(mixed + arrays[3]).mean(axis=0)

    shapes = [*[(columns, dimension)] * 3, (columns,), (1, columns)]
    return Network(apply, shapes, sequences, targets, probabilities)


def _activation(name: str) -> Callable[[Any], Any]:
    return ACTIVATIONS[check.choice("activation", name, tuple(ACTIVATIONS))]


def _over_points(function: Any) -> Any:
    """Return `function` applied to every row of its arguments, some at a time, compiled."""
    return jax.jit(lambda *rows: jax.lax.map(lambda row: function(*row), rows, batch_size=AT_ONCE))
