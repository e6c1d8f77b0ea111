"""The transfer operator against known exponents, exact symmetries and simulation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stabcore import SGD, FiniteLaw, Minimum, SGDLaw, lyapunov_exponent
from stabcore.lyapunov import enclosure, monte_carlo, transfer

POLLICOTT = FiniteLaw([[[2, 1], [1, 1]], [[3, 1], [2, 1]]])
POLLICOTT_EXPONENT = 1.1433110351029492458
RENEWAL_KERNEL = [[1, 0.5 * math.sqrt(2.5)], [0.5 * math.sqrt(2.5), 2.5]]
BASIS = np.array([[1, 0.7], [0.3, 1.2]])


def conjugate(matrices):
    """Hide the structure of matrices by a change of basis."""
    return BASIS @ np.array(matrices) @ np.linalg.inv(BASIS)


def covers(result, truth):
    return result.lower <= truth <= result.upper


@pytest.mark.parametrize("tolerance", [1e-6, 1e-10, 1e-12])
def test_pollicott_pair(tolerance):
    result = transfer(POLLICOTT, tolerance=tolerance)
    assert result.converged
    assert covers(result, POLLICOTT_EXPONENT)
    assert result.upper - result.value <= tolerance


def test_a_singular_factor_against_the_renewal_series():
    result = transfer(SGDLaw(RENEWAL_KERNEL, 1.0))
    assert result.converged
    assert covers(result, 0.10551172445156578605)


def test_random_fibonacci_is_rough_and_says_so():
    """log 1.13198824; the matrices expand and contract in turn, and h is only Hölder continuous."""
    result = transfer(FiniteLaw([[[0, 1], [1, 1]], [[0, 1], [1, -1]]]))
    assert "rough" in result.status
    assert covers(result, math.log(1.13198824))
    assert result.upper - result.lower < 2e-4


@pytest.mark.parametrize("step_size", [1.3, 0.9, 0.3, 0.03, 0.003])
def test_sgd_against_simulation(step_size):
    law = SGDLaw(RENEWAL_KERNEL, step_size)
    exact = transfer(law, tolerance=1e-6)
    assert exact.converged
    simulated = monte_carlo(law, 0, steps=100_000)
    assert abs(simulated.value - exact.value) < 4 * simulated.standard_error


def test_isometries_have_exponent_zero():
    angle = 2 * math.pi / 5
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    law = FiniteLaw([rotation, rotation @ rotation, [[1, 0], [0, -1]]])
    result = transfer(law)
    assert result.converged
    assert covers(result, 0.0)
    assert result.upper < 1e-12


@pytest.mark.parametrize("diagonals", [((2, 0.5), (1.5, 0.25)), ((0.5, 2), (0.25, 1.5))])
def test_reducible_laws_report_the_top_exponent(diagonals):
    """Triangular in a hidden basis: exponents (log 3)/2 and −(log 8)/2, in either order."""
    matrices = [[[a, 1], [0, d]] for a, d in diagonals]
    result = transfer(FiniteLaw(conjugate(matrices)))
    assert covers(result, math.log(3) / 2)
    assert result.upper - result.lower < 1e-9


def test_an_invariant_line_that_does_not_matter_is_not_believed():
    """Upper triangular: −(log 2)/2 on the line, 0 elsewhere; leaking on to it finds −0.35."""
    law = FiniteLaw([[[0.5, 0], [0, 1]], [[1, 1], [0, 1]]])
    assert covers(transfer(law), 0.0)


def test_two_invariant_directions_are_told_apart():
    """Diagonal in a hidden basis: the growth rate does depend on the start."""
    matrices = [np.diag([3.0, 1.0]), np.diag([1.0, 2.0])]
    result = transfer(FiniteLaw(conjugate(matrices)))
    assert covers(result, math.log(3) / 2)


@pytest.mark.parametrize("factor", [1e-200, 1e-5, 1e150])
def test_scaling(factor):
    result = transfer(FiniteLaw(factor * POLLICOTT.matrices))
    assert result.value == pytest.approx(POLLICOTT_EXPONENT + math.log(factor), abs=1e-9)


def test_probability_zero_plays_no_part():
    matrices = [*POLLICOTT.matrices, [[0, 100], [-100, 0]]]
    result = transfer(FiniteLaw(matrices, [0.5, 0.5, 0]))
    assert covers(result, POLLICOTT_EXPONENT)


def test_many_factors_agree_with_the_same_law_written_out_thinly():
    """Pollicott's pair, each matrix three hundred times: the crowded assembly."""
    law = FiniteLaw(np.repeat(POLLICOTT.matrices, 300, axis=0))
    assert transfer(law).value == pytest.approx(transfer(POLLICOTT).value, abs=1e-11)


