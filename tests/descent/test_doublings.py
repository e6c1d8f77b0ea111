import math

import numpy as np
import pytest
from cycle_models import Logistic, Turned, small_network

from stabcore import (
    LinearRegression,
    ReluPair,
    ScalarChain,
    ScalarFactorization,
    gd_map,
    period_doublings,
)
from stabcore.descent import (
    FEIGENBAUM,
    BalancedChain,
    LineMap,
    multipliers,
    refine_orbit,
)


class Quartic:
    """Gradient descent on x² + x⁴, whose flip at η = 1 is subcritical."""

    def __call__(self, x, parameter):
        return x - parameter * (2 * x + 4 * x**3)

    def derivative(self, x, parameter):
        return 1 - parameter * (2 + 12 * x**2)


class QuarticBowl(Turned):
    """x² + x⁴ in each of two coordinates (but twice as steep in the first)."""

    def __init__(self):
        super().__init__([1.0, 1.0])

    def gradient(self, theta):
        return [2.0, 1.0] * (2 * theta + 4 * theta**3)

    def hessian(self, theta):
        return ([2.0, 1.0] * (2 + 12 * theta**2))[..., None] * np.eye(2)


class LogCosh(Turned):
    """Σ log cosh: beyond the flip at η = 2 a 2-cycle attracts for ever."""

    def __init__(self):
        super().__init__([1.0])

    def gradient(self, theta):
        return np.tanh(theta)

    def hessian(self, theta):
        return (1 / np.cosh(theta) ** 2)[..., None]


@pytest.mark.parametrize(
    ("problem", "scale", "options"),
    [
        (ScalarFactorization(), 1.0, {}),
        (ScalarChain(2), 1.0, {}),
        (ReluPair(), 3.53, {}),
        (LineMap(ScalarFactorization(), [1.0, 1.0]), 1.0, {}),
        (BalancedChain(2), 1.0, {"first": 0.98}),
    ],
)
def test_the_cascade_of_the_scalar_factorisation(problem, scale, options):
    doublings = period_doublings(problem, 6, **options)
    a = scale * doublings.step_sizes
    known = [1.0, math.sqrt(5) - 1, 1.2880317544828]
    assert a[:3] == pytest.approx(known, abs=1e-13)
    assert doublings.ratios[:3] == pytest.approx([4.54293, 4.64120, 4.66318], abs=1e-5)
    assert scale * doublings.accumulation == pytest.approx(1.30228346, abs=1e-8)
    assert (doublings.errors < 1e-13).all()
    assert [len(cycle) for cycle in doublings.cycles] == [1, 2, 4, 8, 16, 32]


def test_the_cascade_of_the_logistic_map():
    """Published values of an independent family with the same limit of the ratios."""
    doublings = period_doublings(Logistic(), 8, start=0.66, first=2.9)
    known = [3, 1 + math.sqrt(6), 3.544090359551922, 3.564407266095, 3.568759419544, 3.569691609801]
    assert doublings.step_sizes[:6] == pytest.approx(known, abs=2e-12)
    assert doublings.ratios[-1] == pytest.approx(FEIGENBAUM, abs=1e-4)
    assert doublings.accumulation == pytest.approx(3.5699456718695445, abs=1e-10)


def test_a_long_cascade_reaches_feigenbaum():
    doublings = period_doublings(BalancedChain(2), 11, first=1.0)
    assert doublings.ratios[-1] == pytest.approx(FEIGENBAUM, abs=1e-5)
    assert doublings.accumulation == pytest.approx(1.30228346, abs=5e-9)
    assert doublings.accumulation_error < 1e-13
    short = period_doublings(ScalarChain(2), 6)
    assert abs(short.accumulation - doublings.accumulation) < short.accumulation_error < 1e-6
    # two different evaluations of the same map: apart by no more than their errors say
    errors = short.errors + doublings.errors[:6]
    assert (np.abs(short.step_sizes - doublings.step_sizes[:6]) <= 2 * errors).all()


@pytest.mark.parametrize("depth", [2, 3, 4, 5, 6])
def test_chains_lose_their_flattest_minimum_at_two_over_the_depth(depth):
    doublings = period_doublings(ScalarChain(depth), 6)
    assert doublings[0] == pytest.approx(2 / depth, abs=1e-14)
    assert doublings.ratios[-1] == pytest.approx(FEIGENBAUM, abs=4e-3)
    chain = BalancedChain(depth)
    for eta, cycle in zip(doublings, doublings.cycles, strict=True):
        assert chain(cycle, eta) == pytest.approx(np.roll(cycle, -1), abs=1e-13)
        assert chain.derivative(cycle, eta).prod() == pytest.approx(-1, abs=1e-9)


def test_doublings_are_a_sequence_of_step_sizes():
    doublings = period_doublings(ScalarFactorization(), 2)
    assert len(doublings) == 2
    assert list(doublings) == doublings.step_sizes.tolist() == np.asarray(doublings).tolist()
    assert doublings[1] == doublings.step_sizes[1]
    assert math.isnan(period_doublings(ScalarFactorization(), 1).accumulation)
    assert doublings.ratios.size == 0


def test_a_subcritical_flip_has_no_cascade():
    with pytest.raises(ValueError, match="no stable cycle of period 2 follows the doubling at 1:"):
        period_doublings(Quartic(), 2, start=0.0, first=0.9)
    assert period_doublings(Quartic(), 1, start=0.0, first=0.9)[0] == pytest.approx(1.0, abs=1e-14)


