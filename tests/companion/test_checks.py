import json
import math

import pytest

from stabcore.companion import Checks
from stabcore.companion.checks import MIME


@pytest.mark.parametrize(
    ("measured", "holds"),
    [(1.0, True), (1.125, True), (0.875, True), (1.126, False), (math.nan, False)],
)
def test_close_is_an_absolute_tolerance(measured, holds):
    checks = Checks()
    checks.close("id", "claim", 1.0, measured, tolerance=0.125)
    assert checks.rows[0].passed is holds


@pytest.mark.parametrize(
    ("measured", "holds"),
    [(0.0, True), (1.0, True), (-1.0, True), (1.01, False), (math.nan, False)],
)
def test_sigma_allows_four_standard_errors(measured, holds):
    checks = Checks()
    checks.sigma("id", "claim", 0.0, measured, standard_error=0.25)
    assert checks.rows[0].passed is holds


@pytest.mark.parametrize("standard_error", [0.0, -1.0, math.nan, math.inf])
def test_sigma_needs_a_standard_error(standard_error):
    with pytest.raises(ValueError, match="standard_error"):
        Checks().sigma("id", "claim", 1.0, 1.0, standard_error=standard_error)


@pytest.mark.parametrize("tolerance", [0.0, -1.0, math.nan, math.inf])
def test_close_needs_a_tolerance(tolerance):
    with pytest.raises(ValueError, match="tolerance"):
        Checks().close("id", "claim", 1.0, 1.0, tolerance=tolerance)


def test_numbers_are_rounded_to_what_the_tolerance_can_tell():
    checks = Checks()
    checks.close("a", "fine", math.pi, math.pi + 1e-9, tolerance=1e-6)
    checks.close("b", "coarse", 1234.4, 1234.4, tolerance=10)
    assert [(row.predicted, row.measured) for row in checks.rows] == [
        ("3.141593", "3.141593"),
        ("1234", "1234"),
    ]


def test_an_id_is_used_once():
    checks = Checks()
    checks.holds("same", "claim", "p", "m", passed=True)
    with pytest.raises(ValueError, match="name 'same' is used twice"):
        checks.holds("same", "another", "p", "m", passed=True)


def test_conclude_returns_the_table_when_all_holds():
    checks = Checks()
    checks.holds("a", "claim", "p", "m", passed=True)
    assert checks.conclude() is checks


def test_conclude_names_what_fails_and_only_that():
    checks = Checks()
    checks.holds("a", "the good one", "p", "m", passed=True)
    checks.holds("b", "the bad one", "zero", "one", passed=False)
    with pytest.raises(AssertionError, match=r"the bad one.*zero.*one.*fails") as failure:
        checks.conclude()
    assert "the good one" not in str(failure.value)


def test_a_notebook_without_claims_is_refused():
    with pytest.raises(AssertionError, match="no claim was recorded"):
        Checks().conclude()


def test_the_notebook_gets_text_html_and_data():
    checks = Checks()
    checks.holds("a", "1 < 2 & more", "yes", "yes", passed=True)
    checks.holds("b", "second", "yes", "no", passed=False)
    bundle = checks._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html", MIME}
    assert "1 &lt; 2 &amp; more" in bundle["text/html"]
    assert bundle["text/html"].count("<tr") == bundle["text/html"].count("</tr>") >= 2
    assert bundle["text/plain"].splitlines()[0].endswith("holds")
    assert bundle["text/plain"].splitlines()[1].endswith("fails")
    rows = json.loads(json.dumps(bundle[MIME]))["checks"]
    assert [(row["id"], row["passed"]) for row in rows] == [("a", True), ("b", False)]


def test_what_was_not_tested_neither_holds_nor_fails():
    checks = Checks()
    checks.holds("a", "of no cell", "all", "0 of 0", passed=True, tested=False)
    checks.holds("b", "of no cell either", "all", "0 of 0", passed=False, tested=False)
    assert repr(checks.conclude()).count("not tested") == 2
    assert "holds" not in repr(checks)
    assert [row["passed"] for row in checks._repr_mimebundle_()[MIME]["checks"]] == [None, None]
