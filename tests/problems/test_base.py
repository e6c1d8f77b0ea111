import math

import numpy as np
import pytest

from stabcore import (
    DiagonalLinearNetwork,
    LinearNetwork,
    Problem,
    ReluPair,
    ScalarChain,
    ScalarFactorization,
    TwoLayerNetwork,
)
from stabcore.problems import PiecewiseQuartic
from stabcore.problems.base import DYNAMICS, declared_product

RNG = np.random.default_rng(7)

PROBLEMS = {
    "diagonal": DiagonalLinearNetwork([[1.0, 2.0], [-0.5, 1.0], [3.0, 0.0]], [1.0, -2.0]),
    "diagonal, weighted": DiagonalLinearNetwork([[1.0], [2.0]], [0.5], [0.2, 0.8]),
    "scalar": ScalarFactorization([0.9, 2.5], [0.25, 0.75]),
    "relu, alive": ReluPair(probabilities=[0.58, 0.42]),
    "two layers": TwoLayerNetwork(RNG.normal(size=(4, 3)), RNG.normal(size=4), width=2),
    "two layers, weighted": TwoLayerNetwork(
        RNG.normal(size=(3, 2)), RNG.normal(size=3), 3, [0.5, 0.5, 0.0]
    ),
    "chain of one": ScalarChain(1),
    "chain": ScalarChain(4),
    "linear, shallow": LinearNetwork(RNG.normal(size=(3, 2)), RNG.normal(size=(3, 2))),
    "linear, two layers": LinearNetwork(RNG.normal(size=(3, 2)), RNG.normal(size=3), [4]),
    "linear, four layers": LinearNetwork(
        RNG.normal(size=(2, 3)), RNG.normal(size=(2, 2)), [2, 1, 3], [0.3, 0.7]
    ),
    "quartic": PiecewiseQuartic(),
}


@pytest.fixture(params=PROBLEMS.values(), ids=PROBLEMS.keys())
def problem(request):
    return request.param


@pytest.fixture
def theta(problem):
    """Two by three points, all of them in the interior of the problem's analytic pieces."""
    return 0.3 + np.abs(np.random.default_rng(1).normal(size=(2, 3, problem.n_parameters)))


def differences(function, theta, step=1e-6):
    """Return the derivative of `function` at one point by central differences, last axis new."""
    nudges = step * np.eye(theta.size)
    return np.stack(
        [(function(theta + e) - function(theta - e)) / (2 * step) for e in nudges], axis=-1
    )


def test_jacobian_against_finite_differences(problem, theta):
    point = theta[0, 0]
    assert problem.jacobian(point) == pytest.approx(
        differences(problem.residuals, point), rel=1e-7, abs=1e-8
    )


def test_gradient_against_finite_differences(problem, theta):
    point = theta[0, 1]
    assert problem.gradient(point) == pytest.approx(
        differences(problem.loss, point), rel=1e-7, abs=1e-8
    )


def test_hessian_against_finite_differences(problem, theta):
    point = theta[1, 2]
    hessian = problem.hessian(point)
    assert hessian == pytest.approx(differences(problem.gradient, point), rel=1e-6, abs=1e-7)
    assert hessian == pytest.approx(hessian.T, rel=1e-14)


def test_loss_is_the_weighted_mean_of_half_squares(problem, theta):
    residuals = problem.residuals(theta[0, 0])
    pairs = zip(np.repeat(problem.probabilities, problem.n_outputs), residuals, strict=True)
    assert problem.loss(theta[0, 0]) == pytest.approx(sum(p * r * r / 2 for p, r in pairs))


@pytest.mark.parametrize("name", ["residuals", "jacobian", "loss", "gradient", "hessian"])
def test_leading_axes_are_replicas(problem, theta, name):
    method = getattr(problem, name)
    together = method(theta)
    assert together.shape[:2] == theta.shape[:2]
    for index in np.ndindex(theta.shape[:2]):
        assert together[index] == pytest.approx(method(theta[index]), rel=1e-13, abs=1e-14)


