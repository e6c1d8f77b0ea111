"""The saddles of wider models: a hidden layer of neurons, and the directions of a noisy matrix."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from stabcore import _validation as check
from stabcore._validation import Array
from stabcore.lyapunov.laws import FiniteLaw
from stabcore.problems.signals import FiniteSignal, LabelFlips
from stabcore.sampling import SGD, covered_method


@check.public()
def relu_signal(inputs: ArrayLike, targets: ArrayLike, side: int) -> FiniteSignal:
    """Return the signal of the ReLU neurons whose w has the sign `side`: y|x| where they see x.

    Source: our derivation.

    Parameters
    ----------
    inputs, targets : array, shape (N,)
    side : int
        1 or −1.

    Returns
    -------
    FiniteSignal

    Raises
    ------
    ValueError
        If the shapes do not fit together or `side` is neither 1 nor −1.

    Examples
    --------
    >>> relu_signal([2.0, -3.0], [1.0, 1.0], -1).values
    array([0., 3.])
    """
    x = check.finite_array("inputs", inputs, ndim=1)
    y = check.finite_array("targets", targets, ndim=1)
    if x.size != y.size:
        raise ValueError(
            f"targets has length {y.size} but inputs has {x.size}; pass one per sample."
        )
    if side not in (1, -1):
        raise ValueError(f"side must be 1 or -1, got {side!r}.")
    seen = np.maximum(side * x, 0.0)
    return FiniteSignal.from_data(seen, y)


@check.public()
def feature_saddle_law(
    inputs: ArrayLike,
    targets: ArrayLike,
    step_size: float,
    *,
    data_probabilities: ArrayLike | None = None,
) -> FiniteLaw:
    r"""Return the factors A = I + ηy [0 xᵀ; x 0] that act on every neuron (u, w) near the saddle.

    This is for inputs of q features, f(x) = Σ_i u_i φ(w_i·x) with φ(z) = z + o(z), batches of one.
    The largest exponent of the law decides whether the saddle attracts.

    Source: our derivation.

    Parameters
    ----------
    inputs : array, shape (N, q)
    targets : array, shape (N,)
    step_size : float
        η > 0.
    data_probabilities : array, shape (N,), optional
        Of the samples; uniform by default.

    Returns
    -------
    FiniteLaw
        Of dimension q + 1.

    Examples
    --------
    >>> feature_saddle_law([[2.0]], [1.0], 0.25).matrices
    array([[[1. , 0.5],
            [0.5, 1. ]]])
    """
    x = check.finite_array("inputs", inputs, ndim=2)
    y = check.finite_array("targets", targets, ndim=1)
    if len(x) != y.size:
        raise ValueError(
            f"targets has length {y.size} but inputs has {len(x)} rows; pass one per sample."
        )
    matrices = np.zeros((len(x), x.shape[1] + 1, x.shape[1] + 1))
    matrices[:, 0, 1:] = matrices[:, 1:, 0] = check.step_size(step_size) * y[:, None] * x
    return FiniteLaw(matrices + np.eye(x.shape[1] + 1), data_probabilities)


@check.public()
def direction_exponents(
    strengths: ArrayLike, noise: ArrayLike, step_size: ArrayLike, method: SGD = SGD()
) -> tuple[Array, Array]:
    r"""Return E log|1 + ηz_k| and E log|1 − ηz_k| of every singular direction k.

    A direction dies when both are negative: the predicted rank is the number of the others.

    Source: our derivation.

    Parameters
    ----------
    strengths : array, shape (d,)
        The singular values s_k.
    noise, step_size : arrays
        σ ≥ 0 and η > 0; they broadcast.
    method : SGD
        Of which only the batch size has a meaning: every observation is new.

    Returns
    -------
    plus, minus : arrays, shape (..., d)
        −∞ where a factor vanishes.

    Raises
    ------
    NotImplementedError
        If the method has momentum or weight decay.

    Examples
    --------
    Noise only, η = σ = ½: both are ½ log(1 − η²σ²).

    >>> import math
    >>> plus, minus = direction_exponents([0.0], 0.5, 0.5)
    >>> abs(float(plus[0]) - math.log(15 / 16) / 2) < 1e-15, bool(plus == minus)
    (True, True)
    """
    values = check.finite_array("strengths", strengths, ndim=1)
    deviation, rate = check.finite_array("noise", noise), check.finite_array("step_size", step_size)
    if (deviation < 0).any() or (rate <= 0).any():
        raise ValueError(
            "noise must be at least 0 and step_size positive, got a smallest noise of "
            f"{deviation.min():g} and a smallest step_size of {rate.min():g}."
        )
    covered_method(method, "direction_exponents")
    law = LabelFlips(0.5).batched(method)
    signal, spread = rate[..., None] * values, (rate * deviation)[..., None]
    return law.mean_log(1 + signal, spread)[0], law.mean_log(1 - signal, spread)[0]
