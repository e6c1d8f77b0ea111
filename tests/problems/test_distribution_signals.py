import math

import numpy as np
import pytest
from scipy import stats
from scipy.special import exp1, expi

from stabcore import SGD, saddle_exponents, stable_saddle_steps
from stabcore.problems import DistributionSignal, FiniteSignal, NormalSignal, as_signal
from stabcore.saddles import rank_one_exponent, saddle_grid

SCALES = np.concatenate([-np.geomspace(1e-6, 40, 31), np.geomspace(1e-6, 40, 31)])


def mean_log_exponential(a, b):
    """E log|a + bz| for z ~ Exp(1): log|a| + e^x E₁(x) at x = a/b, with −Ei(−x) for x < 0."""
    x = a / b
    integral = exp1(x) if x > 0 else -expi(-x)
    return math.log(abs(a)) + math.exp(x) * integral


def test_the_normal_law_agrees_with_its_closed_form():
    for offset in (1.0, 0.0, 1e-9, -3.0):
        value, error = DistributionSignal(stats.norm(0.3, 0.8)).mean_log(offset, SCALES)
        known, known_error = NormalSignal(0.3, 0.8).mean_log(offset, SCALES)
        assert (np.abs(value - known) <= error + known_error).all()
        assert error.max() < 1e-11


def test_the_exponential_law_agrees_with_its_closed_form():
    scales = SCALES[(np.abs(SCALES) > 0.01)]
    value, error = DistributionSignal(stats.expon()).mean_log(1.0, scales)
    known = np.array([mean_log_exponential(1.0, b) for b in scales])
    assert (np.abs(value - known) <= error + 1e-13 * (1 + np.abs(known))).all()
    assert error.max() < 1e-12


def test_the_laplace_law_with_its_kink():
    value, error = DistributionSignal(stats.laplace(0.1)).mean_log(1.0, [-0.7, 0.4, 2.5, -9.9])
    for b, found, bound in zip([-0.7, 0.4, 2.5, -9.9], value, error, strict=True):
        # The exponential law on both sides of 0.1, mirrored on the left.
        centre = 1 + 0.1 * b
        sides = (mean_log_exponential(centre, b), mean_log_exponential(centre, -b))
        assert found == pytest.approx(sum(sides) / 2, abs=1e-12)
        assert bound < 1e-11


SINGULAR = [
    stats.gamma(0.3),
    stats.beta(0.2, 0.2, -1, 2),
    stats.beta(0.05, 3),
    stats.cauchy(),
    stats.t(3, 0.2),
    stats.lognorm(1.5, -2),
    stats.levy(),
    stats.uniform(-1, 3),
    stats.expon(1 / 0.7),
]


@pytest.mark.parametrize("law", SINGULAR, ids=lambda law: law.dist.name)
def test_singular_and_heavy_laws_against_a_simulation(law):
    value, error = DistributionSignal(law).mean_log(1.0, -0.7)
    draws = np.log(np.abs(1 - 0.7 * law.rvs(size=400_000, random_state=1)))
    assert abs(draws.mean() - value) < 4 * draws.std() / math.sqrt(draws.size)
    assert error < 1e-11


def test_the_ends_of_the_range():
    law = DistributionSignal(stats.expon())
    assert law.mean_log(0.0, 1.0)[0] == pytest.approx(-np.euler_gamma, abs=1e-13)
    assert law.mean_log(0.5, 0.0)[0] == math.log(0.5)
    assert law.mean_log(0.0, 0.0)[0] == -math.inf
    far, error = law.mean_log(1.0, -1e-9)  # the root is at 10⁹: E z = 1
    assert far == pytest.approx(-1e-9, rel=1e-6)
    assert error < 1e-13


def test_moments_and_print():
    law = DistributionSignal(stats.laplace(0.25, scale=2.0))
    assert (float(law.mean), float(law.second_moment)) == pytest.approx((0.25, 8.0625))
    assert repr(law) == "DistributionSignal(laplace(0.25, scale=2))"


def test_a_distribution_stands_for_its_law_everywhere():
    law = stats.norm(0.3, 1.0)
    assert isinstance(as_signal(law), DistributionSignal)
    plus, minus = saddle_exponents(law, 0.8, SGD(weight_decay=0.1))
    known = saddle_exponents(NormalSignal(0.3, 1.0), 0.8, SGD(weight_decay=0.1))
    assert (plus.value, minus.value) == pytest.approx([e.value for e in known], abs=1e-13)
    assert (plus.kind, plus.method) == ("deterministic", "quadrature")
    assert str(stable_saddle_steps(law)) == str(stable_saddle_steps(NormalSignal(0.3, 1.0)))
    steps = [0.3, 0.6, 1.2]
    grids = saddle_grid(law, steps), saddle_grid(NormalSignal(0.3, 1.0), steps)
    assert (grids[0].phases == grids[1].phases).all()
    assert rank_one_exponent(stats.norm(-0.3, 1.0), 0.8).sign == -1


def test_batches_are_drawn_and_say_so():
    law = DistributionSignal(stats.norm(0.3, 1.0))
    batch = law.batched(SGD(batch_size=4), rng=0)
    assert isinstance(batch, FiniteSignal)
    found = batch.exponent(1.0, 0.8)
    assert found.kind == "statistical"
    assert "batches were drawn" in found.status
    known = NormalSignal(0.3, 1.0).batched(SGD(batch_size=4)).exponent(1.0, 0.8)
    assert abs(found.value - known.value) < 4 * found.standard_error
    assert law.batched(SGD()) is law


@pytest.mark.parametrize(
    ("law", "error", "message"),
    [
        (stats.norm, TypeError, "frozen continuous distribution"),
        (stats.poisson(1.0), TypeError, r"FiniteSignal\(values, probabilities\)"),
        (3, TypeError, "frozen continuous distribution"),
        (stats.norm([0.0, 1.0]), ValueError, "single law"),
        (stats.norm(math.nan), ValueError, "single law"),
    ],
)
def test_what_is_no_single_continuous_law(law, error, message):
    with pytest.raises(error, match=message):
        DistributionSignal(law)
