import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from stabcore import (
    SGD,
    DiagonalLinearNetwork,
    FiniteSignal,
    LinearRegression,
    OneNeuron,
    Problem,
    TwoLayerNetwork,
    saddle_exponents,
)
from stabcore.lyapunov import moment_exponent, tail_index
from stabcore.problems import LabelFlips, NormalSignal, RegressionSignal
from stabcore.saddles import (
    factor_law,
    rank_one_exponent,
    rank_one_tail_index,
    saddle_law,
    saddle_type,
    second_order_step,
)
from stabcore.simulation import escape_times

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
        return np.full((1, 1), -2 * weights.sum())


class FlatPoint(Problem):
    """φ = θ³ − 1: the origin is critical and flat to second order."""

    n_parameters, probabilities = 1, np.ones(1)

    def residuals(self, theta, samples=None):
        return theta**3 - 1

    def jacobian(self, theta, samples=None):
        return (3 * theta**2)[..., None]

    def residual_curvature(self, theta, weights):
        return (6 * theta * weights)[..., None]


@settings(deadline=None, max_examples=100)
@given(VALUES, STEPS, st.floats(0, 1))
def test_exponents(values, eta, decay):
    offset = 1 - eta * decay
    factors = np.array([[offset + eta * z, offset - eta * z] for z in values])
    assume((np.abs(factors) > 1e-3).all())
    for result, column in zip(
        saddle_exponents(values, eta, SGD(weight_decay=decay)), factors.T, strict=True
    ):
        assert result.kind == "exact"
        assert result.value == pytest.approx(np.log(np.abs(column)).mean(), abs=1e-12)


@settings(deadline=None, max_examples=50)
@given(VALUES, STEPS)
def test_the_negative_signal_exchanges_the_directions(values, eta):
    plus, minus = saddle_exponents(values, eta)
    assert saddle_exponents(np.negative(values), eta) == (minus, plus)


def test_known_label_flips():
    """Flips with probability ½ have both exponents ½ log|1 − η²|, zero at √2 and −∞ at 1."""
    for eta in (0.3, 1.4142, 1.4143, 3.0):
        plus, minus = saddle_exponents(LabelFlips(0.5), eta)
        assert plus.value == pytest.approx(math.log(abs(1 - eta**2)) / 2, abs=1e-13)
        assert plus.sign == minus.sign == (-1 if eta < math.sqrt(2) else 1)
    assert saddle_exponents([1.0, -1.0], 1.0)[0].value == -math.inf
    signs = {eta: saddle_exponents(LabelFlips(0.4), eta)[0].sign for eta in (0.389, 0.39)}
    assert signs == {0.389: 1, 0.39: -1}
    signs = {eta: saddle_exponents(LabelFlips(0.4), eta)[0].sign for eta in (1.288, 1.289)}
    assert signs == {1.288: -1, 1.289: 1}


def test_batches_and_weights():
    # Two samples drawn independently: means 1, 0, −1 with probabilities ¼, ½, ¼.
    plus, minus = saddle_exponents(LabelFlips(0.5), 0.5, SGD(batch_size=2))
    assert plus.value == pytest.approx(math.log(1.5 * 0.5) / 4, abs=1e-15)
    assert plus.value == pytest.approx(minus.value, abs=1e-15)
    # Without replacement the batch of both is gradient descent, to which nothing happens.
    plus, minus = saddle_exponents([1.0, -1.0], 0.5, SGD(batch_size=2))
    assert plus.value == minus.value == 0
    plus, _ = saddle_exponents(FiniteSignal([1.0, -1.0], [0.75, 0.25]), 0.5)
    assert plus.value == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))


def test_weight_decay_that_cancels_everything():
    plus, minus = saddle_exponents([0.0], 0.5, SGD(weight_decay=2.0))
    assert plus.value == minus.value == -math.inf


def test_the_step_size_must_be_given():
    with pytest.raises(TypeError, match="step_size"):
        saddle_exponents([1.0])
    with pytest.raises(ValueError, match="weight_decay"):
        saddle_exponents([1.0], 0.1, SGD(weight_decay=-1.0))
    with pytest.raises(ValueError, match="single law"):
        saddle_exponents(LabelFlips([0.1, 0.2]), 0.1)


