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

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from stabcore import _validation as check
from stabcore import lyapunov
from stabcore._validation import Array
from stabcore.exponent import Exponent
from stabcore.problems import Problem
from stabcore.products import FiniteLaw
from stabcore.sampling import Sampling
from stabcore.signals import FiniteSignal, NormalSignal, Signal, as_signal

DIRECTIONS = ("plus", "minus")
TYPES = ("I", "II", "undecided")
MOST_BATCHES = 20_000


def saddle_exponents(
    signal: Signal | ArrayLike,
    probabilities: ArrayLike | None = None,
    step_size: float | None = None,
    batch_size: int = 1,
    weight_decay: float = 0.0,
    *,
    replacement: bool | None = None,
    rng: int | np.random.Generator | None = 0,
) -> tuple[Exponent, Exponent]:
    r"""Return Λ₊ = E log|1 − ηγ + ηxy| and Λ₋ = E log|1 − ηγ − ηxy| of one neuron's saddle.

    Source: our derivation, for paper B's neuron.

    Parameters
    ----------
    signal : Signal or array, shape (N,)
        The law of xy, or its values.
    probabilities : array, shape (N,), optional
        Of the values; uniform by default.
    step_size : float
        η > 0; must be given.
    batch_size : int
        B; xy is then the mean over a batch.
    weight_decay : float
        γ ≥ 0, of the term (γ/2)(u² + w²).
    replacement : bool, optional
        As in `Sampling`.
    rng : int, numpy.random.Generator or None
        Used where the batches are too many to be listed; the result is then statistical.

    Returns
    -------
    plus, minus : Exponent
        −∞ where a factor vanishes, η = 1/|x_i y_i|.

    Raises
    ------
    ValueError
        If an argument is invalid; the message names it.
    TypeError
        If `step_size` is missing or no number.

    Examples
    --------
    Labels flipped with probability ½: both are ½ log|1 − η²|, so the saddle attracts below √2.

    >>> plus, minus = saddle_exponents([1.0, -1.0], step_size=0.5)
    >>> plus.value == minus.value == math.log(0.75) / 2
    True
    """
    eta = check.step_size(step_size)
    decay = non_negative("weight_decay", weight_decay)
    law = as_signal(signal, probabilities).batched(batch_size, replacement, rng)
    offset = 1 - eta * decay
    return law.exponent(offset, eta), law.exponent(offset, -eta)


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


