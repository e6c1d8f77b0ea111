r"""Three small networks: fully connected, convolutional, and a Transformer of one block.

A network is any function ``apply(params, x)`` of a pytree of parameters and a batch of inputs, so
that those of Flax, Equinox or your own will do. These are ours, written with smooth activations: a
large step can put a ReLU network *on* a kink, where no theorem holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from stabcore import _validation as check
from stabcore._jax import jax, jnp

Params = Any  # a pytree of arrays

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "tanh": jnp.tanh,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "softplus": jax.nn.softplus,
    "relu": jax.nn.relu,
    "linear": lambda x: x,
}

SMALL_VARIANCE = 1e-5  # added under the root of layer normalisation, as frameworks do


@dataclass(frozen=True)
class Model:
    """A network: `apply(params, x)` for a batch x, and random parameters.

    Attributes
    ----------
    apply : callable
        ``apply(params, x)``: shape (N, ...) -> (N, C), or (N,) for one output.
    shapes : dict of str to tuple
        Of the parameter arrays.
    """

    apply: Callable[[Params, Any], Any]
    shapes: dict[str, tuple[int, ...]]

    @property
    def n_parameters(self) -> int:
        """Number of parameters D."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def initial(
        self, rng: int | np.random.Generator | None = None, runs: int | None = None
    ) -> dict[str, Any]:
        """Return random parameters: weights N(0, 1/fan-in), gains 1, biases 0.

        Parameters
        ----------
        rng : int, numpy.random.Generator or None
        runs : int, optional
            Independent draws, along a new first axis of every array.

        Returns
        -------
        dict of str to array
        """
        generator = check.generator(rng)
        leading = () if runs is None else (check.integer("runs", runs),)
        params = {}
        for name, shape in self.shapes.items():
            if len(shape) == 1:
                fill = 1.0 if name.endswith("gain") else 0.0
                params[name] = np.full((*leading, *shape), fill)
            else:
                fan_in = math.prod(shape[1:])
                params[name] = generator.normal(size=(*leading, *shape)) / math.sqrt(fan_in)
        return params


@check.public()
def mlp(
    inputs: int,
    widths: Sequence[int] = (32,),
    outputs: int = 1,
    *,
    activation: str = "tanh",
    layer_norm: bool = False,
) -> Model:
    r"""Return a fully connected network, F(θ, x) = W_k σ(⋯ σ(W_1 x + b_1) ⋯) + b_k.

    Parameters
    ----------
    inputs : int
        Length of an input; images are flattened.
    widths : sequence of int
        Hidden units of each layer.
    outputs : int
        C; one output comes out as shape (N,).
    activation : str
        One of `ACTIVATIONS`.
    layer_norm : bool
        Whether the pre-activations of each sample are normalised in every hidden layer.

    Returns
    -------
    Model

    Examples
    --------
    >>> model = mlp(4, (3,))
    >>> model.n_parameters, model.apply(model.initial(0), np.ones((5, 4))).shape
    (19, (5,))
    """
    sigma, norm = _activation(activation), check.boolean("layer_norm", layer_norm)
    sizes = [check.integer("inputs", inputs)]
    sizes += [check.integer("widths", width) for width in widths]
    sizes.append(check.integer("outputs", outputs))
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        shapes |= {f"{layer}_weight": (fan_out, fan_in), f"{layer}_bias": (fan_out,)}
        if norm and layer < len(sizes) - 2:
            shapes |= {f"{layer}_gain": (fan_out,)}

    def apply(params: Params, x: Any) -> Any:
        x = x.reshape(len(x), -1)
        for layer in range(len(sizes) - 1):
            x = x @ params[f"{layer}_weight"].T
            if f"{layer}_gain" in params:
                x = _normalised(x) * params[f"{layer}_gain"]
            x = x + params[f"{layer}_bias"]
            x = sigma(x) if layer < len(sizes) - 2 else x
        return _read_out(x)

    return Model(apply, shapes)


