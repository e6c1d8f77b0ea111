"""The top exponent of any law, by the first method that applies."""

from __future__ import annotations

from typing import Any

import numpy as np

from stabcore import _validation as check
from stabcore.exponent import Exponent, affine
from stabcore.lyapunov.closed_forms import closed_form
from stabcore.lyapunov.enclosures import enclosure
from stabcore.lyapunov.laws import AnyLaw, FiniteLaw, Law, SampledLaw, SGDLaw, require_law
from stabcore.lyapunov.simulated_products import check_options, monte_carlo
from stabcore.lyapunov.transfer_operator import transfer

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
    law : FiniteLaw, SGDLaw or SampledLaw
    algorithm : str
        "closed_form", "transfer" (dimension 2 or 3), "enclosure" (a proven interval, dimension 2)
        or "monte_carlo" insist. "auto" takes the first that applies: the closed form, the transfer
        operator for laws with up to 20,000 factors (or different epochs, where batches are
        reshuffled), Monte Carlo.
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
    +1.143311035 in [+1.143311035, +1.143311035] (deterministic, transfer operator)
    """
    check.choice("algorithm", algorithm, ALGORITHMS)
    require_law(law, AnyLaw)
    check.generator(rng)
    check_options(**options)
    if algorithm == "monte_carlo":
        return monte_carlo(law, rng, **options)
    if algorithm in ("transfer", "enclosure"):
        require_law(law)
        assert not isinstance(law, SampledLaw)  # refused by the line above
        if algorithm == "transfer":
            return transfer(law, tolerance=tolerance)
        return enclosure(law, width=tolerance)
    result = closed_form(law)
    if result is not None:
        return result
    if algorithm == "closed_form":
        raise ValueError(f"algorithm 'closed_form' does not know {law!r}; use 'auto'.")
    if isinstance(law, SampledLaw) or not _deterministic(law):
        return monte_carlo(law, rng, **options)
    result = _transfer_per_step(law, tolerance)
    if result.converged or result.upper - result.value < ROUGH:
        return result
    simulated = monte_carlo(law, rng, **options)
    return min(result, simulated, key=lambda exponent: exponent.upper - exponent.lower)


def _deterministic(law: Law) -> bool:
    """Whether the transfer operator applies to `law` at a moderate cost."""
    if law.dimension not in (2, 3):
        return False
    if isinstance(law, FiniteLaw):
        return len(law.matrices) <= MOST_FACTORS
    return law.batches.epoch_count <= MOST_FACTORS


def _transfer_per_step(law: Law, tolerance: float) -> Exponent:
    """Return the exponent by the transfer operator, of whole epochs where they are reshuffled."""
    if not isinstance(law, SGDLaw) or law.batches.epoch_length == 1:
        return transfer(law, tolerance=tolerance)
    length = law.batches.epoch_length
    return affine(transfer(law.epochs(), tolerance=tolerance * length), 1 / length)
