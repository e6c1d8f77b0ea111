r"""The exact law of a neuron's fate after finitely many steps, for flipped labels.

Close to the saddle of ½(uwx − y)² with x = 1 and y = ±1 the coordinates after n steps depend on
the *number* k of flipped labels only, not on their order (1 − ηγ is the weight decay's factor):

    log|u + w| − log(start) = (n − k) log|1 − ηγ + η| + k log|1 − ηγ − η|,

and log|u − w| with the roles exchanged. So the law of the fates is a sum over k, carried from step
to step and absorbed where a coordinate vanishes or leaves the neighbourhood. It says how far a
simulation of n steps may differ from the phases, which speak of n → ∞. (Our derivation.)
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import ArrayLike

from stabcore import _validation as check
from stabcore._random import run_replicas
from stabcore._validation import Array
from stabcore.problems.models import NeuronFate
from stabcore.sampling import SGD, covered_method

NEGLIGIBLE = 1e-25  # probability at the edges of the range of k that is dropped

UNDECIDED, CORRECT, INCORRECT, ORIGIN, DIVERGENT = (int(fate) for fate in NeuronFate)


@check.public()
def label_flip_fates(
    flip_probability: ArrayLike,
    step_size: ArrayLike,
    method: SGD,
    steps: int,
    *,
    start: float,
    floor: float,
    radius: float,
) -> Array:
    r"""Return the probabilities of the fates of `neuron_runs` on `LabelFlips`, batches of one.

    The runs start at |u + w| = |u − w| = `start` and are followed inside the radius. Cubic terms,
    of relative size η·radius², are neglected.

    Source: our derivation.

    Parameters
    ----------
    flip_probability : array
        f in [0, 1].
    step_size : array
        η > 0; broadcasts with the others.
    method : SGD
        With batches of one; its weight decay is that of the neuron.
    steps : int
        Most steps per run.
    start, floor, radius : float
        floor < start < radius < 10⁻³; floor and radius as in `neuron_runs`.

    Returns
    -------
    array, shape (..., 5)
        Along the last axis the probabilities of the values of `NeuronFate`.

    Raises
    ------
    ValueError
        If the batches are larger than one.
    NotImplementedError
        If the method has momentum.

    Examples
    --------
    Without flips u + w grows by 1 + η and u − w shrinks by 1 − η until u + w leaves:

    >>> law = label_flip_fates(0.0, 0.5, SGD(), 50, start=1e-20, floor=1e-40, radius=1e-15)
    >>> float(law[NeuronFate.CORRECT])
    1.0
    """
    flips = check.finite_array("flip_probability", flip_probability)
    rates = check.finite_array("step_size", step_size)
    covered_method(method, "label_flip_fates", "weight_decay")
    if method != SGD(weight_decay=method.weight_decay):
        raise ValueError(
            f"method is {method}, but the law is known for single fresh labels only; pass "
            "SGD(weight_decay=...) and nothing else."
        )
    if ((flips < 0) | (flips > 1)).any():
        raise ValueError(f"flip_probability must be between 0 and 1, got {flips}.")
    if (rates <= 0).any():
        raise ValueError(f"step_size must be positive, got a smallest of {rates.min():g}.")
    limit = check.integer("steps", steps)
    outer = check.real("radius", radius, above=0.0, below=1e-3)
    first = check.real("start", start, above=0.0, below=outer)
    low = math.log(check.real("floor", floor, above=0.0, below=first) / first)
    high = math.log(outer / first)
    flips, rates = np.broadcast_arrays(flips, rates)
    keep = 1 - rates * method.weight_decay
    with np.errstate(divide="ignore"):
        logs = np.stack([np.log(np.abs(keep + rates)), np.log(np.abs(keep - rates))], axis=-1)
    chances, pairs = flips.reshape(-1), logs.reshape(-1, 2)
    fates = np.zeros((chances.size, len(NeuronFate)))

    def carry(part: slice) -> None:
        _carry(chances[part], pairs[part], limit, low, high, fates[part])

    run_replicas(carry, chances.size)
    wrong = chances > 0.5  # E[xy] < 0: u − w is the right direction
    fates[wrong] = fates[wrong][:, [UNDECIDED, INCORRECT, CORRECT, ORIGIN, DIVERGENT]]
    return fates.reshape(*flips.shape, len(NeuronFate))


@njit(nogil=True, cache=True)
def _sum_of_logs(kept, flipped, first, second):  # type: ignore[no-untyped-def]
    """Return kept·first + flipped·second, where 0·(−∞) is 0."""
    total = 0.0
    if kept > 0:
        total += kept * first
    if flipped > 0:
        total += flipped * second
    return total


@njit(nogil=True, cache=True)
def _carry(chances, pairs, limit, low, high, fates):  # type: ignore[no-untyped-def]
    """Carry the law of k from step to step and collect what is absorbed."""
    for cell in range(chances.size):
        f, up, down, fate = chances[cell], pairs[cell, 0], pairs[cell, 1], fates[cell]
        # The probability of k flips while both coordinates live, only u + w, only u − w.
        alive = np.zeros((3, limit + 1))
        alive[0, 0] = 1.0
        first, last = 0, 0
        for step in range(1, limit + 1):
            last += 1
            for k in range(last, first - 1, -1):
                plus = _sum_of_logs(step - k, k, up, down)
                minus = _sum_of_logs(step - k, k, down, up)
                moved = np.zeros(3)
                for state in range(3):
                    moved[state] = (1 - f) * alive[state, k]
                    if k > first:
                        moved[state] += f * alive[state, k - 1]
                    alive[state, k] = 0.0
                both, only_plus, only_minus = moved
                if plus >= high or minus >= high:
                    other = min(plus, minus)
                    if other >= 0:
                        fate[DIVERGENT] += both
                    else:
                        fate[CORRECT if plus > minus else INCORRECT] += both
                elif plus < low and minus < low:
                    fate[ORIGIN] += both
                elif plus < low:
                    only_minus += both
                elif minus < low:
                    only_plus += both
                else:
                    alive[0, k] = both
                if plus >= high:
                    fate[CORRECT] += only_plus
                elif plus < low:
                    fate[ORIGIN] += only_plus
                else:
                    alive[1, k] = only_plus
                if minus >= high:
                    fate[INCORRECT] += only_minus
                elif minus < low:
                    fate[ORIGIN] += only_minus
                else:
                    alive[2, k] = only_minus
            while first < last and alive[:, first].sum() < NEGLIGIBLE:
                alive[:, first] = 0.0
                first += 1
            while last > first and alive[:, last].sum() < NEGLIGIBLE:
                alive[:, last] = 0.0
                last -= 1
            if first == last and alive[:, first].sum() < NEGLIGIBLE:
                break
        fate[UNDECIDED] = alive.sum()
