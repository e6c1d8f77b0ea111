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
from stabcore._constants import EXACT_CEILING, EXACT_FLOOR
from stabcore._random import (
    alias_table,
    next_index,
    next_subset,
    next_uniform,
    next_word,
    stream_states,
)
from stabcore._validation import Array
from stabcore.problems.models import NeuronFate, OneNeuron
from stabcore.problems.normal_signals import NormalSignal, RegressionSignal
from stabcore.problems.signals import (
    FiniteSignal,
    LabelFlips,
    Signal,
    as_signal,
    fresh_batch_size,
)
from stabcore.sampling import SGD, covered_method
from stabcore.simulation._batches import compiled_drawing
from stabcore.simulation._runs import Broadcast, positive_rates

FLOOR = 1e-250

CEILING = 1e150

SMALL = 1e-6  # of the uw that fits: a run below it at the end may be on its way to the saddle


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

    def __str__(self) -> str:
        """Return the numbers of runs by fate."""
        counts = ", ".join(
            f"{int((self.fate == one).sum())} {one.name.lower()}" for one in NeuronFate
        )
        return f"{self.fate.size} runs: {counts}"

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


@check.public()
def neuron_runs(
    data: Signal | OneNeuron,
    u: ArrayLike,
    w: ArrayLike,
    step_size: ArrayLike,
    method: SGD,
    steps: int,
    *,
    rng: int | np.random.Generator | None = None,
    floor: float = EXACT_FLOOR,
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
    data : Signal, OneNeuron or frozen distribution of `scipy.stats`
        The law of the data (a family has the leading axes of the runs), or a data set. A law of
        your own needs `draw`; it is followed step by step in NumPy, about 50 times slower.
    u, w : arrays
        Starts.
    step_size : array
        η > 0.
    method : SGD
        How one trains. Only a data set has samples to draw without replacement, in epochs or with
        other probabilities, and a whole of them (`batch_size` None).
    steps : int
        Most steps per run; a run stops when both coordinates vanish or one diverges.
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
    NotImplementedError
        If the method has momentum.
    TypeError
        If `data` is neither a law nor a `OneNeuron`.
    ValueError
        If a law of your own draws anything but finite numbers in the shape asked for.

    Examples
    --------
    Labels flipped with probability ½, step size ½: SGD falls into the saddle.

    >>> runs = neuron_runs(LabelFlips(0.5), [0.3, 0.2], 0.1, 0.5, SGD(), 20_000, rng=0)
    >>> [NeuronFate(fate).name for fate in runs.fate]
    ['ORIGIN', 'ORIGIN']
    """
    law = _law(data)
    limit = check.integer("steps", steps)
    covered_method(method, "neuron_runs", "weight_decay")
    low = check.real("floor", floor, above=0.0, below=1.0)
    far = EXACT_CEILING
    high = far if radius is None else check.real("radius", radius, above=low, below=far)
    starts = check.finite_array("u", u), check.finite_array("w", w)
    rates, family = positive_rates(step_size), np.shape(law.mean)
    runs = Broadcast(u=starts[0].shape, w=starts[1].shape, step_size=rates.shape, data=family)
    a, b = runs.flat(starts[0] + starts[1]), runs.flat(starts[0] - starts[1])
    before = np.abs(a), np.abs(b)
    row = runs.flat(np.arange(math.prod(family)).reshape(family))
    eta, keep = runs.flat(rates), runs.flat(1 - rates * method.weight_decay)
    generator = check.generator(rng)
    states = stream_states(generator, a.size)
    left = np.zeros(a.size, np.bool_)  # diverged, or left the neighbourhood
    taken, turned = np.zeros(a.size, np.int64), np.zeros(a.size, np.int64)
    own = row, eta, keep, states, a, b, left, taken, turned
    if isinstance(law, FiniteSignal | RegressionSignal | NormalSignal):
        runs.run(_follow, (*_drawing(law, method), limit, low, high), *own)
    else:
        _follow_drawn(law, fresh_batch_size(law, method), limit, low, high, generator, own)
    with np.errstate(divide="ignore"):
        plus, minus = np.log(np.abs(a)), np.log(np.abs(b))
    if radius is None:
        fitting = runs.flat(np.sqrt(law.second_moment) / law.mean_square_input)
        with np.errstate(over="ignore", invalid="ignore"):
            large = np.abs(a * a - b * b) > 4 * SMALL * fitting
        decided = large & (2 * turned <= taken) & ~left
    else:
        decided = left & np.where(plus > minus, np.abs(b) < before[1], np.abs(a) < before[0])
    right = (plus > minus) == (runs.flat(np.asarray(law.mean)) >= 0)
    fate = np.select(
        [decided & right, decided, left, np.maximum(plus, minus) == -math.inf],
        [NeuronFate.CORRECT, NeuronFate.INCORRECT, NeuronFate.DIVERGENT, NeuronFate.ORIGIN],
        NeuronFate.UNDECIDED,
    ).astype(np.int64)
    parts = (runs.shaped(part) for part in (plus, minus, fate, taken, turned))
    return NeuronRuns(
        **dict(zip(("log_plus", "log_minus", "fate", "steps", "turned"), parts, strict=True))
    )


def _law(data: Signal | OneNeuron) -> Signal:
    """Return the law of a data set."""
    if isinstance(data, OneNeuron):
        return FiniteSignal.from_data(data.inputs[:, 0], data.targets, data.probabilities)
    if not isinstance(data, Signal) and not hasattr(data, "rvs"):
        raise TypeError(
            "data must be a Signal (FiniteSignal, LabelFlips, ...), a frozen distribution of "
            f"scipy.stats or a OneNeuron, got {type(data).__name__}; for arrays use "
            "FiniteSignal.from_data(inputs, targets)."
        )
    return as_signal(data)


def _drawing(law: Signal, method: SGD) -> tuple[Any, ...]:
    """Return the data as the compiled loop wants them: how to draw, and tables per member."""
    inputs, parameters = -1, np.zeros((1, 2))
    unused = *_tables(np.zeros(1), np.zeros(1), np.ones(1)), *_ziggurat()
    if isinstance(law, FiniteSignal) and not isinstance(law, LabelFlips):
        return inputs, *_data_set(law, method), parameters, *_ziggurat()
    size = fresh_batch_size(law, method)
    if isinstance(law, FiniteSignal):
        tables = _tables(law.squares, law.values, law.weights)
        return inputs, size, 0, 0, *tables, parameters, *_ziggurat()
    if isinstance(law, RegressionSignal):
        inputs = size = size * law.batch_size
        parameters = np.stack([law.slope, law.noise], axis=-1).reshape(-1, 2)
    else:
        assert isinstance(law, NormalSignal)  # x = 1, and the mean of normal z is normal
        deviation = law.deviation / math.sqrt(size)
        inputs, size = 0, 1
        parameters = np.stack([law.mean, deviation], axis=-1).reshape(-1, 2)
    return inputs, size, 0, 0, *unused[:4], parameters, *unused[4:]


def _data_set(law: FiniteSignal, method: SGD) -> tuple[Any, ...]:
    """Return how to draw the samples of a data set, and their tables."""
    if method.batch_size is None:
        mean = law.mean_square_input[..., None], law.mean[..., None]
        return 1, 0, 0, *_tables(*mean, np.ones(1))
    batches = method.batches(law.values.shape[-1], law.weights)
    size, subsets, advance, *_ = compiled_drawing(batches)
    scaled = law.squares * batches.scales, law.values * batches.scales
    return size, subsets, advance, *_tables(*scaled, batches.probabilities)


def _tables(
    squares: Array, values: Array, weights: Array
) -> tuple[Array, Array, Array, NDArray[np.int64]]:
    """Return x², xy and the alias table of every member of a family, shape (members, N)."""
    family = np.broadcast_shapes(squares.shape, values.shape, weights.shape)
    s, z, w = (
        np.array(np.broadcast_to(part, family)).reshape(-1, family[-1])
        for part in (squares, values, weights)
    )
    if weights.ndim == 1:
        threshold, alias = alias_table(weights)
        return s, z, threshold[None], alias[None]
    thresholds, aliases = zip(*(alias_table(row) for row in w), strict=True)
    return s, z, np.array(thresholds), np.array(aliases)


@njit(nogil=True, cache=True)
def _follow(  # type: ignore[no-untyped-def]
    inputs,
    batch_size,
    subsets,
    advance,
    squares,
    values,
    thresholds,
    aliases,
    parameters,
    edges,
    heights,
    limit,
    floor,
    ceiling,
    rows,
    rates,
    keeps,
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
        permutation, used = np.arange(subsets), 0
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
                if batch_size == 1 and subsets == 0:
                    index = next_index(state, threshold, alias)
                    s, z = square[index], value[index]
                else:
                    rest = permutation[used:]
                    if subsets > 0:
                        next_subset(state, rest, batch_size)
                        used = (used + advance) % subsets
                    for j in range(batch_size):
                        if subsets > 0:
                            index = np.uint64(rest[j])
                        else:
                            index = next_index(state, threshold, alias)
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


def _follow_drawn(
    law: Signal,
    size: int,
    limit: int,
    floor: float,
    ceiling: float,
    rng: np.random.Generator,
    own: tuple[Any, ...],
) -> None:
    """Do what `_follow` does for a law that draws its own samples."""
    rows, rates, keeps, _, plus, minus, left, taken, turned = own
    family = np.shape(law.mean)
    active = np.arange(plus.size)
    larger = np.abs(plus) > np.abs(minus)
    for step in range(limit + 1):
        a, b = plus[active], minus[active]
        a[np.abs(a) < floor] = 0.0
        b[np.abs(b) < floor] = 0.0
        plus[active], minus[active], taken[active] = a, b, step
        inside = (np.abs(a) < ceiling) & (np.abs(b) < ceiling)
        left[active[~inside]] = True
        going = inside & ((a != 0) | (b != 0))
        active = active[going]
        if step == limit or active.size == 0:
            return
        a, b, eta, keep = a[going], b[going], rates[active], keeps[active]
        # A family draws one sample for each of its members; every run takes that of its own.
        drawn = law.draw(rng, (active.size, size, *family))
        s, z = (_own_means(part, (active.size, size, *family), rows[active]) for part in drawn)
        change = 0.25 * eta * s * (a * a - b * b)
        with np.errstate(over="ignore", invalid="ignore"):
            plus[active] = a * (keep + eta * z - change)
            minus[active] = b * (keep - eta * z + change)
        now = np.abs(plus[active]) > np.abs(minus[active])
        turned[active[now != larger[active]]] = step + 1
        larger[active] = now


def _own_means(drawn: Array, shape: tuple[int, ...], rows: NDArray[np.int64]) -> Array:
    """Return each run's mean over its batch."""
    values = np.asarray(drawn, dtype=float)
    if values.shape != shape or not np.isfinite(values).all():
        raise ValueError(
            f"draw must return x² and xy as two arrays of finite numbers of shape {shape}, got "
            f"shape {values.shape}; let its last axes be those of the family."
        )
    means = values.mean(axis=1).reshape(len(values), -1)
    return np.asarray(means[np.arange(len(values)), rows])


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
