r"""Several leading exponents, by following frames of vectors that are orthonormalised as they go.

The volume spanned by k vectors grows at the rate λ_1 + ... + λ_k, so that the mean logarithm of
what is left of the k-th vector beside those before it estimates λ_k, from almost every start.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from stabcore import _validation as check
from stabcore._random import stream_states
from stabcore._validation import Array
from stabcore.exponent import Exponent
from stabcore.lyapunov._growth import frame_log_growth, replica_streams, whole_epochs
from stabcore.lyapunov.laws import AnyLaw, MomentumLaw, SGDLaw, require_law
from stabcore.lyapunov.simulated_products import SHADOWS, check_options, estimate, warn_if_short


@check.public()
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

    Examples
    --------
    >>> from stabcore import FiniteLaw
    >>> law = FiniteLaw([[[2, 1], [1, 1]], [[3, 1], [2, 1]]])  # both of determinant 1
    >>> first, second = lyapunov_spectrum(law, rng=0, steps=1_000)
    >>> abs(first.value + second.value) < 1e-12
    True
    """
    require_law(law, AnyLaw)
    if isinstance(law, MomentumLaw):
        law = law.finite()
    generator = check.generator(rng)
    check_options(steps=steps, replicas=replicas, transient=transient)
    size = law.dimension if count is None else check.integer("count", count)
    if size > law.dimension:
        raise ValueError(
            f"count is {size} but the law has only {law.dimension} exponents; "
            f"ask for at most {law.dimension}."
        )
    half = whole_epochs(law, (steps + 1) // 2)
    first = half if transient is None else whole_epochs(law, transient)
    lengths = np.array([first, half, half])
    states = stream_states(generator, replicas)
    starts, others = _frames(law, generator, replicas, size)
    streams = replica_streams(law, states.copy())
    rates = frame_log_growth(law, streams, starts, lengths)[:, 1:] / half
    streams = replica_streams(law, states[:SHADOWS])
    shadow = frame_log_growth(law, streams, others[:SHADOWS], lengths)[:, 1:] / half
    evaluations = (replicas + SHADOWS) * int(lengths.sum())
    exponents: list[Exponent] = []
    for index in range(size):
        if index and np.isneginf(rates[..., index]).any():
            exponents.append(_below(exponents[-1]))
            continue
        exponents.append(estimate(rates[..., index], shadow[..., index], evaluations))
    for result in exponents:
        warn_if_short(result)
    return tuple(exponents)


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


def _below(previous: Exponent) -> Exponent:
    """Return an exponent of which rounding has left nothing but that it is not above `previous`."""
    known = math.isinf(previous.upper)
    return replace(
        previous,
        value=-math.inf,
        lower=-math.inf,
        standard_error=0.0 if known else None,
        status="converged"
        if known
        else "lost to rounding: −∞ if a factor is singular; it may only be nearly so",
    )
