import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stabcore import (
    GD,
    DiagonalLinearNetwork,
    LinearNetwork,
    LinearRegression,
    ReluPair,
    ScalarChain,
    ScalarFactorization,
    TwoLayerNetwork,
    basin,
)
from stabcore.descent import (
    Ending,
    asymptotic_gradient_norm,
    bounded_region,
    converged_fraction,
    endings,
)
from stabcore.descent.basins import _chain_trapped, _others, _trapped
from stabcore.problems import PiecewiseQuartic
from stabcore.simulation import exact_runs

PROBLEM = ScalarFactorization()


class PlainFactorization(ScalarFactorization):
    """The same model, followed like any other problem."""

    def product_model(self):
        return None


class PlainChain(ScalarChain):
    """The same model, followed like any other problem."""

    def product_model(self):
        return None


class PlainPair(ReluPair):
    """The same model, followed like any other problem."""

    def product_model(self):
        return None


def uniform(count, size, reach=2.5, seed=0):
    return np.random.default_rng(seed).uniform(-reach, reach, size=(count, size))


def naive_fates(problem, starts, step_size, steps):
    """Follow each run by itself; below the threshold a vanishing loss means convergence."""
    ends = []
    for start in starts:
        theta = start
        for _ in range(steps):
            theta = theta - step_size * problem.gradient(theta)
            if np.abs(theta).max() > 1e30:
                ends.append(Ending.DIVERGED)
                break
        else:
            ends.append(Ending.CONVERGED if problem.loss(theta) < 1e-20 else Ending.UNDECIDED)
    return np.array(ends)


@pytest.mark.parametrize(
    ("problem", "step_size"),
    [
        (PROBLEM, 0.5),
        (ScalarFactorization([0.9, 2.5], [0.25, 0.75]), 0.1),
        (ScalarChain(1), 0.7),
        (ScalarChain(2), 0.5),
        (ScalarChain(3), 0.2),
        (ScalarChain(4), 0.2),
        (PlainChain(3), 0.2),
    ],
)
def test_fates_against_a_plain_loop(problem, step_size):
    starts = uniform(30, problem.n_parameters)
    ends = endings(problem, starts, step_size, 1_000)
    assert (ends == naive_fates(problem, starts, step_size, 1_000)).all()
    assert (ends == Ending.CONVERGED).sum() > 10


@pytest.mark.parametrize(
    ("special", "plain", "step_size"),
    [
        (PROBLEM, PlainFactorization(), 0.7),
        (PROBLEM, PlainFactorization(), 1.2),
        (PROBLEM, ScalarChain(2), 0.7),
        (PROBLEM, DiagonalLinearNetwork([[1.0]], [1.0]), 0.7),
        (ReluPair(), PlainPair(), 0.15),
        (ScalarChain(3), PlainChain(3), 0.25),
        (ScalarChain(3), PlainChain(3), 0.7),
    ],
)
def test_exact_coordinates_agree_with_plain_ones(special, plain, step_size):
    starts = uniform(1_000, special.n_parameters, 2.0)
    one, two = (endings(problem, starts, step_size, 3_000) for problem in (special, plain))
    assert (one == two).mean() >= 0.999  # a start on a fractal boundary may fall on either side


def test_fates_against_runs_that_are_followed_to_the_end():
    """`exact_runs` calls a run converged below 10⁻²⁵⁰ only."""
    problem, starts = ReluPair(), 2.5 * np.random.default_rng(0).random((3_000, 2))
    runs = exact_runs(problem, *problem.exact_coordinates(starts), 0.15, GD, 20_000)
    ends = endings(problem, starts, 0.15, 20_000)
    assert (ends == runs.fate).mean() >= 0.999
    assert set(np.unique(ends)) >= {Ending.CONVERGED, Ending.DEAD}


