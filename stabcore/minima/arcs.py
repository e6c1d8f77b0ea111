"""The stable minima of a two-parameter problem, as arcs of its curve of minima."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from stabcore import _validation as check
from stabcore.minima.steps import StableSets, stable_steps
from stabcore.problems.factorised import ScalarFactorization
from stabcore.problems.minimum import Minimum


def stable_arcs(
    problem: ScalarFactorization,
    step_size: float,
    batch_size: int = 1,
    probabilities: ArrayLike | None = None,
    replacement: bool | None = None,
) -> StableSets:
    r"""Return the stable minima of a two-parameter problem, as sets of s = θ₁² + θ₂² ≥ 2.

    The kernel is proportional to s along the minima, so the exponents depend on ηs alone and the
    arcs are the stable step sizes of the kernel at s = 1, divided by η. See `stable_steps`.

    Source: our derivation; the example is paper D's.

    Parameters
    ----------
    problem : ScalarFactorization or ReluPair
    step_size : float
        η > 0.
    batch_size : int
        B.
    probabilities : array, shape (N,), optional
        Those of the problem by default.
    replacement : bool, optional
        Whether a batch may repeat a sample; see `Sampling`.

    Returns
    -------
    StableSets

    Raises
    ------
    ValueError
        If an argument is invalid; the message names it.

    Examples
    --------
    Paper D's figure 4, with the second arc that its window does not show:

    >>> from stabcore import ReluPair
    >>> print(stable_arcs(ReluPair(), 0.15).sgd)
    (2, 2.635898) and (6.661222, 9.297119)
    """
    eta = check.step_size(step_size)
    check.instance("problem", problem, ScalarFactorization)
    inputs = problem.inputs[:, 0]
    unit = Minimum(np.outer(inputs, inputs), problem.probabilities)
    steps = stable_steps(unit, batch_size, probabilities, replacement=replacement)
    gd, sgd, mean_square = (
        part.scaled(1 / eta).restricted(2.0) for part in (steps.gd, steps.sgd, steps.mean_square)
    )
    return StableSets(gd=gd, sgd=sgd, mean_square=mean_square)
