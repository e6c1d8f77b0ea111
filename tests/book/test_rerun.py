"""A rerun as a page, opened from the disk: it looks like the book and asks for nothing else."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

import run
from webpage import page as page_of

RUNNER = Path(__file__).resolve().parents[2] / "notebooks" / "run.py"
SCHEMES = ("light", "dark")
WIDTHS = (1280, 390)
ARRIVED = "MathJax.startup.promise.then(() => document.fonts.ready).then(() => true)"
BROKEN_LINKS = """() => [...document.querySelectorAll("a[href]")]
    .map(link => link.getAttribute("href"))
    .filter(link => !/^(https?|javascript):/.test(link))
    .filter(link => link[0] != "#" || !document.getElementById(decodeURIComponent(link.slice(1))))
    .filter(link => link != "#")"""
FONTS = """() => [...document.fonts].map(font => [font.family.replaceAll('"', ""), font.status])"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a rerun, and a page from stored outputs that has tabs."""
    folder = tmp_path_factory.mktemp("rerun")
    rerun, stored = folder / "gd.html", folder / "yours.html"
    change = ["-p", "step_size", "0.3", "-o", rerun]
    subprocess.run([sys.executable, RUNNER, "gd_stability", *change], check=True)
    source = run.notebooks()["your_network"]
    published = {name: one.default for name, one in run.parameters(source).items()}
    stored.write_text(page_of(run.read(source), source, published), encoding="utf-8")
    return {"gd_stability": rerun, "your_network": stored}


@pytest.fixture(params=[(scheme, width) for scheme in SCHEMES for width in WIDTHS], ids=str)
def tab(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """Return an empty tab, in light or dark, on a desktop or a phone."""
    scheme, width = request.param
    opened = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
    yield opened
    opened.close()


def visit(tab: Page, path: Path) -> tuple[list[str], list[str]]:
    """Open a page; return what it asked for and what it complained of."""
    requests: list[str] = []
    complaints: list[str] = []
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on(
        "console",
        lambda said: complaints.append(said.text) if said.type in {"error", "warning"} else None,
    )
    tab.goto(path.as_uri())
    tab.evaluate(ARRIVED)
    return requests, complaints


@pytest.mark.parametrize("name", ["gd_stability", "your_network"])
def test_a_page_is_whole_and_alone(tab: Page, pages: dict[str, Path], name: str) -> None:
    requests, complaints = visit(tab, pages[name])
    assert [one for one in requests if not one.startswith("data:")] == [pages[name].as_uri()]
    assert not complaints
    assert tab.evaluate(BROKEN_LINKS) == []
    assert not [one for one in ("{glue", "{cite", "{term}", ":::") if one in tab.inner_text("body")]
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("name", ["gd_stability", "your_network"])
def test_formulas_and_icons_are_drawn(tab: Page, pages: dict[str, Path], name: str) -> None:
    visit(tab, pages[name])
    formulas = tab.locator(".math")
    assert formulas.count() > 10
    assert formulas.filter(has_not=tab.locator("mjx-container")).count() == 0
    assert tab.locator("mjx-merror").count() == 0
    fonts = tab.evaluate(FONTS)
    assert not [family for family, status in fonts if status == "error"]
    loaded = {family for family, status in fonts if status == "loaded"}
    assert {"MJXTEX", "MJXTEX-I", "Font Awesome 6 Free"} <= loaded


def test_a_page_looks_as_the_book(
    tab: Page, pages: dict[str, Path], request: pytest.FixtureRequest
) -> None:
    visit(tab, pages["gd_stability"])
    box = tab.locator(".admonition", has_text="A rerun with other parameters")
    assert "step_size = 0.3, in the book 0.15" in box.inner_text()
    assert box.bounding_box()["y"] < 450  # half of the first screen
    folded = tab.locator("details.hide")
    assert folded.count() > 0
    assert tab.locator("details.hide[open]").count() == 0
    folded.first.locator("summary").click()
    assert tab.locator("details.hide[open]").count() == 1
    dark = "dark" in request.node.callspec.id
    shade = tab.evaluate("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g)")
    assert (int(shade[0]) < 128) == dark
    # Our own style sheet: the numbers in the text are as light as the text.
    assert tab.evaluate("""() => { const number = document.querySelector("span.pasted-text");
        const weight = element => getComputedStyle(element).fontWeight;
        return weight(number) == weight(number.parentElement) }""")
