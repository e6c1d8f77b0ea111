"""How simulations draw their batches: on their own, never from the listing of a prediction."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stabcore._random import alias_table
from stabcore._validation import Array
from stabcore.sampling import Batches

Indices = NDArray[np.intp]


class Drawer:
    """The batches of many runs, one step at a time; every run has epochs of its own."""

    def __init__(self, batches: Batches, runs: int, rng: np.random.Generator) -> None:
        self.batches, self.runs, self.rng = batches, runs, rng
        self.cumulative = np.cumsum(batches.probabilities)
        self.order = np.empty((runs, 0), np.intp)  # what is left of the epoch

    def next(self) -> Indices:
        """Return one batch for each run, shape (runs, batch_size)."""
        size, count = self.batches.batch_size, self.batches.n_samples
        if self.batches.reshuffle:
            if self.order.shape[1] == 0:
                samples = np.tile(np.arange(count), (self.runs, 1))
                self.order = self.rng.permuted(samples, axis=1)
            batch, self.order = self.order[:, :size], self.order[:, size:]
            return batch
        if self.batches.independent:
            drawn = self.rng.random((self.runs, size)) * self.cumulative[-1]
            return np.asarray(np.searchsorted(self.cumulative, drawn, "right"), dtype=np.intp)
        keys = self.rng.random((self.runs, count))
        return np.argpartition(keys, size - 1, axis=1)[:, :size]


def compiled_drawing(batches: Batches) -> tuple[int, int, int, Array, NDArray[np.int64]]:
    """Return what a compiled loop needs to draw batches.

    Returns
    -------
    batch_size, subsets, advance : int
        Where `subsets` is 0 the indices are drawn one by one from the alias table. Otherwise it is
        the number of samples of which a batch is a random subset, by `next_subset`, and `advance`
        how many of them are used up by it: all of a batch in an epoch, otherwise none.
    threshold, alias : arrays
        The alias table.
    """
    subset = not batches.independent or batches.reshuffle
    return (
        batches.batch_size,
        batches.n_samples if subset else 0,
        batches.batch_size if batches.reshuffle else 0,
        *alias_table(batches.probabilities),
    )
