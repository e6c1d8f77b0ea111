"""What the simulators share: arguments that broadcast, runs side by side, recorded times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stabcore import _validation as check
from stabcore._random import run_replicas
from stabcore._validation import Array


class Broadcast:
    """Named arguments that broadcast to one shape: one run per element.

    Raises a ValueError that names all arguments and shapes if they do not fit together.
    """

    def __init__(self, **shapes: tuple[int, ...]) -> None:
        try:
            self.shape = np.broadcast_shapes(*shapes.values())
        except ValueError as error:
            names = ", ".join(f"{name} of shape {shape}" for name, shape in shapes.items())
            raise ValueError(
                f"{names} do not broadcast; give one of them an axis of length 1."
            ) from error
        self.size = int(np.prod(self.shape))

    def flat(self, part: ArrayLike) -> NDArray[Any]:
        """Return an argument with one entry per run, a copy that may be changed."""
        return np.array(np.broadcast_to(part, self.shape)).reshape(-1)

    def rows(self, part: Array, axes: int) -> Array:
        """Return an argument whose last `axes` axes belong to each run."""
        own = part.shape[part.ndim - axes :]
        return np.array(np.broadcast_to(part, (*self.shape, *own))).reshape(-1, *own)

    def shaped(self, part: NDArray[Any]) -> NDArray[Any]:
        """Return a result with one entry per run in the shape of the arguments."""
        return part.reshape((*self.shape, *part.shape[1:]))

    def run(self, kernel: Callable[..., None], shared: tuple[Any, ...], *own: NDArray[Any]) -> None:
        """Call `kernel(*shared, *own)` with the runs spread over all cores."""
        run_replicas(lambda part: kernel(*shared, *(array[part] for array in own)), self.size)


def positive_rates(step_size: ArrayLike) -> Array:
    """Return step sizes, one or many, all positive."""
    rates = check.finite_array("step_size", step_size)
    if (rates <= 0).any():
        raise ValueError(f"step_size must be positive, got a smallest of {rates.min():g}.")
    return rates


def recorded_times(steps: int, record_every: int | None) -> NDArray[np.int64]:
    """Return the steps 0, k, 2k, ... and the last; only the first and the last by default."""
    limit = check.integer("steps", steps)
    stride = limit if record_every is None else check.integer("record_every", record_every)
    return np.unique(np.append(np.arange(0, limit + 1, stride), limit))
