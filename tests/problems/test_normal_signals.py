import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import dawsn, gammaln

from stabcore import SGD
from stabcore.problems import NormalSignal, RegressionSignal
from stabcore.problems._log_means import _extrapolated


def mean_log_of_a_normal(centre):
    """Return E log|centre + ε| by integrating its derivative √2 Dawson(t/√2)."""
    start = -(np.euler_gamma + math.log(2)) / 2
    slope = quad(lambda t: math.sqrt(2) * dawsn(t / math.sqrt(2)), 0, centre, limit=200)
    return start + slope[0]


@pytest.mark.parametrize("centre", [0.0, 0.3, 1.0, 4.999, 11.99, 12.0, 12.01, 40.0])
def test_normal(centre):
    result = NormalSignal(centre, 1.0).exponent(0.0, 1.0)
    assert result.kind == "exact"
    assert abs(result.value - mean_log_of_a_normal(centre)) < 1e-12
    scaled = NormalSignal(-2 * centre, 3.0).exponent(-centre, 1.5)  # mean −4·centre, deviation 4.5
    expected = math.log(4.5) + mean_log_of_a_normal(4 * centre / 4.5)
    assert abs(scaled.value - expected) < 1e-12


def test_moments_of_a_normal():
    signal = NormalSignal(0.5, 2.0)
    assert signal.log_moment(2.0, 1.0, -1.0) == pytest.approx(math.log(0.25 + 4))
    fourth = 0.5**4 + 6 * 0.25 * 4 + 3 * 16
    assert signal.log_moment(4.0, 1.0, -1.0) == pytest.approx(math.log(fourth))
    rate = signal.log_moment(1e-7, 1.0, -1.0) / 1e-7
    assert rate == pytest.approx(signal.exponent(1.0, -1.0).value, abs=1e-6)
    assert signal.batched(SGD(batch_size=4)).deviation == 1.0


def test_gaussian_roots():
    """Known: x, y independent; y = x with batches of one and two (isotropic inputs, d = 1)."""
    cases = [
        (RegressionSignal(0.0, 1.0), 1.53006254, 1e-8),
        (RegressionSignal(1.0, 0.0), 2.421249521036836, 1e-12),
        (RegressionSignal(1.0, 0.0).batched(SGD(batch_size=2)), 2.684510350820708, 1e-12),
    ]
    for signal, expected, tolerance in cases:
        root = brentq(lambda eta, s=signal: s.exponent(1.0, -eta).value, 0.5, 4, xtol=1e-14)
        assert abs(root - expected) < tolerance


def naive_gaussian(offset, slope, noise, batch_size):
    """Integrate over the chi law of the batch's |x| with breakpoints around the critical point."""

    def integrand(x):
        spread, centre = noise * x / batch_size, offset + slope * x * x / batch_size
        log_density = (batch_size - 1) * math.log(x) - x * x / 2
        log_density -= (batch_size / 2 - 1) * math.log(2) + gammaln(batch_size / 2)
        law = NormalSignal(centre, spread).mean_log(0.0, 1.0)[0]
        return math.exp(log_density) * float(law)

    low, high = max(1e-9, math.sqrt(batch_size) - 7), math.sqrt(batch_size) + 9
    cuts = {low, high, 1e-3, 0.05, 1.0, min(max(offset / noise, low), high)}
    if offset * slope < 0:
        root = math.sqrt(-offset * batch_size / slope)
        cuts |= {root} | {root + side * d for side in (-1, 1) for d in (1e-3, 0.03, 0.3)}
    ends = sorted(cut for cut in cuts if low <= cut <= high)
    return sum(
        quad(integrand, a, b, epsabs=1e-13, epsrel=1e-12, limit=200)[0] for a, b in pairwise(ends)
    )


@pytest.mark.parametrize("batch_size", [1, 3, 40])
@pytest.mark.parametrize(
    ("offset", "scale", "slope", "noise"),
    [
        (1.0, 0.3, 1.0, 1.0),
        (1.0, -2.0, 1.0, 0.1),
        (1.0, 2.0, -1.0, 0.5),
        (1.0, -6.0, 1.0, 8.0),
        (0.9, -0.05, 0.2, 3.0),
    ],
)
def test_gaussian_quadrature(offset, scale, slope, noise, batch_size):
    signal = RegressionSignal(slope, noise).batched(SGD(batch_size=batch_size))
    result = signal.exponent(offset, scale)
    expected = naive_gaussian(offset, scale * slope, abs(scale * noise), batch_size)
    assert result.kind == "deterministic"
    assert result.upper - result.lower < 1e-9
    assert abs(result.value - expected) < 1e-10


