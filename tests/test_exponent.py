import dataclasses
import math

import pytest

from stabcore import Exponent
from stabcore.exponent import KINDS, affine, exact


def between(lower, value, upper, **others):
    return Exponent(
        **{"value": value, "lower": lower, "upper": upper, "kind": "enclosure", "method": "test"}
        | others
    )


@pytest.mark.parametrize(
    ("lower", "upper", "sign"),
    [
        (-2.0, -1.0, -1),
        (-2.0, 0.0, None),
        (-1.0, 1.0, None),
        (0.0, 0.0, 0),
        (0.0, 1.0, None),
        (1.0, 2.0, 1),
        (-math.inf, -math.inf, -1),
        (-math.inf, math.inf, None),
    ],
)
def test_sign_is_known_only_when_the_interval_excludes_zero(lower, upper, sign):
    assert between(lower, lower, upper).sign == sign


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_accepted(kind):
    assert between(0, 0, 0, kind=kind).kind == kind


@pytest.mark.parametrize(
    ("interval", "others", "message"),
    [
        ((0, 2, 1), {}, r"value.* 2 .*\[0, 1\]"),
        ((0, -1, 1), {}, r"value.* -1 .*\[0, 1\]"),
        ((0, math.nan, 1), {}, r"value.* nan .*\[0, 1\]"),
        ((math.nan, 0, 1), {}, r"value.* 0 .*\[nan, 1\]"),
        ((0, 0, 0), {"kind": "guess"}, "kind must be one of .* got 'guess'"),
        ((0, 0, 0), {"standard_error": -0.1}, "standard_error must be at least 0, got -0.1"),
        ((0, 0, 0), {"standard_error": math.nan}, "standard_error must be at least 0, got nan"),
    ],
)
def test_what_is_no_result_is_refused(interval, others, message):
    with pytest.raises(ValueError, match=message):
        between(*interval, **others)


def test_a_result_is_frozen_and_keyword_only():
    result = between(-1.0, 0.0, 1.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.value = 3.0
    with pytest.raises(TypeError):
        Exponent(0.0, 0.0, 0.0, "exact", "test")


def test_converged_follows_the_status():
    assert between(0, 0, 0).converged
    assert not between(0, 0, 0, status="too short").converged


def test_text_shows_value_interval_and_origin():
    assert str(between(-0.6, -0.5, -0.4)) == "-0.5 in [-0.6, -0.4] (enclosure, test)"
    assert str(between(-math.inf, -math.inf, -math.inf)) == "-inf (enclosure, test)"


@pytest.mark.parametrize(
    ("value", "error", "interval"),
    [
        (0.5, 0.25, (0.25, 0.75)),
        (0.0, 0.25, (0.0, 0.0)),
        (-math.inf, 0.25, (-math.inf, -math.inf)),
    ],
)
def test_exact_surrounds_the_value_with_its_error(value, error, interval):
    result = exact(value, error, "test")
    assert (result.lower, result.upper) == interval
    assert result.kind == "exact"


def test_an_affine_function_of_an_exponent():
    half = affine(between(-1.0, 1.0, 3.0, kind="statistical", standard_error=1.0), 0.5, 1.0)
    assert (half.value, half.standard_error, half.kind) == (1.5, 0.5, "statistical")
    assert (half.lower, half.upper) == pytest.approx((0.5, 2.5), abs=1e-15)
    assert half.lower < 0.5
    nothing = affine(between(-math.inf, -math.inf, -math.inf), 2.0, 1.0)
    assert (nothing.value, nothing.sign, nothing.standard_error) == (-math.inf, -1, None)
