"""What the download buttons of the notebooks' pages give: a notebook that runs and reads."""

import re
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
# What only the book understands: roles, directives, labels, and links to its other pages.
MYST = re.compile(
    r"\{[a-z:]+\}`|^:{3,}|^`{3,}\{|^\([\w-]+\)=$|^\$\$ *\(|\]\((?!https?:|#)", re.MULTILINE
)


def download(html: Path, name: str) -> NotebookNode:
    """Return the notebook to which the page's button leads."""
    page = html / "notebooks" / f"{name}.html"
    (address,) = re.findall(r'href="([^"]*\.ipynb)"', page.read_text(encoding="utf-8"))
    node: NotebookNode = nbformat.read((page.parent / address).resolve(), as_version=4)
    return node


def code(node: NotebookNode) -> list[str]:
    return [cell.source for cell in node.cells if cell.cell_type == "code"]


def shown(node: NotebookNode) -> list[object]:
    return [cell.outputs for cell in node.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("name", NAMES)
def test_a_download_reads_without_the_book(html: Path, name: str) -> None:
    node = download(html, name)
    nbformat.validate(node)
    texts = [cell.source for cell in node.cells if cell.cell_type == "markdown"]
    assert not [text for text in texts if MYST.search(text)]


@pytest.mark.parametrize("name", NAMES)
def test_a_download_is_the_notebook_of_the_page(html: Path, name: str) -> None:
    node = download(html, name)
    source = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    assert code(node) == code(source)
    assert node.metadata.kernelspec == source.metadata.kernelspec
    executed = html.parent / "notebooks" / f"{name}.ipynb"
    assert shown(node) == shown(nbformat.read(executed, as_version=4))


def test_what_only_the_book_understands_would_be_seen() -> None:
    source = nbformat.read(NOTEBOOKS / "sgd_stability.ipynb", as_version=4)
    texts = [cell.source for cell in source.cells if cell.cell_type == "markdown"]
    assert len([text for text in texts if MYST.search(text)]) > 10


def test_a_page_of_prose_offers_no_source(html: Path) -> None:
    for path in (html / "book").rglob("*.html"):
        page = path.read_text(encoding="utf-8")
        assert "download-pdf-button" in page
        assert not re.search(r'href="[^"]*_sources/[^"]*"', page)
