import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks_data import digits, smoothed

from stabcore import Minimum, gd_exponent
from stabcore.networks import NetworkMinimum, cnn, minimum_of, mlp, transformer

X, Y = digits(6)
MODEL = mlp(64, (16,))
START = MODEL.initial(0)


@pytest.mark.parametrize(
    "model", [MODEL, mlp(64, (16,), layer_norm=True), cnn((8, 8), 3), transformer((8, 8), 6)]
)
def test_it_interpolates_and_its_kernel_is_that_of_differences(model):
    start = model.initial(0)
    minimum = minimum_of(model.apply, start, X, Y)
    assert isinstance(minimum, Minimum)
    assert minimum.rank == 6
    with jax.enable_x64(True):
        outputs = np.asarray(model.apply(minimum.params, X))
        assert np.abs(outputs - Y).max() < 1e-11
        direction = np.random.default_rng(0).normal(size=minimum.point.size)
        nudged = [
            np.asarray(model.apply(minimum.unravel(minimum.point + h * direction), X))
            for h in (1e-6, -1e-6)
        ]
    along = (nudged[0] - nudged[1]) / 2e-6
    assert minimum.jacobian @ direction == pytest.approx(along, rel=1e-6, abs=1e-6)
    assert minimum.kernel == pytest.approx(minimum.jacobian @ minimum.jacobian.T)


def test_it_says_how_far_it_moved():
    minimum = minimum_of(MODEL.apply, START, X, Y)
    before = np.concatenate([np.ravel(START[name]) for name in sorted(START)])
    assert minimum.moved == pytest.approx(np.linalg.norm(minimum.point - before))
    assert minimum.relative == pytest.approx(minimum.moved / np.linalg.norm(before))
    assert "moved=" in repr(minimum)
    again = minimum_of(MODEL.apply, minimum.params, X, Y)
    assert again.moved < 1e-9


def test_single_precision_parameters_are_taken_to_double():
    single = {name: np.asarray(leaf, np.float32) for name, leaf in START.items()}
    minimum = minimum_of(MODEL.apply, single, X.astype(np.float32), Y)
    assert minimum.point.dtype == np.float64
    assert minimum.params["0_weight"].dtype == np.float64
    assert (2 * minimum.params["0_weight"]).dtype == np.float64  # outside any context
    assert jnp.ones(1).dtype == np.float32  # the switch of the process is where it was


def test_several_outputs_and_their_losses():
    x, onehot = digits(5, classes=3)
    model = mlp(64, (24,), 3)
    half, mean = (
        minimum_of(model.apply, model.initial(0), x, onehot, loss=loss)
        for loss in ("half_square", "mean_square")
    )
    assert (half.n_samples, half.n_outputs, half.rank) == (5, 3, 15)
    assert mean.kernel == pytest.approx(half.kernel * 2 / 3, rel=1e-10)


def test_cross_entropy_ends_where_the_softmax_is_the_label():
    x, onehot = digits(5, classes=3)
    labels, model = smoothed(onehot), mlp(64, (24,), 3)
    minimum = minimum_of(model.apply, model.initial(0), x, labels, loss="cross_entropy")
    assert (minimum.n_outputs, minimum.rank) == (2, 10)
    with jax.enable_x64(True):
        logits = np.asarray(model.apply(minimum.params, x))

        def loss(theta):
            found = jax.nn.log_softmax(model.apply(minimum.unravel(theta), x), axis=1)
            return -(labels * found).sum(axis=1).mean()

        hessian = np.asarray(jax.hessian(loss)(jnp.asarray(minimum.point)))
        gradient = np.asarray(jax.grad(loss)(jnp.asarray(minimum.point)))
    assert np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True) == pytest.approx(labels)
    assert np.abs(gradient).max() < 1e-10
    spectrum = np.linalg.eigvalsh(hessian)
    assert minimum.hessian_spectrum == pytest.approx(spectrum[-10:], rel=1e-6)
    assert np.abs(spectrum[:-10]).max() < 1e-8  # tangent directions: nothing else is curved


def test_the_sharpness_is_that_of_the_hessian_of_the_loss():
    minimum = minimum_of(MODEL.apply, START, X, Y)
    with jax.enable_x64(True):

        def loss(theta):
            return 0.5 * ((MODEL.apply(minimum.unravel(theta), X) - Y) ** 2).mean()

        hessian = np.asarray(jax.hessian(loss)(jnp.asarray(minimum.point)))
    assert minimum.sharpness == pytest.approx(np.linalg.eigvalsh(hessian)[-1], rel=1e-8)
    assert gd_exponent(minimum, 1.9 / minimum.sharpness).sign == -1


