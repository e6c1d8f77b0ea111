import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stabcore import (
    Minimum,
    ReluPair,
    ScalarChain,
    ScalarFactorization,
)

DEAD = [[-1.0, 1.0], [1.0, -1.0], [-2.0, -0.5], [0.0, 1.0]]


def test_paper_d_minimum():
    """θ₁² = (s + √(s²−4))/2 and θ₁θ₂ = 1."""
    theta = ReluPair().minimum(3.0)
    assert theta[0] ** 2 == pytest.approx((3 + math.sqrt(5)) / 2, rel=1e-15)
    assert theta.prod() == pytest.approx(1, rel=1e-15)


def test_relu_pair_is_the_network_it_says():
    problem = ReluPair([0.9, 2.5])
    relu = lambda z: max(z, 0.0)  # noqa: E731
    for theta in [(0.5, 2.5), (1.3, 0.2), *DEAD]:
        for i, x in enumerate((0.9, 2.5)):
            expected = relu(theta[1] * relu(theta[0] * x)) - x
            assert problem.residuals(np.array(theta))[i] == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("theta", DEAD)
def test_a_dead_relu_is_a_flat_plateau(theta):
    problem, point = ReluPair(), np.array(theta)
    assert not problem.smooth(point)
    assert problem.loss(point) == pytest.approx((0.81 + 6.25) / 4)
    assert not problem.gradient(point).any()
    assert not problem.hessian(point).any()


def test_exact_coordinates():
    delta, s = ScalarFactorization().exact_coordinates(np.array([[2.0, 3.0], [0.5, 2.0]]))
    assert delta.tolist() == [-5.0, 0.0]
    assert s.tolist() == [13.0, 4.25]


def test_chain_of_two_is_the_scalar_factorisation():
    theta = np.array([[1.5, -0.2], [0.0, 3.0], [0.0, 0.0]])
    for name in ("residuals", "jacobian", "loss", "gradient", "hessian"):
        chain, pair = (getattr(p, name)(theta) for p in (ScalarChain(2), ScalarFactorization()))
        assert chain == pytest.approx(pair, rel=1e-15)


def test_chain_at_zeros():
    """A product of all but one factor needs no division."""
    chain = ScalarChain(4)
    assert chain.jacobian(np.array([2.0, 0.0, 3.0, 5.0])).tolist() == [[0, 30, 0, 0]]
    assert not chain.jacobian(np.array([2.0, 0.0, 0.0, 5.0])).any()
    hessian = chain.hessian(np.array([2.0, 0.0, 0.0, 5.0]))
    assert hessian[1, 2] == hessian[2, 1] == -10
    assert np.count_nonzero(hessian) == 2
    assert not chain.hessian(np.zeros(4)).any()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=4), st.sampled_from([-1, 1]))
def test_sharpness_of_a_chain(factors, sign):
    """Σ 1/x_i² ≥ k at a minimum."""
    factors = [sign * factors[0], *factors[1:]]
    chain = ScalarChain(len(factors) + 1)
    point = chain.minimum(*factors)
    assert point[:-1].tolist() == factors
    sharpness = Minimum.at(chain, point).sharpness
    assert sharpness == pytest.approx((1 / point**2).sum(), rel=1e-12)
    assert sharpness >= chain.depth * (1 - 1e-12)
    assert np.linalg.eigvalsh(chain.hessian(point))[-1] == pytest.approx(sharpness, rel=1e-9)


@pytest.mark.parametrize(
    ("factors", "message"),
    [((1.0,), "first 2 of 3, got 1"), ((1.0, 0.0), "must not be 0"), ((1.0, math.nan), "finite")],
)
def test_factors_that_make_no_minimum_of_a_chain(factors, message):
    with pytest.raises(ValueError, match=message):
        ScalarChain(3).minimum(*factors)


@pytest.mark.parametrize("depth", [0, -1])
def test_a_chain_has_factors(depth):
    with pytest.raises(ValueError, match="depth must be at least 1"):
        ScalarChain(depth)
