import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stabcore import (
    DiagonalLinearNetwork,
    Minimum,
    ReluPair,
    ScalarFactorization,
    TwoLayerNetwork,
    find_minimum,
)
from stabcore.companion import digit_pair


@pytest.fixture
def minimum():
    """Three dependent gradients in R⁴: rank 2."""
    network = DiagonalLinearNetwork(
        [[1.0, 0.5], [0.0, 2.0], [1.0, 2.5]], [1.0, 0.7], [0.2, 0.5, 0.3]
    )
    return Minimum.at(network, network.minimum(3.0, 2.0))


def test_kernel_rank_and_gradients(minimum):
    assert minimum.kernel == pytest.approx(minimum.jacobian @ minimum.jacobian.T, rel=1e-14)
    assert minimum.rank == np.linalg.matrix_rank(minimum.jacobian) == 2
    assert minimum.gradients.shape == (3, 2)
    assert minimum.gradients @ minimum.gradients.T == pytest.approx(minimum.kernel, rel=1e-12)


def test_normal_basis_spans_the_rows_of_the_jacobian(minimum):
    basis = minimum.normal_basis
    assert basis.T @ basis == pytest.approx(np.eye(2), abs=1e-14)
    assert basis @ (basis.T @ minimum.jacobian.T) == pytest.approx(minimum.jacobian.T, abs=1e-13)


@pytest.mark.parametrize("weights", [None, [0.6, 0.1, 0.3]])
def test_hessian_spectrum_against_the_hessian_in_parameter_space(minimum, weights):
    p = np.full(3, 1 / 3) if weights is None else np.array(weights)
    full = np.linalg.eigvalsh(minimum.jacobian.T @ (p[:, None] * minimum.jacobian))
    assert full[:2] == pytest.approx([0, 0], abs=1e-13)
    assert Minimum(minimum.kernel, p).hessian_spectrum == pytest.approx(full[2:], rel=1e-12)


def test_sharpness_is_the_largest_eigenvalue_of_the_true_hessian():
    problem = ReluPair(probabilities=[0.58, 0.42])
    point = problem.minimum(3.0)
    expected = np.linalg.eigvalsh(problem.hessian(point))[-1]
    assert Minimum.at(problem, point).sharpness == pytest.approx(expected, rel=1e-12)


def test_samples_that_are_never_drawn_leave_zero_curvature():
    assert Minimum(np.diag([1.0, 4.0]), [1.0, 0.0]).hessian_spectrum.tolist() == [0.0, 1.0]


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_random_kernels(samples, parameters, seed):
    jacobian = np.random.default_rng(seed).normal(size=(samples, parameters))
    minimum = Minimum(jacobian @ jacobian.T)
    assert minimum.rank == min(samples, parameters)
    singular = np.linalg.svd(jacobian, compute_uv=False)[::-1]
    assert minimum.hessian_spectrum == pytest.approx(singular**2 / samples, rel=1e-9)


@pytest.mark.parametrize(
    ("kernel", "blocks"),
    [
        (np.eye(3), [[0], [1], [2]]),
        ([[1, 0, 0.5], [0, 1, 0], [0.5, 0, 1]], [[0, 2], [1]]),
        ([[1, 0.5, 0], [0.5, 1, 0.5], [0, 0.5, 1]], [[0, 1, 2]]),
        ([[1e-20, 0.9e-10], [0.9e-10, 1]], [[0, 1]]),  # small but not orthogonal
    ],
)
def test_blocks_are_the_orthogonal_groups(kernel, blocks):
    assert [block.tolist() for block in Minimum(kernel).blocks] == blocks


def test_a_minimum_cannot_be_changed(minimum):
    for array in (minimum.kernel, minimum.probabilities, minimum.point, minimum.jacobian):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_the_arguments_are_copied():
    kernel, probabilities = np.diag([1.0, 2.0]), np.array([0.25, 0.75])
    minimum = Minimum(kernel, probabilities)
    kernel[:], probabilities[:] = 5.0, 5.0
    assert minimum.kernel.tolist() == [[1.0, 0.0], [0.0, 2.0]]
    assert minimum.probabilities.tolist() == [0.25, 0.75]


def test_rounding_in_a_kernel_is_forgiven():
    minimum = Minimum([[1.0, 1.0 + 1e-13], [1.0, 1.0]])
    assert (minimum.kernel == minimum.kernel.T).all()
    assert minimum.rank == 1


def test_tiny_negative_diagonal_entries_are_rounding_too():
    assert [b.tolist() for b in Minimum(np.diag([1.0, -1e-12])).blocks] == [[0], [1]]


def test_a_minimum_known_by_its_kernel_has_no_normal_basis():
    with pytest.raises(ValueError, match="normal_basis needs a minimum in parameter space"):
        _ = Minimum([[1.0]]).normal_basis


def test_repr_shows_the_sizes(minimum):
    assert repr(Minimum([[2.0]])) == "Minimum(n_samples=1, rank=1, sharpness=2)"


def test_a_point_that_is_no_minimum_is_refused_with_its_residual():
    with pytest.raises(ValueError, match=r"point is not a minimum.* is 2\.500e-01, above"):
        Minimum.at(ScalarFactorization(), [1.0, 1.25])


def test_a_dead_network_is_no_minimum():
    with pytest.raises(ValueError, match=r"largest residual .* 2\.500e\+00"):
        Minimum.at(ReluPair(), [-1.0, -1.0])


def test_a_point_where_the_rank_drops_is_refused():
    """u₂ = v₂ = 0 solves u₂v₂ = 0, but the minima cross there."""
    network = DiagonalLinearNetwork(np.eye(2), [1.0, 0.0])
    with pytest.raises(ValueError, match="jacobian has rank 1 at point but 2 nearby"):
        Minimum.at(network, [1.0, 1.0, 0.0, 0.0])


def test_find_minimum_of_the_factorisation_stays_near():
    minimum = find_minimum(ScalarFactorization(), [2.0, 0.6])
    assert abs(minimum.point.prod() - 1) < 1e-12
    assert np.linalg.norm(minimum.point - [2.0, 0.6]) < 0.2


def test_find_minimum_interpolates_real_images():
    network = TwoLayerNetwork(*digit_pair(n_samples=40, rng=0), width=10)
    minimum = find_minimum(network, network.initial(0))
    assert np.abs(network.residuals(minimum.point)).max() < 1e-12
    assert minimum.rank == 40


def test_find_minimum_from_a_minimum_does_not_move():
    assert find_minimum(ScalarFactorization(), [2.0, 0.5]).point.tolist() == [2.0, 0.5]


@pytest.mark.parametrize(
    ("problem", "start", "residual"),
    [
        (ReluPair(), [-1.0, 1.0], r"2\.500e\+00"),  # dead: no gradient to follow
        (ReluPair([25.0, 3.0]), [-1.0, 1.0], r"2\.500e\+01"),
        (TwoLayerNetwork([[1.0], [1.0]], [0.0, 1.0], 2), [1.0, 1, 0, 0, 1, 1], r"5\.000e-01"),
    ],
)
def test_find_minimum_says_when_there_is_none(problem, start, residual):
    with pytest.raises(RuntimeError, match=f"largest residual is still {residual}"):
        find_minimum(problem, start)
