"""Which minima can gradient descent and SGD find? The exponents μ and λ that decide it.

A model with more parameters than data has a manifold of global minima. At one of them only the
gradients of the outputs matter, and of those only their Gram matrix, the kernel K = JJᵀ. With a
step size and a method of training, K has two exponents: μ decides whether gradient descent can end
there, λ whether SGD can.

>>> from stabcore import SGD, Minimum, stability
>>> minimum = Minimum.from_jacobian([[1.0, 2.0, 0.0], [0.0, 1.0, 3.0]])  # a row per sample
>>> stability(minimum, 0.3, SGD(batch_size=1)).region
'GD only'

The folders follow the questions of the book:

* `stabcore.problems`: models, their data and their minima.
* `stabcore.lyapunov`: how fast random matrix products grow.
* `stabcore.minima`: which minima GD and SGD can end at (part 1).
* `stabcore.descent`: gradient descent as a map, and steps that are too large (part 2).
* `stabcore.saddles`: saddles that attract SGD (part 3).
* `stabcore.networks`: real networks, trained and at their minima (part 4; needs JAX).
* `stabcore.simulation`: many runs at once. It shares no code with the predictions.
* `stabcore.companion`: what only the book needs.

What is at the top is what a reader of the book or the README needs; the rest is imported from its
folder. Everywhere the arguments come in the order (what, step size, method), options by name. Every
exponent is an `Exponent`: value, interval, kind, status. `rng` is a seed or a NumPy generator; the
same seed gives the same result on any number of cores. An invalid argument raises a ValueError, or
a TypeError if it is the wrong kind of thing, that names it and says what to do; only errors
particular to a function are listed with it.
"""

from stabcore.descent.basins import basin
from stabcore.descent.cycles import find_cycles
from stabcore.descent.diagrams import bifurcation_diagram
from stabcore.descent.doublings import period_doublings
from stabcore.descent.map import gd_map
from stabcore.exponent import Exponent, ExponentWarning
from stabcore.lyapunov.automatic import lyapunov_exponent
from stabcore.lyapunov.laws import FiniteLaw, SGDLaw
from stabcore.lyapunov.mean_square import mean_square_edge
from stabcore.minima.arcs import stable_arcs
from stabcore.minima.exponents import gd_exponent, sgd_exponent
from stabcore.minima.steps import stable_steps
from stabcore.minima.verdict import stability
from stabcore.problems.base import Problem
from stabcore.problems.factorised import (
    DiagonalLinearNetwork,
    ReluPair,
    ScalarChain,
    ScalarFactorization,
)
from stabcore.problems.linear import LinearNetwork
from stabcore.problems.minimum import Minimum, find_minimum
from stabcore.problems.models import LinearRegression, OneNeuron, TwoLayerNetwork
from stabcore.problems.signals import FiniteSignal
from stabcore.saddles.exponents import saddle_exponents
from stabcore.saddles.phases import phase
from stabcore.saddles.steps import stable_saddle_steps
from stabcore.sampling import GD, SGD
from stabcore.simulation.plain import gradient_descent, stochastic_gradient_descent
from stabcore.sweeps import sweep

__version__ = "0.1.0"

__all__ = [  # noqa: RUF022
    # a minimum, a method, the verdict
    "Minimum",
    "SGD",
    "GD",
    "stability",
    "stable_steps",
    "stable_arcs",
    # exponents
    "Exponent",
    "ExponentWarning",
    "gd_exponent",
    "sgd_exponent",
    "mean_square_edge",
    "lyapunov_exponent",
    "SGDLaw",
    "FiniteLaw",
    # problems
    "Problem",
    "ReluPair",
    "ScalarFactorization",
    "ScalarChain",
    "DiagonalLinearNetwork",
    "LinearNetwork",
    "LinearRegression",
    "OneNeuron",
    "TwoLayerNetwork",
    "find_minimum",
    # simulation
    "gradient_descent",
    "stochastic_gradient_descent",
    # gradient descent as a map
    "gd_map",
    "basin",
    "find_cycles",
    "bifurcation_diagram",
    "period_doublings",
    # saddles
    "FiniteSignal",
    "saddle_exponents",
    "stable_saddle_steps",
    "phase",
    # sweeps over parameters
    "sweep",
]
