import math

import numpy as np
import pytest

from stabcore import (
    GD,
    SGD,
    DiagonalLinearNetwork,
    LinearRegression,
    ReluPair,
    ScalarFactorization,
    TwoLayerNetwork,
    gd_map,
    gradient_descent,
    stable_arcs,
    stochastic_gradient_descent,
)
from stabcore.simulation import PairFate, exact_runs


@pytest.mark.parametrize("inputs", [[0.9], [2.5], [0.9, 2.5], [0.5, 1.0, 2.0]])
def test_exact_coordinates_follow_plain_gradient_descent(inputs):
    problem = ReluPair(inputs)
    theta = np.array([[1.3, 0.6], [0.7, 1.2], [1.1, 1.1]])
    exact = exact_runs(problem, *problem.exact_coordinates(theta), 0.1, GD, 30, record_every=1)
    plain = gradient_descent(problem, theta, 0.1, 30, record_every=1)
    deltas, _ = problem.exact_coordinates(plain.points)
    assert np.exp(exact.history) == pytest.approx(np.abs(deltas), abs=1e-12)


@pytest.mark.parametrize("problem", [ScalarFactorization([0.9, 2.5]), ReluPair([0.5, 1.0, 2.0])])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_the_laws_of_one_exact_and_one_plain_sgd_step_agree(problem, batch_size):
    """From one start every batch leads somewhere: the same places, equally often."""
    theta = np.tile([1.2, 0.7], (20_000, 1))
    plain = stochastic_gradient_descent(problem, theta, 0.1, SGD(batch_size=batch_size), 1, rng=0)
    ends, _ = problem.exact_coordinates(plain.ends)
    exact = exact_runs(
        problem, *problem.exact_coordinates(theta), 0.1, SGD(batch_size=batch_size), 1, rng=1
    )
    places, plain_counts = np.unique(ends.round(10), return_counts=True)
    again, exact_counts = np.unique(exact.delta.round(10), return_counts=True)
    assert again == pytest.approx(places, abs=1e-9)
    assert places.size == math.comb(problem.n_samples, batch_size)
    difference = (plain_counts - exact_counts) / np.sqrt(plain_counts + exact_counts)
    assert (np.abs(difference) < 4).all()


def test_plain_gradient_descent_is_the_iterated_map():
    network = TwoLayerNetwork([[0.3, 1.0], [-1.0, 0.2]], [0.5, -0.5], 2)
    start = network.initial(0)
    runs = gradient_descent(network, start[None], 0.2, 7, record_every=3)
    theta = start
    for step in range(1, 8):
        theta = gd_map(network, theta, 0.2)
        if step in {3, 6, 7}:
            recorded = runs.points[runs.times.tolist().index(step), 0]
            assert recorded == pytest.approx(theta, rel=1e-13)
    assert runs.times.tolist() == [0, 3, 6, 7]
    norms = [math.log(np.linalg.norm(network.residuals(p))) for p in runs.points[:, 0]]
    assert runs.log_residuals[:, 0] == pytest.approx(norms, rel=1e-12)


def test_the_full_batch_is_gradient_descent():
    problem = DiagonalLinearNetwork([[1.0, 0.3], [-0.5, 2.0]], [1.0, 0.7])
    starts = np.random.default_rng(0).normal(size=(5, 4))
    stochastic = stochastic_gradient_descent(problem, starts, 0.05, SGD(batch_size=2), 20, rng=0)
    assert stochastic.ends == pytest.approx(
        gradient_descent(problem, starts, 0.05, 20).ends, rel=1e-11
    )


def test_the_mean_of_one_sgd_step_is_the_gradient_step():
    problem = ReluPair(probabilities=[0.8, 0.2])
    starts = np.tile([1.2, 0.7], (40_000, 1))
    moves = stochastic_gradient_descent(problem, starts, 0.1, SGD(), 1, rng=0).ends - starts
    error = moves.std(axis=0, ddof=1) / 200
    expected = -0.1 * problem.gradient(starts[0])
    assert (np.abs(moves.mean(axis=0) - expected) < 4 * error).all()
    second = ReluPair(probabilities=[0.0, 1.0])
    always = stochastic_gradient_descent(second, starts, 0.1, SGD(), 1, rng=0).ends
    assert always == pytest.approx(
        np.tile(gd_map(ReluPair([2.5]), starts[0], 0.1), (40_000, 1)), rel=1e-12
    )


