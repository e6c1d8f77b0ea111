r"""The exponent of any law in any dimension, by following many independent products.

Each replica carries one vector through its own random product; the logarithm of the vector's
growth per step, after a transient is discarded, estimates the exponent, and independent replicas
give an honest standard error. What remains is the bias of a run too short to forget its start.
It is measured: some products are run again from another start, with the same factors. Once both
vectors have turned into the same direction they grow alike, so that any difference in growth is
the start's doing; it widens the interval, and a run that it dominates is not trusted.

For SGD the vector is the residual r and a step is r ← r − (η/B) Σ_{i∈S} r_i K[:, i]. Two facts
make it fast: the residuals that the next few batches will read can be computed ahead from a few
entries of K, so that eight rows of K are applied in one pass over r; and r stays in the cache.
Where K is singular the residual coordinates have conserved directions in which rounding errors
would survive (and, at a stable minimum, win); there the vector lives in the normal space itself.

The same products can carry a frame of k vectors, orthonormalised as it goes: the k leading
exponents, `lyapunov_spectrum`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import stats

from stabcore import _validation as check
from stabcore._random import States, next_index, next_subset, run_replicas, stream_states
from stabcore._validation import Array
from stabcore.exponent import Exponent, ExponentWarning
from stabcore.products import AnyLaw, FiniteLaw, Law, SampledLaw, SGDLaw, require_law

CONFIDENCE = 0.95
SHADOWS = 8  # products that are run again from another start
# A vector is renormalised before it can have become shorter or longer by this many digits.
RENORMALISE_DIGITS = 256
UNFORGOTTEN = 4.0  # how much further than two starts from each other the truth may be from both
ROWS = 8  # rows of the kernel applied in one pass over a vector
FAR_OUT = 4.0  # standard deviations beyond which a run is not stationary
ROUNDING = 1e-12  # of a growth rate, relative to 1 + |rate|
LONGEST = 256  # the default of max_steps / steps
REPLICAS_PER_CONTROL = 4  # so that estimating the coefficients costs at most a third more variance
BLOCK = 2**16  # numbers drawn at a time
# A frame is orthonormalised before its vectors can have turned so close to each other that this
# many digits of their differences are lost, and at least every FRAME_STEPS steps. A vector of which
# less than LOST is left has no digits left: it is lost.
FRAME_DIGITS, FRAME_STEPS, LOST = 4.0, 16, 1e-14

Streams = States | list[np.random.Generator]


def monte_carlo(
    law: AnyLaw,
    rng: int | np.random.Generator | None = None,
    *,
    steps: int = 20_000,
    replicas: int = 32,
    transient: int | None = None,
    standard_error: float | None = None,
    decide_sign: float | None = None,
    max_steps: int | None = None,
    control_variates: bool = False,
) -> Exponent:
    r"""Return the top exponent of `law` from independent random products.

    Each of `replicas` products runs for `transient` steps, which are discarded, and then for
    `steps` steps. The estimate is the mean over replicas of (1/steps) log(growth). Its interval is
    the 95 % Student interval, widened by the measured influence of the start. The run is not
    trusted (`status`, and an `ExponentWarning`) when that influence exceeds the statistical error
    or the growth rate drifts between the two halves: it is then too short.

    With `standard_error` or `decide_sign` that is only the first round. Each further round
    continues the same products until they are twice as long (and, unless `transient` is given,
    discards twice as much), and the run stops after the first round that is trusted and has
    reached the requested error or decided the sign; at `max_steps` it stops in any case, and says
    so if it has reached neither.

    *The sign.* Looking at a 95 % interval again and again until it excludes 0 would call the sign
    of an exponent 0 sooner or later. So the interval of round k has level 1 − α_k with
    α_k = 6α/(π²k²), α = `decide_sign`. As Σ α_k = α, all of them together contain λ with
    probability at least 1 − α, whatever the dependence between rounds; on that event every
    interval that excludes 0 lies on the side of λ, and no interval excludes 0 if λ = 0. Hence the
    sign is wrong with probability at most α at whichever round the run stops, and the interval
    that is returned, the one of that round, covers λ with probability at least 1 − α. What it
    assumes is what the run of fixed length assumes: nearly normal growth rates of the replicas, and
    a start whose influence is not larger than measured.

    *Control variates.* The frequencies f_i with which a replica drew the samples (or factors) have
    the known means p_i. The rates are regressed on f_i − p_i over the replicas, and the interval is
    that of the constant term, with the degrees of freedom that are left. This removes what chance
    in the frequencies contributes: for three samples often more than half of the variance, for a
    large data set too little to be worth N coefficients.

    Source: the definition of λ (papers A and D); Darling & Robbins 1967 for tests that may stop at
    any time; Glynn & Szechtman 2002 for control variates.

    Parameters
    ----------
    law : FiniteLaw, SGDLaw or SampledLaw
    rng : int, numpy.random.Generator or None
        Same seed, same result, on any number of cores.
    steps : int
        Steps kept per replica, at least 2; rounded up to whole halves, and to whole epochs where
        the law is reshuffled.
    replicas : int
        Independent products, at least 8.
    transient : int, optional
        Steps discarded; half of `steps` by default.
    standard_error : float, optional
        Stop when the half-width of the interval, the influence of the start included, is at most
        so many standard errors' worth: half-width / Student quantile ≤ `standard_error`.
    decide_sign : float, optional
        Stop when the sign is decided; the probability of a wrong sign, in (0, 1).
    max_steps : int, optional
        Most steps kept per replica, 256 × `steps` by default.
    control_variates : bool
        Whether to regress on the frequencies; for laws of few samples or factors.

    Returns
    -------
    Exponent
        Of kind "statistical"; −∞ when the product vanishes.

    Raises
    ------
    ValueError
        If an argument is invalid; the message names it.

    Examples
    --------
    Pollicott's pair of matrices, λ = 1.14331103510...:

    >>> law = FiniteLaw([[[2, 1], [1, 1]], [[3, 1], [2, 1]]])
    >>> result = monte_carlo(law, rng=0)
    >>> result.lower < 1.1433110351029492 < result.upper
    True
    >>> monte_carlo(law, rng=0, steps=100, decide_sign=1e-6).sign
    1
    """
    require_law(law, AnyLaw)
    generator = check.generator(rng)
    check_options(
        steps=steps,
        replicas=replicas,
        transient=transient,
        standard_error=standard_error,
        decide_sign=decide_sign,
        max_steps=max_steps,
        control_variates=control_variates,
    )
    counted = _with_controls(law, replicas) if control_variates else None
    run = _Run(law, generator, steps, replicas, transient, counted)
    longest = LONGEST * steps if max_steps is None else max_steps
    rounds = 1
    while True:
        alpha = 1 - CONFIDENCE if decide_sign is None else 6 * decide_sign / (math.pi * rounds) ** 2
        result, error = run.estimate(alpha)
        missing = _missing(result, error, standard_error, decide_sign)
        if not missing or 4 * run.half > longest:
            break
        run.double()
        rounds += 1
    if missing and result.converged:
        result = replace(result, status=f"stopped at max_steps: {missing}; raise max_steps")
    _warn(result)
    return result


def lyapunov_spectrum(
    law: AnyLaw,
    count: int | None = None,
    rng: int | np.random.Generator | None = None,
    *,
    steps: int = 20_000,
    replicas: int = 32,
    transient: int | None = None,
) -> tuple[Exponent, ...]:
    r"""Return the `count` largest exponents of `law`, each with its multiplicity.

    Each product carries a frame of `count` vectors. Gram-Schmidt, every few steps, takes from
    each vector what is left of it beside those before it, and the mean logarithm of what is left
    estimates λ_1 ≥ λ_2 ≥ ...; transient, intervals and status are those of `monte_carlo`. The sum
    of all exponents is E log|det A|: Σ p_i log|1 − ηk_i| for SGD with batches of one and gradients
    that are linearly independent.

    An exponent is reported as −∞ when nothing of its vector is left (to 14 digits) beside the
    others. If a factor is singular that is right; a factor whose condition number exceeds 1e14
    looks the same, so the interval reaches up to that of the exponent before, and `status` says so.

    Source: Benettin, Galgani, Giorgilli & Strelcyn 1980.

    Parameters
    ----------
    law : FiniteLaw, SGDLaw or SampledLaw
    count : int, optional
        Number of exponents; all of them by default.
    rng : int, numpy.random.Generator or None
        Same seed, same result, on any number of cores.
    steps, replicas, transient : int
        See `monte_carlo`.

    Returns
    -------
    tuple of Exponent
        Of kind "statistical".

    Raises
    ------
    ValueError
        If an argument is invalid; the message names it.

    Examples
    --------
    >>> law = FiniteLaw([[[2, 1], [1, 1]], [[3, 1], [2, 1]]])  # both of determinant 1
    >>> first, second = lyapunov_spectrum(law, rng=0, steps=1_000)
    >>> abs(first.value + second.value) < 1e-12
    True
    """
    require_law(law, AnyLaw)
    generator = check.generator(rng)
    check_options(steps=steps, replicas=replicas, transient=transient)
    size = law.dimension if count is None else check.integer("count", count)
    if size > law.dimension:
        raise ValueError(
            f"count is {size} but the law has only {law.dimension} exponents; "
            f"ask for at most {law.dimension}."
        )
    half = _whole_epochs(law, (steps + 1) // 2)
    first = half if transient is None else _whole_epochs(law, transient)
    lengths = np.array([first, half, half])
    states = stream_states(generator, replicas)
    starts, others = _frames(law, generator, replicas, size)
    rates = _frame_growth(law, _streams(law, states.copy()), starts, lengths)[:, 1:] / half
    shadow = _frame_growth(law, _streams(law, states[:SHADOWS]), others[:SHADOWS], lengths)
    shadow = shadow[:, 1:] / half
    evaluations = (replicas + SHADOWS) * int(lengths.sum())
    exponents: list[Exponent] = []
    for index in range(size):
        if index and np.isneginf(rates[..., index]).any():
            exponents.append(_below(exponents[-1]))
            continue
        result, _ = _estimate(rates[..., index], shadow[..., index], evaluations)
        exponents.append(result)
    for result in exponents:
        _warn(result)
    return tuple(exponents)


def check_options(
    *,
    steps: int = 2,
    replicas: int = SHADOWS,
    transient: int | None = None,
    standard_error: float | None = None,
    decide_sign: float | None = None,
    max_steps: int | None = None,
    control_variates: bool = False,
) -> None:
    """Refuse bad options of `monte_carlo`, also where a closed form will not need them."""
    check.integer("steps", steps, minimum=2)
    check.integer("replicas", replicas, minimum=SHADOWS)
    if transient is not None:
        check.integer("transient", transient, minimum=0)
    if standard_error is not None:
        check.real("standard_error", standard_error, above=0.0)
    if decide_sign is not None:
        check.real("decide_sign", decide_sign, above=0.0, below=1.0)
    check.boolean("control_variates", control_variates)
    if max_steps is None:
        return
    check.integer("max_steps", max_steps, minimum=steps)
    if standard_error is None and decide_sign is None:
        raise ValueError(
            f"max_steps is {max_steps}, but without standard_error or decide_sign a run keeps "
            "exactly `steps` steps; pass one of them, or set steps."
        )


class _Run:
    """Products that are followed round after round, some of them from another start too.

    The log-growth is kept in pieces of `half` steps, shape (replicas, pieces): the two halves of
    what is kept, after the transient where that grows along.
    """

    def __init__(
        self,
        law: AnyLaw,
        rng: np.random.Generator,
        steps: int,
        replicas: int,
        transient: int | None,
        counted: Law | None,
    ) -> None:
        self.law, self.counted = law, counted
        self.half = _whole_epochs(law, (steps + 1) // 2)
        states = stream_states(rng, replicas)
        self.vectors, others = _starts(law, rng, replicas)
        self.others = others[:SHADOWS]
        self.streams = _streams(law, states.copy())
        self.shadow_streams = _streams(law, states[:SHADOWS].copy())
        self.count_states = states
        first = self.half if transient is None else _whole_epochs(law, transient)
        self.steps = first + 2 * self.half
        pieces = self._follow(np.array([first, self.half, self.half]))
        self.pieces = pieces if transient is None else tuple(part[:, 1:] for part in pieces)

    def double(self) -> None:
        """Follow the products until every piece is twice as long."""
        count = self.pieces[0].shape[1]
        new = self._follow(np.full(count, self.half))
        joined = (np.concatenate(parts, axis=1) for parts in zip(self.pieces, new, strict=True))
        self.pieces = tuple(part[:, ::2] + part[:, 1::2] for part in joined)
        self.steps += count * self.half
        self.half *= 2

    def estimate(self, alpha: float) -> tuple[Exponent, float]:
        """Return the exponent at the level 1 − `alpha`, and its error."""
        growth, shadow, counts = (part[:, -2:] for part in self.pieces)
        evaluations = (len(growth) + SHADOWS) * self.steps
        controls = counts.sum(axis=1) / (2 * self.half)
        if self.counted is not None:
            p = _probabilities(self.counted)
            used = np.flatnonzero(p)[1:]  # the last frequency follows from the others
            spread = np.sqrt(p[used] * (1 - p[used]) / (2 * self.half))
            controls = (controls[:, used] - p[used]) / spread
        return _estimate(growth / self.half, shadow / self.half, evaluations, alpha, controls)

    def _follow(self, lengths: NDArray[np.int64]) -> tuple[Array, Array, Array]:
        """Return growth, growth from the other start, and counts, over stretches."""
        counts = np.zeros((len(self.vectors), lengths.size, 0))
        if self.counted is not None:
            counts = _counts(self.counted, self.count_states, lengths)
        return (
            _growth(self.law, self.streams, self.vectors, lengths),
            _growth(self.law, self.shadow_streams, self.others, lengths),
            counts,
        )


def _estimate(
    rates: Array,
    shadow: Array,
    evaluations: int,
    alpha: float = 1 - CONFIDENCE,
    controls: Array | None = None,
) -> tuple[Exponent, float]:
    """Judge growth rates, shape (replicas, 2 halves).

    `shadow` holds the rates of the first few products from another start, `controls` has shape
    (replicas, variables) and mean 0. The error is the half-width in units of the Student quantile.

    Returns
    -------
    Exponent, float
        The exponent with its interval and status, and its error.
    """
    if np.isneginf(rates).any():
        return _vanished(evaluations), 0.0
    means = rates.mean(axis=1)
    value, error, freedom = _regression(means, controls)
    quantile = float(stats.t.ppf(1 - alpha / 2, freedom))
    half_width = quantile * error
    rounding = ROUNDING * (1 + abs(value))
    influence = float(np.abs(shadow.mean(axis=1) - means[: len(shadow)]).mean())
    drift = rates[:, 1] - rates[:, 0]
    reasons = []
    if influence > half_width + rounding:
        reasons.append(f"another start changes the rate by {influence:.2g}")
    if abs(drift.mean()) > FAR_OUT * drift.std(ddof=1) / math.sqrt(drift.size) + rounding:
        reasons.append(f"the rate drifts by {drift.mean():.2g} between the halves")
        influence += float(abs(drift.mean()))
    status = "converged"
    if reasons:
        influence *= UNFORGOTTEN  # both starts may still be on the same side of the truth
        status = f"too short: {' and '.join(reasons)}; raise steps and transient"
    reach = half_width + influence + rounding
    result = Exponent(
        value=value,
        lower=value - reach,
        upper=value + reach,
        kind="statistical",
        method="Monte Carlo",
        status=status,
        evaluations=evaluations,
    )
    return result, reach / quantile


def _regression(rates: Array, controls: Array | None) -> tuple[float, float, int]:
    """Return the mean of the rates where the controls are 0, its error and degrees of freedom."""
    design = np.ones((rates.size, 1))
    if controls is not None:
        design = np.hstack([design, controls])
    inverse = np.linalg.pinv(design)
    residuals = rates - design @ (inverse @ rates)
    freedom = rates.size - int(np.linalg.matrix_rank(design))
    error = math.sqrt(float(residuals @ residuals) / freedom) * float(np.linalg.norm(inverse[0]))
    return float(inverse[0] @ rates), error, freedom


def _missing(
    result: Exponent, error: float, standard_error: float | None, decide_sign: float | None
) -> str:
    """Return what the run was asked for and has not reached; empty if it may stop."""
    goals = []
    if math.isinf(result.value):
        return ""
    if standard_error is not None:
        goals.append((error <= standard_error, f"the standard error is {error:.2g}"))
    if decide_sign is not None:
        goals.append((result.sign is not None, "the sign is not decided"))
    if result.converged and any(reached for reached, _ in goals):
        return ""
    return " and ".join(reason for _, reason in goals)


def _below(previous: Exponent) -> Exponent:
    """Return an exponent of which rounding has left nothing but that it is not above `previous`."""
    known = math.isinf(previous.upper)
    return replace(
        previous,
        value=-math.inf,
        lower=-math.inf,
        status="converged"
        if known
        else "lost to rounding: −∞ if a factor is singular; it may only be nearly so",
    )


def _vanished(evaluations: int) -> Exponent:
    """Return the exponent of a product that vanishes."""
    return Exponent(
        value=-math.inf,
        lower=-math.inf,
        upper=-math.inf,
        kind="statistical",
        method="Monte Carlo",
        evaluations=evaluations,
    )


def _warn(result: Exponent) -> None:
    if not result.converged:
        warnings.warn(f"this Monte Carlo run is {result.status}.", ExponentWarning, stacklevel=3)


def _with_controls(law: AnyLaw, replicas: int) -> Law:
    """Return `law` if it has control variates, and not too many for the replicas."""
    if isinstance(law, SampledLaw):
        raise ValueError(
            "control_variates needs a law of listed samples or factors, got a SampledLaw; "
            "use control_variates=False."
        )
    needed = REPLICAS_PER_CONTROL * int((_probabilities(law) > 0).sum() - 1)
    if replicas < needed:
        raise ValueError(
            f"control_variates needs {REPLICAS_PER_CONTROL} replicas per sample, at least "
            f"{needed}, got {replicas}; raise replicas or use control_variates=False."
        )
    return law


def _probabilities(law: Law) -> Array:
    return law.probabilities if isinstance(law, FiniteLaw) else law.sampling.probabilities


def _epoch_length(law: AnyLaw) -> int:
    return law.sampling.epoch_length if isinstance(law, SGDLaw) else 1


def _whole_epochs(law: AnyLaw, steps: int) -> int:
    """Return `steps` rounded up to whole epochs: what is drawn in two stretches is independent."""
    epoch = _epoch_length(law)
    return -(-steps // epoch) * epoch


def _streams(law: AnyLaw, states: States) -> Streams:
    """Return a source of randomness per replica."""
    if isinstance(law, SampledLaw):
        return [np.random.default_rng(words) for words in states]
    return states


def _drawing(law: Law) -> tuple[Any, ...]:
    """Return batch size, samples drawn from without replacement, advance in an epoch, alias."""
    if isinstance(law, FiniteLaw):
        return (1, 0, 0, *law.alias)
    sampling = law.sampling
    return (
        sampling.batch_size,
        0 if sampling.independent and not sampling.reshuffle else sampling.n_samples,
        sampling.batch_size if sampling.reshuffle else 0,
        *sampling.alias,
    )


def _starts(law: AnyLaw, rng: np.random.Generator, count: int) -> tuple[Array, Array]:
    """Return the vectors to follow and those of the shadows, each of shape (count, dimension)."""
    # All are random, so that no invariant subspace can hold them. Those followed lean towards the
    # direction that contracts most slowly on average, where a stable SGD ends up after a transient
    # that can take as many steps as the kernel is ill-conditioned.
    if not isinstance(law, SGDLaw):
        starts, others = rng.normal(size=(2, count, law.dimension))
        return starts, others
    regular = _in_residual_coordinates(law)
    starts, others = rng.normal(size=(2, count, law.dimension))
    slow = law.minimum.gradients[:, 0].copy() if regular else np.eye(law.dimension)[0]
    slow /= np.linalg.norm(slow)
    starts /= np.linalg.norm(starts, axis=1, keepdims=True)
    # On the same side, or the two could cancel: in one dimension they would for half of the starts.
    starts *= np.where(starts @ slow < 0, -1.0, 1.0)[:, None]
    return starts + slow, others


def _digits_per_step(law: SGDLaw) -> float:
    """Return how many decimal digits the length of a vector can change by in one step."""
    scaled = law.step_size * np.diag(law.minimum.kernel)
    grown = math.log10(1 + float(scaled.max()))
    if law.sampling.batch_size > 1:
        return max(16.0, grown)
    # One sample multiplies one direction by 1 − ηk_i; beyond 16 digits it is rounding that is left.
    lost = -math.log10(max(1e-16, float(np.abs(1 - scaled).min())))
    return max(lost, grown, 4.0)


def _in_residual_coordinates(law: SGDLaw) -> bool:
    return law.minimum.rank == law.minimum.n_samples


def _frames(law: AnyLaw, rng: np.random.Generator, count: int, size: int) -> tuple[Array, Array]:
    """Return the frames to follow and those of the shadows, shape (count, size, dimension)."""
    starts, others = rng.normal(size=(2, count, size, law.dimension))
    if isinstance(law, SGDLaw):  # lean towards what contracts most slowly, as in `_starts`
        starts = starts / np.linalg.norm(starts, axis=-1, keepdims=True) + np.eye(
            size, law.dimension
        )
    first, second = (
        np.swapaxes(np.linalg.qr(np.swapaxes(frames, 1, 2))[0], 1, 2).copy()
        for frames in (starts, others)
    )
    return first, second


def _growth(law: AnyLaw, streams: Streams, vectors: Array, lengths: NDArray[np.int64]) -> Array:
    """Return the log-growth of each replica over consecutive stretches of the given lengths."""
    # Streams and vectors are left where the products end: a second call continues them.
    if isinstance(law, SampledLaw):
        return _frame_growth(law, streams, vectors[:, None], lengths)[..., 0]
    growth = np.zeros((len(vectors), lengths.size))
    if isinstance(law, FiniteLaw):
        follow: Any = _dense
        arguments: tuple[Any, ...] = (*_scaled(law.matrices), *law.alias)
    else:
        minimum, sampling = law.minimum, law.sampling
        regular = _in_residual_coordinates(law)
        arguments = (
            minimum.kernel if regular else minimum.gradients,
            law.step_size / sampling.batch_size,
            max(1, int(RENORMALISE_DIGITS / _digits_per_step(law))),
            *_drawing(law),
        )
        follow = _residual if regular else _normal

    def run(part: slice) -> None:
        follow(*arguments, streams[part], vectors[part], lengths, growth[part])

    run_replicas(run, len(vectors))
    return growth


def _frame_growth(
    law: AnyLaw, streams: Streams, frames: Array, lengths: NDArray[np.int64]
) -> Array:
    """Return the log-growth of each vector of each frame, shape (replicas, stretches, vectors)."""
    growth = np.zeros((len(frames), lengths.size, frames.shape[1]))
    period = _frame_period(law)

    def run(part: slice) -> None:
        for replica in range(part.start, part.stop):
            stream, frame = streams[replica], frames[replica]
            for length, logs in zip(lengths.tolist(), growth[replica], strict=True):
                for steps in _blocks(law, length):
                    _follow_frame(law, stream, steps, period, frame, logs)

    run_replicas(run, len(frames))
    return growth


def _follow_frame(
    law: AnyLaw, stream: Any, steps: int, period: int, frame: Array, logs: Array
) -> None:
    """Draw the factors of a block of steps and add the log-growth of `frame` under them."""
    if isinstance(law, SampledLaw):
        factors = _scaled(law.draw(steps, stream))
        _frame_dense(*factors, np.arange(steps), period, frame, logs)
        return
    batch_size, *drawing = _drawing(law)
    indices = np.empty(steps * batch_size, np.int64)
    draw: Any = _draw
    draw(stream, batch_size, *drawing, indices, steps)
    if isinstance(law, FiniteLaw):
        _frame_dense(*_scaled(law.matrices), indices, period, frame, logs)
    else:
        rate = law.step_size / batch_size
        _frame_normal(law.minimum.gradients, rate, batch_size, indices, period, frame, logs)


def _blocks(law: AnyLaw, steps: int) -> Iterator[int]:
    """Yield the numbers of steps that are drawn at a time, whole epochs each."""
    epoch = _epoch_length(law)
    numbers = law.dimension**2 if isinstance(law, SampledLaw) else _drawing(law)[0]
    most = max(1, BLOCK // (numbers * epoch)) * epoch
    for done in range(0, steps, most):
        yield min(most, steps - done)


def _frame_period(law: AnyLaw) -> int:
    """Return how many steps may pass between two orthonormalisations."""
    # Each factor can worsen the condition of a frame by its own condition number.
    if isinstance(law, FiniteLaw):
        condition = float(np.linalg.cond(law.matrices[law.probabilities > 0]).max())
    elif isinstance(law, SGDLaw) and law.sampling.batch_size == 1:
        drawn = law.sampling.probabilities > 0
        factors = np.abs(1 - law.step_size * np.diag(law.minimum.kernel)[drawn])
        with np.errstate(divide="ignore"):
            condition = float((np.maximum(factors, 1) / np.minimum(factors, 1)).max())
    else:
        return 1
    digits = max(math.log10(condition), FRAME_DIGITS / FRAME_STEPS)
    return max(1, int(FRAME_DIGITS / digits))


def _scaled(matrices: Array) -> tuple[Array, Array]:
    """Return matrices with entries of at most 1, and the logarithms of the factors taken out."""
    scales = np.abs(matrices).max(axis=(1, 2), keepdims=True)
    scales[scales == 0] = 1.0
    return matrices / scales, np.log(scales[:, 0, 0])


def _counts(law: Law, states: States, lengths: NDArray[np.int64]) -> Array:
    """Return how often each product draws each index, shape (replicas, stretches, indices)."""
    # What `_growth` draws is drawn again, without the products, so that its kernels need not count.
    tally: Any = _tally
    counts = np.zeros((len(states), lengths.size, _probabilities(law).size))

    def run(part: slice) -> None:
        tally(*_drawing(law), states[part], lengths, counts[part])

    run_replicas(run, len(states))
    return counts


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc"})
def _normalise(vector):  # type: ignore[no-untyped-def]
    """Scale `vector` to length 1 and return the logarithm of its length."""
    size = 0.0  # the sum of moduli first: its square could overflow or vanish
    for j in range(vector.size):
        size += abs(vector[j])
    if size == 0.0:
        return -np.inf
    square, factor = 0.0, 1.0 / size
    for j in range(vector.size):
        vector[j] *= factor
        square += vector[j] * vector[j]
    length = np.sqrt(square)
    factor = 1.0 / length
    for j in range(vector.size):
        vector[j] *= factor
    return np.log(size) + np.log(length)


@njit(inline="always")
def _fill(state, threshold, alias, permutation, used, advance, batch_size, indices, count):  # type: ignore[no-untyped-def]
    """Write `count` consecutive batches of indices; return how much of the epoch is used."""
    if permutation.size == 0:
        for m in range(count * batch_size):
            indices[m] = next_index(state, threshold, alias)
    else:
        for t in range(count):
            rest = permutation[used:]
            next_subset(state, rest, batch_size)
            for b in range(batch_size):
                indices[t * batch_size + b] = rest[b]
            used += advance
            if used == permutation.size:
                used = 0
    return used


@njit(inline="always")
def _apply_rows(rows, indices, weights, count, vector):  # type: ignore[no-untyped-def]
    """Subtract Σ_m weights[m] rows[indices[m]] from `vector`, ROWS rows a pass."""
    m = 0
    while m + ROWS <= count:
        a, b = rows[indices[m]], rows[indices[m + 1]]
        c, d = rows[indices[m + 2]], rows[indices[m + 3]]
        e, f = rows[indices[m + 4]], rows[indices[m + 5]]
        g, h = rows[indices[m + 6]], rows[indices[m + 7]]
        wa, wb, wc, wd = weights[m], weights[m + 1], weights[m + 2], weights[m + 3]
        we, wf, wg, wh = weights[m + 4], weights[m + 5], weights[m + 6], weights[m + 7]
        for j in range(vector.size):
            vector[j] -= ((wa * a[j] + wb * b[j]) + (wc * c[j] + wd * d[j])) + (
                (we * e[j] + wf * f[j]) + (wg * g[j] + wh * h[j])
            )
        m += ROWS
    while m < count:
        row, w = rows[indices[m]], weights[m]
        for j in range(vector.size):
            vector[j] -= w * row[j]
        m += 1


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc"})
def _residual(  # type: ignore[no-untyped-def]
    kernel,
    rate,
    period,
    batch_size,
    subsets,
    advance,
    threshold,
    alias,
    states,
    vectors,
    lengths,
    growth,
):
    """Follow residual vectors; several steps are looked ahead and applied in one pass."""
    ahead = ROWS // math.gcd(ROWS, batch_size)  # so that whole passes of ROWS rows come out
    indices = np.empty(ahead * batch_size, np.int64)
    weights = np.empty(ahead * batch_size)
    for replica in range(len(states)):
        state, vector = states[replica], vectors[replica]
        permutation, used = np.arange(subsets), 0
        _normalise(vector)
        for stretch in range(lengths.size):
            total, since, done = 0.0, 0, 0
            while done < lengths[stretch]:
                now = min(ahead, lengths[stretch] - done, period - since)
                used = _fill(
                    state, threshold, alias, permutation, used, advance, batch_size, indices, now
                )
                for t in range(now):
                    start = t * batch_size
                    for m in range(start, start + batch_size):
                        row, value = kernel[indices[m]], vector[indices[m]]
                        for earlier in range(start):
                            value -= weights[earlier] * row[indices[earlier]]
                        weights[m] = rate * value
                _apply_rows(kernel, indices, weights, now * batch_size, vector)
                done += now
                since += now
                if since == period or done == lengths[stretch]:
                    total += _normalise(vector)
                    since = 0
            growth[replica, stretch] = total


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc"})
def _normal(  # type: ignore[no-untyped-def]
    gradients,
    rate,
    period,
    batch_size,
    subsets,
    advance,
    threshold,
    alias,
    states,
    vectors,
    lengths,
    growth,
):
    """Follow vectors of the normal space: v ← v − rate Σ g_i (g_i·v)."""
    indices = np.empty(batch_size, np.int64)
    weights = np.empty(batch_size)
    for replica in range(len(states)):
        state, vector = states[replica], vectors[replica]
        permutation, used = np.arange(subsets), 0
        _normalise(vector)
        for stretch in range(lengths.size):
            total = 0.0
            for done in range(1, lengths[stretch] + 1):
                used = _fill(
                    state, threshold, alias, permutation, used, advance, batch_size, indices, 1
                )
                for m in range(batch_size):
                    row, value = gradients[indices[m]], 0.0
                    for j in range(vector.size):
                        value += row[j] * vector[j]
                    weights[m] = rate * value
                _apply_rows(gradients, indices, weights, batch_size, vector)
                if done % period == 0 or done == lengths[stretch]:
                    total += _normalise(vector)
            growth[replica, stretch] = total


@njit(nogil=True, cache=True)
def _dense(matrices, log_scales, threshold, alias, states, vectors, lengths, growth):  # type: ignore[no-untyped-def]
    """Follow vectors through dense factors A_m exp(log_scales[m]), renormalised at every step."""
    dimension = matrices.shape[1]
    image = np.empty(dimension)
    for replica in range(len(states)):
        state, vector = states[replica], vectors[replica]
        _normalise(vector)
        for stretch in range(lengths.size):
            total = 0.0
            for _ in range(lengths[stretch]):
                drawn = next_index(state, threshold, alias)
                matrix = matrices[drawn]
                for i in range(dimension):
                    value = 0.0
                    for j in range(dimension):
                        value += matrix[i, j] * vector[j]
                    image[i] = value
                vector[:] = image
                total += log_scales[drawn] + _normalise(vector)
            growth[replica, stretch] = total


@njit(nogil=True, cache=True)
def _draw(state, batch_size, subsets, advance, threshold, alias, indices, count):  # type: ignore[no-untyped-def]
    """Write the indices of `count` batches."""
    _fill(state, threshold, alias, np.arange(subsets), 0, advance, batch_size, indices, count)


@njit(nogil=True, cache=True)
def _tally(batch_size, subsets, advance, threshold, alias, states, lengths, counts):  # type: ignore[no-untyped-def]
    """Draw as `_residual`, `_normal` and `_dense` do, and only count."""
    indices = np.empty(batch_size, np.int64)
    for replica in range(len(states)):
        state = states[replica]
        permutation, used = np.arange(subsets), 0
        for stretch in range(lengths.size):
            for _ in range(lengths[stretch]):
                used = _fill(
                    state, threshold, alias, permutation, used, advance, batch_size, indices, 1
                )
                for m in range(batch_size):
                    counts[replica, stretch, indices[m]] += 1.0 / batch_size


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc"})
def _orthonormalise(frame, logs):  # type: ignore[no-untyped-def]
    """Apply modified Gram-Schmidt to the rows; add to `logs` how much of each was left."""
    for i in range(len(frame)):
        vector = frame[i]
        logs[i] += _normalise(vector)
        for k in range(i):
            other, overlap = frame[k], 0.0
            for j in range(vector.size):
                overlap += other[j] * vector[j]
            for j in range(vector.size):
                vector[j] -= overlap * other[j]
        left = _normalise(vector)
        if left < np.log(LOST):
            vector[:] = 0.0
            left = -np.inf
        logs[i] += left


@njit(nogil=True, cache=True)
def _frame_dense(matrices, log_scales, indices, period, frame, logs):  # type: ignore[no-untyped-def]
    """Follow a frame through the factors matrices[m] exp(log_scales[m]), m in `indices`."""
    size, dimension = frame.shape
    image = np.empty(dimension)
    for step in range(indices.size):
        matrix = matrices[indices[step]]
        for k in range(size):
            for i in range(dimension):
                value = 0.0
                for j in range(dimension):
                    value += matrix[i, j] * frame[k, j]
                image[i] = value
            frame[k] = image
            logs[k] += log_scales[indices[step]]
        if (step + 1) % period == 0 or step + 1 == indices.size:
            _orthonormalise(frame, logs)


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc"})
def _frame_normal(gradients, rate, batch_size, indices, period, frame, logs):  # type: ignore[no-untyped-def]
    """Follow a frame of the normal space: v ← v − rate Σ g_i (g_i·v) for every vector v of it."""
    weights = np.empty(batch_size)
    steps = indices.size // batch_size
    for step in range(steps):
        batch = indices[step * batch_size : (step + 1) * batch_size]
        for k in range(len(frame)):
            vector = frame[k]
            for m in range(batch_size):
                row, value = gradients[batch[m]], 0.0
                for j in range(vector.size):
                    value += row[j] * vector[j]
                weights[m] = rate * value
            _apply_rows(gradients, batch, weights, batch_size, vector)
        if (step + 1) % period == 0 or step + 1 == steps:
            _orthonormalise(frame, logs)
