"""Lyapunov exponents of random matrix products: one method per file, one result type.

Source: Furstenberg & Kesten 1960 (existence); papers A and D (what its sign decides for SGD).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stabcore import _validation as check
from stabcore.exponent import Exponent
from stabcore.lyapunov.closed_form import closed_form
from stabcore.lyapunov.monte_carlo import check_options, monte_carlo
from stabcore.products import Law, require_law

METHODS = ("auto", "closed_form", "monte_carlo")

__all__ = ["METHODS", "closed_form", "lyapunov_exponent", "monte_carlo"]


def lyapunov_exponent(
    law: Law,
    method: str = "auto",
    rng: int | np.random.Generator | None = None,
    **options: Any,
) -> Exponent:
    r"""Return the top Lyapunov exponent lim (1/n) log‖A_n ⋯ A_1‖ of `law`, in nats per step.

    Parameters
    ----------
    law : FiniteLaw or SGDLaw
    method : str
        "auto" takes the closed form where there is one and Monte Carlo elsewhere; "closed_form"
        and "monte_carlo" insist.
    rng : int, numpy.random.Generator or None
        For Monte Carlo; same seed, same result.
    **options
        `steps`, `replicas`, `transient` of `monte_carlo`.

    Returns
    -------
    Exponent

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
    """
    check.choice("method", method, METHODS)
    require_law(law)
    check.generator(rng)
    check_options(**options)
    if method == "monte_carlo":
        return monte_carlo(law, rng, **options)
    result = closed_form(law)
    if result is not None:
        return result
    if method == "closed_form":
        raise ValueError(f"method 'closed_form' does not know {law!r}; use method='auto'.")
    return monte_carlo(law, rng, **options)
