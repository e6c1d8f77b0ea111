"""Which minima can gradient descent and SGD end at.

At a global minimum one number decides for each of them: μ for gradient descent, λ for SGD, negative
if it can end there. `stability` gives both with the verdict, `stable_steps` every step size at
which a minimum is stable, `stable_arcs` every stable minimum of a two-parameter problem at one
step size.
"""

from stabcore.minima.arcs import stable_arcs
from stabcore.minima.exponents import gd_exponent, irregularities, sgd_exponent
from stabcore.minima.steps import StabilityTable, stable_steps
from stabcore.minima.verdict import REGIONS, Stability, region, stability

__all__ = [  # noqa: RUF022
    # the verdict at one step size
    "stability",
    "Stability",
    "REGIONS",
    "region",
    # its two exponents
    "gd_exponent",
    "sgd_exponent",
    "irregularities",
    # all stable step sizes, all stable minima
    "stable_steps",
    "stable_arcs",
    "StabilityTable",
]
