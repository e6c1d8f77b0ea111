r"""The exponent of any law in any dimension, by following many independent products.

Each replica carries one vector through its own random product; the logarithm of the vector's
growth per step, after a transient is discarded, estimates the exponent, and independent replicas
give an honest standard error. What remains is the bias of a run too short to forget its start.
It is measured: some products are run again from another start, with the same factors. Once both
vectors have turned into the same direction they grow alike, so that any difference in growth is
the start's doing; it widens the interval, and a run that it dominates is not trusted.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from stabcore import _validation as check
from stabcore._random import stream_states
from stabcore._validation import Array
from stabcore.exponent import Exponent, ExponentWarning, largest_exponent
from stabcore.lyapunov._factors import split
from stabcore.lyapunov._growth import (
    count_draws,
    draws_per_step,
    in_residual_coordinates,
    index_probabilities,
    log_growth,
    replica_streams,
    whole_epochs,
)
from stabcore.lyapunov.laws import (
    AnyLaw,
    Law,
    MomentumLaw,
    SampledLaw,
    SGDLaw,
    require_law,
)

CONFIDENCE = 0.95

SHADOWS = 8  # products that are run again from another start

FEWEST_DRAWS = 25  # of what is rare, all replicas together: its share is known to 20 %

UNFORGOTTEN = 4.0  # how much further than two starts from each other the truth may be from both

FAR_OUT = 4.0  # standard deviations beyond which a run is not stationary

ROUNDING = 1e-12  # of a growth rate, relative to 1 + |rate|

LONGEST = 256  # the default of max_steps / steps

REPLICAS_PER_CONTROL = 4  # so that estimating the coefficients costs at most a third more variance


@check.public()
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
    or the growth rate drifts between the two halves: it is then too short. It is also too short if
    it drew what is rare, the indices of positive probability that are expected less than 25 times,
    less than 25 times together: of a factor that it never met it knows nothing, however small its
    variance, and its interval is the whole line.

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
    assumes is what the run of fixed length assumes: nearly normal growth rates of the replicas, a
    start whose influence is not larger than measured, and a top exponent that is simple. (If two
    exponents are equal, the larger of two sums is followed, and the estimate is too high by an
    order of 1/√steps. Equal exponents of factors that split by coordinates, or of orthogonal groups
    of gradients, do no harm: each is simulated by itself, and the largest is returned. Of 2×2
    factors that exchange two lines there is a closed form.)

    *Control variates.* The frequencies f_i with which a replica drew the samples (or factors) have
    the known means p_i. The rates are regressed on f_i − p_i over the replicas, and the interval is
    that of the constant term, with the degrees of freedom that are left. This removes what chance
    in the frequencies contributes: for three samples often more than half of the variance, for a
    large data set too little to be worth N coefficients.

    Source: the definition of λ (papers A and D); Darling & Robbins 1967 for tests that may stop at
    any time; Glynn & Szechtman 2002 for control variates.

    Parameters
    ----------
    law : FiniteLaw, SGDLaw, MomentumLaw or SampledLaw
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
        Stop when that of the result, the influence of the start included, is at most this.
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

    Examples
    --------
    Pollicott's pair of matrices, λ = 1.14331103510...:

    >>> from stabcore import FiniteLaw
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
    result = simulated(
        law,
        generator,
        steps=steps,
        replicas=replicas,
        transient=transient,
        standard_error=standard_error,
        decide_sign=decide_sign,
        max_steps=max_steps,
        control_variates=control_variates,
    )
    warn_if_short(result)
    return result


def simulated(
    law: AnyLaw,
    rng: np.random.Generator,
    *,
    steps: int = 20_000,
    replicas: int = 32,
    transient: int | None = None,
    standard_error: float | None = None,
    decide_sign: float | None = None,
    max_steps: int | None = None,
    control_variates: bool = False,
) -> Exponent:
    """Return what `monte_carlo` does, for arguments that are checked, and without a warning."""
    parts = [law] if isinstance(law, SampledLaw) else split(law)
    if len(parts) > 1:
        alpha = None if decide_sign is None else decide_sign / len(parts)
        return largest_exponent(
            [
                simulated(
                    part,
                    rng,
                    steps=steps,
                    replicas=replicas,
                    transient=transient,
                    standard_error=standard_error,
                    decide_sign=alpha,
                    max_steps=max_steps,
                    control_variates=control_variates,
                )
                for part in parts
            ]
        )
    counted = _with_controls(law, replicas) if control_variates else None
    run = _Run(law, rng, steps, replicas, transient, counted)
    longest = LONGEST * steps if max_steps is None else max_steps
    rounds = 1
    while True:
        alpha = 1 - CONFIDENCE if decide_sign is None else 6 * decide_sign / (math.pi * rounds) ** 2
        result = run.estimate(alpha)
        missing = _missing(result, standard_error, decide_sign)
        if not missing or 4 * run.half > longest:
            break
        run.double()
        rounds += 1
    if missing and result.converged:
        result = replace(result, status=f"stopped at max_steps: {missing}; raise max_steps")
    return result


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


def estimate(
    rates: Array,
    shadow: Array,
    evaluations: int,
    alpha: float = 1 - CONFIDENCE,
    controls: Array | None = None,
) -> Exponent:
    """Judge growth rates, shape (replicas, 2 halves).

    `shadow` holds the rates of the first few products from another start, `controls` has shape
    (replicas, variables) and mean 0.

    Returns
    -------
    Exponent
        With its interval, at the level 1 − `alpha`, and status.
    """
    if np.isneginf(rates).any():
        return _vanished(evaluations)
    means = rates.mean(axis=1)
    value, error, freedom = _regression(means, controls)
    quantile = float(stdtrit(freedom, 1 - alpha / 2))
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
    return Exponent(
        value=value,
        lower=value - reach,
        upper=value + reach,
        kind="statistical",
        method="Monte Carlo",
        status=status,
        evaluations=evaluations,
        standard_error=reach / quantile,
    )


def warn_if_short(result: Exponent) -> None:
    """Warn of a result that cannot be trusted, unless its sign is proven by other means."""
    if not result.converged and not result.proof:
        check.warn(f"this Monte Carlo run is {result.status}.", ExponentWarning)


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
        counted: Law | MomentumLaw | None,
    ) -> None:
        self.law, self.counted = law, counted
        self.half = whole_epochs(law, (steps + 1) // 2)
        states = stream_states(rng, replicas)
        self.vectors, others = _starts(law, rng, replicas)
        self.others = others[:SHADOWS]
        self.streams = replica_streams(law, states.copy())
        self.shadow_streams = replica_streams(law, states[:SHADOWS].copy())
        self.count_states = states
        first = self.half if transient is None else whole_epochs(law, transient)
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

    def estimate(self, alpha: float) -> Exponent:
        """Return the exponent at the level 1 − `alpha`."""
        growth, shadow, counts = (part[:, -2:] for part in self.pieces)
        evaluations = (len(growth) + SHADOWS) * self.steps
        controls = counts.sum(axis=1) / (2 * self.half)
        if self.counted is not None:
            p = index_probabilities(self.counted)
            used = np.flatnonzero(p)[1:]  # the last frequency follows from the others
            spread = np.sqrt(p[used] * (1 - p[used]) / (2 * self.half))
            controls = (controls[:, used] - p[used]) / spread
        result = estimate(growth / self.half, shadow / self.half, evaluations, alpha, controls)
        return self._with_rare(result, len(growth))

    def _with_rare(self, result: Exponent, replicas: int) -> Exponent:
        """Return the result, of no value if what is rare was hardly drawn."""
        if isinstance(self.law, SampledLaw) or math.isinf(result.value):
            return result
        draws = 2 * self.half * replicas * draws_per_step(self.law)
        p = index_probabilities(self.law)
        rare = p[(p > 0) & (p * draws < FEWEST_DRAWS)]
        if rare.size == 0 or rare.sum() * draws >= FEWEST_DRAWS:
            return result
        share = f"a probability of {rare.sum():.2g} is drawn {rare.sum() * draws:.2g} times in all"
        return replace(
            result,
            lower=-math.inf,
            upper=math.inf,
            standard_error=math.inf,
            status=f"too short: what has {share}; raise steps",
        )

    def _follow(self, lengths: NDArray[np.int64]) -> tuple[Array, Array, Array]:
        """Return growth, growth from the other start, and counts, over stretches."""
        counts = np.zeros((len(self.vectors), lengths.size, 0))
        if self.counted is not None:
            counts = count_draws(self.counted, self.count_states, lengths)
        return (
            log_growth(self.law, self.streams, self.vectors, lengths),
            log_growth(self.law, self.shadow_streams, self.others, lengths),
            counts,
        )


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


def _missing(result: Exponent, standard_error: float | None, decide_sign: float | None) -> str:
    """Return what the run was asked for and has not reached; empty if it may stop."""
    goals = []
    error = result.standard_error
    if not error or math.isinf(result.value):  # nothing more to learn
        return ""
    if standard_error is not None:
        goals.append((error <= standard_error, f"the standard error is {error:.2g}"))
    if decide_sign is not None:
        goals.append((result.sign is not None, "the sign is not decided"))
    if result.converged and any(reached for reached, _ in goals):
        return ""
    return " and ".join(reason for _, reason in goals)


def _vanished(evaluations: int) -> Exponent:
    """Return the exponent of a product that vanishes."""
    return Exponent(
        value=-math.inf,
        lower=-math.inf,
        upper=-math.inf,
        kind="statistical",
        method="Monte Carlo",
        evaluations=evaluations,
        standard_error=0.0,
    )


def _with_controls(law: AnyLaw, replicas: int) -> Law | MomentumLaw:
    """Return `law` if it has control variates, and not too many for the replicas."""
    if isinstance(law, SampledLaw):
        raise ValueError(
            "control_variates needs a law of listed samples or factors, got a SampledLaw; "
            "use control_variates=False."
        )
    needed = REPLICAS_PER_CONTROL * int((index_probabilities(law) > 0).sum() - 1)
    if replicas < needed:
        raise ValueError(
            f"control_variates needs {REPLICAS_PER_CONTROL} replicas per sample, at least "
            f"{needed}, got {replicas}; raise replicas or use control_variates=False."
        )
    return law


def _starts(law: AnyLaw, rng: np.random.Generator, count: int) -> tuple[Array, Array]:
    """Return the vectors to follow and those of the shadows, each of shape (count, dimension)."""
    # All are random, so that no invariant subspace can hold them. Those followed lean towards the
    # direction that contracts most slowly on average, where a stable SGD ends up after a transient
    # that can take as many steps as the kernel is ill-conditioned.
    if not isinstance(law, SGDLaw):
        starts, others = rng.normal(size=(2, count, law.dimension))
        return starts, others
    regular = in_residual_coordinates(law)
    starts, others = rng.normal(size=(2, count, law.dimension))
    slow = law.gradients[:, 0].copy() if regular else np.eye(law.dimension)[0]
    slow /= np.linalg.norm(slow)
    starts /= np.linalg.norm(starts, axis=1, keepdims=True)
    # On the same side, or the two could cancel: in one dimension they would for half of the starts.
    starts *= np.where(starts @ slow < 0, -1.0, 1.0)[:, None]
    return starts + slow, others
