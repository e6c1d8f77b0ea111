"""How long SGD takes to leave a saddle."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from stabcore import _validation as check
from stabcore._validation import Array
from stabcore.problems.base import Problem
from stabcore.problems.checking import GRADIENT, SAMPLES, require_problem
from stabcore.sampling import SGD, as_method
from stabcore.simulation.plain import Stepper


@check.public()
def escape_times(
    problem: Problem,
    saddle: ArrayLike,
    starts: ArrayLike,
    step_size: float,
    method: SGD,
    steps: int,
    *,
    radius: float,
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
    method : SGD
        How one trains.
    steps : int
        Most steps per run.
    radius : float
        Positive.
    rng : int, numpy.random.Generator or None

    Returns
    -------
    array, shape (R,)
        ∞ for a run that was still inside after `steps` steps.

    Examples
    --------
    One neuron on (x, y) = (1, 1): u + w doubles at η = 1, until 2¹⁰ ε = 0.1024 √2 is outside.

    >>> from stabcore.problems.models import OneNeuron
    >>> neuron = OneNeuron([1.0], [1.0])
    >>> escape_times(neuron, [0, 0], [[1e-4, 1e-4]], 1.0, SGD(), 50, radius=0.14)
    array([10.])
    """
    eta = check.step_size(step_size)
    edge = check.real("radius", radius, above=0.0)
    limit = check.integer("steps", steps)
    require_problem(problem, GRADIENT, SAMPLES)
    centre = check.parameters("saddle", saddle, problem.n_parameters)
    if centre.ndim != 1:
        raise ValueError(f"saddle must have 1 dimension, got shape {centre.shape}; pass one point.")
    theta = check.finite_array("starts", starts, ndim=2).copy()
    if theta.shape[1] != centre.size:
        raise ValueError(f"starts must have shape (runs, {centre.size}), got {theta.shape}.")
    stepper = Stepper(problem, eta, as_method(method), len(theta), check.generator(rng))
    times = np.full(len(theta), np.inf)
    for step in range(limit + 1):
        outside = ~(np.linalg.norm(theta - centre, axis=1) < edge)
        times[outside & np.isinf(times)] = step
        theta[outside] = centre  # these runs are over; there nothing overflows
        if step == limit or np.isfinite(times).all():
            break
        theta = stepper.step(theta)
    return times
