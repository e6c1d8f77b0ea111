"""Parameters of any structure as one vector in double precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jax.flatten_util import ravel_pytree

from stabcore import _validation as check
from stabcore._jax import is_floating, jax, jnp
from stabcore._validation import Array


def flat(params: Any) -> tuple[Array, Callable[[Any], Any]]:
    """Return the floating-point leaves as one vector in double precision, and the way back."""
    leaves, structure = jax.tree.flatten(params)
    moving = [is_floating(leaf) for leaf in leaves]
    if not any(moving):
        raise ValueError("params holds no floating-point array; pass the network's parameters.")
    doubles = [
        jnp.asarray(np.asarray(leaf), jnp.float64)
        for leaf, moves in zip(leaves, moving, strict=True)
        if moves
    ]
    vector, back = ravel_pytree(doubles)

    def unravel(theta: Any) -> Any:
        moved = iter(back(jnp.asarray(theta)))
        parts = [next(moved) if moves else leaf for leaf, moves in zip(leaves, moving, strict=True)]
        return jax.tree.unflatten(structure, parts)

    return check.finite_array("params", np.asarray(vector)), unravel
