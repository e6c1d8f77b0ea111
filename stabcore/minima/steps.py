"""All step sizes at which a minimum is stable."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from stabcore import _validation as check
from stabcore.exponent import Exponent
from stabcore.lyapunov.automatic import lyapunov_exponent
from stabcore.lyapunov.bounds import determinant_log_sum
from stabcore.lyapunov.closed_forms import LogSum, log_sums
from stabcore.lyapunov.laws import SGDLaw
from stabcore.lyapunov.mean_square import mean_square_edge
from stabcore.lyapunov.simulated_products import check_options
from stabcore.problems.minimum import Minimum
from stabcore.sampling import SGD, covered_method
from stabcore.stable_sets import (
    NOWHERE,
    Interval,
    StableSet,
    intersection,
    negative_steps,
    neighbours,
    stable_set,
)

SCAN_TOLERANCE = 1e-5  # of the deterministic exponents of a scan, which need many of them
MOST_BATCHES = 2_000  # in the determinant bound; of more, as many are drawn


@dataclass(frozen=True, kw_only=True)
class StabilityTable:
    """Where a minimum is stable, as intervals of step sizes (or of s, for `stable_arcs`).

    Attributes
    ----------
    gd, sgd : StableSet
        For gradient descent (μ < 0) and for SGD (λ < 0).
    mean_square : StableSet or None
        For SGD in mean square: the second moment of the distance falls. Part of `sgd`. None where
        it is not known: for reshuffled epochs.
    """

    gd: StableSet
    sgd: StableSet
    mean_square: StableSet | None

    def __str__(self) -> str:
        """Return one line for each notion of stability."""
        unknown = "not known for reshuffled epochs"
        rows = (
            ("GD, mu < 0", self.gd),
            ("SGD, lambda < 0", self.sgd),
            ("SGD in mean square", unknown if self.mean_square is None else self.mean_square),
        )
        return "\n".join(f"{name:<20}{intervals}" for name, intervals in rows)


@check.public(more=check_options)
def stable_steps(
    minimum: Minimum | ArrayLike,
    method: SGD = SGD(),
    *,
    upper: float | None = None,
    points: int = 64,
    rng: int | np.random.Generator | None = 0,
    tolerance: float = SCAN_TOLERANCE,
    **options: Any,
) -> StabilityTable:
    r"""Return all step sizes at which a minimum is stable: for GD, for SGD, and in mean square.

    λ(η) is not monotone and may be negative on several disjoint intervals. Where λ is a closed
    form (`stabcore.lyapunov.closed_form`) it is concave between its poles, so all sign changes are
    found. Elsewhere (0, 2/max k) is stable (every factor is a contraction; k are the curvatures of
    the samples' losses), and beyond the last root of the determinant bound
    (1/r) E log|det A_S| ≤ λ nothing is (with more than 2000 different batches the bound is
    estimated from as many); λ is scanned in between, and every sign change is bracketed as tightly
    as the error of the exponent allows.

    Source: our derivation.

    Parameters
    ----------
    minimum : Minimum or array, shape (N, N)
        The minimum, or its kernel.
    method : SGD
        How one trains.
    upper : float, optional
        Largest step size to look at; by default all of them.
    points : int
        Points of the scan, where one is needed.
    rng : int, numpy.random.Generator or None
        For Monte Carlo. An int gives every step size the same random choices.
    tolerance : float
        Of λ, as in `lyapunov_exponent`.
    **options
        Of Monte Carlo: `steps`, `replicas`, `transient` and its others.

    Returns
    -------
    StabilityTable

    Raises
    ------
    NotImplementedError
        If the method has momentum or weight decay.

    Examples
    --------
    Two parallel gradients; the second stable interval contains 1/k_1, where λ = −∞:

    >>> print(stable_steps([[1.0, 4.0], [4.0, 16.0]]))
    GD, mu < 0          (0, 0.2352941)
    SGD, lambda < 0     (0, 0.134732) and (0.927768, 1.0625)
    SGD in mean square  (0, 0.1322957)
    """
    end = math.inf if upper is None else check.step_size(upper, "upper")
    check.integer("points", points, minimum=2)
    check.generator(rng)
    check_options(**options)
    covered_method(method, "stable_steps")
    law = SGDLaw(minimum, 1.0, method)

    def exponent(step_size: float) -> Exponent:
        return lyapunov_exponent(law.at(step_size), rng=rng, tolerance=tolerance, **options)

    kappas = np.unique(law.minimum.hessian_spectrum)
    gd = intersection([negative_steps(np.ones(1), kappa[None]) for kappa in kappas])
    sums = log_sums(law)
    if sums is not None:
        sgd = intersection([negative_steps(*terms) for terms in sums])
    elif kappas[0] == 0:
        sgd = NOWHERE  # a normal direction in which no sample that is drawn moves
    else:
        sgd = _scanned_steps(law, exponent, end, points, _determinant_bound(law, rng))
    mean_square = None if method.reshuffle else _mean_square_steps(law.minimum, method)
    return StabilityTable(
        gd=gd.restricted(0.0, end),
        sgd=sgd.restricted(0.0, end),
        mean_square=None if mean_square is None else mean_square.restricted(0.0, end),
    )


def _mean_square_steps(minimum: Minimum, method: SGD) -> StableSet:
    """Return the step sizes that are stable in mean square, (0, edge)."""
    edge = mean_square_edge(minimum, method)
    return _first_interval(edge, (neighbours(edge),)) if edge > 0 else NOWHERE


def _scanned_steps(
    law: SGDLaw, exponent: Callable[[float], Exponent], end: float, points: int, terms: LogSum
) -> StableSet:
    """Return the step sizes up to `end` at which λ < 0, by a scan between two proven bounds."""
    drawn = law.batches.probabilities > 0
    start = 2 / float(law.curvatures[drawn].max())
    bound = negative_steps(*terms)
    reach = max(start, bound.intervals[-1][1])
    last = min(end, reach)
    if last <= start * (1 + 1e-12):
        # Contractions up to here, and expansion beyond if the bound ends here (all ηk = 2).
        return _first_interval(reach, bound.brackets[-1:])
    scan = stable_set(exponent, start, last, points=points)
    intervals = [(0.0, start), *scan.intervals]
    if len(intervals) > 1 and intervals[1][0] == start:
        intervals[:2] = [(0.0, intervals[1][1])]
    return StableSet(
        intervals=tuple(intervals),
        brackets=scan.brackets,
        lower=0.0,
        upper=end,
        resolution=scan.resolution,
    )


def _first_interval(edge: float, brackets: tuple[Interval, ...]) -> StableSet:
    """Return the set (0, edge)."""
    return StableSet(intervals=((0.0, edge),), brackets=brackets, lower=0.0, upper=math.inf)


def _determinant_bound(law: SGDLaw, rng: int | np.random.Generator | None) -> LogSum:
    """Return the log-sum (1/r) E log|det A_S| ≤ λ, over all batches or a sample of many."""
    if law.batches.count <= MOST_BATCHES:
        return determinant_log_sum(law, *law.batches.listed())
    weights = np.full(MOST_BATCHES, 1 / MOST_BATCHES)
    return determinant_log_sum(law, law.batches.draw(MOST_BATCHES, rng), weights)