def test_any_function_of_any_pytree_is_a_network():
    def apply(params, x):
        hidden = jnp.tanh(x @ params["layers"][0] + params["layers"][1])
        return params["scale"] * (hidden @ params["last"]) + 0 * params["steps"]

    rng = np.random.default_rng(0)
    params = {
        "layers": [rng.normal(size=(2, 8)), np.zeros(8)],
        "last": rng.normal(size=8),
        "scale": np.float32(1.0),
        "steps": 7,  # no floating-point number: stays fixed
    }
    x = rng.normal(size=(4, 2))
    minimum = minimum_of(apply, params, x, np.array([1.0, -1.0, 0.5, 0.0]))
    assert minimum.params["steps"] == 7
    assert minimum.rank == 4
    assert minimum.point.size == 16 + 8 + 8 + 1


def test_starts_near_the_minimum():
    minimum = minimum_of(MODEL.apply, START, X, Y)
    for rng in (None, 0):
        starts = minimum.near(1e-3, 3, rng)
        assert starts["0_weight"].shape == (3, 16, 64)
        flat = np.concatenate([starts[name].reshape(3, -1) for name in sorted(starts)], axis=1)
        moved = flat - minimum.point
        assert np.linalg.norm(moved, axis=1) == pytest.approx(np.full(3, 1e-3), rel=1e-9)
        basis = minimum.normal_basis
        assert moved @ basis @ basis.T == pytest.approx(moved, abs=1e-12)
    slowest = minimum.near(1e-3, 1)
    flat = np.concatenate([slowest[name].ravel() for name in sorted(slowest)]) - minimum.point
    curvature = ((minimum.jacobian @ flat) ** 2).mean() / 1e-6
    assert curvature == pytest.approx(minimum.hessian_spectrum[0], rel=1e-6)


def coupled(params, x):
    """Batch normalisation in training mode."""
    hidden = x.reshape(len(x), -1) @ params["0_weight"].T
    hidden = (hidden - hidden.mean(axis=0)) / jnp.sqrt(hidden.var(axis=0) + 1e-5)
    return jnp.tanh(hidden) @ params["1_weight"][0]


def casting(params, x):
    return MODEL.apply(params, x).astype(jnp.float32)


class Dropout:
    calls = 0

    def __call__(self, params, x):
        self.calls += 1
        return MODEL.apply(params, x) * (1 + 0.1 * self.calls)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"apply": coupled}, ValueError, "depends on the others in its batch"),
        ({"apply": casting}, TypeError, "apply returns float32"),
        ({"apply": Dropout()}, ValueError, "different outputs for the same inputs"),
        ({"y": Y[:, None] * np.ones(2)}, ValueError, r"shape \(6,\) but y has shape \(6, 2\)"),
        ({"y": Y[:5]}, ValueError, "one input per target"),
        ({"params": {"a": 3}}, ValueError, "params holds no floating-point array"),
        ({"params": START | {"0_bias": np.full(16, np.nan)}}, ValueError, "params has a NaN"),
        ({"loss": "mse"}, ValueError, "loss must be one of"),
        ({"y": np.full(6, np.nan)}, ValueError, "y has a NaN"),
    ],
)
def test_what_is_refused(change, error, message):
    arguments = {"apply": MODEL.apply, "params": START, "x": X, "y": Y} | change
    with pytest.raises(error, match=message):
        minimum_of(**arguments)


def test_hard_labels_are_refused():
    x, onehot = digits(5, classes=3)
    model = mlp(64, (24,), 3)
    with pytest.raises(ValueError, match="hard labels cross-entropy has no finite minimum"):
        minimum_of(model.apply, model.initial(0), x, onehot, loss="cross_entropy")


def test_a_jacobian_that_would_not_fit_is_announced(monkeypatch):
    monkeypatch.setattr("stabcore.networks.interpolation.MOST_BYTES", 1e3)
    with pytest.raises(MemoryError, match=r"6 samples with 1 outputs has .* entries"):
        minimum_of(MODEL.apply, START, X, Y)


def test_too_few_parameters():
    tiny = mlp(64, (1,), activation="linear")
    twice = np.concatenate([X, X])  # the same images with other targets
    with pytest.raises(RuntimeError, match=r"no minimum found.*residual is .*67 parameters"):
        minimum_of(tiny.apply, tiny.initial(0), twice, np.concatenate([Y, -Y]))


def test_the_class_is_a_minimum():
    assert issubclass(NetworkMinimum, Minimum)
