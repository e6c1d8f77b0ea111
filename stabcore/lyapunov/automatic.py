"""The top exponent of any law, by the first method that applies."""

from __future__ import annotations

from typing import Any

import numpy as np

from stabcore import _validation as check
from stabcore.exponent import Exponent, affine, largest_exponent
from stabcore.lyapunov._factors import split
from stabcore.lyapunov.closed_forms import closed_form
from stabcore.lyapunov.enclosures import enclosure
from stabcore.lyapunov.laws import (
    AnyLaw,
    FiniteLaw,
    Law,
    MomentumLaw,
    SampledLaw,
    SGDLaw,
    require_law,
)
from stabcore.lyapunov.proofs import inside, proven_bounds
from stabcore.lyapunov.simulated_products import (
    check_options,
    monte_carlo,
    simulated,
    warn_if_short,
)
from stabcore.lyapunov.transfer_operator import solved, transfer

ALGORITHMS = ("auto", "closed_form", "transfer", "enclosure", "monte_carlo")

MOST_FACTORS = 20_000

# Above this error of the deterministic method a simulation may do better, and is tried as well.
ROUGH = 1e-4


@check.public(more=check_options)
def lyapunov_exponent(
    law: AnyLaw,
    algorithm: str = "auto",
    *,
    rng: int | np.random.Generator | None = None,
    tolerance: float = 1e-10,
    **options: Any,
) -> Exponent:
    r"""Return the top Lyapunov exponent lim (1/n) log‖A_n ⋯ A_1‖ of `law`, in nats per step.

    Parameters
    ----------
    law : FiniteLaw, SGDLaw, MomentumLaw or SampledLaw
    algorithm : str
        "closed_form", "transfer" (dimension 2 or 3), "enclosure" (a proven interval, dimension 2)
        or "monte_carlo" insist. "auto" takes the first that applies: the closed form, the transfer
        operator for laws with up to 20,000 factors (or different epochs, where batches are
        reshuffled), Monte Carlo. It treats the orthogonal groups of a law one by one, and cuts
        the result down to what `proven_bounds` says.
    rng : int, numpy.random.Generator or None
        For Monte Carlo; same seed, same result.
    tolerance : float
        Of the transfer operator, and the width of an enclosure.
    **options
        Of `monte_carlo`: `steps`, `replicas`, `transient` and its others.

    Returns
    -------
    Exponent
        Its `method` says which was taken.

    Raises
    ------
    ValueError
        If the algorithm does not apply to this law.
    TypeError
        If `law` is not a law.

    Examples
    --------
    >>> from stabcore import FiniteLaw
    >>> lyapunov_exponent(FiniteLaw([[[2.0, 0.0], [0.0, 0.5]], [[0.5, 7.0], [0.0, 2.0]]])).value
    0.0
    >>> print(lyapunov_exponent(FiniteLaw([[[2, 1], [1, 1]], [[3, 1], [2, 1]]])))
    +1.143311035 in [+1.143311035, +1.143311035] (deterministic, transfer operator, proven sign)
    """
    check.choice("algorithm", algorithm, ALGORITHMS)
    require_law(law, AnyLaw)
    check.generator(rng)
    if options and algorithm not in ("auto", "monte_carlo"):
        raise ValueError(
            f"{sorted(options)[0]} is an option of Monte Carlo, and algorithm={algorithm!r} does "
            f"not simulate; leave it out, or call {algorithm}() with options of its own."
        )
    check_options(**options)
    if algorithm == "monte_carlo":
        return monte_carlo(law, rng, **options)
    if algorithm in ("transfer", "enclosure"):
        law = law.finite() if isinstance(law, MomentumLaw) else law
        require_law(law)
        assert not isinstance(law, SampledLaw)  # refused by the line above
        if algorithm == "transfer":
            return transfer(law, tolerance=tolerance)
        return enclosure(law, width=tolerance)
    if algorithm == "closed_form":
        result = closed_form(law)
        if result is None:
            raise ValueError(f"algorithm 'closed_form' does not know {law!r}; use 'auto'.")
        return result
    goal = check.real("tolerance", tolerance, above=0.0)
    result = estimated(law, check.generator(rng), goal, options)
    if result.kind == "statistical":
        warn_if_short(result)
    return result


def estimated(
    law: AnyLaw,
    rng: np.random.Generator,
    tolerance: float,
    options: dict[str, Any],
    *,
    proven: bool = True,
) -> Exponent:
    """Return the exponent by the first method that applies, inside its proven bounds if wanted.

    Parameters
    ----------
    law : FiniteLaw, SGDLaw, MomentumLaw or SampledLaw
    rng, tolerance, options
        As in `lyapunov_exponent`.
    proven : bool
        Whether to look for proven bounds; a scan that starts from them need not.

    Returns
    -------
    Exponent
    """
    result = closed_form(law)
    if result is not None:
        return result
    if isinstance(law, MomentumLaw):
        return _with_momentum(law, rng, tolerance, options, proven=proven)
    if isinstance(law, SampledLaw):
        return simulated(law, rng, **options)
    parts = split(law)
    if len(parts) > 1:
        return largest_exponent(
            [estimated(part, rng, tolerance, options, proven=proven) for part in parts]
        )
    result = _transfer_per_step(law, tolerance, proven) if _deterministic(law) else None
    if result is None or not (result.converged or result.upper - result.value < ROUGH):
        run = simulated(law, rng, **options)
        candidates = [run] if result is None else [result, run]
        result = min(candidates, key=lambda exponent: exponent.upper - exponent.lower)
    return inside(result, proven_bounds(law)) if proven else result


def _with_momentum(
    law: MomentumLaw,
    rng: np.random.Generator,
    tolerance: float,
    options: dict[str, Any],
    *,
    proven: bool,
) -> Exponent:
    """Return the exponent with momentum: of orthogonal groups, of 2×2 factors, or simulated."""
    parts = split(law)
    if len(parts) > 1:
        return largest_exponent(
            [estimated(part, rng, tolerance, options, proven=proven) for part in parts]
        )
    few = law.batches.epoch_length == 1 and law.batches.count <= MOST_FACTORS
    if law.dimension == 2 and few:
        return estimated(law.finite(), rng, tolerance, options, proven=proven)
    result = simulated(law, rng, **options)
    return inside(result, proven_bounds(law)) if proven else result


def _deterministic(law: Law) -> bool:
    """Whether the transfer operator applies to `law` at a moderate cost."""
    if law.dimension not in (2, 3):
        return False
    if isinstance(law, FiniteLaw):
        return len(law.matrices) <= MOST_FACTORS
    return law.batches.epoch_count <= MOST_FACTORS


def _transfer_per_step(law: Law, tolerance: float, enclosed: bool) -> Exponent:
    """Return the exponent by the transfer operator, of whole epochs where they are reshuffled."""
    if not isinstance(law, SGDLaw) or law.batches.epoch_length == 1:
        return solved(law, tolerance, enclosed=enclosed)
    length = law.batches.epoch_length
    return affine(solved(law.epochs(), tolerance * length, enclosed=enclosed), 1 / length)
