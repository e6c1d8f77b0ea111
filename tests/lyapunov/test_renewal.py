import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stabcore import SGD, FiniteLaw, Minimum, SGDLaw, lyapunov_exponent
from stabcore.lyapunov import closed_form, monte_carlo, transfer
from stabcore.lyapunov.renewal import renewal_series

ENTRIES = st.integers(-8, 8).map(lambda k: k / 4)
VECTORS = st.tuples(ENTRIES, ENTRIES).filter(any).map(np.array)
MATRICES = st.tuples(ENTRIES, ENTRIES, ENTRIES, ENTRIES).map(lambda a: np.reshape(a, (2, 2)))


def series(u, w, other, p):
    """Return p² Σ (1 − p)ᵏ log|wᵀA₂ᵏu| term by term, in integers: no rounding but of logarithms."""
    unit = 2**60
    (a, b), (c, d), v, w = (
        [int(x * unit) for x in np.asarray(row, dtype=float)] for row in (*other, u, w)
    )
    total, k = 0.0, 0
    while (1 - p) ** k * (k + 1) > 1e-18:
        term = abs(w[0] * v[0] + w[1] * v[1])
        if term == 0:
            return -math.inf
        total += p * p * (1 - p) ** k * (math.log(term) - (k + 2) * math.log(unit))
        v, k = [a * v[0] + b * v[1], c * v[0] + d * v[1]], k + 1
    return total


def sgd(angle_squared, second, p=0.5, step_size=1.0):
    """Return SGD on two samples with ηk₁ = 1, ηk₂ = `second` and cos² of the angle."""
    mixed = math.sqrt(angle_squared * second)
    kernel = np.array([[1.0, mixed], [mixed, second]]) / step_size
    return SGDLaw(Minimum(kernel, [p, 1 - p]), step_size)


def agree(result, expected):
    assert (result.kind, result.method) == ("exact", "renewal series")
    assert result.lower - 1e-14 <= expected <= result.upper + 1e-14
    assert result.upper - result.lower < 1e-10
    assert result.value == pytest.approx(expected, rel=1e-12, abs=1e-13)


def test_known_value():
    """p = 1/2, ηk₂ = 5/2, ρ² = 1/4."""
    expected = 0.10551172445156578605
    law = sgd(0.25, 2.5)
    agree(closed_form(law), expected)
    assert lyapunov_exponent(law).method == "renewal series"
    agree(closed_form(law.finite()), expected)  # whose factor is of rank one up to rounding
    agree(closed_form(SGDLaw(law.minimum.kernel[::-1, ::-1], 1.0)), expected)


@pytest.mark.parametrize("p", [0.001, 0.3, 0.9, 0.9999])
@pytest.mark.parametrize("second", [0.1, 0.9, 1.0, 1.7, 2.0, 3.1, 50.0])
@pytest.mark.parametrize("rho", [0.01, 0.3, 0.99])
def test_sgd_on_two_samples(p, second, rho):
    """λ = p² Σ (1−p)ᵏ log|ρ² + (1−ρ²)(1 − ηk₂)ᵏ|."""
    k = np.arange(60 / p)
    with np.errstate(over="ignore", divide="ignore"):
        powers = (1 - second) ** k
        logs = np.log(np.abs(rho + (1 - rho) * powers))
        large = k * math.log(abs(1 - second)) if second != 1 else logs
    logs = np.where(np.isinf(powers), math.log(1 - rho) + large, logs)
    expected = p * p * math.fsum((1 - p) ** k * logs)
    result = closed_form(sgd(rho, second, p))
    # the square root in the kernel is rounded
    assert result.value == pytest.approx(expected, rel=1e-10, abs=1e-12)
    assert result.upper - result.lower < 1e-10


@pytest.mark.parametrize("step_size", [0.1, 0.3, 3.0, 1e-200, 1e200])
def test_an_inverse_that_is_rounded(step_size):
    """η (1/η) need not be 1: the factor is singular up to rounding, which the interval covers."""
    agree(closed_form(sgd(0.25, 2.5, step_size=step_size)), 0.10551172445156578605)


