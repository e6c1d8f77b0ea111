import pytest

from stabcore import (
    Exponent,
    gd_exponent,
)
from stabcore.stable_sets import stable_set


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
