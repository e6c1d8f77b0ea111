"""The batches of all runs of a training, drawn before they are needed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stabcore.sampling import Batches

BLOCK = 2**22  # indices drawn at a time


class Drawing:
    """Batches of all runs, drawn some steps at a time; epochs go on from piece to piece."""

    def __init__(
        self, batches: Batches, runs: int, rng: np.random.Generator, left: NDArray[np.int64]
    ) -> None:
        self.batches, self.runs, self.rng, self.left = batches, runs, rng, left

    def pieces(self, steps: int, most: int) -> list[int]:
        """Return numbers of steps, at most so many, that are drawn at a time."""
        most = min(most, max(1, BLOCK // (self.runs * self.batches.batch_size)))
        return [min(most, steps - done) for done in range(0, steps, most)]

    def next(self, steps: int) -> NDArray[np.int64]:
        """Return the batches of so many steps, shape (steps, R, B)."""
        size, count = self.batches.batch_size, self.batches.n_samples
        if self.batches.full_batch:
            whole = np.arange(count, dtype=np.int64)
            return np.broadcast_to(whole, (steps, self.runs, count))
        if self.batches.reshuffle:
            length = self.batches.epoch_length
            epochs = -(-(steps - self.left.shape[1]) // length)
            # Epoch by epoch, so that what is drawn does not depend on the pieces.
            orders = np.tile(np.arange(count), (max(epochs, 0), self.runs, 1))
            fresh = np.swapaxes(self.rng.permuted(orders, axis=2), 0, 1)
            self.left = np.concatenate([self.left, fresh.reshape(self.runs, -1, size)], axis=1)
            taken, self.left = self.left[:, :steps], self.left[:, steps:]
            return np.swapaxes(taken, 0, 1)
        if self.batches.independent:
            return self.rng.choice(
                count, size=(steps, self.runs, size), p=self.batches.probabilities
            )
        keys = self.rng.random((steps, self.runs, count))
        return np.argpartition(keys, size - 1, axis=-1)[..., :size]
