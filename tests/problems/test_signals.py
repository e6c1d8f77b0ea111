import math
from itertools import pairwise, permutations, product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import dawsn, gammaln

from stabcore import GD, SGD, FiniteSignal
from stabcore.problems import LabelFlips, NormalSignal, RegressionSignal

VALUES = st.lists(st.floats(-5, 5), min_size=1, max_size=5)
STEPS = st.floats(0.05, 5)


def naive_mean_log(values, weights, offset, scale):
    return sum(
        w * math.log(abs(offset + scale * z)) for z, w in zip(values, weights, strict=True) if w
    )


def naive_batches(values, batch_size, weights=None, *, replacement):
    """Return the means and probabilities of all ordered batches."""
    samples = range(len(values))
    if replacement:
        weights = [1 / len(values)] * len(values) if weights is None else weights
        batches = list(product(samples, repeat=batch_size))
        shares = [math.prod(weights[i] for i in batch) for batch in batches]
    else:
        batches = list(permutations(samples, batch_size))
        shares = [1 / len(batches)] * len(batches)
    return [sum(values[i] for i in batch) / batch_size for batch in batches], shares


@settings(deadline=None, max_examples=100)
@given(VALUES, STEPS, st.floats(-1, 1))
def test_finite_sum(values, scale, offset):
    assume(all(abs(offset + scale * z) > 1e-3 for z in values))
    weights = np.arange(1, len(values) + 1) / sum(range(1, len(values) + 1))
    signal = FiniteSignal(values, weights)
    expected = naive_mean_log(values, weights, offset, scale)
    result = signal.exponent(offset, scale)
    assert result.kind == "exact"
    assert result.lower - 1e-14 <= expected <= result.upper + 1e-14
    value, error = signal.mean_log(offset, scale)
    assert abs(value - expected) <= error < 1e-10


@settings(deadline=None, max_examples=100)
@given(VALUES, STEPS)
def test_both_directions_add_up(values, step):
    assume(all(abs(1 - (step * z) ** 2) > 1e-3 for z in values))
    signal, square = FiniteSignal(values), FiniteSignal(np.square(values))
    total = signal.exponent(1.0, step).value + signal.exponent(1.0, -step).value
    assert total == pytest.approx(square.exponent(1.0, -(step**2)).value, rel=1e-9, abs=1e-12)


def test_a_vanishing_factor_is_minus_infinity():
    signal = FiniteSignal([0.5, 3.0, -1.0])
    for scale in (-2.0, 1.0):
        assert signal.exponent(1.0, scale).value == -math.inf
        assert signal.mean_log(1.0, scale) == (-math.inf, 0.0)
    assert math.isfinite(signal.exponent(1.0, 2.0).value)
    # 49 · (1/49) rounds to just below 1: the value is all rounding, and its interval says so.
    nearly = FiniteSignal([49.0, 1.0]).exponent(1.0, -1 / 49)
    assert nearly.lower == -math.inf
    assert nearly.sign == -1


def test_a_value_that_is_never_drawn_does_not_count():
    signal = FiniteSignal([1.0, 2.0], [1.0, 0.0])
    assert signal.values.tolist() == [1.0]
    assert signal.exponent(1.0, -0.5).value == math.log(0.5)


def test_a_small_step_keeps_its_digits():
    result = FiniteSignal([1.0, 3.0]).exponent(1.0, 1e-12)
    assert result.value == pytest.approx(2e-12, rel=1e-11)
    assert result.upper - result.lower < 1e-14 * result.value / 1e-12


def test_long_products_neither_overflow_nor_underflow():
    sizes = np.tile([1e-150, 1e-80, 1e90, 1e150, 1.0], 50)
    value, _ = FiniteSignal(sizes).mean_log(0.0, 1.0)
    assert value == pytest.approx(math.log(10) * (-150 - 80 + 90 + 150) / 5)


def test_families_are_single_laws_side_by_side():
    rng = np.random.default_rng(0)
    values, steps = rng.normal(size=(3, 1, 7)), np.linspace(0.1, 3, 5)
    value, error = FiniteSignal(values).mean_log(1 - 0.1 * steps, steps)
    assert value.shape == error.shape == (3, 5)
    for i, j in product(range(3), range(5)):
        single = FiniteSignal(values[i, 0]).exponent(1 - 0.1 * steps[j], steps[j])
        assert abs(value[i, j] - single.value) <= error[i, j] + 1e-15
    flips = LabelFlips([[0.1], [0.4]]).mean_log(1.0, steps)[0]
    gauss = RegressionSignal(1.0, [[0.5], [2.0]]).mean_log(1.0, steps)[0]
    normal = NormalSignal([[0.5], [2.0]], 1.0).mean_log(1.0, steps)[0]
    for i, j in product(range(2), range(5)):
        assert flips[i, j] == LabelFlips([0.1, 0.4][i]).mean_log(1.0, steps[j])[0]
        assert gauss[i, j] == RegressionSignal(1.0, [0.5, 2.0][i]).mean_log(1.0, steps[j])[0]
        assert normal[i, j] == NormalSignal([0.5, 2.0][i], 1.0).mean_log(1.0, steps[j])[0]


