import math

import numpy as np
import pytest
from step_models import intervals, log_sum, parallel

from stabcore import (
    SGD,
    Minimum,
    ReluPair,
    sgd_exponent,
    stability,
    stable_arcs,
    stable_steps,
)
from stabcore.minima import REGIONS, region

KERNEL = np.array([[2.0, 0.3, 0.1], [0.3, 1.0, -0.5], [0.1, -0.5, 4.0]])


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


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("batch_size", r"how one trains is said by the method; pass SGD\(batch_size="),
        ("batch_siez", r"did you mean method=SGD\(batch_size="),
        ("momentun", r"did you mean method=SGD\(momentum="),
        ("tolerence", "did you mean 'tolerance'"),
        ("replicass", "did you mean 'replicas'"),
        ("colour", "it takes .*tolerance"),
    ],
)
def test_a_wrong_option_is_answered_with_the_closest_right_one(option, hint):
    with pytest.raises(TypeError, match=rf"stability\(\) has no option '{option}'.*{hint}"):
        stability(KERNEL, 0.3, **{option: 1})
