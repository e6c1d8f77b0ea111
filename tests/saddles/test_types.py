import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stabcore import (
    SGD,
    DiagonalLinearNetwork,
    LinearRegression,
    OneNeuron,
    Problem,
    TwoLayerNetwork,
)
from stabcore.saddles import (
    saddle_law,
    saddle_type,
)

VALUES = st.lists(st.floats(-4, 4), min_size=1, max_size=5)

STEPS = st.floats(0.05, 4)


class NoisySaddle(Problem):
    """φ = 1 − v² + σεv, σ = ±1: the origin is a maximum of L with gradient noise ε."""

    n_parameters = 1
    probabilities = np.full(2, 0.5)

    def __init__(self, noise):
        self.slopes = np.array([noise, -noise])

    def residuals(self, theta, samples=None):
        return 1 - theta**2 + self.slopes * theta

    def jacobian(self, theta, samples=None):
        return (self.slopes - 2 * theta)[..., None]

    def residual_curvature(self, theta, weights):
        return -2 * weights.sum(axis=-1)[..., None, None]


class FlatPoint(Problem):
    """φ = θ³ − 1: the origin is critical and flat to second order."""

    n_parameters, probabilities = 1, np.ones(1)

    def residuals(self, theta, samples=None):
        return theta**3 - 1

    def jacobian(self, theta, samples=None):
        return (3 * theta**2)[..., None]

    def residual_curvature(self, theta, weights):
        return (6 * theta * weights)[..., None]


def test_types():
    neuron = OneNeuron([1.0, 2.0, -1.0], [1.0, -1.0, 2.0], [0.5, 0.2, 0.3])
    found = saddle_type(neuron, [0.0, 0.0])
    assert found.kind == "II"
    assert found.noise.tolist() == [0.0]
    # E[xy] = −0.5: the loss falls along u = −w.
    assert found.eigenvalues == pytest.approx([-0.5, 0.5])
    assert abs(found.directions[0] @ [1.0, -1.0]) == pytest.approx(math.sqrt(2))

    noisy = saddle_type(NoisySaddle(0.5), [0.0])
    assert noisy.kind == "I"
    assert noisy.noise == pytest.approx([0.5])
    assert noisy.eigenvalues == pytest.approx([0.25 - 2])
    assert saddle_type(NoisySaddle(0.0), [0.0]).kind == "II"
    assert saddle_type(NoisySaddle(0.5), [0.0], tolerance=0.9).kind == "II"  # all is tolerated

    wide = DiagonalLinearNetwork([[1.0, 0.0], [1.0, 2.0]], [1.0, 1.0])
    assert len(saddle_type(wide, np.zeros(4)).directions) == 2


def test_points_that_are_no_saddles():
    assert saddle_type(FlatPoint(), [0.0]).kind == "undecided"
    neuron = OneNeuron([1.0, 1.0], [1.0, 1.0])
    with pytest.raises(ValueError, match="minimum"):
        saddle_type(neuron, [1.0, 1.0])
    with pytest.raises(ValueError, match="minimum"):
        saddle_type(NoisySaddle(2.0), [0.0])  # ε² > 2: the noise makes it a minimum of L
    with pytest.raises(ValueError, match="not critical"):
        saddle_type(neuron, [0.3, 0.1])
    with pytest.raises(ValueError, match="point"):
        saddle_type(neuron, [0.3, 0.1, 0.0])
    with pytest.raises(ValueError, match="point"):
        saddle_type(neuron, [[0.0, 0.0]])


@settings(deadline=None, max_examples=50)
@given(x=VALUES, step_size=STEPS, batch_size=st.integers(1, 2))
def test_the_law_at_the_neuron_has_its_factors(x, step_size, batch_size):
    assume(batch_size <= len(x) and max(map(abs, x)) > 0.1)
    law = saddle_law(
        OneNeuron(x, np.ones(len(x))), [0.0, 0.0], step_size, SGD(batch_size=batch_size)
    )
    means = np.array([np.mean(batch) for batch in itertools.combinations(x, batch_size)])
    for sign in (1, -1):  # the eigenvectors (1, 1) and (1, −1) of every factor
        images = law.matrices @ np.array([1, sign])
        factors = 1 + sign * step_size * means
        assert images == pytest.approx(factors[:, None] * np.array([1, sign]), abs=1e-12)


def test_a_step_of_sgd_is_a_factor_of_the_law():
    rng = np.random.default_rng(0)
    network = TwoLayerNetwork(rng.normal(size=(5, 1)), rng.normal(size=5), width=2)
    saddle, step_size = np.zeros(network.n_parameters), 0.3
    law = saddle_law(network, saddle, step_size)
    theta = 1e-7 * rng.normal(size=saddle.size)
    assert law.dimension == saddle.size
    # The basis of the span is any; lengths do not depend on it.
    for sample, factor in enumerate(law.matrices):
        moved = theta - step_size * network.batch_gradient(theta, np.array([sample]))
        gram = np.sort(np.linalg.eigvalsh(factor))
        jacobian = np.empty((saddle.size, saddle.size))
        for k, unit in enumerate(1e-7 * np.eye(saddle.size)):
            ahead = network.batch_gradient(unit, np.array([sample]))
            jacobian[:, k] = (unit - step_size * ahead) / 1e-7
        assert gram == pytest.approx(np.sort(np.linalg.eigvalsh(jacobian)), abs=1e-6)
        assert moved == pytest.approx(jacobian @ theta, abs=1e-12)


def test_the_law_leaves_out_what_does_not_move():
    regression = LinearRegression([[1.0, 1.0, 0.0], [2.0, 2.0, 0.0]], [1.0, -1.0], [0.25, 0.75])
    law = saddle_law(regression, np.zeros(3), 0.5)
    assert law.dimension == 1
    assert law.matrices.ravel() == pytest.approx([1 - 0.5 * 2, 1 - 0.5 * 8])
    assert law.probabilities.tolist() == [0.25, 0.75]


def test_the_law_of_batches():
    regression = LinearRegression([[1.0], [2.0], [3.0]], [0.0, 0.0, 1.0])
    factors = saddle_law(regression, [0.0], 1.0, SGD(batch_size=2)).matrices.ravel()
    assert np.sort(factors) == pytest.approx([1 - 6.5, 1 - 5.0, 1 - 2.5])


def test_bad_arguments_of_the_law():
    neuron = OneNeuron([1.0], [1.0])
    with pytest.raises(ValueError, match=r"point must have shape \(..., 2\), got \(3,\)"):
        saddle_law(neuron, [0.0, 0.0, 0.0], 0.1)
    with pytest.raises(ValueError, match="point must have 1 dimension"):
        saddle_law(neuron, [[0.0, 0.0]], 0.1)
    with pytest.raises(ValueError, match="every sample's Hessian is zero"):
        saddle_law(OneNeuron([1.0], [0.0]), [0.0, 0.0], 0.1)
    many = LinearRegression(np.ones((60, 1)), np.zeros(60))
    with pytest.raises(ValueError, match="above the limit 200,000"):
        saddle_law(many, [0.0], 0.1, SGD(batch_size=30))


def test_rounding_is_no_curvature():
    # The mean signal is zero, but not in floating point: the origin is flat to second order.
    signal = np.array([0.1, 0.2, -0.3])
    assert 0 < abs(signal.mean()) < 1e-15
    assert saddle_type(OneNeuron(np.ones(3), signal), [0.0, 0.0]).kind == "undecided"
