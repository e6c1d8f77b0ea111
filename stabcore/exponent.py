"""The one result type of every exponent in this package: a value with its error and its origin."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from scipy.special import stdtrit

from stabcore._constants import EPSILON

__all__ = ["Exponent", "ExponentWarning"]

KINDS = ("exact", "enclosure", "deterministic", "statistical")  # the surest first
PROVEN = KINDS[:2]


class ExponentWarning(UserWarning):
    """An exponent was computed whose error cannot be trusted; its `status` says why."""


@dataclass(frozen=True, kw_only=True)
class Exponent:
    """An exponent, in nats per step, between `lower` and `upper`.

    Attributes
    ----------
    value : float
        The estimate; −∞ is legal (a product that vanishes).
    lower, upper : float
        What the interval means depends on `kind`.
    kind : str
        "exact" (a closed form; the interval bounds its rounding error), "enclosure" (a proven
        interval), "deterministic" (an estimated numerical error) or "statistical" (a 95 %
        confidence interval).
    method : str
        The method that produced it.
    status : str
        "converged", or what is wrong and what to do about it.
    evaluations : int
        Work done: terms summed, points evaluated or factors multiplied.
    standard_error : float or None
        Of a statistical value: the half-width of its interval in units of the quantile that belongs
        to it, so that it covers what was measured of the bias as well. None for the other kinds.
    proof : str
        The bound that proves the sign, for a value that is estimated; empty where none does.

    Raises
    ------
    ValueError
        If `kind` is unknown, `value` is outside the interval or `standard_error` is negative.

    Examples
    --------
    >>> estimate = Exponent(
    ...     value=-0.5123, lower=-0.5301, upper=-0.4945, kind="statistical", method="example"
    ... )
    >>> print(estimate, estimate.sign)
    -0.51 in [-0.53, -0.49] (statistical, example) -1
    """

    value: float
    lower: float
    upper: float
    kind: str
    method: str
    status: str = "converged"
    evaluations: int = 1
    standard_error: float | None = None
    proof: str = ""

    def __post_init__(self) -> None:
        """Refuse what would not be a result."""
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {KINDS}, got {self.kind!r}.")
        if not self.lower <= self.value <= self.upper:
            raise ValueError(
                f"value {self.value} is outside its interval [{self.lower}, {self.upper}]."
            )
        if self.standard_error is not None and not self.standard_error >= 0:
            raise ValueError(f"standard_error must be at least 0, got {self.standard_error}.")

    @property
    def sign(self) -> int | None:
        """−1 (stable), 0, +1 (unstable), or None when the interval does not decide it."""
        if self.upper < 0:
            return -1
        if self.lower > 0:
            return 1
        return 0 if self.lower == self.upper else None

    @property
    def converged(self) -> bool:
        """Whether the interval can be trusted."""
        return self.status == "converged"

    def __str__(self) -> str:
        """Return the value, to the digits that its interval knows, with the interval."""
        proof = ", proven sign" if self.proof and self.kind not in PROVEN else ""
        origin = f"({self.kind}, {self.method}{proof})"
        if self.lower == self.upper:
            return f"{self.value:+.6g} {origin}"
        half_width = (self.upper - self.lower) / 2
        if self.kind == "exact" and half_width < 1e-6 * abs(self.value):
            return f"{self.value:+.6g} {origin}"
        if not math.isfinite(half_width):
            return f"{self.value:+.6g} in [{self.lower:+.6g}, {self.upper:+.6g}] {origin}"
        digits = 9 - _magnitude(self.value or half_width)
        decimals = max(0, min(digits, -_magnitude(half_width)))
        value, lower, upper = (f"{x:+.{decimals}f}" for x in (self.value, self.lower, self.upper))
        return f"{value} in [{lower}, {upper}] {origin}"


def _magnitude(x: float) -> int:
    """Return the exponent of the first significant digit of x."""
    return math.floor(math.log10(abs(x)))


def exact(value: float, error: float, method: str, evaluations: int = 1) -> Exponent:
    """Return the exponent of a closed form whose rounding error is at most `error`."""
    # A value that comes out as exactly 0 or −∞ is taken at its word: the computed factors then
    # have modulus exactly 1, or one of them is exactly 0.
    if value == 0 or math.isinf(value):
        error = 0.0
    return Exponent(
        value=value,
        # A factor that is known to no digit may be 0.
        lower=value - error if error < 1 else -math.inf,
        upper=value + error,
        kind="exact",
        method=method,
        evaluations=evaluations,
    )


def affine(exponent: Exponent, factor: float, shift: float = 0.0) -> Exponent:
    """Return factor * exponent + shift, factor > 0."""
    rounding = EPSILON * abs(shift)
    error = exponent.standard_error
    return replace(
        exponent,
        value=factor * exponent.value + shift,
        lower=factor * exponent.lower + shift - rounding,
        upper=factor * exponent.upper + shift + rounding,
        standard_error=None if error is None else factor * error,
        proof="" if shift else exponent.proof,
    )


def largest_exponent(parts: list[Exponent]) -> Exponent:
    """Return the exponent of a product that splits into parts with the given ones.

    Statistical intervals are widened so that they hold together.

    Parameters
    ----------
    parts : list of Exponent

    Returns
    -------
    Exponent
        The largest, of the least sure kind among those that could be the largest.
    """
    lower = max(part.lower for part in parts)
    rivals = [part for part in parts if part.upper >= lower]
    best = max(rivals, key=lambda part: part.value)
    chance = [part for part in rivals if part.standard_error]
    # Bonferroni, with the few degrees of freedom that a simulation has at least.
    wider = float(stdtrit(7, 1 - 0.025 / len(chance)) / stdtrit(7, 0.975)) if chance else 1.0
    intervals = [_widened(part, wider) for part in rivals]
    errors = [part.standard_error for part in rivals if part.standard_error is not None]
    doubts = [part.status for part in rivals if not part.converged]
    proofs = [part.proof for part in rivals if part.proof or part.kind in PROVEN]
    sure = len(proofs) == len(rivals) if best.value < 0 else bool(best.proof)
    return replace(
        best,
        lower=max(low for low, _ in intervals),
        upper=max(high for _, high in intervals),
        kind=max((part.kind for part in rivals), key=KINDS.index),
        status=doubts[0] if doubts else "converged",
        evaluations=sum(part.evaluations for part in parts),
        standard_error=wider * max(errors) if errors else None,
        proof=next(filter(None, proofs), "") if sure else "",
    )


def _widened(part: Exponent, wider: float) -> tuple[float, float]:
    """Return the interval of a part, that of a statistical one made wider."""
    if not part.standard_error or math.isinf(part.standard_error):
        return part.lower, part.upper
    return (
        part.value - (part.value - part.lower) * wider,
        part.value + (part.upper - part.value) * wider,
    )
