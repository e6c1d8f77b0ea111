"""What do runs do that know nothing of the predictions.

Many runs of gradient descent and SGD at once, the check on every exponent, verdict and phase. A
simulation knows problems and methods and draws its own batches; it shares no code with what it
tests. Any problem can be followed in its parameters. Where a run must be followed down to 10⁻²⁵⁰
it moves in coordinates that are only ever multiplied: the pair θ₁θ₂, one neuron, a hidden layer, a
noisy matrix.
"""

from stabcore.simulation.escape import escape_times
from stabcore.simulation.layer import WideRuns, wide_runs
from stabcore.simulation.matrix import NoisyMatrixRuns, noisy_matrix_runs
from stabcore.simulation.neuron import NeuronRuns, neuron_runs
from stabcore.simulation.pair import ExactRuns, PairFate, exact_runs
from stabcore.simulation.plain import Runs, gradient_descent, stochastic_gradient_descent

__all__ = [  # noqa: RUF022
    # any problem, in its parameters
    "stochastic_gradient_descent",
    "gradient_descent",
    "Runs",
    "escape_times",
    # exact coordinates: the two-parameter problems
    "exact_runs",
    "ExactRuns",
    "PairFate",
    # one neuron, a layer of neurons, a noisy matrix
    "neuron_runs",
    "NeuronRuns",
    "wide_runs",
    "WideRuns",
    "noisy_matrix_runs",
    "NoisyMatrixRuns",
]
