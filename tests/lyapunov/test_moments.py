import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from product_models import kernel, random_law

from stabcore import SGD, ExponentWarning, FiniteLaw, SGDLaw, gd_exponent, mean_square_edge
from stabcore.lyapunov import (
    closed_form,
    determinant_bound,
    mean_square_exponent,
    moment_exponent,
    moments,
    monte_carlo,
    subadditive_bound,
    tail_index,
)

POLLICOTT = FiniteLaw([[[2, 1], [1, 1]], [[3, 1], [2, 1]]])

POLLICOTT_EXPONENT = 1.1433110351029492458

FLIPS = [FiniteLaw([[[1 - eta]], [[1 + eta]]], [p, 1 - p]) for eta, p in [(0.3, 0.7), (1.25, 0.6)]]

WEIGHTS = np.array([0.1, 0.2, 0.3, 0.4])

NORMALS = st.lists(st.floats(-2, 2), min_size=8, max_size=8)


def contracting_law():
    """An SGD law with λ < 0 < L(q) for some q, in two dimensions."""
    return SGDLaw([[1.0, 1.1], [1.1, 2.0]], 1.2)


def test_products_that_vanish():
    nilpotent = FiniteLaw([[[0.0, 5.0], [0.0, 0.0]]])
    swapped = FiniteLaw([[[0.0, 1.0, 2.0], [0.0, 0.0, 0.0], [0.0, 4.0, 0.0]]])  # not triangular
    assert mean_square_exponent(SGDLaw(np.eye(2), 2.0, SGD(batch_size=2))).lower == -math.inf
    for law in (nilpotent, swapped, SGDLaw([[2.0]], 0.5)):
        assert mean_square_exponent(law).value == -math.inf
        assert moment_exponent(law, 3.0).value == -math.inf
        assert tail_index(law) == math.inf
    assert subadditive_bound(nilpotent, 2).upper == -math.inf
    assert subadditive_bound(swapped, 3).upper == -math.inf
    assert determinant_bound(nilpotent).value == -math.inf
    assert determinant_bound(SGDLaw(kernel(1, 2), 1 / kernel(1, 2)[0, 0])).lower == -math.inf


def test_factors_too_large_for_their_squares():
    for scale in (1e-200, 1e200):
        law = FiniteLaw(POLLICOTT.matrices * scale)
        for quantity in (
            mean_square_exponent,
            determinant_bound,
            lambda x: subadditive_bound(x, 5),
            lambda x: moment_exponent(x, 1.0),
        ):
            difference = quantity(law).value - quantity(POLLICOTT).value
            assert difference == pytest.approx(math.log(scale), rel=1e-12)
    assert mean_square_exponent(SGDLaw(kernel(1, 3), 1e6)).sign == 1


def test_factors_of_very_different_sizes():
    large, small = 1e200 * POLLICOTT.matrices[0], 1e-180 * POLLICOTT.matrices[1]
    law, shift = FiniteLaw([large, small]), 10 * math.log(10)
    for quantity in (determinant_bound, lambda x: subadditive_bound(x, 5)):
        assert quantity(law).value == pytest.approx(quantity(POLLICOTT).value + shift, rel=1e-13)
    # All that counts in mean square is the large factor: log ρ(A) + ½ log p.
    expected = 200 * math.log(10) + math.log((3 + math.sqrt(5)) / 2) - math.log(2) / 2
    assert mean_square_exponent(law).value == pytest.approx(expected, rel=1e-14)
    assert moment_exponent(law, 4.0).value == pytest.approx(
        4 * (expected + math.log(2) / 4), rel=1e-14
    )
    # For small q both count: L(q)/q → λ, in which 1e200 and 1e-180 nearly cancel.
    slope = moment_exponent(law, 1e-6, tolerance=1e-12).value / 1e-6
    variance = (190 * math.log(10)) ** 2
    assert slope == pytest.approx(POLLICOTT_EXPONENT + shift + 1e-6 * variance / 2, abs=1e-2)
    # Here no product of two equal factors is left, and the squares of the others underflow.
    corners = FiniteLaw([[[0, 1e200], [0, 0]], [[0, 0], [1e-200, 0]]])
    result = mean_square_exponent(corners)
    assert result.lower <= math.log(0.5) / 2 <= result.upper
    assert not result.converged


