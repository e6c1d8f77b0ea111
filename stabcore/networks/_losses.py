"""The loss of each sample, as frameworks write it, and what is 0 when it is smallest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stabcore._jax import jax

Loss = Callable[[Any, Any], Any]


def _squares(factor: Callable[[int], float]) -> Loss:
    def per_sample(f: Any, y: Any) -> Any:
        errors = (f - y).reshape(len(y), -1)
        return factor(errors.shape[1]) * (errors**2).sum(axis=1)

    return per_sample


def _cross_entropy(f: Any, y: Any) -> Any:
    return -(y * jax.nn.log_softmax(f, axis=-1)).sum(axis=1)


def _difference(f: Any, y: Any) -> Any:
    return f - y


# Of outputs and targets, shape (N, ...) -> (N,).
PER_SAMPLE: dict[str, Loss] = {
    "half_square": _squares(lambda outputs: 0.5),
    "mean_square": _squares(lambda outputs: 1 / outputs),
    "sum_square": _squares(lambda outputs: 1.0),
    "cross_entropy": _cross_entropy,
}

RESIDUAL: dict[str, Loss] = {
    "half_square": _difference,
    "mean_square": _difference,
    "sum_square": _difference,
    "cross_entropy": lambda f, y: jax.nn.softmax(f, axis=-1) - y,
}
