import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from stabcore import (
    LinearRegression,
    Problem,
    ReluPair,
    ScalarChain,
    ScalarFactorization,
    TwoLayerNetwork,
    bifurcation_diagram,
    gd_map,
    period_doublings,
)
from stabcore.descent import (
    FEIGENBAUM,
    BalancedChain,
    LineMap,
    balanced_two_cycle,
    cycle_branches,
    multipliers,
    refine_orbit,
)

CRISIS = 3 * math.sqrt(3) / 2 - 1
TANGENCY = 1 + math.sqrt(8)  # where the logistic map's cycles of period 3 appear


class Logistic:
    def __call__(self, x, parameter):
        return parameter * x * (1 - x)

    def derivative(self, x, parameter):
        return parameter * (1 - 2 * x)


class Quartic:
    """Gradient descent on x² + x⁴, whose flip at η = 1 is subcritical."""

    def __call__(self, x, parameter):
        return x - parameter * (2 * x + 4 * x**3)

    def derivative(self, x, parameter):
        return 1 - parameter * (2 + 12 * x**2)


class Turned(Problem):
    """Σ_j f_j(x_j) in coordinates x = θ Q turned by a random rotation.

    f' = wx(x² − 1), whose cascade is that of the cubic map; the last one is ½c x² if c is given.
    """

    probabilities = np.ones(1)

    def __init__(self, weights, curvature=None):
        self.weights, self.curvature = np.array(weights), curvature
        self.n_parameters = self.weights.size + (curvature is not None)
        noise = np.random.default_rng(5).normal(size=(self.n_parameters, self.n_parameters))
        self.rotation = np.linalg.qr(noise)[0]

    def point(self, *x):
        return self.rotation @ np.array(x)

    def residuals(self, theta, samples=None):
        raise NotImplementedError

    jacobian = residuals

    def gradient(self, theta):
        x = theta @ self.rotation
        slope = np.full(x.shape, self.curvature or 0.0) * x
        u = x[..., : self.weights.size]
        slope[..., : self.weights.size] = self.weights * u * (u**2 - 1)
        return slope @ self.rotation.T

    def hessian(self, theta):
        x = theta @ self.rotation
        bend = np.full(x.shape, self.curvature or 0.0)
        u = x[..., : self.weights.size]
        bend[..., : self.weights.size] = self.weights * (3 * u**2 - 1)
        return (self.rotation * bend[..., None, :]) @ self.rotation.T


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


def small_network():
    """More samples (20) than parameters (3): the minimum is isolated and the loss is not 0."""
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(20, 1))
    targets = 1.5 * np.tanh(2 * inputs[:, 0] - 0.5) + 0.3 * rng.normal(size=20)
    return TwoLayerNetwork(inputs, targets, width=1)


def cubic(x, a):
    return x + a * x * (1 - x * x)


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


@pytest.mark.parametrize(
    ("period", "expected"), [(1, 3), (2, 3), (3, 8), (4, 18), (5, 48), (6, 116)]
)
def test_at_two_all_cycles_of_the_chebyshev_map_are_found(period, expected):
    """x = √2 sin φ conjugates the cubic to −T₃ or T₃: 3^p points of period p."""
    branches = cycle_branches(BalancedChain(2), 2.0, period, (-1.6, 1.6))
    assert len(branches.points) == expected
    assert branches.points.shape == (expected, period)
    assert branches.unresolved.tolist() == [0]
    assert branches.radius.max() < 1e-12
    # all multipliers are ±3^p, except those of the cycles through the ends ±√2
    inner = np.abs(branches.points).max(axis=1) < math.sqrt(2) - 1e-9
    assert np.abs(branches.multipliers[inner]) == pytest.approx(3**period, rel=1e-9)
    assert not branches.stable.any()


@pytest.mark.parametrize("a", [0.9, 1.1, 1.3, 1.7])
def test_branches_against_the_roots_of_the_polynomial(a):
    polynomial = np.polynomial.Polynomial([0.0, 1 + a, 0.0, -a])
    twice = polynomial(polynomial)
    roots = (twice - np.polynomial.Polynomial([0.0, 1.0])).roots()
    real = np.sort(roots[np.abs(roots.imag) < 1e-7].real)
    found = [cycle_branches(BalancedChain(2), a, p, (-2.5, 2.5)).points.ravel() for p in (1, 2)]
    assert np.sort(np.concatenate(found)) == pytest.approx(real, abs=1e-7)