@settings(deadline=None, max_examples=200)
@given(VECTORS, VECTORS, MATRICES, st.floats(0.1, 0.95))
def test_any_two_factors_of_which_one_has_rank_one(u, w, other, p):
    """Either nothing is claimed, or the sum of the series is inside the interval."""
    expected = series(u, w, other, p)
    result = renewal_series(FiniteLaw([np.outer(u, w), other], [p, 1 - p]))
    if result is None:  # complex or double eigenvalues
        assert np.trace(other) ** 2 <= 4 * (other[0, 0] * other[1, 1] - other[0, 1] * other[1, 0])
    elif expected == -math.inf:
        assert result.value == -math.inf
    else:
        assert result.value == pytest.approx(expected, rel=1e-11, abs=1e-11)
        assert result.lower - 1e-11 <= expected <= result.upper + 1e-11


@pytest.mark.parametrize(
    "law",
    [
        sgd(0.25, 2.5, 0.3),
        FiniteLaw([np.outer([1, 2], [0.3, -1]), [[2.0, 1.0], [1.0, 1.0]]], [0.4, 0.6]),
        FiniteLaw([np.outer([1, 2], [3, 1]), [[1.0, 2.0], [3.0, 0.0]]], [0.7, 0.3]),
    ],
)
def test_against_the_other_methods(law):
    result = closed_form(law)
    operator = transfer(law)
    assert abs(operator.value - result.value) <= operator.upper - operator.lower + 1e-9
    simulated = monte_carlo(law, rng=1)
    assert abs(simulated.value - result.value) < 2.2 * (simulated.upper - simulated.value)


@pytest.mark.parametrize(
    "law",
    [
        FiniteLaw([[[0, 1], [0, 0]], [[1, 2], [3, 4]]]),  # A₁² = 0
        FiniteLaw([[[1, 0], [0, 0]], [[0, -1], [1, 0]]]),  # A₁A₂A₁ = 0, complex eigenvalues
        FiniteLaw([[[1, 2], [2, 4]], [[1, 1], [-1, -1]]]),  # A₂² = 0
        FiniteLaw([[[1, 2], [3, 4]], [[0, 0], [0, 0]]]),
        FiniteLaw([[[1, 1], [1, 1]], [[2, 0], [0, -2]]]),  # A₁A₂A₁ = 0, eigenvalues ±2
        SGDLaw([[1, 0.5], [0.5, 1.25]], 1.0),  # after sample 2, sample 1 removes the rest
    ],
)
def test_products_that_vanish(law):
    result = closed_form(law)
    assert result.value == result.lower == result.upper == -math.inf


def test_a_late_zero():
    """wᵀA₂ᵏu = 2ᵏ − 2²⁰ vanishes at k = 20, and nowhere if 2²⁰ is replaced by 2²⁰ + 1/2."""

    def law(x):
        return FiniteLaw([[[1, -x], [1, -x]], [[2, 0], [0, 1]]], [0.1, 0.9])

    assert closed_form(law(2.0**20)).value == -math.inf
    expected = series([1, 1], np.array([1, -(2.0**20) - 0.5]), np.diag([2.0, 1.0]), 0.1)
    agree(closed_form(law(2.0**20 + 0.5)), expected)


@pytest.mark.parametrize(
    "law",
    [
        FiniteLaw([[[1, 0], [0, 0]], [[0.6, -0.8], [0.8, 0.6]]]),  # complex eigenvalues
        FiniteLaw([[[1, 2], [2, 4]], [[1, 1], [0, 1]]]),  # a double one
        FiniteLaw([[[1, 2], [2, 4 + 1e-12]], [[2, 1], [1, 1]]]),  # not of rank one
        FiniteLaw([[[1, 2], [2, 4]], [[1, 1e-9], [1e-9, 1]]], [1e-9, 1 - 1e-9]),  # slow
        FiniteLaw([[[1, 2], [2, 4]], [[2, 1], [1, 1]], [[1, 2], [3, 4]]]),  # three factors
        FiniteLaw([np.ones((3, 3)), np.diag([1.0, 2.0, 3.0])]),
        SGDLaw([[1, 0.5], [0.5, 2.5]], 1.0, SGD(reshuffle=True)),
        SGDLaw([[1, 0.5], [0.5, 2.5]], 1.0, SGD(batch_size=2, replacement=True)),
        SGDLaw([[1, 0.5, 0.1], [0.5, 2.5, 0.3], [0.1, 0.3, 1.0]], 1.0),
    ],
)
def test_what_is_not_claimed(law):
    assert renewal_series(law) is None


