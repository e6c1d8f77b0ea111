"""A basin of 1,000 × 1,000 starts, 500 steps each: compiled, against a plain loop over starts."""

import numpy as np
import pytest

from stabcore import ScalarFactorization, basin
from stabcore.descent import Ending

SIDE, NAIVE_SIDE, STEPS, REACH = 1_000, 50, 500, 3.0


def naive_fate(x, y, step_size):
    """Follow one start in plain Python, the fastest loop over starts that is not compiled."""
    for _ in range(STEPS):
        error = step_size * (1 - x * y)
        x, y = x + error * y, y + error * x
        if not abs(x) + abs(y) < 1e75:
            return Ending.DIVERGED
        if abs(error) < 1e-15:
            return Ending.CONVERGED
    return Ending.UNDECIDED


def naive_basin(side, step_size):
    """Return the basin's picture, one start after the other."""
    return np.array([[naive_fate(float(x), float(y), step_size) for x in side] for y in side])


# Below the threshold most runs are decided early; just above it the bounded ones never are.
@pytest.mark.parametrize("step_size", [0.5, 1.1])
def test_basin(benchmark, step_size):
    side = np.linspace(-REACH, REACH, SIDE)
    basin(ScalarFactorization(), side[:2], side[:2], step_size, 1)  # compile, or load
    arguments = (ScalarFactorization(), side, side, step_size, STEPS)
    benchmark.pedantic(basin, arguments, rounds=3)
    benchmark.extra_info.update(steps=SIDE**2 * STEPS)


@pytest.mark.parametrize("step_size", [0.5, 1.1])
def test_naive(benchmark, step_size):
    side = np.linspace(-REACH, REACH, NAIVE_SIDE)
    picture = benchmark.pedantic(naive_basin, (side, step_size), rounds=3)
    assert (picture == basin(ScalarFactorization(), side, side, step_size, STEPS)).mean() > 0.99
    benchmark.extra_info.update(steps=NAIVE_SIDE**2 * STEPS)
