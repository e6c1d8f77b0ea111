"""Simulation of gradient descent and SGD in plain coordinates, for any problem."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stabcore import _validation as check
from stabcore._validation import Array
from stabcore.problems.base import Problem
from stabcore.sampling import Sampling


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

    def growth_rate(self, start: int, end: int) -> tuple[float, float]:
        """Return the mean rate of log|φ| between two recorded steps, and its standard error.

        Near a minimum the rate of gradient descent tends to μ and that of SGD to λ.

        Parameters
        ----------
        start, end : int
            Two of `times`, `start` < `end`.

        Returns
        -------
        mean, standard_error : float
            In nats per step, over the runs; the error of a single run is NaN.

        Raises
        ------
        ValueError
            If a step was not recorded, or the two are not in order.
        """
        recorded = set(self.times.tolist())
        if not (start in recorded and end in recorded and start < end):
            raise ValueError(
                f"start and end must be recorded steps with start < end, got {start} and {end}; "
                f"recorded are {self.times[0]}, {self.times[1]}, ..., {self.times[-1]}."
            )
        first, last = self.log_residuals[np.searchsorted(self.times, [start, end])]
        rates = (last - first) / (end - start)
        if rates.size == 1:
            return float(rates[0]), math.nan
        return float(rates.mean()), float(rates.std(ddof=1) / math.sqrt(rates.size))


def gradient_descent(
    problem: Problem,
    starts: ArrayLike,
    step_size: float,
    steps: int,
    *,
    record_every: int | None = None,
) -> Runs:
    """Run gradient descent θ ← θ − η∇L(θ) from many starts at once.

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

    Raises
    ------
    ValueError
        If an argument is invalid; the message names it.

    Examples
    --------
    >>> from stabcore import ScalarFactorization
    >>> runs = gradient_descent(ScalarFactorization(), [[1.5, 0.5]], 0.1, 500)
    >>> float(runs.ends[0].prod().round(9))
    1.0
    """
    return _run(problem, starts, step_size, steps, record_every, None, None)


def stochastic_gradient_descent(
    problem: Problem,
    starts: ArrayLike,
    step_size: float,
    steps: int,
    *,
    batch_size: int = 1,
    probabilities: ArrayLike | None = None,
    rng: int | np.random.Generator | None = None,
    record_every: int | None = None,
) -> Runs:
    """Run SGD from many starts at once, each with batches of its own.

    Parameters
    ----------
    problem : Problem
    starts : array, shape (R, D)
    step_size : float
        η > 0.
    steps : int
    batch_size : int
        B.
    probabilities : array, shape (N,), optional
        Those of the problem by default.
    rng : int, numpy.random.Generator or None
    record_every : int, optional
        Record every so many steps; only the start and the end by default.

    Returns
    -------
    Runs

    Raises
    ------
    ValueError
        If an argument is invalid; the message names it.

    Examples
    --------
    >>> from stabcore import ReluPair
    >>> runs = stochastic_gradient_descent(ReluPair(), [[1.2, 0.9]], 0.1, 500, rng=0)
    >>> float(runs.ends[0].prod().round(9))
    1.0
    """
    check.instance("problem", problem, Problem)
    weights = problem.probabilities if probabilities is None else probabilities
    sampling = Sampling(problem.n_samples, batch_size, weights)
    return _run(problem, starts, step_size, steps, record_every, sampling, check.generator(rng))


def _run(
    problem: Problem,
    starts: ArrayLike,
    step_size: float,
    steps: int,
    record_every: int | None,
    sampling: Sampling | None,
    rng: np.random.Generator | None,
) -> Runs:
    check.instance("problem", problem, Problem)
    theta = check.finite_array("starts", starts, ndim=2)
    if theta.shape[1] != problem.n_parameters:
        raise ValueError(
            f"starts must have shape (runs, {problem.n_parameters}), got {theta.shape}."
        )
    rate = check.step_size(step_size)
    limit = check.integer("steps", steps)
    stride = limit if record_every is None else check.integer("record_every", record_every)
    times = np.unique(np.append(np.arange(0, limit + 1, stride), limit))
    points = np.empty((times.size, *theta.shape))
    points[0] = theta
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(1, times.size):
            for _ in range(times[k - 1], times[k]):
                gradient = (
                    problem.gradient(theta)
                    if sampling is None
                    else problem.batch_gradient(theta, sampling.draw(len(theta), rng))
                )
                theta = theta - rate * gradient
            theta = np.where(np.isfinite(theta).all(axis=1, keepdims=True), theta, np.nan)
            points[k] = theta
        norms = np.linalg.norm(problem.residuals(points), axis=-1)
    with np.errstate(divide="ignore"):
        return Runs(times=times, points=points, log_residuals=np.log(norms))
