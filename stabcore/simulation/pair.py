r"""Simulation, the check on every prediction: many replicas of GD or SGD at once.

Two ways to follow a run. In plain coordinates any `Problem` will do, down to the rounding error
of its residuals. For the two-parameter problems the pair (δ, s) = (1 − θ₁θ₂, θ₁² + θ₂²) evolves by
itself; with c = ηx² (a batch: the mean),

    δ' = δ (1 − cs − c²δ(1 − δ)),    s' = s + 4cδ(1 − δ) + c²δ²s,

so δ is only ever *multiplied*, and is known to a relative rounding error down to 10⁻²⁵⁰. This
matters: near an unstable minimum log|δ| is a random walk with a small drift, and a run that is
called converged because its loss fell below 10⁻²⁰, or because θ₁θ₂ rounded to 1, may be one of
the many that would have come back. (Our derivation.)
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from stabcore import _validation as check
from stabcore._constants import EXACT_CEILING, EXACT_FLOOR
from stabcore._random import next_index, next_subset, stream_states
from stabcore._validation import Array
from stabcore.problems.base import declared_product
from stabcore.problems.factorised import ScalarFactorization
from stabcore.sampling import SGD, covered_method
from stabcore.simulation._batches import compiled_drawing
from stabcore.simulation._runs import Broadcast

UNDECIDED, CONVERGED, DEAD, DIVERGED = range(4)  # plain integers for the compiled loop


class PairFate(IntEnum):
    """How a run in exact coordinates ended."""

    UNDECIDED = UNDECIDED
    """Still moving when the steps ran out."""
    CONVERGED = CONVERGED
    """|δ| fell below 10⁻²⁵⁰."""
    DEAD = DEAD
    """A ReLU died: the run is stuck on the plateau F = 0."""
    DIVERGED = DIVERGED
    """|δ| or s exceeded 10¹⁵⁰."""


@dataclass(frozen=True, kw_only=True)
class ExactRuns:
    """The ends of many runs in exact coordinates.

    Attributes
    ----------
    delta, s : arrays, shape (R,)
        Where each run stopped; for a converged one s tells which minimum it found.
    fate : array of int, shape (R,)
        Values of `PairFate`.
    steps : array of int, shape (R,)
        Steps taken until the fate was decided.
    history : array, shape (T, R)
        log|δ| at steps 0, k, 2k, ... for `record_every` = k, and T = 0 if that is 0; NaN after
        the fate was decided.
    """

    delta: Array
    s: Array
    fate: NDArray[np.int64]
    steps: NDArray[np.int64]
    history: Array

    def __str__(self) -> str:
        """Return the numbers of runs by fate."""
        counts = ", ".join(
            f"{int((self.fate == fate).sum())} {fate.name.lower()}" for fate in PairFate
        )
        return f"{self.fate.size} runs: {counts}"

    def share(self, fate: PairFate) -> float:
        """Return the share of runs with this fate."""
        return float((self.fate == fate).mean())

    @property
    def limits(self) -> Array:
        """The minima found: s of the converged runs."""
        return np.asarray(self.s[self.fate == PairFate.CONVERGED])


@check.public()
def exact_runs(
    problem: ScalarFactorization,
    delta: ArrayLike,
    s: ArrayLike,
    step_size: float,
    method: SGD,
    steps: int,
    *,
    rng: int | np.random.Generator | None = None,
    record_every: int = 0,
) -> ExactRuns:
    r"""Run SGD (or GD) on a two-parameter problem in exact coordinates.

    Source: our derivation; the example is paper D's.

    Parameters
    ----------
    problem : ScalarFactorization or ReluPair
    delta, s : arrays, shape (R,)
        Starts, s ≥ 2|1 − δ|; for a `ReluPair` δ < 1 (the network is alive).
    step_size : float
        η > 0.
    method : SGD
        How batches are drawn.
    steps : int
        Most steps per run; a run stops when its fate is decided.
    rng : int, numpy.random.Generator or None
        Same seed, same result, on any number of cores.
    record_every : int
        Record log|δ| every so many steps; 0 for the ends only.

    Returns
    -------
    ExactRuns

    Raises
    ------
    ValueError
        If a start is not a point of the problem.
    NotImplementedError
        If the method has momentum or weight decay.

    Examples
    --------
    Gradient descent on ½(1 − θ₁θ₂)²:

    >>> from stabcore import GD
    >>> runs = exact_runs(ScalarFactorization(), [0.1], [2.5], 0.3, GD, 2_000)
    >>> PairFate(runs.fate[0]).name, bool(runs.limits[0] > 2)
    ('CONVERGED', True)
    """
    rate = check.step_size(step_size)
    limit = check.integer("steps", steps)
    stride = check.integer("record_every", record_every, minimum=0)
    check.instance("problem", problem, ScalarFactorization)
    covered_method(method, "exact_runs")
    model = declared_product(problem)
    if model is None:
        raise TypeError(
            f"{type(problem).__name__} changes the loss of the factorisation it derives from: it "
            "has no exact coordinates; use stochastic_gradient_descent."
        )
    first, second = _starts(delta, s, relu=model.relu)
    batches = method.batches(problem.n_samples, problem.probabilities)
    rates = rate * problem.curvatures * batches.scales
    if batches.full_batch:  # gradient descent: one sample that has the mean curvature
        rates, batches = np.array([rates.mean()]), SGD().batches(1)
    count = first.size
    states = stream_states(check.generator(rng), count)
    fate, taken = np.zeros(count, np.int64), np.zeros(count, np.int64)
    history = np.full((count, limit // stride + 1 if stride else 0), np.nan)
    shared = rates, *compiled_drawing(batches), model.relu, limit, stride
    runs = Broadcast(delta=first.shape)
    runs.run(_follow, shared, states, first, second, fate, taken, history)
    # s ≥ 2|1 − δ|, of which rounding may fall just short; a run that diverged may be at infinity.
    kept = fate != DIVERGED
    second[kept] = np.maximum(second[kept], 2 * np.abs(1 - first[kept]))
    return ExactRuns(delta=first, s=second, fate=fate, steps=taken, history=history.T)


def _starts(delta: ArrayLike, s: ArrayLike, *, relu: bool) -> tuple[Array, Array]:
    """Return the starts, flat, refusing those that are not points of the problem."""
    starts = check.finite_array("delta", delta), check.finite_array("s", s)
    runs = Broadcast(delta=starts[0].shape, s=starts[1].shape)
    first, second = (runs.flat(part) for part in starts)
    gaps = second / 2 - np.abs(1 - first)  # halves: twice the largest number would overflow
    if (gaps < -1e-12 * np.abs(1 - first)).any():
        raise ValueError(
            "s must be at least 2|1 - delta|, since θ₁² + θ₂² ≥ 2|θ₁θ₂|; "
            f"the smallest s - 2|1 - delta| is {2 * float(gaps.min()):.3g}."
        )
    if relu and (first >= 1).any():
        raise ValueError(
            f"delta must be below 1 for a ReluPair (θ > 0), got {first.max():.6g}: the network is "
            "dead there and stays so."
        )
    return first, second


@njit(nogil=True, cache=True)
def _follow(  # type: ignore[no-untyped-def]
    rates,
    batch_size,
    subsets,
    advance,
    threshold,
    alias,
    relu,
    limit,
    stride,
    states,
    deltas,
    squares,
    fates,
    taken,
    history,
):
    """Iterate the exact coordinates of each run until its fate is decided."""
    for run in range(deltas.size):
        state, delta, s = states[run], deltas[run], squares[run]
        permutation, used = np.arange(subsets), 0
        fate, step = UNDECIDED, 0
        while True:
            if stride > 0 and step % stride == 0:
                history[run, step // stride] = np.log(abs(delta)) if delta != 0.0 else -np.inf
            if abs(delta) < EXACT_FLOOR:
                fate = CONVERGED
            elif not (abs(delta) < EXACT_CEILING and s < EXACT_CEILING):
                fate = DIVERGED
            if fate != UNDECIDED or step == limit:
                break
            c = 0.0
            if subsets > 0:
                rest = permutation[used:]
                next_subset(state, rest, batch_size)
                for b in range(batch_size):
                    c += rates[rest[b]]
                used = (used + advance) % subsets
            else:
                for _ in range(batch_size):
                    c += rates[next_index(state, threshold, alias)]
            c /= batch_size
            move = c * delta
            turn = move * (1.0 - delta)
            s_next = s + 4.0 * turn + move * move * s
            delta *= 1.0 - c * s - c * turn
            s = s_next
            step += 1
            if relu and (delta >= 1.0 or move <= -1.0):
                fate = DEAD
                break
        deltas[run], squares[run], fates[run], taken[run] = delta, s, fate, step
