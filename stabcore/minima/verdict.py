"""What the two theorems say of one minimum at one step size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from stabcore import _validation as check
from stabcore.exponent import Exponent
from stabcore.lyapunov.simulated_products import check_options
from stabcore.minima.exponents import gd_exponent, irregularities, sgd_exponent
from stabcore.problems.minimum import Minimum, as_minimum
from stabcore.sampling import SGD, covered_method

REGIONS = ("both", "GD only", "SGD only", "neither", "undecided")


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
        return REGIONS[int(region(self.gd.sign or 0, self.sgd.sign or 0))]

    def __str__(self) -> str:
        """Return the verdict in one paragraph."""
        lines = [f"stable for: {self.region}", f"  mu     = {self.gd}", f"  lambda = {self.sgd}"]
        return "\n".join(lines + [f"  note: {reason}" for reason in self.irregularities])


@check.public(more=check_options)
def stability(
    minimum: Minimum | ArrayLike,
    step_size: float,
    method: SGD = SGD(),
    *,
    rng: int | np.random.Generator | None = None,
    tolerance: float = 1e-10,
    **options: Any,
) -> Stability:
    """Return μ, λ and the verdict of Theorems A and B for one minimum and step size.

    Both exponents are those of one method: μ with full batches, λ with the batches it draws.

    Source: papers A and D.

    Parameters
    ----------
    minimum : Minimum or array, shape (N, N)
        The minimum, or its kernel.
    step_size : float
        η > 0.
    method : SGD
        How one trains.
    rng : int, numpy.random.Generator or None
        For Monte Carlo.
    tolerance : float
        As in `lyapunov_exponent`.
    **options
        Of Monte Carlo: `steps`, `replicas`, `transient` and its others.

    Returns
    -------
    Stability

    Raises
    ------
    NotImplementedError
        If the method has weight decay.

    Examples
    --------
    >>> from stabcore import Minimum, ReluPair
    >>> problem = ReluPair()
    >>> stability(Minimum.at(problem, problem.minimum(3.0)), 0.15).region
    'GD only'
    """
    covered_method(method, "stability", "momentum")
    point = as_minimum(minimum)
    return Stability(
        gd=gd_exponent(point, step_size, method),
        sgd=sgd_exponent(point, step_size, method, rng=rng, tolerance=tolerance, **options),
        irregularities=irregularities(point, step_size, method),
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
