"""Lyapunov exponents of random matrix products: one method per file, one result type.

Source: Furstenberg & Kesten 1960 (existence); papers A and D (what its sign decides for SGD).
"""

from stabcore.lyapunov.automatic import METHODS, lyapunov_exponent
from stabcore.lyapunov.bounds import determinant_bound, subadditive_bound
from stabcore.lyapunov.closed_forms import closed_form
from stabcore.lyapunov.enclosures import enclosure
from stabcore.lyapunov.mean_square import mean_square_edge, mean_square_exponent
from stabcore.lyapunov.moments import moment_exponent, tail_index
from stabcore.lyapunov.simulated_products import monte_carlo
from stabcore.lyapunov.spectrum import lyapunov_spectrum
from stabcore.lyapunov.transfer_operator import transfer

__all__ = [
    "METHODS",
    "closed_form",
    "determinant_bound",
    "enclosure",
    "lyapunov_exponent",
    "lyapunov_spectrum",
    "mean_square_edge",
    "mean_square_exponent",
    "moment_exponent",
    "monte_carlo",
    "subadditive_bound",
    "tail_index",
    "transfer",
]
