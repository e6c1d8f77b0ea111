"""What is learned: models, the laws of their data, and their global minima.

A `Problem` is a model with its data and the square loss. A `Minimum` is what the stability theorems
need to know of a point that fits the data. A signal is the law of the products xy on which the
saddle of one neuron depends. Networks of real layers are in `stabcore.problems.layers`, which needs
JAX.
"""

from stabcore.problems.base import Problem
from stabcore.problems.checking import check_problem
from stabcore.problems.distribution_signals import DistributionSignal
from stabcore.problems.factorised import (
    DiagonalLinearNetwork,
    ReluPair,
    ScalarChain,
    ScalarFactorization,
)
from stabcore.problems.linear import LinearNetwork
from stabcore.problems.linear_minima import (
    flattest_minimum,
    flattest_sharpness,
    interpolate,
    layer_bounds,
    normal_spectra,
    whitened_network,
)
from stabcore.problems.minimum import Minimum, find_minimum
from stabcore.problems.models import (
    LinearRegression,
    NeuronFate,
    OneNeuron,
    PiecewiseQuartic,
    TwoLayerNetwork,
)
from stabcore.problems.normal_signals import NormalSignal, RegressionSignal
from stabcore.problems.signals import FiniteSignal, LabelFlips, Signal, as_signal

__all__ = [  # noqa: RUF022
    # what a model of one's own defines
    "Problem",
    "check_problem",
    # models
    "ScalarFactorization",
    "ReluPair",
    "ScalarChain",
    "DiagonalLinearNetwork",
    "LinearRegression",
    "OneNeuron",
    "NeuronFate",
    "TwoLayerNetwork",
    "PiecewiseQuartic",
    # minima
    "Minimum",
    "find_minimum",
    # deep linear networks and their minima
    "LinearNetwork",
    "whitened_network",
    "interpolate",
    "normal_spectra",
    "flattest_sharpness",
    "flattest_minimum",
    "layer_bounds",
    # laws of the signal xy
    "Signal",
    "FiniteSignal",
    "LabelFlips",
    "NormalSignal",
    "RegressionSignal",
    "DistributionSignal",
    "as_signal",
]
