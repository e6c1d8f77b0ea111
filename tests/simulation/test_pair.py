import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stabcore import (
    GD,
    SGD,
    ReluPair,
    ScalarFactorization,
    stable_arcs,
)
from stabcore.simulation import PairFate, exact_runs

RATIONAL = st.integers(1, 300).map(lambda n: Fraction(n, 100))


def exact_step(theta, rate):
    """Take one step of gradient descent on ½(1 − θ₁θ₂)² in rational numbers."""
    x, y = theta
    push = rate * (1 - x * y)
    return x + push * y, y + push * x


def coordinates(theta):
    return 1 - theta[0] * theta[1], theta[0] ** 2 + theta[1] ** 2


@settings(deadline=None, max_examples=200)
@given(RATIONAL, RATIONAL, RATIONAL)
def test_one_exact_step_against_rational_arithmetic(x, y, rate):
    delta, s = (float(c) for c in coordinates((x, y)))
    if delta == 0:
        return
    runs = exact_runs(ScalarFactorization(), delta, s, float(rate), GD, 1)
    expected = [float(c) for c in coordinates(exact_step((x, y), rate))]
    c = float(rate)
    scale = abs(delta) * (1 + c * s + c * c * abs(delta) * (1 + abs(delta)))
    assert runs.delta[0] == pytest.approx(expected[0], abs=1e-14 * scale)
    assert runs.s[0] == pytest.approx(expected[1], rel=1e-13)


def test_fates():
    problem = ReluPair()
    runs = exact_runs(problem, [0.1, 0.1, 0.9, 1e-251], [2.3, 3.0, 60.0, 5.0], 0.15, GD, 50)
    names = [PairFate(f).name for f in runs.fate]
    assert names == ["UNDECIDED", "UNDECIDED", "DEAD", "CONVERGED"]
    assert runs.steps.tolist()[0::3] == [50, 0]
    assert [runs.share(fate) for fate in PairFate] == [0.5, 0.25, 0.25, 0.0]
    assert runs.limits.tolist() == [5.0]


def test_runs_that_leave_the_range_of_doubles_overflow_nothing():
    """Warnings are errors: |δ| and s may end anywhere up to infinity."""
    starts = np.full(64, 1e-60), np.full(64, 2.5)
    for eta in np.linspace(2.45, 2.95, 32):
        runs = exact_runs(ScalarFactorization([1.0, 4.0]), *starts, eta, SGD(), 3_000, rng=0)
        assert (runs.fate == PairFate.DIVERGED).all()
        assert not (np.maximum(np.abs(runs.delta), runs.s) < 1e150).any()
    with pytest.raises(ValueError, match=r"s must be at least 2\|1 - delta\|.* is -inf"):
        exact_runs(ScalarFactorization(), [1e308, 0.5], [1.0, 2.0], 0.1, SGD(), 10)


def test_rounding_does_not_take_s_below_twice_the_product():
    """At the balanced minimum s = 2: what a run finds satisfies s ≥ 2|1 − δ| to the last bit."""
    delta = np.linspace(-0.5, 0.5, 301)
    runs = exact_runs(ScalarFactorization(), delta, 2 * np.abs(1 - delta), 0.3, GD, 5_000)
    assert (runs.fate == PairFate.CONVERGED).all()
    assert (runs.s >= 2 * np.abs(1 - runs.delta)).all()
    assert runs.s == pytest.approx(2.0)


def test_convergence_is_judged_at_the_floor():
    """At s with |1 − cs| = ½ a run loses log 2 a step: 250 log 10/log 2 ≈ 830 steps."""
    runs = exact_runs(ScalarFactorization(), [1e-3], [5.0], 0.1, GD, 2_000, record_every=1)
    assert PairFate(runs.fate[0]) is PairFate.CONVERGED
    rate = math.log(abs(1 - 0.1 * runs.s[0]))
    assert runs.steps[0] == pytest.approx(math.log(1e-247) / rate, abs=3)
    assert abs(runs.delta[0]) < 1e-250
    history = runs.history[: runs.steps[0] + 1, 0]
    assert np.diff(history[100:]) == pytest.approx(rate, abs=1e-9)
    assert history[-1] == pytest.approx(math.log(abs(runs.delta[0])), rel=1e-12)
    assert np.isnan(runs.history[runs.steps[0] + 1 :]).all()


def test_history_is_recorded_every_so_many_steps():
    arguments = (ReluPair(), [0.1, 0.2], [2.5, 3.0], 0.15, SGD(), 10)
    fine = exact_runs(*arguments, rng=0, record_every=1)
    coarse = exact_runs(*arguments, rng=0, record_every=4)
    assert fine.history.shape == (11, 2)
    assert (coarse.history == fine.history[::4]).all()
    assert exact_runs(*arguments, rng=0).history.shape == (0, 2)
    assert fine.history[0] == pytest.approx(np.log([0.1, 0.2]))
    assert fine.history[-1] == pytest.approx(np.log(np.abs(fine.delta)))


@pytest.mark.parametrize(("eta", "p"), [(0.15, 0.5), (0.3, 0.58)])
def test_limits_of_100_000_starts_are_all_in_the_predicted_arcs(eta, p):
    problem = ReluPair(probabilities=[p, 1 - p])
    theta = np.random.default_rng(0).uniform(0, 3.2, size=(100_000, 2))
    runs = exact_runs(problem, *problem.exact_coordinates(theta), eta, SGD(), 20_000, rng=0)
    arcs = stable_arcs(problem, eta)
    assert runs.share(PairFate.UNDECIDED) < 0.01  # λ is nearly 0 close to the ends
    assert runs.limits.size > 1_000
    assert arcs.sgd.contains(runs.limits).all()
    # Not a vacuous claim: every stable arc is reached.
    for low, high in arcs.sgd.intervals:
        assert ((low <= runs.limits) & (runs.limits <= high)).any()


def test_limits_of_gradient_descent_are_in_the_predicted_arc():
    problem = ReluPair()
    theta = np.random.default_rng(0).uniform(0, 2.5, size=(20_000, 2))
    runs = exact_runs(problem, *problem.exact_coordinates(theta), 0.15, GD, 20_000)
    assert runs.limits.size > 1_000
    assert stable_arcs(problem, 0.15).gd.contains(runs.limits).all()


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_same_seed_same_runs_on_any_number_of_cores(monkeypatch, batch_size):
    results = []
    for workers in (1, 2, 9):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, w=workers: range(w), raising=False)
        problem = ReluPair([0.5, 1.0, 2.0])
        delta, s = problem.exact_coordinates(np.random.default_rng(1).uniform(0, 2, (50, 2)))
        results.append(
            exact_runs(
                problem, delta, s, 0.2, SGD(batch_size=batch_size), 40, rng=3, record_every=5
            )
        )
    for other in results[1:]:
        for name in ("delta", "s", "fate", "steps", "history"):
            assert np.array_equal(getattr(other, name), getattr(results[0], name), equal_nan=True)
