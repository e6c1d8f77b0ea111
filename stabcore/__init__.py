"""Which minima can gradient descent and SGD find? The exponents μ and λ that decide it."""

from stabcore.exponent import Exponent, ExponentWarning
from stabcore.gd import bad_step_sizes, gd_exponent, gd_jacobian, gd_log_abs_det, gd_map
from stabcore.lyapunov import (
    closed_form,
    determinant_bound,
    enclosure,
    lyapunov_exponent,
    lyapunov_spectrum,
    mean_square_edge,
    mean_square_exponent,
    moment_exponent,
    monte_carlo,
    subadditive_bound,
    tail_index,
    transfer,
)
from stabcore.minima import Minimum, find_minimum
from stabcore.problems import (
    DiagonalLinearNetwork,
    LinearRegression,
    Problem,
    ReluPair,
    ScalarFactorization,
    TwoLayerNetwork,
)
from stabcore.products import FiniteLaw, SampledLaw, SGDLaw
from stabcore.sampling import Sampling
from stabcore.stability import (
    Stability,
    StableSet,
    StableSets,
    irregularities,
    sgd_exponent,
    stability,
    stable_arcs,
    stable_set,
    stable_steps,
)
from stabcore.trajectories import (
    ExactRuns,
    Fate,
    Runs,
    exact_runs,
    gradient_descent,
    stochastic_gradient_descent,
)

__version__ = "0.1.0"

__all__ = [
    "DiagonalLinearNetwork",
    "ExactRuns",
    "Exponent",
    "ExponentWarning",
    "Fate",
    "FiniteLaw",
    "LinearRegression",
    "Minimum",
    "Problem",
    "ReluPair",
    "Runs",
    "SGDLaw",
    "SampledLaw",
    "Sampling",
    "ScalarFactorization",
    "Stability",
    "StableSet",
    "StableSets",
    "TwoLayerNetwork",
    "bad_step_sizes",
    "closed_form",
    "determinant_bound",
    "enclosure",
    "exact_runs",
    "find_minimum",
    "gd_exponent",
    "gd_jacobian",
    "gd_log_abs_det",
    "gd_map",
    "gradient_descent",
    "irregularities",
    "lyapunov_exponent",
    "lyapunov_spectrum",
    "mean_square_edge",
    "mean_square_exponent",
    "moment_exponent",
    "monte_carlo",
    "sgd_exponent",
    "stability",
    "stable_arcs",
    "stable_set",
    "stable_steps",
    "stochastic_gradient_descent",
    "subadditive_bound",
    "tail_index",
    "transfer",
]
