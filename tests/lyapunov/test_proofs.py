import math

import numpy as np
import pytest

from stabcore import SGD, FiniteLaw, Minimum, SGDLaw, lyapunov_exponent, stability
from stabcore.exponent import Exponent, largest_exponent
from stabcore.lyapunov import monte_carlo, proven_bounds
from stabcore.lyapunov.proofs import NEGATIVE, inside


def smooth_kernel(size, seed=0):
    """Return a kernel with quickly falling eigenvalues."""
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]
    return (rotation * np.exp(-np.arange(size) / 2)) @ rotation.T


def random_kernel(rng):
    size = int(rng.choice([2, 3, 5, 10, 30]))
    jacobian = rng.normal(size=(size, 2 * size)) * np.exp(rng.normal(size=(size, 1)) / 2)
    return jacobian @ jacobian.T


@pytest.mark.filterwarnings("ignore::stabcore.ExponentWarning")
@pytest.mark.parametrize("size", [4, 10, 30])
def test_smooth_kernels_are_stable_where_every_step_contracts(size):
    """Their slowest direction moves by less than the error of any simulation."""
    kernel = smooth_kernel(size)
    eta = 1 / np.diag(kernel).max()
    verdict = stability(kernel, eta, rng=0)
    assert verdict.region == "both"
    assert verdict.sgd.proof in ("mean square", "every step contracts")
    reshuffled = proven_bounds(SGDLaw(kernel, eta, SGD(reshuffle=True)))
    assert (reshuffled.upper, reshuffled.proof) == (NEGATIVE, "every step contracts")


@pytest.mark.filterwarnings("ignore::stabcore.ExponentWarning")
def test_bounds_against_simulations():
    rng, proofs = np.random.default_rng(1), set()
    for _ in range(60):
        kernel = random_kernel(rng)
        eta = np.exp(rng.uniform(math.log(0.3), math.log(6))) / np.diag(kernel).mean()
        law = SGDLaw(kernel, eta, SGD(batch_size=int(rng.integers(1, 3))))
        proven, simulated = proven_bounds(law), monte_carlo(law, 0, steps=2_000)
        assert proven.lower <= simulated.value + 5 * simulated.standard_error
        assert proven.upper >= simulated.value - 5 * simulated.standard_error
        if proven.sign is not None:
            assert proven.proof
            proofs.add(proven.proof)
            assert lyapunov_exponent(law, rng=0, steps=500).sign == proven.sign
    assert proofs >= {"mean square", "determinant"}


def test_long_products_decide_where_the_second_moment_does_not():
    """Rare large factors: E A² > 1, and E log‖A₂A₁‖ < 0."""
    factors = np.stack([2.2 * np.diag([1.0, 0.3, 0.3]), np.diag([0.3, 0.5, 0.5])])
    factors[0, 0, 1] = factors[1, 1, 2] = factors[1, 2, 0] = 0.05
    proven = proven_bounds(FiniteLaw(factors))
    assert proven.sign == -1
    assert proven.proof.startswith("subadditivity, products of")
    simulated = monte_carlo(FiniteLaw(factors), 0)
    assert proven.lower <= simulated.value <= proven.upper


def test_a_direction_that_no_sample_moves_is_not_stable():
    minimum = Minimum([[1.0, 0.5], [0.5, 1.0]], [1.0, 0.0])
    assert proven_bounds(SGDLaw(minimum, 0.5)).sign is None


def test_an_estimate_is_cut_down_to_its_bounds():
    def exponent(value, lower, upper, **more):
        return Exponent(value=value, lower=lower, upper=upper, method="m", **more)

    proven = exponent(-0.2, -0.3, -0.1, kind="enclosure", proof="mean square")
    cut = inside(exponent(-0.05, -0.25, 0.1, kind="statistical", standard_error=0.05), proven)
    assert (cut.value, cut.lower, cut.upper, cut.sign) == (-0.1, -0.25, -0.1, -1)
    assert str(cut).endswith("(statistical, m, proven sign)")
    assert cut.converged
    wrong = inside(exponent(0.5, 0.4, 0.6, kind="deterministic"), proven)
    assert (wrong.lower, wrong.upper) == (-0.3, -0.1)
    assert "contradicts a proven bound" in wrong.status


def test_the_largest_of_several_parts():
    def part(value, half, kind="deterministic", **more):
        return Exponent(
            value=value, lower=value - half, upper=value + half, kind=kind, method="m", **more
        )

    far = part(-5.0, 0.1, "statistical", standard_error=0.05, status="too short: x")
    result = largest_exponent([part(0.3, 0.01), part(0.29, 0.05), far])
    assert (result.value, result.lower) == (0.3, 0.29)
    assert result.upper == pytest.approx(0.34)
    assert result.converged  # what cannot be the largest is in no doubt
    noisy = [part(0.0, 0.1, "statistical", standard_error=0.05) for _ in range(2)]
    both = largest_exponent(noisy)
    assert both.kind == "statistical"
    assert 1.15 < both.upper / 0.1 < 1.25  # both hold together
    gone = part(-1.0, 0.0)
    vanished = Exponent(value=-math.inf, lower=-math.inf, upper=-math.inf, kind="exact", method="m")
    assert largest_exponent([vanished, gone]).value == -1.0
    assert largest_exponent([vanished, vanished]).value == -math.inf


def test_equal_exponents_of_orthogonal_groups():
    """Two equal blocks, of which each has half the exponent per step."""
    block, zero = np.array([[1, 0.5], [0.5, 2.5]]), np.zeros((2, 2))
    truth = lyapunov_exponent(SGDLaw(block, 1.2)).value / 2
    law = SGDLaw(np.block([[block, zero], [zero, block]]), 1.2)
    result = lyapunov_exponent(law, rng=0)
    assert result.kind == "deterministic"
    assert abs(result.value - truth) < 1e-9
    for seed in range(10):
        simulated = monte_carlo(law, seed)
        assert simulated.lower <= truth <= simulated.upper
    pairs = SGDLaw(law.minimum, 0.8, SGD(batch_size=2))  # batches across the groups
    exact, simulated = lyapunov_exponent(pairs, rng=0), monte_carlo(pairs, 0)
    assert exact.kind == "deterministic"
    assert simulated.lower <= exact.value <= simulated.upper
    assert np.abs(simulated.value - exact.value) < 4 * simulated.standard_error


@pytest.mark.filterwarnings("ignore::stabcore.ExponentWarning")
def test_a_walk_without_drift_has_no_sign():
    """Two coordinates with λ = 0 each: the larger of both looks as if it grew."""
    law = FiniteLaw([[[2, 0], [0, 0.5]], [[0.5, 0], [0, 2]]])
    options = {"steps": 100, "decide_sign": 0.05, "max_steps": 1_000}
    signs = [monte_carlo(law, seed, **options).sign for seed in range(60)]
    assert sum(sign is not None for sign in signs) <= 8  # of 60 at 5 %: more in one of 200 cases
