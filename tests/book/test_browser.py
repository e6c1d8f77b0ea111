"""The built pages in a browser without network: as a reader on a train sees them."""

from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from browser import Browser

DESKTOP, PHONE = 1280, 390
# What a reader would see of a formula that was not typeset, outside of code.
RAW_FORMULAS = """(() => {
    const article = document.querySelector("article").cloneNode(true);
    article.querySelectorAll("pre, code, mjx-container").forEach(one => one.remove());
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
def test_pages_read_well(html: Path, browser: Browser, width: int, scheme: str) -> None:
    browser.show(width, scheme)
    problems = []
    for path in sorted(html.glob("*/*.html")):
        if path.parent.name.startswith("_"):
            continue
        visit = browser.visit(path.as_uri())
        name = path.relative_to(html)
        problems += [f"{name}: {complaint}" for complaint in visit.complaints]
        problems += [
            f"{name} requests {url}"
            for url in visit.requests
            if not url.startswith(("file:", "data:", "blob:"))
        ]
        formulas = browser.evaluate("document.querySelectorAll('.math').length")
        typeset = browser.evaluate("document.querySelectorAll('.math mjx-container').length")
        if typeset < formulas:
            problems.append(f"{name}: {typeset} of {formulas} formulas typeset")
        for error in browser.evaluate(
            "[...document.querySelectorAll('mjx-merror, [data-mjx-error]')]"
            ".map(one => one.outerHTML)"
        ):
            problems.append(f"{name}: {error}")
        problems += [f"{name}: raw formula {raw}" for raw in browser.evaluate(RAW_FORMULAS)]
        if width == DESKTOP:
            wide = browser.evaluate(WIDE_FORMULAS)
            problems += [f"{name}: a formula in #{where} needs scrolling" for where in wide]
        if (needed := browser.evaluate("document.scrollingElement.scrollWidth")) > width:
            problems.append(f"{name} is {needed} pixels wide on a screen of {width}")
        if (browser.evaluate(BRIGHTNESS) < 128) != (scheme == "dark"):
            problems.append(f"{name} is not {scheme}")
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("query", ["Lyapunov"])
def test_search_works_offline(browser: Browser, address: str, query: str) -> None:
    browser.show(DESKTOP, "light")
    visit = browser.visit(f"{address}/search.html?q={query}")
    hits = browser.evaluate(
        """new Promise(resolve => {
            const hits = () => document.querySelectorAll("#search-results li a").length;
            const end = Date.now() + 10000;
            const poll = () => hits() || Date.now() > end ? resolve(hits()) : setTimeout(poll, 50);
            poll();
        })"""
    )
    assert hits > 0
    assert not visit.complaints
    assert all(url.startswith((address, "data:", "blob:")) for url in visit.requests)