@pytest.mark.parametrize("step_size", [0.3, 1.0, 1.7])
def test_the_boundary_is_mapped_to_itself_three_to_one(step_size):
    angle = np.linspace(0, 2 * math.pi, 17)

    def boundary(psi):
        a = np.sqrt(4 * (2 + step_size) / step_size) * np.cos(psi)
        b = np.sqrt(4 * (2 - step_size) / step_size) * np.sin(psi)
        return np.stack([a + b, a - b], axis=-1) / 2

    theta = boundary(angle)
    quadratic = (theta**2).sum(axis=1) - step_size * theta.prod(axis=1)
    assert quadratic == pytest.approx(4 / step_size - step_size, rel=1e-12)
    image = theta - step_size * PROBLEM.gradient(theta)
    assert image == pytest.approx(boundary(math.pi - 3 * angle), abs=1e-12)


@pytest.mark.parametrize(("step_size", "share"), [(0.5, 1), (0.9, 1), (1.02, 0), (1.3, 0)])
def test_almost_all_or_none_of_the_region_converges(step_size, share):
    starts = uniform(4_000, 2)
    inside = starts[bounded_region(PROBLEM, starts, step_size)]
    result = converged_fraction(PROBLEM, inside, step_size, 20_000)
    assert result.value == share
    assert result.upper - result.lower < 0.01


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_a_chain_converges_below_its_threshold_only(depth):
    """2/k."""
    starts = uniform(1_000, depth, 1.5)
    below = converged_fraction(ScalarChain(depth), starts, 1.8 / depth, 5_000)
    above = converged_fraction(ScalarChain(depth), starts, 2.02 / depth, 5_000)
    assert below.value > 0.3
    assert above.value == 0


@settings(deadline=None, max_examples=300)
@given(st.floats(0.01, 2), st.floats(-8, 0), st.sampled_from([-1, 1]), st.floats(1, 3))
def test_what_is_proved_to_converge_converges(c, exponent, sign, stretch):
    """The ratio |δ'/δ| stays below 1 − g/2, g = 1 − |1 − cs|, as the inequality says."""
    delta = sign * 10**exponent
    s = 2 * abs(1 - delta) * stretch
    rate = 1 - (1 - abs(1 - c * s)) / 2
    trapped = _trapped(c, c * delta, c * s)
    for _ in range(100 if trapped else 0):
        if abs(delta) < 1e-200:
            break
        factor = 1 - c * s - c * c * delta * (1 - delta)
        s += 4 * c * delta * (1 - delta) + (c * delta) ** 2 * s
        delta *= factor
        assert abs(factor) <= rate + 1e-12


@settings(deadline=None, max_examples=300)
@given(st.lists(st.floats(0.3, 2), min_size=0, max_size=4), st.floats(-8, -1), st.floats(0.01, 1))
def test_what_is_proved_to_converge_for_a_chain_converges(factors, exponent, step_size):
    x = np.array([*factors, (1 + 10**exponent) / np.prod(factors)])
    others = np.empty(x.size)
    product = _others(x, others)
    if not _chain_trapped(step_size, 1 - product, product, x, others):
        return
    rate = 1 - (1 - abs(1 - step_size * (others**2).sum())) / 2
    for _ in range(100):
        delta = 1 - x.prod()
        x = x - step_size * ScalarChain(x.size).gradient(x)
        if abs(delta) < 1e-9:  # this twin knows δ by subtraction
            break
        assert abs((1 - x.prod()) / delta) <= rate + 1e-5


def test_the_inequality_is_not_empty():
    """It holds close enough to every stable minimum, and at no unstable one."""
    assert _trapped(0.5, 5e-4, 1.25)
    assert _trapped(0.5, 5e-7, 1.995)
    assert not _trapped(0.5, 1e-300, 2.005)
    x, others = np.array([1.0, 2.0, 0.5]), np.empty(3)
    product = _others(x, others)
    assert others.tolist() == [1.0, 0.5, 2.0]
    assert _chain_trapped(0.3, 1e-4, product, x, others)
    assert not _chain_trapped(0.39, 1e-300, product, x, others)


