"""The published book, and a browser to read it in."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pdf import browser_program
from playwright.sync_api import Browser, sync_playwright

HTML = Path(__file__).resolve().parents[2] / "_build" / "html"
# No network but this machine.
OPTIONS = ("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--no-proxy-server")


@pytest.fixture(scope="session")
def html() -> Path:
    """Return the folder of the built book."""
    if not (HTML / "index.html").is_file():
        pytest.fail("There is no book in _build/html; run: make book")
    return HTML


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Return the browser that is installed, without network."""
    program = browser_program()
    if program is None:
        pytest.skip("no Chromium or Chrome is installed; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=OPTIONS)
        yield running
        running.close()
