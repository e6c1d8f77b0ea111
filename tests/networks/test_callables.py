"""The minimum next to a network that is known by two functions, against `minimum_of`."""

import numpy as np
import pytest
from networks_data import digits, smoothed

from stabcore.networks import NetworkMinimum, minimum_of, mlp
from stabcore.networks.callables import minimum_of_functions

X, Y = digits(6)
MODEL = mlp(64, (16,))
START = MODEL.initial(0)
X3, Y3 = digits(5, classes=3)
MODEL3 = mlp(64, (24,), 3)


def outputs(params, x):
    """Evaluate the same MLP in NumPy, one output as an axis of its own."""
    x = np.asarray(x).reshape(len(x), -1)
    hidden = np.tanh(x @ params["0_weight"].T + params["0_bias"])
    return hidden @ params["1_weight"].T + params["1_bias"]


def gradients(params, x):
    """Derive the outputs by hand."""
    x = np.asarray(x).reshape(len(x), -1)
    hidden = np.tanh(x @ params["0_weight"].T + params["0_bias"])
    back = params["1_weight"] * (1 - hidden**2)[:, None]  # (N, C, hidden)
    own = np.broadcast_to(np.eye(len(params["1_bias"])), (len(x), *[len(params["1_bias"])] * 2))
    return {
        "0_weight": back[..., None] * x[:, None, None],
        "0_bias": back,
        "1_weight": own[..., None] * hidden[:, None, None],
        "1_bias": own,
    }


def flattened(function):
    """One output as one number a sample."""

    def single(params, x):
        found = function(params, x)
        if isinstance(found, dict):
            return {name: leaf[:, 0] for name, leaf in found.items()}
        return found[:, 0]

    return single


class Tensor:
    """What `minimum_of_functions` knows of a PyTorch tensor, of which it makes others."""

    def __init__(self, values, dtype=np.float32):
        self.values = np.asarray(values, dtype)
        self.shape, self.dtype = self.values.shape, self.values.dtype

    def __len__(self):
        return len(self.values)

    def __getitem__(self, key):
        return Tensor(self.values[key], self.dtype)

    def __array__(self, *_, **__):
        raise TypeError("can't convert a tensor that requires gradients; use tensor.detach()")

    def is_floating_point(self):
        return self.dtype.kind == "f"

    def detach(self):
        return Detached(self.values, self.dtype)

    def double(self):
        return type(self)(self.values, np.float64)

    def new_tensor(self, values):
        return type(self)(values, self.dtype)


class Detached(Tensor):
    def __array__(self, *_, **__):
        return self.values

    def cpu(self):
        return self


def of_tensors(function):
    """The function for tensors, which refuses to mix precisions, as PyTorch does."""

    def wrapped(params, x):
        assert {x.dtype, *(leaf.dtype for leaf in params.values())} == {np.dtype(np.float64)}
        found = function({name: leaf.values for name, leaf in params.items()}, x.values)
        if isinstance(found, dict):
            return {name: Tensor(leaf, np.float64) for name, leaf in found.items()}
        return Tensor(found, np.float64)

    return wrapped


@pytest.mark.parametrize("loss", ["half_square", "mean_square", "cross_entropy"])
def test_it_is_the_minimum_that_jax_finds(loss):
    y = smoothed(Y3) if loss == "cross_entropy" else Y3
    expected = minimum_of(MODEL3.apply, MODEL3.initial(0), X3, y, loss=loss)
    found = minimum_of_functions(outputs, gradients, MODEL3.initial(0), X3, y, loss=loss)
    assert isinstance(found, NetworkMinimum)
    # Both stop where the residuals are below 1e-12: what is left of a quadratic convergence.
    assert found.point == pytest.approx(expected.point, abs=1e-9)
    assert found.kernel == pytest.approx(expected.kernel, rel=1e-8, abs=1e-9)
    assert found.moved == pytest.approx(expected.moved, rel=1e-8)
    assert (found.n_samples, found.n_outputs) == (expected.n_samples, expected.n_outputs)
    assert found.largest_residual == pytest.approx(expected.largest_residual)
    starts = [minimum.near(1e-3, 2, rng=0)["0_weight"] for minimum in (found, expected)]
    assert starts[0] == pytest.approx(starts[1], abs=1e-9)


@pytest.mark.parametrize("change", [lambda f: f, flattened])
def test_one_output_with_and_without_an_axis_of_its_own(change):
    expected = minimum_of(MODEL.apply, START, X, Y)
    found = minimum_of_functions(change(outputs), change(gradients), START, X, Y)
    assert found.kernel == pytest.approx(expected.kernel, rel=1e-8)


