"""Networks of real layers: their derivatives against finite differences and an analytic twin."""

import numpy as np
import pytest

pytest.importorskip("jax")

from stabcore import Problem, TwoLayerNetwork, find_minimum, gd_exponent, gradient_descent
from stabcore.problems.layers import ACTIVATIONS, Network, attention, convolutional, fully_connected

RNG = np.random.default_rng(0)
IMAGES, TARGETS = RNG.normal(size=(3, 4, 4)), RNG.normal(size=3)
WEIGHTS = np.array([0.5, 0.2, 0.3])


def networks(activation):
    flat = IMAGES.reshape(3, 16)
    return {
        "fully connected": fully_connected(flat, TARGETS, (2,), activation, WEIGHTS),
        "convolution": convolutional(IMAGES, TARGETS, 2, 3, activation, WEIGHTS),
        "attention": attention(IMAGES, TARGETS, 2, activation, WEIGHTS),
    }


@pytest.mark.parametrize(
    ("layer", "activation"),
    [
        *(("fully connected", activation) for activation in ACTIVATIONS),
        ("convolution", "gelu"),
        ("attention", "tanh"),
    ],
)
def test_derivatives_are_those_of_finite_differences(layer, activation):
    network = networks(activation)[layer]
    theta = network.initial(1) + 0.1
    nudges = 1e-6 * np.eye(network.n_parameters)
    slopes = (network.loss(theta + nudges) - network.loss(theta - nudges)) / 2e-6
    np.testing.assert_allclose(network.gradient(theta), slopes, atol=1e-8)
    curvature = (network.gradient(theta + nudges) - network.gradient(theta - nudges)) / 2e-6
    np.testing.assert_allclose(network.hessian(theta), curvature, atol=1e-7)


@pytest.mark.parametrize("layer", ["fully connected", "convolution", "attention"])
def test_the_hessian_is_that_of_jacobian_and_curvature(layer):
    network = networks("tanh")[layer]
    theta = RNG.normal(size=(2, network.n_parameters))
    in_parts = Problem.hessian(network, theta)
    np.testing.assert_allclose(network.hessian(theta), in_parts, atol=1e-12)


def test_a_hidden_layer_is_the_analytic_two_layer_network():
    inputs = IMAGES.reshape(3, 16)
    ours, twin = fully_connected(inputs, TARGETS, (4,)), TwoLayerNetwork(inputs, TARGETS, 4)
    theta = RNG.normal(size=(5, ours.n_parameters))
    np.testing.assert_allclose(ours.residuals(theta), twin.residuals(theta), atol=1e-13)
    np.testing.assert_allclose(ours.jacobian(theta), twin.jacobian(theta), atol=1e-13)
    np.testing.assert_allclose(ours.hessian(theta), twin.hessian(theta), atol=1e-12)


def test_leading_axes_and_batches():
    network = networks("gelu")["convolution"]
    theta = RNG.normal(size=(2, 70, network.n_parameters))  # more points than fit in one go
    single = np.array([[network.hessian(point) for point in row[:2]] for row in theta])
    np.testing.assert_allclose(network.hessian(theta)[:, :2], single, atol=1e-13)
    samples = RNG.integers(3, size=(2, 70, 2))
    batch = network.residuals(theta, samples)
    expected = np.take_along_axis(network.residuals(theta), samples, axis=-1)
    np.testing.assert_allclose(batch, expected, atol=1e-14)
    rows = np.take_along_axis(network.jacobian(theta), samples[..., None], axis=-2)
    np.testing.assert_allclose(network.jacobian(theta, samples), rows, atol=1e-14)


def test_the_rest_of_the_package_takes_them():
    network = networks("tanh")["attention"]
    minimum = find_minimum(network, network.initial(0))
    assert minimum.rank == 3
    assert gd_exponent(minimum, 1e-3).sign == -1
    start = network.initial(2)
    runs = gradient_descent(network, start[None], 0.05, 50)
    assert network.loss(runs.ends[0]) < network.loss(start)


def test_initial_parameters_are_scaled_and_reproducible():
    network = fully_connected(np.ones((1, 400)), [0.0], (50,))
    theta = network.initial(0)
    np.testing.assert_array_equal(theta, network.initial(0))
    assert theta[:20_000].std() == pytest.approx(1 / 20, rel=0.05)
    assert not theta[20_000:20_050].any()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: fully_connected([[1.0]], [1.0], (2,), "swish"), "activation must be one of"),
        (lambda: fully_connected([[1.0]], [1.0], (0,)), "widths must be at least 1"),
        (lambda: fully_connected([[1.0]], [1.0, 2.0]), "1 samples but targets has 2"),
        (lambda: convolutional(np.ones((1, 2, 2)), [1.0], 1, 3), "size is 3 but the images"),
        (lambda: attention(np.ones((1, 2)), [1.0]), "tokens must have 3 dimension"),
        (lambda: Network(lambda a, x: a[0] * x, [(2,)], [1.0], [1.0]), "must return a scalar"),
    ],
)
def test_bad_input_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