@pytest.mark.parametrize("law", FLIPS)
def test_moments_of_label_flips(law):
    """L is convex, L(0) = 0, L'(0) = Λ."""
    values = law.matrices.ravel()

    def naive(q):
        return math.log(law.probabilities @ np.abs(values) ** q)

    grid = np.linspace(0.05, 5, 100)
    curve = np.array([moment_exponent(law, q).value for q in grid])
    assert curve == pytest.approx([naive(q) for q in grid], abs=1e-14)
    assert (np.diff(curve, 2) > 0).all()
    small = moment_exponent(law, 1e-7)
    assert small.kind == "exact"
    assert small.value / 1e-7 == pytest.approx(closed_form(law).value, abs=1e-6)


def test_tail_index_of_label_flips():
    flips, half = FLIPS[0], FiniteLaw([[[0.6]], [[1.4]]])
    assert tail_index(half) == pytest.approx(1.0, abs=1e-12)  # E|A| = 1
    a = np.abs(flips.matrices.ravel())
    index = tail_index(flips)
    assert flips.probabilities @ a**index == pytest.approx(1, abs=1e-12)
    assert index > 1  # E A < 1
    attracted = FLIPS[1]  # Λ < 0 < L(1)
    assert 0 < tail_index(attracted) < 1
    assert moment_exponent(attracted, 1.0).sign == 1


def test_tail_index_of_parallel_gradients():
    """Mean square edge: there the tail index is 2."""
    matrix = np.outer([1.0, 2.0, 1.5], [1.0, 2.0, 1.5])
    for size in (1, 2):
        edge = mean_square_edge(matrix, SGD(batch_size=size))
        assert tail_index(SGDLaw(matrix, edge, SGD(batch_size=size))) == pytest.approx(2, abs=1e-9)


def test_tail_index_in_two_dimensions():
    matrix = [[1.0, 1.1], [1.1, 2.0]]
    edge = mean_square_edge(matrix)
    assert tail_index(SGDLaw(matrix, edge)) == pytest.approx(2, abs=1e-6)
    assert tail_index(SGDLaw(matrix, 1.05 * edge)) < 2 < tail_index(SGDLaw(matrix, 0.95 * edge))
    assert tail_index(SGDLaw(matrix, 0.9)) == math.inf  # ηk_i < 2: no factor expands


@pytest.mark.parametrize("law", [POLLICOTT, FiniteLaw([[[0.5]], [[3.0]]]), SGDLaw([[3.0]], 1.0)])
def test_no_tail_index_of_an_unstable_law(law):
    with pytest.raises(ValueError, match=r"needs λ < 0.*choose another step_size"):
        tail_index(law)


def test_no_tail_index_when_only_single_factors_expand():
    shear = FiniteLaw([[[0.5, 9.0], [0.0, 0.5]]])
    with pytest.raises(ValueError, match="long products may never expand"):
        tail_index(shear)


@pytest.mark.parametrize(
    "law",
    [
        POLLICOTT,
        random_law(10),
        random_law(11, 5),
        SGDLaw(kernel(12, 2), 0.7),
        SGDLaw(kernel(13, 3, 2), 0.5, SGD(batch_size=2)),
        SGDLaw(kernel(13, 3, 2), 1.5),
    ],
)
def test_moments_in_the_plane(law):
    """Even moments from tensor powers, all others from the operator: one convex curve."""
    orders = [0.5, 1.0, 2.0, 3.0, 4.0, 5.0]
    curve = [moment_exponent(law, q) for q in orders]
    assert [result.method == "mean square" for result in curve] == [q in (2, 4) for q in orders]
    slopes = [result.value / q for result, q in zip(curve, orders, strict=True)]
    assert all(a <= b + 1e-9 for a, b in pairwise(slopes))  # L(q)/q increases
    for q, result in ((2.0, curve[2]), (4.0, curve[4])):
        below, above = (moment_exponent(law, q * (1 + s)).value for s in (-1e-5, 1e-5))
        assert (below + above) / 2 == pytest.approx(result.value, abs=1e-8)
    for result in curve:
        assert result.upper - result.lower < 1e-5