def test_divergence_is_reported():
    runs = exact_runs(ScalarFactorization(), [-5.0], [40.0], 1.0, GD, 200)
    assert PairFate(runs.fate[0]) is PairFate.DIVERGED
    assert runs.steps[0] < 200
    plain = gradient_descent(
        ScalarFactorization(), [[6.0, 1.0], [1.0, 0.9]], 1.0, 200, record_every=100
    )
    assert plain.diverged.tolist() == [True, False]
    assert np.isnan(plain.ends[0]).all()


@pytest.mark.parametrize("inputs", [[1.0], [0.9, 2.5]])
def test_relu_dies_exactly_when_it_does_in_plain_coordinates(inputs):
    problem, steps = ReluPair(inputs), 25
    starts = np.random.default_rng(0).uniform(0.05, 3, size=(3_000, 2))
    exact = exact_runs(problem, *problem.exact_coordinates(starts), 0.2, GD, steps)
    plain = gradient_descent(problem, starts, 0.2, steps, record_every=1)
    alive = problem.smooth(plain.points)
    first = np.where(alive.all(axis=0), steps, np.argmin(alive, axis=0))
    dead = exact.fate == PairFate.DEAD
    assert (dead == ~alive.all(axis=0)).all()
    assert (exact.steps[dead] == first[dead]).all()
    assert 0.1 < dead.mean() < 0.9
    # Dead for good: the parameters do not move any more.
    assert (plain.ends[dead] == plain.points[first[dead], np.flatnonzero(dead)]).all()


def test_deadness_under_sgd_is_as_frequent_as_in_plain_coordinates():
    problem = ReluPair()
    starts = np.random.default_rng(0).uniform(0.05, 2.5, size=(4_000, 2))
    exact = exact_runs(problem, *problem.exact_coordinates(starts), 0.2, SGD(), 20, rng=0)
    plain = stochastic_gradient_descent(problem, starts, 0.2, SGD(), 20, rng=1)
    shares = exact.share(PairFate.DEAD), (~problem.smooth(plain.ends)).mean()
    assert 0.1 < shares[0] < 0.9
    assert abs(shares[0] - shares[1]) < 4 * math.sqrt(2 * 0.25 / 4_000)


def test_the_floating_point_trap():
    """Just past paper D's first arc (s < 2.6359) plain SGD "converges" to unstable minima.

    log|δ| is a random walk with drift λ = 0.0143 and variance 0.17 a step, which goes from 10⁻⁶
    down to rounding with probability about exp(−(2λ/0.17) 21) = 3 %.
    """
    problem, starts = ReluPair(), np.tile(ReluPair().minimum(2.7), (2_000, 1))
    starts[:, 1] *= 1 - 1e-6
    plain = stochastic_gradient_descent(problem, starts, 0.15, SGD(), 3_000, rng=0)
    delta, s = problem.exact_coordinates(plain.ends)
    trapped = (np.abs(delta) < 1e-15) & (s > 2.66) & (s < 6)
    assert 0.002 < trapped.mean() < 0.05

    exact = exact_runs(problem, *problem.exact_coordinates(starts), 0.15, SGD(), 20_000, rng=0)
    assert exact.limits.size > 100
    assert stable_arcs(problem, 0.15).sgd.contains(exact.limits).all()


def test_same_seed_same_plain_runs():
    starts = [[1.2, 0.9], [0.5, 1.0]]
    ends = [
        stochastic_gradient_descent(ReluPair(), starts, 0.1, SGD(), 30, rng=seed).ends
        for seed in (5, np.random.default_rng(5), 6)
    ]
    assert (ends[0] == ends[1]).all()
    assert (ends[0] != ends[2]).any()


