"""A saddle with one direction that moves, H(x) = h(x) n nᵀ: when SGD is attracted along it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from stabcore import _validation as check
from stabcore.exponent import Exponent
from stabcore.lyapunov.moments import tail_index
from stabcore.problems.signals import NormalSignal, Signal, as_signal
from stabcore.saddles.exponents import factor_law


def rank_one_exponent(
    curvature: Signal | ArrayLike,
    step_size: float,
    probabilities: ArrayLike | None = None,
    batch_size: int = 1,
    *,
    replacement: bool | None = None,
    rng: int | np.random.Generator | None = 0,
) -> Exponent:
    r"""Return E log|1 − ηh|: SGD converges in probability along h n nᵀ exactly when it is negative.

    Source: paper B.

    Parameters
    ----------
    curvature : Signal or array, shape (N,)
        The law of h, or its values.
    step_size : float
        η > 0.
    probabilities : array, shape (N,), optional
        Of the values; uniform by default.
    batch_size : int
        B; h is then the mean over a batch.
    replacement : bool, optional
        As in `Sampling`.
    rng : int, numpy.random.Generator or None
        Used where the batches are too many to be listed.

    Returns
    -------
    Exponent

    Raises
    ------
    ValueError
        If an argument is invalid; the message names it.

    Examples
    --------
    A strict saddle, E h = −½, that attracts:

    >>> rank_one_exponent([1.0, -2.0], 0.9).sign
    -1
    """
    eta = check.step_size(step_size)
    return (
        as_signal(curvature, probabilities)
        .batched(batch_size, replacement, rng)
        .exponent(1.0, -eta)
    )


def second_order_step(
    curvature: Signal | ArrayLike,
    probabilities: ArrayLike | None = None,
    batch_size: int = 1,
    *,
    replacement: bool | None = None,
    rng: int | np.random.Generator | None = 0,
) -> float:
    r"""Return −2E[h]/E[h²], above which a saddle attracts to second order in η.

    log|1 − ηh| = −ηh − η²h²/2 + O(η³): a condition for small signal-to-noise ratio only, to be
    compared with the exact `rank_one_exponent`.

    Source: paper B.

    Parameters
    ----------
    curvature : Signal or array, shape (N,)
        The law of h, or its values, with E h < 0.
    probabilities : array, shape (N,), optional
        Of the values; uniform by default.
    batch_size : int
        B.
    replacement : bool, optional
        As in `Sampling`.
    rng : int, numpy.random.Generator or None
        Used where the batches are too many to be listed.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If E h ≥ 0 (no direction of escape), or an argument is invalid.

    Examples
    --------
    >>> second_order_step([1.0, -2.0])
    0.4
    """
    law = as_signal(curvature, probabilities).batched(batch_size, replacement, rng)
    law.require_single()
    if law.mean >= 0:
        raise ValueError(
            f"curvature must have a negative mean, got {float(law.mean):g}: SGD does not escape "
            "along a direction whose loss rises on average."
        )
    return float(-2 * law.mean / law.second_moment)


def rank_one_tail_index(
    curvature: Signal | ArrayLike,
    step_size: float,
    probabilities: ArrayLike | None = None,
    batch_size: int = 1,
    *,
    replacement: bool | None = None,
) -> float:
    r"""Return the q > 0 with E|1 − ηh|^q = 1: the moments of order below q converge, above grow.

    A strict saddle that attracts has q < 1, because E|1 − ηh| ≥ 1 − ηE h > 1.

    Source: Kesten 1973; the saddle's q < 1 is paper B's remark that no L_p norm with p ≥ 1
    converges.

    Parameters
    ----------
    curvature : FiniteSignal, NormalSignal or array, shape (N,)
        The law of h, or its values, with E log|1 − ηh| < 0.
    step_size : float
        η > 0.
    probabilities : array, shape (N,), optional
        Of the values; uniform by default.
    batch_size : int
        B.
    replacement : bool, optional
        As in `Sampling`.

    Returns
    -------
    float
        ∞ when no factor expands.

    Raises
    ------
    ValueError
        If the exponent is not negative, or the law has no moments that are known here.

    Examples
    --------
    >>> round(rank_one_tail_index([1.0, -1.0], 0.5), 12)
    1.0
    """
    law = as_signal(curvature, probabilities)
    if not isinstance(law, NormalSignal):
        factors = factor_law(law, "minus", step_size, None, batch_size, replacement=replacement)
        return tail_index(factors)
    eta = check.step_size(step_size)
    law = law.batched(batch_size, replacement)
    exponent = law.exponent(1.0, -eta)
    if exponent.sign != -1:
        raise ValueError(
            f"the tail index needs E log|1 − ηh| < 0, got {exponent}; choose another step_size."
        )

    def moment(q: float) -> float:
        return float(law.log_moment(q, 1.0, -eta))

    high = 1.0
    while moment(high) <= 0:
        high *= 2
    low = high / 2
    while moment(low) >= 0:
        low /= 2
    return float(brentq(moment, low, high, xtol=1e-14))
