import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stabcore import (
    DiagonalLinearNetwork,
    Problem,
    ReluPair,
    ScalarFactorization,
    TwoLayerNetwork,
)

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
}
DEAD = [[-1.0, 1.0], [1.0, -1.0], [-2.0, -0.5], [0.0, 1.0]]


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
    pairs = zip(problem.probabilities, residuals, strict=True)
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
        assert picked[index] == pytest.approx(everything[index][samples[index]], rel=1e-13)


def test_batch_gradient_is_the_mean_over_the_batch(problem, theta):
    samples = np.array([[0, 1, 1], [1, 0, 0], [0, 0, 0]])
    batched = problem.batch_gradient(theta[0], samples)
    for point, batch, gradient in zip(theta[0], samples, batched, strict=True):
        residuals, jacobian = problem.residuals(point), problem.jacobian(point)
        expected = sum(residuals[i] * jacobian[i] for i in batch) / 3
        assert gradient == pytest.approx(expected, rel=1e-13, abs=1e-14)


def test_batch_gradients_average_to_the_gradient(problem, theta):
    singles = [
        problem.batch_gradient(theta[0], np.full((3, 1), i)) for i in range(problem.n_samples)
    ]
    mean = np.tensordot(problem.probabilities, singles, axes=1)
    assert mean == pytest.approx(problem.gradient(theta[0]), rel=1e-12, abs=1e-14)


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
    """MATH section 2: K = s₁uuᵀ + s₂vvᵀ."""
    a, b = (1.0, 0.3), (-0.5, 2.0)
    network = DiagonalLinearNetwork([a, b], [1.0, 0.7])
    jacobian = network.jacobian(network.minimum(3.0, 5.0))
    u, v = (np.array([a[j], b[j]]) for j in range(2))
    assert jacobian @ jacobian.T == pytest.approx(3 * np.outer(u, u) + 5 * np.outer(v, v))


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
    assert not problem.alive(point)
    assert problem.loss(point) == pytest.approx((0.81 + 6.25) / 4)
    assert not problem.gradient(point).any()
    assert not problem.hessian(point).any()


def test_exact_coordinates():
    delta, s = ScalarFactorization().exact_coordinates(np.array([[2.0, 3.0], [0.5, 2.0]]))
    assert delta.tolist() == [-5.0, 0.0]
    assert s.tolist() == [13.0, 4.25]


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


def test_initial_parameters_have_the_stated_variances():
    network = TwoLayerNetwork(np.ones((1, 25)), [0.0], width=4000)
    weights, bias, output = np.split(network.initial(3), [100_000, 104_000])
    assert not bias.any()
    # A sample variance of n normal numbers has relative standard deviation √(2/n).
    for part, variance in ((weights, 1 / 25), (output, 1 / 4000)):
        assert abs(part.var() / variance - 1) < 4 * math.sqrt(2 / part.size)
    assert (network.initial(3) == network.initial(np.random.default_rng(3))).all()


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
