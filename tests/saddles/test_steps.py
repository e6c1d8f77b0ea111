import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stabcore import SGD, FiniteSignal, saddle_exponents, stable_saddle_steps
from stabcore.problems import LabelFlips, NormalSignal, RegressionSignal, Signal
from stabcore.saddles import Phase, contracting_steps, saddle_grid

IA, IB, II, III, IV, UNDETERMINED = Phase

DATA = st.lists(st.floats(-4, 4).map(lambda z: round(z, 2)), min_size=1, max_size=6)


def test_known_windows():
    cases = [
        (LabelFlips(0.5), (0, math.sqrt(2)), 1e-12),
        (LabelFlips(0.4), (0.38939068333, 1.28879499219), 1e-11),
        (RegressionSignal(0.0, 1.0), (0, 1.53006254), 1e-8),
    ]
    for law, expected, tolerance in cases:
        (found,) = stable_saddle_steps(law).intervals
        assert found == pytest.approx(expected, abs=tolerance)
    listed = stable_saddle_steps(FiniteSignal([1.0, -1.0], [0.6, 0.4]))
    assert np.allclose(listed.intervals, stable_saddle_steps(LabelFlips(0.4)).intervals)


def test_without_noise_the_saddle_never_attracts():
    assert not stable_saddle_steps(LabelFlips(0.0))
    assert not contracting_steps([1.0, 2.0], "plus")
    assert not contracting_steps([0.0], "plus")
    # Gradient descent on the mean: log|1 − 1.5η| < 0.
    mean = contracting_steps([1.0, 2.0], "minus", SGD(batch_size=2))
    assert np.allclose(mean.intervals, [(0, 4 / 3)])


@settings(deadline=None, max_examples=60)
@given(DATA, st.sampled_from(["plus", "minus"]), st.sampled_from([0.0, 0.25]))
def test_all_intervals_are_found(values, direction, decay):
    found = contracting_steps(values, direction, SGD(weight_decay=decay))
    index = ("plus", "minus").index(direction)
    steps = np.geomspace(1e-2, 50, 3_000)
    grid = saddle_grid(values, steps, SGD(weight_decay=decay))
    exponent = (grid.plus, grid.minus)[index]
    error = (grid.plus_error, grid.minus_error)[index]
    known = (np.abs(exponent) > error + 1e-9) | np.isneginf(exponent)
    assert (found.contains(steps)[known] == (exponent < 0)[known]).all()
    assert found.resolution == 0
    # At its ends the exponent changes sign: roots within their brackets.
    # (Not so far from it that a sliver is passed over.)
    ends = [end for interval in found.intervals for end in interval]
    widths = [b - a for a, b in pairwise(ends)]
    for low, high in found.brackets:
        away = min([1e-9 * low] + [width / 4 for width in widths if width > 0])
        signs = [
            saddle_exponents(values, eta, SGD(weight_decay=decay))[index].value < 0
            for eta in (low - away, high + away)
        ]
        middle = saddle_exponents(values, low, SGD(weight_decay=decay))[index].value
        assert signs[0] != signs[1] or abs(middle) < 1e-7 or middle < -1  # tangent, or a sliver


def test_every_pole_has_a_sliver():
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(2, 30))
    signal = FiniteSignal.from_data(x, 0.3 * x + noise)
    found = contracting_steps(signal, "minus")
    poles = 1 / signal.values[signal.values > 0]
    assert len(found.intervals) > 5
    for pole in poles:
        assert any(a <= pole <= b for a, b in found.intervals)
    both = stable_saddle_steps(signal)
    for a, b in both.intervals:
        plus, minus = saddle_exponents(signal, (a + b) / 2)
        assert max(plus.value, minus.value) < 1e-12


def test_weight_decay_makes_the_saddle_attract():
    law = LabelFlips(0.2)
    assert not stable_saddle_steps(law).contains(0.05)
    assert stable_saddle_steps(law, SGD(weight_decay=1.0)).contains(0.05)
    gauss = RegressionSignal(1.0, 0.5)
    assert not stable_saddle_steps(gauss, upper=3.0).contains(0.05)
    decayed = stable_saddle_steps(gauss, SGD(weight_decay=1.5), upper=3.0)
    assert decayed.contains(0.05)
    assert decayed.upper == 3.0


def test_larger_batches_attract_at_larger_steps_only():
    """To second order above 2E[z]/(E[z]² + Var(z)/B)."""
    starts = [
        stable_saddle_steps(LabelFlips(0.48), SGD(batch_size=b)).intervals[0][0]
        for b in (1, 2, 4, 8)
    ]
    assert starts == sorted(starts)
    second_order = [2 * 0.04 / (0.04**2 + (1 - 0.04**2) / b) for b in (1, 2, 4, 8)]
    assert starts == pytest.approx(second_order, rel=0.06)