def test_tensors_in_single_precision():
    params = {name: Tensor(leaf) for name, leaf in START.items()}
    functions = of_tensors(outputs), of_tensors(gradients)
    found = minimum_of_functions(*functions, params, Tensor(X), Tensor(Y).detach())
    single = {name: leaf.astype(np.float32) for name, leaf in START.items()}
    expected = minimum_of(MODEL.apply, single, X.astype(np.float32), Y)
    assert found.kernel == pytest.approx(expected.kernel, rel=1e-8)
    assert found.params["0_weight"].dtype == np.float64
    assert isinstance(found.params["0_weight"], Tensor)
    assert {leaf.dtype for leaf in params.values()} == {np.dtype(np.float32)}  # left as they were


def test_pytorch():
    torch = pytest.importorskip("torch", reason="a recipe of its own runs PyTorch every week")
    torch.manual_seed(0)
    layers = torch.nn.Linear(64, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1)
    network = torch.nn.Sequential(*layers)

    def output(params, one):
        return torch.func.functional_call(network, params, (one[None],))[0]

    functions = [torch.vmap(f, (None, 0)) for f in (output, torch.func.jacrev(output))]
    x = X.reshape(6, 64).astype(np.float32)
    found = minimum_of_functions(
        *functions, dict(network.named_parameters()), torch.tensor(x), torch.tensor(Y)
    )
    names = {"0.weight": "0_weight", "0.bias": "0_bias", "2.weight": "1_weight", "2.bias": "1_bias"}
    given = {names[n]: p.detach().numpy() for n, p in network.named_parameters()}
    expected = minimum_of(MODEL.apply, given, x, Y)
    assert found.kernel == pytest.approx(expected.kernel, rel=1e-8)


NOISE = np.random.default_rng(0)


def noisy(params, x):
    return outputs(params, x) + NOISE.normal()


def coupled(params, x):
    found = outputs(params, x)
    return found - found.mean(axis=0)


def single_precision(function):
    def cast(params, x):
        found = function(params, x)
        if isinstance(found, dict):
            return {name: np.asarray(leaf, np.float32) for name, leaf in found.items()}
        return found.astype(np.float32)

    return cast


def one_wrong(params, x):
    found = gradients(params, x)
    return found | {"1_bias": 2 * found["1_bias"]}


def transposed(params, x):
    found = gradients(params, x)
    return found | {"0_weight": np.swapaxes(found["0_weight"], 2, 3)}


def one_missing(params, x):
    found = gradients(params, x)
    del found["1_bias"]
    return found


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"outputs": coupled}, ValueError, r"depends on the others in its batch.*model\.eval"),
        ({"outputs": noisy}, ValueError, "different numbers for the same inputs"),
        ({"outputs": single_precision(outputs)}, TypeError, "outputs returns float32"),
        ({"outputs": 3}, TypeError, "outputs must be a function"),
        ({"gradients": single_precision(gradients)}, ValueError, "gradients is float32"),
        ({"gradients": one_wrong}, ValueError, "not the derivatives of outputs"),
        ({"gradients": transposed}, ValueError, r"it must be \(6, 16, 64\)"),
        ({"gradients": one_missing}, ValueError, "one array for every array of params"),
        ({"y": Y[:, None] * np.ones(2)}, ValueError, r"shape \(6, 1\) but y has shape \(6, 2\)"),
        ({"y": Y[:5]}, ValueError, "one input per target"),
        ({"y": np.full(6, np.nan)}, ValueError, "y has a NaN"),
        ({"params": {"a": np.arange(3)}}, ValueError, "params holds no floating-point array"),
        ({"params": START | {"0_bias": np.full(16, np.nan)}}, ValueError, "params has a NaN"),
        ({"loss": "mse"}, ValueError, "loss must be one of"),
        ({"los": "mean_square"}, TypeError, "los"),
    ],
)
def test_what_is_refused(change, error, message):
    arguments = {"outputs": outputs, "gradients": gradients, "params": START, "x": X, "y": Y}
    with pytest.raises(error, match=message):
        minimum_of_functions(**(arguments | change))


def test_hard_labels_are_refused():
    with pytest.raises(ValueError, match="hard labels cross-entropy has no finite minimum"):
        minimum_of_functions(outputs, gradients, MODEL3.initial(0), X3, Y3, loss="cross_entropy")


def test_no_minimum():
    twice = np.concatenate([X, X])  # the same images with other targets
    with pytest.raises(RuntimeError, match=r"no minimum found.*1057 parameters for 12 samples"):
        minimum_of_functions(outputs, gradients, START, twice, np.concatenate([Y, -Y]))
