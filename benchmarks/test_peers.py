"""λ by the tools and loops that people use today, and the time each takes to reach an error.

Two laws: Pollicott's pair of 2×2 matrices, and SGD on 1,000 samples. A simulation's error is its
standard error, and n steps of one product have σ/√n, with the same σ for every peer; ours pays for
what it discards and runs twice. From time and error at one length follows the time to any error,
which `record.py` tabulates for the pair. For SGD it compares the time of a step, with that of
fetching a row of the kernel and nothing else. The registry's nearest library, lyapynov, is no
dependency: where it is not installed, its row is left out (`pip install lyapynov`).
"""

import math

import numpy as np
import pytest
from numba import njit
from scipy import stats

from stabcore import FiniteLaw, Minimum, SGDLaw
from stabcore.lyapunov import monte_carlo

PAIR = FiniteLaw([[[2, 1], [1, 1]], [[3, 1], [2, 1]]])
EXPONENT = 1.1433110351029492458
SAMPLES, STEP_SIZE = 1000, 1.0


@pytest.fixture(scope="module")
def kernel():
    jacobian = np.random.default_rng(0).normal(size=(SAMPLES, 2 * SAMPLES))
    return jacobian @ jacobian.T / (2 * SAMPLES)


@pytest.fixture(scope="module")
def spread():
    """Return σ of the pair: the standard error of one product times the root of its steps."""
    rates = [monte_carlo(PAIR, seed, steps=20_000, replicas=8).value for seed in range(32)]
    return np.std(rates, ddof=1) * math.sqrt(8 * 20_000)


