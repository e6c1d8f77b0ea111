r"""All step sizes at which a neuron's saddle contracts: every interval, not only the first.

For finite data Λ±(η) = Σ w_m log|1 − ηc_m|, c_m = γ ∓ z_m, is concave in η between the poles 1/c_m,
where it is −∞. So *all* its sign changes can be found, and around every pole there is a sliver of
step sizes at which it is negative. (Our derivation.)
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from stabcore import _validation as check
from stabcore.exponent import Exponent
from stabcore.problems.signals import FiniteSignal, Signal, as_signal
from stabcore.saddles.exponents import DIRECTIONS
from stabcore.sampling import SGD, covered_method
from stabcore.stable_sets import StableSet, intersection, negative_steps, scanned

MOST_POLES = 5_000  # beyond, sign changes are found by a scan

SCAN_POINTS = 1_024


@check.public()
def contracting_steps(
    signal: Signal | ArrayLike,
    direction: str,
    method: SGD = SGD(),
    *,
    upper: float | None = None,
    rng: int | np.random.Generator | None = 0,
) -> StableSet:
    r"""Return all step sizes at which Λ₊ (or Λ₋) is negative, as disjoint intervals.

    For laws with at most 5000 values all sign changes are found, by concavity between the poles.
    Other laws are scanned, at 1024 points equally spaced in log η, and the sign changes refined.
    Where batches are too many to be listed, the ends are statistical: `brackets` are the nearest
    step sizes at which 95 % confidence intervals decide the sign.

    Source: our derivation.

    Parameters
    ----------
    signal : Signal or array, shape (N,)
        The law of xy, or its values.
    direction : str
        "plus" or "minus".
    method : SGD
        How one trains; its weight decay is that of the neuron.
    upper : float, optional
        Largest step size to look at; by default all of them, or for a scan up to where the exponent
        has become positive for good as far as two more doublings show.
    rng : int, numpy.random.Generator or None
        Used where the batches are too many to be listed.

    Returns
    -------
    StableSet

    Raises
    ------
    NotImplementedError
        If the method has momentum.

    Examples
    --------
    >>> print(contracting_steps([1.0, -1.0], "plus"))
    (0, 1.414214)
    """
    check.choice("direction", direction, DIRECTIONS)
    covered_method(method, "contracting_steps", "weight_decay")
    end = math.inf if upper is None else check.step_size(upper, "upper")
    decay, law = method.weight_decay, as_signal(signal).batched(method, rng)
    law.require_single()
    sign = 1 if direction == "plus" else -1
    if isinstance(law, FiniteSignal) and law.values.size <= MOST_POLES:
        found = negative_steps(law.weights, decay - sign * law.values)
        return found if upper is None else found.restricted(0.0, end)
    if law.second_moment == 0:  # no signal: the coordinates shrink by the decay alone
        found = negative_steps(np.ones(1), np.array([decay]))
        return found if upper is None else found.restricted(0.0, end)
    return _scan(law, sign, decay, upper)


@check.public()
def stable_saddle_steps(
    signal: Signal | ArrayLike,
    method: SGD = SGD(),
    *,
    upper: float | None = None,
    rng: int | np.random.Generator | None = 0,
) -> StableSet:
    r"""Return all step sizes at which the saddle attracts (phase III), as disjoint intervals.

    Source: our derivation, for paper B's neuron.

    Parameters
    ----------
    signal, method, upper, rng
        As in `contracting_steps`.

    Returns
    -------
    StableSet
        See `contracting_steps` for what has been searched.

    Examples
    --------
    Labels flipped with probability 0.4:

    >>> print(stable_saddle_steps(FiniteSignal([1.0, -1.0], [0.6, 0.4])))
    (0.3893907, 1.288795)
    """
    covered_method(method, "stable_saddle_steps", "weight_decay")
    plus, minus = (
        contracting_steps(signal, direction, method, upper=upper, rng=rng)
        for direction in DIRECTIONS
    )
    return intersection([plus, minus])


def _scan(law: Signal, sign: int, decay: float, upper: float | None) -> StableSet:
    """Return where the exponent of a law without poles is negative, by a scan of its step sizes."""

    def exponent(eta: float) -> Exponent:
        return law.exponent(1 - eta * decay, sign * eta)

    # Below `low` the second order in η decides, beyond `end` the logarithm of η.
    mean, second = decay - sign * float(law.mean), float(law.second_moment)
    scale = 1 / math.sqrt(second + decay**2)
    low = 1e-3 * min(scale, max(abs(mean) / second, 1e-6 * scale) if mean else scale)
    end = 4 * scale if upper is None else upper
    while upper is None and min(exponent(end * k).value for k in (1, 2, 4)) <= 0:
        end *= 2
    low = min(low, end / 2)
    grid = np.geomspace(low, end, SCAN_POINTS)
    values, errors = law.mean_log(1 - grid * decay, sign * grid)
    found = scanned(exponent, grid, values, np.abs(values) > errors)
    ends = [end for interval in found.intervals for end in interval]
    if ends and ends[0] == grid[0]:
        ends[0] = 0.0
    return replace(found, intervals=tuple(zip(ends[::2], ends[1::2], strict=True)), lower=0.0)
