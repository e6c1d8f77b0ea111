r"""The one solver for cycles: Newton's method on all points of a cycle together, any dimension.

A cycle of period p is a list of points X = (x_1, ..., x_p) with x_{i+1} = G(x_i), indices modulo
p; it is a zero of

    F(X)_i = G(x_i) − x_{i+1}.

Solving for all points at once (multiple shooting) evaluates each factor A_i = DG(x_i) and each gap
F_i at its own point, where Newton on G^p − id would follow one orbit through all its stretching.
The derivative of F is block-cyclic: a correction δ solves DF δ = −F if

    δ_{i+1} = A_i δ_i + F_i,

so every δ_i is an affine function P_i δ_1 + q_i of the first, and going once around leaves D
equations, (P_{p+1} − I) δ_1 = −q_{p+1}. Cycles need not be isolated, minima on a manifold are not:
each singular value s of P_{p+1} − I is replaced by s + μ/s with μ the square of the largest gap, so
that directions along a manifold stay put, and the step becomes Newton's as the gap closes. A step
is shortened until it helps.

Maps of the line and of the space of all parameters are one thing here, `Dynamics`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stabcore._constants import EPSILON, SAME_POINT
from stabcore._validation import Array
from stabcore.descent.lines import LineMap, MapLike, ScalarMap, as_scalar_map
from stabcore.descent.map import gd_derivative, gd_step
from stabcore.problems.base import Problem
from stabcore.problems.checking import GRADIENT, HESSIAN, require_problem

SHORTEST = 1e-9  # a Newton step of which not even this fraction helps is given up


class Dynamics(NamedTuple):
    """A map G of D variables that depends on a parameter; parameters have the shape (...)."""

    dimension: int
    step: Callable[[Array, ArrayLike], Array]
    """G(x): (..., D) -> (..., D)."""
    derivative: Callable[[Array, ArrayLike], Array]
    """DG(x): (..., D) -> (..., D, D)."""
    alive: Callable[[Array], NDArray[np.bool_]]
    """Where the map is smooth and its network alive: (..., D) -> (...)."""


class Solutions(NamedTuple):
    """What Newton's method made of each guess."""

    points: Array  # (R, p, D)
    derivatives: Array  # DG at the points, (R, p, D, D)
    gaps: Array  # max_i |F_i|, (R,); infinite outside the domain of smoothness


def as_dynamics(value: MapLike) -> Dynamics:
    """Return gradient descent in the space of a problem's parameters, or a map of the line."""
    if isinstance(value, Problem):
        return in_space(value)
    return on_line(as_scalar_map(value))


def in_space(problem: Problem) -> Dynamics:
    """Return gradient descent in the space of all parameters; the step size is the parameter."""
    require_problem(problem, GRADIENT, HESSIAN)
    return Dynamics(
        dimension=problem.n_parameters,
        step=lambda x, rate: gd_step(problem, x, np.asarray(rate)[..., None]),
        derivative=lambda x, rate: gd_derivative(problem, x, np.asarray(rate)[..., None, None]),
        alive=problem.smooth,
    )


def on_line(family: ScalarMap) -> Dynamics:
    """Return a map of one variable, as one of vectors of length 1."""
    smooth = family.smooth if isinstance(family, LineMap) else np.isfinite
    return Dynamics(
        dimension=1,
        step=lambda x, parameter: family(x[..., 0], parameter)[..., None],
        derivative=lambda x, parameter: family.derivative(x[..., 0], parameter)[..., None, None],
        alive=lambda x: smooth(x[..., 0]),
    )


def iterate(dynamics: Dynamics, points: Array, parameter: float | Array, count: int) -> Array:
    """Return `count` points of the orbit of each start: shape (..., D) -> (..., count, D)."""
    orbit = [points]
    for _ in range(count - 1):
        orbit.append(dynamics.step(orbit[-1], parameter))
    return np.stack(orbit, axis=-2)


def shooting(dynamics: Dynamics, points: Array, parameter: float | Array) -> Array:
    """Return F(X): shape (..., p, D) -> (..., p, D)."""
    following = np.concatenate([points[..., 1:, :], points[..., :1, :]], axis=-2)
    return np.asarray(dynamics.step(points, parameter) - following)


