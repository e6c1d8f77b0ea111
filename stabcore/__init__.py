"""Which minima can gradient descent and SGD find? The exponents μ and λ that decide it."""

from stabcore.descent.basins import asymptotic_gradient_norm, basin, converged_fraction
from stabcore.descent.branches import cycle_branches
from stabcore.descent.cycles import Cycle, Cycles, find_cycles, multipliers
from stabcore.descent.diagrams import bifurcation_diagram
from stabcore.descent.doublings import period_doublings
from stabcore.descent.inverse import fold_curves, preimage_counts, preimages
from stabcore.descent.lines import BalancedChain, LineMap
from stabcore.descent.map import bad_step_sizes, gd_jacobian, gd_log_abs_det, gd_map
from stabcore.descent.orbit_exponent import map_exponent
from stabcore.exponent import Exponent, ExponentWarning
from stabcore.lyapunov import (
    closed_form,
    determinant_bound,
    enclosure,
    lyapunov_spectrum,
    mean_square_edge,
    mean_square_exponent,
    moment_exponent,
    monte_carlo,
    subadditive_bound,
    tail_index,
    transfer,
)
from stabcore.lyapunov.automatic import lyapunov_exponent
from stabcore.lyapunov.laws import (
    FiniteLaw,
    GaussianInputLaw,
    GaussianMatrixLaw,
    SampledLaw,
    SGDLaw,
    UniformDirectionLaw,
)
from stabcore.minima.arcs import stable_arcs
from stabcore.minima.exponents import gd_exponent, irregularities, sgd_exponent
from stabcore.minima.steps import StableSets, stable_steps
from stabcore.minima.verdict import Stability, stability
from stabcore.problems.base import Problem
from stabcore.problems.factorised import (
    DiagonalLinearNetwork,
    ReluPair,
    ScalarChain,
    ScalarFactorization,
)
from stabcore.problems.linear import LinearNetwork
from stabcore.problems.minimum import Minimum, find_minimum
from stabcore.problems.models import LinearRegression, OneNeuron, PiecewiseQuartic, TwoLayerNetwork
from stabcore.problems.signals import FiniteSignal, GaussianSignal, LabelFlips, NormalSignal
from stabcore.saddles.exponents import saddle_exponents
from stabcore.saddles.phases import phase, phase_boundary, saddle_grid
from stabcore.saddles.steps import stable_saddle_steps
from stabcore.saddles.types import saddle_type
from stabcore.sampling import Sampling
from stabcore.simulation.neuron import NeuronFate, neuron_runs
from stabcore.simulation.pair import ExactRuns, Fate, exact_runs
from stabcore.simulation.plain import Runs, gradient_descent, stochastic_gradient_descent
from stabcore.stable_sets import StableSet, stable_set
from stabcore.sweeps import sweep

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
