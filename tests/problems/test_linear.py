import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stabcore import (
    DiagonalLinearNetwork,
    LinearNetwork,
    LinearRegression,
    TwoLayerNetwork,
)


def test_inputs_are_copied_and_never_changed():
    inputs, targets = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([1.0, -1.0])
    theta = np.array([[1.0, 2.0, 3.0, 4.0]])
    before = [part.copy() for part in (inputs, targets, theta)]
    for problem in (DiagonalLinearNetwork(inputs, targets), TwoLayerNetwork(inputs, targets, 1)):
        problem.hessian(theta[:, : problem.n_parameters])
        assert not np.shares_memory(problem.inputs, inputs)
    for part, copy in zip((inputs, targets, theta), before, strict=True):
        assert (part == copy).all()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(-500, 500), st.floats(1, 10)), min_size=1, max_size=3))
def test_minimum_of_the_diagonal_network(features):
    beta = np.array([b / 100 for b, _ in features])
    squares = 2 * np.abs(beta) * np.array([stretch for _, stretch in features])
    network = DiagonalLinearNetwork(np.eye(beta.size), beta)
    point = network.minimum(*squares)
    u, v = point[0::2], point[1::2]
    assert np.abs(network.residuals(point)).max() <= 1e-14 * (1 + np.abs(beta).max())
    assert u**2 + v**2 == pytest.approx(squares, rel=1e-12, abs=1e-300)
    assert (u >= np.abs(v) * (1 - 1e-12)).all()


def test_kernel_of_the_diagonal_network_is_a_sum_of_two_rank_one_matrices():
    """K = s₁uuᵀ + s₂vvᵀ."""
    a, b = (1.0, 0.3), (-0.5, 2.0)
    network = DiagonalLinearNetwork([a, b], [1.0, 0.7])
    jacobian = network.jacobian(network.minimum(3.0, 5.0))
    u, v = (np.array([a[j], b[j]]) for j in range(2))
    assert jacobian @ jacobian.T == pytest.approx(3 * np.outer(u, u) + 5 * np.outer(v, v))


def whitened(samples, features, outputs, widths):
    """Return a linear network on whitened inputs, Σ xxᵀ/n = I, with random targets."""
    rng = np.random.default_rng(11)
    inputs = np.linalg.qr(rng.normal(size=(samples, features)))[0] * math.sqrt(samples)
    return LinearNetwork(inputs, rng.normal(size=(samples, outputs)), widths)


def test_linear_network_of_one_layer_is_linear_regression():
    inputs, targets = [[1.0, 2.0], [0.5, -1.0], [3.0, 0.0]], [1.0, 2.0, -1.0]
    weights = [0.5, 0.3, 0.2]
    theta = np.array([0.3, -2.0])
    one, two = (
        LinearNetwork(inputs, targets, (), weights),
        LinearRegression(inputs, targets, weights),
    )
    for name in ("residuals", "jacobian", "loss", "gradient", "hessian"):
        assert getattr(one, name)(theta) == pytest.approx(getattr(two, name)(theta), rel=1e-14)


def test_loss_of_a_linear_network_on_whitened_inputs():
    """L = ½‖W_D⋯W_1 − W*‖² + constant."""
    network = whitened(7, 3, 2, [4, 3])
    theta = np.random.default_rng(0).normal(size=(2, network.n_parameters))
    distances = ((network.product(theta) - network.target_map) ** 2).sum(axis=(-2, -1))
    difference = network.loss(theta[0]) - network.loss(theta[1])
    assert difference == pytest.approx((distances[0] - distances[1]) / 2, rel=1e-12)


@pytest.mark.parametrize("widths", [[], [3], [2, 5], [3, 3, 3]])
def test_balanced_minimum(widths):
    """η* = 2/(D σ₁^{2−2/D}) for whitened inputs."""
    network = whitened(7, 3, 2, widths)
    point, depth = network.balanced_minimum(), len(widths) + 1
    assert network.product(point) == pytest.approx(network.target_map, rel=1e-12)
    assert np.abs(network.gradient(point)).max() < 1e-14
    singular = np.linalg.svd(network.target_map)[1]
    sharpness = np.linalg.eigvalsh(network.hessian(point))[-1]
    assert sharpness == pytest.approx(depth * singular[0] ** (2 - 2 / depth), rel=1e-12)
    layers = network.layers(point)
    for lower, upper in pairwise(layers):
        assert upper.T @ upper == pytest.approx(lower @ lower.T, abs=1e-14)


def test_no_minimum_is_flatter_than_the_balanced_one():
    network = whitened(7, 3, 2, [3])
    low, high = network.layers(network.balanced_minimum())
    flattest = np.linalg.eigvalsh(network.hessian(network.balanced_minimum()))[-1]
    for seed in range(20):
        change = np.eye(3) + 0.3 * np.random.default_rng(seed).normal(size=(3, 3))
        point = np.concatenate([(change @ low).ravel(), (high @ np.linalg.inv(change)).ravel()])
        assert np.abs(network.gradient(point)).max() < 1e-12
        assert np.linalg.eigvalsh(network.hessian(point))[-1] > flattest


def test_balanced_minimum_needs_wide_layers():
    with pytest.raises(ValueError, match=r"at least the rank 2 .* got 1"):
        whitened(7, 3, 2, [4, 1]).balanced_minimum()


def test_sharpness_of_a_deep_wide_network_can_stay_bounded_along_the_minima():
    """W₁ = (1,0)ᵀ, W₂ = diag(1,t), W₃ = (1,0) has sharpness 3 for every t."""
    network = LinearNetwork([[1.0]], [1.0], [2, 2])
    for t in (0.0, 1.0, 1e3):
        point = np.array([1.0, 0.0, 1.0, 0.0, 0.0, t, 1.0, 0.0])
        eigenvalues = np.linalg.eigvalsh(network.hessian(point))
        assert eigenvalues == pytest.approx([0] * 7 + [3], abs=1e-12)


def test_initial_parameters_of_a_linear_network():
    network = LinearNetwork(np.ones((1, 25)), [0.0], [400, 100])
    for part, (_, columns) in zip(network.layers(network.initial(3)), network.shapes, strict=True):
        assert abs(part.var() * columns - 1) < 4 * math.sqrt(2 / part.size)


@pytest.mark.parametrize(
    ("targets", "widths", "error", "message"),
    [
        ([1.0, 2.0], [], ValueError, "targets has length 2 but inputs has 1 rows"),
        ([[[1.0]]], [], ValueError, "targets must have 2 dimension"),
        ([1.0], [0], ValueError, "widths must be at least 1"),
        ([1.0], [1.5], TypeError, "widths must be an integer"),
    ],
)
def test_bad_linear_networks(targets, widths, error, message):
    with pytest.raises(error, match=message):
        LinearNetwork([[1.0]], targets, widths)
