"""Phase diagrams of one neuron: from the exponents, and simulated, against NumPy and SciPy."""

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import quad

from stabcore import SGD, FiniteSignal
from stabcore.problems import LabelFlips, RegressionSignal
from stabcore.saddles import saddle_grid
from stabcore.simulation import neuron_runs

CELLS, SAMPLES = 400, 64
SIDE, REPLICAS, STEPS, NAIVE_STEPS = 60, 256, 10_000, 20


def finite_family(cells):
    """Return data sets y = x + sε, one per level of noise."""
    x, noise = np.random.default_rng(0).normal(size=(2, SAMPLES))
    levels = np.geomspace(0.1, 10, cells)[:, None, None]
    return FiniteSignal.from_data(x, x + levels * noise)


def families(cells):
    """Return the three kinds of data over `cells` levels of noise."""
    return {
        "label flips": LabelFlips(np.linspace(0.01, 0.5, cells)[:, None]),
        "finite data": finite_family(cells),
        "Gaussian data": RegressionSignal(1.0, np.geomspace(0.1, 10, cells)[:, None]),
    }


@pytest.mark.parametrize("data", ["label flips", "finite data", "Gaussian data"])
def test_phase_diagram(benchmark, data):
    steps, law = np.linspace(0.01, 4, CELLS), families(CELLS)[data]
    saddle_grid(families(2)[data], steps[:2])  # compile, or load what was compiled
    phases = benchmark.pedantic(lambda: saddle_grid(law, steps).phases, rounds=3)
    assert phases.shape == (CELLS, CELLS)
    benchmark.extra_info.update(steps=CELLS**2)


def test_naive_finite_data(benchmark):
    """All factors at once, in NumPy."""
    values = finite_family(CELLS).values
    steps = np.linspace(0.01, 4, CELLS)[:, None]

    def diagram():
        return [np.log(np.abs(1 + sign * steps * values)).mean(axis=-1) for sign in (1, -1)]

    benchmark.pedantic(diagram, rounds=3)
    benchmark.extra_info.update(steps=CELLS**2)


def test_naive_gaussian_data(benchmark):
    """SciPy's adaptive quadrature over x of the logarithm, averaged over ε by a second one."""

    def exponent(eta, noise):
        def inner(x):
            centre, spread = 1 - eta * x * x, eta * noise * abs(x)
            pole = -centre / spread if spread else 0.0
            ends = sorted({-9.0, min(max(pole, -9.0), 9.0), 9.0})
            return sum(
                quad(lambda e: math.log(abs(centre + spread * e)) * math.exp(-e * e / 2), a, b)[0]
                for a, b in pairwise(ends)
            )

        return quad(lambda x: inner(x) * math.exp(-x * x / 2), 1e-6, 9)[0] / math.pi

    benchmark.pedantic(exponent, (0.5, 1.0), rounds=3)
    benchmark.extra_info.update(steps=1)


@pytest.mark.parametrize("side", [SIDE // 2, SIDE])
@pytest.mark.parametrize("data", ["label flips", "finite data", "Gaussian data"])
def test_simulated_diagram(benchmark, data, side):
    """Every cell to the end: 9.2·10⁹ steps in the larger diagram, unless a fate is decided."""
    law = families(side)[data]
    law = (
        FiniteSignal(law.values[..., None, :], squares=law.squares[..., None, :])
        if data == "finite data"
        else type(law)(*(part[..., None] for part in parameters(law)))
    )
    steps = np.linspace(0.01, 1.0, side)[:, None]
    starts = np.random.default_rng(0).uniform(0.05, 0.5, size=(2, REPLICAS))
    neuron_runs(law, 0.1, 0.1, 0.1, SGD(), 1, rng=0)
    runs = benchmark.pedantic(
        neuron_runs,
        (law, *starts, steps, SGD(), STEPS),
        {"rng": 0},
        rounds=1 if side == SIDE else 3,
    )
    assert runs.fate.shape == (side, side, REPLICAS)
    benchmark.extra_info.update(steps=int(runs.steps.sum()))


def parameters(law):
    """Return the parameters of a family."""
    if isinstance(law, LabelFlips):
        return (law.flip_probability,)
    return law.slope, law.noise


def test_naive_simulation(benchmark):
    """All replicas of one row of cells together, in NumPy."""
    rng = np.random.default_rng(0)
    u, w = rng.uniform(0.05, 0.5, size=(2, SIDE * REPLICAS))

    def run(u, w):
        for _ in range(NAIVE_STEPS):
            x, noise = rng.normal(size=(2, u.size))
            m = 0.1 * x * (u * w * x - x - noise)
            u, w = u - m * w, w - m * u
        return u, w

    benchmark.pedantic(run, (u, w), rounds=3)
    benchmark.extra_info.update(steps=SIDE * REPLICAS * NAIVE_STEPS)