def test_gaussian_limits():
    no_signal = RegressionSignal(0.0, 0.0)
    assert no_signal.exponent(0.5, 1.0).value == pytest.approx(math.log(0.5), abs=1e-12)
    # Offset 0: E log|x| + E log|mx + sε|.
    both = NormalSignal(0.0, 1.0).exponent(0.0, 1.0).value
    expected = 2 * both + math.log(math.hypot(2.0, 3.0))
    # x and mx + sε are correlated, but both logarithms have the mean of a normal's.
    result = RegressionSignal(2.0, 3.0).exponent(0.0, 1.0)
    assert result.value == pytest.approx(expected, abs=1e-9)
    # Large batches: the mean is nearly certain.
    nearly = RegressionSignal(1.0, 1.0).batched(SGD(batch_size=10_000)).exponent(1.0, 0.5)
    assert nearly.value == pytest.approx(
        math.log(1.5) - 0.5 * 3 / 10_000 * (0.5 / 1.5) ** 2, abs=1e-7
    )


def test_gaussian_moments_and_simulation():
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(2, 200_000, 3))
    z = (x * (0.7 * x + 1.3 * noise)).mean(axis=1)
    law = RegressionSignal(0.7, 1.3).batched(SGD(batch_size=3))
    deviations = (z.mean() - law.mean) / z.std(), ((z**2).mean() - law.second_moment) / (z**2).std()
    logs = np.log(np.abs(1 - 0.8 * z))
    gap = (logs.mean() - law.exponent(1.0, -0.8).value) / logs.std()
    assert np.abs([*deviations, gap]).max() * math.sqrt(z.size) < 4.5


@pytest.mark.parametrize("q", [0.5, 3.0, 20.0, 45.0])
@pytest.mark.parametrize("t", [0.0, 0.3, -2.0, 6.0])
def test_both_formulas_of_a_moment_agree(q, t):
    closed = NormalSignal(t, 1.0).log_moment(q, 0.0, 1.0)
    tolerance = 1e-9 if q > 1 else 2e-3  # |t + x|^q has a kink at 0, which a rule resolves slowly
    assert NormalSignal._peaks(q, t) == pytest.approx(closed, abs=tolerance)


def test_moments_of_high_order():
    """E ε^2n = (2n − 1)!!, and E|t + ε|^q against the sum over even powers."""
    for n in (40, 150, 1000):
        exact = sum(math.log(k) for k in range(1, 2 * n, 2))
        assert NormalSignal(0.0, 1.0).log_moment(2.0 * n, 0.0, 1.0) == pytest.approx(
            exact, rel=1e-12
        )
    t, n = 3.0, 60
    terms = [
        math.log(math.comb(2 * n, 2 * k))
        + (2 * n - 2 * k) * math.log(t)
        + sum(math.log(j) for j in range(1, 2 * k, 2))
        for k in range(n + 1)
    ]
    largest = max(terms)
    exact = largest + math.log(sum(math.exp(term - largest) for term in terms))
    assert NormalSignal(t, 1.0).log_moment(2.0 * n, 0.0, 1.0) == pytest.approx(exact, rel=1e-12)


def test_the_error_of_nested_rules_is_extrapolated_as_its_digits_double():
    """Bailey's rule: differences of 1e-3 and 1e-6 point to 1e-12; ten times that is claimed."""
    assert _extrapolated(1e-6, 1e-3) == pytest.approx(1e-11 + 1e-13, rel=1e-9)
    assert _extrapolated(1e-2, 1e-1) == pytest.approx(10 * 1e-4, rel=1e-6)
    assert _extrapolated(1e-3, 1e-3) == pytest.approx(1e-3)  # no digits gained: no extrapolation
    assert _extrapolated(1e-14, 1e-3) == pytest.approx(1.1e-13)
