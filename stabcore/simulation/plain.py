"""Simulation of gradient descent and SGD in plain coordinates, for any problem.

The coordinates are the parameters themselves, so that any `Problem` will do, down to the rounding
error of its residuals. Where a run must be followed closer to a minimum use `exact_runs`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stabcore import _rates
from stabcore import _validation as check
from stabcore._validation import Array
from stabcore.problems.base import Problem
from stabcore.problems.checking import GRADIENT, SAMPLES, require_problem
from stabcore.sampling import GD, SGD, as_method
from stabcore.simulation._batches import Drawer
from stabcore.simulation._runs import recorded_times


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Runs in plain coordinates.

    Attributes
    ----------
    times : array of int, shape (T,)
        The recorded steps: 0, k, 2k, ... and the last.
    points : array, shape (T, R, D)
        The parameters there; NaN after a run diverged.
    log_residuals : array, shape (T, R)
        log|φ(θ)|, Euclidean norm over the samples.
    """

    times: NDArray[np.int64]
    points: Array
    log_residuals: Array

    @property
    def ends(self) -> Array:
        """The last recorded parameters, shape (R, D)."""
        return np.asarray(self.points[-1])

    @property
    def diverged(self) -> NDArray[np.bool_]:
        """Whether each run left every bound, shape (R,)."""
        return np.asarray(~np.isfinite(self.ends).all(axis=-1))

    def __str__(self) -> str:
        """Return the numbers of runs and steps."""
        runs, last = self.points.shape[1], int(self.times[-1])
        return f"{runs} runs of {last} steps, {int(self.diverged.sum())} of them diverged"

    growth_rate = _rates.growth_rate


@check.public()
def gradient_descent(
    problem: Problem,
    starts: ArrayLike,
    step_size: float,
    steps: int,
    *,
    record_every: int | None = None,
) -> Runs:
    """Run gradient descent θ ← θ − η∇L(θ) from many starts at once.

    The same as `stochastic_gradient_descent` with the method `GD`, full batches.

    Source: standard.

    Parameters
    ----------
    problem : Problem
    starts : array, shape (R, D)
    step_size : float
        η > 0.
    steps : int
    record_every : int, optional
        Record every so many steps; only the start and the end by default.

    Returns
    -------
    Runs

    Examples
    --------
    >>> from stabcore import ScalarFactorization
    >>> runs = gradient_descent(ScalarFactorization(), [[1.5, 0.5]], 0.1, 500)
    >>> float(runs.ends[0].prod().round(9))
    1.0
    """
    return stochastic_gradient_descent(
        problem, starts, step_size, GD, steps, record_every=record_every
    )


@check.public()
def stochastic_gradient_descent(
    problem: Problem,
    starts: ArrayLike,
    step_size: float,
    method: SGD,
    steps: int,
    *,
    rng: int | np.random.Generator | None = None,
    record_every: int | None = None,
) -> Runs:
    """Run SGD from many starts at once, each with batches, epochs and velocity of its own.

    Source: standard; momentum as in PyTorch (see `SGD`).

    Parameters
    ----------
    problem : Problem
    starts : array, shape (R, D)
    step_size : float
        η > 0.
    method : SGD
        How one trains; everything it can say is simulated.
    steps : int
    rng : int, numpy.random.Generator or None
    record_every : int, optional
        Record every so many steps; only the start and the end by default.

    Returns
    -------
    Runs

    Examples
    --------
    >>> from stabcore import SGD, ReluPair
    >>> runs = stochastic_gradient_descent(ReluPair(), [[1.2, 0.9]], 0.1, SGD(), 500, rng=0)
    >>> float(runs.ends[0].prod().round(9))
    1.0

    Two steps of momentum ½ on ½(θ − 1)² from 0: first 0.1, then 0.1 · 0.9 + ½ · 0.1.

    >>> from stabcore import LinearRegression
    >>> line = LinearRegression([[1.0]], [1.0])
    >>> runs = stochastic_gradient_descent(line, [[0.0]], 0.1, SGD(momentum=0.5), 2)
    >>> float(runs.ends[0, 0].round(12))
    0.24
    """
    how = as_method(method)
    require_problem(problem, GRADIENT, *(() if how == GD else (SAMPLES,)))
    theta = check.finite_array("starts", starts, ndim=2)
    if theta.shape[1] != problem.n_parameters:
        raise ValueError(
            f"starts must have shape (runs, {problem.n_parameters}), got {theta.shape}."
        )
    rate, times = check.step_size(step_size), recorded_times(steps, record_every)
    stepper = Stepper(problem, rate, how, len(theta), check.generator(rng))
    points = np.empty((times.size, *theta.shape))
    points[0] = theta
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(1, times.size):
            for _ in range(times[k - 1], times[k]):
                theta = stepper.step(theta)
            theta = np.where(np.isfinite(theta).all(axis=1, keepdims=True), theta, np.nan)
            points[k] = theta
        norms = np.linalg.norm(problem.residuals(points), axis=-1)
    with np.errstate(divide="ignore"):
        return Runs(times=times, points=points, log_residuals=np.log(norms))


class Stepper:
    """The steps of a method from many points at once, with the velocities in between."""

    def __init__(
        self, problem: Problem, rate: float, method: SGD, runs: int, rng: np.random.Generator
    ) -> None:
        self.problem, self.rate, self.method = problem, rate, method
        self.velocity = np.zeros((runs, problem.n_parameters))
        batches = method.batches(problem.n_samples, problem.probabilities)
        self.full = batches.full_batch
        self.scales = batches.scales
        self.drawer = Drawer(batches, runs, rng)

    def step(self, theta: Array) -> Array:
        """Return the points after one step."""
        method, gradient = self.method, self._gradient(theta)
        if method.weight_decay:
            gradient = gradient + method.weight_decay * theta
        if not method.momentum:
            return theta - self.rate * gradient
        self.velocity = method.momentum * self.velocity + gradient
        ahead = gradient + method.momentum * self.velocity if method.nesterov else self.velocity
        return theta - self.rate * ahead

    def _gradient(self, theta: Array) -> Array:
        if self.full:
            return self.problem.gradient(theta)
        batch = self.drawer.next()
        if (self.scales == 1).all():
            return self.problem.batch_gradient(theta, batch)
        return self.problem.batch_gradient(theta, batch, self.scales[batch])