@check.public()
def cnn(
    shape: tuple[int, int],
    channels: int = 8,
    outputs: int = 1,
    *,
    activation: str = "tanh",
    layer_norm: bool = False,
) -> Model:
    r"""Return a network of two 3 × 3 convolutions, mean pooling over 2 × 2, and a read-out.

    A convolution is written as nine shifted products: in double precision that is many times faster
    on a processor than the library's.

    Parameters
    ----------
    shape : tuple of int
        Height and width of the images, both even.
    channels : int
        Of both convolutions.
    outputs : int
        C.
    activation : str
        One of `ACTIVATIONS`.
    layer_norm : bool
        Whether each image is normalised before the first activation.

    Returns
    -------
    Model

    Examples
    --------
    >>> model = cnn((8, 8), channels=2, outputs=10)
    >>> model.apply(model.initial(0), np.ones((5, 8, 8))).shape
    (5, 10)
    """
    sigma, norm = _activation(activation), check.boolean("layer_norm", layer_norm)
    height, width = (check.integer("shape", side, minimum=2) for side in shape)
    if height % 2 or width % 2:
        raise ValueError(f"shape must have even sides, got {(height, width)}; pad the images.")
    count, classes = check.integer("channels", channels), check.integer("outputs", outputs)
    features = count * height * width // 4
    shapes: dict[str, tuple[int, ...]] = {
        "first_weight": (count, 1, 3, 3),
        "first_bias": (count,),
        "second_weight": (count, count, 3, 3),
        "second_bias": (count,),
        "last_weight": (classes, features),
        "last_bias": (classes,),
    }
    if norm:
        shapes |= {"first_gain": (count,)}

    def apply(params: Params, x: Any) -> Any:
        x = x.reshape(len(x), 1, height, width)
        x = _convolved(x, params["first_weight"])
        if "first_gain" in params:
            flat = _normalised(x.reshape(len(x), -1)).reshape(x.shape)
            x = flat * params["first_gain"][:, None, None]
        x = sigma(x + params["first_bias"][:, None, None])
        x = sigma(_convolved(x, params["second_weight"]) + params["second_bias"][:, None, None])
        x = x.reshape(len(x), count, height // 2, 2, width // 2, 2).mean(axis=(3, 5))
        return _read_out(x.reshape(len(x), -1) @ params["last_weight"].T + params["last_bias"])

    return Model(apply, shapes)


@check.public()
def transformer(
    shape: tuple[int, int],
    width: int = 16,
    outputs: int = 1,
    *,
    activation: str = "gelu",
    layer_norm: bool = False,
) -> Model:
    r"""Return a Transformer of one block over the rows of an image, with one head.

    Tokens are embedded rows plus a learned position; then X + softmax(QKᵀ/√w)V W_o, X + an MLP of
    twice the width, the mean over the tokens, a read-out.

    Parameters
    ----------
    shape : tuple of int
        Number of tokens (rows) and their length.
    width : int
        w.
    outputs : int
        C.
    activation : str
        One of `ACTIVATIONS`.
    layer_norm : bool
        Whether the tokens are normalised before attention and before the MLP.

    Returns
    -------
    Model

    Examples
    --------
    >>> model = transformer((8, 8), width=4)
    >>> model.apply(model.initial(0), np.ones((5, 8, 8))).shape
    (5,)
    """
    sigma, norm = _activation(activation), check.boolean("layer_norm", layer_norm)
    tokens, length = (check.integer("shape", side) for side in shape)
    w, classes = check.integer("width", width), check.integer("outputs", outputs)
    shapes: dict[str, tuple[int, ...]] = {
        "embedding": (w, length),
        "position": (tokens, w),
        "query": (w, w),
        "key": (w, w),
        "value": (w, w),
        "mixing": (w, w),
        "up_weight": (2 * w, w),
        "up_bias": (2 * w,),
        "down_weight": (w, 2 * w),
        "down_bias": (w,),
        "last_weight": (classes, w),
        "last_bias": (classes,),
    }
    if norm:
        shapes |= {"attention_gain": (w,), "mlp_gain": (w,)}

    def apply(params: Params, x: Any) -> Any:
        x = x.reshape(len(x), tokens, length) @ params["embedding"].T + params["position"]
        seen = _normalised(x) * params["attention_gain"] if "attention_gain" in params else x
        query, key, value = (seen @ params[name].T for name in ("query", "key", "value"))
        weights = jax.nn.softmax(query @ jnp.swapaxes(key, 1, 2) / math.sqrt(w), axis=-1)
        x = x + weights @ value @ params["mixing"].T
        seen = _normalised(x) * params["mlp_gain"] if "mlp_gain" in params else x
        hidden = sigma(seen @ params["up_weight"].T + params["up_bias"])
        x = (x + hidden @ params["down_weight"].T + params["down_bias"]).mean(axis=1)
        return _read_out(x @ params["last_weight"].T + params["last_bias"])

    return Model(apply, shapes)


def _activation(name: str) -> Callable[[Any], Any]:
    return ACTIVATIONS[check.choice("activation", name, tuple(ACTIVATIONS))]


def _normalised(x: Any) -> Any:
    """Return each sample's (or token's) features with mean 0 and variance 1."""
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / jnp.sqrt((centred**2).mean(axis=-1, keepdims=True) + SMALL_VARIANCE)


def _convolved(x: Any, weight: Any) -> Any:
    """Return the 3 × 3 convolution with zeros around, shape (N, k, height, width)."""
    height, width = x.shape[2:]
    padded = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return sum(
        jnp.einsum("kc,nchw->nkhw", weight[:, :, i, j], padded[:, :, i : i + height, j : j + width])
        for i in range(3)
        for j in range(3)
    )


def _read_out(x: Any) -> Any:
    """Return one output as a number per sample."""
    return x[:, 0] if x.shape[1] == 1 else x