@pytest.fixture
def one_core(monkeypatch):
    """The peers use one core."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0}, raising=False)


def record(benchmark, steps, error=None):
    benchmark.extra_info.update(steps=steps, error=error and float(f"{error:.3g}"))


# --- the pair of matrices -------------------------------------------------------------------------


@pytest.mark.usefixtures("one_core")
def test_pair_stabcore(benchmark):
    result = benchmark.pedantic(monte_carlo, (PAIR, 0), {"steps": 20_000}, rounds=5)
    error = (result.upper - result.value) / stats.t.ppf(0.975, 31)
    record(benchmark, result.evaluations, error)


def test_pair_numpy(benchmark, spread):
    rng, steps = np.random.default_rng(0), 20_000

    def follow():
        basis, total = np.eye(2), 0.0
        for _ in range(steps):
            basis, triangle = np.linalg.qr(PAIR.matrices[rng.integers(2)] @ basis)
            total += math.log(abs(triangle[0, 0]))
        return total / steps

    value = benchmark.pedantic(follow, rounds=3, warmup_rounds=1)
    record(benchmark, steps, spread / math.sqrt(steps))
    assert value == pytest.approx(EXPONENT, abs=0.05)


@njit
def pair_loop(matrices, steps):
    basis, total = np.eye(2), 0.0
    for _ in range(steps):
        basis, triangle = np.linalg.qr(matrices[np.random.randint(2)] @ basis)  # noqa: NPY002
        total += np.log(abs(triangle[0, 0]))
    return total / steps


@pytest.mark.filterwarnings("ignore::numba.core.errors.NumbaPerformanceWarning")
def test_pair_numba(benchmark, spread):
    matrices, steps = PAIR.matrices.copy(), 100_000
    value = benchmark.pedantic(lambda: pair_loop(matrices, steps), rounds=3, warmup_rounds=1)
    record(benchmark, steps, spread / math.sqrt(steps))
    assert value == pytest.approx(EXPONENT, abs=0.05)


def test_pair_jax(benchmark, spread):
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    matrices, steps = jax.numpy.asarray(PAIR.matrices), 100_000

    @jax.jit
    def loop(key):
        def step(basis, index):
            basis, triangle = jax.numpy.linalg.qr(matrices[index] @ basis)
            return basis, jax.numpy.log(abs(triangle[0, 0]))

        indices = jax.random.randint(key, (steps,), 0, 2)
        return jax.lax.scan(step, jax.numpy.eye(2), indices)[1].mean()

    value = benchmark.pedantic(lambda: float(loop(jax.random.key(0))), rounds=3, warmup_rounds=1)
    record(benchmark, steps, spread / math.sqrt(steps))
    assert value == pytest.approx(EXPONENT, abs=0.05)


def test_pair_lyapynov(benchmark, spread):
    lyapynov = pytest.importorskip("lyapynov")
    rng, steps = np.random.default_rng(0), 20_000

    def follow():
        # Its systems have a state and a jacobian; ours has a state that stands still.
        system = lyapynov.DiscreteDS(
            np.zeros(2), 0, lambda x, t: x, lambda x, t: PAIR.matrices[rng.integers(2)]
        )
        return lyapynov.mLCE(system, 0, steps, keep=False)

    value = benchmark.pedantic(follow, rounds=3, warmup_rounds=1)
    record(benchmark, steps, spread / math.sqrt(steps))
    assert value == pytest.approx(EXPONENT, abs=0.05)


# --- SGD on 1,000 samples -------------------------------------------------------------------------


@pytest.mark.usefixtures("one_core")
@pytest.mark.filterwarnings("ignore::stabcore.ExponentWarning")
def test_sgd_stabcore(benchmark, kernel):
    law = SGDLaw(Minimum(kernel), STEP_SIZE)
    result = benchmark.pedantic(monte_carlo, (law, 0), {"steps": 10_000}, rounds=5, warmup_rounds=1)
    record(benchmark, result.evaluations)


@njit(fastmath=True)
def bare_updates(kernel, indices, residual):
    """Subtract rows of the kernel, and nothing else: no step of SGD can do less."""
    for m in range(indices.size):
        row = kernel[indices[m]]
        for j in range(residual.size):
            residual[j] -= 1e-9 * row[j]
    return residual[0]


def test_sgd_bare(benchmark, kernel):
    steps = 20_000
    indices = np.random.default_rng(0).integers(SAMPLES, size=steps)
    benchmark.pedantic(
        lambda: bare_updates(kernel, indices, np.ones(SAMPLES)), rounds=5, warmup_rounds=1
    )
    record(benchmark, steps)


@njit
def sgd_loop(kernel, step_size, steps):
    residual, total = np.ones(len(kernel)), 0.0
    for _ in range(steps):
        index = np.random.randint(len(kernel))  # noqa: NPY002
        residual -= step_size * residual[index] * kernel[index]
        norm = np.linalg.norm(residual)
        residual /= norm
        total += np.log(norm)
    return total / steps


def test_sgd_numba(benchmark, kernel):
    steps = 20_000
    benchmark.pedantic(lambda: sgd_loop(kernel, STEP_SIZE, steps), rounds=5, warmup_rounds=1)
    record(benchmark, steps)


def test_sgd_jax(benchmark, kernel):
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    rows, steps = jax.numpy.asarray(kernel), 20_000

    @jax.jit
    def loop(key):
        def step(residual, index):
            residual -= STEP_SIZE * residual[index] * rows[index]
            norm = jax.numpy.linalg.norm(residual)
            return residual / norm, jax.numpy.log(norm)

        indices = jax.random.randint(key, (steps,), 0, SAMPLES)
        return jax.lax.scan(step, jax.numpy.ones(SAMPLES), indices)[1].mean()

    benchmark.pedantic(lambda: float(loop(jax.random.key(0))), rounds=5, warmup_rounds=1)
    record(benchmark, steps)


def test_sgd_lyapynov(benchmark, kernel):
    lyapynov = pytest.importorskip("lyapynov")
    rng, steps = np.random.default_rng(0), 50

    def jacobian(x, t):
        factor, index = np.eye(SAMPLES), rng.integers(SAMPLES)
        factor[:, index] -= STEP_SIZE * kernel[:, index]
        return factor

    def follow():
        system = lyapynov.DiscreteDS(np.zeros(SAMPLES), 0, lambda x, t: x, jacobian)
        return lyapynov.mLCE(system, 0, steps, keep=False)

    benchmark.pedantic(follow, rounds=5, warmup_rounds=1)
    record(benchmark, steps)
