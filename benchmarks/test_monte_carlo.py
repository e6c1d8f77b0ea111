"""One step of a random matrix product: the compiled kernel against a loop as one would write it."""

import math

import numpy as np
import pytest

from stabcore import Minimum, SGDLaw
from stabcore.lyapunov import monte_carlo

SAMPLES = (10, 100, 1000)
STEPS = {10: 400_000, 100: 100_000, 1000: 10_000}


@pytest.fixture(scope="module", params=SAMPLES)
def law(request):
    """SGD near its edge of stability with random gradients."""
    n_samples = request.param
    jacobian = np.random.default_rng(0).normal(size=(n_samples, 2 * n_samples))
    kernel = jacobian @ jacobian.T / (2 * n_samples)
    return SGDLaw(Minimum(kernel), 1.0)


def naive_exponent(kernel, step_size, steps, rng):
    """Return (1/n) log|r_n| of one product, one step at a time."""
    residual, total = np.ones(len(kernel)), 0.0
    for _ in range(steps):
        index = rng.integers(len(kernel))
        residual -= step_size * residual[index] * kernel[:, index]
        norm = np.linalg.norm(residual)
        residual /= norm
        total += math.log(norm)
    return total / steps


@pytest.mark.filterwarnings("ignore::stabcore.ExponentWarning")
@pytest.mark.parametrize("cores", ["one core", "all cores"])
def test_compiled(benchmark, monkeypatch, law, cores):
    if cores == "one core":
        monkeypatch.setattr("os.sched_getaffinity", lambda _: {0}, raising=False)
    steps = STEPS[law.minimum.n_samples]
    monte_carlo(law, rng=0, steps=2)  # compile, or load what was compiled
    result = benchmark.pedantic(monte_carlo, (law, 0), {"steps": steps}, rounds=5)
    benchmark.extra_info.update(
        samples=law.minimum.n_samples, cores=cores, steps=result.evaluations
    )


def test_naive(benchmark, law):
    arguments = (law.minimum.kernel, 1.0, 10_000, np.random.default_rng(0))
    benchmark.pedantic(naive_exponent, arguments, rounds=5, warmup_rounds=1)
    benchmark.extra_info.update(samples=law.minimum.n_samples, cores="one core", steps=10_000)
