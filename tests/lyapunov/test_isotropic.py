import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import digamma, expi

from stabcore import SGD, lyapunov_exponent
from stabcore.lyapunov import (
    GaussianInputLaw,
    GaussianMatrixLaw,
    SampledLaw,
    UniformDirectionLaw,
    closed_form,
    lyapunov_spectrum,
    mean_square_exponent,
    moment_exponent,
    monte_carlo,
    tail_index,
)
from stabcore.lyapunov.isotropic import gaussian_spectrum, isotropic_exponent, isotropic_moment

# By mpmath 1.4 at 25 digits, from formulas that the package does not use: d = 1 as an integral over
# X, d = 3 with E log(A + BY) = log A + eᶻE₁(z), z = A/2B, for Y ~ χ²_2; and over X and Y at 15
# digits for the last three.
GAUSSIAN_INPUTS = [
    (1, 1, 1.0, -0.416991636869388558),
    (1, 3, 2.0, -0.354121364978051968),
    (1, 7, 1.5, -0.892312500532960249),
    (1, 3, 0.5, -0.755167172283376966),
    (3, 1, 0.3, -0.143278732566732558),
    (3, 1, 1.0, 0.236618934652591864),
    (3, 2, 1.0, 0.0165294959641556271),
    (3, 5, 2.5, 0.569268429837629232),
    (3, 10, 0.1, -0.105339056648940994),
    (2, 1, 1.0, 0.029696876311105),
    (4, 3, 0.8, -0.12262368334179),
    (6, 2, 0.3, -0.13468856680878),
]
# The same, as integrals over x = √T with density ∝ (1 − x²)^((d−3)/2).
UNIFORM_DIRECTIONS = [
    (3, 0.5, -0.172455187958052614),
    (5, 3.0, 0.200813494023399671),
    (7, 1.5, -0.0625416870332892012),
]


def agree(result, expected):
    assert result.converged
    assert result.value == pytest.approx(expected, rel=2e-13, abs=1e-14)
    assert result.lower - 1e-14 <= expected <= result.upper + 1e-14
    assert result.upper - result.lower <= 1e-12 * (1 + abs(expected))


@pytest.mark.parametrize(("d", "b", "eta", "expected"), GAUSSIAN_INPUTS)
def test_gaussian_inputs(d, b, eta, expected):
    result = isotropic_exponent(GaussianInputLaw(d, eta, SGD(batch_size=b)))
    assert result.kind == "deterministic"
    agree(result, expected)


@pytest.mark.parametrize(("d", "kappa", "expected"), UNIFORM_DIRECTIONS)
def test_uniform_directions(d, kappa, expected):
    agree(isotropic_exponent(UniformDirectionLaw(d, kappa)), expected)


@pytest.mark.parametrize("eta", [0.05, 0.3, 1.0, 2.684510350820708, 7.0, 1e3, 1e100])
def test_one_dimension_batches_of_two(eta):
    """λ = −e^(−1/η) Ei(1/η), zero at 1/log of the Ramanujan-Soldner constant."""
    agree(
        isotropic_exponent(GaussianInputLaw(1, eta, SGD(batch_size=2))),
        -math.exp(-1 / eta) * expi(1 / eta),
    )


@pytest.mark.parametrize(("eta", "b"), [(2.421249521036836, 1), (2.684510350820708, 2)])
def test_critical_steps_in_one_dimension(eta, b):
    result = isotropic_exponent(GaussianInputLaw(1, eta, SGD(batch_size=b)))
    assert abs(result.value) < 1e-14
    assert isotropic_exponent(GaussianInputLaw(1, eta * (1 - 1e-9), SGD(batch_size=b))).sign == -1
    assert isotropic_exponent(GaussianInputLaw(1, eta * (1 + 1e-9), SGD(batch_size=b))).sign == 1


@pytest.mark.parametrize("eta", [1e-12, 1e-8])
@pytest.mark.parametrize(("d", "b"), [(1, 1), (3, 1), (1, 5), (40, 7), (1000, 1000)])
def test_tiny_steps_keep_their_digits(eta, d, b):
    """λ = −η + O(η²), relative to its size."""
    result = isotropic_exponent(GaussianInputLaw(d, eta, SGD(batch_size=b)))
    assert abs(result.value + eta) <= 2 * eta**2 * (d + b + 1) + 1e-14 * eta
    assert result.upper - result.lower < 1e-12 * eta


@pytest.mark.parametrize(("d", "b"), [(1, 1), (2, 1), (3, 4), (1000, 2), (2, 1000), (4000, 4000)])
def test_huge_steps(d, b):
    """As η → ∞, |Av| → (η/b) √(XR), X ~ χ²_b, R ~ χ²_{b+d−1}."""
    limit = math.log(2) + (digamma(b / 2) + digamma((b + d - 1) / 2)) / 2
    result = isotropic_exponent(GaussianInputLaw(d, 1e60, SGD(batch_size=b)))
    agree(result, math.log(1e60) - math.log(b) + limit)


