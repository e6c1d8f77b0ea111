import math

import numpy as np
import pytest

from stabcore import (
    Problem,
    TwoLayerNetwork,
    gd_map,
)
from stabcore.problems import PiecewiseQuartic


def test_initial_parameters_have_the_stated_variances():
    network = TwoLayerNetwork(np.ones((1, 25)), [0.0], width=4000)
    weights, bias, output = np.split(network.initial(3), [100_000, 104_000])
    assert not bias.any()
    # A sample variance of n normal numbers has relative standard deviation √(2/n).
    for part, variance in ((weights, 1 / 25), (output, 1 / 4000)):
        assert abs(part.var() / variance - 1) < 4 * math.sqrt(2 / part.size)
    assert (network.initial(3) == network.initial(np.random.default_rng(3))).all()


def test_paper_d_figure_1():
    """At η = 1/2 all of |θ| > 2 lands on the local maximum; at 1/4 it is halved."""
    problem, outside = PiecewiseQuartic(), np.array([[2.01], [-3.0], [100.0]])
    assert not gd_map(problem, outside, 0.5).any()
    assert (gd_map(problem, outside, 0.25) == outside / 2).all()
    assert not problem.gradient(np.zeros(1)).any()
    assert problem.hessian(np.zeros(1)) == -6
    assert problem.gradient(np.array([math.sqrt(3)])) == pytest.approx(0, abs=1e-14)
    assert problem.hessian(np.array([math.sqrt(3)])) == pytest.approx(12)


def test_the_quartic_is_once_differentiable():
    problem, inside = PiecewiseQuartic(), np.array([[2.0], [-2.0]])
    outside = np.nextafter(inside, 3 * np.sign(inside))
    assert problem.loss(outside) == pytest.approx(problem.loss(inside))
    assert problem.gradient(outside) == pytest.approx(problem.gradient(inside))
    assert problem.hessian(outside).ravel().tolist() == [2, 2]
    assert problem.hessian(inside).ravel().tolist() == [18, 18]


@pytest.mark.parametrize("theta", [0.5, -1.9, 2.0, -2.5])
def test_the_quartic_as_a_square_loss(theta):
    problem, point = PiecewiseQuartic(), np.array([theta])
    assert Problem.loss(problem, point) == pytest.approx(problem.loss(point), rel=1e-14)
    assert Problem.gradient(problem, point) == pytest.approx(problem.gradient(point), rel=1e-14)
    assert Problem.hessian(problem, point) == pytest.approx(problem.hessian(point), rel=1e-13)
