import math

import numpy as np
import pytest
from cycle_models import Turned, cubic, small_network
from numba import njit

from stabcore import (
    ReluPair,
    ScalarChain,
    ScalarFactorization,
    bifurcation_diagram,
    gd_map,
    period_doublings,
)
from stabcore.descent import (
    BalancedChain,
    LineMap,
    balanced_two_cycle,
    cycle_branches,
)

CRISIS = 3 * math.sqrt(3) / 2 - 1


def relu_cubic(x, a):
    return x + a * x * (1 - x * x) if x > 0 else x


def naive_diagram(step, parameters, start, transient, keep):
    rows = []
    for a in parameters:
        x = start
        orbit = []
        for _ in range(transient + keep):
            x = step(x, a)
            orbit.append(x)
        rows.append(orbit[transient:])
    return np.array(rows)


@pytest.mark.parametrize("step", [cubic, njit(cubic), BalancedChain(2), ScalarFactorization()])
def test_the_diagram_is_what_a_plain_loop_draws(step):
    parameters = [0.7, 1.1, 1.25, 1.29]
    diagram = bifurcation_diagram(step, parameters, 0.4, transient=300, keep=20)
    expected = naive_diagram(cubic, parameters, 0.4, 300, 20)
    assert diagram.points == pytest.approx(expected, abs=1e-10)
    assert not diagram.diverged.any()


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 6])
def test_the_compiled_loop_of_a_chain_rounds_as_its_formula_does(depth):
    """Chaotic and diverging orbits too: not one bit may differ."""
    chain, parameters = BalancedChain(depth), np.linspace(0.05, 2.4 / depth + 0.6, 61)
    compiled = bifurcation_diagram(chain, parameters, 0.6, transient=400, keep=30)
    formula = bifurcation_diagram(lambda x, a: chain(x, a), parameters, 0.6, transient=400, keep=30)
    assert np.array_equal(compiled.points, formula.points, equal_nan=True)
    assert (compiled.diverged == formula.diverged).all()
    starts = np.linspace(-1.2, 1.2, 61)
    compiled = bifurcation_diagram(chain, parameters, starts, transient=0, keep=1)
    assert (compiled.points[:, 0] == chain(starts, parameters)).all()


LINES = [
    LineMap(ScalarFactorization()),
    LineMap(ScalarFactorization([0.5, 1.5], [0.3, 0.7]), [2.0, 2.0]),
    LineMap(ScalarFactorization(), [1.0, -1.0]),
    LineMap(ReluPair()),
    LineMap(ReluPair([1.0]), [-0.5, -0.5]),
    LineMap(ReluPair(), [1.0, -1.0]),
    LineMap(ScalarChain(1), [-2.0]),
    LineMap(ScalarChain(3)),
    LineMap(ScalarChain(3), [0.5, -0.5, 0.5]),
    LineMap(ScalarChain(4), [1.0, 0.0, 0.0, 1.0]),
]


@pytest.mark.parametrize("line", LINES)
def test_the_compiled_loop_of_a_line_is_its_gradient(line):
    starts = np.linspace(-1.4, 1.4, 29)
    parameters = np.linspace(0.01, 0.3, 29)
    drawn = bifurcation_diagram(line, parameters, starts, transient=2, keep=2).points
    expected = starts
    for _ in range(3):
        expected = line(expected, parameters)
    assert drawn[:, 0] == pytest.approx(expected, rel=1e-12, abs=1e-13)
    assert drawn[:, 1] == pytest.approx(line(expected, parameters), rel=1e-12, abs=1e-13)


def test_a_problem_of_ones_own_keeps_its_own_gradient():
    """A subclass is not mistaken for its parent."""

    class Still(ScalarFactorization):
        def gradient(self, theta):
            return np.zeros_like(theta)

    class Turned(BalancedChain):
        def __call__(self, x, parameter):
            return -np.asarray(x)

    assert (bifurcation_diagram(Still(), [0.5], 0.3, transient=9, keep=2).points == 0.3).all()
    turned = bifurcation_diagram(Turned(2), [0.5], 0.3, transient=0, keep=2).points
    assert turned.tolist() == [[-0.3, 0.3]]


def test_every_parameter_may_have_its_own_start():
    diagram = bifurcation_diagram(cubic, [1.2, 1.2], [0.4, -0.4], transient=0, keep=3)
    assert diagram.points[0].tolist() == (-diagram.points[1]).tolist()
    assert diagram.points[0, 0] == cubic(0.4, 1.2)


