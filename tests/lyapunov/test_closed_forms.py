import math
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stabcore import SGD, FiniteLaw, Minimum, ReluPair, SGDLaw, gd_exponent, lyapunov_exponent
from stabcore.lyapunov import closed_form

CURVATURES = st.lists(st.floats(0.1, 10), min_size=1, max_size=4)
STEPS = st.floats(0.05, 5)


def parallel(curvatures):
    norms = np.sqrt(curvatures)
    return np.outer(norms, norms)


def mean_log(curvatures, step_size, batch_size, probabilities=None, *, replacement=True):
    """Return E log|1 − η · mean of k over the batch| over all ordered batches, one by one."""
    samples = range(len(curvatures))
    weights = [1 / len(curvatures)] * len(curvatures) if probabilities is None else probabilities
    batches = list(
        product(samples, repeat=batch_size) if replacement else permutations(samples, batch_size)
    )
    total = 0.0
    for batch in batches:
        share = math.prod(weights[i] for i in batch) if replacement else 1 / len(batches)
        factor = abs(1 - step_size * sum(curvatures[i] for i in batch) / batch_size)
        if share:
            total += share * math.log(factor)
    return total


def agree(result, expected):
    assert result.kind == "exact"
    assert result.value == pytest.approx(expected, rel=1e-9, abs=1e-11)
    assert result.lower - 1e-13 <= expected <= result.upper + 1e-13


def regular(step_size, values):
    """Whether no factor is so near 0 that the naive twin loses its digits."""
    return all(abs(1 - step_size * k) > 1e-3 for k in values)


@settings(deadline=None, max_examples=100)
@given(CURVATURES, STEPS)
def test_parallel_gradients(curvatures, step_size):
    if regular(step_size, curvatures):
        result = closed_form(SGDLaw(parallel(curvatures), step_size))
        agree(result, mean_log(curvatures, step_size, 1))


@settings(deadline=None, max_examples=100)
@given(CURVATURES, STEPS)
def test_orthogonal_gradients(curvatures, step_size):
    """λ = max_i p_i log|1 − ηk_i|."""
    if regular(step_size, curvatures):
        p = np.arange(1.0, len(curvatures) + 1)
        p /= p.sum()
        expected = max(
            q * math.log(abs(1 - step_size * k)) for q, k in zip(p, curvatures, strict=True)
        )
        agree(closed_form(SGDLaw(Minimum(np.diag(curvatures), p), step_size)), expected)


@pytest.mark.parametrize("batch_size", [1, 2, 3])
@pytest.mark.parametrize("replacement", [True, False])
def test_batches_of_parallel_gradients(batch_size, replacement):
    curvatures, step_size = [1.0, 2.0, 3.5, 0.7], 0.83
    law = SGDLaw(
        parallel(curvatures), step_size, SGD(batch_size=batch_size, replacement=replacement)
    )
    agree(closed_form(law), mean_log(curvatures, step_size, batch_size, replacement=replacement))


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_weighted_batches_of_parallel_gradients(batch_size):
    curvatures, p = [1.0, 2.0, 3.5], [0.5, 0.3, 0.2]
    law = SGDLaw(Minimum(parallel(curvatures), p), 0.83, SGD(batch_size=batch_size))
    agree(closed_form(law), mean_log(curvatures, 0.83, batch_size, p))


@pytest.mark.parametrize("batch_size", [1, 2, 3])
@pytest.mark.parametrize("replacement", [True, False])
def test_batches_of_orthogonal_groups(batch_size, replacement):
    """Two groups of parallel gradients: a group sees only its own share of each batch."""
    curvatures, step_size = np.array([1.0, 2.0, 3.5, 0.7]), 0.83
    kernel = np.zeros((4, 4))
    kernel[:2, :2], kernel[2:, 2:] = parallel(curvatures[:2]), parallel(curvatures[2:])
    expected = max(
        mean_log(curvatures * inside, step_size, batch_size, replacement=replacement)
        for inside in (np.array([1, 1, 0, 0]), np.array([0, 0, 1, 1]))
    )
    law = SGDLaw(kernel, step_size, SGD(batch_size=batch_size, replacement=replacement))
    agree(closed_form(law), expected)


