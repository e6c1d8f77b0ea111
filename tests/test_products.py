import numpy as np
import pytest

from stabcore import DiagonalLinearNetwork, FiniteLaw, Minimum, SGDLaw, monte_carlo
from stabcore.gd import gd_jacobian
from stabcore.products import AnyLaw, SampledLaw, require_law

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


def normal(rng, size):
    return rng.normal(size=(size, 2, 2))


def test_a_sampled_law_draws_what_its_sampler_draws():
    law = SampledLaw(normal, np.int64(2))
    assert law.dimension == 2
    assert (law.draw(5, rng=3) == normal(np.random.default_rng(3), 5)).all()


@pytest.mark.parametrize(
    ("sampler", "dimension", "error", "message"),
    [
        (np.eye(2), 2, TypeError, "sampler must be a function .*got ndarray; .*FiniteLaw"),
        (normal, 0, ValueError, "dimension must be at least 1, got 0"),
        (normal, 2.0, TypeError, "dimension must be an integer"),
        (normal, 3, ValueError, r"must return shape .*\(2, 3, 3\), got \(2, 2, 2\)"),
        (lambda rng, size: normal(rng, 1), 2, ValueError, r"\(2, 2, 2\), got \(1, 2, 2\)"),
        (lambda rng, size: np.eye(2), 2, ValueError, r"sampler.* must have 3 dimension"),
        (lambda rng, size: np.full((size, 2, 2), np.nan), 2, ValueError, "sampler.* has a NaN"),
        (lambda rng, size: "matrices", 2, TypeError, "sampler.* must be an array of real numbers"),
    ],
)
def test_bad_samplers(sampler, dimension, error, message):
    with pytest.raises(error, match=message):
        SampledLaw(sampler, dimension)


def test_a_sampler_that_fails_later_is_not_swallowed():
    law = SampledLaw(lambda rng, size: np.full((size, 1, 1), 1.0 if size < 9 else np.inf), 1)
    with pytest.raises(ValueError, match="infinite"):
        monte_carlo(law, rng=0, steps=100)


def test_where_the_factors_must_be_listed_a_sampled_law_is_refused():
    require_law(SampledLaw(normal, 2), AnyLaw)
    with pytest.raises(TypeError, match=r"FiniteLaw or an SGDLaw, got SampledLaw.*Monte Carlo"):
        require_law(SampledLaw(normal, 2))
    with pytest.raises(TypeError, match="FiniteLaw, SGDLaw or SampledLaw, got NoneType"):
        require_law(None, AnyLaw)


def test_a_reshuffled_law_is_no_finite_law():
    with pytest.raises(ValueError, match=r"reshuffled .* not independent.*reshuffle=False"):
        SGDLaw(np.eye(2), 0.5, reshuffle=True).finite()
    whole = SGDLaw(np.eye(2), 0.5, 2, reshuffle=True).finite()  # an epoch of one step
    assert whole.matrices.round(12).tolist() == [[[0.75, 0.0], [0.0, 0.75]]]


def test_text():
    assert repr(SampledLaw(normal, 2)) == "SampledLaw(dimension=2)"
    assert repr(FiniteLaw(np.ones((3, 2, 2)))) == "FiniteLaw(3 factors, dimension=2)"
    assert repr(SGDLaw(np.eye(4), 0.5, 2)) == (
        "SGDLaw(n_samples=4, step_size=0.5, batch_size=2, dimension=4)"
    )