def test_a_factor_of_probability_zero_does_not_count():
    other = [[7.0, 1.0], [2.0, 3.0]]
    law = FiniteLaw([other, np.outer([1, 2], [3, 1]), [[1.0, 2.0], [3.0, 0.0]]], [0, 0.7, 0.3])
    plain = FiniteLaw(law.matrices[1:], [0.7, 0.3])
    assert closed_form(law) == closed_form(plain)


def test_a_mode_that_is_never_seen():
    """u is an eigenvector of A₂ = [[2, 1], [1, 2]] for its smaller eigenvalue 1, then 3."""
    for u, eigenvalue in (([1.0, -1.0], 1.0), ([1.0, 1.0], 3.0)):
        law = FiniteLaw([np.outer(u, [4.0, 1.0]), [[2.0, 1.0], [1.0, 2.0]]], [0.25, 0.75])
        agree(renewal_series(law), 0.25 * math.log(4 + u[1]) + 0.75 * math.log(eigenvalue))


@pytest.mark.parametrize("epsilon", [0.0, 1e-16, -1e-16, 4e-16])
def test_nearly_rank_one_factors_are_enclosed(epsilon):
    """The exponent moves by less than the interval when the factor is not quite singular."""
    near = np.array([[1.0, 2.0], [2.0, 4.0 + 8 * epsilon]])
    result = renewal_series(FiniteLaw([near, [[2.0, 1.0], [1.0, 1.0]]]))
    limit = series([1, 2], np.array([1.0, 2.0]), np.array([[2.0, 1.0], [1.0, 1.0]]), 0.5)
    assert result.lower <= limit + 1e-15
    assert limit - 1e-15 <= result.upper


def test_scaling_and_transposition():
    a, b = np.outer([1, 2], [0.3, -1]), np.array([[2.0, 1.0], [1.5, 1.0]])
    plain = renewal_series(FiniteLaw([a, b], [0.4, 0.6])).value
    agree(
        renewal_series(FiniteLaw([-7 * a, 3 * b], [0.4, 0.6])),
        plain + 0.4 * math.log(7) + 0.6 * math.log(3),
    )
    agree(renewal_series(FiniteLaw([a.T, b.T], [0.4, 0.6])), plain)
    agree(
        renewal_series(FiniteLaw([b * 2.0**500, a * 2.0**500], [0.6, 0.4])),
        plain + 500 * math.log(2),
    )


@pytest.mark.parametrize("law", [sgd(0.25, 2.5), sgd(0.3, 2.0), sgd(0.6, 1.7, 0.2)])
@pytest.mark.parametrize("tiny", [1e-1, 1e-3, 1e-6])
def test_the_rest_of_the_series_is_inside_the_interval(law, tiny, monkeypatch):
    exactly = renewal_series(law).value
    monkeypatch.setattr("stabcore.lyapunov.renewal.TINY", tiny)
    result = renewal_series(law)
    assert result.upper - result.lower > 1e-12
    assert result.lower <= exactly <= result.upper


@pytest.mark.parametrize("shift", [1e-15, 1e-71, 1e-217])
@pytest.mark.parametrize("second", [1.0, -1.0])
def test_nearly_double_eigenvalues_are_left_to_other_methods(shift, second):
    law = FiniteLaw([np.outer([1, second], [1, second]), [[1, shift], [shift, 1]]])
    result = renewal_series(law)
    exact = math.log(2) / 2 + math.log1p(second * shift) / 2  # they commute
    assert result is None or result.lower <= exact <= result.upper
