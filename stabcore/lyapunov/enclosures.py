r"""A proven interval for the top exponent of 2×2 matrices: a computer-assisted proof of its sign.

**What is proven.** Let A_i be matrices whose entries are within given errors (`slack`) of
floating-point numbers, and p_i floating-point probabilities, divided by their exact sum. The
interval contains λ = lim (1/n) E log‖P_n‖, P_n = A_{ξn} ⋯ A_{ξ1}, for all such matrices. For a
`FiniteLaw` the errors are 0. For an `SGDLaw` they bound the rounding between its kernel and its
factors: with two rows these are computed as fractions (and one square root); otherwise through the
kernel's eigenvectors, whose backward error is taken to be at most 8nε‖K‖, as LAPACK's is.
Nothing is assumed about the law: the factors may be singular, the law may be reducible. Rounding
is outward throughout, and relies on IEEE arithmetic (+, −, ×, ÷) alone.

**The bound.** Write g(v) = Σ p_i log(|A_i v|/|v|). Cut the projective circle into arcs, and let
U₀, L₀ be bounds of g on each arc and R_i(a) a set of arcs that covers the image of arc a under
A_i. Let S be a *closed* set of arcs, R_i(a) ⊂ S for every a in S. Then for **any** numbers h(a)

    λ ≤ max_{a in S} [U₀(a) + Σ p_i max_{R_i(a)} h − h(a)],
    λ ≥ min_{a in S} [L₀(a) + Σ p_i min_{R_i(a)} h − h(a)].

*Proof.* Let C be the right side of the first line. Take v in an arc of S and let a_j be the arc
of P_j v, so that a_{j+1} is in R_i(a_j) if the next factor is A_i. Given the past, the expected
growth log|P_{j+1} v| − log|P_j v| is g(P_j v) ≤ U₀(a_j) ≤ C + h(a_j) − E h(a_{j+1}). The sum over j
telescopes: E log|P_n v| ≤ nC + 2 max|h| (where P_j v = 0 the left side is −∞). Now let v be
uniformly distributed on one arc J of S, independent of the factors. With u the first right
singular vector of P_n, |P_n v| ≥ ‖P_n‖ |⟨u, v⟩|, and the mean of log|⟨u, v⟩| over J is at least
a constant −c_J, whatever u is. So E log‖P_n‖ ≤ nC + 2 max|h| + c_J; divide by n. No
irreducibility is needed, since almost every v of an arc grows at the top rate. The second line is
the same sum from below and needs one v only: E log‖P_n‖ ≥ E log|P_n v|. Hence both hold for the
*top* exponent.

With h = U₀ + TU₀ + ⋯ + T^{k−1}U₀, (TU)(a) = Σ p_i max_{R_i(a)} U, the bracket is T^k U₀, the
enclosure as it is usually iterated. As any h will do, h is found by plain floating-point
sweeps h ← h + w·(bracket − constant), warm-started from half as many arcs, and only the last
bracket is rounded outward.

**Arcs.** Directions are the points of the half-boundary of a square, v_j = (1, −1 + 4j/n) for
j ≤ n/2 and (3 − 4j/n, 1) beyond, v_n = −v_0; n is a power of two, so they are exact. Arc a is the
cone of v_a and v_{a+1}; its image is the cone of their images w, and if these are less than a
half-turn apart it is the shorter way between them. The position of w on the square's boundary,
of length 2n, is a quotient of two coordinates; with x̂, ŷ within e of x, y and |ŷ| ≤ |x̂|, e ≤ |x̂|/2,

    |y/x − ŷ/x̂| ≤ 2 (e_y + |ŷ/x̂| e_x) / |x̂|.

(Where the true point is beyond the corner that ŵ is not beyond, its position is between the
corner's and the extrapolated one, both in the interval.) An entry's error s moves an image by
s(|v| + |w|) ≤ 2s. If a half-turn is possible (the kernel of
a singular factor may be in the arc), R_i(a) is the whole circle. The factors are scaled by powers
of two; an entry that underflows then is among the absolute errors `TINY`.

**Growth.** q(v) = |Av|²/|v|² = c + r cos(2θ − φ), with r ≤ (|α − γ| + 2|β|)/2 for
AᵀA = [[α, β], [β, γ]]. An arc has angle Δ ≤ 4/n, so between its ends q exceeds the larger end value
or falls below the smaller one by at most r(1 − cos Δ) ≤ 8r/n²; and always q ≥ (det A)²/‖A‖_F².
The errors s of the entries change r by at most Σ (|a| s + s²/2) + |a|s_b + |b|s_a + ⋯, and the
determinant and the norm likewise.
Logarithms are computed here, log x = k log 2 + 2 artanh z, z = (m − 1)/(m + 1), x = 2^k m,
½ ≤ m² ≤ 2, by eleven terms of the series: with u = 2⁻⁵³ the roundings are below
(2.1 |k| + 2.2) u and the remainder is below 0.01 u; 8 (|k| + 1) u is allowed.

Source: our derivation; the cellwise enclosure is described in the book.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from stabcore import _validation as check
from stabcore._constants import EPSILON
from stabcore._validation import Array
from stabcore.exponent import Exponent
from stabcore.lyapunov.laws import FiniteLaw, Law, SGDLaw, require_law

FEWEST_ARCS = 64

TRIAL_ARCS = 256  # after these the law or its transpose is preferred, whichever is narrower

MOST_TABLE_ENTRIES = 2**24  # arcs × factors

MOST_ENCLOSED = 200  # factors of the laws whose other results are held against an enclosure

TRIED_ARCS = 512  # of an enclosure for an interval of step sizes, one of many

MOST_FRACTIONS = 64  # factors of SGD that are computed exactly, and then rounded

MOST_TRIED = 64  # factors of the laws for which this is done

SETTLING_STEPS = 256

SWEEPS_AT_ONCE = 8

FEWEST_SWEEPS = 64

SWEEP_WORK = 2**20  # entries that may be swept at a level, if more than FEWEST_SWEEPS would

SETTLED = 0.15  # a level is done when sweeping cannot narrow its interval by more than this share

UNIT = 2.0**-53  # the unit roundoff u

TINY = 1e-290  # above every underflow of what is computed here

LOG_TWO = math.log(2.0)

Table = NDArray[np.int32]


@check.public()
def enclosure(
    law: Law,
    *,
    width: float = 1e-3,
    decide_sign: bool = False,
    max_arcs: int = 2**17,
) -> Exponent:
    r"""Return a proven interval for the top exponent of a finite law of 2×2 matrices.

    For any function h of the arcs of the projective circle, and S a closed set of arcs,

        min_S [L₀ + Σ p_i min_{R_i} h − h] ≤ λ ≤ max_S [U₀ + Σ p_i max_{R_i} h − h],

    L₀ ≤ Σ p_i log(|A_i v|/|v|) ≤ U₀ on each arc, R_i(a) the arcs that A_i(a) meets. The number of
    arcs is doubled until the interval is narrow enough. The proof, which includes singular factors
    and reducible laws, and the bounds on every rounding are in the docstring of this module.

    What is proven concerns the floating-point matrices and probabilities of the law, for an
    `SGDLaw` those of its kernel: the rounding between the kernel and the factors is enclosed, too.
    The interval is correct whatever `status` says; `status` says whether it is as narrow as asked.
    λ is computed for the transposed factors where that is easier: the exponents are the same.

    Source: our derivation; the enclosure idea is described in the book.

    Parameters
    ----------
    law : FiniteLaw or SGDLaw
        Of dimension 2.
    width : float
        Wanted `upper − lower`; not looked at if `decide_sign`.
    decide_sign : bool
        Refine until the interval excludes 0 instead.
    max_arcs : int
        Most arcs, at least 64; rounded down to a power of two, and lowered for laws with more than
        128 factors.

    Returns
    -------
    Exponent
        Of kind "enclosure". `value` is the midpoint, or `upper` where `lower` is −∞: the kernel of
        a singular factor could be reached. `evaluations` counts arcs × factors × sweeps.

    Raises
    ------
    ValueError
        If the law is not of dimension 2, or has too many factors or entries that cannot be scaled.
    TypeError
        If `law` is not a law.

    Examples
    --------
    Pollicott's pair of matrices, λ = 1.14331103510...:

    >>> law = FiniteLaw([[[2, 1], [1, 1]], [[3, 1], [2, 1]]])
    >>> result = enclosure(law, width=1e-3)
    >>> result.lower < 1.1433110351029492 < result.upper < result.lower + 1e-3
    True
    >>> enclosure(law, decide_sign=True).sign
    1
    """
    require_law(law)
    goal = _Goal(check.real("width", width, above=0.0), check.boolean("decide_sign", decide_sign))
    most_arcs = check.integer("max_arcs", max_arcs, minimum=FEWEST_ARCS)
    matrices, slack, share = _written_out(law)
    reach = np.abs(matrices) + slack
    if not reach.any(axis=(1, 2)).all():
        return _result(-math.inf, -math.inf, "converged", 1)  # a factor is 0, and so is the product
    if not reach[:, 1, 0].any() or not reach[:, 0, 1].any():
        return _triangular(matrices, slack, share, goal)
    return _refine(_Factors.of(matrices, share, slack), goal, most_arcs)


def can_be_enclosed(law: SGDLaw) -> bool:
    """Return whether `sign_between` applies to a law at a moderate cost."""
    return law.dimension == 2 and law.batches.epoch_length == 1 and law.batches.count <= MOST_TRIED


def sign_between(law: SGDLaw, low: float, high: float) -> int | None:
    """Return the sign of λ if it is proven for all step sizes between two numbers, else None.

    The entries of the factors are linear in η: half the width times their slopes is one more error.

    Parameters
    ----------
    law : SGDLaw
        Of dimension 2; its step size plays no part.
    low, high : float

    Returns
    -------
    int or None
    """
    middle = law.at(low + (high - low) / 2)
    matrices, slack, share = _written_out(middle)
    slopes = (np.abs(matrices - np.eye(2)) + slack) / middle.step_size
    slack = slack + slopes * ((high - low) / 2 * (1 + 1e-9))
    factors = _Factors.of(matrices, share, slack)
    return _refine(factors, _Goal(0.0, True), TRIED_ARCS).sign


@dataclass(frozen=True)
class _Goal:
    """When to stop."""

    width: float
    decide_sign: bool

    def reached(self, lower: float, upper: float) -> bool:
        if self.decide_sign:
            return lower > 0 or upper < 0
        return upper - lower <= self.width

    def missed(self, lower: float, upper: float) -> str:
        """Say how far the interval is from the goal."""
        if self.decide_sign:
            return f"sign not decided: 0 is in an interval of width {upper - lower:.2g}"
        if math.isinf(lower):
            return "no lower bound, only an upper one"
        return f"width {upper - lower:.2g} reached, not the requested {self.width:.2g}"


@dataclass(frozen=True)
class _Factors:
    """Factors 2^exponent A, the largest entry of A in [½, 1), and `share`, their probabilities."""

    matrices: Array
    slack: Array  # errors of the entries of A
    exponents: NDArray[np.int64]
    share: Array

    @classmethod
    def of(cls, matrices: Array, share: Array, slack: Array | float = 0.0) -> _Factors:
        exponents = np.frexp(np.abs(matrices).max(axis=(1, 2)))[1].astype(np.int64)
        half = exponents // 2  # in two steps: 2^exponent could overflow

        def scaled(entries: Array) -> Array:
            shifted = np.ldexp(entries, -half[:, None, None])
            return np.asarray(np.ldexp(shifted, (half - exponents)[:, None, None]))

        errors = np.broadcast_to(slack, matrices.shape)
        return cls(scaled(matrices), scaled(errors) * (1 + 4 * UNIT), exponents, share)

    @property
    def count(self) -> int:
        return len(self.share)

    @property
    def rounding(self) -> float:
        return _rounding(self.share)

    @property
    def transposed(self) -> _Factors:
        matrices, slack = (
            np.ascontiguousarray(np.swapaxes(part, 1, 2)) for part in (self.matrices, self.slack)
        )
        return _Factors(matrices, slack, self.exponents, self.share)


def _rounding(share: Array) -> float:
    """Return the relative error of a sum Σ p_i x_i + y + z with p_i exactly normalised."""
    return 2 * (share.size + 8) * UNIT + 2 * (abs(math.fsum(share) - 1) + 4 * UNIT)


def _written_out(law: Law) -> tuple[Array, Array, Array]:
    """Return the factors that occur, their errors and probabilities, or refuse the law."""
    if law.dimension != 2:
        remedy = (
            "use algorithm='closed_form'"
            if law.dimension == 1
            else "use algorithm='monte_carlo', or pass a law of 2×2 matrices"
        )
        raise ValueError(
            f"an enclosure needs a law of dimension 2, got dimension {law.dimension}; {remedy}."
        )
    if isinstance(law, FiniteLaw):
        matrices, slack, share = law.matrices, np.zeros_like(law.matrices), law.probabilities
    else:
        matrices, slack, share = _of_kernel(law)
    used = share > 0
    count, limit = int(used.sum()), MOST_TABLE_ENTRIES // FEWEST_ARCS
    if count > limit:
        raise ValueError(
            f"the law has {count} factors, above the limit {limit} of an enclosure; "
            "use algorithm='monte_carlo'."
        )
    return matrices[used], slack[used], share[used]


def _of_kernel(law: SGDLaw) -> tuple[Array, Array, Array]:
    """Return the factors of SGD with bounds on the rounding between the kernel and them."""
    minimum, rate = law.minimum, law.step_size / law.batches.batch_size
    if len(minimum.kernel) == 2 and law.batches.count <= MOST_FRACTIONS:
        return _exactly(law)
    finite = law.finite()
    # K + E = VΛVᵀ exactly for some E of norm 8nε‖K‖; a root of K is then as close to V√Λ as this.
    spectrum = minimum.spectrum[-law.dimension :]
    largest, least = float(spectrum[-1]), float(spectrum[0])
    offset = 8 * len(minimum.kernel) * EPSILON * largest / math.sqrt(least)
    reach = float(np.abs(law.gradients).max() + offset)
    rows = law.batches.batch_size * minimum.n_outputs
    scale = max(1.0, float(law.batches.scales.max()))
    error = rate * rows * (2 * reach * offset * scale + offset**2 * scale)
    error += 4 * (rows + 4) * EPSILON * (1 + rate * rows * reach**2)
    return finite.matrices, np.full(finite.matrices.shape, error), finite.probabilities


def _exactly(law: SGDLaw) -> tuple[Array, Array, Array]:
    """Return the factors on two rows, the roundings of their entries, and their probabilities."""
    # Cholesky's factors of K are the gradients (√k, 0), (m/√k, √(d/k)), K = [[k, m], [m, l]], d its
    # determinant, so that all entries of I − (η/B) Σ c_i g_i g_iᵀ but one are rational.
    k, m, _, other = (Fraction(float(entry)) for entry in law.minimum.kernel.ravel())
    determinant = k * other - m * m
    root = math.sqrt(determinant)
    rate = Fraction(law.step_size) / law.batches.batch_size
    batches, share = law.batches.listed()
    matrices, slack = np.zeros((2, len(batches), 2, 2))
    for matrix, error, batch in zip(matrices, slack, batches, strict=True):
        counts = [Fraction(0)] * law.minimum.n_samples
        for sample in batch.tolist():
            counts[sample] += Fraction(float(law.batches.scales[sample]))
        first, second = counts * law.minimum.n_outputs  # of one sample, both rows
        exact = (
            1 - rate * (first * k + second * m * m / k),
            1 - rate * second * determinant / k,
        )
        for place, entry in enumerate(exact):
            matrix[place, place] = float(entry)
            rounding = abs(Fraction(float(entry)) - entry)
            error[place, place] = math.nextafter(float(rounding), math.inf) if rounding else 0.0
        matrix[0, 1] = matrix[1, 0] = float(-rate * second * m / k) * root
        error[0, 1] = error[1, 0] = 4 * EPSILON * abs(matrix[0, 1])
    return matrices, slack, share


def _triangular(matrices: Array, slack: Array, share: Array, goal: _Goal) -> Exponent:
    """Return λ = max_j Σ p_i log|(A_i)_jj|, which holds for triangular factors."""
    # ‖P_n‖ is at least its diagonal entries. The one off the diagonal is a sum of n terms
    # a ⋯ a b d ⋯ d, each at most exp(nλ + o(n)) by the law of large numbers for log|a| and log|d|
    # (for a vanishing entry, bounded by any small positive one instead).
    bounds = [_mean_log(matrices[:, j, j], slack[:, j, j], share) for j in range(2)]
    lower, upper = max(low for low, _ in bounds), max(high for _, high in bounds)
    status = "converged"
    if lower > -math.inf and not goal.reached(lower, upper):
        status = f"{goal.missed(lower, upper)}; this is the accuracy of the arithmetic"
    return _result(lower, upper, status, matrices.shape[0])


def _mean_log(entries: Array, slack: Array, share: Array) -> tuple[float, float]:
    """Return bounds of Σ p_i log|entry_i|."""
    bounds = []
    for side in (-1, 1):
        sizes = (np.abs(entries) + side * slack) * (1 + side * 2 * UNIT * (slack > 0))
        if not (sizes > 0).all():
            bounds.append(-math.inf)
            continue
        logs, errors = np.array([_log(size) for size in sizes]).T
        margin = _rounding(share) * float(share @ np.abs(logs)) + 2 * float(share @ errors)
        bounds.append(float(share @ logs) + side * margin)
    return bounds[0], bounds[1]


def _result(lower: float, upper: float, status: str, evaluations: int) -> Exponent:
    middle = upper if math.isinf(lower) else lower + (upper - lower) / 2
    return Exponent(
        value=min(max(middle, lower), upper),
        lower=lower,
        upper=upper,
        kind="enclosure",
        method="enclosure",
        status=status,
        evaluations=evaluations,
    )


def _refine(factors: _Factors, goal: _Goal, most_arcs: int) -> Exponent:
    """Double the number of arcs until the goal is reached."""
    candidates = [_Enclosure(factors), _Enclosure(factors.transposed)]
    limit = min(most_arcs, MOST_TABLE_ENTRIES // factors.count)
    lower, upper = -math.inf, math.inf
    while True:
        for candidate in candidates:
            candidate.improve(goal)
            lower, upper = max(lower, candidate.lower), min(upper, candidate.upper)
            if goal.reached(lower, upper):
                break
        evaluations = sum(candidate.evaluations for candidate in candidates)
        if goal.reached(lower, upper):
            return _result(lower, upper, "converged", evaluations)
        if candidates[0].arcs >= TRIAL_ARCS:
            candidates = [min(candidates, key=lambda one: (one.width, one.upper))]
        if 2 * candidates[0].arcs > limit:
            remedy = "raise max_arcs" if limit == most_arcs else "the law has too many factors"
            obstacle = candidates[0].obstacle or f"{candidates[0].arcs} arcs were used; {remedy}"
            status = f"{goal.missed(lower, upper)}; {obstacle}"
            return _result(lower, upper, status, evaluations)
        for candidate in candidates:
            candidate.double()


class _Side:
    """One of the two bounds: an upper bound of λ for base U₀, of −λ for base −L₀."""

    def __init__(self, base: Array, h: Array) -> None:
        self.base, self.h, self.spare = base, h, h.copy()
        self.bound = self.span = math.inf

    def sweep(self, grid: _Grid, factors: _Factors) -> int:
        """Improve h, and with it the bound; return the number of sweeps."""
        bound, self.span = _sweeps(
            grid.first,
            grid.count,
            grid.members,
            factors.share,
            factors.rounding,
            self.base,
            self.h,
            self.spare,
            SWEEPS_AT_ONCE,
        )
        self.bound = min(self.bound, bound)
        return SWEEPS_AT_ONCE


@dataclass(frozen=True)
class _Grid:
    """Arcs: first and number of those met by each image, bounds of g, and a closed set."""

    first: Table
    count: Table
    upper: Array
    lower: Array
    start: int
    members: NDArray[np.int64]

    @classmethod
    def of(cls, factors: _Factors, arcs: int, start: int) -> _Grid:
        """Tabulate `arcs` arcs; the closed set is what can be reached from where `start` leads."""
        shape = (arcs, factors.count)
        first, count = np.empty(shape, np.int32), np.empty(shape, np.int32)
        upper, lower = np.zeros((2, arcs))
        arguments = (
            factors.matrices,
            factors.slack,
            factors.exponents,
            factors.share,
            factors.rounding,
        )
        _tabulate(*arguments, first, count, upper, lower)
        # A typical product; which one does not matter for the proof.
        drawn = np.random.default_rng(0).random(SETTLING_STEPS)
        choices = np.searchsorted(np.cumsum(factors.share)[:-1], drawn, "right")
        start = _settle(first, count, choices, start)
        members = np.flatnonzero(_reachable(first, count, start))
        return cls(first, count, upper, lower, start, members)


class _Enclosure:
    """The interval obtained with a number of arcs, and all that is needed to double it."""

    def __init__(self, factors: _Factors) -> None:
        self.factors, self.arcs, self.evaluations = factors, FEWEST_ARCS, 0
        self.lower, self.upper = -math.inf, math.inf
        self._sides(_Grid.of(factors, self.arcs, 0), np.zeros((2, self.arcs)))

    def _sides(self, grid: _Grid, potentials: Array) -> None:
        self.grid = grid
        self.sides = _Side(grid.upper, potentials[0]), _Side(-grid.lower, potentials[1])

    @property
    def width(self) -> float:
        return self.upper - self.lower

    def double(self) -> None:
        """Halve every arc."""
        inside = np.zeros(self.arcs, bool)
        inside[self.grid.members] = True
        potentials = np.stack([_prolong(side.h, inside) for side in self.sides])
        self.arcs *= 2
        self._sides(_Grid.of(self.factors, self.arcs, 2 * self.grid.start), potentials)

    def improve(self, goal: _Goal) -> None:
        """Sweep until more sweeps could not narrow the interval much, or the goal is reached."""
        entries = self.grid.members.size * self.factors.count
        limit = max(FEWEST_SWEEPS, SWEEP_WORK // entries)
        # A lower bound of g is −∞ on an arc that may hold the kernel of a factor.
        sides = self.sides if np.isfinite(self.sides[1].base[self.grid.members]).all() else ()
        for _ in range(0, limit, SWEEPS_AT_ONCE):
            for side in sides or self.sides[:1]:
                self.evaluations += entries * side.sweep(self.grid, self.factors)
            self.upper = min(self.upper, self.sides[0].bound)
            self.lower = max(self.lower, -self.sides[1].bound)
            if goal.reached(self.lower, self.upper) or self.settled:
                return

    @property
    def settled(self) -> bool:
        """Whether more sweeps would not narrow the interval much."""
        upper, lower = self.sides
        if math.isinf(lower.span):
            return upper.span < SETTLED * 4 / self.arcs
        return upper.span + lower.span <= SETTLED * (upper.bound + lower.bound)

    @property
    def obstacle(self) -> str:
        """What keeps the interval from being narrower, other than the number of arcs."""
        if math.isinf(self.lower):
            return f"with {self.arcs} arcs, the kernel of a singular factor can be reached"
        if not self.settled:
            return (
                "the products forget their starting direction too slowly for sweeps to converge "
                "(the law is close to a reducible or isometric one)"
            )
        return ""


def _prolong(h: Array, inside: NDArray[np.bool_]) -> Array:
    """Return h on half arcs, interpolated between the arcs that are `inside`."""
    fine = np.empty(2 * h.size)
    for part, shift in enumerate((1, -1)):
        neighbour = np.where(np.roll(inside, shift), np.roll(h, shift), h)
        fine[part::2] = 0.75 * h + 0.25 * neighbour
    return np.where(np.repeat(inside, 2), fine, 0.0)


@njit(nogil=True, cache=True)
def _log(x: float) -> Any:
    """Return log x for x > 0, and a bound on the error."""
    m, k = math.frexp(x)
    if m < 0.7071067811865476:
        m *= 2.0
        k -= 1
    z = (m - 1.0) / (m + 1.0)
    square = z * z
    series = 0.0
    for j in range(21, 0, -2):
        series = series * square + 1.0 / j
    return k * LOG_TWO + 2.0 * z * series, 8.0 * UNIT * (abs(k) + 1)


@njit(inline="always")
def _direction(j, arcs):  # type: ignore[no-untyped-def]
    """Return v_j, exactly."""
    if 2 * j <= arcs:
        return 1.0, 4.0 * j / arcs - 1.0
    return 3.0 - 4.0 * j / arcs, 1.0


@njit(inline="always")
def _position(x, y, error_x, error_y, arcs):  # type: ignore[no-untyped-def]
    """Return the position of (x, y) on the boundary, of length 2·arcs, and a bound on its error."""
    steep = abs(x) < abs(y)
    if steep:
        x, y, error_x, error_y = y, x, error_y, error_x
    if not abs(x) > 2.0 * error_x:
        return 0.0, 2.0 * arcs
    t = y / x
    error = 3.0 * (error_y + abs(t) * error_x) / abs(x)
    position = 0.25 * arcs * (3.0 - t if steep else 1.0 + t)
    if x < 0.0:
        position += arcs
    return position, arcs * (0.25 * error + 8.0 * UNIT)


@njit(inline="always")
def _cover(position, error, next_position, next_error, arcs):  # type: ignore[no-untyped-def]
    """Return the first arc and the number of arcs that cover the shorter way between two rays."""
    turn = next_position - position
    if turn > arcs:
        turn -= 2 * arcs
    elif turn < -arcs:
        turn += 2 * arcs
    error += next_error + 16.0 * UNIT * arcs
    if abs(turn) + error >= arcs:
        return 0, arcs
    first = math.floor(position + min(turn, 0.0) - error)
    count = math.floor(position + max(turn, 0.0) + error) - first + 1
    if count >= arcs:
        return 0, arcs
    return int(first) % arcs, int(count)


@njit(inline="always")
def _shape(matrix, slack):  # type: ignore[no-untyped-def]
    """Return an upper bound of r and a lower bound of q for a matrix with entries in error."""
    a, b, c, d = matrix[0, 0], matrix[0, 1], matrix[1, 0], matrix[1, 1]
    p, q, r, s = slack[0, 0], slack[0, 1], slack[1, 0], slack[1, 1]
    more = 1.0 + 16.0 * UNIT
    squares = (p * (2 * abs(a) + p) + q * (2 * abs(b) + q)) * more
    squares += (r * (2 * abs(c) + r) + s * (2 * abs(d) + s)) * more
    mixed = (abs(a) * q + abs(b) * p + p * q + abs(c) * s + abs(d) * r + r * s) * more
    crossed = (abs(a) * s + abs(d) * p + p * s + abs(b) * r + abs(c) * q + q * r) * more
    square = (a * a + b * b + c * c + d * d) * more + squares
    difference = abs((a * a - b * b) + (c * c - d * d)) + squares
    radius = 0.5 * difference + abs(a * b + c * d) + mixed + 16.0 * UNIT * square
    determinant = abs(a * d - b * c) - 8.0 * UNIT * (abs(a * d) + abs(b * c)) - crossed - TINY
    smallest = determinant * determinant / square * (1.0 - 16.0 * UNIT)
    return radius, smallest if determinant > 0.0 and smallest > TINY else 0.0


@njit(nogil=True, cache=True)
def _tabulate(matrices, slack, exponents, share, rounding, first, count, upper, lower):  # type: ignore[no-untyped-def]
    """Fill the tables: the arcs met by the images, and the bounds of g on each arc."""
    arcs, factors = first.shape
    sizes = np.zeros((2, arcs))
    for i in range(factors):
        a, b, c, d = matrices[i, 0, 0], matrices[i, 0, 1], matrices[i, 1, 0], matrices[i, 1, 1]
        error_x = 4.0 * UNIT * (abs(a) + abs(b)) + 2.0 * (slack[i, 0, 0] + slack[i, 0, 1]) + TINY
        error_y = 4.0 * UNIT * (abs(c) + abs(d)) + 2.0 * (slack[i, 1, 0] + slack[i, 1, 1]) + TINY
        radius, smallest = _shape(matrices[i], slack[i])
        between = 8.0 * radius / arcs / arcs
        shift = exponents[i] * LOG_TWO
        shift_error = 4.0 * UNIT * (abs(exponents[i]) + 1)
        position = error = high = low = 0.0
        for j in range(arcs + 1):
            v, w = _direction(j, arcs)
            x, y = a * v + b * w, c * v + d * w
            length = v * v + w * w
            outer_x, outer_y = abs(x) + error_x, abs(y) + error_y
            inner_x, inner_y = max(abs(x) - error_x, 0.0), max(abs(y) - error_y, 0.0)
            high_next = (outer_x * outer_x + outer_y * outer_y) / length * (1.0 + 16.0 * UNIT)
            low_next = (inner_x * inner_x + inner_y * inner_y) / length * (1.0 - 16.0 * UNIT)
            position_next, error_next = _position(x, y, error_x, error_y, arcs)
            if j > 0:
                first[j - 1, i], count[j - 1, i] = _cover(
                    position, error, position_next, error_next, arcs
                )
                most = (max(high, high_next) + between) * (1.0 + 4.0 * UNIT)
                value, doubt = _log(most + TINY)
                value = 0.5 * value + shift
                upper[j - 1] += share[i] * (value + (doubt + shift_error))
                sizes[0, j - 1] += share[i] * (abs(value) + 1.0)
                least = (min(low, low_next) - between) - 4.0 * UNIT * (low + low_next + between)
                least = max(least - TINY, smallest)
                if least > 0.0:
                    value, doubt = _log(least)
                    value = 0.5 * value + shift
                    lower[j - 1] += share[i] * (value - (doubt + shift_error))
                    sizes[1, j - 1] += share[i] * (abs(value) + 1.0)
                else:
                    lower[j - 1] = -np.inf
            position, error, high, low = position_next, error_next, high_next, low_next
    for j in range(arcs):
        upper[j] += rounding * sizes[0, j]
        lower[j] -= rounding * sizes[1, j]


@njit(nogil=True, cache=True)
def _settle(first, count, choices, start):  # type: ignore[no-untyped-def]
    """Return an arc to which a product of the chosen factors leads from arc `start`."""
    arc = start
    for i in choices:
        arc = (first[arc, i] + count[arc, i] // 2) % len(first)
    return arc


@njit(nogil=True, cache=True)
def _reachable(first, count, start):  # type: ignore[no-untyped-def]
    """Return which arcs can be reached from arc `start`, itself included: a closed set."""
    arcs, factors = first.shape
    reached = np.zeros(arcs, np.bool_)
    waiting = np.empty(arcs, np.int64)
    reached[start] = True
    waiting[0], number = start, 1
    while number > 0:
        number -= 1
        arc = waiting[number]
        for i in range(factors):
            if count[arc, i] == arcs:
                reached[:] = True
                return reached
            for step in range(count[arc, i]):
                image = (first[arc, i] + step) % arcs
                if not reached[image]:
                    reached[image] = True
                    waiting[number] = image
                    number += 1
    return reached


@njit(nogil=True, cache=True)
def _sweeps(first, count, members, share, rounding, base, h, new, times):  # type: ignore[no-untyped-def]
    """Update h `times` times; return the least proven bound, and the last max − min of brackets."""
    arcs, factors = first.shape
    bound, highest, lowest = np.inf, 0.0, 0.0
    for time in range(times):
        # Full steps converge fastest, half steps also where the products alternate.
        weight = 1.0 if time % 2 == 0 else 0.5
        summit = -np.inf
        for arc in members:
            summit = max(summit, h[arc])
        proven, highest, lowest = -np.inf, -np.inf, np.inf
        for arc in members:
            total, size = 0.0, 0.0
            for i in range(factors):
                best = summit
                if count[arc, i] < arcs:
                    image = first[arc, i]
                    best = h[image]
                    for _ in range(count[arc, i] - 1):
                        image += 1
                        if image == arcs:
                            image = 0
                        best = max(best, h[image])
                total += share[i] * best
                size += share[i] * abs(best)
            bracket = base[arc] + total - h[arc]
            margin = rounding * (size + abs(base[arc]) + abs(h[arc]) + TINY)
            proven = max(proven, bracket + margin)
            highest, lowest = max(highest, bracket), min(lowest, bracket)
            new[arc] = h[arc] + weight * bracket
        bound = min(bound, proven)
        centre = 0.5 * weight * (highest + lowest)
        for arc in members:
            h[arc] = new[arc] - centre
    return bound, highest - lowest