@pytest.mark.parametrize("values", [[1.0, -2.0, 0.5], [1.0, 1.0, -1.0, 1.0], [2.0]])
@pytest.mark.parametrize("batch_size", [1, 2, 3])
@pytest.mark.parametrize("replacement", [True, False])
def test_batches(values, batch_size, replacement):
    if not replacement and batch_size > len(values):
        with pytest.raises(ValueError, match="batch_size"):
            FiniteSignal(values).batched(SGD(batch_size=batch_size, replacement=replacement))
        return
    law = FiniteSignal(values).batched(SGD(batch_size=batch_size, replacement=replacement))
    means, shares = naive_batches(values, batch_size, replacement=replacement)
    assert law.weights.sum() == pytest.approx(1, abs=1e-14)
    for scale in (0.3, 0.7, -0.9):
        expected = naive_mean_log(means, shares, 1.0, scale)
        assert law.exponent(1.0, scale).value == pytest.approx(expected, abs=1e-13)
    assert law.mean == pytest.approx(np.mean(values))
    assert law.second_moment == pytest.approx(np.dot(np.square(means), shares))


def test_weighted_batches():
    weights = [0.2, 0.5, 0.3]
    law = FiniteSignal([1.0, -2.0, 0.5], weights).batched(SGD(batch_size=3))
    means, shares = naive_batches([1.0, -2.0, 0.5], 3, weights, replacement=True)
    expected = naive_mean_log(means, shares, 1.0, 0.3)
    assert law.exponent(1.0, 0.3).value == pytest.approx(expected, abs=1e-14)


def test_equal_samples_are_counted_not_listed():
    law = FiniteSignal([1.0] * 600 + [-1.0] * 400).batched(SGD(batch_size=50))
    assert law.values.size == 51
    assert not law.drawn
    assert law.mean == pytest.approx(0.2)
    # Without replacement: variance σ²/B (N − B)/(N − 1).
    assert law.second_moment - law.mean**2 == pytest.approx(0.96 / 50 * 950 / 999)


def test_label_flips_are_independent():
    law, listed = (
        LabelFlips(0.3).batched(SGD(batch_size=4)),
        FiniteSignal([1.0, -1.0], [0.7, 0.3]).batched(SGD(batch_size=4)),
    )
    for scale in (0.3, 1.7, -0.9):
        assert law.exponent(1.0, scale).value == pytest.approx(
            listed.exponent(1.0, scale).value, abs=1e-14
        )
    assert (
        LabelFlips(0.5).batched(SGD(batch_size=2)).weights.size == 3
    )  # not full-batch gradient descent
    assert LabelFlips(0.0).exponent(1.0, 1.0).value == pytest.approx(math.log(2))
    assert LabelFlips(1.0).exponent(1.0, 1.0).value == -math.inf


@pytest.mark.parametrize(
    "law", [LabelFlips(0.3), NormalSignal(0.3, 1.0), RegressionSignal(0.3, 1.0)]
)
def test_a_batch_of_batches_is_a_larger_batch(law):
    twice, once = (
        law.batched(SGD(batch_size=2)).batched(SGD(batch_size=3)),
        law.batched(SGD(batch_size=6)),
    )
    assert twice.second_moment == pytest.approx(once.second_moment)
    assert twice.exponent(1.0, 0.7).value == pytest.approx(once.exponent(1.0, 0.7).value)
    assert law.batched(SGD(batch_size=6)).batched(SGD()).second_moment == pytest.approx(
        once.second_moment
    )


def test_too_many_batches_are_drawn_and_say_so():
    values = np.random.default_rng(0).normal(0.5, 1, size=100)
    law = FiniteSignal(values).batched(SGD(batch_size=10))
    result = law.exponent(1.0, -0.8)
    assert result.kind == "statistical"
    assert result.standard_error > 0
    assert "batches" in result.status
    independent = FiniteSignal(values).batched(SGD(batch_size=10), rng=1).exponent(1.0, -0.8)
    width = math.hypot(result.upper - result.lower, independent.upper - independent.lower) / 2
    assert 0 < abs(result.value - independent.value) < 3 * width
    normal = NormalSignal(values.mean(), values.std() * math.sqrt(90 / 99)).batched(
        SGD(batch_size=10)
    )
    assert abs(result.value - normal.exponent(1.0, -0.8).value) < 5 * width  # the central limit


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


def test_bad_arguments():
    cases = [
        (lambda: FiniteSignal(1.0), "values"),
        (lambda: FiniteSignal([1.0, math.nan]), "values"),
        (lambda: FiniteSignal([1.0], [0.5]), "probabilities"),
        (lambda: FiniteSignal([1.0], squares=[-1.0]), "squares"),
        (lambda: FiniteSignal.from_data([1.0], [1.0, 2.0]), "inputs"),
        (lambda: FiniteSignal([1.0, 2.0]).batched(SGD(batch_size=3)), "batch_size"),
        (lambda: LabelFlips(1.5), "flip_probability"),
        (lambda: NormalSignal(0.0, 0.0), "deviation"),
        (lambda: NormalSignal(0.0, 1.0).log_moment(0.0, 1.0, 1.0), "q"),
        (lambda: RegressionSignal(0.0, -1.0), "noise"),
        (lambda: RegressionSignal(0.0, 1.0).batched(SGD(batch_size=0)), "batch_size"),
        (lambda: LabelFlips([0.1, 0.2]).exponent(1.0, 1.0), "single law"),
        (lambda: LabelFlips(0.1).batched(SGD(reshuffle=True)), "no data set"),
        (lambda: RegressionSignal(1.0, 1.0).batched(GD), "no data set"),
        (lambda: NormalSignal(1.0, 1.0).batched(SGD(replacement=True)), "no data set"),
    ]
    for call, name in cases:
        with pytest.raises(ValueError, match=name):
            call()
