"""Deep linear networks: the manifold of minima, its flattest point, what bounds the stable ones."""

import math

import numpy as np
import pytest

from stabcore import LinearNetwork, Minimum, ScalarChain
from stabcore.problems import (
    flattest_minimum,
    flattest_sharpness,
    interpolate,
    layer_bounds,
    normal_spectra,
    whitened_network,
)

# Sizes from input to output, with the singular values of W*.
ARCHITECTURES = {
    (1, 1, 1): [2.0],
    (3, 4, 2): [3.0, 0.5],
    (2, 5, 3): [1.5, 1.0],
    (2, 2, 2, 2): [2.0, 0.7],
    (1, 2, 2, 1): [1.0],
    (3, 2, 4, 3, 2): [1.3, 0.4],
}


def whitened(sizes, singular):
    return whitened_network(sizes, singular, rng=0)


@pytest.fixture(params=ARCHITECTURES.items(), ids=lambda item: "-".join(map(str, item[0])))
def network(request):
    return whitened(*request.param)


def random_minima(network, count=50, rng=1):
    generator = np.random.default_rng(rng)
    theta = generator.normal(size=(count, network.n_parameters))
    return interpolate(network, theta)


def test_whitened_network_has_whitened_inputs_and_the_singular_values():
    for sizes, singular in (*ARCHITECTURES.items(), ((3, 3, 3), [2.0])):
        network = whitened(sizes, singular)
        assert (len(network.inputs), network.depth) == (sizes[0], len(sizes) - 1)
        assert network.inputs.T @ network.inputs / sizes[0] == pytest.approx(np.eye(sizes[0]))
        found = np.linalg.svd(network.target_map, compute_uv=False)
        assert found == pytest.approx(np.pad(singular, (0, found.size - len(singular))), abs=1e-12)


def test_interpolate_returns_minima_and_changes_one_layer_only(network):
    theta = np.random.default_rng(1).normal(size=(20, network.n_parameters))
    minima = interpolate(network, theta)
    assert np.abs(network.residuals(minima)).max() < 1e-10
    pairs = zip(network.layers(theta), network.layers(minima), strict=True)
    assert sum(not np.array_equal(before, after) for before, after in pairs) == 1


def test_a_minimum_interpolates_itself(network):
    minima = random_minima(network)
    assert interpolate(network, minima) == pytest.approx(minima, abs=1e-7)


def test_interpolate_moves_as_little_as_possible():
    # (3, 2) → W_1 = W_1 + (W* − W_2 W_1) W_2ᵀ / |W_2|² with W_2 a row.
    network = LinearNetwork([[1.0]], [5.0], widths=[2])
    moved = interpolate(network, np.array([1.0, 1.0, 3.0, 4.0]))
    assert moved == pytest.approx([1 - 6 / 25, 1 - 8 / 25, 3.0, 4.0])


