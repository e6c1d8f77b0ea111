"""Wide networks on scalar inputs: a naive twin, the reduction to one neuron, the saddle laws."""

import math

import numpy as np
import pytest

from stabcore import SGD, saddle_exponents
from stabcore.saddles import relu_signal
from stabcore.simulation import wide_runs

INPUTS = np.array([1.0, -0.5, 0.8, -1.0])

TARGETS = np.array([1.0, -1.0, -1.0, 0.5])


def gradient_descent(x, y, u, w, rate, steps, relu):
    """Full-batch steps, written without thought of speed."""
    for _ in range(steps):
        hidden = np.outer(x, w)
        seen = hidden > 0 if relu else np.ones_like(hidden, dtype=bool)
        error = (seen * hidden) @ u - y
        du = (error[:, None] * seen * hidden).mean(axis=0)
        dw = (error[:, None] * seen * x[:, None]).mean(axis=0) * u
        u, w = u - rate * du, w - rate * dw
    return u, w


@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_full_batches_are_gradient_descent(activation):
    u, w = np.random.default_rng(0).normal(size=(2, 3, 5))
    runs = wide_runs(
        INPUTS,
        TARGETS,
        u,
        w,
        0.1,
        SGD(batch_size=4),
        40,
        activation=activation,
        record_every=15,
        rng=0,
    )
    assert runs.times.tolist() == [0, 15, 30, 40]
    for row in range(3):
        for record, steps in enumerate(runs.times):
            expected = gradient_descent(
                INPUTS, TARGETS, u[row], w[row], 0.1, steps, activation == "relu"
            )
            np.testing.assert_allclose(runs.u[record, row], expected[0], rtol=1e-10)
            np.testing.assert_allclose(runs.w[record, row], expected[1], rtol=1e-10)


def test_a_relu_neuron_changes_sides():
    # η = 0.2, x = y = 1: w = 0.1 − 0.2·1.1 = −0.12 and u = −1 + 0.2·1.1·0.1; then x is not seen.
    runs = wide_runs([1.0], [1.0], [[-1.0]], [[0.1]], 0.2, SGD(), 5, activation="relu", rng=0)
    assert runs.u[-1, 0, 0] == pytest.approx(-0.978)
    assert runs.w[-1, 0, 0] == pytest.approx(-0.12)
    # It sees x = −1 of the target −1, and learns it.
    both = wide_runs(
        [1.0, -1.0], [1.0, -1.0], [[-1.0]], [[0.1]], 0.2, SGD(batch_size=2), 500, activation="relu"
    )
    assert (both.u * both.w)[-1, 0, 0] == pytest.approx(1.0)


def test_batches_with_replacement_are_independent_draws():
    # One step from u = w = 1: u' = 1 − η(x − y)x, so the mean over runs is that of a full batch
    # and the variance is 1/B of that of one sample.
    ones = np.ones((40_000, 1))
    single = np.asarray((INPUTS - TARGETS) * INPUTS)
    for size in (1, 3):
        runs = wide_runs(
            INPUTS, TARGETS, ones, ones, 1.0, SGD(batch_size=size, replacement=True), 1, rng=size
        )
        moves = 1 - runs.u[-1, :, 0]
        error = math.sqrt(single.var() / size / moves.size)
        assert abs(moves.mean() - single.mean()) < 4 * error
        assert moves.var() == pytest.approx(single.var() / size, rel=0.05)


def test_batches_without_replacement_have_the_smaller_variance():
    ones = np.ones((40_000, 1))
    single = (INPUTS - TARGETS) * INPUTS
    runs = wide_runs(INPUTS, TARGETS, ones, ones, 1.0, SGD(batch_size=2), 1, rng=0)
    assert (1 - runs.u[-1]).var() == pytest.approx(single.var() / 2 * (2 / 3), rel=0.05)


def test_a_linear_layer_moves_like_one_neuron():
    u, w = 0.4 * np.random.default_rng(1).normal(size=(2, 6, 7))
    plus, minus = (np.linalg.norm(part, axis=1, keepdims=True) for part in (u + w, u - w))
    options = {"step_size": 0.3, "method": SGD(), "steps": 500, "record_every": 50, "rng": 5}
    layer = wide_runs(INPUTS, TARGETS, u, w, **options)
    single = wide_runs(INPUTS, TARGETS, (plus + minus) / 2, (plus - minus) / 2, **options)
    for sign in (1, -1):
        norms = np.linalg.norm(layer.u + sign * layer.w, axis=-1)
        alone = np.abs(single.u + sign * single.w)[..., 0]
        np.testing.assert_allclose(norms, alone, atol=1e-12)
    shares = layer.u[-1] + layer.w[-1]
    start = u + w
    cosine = (
        (shares * start).sum(1) / np.linalg.norm(shares, axis=1) / np.linalg.norm(start, axis=1)
    )
    np.testing.assert_allclose(np.abs(cosine), 1.0, rtol=1e-12)


@pytest.mark.parametrize("side", [1, -1])
def test_relu_neurons_follow_the_exponents_of_their_side(side):
    law = relu_signal(INPUTS, TARGETS, side)
    np.testing.assert_array_equal(law.values != 0, side * INPUTS > 0)
    predicted = saddle_exponents(law, 0.4)
    size = np.full((4000, 1), 1e-60)
    for sign, exponent in zip((1, -1), predicted, strict=True):
        runs = wide_runs(
            INPUTS, TARGETS, sign * size, side * size, 0.4, SGD(), 100, activation="relu", rng=3
        )
        rates = (runs.log_norms[-1] - runs.log_norms[0])[:, 0] / 100
        error = rates.std() / math.sqrt(rates.size)
        assert abs(rates.mean() - exponent.value) < 4 * error


def test_a_layer_that_vanishes_has_log_norm_minus_infinity():
    # η = 1, x = y = 1: u − w is annihilated; with u = −w nothing is left but u f' of order 3.
    runs = wide_runs([1.0], [1.0], [[1e-120]], [[-1e-120]], 1.0, SGD(), 3, rng=0)
    assert runs.log_norms[-1, 0, 0] == -math.inf


def test_divergence_is_nan():
    runs = wide_runs([1.0], [1.0], [[100.0]], [[90.0]], 1.0, SGD(), 50, rng=0)
    assert np.isnan(runs.u[-1]).all()
    assert np.isnan(runs.log_norms[-1]).all()


def test_the_seed_decides():
    start = np.full((9, 2), 0.3)
    first, second, other = (
        wide_runs(INPUTS, TARGETS, start, start, 0.2, SGD(), 50, rng=seed).u for seed in (4, 4, 5)
    )
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": [1.0]}, "targets has length 1"),
        ({"u": [[1.0, 2.0]]}, "u and w must have one shape"),
        ({"u": [1.0]}, "u must have 2 dimension"),
        ({"step_size": 0.0}, "step_size"),
        ({"activation": "tanh"}, "activation"),
        ({"method": SGD(batch_size=5)}, "batch_size is 5"),
        ({"steps": 0}, "steps"),
        ({"record_every": 0}, "record_every"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {
        "inputs": INPUTS,
        "targets": TARGETS,
        "u": [[1.0]],
        "w": [[1.0]],
        "step_size": 0.1,
        "method": SGD(),
        "steps": 1,
    } | change
    with pytest.raises(ValueError, match=message):
        wide_runs(**arguments)