def test_the_slope_at_zero_is_the_exponent():
    small = 1e-6
    assert moment_exponent(POLLICOTT, small).value / small == pytest.approx(
        POLLICOTT_EXPONENT, abs=1e-4
    )
    law = contracting_law()
    simulated = monte_carlo(law, 0, steps=2000)
    rate = moment_exponent(law, 1e-4).value / 1e-4
    assert simulated.lower - 1e-3 < rate < simulated.upper + 1e-3


@pytest.mark.parametrize("q", [0.5, 1.0, 3.0])
def test_exact_moments_in_the_plane(q):
    rotation = [[math.cos(1), -math.sin(1)], [math.sin(1), math.cos(1)]]
    scaled = FiniteLaw([np.multiply(2, rotation), np.multiply(0.5, np.linalg.inv(rotation))])
    isometric = moment_exponent(scaled, q)
    assert isometric.value == pytest.approx(math.log((2**q + 0.5**q) / 2), abs=1e-12)
    assert isometric.converged
    # Rank one: A_i = u_i wᵀ multiplies by w·u_i. One eigenfunction vanishes at the common kernel.
    u, w = np.array([[1.0, 0.3], [-0.2, 0.9], [2.0, -0.5]]), np.array([0.6, 0.7])
    rank_one = moment_exponent(FiniteLaw(u[:, :, None] * w), q)
    assert rank_one.value == pytest.approx(math.log((np.abs(u @ w) ** q).mean()), abs=1e-9)
    # Triangular in a turned basis: the largest of the two moments.
    triangular = np.array([[[2.0, 1.0], [0.0, 0.5]], [[0.5, -1.0], [0.0, 0.4]]])
    expected = math.log((2**q + 0.5**q) / 2)
    assert moment_exponent(FiniteLaw(triangular), q).value == pytest.approx(expected, abs=1e-13)
    turned = moment_exponent(FiniteLaw(rotation @ triangular @ np.linalg.inv(rotation)), q)
    assert turned.value == pytest.approx(expected, abs=1e-6)


def test_moments_of_groups_and_single_factors():
    k, step_size = np.array([1.0, 4.0]), 0.9
    expected = np.log((1 + np.abs(1 - step_size * k) ** 3) / 2).max()
    assert moment_exponent(SGDLaw(np.diag(k), step_size), 3.0).value == pytest.approx(expected)
    matrix = random_law(14, 1, 4).matrices
    radius = np.abs(np.linalg.eigvals(matrix[0])).max()
    single = moment_exponent(FiniteLaw(matrix), 1.7)
    assert single.value == pytest.approx(1.7 * math.log(radius))
    three = random_law(15, 3, 3)
    fourth = sum(
        w * np.kron(np.kron(a, a), np.kron(a, a))
        for a, w in zip(three.matrices, three.probabilities, strict=True)
    )
    expected = math.log(np.abs(np.linalg.eigvals(fourth)).max())
    assert moment_exponent(three, 4.0).value == pytest.approx(expected)


def test_a_moment_that_is_not_covered_says_what_is():
    with pytest.raises(ValueError, match="covers every q > 0 where the law splits"):
        moment_exponent(SGDLaw(kernel(1, 3), 0.1), 1.0)


def test_rough_moments_admit_it():
    law = SGDLaw(kernel(16, 2), 30.0)
    result = moment_exponent(law, 0.05, tolerance=1e-13)
    assert not result.converged
    assert "above the tolerance" in result.status


def test_an_index_that_cannot_be_trusted_warns(monkeypatch):
    monkeypatch.setattr(moments, "GRIDS", moments.GRIDS[:4])
    with pytest.warns(ExponentWarning, match="cannot be trusted to all digits"):
        tail_index(contracting_law(), tolerance=1e-13)


