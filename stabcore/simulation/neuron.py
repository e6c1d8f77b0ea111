r"""Simulation of SGD on one neuron, ½(uwx − y)², in the coordinates a = u + w and b = u − w.

With s = x², z = xy (a batch: their means), step size η and weight decay γ,

    m = s (a² − b²)/4 − z,    a' = (1 − ηγ − ηm) a,    b' = (1 − ηγ + ηm) b,

so a and b are only ever *multiplied*, and are known to a relative rounding error down to 10⁻²⁵⁰:
no run is lost to a threshold that rounding could cross. In plain coordinates the axis b = 0 (where
u = w) is reached as soon as u and w agree to 16 digits, after which b can never grow again.
uw = (a² − b²)/4 has the sign of log|a| − log|b|. A run that falls into the saddle lets both
vanish; one that learns keeps the sign of uw for good. (Noise in the labels makes the smaller of the
two vanish as well, but slowly; with clean labels it stays.) (Our derivation.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from stabcore import _validation as check
from stabcore._random import (
    alias_table,
    next_subset,
    next_uniform,
    next_word,
    run_replicas,
    stream_states,
)
from stabcore._validation import Array
from stabcore.problems.models import NeuronFate, OneNeuron
from stabcore.problems.signals import FiniteSignal, GaussianSignal, LabelFlips, NormalSignal, Signal
from stabcore.sampling import Sampling

FLOOR = 1e-250

CEILING = 1e150

SMALL = 1e-6  # of the uw that fits: a run below it at the end may be on its way to the saddle

MOST_LISTED = 4_096  # batches in a table; more are drawn sample by sample


@dataclass(frozen=True, kw_only=True)
class NeuronRuns:
    """The ends of many runs of SGD on one neuron; all arrays have the shape of the starts.

    Attributes
    ----------
    log_plus, log_minus : arrays
        log|u + w| and log|u − w| where the run stopped; −∞ when below the floor.
    fate : array of int
        Values of `NeuronFate`.
    steps : array of int
        Steps taken.
    turned : array of int
        The last step at which uw changed its sign; 0 if it never did.
    """

    log_plus: Array
    log_minus: Array
    fate: NDArray[np.int64]
    steps: NDArray[np.int64]
    turned: NDArray[np.int64]

    def share(self, fate: NeuronFate, axis: int | Sequence[int] | None = -1) -> Array:
        """Return the share of runs with this fate, over one axis (the replicas) or all (None).

        Parameters
        ----------
        fate : NeuronFate
        axis : int, sequence of int or None

        Returns
        -------
        array
        """
        over = tuple(axis) if isinstance(axis, Sequence) else axis
        return np.asarray((self.fate == fate).mean(axis=over))


def neuron_runs(
    data: Signal | OneNeuron,
    u: ArrayLike,
    w: ArrayLike,
    step_size: ArrayLike,
    steps: int,
    *,
    batch_size: int = 1,
    weight_decay: ArrayLike = 0.0,
    replacement: bool | None = None,
    rng: int | np.random.Generator | None = None,
    floor: float = FLOOR,
    radius: float | None = None,
) -> NeuronRuns:
    r"""Run SGD on ½(uwx − y)², one run per element of the broadcast arguments.

    A grid of m × n cells with R replicas each has, for instance, a family of laws of shape
    (m, 1, 1), step sizes of shape (n, 1) and starts of shape (R,).

    The fate is correct or incorrect if uw has not changed its sign in the last half of the steps
    and at the end |uw| is above 10⁻⁶ (E[(xy)²])^½/E[x²], its size when it fits; E[xy] = 0 counts as
    positive.

    The exponents Λ₊ and Λ₋ speak of the neighbourhood of the saddle only: far from it the cubic
    terms may make a run diverge that left in the right direction. To put them to the test start
    close to 0 and give a `radius`: a run then stops when |u + w| or |u − w| exceeds it, and is
    correct if u + w left (for E[xy] ≥ 0) while u − w became smaller than it was at the start,
    incorrect if the other way round, and divergent if both have grown.

    Source: our derivation; the example is paper B's.

    Parameters
    ----------
    data : Signal or OneNeuron
        The law of the data (a family has the leading axes of the runs), or a data set.
    u, w : arrays
        Starts.
    step_size : array
        η > 0.
    steps : int
        Most steps per run; a run stops when both coordinates vanish or one diverges.
    batch_size : int
        B.
    weight_decay : array
        γ ≥ 0, of the term (γ/2)(u² + w²).
    replacement : bool, optional
        For data sets, as in `Sampling`.
    rng : int, numpy.random.Generator or None
        Same seed, same result, on any number of cores.
    floor : float
        A coordinate below counts as vanished.
    radius : float, optional
        Of the neighbourhood to follow the runs in; by default they are followed everywhere.

    Returns
    -------
    NeuronRuns

    Raises
    ------
    ValueError
        If an argument is invalid or the shapes do not fit together.
    TypeError
        If `data` is neither a law nor a `OneNeuron`.

    Examples
    --------
    Labels flipped with probability ½, step size ½: SGD falls into the saddle.

    >>> runs = neuron_runs(LabelFlips(0.5), [0.3, 0.2], 0.1, 0.5, 20_000, rng=0)
    >>> [NeuronFate(fate).name for fate in runs.fate]
    ['ORIGIN', 'ORIGIN']
    """
    law = _law(data)
    limit = check.integer("steps", steps)
    low = check.real("floor", floor, above=0.0, below=1.0)
    high = CEILING if radius is None else check.real("radius", radius, above=low, below=CEILING)
    starts = check.finite_array("u", u), check.finite_array("w", w)
    rates = check.finite_array("step_size", step_size)
    decays = check.finite_array("weight_decay", weight_decay)
    if (rates <= 0).any() or (decays < 0).any():
        raise ValueError(
            "step_size must be positive and weight_decay at least 0, got a smallest step_size of "
            f"{rates.min():g} and weight_decay of {decays.min():g}."
        )
    family = np.shape(law.mean)
    try:
        shape = np.broadcast_shapes(*(part.shape for part in (*starts, rates, decays)), family)
    except ValueError as error:
        raise ValueError(
            f"u, w, step_size, weight_decay of shapes {starts[0].shape}, {starts[1].shape}, "
            f"{rates.shape}, {decays.shape} and data of shape {family} do not broadcast."
        ) from error

    def flat(part: Any) -> Any:
        return np.array(np.broadcast_to(part, shape)).reshape(-1)

    a, b = flat(starts[0] + starts[1]), flat(starts[0] - starts[1])
    before = np.abs(a), np.abs(b)
    eta, keep = flat(rates), flat(1 - rates * decays)
    sampler = _Sampler(law, batch_size, replacement)
    row = flat(np.arange(math.prod(family)).reshape(family))
    states = stream_states(check.generator(rng), a.size)
    diverged = np.zeros(a.size, np.bool_)  # or left the neighbourhood
    taken, turned = np.zeros(a.size, np.int64), np.zeros(a.size, np.int64)

    def run(part: slice) -> None:
        _follow(
            *sampler.arguments,
            row[part],
            eta[part],
            keep[part],
            limit,
            low,
            high,
            states[part],
            a[part],
            b[part],
            diverged[part],
            taken[part],
            turned[part],
        )

    run_replicas(run, a.size)
    with np.errstate(divide="ignore"):
        plus, minus = np.log(np.abs(a)), np.log(np.abs(b))
    right = (plus > minus) == (flat(np.asarray(law.mean)) >= 0)
    if radius is None:
        fitting = flat(np.sqrt(law.second_moment) / law.mean_square_input)
        with np.errstate(over="ignore", invalid="ignore"):
            large = np.abs(a * a - b * b) > 4 * SMALL * fitting
        decided = large & (2 * turned <= taken) & ~diverged
    else:
        other = np.where(plus > minus, np.abs(b) < before[1], np.abs(a) < before[0])
        decided = other & diverged
    fate = np.select(
        [decided & right, decided, diverged, np.maximum(plus, minus) == -math.inf],
        [NeuronFate.CORRECT, NeuronFate.INCORRECT, NeuronFate.DIVERGENT, NeuronFate.ORIGIN],
        NeuronFate.UNDECIDED,
    ).astype(np.int64)
    return NeuronRuns(
        log_plus=plus.reshape(shape),
        log_minus=minus.reshape(shape),
        fate=fate.reshape(shape),
        steps=taken.reshape(shape),
        turned=turned.reshape(shape),
    )


def _law(data: Signal | OneNeuron) -> Signal:
    """Return the law of a data set."""
    if isinstance(data, OneNeuron):
        return FiniteSignal.from_data(data.inputs[:, 0], data.targets, data.probabilities)
    if not isinstance(data, FiniteSignal | GaussianSignal | NormalSignal):
        raise TypeError(
            f"data must be a FiniteSignal, LabelFlips, GaussianSignal, NormalSignal or OneNeuron, "
            f"got {type(data).__name__}; for arrays use FiniteSignal.from_data(inputs, targets)."
        )
    return data


class _Sampler:
    """The data as the compiled loop wants them: tables per member of the family."""

    def __init__(self, law: Signal, batch_size: int, replacement: bool | None) -> None:
        size = check.integer("batch_size", batch_size)
        inputs, subsets = -1, 0
        tables, parameters = _tables(FiniteSignal([0.0])), np.zeros((1, 2))
        if isinstance(law, FiniteSignal):
            if isinstance(law, LabelFlips):
                law, size = law.batched(size), 1
            else:
                sampling = Sampling(law.values.shape[-1], size, law.weights, replacement)
                if sampling.count <= MOST_LISTED:
                    law, size = law.batched(size, replacement), 1
                elif not sampling.independent:
                    subsets = sampling.n_samples
            tables = _tables(law)
        elif isinstance(law, GaussianSignal):
            inputs = size = size * law.batch_size
            parameters = np.stack([law.slope, law.noise], axis=-1).reshape(-1, 2)
        else:
            assert isinstance(law, NormalSignal)  # x = 1
            law, size, inputs = law.batched(size), 1, 0
            parameters = np.stack([law.mean, law.deviation], axis=-1).reshape(-1, 2)
        self.arguments = (inputs, size, subsets, *tables, parameters, *_ziggurat())


def _tables(law: FiniteSignal) -> tuple[Array, Array, Array, NDArray[np.int64]]:
    """Return x², xy and the alias table of every member of a family, shape (members, N)."""
    family, size = np.shape(law.mean), law.values.shape[-1]
    squares, values, weights = (
        np.array(np.broadcast_to(part, (*family, size))).reshape(-1, size)
        for part in (law.squares, law.values, law.weights)
    )
    if law.weights.ndim == 1:
        threshold, alias = alias_table(law.weights)
        return squares, values, threshold[None], alias[None]
    thresholds, aliases = zip(*(alias_table(row) for row in weights), strict=True)
    return squares, values, np.array(thresholds), np.array(aliases)


@njit(nogil=True, cache=True)
def _follow(  # type: ignore[no-untyped-def]
    inputs,
    batch_size,
    subsets,
    squares,
    values,
    thresholds,
    aliases,
    parameters,
    edges,
    heights,
    rows,
    rates,
    keeps,
    limit,
    floor,
    ceiling,
    states,
    plus,
    minus,
    diverged,
    taken,
    turned,
):
    """Iterate a and b of each run until both vanish, one diverges, or the steps run out."""
    for run in range(plus.size):
        state, row, eta, keep = states[run], rows[run], rates[run], keeps[run]
        a, b = plus[run], minus[run]
        square, value = squares[row % len(squares)], values[row % len(values)]
        threshold, alias = thresholds[row % len(thresholds)], aliases[row % len(aliases)]
        first, second = parameters[row % len(parameters)]
        start = 0.0 if inputs > 0 else 1.0
        permutation = np.arange(subsets)
        step, turn = 0, 0
        larger = abs(a) > abs(b)
        while True:
            if abs(a) < floor:
                a = 0.0
            if abs(b) < floor:
                b = 0.0
            if not (abs(a) < ceiling and abs(b) < ceiling):
                diverged[run] = True
                break
            if step == limit or (a == 0.0 and b == 0.0):
                break
            s, z = 0.0, 0.0
            if inputs < 0:
                if batch_size == 1:
                    index = _next_index(state, threshold, alias)
                    s, z = square[index], value[index]
                else:
                    if subsets > 0:
                        next_subset(state, permutation, batch_size)
                    for j in range(batch_size):
                        if subsets > 0:
                            index = np.uint64(permutation[j])
                        else:
                            index = _next_index(state, threshold, alias)
                        s += square[index]
                        z += value[index]
                    s /= batch_size
                    z /= batch_size
            else:  # given the inputs, z is normal; the last normal number is its noise
                s, noise = start, 0.0
                for _ in range(inputs + 1):
                    s += noise * noise
                    noise = _next_normal(state, edges, heights)
                z = (first * s + second * np.sqrt(s) * noise) / batch_size
                s /= batch_size
            # What does not depend on a and b comes first: the chain from a to a' sets the pace.
            pull, push = eta * z, 0.25 * eta * s
            change = push * (a * a - b * b)
            a *= (keep + pull) - change
            b *= (keep - pull) + change
            step += 1
            if (abs(a) > abs(b)) != larger:
                larger = not larger
                turn = step
        plus[run], minus[run], taken[run], turned[run] = a, b, step, turn


LAYERS = 256

TAIL = 3.6541528853610088  # where the lowest of 256 layers of equal area begins its tail

AREA = 0.00492867323399  # of a layer


@cache
def _ziggurat() -> tuple[Array, Array]:
    """Return the edges and heights of the layers of exp(−x²/2), widest first."""
    edges = np.zeros(LAYERS + 1)
    edges[0], edges[1] = AREA / math.exp(-(TAIL**2) / 2), TAIL
    for k in range(2, LAYERS):
        height = AREA / edges[k - 1] + math.exp(-(edges[k - 1] ** 2) / 2)
        edges[k] = math.sqrt(-2 * math.log(height))
    return edges, np.exp(-(edges**2) / 2)


@njit(inline="always")
def _next_normal(state, edges, heights):  # type: ignore[no-untyped-def]
    """Return a standard normal number (Marsaglia & Tsang's ziggurat)."""
    # One loop for layers and tail, and unsigned indices: nested loops, or indices that might be
    # negative, made it ten times slower.
    tail, x = 0.0, 0.0
    while True:
        word = next_word(state)
        if tail != 0.0:  # beyond TAIL, by rejection from an exponential law
            x = -np.log(1.0 - (word >> np.uint64(11)) * 1.1102230246251565e-16) / TAIL
            if next_uniform(state) < np.exp(-0.5 * x * x):
                x = tail * (TAIL + x)
                break
            continue
        layer = word & np.uint64(255)
        above = layer + np.uint64(1)
        x = np.float64(np.int64(word) >> np.int64(11)) * 2.220446049250313e-16 * edges[layer]
        if abs(x) < edges[above]:
            break
        if layer == np.uint64(0):
            tail = 1.0 if x > 0.0 else -1.0
        else:
            height = heights[layer] + next_uniform(state) * (heights[above] - heights[layer])
            if height < np.exp(-0.5 * x * x):
                break
    return x


@njit(inline="always")
def _next_index(state, threshold, alias):  # type: ignore[no-untyped-def]
    """Return an index drawn from an alias table, unsigned and without a branch to mispredict."""
    scaled = next_uniform(state) * threshold.size
    column = np.uint64(scaled)
    other = np.uint64(alias[column])
    return other if scaled - column >= threshold[column] else column