def test_batches_against_simulation():
    gradients = np.random.default_rng(3).normal(size=(16, 2))
    law = SGDLaw(gradients @ gradients.T, 0.4, SGD(batch_size=4))
    exact, simulated = transfer(law, tolerance=1e-5), monte_carlo(law, 0)
    assert exact.converged
    assert abs(simulated.value - exact.value) < simulated.upper - simulated.lower


def test_three_dimensions_block_of_the_plane():
    """Pollicott's pair beside a weak third direction, in a hidden basis."""
    basis = np.random.default_rng(0).normal(size=(3, 3))
    matrices = np.zeros((2, 3, 3))
    matrices[:, :2, :2] = POLLICOTT.matrices
    matrices[:, 2, 2] = [0.2, 0.3]
    law = FiniteLaw(basis @ matrices @ np.linalg.inv(basis))
    result = transfer(law, tolerance=1e-6)
    assert covers(result, POLLICOTT_EXPONENT)
    assert result.upper - result.lower < 1e-3


def test_three_dimensions_positive_matrices():
    matrices = 0.2 + np.abs(np.random.default_rng(1).normal(size=(2, 3, 3)))
    law = FiniteLaw(matrices)
    result = transfer(law, tolerance=1e-7)
    assert result.converged
    simulated = monte_carlo(law, 0, steps=200_000)
    assert abs(simulated.value - result.value) < 4 * simulated.standard_error


@given(entries=st.lists(st.floats(-2, 2), min_size=8, max_size=8), seed=st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_the_estimate_covers_a_finer_computation(entries, seed):
    """Also similarity and transposition: λ does not change, the grid sees another problem."""
    matrices = np.array(entries).reshape(2, 2, 2)
    a, b, c, d = matrices.reshape(2, 4).T
    if np.abs(a * d - b * c).min() < 1e-2:
        return
    coarse, fine = (transfer(FiniteLaw(matrices), tolerance=t) for t in (1e-3, 1e-7))
    assert coarse.lower - 1e-3 <= fine.value <= coarse.upper + 1e-3
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(2, 2)))
    for other in (rotation @ matrices @ rotation.T, np.swapaxes(matrices, 1, 2)):
        again = transfer(FiniteLaw(other), tolerance=1e-7)
        assert abs(again.value - fine.value) <= 1e-7 + 2 * (
            (again.upper - again.lower) + (fine.upper - fine.lower)
        )


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((FiniteLaw([[[1.0]]]),), ValueError, "dimension 2 or 3, got 1"),
        ((FiniteLaw([np.eye(4)]),), ValueError, "dimension 2 or 3, got 4"),
        (([[1.0, 0.0], [0.0, 1.0]],), TypeError, "law must be"),
        ((POLLICOTT, {"tolerance": 0.0}), ValueError, "tolerance"),
        ((POLLICOTT, {"tolerance": math.nan}), ValueError, "tolerance"),
    ],
)
def test_bad_input(arguments, error, words):
    law, *options = arguments
    with pytest.raises(error, match=words):
        transfer(law, **(options[0] if options else {}))


RARE = [
    (FiniteLaw([[[1.000001, 0.1], [0, 0.3]], [[0.05, 0.02], [0.03, 0.04]]], [1 - 1e-5, 1e-5]), -1),
    (SGDLaw(Minimum([[1, 1], [1, 10.0]], [1 - 1e-5, 1e-5]), 0.5), 1),
]


@pytest.mark.parametrize(("law", "sign"), RARE)
def test_a_simulation_that_never_drew_a_rare_factor_overrules_nothing(law, sign):
    result = transfer(law)
    assert result.converged
    assert result.sign == enclosure(law, decide_sign=True).sign == sign


def test_twenty_laws_with_a_rare_factor():
    rng = np.random.default_rng(0)
    for _ in range(20):
        law = FiniteLaw(rng.normal(size=(2, 2, 2)), [1 - 1e-5, 1e-5])
        result, proven = transfer(law, tolerance=1e-6), enclosure(law, width=1e-2, max_arcs=2**12)
        assert result.lower <= proven.upper
        assert proven.lower <= result.upper


@pytest.mark.parametrize("scale", [2, 4, 8, 3, 1000])
def test_an_exact_zero_has_no_sign(scale):
    """A quarter turn exchanges the axes: both exponents are (1/2) E log|det A| = 0."""
    law = FiniteLaw([[[scale, 0], [0, 1 / scale]], [[0, -1], [1, 0]]])
    result = transfer(law)
    assert covers(result, 0.0)
    assert result.sign is None


def test_a_layer_that_no_grid_sees():
    """Gradients at a cosine of 1e-12: λ is nearer to that of a coupled pair than to log(2)/2."""
    law = SGDLaw([[1, 1e-12], [1e-12, 1]], 3.0)
    result, simulated = lyapunov_exponent(law, rng=0), monte_carlo(law, 1, steps=60_000)
    assert abs(result.value - simulated.value) < 4 * simulated.standard_error
    assert simulated.value - math.log(2) / 2 > 4 * simulated.standard_error
    assert not transfer(law).converged


