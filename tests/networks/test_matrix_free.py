"""μ and λ from products alone, against the kernel, and against matrices written out."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks_data import digits, smoothed

from stabcore import SGD, ExponentWarning, Minimum, gd_exponent, mean_square_edge, sgd_exponent
from stabcore._random import stream_states
from stabcore.lyapunov._walks import draw_indices
from stabcore.networks import _dual_walks, _engines, _lanczos, large_networks, minimum_of, mlp
from stabcore.networks._dual_walks import DualWalk
from stabcore.networks.large_networks import without_kernel
from stabcore.networks.matrix_free import JacobianProducts, MatrixFreeMinimum

# The two samples of two outputs of the reference table.
PAIR = np.array(
    [[[1, 2, 0, 1, 0, 0], [0, 1, 1, 0, 2, 0]], [[1, 0, 1, 0, 0, 2], [0, 1, 0, 2, 1, 1]]], float
)
MU, LAMBDA, LAMBDA_ERROR = -0.256511390360, -0.1982, 0.0003

METHODS = [
    SGD(),
    SGD(batch_size=2),
    SGD(batch_size=3, replacement=True),
    SGD(batch_size=2, reshuffle=True),
    SGD(momentum=0.6),
    SGD(batch_size=2, momentum=0.6, nesterov=True),
]

X, SIGNS = digits(8)
ONEHOT = digits(8, classes=3)[1]
NETWORKS = {
    "one output": (mlp(64, (24,)), SIGNS, "half_square"),
    "three outputs": (mlp(64, (32,), 3), ONEHOT, "mean_square"),
    "cross-entropy": (mlp(64, (32,), 3), smoothed(ONEHOT), "cross_entropy"),
}


def plain(rows):
    """Return the products with a Jacobian (N, C, D), as functions of NumPy arrays."""
    return JacobianProducts(
        n_samples=rows.shape[0],
        n_outputs=rows.shape[1],
        n_parameters=rows.shape[2],
        jvp=lambda samples, v: rows[samples] @ v,
        vjp=lambda samples, a: np.einsum("bc,bcd->d", a, rows[samples]),
    )


def compiled(rows):
    """Return the same for JAX."""
    with jax.enable_x64(True):
        held = jnp.asarray(rows)
    return JacobianProducts(
        n_samples=rows.shape[0],
        n_outputs=rows.shape[1],
        n_parameters=rows.shape[2],
        jvp=jax.tree_util.Partial(lambda rows, samples, v: rows[samples] @ v, held),
        vjp=jax.tree_util.Partial(
            lambda rows, samples, a: jnp.einsum("bc,bcd->d", a, rows[samples]), held
        ),
    )


BOTH = pytest.mark.parametrize("kind", [plain, compiled])


def random_rows(samples, outputs, parameters, seed=0):
    shape = samples, outputs, parameters
    return np.random.default_rng(seed).normal(size=shape) / math.sqrt(parameters)


def network(name):
    model, y, loss = NETWORKS[name]
    minimum = minimum_of(model.apply, model.initial(1), X, y, loss=loss)
    return minimum, without_kernel(model.apply, minimum.params, X, y, loss=loss)


# Known values


@BOTH
def test_gradient_descent_at_the_pair(kind):
    found = MatrixFreeMinimum(kind(PAIR)).gd_exponent(0.2)
    assert found.value == pytest.approx(MU, abs=1e-12)
    assert found.lower <= MU + 1e-12 <= found.upper + 2e-12
    assert found.upper - found.lower < 1e-12
    edge = 0.301044892719
    assert 2 / MatrixFreeMinimum(kind(PAIR)).sharpness == pytest.approx(edge, abs=1e-12)


def test_sgd_at_the_pair():
    found = MatrixFreeMinimum(compiled(PAIR)).sgd_exponent(0.2, rng=0, steps=20_000)
    assert found.converged
    assert abs(found.value - LAMBDA) < 4 * math.hypot(found.standard_error, LAMBDA_ERROR)
    assert found.standard_error < 0.001
    assert found.proof == "every step contracts"  # 0.2 is below 0.2336


def test_one_sample_is_exact():
    minimum = MatrixFreeMinimum(plain(np.array([[[1.0, 1.0, 0.0]]])))
    assert minimum.sgd_exponent(1.2).value == pytest.approx(math.log(1.4), abs=1e-12)
    assert minimum.gd_exponent(0.5).value == -math.inf
    assert minimum.gd_exponent(0.5).sign == -1


# Against matrices written out


def written_out(rows, eta, method, streams, duals, steps):
    """Return the log-growth in the row space, by J and a projector."""
    samples, _, parameters = rows.shape
    flat = rows.reshape(-1, parameters)
    projector = np.linalg.pinv(flat) @ flat
    batches = method.batches(samples)
    size, beta = batches.batch_size, method.momentum
    subsets = 0 if batches.independent and not batches.reshuffle else samples
    logs = np.zeros(len(streams))
    for run, state in enumerate(streams):
        drawn = np.empty(steps * size, np.int64)
        advance = size if batches.reshuffle else 0
        draw_indices(state, size, 1, subsets, advance, *batches.alias, drawn, steps)
        vectors = duals[:, run].reshape(len(duals), -1) @ flat
        vectors /= np.linalg.norm(vectors)
        position, last = vectors[0], vectors[-1] if beta else np.zeros(parameters)
        for batch in drawn.reshape(steps, size):
            block = rows[batch].reshape(-1, parameters)
            gradient = block.T @ (block @ position) / size
            last = beta * last - eta * gradient
            ahead = beta * last - eta * gradient if method.nesterov else last
            position, last = projector @ (position + ahead), projector @ last
            length = math.hypot(*position, *(last if beta else ()))
            position, last, logs[run] = (
                position / length,
                last / length,
                logs[run] + math.log(length),
            )
    return logs


@BOTH
@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("eta", [0.4, 2.5])  # shrinks, grows
def test_the_same_batches_give_the_same_growth(kind, method, eta):
    rows, steps = random_rows(6, 2, 20), 90
    states = stream_states(np.random.default_rng(1), 3)
    duals = np.random.default_rng(2).normal(size=(2 if method.momentum else 1, 4, 6, 2))
    batches = method.batches(6)
    walk = DualWalk(
        MatrixFreeMinimum(kind(rows)).engine, eta, method, batches, states.copy(), duals.copy()
    )
    growth = walk.follow([steps])[:, 0]
    expected = written_out(rows, eta, method, states.copy(), duals, steps)
    # 90 steps at most, and at each stretch an error of at most MOST_LOST
    assert growth[:3] == pytest.approx(expected, abs=steps * _dual_walks.MOST_LOST)
    # Nothing was lost: wrong dual coordinates would go unnoticed in stretches of one step.
    assert walk.period >= _dual_walks.FIRST_PERIOD
    # The fourth has the batches of the first, and another start.
    shadow = written_out(rows, eta, method, states[:1].copy(), duals[:, 3:], steps)
    assert growth[3:] == pytest.approx(shadow, abs=steps * _dual_walks.MOST_LOST)


@BOTH
def test_products_over_blocks_of_samples(kind, monkeypatch):
    monkeypatch.setattr(_engines, "AT_ONCE", 32)
    rows = random_rows(75, 2, 160)  # blocks of 16 or 32 samples, and a rest
    engine = MatrixFreeMinimum(kind(rows)).engine
    rng = np.random.default_rng(0)
    for replicas in (1, 3):
        duals, vectors = rng.normal(size=(replicas, 75, 2)), rng.normal(size=(replicas, 160))
        assert engine.pull(duals) == pytest.approx(np.einsum("rnc,ncd->rd", duals, rows))
        assert engine.push(vectors) == pytest.approx(np.einsum("ncd,rd->rnc", rows, vectors))
    blocks = rows @ np.swapaxes(rows, 1, 2)
    assert engine.largest_block() == pytest.approx(np.linalg.eigvalsh(blocks).max())


# Against the kernel


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_against_their_kernels(name):
    minimum, free = network(name)
    assert (free.n_samples, free.n_outputs) == (minimum.n_samples, minimum.n_outputs)
    assert free.moved < 1e-9
    assert free.sharpness == pytest.approx(minimum.sharpness, rel=1e-9)
    edge = mean_square_edge(minimum)
    for seed, method in enumerate(METHODS if name == "three outputs" else METHODS[::2]):
        eta = 1.5 * edge * (1 - method.momentum)
        exact = gd_exponent(minimum, eta, method).value
        assert free.gd_exponent(eta, method).value == pytest.approx(exact, abs=1e-9)
        found = free.sgd_exponent(eta, method, rng=seed, steps=3_000)
        kernel = sgd_exponent(minimum, eta, method, rng=seed + 100)
        error = math.hypot(found.standard_error, kernel.standard_error or 0.0)
        assert found.converged
        assert abs(found.value - kernel.value) < 4 * error, method


def test_the_batches_are_those_of_the_kernel():
    # Both follow the same products. Once the starts are forgotten, the vectors are r = Jv, and the
    # logarithms of their lengths differ by log σ_min to log σ_max: over the steps that are kept
    # the rates differ by half the logarithm of the condition of K at most.
    rows = random_rows(8, 2, 100)
    minimum, steps = Minimum.from_jacobian(rows), 4_000
    bound = math.log(np.linalg.cond(minimum.kernel)) / 2 / steps
    for method in (SGD(), SGD(momentum=0.5)):
        free = MatrixFreeMinimum(compiled(rows)).sgd_exponent(3.0, method, rng=5, steps=steps)
        kernel = sgd_exponent(minimum, 3.0, method, rng=5, steps=steps, replicas=16)
        assert abs(free.value - kernel.value) < bound
        assert bound < free.standard_error / 3


def test_numpy_and_jax_agree_and_a_seed_says_all():
    first, second = (MatrixFreeMinimum(kind(PAIR)) for kind in (plain, compiled))
    options = {"steps": 200, "replicas": 8}
    results = [one.sgd_exponent(0.2, rng=3, **options) for one in (first, second, second)]
    assert results[0].value == pytest.approx(results[1].value, abs=1e-9)
    assert results[1] == results[2]
    assert second.sgd_exponent(0.2, rng=4, **options).value != results[1].value


# The leak


def test_without_dual_coordinates_the_exponent_comes_out_too_large():
    rng, steps = np.random.default_rng(0), 1_000
    vector, logs = PAIR.reshape(4, 6).T @ rng.normal(size=4), []
    for sample in rng.integers(2, size=steps):
        vector = vector - 0.2 * PAIR[sample].T @ (PAIR[sample] @ vector)
        logs.append(math.log(np.linalg.norm(vector)))
        vector /= np.linalg.norm(vector)
    late = np.mean(logs[steps // 2 :])
    assert abs(late) < 1e-3  # nothing moves outside the row space
    states = stream_states(np.random.default_rng(0), 8)
    engine = MatrixFreeMinimum(compiled(PAIR)).engine
    duals = np.random.default_rng(0).normal(size=(1, 8, 2, 2))
    walk = DualWalk(engine, 0.2, SGD(), SGD().batches(2), states, duals)
    rates = walk.follow([steps // 2, steps // 2])[:, 1] / (steps // 2)
    assert abs(rates.mean() - LAMBDA) < 4 * rates.std(ddof=1) / math.sqrt(8)
    basis = np.linalg.qr(PAIR.reshape(4, 6).T)[0]
    outside = walk.state[0] - walk.state[0] @ basis @ basis.T
    assert np.abs(outside).max() < 1e-12


def test_stretches_that_lose_too_much_are_done_again(monkeypatch):
    def rate(steps=2_000):
        states = stream_states(np.random.default_rng(0), 8)
        duals = np.random.default_rng(0).normal(size=(1, 8, 2, 2))
        engine = MatrixFreeMinimum(compiled(PAIR)).engine
        walk = DualWalk(engine, 0.2, SGD(), SGD().batches(2), states, duals)
        rates = walk.follow([steps])[:, 0] / steps
        return rates, walk.period

    usual, _ = rate()
    monkeypatch.setattr(_dual_walks, "FIRST_PERIOD", 1_000)
    careful, period = rate()
    assert period < 100
    assert careful == pytest.approx(usual, abs=1e-8)
    monkeypatch.setattr(_dual_walks, "MOST_LOST", math.inf)
    careless, _ = rate()
    assert careless.min() > usual.max() + 0.05


# The ends of the spectrum


def test_lanczos_against_the_dense_spectrum():
    rows = random_rows(1, 120, 300)[0]
    kernel = rows @ rows.T
    spectrum = np.linalg.eigvalsh(kernel)
    start = np.random.default_rng(0).normal(size=120)
    found = _lanczos.ends(lambda v: kernel @ v, start, 120)
    assert found.converged
    assert found.products < 120
    assert (found.smallest, found.largest) == pytest.approx(spectrum[[0, -1]], rel=1e-9)
    assert kernel @ found.slowest == pytest.approx(found.smallest * found.slowest, abs=1e-5)
    for most in (2, 5, 10, 20):
        early = _lanczos.ends(lambda v: kernel @ v, start, most)
        assert early.products == most
        assert early.smallest >= spectrum[0] - 1e-12
        assert early.largest <= spectrum[-1] + 1e-12
        for value, residual in (
            (early.smallest, early.smallest_residual),
            (early.largest, early.largest_residual),
        ):
            assert np.abs(spectrum - value).min() <= residual + 1e-12


def test_lanczos_stops_where_nothing_is_left():
    found = _lanczos.ends(lambda v: 2.0 * v, np.ones(5), 5)
    assert (found.smallest, found.largest, found.products) == (
        pytest.approx(2),
        pytest.approx(2),
        1,
    )
    assert found.largest_residual < 1e-14


@pytest.mark.parametrize("method", [SGD(), SGD(momentum=0.8), SGD(momentum=0.8, nesterov=True)])
def test_a_small_end_that_is_not_found_leaves_an_honest_interval(method):
    scales = np.geomspace(1, 1e-3, 60)
    rows = np.linalg.qr(random_rows(1, 60, 90, 3)[0].T)[0].T * scales[:, None]
    rows = np.linalg.qr(np.random.default_rng(0).normal(size=(60, 60)))[0] @ rows
    minimum = Minimum.from_jacobian(rows)
    free = MatrixFreeMinimum(plain(rows[:, None]), most_products=25)
    edge = 2 / minimum.sharpness
    for factor in (0.3, 0.9, 1.1):
        eta = factor * edge * (1 - method.momentum)
        found, exact = free.gd_exponent(eta, method), gd_exponent(minimum, eta, method)
        assert found.lower <= exact.value <= found.upper
        assert found.sign == exact.sign
    wide = MatrixFreeMinimum(plain(rows[:, None]), most_products=60)
    for factor in (0.3, 0.9, 1.1):
        eta = factor * edge * (1 - method.momentum)
        narrow = wide.gd_exponent(eta, method)
        assert narrow.value == pytest.approx(gd_exponent(minimum, eta, method).value, abs=1e-9)
        assert narrow.upper - narrow.lower < 1e-6


def test_the_edge_is_where_the_large_end_is():
    free = MatrixFreeMinimum(compiled(random_rows(20, 2, 100)))
    for method, level in ((SGD(), 2.0), (SGD(momentum=0.5), 3.0)):
        edge = level / free.sharpness
        assert free.gd_exponent(edge * (1 - 1e-8), method).sign == -1
        assert free.gd_exponent(edge * (1 + 1e-8), method).sign == 1


# Proven bounds


def test_contractions_are_proven_and_nothing_warns():
    rows = random_rows(40, 1, 60)  # ill-conditioned: a run of this length has not forgotten
    free = MatrixFreeMinimum(compiled(rows))
    edge = 2 / np.einsum("ncd,ncd->nc", rows, rows).max()
    found = free.sgd_exponent(0.99 * edge, rng=0, steps=100)
    assert (found.sign, found.proof) == (-1, "every step contracts")
    with pytest.warns(ExponentWarning, match="too short"):
        beyond = free.sgd_exponent(1.01 * edge, rng=0, steps=100)
    assert not beyond.proof


def test_the_heavy_ball_is_bounded_from_below():
    found = MatrixFreeMinimum(compiled(PAIR)).sgd_exponent(0.1, SGD(momentum=0.9), rng=0, steps=100)
    assert found.lower >= math.log(0.9) / 2 - 1e-12


def test_full_batches_are_gradient_descent():
    free = MatrixFreeMinimum(plain(PAIR))
    for method in (SGD(batch_size=None), SGD(batch_size=2)):
        assert free.sgd_exponent(0.2, method) == free.gd_exponent(0.2)


# From a network


def test_it_moves_to_interpolation():
    model = mlp(64, (32,), 3)
    free = without_kernel(model.apply, model.initial(1), X, ONEHOT)
    with jax.enable_x64(True):
        assert np.abs(np.asarray(model.apply(free.params, X)) - ONEHOT).max() < 1e-9
    close = minimum_of(model.apply, model.initial(1), X, ONEHOT)
    assert 0.9 < free.moved / close.moved < 1.2
    assert free.largest_residual == pytest.approx(close.largest_residual)
    assert minimum_of(model.apply, free.params, X, ONEHOT).moved < 1e-7
    assert repr(free) == "MatrixFreeMinimum(n_samples=8, n_outputs=3, n_parameters=2179)"


def test_on_its_way_the_residuals_never_grow(monkeypatch):
    sizes, take = [], large_networks._step

    def watched(problem, theta, residuals, *rest):
        sizes.append(np.linalg.norm(residuals))
        return take(problem, theta, residuals, *rest)

    monkeypatch.setattr(large_networks, "_step", watched)
    x, y = digits(12)
    model = mlp(64, (8, 8), activation="gelu")  # the first steps overshoot
    without_kernel(model.apply, model.initial(0), x, y)
    steps = np.diff(sizes)
    assert (steps <= 0).all()
    assert (steps == 0).any()  # a step that was refused


def test_no_jacobian_and_no_kernel_is_formed():
    samples, outputs, replicas = 600, 3, 2
    model = mlp(10, (400,), outputs)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(samples, 10))
    y = np.asarray(model.apply(model.initial(0), x))
    free = without_kernel(model.apply, model.initial(0), x, y)
    products, rows = free.products, samples * outputs
    drawn = np.zeros((8, replicas, 4), np.int64)
    with jax.enable_x64(True):
        state, duals = jnp.ones((1, replicas, free.n_parameters)), jnp.ones((replicas, 600, 3))
        programs = [
            jax.make_jaxpr(lambda d: _engines._pull(products.vjp, d, free.n_parameters))(duals),
            jax.make_jaxpr(lambda v: _engines._push(products.jvp, v, samples))(state[0]),
            jax.make_jaxpr(lambda _: _engines._blocks_of_kernel(products.vjp, samples, outputs))(0),
            jax.make_jaxpr(
                lambda s: _engines._steps(
                    products.jvp, products.vjp, s, drawn, 8, 0.1, SGD(batch_size=4), outputs
                )
            )(state),
        ]
    held = [largest(program.jaxpr) for program in programs]
    assert min(held) > 0
    # The activations of a block of samples, 256 × 400, are the largest.
    assert max(held) <= 256 * 400
    assert max(held) < min(rows**2, rows * free.n_parameters) / 20


def largest(program):
    """Return the size of the largest array that a program computes, inner programs included."""
    sizes = [0]
    for equation in program.eqns:
        sizes += [math.prod(out.aval.shape) for out in equation.outvars]
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                if hasattr(inner, "jaxpr"):
                    inner = inner.jaxpr
                if hasattr(inner, "eqns"):
                    sizes.append(largest(inner))
    return max(sizes)


# What is refused


def test_linearly_dependent_gradients():
    twice = np.concatenate([PAIR[:1], PAIR[:1]])
    minimum = MatrixFreeMinimum(plain(twice))
    for exponent in (minimum.gd_exponent, minimum.sgd_exponent):
        with pytest.raises(ValueError, match=r"linearly dependent to working precision \(eigen"):
            exponent(0.1)
    assert minimum.sharpness == pytest.approx(Minimum.from_jacobian(twice).sharpness)
    # Where Lanczos' method has not seen it, the walk does.
    duals = np.random.default_rng(0).normal(size=(1, 2, 2, 2))
    states = stream_states(np.random.default_rng(0), 2)
    walk = DualWalk(minimum.engine, 0.1, SGD(), SGD().batches(2), states, duals)
    with pytest.raises(ValueError, match="after a single step: the gradients are linearly dep"):
        walk.follow([2_000])


def test_a_zero_jacobian():
    with pytest.raises(ValueError, match="the Jacobian is zero"):
        MatrixFreeMinimum(plain(np.zeros((2, 1, 4)))).gd_exponent(0.1)


def single(samples, v):
    return (PAIR[samples] @ v).astype(np.float32)


def centred(samples, v):
    found = PAIR[samples] @ v
    return found - found.mean(axis=0) * (len(samples) > 1)


def centred_back(samples, a):
    return np.einsum("bc,bcd->d", a - a.mean(axis=0) * (len(samples) > 1), PAIR[samples])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"n_parameters": 3}, ValueError, "have 4 gradients of 3 parameters"),
        ({"n_samples": 0}, ValueError, "n_samples must be at least 1"),
        ({"jvp": 3}, TypeError, "jvp must be a function, got 3"),
        ({"jvp": single}, ValueError, "is float32: its small eigenvalues are rounding"),
        ({"n_outputs": 1}, ValueError, r"jvp must return an array of shape \(.*, 1\)"),
        ({"vjp": lambda s, a: a}, ValueError, r"vjp must return an array of shape \(6,\)"),
        ({"vjp": lambda s, a: 1.001 * np.einsum("bc,bcd->d", a, PAIR[s])}, ValueError, "transpose"),
    ],
)
def test_products_that_are_refused(change, error, message):
    good = plain(PAIR)
    given = {name: getattr(good, name) for name in good.__dataclass_fields__} | change
    with pytest.raises(error, match=message):
        MatrixFreeMinimum(JacobianProducts(**given))


def test_coupled_samples_are_refused():
    rows = random_rows(6, 1, 8)

    def jvp(samples, v):
        return rows[samples] @ v - (rows[samples] @ v).mean(axis=0)

    def vjp(samples, a):
        return np.einsum("bc,bcd->d", a - a.mean(axis=0), rows[samples])

    given = {"n_samples": 6, "n_outputs": 1, "n_parameters": 8}
    with pytest.raises(ValueError, match="depends on the others of its batch"):
        MatrixFreeMinimum(JacobianProducts(**given, jvp=jvp, vjp=vjp))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"step_size": 0.0}, ValueError, "step_size must be"),
        ({"method": SGD(weight_decay=0.1)}, NotImplementedError, "does not cover weight_decay"),
        ({"method": SGD(probabilities=(0.3, 0.7))}, NotImplementedError, "draws all samples alike"),
        ({"method": SGD(batch_size=3)}, ValueError, "only 2 samples"),
        ({"method": 1}, TypeError, "method must be an SGD"),
        ({"replicas": 4}, ValueError, "replicas must be at least 8"),
        ({"stepz": 4}, TypeError, "did you mean 'steps'"),
        ({"batch_size": 4}, TypeError, r"pass SGD\(batch_size=...\)"),
    ],
)
def test_options_that_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        MatrixFreeMinimum(plain(PAIR)).sgd_exponent(**{"step_size": 0.1} | options)


def test_the_wrong_kind_of_thing():
    with pytest.raises(TypeError, match="products must be a JacobianProducts, got ndarray"):
        MatrixFreeMinimum(PAIR)


MODEL = NETWORKS["three outputs"][0]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"max_iterations": 0}, RuntimeError, "given the largest residual is 1.3, above"),
        ({"max_iterations": 1}, RuntimeError, "after 1 iterations the largest .* 2,179 parameters"),
        ({"loss": "cross_entropy"}, ValueError, "hard labels cross-entropy has no finite"),
        ({"loss": "mse"}, ValueError, "loss must be one of"),
        ({"tolerance": 0.0}, ValueError, "tolerance must be"),
        (
            {"apply": lambda p, x: MODEL.apply(p, x).astype(jnp.float32)},
            TypeError,
            "apply returns float32",
        ),
    ],
)
def test_networks_that_are_refused(change, error, message):
    given = {"apply": MODEL.apply, "params": MODEL.initial(1), "x": X, "y": ONEHOT} | change
    with pytest.raises(error, match=message):
        without_kernel(**given)


def test_a_network_with_fewer_parameters_than_residuals():
    small = mlp(64, (1,), activation="linear")
    x, y = digits(80)
    with pytest.raises(ValueError, match="80 samples with 1 outputs have 80 gradients of 67"):
        without_kernel(small.apply, small.initial(0), x, y)
