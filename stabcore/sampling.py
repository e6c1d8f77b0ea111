"""SGD, the method: how one trains, all but the step size; and the law of its batches.

The same `SGD` goes to every prediction and to every simulation. On a data set it becomes
`Batches`: which samples a batch can have, and how probable each batch is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, combinations, combinations_with_replacement, islice
from math import comb, factorial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stabcore import _validation as check
from stabcore._random import alias_table
from stabcore._validation import Array

__all__ = ["SGD", "GD", "Batches"]  # noqa: RUF022

MOST_LISTED = 200_000  # batches (or epochs) that are listed one by one
BLOCK = 2**14  # batches listed at a time
LONGEST_INTEGER_FACTORIAL = 20  # 20! is the last one below 2⁶³


@dataclass(frozen=True, kw_only=True)
class SGD:
    r"""How one trains: everything but the step size; names as in PyTorch.

    One step draws a batch S of B samples, g = (1/B) Σ_{i∈S} w_i ∇l_i(θ) + γθ, and then

        v ← βv + g,    θ ← θ − ηv        (with `nesterov`: θ ← θ − η(g + βv)).

    Without momentum (β = 0) this is θ ← θ − ηg. The mean of g over the batches is that of
    L = Σ p_i l_i, p the probabilities of the data: samples that are drawn with other probabilities
    q (importance sampling) get the weights w_i = p_i/q_i, all others w_i = 1.

    Source: Mulayoff & Michaeli 2024 for batches without replacement; Needell, Srebro & Ward 2014
    for importance sampling.

    Parameters
    ----------
    batch_size : int or None
        B; None for the whole data set, which is gradient descent.
    momentum : float
        β in [0, 1).
    nesterov : bool
        Whether momentum is Nesterov's.
    weight_decay : float
        γ ≥ 0, of the term (γ/2)|θ|² that is added to the loss of every batch.
    replacement : bool, optional
        Whether a batch may repeat a sample. By default not, unless the samples are drawn with
        different probabilities.
    reshuffle : bool
        Whether the batches of an epoch of N/B steps partition the data, as data loaders do with
        ``shuffle=True``. Otherwise the batches of different steps are independent.
    probabilities : sequence of float, optional
        q, for importance sampling. By default the samples are drawn with the probabilities of the
        data.

    Raises
    ------
    ValueError
        Also if the arguments contradict each other, such as `reshuffle` and `replacement`.

    Examples
    --------
    >>> SGD(batch_size=32, momentum=0.9)
    SGD(batch_size=32, momentum=0.9)
    >>> batches, probabilities = SGD(batch_size=2).batches(3).listed()
    >>> batches.tolist(), probabilities.round(12).tolist()
    ([[0, 1], [0, 2], [1, 2]], [0.333333333333, 0.333333333333, 0.333333333333])
    """

    batch_size: int | None = 1
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    replacement: bool | None = None
    reshuffle: bool = False
    probabilities: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Validate what can be judged without the data."""
        keep = object.__setattr__  # the object is frozen from here on
        if self.batch_size is not None:
            keep(self, "batch_size", check.integer("batch_size", self.batch_size))
        keep(self, "momentum", check.non_negative("momentum", self.momentum))
        if self.momentum >= 1:
            raise ValueError(
                f"momentum must be below 1, got {self.momentum:g}: the velocity would never forget "
                "a gradient; 0.9 is common."
            )
        if check.boolean("nesterov", self.nesterov) and self.momentum == 0:
            raise ValueError("nesterov=True needs a momentum above 0; pass momentum=0.9, say.")
        keep(self, "weight_decay", check.non_negative("weight_decay", self.weight_decay))
        if self.replacement is not None:
            check.boolean("replacement", self.replacement)
        check.boolean("reshuffle", self.reshuffle)
        if self.probabilities is not None:
            weights = check.finite_array("probabilities", self.probabilities, ndim=1)
            weights = check.probabilities(weights, weights.size)
            keep(self, "probabilities", tuple(weights.tolist()))
        self._require_consistency()

    def _require_consistency(self) -> None:
        """Refuse arguments that contradict each other."""
        if self.batch_size is None and (
            self.replacement or self.reshuffle or self.probabilities is not None
        ):
            raise ValueError(
                "batch_size=None takes the whole data set at every step: nothing is drawn; leave "
                "replacement, reshuffle and probabilities out."
            )
        if self.reshuffle and (self.replacement or self.probabilities is not None):
            raise ValueError(
                "reshuffle=True uses every sample once per epoch; leave replacement and "
                "probabilities out."
            )

    def batches(self, n_samples: int, probabilities: Array | None = None) -> Batches:
        """Return the law of the batches on a data set.

        Parameters
        ----------
        n_samples : int
            N.
        probabilities : array, shape (N,), optional
            p, the probabilities of the data in L = Σ p_i l_i; uniform by default.

        Returns
        -------
        Batches
        """
        return Batches(self, n_samples, probabilities)

    def __repr__(self) -> str:
        """Return what differs from the defaults."""
        default = {name: field.default for name, field in self.__dataclass_fields__.items()}
        parts = []
        for name, usual in default.items():
            value = getattr(self, name)
            if value != usual:
                long = name == "probabilities" and len(value) > 6
                text = f"<{len(value)} numbers>" if long else f"{value!r}"
                parts.append(f"{name}={text}")
        return f"SGD({', '.join(parts)})"


