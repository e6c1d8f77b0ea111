r"""What can be proven of an exponent at little cost: an interval, and often the sign.

Several bounds of λ need no limit and no simulation:

* if ηk < 2 for the curvatures k of all samples that are drawn, every step is a contraction and
  λ < 0 (long products that meet all samples contract strictly);
* λ ≤ ½ log ρ(E[A⊗A]), the growth in mean square;
* λ ≥ (1/d) E log|det A|, the mean of all exponents;
* λ ≤ (1/n) E log‖A_n ⋯ A_1‖ for every n;
* in the plane, an enclosure.

Each is evaluated with a bound on its own rounding error, so that their intersection is proven, and
every estimate of λ may be cut down to it.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

from stabcore import _validation as check
from stabcore._constants import EPSILON
from stabcore.exponent import Exponent
from stabcore.lyapunov.bounds import MOST_BATCHES, determinant_bound, subadditive_bound
from stabcore.lyapunov.enclosures import MOST_ENCLOSED, enclosure
from stabcore.lyapunov.laws import FiniteLaw, Law, MomentumLaw, require_law
from stabcore.lyapunov.mean_square import mean_square_exponent

MOST_WORK = 10**8  # rows × rank² up to which the growth in mean square is computed: 0.2 s

MOST_MOMENTUM = 24  # order of factors with momentum up to which it is

MOST_PRODUCTS = 4096  # whose norms are averaged

MOST_ORDER = 12  # of the factors of these products

ARCS = 2**12  # of an enclosure

NEGATIVE = -math.ulp(0.0)  # the largest number below 0


class _Bound(NamedTuple):
    value: float
    name: str


@check.public()
def proven_bounds(law: Law | MomentumLaw) -> Exponent:
    """Return a proven interval of the top exponent, from the bounds that are cheap for this law.

    Bounds that cost more are tried only where the sign is not decided yet. The interval is correct
    whatever its width; where nothing cheap decides the sign it may be wide.

    Source: the bounds are those of `mean_square_exponent`, `determinant_bound`,
    `subadditive_bound` and `enclosure`.

    Parameters
    ----------
    law : FiniteLaw, SGDLaw or MomentumLaw

    Returns
    -------
    Exponent
        Of kind "enclosure"; its `proof` names the bound that decides the sign.

    Examples
    --------
    Two unit gradients with a cosine of ½, a contraction at η = 0.5, repelled at η = 3:

    >>> from stabcore import SGDLaw
    >>> kernel = [[1.0, 0.5], [0.5, 1.0]]
    >>> proven_bounds(SGDLaw(kernel, 0.5)).proof, proven_bounds(SGDLaw(kernel, 3.0)).proof
    ('mean square', 'determinant')
    """
    if isinstance(law, MomentumLaw):
        return _proven(_momentum_determinant(law), _momentum_mean_square(law))
    require_law(law)
    lower, upper = _Bound(-math.inf, "none"), _largest_step(law)
    if _moment_is_cheap(law):
        upper = min(upper, _Bound(mean_square_exponent(law).upper, "mean square"))
    if isinstance(law, FiniteLaw) or law.batches.count <= MOST_BATCHES:
        lower = max(lower, _Bound(determinant_bound(law).lower, "determinant"))
    if not _decided(lower, upper) and _enclosure_is_cheap(law):
        found = enclosure(law, decide_sign=True, max_arcs=ARCS)
        lower = max(lower, _Bound(found.lower, "enclosure"))
        upper = min(upper, _Bound(found.upper, "enclosure"))
    length = 2
    while not _decided(lower, upper) and _products_are_cheap(law, length):
        bound = subadditive_bound(law, length)
        upper = min(upper, _Bound(bound.upper, bound.method))
        length *= 2
    return _proven(lower, upper)


def _proven(lower: _Bound, upper: _Bound) -> Exponent:
    """Return the interval between two bounds."""
    if math.isinf(lower.value) or math.isinf(upper.value):
        value = upper.value if math.isinf(lower.value) else lower.value
    else:
        value = (lower.value + upper.value) / 2
    names = sorted({bound.name for bound in (lower, upper)} - {"none"})
    return Exponent(
        value=min(max(value, lower.value), upper.value),
        lower=lower.value,
        upper=upper.value,
        kind="enclosure",
        method=" and ".join(names),
        proof=upper.name if upper.value < 0 else lower.name if lower.value > 0 else "",
    )


def inside(estimate: Exponent, proven: Exponent) -> Exponent:
    """Return what is left of an estimate inside a proven interval, and with its proof of the sign.

    Parameters
    ----------
    estimate, proven : Exponent

    Returns
    -------
    Exponent
        With the interval of `proven`, and a status that says so, if the two are disjoint.
    """
    lower, upper = max(estimate.lower, proven.lower), min(estimate.upper, proven.upper)
    status = estimate.status
    if lower > upper:
        lower, upper = proven.lower, proven.upper
        status = f"the estimate {estimate.value:.3g} contradicts a proven bound ({proven.method})"
    return replace(
        estimate,
        value=min(max(estimate.value, lower), upper),
        lower=lower,
        upper=upper,
        status=status,
        proof=proven.proof,
    )


def _largest_step(law: Law) -> _Bound:
    """Return a bound of the norm of one step."""
    if isinstance(law, FiniteLaw):
        return _Bound(subadditive_bound(law, 1, limit=len(law.matrices)).upper, "largest step")
    drawn = law.batches.probabilities > 0
    largest = law.step_size * float(law.curvatures[drawn].max()) * (1 + 1e-12)
    if largest >= 2:
        return _Bound(math.log(largest - 1) + 1e-12, "largest step")
    spanning = bool(law.minimum.hessian_spectrum[0] > 0)
    return _Bound(NEGATIVE if spanning else 0.0, "every step contracts")


def _momentum_determinant(law: MomentumLaw) -> _Bound:
    """Return the mean of all exponents: ½ log β, and with Nesterov half of that without more."""
    half = math.log(law.method.momentum) / 2
    if not law.method.nesterov:
        return _Bound(half * (1 + 4 * EPSILON) - 4 * EPSILON, "determinant")
    if law.batches.count > MOST_BATCHES:
        return _Bound(-math.inf, "none")
    plain = determinant_bound(law.plain).lower
    return _Bound(half + plain / 2 - 4 * EPSILON * (1 + abs(half + plain / 2)), "determinant")


def _momentum_mean_square(law: MomentumLaw) -> _Bound:
    order = law.dimension
    cheap = order <= MOST_MOMENTUM and (law.minimum.n_samples + 1) * order**4 <= MOST_WORK
    if not (cheap and law.batches.epoch_length == 1):
        return _Bound(math.inf, "none")
    return _Bound(mean_square_exponent(law).upper, "mean square")


def _moment_is_cheap(law: Law) -> bool:
    order = law.dimension
    if isinstance(law, FiniteLaw):
        return order <= MOST_ORDER and len(law.matrices) * order**4 <= MOST_WORK
    return _independent(law) and len(law.kernel) * order**2 <= MOST_WORK


def _enclosure_is_cheap(law: Law) -> bool:
    return law.dimension == 2 and _independent(law) and _count(law) <= MOST_ENCLOSED


def _products_are_cheap(law: Law, length: int) -> bool:
    few = law.dimension <= MOST_ORDER and _count(law) ** length <= MOST_PRODUCTS
    return few and _independent(law)


def _independent(law: Law) -> bool:
    return isinstance(law, FiniteLaw) or law.batches.epoch_length == 1


def _count(law: Law) -> int:
    return len(law.matrices) if isinstance(law, FiniteLaw) else law.batches.count


def _decided(lower: _Bound, upper: _Bound) -> bool:
    return lower.value > 0 or upper.value < 0