@pytest.mark.parametrize("step_size", [0.1, 0.5, 0.8])
def test_the_full_batch_is_gradient_descent(step_size):
    kernel = np.array([[2.0, 0.3, 0.1], [0.3, 1.0, -0.5], [0.1, -0.5, 4.0]])
    result = closed_form(SGDLaw(kernel, step_size, SGD(batch_size=3)))
    assert result.value == pytest.approx(gd_exponent(kernel, step_size).value, rel=1e-13)
    agree(result, math.log(np.abs(np.linalg.eigvalsh(np.eye(3) - step_size * kernel / 3)).max()))


def test_one_sample():
    """λ = μ = log|1 − ηk|."""
    for step_size in (0.1, 0.9, 3.0):
        expected = math.log(abs(1 - 2 * step_size))
        agree(closed_form(SGDLaw([[2.0]], step_size)), expected)
        agree(
            closed_form(SGDLaw([[2.0]], step_size, SGD(batch_size=3, replacement=True))), expected
        )
        agree(gd_exponent([[2.0]], step_size), expected)


@pytest.mark.parametrize(
    ("eta", "p", "s"), [(0.15, 0.5, 2.3), (0.15, 0.5, 7.0), (0.3, 0.58, 2.2), (0.3, 0.58, 4.0)]
)
def test_paper_d_formula(eta, p, s):
    problem = ReluPair(probabilities=[p, 1 - p])
    law = SGDLaw(Minimum.at(problem, problem.minimum(s)), eta)
    expected = p * math.log(abs(1 - eta * 0.81 * s)) + (1 - p) * math.log(abs(1 - eta * 6.25 * s))
    agree(closed_form(law), expected)


@pytest.mark.parametrize(
    "law",
    [
        SGDLaw([[2.0]], 0.5),
        SGDLaw([[1.0, 2.0], [2.0, 4.0]], 0.25),
        SGDLaw(np.diag([2.0, 2.0]), 0.5),
        FiniteLaw([[[0.0]], [[5.0]]]),
        FiniteLaw([[[0.0, 1.0], [0.0, 0.0]]]),
        FiniteLaw([[[0.0, 1.0], [0.0, 3.0]], [[2.0, 1.0], [0.0, 0.0]]]),
    ],
)
def test_products_that_vanish(law):
    result = lyapunov_exponent(law)
    assert result.value == result.lower == result.upper == -math.inf
    assert result.sign == -1


def test_one_vanishing_group_does_not_hide_the_other():
    agree(closed_form(SGDLaw(np.diag([2.0, 3.0]), 0.5)), 0.5 * math.log(0.5))


def test_samples_of_probability_zero_do_not_count():
    agree(closed_form(SGDLaw(Minimum(parallel([2.0, 3.0]), [0, 1]), 0.5)), math.log(0.5))
    assert closed_form(SGDLaw(Minimum(np.diag([2.0, 3.0]), [0, 1]), 0.5)).value == 0
    law = FiniteLaw([[[2.0, 1.0], [1.0, 1.0]], [[3.0, 0.0], [0.0, 0.5]]], [0, 1])
    agree(closed_form(law), math.log(3))


def test_gradients_that_vanish_move_nothing():
    agree(closed_form(SGDLaw(np.diag([0.0, 3.0]), 0.5)), 0.5 * math.log(0.5))


@pytest.mark.parametrize("transpose", [False, True])
def test_triangular_factors(transpose):
    """The exponents are the mean logarithms of the diagonals."""
    a = np.array([[2.0, 5.0, -1.0], [0.0, 0.5, 3.0], [0.0, 0.0, 0.9]])
    b = np.array([[0.3, -2.0, 4.0], [0.0, 3.0, 1.0], [0.0, 0.0, -1.2]])
    law = FiniteLaw([a.T, b.T] if transpose else [a, b], [0.25, 0.75])
    expected = max(0.25 * math.log(abs(a[i, i])) + 0.75 * math.log(abs(b[i, i])) for i in range(3))
    agree(closed_form(law), expected)


