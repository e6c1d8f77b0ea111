"""How SGD picks a batch: which samples, with which probability, with or without replacement."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import chain, combinations, combinations_with_replacement, islice
from math import comb, factorial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stabcore import _validation as check
from stabcore._random import alias_table
from stabcore._validation import Array

BLOCK = 2**14  # batches listed at a time
LONGEST_INTEGER_FACTORIAL = 20  # 20! is the last one below 2⁶³


class Sampling:
    r"""The law of one batch of `batch_size` indices out of `n_samples`.

    Without replacement every subset of size B is equally likely, which is only meaningful for
    uniform probabilities; with replacement the B indices are independent with law p. The mean
    gradient is that of L = Σ p_i l_i in both cases.

    Batches of different steps are independent, unless `reshuffle` is set: then every epoch of N/B
    steps cuts a new random permutation of the data into batches. Epochs are independent of each
    other; one batch by itself has the same law as a batch without replacement (`batches`).

    Source: Mulayoff & Michaeli 2024 for batches without replacement.

    Parameters
    ----------
    n_samples : int
    batch_size : int
        B; at most `n_samples` without replacement.
    probabilities : array, shape (n_samples,), optional
        Uniform by default.
    replacement : bool, optional
        By default False for uniform probabilities and True otherwise.
    reshuffle : bool
        Whether the batches of an epoch partition the data (random reshuffling).

    Raises
    ------
    ValueError
        If an argument is invalid, or non-uniform probabilities are asked for without replacement
        in a batch larger than one, or `reshuffle` with replacement, with non-uniform
        probabilities or with a batch size that does not divide the number of samples.

    Examples
    --------
    >>> for batch, probability in Sampling(3, batch_size=2).batches():
    ...     print(batch, round(probability, 12))
    (0, 1) 0.333333333333
    (0, 2) 0.333333333333
    (1, 2) 0.333333333333
    """

    def __init__(
        self,
        n_samples: int,
        batch_size: int = 1,
        probabilities: ArrayLike | None = None,
        replacement: bool | None = None,
        reshuffle: bool = False,
    ) -> None:
        self.n_samples = check.integer("n_samples", n_samples)
        self.probabilities = check.probabilities(probabilities, self.n_samples)
        self.probabilities.setflags(write=False)
        spread = float(np.ptp(self.probabilities))
        uniform = spread <= check.PROBABILITY_TOLERANCE / self.n_samples
        self.replacement = (
            not uniform if replacement is None else check.boolean("replacement", replacement)
        )
        self.batch_size = check.batch_size(batch_size, self.n_samples, replacement=self.replacement)
        if not (uniform or self.independent):
            raise ValueError(
                "replacement=False needs uniform probabilities when batch_size is larger than 1 "
                f"(got batch_size {batch_size}): drawing in turn without replacement does not "
                "follow the gradient of the weighted loss on average; use replacement=True."
            )
        self.reshuffle = check.boolean("reshuffle", reshuffle)
        if self.reshuffle:
            self._require_a_partition(uniform)

    def _require_a_partition(self, uniform: bool) -> None:
        """Refuse what cannot be cut into epochs."""
        if self.replacement or not uniform:
            raise ValueError(
                "reshuffle=True uses every sample once per epoch; it needs replacement=False and "
                "uniform probabilities."
            )
        if self.n_samples % self.batch_size:
            divisors = [b for b in range(1, self.n_samples + 1) if self.n_samples % b == 0]
            closest = min(divisors, key=lambda b: abs(b - self.batch_size))
            raise ValueError(
                f"reshuffle=True needs a batch_size that divides the {self.n_samples} samples, "
                f"got {self.batch_size}; use {closest}, or leave samples out."
            )

    @property
    def epoch_length(self) -> int:
        """Steps after which the batches start afresh: N/B when reshuffled, otherwise 1."""
        return self.n_samples // self.batch_size if self.reshuffle else 1

    @property
    def independent(self) -> bool:
        """Whether the indices inside a batch are independent (B = 1, or with replacement)."""
        return self.replacement or self.batch_size == 1

    @property
    def full_batch(self) -> bool:
        """Whether every batch is the whole data set, so that SGD is GD."""
        return self.n_samples == 1 or (self.batch_size == self.n_samples and not self.independent)

    @property
    def count(self) -> int:
        """Number of different batches (as multisets)."""
        if self.independent:
            return comb(self.n_samples + self.batch_size - 1, self.batch_size)
        return comb(self.n_samples, self.batch_size)

    def batches(self) -> Iterator[tuple[tuple[int, ...], float]]:
        """Iterate over every batch (indices ascending) with its probability; see `all_batches`."""
        blocks = (probabilities.tolist() for _, probabilities in self._blocks())
        return zip(self._tuples(), chain.from_iterable(blocks), strict=True)

    def all_batches(self) -> tuple[NDArray[np.intp], Array]:
        """Return every batch (indices ascending) and its probability, as arrays.

        Returns
        -------
        batches : array of int, shape (count, batch_size)
        probabilities : array, shape (count,)

        Examples
        --------
        >>> batches, probabilities = Sampling(2, 2, replacement=True).all_batches()
        >>> batches.tolist(), probabilities.tolist()
        ([[0, 0], [0, 1], [1, 1]], [0.25, 0.5, 0.25])
        """
        batches, probabilities = zip(*self._blocks(), strict=True)
        return np.concatenate(batches), np.concatenate(probabilities)

    def _tuples(self) -> Iterator[tuple[int, ...]]:
        """Return the batches without their probabilities."""
        listing = combinations_with_replacement if self.independent else combinations
        return listing(range(self.n_samples), self.batch_size)

    def _blocks(self) -> Iterator[tuple[NDArray[np.intp], Array]]:
        """Yield `all_batches` piece by piece."""
        tuples = self._tuples()
        while True:
            flat = np.fromiter(chain.from_iterable(islice(tuples, BLOCK)), np.intp)
            if flat.size == 0:
                return
            batches = flat.reshape(-1, self.batch_size)
            if self.independent:
                products = self.probabilities[batches].prod(axis=1)
                yield batches, np.asarray(_arrangements(batches) * products, dtype=float)
            else:
                yield batches, np.full(len(batches), 1 / self.count)

    def epochs(self) -> Iterator[tuple[tuple[tuple[int, ...], ...], float]]:
        """Yield every epoch with its probability: N!/(B!)^(N/B) of them when reshuffled.

        With the product of an epoch's factors as one factor, reshuffled batches are independent
        steps again. If the batches are independent anyway, an epoch is a single batch.

        Yields
        ------
        epoch : tuple of batches
            In the order of their steps; indices ascending in each batch.
        probability : float

        Examples
        --------
        >>> for epoch, probability in Sampling(2, reshuffle=True).epochs():
        ...     print(epoch, probability)
        ((0,), (1,)) 0.5
        ((1,), (0,)) 0.5
        """
        if not self.reshuffle:
            for batch, probability in self.batches():
                yield (batch,), probability
            return
        count = factorial(self.n_samples) // factorial(self.batch_size) ** self.epoch_length
        for epoch in _partitions(tuple(range(self.n_samples)), self.batch_size):
            yield epoch, 1 / count

    def draw(self, size: int, rng: int | np.random.Generator | None = None) -> NDArray[np.intp]:
        """Return `size` consecutive batches, shape (size, batch_size).

        They are independent, unless reshuffled: then they are epochs, the last one cut short.

        Parameters
        ----------
        size : int
        rng : int, numpy.random.Generator or None

        Returns
        -------
        array of int, shape (size, batch_size)
        """
        generator = check.generator(rng)
        shape = (check.integer("size", size), self.batch_size)
        if self.reshuffle:
            epochs = -(-size // self.epoch_length)
            orders = np.tile(np.arange(self.n_samples), (epochs, 1))
            return generator.permuted(orders, axis=1).reshape(-1, self.batch_size)[:size]
        if self.independent:
            cumulative = np.cumsum(self.probabilities)
            drawn = np.searchsorted(cumulative, generator.random(shape) * cumulative[-1], "right")
            return np.asarray(drawn, dtype=np.intp)
        keys = generator.random((size, self.n_samples))
        return np.argpartition(keys, self.batch_size - 1, axis=1)[:, : self.batch_size]

    @cached_property
    def alias(self) -> tuple[Array, NDArray[np.int64]]:
        """The alias table of `probabilities`, for the compiled samplers."""
        return alias_table(self.probabilities)


def _arrangements(batches: NDArray[np.intp]) -> NDArray[Any]:
    """Return in how many orders each ascending batch can be drawn: B!/Π(multiplicities!)."""
    size = batches.shape[1]
    kind = np.int64 if size <= LONGEST_INTEGER_FACTORIAL else object
    # Of the first k indices there are k!/Π(multiplicities!) orders, an integer for every k.
    orders = repeats = np.ones(len(batches), dtype=kind)
    for k in range(1, size):
        repeats = np.where(batches[:, k] == batches[:, k - 1], repeats + 1, 1)
        orders = orders * (k + 1) // repeats
    return np.asarray(orders)


def _partitions(samples: tuple[int, ...], size: int) -> Iterator[tuple[tuple[int, ...], ...]]:
    """Yield every way to cut `samples` into batches of `size`, in every order of the batches."""
    if not samples:
        yield ()
        return
    for batch in combinations(samples, size):
        rest = tuple(index for index in samples if index not in batch)
        for others in _partitions(rest, size):
            yield batch, *others
