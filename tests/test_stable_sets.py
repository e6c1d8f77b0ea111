import math

from stabcore import (
    gd_exponent,
)
from stabcore.stable_sets import StableSet, stable_set


def intervals(*pairs, lower=0.0, upper=math.inf, brackets=()):
    return StableSet(intervals=pairs, brackets=brackets, lower=lower, upper=upper)


def test_scan_where_everything_or_nothing_is_stable():
    whole = stable_set(lambda t: gd_exponent([[t]], 1.0), 0.5, 1.5, points=2)
    assert whole.intervals == ((0.5, 1.5),)
    assert whole.contains([0.5, 1.5]).all()
    assert not stable_set(lambda t: gd_exponent([[t]], 1.0), 3, 4, points=3)