@pytest.mark.parametrize("problem", [PROBLEM, ScalarChain(2), PlainFactorization()])
def test_a_small_loss_is_not_convergence(problem):
    """Next to an unstable minimum the loss is 10⁻²⁴ and the run leaves."""
    start = [1 + 5e-13, 1 + 5e-13]
    assert problem.loss(np.array(start)) < 1e-23
    assert endings(problem, start, 1.01, 500) == Ending.UNDECIDED


@pytest.mark.parametrize("problem", [ScalarChain(3), PlainChain(3)])
def test_a_slow_passage_by_a_saddle_is_not_convergence(problem):
    start = [1e-5, 2e-5, 3e-5]
    assert np.linalg.norm(problem.gradient(np.array(start))) < 1e-8
    assert endings(problem, start, 0.1, 500) == Ending.UNDECIDED


def test_starts_on_the_axes():
    """On θ₁ = −θ₂ a run ends in the saddle, exactly; on a minimum it stays."""
    line = np.linspace(-1, 1, 11)[:, None] * [1.0, -1.0]
    assert (endings(PROBLEM, line, 0.5, 10_000) == Ending.CRITICAL).all()
    assert (endings(ScalarChain(2), line, 0.5, 10_000) == Ending.CRITICAL).all()
    assert (endings(PlainFactorization(), line, 0.5, 10_000) == Ending.CRITICAL).all()
    assert endings(PROBLEM, [2.0, 0.5], 1.5, 10) == Ending.CONVERGED
    assert endings(ScalarChain(3), [0.0, 0.0, 1.0], 0.1, 1_000) == Ending.CRITICAL


@pytest.mark.parametrize("model", [PROBLEM, ScalarChain(2), PlainFactorization()])
def test_a_critical_point_that_is_no_minimum_has_a_fate_of_its_own(model):
    ends = endings(model, [[0.0, 0.0], [1e-3, 1e-3], [1.0, 1.0]], 0.1, 2_000)
    assert ends.tolist() == [Ending.CRITICAL, Ending.CONVERGED, Ending.CONVERGED]


def test_at_a_bad_step_size_runs_end_at_the_maximum():
    """Paper D, Figure 1: at η = 1/2 all of |θ| > 2 jumps onto the local maximum 0."""
    ends = endings(PiecewiseQuartic(), [[3.0], [-2.5], [0.0]], 0.5, 1_000)
    assert (ends == Ending.CRITICAL).all()


def test_dead_networks():
    problem, starts = ReluPair(), np.array([[-1.0, 1.0], [1.0, 0.0], [1.0, 1.0], [3.0, 3.0]])
    for model in (problem, PlainPair()):
        ends = endings(model, starts, 0.1, 500)
        assert ends.tolist() == [Ending.DEAD, Ending.DEAD, Ending.CONVERGED, Ending.DEAD]


def test_linear_regression_converges_below_its_threshold_only():
    problem = LinearRegression([[1.0, 2.0], [0.5, 1.0], [1.0, 0.0]], [1.0, -1.0, 2.0])
    edge = 2 / np.linalg.eigvalsh(problem.hessian(np.zeros(2)))[-1]
    starts = uniform(20, 2)
    assert (endings(problem, starts, 0.99 * edge, 5_000) == Ending.CONVERGED).all()
    assert (endings(problem, starts, 1.2 * edge, 5_000) == Ending.DIVERGED).all()


def test_a_linear_network_that_does_not_interpolate():
    rng = np.random.default_rng(4)
    problem = LinearNetwork(rng.normal(size=(6, 2)), rng.normal(size=(6, 2)), [3])
    edge = 2 / np.linalg.eigvalsh(problem.hessian(problem.balanced_minimum()))[-1]
    starts = 0.5 * rng.normal(size=(30, problem.n_parameters))
    below = converged_fraction(problem, starts, 0.1 * edge, 10_000)
    assert below.value == 1
    assert converged_fraction(problem, starts, 2.0 * edge, 3_000).value == 0


