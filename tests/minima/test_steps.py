import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from step_models import log_sum, parallel

from stabcore import (
    SGD,
    ExponentWarning,
    Minimum,
    SGDLaw,
    gd_exponent,
    lyapunov_exponent,
    mean_square_edge,
    sgd_exponent,
    stable_steps,
)
from stabcore.lyapunov import enclosure
from stabcore.lyapunov.enclosures import sign_between
from stabcore.minima import steps
from stabcore.stable_sets import stable_set

KERNEL = np.array([[2.0, 0.3, 0.1], [0.3, 1.0, -0.5], [0.1, -0.5, 4.0]])

CURVATURES = st.lists(st.floats(0.05, 20), min_size=1, max_size=6)


# Relative distances at which a pole is approached from both sides.
NEAR = np.outer([-1, 1], np.logspace(-14, -1, 60)).ravel()

WEIGHTS = st.lists(st.floats(0.05, 1), min_size=6, max_size=6)


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


def test_a_table_has_a_line_for_each_notion():
    lines = str(stable_steps(np.diag([1.0, 4.0]))).splitlines()
    assert lines == [
        "GD, mu < 0          (0, 1)",
        "SGD, lambda < 0     (0, 0.5)",
        "SGD in mean square  (0, 0.5)",
    ]
    reshuffled = stable_steps(np.diag([1.0, 4.0]), SGD(reshuffle=True))
    assert reshuffled.mean_square is None
    assert str(reshuffled).splitlines()[2] == "SGD in mean square  not known for reshuffled epochs"


@pytest.mark.parametrize("a", [0.5, 1.5, 2.0, 2.5, 4.0])
def test_slivers_around_a_singular_factor_are_found(a):
    """Gradients (1, 0) and (a, 1): A₁A₂A₁ = 0 at η = 1, so that λ = −∞ there."""
    kernel = [[1, a], [a, 1 + a**2]]
    found = stable_steps(kernel).sgd
    assert 1.0 in found
    assert sgd_exponent(kernel, 1.0).value == -math.inf
    inside = [(low + high) / 2 for low, high in found.intervals]
    between = [(one[1] + two[0]) / 2 for one, two in pairwise(found.intervals)]
    assert {enclosure_sign(kernel, eta) for eta in inside} <= {-1, None}
    assert {enclosure_sign(kernel, eta) for eta in between} <= {1}


def enclosure_sign(kernel, step_size):
    return enclosure(SGDLaw(kernel, step_size), decide_sign=True).sign


def test_signs_between_are_proven_in_the_plane():
    """The resolution is the widest interval without a proof, not the spacing of the scan."""
    found = stable_steps([[1.0, 0.5], [0.5, 3.0]]).sgd
    assert found.resolution < 1e-4
    law = SGDLaw([[1.0, 0.5], [0.5, 3.0]], 1.0)
    assert sign_between(law, 0.3, 0.33) == -1
    assert sign_between(law, 0.8, 0.82) == 1
    assert sign_between(law, 0.6, 0.75) is None  # the sign changes in between
    for low, high in ((0.3, 0.33), (0.8, 0.82)):
        for eta in np.linspace(low, high, 7):
            assert lyapunov_exponent(law.at(eta)).sign == sign_between(law, low, high)


def test_everything_below_the_edge_in_mean_square_is_stable():
    rng = np.random.default_rng(0)
    for size in (3, 8):
        jacobian = rng.normal(size=(size, size + 3))
        kernel = jacobian @ jacobian.T
        for method in (SGD(), SGD(batch_size=2)):
            for seed in range(4):  # however noisy the simulation
                table = stable_steps(kernel, method, rng=seed, steps=4, replicas=8, points=8)
                ((_, edge),) = table.mean_square.intervals
                assert table.sgd.intervals[0][1] >= edge * (1 - 1e-11)


@pytest.mark.filterwarnings("error::stabcore.ExponentWarning")
def test_a_short_run_whose_sign_is_proven_is_not_warned_of():
    """Its slowest direction needs 1e5 steps, of which 10 are simulated; a bound has the sign."""
    kernel = np.diag([1.0, 0.5, 0.1, 1e-5]) + 1e-6
    found = sgd_exponent(kernel, 0.5, rng=0, steps=10)
    assert found.sign == -1
    assert found.proof
    assert not found.converged
    with pytest.raises(ExponentWarning, match="too short"):
        lyapunov_exponent(SGDLaw(kernel, 0.5), "monte_carlo", rng=0, steps=10)


def test_of_many_singular_factors_the_widest_pieces_are_scanned(monkeypatch):
    """924 batches of 6 have thousands of singular factors; λ is asked for at a few points only."""
    asked = []
    ask = steps.estimated
    monkeypatch.setattr(
        steps, "estimated", lambda law, *rest, **how: asked.append(law) or ask(law, *rest, **how)
    )
    jacobian = np.eye(12, 20) + 0.3 * np.random.default_rng(3).normal(size=(12, 20))
    method = SGD(batch_size=6)
    found = stable_steps(Minimum.from_jacobian(jacobian), method, points=8, steps=2000).sgd
    assert 1 < len(asked) <= 8 * 5 + 200  # five points a piece at least, and the sign changes
    low, high = found.brackets[-1]
    inside, outside = (
        sgd_exponent(Minimum.from_jacobian(jacobian), eta, method, rng=0)
        for eta in (0.98 * low, 1.02 * high)
    )
    assert inside.sign == -1
    assert outside.sign == 1
