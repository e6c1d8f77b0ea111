"""All step sizes at which a minimum is stable."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from stabcore import _validation as check
from stabcore.exponent import Exponent
from stabcore.lyapunov.automatic import estimated
from stabcore.lyapunov.bounds import determinant_log_sum
from stabcore.lyapunov.closed_forms import LogSum, log_sums
from stabcore.lyapunov.enclosures import can_be_enclosed, sign_between
from stabcore.lyapunov.laws import MomentumLaw, SGDLaw
from stabcore.lyapunov.mean_square import mean_square_edge
from stabcore.lyapunov.momentum import momentum_edge
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
    overlap,
    scanned,
)

SCAN_TOLERANCE = 1e-5  # of the deterministic exponents of a scan, which need many of them
FEWEST_POINTS = 5  # of a scan between two roots of the determinant bound
EDGE = 1e-11  # relative accuracy of the edge of stability in mean square
MOST_PROOFS = 400  # of signs on intervals of step sizes
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
    found. Elsewhere everything is stable up to the edge in mean square (or 2/max k, where every
    factor is a contraction; k are the curvatures of the samples' losses), and nothing is where the
    determinant bound (1/r) E log|det A_S| ≤ λ is positive (with more than 2000 different batches
    the bound is estimated from as many). In what is left, or the `points` widest pieces of it, λ is
    scanned, the step sizes at which a factor is singular among the points, and every sign change is
    bracketed as tightly as the error of the exponent allows. In the plane the signs between sign
    changes are then proven, on whole intervals of step sizes, until the widest without a proof is
    the `resolution`.

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
        If the method has weight decay, or momentum and reshuffled epochs.

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
    check.real("tolerance", tolerance, above=0.0)
    covered_method(method, "stable_steps", "momentum")
    if method.momentum:
        found = _with_momentum(minimum, method, end, points, rng, (tolerance, options))
        return StabilityTable(**{name: one.restricted(0.0, end) for name, one in found.items()})
    law = SGDLaw(minimum, 1.0, method)

    def exponent(step_size: float) -> Exponent:
        return estimated(law.at(step_size), check.generator(rng), tolerance, options, proven=False)

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


def _with_momentum(
    minimum: Minimum | ArrayLike,
    method: SGD,
    end: float,
    points: int,
    rng: int | np.random.Generator | None,
    how: tuple[float, dict[str, Any]],
) -> dict[str, StableSet]:
    """Return the stable step sizes with momentum: two edges, and a scan of λ beyond the second."""
    if method.reshuffle:
        raise NotImplementedError(
            "stable_steps() does not cover momentum with reshuffle=True; use independent batches, "
            "or sgd_exponent at the step sizes in question."
        )
    law = MomentumLaw(minimum, 1.0, method)
    spectrum = law.minimum.hessian_spectrum
    if spectrum[0] == 0:
        return dict.fromkeys(("gd", "sgd", "mean_square"), NOWHERE)
    gd = momentum_edge(float(spectrum[-1]), method)
    mean_square = mean_square_edge(law.minimum, method)
    sets = {
        name: _first_interval(edge, (neighbours(edge),))
        for name, edge in (("gd", gd), ("mean_square", mean_square))
    }
    if law.batches.full_batch:
        return sets | {"sgd": sets["gd"]}

    def exponent(step_size: float) -> Exponent:
        return estimated(law.at(step_size), check.generator(rng), *how, proven=False)

    start = mean_square * (1 - EDGE)
    last = max(gd, 2 * start)
    while last < end and min(exponent(last * k).value for k in (1, 2)) <= 0:
        last *= 2  # beyond, λ grows with the logarithm of η
    grid = np.linspace(start, min(last, end), points) if start < end else np.array([start, end])
    found = [exponent(float(eta)) for eta in grid]
    known = np.array([one.sign is not None for one in found])
    scan = scanned(exponent, grid, np.array([one.value for one in found]), known)
    intervals = [(0.0, start), *scan.intervals]
    if len(intervals) > 1 and intervals[1][0] == start:
        intervals[:2] = [(0.0, intervals[1][1])]
    return sets | {"sgd": replace(scan, intervals=tuple(intervals), lower=0.0)}


def _mean_square_steps(minimum: Minimum, method: SGD) -> StableSet:
    """Return the step sizes that are stable in mean square, (0, edge)."""
    edge = mean_square_edge(minimum, method)
    return _first_interval(edge, (neighbours(edge),)) if edge > 0 else NOWHERE


def _scanned_steps(
    law: SGDLaw, exponent: Callable[[float], Exponent], end: float, points: int, terms: LogSum
) -> StableSet:
    """Return the step sizes up to `end` at which λ < 0, by a scan where no bound decides."""
    drawn = law.batches.probabilities > 0
    start = 2 / float(law.curvatures[drawn].max())
    if law.batches.epoch_length == 1:
        start = max(start, mean_square_edge(law.minimum, law.method) * (1 - EDGE))
    bound = negative_steps(*terms)
    reach = max(start, bound.intervals[-1][1])
    last = min(end, reach)
    if last <= start * (1 + 1e-12):
        # Stable up to here, and expansion beyond if the bound ends here (all ηk = 2).
        return _first_interval(reach, bound.brackets[-1:])
    # Outside these pieces λ is positive, since the determinant bound is.
    pieces = [(max(a, start), min(b, last)) for a, b in bound.intervals if a < last and b > start]
    # Many batches have many singular factors, each in a piece far too thin for a scan.
    pieces.sort(key=lambda piece: piece[0] - piece[1])
    pieces, passed_over = sorted(pieces[:points]), pieces[points:]
    scans = []
    for low, high in pieces:
        count = max(FEWEST_POINTS, round(points * (high - low) / (last - start)))
        grid = np.linspace(low, high, count)
        poles = np.unique(1 / terms[1][terms[1] > 0])  # a factor is singular: λ may be −∞
        poles = poles[(poles > low) & (poles < high)]
        grid = np.union1d(grid, poles if poles.size <= points else poles[:0])
        found = [exponent(float(eta)) for eta in grid]
        known = np.array([one.sign is not None for one in found])
        scans.append(scanned(exponent, grid, np.array([one.value for one in found]), known))
    intervals = [(0.0, start), *(pair for scan in scans for pair in scan.intervals)]
    if len(intervals) > 1 and intervals[1][0] == start:
        intervals[:2] = [(0.0, intervals[1][1])]
    brackets = [bracket for scan in scans for bracket in scan.brackets]
    spacing = max(scan.resolution for scan in scans)
    if can_be_enclosed(law):
        spacing = min(spacing, _unproven(law, pieces, brackets))
    spacing = max([spacing, overlap(brackets), *(high - low for low, high in passed_over)])
    return StableSet(
        intervals=tuple(intervals),
        brackets=tuple(brackets),
        lower=0.0,
        upper=end,
        resolution=spacing,
    )


def _unproven(law: SGDLaw, pieces: list[Interval], brackets: list[Interval]) -> float:
    """Return the width of the widest interval between sign changes with no proven sign of λ."""
    waiting = []  # the widest first
    for low, high in pieces:
        inner = [(a, b) for a, b in brackets if low <= a and b <= high]
        ends = [low, *(end for bracket in inner for end in bracket), high]
        waiting += [(a - b, a, b) for a, b in zip(ends[::2], ends[1::2], strict=True) if b > a]
    heapify(waiting)
    for _ in range(MOST_PROOFS):
        if not waiting:
            return 0.0
        _, low, high = heappop(waiting)
        if sign_between(law, low, high) is None:
            middle = (low + high) / 2
            for part in ((low, middle), (middle, high)):
                heappush(waiting, (part[0] - part[1], *part))
    return -waiting[0][0]


def _first_interval(edge: float, brackets: tuple[Interval, ...]) -> StableSet:
    """Return the set (0, edge)."""
    return StableSet(intervals=((0.0, edge),), brackets=brackets, lower=0.0, upper=math.inf)


def _determinant_bound(law: SGDLaw, rng: int | np.random.Generator | None) -> LogSum:
    """Return the log-sum (1/r) E log|det A_S| ≤ λ, over all batches or a sample of many."""
    if law.batches.count <= MOST_BATCHES:
        return determinant_log_sum(law, *law.batches.listed())
    weights = np.full(MOST_BATCHES, 1 / MOST_BATCHES)
    return determinant_log_sum(law, law.batches.draw(MOST_BATCHES, rng), weights)
