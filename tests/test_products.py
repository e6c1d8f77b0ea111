import numpy as np
import pytest

from stabcore import DiagonalLinearNetwork, FiniteLaw, Minimum, SGDLaw
from stabcore.gd import gd_jacobian

SAMPLINGS = [
    {},
    {"batch_size": 2},
    {"batch_size": 3},
    {"batch_size": 2, "replacement": True},
    {"batch_size": 2, "probabilities": [0.5, 0.2, 0.3]},
    {"probabilities": [0.5, 0.5, 0.0]},
]
PROBLEM = DiagonalLinearNetwork([[1.0, 0.5], [0.0, 2.0], [1.0, 2.5]], [1.0, 0.7])


@pytest.fixture(params=SAMPLINGS, ids=str)
def law(request):
    """SGD with three gradients that span two dimensions of R⁴."""
    return SGDLaw(Minimum.at(PROBLEM, PROBLEM.minimum(3.0, 2.0)), 0.3, **request.param)


def test_factors_against_those_of_parameter_space(law):
    """Each is the restriction to the normal space of I − (η/B) Σ g_i g_iᵀ, in some basis of it."""
    finite, minimum = law.finite(), law.minimum
    basis = minimum.jacobian.T @ np.linalg.pinv(minimum.gradients).T
    assert basis.T @ basis == pytest.approx(np.eye(2), abs=1e-13)
    assert (finite.dimension, len(finite.matrices)) == (law.dimension, law.sampling.count)
    for matrix, (batch, _) in zip(finite.matrices, law.sampling.batches(), strict=True):
        g = minimum.jacobian[list(batch)]
        full = np.eye(4) - 0.3 / len(batch) * g.T @ g
        assert matrix == pytest.approx(basis.T @ full @ basis, abs=1e-12)


def test_factors_in_residual_coordinates_are_conjugate(law):
    """(I − (η/B) K E_S) G = G A_S for the gradients G: same exponents on the normal space."""
    minimum = law.minimum
    for matrix, (batch, _) in zip(law.finite().matrices, law.sampling.batches(), strict=True):
        picked = np.diag(np.bincount(batch, minlength=3)) / len(batch)
        residual = np.eye(3) - 0.3 * minimum.kernel @ picked
        assert residual @ minimum.gradients == pytest.approx(
            minimum.gradients @ matrix, rel=1e-11, abs=1e-12
        )


def test_the_mean_factor_is_that_of_gradient_descent(law):
    finite = law.finite()
    mean = np.tensordot(finite.probabilities, finite.matrices, axes=1)
    weighted = DiagonalLinearNetwork(
        PROBLEM.inputs, PROBLEM.coefficients, law.sampling.probabilities
    )
    full = gd_jacobian(weighted, law.minimum.point, 0.3)
    restricted = law.minimum.normal_basis.T @ full @ law.minimum.normal_basis
    assert np.linalg.eigvalsh(mean) == pytest.approx(np.linalg.eigvalsh(restricted), abs=1e-12)


def test_determinants():
    """MATH section 2: det A_i = 1 − ηk_i when the gradients are independent."""
    kernel = np.array([[2.0, 0.3, 0.1], [0.3, 1.0, -0.5], [0.1, -0.5, 4.0]])
    found = np.linalg.det(SGDLaw(kernel, 0.7).finite().matrices)
    assert found == pytest.approx(1 - 0.7 * np.diag(kernel), rel=1e-12)


def test_probabilities_are_those_of_the_minimum_by_default():
    minimum = Minimum(np.eye(2), [0.25, 0.75])
    assert SGDLaw(minimum, 0.5).sampling.probabilities.tolist() == [0.25, 0.75]
    assert SGDLaw(minimum, 0.5, probabilities=[0.5, 0.5]).sampling.probabilities[0] == 0.5


def test_too_many_batches_are_not_written_out():
    with pytest.raises(ValueError, match=r"100 different batches, above the limit 99"):
        SGDLaw(np.eye(100), 0.5).finite(limit=99)
    assert len(SGDLaw(np.eye(100), 0.5).finite(limit=100).matrices) == 100


def test_a_finite_law_copies_and_freezes_its_arguments():
    matrices, probabilities = np.ones((2, 1, 1)), np.array([0.5, 0.5])
    law = FiniteLaw(matrices, probabilities)
    matrices[:], probabilities[:] = 7.0, 7.0
    assert law.matrices.ravel().tolist() == [1.0, 1.0]
    assert law.probabilities.tolist() == [0.5, 0.5]
    with pytest.raises(ValueError, match="read-only"):
        law.matrices[0] = 0


def test_text():
    assert repr(FiniteLaw(np.ones((3, 2, 2)))) == "FiniteLaw(3 factors, dimension=2)"
    assert repr(SGDLaw(np.eye(4), 0.5, 2)) == (
        "SGDLaw(n_samples=4, step_size=0.5, batch_size=2, dimension=4)"
    )
