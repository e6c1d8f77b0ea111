"""A saddle with one direction that moves, H(x) = h(x) n nᵀ: when SGD is attracted along it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from stabcore import _validation as check
from stabcore.exponent import Exponent
from stabcore.lyapunov.moments import tail_index
from stabcore.problems.normal_signals import NormalSignal
from stabcore.problems.signals import Signal, as_signal
from stabcore.saddles.exponents import factor_law
from stabcore.sampling import SGD, covered_method


@check.public()
def rank_one_exponent(
    curvature: Signal | ArrayLike,
    step_size: float,
    method: SGD = SGD(),
    *,
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
    method : SGD
        How batches are drawn; h is the mean over a batch.
    rng : int, numpy.random.Generator or None
        Used where the batches are too many to be listed.

    Returns
    -------
    Exponent

    Raises
    ------
    NotImplementedError
        If the method has momentum or weight decay.

    Examples
    --------
    A strict saddle, E h = −½, that attracts:

    >>> rank_one_exponent([1.0, -2.0], 0.9).sign
    -1
    """
    eta = check.step_size(step_size)
    covered_method(method, "rank_one_exponent")
    return as_signal(curvature).batched(method, rng).exponent(1.0, -eta)


@check.public()
def second_order_step(
    curvature: Signal | ArrayLike,
    method: SGD = SGD(),
    *,
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
    method : SGD
        How batches are drawn; h is the mean over a batch.
    rng : int, numpy.random.Generator or None
        Used where the batches are too many to be listed.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If E h ≥ 0 (no direction of escape).
    NotImplementedError
        If the method has momentum or weight decay.

    Examples
    --------
    >>> second_order_step([1.0, -2.0])
    0.4
    """
    covered_method(method, "second_order_step")
    law = as_signal(curvature).batched(method, rng)
    law.require_single()
    if law.mean >= 0:
        raise ValueError(
            f"curvature must have a negative mean, got {float(law.mean):g}: SGD does not escape "
            "along a direction whose loss rises on average."
        )
    return float(-2 * law.mean / law.second_moment)


@check.public()
def rank_one_tail_index(
    curvature: Signal | ArrayLike,
    step_size: float,
    method: SGD = SGD(),
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
    method : SGD
        How batches are drawn; h is the mean over a batch.

    Returns
    -------
    float
        ∞ when no factor expands.

    Raises
    ------
    ValueError
        If the exponent is not negative, or the law has no moments that are known here.
    NotImplementedError
        If the method has momentum or weight decay.

    Examples
    --------
    >>> round(rank_one_tail_index([1.0, -1.0], 0.5), 12)
    1.0
    """
    covered_method(method, "rank_one_tail_index")
    law, eta = as_signal(curvature), check.step_size(step_size)
    if not isinstance(law, NormalSignal):
        return tail_index(factor_law(law, "minus", eta, method))
    law = law.batched(method)
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
