import numpy as np
import pytest
from scipy import stats

from stabcore import SGD, DiagonalLinearNetwork, FiniteLaw, Minimum, SGDLaw
from stabcore.descent import gd_jacobian
from stabcore.lyapunov import (
    GaussianInputLaw,
    GaussianMatrixLaw,
    SampledLaw,
    UniformDirectionLaw,
    monte_carlo,
)
from stabcore.lyapunov.laws import AnyLaw, require_law

SAMPLINGS = [
    {},
    {"batch_size": 2},
    {"batch_size": 3},
    {"batch_size": 2, "replacement": True},
    {"batch_size": 2, "probabilities": [0.5, 0.2, 0.3]},
    {"probabilities": [0.5, 0.5, 0.0]},
]
INPUTS = [[1.0, 0.5], [0.0, 2.0], [1.0, 2.5]]
PROBLEM = DiagonalLinearNetwork(INPUTS, [1.0, 0.7])


@pytest.fixture(params=SAMPLINGS, ids=str)
def law(request):
    """SGD with three gradients that span two dimensions of R⁴."""
    probabilities = request.param.get("probabilities")
    fields = {name: value for name, value in request.param.items() if name != "probabilities"}
    problem = DiagonalLinearNetwork(INPUTS, [1.0, 0.7], probabilities)
    return SGDLaw(Minimum.at(problem, problem.minimum(3.0, 2.0)), 0.3, SGD(**fields))


def test_factors_against_those_of_parameter_space(law):
    """Each is the restriction to the normal space of I − (η/B) Σ g_i g_iᵀ, in some basis of it."""
    finite, minimum = law.finite(), law.minimum
    basis = minimum.jacobian.T @ np.linalg.pinv(minimum.gradients).T
    assert basis.T @ basis == pytest.approx(np.eye(2), abs=1e-13)
    assert (finite.dimension, len(finite.matrices)) == (law.dimension, law.batches.count)
    for matrix, (batch, _) in zip(
        finite.matrices, zip(*law.batches.listed(), strict=True), strict=True
    ):
        g = minimum.jacobian[list(batch)]
        full = np.eye(4) - 0.3 / len(batch) * g.T @ g
        assert matrix == pytest.approx(basis.T @ full @ basis, abs=1e-12)


def test_factors_in_residual_coordinates_are_conjugate(law):
    """(I − (η/B) K E_S) G = G A_S for the gradients G: same exponents on the normal space."""
    minimum = law.minimum
    for matrix, (batch, _) in zip(
        law.finite().matrices, zip(*law.batches.listed(), strict=True), strict=True
    ):
        picked = np.diag(np.bincount(batch, minlength=3)) / len(batch)
        residual = np.eye(3) - 0.3 * minimum.kernel @ picked
        assert residual @ minimum.gradients == pytest.approx(
            minimum.gradients @ matrix, rel=1e-11, abs=1e-12
        )


def test_the_mean_factor_is_that_of_gradient_descent(law):
    finite = law.finite()
    mean = np.tensordot(finite.probabilities, finite.matrices, axes=1)
    weighted = DiagonalLinearNetwork(
        PROBLEM.inputs, PROBLEM.coefficients, law.batches.probabilities
    )
    full = gd_jacobian(weighted, law.minimum.point, 0.3)
    restricted = law.minimum.normal_basis.T @ full @ law.minimum.normal_basis
    assert np.linalg.eigvalsh(mean) == pytest.approx(np.linalg.eigvalsh(restricted), abs=1e-12)


def test_determinants():
    """det A_i = 1 − ηk_i when the gradients are independent."""
    kernel = np.array([[2.0, 0.3, 0.1], [0.3, 1.0, -0.5], [0.1, -0.5, 4.0]])
    found = np.linalg.det(SGDLaw(kernel, 0.7).finite().matrices)
    assert found == pytest.approx(1 - 0.7 * np.diag(kernel), rel=1e-12)


def test_probabilities_are_those_of_the_minimum_by_default():
    minimum = Minimum(np.eye(2), [0.25, 0.75])
    assert SGDLaw(minimum, 0.5).batches.probabilities.tolist() == [0.25, 0.75]
    sampled = SGDLaw(minimum, 0.5, SGD(probabilities=[0.5, 0.5]))
    assert sampled.batches.probabilities[0] == 0.5
    assert sampled.batches.scales.tolist() == [0.5, 1.5]


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
    with pytest.raises(
        TypeError, match="FiniteLaw, SGDLaw, MomentumLaw or SampledLaw, got NoneType"
    ):
        require_law(None, AnyLaw)


ISOTROPIC = [
    GaussianMatrixLaw(3),
    GaussianInputLaw(3, 0.5),
    GaussianInputLaw(3, 0.5, SGD(batch_size=2)),
    GaussianInputLaw(3, 0.5, SGD(batch_size=3)),
    GaussianInputLaw(3, 0.5, SGD(batch_size=40)),
    UniformDirectionLaw(3, 2.5),
]


