"""Which minima can gradient descent and SGD find? The exponents μ and λ that decide it."""

from stabcore.basins import asymptotic_gradient_norm, basin, converged_fraction
from stabcore.bifurcations import bifurcation_diagram, cycle_branches, period_doublings
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
from stabcore.neuron import NeuronFate, neuron_runs
from stabcore.orbits import Cycle, Cycles, find_cycles, multipliers
from stabcore.phases import phase, phase_boundary, saddle_grid
from stabcore.preimages import fold_curves, preimage_counts, preimages
from stabcore.problems import (
    DiagonalLinearNetwork,
    LinearNetwork,
    LinearRegression,
    OneNeuron,
    PiecewiseQuartic,
    Problem,
    ReluPair,
    ScalarChain,
    ScalarFactorization,
    TwoLayerNetwork,
)
from stabcore.products import (
    FiniteLaw,
    GaussianInputLaw,
    GaussianMatrixLaw,
    SampledLaw,
    SGDLaw,
    UniformDirectionLaw,
)
from stabcore.saddle_steps import stable_saddle_steps
from stabcore.saddles import saddle_exponents, saddle_type
from stabcore.sampling import Sampling
from stabcore.scalar_maps import BalancedChain, LineMap, map_exponent
from stabcore.signals import FiniteSignal, GaussianSignal, LabelFlips, NormalSignal
from stabcore.stability import (
    Stability,
    StableSets,
    irregularities,
    sgd_exponent,
    stability,
    stable_arcs,
    stable_steps,
)
from stabcore.stable_sets import StableSet, stable_set
from stabcore.sweep import sweep
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
    "BalancedChain",
    "Cycle",
    "Cycles",
    "DiagonalLinearNetwork",
    "ExactRuns",
    "Exponent",
    "ExponentWarning",
    "Fate",
    "FiniteLaw",
    "FiniteSignal",
    "GaussianInputLaw",
    "GaussianMatrixLaw",
    "GaussianSignal",
    "LabelFlips",
    "LineMap",
    "LinearNetwork",
    "LinearRegression",
    "Minimum",
    "NeuronFate",
    "NormalSignal",
    "OneNeuron",
    "PiecewiseQuartic",
    "Problem",
    "ReluPair",
    "Runs",
    "SGDLaw",
    "SampledLaw",
    "Sampling",
    "ScalarChain",
    "ScalarFactorization",
    "Stability",
    "StableSet",
    "StableSets",
    "TwoLayerNetwork",
    "UniformDirectionLaw",
    "asymptotic_gradient_norm",
    "bad_step_sizes",
    "basin",
    "bifurcation_diagram",
    "closed_form",
    "converged_fraction",
    "cycle_branches",
    "determinant_bound",
    "enclosure",
    "exact_runs",
    "find_cycles",
    "find_minimum",
    "fold_curves",
    "gd_exponent",
    "gd_jacobian",
    "gd_log_abs_det",
    "gd_map",
    "gradient_descent",
    "irregularities",
    "lyapunov_exponent",
    "lyapunov_spectrum",
    "map_exponent",
    "mean_square_edge",
    "mean_square_exponent",
    "moment_exponent",
    "monte_carlo",
    "multipliers",
    "neuron_runs",
    "period_doublings",
    "phase",
    "phase_boundary",
    "preimage_counts",
    "preimages",
    "saddle_exponents",
    "saddle_grid",
    "saddle_type",
    "sgd_exponent",
    "stability",
    "stable_arcs",
    "stable_saddle_steps",
    "stable_set",
    "stable_steps",
    "stochastic_gradient_descent",
    "subadditive_bound",
    "sweep",
    "tail_index",
    "transfer",
]
