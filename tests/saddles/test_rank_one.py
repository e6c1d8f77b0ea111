import math

import pytest
from scipy.integrate import quad

from stabcore import (
    SGD,
    FiniteSignal,
)
from stabcore.problems import NormalSignal
from stabcore.saddles import (
    rank_one_exponent,
    rank_one_tail_index,
    second_order_step,
)


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


def test_the_tail_index_of_a_narrow_curvature_is_large():
    """1 − h/2 with h = 1 ± 0.02 exceeds 1 with probability exp(−1250) only."""
    law = NormalSignal(1.0, 0.02)
    q = rank_one_tail_index(law, 0.5)
    assert q > 1e4
    # log E|a + bε|^q at its peak, by Laplace: within log(2) and a curvature term of the sum.
    a, b = 0.5, 0.01
    x = (-a / b + math.sqrt((a / b) ** 2 + 4 * q)) / 2
    assert abs(q * math.log(a + b * x) - x**2 / 2) < 1