def test_rank_one_is_one_direction_of_the_neuron():
    law = RegressionSignal(0.5, 2.0)
    for batch_size in (1, 4):
        minus = saddle_exponents(law, 0.7, SGD(batch_size=batch_size))[1]
        assert rank_one_exponent(law, 0.7, SGD(batch_size=batch_size)) == minus


def test_the_second_order_condition_is_the_limit_of_small_signals():
    for mean in (0.05, 0.01, 0.001):
        curvature = NormalSignal(-mean, 1.0)
        step = second_order_step(curvature)
        assert step == pytest.approx(2 * mean / (1 + mean**2))
        assert rank_one_exponent(curvature, step * (1 - 10 * mean)).value > 0
        assert rank_one_exponent(curvature, step * (1 + 10 * mean)).value < 0
    assert second_order_step(FiniteSignal([1.0, -2.0], [0.5, 0.5])) == 0.4
    # A batch has less noise: 2·0.5/(0.25 + 2.25/B).
    batch = second_order_step([1.0, -2.0], SGD(batch_size=5, replacement=True))
    assert batch == pytest.approx(1 / (0.25 + 2.25 / 5))
    with pytest.raises(ValueError, match="negative mean"):
        second_order_step([1.0, -0.5])


@pytest.mark.parametrize("eta", [0.1, 0.5, 0.99])
def test_the_tail_index_of_label_flips_is_one(eta):
    assert rank_one_tail_index([1.0, -1.0], eta) == pytest.approx(1, abs=1e-10)
    assert tail_index(factor_law(LabelFlips(0.5), "plus", eta)) == pytest.approx(1, abs=1e-10)


def test_a_strict_saddle_attracts_with_a_tail_index_below_one():
    index = rank_one_tail_index(FiniteSignal([1.0, -1.0], [0.4, 0.6]), 0.8)
    assert 0 < index < 1
    assert 0.4 * 0.2**index + 0.6 * 1.8**index == pytest.approx(1, abs=1e-10)
    law = factor_law(FiniteSignal([1.0, -1.0], [0.4, 0.6]), "minus", 0.8)
    assert moment_exponent(law, index / 2).sign == -1
    assert moment_exponent(law, 1.0).value == pytest.approx(math.log(1 + 0.8 * 0.2))


def test_the_tail_index_of_a_normal_curvature():
    curvature, eta = NormalSignal(-0.2, 1.0), 0.9
    index = rank_one_tail_index(curvature, eta)
    assert 0 < index < 1

    def integrand(h):
        return abs(1 - eta * h) ** index * math.exp(-((h + 0.2) ** 2) / 2) / math.sqrt(2 * math.pi)

    moment = sum(quad(integrand, *ends, limit=200)[0] for ends in ((-12, 1 / eta), (1 / eta, 12)))
    assert moment == pytest.approx(1, abs=1e-8)
    assert rank_one_tail_index(NormalSignal(1.0, 0.1), 0.5) > 10  # a minimum with little noise
    with pytest.raises(ValueError, match="tail index needs"):
        rank_one_tail_index(curvature, 0.1)


def test_factors():
    law = factor_law([1.0, 2.0, 3.0], "minus", 0.5, SGD(batch_size=2, weight_decay=0.2))
    assert sorted(law.matrices.ravel().round(12)) == [-0.35, -0.1, 0.15]
    for call, name in [
        (lambda: factor_law(RegressionSignal(0.0, 1.0), "plus", 0.5), "finitely many"),
        (lambda: factor_law([1.0], "up", 0.5), "direction"),
        (lambda: factor_law(np.arange(100.0), "plus", 0.5, SGD(batch_size=10)), "batches"),
    ]:
        with pytest.raises(ValueError, match=name):
            call()


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


