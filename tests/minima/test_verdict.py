import math

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from stabcore import (
    SGD,
    DiagonalLinearNetwork,
    Minimum,
    ReluPair,
    ScalarFactorization,
    SGDLaw,
    gd_exponent,
    lyapunov_exponent,
    mean_square_edge,
    sgd_exponent,
    stability,
    stable_arcs,
    stable_steps,
)
from stabcore.minima import REGIONS, irregularities, region
from stabcore.stable_sets import StableSet, stable_set

KERNEL = np.array([[2.0, 0.3, 0.1], [0.3, 1.0, -0.5], [0.1, -0.5, 4.0]])
CURVATURES = st.lists(st.floats(0.05, 20), min_size=1, max_size=6)
# Relative distances at which a pole is approached from both sides.
NEAR = np.outer([-1, 1], np.logspace(-14, -1, 60)).ravel()
WEIGHTS = st.lists(st.floats(0.05, 1), min_size=6, max_size=6)


def parallel(curvatures):
    return np.outer(np.sqrt(curvatures), np.sqrt(curvatures))


def intervals(*pairs, lower=0.0, upper=math.inf, brackets=()):
    return StableSet(intervals=pairs, brackets=brackets, lower=lower, upper=upper)


def log_sum(weights, curvatures, steps):
    """Return Σ w_m log|1 − ηk_m| at many η, the naive way."""
    with np.errstate(divide="ignore"):
        return np.log(np.abs(1 - np.multiply.outer(steps, curvatures))) @ np.asarray(weights)


# Paper D, figure 4: the ends, derived from the formulas of ReluPair.
ARCS = [
    (0.15, 0.5, ["3.77715"], [("2.000000", "2.635898"), ("6.661222", "9.297119")]),
    (0.3, 0.58, ["2.154151"], [("2.537249", "4.998564")]),
]


@pytest.mark.parametrize(("eta", "p", "gd", "sgd"), ARCS)
def test_stable_arcs_of_paper_d_to_all_printed_digits(eta, p, gd, sgd):
    arcs = stable_arcs(ReluPair(probabilities=[p, 1 - p]), eta)
    ((start, end),) = arcs.gd.intervals
    assert (start, f"{end:.{len(gd[0]) - 2}f}") == (2.0, gd[0])
    assert [(f"{a:.6f}", f"{b:.6f}") for a, b in arcs.sgd.intervals] == sgd
    assert arcs.gd.resolution == arcs.sgd.resolution == 0


@pytest.mark.parametrize(("eta", "p"), [(0.15, 0.5), (0.3, 0.58)])
def test_stable_arcs_against_a_fine_scan(eta, p):
    arcs = stable_arcs(ReluPair(probabilities=[p, 1 - p]), eta)
    s = np.linspace(2, 20, 200_001)
    assert (
        arcs.sgd.contains(s) == (log_sum([p, 1 - p], eta * np.array([0.81, 6.25]), s) < 0)
    ).all()
    mean = p * 0.81 + (1 - p) * 6.25
    assert (arcs.gd.contains(s) == (np.abs(1 - eta * mean * s) < 1)).all()


def test_batches_of_the_whole_data_set_make_the_arcs_equal():
    arcs = stable_arcs(ReluPair(), 0.15, SGD(batch_size=2))
    assert arcs.sgd.intervals == arcs.gd.intervals


@settings(deadline=None, max_examples=150)
@given(CURVATURES, WEIGHTS)
@example([1.0, 4.0], [0.5, 0.5, 1, 1, 1, 1])
@example([0.81, 6.25], [0.05, 0.95, 1, 1, 1, 1])
@example([0.05, 20.0, 5.0], [0.05, 0.9, 0.05, 1, 1, 1])
def test_all_sign_changes_against_a_brute_force_scan(curvatures, weights):
    p = np.array(weights[: len(curvatures)])
    p /= p.sum()
    found = stable_steps(Minimum(parallel(curvatures), p)).sgd
    poles = 1 / np.array(curvatures)
    fine = np.concatenate([np.logspace(-4, 3, 20_001), np.outer(poles, 1 + NEAR).ravel()])
    values = log_sum(p, curvatures, fine)
    scaled = np.multiply.outer(fine, curvatures)
    with np.errstate(divide="ignore"):  # a rounding of ηk moves log|1 − ηk| by ηk/|1 − ηk| of it
        roundings = (scaled / np.abs(1 - scaled)) @ p
    sure = np.abs(values) > 1e-9 + 8 * np.finfo(float).eps * roundings
    assert (found.contains(fine)[sure] == (values < 0)[sure]).all()
    for low, high in found.brackets:
        assert low < high
        assert abs(log_sum(p, curvatures, (low + high) / 2)) < 1e-9 or high - low < 1e-12 * high


