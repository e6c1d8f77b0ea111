r"""SGD on one hidden layer with one input and one output: f(x) = Σ_i u_i φ(w_i x), loss ½(f − y)².

With φ the identity and m = x(f(x) − y), every neuron is multiplied by the same numbers,

    (u_i + w_i)' = (1 − ηm)(u_i + w_i),    (u_i − w_i)' = (1 + ηm)(u_i − w_i),

so that the ratios between the neurons are conserved, and (|u + w|, |u − w|) moves exactly like
the coordinates of a single neuron. Either all neurons die or none.

With φ = max(·, 0) a neuron with w_i > 0 sees only the inputs x > 0, one with w_i < 0 only the
inputs x < 0: two such layers side by side, each with a saddle and exponents of its own, those of
the signal y|x| where x has the neuron's sign and 0 elsewhere. A neuron changes sides when u − |w|
overtakes u + |w|; the two then change their roles. (Our derivation.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from stabcore import _validation as check
from stabcore._constants import EXACT_FLOOR
from stabcore._random import next_index, next_subset, stream_states
from stabcore._validation import Array
from stabcore.sampling import SGD, covered_method
from stabcore.simulation._batches import compiled_drawing
from stabcore.simulation._runs import Broadcast, recorded_times

ACTIVATIONS = ("linear", "relu")


@dataclass(frozen=True, kw_only=True)
class WideRuns:
    """Recorded runs of SGD on wide networks; NaN where a run diverged.

    Attributes
    ----------
    times : array of int, shape (T,)
        The recorded steps: 0, k, 2k, ... and the last.
    u, w : arrays, shape (T, R, h)
        Outer and inner weights of the h neurons.
    """

    times: NDArray[np.int64]
    u: Array
    w: Array

    def __str__(self) -> str:
        """Return the sizes."""
        runs, width = self.u.shape[1:]
        return f"{runs} runs of {int(self.times[-1])} steps on {width} neurons"

    @property
    def log_norms(self) -> Array:
        """The logarithms of (u_i² + w_i²)^½, shape (T, R, h); −∞ for a neuron below 10⁻²⁵⁰."""
        with np.errstate(divide="ignore"):
            return np.log(np.hypot(self.u, self.w))


@check.public()
def wide_runs(
    inputs: ArrayLike,
    targets: ArrayLike,
    u: ArrayLike,
    w: ArrayLike,
    step_size: float,
    method: SGD,
    steps: int,
    *,
    activation: str = "linear",
    record_every: int | None = None,
    rng: int | np.random.Generator | None = None,
) -> WideRuns:
    """Run SGD on ½(Σ_i u_i φ(w_i x) − y)² from many starts at once.

    Source: the linear case is paper B's neuron with any number of units; the rest is ours.

    Parameters
    ----------
    inputs, targets : array, shape (N,)
        The data, drawn uniformly.
    u, w : arrays, shape (R, h)
        Starts of the R runs.
    step_size : float
        η > 0.
    method : SGD
        How batches are drawn.
    steps : int
    activation : str
        "linear" or "relu".
    record_every : int, optional
        Record every so many steps; only the start and the end by default.
    rng : int, numpy.random.Generator or None
        Same seed, same result, on any number of cores.

    Returns
    -------
    WideRuns

    Raises
    ------
    NotImplementedError
        If the method has momentum or weight decay.

    Examples
    --------
    Three neurons fit y = x together; each keeps its share.

    >>> start = [[0.1, 0.2, 0.3]]
    >>> runs = wide_runs([1.0], [1.0], start, start, 0.1, SGD(), 500, rng=0)
    >>> float((runs.u[-1] * runs.w[-1]).sum().round(9)), (runs.u[-1, 0] / runs.u[-1, 0, 0]).round(9)
    (1.0, array([1., 2., 3.]))
    """
    x, y = _data(inputs, targets)
    check.choice("activation", activation, ACTIVATIONS)
    rate = check.step_size(step_size)
    covered_method(method, "wide_runs")
    outer, inner = (check.finite_array(*pair, ndim=2) for pair in (("u", u), ("w", w)))
    if outer.shape != inner.shape:
        raise ValueError(
            f"u and w must have one shape (runs, neurons), got {outer.shape} and {inner.shape}."
        )
    batches, times = method.batches(x.size), recorded_times(steps, record_every)
    # Runs in front, so that each core has its own; moved to their place in the end.
    recorded = np.empty((len(outer), 2, times.size, outer.shape[1]))
    recorded[:, :, 0] = np.stack([outer, inner], axis=1)
    states = stream_states(check.generator(rng), len(outer))
    weights = rate / batches.batch_size * batches.scales
    shared = x, y, activation == "relu", *compiled_drawing(batches), weights, times
    Broadcast(u=(len(outer),)).run(_follow, shared, states, recorded)
    moved = np.ascontiguousarray(np.moveaxis(recorded, 0, 2))
    return WideRuns(times=times, u=moved[0], w=moved[1])


def _data(inputs: ArrayLike, targets: ArrayLike) -> tuple[Array, Array]:
    """Validate scalar data."""
    x, y = (
        check.finite_array(*pair, ndim=1) for pair in (("inputs", inputs), ("targets", targets))
    )
    if x.size != y.size:
        raise ValueError(
            f"targets has length {y.size} but inputs has {x.size}; pass one per sample."
        )
    return x, y


@njit(nogil=True, cache=True)
def _follow(  # type: ignore[no-untyped-def]
    inputs,
    targets,
    relu,
    batch_size,
    subsets,
    advance,
    threshold,
    alias,
    weights,
    times,
    states,
    recorded,
):
    """Iterate u ± |w| (linear: u ± w) of each neuron, and record u and w at `times`."""
    # Neurons that see the same inputs are multiplied by the same factor: 1 − pull of their group
    # for a, 1 + pull for b. A linear layer is one group; of ReLU neurons those with w < 0 are
    # group 1. In these coordinates no small one is lost to the rounding of a large one.
    runs, width = recorded.shape[0], recorded.shape[3]
    a, b = np.zeros(width), np.zeros(width)
    group = np.zeros(width, np.int64)
    slope, pull = np.zeros(2), np.zeros(2)
    for run in range(runs):
        state = states[run]
        permutation, used = np.arange(subsets), 0
        for i in range(width):
            u, w = recorded[run, 0, 0, i], recorded[run, 1, 0, i]
            group[i] = 1 if relu and w < 0.0 else 0
            w = -w if group[i] == 1 else w
            a[i], b[i] = u + w, u - w
        for record in range(1, times.size):
            for _ in range(times[record - 1], times[record]):
                slope[:], pull[:] = 0.0, 0.0
                for i in range(width):
                    slope[group[i]] += 0.25 * (a[i] - b[i]) * (a[i] + b[i])
                rest = permutation[used:]
                if subsets > 0:
                    next_subset(state, rest, batch_size)
                    used = (used + advance) % subsets
                for member in range(batch_size):
                    if subsets > 0:
                        x, y = inputs[rest[member]], targets[rest[member]]
                        weight = weights[rest[member]]
                    else:
                        fresh = next_index(state, threshold, alias)
                        x, y, weight = inputs[fresh], targets[fresh], weights[fresh]
                    seen_by = 0
                    if relu and x < 0.0:
                        x, seen_by = -x, 1
                    error = slope[seen_by] * x - y
                    pull[seen_by] += weight * error * x
                for i in range(width):
                    if relu and a[i] == b[i]:  # w = 0: the neuron sees nothing
                        continue
                    a[i] *= 1.0 - pull[group[i]]
                    b[i] *= 1.0 + pull[group[i]]
                    if abs(a[i]) + abs(b[i]) < EXACT_FLOOR:
                        a[i], b[i] = 0.0, 0.0
                    if relu and a[i] < b[i]:  # w has changed its sign
                        a[i], b[i] = b[i], a[i]
                        group[i] = 1 - group[i]
            for i in range(width):
                w = 0.5 * (a[i] - b[i])
                finite = np.isfinite(a[i]) and np.isfinite(b[i])
                recorded[run, 0, record, i] = 0.5 * (a[i] + b[i]) if finite else np.nan
                recorded[run, 1, record, i] = (-w if group[i] == 1 else w) if finite else np.nan
