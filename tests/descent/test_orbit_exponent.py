import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
from cycle_models import Logistic
from hypothesis import given, settings
from hypothesis import strategies as st

from stabcore import (
    ExponentWarning,
    LinearRegression,
    Problem,
    ReluPair,
    ScalarFactorization,
)
from stabcore.descent import BalancedChain, map_exponent

CRISIS = 3 * math.sqrt(3) / 2 - 1


class Drift:
    """x' = x + 0.01 with a derivative that is claimed to grow: never stationary."""

    def __call__(self, x, parameter):
        return x + parameter

    def derivative(self, x, parameter):
        return 1 + np.abs(x)


def test_at_two_the_exponent_is_log_three():
    exponent = map_exponent(BalancedChain(2), 2.0, 0.3)
    assert exponent.kind == "statistical"
    assert exponent.value == pytest.approx(math.log(3), abs=1e-4)
    assert exponent.lower - 1e-4 < math.log(3) < exponent.upper + 1e-4
    assert exponent.converged
    assert exponent.evaluations == 640_000


def test_the_logistic_map_at_four_has_exponent_log_two():
    assert map_exponent(Logistic(), 4.0, 0.3).value == pytest.approx(math.log(2), abs=1e-4)


def test_a_chaotic_interval_covers_a_longer_run():
    short = map_exponent(BalancedChain(2), 1.5, 0.3, steps=2000)
    long = map_exponent(BalancedChain(2), 1.5, 0.3, steps=20_000, rng=1)
    assert short.sign == long.sign == 1
    widths = short.upper - short.lower, long.upper - long.lower
    assert abs(short.value - long.value) < widths[0]
    assert widths[1] == pytest.approx(widths[0] / math.sqrt(10), rel=0.5)


@settings(deadline=None, max_examples=30)
@given(st.floats(1.02, 1.23))
def test_on_the_two_cycle_the_exponent_is_half_the_log_of_its_multiplier(a):
    exponent = map_exponent(BalancedChain(2), a, 0.9)
    multiplier = 9 - 2 * (1 + a) ** 2
    if abs(multiplier) < 1e-6:
        return
    assert exponent.kind == "deterministic"
    assert exponent.method == "stable cycle of period 2"
    expected = math.log(abs(multiplier)) / 2
    assert exponent.lower - 1e-12 <= expected <= exponent.upper + 1e-12
    assert exponent.value == pytest.approx(expected, abs=1e-8)


def test_superstable_cycles_have_the_exponent_minus_infinity():
    exponent = map_exponent(BalancedChain(2), 0.5, 0.9)
    assert (exponent.value, exponent.lower, exponent.upper) == (-math.inf,) * 3
    # 9 = 2(1 + a)² has no solution in floating point: the interval still reaches −∞.
    near = map_exponent(BalancedChain(2), 3 / math.sqrt(2) - 1, 0.9)
    assert near.lower == -math.inf
    assert near.value < -15


def test_an_orbit_that_diverges_or_dies_has_no_exponent():
    with pytest.raises(ValueError, match=r"the orbit diverges at parameter 2\.1"):
        map_exponent(BalancedChain(2), 2.1, 0.3)
    with pytest.raises(ValueError, match="a ReLU died"):
        map_exponent(ReluPair(), 1.05 * CRISIS / 3.53, 0.9, steps=100, transient=3000)
    alive = map_exponent(ReluPair(), 0.99 * CRISIS / 3.53, 0.9, steps=300)
    assert alive.sign == 1


def test_a_run_that_is_not_stationary_is_not_trusted():
    with pytest.warns(ExponentWarning, match="second half of the run differs"):
        exponent = map_exponent(Drift(), 0.01, 0.5, steps=1000)
    assert not exponent.converged


class CubicAndBowl(Problem):
    """½·½(x² − 1)² + ½c y² in coordinates turned by 30 degrees; only gradient and Hessian."""

    n_parameters, probabilities = 2, np.ones(1)
    turn = np.array([[math.sqrt(3), -1.0], [1.0, math.sqrt(3)]]) / 2

    def __init__(self, curvature):
        self.curvature = curvature

    def residuals(self, theta, samples=None):
        raise NotImplementedError

    jacobian = residuals

    def gradient(self, theta):
        x, y = np.moveaxis(theta @ self.turn, -1, 0)
        return np.stack([x * (x**2 - 1), self.curvature * y], axis=-1) @ self.turn.T

    def hessian(self, theta):
        x, y = np.moveaxis(theta @ self.turn, -1, 0)
        bend = np.stack([3 * x**2 - 1, self.curvature + 0 * y], axis=-1)
        return (self.turn * bend[..., None, :]) @ self.turn.T


