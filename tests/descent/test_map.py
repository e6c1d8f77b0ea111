import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stabcore import (
    DiagonalLinearNetwork,
    LinearNetwork,
    Minimum,
    Problem,
    ReluPair,
    ScalarChain,
    ScalarFactorization,
    gd_exponent,
    gd_map,
)
from stabcore.descent import bad_step_sizes, gd_jacobian, gd_log_abs_det
from stabcore.problems import PiecewiseQuartic

EXTREMES = st.floats(0.01, 100)


class Mixed(Problem):
    """½·½(3x − 1)² + ½·½(y² − 2)² (+ a copy of x): curvatures 4.5 (twice) and one that moves."""

    n_parameters, probabilities = 3, np.array([0.5, 0.25, 0.25])

    def residuals(self, theta, samples=None):
        x, y, z = np.moveaxis(theta, -1, 0)
        return np.stack([3 * x - 1, y**2 - 2, math.sqrt(18) * z], axis=-1)

    def jacobian(self, theta, samples=None):
        result = np.zeros((*theta.shape, 3))
        result[..., 0, 0], result[..., 1, 1] = 3, 2 * theta[..., 1]
        result[..., 2, 2] = math.sqrt(18)
        return result

    def residual_curvature(self, theta, weights):
        result = np.zeros((*theta.shape, 3))
        result[..., 1, 1] = 2 * weights[..., 1]
        return result


class Linear(Problem):
    """Linear regression, whose Hessian XᵀX/N is the same everywhere."""

    def __init__(self, inputs):
        self.inputs = np.asarray(inputs, float)
        samples, self.n_parameters = self.inputs.shape
        self.probabilities = np.full(samples, 1 / samples)

    def residuals(self, theta, samples=None):
        return theta @ self.inputs.T

    def jacobian(self, theta, samples=None):
        return np.broadcast_to(self.inputs, (*theta.shape[:-1], *self.inputs.shape))

    def residual_curvature(self, theta, weights):
        return np.zeros((*theta.shape, self.n_parameters))


def test_map_by_hand():
    """L = ½(1 − xy)² at (2, 3): ∇L = −(1 − 6)(3, 2) = (15, 10)."""
    assert gd_map(ScalarFactorization(), np.array([2.0, 3.0]), 0.1).tolist() == [0.5, 2.0]


@pytest.mark.parametrize("problem", [ReluPair(), DiagonalLinearNetwork(np.eye(2), [1.0, 2.0])])
def test_jacobian_of_the_map_against_finite_differences(problem):
    theta = np.linspace(0.7, 1.5, problem.n_parameters)
    nudges = 1e-6 * np.eye(theta.size)
    expected = np.stack(
        [
            (gd_map(problem, theta + e, 0.3) - gd_map(problem, theta - e, 0.3)) / 2e-6
            for e in nudges
        ],
        axis=-1,
    )
    assert gd_jacobian(problem, theta, 0.3) == pytest.approx(expected, abs=1e-8)


@settings(deadline=None, max_examples=50)
@given(st.floats(-2, 2), st.floats(-2, 2), st.floats(0.05, 3))
def test_determinant_of_scalar_depth_two(x, y, eta):
    """det = (1 − ηx²)(1 − ηy²) − η²(2xy − 1)²."""
    expected = (1 - eta * x**2) * (1 - eta * y**2) - (eta * (2 * x * y - 1)) ** 2
    found = math.exp(gd_log_abs_det(ScalarFactorization(), np.array([x, y]), eta))
    assert found == pytest.approx(abs(expected), rel=1e-9, abs=1e-12)


def test_singular_point_of_the_map_has_log_determinant_minus_infinity():
    value = gd_log_abs_det(Linear([[1.0]]), np.array([[0.3], [5.0]]), 1.0)
    assert value.tolist() == [-math.inf, -math.inf]


@pytest.mark.parametrize("eta", [0.05, 0.2, 0.35, 1.0])
def test_exponent_is_the_norm_of_the_derivative_on_the_normal_space(eta):
    problem = DiagonalLinearNetwork([[1.0, 0.3], [-0.5, 2.0]], [1.0, 0.7], [0.3, 0.7])
    minimum = Minimum.at(problem, problem.minimum(3.0, 2.0))
    basis = minimum.normal_basis
    restricted = basis.T @ gd_jacobian(problem, minimum.point, eta) @ basis
    result = gd_exponent(minimum, eta)
    assert result.value == pytest.approx(math.log(np.linalg.norm(restricted, 2)), abs=1e-13)
    assert result.kind == "exact"
    assert result.upper - result.lower < 1e-12