@pytest.mark.parametrize(
    ("matrix", "radius"),
    [
        ([[2.0, 1.0], [1.0, 1.0]], (3 + math.sqrt(5)) / 2),
        ([[0.0, -2.0], [2.0, 0.0]], 2.0),
        ([[1.0, 100.0], [0.01, 1.0]], 2.0),
        (np.eye(3)[[1, 2, 0]] * 0.5, 0.5),
    ],
)
def test_one_factor_grows_with_its_spectral_radius(matrix, radius):
    agree(closed_form(FiniteLaw([matrix])), math.log(radius))


def test_a_single_triangular_factor_keeps_all_digits():
    """A Jordan block, whose computed eigenvectors are useless."""
    result = closed_form(FiniteLaw([[[2.0, 1.0], [0.0, 2.0]]]))
    assert result.value == pytest.approx(math.log(2), rel=1e-15)
    assert result.upper - result.lower < 1e-12


@pytest.mark.parametrize("matrix", [[[1.0, -1.0], [1.0, -1.0]], [[1.0, -0.1], [10.0, -1.0]]])
def test_a_nilpotent_factor_is_inside_its_interval(matrix):
    """Its computed eigenvalues are not zero; the interval must own up to that."""
    assert closed_form(FiniteLaw([matrix])).lower == -math.inf


def test_scaling_and_transposition():
    matrix = np.array([[2.0, 1.0], [1.0, 3.0]])
    plain = closed_form(FiniteLaw([matrix])).value
    agree(closed_form(FiniteLaw([-7 * matrix])), plain + math.log(7))
    agree(closed_form(FiniteLaw([matrix.T])), plain)


@pytest.mark.parametrize("scale", [1e-200, 1e-100, 1e100])
def test_only_the_product_of_step_and_kernel_matters(scale):
    kernel = np.array([[1.0, 2.0], [2.0, 4.0]])
    expected = closed_form(SGDLaw(kernel, 0.4)).value
    agree(closed_form(SGDLaw(scale * kernel, 0.4 / scale)), expected)


@pytest.mark.parametrize(
    "law",
    [
        SGDLaw([[1.0, 0.5], [0.5, 2.0]], 0.4),
        SGDLaw([[1e-200, 5e-201], [5e-201, 2e-200]], 0.4e200),  # the same, in other units
        SGDLaw([[1.0, 0.999999], [0.999999, 1.0]], 0.5),
        FiniteLaw([[[2.0, 1.0], [1.0, 1.0]], [[3.0, 1.0], [2.0, 1.0]]]),
        FiniteLaw([[[1.0, 1.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 1.0]]]),
    ],
)
def test_no_closed_form_is_claimed_where_there_is_none(law):
    assert closed_form(law) is None
    with pytest.raises(ValueError, match="algorithm 'closed_form' does not know"):
        lyapunov_exponent(law, "closed_form")


def test_reflections_have_exponent_exactly_zero():
    result = lyapunov_exponent(SGDLaw(parallel([4.0, 4.0]), 0.5))
    assert (result.value, result.sign) == (0.0, 0)


def test_a_step_lost_to_rounding_is_still_stable():
    assert closed_form(SGDLaw([[1.0]], 1e-17)).sign == -1


HIDDEN = np.array([[1, 0.7], [0.3, 1.2]])


@pytest.mark.parametrize("diagonals", [((2, 0.5), (1.5, 0.25)), ((0.5, 2), (0.25, 1.5))])
def test_a_hidden_common_eigenvector(diagonals):
    """Triangular in another basis: the larger of E log|a| and E log|d|."""
    matrices = [HIDDEN @ [[a, 1], [0, d]] @ np.linalg.inv(HIDDEN) for a, d in diagonals]
    result = closed_form(FiniteLaw(matrices))
    assert result.kind == "exact"
    assert result.lower <= math.log(3) / 2 <= result.upper
    assert result.upper - result.lower < 1e-12