def test_linear_regression_has_one_minimum():
    network = LinearNetwork(np.eye(2), np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert interpolate(network, np.zeros(4)) == pytest.approx([1.0, 3.0, 2.0, 4.0])


def test_interpolate_needs_wide_layers():
    network = LinearNetwork(np.eye(2), np.eye(2), widths=[1])
    with pytest.raises(ValueError, match=r"narrowest hidden layer of network has width 1.*widen"):
        interpolate(network, np.zeros(4))


def test_spectra_are_those_of_each_minimum(network):
    minima = random_minima(network, 5)
    for spectrum, point in zip(normal_spectra(network, minima), minima, strict=True):
        twin = Minimum.at(network, point, tolerance=1e-8).hessian_spectrum
        assert spectrum == pytest.approx(twin, rel=1e-6, abs=1e-9 * twin[-1])


def test_the_sharpness_is_that_of_the_hessian(network):
    minima = random_minima(network, 5)
    hessian = np.linalg.eigvalsh(network.hessian(minima))[:, -1]
    assert normal_spectra(network, minima)[:, -1] == pytest.approx(hessian, rel=1e-8)


def test_depth_two_sharpness_is_the_sum_of_the_squared_spectral_norms():
    network = whitened((3, 4, 2), [3.0, 0.5])
    minima = random_minima(network)
    norms = [np.linalg.norm(layer, 2, axis=(1, 2)) ** 2 for layer in network.layers(minima)]
    assert normal_spectra(network, minima)[:, -1] == pytest.approx(sum(norms))


def test_the_balanced_minimum_is_the_flattest(network):
    flattest = flattest_sharpness(network)
    balanced = normal_spectra(network, network.balanced_minimum())[-1]
    assert balanced == pytest.approx(flattest)
    assert normal_spectra(network, random_minima(network, 2000))[:, -1].min() > flattest


def test_flattest_sharpness_of_scalar_chains():
    for depth in (1, 2, 3, 5):
        chain = whitened((1,) * (depth + 1), [1.0])
        assert flattest_sharpness(chain) == pytest.approx(depth)
        ones = normal_spectra(ScalarChain(depth), np.ones(depth))[0]
        assert ones == pytest.approx(depth)


@pytest.mark.parametrize("seed", range(3))
def test_optimisation_finds_the_flattest_minimum(network, seed):
    found = flattest_minimum(network, network.initial(seed))
    assert np.abs(network.residuals(found)).max() < 1e-10
    assert normal_spectra(network, found)[-1] == pytest.approx(
        flattest_sharpness(network), rel=1e-9
    )


def test_optimisation_with_correlated_inputs():
    # F = w₂w₁x, E[x²] = 4: S = 4(w₁² + w₂²) ≥ 8|W*|.
    network = LinearNetwork([[2.0]], [6.0], widths=[1])
    found = flattest_minimum(network, np.array([1.0, 1.0]))
    assert normal_spectra(network, found)[-1] == pytest.approx(24.0)


def test_layer_bounds_hold(network):
    points = network.balanced_minimum() + 0.2 * np.random.default_rng(3).normal(
        size=(500, network.n_parameters)
    )
    minima = interpolate(network, points)
    sharpness = normal_spectra(network, minima)[:, -1]
    norms = np.array([np.linalg.norm(w, 2, axis=(1, 2)) for w in network.layers(minima)]).T
    for norm, value in zip(norms, sharpness, strict=True):
        assert (norm <= layer_bounds(network, value) * (1 + 1e-12)).all()


def test_layer_bounds_of_depth_two_and_scalar_chains():
    assert layer_bounds(whitened((3, 4, 2), [3.0, 0.5]), 16.0) == pytest.approx([4.0, 4.0])
    # In truth no factor exceeds 1.85: x₂ = t, x₁ = x₃ = t^{−1/2} has S = 2t + 1/t².
    assert layer_bounds(whitened((1, 1, 1, 1), [1.0]), 4.0) == pytest.approx([4.0, 4.0, 4.0])
    assert layer_bounds(whitened((2, 2), [3.0, 1.0]), 10.0) == pytest.approx([3.0])


def test_two_wide_hidden_layers_leave_one_layer_free():
    network = whitened((3, 2, 3, 4, 2), [2.0, 1.0])
    assert np.isinf(layer_bounds(network, 50.0)).tolist() == [False, False, True, False]
    spectra = []
    for t in (0.0, 1.0, 1e6):
        layers = network.layers(network.balanced_minimum())
        layers[2][2, 2] = t
        point = np.concatenate([layer.reshape(-1) for layer in layers])
        assert np.abs(network.residuals(point)).max() < 1e-12
        spectra.append(normal_spectra(network, point))
    assert spectra[0] == pytest.approx(spectra[1], rel=1e-12)
    assert spectra[0] == pytest.approx(spectra[2], rel=1e-12)


def test_one_wide_hidden_layer_is_not_enough():
    assert np.isfinite(layer_bounds(whitened((1, 1, 3, 1, 1), [1.0]), 10.0)).all()


def test_layer_bounds_of_a_target_that_is_zero():
    """c bounds two layers; with three, two that are 0 leave the third one free."""
    two, three = whitened((2, 3, 2), [0.0, 0.0]), whitened((2, 3, 2, 2), [0.0])
    assert layer_bounds(two, 4.0).tolist() == [2.0, 2.0]
    assert layer_bounds(whitened((2, 2), [0.0]), 4.0).tolist() == [0.0]
    assert np.isinf(layer_bounds(three, 4.0)).all()
    assert flattest_sharpness(two) == 0.0
    # The bound is attained: W₁ = 2 e eᵀ and W₂ = 0 have the curvature 4.
    first = np.zeros((3, 2))
    first[0, 0] = 2.0
    theta = np.concatenate([first.ravel(), np.zeros(6)])
    assert normal_spectra(two, theta)[-1] == pytest.approx(4.0)
    huge = np.concatenate([1e6 * np.ones(6), np.zeros(6 + 4)])
    assert np.abs(three.residuals(huge)).max() == 0.0
    assert normal_spectra(three, huge)[-1] == 0.0


def test_layers_narrower_than_the_rank_are_refused():
    narrow = whitened((2, 1, 2), [2.0, 1.0])
    for question in (flattest_sharpness, lambda network: layer_bounds(network, 50.0)):
        with pytest.raises(ValueError, match=r"width 1, less than the rank 2 .* widen the layer"):
            question(narrow)
    assert flattest_sharpness(whitened((2, 1, 2), [2.0])) == pytest.approx(4.0)


def test_refusals():
    with pytest.raises(ValueError, match="sizes needs an input and an output"):
        whitened_network([2], [1.0])
    with pytest.raises(ValueError, match="singular_values must be at most 1"):
        whitened_network([2, 1], [1.0, 1.0])
    with pytest.raises(ValueError, match="not negative"):
        whitened_network([2, 1], [-1.0])
    network = LinearNetwork([[2.0]], [6.0], widths=[1])
    with pytest.raises(ValueError, match=r"inputs must be whitened.*off by 3"):
        flattest_sharpness(network)
    with pytest.raises(ValueError, match=r"inputs must be whitened"):
        layer_bounds(network, 5.0)
    with pytest.raises(ValueError, match=r"sharpness must be at least.*3, got 2"):
        layer_bounds(whitened((1, 1, 1, 1), [1.0]), 2.0)
    with pytest.raises(TypeError, match="network"):
        flattest_sharpness(ScalarChain(3))
    with pytest.raises(ValueError, match="start"):
        flattest_minimum(network, [math.nan, 1.0])
    with pytest.raises(ValueError, match="theta"):
        interpolate(network, np.zeros(3))
    with pytest.raises(ValueError, match="minima"):
        normal_spectra(network, np.zeros(3))