@settings(deadline=None, max_examples=100)
@given(EXTREMES, EXTREMES, EXTREMES, st.floats(0.1, 0.9))
def test_stable_exactly_below_two_over_sharpness(k1, k2, eta, p):
    """Paper A: μ < 0 ⇔ η λ_max(Hess L) < 2; here Hess L has eigenvalues p k₁ and (1 − p) k₂."""
    sharpness = max(p * k1, (1 - p) * k2)
    result = gd_exponent(Minimum(np.diag([k1, k2]), [p, 1 - p]), eta)
    expected = max(abs(1 - eta * p * k1), abs(1 - eta * (1 - p) * k2))
    if abs(eta * sharpness - 2) > 1e-9 and expected > 0:
        assert result.sign == (-1 if eta * sharpness < 2 else 1)
        assert result.lower <= math.log(expected) + 1e-13
        assert result.upper >= math.log(expected) - 1e-13


@pytest.mark.parametrize(
    ("eta", "p", "s"), [(0.15, 0.5, 3.0), (0.15, 0.5, 4.0), (0.3, 0.58, 2.1), (0.3, 0.58, 2.5)]
)
def test_paper_d_formula(eta, p, s):
    problem = ReluPair(probabilities=[p, 1 - p])
    result = gd_exponent(Minimum.at(problem, problem.minimum(s)), eta)
    expected = math.log(abs(1 - eta * (p * 0.81 + (1 - p) * 6.25) * s))
    assert result.value == pytest.approx(expected, abs=1e-13)


def test_exponent_on_the_edge_is_zero_and_undecided():
    result = gd_exponent([[2.0]], 1.0)
    assert result.value == 0
    assert result.sign == 0


def test_exponent_minus_infinity():
    assert gd_exponent(np.diag([8.0, 8.0, 8.0, 8.0]), 0.5).value == -math.inf


def test_minus_infinity_hidden_by_rounding_is_still_in_the_interval():
    """With p = ½ the square root of p is rounded, and so is the eigenvalue."""
    assert gd_exponent(np.diag([4.0, 4.0]), 0.5).lower == -math.inf


def test_a_sample_never_drawn_is_a_direction_in_which_nothing_moves():
    assert gd_exponent(Minimum(np.diag([1.0, 4.0]), [1.0, 0.0]), 0.3).sign == 0


def test_a_step_lost_to_rounding_is_still_stable():
    """Log(1 − 10⁻¹⁷) < 0, although 1 − 10⁻¹⁷ rounds to 1."""
    assert gd_exponent([[1.0]], 1e-17).sign == -1


def test_bad_steps_of_linear_regression_are_the_inverse_eigenvalues():
    inputs = np.array([[1.0, 2.0], [0.0, 1.0], [3.0, -1.0]])
    expected = np.sort(1 / np.linalg.eigvalsh(inputs.T @ inputs / 3))
    assert bad_step_sizes(Linear(inputs)) == pytest.approx(expected, rel=1e-12)


def test_bad_steps_of_a_partly_linear_model():
    assert bad_step_sizes(Mixed()) == pytest.approx([1 / 4.5], rel=1e-12)


def test_flat_directions_give_no_bad_step():
    assert bad_step_sizes(Linear([[2.0, 0.0]])) == pytest.approx([0.25])


@pytest.mark.parametrize(
    "problem",
    [
        ScalarFactorization(),
        ReluPair(),
        DiagonalLinearNetwork(np.eye(2), [1.0, 2.0]),
        ScalarChain(3),
        LinearNetwork(np.eye(2), np.diag([1.0, 2.0]), [3]),
        PiecewiseQuartic(),
    ],
)
def test_deep_models_have_no_bad_step(problem):
    """non-singular for every η when depth ≥ 2."""
    assert bad_step_sizes(problem).size == 0


def test_the_map_is_singular_almost_everywhere_at_a_bad_step_only():
    theta = np.random.default_rng(0).normal(size=(100, 3))
    problem = Mixed()
    (bad,) = bad_step_sizes(problem)
    assert (gd_log_abs_det(problem, theta, bad) < -30).all()
    assert (gd_log_abs_det(problem, theta, 1.01 * bad) > -20).all()


def test_each_piece_has_bad_steps_of_its_own():
    """Paper D, figure 1: L = θ² for |θ| > 2, where η = 1/2 is bad."""
    assert bad_step_sizes(PiecewiseQuartic(), scale=1e6) == pytest.approx([0.5], rel=1e-12)


def test_depth_one_has_the_bad_steps_of_linear_regression():
    inputs = np.array([[1.0, 2.0], [0.0, 1.0], [3.0, -1.0]])
    shallow = LinearNetwork(inputs, np.ones((3, 2)))
    assert bad_step_sizes(shallow) == pytest.approx(bad_step_sizes(Linear(inputs)), rel=1e-9)


def test_bad_step_sizes_of_the_piece_around_a_point():
    quartic = PiecewiseQuartic()
    assert bad_step_sizes(quartic, around=[5.0], scale=0.1).tolist() == [0.5]
    assert bad_step_sizes(quartic, around=[0.5], scale=0.1).size == 0
    with pytest.raises(ValueError, match="around must have shape"):
        bad_step_sizes(quartic, around=[1.0, 2.0])
