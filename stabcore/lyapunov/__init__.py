"""How fast random matrix products grow: Lyapunov exponents, with an error for each.

A *law* says which factor is multiplied on at each step. `lyapunov_exponent` takes the first method
that applies to it; each method is a function of its own, and all return an `Exponent`. Around them:
the growth of moments, bounds that need no limit, and several exponents at once.

Source: Furstenberg & Kesten 1960 (existence); papers A and D (what its sign decides for SGD).
"""

from stabcore.lyapunov.automatic import ALGORITHMS, lyapunov_exponent
from stabcore.lyapunov.bounds import determinant_bound, subadditive_bound
from stabcore.lyapunov.closed_forms import closed_form
from stabcore.lyapunov.enclosures import enclosure
from stabcore.lyapunov.laws import (
    FiniteLaw,
    GaussianInputLaw,
    GaussianMatrixLaw,
    MomentumLaw,
    SampledLaw,
    SGDLaw,
    UniformDirectionLaw,
)
from stabcore.lyapunov.mean_square import mean_square_edge, mean_square_exponent
from stabcore.lyapunov.moments import moment_exponent, tail_index
from stabcore.lyapunov.proofs import proven_bounds
from stabcore.lyapunov.simulated_products import monte_carlo
from stabcore.lyapunov.spectrum import lyapunov_spectrum
from stabcore.lyapunov.transfer_operator import transfer

__all__ = [  # noqa: RUF022
    # laws
    "SGDLaw",
    "MomentumLaw",
    "FiniteLaw",
    "SampledLaw",
    "GaussianMatrixLaw",
    "GaussianInputLaw",
    "UniformDirectionLaw",
    # the top exponent, by the first method that applies
    "lyapunov_exponent",
    "ALGORITHMS",
    # by one method
    "closed_form",
    "transfer",
    "enclosure",
    "monte_carlo",
    # several exponents
    "lyapunov_spectrum",
    # moments
    "mean_square_exponent",
    "mean_square_edge",
    "moment_exponent",
    "tail_index",
    # bounds
    "proven_bounds",
    "subadditive_bound",
    "determinant_bound",
]