@pytest.mark.parametrize("name", ["residuals", "jacobian"])
def test_samples_pick_rows_for_each_replica(problem, theta, name):
    samples = np.random.default_rng(2).integers(problem.n_samples, size=(2, 3, 5))
    picked = getattr(problem, name)(theta, samples)
    everything = getattr(problem, name)(theta)
    for index in np.ndindex(2, 3):
        by_sample = everything[index].reshape(problem.n_samples, -1)[samples[index]]
        assert picked[index] == pytest.approx(by_sample.reshape(picked[index].shape), rel=1e-13)


def test_batch_gradient_is_the_mean_over_the_batch(problem, theta):
    samples = np.array([[0, 1, 1], [1, 0, 0], [0, 0, 0]]) % problem.n_samples
    batched = problem.batch_gradient(theta[0], samples)
    for point, batch, gradient in zip(theta[0], samples, batched, strict=True):
        shape = problem.n_samples, problem.n_outputs
        residuals = problem.residuals(point).reshape(shape)
        jacobian = problem.jacobian(point).reshape(*shape, -1)
        expected = sum(residuals[i] @ jacobian[i] for i in batch) / 3
        assert gradient == pytest.approx(expected, rel=1e-13, abs=1e-14)


def test_batch_gradients_average_to_the_gradient(problem, theta):
    singles = [
        problem.batch_gradient(theta[0], np.full((3, 1), i)) for i in range(problem.n_samples)
    ]
    mean = np.tensordot(problem.probabilities, singles, axes=1)
    assert mean == pytest.approx(problem.gradient(theta[0]), rel=1e-12, abs=1e-14)


def test_two_layer_network_against_its_formula():
    network = PROBLEMS["two layers"]
    theta = np.arange(10.0) / 10
    weights, bias, output = theta[:6].reshape(2, 3), theta[6:8], theta[8:]
    expected = [
        sum(
            output[k] * math.tanh(sum(weights[k, j] * x[j] for j in range(3)) + bias[k])
            for k in range(2)
        )
        - y
        for x, y in zip(network.inputs, network.targets, strict=True)
    ]
    assert network.residuals(theta) == pytest.approx(expected, rel=1e-14)


class Line(Problem):
    """A model that defines no curvature."""

    n_parameters, probabilities = 1, np.ones(1)

    def residuals(self, theta, samples=None):
        return 2.0 * theta - 6.0

    def jacobian(self, theta, samples=None):
        return np.full((*theta.shape[:-1], 1, 1), 2.0)


def test_hessian_without_curvature_says_what_to_define():
    with pytest.raises(NotImplementedError, match="Line does not define residual_curvature"):
        Line().hessian(np.array([1.0]))


def test_a_problem_must_define_residuals_and_jacobian():
    with pytest.raises(TypeError, match="abstract"):
        Problem()


def test_linear_network_is_the_network_it_says():
    network = PROBLEMS["linear, four layers"]
    theta = np.random.default_rng(0).normal(size=network.n_parameters)
    first, second = theta[:6].reshape(2, 3), theta[6:8].reshape(1, 2)
    third, fourth = theta[8:11].reshape(3, 1), theta[11:].reshape(2, 3)
    outputs = network.inputs @ (fourth @ third @ second @ first).T
    error = outputs - network.targets
    assert network.residuals(theta) == pytest.approx(error.reshape(-1), rel=1e-13)
    expected = sum(p * (e @ e) / 2 for p, e in zip([0.3, 0.7], error, strict=True))
    assert network.loss(theta) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("model", [ScalarFactorization, ReluPair])
def test_an_empty_subclass_declares_what_its_parent_does(model):
    empty = type("Mine", (model,), {"note": "nothing changed"})
    assert declared_product(model()) is not None
    assert declared_product(empty()) == declared_product(model())
    again = type("Again", (empty,), {"product_model": model.product_model})
    assert declared_product(again()) == declared_product(model())


@pytest.mark.parametrize("name", sorted(DYNAMICS))
def test_a_subclass_that_changes_the_loss_declares_nothing(name):
    changed = type("Mine", (ReluPair,), {name: getattr(ReluPair, name)})
    below = type("Below", (changed,), {})
    assert declared_product(changed()) is None
    assert declared_product(below()) is None
    declared = type("Declared", (changed,), {"product_model": ReluPair.product_model})
    assert declared_product(declared()) == declared_product(ReluPair())
