"""A reader's tab of the browser."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, ConsoleMessage, Page

DESKTOP, PHONE = 1280, 390
Scheme = Literal["light", "dark"]


class Reader:
    """A tab, and what its page asked for and complained about since it was opened."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._note)

    def _note(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(f"{message.text} {message.location.get('url')}")

    def visit(self, address: str) -> None:
        """Open a page; return once it has loaded and its formulas are typeset."""
        self.requests.clear()
        self.complaints.clear()
        self.page.goto(address)
        self.page.evaluate("window.MathJax?.startup.promise.then(() => true)")


@contextmanager
def reading(browser: Browser, width: int = DESKTOP, scheme: Scheme = "light") -> Iterator[Reader]:
    """Open a tab of a width in pixels for a reader who prefers light or dark."""
    viewport, phone = {"width": width, "height": 900}, width == PHONE
    context = browser.new_context(viewport=viewport, is_mobile=phone, color_scheme=scheme)
    with context:
        yield Reader(context.new_page())


def pages_of(html: Path) -> list[Path]:
    """Return the pages of the book, its indices and search too, but not the one that redirects."""
    pages = sorted(html.rglob("*.html"))
    own = [page for page in pages if not page.relative_to(html).parts[0].startswith("_")]
    return [page for page in own if page != html / "index.html"]
