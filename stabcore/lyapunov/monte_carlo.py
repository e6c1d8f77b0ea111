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
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import stats

from stabcore import _validation as check
from stabcore._random import States, next_index, next_subset, run_replicas, stream_states
from stabcore._validation import Array
from stabcore.exponent import Exponent, ExponentWarning
from stabcore.products import FiniteLaw, Law, SGDLaw, require_law

CONFIDENCE = 0.95
SHADOWS = 8  # products that are run again from another start
# A vector is renormalised before it can have lost this many digits to cancellation, 16 a step at
# the very worst, or have grown by this many.
RENORMALISE_DIGITS = 256
UNFORGOTTEN = 4.0  # how much further than two starts from each other the truth may be from both
ROWS = 8  # rows of the kernel applied in one pass over a vector
FAR_OUT = 4.0  # standard deviations beyond which a run is not stationary
ROUNDING = 1e-12  # of a growth rate, relative to 1 + |rate|


def monte_carlo(
    law: Law,
    rng: int | np.random.Generator | None = None,
    *,
    steps: int = 20_000,
    replicas: int = 32,
    transient: int | None = None,
) -> Exponent:
    r"""Return the top exponent of `law` from independent random products.

    Each of `replicas` products runs for `transient` steps, which are discarded, and then for
    `steps` steps. The estimate is the mean over replicas of (1/steps) log(growth). Its interval is
    the 95 % Student interval, widened by the measured influence of the start. The run is not
    trusted (`status`, and an `ExponentWarning`) when that influence exceeds the statistical error
    or the growth rate drifts between the two halves: it is then too short.

    Source: the definition of λ (papers A and D).

    Parameters
    ----------
    law : FiniteLaw or SGDLaw
    rng : int, numpy.random.Generator or None
        Same seed, same result, on any number of cores.
    steps : int
        Steps kept per replica, at least 2.
    replicas : int
        Independent products, at least 8.
    transient : int, optional
        Steps discarded; half of `steps` by default.

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
    """
    require_law(law)
    generator = check.generator(rng)
    check_options(steps=steps, replicas=replicas, transient=transient)
    half = (steps + 1) // 2
    lengths = np.array([half if transient is None else transient, half, half])
    states = stream_states(generator, replicas)
    starts, others = _starts(law, generator, replicas)
    rates = _growth(law, states.copy(), starts, lengths)[:, 1:] / half
    shadow = _growth(law, states[:SHADOWS], others[:SHADOWS], lengths)[:, 1:] / half
    evaluations = (replicas + SHADOWS) * int(lengths.sum())
    if np.isneginf(rates).any():
        return Exponent(
            value=-math.inf,
            lower=-math.inf,
            upper=-math.inf,
            kind="statistical",
            method="Monte Carlo",
            evaluations=evaluations,
        )
    return _summary(rates, shadow, evaluations)


def check_options(*, steps: int = 2, replicas: int = SHADOWS, transient: int | None = None) -> None:
    """Refuse bad options of `monte_carlo`, also where a closed form will not need them."""
    check.integer("steps", steps, minimum=2)
    check.integer("replicas", replicas, minimum=SHADOWS)
    if transient is not None:
        check.integer("transient", transient, minimum=0)


def _summary(rates: Array, shadow: Array, evaluations: int) -> Exponent:
    """Return mean, interval and status of growth rates, shape (replicas, 2 halves)."""
    # `shadow` holds the rates of the first few products from another start.
    means = rates.mean(axis=1)
    value = float(means.mean())
    error = float(means.std(ddof=1)) / math.sqrt(means.size)
    half_width = float(stats.t.ppf((1 + CONFIDENCE) / 2, means.size - 1) * error)
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
        warnings.warn(f"this Monte Carlo run is {status}.", ExponentWarning, stacklevel=3)
    reach = half_width + influence + rounding
    return Exponent(
        value=value,
        lower=value - reach,
        upper=value + reach,
        kind="statistical",
        method="Monte Carlo",
        status=status,
        evaluations=evaluations,
    )


