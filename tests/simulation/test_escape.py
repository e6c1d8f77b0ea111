import math

import numpy as np
import pytest

from stabcore import (
    SGD,
    OneNeuron,
    saddle_exponents,
)
from stabcore.simulation import escape_times


def test_escape_times_of_gradient_descent():
    neuron, edge, step_size = OneNeuron([1.0], [1.0]), 1e-3, 0.25
    starts = np.array([[1e-9, 1e-9], [1e-5, 1e-5], [1e-9, -1e-9], [1.0, 0.0]])
    times = escape_times(neuron, [0.0, 0.0], starts, step_size, SGD(), 200, radius=edge, rng=0)
    distances = math.sqrt(2) * np.array([1e-9, 1e-5])
    expected = np.ceil(np.log(edge / distances) / math.log(1 + step_size))
    assert times.tolist() == [*expected, math.inf, 0.0]  # the third contracts: u + w = 0


def test_escape_times_grow_at_the_rate_of_the_exponent():
    signal, step_size = np.array([2.0, -1.0]), 0.4
    neuron = OneNeuron([1.0, 1.0], signal)
    plus, _ = saddle_exponents(signal, step_size)
    near, far = (
        escape_times(
            neuron, [0.0, 0.0], np.full((2000, 2), r), step_size, SGD(), 5000, radius=1e-2, rng=seed
        )
        for seed, r in enumerate((1e-12, 1e-6))
    )
    slope = (near.mean() - far.mean()) / math.log(1e6)
    error = math.hypot(near.std(), far.std()) / math.sqrt(2000) / math.log(1e6)
    assert abs(slope - 1 / plus.value) < 4 * error < 0.2 / plus.value


def test_escape_times_are_reproducible():
    neuron = OneNeuron([1.0, 1.0], [2.0, -1.0])
    first, second = (
        escape_times(neuron, [0.0, 0.0], np.full((20, 2), 1e-3), 0.3, SGD(), 500, radius=0.1, rng=7)
        for _ in range(2)
    )
    assert first.tolist() == second.tolist()


def test_bad_arguments_of_escape_times():
    neuron, starts = OneNeuron([1.0], [1.0]), np.full((2, 2), 0.1)
    with pytest.raises(ValueError, match=r"saddle must have shape \(..., 2\), got \(1,\)"):
        escape_times(neuron, [0.0], starts, 0.1, SGD(), 10, radius=1.0)
    with pytest.raises(ValueError, match=r"starts must have shape \(runs, 2\), got \(2, 1\)"):
        escape_times(neuron, [0.0, 0.0], starts[:, :1], 0.1, SGD(), 10, radius=1.0)
    with pytest.raises(ValueError, match="radius"):
        escape_times(neuron, [0.0, 0.0], starts, 0.1, SGD(), 10, radius=0.0)
    with pytest.raises(ValueError, match="steps"):
        escape_times(neuron, [0.0, 0.0], starts, 0.1, SGD(), 0, radius=1.0)
