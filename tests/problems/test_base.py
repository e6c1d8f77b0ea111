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
    Minimum,
    Problem,
    ReluPair,
    ScalarChain,
    ScalarFactorization,
    TwoLayerNetwork,
    gd_map,
)
from stabcore.problems import PiecewiseQuartic

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


def whitened(samples, features, outputs, widths):
    """Return a linear network on whitened inputs, Σ xxᵀ/n = I, with random targets."""
    rng = np.random.default_rng(11)
    inputs = np.linalg.qr(rng.normal(size=(samples, features)))[0] * math.sqrt(samples)
    return LinearNetwork(inputs, rng.normal(size=(samples, outputs)), widths)


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