@settings(deadline=None, max_examples=100)
@given(CURVATURES, WEIGHTS)
def test_the_sign_changes_across_every_end(curvatures, weights):
    p = np.array(weights[: len(curvatures)])
    p /= p.sum()
    found = stable_steps(Minimum(parallel(curvatures), p)).sgd
    ends = [end for interval in found.intervals for end in interval][1:]
    separate = np.diff([0.0, *ends]) > 1e-6 * np.array(ends)
    assume(separate.all())
    for k, end in enumerate(ends):
        inside, outside = (end * (1 + d) for d in ((-1e-7, 1e-7) if k % 2 == 0 else (1e-7, -1e-7)))
        assert log_sum(p, curvatures, inside) < 0 < log_sum(p, curvatures, outside)


@settings(deadline=None, max_examples=100)
@given(CURVATURES, WEIGHTS)
def test_orthogonal_gradients_are_stable_where_each_one_is(curvatures, weights):
    """λ = max_i p_i log|1 − ηk_i| < 0 ⇔ η < 2/max k_i, for μ: η < 2/max p_i k_i."""
    p = np.array(weights[: len(curvatures)])
    p /= p.sum()
    found = stable_steps(Minimum(np.diag(curvatures), p))
    assert found.sgd.intervals[0] == pytest.approx((0, 2 / max(curvatures)), rel=1e-12)
    assert found.gd.intervals[0] == pytest.approx((0, 2 / max(p * curvatures)), rel=1e-12)
    assert len(found.sgd.intervals) == len(found.gd.intervals) == 1


def test_orthogonal_groups_intersect():
    kernel = np.zeros((4, 4))
    kernel[:2, :2], kernel[2:, 2:] = parallel([1.0, 20.0]), parallel([1.05, 21.0])
    found = stable_steps(kernel).sgd
    fine = np.linspace(1e-4, 3, 100_001)
    values = [log_sum([0.25, 0.25], k, fine) for k in ([1, 20], [1.05, 21])]
    assert (found.contains(fine) == (np.max(values, axis=0) < 0)).all()
    assert len(found.intervals) > 1


def test_four_disjoint_intervals():
    found = stable_steps(parallel([1.0, 30.0, 900.0, 27000.0])).sgd
    assert len(found.intervals) == 4
    for k, (start, end) in zip([27000.0, 900.0, 30.0, 1.0], found.intervals, strict=True):
        assert start < 1 / k < end


def test_a_sliver_around_a_pole_is_found():
    """A rare sample: λ < 0 only within e^(−…) of its pole, of relative width about 10⁻⁶."""
    p = np.array([0.5, 0.5])
    k = np.array([1.0, 2e6])
    start, end = stable_steps(Minimum(parallel(k), p)).sgd.intervals[1]
    assert start < 1 < end
    assert 1e-7 < end - start < 1e-5
    for edge, outward in ((start, -1), (end, 1)):
        assert log_sum(p, k, edge - outward * 1e-9) < 0 < log_sum(p, k, edge + outward * 1e-9)


def test_a_sliver_thinner_than_rounding_is_a_point():
    found = stable_steps(Minimum(parallel([1.0, 3.0]), [1e-3, 1 - 1e-3])).sgd
    assert found.intervals[1] == (1.0, 1.0)
    assert found.contains([1.0, np.nextafter(1, 0), np.nextafter(1, 2)]).tolist() == [
        True,
        False,
        False,
    ]
    assert sgd_exponent(Minimum(parallel([1.0, 3.0]), [1e-3, 1 - 1e-3]), 1.0).sign == -1


@pytest.mark.parametrize("diagonal", [[1.0, 1.0], [2.0, 2.0, 2.0], [1 / 3, 1 / 3]])
def test_gradients_of_equal_length_end_where_the_determinant_says(diagonal):
    """All ηk_i = 2 is the last root of the determinant bound and the first reflection: λ = 0."""
    count, k = len(diagonal), diagonal[0]
    kernel = k * (0.5 * np.eye(count) + 0.5)
    found = stable_steps(kernel, points=8, steps=1_000)
    ((start, end),) = found.sgd.intervals
    assert start == 0
    assert end == pytest.approx(2 / k, rel=1e-9)
    assert sgd_exponent(kernel, 1.5 * end, rng=0).sign == 1
    assert not found.sgd.contains(1.5 * end)


