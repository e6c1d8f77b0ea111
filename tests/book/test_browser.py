"""The built pages in a browser without network: as a reader on a train sees them."""

from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import quote, urlsplit

import pytest
from accessibility import LISTED, objections
from playwright.sync_api import Browser
from reader import DESKTOP, PHONE, Reader, Scheme, pages_of, reading

FORMULA_ERRORS = """(() => [...document.querySelectorAll("mjx-merror, [data-mjx-error]")]
    .map(one => one.outerHTML))()"""
# What a reader would see of a formula that was not typeset, outside of code.
RAW_FORMULAS = """(() => {
    const article = (document.querySelector("article") ?? document.body).cloneNode(true);
    article.querySelectorAll("pre, code, mjx-container, script").forEach(one => one.remove());
    return article.textContent.match(/\\$[^$]+\\$|\\\\[([].*?\\\\[)\\]]/g) ?? [];
})()"""
# Numbered or not, by the address of the nearest element that has one.
WIDE_FORMULAS = """(() => [...document.querySelectorAll("mjx-container[display=true]")]
    .filter(one => one.scrollWidth > one.clientWidth + 1)
    .map(one => one.closest("[id]").id))()"""
BRIGHTNESS = """(() => {
    const colour = getComputedStyle(document.body).backgroundColor.match(/[0-9.]+/g);
    return colour.slice(0, 3).reduce((sum, part) => sum + Number(part), 0) / 3;
})()"""


# Of what scrolls sideways: what does not fade where it goes on.
SHARP_EDGES = """(() => [...document.querySelectorAll("article *")]
    .filter(one => one.scrollWidth > one.clientWidth + 1 && one.checkVisibility())
    .filter(one => ["auto", "scroll"].includes(getComputedStyle(one).overflowX))
    .filter(one => getComputedStyle(one).getPropertyValue("--fade-end") === "0px")
    .map(one => one.outerHTML.slice(0, 80)))()"""
OVERFLOW = "one => one.scrollWidth - one.clientWidth"
# Scrolled to a place, an element fades where it goes on; a key may still be moving it.
FADES = """([one, place, start, end]) => {
    if (place !== null) one.scrollLeft = place;
    const style = getComputedStyle(one);
    const [before, after] = ["start", "end"].map(side => style.getPropertyValue(`--fade-${side}`));
    return before === start && after === end;
}"""
# Two views, which have each width and each scheme once: axe is slow.
WITH_AXE = [(DESKTOP, "light"), (PHONE, "dark")]


class Quiet(SimpleHTTPRequestHandler):
    """A file server that keeps no log."""

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture(scope="module")
def address(html: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(html)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_pages_read_well(html: Path, browser: Browser, width: int, scheme: Scheme) -> None:
    problems, listed = [], set()
    with reading(browser, width, scheme) as reader:
        for path in pages_of(html):
            found = list(problems_of(reader, path, width, scheme))
            if (width, scheme) in WITH_AXE:
                objected, excused = objections(reader)
                found += [f": {objection}" for objection in objected]
                listed |= excused
            problems += [f"{path.relative_to(html)}{problem}" for problem in found]
    assert not problems, "\n".join(problems)
    if (width, scheme) == WITH_AXE[0]:
        assert listed == set(LISTED)  # what no longer occurs is not to be listed


def problems_of(reader: Reader, path: Path, width: int, scheme: Scheme) -> Iterator[str]:
    """Open a page and say what a reader would object to."""
    reader.visit(path.as_uri())
    show = reader.page.evaluate
    yield from (f": {complaint}" for complaint in reader.complaints)
    for url in reader.requests:
        if not url.startswith(("file:", "data:", "blob:")):
            yield f" requests {url}"
    formulas = show("document.querySelectorAll('.math').length")
    typeset = show("document.querySelectorAll('.math mjx-container').length")
    if typeset < formulas:
        yield f": {typeset} of {formulas} formulas typeset"
    yield from (f": {error}" for error in show(FORMULA_ERRORS))
    yield from (f": raw formula {raw}" for raw in show(RAW_FORMULAS))
    if width == DESKTOP:
        yield from (f": a formula in #{where} needs scrolling" for where in show(WIDE_FORMULAS))
    if (needed := show("document.scrollingElement.scrollWidth")) > width:
        yield f" is {needed} pixels wide on a screen of {width}"
    yield from (f": {element} scrolls and does not say so" for element in show(SHARP_EDGES))
    if (show(BRIGHTNESS) < 128) != (scheme == "dark"):
        yield f" is not {scheme}"


def test_the_folder_leads_to_the_first_page(html: Path, browser: Browser) -> None:
    with reading(browser) as reader:
        reader.page.goto((html / "index.html").as_uri())
        reader.page.wait_for_url((html / "book" / "index.html").as_uri())


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_wide_formula_scrolls_by_keyboard_and_fades_where_it_goes_on(
    html: Path, browser: Browser, scheme: Scheme
) -> None:
    with reading(browser, PHONE, scheme) as reader:
        reader.visit((html / "notebooks" / "sgd_stability.html").as_uri())
        wide = reader.page.locator("mjx-container[display=true]")
        (formula, *_) = (one for one in wide.all() if one.evaluate(OVERFLOW) > 1)

        handle = formula.element_handle()
        reader.page.wait_for_function(FADES, arg=[handle, None, "0px", "40px"])
        formula.focus()
        reader.page.keyboard.press("ArrowRight")
        reader.page.wait_for_function("one => one.scrollLeft > 0", arg=handle)
        formula.blur()
        reader.page.wait_for_function(FADES, arg=[handle, 10_000, "40px", "0px"])


SEARCHES = [
    ("Theorem B", "notebooks/sgd_stability.html"),
    ("Lyapunov", "book/glossary.html"),
    ("learning rate", "book/conventions.html"),
]


def hits(reader: Reader, address: str, query: str) -> list[str]:
    """Search the book; return the addresses found, the best first."""
    reader.visit(f"{address}/search.html?q={quote(query)}")
    reader.page.wait_for_selector("#search-results p.search-summary:has-text('found')")
    reader.page.wait_for_selector("#search-results li a")
    links = reader.page.locator("#search-results li > a").all()
    return [urlsplit(str(link.get_attribute("href"))).path for link in links]


@pytest.mark.parametrize(("query", "page"), SEARCHES)
def test_search_works_offline_and_finds_the_right_page_first(
    browser: Browser, address: str, query: str, page: str
) -> None:
    with reading(browser) as reader:
        assert hits(reader, address, query)[0] == page
        assert not reader.complaints
        assert all(url.startswith((address, "data:", "blob:")) for url in reader.requests)


def test_a_name_is_found_without_its_accents(browser: Browser, address: str) -> None:
    with reading(browser) as reader:
        assert "book/bibliography.html" in hits(reader, address, "Craciun")
        assert hits(reader, address, "Craciun") == hits(reader, address, "Crăciun")