SGD.__init__ = check.public()(SGD.__init__)  # type: ignore[method-assign]
GD = SGD(batch_size=None)


def as_method(value: Any) -> SGD:
    """Return `value` if it is an `SGD`, and say what to write if it is not."""
    if isinstance(value, SGD):
        return value
    number = isinstance(value, int | np.integer) and not isinstance(value, bool)
    remedy = f"SGD(batch_size={value})" if number else "SGD(batch_size=32), say"
    raise TypeError(f"method must be an SGD, got {check.short(value)}; pass {remedy}.")


def covered_method(value: Any, name: str, *allowed: str) -> SGD:
    """Return an `SGD`, and refuse the parts of it that the function of this name does not cover."""
    method = as_method(value)
    for field in ("momentum", "weight_decay"):
        if getattr(method, field) and field not in allowed:
            raise NotImplementedError(
                f"{name}() does not cover {field} yet, and got a method with {field}="
                f"{getattr(method, field):g}; use a method without it."
            )
    return method


class Batches:
    r"""The law of one batch of a method on N samples.

    Without replacement every subset of size B is equally likely; with replacement the B indices
    are independent with law q. Batches of different steps are independent, unless the method
    reshuffles: then every epoch of N/B steps cuts a new random permutation of the data into
    batches. Epochs are independent of each other, and one batch by itself has the same law as a
    batch without replacement.

    Made by `SGD.batches`.

    Attributes
    ----------
    n_samples, batch_size : int
        N and B.
    probabilities : array, shape (N,)
        q, with which one index is drawn.
    scales : array, shape (N,)
        w, the weights of the gradients; ones unless there is importance sampling.
    replacement, reshuffle : bool

    Raises
    ------
    ValueError
        If the method does not fit the data: a batch larger than the data set, an importance
        sampling that never draws a sample of the loss, a batch size that does not divide the data
        set into epochs, or unequal probabilities without replacement.

    Examples
    --------
    >>> batches = SGD(batch_size=2, replacement=True).batches(2)
    >>> [part.tolist() for part in batches.listed()]
    [[[0, 0], [0, 1], [1, 1]], [0.25, 0.5, 0.25]]
    """

    def __init__(self, method: SGD, n_samples: int, probabilities: Array | None = None) -> None:
        self.n_samples = check.integer("n_samples", n_samples)
        data = check.probabilities(probabilities, self.n_samples)
        self.reshuffle = method.reshuffle
        if method.batch_size is None:
            drawn = np.full(self.n_samples, 1 / self.n_samples)
            self.batch_size = self.n_samples
        else:
            drawn = _drawing_probabilities(method, data)
            self.batch_size = method.batch_size
        self.scales = _scales(data, drawn)
        self.probabilities = drawn
        for array in (self.scales, self.probabilities):
            array.setflags(write=False)
        uniform = _is_uniform(drawn)
        self.replacement = not uniform if method.replacement is None else method.replacement
        self._require_a_fit(uniform)

    def _require_a_fit(self, uniform: bool) -> None:
        """Refuse a method that does not fit the data."""
        if self.batch_size > self.n_samples and not self.replacement:
            raise ValueError(
                f"batch_size is {self.batch_size} but there are only {self.n_samples} samples; "
                f"choose a batch_size of at most {self.n_samples}, or draw with replacement=True."
            )
        if not (uniform or self.independent):
            raise ValueError(
                "replacement=False needs uniform probabilities when batch_size is larger than 1 "
                f"(got batch_size {self.batch_size}): drawing in turn without replacement does not "
                "follow the gradient of the weighted loss on average; use replacement=True."
            )
        if not self.reshuffle:
            return
        if not uniform:
            raise ValueError(
                "reshuffle=True uses every sample once per epoch, but the data have unequal "
                "probabilities; use reshuffle=False."
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

    @property
    def epoch_count(self) -> int:
        """Number of different epochs: N!/(B!)^(N/B) when reshuffled, otherwise `count`."""
        if not self.reshuffle:
            return self.count
        each = factorial(self.batch_size)
        return int(factorial(self.n_samples) // each**self.epoch_length)

    def listed(self, limit: int = MOST_LISTED) -> tuple[NDArray[np.intp], Array]:
        """Return every batch (indices ascending) and its probability.

        Parameters
        ----------
        limit : int
            Largest number of batches.

        Returns
        -------
        batches : array of int, shape (count, batch_size)
        probabilities : array, shape (count,)

        Raises
        ------
        ValueError
            If there are more than `limit` batches.
        """
        if self.count > limit:
            raise ValueError(
                f"batch_size {self.batch_size} of {self.n_samples} samples makes {self.count:,} "
                f"different batches, above the limit {limit:,}; use a smaller batch_size, fewer "
                "samples, or a method that does not list them."
            )
        batches, probabilities = zip(*self._blocks(), strict=True)
        return np.concatenate(batches), np.concatenate(probabilities)

    def _blocks(self) -> Iterator[tuple[NDArray[np.intp], Array]]:
        """Yield `listed` piece by piece."""
        listing = combinations_with_replacement if self.independent else combinations
        tuples = listing(range(self.n_samples), self.batch_size)
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
        """Yield every epoch with its probability.

        With the product of an epoch's factors as one factor, reshuffled batches are independent
        steps again. If the batches are independent anyway, an epoch is a single batch.

        Yields
        ------
        epoch : tuple of batches
            In the order of their steps; indices ascending in each batch.
        probability : float

        Examples
        --------
        >>> for epoch, probability in SGD(reshuffle=True).batches(2).epochs():
        ...     print(epoch, probability)
        ((0,), (1,)) 0.5
        ((1,), (0,)) 0.5
        """
        if not self.reshuffle:
            for batch, probability in zip(*self.listed(), strict=True):
                yield (tuple(batch.tolist()),), float(probability)
            return
        count = self.epoch_count
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


def _is_uniform(probabilities: Array) -> bool:
    return float(np.ptp(probabilities)) <= check.PROBABILITY_TOLERANCE / probabilities.size


def _drawing_probabilities(method: SGD, data: Array) -> Array:
    """Return q, refusing an importance sampling that cannot follow the loss."""
    if method.probabilities is None:
        return data.copy()
    drawn = np.array(method.probabilities)
    if drawn.size != data.size:
        raise ValueError(
            f"probabilities has length {drawn.size} but there are {data.size} samples; "
            "pass one probability per sample."
        )
    never = np.flatnonzero((drawn == 0) & (data > 0))
    if never.size:
        raise ValueError(
            f"probabilities never draws sample {never[0]}, which has probability "
            f"{data[never[0]]:g} in the loss: no weight can make up for that; give it a positive "
            "probability, or the data set other probabilities."
        )
    return drawn


def _scales(data: Array, drawn: Array) -> Array:
    """Return w = p/q; exactly 1 where p and q agree up to rounding."""
    scales = np.divide(data, drawn, out=np.ones_like(data), where=drawn > 0)
    near = np.abs(scales - 1) <= check.PROBABILITY_TOLERANCE
    return np.where(near, 1.0, scales)


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
