"""The built pages in a browser without network: as a reader on a train sees them."""

from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
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
    with reading(browser, width, scheme) as reader:
        problems = [
            f"{path.relative_to(html)}{problem}"
            for path in pages_of(html)
            for problem in problems_of(reader, path, width, scheme)
        ]
    assert not problems, "\n".join(problems)


def test_the_folder_leads_to_the_first_page(html: Path, browser: Browser) -> None:
    with reading(browser) as reader:
        reader.page.goto((html / "index.html").as_uri())
        reader.page.wait_for_url((html / "book" / "index.html").as_uri())


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
    if (show(BRIGHTNESS) < 128) != (scheme == "dark"):
        yield f" is not {scheme}"


@pytest.mark.parametrize("query", ["Lyapunov"])
def test_search_works_offline(browser: Browser, address: str, query: str) -> None:
    with reading(browser) as reader:
        reader.visit(f"{address}/search.html?q={query}")
        reader.page.wait_for_selector("#search-results li a")
        assert not reader.complaints
        assert all(url.startswith((address, "data:", "blob:")) for url in reader.requests)