@pytest.mark.parametrize("kappa", [1e-9, 0.5, 1.0, 1.5, 2.5, 1e9, 1e200])
def test_uniform_directions_on_the_line_and_the_circle(kappa):
    """|1 − κ|, and (1 + |1 − κ|)/2 on the circle."""
    line = closed_form(UniformDirectionLaw(1, kappa))
    circle = closed_form(UniformDirectionLaw(2, kappa))
    assert (line.kind, circle.kind) == ("exact", "exact")
    if kappa == 1:
        assert line.value == line.upper == -math.inf
    else:
        agree(line, math.log(abs(1 - kappa)) if kappa > 1e-3 else math.log1p(-kappa))
    expected = math.log1p(-kappa / 2) if kappa < 1 else math.log(kappa / 2)
    agree(circle, expected)


@pytest.mark.parametrize("d", [2, 3, 4, 10, 1000, 10**6])
def test_projections(d):
    """κ = 1: |Av|² ~ Beta((d−1)/2, 1/2)."""
    expected = (digamma((d - 1) / 2) - digamma(d / 2)) / 2
    result = isotropic_exponent(UniformDirectionLaw(d, 1.0))
    assert result.value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("d", [1, 2, 3, 50])
def test_reflections_have_exponent_exactly_zero(d):
    law = UniformDirectionLaw(d, 2.0)
    assert (isotropic_exponent(law).value, isotropic_exponent(law).sign) == (0.0, 0)
    assert isotropic_moment(law, 3.0).value == pytest.approx(0.0, abs=1e-14)


@pytest.mark.parametrize("d", [1, 2, 3, 7, 5000])
def test_gaussian_matrices(d):
    result = closed_form(GaussianMatrixLaw(d))
    assert (result.kind, result.value) == ("exact", (math.log(2) + digamma(d / 2)) / 2)


def test_gaussian_spectrum():
    spectrum = gaussian_spectrum(3)
    assert [e.value for e in spectrum] == pytest.approx(
        [(math.log(2) + digamma(x / 2)) / 2 for x in (3, 2, 1)], rel=1e-15
    )
    simulated = lyapunov_spectrum(GaussianMatrixLaw(3), rng=1, steps=4000)
    for known, found in zip(spectrum, simulated, strict=True):
        assert abs(found.value - known.value) < 2.5 * (found.upper - found.value)
    with pytest.raises(ValueError, match="dimension must be at least 1, got 0"):
        gaussian_spectrum(0)


@pytest.mark.parametrize(
    "law",
    [
        GaussianMatrixLaw(3),
        GaussianInputLaw(1, 2.0, SGD(batch_size=3)),
        GaussianInputLaw(2, 0.8),
        GaussianInputLaw(4, 0.5, SGD(batch_size=2)),
        GaussianInputLaw(3, 1.0, SGD(batch_size=5)),
        UniformDirectionLaw(2, 2.5),
        UniformDirectionLaw(4, 1.5),
    ],
    ids=repr,
)
def test_against_monte_carlo(law):
    exactly = lyapunov_exponent(law)
    assert exactly.kind in ("exact", "deterministic")
    assert exactly.value == closed_form(law).value
    simulated = monte_carlo(law, rng=3, steps=4000)
    # the half-width is two standard errors
    assert abs(simulated.value - exactly.value) < 2.2 * (simulated.upper - simulated.value)
    assert lyapunov_exponent(law, "monte_carlo", rng=3, steps=4000) == simulated


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 30),
    st.integers(1, 30),
    st.floats(1e-3, 30),
)
def test_the_growth_of_the_mean_square(d, b, eta):
    """E|Av|² = 1 − 2η + η²(d + b + 1)/b; and λ ≤ L(q)/q, which increases with q."""
    law = GaussianInputLaw(d, eta, SGD(batch_size=b))
    second = isotropic_moment(law, 2.0)
    agree(second, math.log(1 - 2 * eta + eta**2 * (d + b + 1) / b))
    first = isotropic_moment(law, 1.0)
    assert isotropic_exponent(law).lower <= first.upper <= second.upper / 2 + 1e-13


@pytest.mark.parametrize("q", [1e-6, 0.3, 1.0, 2.0, 5.5, 4.0, 64.0, 1000.0])
@pytest.mark.parametrize("b", [1, 4])
def test_moments_in_one_dimension(q, b):
    """With c = η/b = 1/4 and even q, E(1 − cX)^q is a sum of the moments of χ²."""
    result = isotropic_moment(GaussianInputLaw(1, b / 4, SGD(batch_size=b)), q)
    assert result.converged
    if q in (2.0, 4.0):
        moments = [math.prod(b + 2 * i for i in range(j)) for j in range(int(q) + 1)]
        terms = [math.comb(int(q), j) * (-0.25) ** j * m for j, m in enumerate(moments)]
        agree(result, math.log(sum(terms)))
    if q == 1e-6:
        slope = isotropic_exponent(GaussianInputLaw(1, b / 4, SGD(batch_size=b))).value
        assert result.value / q == pytest.approx(slope, abs=1e-5)