def test_derivatives_of_the_neuron():
    neuron = OneNeuron([1.0, 2.0, -1.0], [1.0, -1.0, 2.0], [0.5, 0.2, 0.3])
    theta, h = np.array([0.7, -0.4]), 1e-6
    shifts = h * np.eye(2)
    slope = [(neuron.loss(theta + s) - neuron.loss(theta - s)) / (2 * h) for s in shifts]
    assert neuron.gradient(theta) == pytest.approx(np.array(slope), abs=1e-8)
    rows = [(neuron.gradient(theta + s) - neuron.gradient(theta - s)) / (2 * h) for s in shifts]
    assert neuron.hessian(theta) == pytest.approx(np.array(rows), abs=1e-8)
    batches = np.array([[0, 1], [2, 2]])
    thetas = np.array([theta, 2 * theta])
    expected = [
        np.mean([neuron.residuals(t)[i] * neuron.jacobian(t)[i] for i in batch], axis=0)
        for t, batch in zip(thetas, batches, strict=True)
    ]
    assert neuron.batch_gradient(thetas, batches) == pytest.approx(np.array(expected))
    with pytest.raises(ValueError, match="targets"):
        OneNeuron([1.0], [1.0, 2.0])


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


def test_escape_times_of_gradient_descent():
    neuron, edge, step_size = OneNeuron([1.0], [1.0]), 1e-3, 0.25
    starts = np.array([[1e-9, 1e-9], [1e-5, 1e-5], [1e-9, -1e-9], [1.0, 0.0]])
    times = escape_times(neuron, [0.0, 0.0], starts, step_size, SGD(), 200, radius=edge, rng=0)
    distances = math.sqrt(2) * np.array([1e-9, 1e-5])
    expected = np.ceil(np.log(edge / distances) / math.log(1 + step_size))
    assert times.tolist() == [*expected, math.inf, 0.0]  # the third contracts: u + w = 0


def test_escape_times_grow_at_the_rate_of_the_exponent():
    signal, step_size = np.array([2.0, -1.0]), 0.4
    neuron = OneNeuron([1.0, 1.0], signal)
    plus, _ = saddle_exponents(signal, step_size)
    near, far = (
        escape_times(
            neuron, [0.0, 0.0], np.full((2000, 2), r), step_size, SGD(), 5000, radius=1e-2, rng=seed
        )
        for seed, r in enumerate((1e-12, 1e-6))
    )
    slope = (near.mean() - far.mean()) / math.log(1e6)
    error = math.hypot(near.std(), far.std()) / math.sqrt(2000) / math.log(1e6)
    assert abs(slope - 1 / plus.value) < 4 * error < 0.2 / plus.value


def test_escape_times_are_reproducible():
    neuron = OneNeuron([1.0, 1.0], [2.0, -1.0])
    first, second = (
        escape_times(neuron, [0.0, 0.0], np.full((20, 2), 1e-3), 0.3, SGD(), 500, radius=0.1, rng=7)
        for _ in range(2)
    )
    assert first.tolist() == second.tolist()


def test_bad_arguments_of_escape_times():
    neuron, starts = OneNeuron([1.0], [1.0]), np.full((2, 2), 0.1)
    with pytest.raises(ValueError, match=r"saddle must have shape \(..., 2\), got \(1,\)"):
        escape_times(neuron, [0.0], starts, 0.1, SGD(), 10, radius=1.0)
    with pytest.raises(ValueError, match=r"starts must have shape \(runs, 2\), got \(2, 1\)"):
        escape_times(neuron, [0.0, 0.0], starts[:, :1], 0.1, SGD(), 10, radius=1.0)
    with pytest.raises(ValueError, match="radius"):
        escape_times(neuron, [0.0, 0.0], starts, 0.1, SGD(), 10, radius=0.0)
    with pytest.raises(ValueError, match="steps"):
        escape_times(neuron, [0.0, 0.0], starts, 0.1, SGD(), 0, radius=1.0)


def test_rounding_is_no_curvature():
    # The mean signal is zero, but not in floating point: the origin is flat to second order.
    signal = np.array([0.1, 0.2, -0.3])
    assert 0 < abs(signal.mean()) < 1e-15
    assert saddle_type(OneNeuron(np.ones(3), signal), [0.0, 0.0]).kind == "undecided"