def test_a_network_with_data():
    rng = np.random.default_rng(4)
    problem = TwoLayerNetwork(rng.normal(size=(3, 2)), rng.normal(size=3), width=4)
    starts = np.stack([problem.initial(seed) for seed in range(5)])
    assert (endings(problem, starts, 0.2, 10_000) == Ending.CONVERGED).all()


@pytest.mark.parametrize(
    ("step_size", "share"),
    [(0.1, 1), (0.16, 1), (0.25, 0), (0.5, 0)],
)
def test_paper_d_figure_1(step_size, share):
    """The minima have curvature 12; at η = 1/2 all of |θ| > 2 lands on the maximum 0 and stays."""
    starts = uniform(50, 1, 4)
    result = converged_fraction(PiecewiseQuartic(), starts, step_size, 3_000)
    assert result.value == share


def test_a_basin_has_rows_for_y_and_columns_for_x():
    x, y = [0.2, 1.0, 2.5], [-2.0, 0.4]
    picture = basin(ReluPair(), x, y, 0.1, 1_000)
    assert picture.shape == (2, 3)
    for j, i in np.ndindex(2, 3):
        assert picture[j, i] == endings(ReluPair(), [x[i], y[j]], 0.1, 1_000)
    assert len(np.unique(picture)) > 1


def test_counts_and_exact_confidence_interval():
    """With no success in n runs the upper end is 1 − (α/2)^{1/n}."""
    starts = np.concatenate([np.full((30, 2), 1.1), np.full((10, 2), 9.0)])
    result = converged_fraction(PROBLEM, starts, 0.5, 1_000)
    assert result.value == 0.75
    assert result.counts == {
        Ending.UNDECIDED: 0, Ending.CONVERGED: 30, Ending.DEAD: 0, Ending.DIVERGED: 10,
        Ending.CRITICAL: 0,
    }  # fmt: skip
    assert result.lower < 0.75 < result.upper
    none = converged_fraction(PROBLEM, starts[30:], 0.5, 1_000, confidence=0.9)
    assert (none.value, none.lower, none.confidence) == (0, 0, 0.9)
    assert none.upper == pytest.approx(1 - 0.05 ** (1 / 10), rel=1e-9)
    every = converged_fraction(PROBLEM, starts[:30], 0.5, 1_000)
    assert every.lower == pytest.approx(0.025 ** (1 / 30), rel=1e-9)


@pytest.mark.parametrize("problem", [PROBLEM, ScalarChain(2), PlainFactorization()])
@pytest.mark.parametrize("step_size", [1.05, 1.15, 1.23])
def test_square_root_law_of_the_gradient_norm(problem, step_size):
    """lim|∇L| = √(2(1−1/η))/η for 1 < η < √5 − 1."""
    starts = uniform(60, 2)
    starts = starts[bounded_region(PROBLEM, starts, step_size)]
    norms = asymptotic_gradient_norm(problem, starts, step_size, 4_000)
    expected = math.sqrt(2 * (1 - 1 / step_size)) / step_size
    assert norms == pytest.approx(np.full(len(starts), expected), rel=1e-9)


def test_the_gradient_norm_scales_with_the_data():
    problem = ScalarFactorization([0.9, 2.5], [0.25, 0.75])
    kappa = 0.25 * 0.81 + 0.75 * 6.25
    norm = asymptotic_gradient_norm(problem, [1.1, 0.8], 1.15 / kappa, 5_000)
    assert norm == pytest.approx(kappa * math.sqrt(2 * (1 - 1 / 1.15)) / 1.15, rel=1e-9)
    plain = asymptotic_gradient_norm(
        PlainFactorization(problem.inputs[:, 0], problem.probabilities),
        [1.1, 0.8],
        1.15 / kappa,
        5_000,
    )
    assert norm == pytest.approx(plain, rel=1e-9)


