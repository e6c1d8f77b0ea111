"""SGD from 100,000 starts in exact coordinates: compiled, against vectorised NumPy."""

import numpy as np
import pytest

from stabcore import SGD, ReluPair
from stabcore.simulation import PairFate, exact_runs

STARTS, STEPS, NAIVE_STEPS = 100_000, 20_000, 100


@pytest.fixture(scope="module")
def starts():
    """Return (δ, s) of random positive starts."""
    theta = np.random.default_rng(0).uniform(0.5, 1.5, size=(STARTS, 2))
    return ReluPair().exact_coordinates(theta)


def naive_runs(delta, s, rates, steps, rng):
    """Iterate the exact coordinates of all runs together, without asking for their fate."""
    for _ in range(steps):
        c = rates[rng.integers(rates.size, size=delta.size)]
        turn = c * delta * (1 - delta)
        delta, s = delta * (1 - c * s - c * turn), s + 4 * turn + (c * delta) ** 2 * s
    return delta, s


def test_every_step(benchmark, starts):
    """With a step size so small that no run is decided early: 2·10⁹ steps."""
    arguments = (ReluPair(), *starts, 2e-3, SGD(), STEPS)
    exact_runs(ReluPair(), 0.1, 2.5, 0.1, SGD(), 1)  # compile, or load what was compiled
    runs = benchmark.pedantic(exact_runs, arguments, {"rng": 0}, rounds=3)
    assert runs.share(PairFate.UNDECIDED) == 1
    benchmark.extra_info.update(steps=STARTS * STEPS)


def test_until_decided(benchmark, starts):
    """At paper D's step size, as the book runs it."""
    exact_runs(ReluPair(), 0.1, 2.5, 0.1, SGD(), 1)
    arguments = (ReluPair(), *starts, 0.15, SGD(), STEPS)
    runs = benchmark.pedantic(exact_runs, arguments, {"rng": 0}, rounds=3)
    benchmark.extra_info.update(steps=int(runs.steps.sum()))


def test_naive(benchmark, starts):
    rates = 2e-3 * ReluPair().curvatures
    arguments = (*starts, rates, NAIVE_STEPS, np.random.default_rng(0))
    benchmark.pedantic(naive_runs, arguments, rounds=3, warmup_rounds=1)
    benchmark.extra_info.update(steps=STARTS * NAIVE_STEPS)
