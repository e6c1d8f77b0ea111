import math

import numpy as np
import pytest

from stabcore import SGD, FiniteSignal, lyapunov_exponent, saddle_exponents
from stabcore.saddles import direction_exponents, feature_saddle_law, relu_signal

INPUTS = np.array([1.0, -0.5, 0.8, -1.0])

TARGETS = np.array([1.0, -1.0, -1.0, 0.5])


def test_the_saddle_law_of_one_feature_has_the_exponents_of_the_signal():
    law = feature_saddle_law(INPUTS[:, None], TARGETS, 0.4)
    plus, minus = saddle_exponents(INPUTS * TARGETS, 0.4)
    top = lyapunov_exponent(law, "monte_carlo", rng=0, steps=20_000, replicas=16)
    assert abs(top.value - max(plus.value, minus.value)) < 5 * top.standard_error
    assert feature_saddle_law(np.ones((2, 3)), [1.0, 2.0], 0.1).dimension == 4


def test_the_laws_name_bad_arguments():
    with pytest.raises(ValueError, match="side"):
        relu_signal(INPUTS, TARGETS, 2)
    with pytest.raises(ValueError, match="targets has length"):
        feature_saddle_law(np.ones((2, 3)), [1.0], 0.1)
    with pytest.raises(ValueError, match="step_size"):
        feature_saddle_law(np.ones((2, 3)), [1.0, 1.0], -0.1)


STRENGTHS = [0.5, 0.3, 0.1]


def test_exponents_are_those_of_one_neuron_per_direction():
    plus, minus = direction_exponents(STRENGTHS, [[0.2], [0.9]], [0.5, 1.0, 1.3], SGD(batch_size=2))
    assert plus.shape == minus.shape == (2, 3, 3)
    for k, strength in enumerate(STRENGTHS):
        law = FiniteSignal([strength - 0.9, strength, strength + 0.9], [0.25, 0.5, 0.25])
        expected = saddle_exponents(law, 1.3)
        assert plus[1, 2, k] == pytest.approx(expected[0].value, abs=1e-14)
        assert minus[1, 2, k] == pytest.approx(expected[1].value, abs=1e-14)


def test_a_factor_zero_is_minus_infinity():
    plus, minus = direction_exponents([0.5], 0.5, 1.0)
    assert minus[0] == -math.inf
    assert plus[0] == pytest.approx(math.log(2) / 2)


def test_exponents_name_bad_arguments():
    with pytest.raises(ValueError, match="noise"):
        direction_exponents([1.0], -1.0, 0.1)
    with pytest.raises(ValueError, match="batch_size"):
        direction_exponents([1.0], 1.0, 0.1, SGD(batch_size=0))
