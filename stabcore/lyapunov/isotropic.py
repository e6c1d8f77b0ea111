r"""Isotropic laws: |Av| has one law for all directions v, and every exponent is one expectation.

Let QAQᵀ have the law of A for every rotation Q (or AQ, as for Gaussian matrices). Then the law of
|Av|, |v| = 1, does not depend on v, and neither does it on the factors before. So the steps of
log|A_n ⋯ A_1 v| are independent, with one law, and exactly, with no limit to take,

    λ = E log|Av|,    L(q) = log E|Av|^q.

* Gaussian matrices: |Av|² ~ χ²_d. The next exponents are those of orthogonal projections: the
  i-th exponent is the one of χ²_{d−i+1}.
* A = I − κuuᵀ: |Av|² = 1 − κ(2 − κ)T with T = (u·v)² ~ Beta(1/2, (d−1)/2).
* SGD on Gaussian inputs: with c = η/b, |Av|² = (1 − cX)² + c²XY, where X = Σ (x_j·v)² ~ χ²_b, and
  c²XY, Y ~ χ²_{d−1}, is the squared length of the part of Av across v: given all x_j·v it is a sum
  of normal vectors. R = X + Y ~ χ²_{b+d−1} and T = X/R ~ Beta(b/2, (d−1)/2) are independent, and
  |Av|² = 1 − cR(2 − cR)T, the formula above with a random κ = cR.

The expectations are computed as |Av|² = (1 − T) + (1 − κ)²T. Over log(T/(1 − T)) the integrand is
analytic in the strip |Im| < π whatever κ is, so that the trapezoidal rule converges exponentially.
Over log R there is a logarithmic or weaker singularity at κ = 1, where the line is cut; tanh-sinh
rules on the pieces see all distances from the cut without cancellation. Densities are needed up to
constants only, which cancel in a ratio of sums. Steps are halved until the value stays the same.
That is an estimate of the error and no proof, hence the kind "deterministic".

Source: our derivation; Newman 1986 for the spectrum of Gaussian matrices; Takahasi & Mori 1974 for
the quadrature.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
from scipy.optimize import brentq
from scipy.special import digamma, expit, gammaln, logsumexp

from stabcore import _validation as check
from stabcore._constants import EPSILON
from stabcore._log_sums import log_abs_one_minus
from stabcore._validation import Array
from stabcore.exponent import Exponent, affine, exact
from stabcore.lyapunov.laws import (
    GaussianInputLaw,
    GaussianMatrixLaw,
    IsotropicLaw,
    UniformDirectionLaw,
)

# Log-weights of points, and two numbers at each of them.
Rule = tuple[Array, Array, Array]

NEGLIGIBLE = 42.0  # e⁻⁴² is 6e-19
GOAL = 1e-13
LARGEST = 1e100
LEVELS = 5  # of refinement, each of which halves a step
METHOD = "isotropic law, quadrature"


def isotropic_exponent(law: IsotropicLaw) -> Exponent:
    r"""Return the top exponent λ = E log|Av| of an isotropic law.

    Parameters
    ----------
    law : GaussianMatrixLaw, GaussianInputLaw or UniformDirectionLaw

    Returns
    -------
    Exponent
        Of kind "exact" where it is a formula, and "deterministic" where it is a quadrature, whose
        interval is the change from the last refinement but one to the last.

    Examples
    --------
    >>> isotropic_exponent(UniformDirectionLaw(2, 3.0)).value == math.log(3 / 2)
    True
    >>> print(isotropic_exponent(GaussianInputLaw(3, 0.3)))
    -0.1432787326 in [-0.1432787326, -0.1432787326] (deterministic, isotropic law, quadrature)
    """
    if isinstance(law, GaussianMatrixLaw):
        return gaussian_spectrum(law.dimension)[0]
    if isinstance(law, UniformDirectionLaw) and law.dimension <= 2:
        if law.dimension == 1:
            return _log_distance(law.contraction)
        # (1 + |1 − κ|)/2 is the larger of 1 − κ/2 and κ/2
        half = law.contraction / 2
        return _log_distance(half if half <= 0.5 else 1 + half)
    return _converge(lambda inner, outer: _mean_log(law, inner, outer))


def isotropic_moment(law: IsotropicLaw, q: float) -> Exponent:
    r"""Return L(q) = log E|Av|^q, q > 0, of an isotropic law.

    Parameters
    ----------
    law : GaussianMatrixLaw, GaussianInputLaw or UniformDirectionLaw
    q : float
        q > 0.

    Returns
    -------
    Exponent
        Of kind "exact" where it is a formula, and "deterministic" where it is a quadrature.

    Raises
    ------
    ValueError
        If q is not positive.

    Examples
    --------
    E|Av|² = d for d×d Gaussian matrices:

    >>> round(math.exp(isotropic_moment(GaussianMatrixLaw(5), 2.0).value), 12)
    5.0
    """
    q = check.real("q", q, above=0.0)
    if isinstance(law, GaussianMatrixLaw):
        ends = gammaln([(law.dimension + q) / 2, law.dimension / 2])
        shift = q / 2 * math.log(2)
        error = 8 * EPSILON * float(np.abs(ends).sum() + shift)
        return exact(float(ends[0] - ends[1]) + shift, error, "closed form")
    if isinstance(law, UniformDirectionLaw) and law.dimension == 1:
        return affine(_log_distance(law.contraction), q)
    return _converge(lambda inner, outer: _log_mean_power(law, q, inner, outer))


def isotropic_log_norm(law: IsotropicLaw) -> float:
    """Return the logarithm of the largest spectral norm of a factor, ∞ for Gaussian ones."""
    if not isinstance(law, UniformDirectionLaw):
        return math.inf
    along = _log_distance(law.contraction).value
    return along if law.dimension == 1 else max(0.0, along)


def gaussian_spectrum(dimension: int) -> list[Exponent]:
    r"""Return all exponents (log 2 + ψ((d − i + 1)/2))/2, i = 1, ..., d, of Gaussian matrices.

    Source: Newman 1986.

    Parameters
    ----------
    dimension : int
        d.

    Returns
    -------
    list of Exponent
        Of kind "exact", the largest first.

    Raises
    ------
    ValueError
        If `dimension` is not positive.

    Examples
    --------
    E log χ²_2 = log 2 − γ:

    >>> gaussian_spectrum(2)[0].value == (math.log(2) - np.euler_gamma) / 2
    True
    """
    order = check.integer("dimension", dimension)
    logs = digamma(np.arange(order, 0, -1) / 2)
    return [
        exact((math.log(2) + float(x)) / 2, 4 * EPSILON * (1 + abs(float(x))), "closed form")
        for x in logs
    ]


def _log_distance(x: float) -> Exponent:
    """Return log|1 − x| for x ≥ 0 with a bound on its rounding error."""
    value = float(log_abs_one_minus(np.asarray(x)))
    if math.isinf(value):
        return exact(value, 0.0, "closed form")
    return exact(value, 4 * EPSILON * (abs(value) + x / abs(1 - x)), "closed form")


def _converge(mean: Callable[[int, int], tuple[float, float, int]]) -> Exponent:
    """Return the limit of `mean(inner, outer)` = (value, rounding error, points)."""
    # Each level halves the step over T (inner) or over R (outer).
    value, rounding, total = mean(0, 0)
    levels, changes = [0, 0], [math.inf, math.inf]
    for which in (0, 1):
        while changes[which] > GOAL * min(1.0, abs(value)) + rounding and levels[which] < LEVELS:
            levels[which] += 1
            before = value
            value, rounding, points = mean(*levels)
            changes[which] = abs(value - before)
            total += points
        # over T even a rough rule over R shows when to stop; over R one level of T is enough
        if which == 0 and changes[0] <= GOAL * min(1.0, abs(value)) + rounding:
            levels[0] -= 1
            value, rounding, points = mean(*levels)
            total += points
    change = sum(changes)
    status = "converged"
    if change > 100 * (GOAL * max(1.0, abs(value)) + rounding):
        status = f"the quadrature still changes by {change:.1e} when its steps are halved"
    return Exponent(
        value=value,
        lower=value - change - rounding,
        upper=value + change + rounding,
        kind="deterministic",
        method=METHOD,
        status=status,
        evaluations=total,
    )


def _mean_log(law: IsotropicLaw, inner: int, outer: int) -> tuple[float, float, int]:
    """Return E log|Av|, its rounding error, and the number of points."""
    rule_r, rule_t = _rules(law, 0.0, inner, outer)
    logs = _log_norms(rule_r, rule_t)
    over_r, over_t = (np.exp(weights - logsumexp(weights)) for weights in (rule_r[0], rule_t[0]))
    rounding = _rounding(law) * float(over_r @ np.abs(logs) @ over_t)
    return float(over_r @ logs @ over_t), rounding, logs.size


def _log_mean_power(
    law: IsotropicLaw, q: float, inner: int, outer: int
) -> tuple[float, float, int]:
    """Return log E|Av|^q, its rounding error, and the number of points."""
    rule_r, rule_t = _rules(law, q, inner, outer)
    powers = q * _log_norms(rule_r, rule_t)
    terms = powers + rule_t[0]
    peaks = terms.max(axis=1)
    over_r = rule_r[0] + peaks + np.log(np.exp(terms - peaks[:, None]).sum(axis=1))
    constant = sum(float(logsumexp(rule[0])) for rule in _rules(law, 0.0, inner, outer))
    value = float(logsumexp(over_r)) - constant
    row = int(over_r.argmax())
    size = abs(float(powers[row, terms[row].argmax()]))
    return value, _rounding(law) * (1 + abs(value) + size), terms.size


def _rounding(law: IsotropicLaw) -> float:
    """Return the rounding error of weights and logarithms."""
    # n(s − eˢ + 1) is computed with an error of n|s| roundings, and matters for |s| up to 1/√n only
    freedom = law.dimension + (law.batch_size if isinstance(law, GaussianInputLaw) else 1)
    return (16 + 4 * math.sqrt(freedom)) * EPSILON


def _rules(law: IsotropicLaw, q: float, inner: int, outer: int) -> tuple[Rule, Rule]:
    """Return log-weights with κ and |1 − κ|, and log-weights with T and 1 − T, for E|Av|^q."""
    # Constant factors of the weights are left out, for every q the same.
    beta = (law.dimension - 1) / 2
    if isinstance(law, UniformDirectionLaw):
        kappa = np.array([law.contraction])
        return (np.zeros(1), kappa, np.abs(1 - kappa)), _beta_rule(1 / 2, beta, q, inner)
    assert isinstance(law, GaussianInputLaw)
    freedom, rate = law.batch_size + law.dimension - 1, law.step_size / law.batch_size
    over_r = _chi_square_rule(freedom, rate, q, outer)
    return over_r, _beta_rule(law.batch_size / 2, beta, q, inner)


def _log_norms(rule_r: Rule, rule_t: Rule) -> Array:
    """Return log|Av| = ½ log(1 − κ(2 − κ)T) for all pairs of points."""
    kappa, distance = rule_r[1:]
    inside, outside = rule_t[1:]
    # beyond this κ nothing but κ√T is left, and κ² may overflow
    finite = np.minimum(kappa, LARGEST)
    change = np.multiply.outer(finite * (finite - 2), inside)
    logs = np.log1p(np.maximum(change, -0.9))
    near = np.nonzero(change < -0.9)
    logs[near] = np.log(outside[near[1]] + distance[near[0]] ** 2 * inside[near[1]])
    return np.asarray(logs / 2 + np.log(np.maximum(kappa / LARGEST, 1.0))[:, None])


def _beta_rule(a: float, b: float, q: float, level: int) -> Rule:
    """Return log-weights, T and 1 − T for T ~ Beta(a, b): equidistant log(T/(1 − T))."""
    if b == 0:
        return np.zeros(1), np.ones(1), np.zeros(1)
    # |Av|² is monotone in T, from 1 to (1 − κ)². So beyond these two points the density times
    # |Av|^q falls at least as fast as Beta(a, b + q/2) and Beta(a + q/2, b) beyond their modes.
    left = math.log(a / (b + q / 2)) - _beta_cut(a, b + q / 2)
    right = math.log((a + q / 2) / b) + _beta_cut(b, a + q / 2)
    width = math.sqrt(1 / (a + q / 2) + 1 / (b + q / 2))
    step = min(0.25, width / 2) / 2**level
    centre = math.log(a / b)
    # centred, so that nothing cancels where the weights are large
    s = np.arange(math.floor((left - centre) / step), math.ceil((right - centre) / step) + 1) * step
    small, sign = (a, 1) if a < b else (b, -1)  # two forms of one density, of which one cancels
    log_density = small * sign * s - (a + b) * np.log1p(small / (a + b) * np.expm1(sign * s))
    return log_density + math.log(step), expit(centre + s), expit(-centre - s)


def _beta_cut(a: float, b: float) -> float:
    """Return how far left of its mode the density of log(T/(1 − T)) is negligible."""
    mean = a / (a + b)
    furthest = (NEGLIGIBLE + (a + b) * math.log1p(a / b)) / a

    def excess(s: float) -> float:
        return -a * s - (a + b) * math.log1p(mean * math.expm1(-s)) + NEGLIGIBLE

    return float(brentq(excess, 0.0, furthest + 1, rtol=1e-3))


def _chi_square_rule(n: int, rate: float, q: float, level: int) -> Rule:
    """Return log-weights, κ = cR and |1 − κ| of a rule for R ~ χ²_n over s = log(R/n)."""
    cut = -math.log(n * rate)  # κ = 1
    left, right = _chi_square_range(n, cut, q)
    ends = [left, cut, right] if left < cut < right else [left, right]
    t = np.arange(-27 * 2**level, 27 * 2**level + 1) / 8 / 2**level
    parts = []
    for low, high in pairwise(ends):
        near, far = expit(math.pi * np.sinh(t)), expit(-math.pi * np.sinh(t))
        s = np.where(t < 0, low + (high - low) * near, high - (high - low) * far)
        from_cut = s - cut
        if low == cut:
            from_cut = (high - low) * near
        elif high == cut:
            from_cut = -(high - low) * far
        log_weights = n / 2 * (s - np.expm1(s)) + np.log((high - low) * near * far * np.cosh(t))
        log_weights -= math.log(2.0) * level
        parts.append((log_weights, np.exp(from_cut), np.abs(np.expm1(from_cut))))
    log_weights, kappa, distance = (np.concatenate(part) for part in zip(*parts, strict=True))
    return log_weights, kappa, distance


def _chi_square_range(n: int, cut: float, q: float) -> tuple[float, float]:
    """Return where the density of s = log(R/n) times |Av|^q is not negligible."""
    furthest = 4 * (n + 2 * q + 2 * NEGLIGIBLE) / n
    right = math.log(furthest + (math.exp(cut) if cut < math.log(furthest) else 0.0))
    peak = 0.0
    for _ in range(2):  # the first pass finds the peak, the second how far left it matters
        left = -2 * (NEGLIGIBLE - min(peak, 0.0)) / n - 1
        s = np.append(np.linspace(left, right, 4000), 0.0)
        s.sort()
        distance = np.abs(np.expm1(s - cut))
        log_density = n / 2 * (s - np.expm1(s))
        # |1 − κ| ≤ |Av| ≤ max(1, |1 − κ|)
        powers = q * np.log(np.maximum(distance, 1e-300))
        peak = float((log_density + powers).max())
    matters = np.flatnonzero(log_density + np.maximum(powers, 0.0) > peak - NEGLIGIBLE)
    return float(s[max(matters[0] - 1, 0)]), float(s[min(matters[-1] + 1, s.size - 1)])