def test_a_shear_has_a_common_eigenvector_with_itself_and_its_square():
    """[[1, 1], [1, 1]] and its square: both of rank one, log 2 and log 4."""
    rank_one = np.ones((2, 2))
    agree(closed_form(FiniteLaw([rank_one, rank_one @ rank_one])), 1.5 * math.log(2))
    # nothing is known of a third factor: across, all is rounding
    assert closed_form(FiniteLaw([rank_one, rank_one @ rank_one, 3 * rank_one])) is None


def test_no_common_eigenvector():
    rotation = np.array([[0.6, -0.8], [0.8, 0.6]])
    assert closed_form(FiniteLaw([rotation, rotation @ rotation])) is None
    assert closed_form(FiniteLaw([[[2, 1], [1, 1]], [[3, 1], [2, 1]]])) is None


@pytest.mark.parametrize("law", [None, np.eye(2)])
def test_what_is_no_law(law):
    with pytest.raises(
        TypeError, match="law must be a FiniteLaw, SGDLaw, MomentumLaw or SampledLaw"
    ):
        closed_form(law)


def test_factors_that_exchange_two_lines():
    """λ = (1/2) E log|det A|, by a plain simulation of the two coordinates, kept apart."""
    shear = np.array([[1, 2], [1, 3]])  # integers, of determinant 1: the change of basis is exact
    inverse = np.array([[3, -2], [-1, 1]])
    one, two, three = np.diag([4, 0.5]), np.array([[0, 3], [0.25, 0]]), np.array([[0, -1], [1, 0]])
    law = FiniteLaw([shear @ a @ inverse for a in (one, two, three)], [0.5, 0.25, 0.25])
    result = closed_form(law)
    assert result.kind == "exact"
    assert result.value == pytest.approx(0.25 * math.log(2) + 0.125 * math.log(0.75), rel=1e-14)
    rng, runs = np.random.default_rng(0), 2000
    line, growth = np.zeros(runs, int), np.zeros(runs)
    rates = np.log([[4, 0.5], [0.25, 3], [1, 1]])  # from line 0, from line 1
    for _ in range(2000):
        drawn = rng.choice(3, size=runs, p=[0.5, 0.25, 0.25])
        growth += rates[drawn, line]
        line = np.where(drawn == 0, line, 1 - line)
    error = growth.std() / math.sqrt(runs) / 2000
    assert abs(growth.mean() / 2000 - result.value) < 4 * error


def test_a_reflection_that_exchanges_the_axes_of_the_other_step():
    """ηk_1 = 2 and 45 degrees: 3/8 log 3; what is nearly so is not taken for it."""
    law = SGDLaw(Minimum([[2, 2], [2, 4.0]], [0.25, 0.75]), 1.0)
    assert closed_form(law).value == pytest.approx(3 / 8 * math.log(3), rel=1e-15)
    assert closed_form(SGDLaw(Minimum([[2, 2], [2, 4.0 + 1e-12]], [0.25, 0.75]), 1.0)) is None
    assert closed_form(law.at(1.0 + 1e-12)) is None


@pytest.mark.parametrize("scale", [2, 4, 8, 3, 1000])
def test_an_exact_zero(scale):
    """A quarter turn exchanges the axes, and the determinants are 1 but for rounding."""
    result = closed_form(FiniteLaw([[[scale, 0], [0, 1 / scale]], [[0, -1], [1, 0]]]))
    assert result.lower <= 0 <= result.upper
    assert result.upper < 1e-14


def test_a_single_factor_is_known_to_rounding():
    """λ = log of the spectral radius: log((3 + √5)/2) here."""
    found = lyapunov_exponent(FiniteLaw([[[2.0, 1.0], [1.0, 1.0]]]))
    assert found.lower <= math.log((3 + math.sqrt(5)) / 2) <= found.upper
    assert found.upper - found.lower < 1e-13