@pytest.mark.parametrize("law", ISOTROPIC, ids=repr)
def test_isotropic_laws_have_the_moments_of_their_definition(law):
    """E A and E AAᵀ, which are multiples of the identity, and E A₁₂²; twelve z-scores each."""
    drawn = law.draw(40_000, rng=5)
    assert drawn.shape == (40_000, 3, 3)
    if isinstance(law, GaussianMatrixLaw):
        mean, square, mixed = 0.0, 3.0, 1.0
    elif isinstance(law, GaussianInputLaw):
        rate = 0.5 / law.batch_size
        mean = 1 - 0.5
        square = 1 - 2 * 0.5 + 0.5**2 * (3 + law.batch_size + 1) / law.batch_size
        mixed = rate**2 * law.batch_size
    else:
        mean, square = 1 - 2.5 / 3, 1 + (2.5**2 - 2 * 2.5) / 3
        mixed = 2.5**2 / 15
    products = drawn @ np.swapaxes(drawn, 1, 2)
    for samples, expected in [
        (drawn[:, 0, 0], mean),
        (drawn[:, 2, 2], mean),
        (drawn[:, 0, 2], 0.0),
        (products[:, 0, 0], square),
        (products[:, 2, 2], square),
        (products[:, 1, 2], 0.0),
        (drawn[:, 0, 1] ** 2, mixed),
        (drawn[:, 2, 1] ** 2, mixed),
    ]:
        error = samples.std() / 200
        assert abs(samples.mean() - expected) < 4.5 * error + 1e-14


@pytest.mark.parametrize("law", ISOTROPIC, ids=repr)
def test_isotropic_laws_draw_from_their_generator_alone(law):
    assert (law.draw(3, rng=1) == law.draw(3, rng=1)).all()
    require_law(law, AnyLaw)
    with pytest.raises(TypeError, match="FiniteLaw or an SGDLaw, got"):
        require_law(law)


def test_isotropic_laws_in_one_dimension():
    """1 − (η/b) χ²_b, and the constant 1 − κ."""
    drawn = (1 - GaussianInputLaw(1, 1.4, SGD(batch_size=7)).draw(4000, rng=2).ravel()) / 0.2
    assert stats.kstest(drawn, stats.chi2(7).cdf).pvalue > 1e-4
    assert UniformDirectionLaw(1, 3.0).draw(5, rng=0).ravel() == pytest.approx(-2.0)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: GaussianMatrixLaw(0), ValueError, "dimension must be at least 1, got 0"),
        (lambda: GaussianMatrixLaw(2.0), TypeError, "dimension must be an integer"),
        (lambda: GaussianInputLaw(0, 0.1), ValueError, "dimension must be at least 1"),
        (lambda: GaussianInputLaw(2, 0.0), ValueError, "step_size must be finite and greater"),
        (lambda: GaussianInputLaw(2, "a"), TypeError, "step_size must be a real number"),
        (
            lambda: GaussianInputLaw(2, 0.1, SGD(batch_size=0)),
            ValueError,
            "batch_size must be at least 1, got 0",
        ),
        (lambda: UniformDirectionLaw(-1, 1.0), ValueError, "dimension must be at least 1"),
        (
            lambda: UniformDirectionLaw(2, -1.0),
            ValueError,
            "contraction must be finite and greater",
        ),
        (lambda: UniformDirectionLaw(2, np.inf), ValueError, "contraction must be finite"),
    ],
)
def test_bad_isotropic_laws(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_reshuffled_law_is_no_finite_law():
    with pytest.raises(ValueError, match=r"reshuffled .* not independent.*reshuffle=False"):
        SGDLaw(np.eye(2), 0.5, SGD(reshuffle=True)).finite()
    whole = SGDLaw(
        np.eye(2), 0.5, SGD(batch_size=2, reshuffle=True)
    ).finite()  # an epoch of one step
    assert whole.matrices.round(12).tolist() == [[[0.75, 0.0], [0.0, 0.75]]]


def test_text():
    assert repr(SampledLaw(normal, 2)) == "SampledLaw(dimension=2)"
    assert [repr(law) for law in ISOTROPIC[::5]] == [
        "GaussianMatrixLaw(dimension=3)",
        "UniformDirectionLaw(dimension=3, contraction=2.5)",
    ]
    assert repr(ISOTROPIC[2]) == "GaussianInputLaw(dimension=3, step_size=0.5, batch_size=2)"
    assert repr(FiniteLaw(np.ones((3, 2, 2)))) == "FiniteLaw(3 factors, dimension=2)"
    assert repr(SGDLaw(np.eye(4), 0.5, SGD(batch_size=2))) == (
        "SGDLaw(n_samples=4, step_size=0.5, SGD(batch_size=2), dimension=4)"
    )
