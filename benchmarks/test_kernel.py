"""λ(η) of a network on 1,000 images: find the minimum, its kernel, and λ at 40 step sizes."""

import numpy as np
import pytest

from stabcore import TwoLayerNetwork, find_minimum, sgd_exponent
from stabcore.companion import centred, digit_classes

IMAGES, WIDTH, POINTS, STEPS, REPLICAS = 1000, 60, 40, 20_000, 16


@pytest.fixture(scope="module")
def network():
    """Even against odd digits, inputs of order one."""
    images, labels = digit_classes(n_samples=IMAGES, rng=0)
    return TwoLayerNetwork(8 * centred(images), labels, WIDTH)


def curve(minimum):
    """Return λ at 40 step sizes, from contractions to far beyond the edge of stability."""
    guaranteed = 2 / np.diag(minimum.kernel).max()
    grid = guaranteed * np.geomspace(0.5, 20, POINTS)
    return [sgd_exponent(minimum, eta, rng=0, steps=STEPS, replicas=REPLICAS) for eta in grid]


def kernel_and_curve(network):
    """Start from random parameters."""
    return curve(find_minimum(network, network.initial(0)))


@pytest.mark.filterwarnings("ignore::stabcore.ExponentWarning")
def test_kernel_and_curve(benchmark, network):
    sgd_exponent(np.diag([1.0, 2.0, 3.0]) + 0.1, 0.1, rng=0, steps=2)  # compile, or load
    exponents = benchmark.pedantic(kernel_and_curve, (network,), rounds=3)
    benchmark.extra_info.update(
        samples=IMAGES,
        steps=sum(exponent.evaluations for exponent in exponents),
        error=max(exponent.upper - exponent.value for exponent in exponents),
    )


def test_minimum(benchmark, network):
    minimum = benchmark.pedantic(find_minimum, (network, network.initial(0)), rounds=3)
    benchmark.extra_info.update(samples=minimum.n_samples, steps=1)
