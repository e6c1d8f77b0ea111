"""λ at the minimum of a network against SGD on the network: the rate of the log-residual."""

import math

import numpy as np
import pytest
from networks_data import digits, smoothed

from stabcore import SGD, mean_square_edge, sgd_exponent
from stabcore.networks import cnn, minimum_of, mlp, train, transformer

RUNS = 32

X, SIGNS = digits(8)
ONEHOT = digits(8, classes=3)[1]

CASES = {
    "mlp": (mlp(64, (24,)), SIGNS, "half_square"),
    "mlp with layer norm": (mlp(64, (24,), layer_norm=True), SIGNS, "half_square"),
    "cnn": (cnn((8, 8), 4), SIGNS, "half_square"),
    "transformer": (transformer((8, 8), 8), SIGNS, "half_square"),
    "three outputs": (mlp(64, (32,), 3), ONEHOT, "mean_square"),
    "cross-entropy": (mlp(64, (32,), 3), smoothed(ONEHOT), "cross_entropy"),
}

METHODS = [SGD(), SGD(batch_size=2), SGD(momentum=0.5), SGD(momentum=0.5, nesterov=True)]


@pytest.mark.parametrize("name", CASES)
def test_the_log_residual_moves_at_the_rate_lambda(name):
    model, y, loss = CASES[name]
    minimum = minimum_of(model.apply, model.initial(1), X, y, loss=loss)
    edge = mean_square_edge(minimum)
    for index, method in enumerate(METHODS):
        eta = 0.7 * edge * (1 - method.momentum)
        exponent = sgd_exponent(minimum, eta, method, rng=index)
        # Along the slowest direction, so that nothing faster has to be forgotten first.
        starts = minimum.near(1e-4, RUNS)
        half = min(1500, int(6 / abs(exponent.value)))
        options = {"loss": loss, "rng": index, "record_every": half}
        runs = train(model.apply, starts, X, y, eta, method, 2 * half, **options)
        rates = (runs.log_residuals[2] - runs.log_residuals[1]) / half
        error = math.hypot(rates.std(ddof=1) / math.sqrt(RUNS), exponent.standard_error or 0.0)
        assert exponent.sign == -1
        assert abs(rates.mean() - exponent.value) < 4 * error, method


def test_above_the_edge_runs_leave_at_the_rate_lambda():
    model, y, loss = CASES["mlp"]
    minimum = minimum_of(model.apply, model.initial(1), X, y, loss=loss)
    eta = 2 * mean_square_edge(minimum)
    exponent = sgd_exponent(minimum, eta, rng=0)
    assert exponent.sign == 1
    starts, third = minimum.near(1e-10, 8 * RUNS, rng=0), int(4 / exponent.value)
    runs = train(model.apply, starts, X, y, eta, SGD(), 3 * third, rng=0, record_every=third)
    rates = (runs.log_residuals[3] - runs.log_residuals[1]) / (2 * third)  # 8 nats, up to 2e-5
    error = math.hypot(rates.std(ddof=1) / math.sqrt(rates.size), exponent.standard_error)
    assert abs(rates.mean() - exponent.value) < 4 * error
    later = train(model.apply, starts, X, y, eta, SGD(), 20 * third, rng=0, record_every=third)
    assert (np.nanmax(later.log_residuals, axis=0) > math.log(1e-3)).all()  # nobody stays