def test_starts_are_not_changed():
    delta, s, theta = np.array([0.1]), np.array([2.5]), np.array([[1.2, 0.9]])
    exact_runs(ReluPair(), delta, s, 0.15, SGD(), 5, rng=0)
    stochastic_gradient_descent(ReluPair(), theta, 0.1, SGD(), 5, rng=0)
    gradient_descent(ReluPair(), theta, 0.1, 5)
    assert (delta[0], s[0], theta.tolist()) == (0.1, 2.5, [[1.2, 0.9]])


def test_a_minimum_is_a_fixed_point_with_log_residual_minus_infinity():
    runs = gradient_descent(ReluPair(), [[2.0, 0.5]], 0.3, 3)
    assert runs.ends.tolist() == [[2.0, 0.5]]
    assert (runs.log_residuals == -math.inf).all()


@pytest.mark.parametrize(
    ("momentum", "nesterov"), [(0.0, False), (0.5, False), (0.9, False), (0.5, True), (0.9, True)]
)
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_momentum_nesterov_and_weight_decay_step_by_step(momentum, nesterov, decay):
    """Full batches against a plain loop, and the two-term form of the recursion."""
    problem = DiagonalLinearNetwork([[1.0, 0.3], [-0.5, 2.0]], [1.0, 0.7], [0.3, 0.7])
    start = np.array([0.9, 1.2, -0.4, 0.8])
    method = SGD(batch_size=None, momentum=momentum, nesterov=nesterov, weight_decay=decay)
    found = stochastic_gradient_descent(problem, start[None], 0.07, method, 12, record_every=1)
    theta, velocity = start, 0.0
    for k in range(12):
        gradient = sum(
            p * residual * row
            for p, residual, row in zip(
                [0.3, 0.7], problem.residuals(theta), problem.jacobian(theta), strict=True
            )
        )
        gradient = gradient + decay * theta
        velocity = momentum * velocity + gradient
        theta = theta - 0.07 * (gradient + momentum * velocity if nesterov else velocity)
        assert found.points[k + 1, 0] == pytest.approx(theta, rel=1e-12)


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_reshuffled_epochs_use_every_sample_once(batch_size):
    """Orthogonal inputs: sample i moves coordinate i alone, by the factor 1 − η/B."""
    problem = LinearRegression(np.eye(6), np.zeros(6))
    epoch = 6 // batch_size
    method = SGD(batch_size=batch_size, reshuffle=True)
    runs = stochastic_gradient_descent(
        problem, np.ones((400, 6)), 0.5, method, 5 * epoch, rng=0, record_every=1
    )
    factor = 1 - 0.5 / batch_size
    for k in range(6):
        assert runs.points[k * epoch] == pytest.approx(np.full((400, 6), factor**k), rel=1e-12)
    # The order is new in every run and in every epoch, and every sample comes first equally often.
    first = [runs.points[k * epoch + 1] != runs.points[k * epoch] for k in (0, 3)]
    assert (first[0] != first[1]).any()
    share = batch_size / 6
    for moved in first:
        assert (moved.sum(axis=1) == batch_size).all()
        error = math.sqrt(share * (1 - share) / 400)
        assert (np.abs(moved.mean(axis=0) - share) < 4 * error).all()


def test_importance_sampling_draws_by_q_and_weighs_by_p_over_q():
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.2, 0.6])
    problem = LinearRegression(np.eye(3), np.zeros(3), probabilities=p)
    starts = np.ones((20_000, 3))
    moves = stochastic_gradient_descent(problem, starts, 0.1, SGD(probabilities=q), 1, rng=0).ends
    drawn = np.argmin(moves, axis=1)
    expected = starts.copy()
    expected[np.arange(20_000), drawn] -= 0.1 * (p / q)[drawn]
    assert moves == pytest.approx(expected, rel=1e-12)
    shares = np.bincount(drawn) / 20_000
    assert (np.abs(shares - q) < 4 * np.sqrt(q * (1 - q) / 20_000)).all()
