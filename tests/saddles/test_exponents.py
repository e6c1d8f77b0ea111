import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stabcore import (
    SGD,
    FiniteSignal,
    OneNeuron,
    saddle_exponents,
)
from stabcore.lyapunov import moment_exponent, tail_index
from stabcore.problems import LabelFlips, RegressionSignal
from stabcore.saddles import (
    factor_law,
    rank_one_exponent,
    rank_one_tail_index,
)

VALUES = st.lists(st.floats(-4, 4), min_size=1, max_size=5)

STEPS = st.floats(0.05, 4)


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
