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
    places = tuple((name, _positions(arrays, name, place)) for name, place in unit.items())
    with double_precision():
        data = jnp.asarray(inputs, jnp.float64 if inputs.dtype.kind == "f" else None)
        answer = _derivatives(apply, loss, places, arrays, data, jnp.asarray(targets))
        curvatures, slopes = (np.asarray(part) for part in answer)
    size = np.abs(curvatures).max()
    if np.abs(slopes).max() > ROUNDING * max(1.0, size):
        raise ValueError(
            f"unit is not dead where its weights are zero: a sample moves it by "
            f"{np.abs(slopes).max():.2g} per unit of step size; name all of its incoming and "
            "outgoing weights, and no bias of a layer after it."
        )
    _, sizes, rows = np.linalg.svd(
        curvatures.reshape(-1, curvatures.shape[-1]), full_matrices=False
    )
    span = rows[: max(1, int((sizes > ROUNDING * sizes[0]).sum()))]
    return FiniteLaw(np.eye(len(span)) - eta * span @ curvatures @ span.T)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _derivatives(
    apply: Callable[[Any, Any], Any],
    loss: str,
    places: tuple[tuple[str, tuple[int, ...]], ...],
    arrays: dict[str, Any],
    x: Any,
    y: Any,
) -> tuple[Any, Any]:
    """Return the second and first derivatives of every sample's loss where the unit is zero."""

    def value(weights: Any, x: Any, y: Any) -> Any:
        full, done = dict(arrays), 0
        for name, at in places:
            part, done = weights[done : done + len(at)], done + len(at)
            flat = full[name].reshape(-1).at[np.array(at)].set(part)
            full[name] = flat.reshape(full[name].shape)
        return PER_SAMPLE[loss](apply(full, x[None]), y[None])[0]

    def twice(weights: Any, x: Any, y: Any) -> tuple[Any, Any]:
        slope = jax.grad(value)(weights, x, y)
        return slope, slope

    zero = jnp.zeros(sum(len(at) for _, at in places))
    found: tuple[Any, Any] = jax.vmap(jax.jacfwd(twice, has_aux=True), (None, 0, 0))(zero, x, y)
    return found


def _positions(arrays: dict[str, Array], name: str, place: Any) -> tuple[int, ...]:
    """Return where a part of an array is in the flattened one."""
    if name not in arrays:
        raise ValueError(
            f"unit names the array {name!r}, but params has {', '.join(sorted(arrays))}."
        )
    try:
        every = np.arange(arrays[name].size).reshape(arrays[name].shape)
        return tuple(np.ravel(every[place]).tolist())
    except IndexError:
        raise ValueError(
            f"unit has the index {place} for {name!r}, whose shape is {arrays[name].shape}; pass "
            "one inside it."
        ) from None
