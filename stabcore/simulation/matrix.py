r"""Matrix factorisation from noisy observations, in coordinates in which singular directions die.

SGD sees at every step a batch of observations Y of a matrix Σ_k s_k p_k q_kᵀ and fits U Vᵀ to it by
steps on ½‖UVᵀ − Y‖² (Frobenius norm). The noise is in the singular values, independent signs,

    Y = Σ_k z_k p_k q_kᵀ,    z_k = s_k + σ ζ_k,    ζ_k = the mean of B signs ±1.

With the r-vectors a_k = Uᵀp_k + Vᵀq_k and b_k = Uᵀp_k − Vᵀq_k, rows of the matrices a and b,

    a_k' = (1 + ηz_k) a_k − (η/4)(a_k G − b_k K),    G = aᵀa + bᵀb,
    b_k' = (1 − ηz_k) b_k − (η/4)(b_k G − a_k K),    K = aᵀb + bᵀa.

At the saddle, U = V = 0, every direction k is multiplied by numbers of its own: its exponents are
E log|1 ± ηz_k|. If both are negative it dies, and one rank is lost. A row is only ever multiplied,
so its death is followed down to 10⁻¹⁰⁰. (Our derivation.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from stabcore import _validation as check
from stabcore._random import next_word, stream_states
from stabcore._validation import Array
from stabcore.sampling import SGD, covered_method
from stabcore.simulation._runs import Broadcast, positive_rates

FLOOR = 1e-100  # its cube is still a float

CEILING = 1e6

LIVING = 1e-12

LARGEST_BATCH = 64  # the signs of a batch are the bits of one random word


@dataclass(frozen=True, kw_only=True)
class NoisyMatrixRuns:
    """The ends of many runs of SGD on a noisy matrix.

    Attributes
    ----------
    log_plus, log_minus : arrays, shape (..., d)
        log|a_k| and log|b_k| at the end; −∞ when both vanished below the floor.
    diverged : array of bool, shape (...)
        Whether an entry exceeded 10⁶.
    steps : array of int, shape (...)
        Steps taken; a run stops when all directions are dead or it diverges.
    """

    log_plus: Array
    log_minus: Array
    diverged: NDArray[np.bool_]
    steps: NDArray[np.int64]

    def __str__(self) -> str:
        """Return the numbers of runs by rank."""
        ranks, counts = np.unique(self.rank, return_counts=True)
        parts = (
            f"{count} {'diverged' if rank < 0 else f'of rank {rank}'}"
            for rank, count in zip(ranks.tolist(), counts.tolist(), strict=True)
        )
        return f"{self.rank.size} runs: {', '.join(parts)}"

    @property
    def rank(self) -> NDArray[np.int64]:
        """Number of directions with |a_k| or |b_k| above 10⁻¹² at the end; −1 if diverged."""
        alive = np.maximum(self.log_plus, self.log_minus) > math.log(LIVING)
        return np.where(self.diverged, -1, alive.sum(axis=-1))


@check.public()
def noisy_matrix_runs(
    strengths: ArrayLike,
    noise: ArrayLike,
    step_size: ArrayLike,
    method: SGD,
    steps: int,
    starts: tuple[ArrayLike, ArrayLike],
    *,
    rng: int | np.random.Generator | None = None,
) -> NoisyMatrixRuns:
    r"""Run SGD on ½‖UVᵀ − Y‖², one run per element of the broadcast arguments.

    Source: our derivation.

    Parameters
    ----------
    strengths : array, shape (d,)
        The singular values s_k of the mean of Y.
    noise, step_size : arrays
        σ ≥ 0 and η > 0.
    method : SGD
        With a batch size of at most 64, and nothing else: every observation is new.
    steps : int
        Most steps per run.
    starts : pair of arrays, shapes (..., d, r)
        The rows Uᵀp_k and Vᵀq_k at the start: U and V themselves when p_k and q_k are the unit
        vectors. Rotating the p_k and q_k changes nothing else.
    rng : int, numpy.random.Generator or None
        Same seed, same result, on any number of cores.

    Returns
    -------
    NoisyMatrixRuns

    Raises
    ------
    NotImplementedError
        If the method has momentum or weight decay.

    Examples
    --------
    Signals 1 and 0.05 in noise 0.6, at η = ½: the weak direction dies.

    >>> start = np.full((2, 2), 0.1) + 0.1 * np.eye(2)
    >>> runs = noisy_matrix_runs([1.0, 0.05], 0.6, 0.5, SGD(), 5000, (start, start), rng=0)
    >>> int(runs.rank)
    1
    """
    values, deviation, rate = _arguments(strengths, noise, step_size)
    limit = check.integer("steps", steps)
    left, right = (check.finite_array(f"starts[{side}]", part) for side, part in enumerate(starts))
    if left.ndim < 2 or left.shape != right.shape or left.shape[-2] != values.size:
        raise ValueError(
            f"starts must be two arrays of one shape (..., {values.size}, r), got shapes "
            f"{left.shape} and {right.shape}."
        )
    batch = _batch_size(method)
    leading = left.shape[:-2]
    runs = Broadcast(noise=deviation.shape, step_size=rate.shape, starts=leading)
    plus, minus = runs.rows(left + right, 2), runs.rows(left - right, 2)
    states = stream_states(check.generator(rng), runs.size)
    diverged, taken = np.zeros(runs.size, np.bool_), np.zeros(runs.size, np.int64)
    own = runs.flat(deviation), runs.flat(rate), states, plus, minus, diverged, taken
    runs.run(_follow, (values, batch, limit), *own)
    with np.errstate(divide="ignore"):
        logs = [_log_norm(part) for part in (plus, minus)]
    return NoisyMatrixRuns(
        log_plus=runs.shaped(logs[0]),
        log_minus=runs.shaped(logs[1]),
        diverged=runs.shaped(diverged),
        steps=runs.shaped(taken),
    )


def _log_norm(rows: Array) -> Array:
    """Return log|row|; a norm by itself would square entries of 1e-160 away."""
    largest = np.abs(rows).max(axis=-1, keepdims=True)
    scaled = np.divide(rows, largest, out=np.zeros_like(rows), where=largest > 0)
    return np.asarray(np.log(largest[..., 0]) + np.log(np.linalg.norm(scaled, axis=-1)))


def _batch_size(method: SGD) -> int:
    """Return the batch size of a method that says nothing else."""
    covered_method(method, "noisy_matrix_runs")
    if method.batch_size is None or method != SGD(batch_size=method.batch_size):
        raise ValueError(
            f"method is {method}, but every observation is new: there is no data set to draw from; "
            "pass SGD(batch_size=...) and nothing else."
        )
    if method.batch_size > LARGEST_BATCH:
        raise ValueError(
            f"batch_size must be at most {LARGEST_BATCH} here, got {method.batch_size}: the signs "
            "of a batch are the bits of one random word."
        )
    return method.batch_size


def _arguments(
    strengths: ArrayLike, noise: ArrayLike, step_size: ArrayLike
) -> tuple[Array, Array, Array]:
    """Validate what the exponents and the runs have in common."""
    values = check.finite_array("strengths", strengths, ndim=1)
    deviation, rate = check.finite_array("noise", noise), positive_rates(step_size)
    if (deviation < 0).any():
        raise ValueError(f"noise must be at least 0, got a smallest of {deviation.min():g}.")
    return values, deviation, rate


@njit(nogil=True, cache=True)
def _follow(  # type: ignore[no-untyped-def]
    strengths, size, limit, noise, rates, states, plus, minus, diverged, taken
):
    """Iterate a and b of each run until all rows vanish, one diverges, or the steps run out."""
    directions, width = plus.shape[1:]
    common, crossed = np.zeros((width, width)), np.zeros((width, width))
    a, b = np.zeros((directions, width)), np.zeros((directions, width))
    pull_a, pull_b = np.zeros(width), np.zeros(width)
    for run in range(plus.shape[0]):
        state = states[run]
        a[:], b[:] = plus[run], minus[run]
        eta, sigma = rates[run], noise[run]
        shift, share = np.uint64(64 - size), 2.0 / size
        step = 0
        while step < limit:
            for i in range(width):
                for j in range(i + 1):
                    g, k = 0.0, 0.0
                    for row in range(directions):
                        g += a[row, i] * a[row, j] + b[row, i] * b[row, j]
                        k += a[row, i] * b[row, j] + b[row, i] * a[row, j]
                    common[i, j] = common[j, i] = 0.25 * eta * g
                    crossed[i, j] = crossed[j, i] = 0.25 * eta * k
            largest = 0.0
            for row in range(directions):
                noisy = strengths[row] + sigma * (share * _bits(next_word(state) >> shift) - 1.0)
                grow, shrink = 1.0 + eta * noisy, 1.0 - eta * noisy
                for j in range(width):
                    pull_a[j] = grow * a[row, j]
                    pull_b[j] = shrink * b[row, j]
                for i in range(width):
                    x, y = a[row, i], b[row, i]
                    for j in range(width):
                        pull_a[j] -= x * common[i, j] - y * crossed[i, j]
                        pull_b[j] -= y * common[i, j] - x * crossed[i, j]
                size_of_row = 0.0
                for j in range(width):
                    x, y = pull_a[j], pull_b[j]
                    size_of_row += abs(x) + abs(y)
                    a[row, j], b[row, j] = x, y
                if size_of_row < FLOOR:
                    a[row, :] = 0.0
                    b[row, :] = 0.0
                largest += size_of_row
            step += 1
            if not largest < CEILING:  # a NaN counts as large
                diverged[run] = True
                break
            if largest < FLOOR:
                break
        plus[run], minus[run], taken[run] = a, b, step


@njit(inline="always")
def _bits(word):  # type: ignore[no-untyped-def]
    """Return the number of ones in a word, by halves."""
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + (
        (word >> np.uint64(2)) & np.uint64(0x3333333333333333)
    )
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))
