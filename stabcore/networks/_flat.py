"""Parameters of any structure as one vector in double precision, and back.

What is compiled for a network is compiled once: the structure of its parameters is hashable, and
counts as a static argument, as the function itself does.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from stabcore import _validation as check
from stabcore._jax import is_floating, jax, jnp
from stabcore._validation import Array


@dataclass(frozen=True)
class Moving:
    """A leaf of floating-point numbers, part of the vector."""

    shape: tuple[int, ...]


@dataclass(frozen=True)
class Static:
    """A leaf that stays as it is and can be hashed, such as a Python number."""

    value: Hashable


@dataclass(frozen=True)
class Structure:
    """How a pytree is put together from a vector, and from arrays that do not move."""

    tree: Any
    leaves: tuple[Moving | Static | None, ...]  # None: an array that does not move

    def rebuild(self, theta: Any, fixed: tuple[Any, ...]) -> Any:
        """Return the pytree for a vector of parameters."""
        rest: Iterator[Any] = iter(fixed)
        parts, done = [], 0
        for leaf in self.leaves:
            if isinstance(leaf, Moving):
                size = math.prod(leaf.shape)
                parts.append(theta[done : done + size].reshape(leaf.shape))
                done += size
            else:
                parts.append(leaf.value if isinstance(leaf, Static) else next(rest))
        return jax.tree.unflatten(self.tree, parts)


def flat(params: Any) -> tuple[Array, Structure, tuple[Any, ...]]:
    """Return the floating-point leaves as one vector, the structure, and the arrays that stay."""
    leaves, tree = jax.tree.flatten(params)
    moving = [np.asarray(leaf) for leaf in leaves if is_floating(leaf)]
    if not moving:
        raise ValueError("params holds no floating-point array; pass the network's parameters.")
    vector = np.concatenate([leaf.astype(np.float64).ravel() for leaf in moving])
    kinds: list[Moving | Static | None] = []
    fixed = []
    for leaf in leaves:
        if is_floating(leaf):
            kinds.append(Moving(np.shape(leaf)))
        elif isinstance(leaf, bool | int | str):
            kinds.append(Static(leaf))
        else:
            kinds.append(None)
            fixed.append(jnp.asarray(leaf))
    structure = Structure(tree, tuple(kinds))
    return check.finite_array("params", vector), structure, tuple(fixed)
