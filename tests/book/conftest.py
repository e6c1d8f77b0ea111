"""The published book, and a browser to read it in."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, executable

HTML = Path(__file__).resolve().parents[2] / "_build" / "html"


@pytest.fixture(scope="session")
def html() -> Path:
    """Return the folder of the built book."""
    if not (HTML / "index.html").is_file():
        pytest.fail("There is no book in _build/html; run: make book")
    return HTML


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Return a browser without network."""
    program = executable()
    if program is None:
        pytest.skip("no Chromium or Chrome is installed; on Debian: apt-get install chromium")
    running = Browser(program, tmp_path_factory.mktemp("profile"))
    yield running
    running.close()
