"""All step sizes at which a minimum is stable."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from stabcore import _validation as check
from stabcore.exponent import Exponent
from stabcore.lyapunov.automatic import lyapunov_exponent
from stabcore.lyapunov.bounds import MOST_BATCHES, determinant_log_sum
from stabcore.lyapunov.closed_forms import LogSum, log_sums
from stabcore.lyapunov.laws import SGDLaw
from stabcore.lyapunov.mean_square import mean_square_edge
from stabcore.lyapunov.simulated_products import check_options
from stabcore.problems.minimum import Minimum, as_minimum
from stabcore.stable_sets import (
    Interval,
    StableSet,
    intersection,
    negative_steps,
    neighbours,
    stable_set,
)

SCAN_TOLERANCE = 1e-5  # of the deterministic exponents of a scan, which need many of them


@dataclass(frozen=True, kw_only=True)
class StableSets:
    """Where a minimum is stable.

    Attributes
    ----------
    gd, sgd : StableSet
        For gradient descent (μ < 0) and for SGD (λ < 0).
    mean_square : StableSet
        For SGD in mean square: the second moment of the distance falls. Part of `sgd`.
    """

    gd: StableSet
    sgd: StableSet
    mean_square: StableSet


def stable_steps(
    minimum: Minimum | ArrayLike,
    batch_size: int = 1,
    probabilities: ArrayLike | None = None,
    *,
    replacement: bool | None = None,
    upper: float | None = None,
    points: int = 64,
    rng: int | np.random.Generator | None = 0,
    **options: Any,
) -> StableSets:
    r"""Return all step sizes at which a minimum is stable: for GD, for SGD, and in mean square.

    λ(η) is not monotone and may be negative on several disjoint intervals. Where λ is a closed
    form (`stabcore.lyapunov.closed_form`) it is concave between its poles, so all sign changes are
    found. Elsewhere (0, 2/max k_i) is stable (every factor is a contraction), and beyond the last
    root of the determinant bound (1/r) E log|det A_S| ≤ λ nothing is (with more than 2000
    different batches the bound is estimated from as many); λ is scanned in between, and every
    sign change is bracketed as tightly as the error of the exponent allows.

    Source: our derivation.

    Parameters
    ----------
    minimum : Minimum or array, shape (N, N)
        The minimum, or its kernel.
    batch_size : int
        B.
    probabilities : array, shape (N,), optional
        Those of the minimum by default.
    replacement : bool, optional
        Whether a batch may repeat a sample; see `Sampling`.
    upper : float, optional
        Largest step size to look at; by default all of them.
    points : int
        Points of the scan, where one is needed.
    rng : int, numpy.random.Generator or None
        For Monte Carlo. An int gives every step size the same random choices.
    **options
        Of `lyapunov_exponent`: `tolerance`, and `steps`, `replicas`, `transient` of Monte Carlo.

    Returns
    -------
    StableSets
        Three `StableSet`: `gd`, `sgd` and `mean_square`.

    Raises
    ------
    ValueError
        If an argument is invalid; the message names it.

    Examples
    --------
    Two parallel gradients; the second stable interval contains 1/k_1, where λ = −∞:

    >>> sets = stable_steps([[1.0, 4.0], [4.0, 16.0]])
    >>> print(sets.gd, "|", sets.sgd, "|", sets.mean_square)
    (0, 0.2352941) | (0, 0.134732) and (0.927768, 1.0625) | (0, 0.1322957)
    """
    point = as_minimum(minimum)
    end = math.inf if upper is None else check.step_size(upper, "upper")
    check.integer("points", points, minimum=2)
    check.generator(rng)
    check_options(**{name: value for name, value in options.items() if name != "tolerance"})
    law = SGDLaw(point, 1.0, batch_size, probabilities, replacement)
    kappas = np.unique(point.hessian_spectrum(law.sampling.probabilities))
    gd = intersection([negative_steps(np.ones(1), kappa[None]) for kappa in kappas])
    edge = mean_square_edge(point, batch_size, probabilities, replacement)
    mean_square = _first_interval(edge, (neighbours(edge),)) if edge > 0 else _NOWHERE
    sgd = _sgd_steps(law, end, points, rng, options)
    return StableSets(
        gd=gd.restricted(0.0, end),
        sgd=sgd.restricted(0.0, end),
        mean_square=mean_square.restricted(0.0, end),
    )


def _sgd_steps(
    law: SGDLaw,
    end: float,
    points: int,
    rng: int | np.random.Generator | None,
    options: dict[str, Any],
) -> StableSet:
    """Return the step sizes up to `end` at which λ < 0; the step size of `law` plays no part."""
    sums = log_sums(law)
    if sums is not None:
        return intersection([negative_steps(*terms) for terms in sums])
    point, sampling = law.minimum, law.sampling
    if point.hessian_spectrum(sampling.probabilities)[0] == 0:
        return _NOWHERE  # a normal direction in which no sample that is drawn moves
    drawn = np.flatnonzero(sampling.probabilities)
    start = 2 / float(np.diag(point.kernel)[drawn].max())
    bound = negative_steps(*_determinant_bound(law, rng))
    reach = max(start, bound.intervals[-1][1])
    last = min(end, reach)
    if last <= start * (1 + 1e-12):
        # Contractions up to here, and expansion beyond if the bound ends here (all ηk_i = 2).
        return _first_interval(reach, bound.brackets[-1:])

    def exponent(step_size: float) -> Exponent:
        one = SGDLaw(
            point, step_size, sampling.batch_size, sampling.probabilities, sampling.replacement
        )
        return lyapunov_exponent(one, rng=rng, **{"tolerance": SCAN_TOLERANCE, **options})

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


_NOWHERE = StableSet(intervals=(), brackets=(), lower=0.0, upper=math.inf)


def _determinant_bound(law: SGDLaw, rng: int | np.random.Generator | None) -> LogSum:
    """Return the log-sum (1/r) E log|det A_S| ≤ λ, over all batches or a sample of many."""
    sampling = law.sampling
    if sampling.count <= MOST_BATCHES:
        batches, weights = sampling.all_batches()
    else:
        batches = sampling.draw(MOST_BATCHES, rng)
        weights = np.full(MOST_BATCHES, 1 / MOST_BATCHES)
    return determinant_log_sum(law, batches, weights)
