import math

import jax
import numpy as np
import pytest
from scipy.signal import correlate2d

from stabcore.networks import cnn, mlp, transformer

IMAGES = np.random.default_rng(0).normal(size=(5, 4, 6))


def normalised(x):
    return (x - x.mean()) / math.sqrt(x.var() + 1e-5)


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("outputs", [1, 3])
def test_mlp_against_its_formula(layer_norm, outputs):
    model = mlp(24, (5, 4), outputs, layer_norm=layer_norm)
    params = model.initial(1)
    found = np.asarray(model.apply(params, IMAGES))
    for image, output in zip(IMAGES, found, strict=True):
        x = image.ravel()
        for layer in range(3):
            x = params[f"{layer}_weight"] @ x
            if layer_norm and layer < 2:
                x = normalised(x)
            x = x + params[f"{layer}_bias"]
            x = np.tanh(x) if layer < 2 else x
        assert output == pytest.approx(x if outputs > 1 else x[0], rel=1e-12)
    assert found.shape == ((5,) if outputs == 1 else (5, 3))


@pytest.mark.parametrize("layer_norm", [False, True])
def test_cnn_against_scipy(layer_norm):
    model = cnn((4, 6), 3, 2, layer_norm=layer_norm)
    params = model.initial(1)
    found = np.asarray(model.apply(params, IMAGES))
    for image, output in zip(IMAGES, found, strict=True):
        maps = image[None]
        for name in ("first", "second"):
            maps = np.array(
                [
                    sum(
                        correlate2d(one, kernel, mode="same")
                        for one, kernel in zip(maps, kernels, strict=True)
                    )
                    for kernels in params[f"{name}_weight"]
                ]
            )
            if layer_norm and name == "first":
                maps = normalised(maps) * params["first_gain"][:, None, None]
            maps = np.tanh(maps + params[f"{name}_bias"][:, None, None])
        pooled = maps.reshape(3, 2, 2, 3, 2).mean(axis=(2, 4)).ravel()
        assert output == pytest.approx(params["last_weight"] @ pooled, rel=1e-12)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_transformer_against_its_formula(layer_norm):
    model = transformer((4, 6), 5, activation="tanh", layer_norm=layer_norm)
    p = model.initial(1)
    found = np.asarray(model.apply(p, IMAGES))
    for image, output in zip(IMAGES, found, strict=True):
        x = image @ p["embedding"].T + p["position"]
        seen = np.array([normalised(row) for row in x]) if layer_norm else x
        scores = (seen @ p["query"].T) @ (seen @ p["key"].T).T / math.sqrt(5)
        weights = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        x = x + weights @ (seen @ p["value"].T) @ p["mixing"].T
        seen = np.array([normalised(row) for row in x]) if layer_norm else x
        hidden = np.tanh(seen @ p["up_weight"].T + p["up_bias"])
        x = x + hidden @ p["down_weight"].T + p["down_bias"]
        assert output == pytest.approx((p["last_weight"] @ x.mean(axis=0))[0], rel=1e-12)


@pytest.mark.parametrize("model", [mlp(24), cnn((4, 6)), transformer((4, 6))])
def test_initial_parameters(model):
    one, runs = model.initial(0), model.initial(0, runs=7)
    assert sum(leaf.size for leaf in one.values()) == model.n_parameters
    assert all(runs[name].shape == (7, *leaf.shape) for name, leaf in one.items())
    assert not (runs["last_weight" if "last_weight" in runs else "1_weight"][0] == 0).all()
    assert all((one[name] == model.initial(0)[name]).all() for name in one)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mlp(0), "inputs must be at least 1"),
        (lambda: mlp(3, (0,)), "widths must be at least 1"),
        (lambda: mlp(3, activation="swish"), "activation must be one of 'tanh'"),
        (lambda: cnn((3, 4)), "shape must have even sides"),
        (lambda: transformer((4, 4), width=0), "width must be at least 1"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
