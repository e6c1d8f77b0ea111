"""Random numbers inside compiled loops: one independent stream per replica.

NumPy's generators cannot be shared by threads, and numba's own are one per thread, which would
tie results to the number of workers. So each replica carries a xoshiro256++ state (Blackman &
Vigna 2021), seeded by the caller's NumPy generator: same seed, same result, on any number of cores.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise
from threading import Event, Thread

import numpy as np
from numba import njit
from numpy.typing import NDArray

from stabcore._validation import Array

States = NDArray[np.uint64]

INTERRUPTIBLE = 0.2  # seconds between two chances to notice an interrupt, where join gives none


def stream_states(rng: np.random.Generator, count: int) -> States:
    """Return `count` random generator states, shape (count, 4)."""
    return rng.integers(0, 2**64, size=(count, 4), dtype=np.uint64)


@njit(inline="always")
def _rotate(x, k):  # type: ignore[no-untyped-def]
    return (x << np.uint64(k)) | (x >> np.uint64(64 - k))


@njit(inline="always")
def next_word(state):  # type: ignore[no-untyped-def]
    """Advance a xoshiro256++ state and return 64 random bits."""
    result = _rotate(state[0] + state[3], 23) + state[0]
    t = state[1] << np.uint64(17)
    state[2] ^= state[0]
    state[3] ^= state[1]
    state[1] ^= state[2]
    state[0] ^= state[3]
    state[2] ^= t
    state[3] = _rotate(state[3], 45)
    return result


@njit(inline="always")
def next_uniform(state):  # type: ignore[no-untyped-def]
    """Return a uniform number in [0, 1) with 53 random bits."""
    return (next_word(state) >> np.uint64(11)) * 1.1102230246251565e-16


@njit(inline="always")
def next_index(state, threshold, alias):  # type: ignore[no-untyped-def]
    """Return an index drawn from an alias table (Walker 1977, Vose 1991): O(1) for any law."""
    scaled = next_uniform(state) * threshold.size
    column = np.uint64(scaled)  # unsigned, and without a branch to mispredict
    other = np.uint64(alias[column])
    return other if scaled - column >= threshold[column] else column


@njit(inline="always")
def next_subset(state, permutation, size):  # type: ignore[no-untyped-def]
    """Move a uniformly drawn subset to the front of `permutation` (partial Fisher-Yates)."""
    for position in range(size):
        chosen = position + int(next_uniform(state) * (permutation.size - position))
        permutation[position], permutation[chosen] = permutation[chosen], permutation[position]


def alias_table(probabilities: Array) -> tuple[Array, NDArray[np.int64]]:
    """Return the table of Vose's alias method.

    Drawing a column c uniformly and then c with probability threshold[c], alias[c] otherwise,
    gives index i with probability `probabilities[i]`.

    Parameters
    ----------
    probabilities : array, shape (N,)

    Returns
    -------
    threshold, alias : arrays, shape (N,)

    Examples
    --------
    >>> threshold, alias = alias_table(np.array([0.75, 0.25]))
    >>> threshold, alias
    (array([1. , 0.5]), array([0, 0]))
    """
    count = probabilities.size
    threshold = np.ones(count)
    alias = np.arange(count)
    scaled = probabilities * count
    small = [i for i in range(count) if scaled[i] < 1]
    large = [i for i in range(count) if scaled[i] >= 1]
    while small and large:
        poor, rich = small.pop(), large[-1]
        threshold[poor], alias[poor] = scaled[poor], rich
        scaled[rich] -= 1 - scaled[poor]
        if scaled[rich] < 1:
            small.append(large.pop())
    return threshold, alias


def available_cores() -> int:
    """Return the number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_replicas(kernel: Callable[[slice], None], count: int) -> None:
    """Call `kernel` on slices that cover `range(count)`, on all available cores.

    The kernel releases the interpreter lock and writes only the rows of its slice. An interrupt
    (Ctrl-C) is raised at once: compiled code cannot be stopped, so that the threads are left to
    end their slices for nobody, and take no others. They are daemons: a process that ends does not
    wait for them.
    """
    workers = min(count, available_cores())
    bounds = np.linspace(0, count, 4 * workers + 1).astype(int)
    slices = iter([slice(a, b) for a, b in pairwise(bounds) if b > a])
    errors: list[BaseException] = []
    stopped = Event()

    def work() -> None:
        for part in slices:  # shared: each thread takes the next one
            if stopped.is_set():
                return
            try:
                kernel(part)
            except BaseException as error:  # raised again by the caller
                errors.append(error)
                stopped.set()

    threads = [Thread(target=work, daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive():
                thread.join(INTERRUPTIBLE)
    finally:
        stopped.set()
    if errors:
        raise errors[0]