@settings(deadline=None, max_examples=15)
@given(NORMALS, st.floats(0.1, 10), st.floats(0.2, 4))
def test_scaling(entries, factor, q):
    law = FiniteLaw(np.reshape(entries, (2, 2, 2)) + np.eye(2))
    scaled = FiniteLaw(-factor * law.matrices)
    first, second = (moment_exponent(one, q, tolerance=1e-6) for one in (law, scaled))
    if first.upper - first.lower < 1e-4:
        assert second.value == pytest.approx(first.value + q * math.log(factor), abs=1e-4)
    first, second = mean_square_exponent(law), mean_square_exponent(scaled)
    if first.value > -10:
        assert second.value == pytest.approx(first.value + math.log(factor), abs=1e-6)


@settings(deadline=None, max_examples=30)
@given(NORMALS)
def test_bounds_are_ordered(entries):
    law = FiniteLaw(np.reshape(entries, (2, 2, 2)) + np.eye(2))
    below = determinant_bound(law)
    above = [subadditive_bound(law, n) for n in (1, 2, 4, 8)]
    assert below.lower <= below.value
    for first, second in pairwise(above):
        assert second.value <= first.upper + 1e-12
    assert below.lower <= above[-1].upper
    assert below.lower <= mean_square_exponent(law).upper + 1e-12


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 4), st.floats(0.05, 3), st.booleans())
def test_mean_square_is_above_what_is_stable(seed, size, step_size, replacement):
    law = SGDLaw(kernel(seed, 4, 3), step_size, SGD(batch_size=size, replacement=replacement))
    mean_square = mean_square_exponent(law)
    assert determinant_bound(law).lower <= mean_square.upper
    assert gd_exponent(law.minimum, step_size).lower <= mean_square.upper  # Jensen
    edge = mean_square_edge(law.minimum, SGD(batch_size=size, replacement=replacement))
    if abs(step_size / edge - 1) > 1e-6:
        assert mean_square.sign == (-1 if step_size < edge else 1)


def test_factors_of_probability_zero_play_no_part():
    matrices = np.concatenate([POLLICOTT.matrices, [np.zeros((2, 2))], [1e9 * np.eye(2)]])
    law = FiniteLaw(matrices, [0.5, 0.5, 0, 0])
    for quantity in (
        mean_square_exponent,
        determinant_bound,
        lambda x: subadditive_bound(x, 3),
        lambda x: moment_exponent(x, 1.0),
    ):
        assert quantity(law).value == pytest.approx(quantity(POLLICOTT).value, abs=1e-12)
    assert tail_index(FiniteLaw([[[0.5]], [[7.0]]], [1, 0])) == math.inf


@pytest.mark.parametrize(
    "function",
    [
        mean_square_exponent,
        tail_index,
        determinant_bound,
        lambda law: moment_exponent(law, 1.0),
        lambda law: subadditive_bound(law, 1),
    ],
)
def test_a_bare_kernel_is_refused(function):
    with pytest.raises(TypeError, match="law must be a FiniteLaw or an SGDLaw"):
        function(np.eye(2))


def test_validation():
    with pytest.raises(ValueError, match="q must be"):
        moment_exponent(POLLICOTT, 0.0)
    with pytest.raises(ValueError, match="tolerance must be"):
        moment_exponent(POLLICOTT, 1.0, tolerance=0.0)
    with pytest.raises(ValueError, match="n must be"):
        subadditive_bound(POLLICOTT, 0)
    with pytest.raises(ValueError, match="choose a smaller n or raise limit"):
        subadditive_bound(POLLICOTT, 30)
    with pytest.raises(ValueError, match="use a smaller batch_size"):
        determinant_bound(SGDLaw(kernel(1, 30), 0.1, SGD(batch_size=10)))
    with pytest.raises(ValueError, match="batch_size is 5"):
        mean_square_edge(np.eye(3), SGD(batch_size=5))


def test_reshuffled_epochs_are_refused():
    law = SGDLaw(np.eye(2), 0.5, SGD(reshuffle=True))
    for function in (mean_square_exponent, tail_index):
        with pytest.raises(ValueError, match="reshuffle=False"):
            function(law)
    assert determinant_bound(law) == determinant_bound(SGDLaw(np.eye(2), 0.5))