@pytest.mark.parametrize(
    "law",
    [
        RegressionSignal(0.3, 2.0),
        NormalSignal(0.1, 1.0),
        RegressionSignal(-0.3, 2.0).batched(SGD(batch_size=2)),
    ],
)
def test_scanned_laws(law):
    found = stable_saddle_steps(law)
    steps = np.geomspace(1e-3, found.upper, 400)
    grid = saddle_grid(law, steps)
    known = grid.distance > 1e-9
    assert (found.contains(steps)[known] == (grid.phases == III)[known]).all()
    assert found
    assert found.resolution > 0


def test_bad_arguments():
    cases = [
        (lambda: saddle_grid([1.0], [0.0]), ValueError, "step_size"),
        (lambda: saddle_grid([1.0], 0.1, SGD(weight_decay=-1.0)), ValueError, "weight_decay"),
        (lambda: saddle_grid(LabelFlips([0.1, 0.2]), [1.0, 2.0, 3.0]), ValueError, "broadcast"),
        (lambda: contracting_steps([1.0], "up"), ValueError, "direction"),
        (lambda: contracting_steps(LabelFlips([0.1, 0.2]), "plus"), ValueError, "single law"),
        (lambda: stable_saddle_steps([1.0], upper=-1.0), ValueError, "upper"),
    ]
    for call, error, name in cases:
        with pytest.raises(error, match=name):
            call()


def test_window_ends_of_drawn_batches_are_confidence_intervals():
    """77 million batches are too many to be listed: the ends are known statistically."""
    z = np.random.default_rng(3).normal(0.1, 1.0, 40)
    ends = (0.79603, 3.52778)  # from 400,000 batches of a plain simulation, ± 0.003
    covered = 0
    for seed in range(5):
        found = stable_saddle_steps(z, SGD(batch_size=8), rng=seed)
        assert len(found.brackets) == 2
        covered += sum(
            low < end < high for (low, high), end in zip(found.brackets, ends, strict=True)
        )
    assert covered >= 8  # of 10 at 95 %: fewer happens in one of 90 cases


@pytest.mark.parametrize("law", [[0.0], RegressionSignal(0.0, 0.0)])
def test_without_a_signal_only_the_decay_contracts(law):
    assert not contracting_steps(law, "plus")
    found = contracting_steps(law, "minus", SGD(weight_decay=0.25))
    assert found.intervals == ((0.0, 8.0),)
    assert contracting_steps(law, "plus", SGD(weight_decay=0.25), upper=3.0).intervals == ((0, 3),)


@pytest.mark.parametrize(
    "law",
    [
        lambda: [1e199, -1e199],
        lambda: [1e-200, -2e-200, 3e200],
        lambda: NormalSignal(1e199, 1.0),
        lambda: NormalSignal(0.0, 1e199),
        lambda: RegressionSignal(1e-199, 0.0),
    ],
)
def test_signals_whose_squares_are_no_numbers_are_refused(law):
    with pytest.raises(ValueError, match=r"must be 0, or its largest modulus between .*; rescale"):
        contracting_steps(law(), "plus")


class Curve(Signal):
    """A law made up of its exponent: f(η) = (log η − log a)(log η − log b)⋯ for E z = 0."""

    mean, second_moment, mean_square_input = np.zeros(()), np.ones(()), np.ones(())

    def __init__(self, *zeros):
        self.zeros = zeros

    def batched(self, method, rng=0):
        return self

    def mean_log(self, offset, scale):
        x = np.log(np.abs(scale))[..., None] - np.log(self.zeros)
        value = x.prod(axis=-1)
        return value, np.full(np.shape(value), 1e-12)


def test_a_scan_sees_a_window_of_two_percent():
    found = contracting_steps(Curve(1.0, 1.02), "plus")
    (window,) = found.intervals
    assert window == pytest.approx((1.0, 1.02), rel=1e-9)
    assert found.resolution < 0.02 * 4


def test_a_scan_goes_on_until_the_exponent_is_positive_for_good():
    """Positive at 4, where the scan would end, but negative again from 6 to 12."""
    found = contracting_steps(Curve(1.0, 6.0, 12.0), "plus")
    assert np.array(found.intervals) == pytest.approx(np.array([(0.0, 1.0), (6.0, 12.0)]))
    again = contracting_steps(Curve(1.0, 11.0, 20.0), "plus")  # positive at 4 and at 8
    assert again.intervals[-1] == pytest.approx((11.0, 20.0))


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("mean", [0.3, 0.02, 0.0, -0.01])
def test_a_scan_does_not_depend_on_the_unit_of_the_step_size(mean, unit):
    found, known = (contracting_steps(NormalSignal(mean * u, u), "plus") for u in (unit, 1.0))
    assert np.array(found.intervals) * unit == pytest.approx(np.array(known.intervals), rel=1e-9)
