r"""Saddles: their type, and the exponents that decide whether SGD is attracted by them.

At a saddle of Type I the gradient noise pushes SGD off the escape directions; at one of Type II it
vanishes there. SGD close to it is then a product of random matrices and may be attracted although
the mean loss has a direction of descent. In a single direction, H(x) = h(x) n nᵀ, the saddle
attracts exactly when E log|1 − ηh| < 0 (paper B).

The neuron l = ½(uwx − y)² has its saddle at 0. With m = x(uwx − y),

    (u + w)' = (1 − ηm)(u + w),    (u − w)' = (1 + ηm)(u − w),

so that near 0, where m = −xy, the exponents of u + w and u − w are Λ₊ = E log|1 + ηxy| and
Λ₋ = E log|1 − ηxy|; a batch has the mean of xy, weight decay γ has 1 − ηγ in place of 1. (Our
derivation.)

In general the factors are I − ηH, H the Hessian of a batch's loss, on the span of the ranges of
all H (`saddle_law`): what is orthogonal to it does not move to first order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from stabcore import _validation as check
from stabcore.exponent import Exponent
from stabcore.lyapunov.laws import FiniteLaw
from stabcore.problems.signals import FiniteSignal, Signal, as_signal
from stabcore.sampling import SGD, covered_method

DIRECTIONS = ("plus", "minus")


@check.public()
def saddle_exponents(
    signal: Signal | ArrayLike,
    step_size: float,
    method: SGD = SGD(),
    *,
    rng: int | np.random.Generator | None = 0,
) -> tuple[Exponent, Exponent]:
    r"""Return Λ₊ = E log|1 − ηγ + ηxy| and Λ₋ = E log|1 − ηγ − ηxy| of one neuron's saddle.

    Source: our derivation, for paper B's neuron.

    Parameters
    ----------
    signal : Signal or array, shape (N,)
        The law of xy, or its values.
    step_size : float
        η > 0.
    method : SGD
        How one trains: xy is the mean over a batch, γ the weight decay of the term (γ/2)(u² + w²).
    rng : int, numpy.random.Generator or None
        Used where the batches are too many to be listed; the result is then statistical.

    Returns
    -------
    plus, minus : Exponent
        −∞ where a factor vanishes, η = 1/|x_i y_i|.

    Raises
    ------
    NotImplementedError
        If the method has momentum.

    Examples
    --------
    Labels flipped with probability ½: both are ½ log|1 − η²|, so the saddle attracts below √2.

    >>> import math
    >>> plus, minus = saddle_exponents([1.0, -1.0], 0.5)
    >>> plus.value == minus.value == math.log(0.75) / 2
    True
    """
    eta = check.step_size(step_size)
    covered_method(method, "saddle_exponents", "weight_decay")
    law = as_signal(signal).batched(method, rng)
    offset = 1 - eta * method.weight_decay
    return law.exponent(offset, eta), law.exponent(offset, -eta)


@check.public()
def factor_law(
    signal: Signal | ArrayLike, direction: str, step_size: float, method: SGD = SGD()
) -> FiniteLaw:
    r"""Return the law of the factors 1 − ηγ ± ηxy as 1×1 matrices, for all that `lyapunov` offers.

    With direction "minus" and h in place of xy it is the law of 1 − ηh.

    Source: our derivation.

    Parameters
    ----------
    signal : FiniteSignal or array, shape (N,)
    direction : str
        "plus" (u + w) or "minus" (u − w).
    step_size : float
        η > 0.
    method : SGD
        How one trains, in independent steps: not reshuffled.

    Returns
    -------
    FiniteLaw
        Of dimension 1.

    Raises
    ------
    ValueError
        If the law is not finite, there are too many batches, or they are reshuffled.
    NotImplementedError
        If the method has momentum.

    Examples
    --------
    Kesten's tail index of flipped labels is 1 for η < 1:

    >>> from stabcore.lyapunov import tail_index
    >>> round(tail_index(factor_law([1.0, -1.0], "plus", 0.8)), 12)
    1.0
    """
    eta = check.step_size(step_size)
    covered_method(method, "factor_law", "weight_decay")
    check.choice("direction", direction, DIRECTIONS)
    law = as_signal(signal)
    if not isinstance(law, FiniteSignal):
        raise ValueError(f"signal must have finitely many values, got {law!r}; pass a data set.")
    law.require_single()
    if method.reshuffle:
        raise ValueError(
            "the factors of reshuffled batches are not independent; use a method with "
            "reshuffle=False."
        )
    law = law.batched(method)
    if law.drawn:
        raise ValueError(f"signal has {law.status}.")
    sign = 1 if direction == "plus" else -1
    factors = 1 - eta * method.weight_decay + sign * eta * law.values
    return FiniteLaw(factors[:, None, None], law.weights / law.weights.sum())
