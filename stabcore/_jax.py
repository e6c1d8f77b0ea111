"""JAX, or how to get it; double precision where it is needed, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

try:
    import jax
    import jax.numpy as jnp
except ImportError as error:
    raise ImportError(
        "networks need JAX, which is not installed; "
        "install it with: pip install 'stabcore[networks]'"
    ) from error

__all__ = ["double_precision", "jax", "jnp"]


@contextmanager
def double_precision() -> Iterator[None]:
    """Compute in double precision inside the block; the switch of the process stays as it was."""
    with jax.enable_x64(True):
        yield


def is_floating(leaf: Any) -> bool:
    """Return whether a leaf of a pytree is an array of floating-point numbers."""
    return jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
