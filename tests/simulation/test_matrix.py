"""Noisy matrix factorisation: a naive twin in any basis, the exponents, the rank, bad input."""

import math

import numpy as np
import pytest

from stabcore import GD, SGD, FiniteSignal
from stabcore.saddles import direction_exponents
from stabcore.simulation import neuron_runs, noisy_matrix_runs

STRENGTHS = [0.5, 0.3, 0.1]


def starts(*shape, rng=0, size=0.1):
    left, right = size * np.random.default_rng(rng).normal(size=(2, *shape))
    return left, right


def test_without_noise_it_is_gradient_descent_in_any_basis():
    rng = np.random.default_rng(3)
    p, q = (np.linalg.qr(rng.normal(size=(5, 3)))[0] for _ in range(2))  # p_k, q_k in columns
    target = p @ np.diag(STRENGTHS) @ q.T
    rows = starts(3, 4, rng=1)
    u, v = p @ rows[0], q @ rows[1]
    for _ in range(30):
        error = u @ v.T - target
        u, v = u - 0.7 * error @ v, v - 0.7 * error.T @ u
    runs = noisy_matrix_runs(STRENGTHS, 0.0, 0.7, SGD(), 30, rows, rng=0)
    plus, minus = p.T @ u + q.T @ v, p.T @ u - q.T @ v
    np.testing.assert_allclose(runs.log_plus, np.log(np.linalg.norm(plus, axis=1)), rtol=1e-10)
    np.testing.assert_allclose(runs.log_minus, np.log(np.linalg.norm(minus, axis=1)), rtol=1e-9)
    assert runs.rank == 3
    assert runs.steps == 30


def test_one_direction_and_one_column_is_one_neuron():
    # Learned with noise: the same law of ends as the simulation of the neuron.
    signal = FiniteSignal([0.3 + 0.4, 0.3 - 0.4])
    left, right = (np.full((4000, 1, 1), value) for value in (0.5, 0.2))
    runs = noisy_matrix_runs([0.3], 0.4, 0.3, SGD(), 40, (left, right), rng=1)
    twin = neuron_runs(signal, np.full(4000, 0.5), 0.2, 0.3, SGD(), 40, rng=2)
    for ours, theirs in ((runs.log_plus, twin.log_plus), (runs.log_minus, twin.log_minus)):
        error = math.hypot(ours.std(), theirs.std()) / math.sqrt(4000)
        assert abs(ours.mean() - theirs.mean()) < 4 * error
        assert ours.std() == pytest.approx(theirs.std(), rel=0.07)


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_rates_near_the_saddle_are_the_exponents(batch):
    left, right = starts(3000, 3, 2, size=1e-60)
    runs = noisy_matrix_runs(STRENGTHS, 0.8, 0.4, SGD(batch_size=batch), 100, (left, right), rng=2)
    predicted = direction_exponents(STRENGTHS, 0.8, 0.4, SGD(batch_size=batch))
    for logs, start, values in zip(
        (runs.log_plus, runs.log_minus), (left + right, left - right), predicted, strict=True
    ):
        rates = (logs - np.log(np.linalg.norm(start, axis=-1))) / 100
        errors = rates.std(axis=0) / math.sqrt(len(rates))
        assert (np.abs(rates.mean(axis=0) - values) < 4.5 * errors).all()


@pytest.mark.parametrize(("noise", "rank"), [(0.0, 3), (0.33, 2), (0.6, 1), (0.95, 0)])
def test_the_predicted_rank_is_found(noise, rank):
    strengths = [0.2, 0.07, 0.015]
    top = np.maximum(*direction_exponents(strengths, noise, 0.7))
    assert (top > 0).sum() == rank
    runs = noisy_matrix_runs(strengths, noise, 0.7, SGD(), 30_000, starts(8, 3, 4), rng=0)
    assert (runs.rank == rank).all()


def test_a_dead_matrix_stops_early():
    runs = noisy_matrix_runs([0.0], 0.9, 1.0, SGD(), 100_000, starts(1, 1), rng=0)
    assert runs.steps < 10_000
    assert runs.rank == 0
    assert runs.log_plus[0] == runs.log_minus[0] == -math.inf


def test_divergence_has_rank_minus_one():
    runs = noisy_matrix_runs([1.0], 0.0, 5.0, SGD(), 1000, starts(1, 1), rng=0)
    assert runs.diverged
    assert runs.rank == -1
    assert runs.steps < 1000


def test_grids_broadcast_and_the_seed_decides():
    arguments = (STRENGTHS, np.array([0.1, 0.4])[:, None, None], np.array([0.2, 0.5, 0.6])[:, None])
    first, second, other = (
        noisy_matrix_runs(*arguments, SGD(batch_size=2), 50, starts(4, 3, 3), rng=seed)
        for seed in (1, 1, 2)
    )
    assert first.log_plus.shape == (2, 3, 4, 3)
    assert first.rank.shape == (2, 3, 4)
    np.testing.assert_array_equal(first.log_plus, second.log_plus)
    assert not np.array_equal(first.log_plus, other.log_plus)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strengths": [[1.0]]}, "strengths must have 1 dimension"),
        ({"noise": -0.1}, "noise must be at least 0"),
        ({"step_size": 0.0}, "step_size must be positive"),
        ({"method": SGD(batch_size=65)}, "batch_size must be at most 64"),
        ({"method": GD}, "every observation is new"),
        ({"method": SGD(reshuffle=True)}, "every observation is new"),
        ({"starts": (np.ones((2, 1)), np.ones((2, 1)))}, "starts"),
        ({"starts": (np.ones((1, 2)), np.ones((1, 1)))}, "starts"),
        ({"noise": [0.1, 0.2], "step_size": [0.1, 0.2, 0.3]}, "broadcast"),
        ({"steps": 0}, "steps"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {
        "strengths": [1.0],
        "noise": 0.1,
        "step_size": 0.1,
        "method": SGD(),
        "steps": 1,
        "starts": (np.ones((1, 1)), np.ones((1, 1))),
    } | change
    with pytest.raises(ValueError, match=message):
        noisy_matrix_runs(**arguments)


def test_tiny_rows_have_a_logarithm():
    """log|u| of numbers whose squares underflow: it scales with the start."""
    starts = np.full((2, 50, 1, 1), 1e-170)
    starts[1] = 0.0
    tiny = noisy_matrix_runs([1.0], 0.5, 0.5, SGD(), 20, tuple(starts), rng=0)
    larger = noisy_matrix_runs([1.0], 0.5, 0.5, SGD(), 20, tuple(1e20 * starts), rng=0)
    np.testing.assert_allclose(tiny.log_plus + 20 * math.log(10), larger.log_plus, rtol=1e-12)
