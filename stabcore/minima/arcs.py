"""The stable minima of a two-parameter problem, as arcs of its curve of minima."""

from __future__ import annotations

import numpy as np

from stabcore import _validation as check
from stabcore.minima.steps import StabilityTable, stable_steps
from stabcore.problems.factorised import ScalarFactorization
from stabcore.problems.minimum import Minimum
from stabcore.sampling import SGD


@check.public()
def stable_arcs(
    problem: ScalarFactorization, step_size: float, method: SGD = SGD()
) -> StabilityTable:
    r"""Return the stable minima of a two-parameter problem, as sets of s = θ₁² + θ₂² ≥ 2.

    The kernel is proportional to s along the minima, so the exponents depend on ηs alone and the
    arcs are the stable step sizes of the kernel at s = 1, divided by η. See `stable_steps`.

    Source: our derivation; the example is paper D's.

    Parameters
    ----------
    problem : ScalarFactorization or ReluPair
    step_size : float
        η > 0.
    method : SGD
        How one trains.

    Returns
    -------
    StabilityTable
        Of sets of s.

    Raises
    ------
    NotImplementedError
        If the method has momentum or weight decay.

    Examples
    --------
    Paper D's figure 4, with the second arc that its window does not show:

    >>> from stabcore import ReluPair
    >>> print(stable_arcs(ReluPair(), 0.15).sgd)
    (2, 2.635898) and (6.661222, 9.297119)
    """
    eta = check.step_size(step_size)
    check.instance("problem", problem, ScalarFactorization)
    roots = np.sqrt(problem.curvatures)
    table = stable_steps(Minimum(np.outer(roots, roots), problem.probabilities), method)
    gd, sgd, mean_square = (
        None if part is None else part.scaled(1 / eta).restricted(2.0)
        for part in (table.gd, table.sgd, table.mean_square)
    )
    assert gd is not None
    assert sgd is not None
    return StabilityTable(gd=gd, sgd=sgd, mean_square=mean_square)