def _starts(law: Law, rng: np.random.Generator, count: int) -> tuple[Array, Array]:
    """Return the vectors to follow and those of the shadows, each of shape (count, dimension)."""
    # All are random, so that no invariant subspace can hold them. Those followed lean towards the
    # direction that contracts most slowly on average, where a stable SGD ends up after a transient
    # that can take as many steps as the kernel is ill-conditioned.
    if isinstance(law, FiniteLaw):
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


def _in_residual_coordinates(law: SGDLaw) -> bool:
    return law.minimum.rank == law.minimum.n_samples


def _growth(law: Law, states: States, vectors: Array, lengths: NDArray[np.int64]) -> Array:
    """Return the log-growth of each replica over consecutive stretches of the given lengths."""
    growth = np.zeros((len(states), lengths.size))
    if isinstance(law, FiniteLaw):
        follow: Any = _dense
        scales = np.abs(law.matrices).max(axis=(1, 2), keepdims=True)
        scales[scales == 0] = 1.0
        law_arguments: tuple[Any, ...] = (
            law.matrices / scales,
            np.log(scales[:, 0, 0]),
            *law.alias,
        )
    else:
        minimum, sampling = law.minimum, law.sampling
        regular = _in_residual_coordinates(law)
        largest = 1 + law.step_size * float(np.diag(minimum.kernel).max())
        law_arguments = (
            minimum.kernel if regular else minimum.gradients,
            law.step_size / sampling.batch_size,
            sampling.batch_size,
            0 if sampling.independent else sampling.n_samples,
            *sampling.alias,
            max(1, int(RENORMALISE_DIGITS / max(16.0, math.log10(largest)))),
        )
        follow = _residual if regular else _normal

    def run(part: slice) -> None:
        follow(*law_arguments, states[part], vectors[part], lengths, growth[part])

    run_replicas(run, len(states))
    return growth


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
def _fill(state, threshold, alias, permutation, batch_size, indices, count):  # type: ignore[no-untyped-def]
    """Write `count` consecutive batches of indices."""
    if permutation.size == 0:
        for m in range(count * batch_size):
            indices[m] = next_index(state, threshold, alias)
    else:
        for t in range(count):
            next_subset(state, permutation, batch_size)
            for b in range(batch_size):
                indices[t * batch_size + b] = permutation[b]


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
    kernel, rate, batch_size, subsets, threshold, alias, period, states, vectors, lengths, growth
):
    """Follow residual vectors; several steps are looked ahead and applied in one pass."""
    ahead = ROWS // math.gcd(ROWS, batch_size)  # so that whole passes of ROWS rows come out
    indices = np.empty(ahead * batch_size, np.int64)
    weights = np.empty(ahead * batch_size)
    for replica in range(len(states)):
        state, vector = states[replica], vectors[replica]
        permutation = np.arange(subsets)
        _normalise(vector)
        for stretch in range(lengths.size):
            total, since, done = 0.0, 0, 0
            while done < lengths[stretch]:
                now = min(ahead, lengths[stretch] - done, period - since)
                _fill(state, threshold, alias, permutation, batch_size, indices, now)
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
    gradients, rate, batch_size, subsets, threshold, alias, period, states, vectors, lengths, growth
):
    """Follow vectors of the normal space: v ← v − rate Σ g_i (g_i·v)."""
    indices = np.empty(batch_size, np.int64)
    weights = np.empty(batch_size)
    for replica in range(len(states)):
        state, vector = states[replica], vectors[replica]
        permutation = np.arange(subsets)
        _normalise(vector)
        for stretch in range(lengths.size):
            total = 0.0
            for done in range(1, lengths[stretch] + 1):
                _fill(state, threshold, alias, permutation, batch_size, indices, 1)
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
