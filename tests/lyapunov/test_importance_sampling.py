"""Samples drawn with q ≠ p have gradients multiplied by p/q: the mean step is that of the loss."""

import math

import numpy as np
import pytest

from stabcore import GD, SGD, Minimum, SGDLaw, gd_exponent, mean_square_edge, sgd_exponent
from stabcore.lyapunov import (
    closed_form,
    determinant_bound,
    mean_square_exponent,
    monte_carlo,
    transfer,
)
from stabcore.minima import irregularities, stable_steps

ROWS = np.array([[1.0, 0.4], [0.3, 1.2], [-0.5, 0.8]])
KERNEL = ROWS @ ROWS.T
P, Q = np.array([0.2, 0.5, 0.3]), (0.5, 0.2, 0.3)


def rescaled():
    """Return the same SGD by hand: the kernel of √w g, on data with the probabilities q."""
    root = np.sqrt(P / Q)
    return Minimum(root[:, None] * KERNEL * root, Q)


def test_the_mean_factor_is_that_of_gradient_descent():
    for q in (Q, (0.1, 0.1, 0.8)):
        law = SGDLaw(Minimum(KERNEL, P), 0.4, SGD(probabilities=q)).finite()
        mean = np.tensordot(law.probabilities, law.matrices, 1)
        expected = 1 - 0.4 * Minimum(KERNEL, P).hessian_spectrum
        assert np.linalg.eigvalsh(mean)[::-1] == pytest.approx(expected, abs=1e-13)


@pytest.mark.parametrize("size", [1, 2])
def test_every_method_against_the_rescaled_kernel(size):
    method, by_hand = SGD(batch_size=size, probabilities=Q), SGD(batch_size=size)
    one = SGDLaw(Minimum(KERNEL, P), 0.6, method)
    two = SGDLaw(rescaled(), 0.6, by_hand)
    for quantity in (transfer, mean_square_exponent, determinant_bound):
        assert quantity(one).value == pytest.approx(quantity(two).value, abs=1e-9)
    direct = monte_carlo(one, rng=0)
    assert abs(direct.value - transfer(two).value) < 4 * direct.standard_error
    edges = mean_square_edge(Minimum(KERNEL, P), method), mean_square_edge(rescaled(), by_hand)
    assert edges[0] == pytest.approx(edges[1], rel=1e-10)


def test_gradient_descent_does_not_depend_on_it():
    for q in (Q, tuple(P)):
        exponent = gd_exponent(Minimum(KERNEL, P), 0.6, SGD(probabilities=q))
        assert exponent == gd_exponent(Minimum(KERNEL, P), 0.6)
    assert SGDLaw(Minimum(KERNEL, P), 0.6, SGD(probabilities=P)).kernel is not None
    same = sgd_exponent(Minimum(KERNEL, P), 0.6, SGD(probabilities=P))
    assert same.value == pytest.approx(sgd_exponent(Minimum(KERNEL, P), 0.6).value, abs=1e-10)


def test_full_batches_have_the_exponent_of_gradient_descent():
    """Also where the data have unequal probabilities, or some have none."""
    for p in (P, [0.5, 0.5, 0.0]):
        minimum = Minimum(np.diag([1.0, 4.0, 2.0]) + 0.1, p)
        assert sgd_exponent(minimum, 0.3, GD).value == gd_exponent(minimum, 0.3).value


def test_in_proportion_to_the_curvatures_all_samples_contract_alike():
    """With q_i ∝ k_i every ηw_i k_i is η mean(k): stable for η < 2/mean(k), also in mean square."""
    k = np.array([0.5, 1.0, 7.0])
    kernel = np.sqrt(np.outer(k, k)) * np.array([[1, 0.3, 0.1], [0.3, 1, -0.2], [0.1, -0.2, 1]])
    method = SGD(probabilities=k / k.sum())
    law = SGDLaw(kernel, 1.0, method)
    assert law.curvatures[:, 0] == pytest.approx(np.full(3, k.mean()))
    edge = 2 / k.mean()
    assert mean_square_edge(kernel, method) == pytest.approx(edge, rel=1e-9)
    assert mean_square_edge(kernel) < 0.7 * edge
    table = stable_steps(kernel, method)
    assert table.sgd.intervals[0][1] == pytest.approx(edge, rel=1e-9)
    assert irregularities(kernel, 1 / k.mean(), method)


def test_a_direction_that_does_not_move_has_the_exponent_zero():
    """Sample 1 is drawn but has no weight in the loss; its direction stays in the normal space."""
    minimum = Minimum(np.diag([1.0, 2.0]), [1.0, 0.0])
    law = SGDLaw(minimum, 0.5, SGD(probabilities=[0.5, 0.5]))
    assert law.dimension == 2
    assert closed_form(law).value == 0
    mixed = SGDLaw(
        Minimum([[1.0, 0.5], [0.5, 2.0]], [1.0, 0.0]), 0.5, SGD(probabilities=(0.5, 0.5))
    )
    assert monte_carlo(mixed, rng=0).value == pytest.approx(0, abs=1e-3)
    assert mean_square_exponent(mixed).value == pytest.approx(0, abs=1e-12)


def test_parallel_gradients_by_hand():
    law = SGDLaw(np.outer([1, 2], [1, 2]), 0.3, SGD(probabilities=[0.8, 0.2]))
    expected = 0.8 * math.log(abs(1 - 0.3 * 0.625)) + 0.2 * math.log(abs(1 - 0.3 * 4 * 2.5))
    assert closed_form(law).value == pytest.approx(expected, abs=1e-14)