@pytest.mark.parametrize("gap", [1e-2, 4e-3, 1e-5])
def test_the_radius_outlasts_rounding_next_to_a_bifurcation(gap):
    """Where the multiplier is nearly 1, G²(x) − x changes its sign hardly at all; say so."""
    for a in 1 + gap * np.linspace(1, 1.3, 30):
        branches = cycle_branches(BalancedChain(2), a, 2, (0.5, 1.4), grid=513)
        error = np.abs(branches.points - exact_two_cycle(a)).max()
        assert error <= branches.radius[0] < 1e-8


@pytest.mark.parametrize("depth", [3, 4, 5])
def test_no_cycle_is_invented_where_orbits_escape(depth):
    """Outside, G^6 is of degree (2k − 1)^6 and Newton's method creeps."""
    chain = BalancedChain(depth)
    parameters = np.linspace(0.85, 1.65, 20) * 2 / depth
    branches = cycle_branches(chain, parameters, 6, (-2.0, 2.0), grid=2049)
    following = chain(branches.points, branches.parameters[:, None])
    assert following == pytest.approx(np.roll(branches.points, -1, axis=1), abs=1e-11)
    assert len(branches.points) > 10
    assert np.abs(branches.points).max() < 1.5


def exact_two_cycle(a):
    with localcontext(prec=50):
        a = Decimal(float(a))
        root = ((1 - 1 / a) * (1 + 3 / a)).sqrt()
        return [float((((1 + 1 / a) + sign * root) / 2).sqrt()) for sign in (-1, 1)]


def test_branches_keep_parameters_apart_and_know_what_is_stable():
    parameters = [0.9, 1.1, 1.2, 1.3]
    branches = cycle_branches(BalancedChain(2), parameters, 2, (0.0, 1.5))
    assert branches.parameters.tolist() == [1.1, 1.2, 1.3]
    assert branches.multipliers == pytest.approx([9 - 2 * (1 + a) ** 2 for a in parameters[1:]])
    assert branches.stable.tolist() == [True, True, False]
    for a, points in zip(branches.parameters, branches.points, strict=True):
        assert points == pytest.approx(balanced_two_cycle(a), abs=1e-14)


def test_an_interval_without_cycles_has_no_branches():
    branches = cycle_branches(ScalarFactorization(), [0.5, 0.6], 3, (0.2, 0.8))
    assert branches.points.shape == (0, 3)
    assert branches.stable.size == branches.parameters.size == 0
    assert branches.unresolved.tolist() == [0, 0]


def test_branches_of_a_problem_are_those_of_its_line():
    line = cycle_branches(ScalarFactorization(), [1.1, 1.5], 4, (0.0, 1.6), grid=1025)
    chain = cycle_branches(BalancedChain(2), [1.1, 1.5], 4, (0.0, 1.6), grid=1025)
    assert line.points == pytest.approx(chain.points, abs=1e-12)


def test_the_dead_network_has_no_branches():
    """Every x ≤ 0 is a fixed point of the ReLU network's diagonal, and none is a cycle."""
    branches = cycle_branches(ReluPair(), 1.2 / 3.53, 1, (-1.0, 1.5))
    assert branches.points == pytest.approx(np.ones((1, 1)))
    assert branches.multipliers == pytest.approx([-1.4])


@pytest.mark.parametrize(("offset", "expected"), [(-1e-6, 0), (1e-9, 2), (1e-6, 2)])
def test_cycles_born_together_are_found_between_grid_points(offset, expected):
    branches = cycle_branches(Logistic(), TANGENCY + offset, 3, (-0.1, 1.1), grid=501)
    assert len(branches.points) == expected
    assert branches.stable.sum() == expected // 2


def test_a_touching_zero_is_reported_as_unresolved():
    """u' = u − η(u³ − 1)u² has a double fixed point at 0."""
    branches = cycle_branches(BalancedChain(3), 0.3, 1, (-1.0, 2.0))
    assert branches.points[:, 0].tolist() == [1.0]
    assert branches.unresolved.tolist() == [1]


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


@settings(deadline=None, max_examples=15)
@given(st.integers(2, 12))
def test_chains_flip_supercritically(depth):
    """f' = (x^k − 1)x^{k−1} at 1; the prediction against the 2-cycle itself."""
    k = depth
    polynomial = np.polynomial.Polynomial.basis(2 * k - 1) - np.polynomial.Polynomial.basis(k - 1)
    second, third, fourth = (float(polynomial.deriv(n)(1.0)) for n in (1, 2, 3))
    assert second == k
    assert 3 * third**2 > second * fourth
    branches = cycle_branches(BalancedChain(k), 2.002 / k, 2, (0.8, 1.2))
    assert branches.stable.sum() == 1


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