def test_a_scan_agrees_with_the_exponent_and_the_bounds():
    kernel = [[1.0, 0.5], [0.5, 4.0]]
    found = stable_steps(kernel, points=24, steps=2_000)
    assert found.gd.intervals[0][1] == pytest.approx(4 / np.linalg.eigvalsh(kernel)[-1])
    assert found.sgd.resolution > 0
    assert found.sgd.intervals[0][0] == 0
    assert found.sgd.intervals[0][1] > 0.5  # a contraction below 2/max k
    for eta in (0.2, 0.49, 0.6, 1.5, 3.0):
        sign = sgd_exponent(kernel, eta, rng=5).sign
        assert found.sgd.contains(eta) == (sign == -1)


def test_nothing_is_stable_when_a_direction_is_never_moved():
    found = stable_steps(Minimum(KERNEL, [0.5, 0.5, 0.0]))
    assert not found.sgd
    assert not found.gd


def test_only_samples_without_gradient_are_drawn():
    kernel = np.zeros((3, 3))
    kernel[:2, :2] = [[2.0, 1.0], [1.0, 2.0]]
    found = stable_steps(Minimum(kernel, [0.0, 0.0, 1.0]))
    assert not found.sgd
    assert not found.gd


def test_a_domain_below_every_reflection_is_stable_throughout():
    found = stable_steps(KERNEL, upper=0.4)
    assert found.sgd.intervals == ((0.0, 0.4),)
    assert found.sgd.contains([0.0, 1e-9, 0.4, 0.41]).tolist() == [False, True, True, False]


def test_an_end_that_falls_on_the_domain_is_still_an_end():
    """μ(2) = log|1 − 2| = 0 is not negative."""
    found = stable_steps([[1.0]], upper=2.0)
    assert gd_exponent([[1.0]], 2.0).value == 0
    assert found.gd.contains([1.9, 2.0]).tolist() == [True, False]
    assert found.sgd.contains([1.9, 2.0]).tolist() == [True, False]


def test_scan_of_a_family_of_minima():
    """Along θ₁θ₂ = 1: paper D's arcs again, this time from the exponents one by one."""
    problem = ReluPair()

    def exponent(s):
        return sgd_exponent(Minimum.at(problem, problem.minimum(s)), 0.15)

    found = stable_set(exponent, 2.0, 12.0, points=41)
    exact = stable_arcs(problem, 0.15).sgd
    ends = [end for interval in found.intervals for end in interval]
    assert ends == pytest.approx([e for pair in exact.intervals for e in pair], rel=1e-11)
    assert found.resolution == 0.25
    assert found.contains([2.0, 2.5, 3.0]).tolist() == [True, True, False]
    for low, high in found.brackets:
        assert exponent(low).sign != exponent(high).sign


def test_scan_where_everything_or_nothing_is_stable():
    whole = stable_set(lambda t: gd_exponent([[t]], 1.0), 0.5, 1.5, points=2)
    assert whole.intervals == ((0.5, 1.5),)
    assert whole.contains([0.5, 1.5]).all()
    assert not stable_set(lambda t: gd_exponent([[t]], 1.0), 3, 4, points=3)


def test_contains_knows_open_and_closed_ends():
    found = intervals((2.0, 3.0), (5.0, 5.0), (6.0, 8.0), lower=2.0, upper=8.0)
    values = [2.0, 2.5, 3.0, 5.0, 5.5, 6.0, 7.0, 8.0, 8.5, math.nan, math.inf]
    assert found.contains(values).tolist() == [
        *(True, True, False, True, False, False, True, True, False, False, False)
    ]
    assert 2.5 in found
    assert 3.0 not in found
    assert not intervals((0.0, 3.0)).contains(0.0)
    assert found.contains(np.full((2, 3), 2.5)).shape == (2, 3)
    assert found
    assert not intervals()


def test_restricted_cuts_intervals_and_brackets():
    whole = intervals(
        (0.0, 3.0), (5.0, 6.0), (8.0, 9.0), brackets=((2.9, 3.1), (4.9, 5.1), (5.9, 6.1))
    )
    part = whole.restricted(2.0, 5.5)
    assert part.intervals == ((2.0, 3.0), (5.0, 5.5))
    assert part.brackets == ((2.9, 3.1), (4.9, 5.1))
    assert (part.lower, part.upper) == (2.0, 5.5)
    assert part.contains([2.0, 3.0, 5.0, 5.5]).tolist() == [True, False, False, True]
    assert part.restricted(1.0) == part
    assert not whole.restricted(3.0, 5.0)


