"""Real networks: training per run-step, the move to a minimum, and exponents from large kernels.

Training is compared with a plain loop over compiled steps in JAX and with PyTorch, on one run, as
people train. PyTorch is no dependency: where it is not installed, its row is left out
(`pip install torch`).
"""

import warnings

import numpy as np
import pytest

from stabcore import SGD, ExponentWarning, mean_square_edge, sgd_exponent, stable_steps
from stabcore.companion import first_digits
from stabcore.networks import cnn, minimum_of, mlp, train, transformer

MODELS = {
    "mlp": lambda outputs=1: mlp(64, (32,), outputs),
    "cnn": lambda outputs=1: cnn((8, 8), 16, outputs),
    "transformer": lambda outputs=1: transformer((8, 8), 16, outputs),
}
RUNS, STEPS, IMAGES, STEP_SIZE = 32, 4000, 64, 0.05


def batches():
    return np.random.default_rng(0).integers(IMAGES, size=STEPS)


# --- training, batches of one -------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_train(benchmark, name):
    model, (x, y) = MODELS[name](), first_digits(IMAGES)
    start = model.initial(0, runs=RUNS)

    def follow():
        return train(model.apply, start, x, y, STEP_SIZE, SGD(), STEPS, rng=0)

    follow()  # compile
    assert (benchmark.pedantic(follow, rounds=5).diverged_at < 0).all()
    benchmark.extra_info.update(steps=RUNS * STEPS)


@pytest.mark.parametrize("name", MODELS)
def test_train_jax(benchmark, name):
    import jax
    import jax.numpy as jnp

    model, (x, y) = MODELS[name](), first_digits(IMAGES)
    params = {key: jnp.asarray(a, jnp.float32) for key, a in model.initial(0).items()}
    x, y = jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)

    @jax.jit
    def step(params, x, y):
        gradient = jax.grad(lambda p: 0.5 * ((model.apply(p, x) - y) ** 2).mean())(params)
        return jax.tree.map(lambda p, g: p - STEP_SIZE * g, params, gradient)

    def follow():
        now = params
        for i in batches():
            now = step(now, x[i][None], y[i][None])
        return jax.block_until_ready(now)

    benchmark.pedantic(follow, rounds=5, warmup_rounds=1)
    benchmark.extra_info.update(steps=STEPS)


def test_train_torch(benchmark):
    torch = pytest.importorskip("torch")
    x, y = (torch.tensor(a, dtype=torch.float32) for a in first_digits(IMAGES))
    x = x.reshape(IMAGES, -1)
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
    optimiser = torch.optim.SGD(model.parameters(), lr=STEP_SIZE)

    def follow():
        for i in batches():
            optimiser.zero_grad()
            (0.5 * (model(x[i][None])[:, 0] - y[i]) ** 2).mean().backward()
            optimiser.step()

    benchmark.pedantic(follow, rounds=5, warmup_rounds=1)
    benchmark.extra_info.update(steps=STEPS)


# --- minima and exponents -----------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_levenberg_marquardt(benchmark, name):
    """From random parameters to residuals of 1e-13, compilation included."""
    model, (x, y) = MODELS[name](10), first_digits(24, 10)
    start = model.initial(0)
    found = benchmark.pedantic(
        lambda: minimum_of(model.apply, start, x, y, tolerance=1e-13), rounds=3
    )
    assert found.rank == 240
    benchmark.extra_info.update(steps=1)


def test_large_kernel(benchmark):
    """The kernel of a CNN on 64 images with ten outputs, and λ at 20 step sizes."""
    model, (x, y) = cnn((8, 8), 32, 10), first_digits(64, 10)
    near = minimum_of(model.apply, model.initial(0), x, y).params

    def ask():
        minimum = minimum_of(model.apply, near, x, y)
        grid = np.geomspace(0.1, 2, 20) * mean_square_edge(minimum)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExponentWarning)
            return [sgd_exponent(minimum, eta, rng=0, steps=2000) for eta in grid]

    exponents = benchmark.pedantic(ask, rounds=3)
    assert exponents[0].sign == -1
    assert exponents[-1].sign == 1
    benchmark.extra_info.update(steps=20)


@pytest.mark.filterwarnings("error::stabcore.ExponentWarning")
def test_stable_steps(benchmark):
    """Six kernels of eight images: no warning, all below the mean-square edge decided."""
    cases = [(MODELS[name](), first_digits(8)) for name in MODELS]
    cases += [(MODELS[name](10), first_digits(8, 10)) for name in MODELS]
    minima = [minimum_of(model.apply, model.initial(1), x, y) for model, (x, y) in cases]
    tables = benchmark.pedantic(
        lambda: [stable_steps(minimum, points=16, steps=2000) for minimum in minima], rounds=3
    )
    for minimum, table in zip(minima, tables, strict=True):
        ((_, edge),) = table.mean_square.intervals
        assert table.sgd.intervals[0][1] >= edge * (1 - 1e-9)
        assert all(sgd_exponent(minimum, s * edge, rng=0).sign == -1 for s in (0.2, 0.5, 0.9))
    benchmark.extra_info.update(steps=6)
