import math
from decimal import Decimal, localcontext
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stabcore import GD, SGD, FiniteSignal, saddle_exponents
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


def exactly(decay, eta, values, weights):
    """Σ w log|1 − ηγ + ηz| in 50 digits, of these very floats."""
    with localcontext() as context:
        context.prec = 50
        one, step = Decimal(1), Decimal(eta)
        factors = [abs(one - step * Decimal(decay) + step * Decimal(z)) for z in values]
        return sum(Decimal(w) * f.ln() for w, f in zip(weights, factors, strict=True))


@pytest.mark.parametrize("size", [1, 7, 8, 50])
@pytest.mark.parametrize("decay", [0.0, 0.3, 3.7])
@pytest.mark.parametrize("distance", [1e-15, 1e-12, 1e-6, 0.1])
def test_the_errors_of_grids_and_of_single_laws_bound_the_rounding(size, decay, distance):
    """Close to a pole 1/z, and close to η = 1/γ, where 1 − ηγ has lost its digits."""
    rng = np.random.default_rng(size)
    for weights in (np.full(size, 1 / size), rng.dirichlet(np.ones(size))):
        values = rng.normal(size=size) * 10 ** rng.uniform(-3, 3)
        values[-1] = 0.0
        steps = [1 / (decay - values[0]) * (1 + distance)] if values[0] < decay else []
        steps += [1 / decay * (1 + distance)] if decay else []
        for eta in steps:
            law = FiniteSignal(values, weights)
            truth = exactly(decay, eta, values.tolist(), law.weights.tolist())
            value, error = law.mean_log(1 - eta * decay, eta)
            if value == -math.inf:  # a factor is 0 in floating point, and taken to be 0
                continue
            single = saddle_exponents(law, eta, SGD(weight_decay=decay))[0]
            assert abs(Decimal(float(value)) - truth) <= Decimal(float(error))
            assert Decimal(single.lower) <= truth <= Decimal(single.upper)