def test_scaled_multiplies_everything():
    scaled = intervals((1.0, 2.0), lower=0.5, brackets=((1.9, 2.1),)).scaled(2.0)
    assert scaled.intervals == ((2.0, 4.0),)
    assert scaled.brackets == ((3.8, 4.2),)
    assert (scaled.lower, scaled.upper, scaled.resolution) == (1.0, math.inf, 0.0)


def test_text_of_a_set():
    assert str(intervals()) == "empty"
    assert str(intervals((0.0, 1.0), (2.0, 3.5))) == "(0, 1) and (2, 3.5)"


@pytest.mark.parametrize("gd", [-1.0, 0.0, 2.0, math.nan, -math.inf])
@pytest.mark.parametrize("sgd", [-3.0, 0.0, 1.0, math.nan, -math.inf])
def test_region_of_two_signs(gd, sgd):
    if any(math.isnan(x) or x == 0 for x in (gd, sgd)):
        expected = "undecided"
    else:
        names = {(True, True): "both", (True, False): "GD only", (False, True): "SGD only"}
        expected = names.get((gd < 0, sgd < 0), "neither")
    assert REGIONS[int(region(gd, sgd))] == expected


@pytest.mark.parametrize(
    ("s", "expected"),
    [(2.3, "both"), (3.0, "GD only"), (5.0, "neither"), (7.0, "SGD only")],
)
def test_the_four_verdicts_on_paper_d(s, expected):
    problem = ReluPair()
    verdict = stability(Minimum.at(problem, problem.minimum(s)), 0.15)
    assert verdict.region == expected
    assert verdict.irregularities == ()
    assert f"stable for: {expected}" in str(verdict)


def test_an_undecided_verdict():
    assert stability([[2.0]], 1.0).region == "undecided"


def test_both_orders_of_the_exponents_occur():
    """λ < 0 < μ and μ < 0 < λ."""
    regions = {stability(parallel([0.81, 6.25]), eta).region for eta in np.linspace(0.05, 2, 100)}
    assert {"GD only", "SGD only"} < regions


def test_stability_uses_the_probabilities_for_both():
    p = [0.9, 0.1]
    verdict = stability(Minimum(parallel([1.0, 4.0]), p), 0.3)
    assert verdict.gd.value == pytest.approx(math.log(abs(1 - 0.3 * 1.3)))
    assert verdict.sgd.value == pytest.approx(0.9 * math.log(0.7) + 0.1 * math.log(0.2))


@pytest.mark.parametrize(
    ("kernel", "eta", "found"),
    [
        (KERNEL, 0.3, []),
        (KERNEL, 0.5, ["is 1 for sample 0: its factor is singular", "is 2 for sample 2"]),
        (np.diag([1.0, 2.0]), 0.3, ["split into 2 mutually orthogonal groups"]),
        (parallel([1.0, 2.0]), 0.3, ["linearly dependent (rank 1 of 2)"]),
    ],
)
def test_irregularities(kernel, eta, found):
    reasons = irregularities(kernel, eta)
    assert len(reasons) == len(found)
    for reason, part in zip(reasons, found, strict=True):
        assert part in reason


def test_a_gradient_that_vanishes_splits_nothing():
    kernel = np.zeros((3, 3))
    kernel[:2, :2] = [[2.0, 1.0], [1.0, 2.0]]
    assert not any("orthogonal" in reason for reason in irregularities(kernel, 0.3))


def test_a_minimum_in_parameter_space_with_dependent_gradients_is_regular():
    problem = ReluPair()
    assert irregularities(Minimum.at(problem, problem.minimum(3.0)), 0.1) == ()


def test_arcs_of_the_factorisation_with_one_input():
    """One sample: λ = μ = log|1 − ηs|, stable for 2 ≤ s < 2/η."""
    arcs = stable_arcs(ScalarFactorization(), 0.5)
    assert arcs.gd.intervals == arcs.sgd.intervals
    assert arcs.gd.intervals[0] == pytest.approx((2.0, 4.0))
    assert not stable_arcs(ScalarFactorization(), 1.5).gd


def test_arcs_need_a_problem_with_two_parameters():
    with pytest.raises(TypeError, match=r"problem must be a ScalarFactorization.*Diagonal"):
        stable_arcs(DiagonalLinearNetwork(np.eye(2), [1.0, 1.0]), 0.1)


def test_the_kernel_is_not_changed():
    kernel = KERNEL.copy()
    stability(kernel, 0.3, rng=0, steps=2_000)
    stable_steps(kernel, points=3, steps=2_000)
    assert (kernel == KERNEL).all()


