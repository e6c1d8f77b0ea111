"""The top exponent of any law, by the first method that applies."""

from __future__ import annotations

from typing import Any

import numpy as np

from stabcore import _validation as check
from stabcore.exponent import Exponent
from stabcore.lyapunov.closed_forms import closed_form
from stabcore.lyapunov.enclosures import enclosure
from stabcore.lyapunov.laws import AnyLaw, FiniteLaw, Law, SampledLaw, require_law
from stabcore.lyapunov.simulated_products import check_options, monte_carlo
from stabcore.lyapunov.transfer_operator import transfer

METHODS = ("auto", "closed_form", "transfer", "enclosure", "monte_carlo")

MOST_FACTORS = 20_000

# Above this error of the deterministic method a simulation may do better, and is tried as well.
ROUGH = 1e-4


def lyapunov_exponent(
    law: AnyLaw,
    method: str = "auto",
    rng: int | np.random.Generator | None = None,
    *,
    tolerance: float = 1e-10,
    **options: Any,
) -> Exponent:
    r"""Return the top Lyapunov exponent lim (1/n) log‖A_n ⋯ A_1‖ of `law`, in nats per step.

    Parameters
    ----------
    law : FiniteLaw, SGDLaw or SampledLaw
    method : str
        "closed_form", "transfer" (dimension 2 or 3), "enclosure" (a proven interval, dimension 2)
        or "monte_carlo" insist. "auto" takes the first that applies: the closed form, the transfer
        operator for laws with up to 20,000 factors, Monte Carlo.
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
        If the method does not exist or does not apply to this law, or an argument is invalid.
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
    check.choice("method", method, METHODS)
    require_law(law, AnyLaw)
    check.generator(rng)
    check_options(**options)
    if method == "monte_carlo":
        return monte_carlo(law, rng, **options)
    if method in ("transfer", "enclosure"):
        require_law(law)
        assert not isinstance(law, SampledLaw)  # refused by the line above
        if method == "transfer":
            return transfer(law, tolerance=tolerance)
        return enclosure(law, width=tolerance)
    result = closed_form(law)
    if result is not None:
        return result
    if method == "closed_form":
        raise ValueError(f"method 'closed_form' does not know {law!r}; use method='auto'.")
    if isinstance(law, SampledLaw) or not _deterministic(law):
        return monte_carlo(law, rng, **options)
    result = transfer(law, tolerance=tolerance)
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
    return law.sampling.epoch_length == 1 and law.sampling.count <= MOST_FACTORS
