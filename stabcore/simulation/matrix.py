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
from stabcore._random import next_word, run_replicas, stream_states
from stabcore._validation import Array

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

    @property
    def rank(self) -> NDArray[np.int64]:
        """Number of directions with |a_k| or |b_k| above 10⁻¹² at the end; −1 if diverged."""
        alive = np.maximum(self.log_plus, self.log_minus) > math.log(LIVING)
        return np.where(self.diverged, -1, alive.sum(axis=-1))


def noisy_matrix_runs(
    strengths: ArrayLike,
    noise: ArrayLike,
    step_size: ArrayLike,
    steps: int,
    starts: tuple[ArrayLike, ArrayLike],
    *,
    batch_size: ArrayLike = 1,
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
    steps : int
        Most steps per run.
    starts : pair of arrays, shapes (..., d, r)
        The rows Uᵀp_k and Vᵀq_k at the start: U and V themselves when p_k and q_k are the unit
        vectors. Rotating the p_k and q_k changes nothing else.
    batch_size : array of int
        B, at most 64.
    rng : int, numpy.random.Generator or None
        Same seed, same result, on any number of cores.

    Returns
    -------
    NoisyMatrixRuns

    Raises
    ------
    ValueError
        If an argument is invalid or the shapes do not fit together.

    Examples
    --------
    Signals 1 and 0.05 in noise 0.6, at η = ½: the weak direction dies.

    >>> start = np.full((2, 2), 0.1) + 0.1 * np.eye(2)
    >>> runs = noisy_matrix_runs([1.0, 0.05], 0.6, 0.5, 5000, (start, start), rng=0)
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
    sizes = check.finite_array("batch_size", batch_size)
    if not (sizes == np.clip(np.floor(sizes), 1, LARGEST_BATCH)).all():
        raise ValueError(
            f"batch_size must be whole numbers from 1 to {LARGEST_BATCH}, got values from "
            f"{sizes.min():g} to {sizes.max():g}."
        )
    try:
        shape = np.broadcast_shapes(deviation.shape, rate.shape, sizes.shape, left.shape[:-2])
    except ValueError as error:
        raise ValueError(
            f"noise, step_size, batch_size of shapes {deviation.shape}, {rate.shape}, "
            f"{sizes.shape} and starts of leading shape {left.shape[:-2]} do not broadcast."
        ) from error

    def flat(part: Array) -> Array:
        return np.array(np.broadcast_to(part, shape)).reshape(-1)

    full = (*shape, *left.shape[-2:])
    plus, minus = (
        np.array(np.broadcast_to(part, full)).reshape(-1, *full[-2:])
        for part in (left + right, left - right)
    )
    eta, sigma, batch = flat(rate), flat(deviation), flat(sizes).astype(np.int64)
    states = stream_states(check.generator(rng), eta.size)
    diverged, taken = np.zeros(eta.size, np.bool_), np.zeros(eta.size, np.int64)

    def run(part: slice) -> None:
        _follow(
            values,
            sigma[part],
            eta[part],
            batch[part],
            limit,
            states[part],
            plus[part],
            minus[part],
            diverged[part],
            taken[part],
        )

    run_replicas(run, eta.size)
    with np.errstate(divide="ignore"):
        logs = [np.log(np.linalg.norm(part, axis=-1)) for part in (plus, minus)]
    return NoisyMatrixRuns(
        log_plus=logs[0].reshape(*shape, values.size),
        log_minus=logs[1].reshape(*shape, values.size),
        diverged=diverged.reshape(shape),
        steps=taken.reshape(shape),
    )


def _arguments(
    strengths: ArrayLike, noise: ArrayLike, step_size: ArrayLike
) -> tuple[Array, Array, Array]:
    """Validate what the exponents and the runs have in common."""
    values = check.finite_array("strengths", strengths, ndim=1)
    deviation = check.finite_array("noise", noise)
    rate = check.finite_array("step_size", step_size)
    if (deviation < 0).any() or (rate <= 0).any():
        raise ValueError(
            "noise must be at least 0 and step_size positive, got a smallest noise of "
            f"{deviation.min():g} and a smallest step_size of {rate.min():g}."
        )
    return values, deviation, rate


@njit(nogil=True, cache=True)
def _follow(  # type: ignore[no-untyped-def]
    strengths, noise, rates, batches, limit, states, plus, minus, diverged, taken
):
    """Iterate a and b of each run until all rows vanish, one diverges, or the steps run out."""
    directions, width = plus.shape[1:]
    common, crossed = np.zeros((width, width)), np.zeros((width, width))
    a, b = np.zeros((directions, width)), np.zeros((directions, width))
    pull_a, pull_b = np.zeros(width), np.zeros(width)
    for run in range(plus.shape[0]):
        state = states[run]
        a[:], b[:] = plus[run], minus[run]
        eta, sigma, size = rates[run], noise[run], batches[run]
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