def solve(
    dynamics: Dynamics,
    parameter: float | Array,
    guesses: Array,
    *,
    tolerance: float = 1e-12,
    limit: int = 100,
) -> Solutions:
    """Improve all guesses, shape (R, p, D), together; they may have a parameter each."""
    points, fraction = guesses.copy(), np.ones(len(guesses))
    if not points.size:  # a problem need not be able to evaluate no points at all
        return Solutions(points, np.empty((*points.shape, dynamics.dimension)), np.empty(0))
    parameters = np.broadcast_to(parameter, len(points))[:, None]
    values, derivatives, gaps = _evaluate(dynamics, parameters, points)
    for _ in range(limit):
        # Done: exact, within the tolerance and no longer improving, or hopeless.
        scale = 1 + np.abs(points).max(axis=(1, 2))
        done = (gaps <= 2 * EPSILON * scale) | (fraction < SHORTEST) | np.isinf(gaps)
        active = np.flatnonzero(~done & ((gaps > tolerance * scale) | (fraction == 1)))
        if active.size == 0:
            break
        with np.errstate(over="ignore", invalid="ignore"):
            steps = newton_step(derivatives[active], values[active], gaps[active])
            trial = points[active] + fraction[active, None, None] * steps
        trial_values, trial_derivatives, trial_gaps = _evaluate(dynamics, parameters[active], trial)
        better = trial_gaps < gaps[active]
        kept = active[better]
        points[kept], gaps[kept] = trial[better], trial_gaps[better]
        values[kept], derivatives[kept] = trial_values[better], trial_derivatives[better]
        fraction[kept] = np.minimum(4 * fraction[kept], 1)
        fraction[active[~better]] /= 4
    return Solutions(points, derivatives, gaps)


def newton_step(derivatives: Array, gaps: Array, sizes: Array) -> Array:
    """Solve DF δ = −F for δ of shape (R, p, D), s + μ/s in place of s, where μ = sizes²."""
    # Takes the factors A_i, shape (R, p, D, D), and the gaps F_i, shape (R, p, D).
    # Compositions of the affine maps δ ↦ A δ + F from the first on, in log₂ p rounds.
    slopes, shifts = derivatives, gaps[..., None]
    span = 1
    while span < gaps.shape[1]:
        later = slopes[:, span:]
        shifts = np.concatenate(
            [shifts[:, :span], later @ shifts[:, :-span] + shifts[:, span:]], axis=1
        )
        slopes = np.concatenate([slopes[:, :span], later @ slopes[:, :-span]], axis=1)
        span *= 2
    closing, constant = slopes[:, -1] - np.eye(gaps.shape[-1]), shifts[:, -1]
    finite = np.isfinite(closing + constant).all(axis=(1, 2), keepdims=True)
    left, singular, right = np.linalg.svd(np.where(finite, closing, 0.0))
    damped = singular**2 + sizes[:, None] ** 2
    weights = np.divide(singular, damped, out=np.zeros_like(damped), where=damped > 0)
    first = -right.mT @ (weights[..., None] * (left.mT @ constant))
    first = np.where(finite, first, np.nan)[:, None]
    return np.concatenate([first, slopes[:, :-1] @ first + shifts[:, :-1]], axis=1)[..., 0]


def repeats_after(points: Array) -> int:
    """Return the smallest divisor of p after which the points of a cycle repeat."""
    period, reach = len(points), SAME_POINT * (1 + np.abs(points).max())
    for q in np.flatnonzero(np.abs(points - points[0]).max(axis=1) <= reach)[1:].tolist():
        if period % q == 0 and np.abs(points - np.roll(points, -q, axis=0)).max() <= reach:
            return int(q)
    return period


def _evaluate(dynamics: Dynamics, parameters: Array, points: Array) -> tuple[Array, Array, Array]:
    """Return F(X), the factors DG(x_i), and max_i |F_i|: infinite outside the smooth domain."""
    with np.errstate(over="ignore", invalid="ignore"):
        values = shooting(dynamics, points, parameters)
        derivatives = dynamics.derivative(points, parameters)
        gaps = np.abs(values).max(axis=(1, 2))
        usable = np.isfinite(derivatives).all(axis=(1, 2, 3)) & dynamics.alive(points).all(axis=1)
    return values, derivatives, np.where(usable & np.isfinite(gaps), gaps, np.inf)
