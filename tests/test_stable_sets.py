import numpy as np
import pytest

from stabcore import (
    Exponent,
    gd_exponent,
)
from stabcore.stable_sets import StableSet, intersection, negative_steps, stable_set


def test_scan_where_everything_or_nothing_is_stable():
    whole = stable_set(lambda t: gd_exponent([[t]], 1.0), 0.5, 1.5, points=2)
    assert whole.intervals == ((0.5, 1.5),)
    assert whole.contains([0.5, 1.5]).all()
    assert not stable_set(lambda t: gd_exponent([[t]], 1.0), 3, 4, points=3)


def noisy(t, error):
    """Return an exponent t − 2 that is known up to `error`."""
    return Exponent(
        value=t - 2, lower=t - 2 - error, upper=t - 2 + error, kind="statistical", method="test"
    )


@pytest.mark.parametrize("error", [0.0, 1e-6, 0.01, 0.4])
def test_the_sign_is_known_on_both_sides_of_a_crossing(error):
    found = stable_set(lambda t: noisy(t, error), 0.3, 3.1, points=10)
    ((start, end),), ((low, high),) = found.intervals, found.brackets
    assert start == 0.3
    assert abs(end - 2) < 1e-11
    assert low <= 2 - error
    assert high >= 2 + error
    assert high - low <= 4 * error + 1e-11  # the first step out is the width of the interval


def test_a_crossing_whose_sign_is_never_known_is_bracketed_by_the_domain():
    found = stable_set(lambda t: noisy(t, 5.0), 0.5, 3.0, points=5)
    assert found.brackets == ((0.5, 3.0),)
    assert found.intervals[0][1] == pytest.approx(2.0)


def test_a_summit_just_below_zero_does_not_divide_an_interval():
    """½ log|(1 − η)(1 − cη)| has its summit ½ log((c − 1)²/4c) between the poles 1/c and 1."""
    for summit, intervals in ((-5e-4, 1), (5e-4, 2)):
        ratio = np.exp(2 * summit)  # (c − 1)² = 4c e^{2·summit}
        c = 1 + 2 * ratio + 2 * np.sqrt(ratio * (1 + ratio))
        found = negative_steps(np.full(2, 0.5), np.array([1.0, c]))
        assert len(found.intervals) == intervals, summit


def of(*intervals):
    return StableSet(intervals=intervals, brackets=(), lower=0.0, upper=10.0)


@pytest.mark.parametrize(
    ("one", "two", "both"),
    [
        (of((1.0, 1.0)), of((0.5, 2.0)), ((1.0, 1.0),)),
        (of((0.5, 2.0)), of((1.0, 1.0)), ((1.0, 1.0),)),
        (of((1.0, 1.0)), of((1.0, 1.0)), ((1.0, 1.0),)),
        (of((1.0, 1.0)), of((1.0, 2.0)), ()),
        (of((0.0, 1.0), (2.0, 2.0)), of((0.5, 3.0)), ((0.5, 1.0), (2.0, 2.0))),
        (of((0.0, 1.0)), of((1.0, 2.0)), ()),
    ],
)
def test_intersections_keep_points_at_which_both_are_negative(one, two, both):
    assert intersection([one, two]).intervals == both


def test_what_need_not_exist_between_hidden_signs_is_within_the_resolution():
    # Three sign changes, and the values between them below the error: two of them may be its work.
    def exponent(t):
        value = (t - 1.0) * (t - 1.2) * (t - 1.3)
        return Exponent(
            value=value, lower=value - 0.01, upper=value + 0.01, kind="statistical", method="test"
        )

    found = stable_set(exponent, 0.5, 2.0, points=151)
    np.testing.assert_allclose(np.ravel(found.intervals), [0.5, 1.0, 1.2, 1.3], rtol=1e-9)
    # No sign is known from 0.911 to 1.413, where the cubic is −0.01 and 0.01.
    first, last = (np.roots([1, -3.5, 4.06, -1.56 - value]) for value in (-0.01, 0.01))
    unknown = last.real.max() - first.real.min()
    assert found.resolution >= unknown > 0.5
    assert stable_set(exponent, 0.5, 1.1, points=61).resolution == pytest.approx(0.01)