@pytest.mark.parametrize(
    ("step_size", "curvature", "period", "leading"),
    [
        (0.75, 0.8, 1, -0.5),  # 1 − 2η
        (0.75, 0.1, 1, 0.925),  # 1 − cη, the slower direction
        (1.2, 0.8, 2, 9 - 2 * 2.2**2),
        (1.2, 0.1, 2, 0.88**2),
    ],
)
def test_in_the_plane_a_stable_cycle_has_its_leading_multiplier(
    step_size, curvature, period, leading
):
    problem = CubicAndBowl(curvature)
    exponent = map_exponent(problem, step_size, problem.turn @ [0.9, 0.2])
    assert exponent.kind == "deterministic"
    assert exponent.method == f"stable cycle of period {period}"
    expected = math.log(abs(leading)) / period
    assert exponent.lower - 1e-12 <= expected <= exponent.upper + 1e-12
    assert exponent.upper - exponent.lower < 1e-8
    assert exponent.value == pytest.approx(expected, abs=1e-10)


def test_in_the_plane_the_larger_growth_is_the_exponent():
    """Chaos with log 3 along x at η = 2, and |1 − cη| = 0.6 along y."""
    problem = CubicAndBowl(0.8)
    exponent = map_exponent(problem, 2.0, problem.turn @ [0.3, 0.2], steps=4000)
    assert exponent.kind == "statistical"
    assert exponent.converged
    assert exponent.value == pytest.approx(math.log(3), abs=3e-4)
    again = map_exponent(problem, 2.0, problem.turn @ [0.3, 0.2], steps=4000)
    assert again == exponent
    steep = CubicAndBowl(3.5)  # |1 − cη| = 6: y escapes
    with pytest.raises(ValueError, match="the orbit diverges at parameter 2"):
        map_exponent(steep, 2.0, steep.turn @ [0.3, 0.2])


def test_in_the_plane_chaos_on_the_diagonal_is_that_of_its_line():
    line = map_exponent(ScalarFactorization(), 1.5, 0.3, steps=3000)
    plane = map_exponent(ScalarFactorization(), 1.5, [0.3, 0.2], steps=3000)
    assert abs(line.value - plane.value) < 3 * (plane.upper - plane.lower)


def test_on_a_manifold_of_minima_the_largest_exponent_is_zero():
    exponent = map_exponent(ScalarFactorization(), 0.4, [1.2, 0.5], steps=200)
    assert exponent.value == pytest.approx(0, abs=1e-12)


def test_a_linear_problem_that_is_solved_in_one_step_has_minus_infinity():
    exponent = map_exponent(LinearRegression([[2.0]], [1.0]), 0.25, [0.3])
    assert (exponent.value, exponent.upper) == (-math.inf,) * 2


def test_in_the_plane_the_dead_and_the_mistaken_are_refused():
    dead = 1.05 * CRISIS / 3.53
    with pytest.raises(ValueError, match="a ReLU died"):
        map_exponent(ReluPair(), dead, [0.9, 0.9], steps=100, transient=3000)
    with pytest.raises(ValueError, match="start must have shape"):
        map_exponent(ReluPair(), 0.2, [0.9, 0.9, 0.9])
    with pytest.raises(ValueError, match="parameter must be finite and greater than 0"):
        map_exponent(ReluPair(), -0.2, [0.9, 0.9])
    with pytest.raises(TypeError, match="start must be a real number"):
        map_exponent(BalancedChain(2), 0.2, [0.9])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 10}, "steps must be at least 100"),
        ({"replicas": 1}, "replicas must be at least 2"),
        ({"transient": -1}, "transient must be at least 0"),
        ({"start": math.nan}, "start must be finite"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        map_exponent(BalancedChain(2), 1.5, **options)


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("digits", range(1, 13))
def test_the_interval_holds_near_a_doubling(sign, digits):
    """At η = 1 ± 10⁻ᵏ the orbits approach the cycle like 1/√t, all alike."""
    eta = 1 + sign * 10.0**-digits
    result = map_exponent(BalancedChain(2), eta, 0.9)
    step = Decimal(eta)
    with localcontext(prec=40):
        multiplier = 9 - 2 * (1 + step) ** 2 if sign > 0 else 1 - 2 * step
        truth = float(abs(multiplier).ln() / (2 if sign > 0 else 1))
    assert result.lower <= truth <= result.upper
    if digits <= 4:
        assert result.method == f"stable cycle of period {2 if sign > 0 else 1}"
        assert result.value == pytest.approx(truth, abs=1e-11)
