r"""A dead unit inside a network, and whether SGD brings it back while the rest stands still.

A unit whose incoming weights w and outgoing weights a are all zero gets no gradient. Close to
that point a sample multiplies (a, w) by I − ηH_i, H_i the second derivative of its loss in these
weights: for a neuron with input x_i and back-propagated error δ_i it is −[0 δ_i x_iᵀ; x_i δ_iᵀ 0].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from stabcore import _validation as check
from stabcore._constants import EPSILON
from stabcore._jax import double_precision, jax, jnp
from stabcore._validation import Array
from stabcore.lyapunov import FiniteLaw
from stabcore.networks._losses import PER_SAMPLE
from stabcore.problems.losses import LOSSES

ROUNDING = 1e3 * EPSILON  # of a gradient, a sum of thousands of products, relative


@check.public()
def unit_law(
    apply: Callable[[Any, Any], Any],
    params: Mapping[str, ArrayLike],
    unit: Mapping[str, Any],
    x: ArrayLike,
    y: ArrayLike,
    step_size: float,
    *,
    loss: str = "half_square",
) -> FiniteLaw:
    r"""Return the factors I − ηH_i of a dead unit, one per sample, where SGD moves it.

    H_i is the second derivative of the loss of sample i in the weights of the unit, at zero, by
    automatic differentiation: of a neuron, of a channel of a convolution, or of any other part
    that gets no gradient where its weights are zero. The factors are restricted to the space on
    which some H_i acts; elsewhere nothing moves. `lyapunov_exponent` of the result says whether
    the unit is repelled (positive) or attracted, as long as the rest of the network stands still.

    Source: our derivation.

    Parameters
    ----------
    apply : callable
        ``apply(params, x)``, written with JAX.
    params : dict of arrays
        Of the network; the weights of the unit count as zero, whatever they are.
    unit : dict
        Where the weights of the unit are: the name of an array and an index into it, such as
        ``{"0_weight": 3, "1_weight": np.s_[:, 3]}`` for the fourth hidden neuron of `mlp`.
    x, y : arrays, shapes (N, ...), (N,) or (N, C)
    step_size : float
        η > 0.
    loss : str
        As in `Minimum.from_jacobian`.

    Returns
    -------
    FiniteLaw
        N factors with equal probabilities.

    Raises
    ------
    ValueError
        If an array or an index does not exist; if some sample moves the unit where its weights
        are zero (it has a bias, say), so that it is not dead.

    Examples
    --------
    F = a w x at a = w = 0 with one sample x = 1, y = 2: the factor [[1, 2η], [2η, 1]].

    >>> from stabcore import lyapunov_exponent
    >>> apply = lambda p, x: p["a"][0] * p["w"][0] * x
    >>> law = unit_law(apply, {"a": [0.0], "w": [0.0]}, {"a": 0, "w": 0}, [1.0], [2.0], 0.25)
    >>> float(np.exp(lyapunov_exponent(law).value).round(12))
    1.5
    """
    eta = check.step_size(step_size)
    check.choice("loss", loss, LOSSES)
    targets, inputs = check.finite_array("y", np.asarray(y)), np.asarray(x)
    if len(inputs) != len(targets):
        raise ValueError(f"x has {len(inputs)} samples but y has {len(targets)}; pass one each.")
    arrays = {name: np.array(array, float) for name, array in params.items()}
    shapes = {name: _shape(arrays, name, place) for name, place in unit.items()}
    with double_precision():
        network = _Unit(apply, loss, arrays, dict(unit), shapes)
        data = jnp.asarray(inputs, jnp.float64 if inputs.dtype.kind == "f" else None)
        slopes, curvatures = (
            np.asarray(part) for part in network.derivatives(data, jnp.asarray(targets))
        )
    size = np.abs(curvatures).max()
    if np.abs(slopes).max() > ROUNDING * max(1.0, size):
        raise ValueError(
            f"unit is not dead where its weights are zero: a sample moves it by "
            f"{np.abs(slopes).max():.2g} per unit of step size; name all of its incoming and "
            "outgoing weights, and no bias of a layer after it."
        )
    _, sizes, rows = np.linalg.svd(curvatures.reshape(-1, curvatures.shape[-1]))
    span = rows[: max(1, int((sizes > ROUNDING * sizes[0]).sum()))]
    return FiniteLaw(np.eye(len(span)) - eta * span @ curvatures @ span.T)


class _Unit:
    """The loss of one sample as a function of the weights of the unit alone."""

    def __init__(
        self,
        apply: Callable[[Any, Any], Any],
        loss: str,
        arrays: dict[str, Array],
        places: dict[str, Any],
        shapes: dict[str, tuple[int, ...]],
    ) -> None:
        self.apply, self.loss, self.places, self.shapes = apply, loss, places, shapes
        self.arrays = {name: jnp.asarray(array) for name, array in arrays.items()}

    def value(self, weights: Any, x: Any, y: Any) -> Any:
        """Return the loss of a sample."""
        full, done = dict(self.arrays), 0
        for name, place in self.places.items():
            count = int(np.prod(self.shapes[name], dtype=int))
            part = weights[done : done + count].reshape(self.shapes[name])
            full[name], done = full[name].at[place].set(part), done + count
        return PER_SAMPLE[self.loss](self.apply(full, x[None]), y[None])[0]

    def derivatives(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Return the first and second derivatives of every sample's loss where the unit is 0."""
        zero = jnp.zeros(sum(int(np.prod(shape, dtype=int)) for shape in self.shapes.values()))
        each = (jax.vmap(of(self.value), (None, 0, 0)) for of in (jax.grad, jax.hessian))
        first, second = (partial(jax.jit(f), zero)(x, y) for f in each)
        return first, second


def _shape(arrays: dict[str, Array], name: str, place: Any) -> tuple[int, ...]:
    """Return the shape of a part of an array."""
    if name not in arrays:
        raise ValueError(
            f"unit names the array {name!r}, but params has {', '.join(sorted(arrays))}."
        )
    try:
        return np.shape(arrays[name][place])
    except IndexError:
        raise ValueError(
            f"unit has the index {place} for {name!r}, whose shape is {arrays[name].shape}; pass "
            "one inside it."
        ) from None
