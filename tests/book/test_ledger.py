"""The claims ledger in a browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page
from reader import DESKTOP, PHONE, reading

from companion.ledger import anchors, read_claims

CLAIMS = read_claims(Path(__file__).resolve().parents[2] / "book" / "claims.yml")


@pytest.fixture(params=[DESKTOP, PHONE], ids=["desktop", "phone"])
def ledger(html: Path, browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    with reading(browser, request.param) as reader:
        reader.visit((html / "book" / "claims.html").as_uri())
        yield reader.page


def test_each_claim_has_a_line_and_folds_its_evidence(ledger: Page) -> None:
    lines = ledger.locator("ul.ledger > li")
    assert lines.count() == len(CLAIMS)
    assert ledger.locator("ul.ledger .verdict").count() == len(CLAIMS)
    assert ledger.locator("ul.ledger details").count() == sum(bool(one.checks) for one in CLAIMS)
    assert not [one for one in ledger.locator("ul.ledger details li").all() if one.is_visible()]
    widest = lines.evaluate_all("all => Math.max(...all.map(one => one.scrollWidth))")
    assert widest <= ledger.viewport_size["width"]


def test_evidence_unfolds_by_keyboard_and_in_print(ledger: Page) -> None:
    first, second = ledger.locator("ul.ledger details").all()[:2]
    first.locator("summary").focus()
    ledger.keyboard.press("Enter")
    assert first.locator("li").first.is_visible()
    assert not second.locator("li").first.is_visible()
    ledger.emulate_media(media="print")
    assert second.locator("li").first.bounding_box()["height"] > 0


@pytest.mark.parametrize("paper", ["A", "C", "ours"])
def test_an_address_of_a_claim_shows_it(ledger: Page, paper: str) -> None:
    last = anchors([claim for claim in CLAIMS if claim.paper == paper])[-1]
    ledger.goto(f"{ledger.url}#{last}")
    for part in (f"#{last} > p:first-child", f"#{last} .verdict"):
        box = ledger.locator(part).bounding_box()
        assert 0 <= box["y"] < ledger.viewport_size["height"]