@pytest.mark.parametrize("d", [2, 3, 8])
def test_fourth_moments(d):
    """E|Av|⁴ for one factor I − κuuᵀ: (1 − κ(2−κ)T)² with E T = 1/d, E T² = 3/(d(d+2))."""
    a = 3.5 * (3.5 - 2)
    agree(
        isotropic_moment(UniformDirectionLaw(d, 3.5), 4.0),
        math.log(1 + 2 * a / d + 3 * a**2 / (d * (d + 2))),
    )
    agree(isotropic_moment(GaussianMatrixLaw(d), 4.0), math.log(d * (d + 2)))


def test_moments_on_the_line():
    agree(isotropic_moment(UniformDirectionLaw(1, 3.0), 2.5), 2.5 * math.log(2))
    assert isotropic_moment(UniformDirectionLaw(1, 1.0), 2.5).value == -math.inf


@pytest.mark.parametrize("q", [0.0, -1.0, math.nan, math.inf])
def test_bad_orders(q):
    with pytest.raises(ValueError, match="q must be finite and greater than 0"):
        isotropic_moment(GaussianMatrixLaw(2), q)


def test_other_sampled_laws_are_not_claimed():
    law = SampledLaw(lambda rng, size: rng.normal(size=(size, 2, 2)), 2)
    assert closed_form(law) is None
    with pytest.raises(ValueError, match="algorithm 'closed_form' does not know SampledLaw"):
        lyapunov_exponent(law, "closed_form")
    assert lyapunov_exponent(law, rng=0, steps=1000).kind == "statistical"
    with pytest.raises(TypeError, match="FiniteLaw or an SGDLaw, got GaussianMatrixLaw"):
        lyapunov_exponent(GaussianMatrixLaw(2), "transfer")


def test_a_quadrature_that_does_not_settle_says_so(monkeypatch):
    monkeypatch.setattr("stabcore.lyapunov.isotropic.LEVELS", 1)
    monkeypatch.setattr("stabcore.lyapunov.isotropic.NEGLIGIBLE", 300.0)
    result = isotropic_exponent(GaussianInputLaw(1, 2.0))
    assert "still changes by" in result.status


@pytest.mark.parametrize(("d", "b"), [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (1, 3), (5, 8)])
def test_mean_square_stability_of_gaussian_inputs(d, b):
    """½ log(1 − 2η + η²(d + b + 1)/b), which is 0 at η = 2b/(d + b + 1)."""
    edge = 2 * b / (d + b + 1)
    for eta in (0.3 * edge, 0.9 * edge, 1.7 * edge):
        result = mean_square_exponent(GaussianInputLaw(d, eta, SGD(batch_size=b)))
        agree(result, math.log(1 - 2 * eta + eta**2 * (d + b + 1) / b) / 2)
        assert result.sign == (1 if eta > edge else -1)
    assert abs(mean_square_exponent(GaussianInputLaw(d, edge, SGD(batch_size=b))).value) < 1e-14


def test_the_tail_index_of_gaussian_inputs():
    """It falls with η, from 2 at the edge of mean-square stability to 0 at that of λ < 0."""
    for d in (1, 3):
        edge = 2 / (d + 2)
        indices = [tail_index(GaussianInputLaw(d, x * edge)) for x in (0.4, 1.0, 1.1)]
        assert indices[0] > 2 > indices[2]
        assert indices[1] == pytest.approx(2, abs=1e-10)
    critical = 2.421249521036836
    assert 0 < tail_index(GaussianInputLaw(1, 0.999 * critical)) < 0.01
    with pytest.raises(ValueError, match="tail_index needs λ < 0"):
        tail_index(GaussianInputLaw(1, 1.001 * critical))


def test_other_tail_indices():
    """E|N(0, 1)|² = 1; factors that do not expand; and 1 − κ(2 − κ)T > 1 for κ > 2."""
    assert tail_index(GaussianMatrixLaw(1)) == pytest.approx(2, abs=1e-10)
    assert tail_index(UniformDirectionLaw(3, 2.0)) == math.inf
    assert tail_index(UniformDirectionLaw(1, 1.0)) == math.inf
    with pytest.raises(ValueError, match="tail_index needs λ < 0"):
        tail_index(UniformDirectionLaw(3, 2.5))


@pytest.mark.parametrize("function", [mean_square_exponent, tail_index])
def test_moments_need_a_law_that_is_known(function):
    with pytest.raises(TypeError, match="law must be a FiniteLaw or an SGDLaw, got SampledLaw"):
        function(SampledLaw(lambda rng, size: rng.normal(size=(size, 2, 2)), 2))


def test_moment_exponent_takes_isotropic_laws():
    law = GaussianInputLaw(3, 0.7, SGD(batch_size=2))
    assert moment_exponent(law, 1.5) == isotropic_moment(law, 1.5)
    with pytest.raises(ValueError, match="q must be finite and greater than 0"):
        moment_exponent(law, 0.0)
    with pytest.raises(ValueError, match="tolerance must be finite and greater than 0"):
        moment_exponent(law, 1.0, tolerance=0.0)
