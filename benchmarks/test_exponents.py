"""λ of Pollicott's pair of matrices by every method, each with the error it reached."""

import math

import numpy as np
import pytest

from stabcore import FiniteLaw
from stabcore.lyapunov import enclosure, monte_carlo, transfer

POLLICOTT = FiniteLaw([[[2, 1], [1, 1]], [[3, 1], [2, 1]]])
EXPONENT = 1.1433110351029492458
SPACE = FiniteLaw(0.2 + np.abs(np.random.default_rng(1).normal(size=(2, 3, 3))))


def naive_exponent(law, steps, rng):
    """Return the exponent by the loop that textbooks print: multiply, QR, add up the logarithm."""
    basis, total = np.eye(law.dimension), 0.0
    for _ in range(steps):
        factor = law.matrices[rng.choice(len(law.matrices), p=law.probabilities)]
        basis, triangle = np.linalg.qr(factor @ basis)
        total += math.log(abs(triangle[0, 0]))
    return total / steps


def record(benchmark, error):
    benchmark.extra_info.update(steps=1, error=float(f"{error:.2g}"))


@pytest.mark.parametrize("tolerance", [1e-6, 1e-10, 1e-12])
def test_transfer(benchmark, tolerance):
    result = benchmark.pedantic(
        transfer, (POLLICOTT,), {"tolerance": tolerance}, rounds=9, warmup_rounds=1
    )
    record(benchmark, abs(result.value - EXPONENT))


def test_transfer_in_space(benchmark):
    result = benchmark.pedantic(transfer, (SPACE,), {"tolerance": 1e-6}, rounds=5, warmup_rounds=1)
    record(benchmark, result.upper - result.value)


@pytest.mark.parametrize("width", [1e-3, 1e-4, 1e-5])
def test_enclosure(benchmark, width):
    result = benchmark.pedantic(
        enclosure, (POLLICOTT,), {"width": width}, rounds=9, warmup_rounds=1
    )
    record(benchmark, (result.upper - result.lower) / 2)


@pytest.mark.parametrize("steps", [2_000, 200_000])
def test_simulation(benchmark, steps):
    result = benchmark.pedantic(
        monte_carlo, (POLLICOTT, 0), {"steps": steps}, rounds=5, warmup_rounds=1
    )
    record(benchmark, (result.upper - result.lower) / 2)


def test_textbook_loop(benchmark):
    value = benchmark.pedantic(
        naive_exponent, (POLLICOTT, 20_000, np.random.default_rng(0)), rounds=3
    )
    record(benchmark, abs(value - EXPONENT))
