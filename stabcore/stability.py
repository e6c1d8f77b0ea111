"""Which minima are stable: λ at a minimum, the verdict of the theorems, and stable sets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from stabcore import _validation as check
from stabcore.exponent import Exponent
from stabcore.gd import gd_exponent
from stabcore.lyapunov import lyapunov_exponent
from stabcore.lyapunov.bounds import MOST_BATCHES, determinant_log_sum
from stabcore.lyapunov.closed_form import LogSum, log_sums
from stabcore.lyapunov.mean_square import mean_square_edge
from stabcore.lyapunov.monte_carlo import check_options
from stabcore.minima import Minimum, as_minimum
from stabcore.problems import ScalarFactorization
from stabcore.products import SGDLaw
from stabcore.stable_sets import (
    Interval,
    StableSet,
    intersection,
    negative_steps,
    neighbours,
    stable_set,
)

REGIONS = ("both", "GD only", "SGD only", "neither", "undecided")
SCAN_TOLERANCE = 1e-5  # of the deterministic exponents of a scan, which need many of them


def sgd_exponent(
    minimum: Minimum | ArrayLike,
    step_size: float,
    batch_size: int = 1,
    probabilities: ArrayLike | None = None,
    method: str = "auto",
    rng: int | np.random.Generator | None = None,
    *,
    replacement: bool | None = None,
    **options: Any,
) -> Exponent:
    r"""Return λ = lim (1/n) log‖A_{ξ_n} ⋯ A_{ξ_1}‖, whose sign decides for SGD.

    A_S = I − (η/B) Σ_{i∈S} g_i g_iᵀ on the normal space. λ < 0: SGD can end at the minimum;
    λ > 0: it cannot (for minima that are regular, see `irregularities`).

    Source: papers A (Theorem B) and D.

    Parameters
    ----------
    minimum : Minimum or array, shape (N, N)
        The minimum, or its kernel.
    step_size : float
        η > 0.
    batch_size : int
        B.
    probabilities : array, shape (N,), optional
        Probability of drawing each sample; those of the minimum by default.
    method : str
        As in `lyapunov_exponent`.
    rng : int, numpy.random.Generator or None
        For Monte Carlo.
    replacement : bool, optional
        Whether a batch may repeat a sample; see `Sampling`.
    **options
        Of `lyapunov_exponent`: `tolerance`, and `steps`, `replicas`, `transient` of Monte Carlo.

    Returns
    -------
    Exponent

    Raises
    ------
    ValueError
        If an argument is invalid; the message names it.

    Examples
    --------
    Orthogonal gradients, λ = max_i p_i log|1 − ηk_i|:

    >>> sgd_exponent([[1.0, 0.0], [0.0, 2.0]], 1.5).value == math.log(2) / 2
    True
    """
    law = SGDLaw(minimum, step_size, batch_size, probabilities, replacement)
    return lyapunov_exponent(law, method, rng, **options)


def irregularities(minimum: Minimum | ArrayLike, step_size: float) -> tuple[str, ...]:
    r"""Return what keeps a minimum from being *regular*, the extra hypothesis of Theorem B.

    Our reading for batches of one: no ηk_i is 1 (a singular factor) or 2 (a reflection), and the
    gradients do not split into orthogonal groups (the product is then reducible). λ is computed
    and meaningful in all these cases; it is the theorem's conclusion that is not claimed. The
    theorem also needs gradients whose minima form a manifold, which a singular K leaves open
    unless the minimum was built with `Minimum.at`.

    Source: the reading is ours; we could not verify it against the wording of paper A.

    Parameters
    ----------
    minimum : Minimum or array, shape (N, N)
    step_size : float
        η > 0.

    Returns
    -------
    tuple of str
        Empty for a regular minimum.

    Examples
    --------
    >>> irregularities([[2.0]], 0.5)
    ('step_size * k_i is 1 for sample 0: its factor is singular',)
    """
    point = as_minimum(minimum)
    scaled = check.step_size(step_size) * np.diag(point.kernel)
    found = []
    for level, what in ((1.0, "its factor is singular"), (2.0, "its factor is a reflection")):
        where = np.flatnonzero(np.isclose(scaled, level, rtol=1e-12, atol=0))
        if where.size:
            samples = ", ".join(str(i) for i in where)
            found.append(f"step_size * k_i is {level:g} for sample {samples}: {what}")
    groups = sum(bool(point.kernel[block, block].any()) for block in point.blocks)
    if groups > 1:
        found.append(
            f"the gradients split into {groups} mutually orthogonal groups: "
            "the product is reducible"
        )
    if point.rank < point.n_samples and point.jacobian is None:
        found.append(
            f"the gradients are linearly dependent (rank {point.rank} of {point.n_samples}): "
            "from the kernel alone it is open whether the minima form a manifold"
        )
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class Stability:
    """What the two theorems say of one minimum at one step size.

    Attributes
    ----------
    gd, sgd : Exponent
        μ and λ.
    irregularities : tuple of str
        See `irregularities`; empty when Theorem B applies as it stands.
    """

    gd: Exponent
    sgd: Exponent
    irregularities: tuple[str, ...]

    @property
    def region(self) -> str:
        """One of "both", "GD only", "SGD only", "neither", "undecided" (a sign is 0 or open)."""
        return REGIONS[int(region(_sign(self.gd), _sign(self.sgd)))]

    def __str__(self) -> str:
        """Return the verdict in one paragraph."""
        lines = [f"stable for: {self.region}", f"  mu     = {self.gd}", f"  lambda = {self.sgd}"]
        return "\n".join(lines + [f"  note: {reason}" for reason in self.irregularities])


def stability(
    minimum: Minimum | ArrayLike,
    step_size: float,
    batch_size: int = 1,
    probabilities: ArrayLike | None = None,
    rng: int | np.random.Generator | None = None,
    *,
    replacement: bool | None = None,
    **options: Any,
) -> Stability:
    """Return μ, λ and the verdict of Theorems A and B for one minimum and step size.

    Source: papers A and D.

    Parameters
    ----------
    minimum : Minimum or array, shape (N, N)
        The minimum, or its kernel.
    step_size : float
        η > 0.
    batch_size : int
        B.
    probabilities : array, shape (N,), optional
        Weights of the loss and of the sampling; those of the minimum by default.
    rng : int, numpy.random.Generator or None
        For Monte Carlo.
    replacement : bool, optional
        Whether a batch may repeat a sample; see `Sampling`.
    **options
        Of `lyapunov_exponent`: `tolerance`, and `steps`, `replicas`, `transient` of Monte Carlo.

    Returns
    -------
    Stability

    Raises
    ------
    ValueError
        If an argument is invalid; the message names it.

    Examples
    --------
    >>> from stabcore import Minimum, ReluPair
    >>> problem = ReluPair()
    >>> stability(Minimum.at(problem, problem.minimum(3.0)), 0.15).region
    'GD only'
    """
    point = as_minimum(minimum)
    return Stability(
        gd=gd_exponent(point, step_size, probabilities),
        sgd=sgd_exponent(
            point, step_size, batch_size, probabilities, rng=rng, replacement=replacement, **options
        ),
        irregularities=irregularities(point, step_size),
    )


def region(gd_sign: ArrayLike, sgd_sign: ArrayLike) -> np.ndarray:
    """Return the index into `REGIONS` for signs of μ and λ (0 or NaN: undecided), elementwise.

    Parameters
    ----------
    gd_sign, sgd_sign : arrays
        Numbers whose signs count, for instance the exponents themselves.

    Returns
    -------
    array of int

    Examples
    --------
    >>> [REGIONS[i] for i in region([-1.0, -1.0, 1.0, 1.0], [-1.0, 1.0, -1.0, 1.0])]
    ['both', 'GD only', 'SGD only', 'neither']
    """
    gd, sgd = np.sign(gd_sign), np.sign(sgd_sign)
    decided = (gd * sgd != 0) & ~np.isnan(gd * sgd)
    return np.where(decided, 2 * (gd > 0) + (sgd > 0), REGIONS.index("undecided"))


def _sign(exponent: Exponent) -> int:
    return exponent.sign or 0


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


def _determinant_bound(law: SGDLaw, rng: int | np.random.Generator | None) -> LogSum:
    """Return the log-sum (1/r) E log|det A_S| ≤ λ, over all batches or a sample of many."""
    sampling = law.sampling
    if sampling.count <= MOST_BATCHES:
        batches, weights = sampling.all_batches()
    else:
        batches = sampling.draw(MOST_BATCHES, rng)
        weights = np.full(MOST_BATCHES, 1 / MOST_BATCHES)
    return determinant_log_sum(law, batches, weights)