def test_mean_square_stability_is_part_of_stability():
    """Parallel gradients: Σ p (1 − ηk)² < 1 exactly for η < 2 Σ pk / Σ pk²."""
    sets = stable_steps([[1.0, 4.0], [4.0, 16.0]])
    ((low, high),) = sets.mean_square.intervals
    assert low == 0
    assert high == pytest.approx(2 * 8.5 / 128.5, rel=1e-11)
    assert sets.mean_square.contains(0.1)
    gradients = np.random.default_rng(0).normal(size=(4, 2))
    sets = stable_steps(gradients @ gradients.T, SGD(batch_size=2))
    assert 0 < sets.mean_square.intervals[0][1] < sets.sgd.intervals[0][1]
    assert sets.mean_square.restricted(0.0, 1e-3).intervals == ((0.0, 1e-3),)


def test_mean_square_arcs_scale_with_the_step_size():
    first, second = (stable_arcs(ReluPair(), eta).mean_square for eta in (0.1, 0.12))
    assert first.intervals[0][1] * 0.1 == pytest.approx(second.intervals[0][1] * 0.12)


def test_batches_with_replacement_are_all_pairs():
    """Parallel gradients: λ = E log|1 − η (k_i + k_j)/2| over the N² pairs."""
    k = np.array([1.0, 4.0, 9.0])
    found = stable_steps(parallel(k), SGD(batch_size=2, replacement=True))
    pairs = np.add.outer(k, k).ravel() / 2
    fine = np.linspace(1e-3, 3, 50_001)
    values = log_sum(np.full(9, 1 / 9), pairs, fine)
    assert (found.sgd.contains(fine) == (values < 0)).all()
    ((_, edge),) = found.mean_square.intervals  # 2 E k_S / E k_S²
    assert edge == pytest.approx(2 * pairs.mean() / (pairs**2).mean(), rel=1e-11)
    default = stable_steps(parallel(k), SGD(batch_size=2))
    assert stable_steps(parallel(k), SGD(batch_size=2, replacement=False)) == default
    assert default.gd == found.gd
    assert default.sgd.intervals != found.sgd.intervals
    assert default.mean_square.intervals[0][1] > edge  # less noise


def test_a_scan_with_replacement_follows_its_exponent():
    """Without replacement the batch would be the whole data set, and SGD would be GD."""
    kernel = [[1.0, 0.5], [0.5, 4.0]]

    def exponent(step_size):
        law = SGDLaw(kernel, step_size, SGD(batch_size=2, replacement=True))
        return lyapunov_exponent(law, tolerance=1e-5)

    found = stable_steps(kernel, SGD(batch_size=2, replacement=True), points=16)
    scan = stable_set(exponent, 0.5, 1.2)
    assert found.sgd.intervals[0] == pytest.approx((0.0, scan.intervals[0][1]), rel=1e-4)
    assert found.sgd.intervals != found.gd.intervals
    default = stable_steps(kernel, SGD(batch_size=2), points=16).sgd.intervals
    assert default[0] == pytest.approx(found.gd.intervals[0])
    assert found.mean_square.intervals[0][1] == mean_square_edge(
        kernel, SGD(batch_size=2, replacement=True)
    )


def test_replacement_reaches_the_exponents_and_the_arcs():
    kernel = parallel([1.0, 4.0])
    expected = (math.log(0.7) + 2 * math.log(0.25) + math.log(0.2)) / 4
    assert sgd_exponent(kernel, 0.3, SGD(batch_size=2, replacement=True)).value == pytest.approx(
        expected
    )
    verdict = stability(kernel, 0.3, SGD(batch_size=2, replacement=True))
    assert verdict.sgd.value == pytest.approx(expected)
    assert verdict.gd == stability(kernel, 0.3, SGD(batch_size=2)).gd
    assert stability(kernel, 0.3, SGD(batch_size=2)).sgd.value == pytest.approx(math.log(0.25))
    arcs = stable_arcs(ReluPair(), 0.15, SGD(batch_size=2, replacement=True)).sgd
    s, k = np.linspace(2, 20, 20_001), np.array([0.81, 3.53, 3.53, 6.25])
    assert (arcs.contains(s) == (log_sum(np.full(4, 0.25), 0.15 * k, s) < 0)).all()
    with pytest.raises(ValueError, match="replacement"):
        stable_steps(Minimum(kernel, [0.3, 0.7]), SGD(batch_size=2, replacement=False))
