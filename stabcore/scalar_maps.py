r"""One-dimensional maps x ↦ G(x, η): invariant lines of gradient descent, and their exponents.

If ∇L stays on a line {x·d} of parameters (the balanced line of a chain of factors, by symmetry),
gradient descent started there is a map of one variable,

    G(x, η) = x − η d·∇L(xd) / |d|²,

and in one dimension much more can be said: how its cycles change with η is in `bifurcations`, and
its exponent is the mean of log|G'| along an orbit.

Both take any object with `map(x, parameter)` and `map.derivative(x, parameter)`,
elementwise over arrays; a `Problem` is turned into such a map by `LineMap`. A problem without an
invariant line, or off it, is followed in the space of its parameters: pass a start of shape (D,).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from stabcore import _validation as check
from stabcore._validation import Array
from stabcore.exponent import Exponent, ExponentWarning
from stabcore.orbits import find_cycles
from stabcore.problems import Problem, ReluPair, ScalarChain, ScalarFactorization

CEILING = 1e100  # an orbit beyond it has diverged
LONGEST_PERIOD = 128  # of a stable cycle that `map_exponent` recognises
EPS = float(np.finfo(float).eps)


class ScalarMap(Protocol):
    """A one-dimensional map with a parameter, elementwise over arrays."""

    def __call__(self, x: Any, parameter: Any) -> Array:
        """Return G(x, parameter)."""

    def derivative(self, x: Any, parameter: Any) -> Array:
        """Return ∂G/∂x."""


MapLike: TypeAlias = Problem | ScalarMap


class LineMap:
    r"""Gradient descent restricted to an invariant line θ = x·d.

    Source: our derivation; the diagonal of paper D's example is such a line.

    Parameters
    ----------
    problem : Problem
        With a Hessian (`residual_curvature`) for the derivative.
    direction : array, shape (D,), optional
        d; (1, ..., 1) by default. It need not be normalised: x is measured in multiples of it.

    Raises
    ------
    ValueError
        If the gradient leaves the line somewhere.

    Examples
    --------
    >>> from stabcore import ReluPair
    >>> diagonal = LineMap(ReluPair())
    >>> float(diagonal(1.1, 0.3).round(6)) == round(1.1 + 0.3 * 3.53 * 1.1 * (1 - 1.1**2), 6)
    True
    """

    def __init__(self, problem: Problem, direction: ArrayLike | None = None) -> None:
        check.instance("problem", problem, Problem)
        ones = np.ones(problem.n_parameters)
        given = ones if direction is None else check.finite_array("direction", direction, ndim=1)
        self.problem = problem
        self.direction = check.parameters("direction", given, problem.n_parameters)
        self._square = float(self.direction @ self.direction)
        if self._square == 0:
            raise ValueError("direction must not be 0; pass the direction of a line.")
        self._require_invariance()

    def point(self, x: ArrayLike) -> Array:
        """Return θ = x·d: shape (...) -> (..., D)."""
        return np.asarray(x, dtype=float)[..., None] * self.direction

    def slope(self, x: ArrayLike) -> Array:
        """Return d·∇L(xd)/|d|², what the step size multiplies."""
        return np.asarray(self.problem.gradient(self.point(x)) @ self.direction) / self._square

    def curvature(self, x: ArrayLike) -> Array:
        """Return dᵀ Hess L(xd) d/|d|², the derivative of `slope`."""
        bent = self.problem.hessian(self.point(x)) @ self.direction
        return np.asarray(bent @ self.direction) / self._square

    def __call__(self, x: ArrayLike, parameter: ArrayLike) -> Array:
        """Return x − η d·∇L(xd)/|d|², elementwise; the parameter is the step size η."""
        return np.asarray(np.asarray(x) - np.asarray(parameter) * self.slope(x))

    def derivative(self, x: ArrayLike, parameter: ArrayLike) -> Array:
        """Return 1 − η dᵀ Hess L(xd) d/|d|², elementwise."""
        return np.asarray(1 - np.asarray(parameter) * self.curvature(x))

    def smooth(self, x: ArrayLike) -> NDArray[np.bool_]:
        """Return where the network is alive, if the problem says so; True elsewhere."""
        alive = getattr(self.problem, "alive", None)
        if alive is None:
            return np.ones(np.shape(x), dtype=bool)
        return np.asarray(alive(self.point(x)))

    def _require_invariance(self) -> None:
        x = np.random.default_rng(0).uniform(-2, 2, size=32)
        gradient = self.problem.gradient(self.point(x))
        across = gradient - self.slope(x)[:, None] * self.direction
        worst = float(np.abs(across).max())
        if worst > 1e-10 * max(1.0, float(np.abs(gradient).max())):
            raise ValueError(
                f"direction {self.direction.tolist()} spans no invariant line: the gradient leaves "
                f"it by up to {worst:.3g}; pass the direction of a symmetric line of parameters, "
                f"or a start of shape ({self.problem.n_parameters},) where that is possible."
            )


@dataclass(frozen=True)
class BalancedChain:
    r"""Gradient descent on ½(u₁⋯u_k − 1)² with all factors equal: u' = u − η(u^k − 1)u^{k−1}.

    The same as `LineMap(ScalarChain(depth=k))`, but without the problem's matrices. k = 2 is also
    the diagonal of paper D's example, with η times the mean squared input for η.

    Source: our derivation.

    Parameters
    ----------
    depth : int
        k ≥ 1.

    Raises
    ------
    ValueError
        If the depth is not a positive integer.

    Examples
    --------
    >>> float(BalancedChain(3)(2.0, 0.25)), float(BalancedChain(3).derivative(1.0, 0.25))
    (-5.0, 0.25)
    """

    depth: int = 2

    def __post_init__(self) -> None:
        """Refuse an impossible depth."""
        check.integer("depth", self.depth)

    def __call__(self, x: ArrayLike, parameter: ArrayLike) -> Array:
        """Return u − η(u^k − 1)u^{k−1}, elementwise."""
        u = np.asarray(x, dtype=float)
        lower = _power(u, self.depth - 1)
        return np.asarray(u - np.asarray(parameter) * (lower * u - 1) * lower)

    def derivative(self, x: ArrayLike, parameter: ArrayLike) -> Array:
        """Return 1 − η((2k − 1)u^{2k−2} − (k − 1)u^{k−2}), elementwise."""
        u, k = np.asarray(x, dtype=float), self.depth
        bend = (k - 1) * _power(u, k - 2) if k > 1 else 0.0
        return np.asarray(1 - np.asarray(parameter) * ((2 * k - 1) * _power(u, 2 * k - 2) - bend))

    def across(self, x: ArrayLike, parameter: ArrayLike) -> Array:
        """Return 1 + η(u^k − 1)u^{k−2}, which multiplies small differences of the factors."""
        check.integer("depth", self.depth, minimum=2)  # a single factor has no others
        u = np.asarray(x, dtype=float)
        lower = _power(u, self.depth - 2)
        return np.asarray(1 + np.asarray(parameter) * (lower * u * u - 1) * lower)


def _power(x: Array, exponent: int) -> Array:
    """Return x^exponent by multiplication, which is much faster than the general power."""
    result = np.ones_like(x)
    for _ in range(exponent):
        result = result * x
    return result


class ChainSlope(NamedTuple):
    """The slope w(q u^k − 1)u^{k−1} of a loss on a line; 0 where `side`·u < 0 (a dead ReLU)."""

    depth: int  # k
    product: float  # q
    weight: float  # w
    side: float  # 1 or −1; 0 if the formula holds everywhere


def chain_slope(value: object) -> ChainSlope | None:
    """Return the slope of a map u − η·slope in closed form, None where none is known."""
    if type(value) is BalancedChain:
        return ChainSlope(value.depth, 1.0, 1.0, 0.0)
    # A subclass may have any gradient: exact types only.
    if type(value) is not LineMap:
        return None
    problem, direction = value.problem, value.direction
    if type(problem) is ScalarChain:
        curvature = 1.0
    elif type(problem) is ScalarFactorization or type(problem) is ReluPair:
        curvature = float(problem.probabilities @ problem.curvatures)
    else:
        return None
    depth, product = direction.size, float(direction.prod())
    weight, side = curvature * depth * product / float(direction @ direction), 0.0
    if type(problem) is ReluPair:
        side = float(np.sign(direction[0]))
        weight = weight if product > 0 else 0.0  # one of the two parameters is never positive
    return ChainSlope(depth, product, weight, side)


def as_scalar_map(value: MapLike) -> ScalarMap:
    """Return the map of a problem on its diagonal, or the map itself."""
    if isinstance(value, Problem):
        return cast("ScalarMap", LineMap(value))
    if not callable(value) or not hasattr(value, "derivative"):
        raise TypeError(
            f"expected a Problem or a map with a method `derivative`, got {type(value).__name__}; "
            "see ScalarMap."
        )
    return value


def map_exponent(
    map: MapLike,
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
    the estimate and its standard error.

    With a start of shape (D,) a problem is followed in the space of its parameters, line or no
    line: the multiplier is then the one of largest modulus, and the mean is that of the growth
    log|DG(θ_t)v| of a unit tangent vector v that is carried along. It is 0 where the orbit
    converges to a manifold of minima.

    Source: standard.

    Parameters
    ----------
    map : Problem or ScalarMap
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
        If an argument is invalid, the orbit diverges, or it leaves the domain of smoothness.

    Warns
    -----
    ExponentWarning
        If the two halves of the run disagree: it is too short to be trusted.

    Examples
    --------
    At a stable minimum, log|1 − 2η|; at η = ½ the multiplier is 0:

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
    if isinstance(map, Problem) and np.ndim(start) > 0:
        rate = check.step_size(parameter, "parameter")
        point = check.finite_array("start", start, ndim=1)
        check.parameters("start", point, map.n_parameters)
        return _exponent_in_space(map, rate, _nearby(point, count, generator), wait, length)
    family = as_scalar_map(map)
    value = check.real("parameter", parameter)
    x = _nearby(np.array(check.real("start", start)), count, generator)
    return _exponent_on_line(family, value, x, wait, length)


def _nearby(start: Array, count: int, rng: np.random.Generator) -> Array:
    """Return the start and count − 1 neighbours of it, shape (count, ...)."""
    starts = np.stack([start] * count)
    starts[1:] += 1e-3 * (1 + np.abs(start)) * rng.uniform(-1, 1, size=(count - 1, *start.shape))
    return starts


def _exponent_on_line(
    family: ScalarMap, value: float, x: Array, wait: int, length: int
) -> Exponent:
    """Return the exponent of a one-dimensional map from starts x, shape (R,)."""
    halves = np.zeros((2, x.size))
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(wait):
            x = family(x, value)
        _require_orbit(getattr(family, "smooth", None), x, value)
        stable = _stable_cycle_exponent(family, float(x[0]), value)
        if stable is not None:
            return stable
        for t in range(length):
            halves[2 * t // length] += np.log(np.abs(family.derivative(x, value)))
            x = family(x, value)
        _require_orbit(getattr(family, "smooth", None), x, value)
    return _time_average(halves, length)


def _exponent_in_space(
    problem: Problem, rate: float, points: Array, wait: int, length: int
) -> Exponent:
    """Return the largest exponent of gradient descent from points of shape (R, D)."""
    tangents = np.random.default_rng(0).normal(size=points.shape)  # any will do, but not a zero
    halves = np.zeros((2, len(points)))
    alive = getattr(problem, "alive", None)
    with np.errstate(all="ignore"):
        for t in range(-wait, length):
            if t == 0:
                _require_orbit(alive, points, rate)
                stable = _stable_orbit_exponent(problem, points[0], rate)
                if stable is not None:
                    return stable
            tangents = tangents - rate * (problem.hessian(points) @ tangents[..., None])[..., 0]
            points = points - rate * problem.gradient(points)
            growth = np.linalg.norm(tangents, axis=-1)
            tangents = tangents / growth[:, None]
            if t >= 0:
                halves[2 * t // length] += np.log(growth)
        _require_orbit(alive, points, rate)
    if not np.isfinite(halves).all():
        raise ValueError(
            f"the derivative along the orbit is 0 or no number at parameter {rate:g}; "
            "choose another start or step size."
        )
    return _time_average(halves, length)


def _stable_orbit_exponent(problem: Problem, point: Array, rate: float) -> Exponent | None:
    """Return log|leading multiplier|/p if an orbit is settling on a stable cycle, else None."""
    window = np.stack([point] * (2 * LONGEST_PERIOD))
    for t in range(1, len(window)):
        window[t] = window[t - 1] - rate * problem.gradient(window[t - 1])
    scale = 1 + np.abs(window).max()
    gaps = (np.abs(window[p:] - window[:-p]).max() for p in range(1, LONGEST_PERIOD + 1))
    period = next((p for p, gap in enumerate(gaps, start=1) if gap <= 1e-4 * scale), None)
    if period is None:
        return None
    cycles = find_cycles(problem, rate, period, starts=window[-1:], transient=0).stable
    if not cycles or np.abs(cycles[0].points - window[-1]).max(axis=1).min() > 1e-2 * scale:
        return None
    leading, error = float(abs(cycles[0].multipliers[0])), cycles[0].multiplier_error
    value = _log(leading) / period
    return Exponent(
        value=value,
        lower=_log(leading - error) / period,
        upper=_log(leading + error) / period if leading else value,
        kind="deterministic",
        method=f"stable cycle of period {period}",
        evaluations=period,
    )


def _require_orbit(
    smooth: Callable[[Array], NDArray[np.bool_]] | None, x: Array, parameter: float
) -> None:
    """Refuse orbits that diverged or died."""
    if not (np.abs(x) < CEILING).all():
        raise ValueError(
            f"the orbit diverges at parameter {parameter:g}; choose another start, or a parameter "
            "at which orbits stay bounded."
        )
    if smooth is not None and not smooth(x).all():
        raise ValueError(
            f"the orbit leaves the domain of smoothness at parameter {parameter:g}: a ReLU died, "
            "and the map is the identity from then on."
        )


def _stable_cycle_exponent(family: ScalarMap, x: float, parameter: float) -> Exponent | None:
    """Return log|multiplier|/p if the orbit of x is settling on a stable cycle, else None."""
    window = np.full(2 * LONGEST_PERIOD, x)
    for t in range(1, window.size):
        window[t] = family(window[t - 1], parameter)
    scale = 1 + np.abs(window).max()
    for p in range(1, LONGEST_PERIOD + 1):
        if np.abs(window[p:] - window[:-p]).max() > 1e-4 * scale:
            continue
        points, derivatives, converged = refine_cycle(family, window[-p:], parameter)
        multiplier = float(np.abs(derivatives).prod())
        if not converged or multiplier >= 1 or np.abs(points - window[-p:]).max() > 1e-2 * scale:
            return None
        # Each factor is known up to the rounding of a point, which changes it by at most as much
        # as the derivatives at two neighbouring floats differ.
        beside = family.derivative(points * (1 + 4 * EPS), parameter)
        error = np.abs(beside - derivatives) + 4 * EPS * (1 + np.abs(derivatives))
        value = _log(multiplier) / p
        return Exponent(
            value=value,
            lower=_log(float(np.maximum(np.abs(derivatives) - error, 0).prod())) / p,
            upper=_log(float((np.abs(derivatives) + error).prod())) / p if multiplier else value,
            kind="deterministic",
            method=f"stable cycle of period {p}",
            evaluations=p,
        )
    return None


def _log(x: float) -> float:
    return math.log(x) if x > 0 else -math.inf


def _time_average(halves: Array, length: int) -> Exponent:
    """Return the mean over the orbits, with a warning if the two halves of the run disagree."""
    count = halves.shape[1]
    means = halves.sum(axis=0) / length
    value, error = float(means.mean()), float(means.std(ddof=1) / math.sqrt(count))
    quantile = float(stats.t.ppf(0.975, count - 1))
    drift = (halves[1] / (length - length // 2) - halves[0] / (length // 2)).mean()
    spread = np.diff(halves, axis=0).std(ddof=1) / (length // 2) / math.sqrt(count)
    status = "converged"
    if abs(drift) > 4 * spread + 8 / length:  # the halves of a coboundary differ by O(1/length)
        status = (
            f"the second half of the run differs from the first by {drift:.2g}; "
            "raise transient and steps"
        )
        warnings.warn(f"map_exponent: {status}.", ExponentWarning, stacklevel=4)
    return Exponent(
        value=value,
        lower=value - quantile * error,
        upper=value + quantile * error,
        kind="statistical",
        method="time average",
        status=status,
        evaluations=count * length,
    )


def refine_cycle(family: ScalarMap, points: Array, parameter: float) -> tuple[Array, Array, bool]:
    r"""Return the cycle near a guess by Newton's method on all its points together.

    With F_i = G(x_i) − x_{i+1} and g_i = G'(x_i) the corrections satisfy δ_{i+1} = g_i δ_i + F_i,
    which closes after one turn.

    Source: standard (multiple shooting).

    Parameters
    ----------
    family : ScalarMap
    points : array, shape (p,)
        The guess, in the order of the orbit.
    parameter : float

    Returns
    -------
    points, derivatives : arrays, shape (p,)
        The cycle and G' at its points, whose product is the multiplier.
    converged : bool

    Examples
    --------
    >>> cycle, derivatives, converged = refine_cycle(BalancedChain(2), np.array([0.7, 1.1]), 1.2)
    >>> float(derivatives.prod().round(12)), converged  # 9 − 2(1 + η)²
    (-0.68, True)
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return _newton(family, np.array(points, dtype=float), parameter)


def _newton(family: ScalarMap, x: Array, parameter: float) -> tuple[Array, Array, bool]:
    """Correct all points until rounding has the last word."""
    slopes = family.derivative(x, parameter)
    previous = math.inf
    for _ in range(50):
        gaps = family(x, parameter) - np.roll(x, -1)
        constant = 0.0
        for gap, slope in zip(gaps.tolist(), slopes.tolist(), strict=True):
            constant = slope * constant + gap
        closing = 1 - float(slopes.prod())
        if closing == 0 or not math.isfinite(constant):
            return x, slopes, False
        corrections = [constant / closing]
        for gap, slope in zip(gaps.tolist()[:-1], slopes.tolist()[:-1], strict=True):
            corrections.append(slope * corrections[-1] + gap)
        size = float(np.abs(corrections).max())
        if not math.isfinite(size):
            return x, slopes, False
        x = x + corrections
        slopes = family.derivative(x, parameter)
        small = size < 1e-9 * (1 + float(np.abs(x).max()))
        if small and (size == 0 or size >= previous / 2):
            return x, slopes, True
        previous = size
    return x, slopes, False