def test_linear_problems_have_one_doubling_and_no_cycles():
    line = LinearRegression([[2.0]], [1.0])
    assert period_doublings(line, 1)[0] == pytest.approx(0.5)
    with pytest.raises(ValueError, match="no stable cycle of period 2"):
        period_doublings(line, 2)


@pytest.mark.parametrize("weight", [1.0, 2.5])
def test_the_cascade_is_the_same_across_a_quadratic_direction(weight):
    """No line that the problem knows of: the known cascade, in a turned plane."""
    problem = Turned([weight], 0.7)
    doublings = period_doublings(problem, 6, start=problem.point(1.1, 0.2))
    line = period_doublings(ScalarFactorization(), 6)
    assert weight * doublings.step_sizes == pytest.approx(line.step_sizes, abs=1e-13)
    assert (doublings.errors < 1e-13).all()
    assert weight * doublings.accumulation == pytest.approx(1.30228346, abs=1e-8)
    for turned, flat in zip(doublings.cycles, line.cycles, strict=True):
        x = turned @ problem.rotation
        assert np.sort(x[:, 0]) == pytest.approx(np.sort(flat), abs=1e-12)
        assert x[:, 1] == pytest.approx(0, abs=1e-12)


def test_a_quadratic_direction_can_be_the_first_to_flip_and_has_no_cycle():
    problem = Turned([1.0], 3.0)
    assert period_doublings(problem, 1, start=problem.point(1.0, 0.0))[0] == pytest.approx(2 / 3)
    with pytest.raises(
        ValueError, match=r"no stable cycle of period 2 follows the doubling at 0\.6"
    ):
        period_doublings(problem, 2, start=problem.point(1.0, 0.0))


def test_two_uncoupled_problems_lose_the_two_cycle_at_plus_one():
    """The flip of the second one, at 2/(2·0.9), squares to +1 along the first one's 2-cycle."""
    problem = Turned([1.0, 0.9])
    start = problem.point(1.1, 0.9)
    assert period_doublings(problem, 1, start=start)[0] == pytest.approx(1, abs=1e-14)
    with pytest.raises(ValueError, match=r"at 1\.1111\d*, but not by a period doubling"):
        period_doublings(problem, 2, start=start)
    # with less curvature in the second, the first one's 4-cycle comes before, at √5 − 1
    slower = Turned([1.0, 0.79])
    doublings = period_doublings(slower, 2, start=slower.point(1.1, 0.9))
    assert doublings[1] == pytest.approx(math.sqrt(5) - 1, abs=1e-13)


def test_the_doublings_of_a_network():
    network = small_network()
    minimum = [2.0, -0.5, 1.5]
    doublings = period_doublings(network, 2, start=minimum)
    first, second = doublings.cycles
    assert network.gradient(first[0]) == pytest.approx(np.zeros(3), abs=1e-13)
    sharpness = np.linalg.eigvalsh(network.hessian(first[0]))[-1]
    assert doublings[0] == pytest.approx(2 / sharpness, rel=1e-13)
    # the second follows from no formula: the cycle, by plain steps, and its multipliers
    eta, point = doublings[1], second[0]
    for _ in range(2):
        point = gd_map(network, point, eta)
    assert point == pytest.approx(second[0], abs=1e-13)
    assert np.abs(second[0] - second[1]).max() > 0.1
    leading = []
    for side in (-1e-8, 1e-8):
        points, converged = refine_orbit(network, eta * (1 + side), second)
        assert converged
        leading.append(multipliers(network, eta * (1 + side), points)[0])
    assert -1 < leading[0].real < -1 + 1e-6
    assert -1 > leading[1].real > -1 - 1e-6
    # the 4-cycle begins to turn instead: a complex pair
    with pytest.raises(ValueError, match=r"period 4 loses its stability at 4\.077.*j leaves"):
        period_doublings(network, 3, start=minimum)


def test_minima_that_have_no_cascade_are_told_apart():
    with pytest.raises(ValueError, match="the minimum near start is not isolated"):
        period_doublings(ScalarFactorization(), 2, start=[1.0, 0.9])
    with pytest.raises(ValueError, match="no minimum with positive curvatures"):
        period_doublings(Turned([1.0], 0.7), 2, start=[0.01, 0.01])  # a saddle
    assert period_doublings(QuarticBowl(), 1, start=[0.1, 0.1])[0] == pytest.approx(0.5, abs=1e-14)
    with pytest.raises(ValueError, match=r"no stable cycle of period 2 follows .* subcritical"):
        period_doublings(QuarticBowl(), 2, start=[0.1, 0.1])


def test_a_cycle_that_stays_stable_has_no_doubling():
    assert period_doublings(LogCosh(), 1, start=[0.3])[0] == pytest.approx(2, abs=1e-14)
    with pytest.raises(ValueError, match="period 2 could not be followed from"):
        period_doublings(LogCosh(), 2, start=[0.3])


def test_doublings_print_as_a_table():
    lines = str(period_doublings(ScalarFactorization(), 2)).splitlines()
    assert len(lines) == 3
    assert lines[0].split()[0] == "period"
    assert lines[2].split()[0] == "2"
    assert float(lines[2].split()[1]) == pytest.approx(math.sqrt(5) - 1, abs=1e-14)


def test_a_guess_beyond_the_doubling_is_good_enough():
    """The cycle is followed back to where it is stable."""
    late = period_doublings(BalancedChain(2), 2, first=1.03)
    assert late.step_sizes == pytest.approx([1.0, math.sqrt(5) - 1], abs=1e-13)
