"""The built pages as files: links, alternative texts, and nothing from another host."""

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

# Attributes whose address the browser loads without being asked.
LOADED = {
    ("audio", "src"),
    ("embed", "src"),
    ("iframe", "src"),
    ("img", "src"),
    ("img", "srcset"),
    ("link", "href"),
    ("object", "data"),
    ("script", "src"),
    ("source", "src"),
    ("source", "srcset"),
    ("video", "poster"),
    ("video", "src"),
}
# Those of <link> that only name a page.
NAMED = {"author", "canonical", "index", "next", "prev", "search"}


@dataclass
class Page(HTMLParser):
    """What a page links to, loads and shows."""

    path: Path
    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    images: list[dict[str, str]] = field(default_factory=list)
    styles: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self._in_style = False
        self.feed(self.path.read_text(encoding="utf-8"))

    def __hash__(self) -> int:
        return hash(self.path)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self._in_style = tag == "style"
        self.styles += attributes.get("style", "")
        self.anchors |= {attributes[name] for name in ("id", "name") if name in attributes}
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])
        if tag == "img":
            self.images.append(attributes)
        if tag == "link" and set(attributes.get("rel", "").split()) & NAMED:
            return
        self.loaded += [value for name, value in attributes.items() if (tag, name) in LOADED]

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.styles += data


@pytest.fixture(scope="module")
def pages(html: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in html.rglob("*.html") if "_static" not in path.parts}


def external(address: str) -> bool:
    """Say whether an address leaves the site."""
    parts = urlsplit(address)
    return bool(parts.netloc) or parts.scheme not in ("", "data")


def test_the_book_has_its_pages(html: Path, pages: dict[Path, Page]) -> None:
    notebooks = Path(__file__).resolve().parents[2] / "notebooks"
    for path in notebooks.glob("*.ipynb"):
        assert html / "notebooks" / f"{path.stem}.html" in pages


def test_every_internal_link_and_anchor_resolves(pages: dict[Path, Page]) -> None:
    broken = []
    for page in pages.values():
        for link in page.links + page.loaded:
            if external(link) or link.startswith("data:"):
                continue
            parts = urlsplit(link)
            target = page.path.parent / unquote(parts.path) if parts.path else page.path
            target = (target / "index.html" if target.is_dir() else target).resolve()
            # A fragment with "=" is a state of the explorer.
            anchor = "" if "=" in parts.fragment else unquote(parts.fragment)
            if not target.is_file() or (
                anchor and target in pages and anchor not in pages[target].anchors
            ):
                broken.append(f"{page.path.name}: {link}")
    assert not broken


def test_every_image_has_an_alternative_text(pages: dict[Path, Page]) -> None:
    mute = [
        f"{page.path.name}: {image.get('src')}"
        for page in pages.values()
        for image in page.images
        if not image.get("alt", "").strip()
    ]
    assert not mute


def test_no_page_loads_anything_from_another_host(html: Path, pages: dict[Path, Page]) -> None:
    addresses = [(page.path, address) for page in pages.values() for address in page.loaded]
    sheets = {page.path: page.styles for page in pages.values()}
    sheets |= {path: path.read_text(encoding="utf-8") for path in html.rglob("*.css")}
    for path, style in sheets.items():
        found = re.findall(r"""(?:url\(|@import)\s*["']?([^"')\s;]+)""", style)
        addresses += [(path, address) for address in found]
    foreign = [f"{path.name}: {address}" for path, address in addresses if external(address)]
    assert not foreign


def test_code_leads_to_the_package_and_checks_to_their_sections(html: Path) -> None:
    bare = {}
    for path in sorted((html / "notebooks").glob("*.html")):
        page = path.read_text(encoding="utf-8")
        code = page.count("sphinx-codeautolink-a")
        rows = re.findall(r'<tr data-check="([^"]*)"><td>(<a href="#)?', page)
        mute = [name for name, link in rows if not link]
        if code < 5 or not rows or mute:
            bare[path.name] = code, len(rows), mute
    assert not bare