@pytest.mark.parametrize("problem", [ScalarChain(3), PlainChain(3)])
def test_gradient_norms_of_runs_that_converge_and_diverge(problem):
    starts = [[1.1, 0.8, 1.0], [8.0, 9.0, 9.0]]
    norms = asymptotic_gradient_norm(problem, starts, 0.2, 2_000)
    assert norms[0] < 1e-13
    assert norms[1] == math.inf
    assert asymptotic_gradient_norm(PROBLEM, [9.0, 9.0], 0.5, 500) == math.inf


def test_chaotic_gradient_norms_agree_on_average():
    """Beyond √5 − 1 single runs differ by rounding, their mean does not."""
    starts = uniform(300, 2, 1.5)
    starts = starts[bounded_region(PROBLEM, starts, 1.35)]
    one, two = (
        asymptotic_gradient_norm(problem, starts, 1.35, 4_000, average=2_000)
        for problem in (PROBLEM, PlainFactorization())
    )
    spread = math.hypot(one.std(), two.std()) / math.sqrt(len(starts))
    assert abs(one.mean() - two.mean()) < 5 * spread + 1e-3 * one.mean()


def test_shapes_and_starts_that_are_not_changed():
    starts = uniform(6, 2).reshape(2, 3, 2)
    before = starts.copy()
    for problem in (PROBLEM, ScalarChain(2), PlainFactorization()):
        assert endings(problem, starts, 0.5, 100).shape == (2, 3)
        assert asymptotic_gradient_norm(problem, starts, 0.5, 100).shape == (2, 3)
        assert endings(problem, starts[0, 0], 0.5, 100).shape == ()
    assert (starts == before).all()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: endings(PROBLEM, [1.0], 0.5, 10), ValueError, "starts must have shape"),
        (lambda: endings(PROBLEM, [1.0, 1.0], -1, 10), ValueError, "step_size must be finite"),
        (lambda: endings(PROBLEM, [1.0, 1.0], 0.5, 0), ValueError, "steps must be at least 1"),
        (lambda: endings("chain", [1.0], 0.5, 10), TypeError, "problem must be a Problem"),
        (lambda: basin(ScalarChain(3), [1.0], [1.0], 0.5, 10), ValueError, "two parameters, got 3"),
        (
            lambda: converged_fraction(PROBLEM, [1.0, 1.0], 0.5, 10, confidence=1.0),
            ValueError,
            "confidence must be finite and greater than 0 and less than 1",
        ),
        (
            lambda: asymptotic_gradient_norm(PROBLEM, [1.0, 1.0], 0.5, 10, average=11),
            ValueError,
            "average must be at most steps = 10, got 11",
        ),
        (
            lambda: bounded_region(ReluPair(), [1.0, 1.0], 0.5),
            TypeError,
            "got ReluPair; use ScalarFactorization",
        ),
    ],
)
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()


class Ascent(ScalarFactorization):
    """The factorisation, followed uphill."""

    def gradient(self, theta):
        return -super().gradient(theta)


def test_a_subclass_with_another_gradient_is_followed_by_it():
    """The compiled loop of its parent would find the minimum."""
    start = [[1.0, 0.9]]
    assert endings(ScalarFactorization(), start, 0.3, 500) == Ending.CONVERGED
    assert endings(Ascent(), start, 0.3, 500) != Ending.CONVERGED
    assert endings(Ascent(), [[1.0, 1.2]], 0.3, 500) == Ending.DIVERGED


def test_a_share_prints_with_its_interval_and_its_counts():
    starts = [[1.0, 0.9]] * 3 + [[9.0, 9.0]]
    text = str(converged_fraction(ScalarFactorization(), starts, 0.3, 500))
    assert text.startswith("0.75 of the runs converge (probability in [0.1941, 0.9937] at 95% ")
    assert text.endswith(": 3 converged, 1 diverged")
