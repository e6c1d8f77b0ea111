import numpy as np
import pytest
from step_models import parallel

from stabcore import (
    Minimum,
    ReluPair,
)
from stabcore.minima import irregularities

KERNEL = np.array([[2.0, 0.3, 0.1], [0.3, 1.0, -0.5], [0.1, -0.5, 4.0]])


@pytest.mark.parametrize(
    ("kernel", "eta", "found"),
    [
        (KERNEL, 0.3, []),
        (KERNEL, 0.5, ["is 1 for sample 0: its factor is singular", "is 2 for sample 2"]),
        (np.diag([1.0, 2.0]), 0.3, ["split into 2 mutually orthogonal groups"]),
        (parallel([1.0, 2.0]), 0.3, ["linearly dependent (rank 1 of 2)"]),
    ],
)
def test_irregularities(kernel, eta, found):
    reasons = irregularities(kernel, eta)
    assert len(reasons) == len(found)
    for reason, part in zip(reasons, found, strict=True):
        assert part in reason


def test_a_gradient_that_vanishes_splits_nothing():
    kernel = np.zeros((3, 3))
    kernel[:2, :2] = [[2.0, 1.0], [1.0, 2.0]]
    assert not any("orthogonal" in reason for reason in irregularities(kernel, 0.3))


def test_a_minimum_in_parameter_space_with_dependent_gradients_is_regular():
    problem = ReluPair()
    assert irregularities(Minimum.at(problem, problem.minimum(3.0)), 0.1) == ()
