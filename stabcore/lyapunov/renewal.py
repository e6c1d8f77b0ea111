r"""Two factors in the plane, one of rank one: the exponent is a series.

Draw A₁ = u wᵀ with probability p and A₂ with 1 − p. Each A₁ forgets everything but a number:

    A₁ A₂ᵏ A₁ = (wᵀA₂ᵏu) A₁.

The number k of factors A₂ between two factors A₁ is geometric, and there are p factors A₁ per step.
So the product renews itself, and

    λ = p² Σ_{k≥0} (1 − p)ᵏ log|m_k|,    m_k = wᵀA₂ᵏu.

*The limit of the series.* Let A₂ have eigenvalues a ≠ b, |a| ≥ |b|, both real. Then
m_k = α(aᵏ + γbᵏ), and with r = b/a the first parts of log|m_k| = log|α| + k log|a| + log|1 + γrᵏ|
can be summed:

    λ = p log|α| + (1 − p) log|a| + p² Σ_{k≥0} (1 − p)ᵏ log|1 + γrᵏ|.

As soon as |γrᴷ| ≤ 1/2, |log|1 + x|| ≤ 2|x| bounds what follows by 2p²|γ| sᴷ/(1 − s) with
s = (1 − p)|r|. For b = −a the terms alternate between two values, and what follows is at most their
largest modulus times p(1 − p)ᴷ.

*The rounding.* m₀, m₁ and the trace and determinant of A₂ are computed as fractions, without any
error, and a, b, α and γ from them with 100 digits. Where aᵏ and γbᵏ nearly cancel, m_k itself is
computed as a fraction. If it is 0 then λ = −∞: the product A₁A₂ᵏA₁ vanishes.

*A factor that is of rank one up to rounding only.* Let A₁ = uwᵀ + F, φ = |F|/|u||w|, and
C ≥ |A₂ᵏ||u||w|/|m_k| for all k. Vectors u + δ with |δ| ≤ 2φC|u| are mapped by A₁A₂ᵏ to a multiple
of such a vector whenever φC² ≤ 1/8, since φC(1 + 2φC)/(1 − 2φC²) ≤ 2φC; and the multiple is m_k up
to a factor between 1 ± 2φC². An open cone of vectors grows so, hence the top exponent is that of
uwᵀ up to 4pφC².

Source: our derivation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np

from stabcore._constants import EPSILON
from stabcore.exponent import Exponent
from stabcore.lyapunov.laws import FiniteLaw, SGDLaw

Matrix = tuple[Fraction, Fraction, Fraction, Fraction]  # by rows

DIGITS = 100
CANCELLED = Decimal(10) ** -60  # relative size below which those digits do not suffice
FIRST_FRACTIONS = 16  # m_k that are always computed as fractions
NEARLY_SINGULAR = 8 * EPSILON  # |F| relative to the largest entry of A₁
NEARLY_ZERO = 1e-3  # |1 + γrᵏ| below which m_k is computed as a fraction
LAST_FRACTION = 300  # and at most, where terms nearly cancel
MOST_TERMS = 200_000
TINY = 1e-18


def renewal_series(law: FiniteLaw | SGDLaw) -> Exponent | None:
    r"""Return λ = p² Σ_k (1 − p)ᵏ log|wᵀA₂ᵏu| for two 2×2 factors uwᵀ and A₂, else None.

    None also means that no error bound is known: A₂ has complex (or double) eigenvalues, or the
    series converges too slowly.

    Parameters
    ----------
    law : FiniteLaw or SGDLaw
        With two factors of positive probability p and 1 − p. An SGDLaw has one of rank one if
        ηk₁ = 1.

    Returns
    -------
    Exponent or None
        Of kind "exact": its interval bounds the rest of the series and all rounding.

    Examples
    --------
    A projection and a rotation by a right angle, whose product with it is nilpotent:

    >>> renewal_series(FiniteLaw([[[1, 0], [0, 0]], [[0, -1], [1, 0]]])).value
    -inf
    """
    if isinstance(law, FiniteLaw) and np.count_nonzero(law.probabilities) != 2:
        return None
    pair = exact_factors(law)
    if pair is None:
        return None
    matrices, probabilities = pair
    sizes = [max(map(abs, matrix)) for matrix in matrices]
    if 0 in sizes:
        return _exponent(-math.inf, 0.0, 1)
    remainders = [
        abs(_determinant(matrix)) / size**2 for matrix, size in zip(matrices, sizes, strict=True)
    ]
    first = int(remainders[1] < remainders[0])
    if remainders[first] > NEARLY_SINGULAR:
        return None
    run = _Run.of(matrices[first], matrices[1 - first])
    return _sum(run, probabilities[first], probabilities[1 - first], float(remainders[first]))


def exact_factors(law: FiniteLaw | SGDLaw) -> tuple[list[Matrix], list[float]] | None:
    """Return the 2×2 factors that occur, as fractions if exact, and the probabilities."""
    # Those of SGD are known exactly on two samples, one at a time.
    if law.dimension != 2:
        return None
    if isinstance(law, FiniteLaw):
        used = np.flatnonzero(law.probabilities > 0)
        entries = [[Fraction(x) for x in law.matrices[i].ravel().tolist()] for i in used]
        return [(a, b, c, d) for a, b, c, d in entries], law.probabilities[used].tolist()
    batches, used = law.batches, np.flatnonzero(law.batches.probabilities > 0)
    single = law.minimum.n_outputs == batches.batch_size == batches.epoch_length == 1
    if used.size != 2 or not single:
        return None
    kernel = law.kernel[np.ix_(used, used)]
    step = Fraction(law.step_size)
    first, mixed, second = (step * Fraction(float(x)) for x in kernel[[0, 0, 1], [0, 1, 1]])
    # I − ηK e_i e_iᵀ, in residual coordinates
    one, zero = Fraction(1), Fraction(0)
    pair = [(1 - first, zero, -mixed, one), (one, -mixed, zero, 1 - second)]
    return pair, batches.probabilities[used].tolist()


def times(one: Matrix, other: Matrix) -> Matrix:
    """Return the product of two 2×2 matrices."""
    (a, b, c, d), (e, f, g, h) = one, other
    return a * e + b * g, a * f + b * h, c * e + d * g, c * f + d * h


def _determinant(matrix: Matrix) -> Fraction:
    return matrix[0] * matrix[3] - matrix[1] * matrix[2]


@dataclass(frozen=True)
class _Run:
    """What is to know of m_k = wᵀA₂ᵏu: m₀, m₁, trace and determinant of A₂, and sizes."""

    start: Fraction
    next: Fraction
    trace: Fraction
    determinant: Fraction
    size: float  # |u||w|
    entries: tuple[float, float, float, float]  # of A₂

    @classmethod
    def of(cls, rank_one: Matrix, other: Matrix) -> _Run:
        """Split A₁ = uwᵀ + F at its largest entry, whose row and column F has not."""
        a, b, c, d = rank_one
        pivot = max(range(4), key=lambda i: abs(rank_one[i]))
        u = (a, c) if pivot % 2 == 0 else (b, d)
        row = (a, b) if pivot < 2 else (c, d)
        w = (row[0] / rank_one[pivot], row[1] / rank_one[pivot])
        p, q, r, s = other
        return cls(
            start=w[0] * u[0] + w[1] * u[1],
            next=w[0] * (p * u[0] + q * u[1]) + w[1] * (r * u[0] + s * u[1]),
            trace=p + s,
            determinant=_determinant(other),
            size=math.hypot(*map(float, u)) * math.hypot(*map(float, w)),
            entries=(float(p), float(q), float(r), float(s)),
        )

    def exactly(self, last: int) -> list[Fraction]:
        """Return m_0, ..., m_last."""
        terms = [self.start, self.next]
        while len(terms) <= last:
            terms.append(self.trace * terms[-1] - self.determinant * terms[-2])
        return terms[: last + 1]


@dataclass(frozen=True)
class _Modes:
    """m_k = α aᵏ (1 + γrᵏ), to all digits of floats."""

    log_alpha: float
    log_leading: float  # log|a|
    ratio: float  # r
    other: float  # γ
    alternating: bool  # r = −1 exactly
    spread: float  # |P_a| + |P_b|, the norms of the projections on the eigenvectors

    @classmethod
    def of(cls, run: _Run) -> _Modes | None:
        """Return the eigenvalues and coefficients, None if a or α are not known to be simple."""
        start, following, trace, determinant = map(
            _decimal, (run.start, run.next, run.trace, run.determinant)
        )
        discriminant = _decimal(run.trace**2 - 4 * run.determinant)
        if discriminant <= 0:
            return None
        gap = discriminant.sqrt().copy_sign(trace)
        leading = (trace + gap) / 2
        second = determinant / leading
        alpha, beta = (following - second * start) / gap, (leading * start - following) / gap
        p, q, r, s = run.entries
        a, b = float(leading), float(second)
        projections = math.hypot(p - b, q, r, s - b) + math.hypot(p - a, q, r, s - a)
        spread = projections / float(abs(gap))
        scale = abs(following) + abs(leading * start)
        exact_zero = (
            run.next**2 == run.trace * run.start * run.next - run.determinant * run.start**2
        )
        lost = [abs(one * gap) < CANCELLED * scale for one in (alpha, beta)]
        if all(lost) or (any(lost) and not exact_zero):
            return None  # an eigenvalue that is nearly double, or a mode that may be seen or not
        if lost[1]:
            beta = Decimal(0)
        elif lost[0]:
            # the faster mode is never seen, and nothing is known of nearby factors
            alpha, beta, leading, spread = beta, Decimal(0), second, math.inf
        return cls(
            log_alpha=float(abs(alpha).ln()),
            log_leading=float(abs(leading).ln()),
            ratio=float(second / leading),
            other=float(beta / alpha),
            alternating=run.trace == 0,
            spread=spread,
        )

    def terms_needed(self, p: float, q: float) -> int | None:
        """Return how many terms leave a negligible rest, None if they are too many."""
        size, ratio = abs(self.other), abs(self.ratio)
        decay = q * ratio
        if size == 0 or decay == 0:
            return 1
        if decay == 1 or (ratio == 1 and not self.alternating):
            return None
        least = 0.0 if self.alternating else -math.log(2 * size) / math.log(ratio)
        wanted = math.log(TINY / 2) + math.log1p(-decay) - 2 * math.log(p) - math.log(size)
        count = max(least, wanted / math.log(decay), 1.0)
        return math.ceil(count) + 1 if count < MOST_TERMS else None

    def rest(self, p: float, q: float, first: int) -> float:
        """Return a bound on p² Σ_{k≥first} qᵏ |log|1 + γrᵏ||."""
        if self.alternating:
            largest = max(abs(math.log(abs(1 + sign * self.other))) for sign in (-1, 1))
            return 1.01 * p * q**first * largest
        decay = q * abs(self.ratio)
        return 2.02 * p * p * abs(self.other) * decay**first / (1 - decay)


def _decimal(x: Fraction) -> Decimal:
    return Decimal(x.numerator) / Decimal(x.denominator)


def _sum(run: _Run, p: float, q: float, remainder: float) -> Exponent | None:
    """Return λ for p = P(A₁), q = P(A₂), φ ≤ `remainder`."""
    if 0 in run.exactly(FIRST_FRACTIONS):
        return None if remainder else _exponent(-math.inf, 0.0, FIRST_FRACTIONS)
    with localcontext() as context:
        context.prec = DIGITS
        modes = _Modes.of(run)
    count = None if modes is None else modes.terms_needed(p, q)
    if modes is None or count is None:
        return None
    k = np.arange(count, dtype=float)
    x = modes.other * modes.ratio**k
    near = np.flatnonzero(np.abs(1 + x) < NEARLY_ZERO)
    if near.size and (modes.alternating or near[-1] > LAST_FRACTION):
        return None
    logs = np.log(np.where(np.abs(1 + x) < NEARLY_ZERO, 1.0, np.abs(1 + x)))
    roundings = (k + 4) * np.abs(x) / np.exp(logs)
    for i in near:
        term = run.exactly(int(i))[-1]
        if term == 0:
            return None if remainder else _exponent(-math.inf, 0.0, count)
        top, bottom = math.log(abs(term.numerator)), math.log(term.denominator)
        shift = modes.log_alpha + i * modes.log_leading
        logs[i], roundings[i] = top - bottom - shift, top + bottom + abs(shift)
    nearby = 0.0
    if remainder:
        # the norm of A₂ᵏ is at most |a|ᵏ times that of the projections on its eigenvectors
        spread = modes.spread * math.exp(math.log(run.size) - modes.log_alpha)
        constant = 1.01 * spread / min(0.5, math.exp(float(logs.min())))
        nearby = 4 * p * remainder * constant**2
        if nearby > p / 2:
            return None
    weights = p * p * q**k
    leading = np.array([p * modes.log_alpha, q * modes.log_leading])
    rounding = 1 + np.abs(leading).sum() + weights @ ((k + 4) * np.abs(logs) + roundings)
    error = modes.rest(p, q, count) + 4 * EPSILON * float(rounding) + nearby
    return _exponent(math.fsum([*leading, *(weights * logs)]), error, count)


def _exponent(value: float, error: float, terms: int) -> Exponent:
    return Exponent(
        value=value,
        lower=value - error,
        upper=value + error,
        kind="exact",
        method="renewal series",
        evaluations=terms,
    )