def test_rough_solutions_are_held_inside_a_proven_interval():
    """The grids of 24 to 384 points agree better than they are right."""
    rough = FiniteLaw([[[0, 1.625], [-0.25, -1]], [[0, 0.5], [-1, -2]]])
    for law in (rough, SGDLaw([[2, 1], [1, 3.0]], 0.4)):
        proven = enclosure(law, width=2e-5, max_arcs=2**20)
        for tolerance in (1e-2, 1e-3, 1e-4):
            result = transfer(law, tolerance=tolerance)
            assert result.lower <= proven.upper
            assert proven.lower <= result.upper


def two_gradients(first, angle, probability, step_size, batch_size):
    """Return the law of batches of two gradients, with `first` and 1 on the diagonal."""
    product = math.cos(math.radians(angle)) * math.sqrt(first)
    minimum = Minimum([[first, product], [product, 1]], [probability, 1 - probability])
    return SGDLaw(minimum, step_size, SGD(batch_size=batch_size, replacement=True))


# Grids that agree better than they are right: the changes from grid to grid shrink, and come back.
# The exponents are those of 12,288 points; the two halvings before them agree to all digits.
COMING_BACK = [
    (
        two_gradients(392.10199564158296, 89.78555454025313, 0.580916437775641, 2.7112092922188, 1),
        4.0478062,
    ),
    (
        two_gradients(
            3.144174676958281, 60.08559041542846, 0.7867663680837937, 0.58963912250919, 2
        ),
        -0.10717819,
    ),
]


@pytest.mark.parametrize("tolerance", [1e-8, 1e-10])
@pytest.mark.parametrize(("law", "value"), COMING_BACK)
def test_changes_that_come_back_are_not_forgotten(law, value, tolerance):
    assert covers(transfer(law, tolerance=tolerance), value)


# Pairs of normal matrices for which the changes from grid to grid, our estimate before, were too
# small at the tolerance that stands with them; the whole search had 1,500 pairs.
MISSED = {
    1e-2: (1040, 1224, 1612, 3520, 5156, 5204),
    1e-3: (1720, 2424, 2480, 3588, 5640),
    1e-5: (4012, 4216, 3152, 3388, 3512),
    1e-6: (1528,),
}


@pytest.mark.parametrize(
    ("seed", "tolerance"), [(seed, t) for t, seeds in MISSED.items() for seed in seeds]
)
def test_coarse_grids_claim_no_more_than_they_know(seed, tolerance):
    law = FiniteLaw(np.random.default_rng(seed).standard_normal((2, 2, 2)))
    coarse, fine = (transfer(law, tolerance=t) for t in (tolerance, tolerance / 100))
    assert coarse.converged
    assert fine.upper - fine.lower < (coarse.upper - coarse.lower) / 2
    assert coarse.lower <= fine.upper
    assert fine.lower <= coarse.upper


def test_three_dimensions_claim_no_more_than_they_know():
    rng = np.random.default_rng(5)
    for _ in range(6):
        gradients = rng.normal(size=(3, 3))
        law = SGDLaw(gradients @ gradients.T, 0.15)
        coarse, fine = (transfer(law, tolerance=t) for t in (1e-2, 1e-5))
        assert coarse.converged
        assert coarse.lower <= fine.upper
        assert fine.lower <= coarse.upper


@pytest.mark.parametrize("size", [2, 3])
def test_one_factor_that_leaves_every_axis_alone(size):
    """Growth does depend on the start, on the axes; from almost every start it is the largest."""
    result = transfer(FiniteLaw([np.diag([0.5, 1.0, 2.0][-size:])]), tolerance=1e-6)
    assert covers(result, math.log(2))
    assert result.converged


@pytest.mark.parametrize(
    ("step_size", "tolerance"),
    [(0.3, 1e-5), (0.3, 1e-7), (0.3, 1e-9), (0.03, 1e-7), (0.03, 1e-9)],  # also where T is slow
)
def test_where_the_solution_is_smooth_the_estimate_is_three_errors(step_size, tolerance):
    """What is left of the equation has one sign there, so its mean is the error."""
    law = SGDLaw(RENEWAL_KERNEL, step_size)
    result = transfer(law, tolerance=tolerance)
    error = abs(result.value - transfer(law, tolerance=1e-13).value)
    assert error / (result.upper - result.value) == pytest.approx(1 / 3, rel=0.15)


@pytest.mark.parametrize("step_size", [1e-3, 1e-4])
def test_a_finer_grid_that_is_too_slow_to_solve_costs_no_digits(step_size):
    """Small steps forget their start slowly, and only coarse grids are solved by factorisation."""
    coarse, fine = (transfer(SGDLaw(RENEWAL_KERNEL, step_size), tolerance=t) for t in (1e-6, 1e-13))
    assert fine.upper - fine.lower < 1e-8
    assert coarse.lower <= fine.lower
    assert fine.upper <= coarse.upper