@pytest.mark.parametrize("step", [cubic, njit(cubic)])
def test_diverged_orbits_are_not_a_number(step):
    diagram = bifurcation_diagram(step, [1.9, 2.1], 0.4)
    assert diagram.diverged.tolist() == [False, True]
    assert np.isnan(diagram.points[1]).all()
    assert np.isfinite(diagram.points[0]).all()


@pytest.mark.parametrize("step", [njit(relu_cubic), ReluPair()])
def test_beyond_the_crisis_every_orbit_dies(step):
    scale = 3.53 if isinstance(step, ReluPair) else 1.0
    parameters = np.array([0.995, 1.02, 1.1]) * CRISIS / scale
    diagram = bifurcation_diagram(step, parameters, 0.4, transient=3000, keep=50)
    assert (diagram.points[0] > 0).all()
    assert np.ptp(diagram.points[0]) > 0.5
    assert (diagram.points[1:] < 0).all()
    assert np.ptp(diagram.points[1:], axis=1).tolist() == [0, 0]  # frozen


def test_the_diagram_of_a_plane_is_what_a_plain_loop_draws():
    problem = Turned([1.0], 0.7)
    start, parameters = problem.point(0.9, 0.2), [0.7, 1.1, 1.25, 3.0]
    diagram = bifurcation_diagram(problem, parameters, start, transient=40, keep=20)
    assert diagram.points.shape == (4, 20, 2)
    assert diagram.diverged.tolist() == [False, False, False, True]
    assert np.isnan(diagram.points[3]).all()
    for points, eta in zip(diagram.points[:3], parameters[:3], strict=True):
        theta = start
        for _ in range(41):
            theta = gd_map(problem, theta, eta)
        assert points[0] == pytest.approx(theta, abs=1e-11)
        assert points[1:] == pytest.approx(gd_map(problem, points[:-1], eta), abs=1e-13)
    starts = np.stack([start, start, 2 * start, start])
    own = bifurcation_diagram(problem, parameters, starts, transient=0, keep=1)
    assert own.points[2, 0] == pytest.approx(gd_map(problem, 2 * start, 1.25), abs=1e-14)


def test_a_start_that_could_be_of_the_line_or_the_plane_is_refused():
    with pytest.raises(ValueError, match=r"start of shape \(2,\) may be one point"):
        bifurcation_diagram(ScalarFactorization(), [0.5, 0.6], [1.0, 0.9])
    line = bifurcation_diagram(LineMap(ScalarFactorization()), [0.5, 0.6], [1.0, 0.9], keep=3)
    assert line.points.shape == (2, 3)
    plane = bifurcation_diagram(ScalarFactorization(), [0.5, 0.6], [[1.0, 0.9]], keep=3)
    assert plane.points.shape == (2, 3, 2)
    with pytest.raises(ValueError, match="or a start of shape"):
        bifurcation_diagram(small_network(), [0.5, 0.6], 0.9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bifurcation_diagram(cubic, [1.0, 1.1], [0.1] * 3), "start must be a number"),
        (lambda: bifurcation_diagram(cubic, [1.0], keep=0), "keep must be at least 1"),
        (lambda: bifurcation_diagram(cubic, [math.inf]), "parameters has a NaN or infinite"),
        (lambda: cycle_branches(BalancedChain(2), 1.0, 0, (0.0, 1.0)), "period must be at least 1"),
        (
            lambda: cycle_branches(BalancedChain(2), 1.0, 1, (1.0, 0.0)),
            "interval must be ascending",
        ),
        (lambda: period_doublings(BalancedChain(2), 2), "first must be given"),
        (lambda: period_doublings(ScalarFactorization(), 0), "count must be at least 1"),
        (lambda: period_doublings(ScalarFactorization(), 1, start=0.0), "no minimum with positive"),
        (lambda: period_doublings(ScalarFactorization(), 1, start=[1.0]), "start must have shape"),
        (
            lambda: period_doublings(ScalarFactorization(), 1, start=[1.0, 1.0], first=1.0),
            "first must not be given",
        ),
        (lambda: balanced_two_cycle(1.0), "step_size must be finite and greater than 1"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_diagram_says_what_it_holds():
    text = str(bifurcation_diagram(BalancedChain(2), [0.9, 2.1], 0.9, keep=7))
    assert (
        text == "7 points of the orbit at each of 2 parameters from 0.9 to 2.1; 1 orbits diverged"
    )
