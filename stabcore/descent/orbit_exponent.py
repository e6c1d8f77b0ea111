"""The Lyapunov exponent of an orbit of gradient descent, on a line or in all parameters."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from stabcore import _validation as check
from stabcore._constants import MAP_CEILING
from stabcore._validation import Array
from stabcore.descent._certificates import certified
from stabcore.descent._shooting import (
    Dynamics,
    in_space,
    iterate,
    on_line,
    repeats_after,
    solve,
)
from stabcore.descent.lines import MapLike, as_scalar_map
from stabcore.exponent import Exponent, ExponentWarning
from stabcore.problems.base import Problem

LONGEST_PERIOD = 128  # of a stable cycle that `map_exponent` recognises

# Nearby orbits of n steps have log-growths that differ by O(1), or O(log n) where they approach a
# cycle of modulus 1 like 1/√t: 1.5 log 11 = 3.6 with the default transient.
COBOUNDARY = 8.0

ALIGNMENT = 200  # steps before the average in which tangent vectors turn to the largest growth


@check.public()
def map_exponent(
    family: MapLike,
    parameter: float,
    start: ArrayLike = 0.5,
    *,
    steps: int = 10_000,
    transient: int = 1000,
    replicas: int = 64,
    rng: int | np.random.Generator | None = 0,
) -> Exponent:
    r"""Return the largest Lyapunov exponent: in one dimension, the mean of log|G'(x_t)|.

    An orbit that settles on a stable cycle has exactly the exponent log|multiplier|/p, −∞ where the
    multiplier is 0. Otherwise orbits of nearby starts are followed, and their time averages give
    the estimate and its standard error. Where all orbits grow alike, near a bifurcation, the
    interval also holds what the two halves differ by, and a growth of 8 over the whole run.

    With a start of shape (D,) a problem is followed in the space of its parameters, line or no
    line: the multiplier is then the one of largest modulus, and the mean is that of the growth
    log|DG(θ_t)v| of a unit tangent vector v that is carried along. It is 0 where the orbit
    converges to a manifold of minima.

    Source: standard.

    Parameters
    ----------
    family : Problem or ScalarMap
    parameter : float
        The step size, for gradient descent.
    start : float, or array of shape (D,) for a problem
    steps, transient : int
        Steps of each orbit that are averaged, and before.
    replicas : int
        Number of orbits, at least 2, from starts within 0.1 % of `start`.
    rng : int, numpy.random.Generator or None
        For the starts.

    Returns
    -------
    Exponent
        Of kind "deterministic" for a stable cycle, else "statistical".

    Raises
    ------
    ValueError
        If the orbit diverges, or it leaves the domain of smoothness.

    Warns
    -----
    ExponentWarning
        If the two halves of the run disagree: it is too short to be trusted.

    Examples
    --------
    At a stable minimum, log|1 − 2η|; at η = ½ the multiplier is 0:

    >>> import math
    >>> from stabcore import ScalarFactorization
    >>> from stabcore.descent.lines import BalancedChain
    >>> map_exponent(BalancedChain(2), 0.75, 0.9).value == math.log(0.5)
    True
    >>> map_exponent(BalancedChain(2), 0.5, 0.9).value
    -inf

    In two dimensions, on a stable 2-cycle with the multipliers 9 − 2(1 + η)² and 3 − 2η:

    >>> exponent = map_exponent(ScalarFactorization(), 1.2, [0.9, 0.8])
    >>> round(math.exp(2 * exponent.value), 10), exponent.method
    (0.68, 'stable cycle of period 2')
    """
    length = check.integer("steps", steps, minimum=100)
    wait = check.integer("transient", transient, minimum=0)
    count = check.integer("replicas", replicas, minimum=2)
    generator = check.generator(rng)
    if isinstance(family, Problem) and np.ndim(start) > 0:
        dynamics = in_space(family)
        value = check.step_size(parameter, "parameter")
        point = check.finite_array("start", start, ndim=1)
        check.parameters("start", point, family.n_parameters)
    else:
        dynamics = on_line(as_scalar_map(family))
        value = check.real("parameter", parameter)
        point = np.array([check.real("start", start)])
    starts = np.stack([point] * count)
    starts[1:] += 1e-3 * (1 + np.abs(point)) * generator.uniform(-1, 1, (count - 1, point.size))
    return _exponent(dynamics, value, starts, wait, length)


def _exponent(
    dynamics: Dynamics, parameter: float, points: Array, wait: int, length: int
) -> Exponent:
    """Return the largest exponent of the orbits of points of shape (R, D)."""
    tangents = np.random.default_rng(0).normal(size=(*points.shape, 1))  # any but a zero will do
    halves = np.zeros((2, len(points)))
    with np.errstate(all="ignore"):
        for t in range(-wait, length):
            if t == 0:
                _require_orbit(dynamics, points, parameter)
                stable = _stable_cycle_exponent(dynamics, points[0], parameter)
                if stable is not None:
                    return stable
            if t >= -ALIGNMENT:
                tangents = dynamics.derivative(points, parameter) @ tangents
                growth = np.sqrt((tangents * tangents).sum(axis=1, keepdims=True))
                tangents = tangents / growth
            points = dynamics.step(points, parameter)
            if t >= 0:
                halves[2 * t // length] += np.log(growth[:, 0, 0])
        _require_orbit(dynamics, points, parameter)
    if not np.isfinite(halves).all():
        raise ValueError(
            f"the derivative along the orbit is 0 or no number at parameter {parameter:g}; "
            "choose another start or step size."
        )
    return _time_average(halves, length)


def _require_orbit(dynamics: Dynamics, points: Array, parameter: float) -> None:
    """Refuse orbits that diverged or died."""
    if not (np.abs(points) < MAP_CEILING).all():
        raise ValueError(
            f"the orbit diverges at parameter {parameter:g}; choose another start, or a parameter "
            "at which orbits stay bounded."
        )
    if not dynamics.alive(points).all():
        raise ValueError(
            f"the orbit leaves the domain of smoothness at parameter {parameter:g}: a ReLU died, "
            "and the map is the identity from then on."
        )


def _stable_cycle_exponent(dynamics: Dynamics, point: Array, parameter: float) -> Exponent | None:
    """Return log|leading multiplier|/p if an orbit is settling on a stable cycle, else None."""
    window = iterate(dynamics, point, parameter, 2 * LONGEST_PERIOD)
    scale = 1 + np.abs(window).max()
    gaps = (np.abs(window[p:] - window[:-p]).max() for p in range(1, LONGEST_PERIOD + 1))
    period = next((p for p, gap in enumerate(gaps, start=1) if gap <= 1e-4 * scale), None)
    if period is None:
        return None
    guess = window[-period:]
    (points,), _, (gap,) = solve(dynamics, parameter, guess[None])
    if not gap <= 1e-12 * scale or np.abs(points - guess).max() > 1e-2 * scale:
        return None
    period = repeats_after(points)
    points = points[:period]
    cycle = certified(dynamics, parameter, points, np.random.default_rng(0))
    if cycle.stability != "stable":
        return None
    leading, error = float(abs(cycle.multipliers[0])), cycle.multiplier_error
    value = _log(leading) / period
    return Exponent(
        value=value,
        lower=_log(leading - error) / period,
        upper=_log(leading + error) / period if leading else value,
        kind="deterministic",
        method=f"stable cycle of period {period}",
        evaluations=period,
    )


def _log(x: float) -> float:
    return math.log(x) if x > 0 else -math.inf


def _time_average(halves: Array, length: int) -> Exponent:
    """Return the mean over the orbits, with a warning if the two halves of the run disagree."""
    count = halves.shape[1]
    means = halves.sum(axis=0) / length
    value, error = float(means.mean()), float(means.std(ddof=1) / math.sqrt(count))
    quantile = float(stdtrit(count - 1, 0.975))
    drift = (halves[1] / (length - length // 2) - halves[0] / (length // 2)).mean()
    spread = np.diff(halves, axis=0).std(ddof=1) / (length // 2) / math.sqrt(count)
    status = "converged"
    if abs(drift) > 4 * spread + COBOUNDARY / length:
        status = (
            f"the second half of the run differs from the first by {drift:.2g}; "
            "raise transient and steps"
        )
        check.warn(f"map_exponent: {status}.", ExponentWarning)
    reach = quantile * error
    if error * math.sqrt(count) * length < COBOUNDARY:
        # All orbits approach the same cycle: they agree with each other, not with its exponent yet.
        reach += abs(drift) + COBOUNDARY / length
    return Exponent(
        value=value,
        lower=value - reach,
        upper=value + reach,
        kind="statistical",
        method="time average",
        status=status,
        evaluations=count * length,
    )
