"""Dead units: the factors against the formula, against differences, and against SGD."""

import jax
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from networks_data import digits

from stabcore import SGD, lyapunov_exponent
from stabcore.networks import cnn, mlp, train, unit_law

X, Y = digits(5)
PIXELS = X.reshape(5, -1)
ETA = 0.3


def spectra(matrices):
    """The eigenvalues of every factor that are not 1."""
    values = np.linalg.eigvalsh(matrices)
    return [row[np.abs(row - 1) > 1e-9] for row in values]


def test_a_neuron_has_the_factors_of_its_inputs_and_errors():
    """I + η[0 δxᵀ; xδᵀ 0] has the eigenvalues 1 ± η|δ||x|."""
    model = mlp(64, (4, 3))
    params = model.initial(0)
    law = unit_law(
        model.apply, params, {"0_weight": 1, "1_weight": np.s_[:, 1], "0_bias": 1}, X, Y, ETA
    )
    params["0_weight"][1] = params["0_bias"][1] = params["1_weight"][:, 1] = 0
    first = np.tanh(PIXELS @ params["0_weight"].T + params["0_bias"])
    second = np.tanh(first @ params["1_weight"].T + params["1_bias"])
    output = second @ params["2_weight"][0] + params["2_bias"]
    delta = (Y - output)[:, None] * params["2_weight"][0] * (1 - second**2)
    # The bias is one more input, 1.
    sizes = np.linalg.norm(delta, axis=1) * np.sqrt((PIXELS**2).sum(axis=1) + 1)
    for found, size in zip(spectra(law.matrices), sizes, strict=True):
        assert found == pytest.approx([1 - ETA * size, 1 + ETA * size], rel=1e-12)


def test_a_channel_has_its_block_of_the_whole_hessian():
    model = cnn((8, 8), 3)
    params = model.initial(0)
    places = {"first_weight": 0, "first_bias": 0, "second_weight": np.s_[:, 0]}
    law = unit_law(model.apply, params, places, X, Y, ETA)
    inside = {name: np.zeros(array.shape, bool) for name, array in params.items()}
    for name, place in places.items():
        params[name][place], inside[name][place] = 0, True
    with jax.enable_x64(True):
        point, back = ravel_pytree(jax.tree.map(jax.numpy.asarray, params))
        chosen = np.asarray(ravel_pytree(inside)[0])
        for sample, factor in enumerate(law.matrices):

            def loss(theta, sample=sample):
                return 0.5 * (model.apply(back(theta), X[[sample]])[0] - Y[sample]) ** 2

            block = np.asarray(jax.hessian(loss)(point))[np.ix_(chosen, chosen)]
            expected = 1 - ETA * np.linalg.eigvalsh(block)[::-1]
            extra = len(expected) - len(factor)
            found = np.sort(np.append(np.linalg.eigvalsh(factor), np.ones(extra)))
            assert found == pytest.approx(expected, abs=1e-12)


def test_sgd_moves_a_small_unit_at_the_rate_of_the_exponent():
    model = mlp(64, (4,))
    params = model.initial(1)
    law = unit_law(
        model.apply, params, {"0_weight": 0, "0_bias": 0, "1_weight": np.s_[:, 0]}, X, Y, 0.1
    )
    exponent = lyapunov_exponent(law, rng=0)
    rest, rng, runs = dict(params), np.random.default_rng(2), 256

    def apply(tiny, x):
        full = {name: jax.numpy.asarray(array) for name, array in rest.items()}
        full["0_weight"] = full["0_weight"].at[0].set(tiny["w"])
        full["0_bias"] = full["0_bias"].at[0].set(tiny["b"])
        full["1_weight"] = full["1_weight"].at[:, 0].set(tiny["a"])
        return model.apply(full, x)

    tiny = {"w": (runs, 64), "b": (runs,), "a": (runs, 1)}
    tiny = {name: 1e-100 * rng.normal(size=shape) for name, shape in tiny.items()}
    sizes = []
    for _ in range(2):
        tiny = train(apply, tiny, X, Y, 0.1, SGD(), 400, rng=rng).params
        squares = [(np.asarray(part) ** 2).reshape(runs, -1).sum(axis=1) for part in tiny.values()]
        sizes.append(np.log(sum(squares)) / 2)
    rates = (sizes[1] - sizes[0]) / 400
    error = np.hypot(rates.std(ddof=1) / np.sqrt(runs), exponent.standard_error or 0)
    assert abs(rates.mean() - exponent.value) < 4 * error


def test_what_is_refused():
    model = mlp(64, (4,))
    params = model.initial(0)
    with pytest.raises(ValueError, match="unit is not dead where its weights are zero"):
        unit_law(model.apply, params, {"1_weight": np.s_[:, 0]}, X, Y, ETA)
    with pytest.raises(ValueError, match="unit names the array '2_weight'"):
        unit_law(model.apply, params, {"2_weight": 0}, X, Y, ETA)
    with pytest.raises(ValueError, match="unit has the index 9"):
        unit_law(model.apply, params, {"0_weight": 9}, X, Y, ETA)
    with pytest.raises(ValueError, match="x has 5 samples but y has 4"):
        unit_law(model.apply, params, {"0_weight": 0}, X, Y[:4], ETA)