def factor_law(
    signal: Signal | ArrayLike,
    direction: str,
    step_size: float,
    probabilities: ArrayLike | None = None,
    batch_size: int = 1,
    weight_decay: float = 0.0,
    *,
    replacement: bool | None = None,
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
    probabilities : array, shape (N,), optional
    batch_size : int
        B.
    weight_decay : float
        γ ≥ 0.
    replacement : bool, optional
        As in `Sampling`.

    Returns
    -------
    FiniteLaw
        Of dimension 1.

    Raises
    ------
    ValueError
        If an argument is invalid, the law is not finite, or there are too many batches.

    Examples
    --------
    Kesten's tail index of flipped labels is 1 for η < 1:

    >>> round(lyapunov.tail_index(factor_law([1.0, -1.0], "plus", 0.8)), 12)
    1.0
    """
    eta = check.step_size(step_size)
    decay = non_negative("weight_decay", weight_decay)
    check.choice("direction", direction, DIRECTIONS)
    law = as_signal(signal, probabilities)
    if not isinstance(law, FiniteSignal):
        raise ValueError(f"signal must have finitely many values, got {law!r}; pass a data set.")
    law.require_single()
    law = law.batched(batch_size, replacement)
    if law.drawn:
        raise ValueError(f"signal has {law.status}.")
    sign = 1 if direction == "plus" else -1
    factors = 1 - eta * decay + sign * eta * law.values
    return FiniteLaw(factors[:, None, None], law.weights / law.weights.sum())


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
        return lyapunov.tail_index(factors)
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


@dataclass(frozen=True, kw_only=True)
class SaddleType:
    """What kind of saddle a point is.

    Attributes
    ----------
    kind : str
        "I" (gradient noise in an escape direction), "II" (none in any of them) or "undecided"
        (no direction of negative curvature, but flat ones: the second order does not tell).
    eigenvalues : array, shape (D,)
        Of Hess L, ascending.
    directions : array, shape (E, D)
        The escape directions v, one per negative eigenvalue, orthonormal.
    noise : array, shape (E,)
        The standard deviation (Σ p_i (φ_i g_i·v)²)^½ of the gradient along each.
    gradient_norm : float
        |∇L|.
    tolerance : float
        The noise, an eigenvalue and |∇L| up to this much count as zero (see `saddle_type`).
    """

    kind: str
    eigenvalues: Array
    directions: Array
    noise: Array
    gradient_norm: float
    tolerance: float


def saddle_type(problem: Problem, point: ArrayLike, *, tolerance: float = 1e-8) -> SaddleType:
    r"""Tell a Type I saddle from a Type II saddle by the gradient noise in its escape directions.

    The directions are the eigenvectors of Hess L with negative eigenvalues; the noise along v is
    Σ p_i (φ_i g_i·v)², the variance of a sample's gradient since their mean ∇L is zero.

    Source: paper B (the types); the numerical test is ours.

    Parameters
    ----------
    problem : Problem
        One that defines its Hessian (`residual_curvature`).
    point : array, shape (D,)
    tolerance : float
        Relative to (2L)^½ max(1, max_i |g_i|) for gradients, and to the largest entry of a sample's
        Hessian for curvatures.

    Returns
    -------
    SaddleType

    Raises
    ------
    ValueError
        If the point is not critical, or is a minimum, or an argument is invalid.

    Examples
    --------
    >>> from stabcore.problems import OneNeuron
    >>> saddle_type(OneNeuron([1.0, 1.0], [2.0, -1.0]), [0.0, 0.0]).kind
    'II'
    """
    relative = check.real("tolerance", tolerance, above=0.0)
    theta = _one_point(problem, point)
    residuals, jacobian = problem.residuals(theta), problem.jacobian(theta)
    largest = max(1.0, float(np.linalg.norm(jacobian, axis=-1).max()))
    threshold = relative * largest * math.sqrt(2 * float(problem.loss(theta)))
    slope = float(np.linalg.norm(problem.gradient(theta)))
    if slope > threshold:
        raise ValueError(
            f"point is not critical: |∇L| = {slope:.3g} is above {threshold:.3g}; refine it, or "
            "raise tolerance."
        )
    eigenvalues, vectors = np.linalg.eigh(problem.hessian(theta))
    flat = relative * float(np.abs(_sample_hessians(problem, theta)).max())
    loss = float(problem.loss(theta))
    if eigenvalues[0] > flat or math.sqrt(2 * loss) <= relative:
        raise ValueError(
            f"point is a minimum: its loss is {loss:.3g} and its smallest curvature "
            f"{eigenvalues[0]:.3g}; a saddle has a negative one."
        )
    directions = vectors.T[eigenvalues < -flat]
    noise = np.sqrt(problem.probabilities @ (residuals[:, None] * (jacobian @ directions.T)) ** 2)
    kind = "undecided"
    if len(directions):
        kind = "I" if (noise > threshold).any() else "II"
    return SaddleType(
        kind=kind,
        eigenvalues=eigenvalues,
        directions=directions,
        noise=noise,
        gradient_norm=slope,
        tolerance=threshold,
    )


def saddle_law(
    problem: Problem,
    point: ArrayLike,
    step_size: float,
    batch_size: int = 1,
    *,
    replacement: bool | None = None,
    tolerance: float = 1e-10,
) -> FiniteLaw:
    r"""Return the law of the factors I − ηH of SGD linearised at a point, H = g gᵀ + φ∇²φ.

    H is the Hessian of one sample's loss, or its mean over a batch. The factors act on the span of
    the ranges of all H; on what is orthogonal to it each of them is the identity, whose exponent 0
    would hide a negative one. At a saddle where every sample's gradient vanishes SGD near it is a
    product of these factors, which it leaves or not by the sign of their exponent.

    Source: paper B (dynamics at a saddle of Type II); the restriction to the span is ours.

    Parameters
    ----------
    problem : Problem
        One that defines `residual_curvature`.
    point : array, shape (D,)
    step_size : float
        η > 0.
    batch_size : int
        B.
    replacement : bool, optional
        As in `Sampling`.
    tolerance : float
        Relative size below which a direction counts as one in which nothing moves.

    Returns
    -------
    FiniteLaw
        Of dimension at most D, one factor per batch.

    Raises
    ------
    ValueError
        If an argument is invalid, every H is zero, or there are more than 20,000 batches.

    Examples
    --------
    Two uncoupled copies of the neuron that `saddle_exponents` knows, 2 × 2 each:

    >>> from stabcore import DiagonalLinearNetwork
    >>> network = DiagonalLinearNetwork([[1.0, 1.0]], [1.0, 1.0])
    >>> law = saddle_law(network, np.zeros(4), 0.5)
    >>> law.dimension, round(lyapunov.lyapunov_exponent(law).value - math.log(2), 12)
    (4, 0.0)
    """
    eta = check.step_size(step_size)
    relative = check.real("tolerance", tolerance, above=0.0)
    theta = _one_point(problem, point)
    sampling = Sampling(problem.n_samples, batch_size, problem.probabilities, replacement)
    if sampling.count > MOST_BATCHES:
        raise ValueError(
            f"batch_size {batch_size} makes {sampling.count:,} different batches, more than "
            f"{MOST_BATCHES:,}; use smaller batches or fewer samples."
        )
    hessians = _sample_hessians(problem, theta)
    _, singular, rows = np.linalg.svd(hessians.reshape(-1, theta.size), full_matrices=False)
    if singular[0] == 0:
        raise ValueError(
            "point is flat: every sample's Hessian is zero there, and nothing moves to first order."
        )
    span = rows[singular > relative * singular[0]]
    if len(span) == theta.size:
        span = np.eye(theta.size)  # everything moves: keep the coordinates of the problem
    reduced = span @ hessians @ span.T
    batches, weights = sampling.all_batches()
    means = reduced[batches].mean(axis=1)
    return FiniteLaw(np.eye(len(span)) - eta * means, weights / weights.sum())


def escape_times(
    problem: Problem,
    saddle: ArrayLike,
    starts: ArrayLike,
    step_size: float,
    radius: float,
    steps: int,
    *,
    batch_size: int = 1,
    replacement: bool | None = None,
    rng: int | np.random.Generator | None = None,
) -> Array:
    r"""Run SGD from each start until |θ − saddle| ≥ radius; return the number of steps it took.

    With Λ > 0 and no gradient noise at the saddle the mean grows like log(radius/|θ₀ − saddle|)/Λ;
    with gradient noise it stays finite as θ₀ tends to the saddle. (Our derivation.)

    Source: our derivation.

    Parameters
    ----------
    problem : Problem
    saddle : array, shape (D,)
    starts : array, shape (R, D)
        One per run; equal rows are fine, the batches differ.
    step_size : float
        η > 0.
    radius : float
        Positive.
    steps : int
        Most steps per run.
    batch_size : int
        B.
    replacement : bool, optional
        As in `Sampling`.
    rng : int, numpy.random.Generator or None

    Returns
    -------
    array, shape (R,)
        ∞ for a run that was still inside after `steps` steps.

    Raises
    ------
    ValueError
        If an argument is invalid; the message names it.

    Examples
    --------
    One neuron on (x, y) = (1, 1): u + w doubles at η = 1, until 2¹⁰ ε = 0.1024 √2 is outside.

    >>> from stabcore.problems import OneNeuron
    >>> escape_times(OneNeuron([1.0], [1.0]), [0, 0], [[1e-4, 1e-4]], 1.0, 0.14, 50, rng=0)
    array([10.])
    """
    eta = check.step_size(step_size)
    edge = check.real("radius", radius, above=0.0)
    limit = check.integer("steps", steps)
    centre = _one_point(problem, saddle, "saddle")
    theta = check.finite_array("starts", starts, ndim=2).copy()
    if theta.shape[1] != centre.size:
        raise ValueError(f"starts must have shape (runs, {centre.size}), got {theta.shape}.")
    generator = check.generator(rng)
    sampling = Sampling(problem.n_samples, batch_size, problem.probabilities, replacement)
    times = np.full(len(theta), np.inf)
    for step in range(limit + 1):
        outside = ~(np.linalg.norm(theta - centre, axis=1) < edge)
        times[outside & np.isinf(times)] = step
        theta[outside] = centre  # these runs are over; there nothing overflows
        if step == limit or np.isfinite(times).all():
            break
        theta = theta - eta * problem.batch_gradient(theta, sampling.draw(len(theta), generator))
    return times


def _one_point(problem: Problem, point: ArrayLike, name: str = "point") -> Array:
    """Return `point` as parameters of `problem`, shape (D,)."""
    check.instance("problem", problem, Problem)
    theta = check.parameters(name, point, problem.n_parameters)
    if theta.ndim != 1:
        raise ValueError(f"{name} must have 1 dimension, got shape {theta.shape}; pass one point.")
    return theta


def _sample_hessians(problem: Problem, theta: Array) -> Array:
    """Return g_i g_iᵀ + φ_i ∇²φ_i, the Hessian of every sample's loss, shape (N, D, D)."""
    jacobian, weights = problem.jacobian(theta), np.diag(problem.residuals(theta))
    bend = [problem.residual_curvature(theta, one_sample) for one_sample in weights]
    return jacobian[:, :, None] * jacobian[:, None, :] + np.array(bend)


def non_negative(name: str, value: float) -> float:
    """Return `value` as a finite float that is at least 0."""
    number = check.real(name, value)
    if number < 0:
        raise ValueError(f"{name} must be at least 0, got {number!r}; choose another value.")
    return number
