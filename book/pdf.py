"""Print the built book as one PDF, ``_build/pdf/book.pdf``: each page by Chromium, then joined.

A page is printed as a reader's browser would print it, with formulas typeset and what is folded
opened. Left out are the sidebars and the code that draws figures and records checks, which the
pages hide as well. Links between pages become links inside the PDF.
"""

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from io import BytesIO
from pathlib import Path
from urllib.parse import urldefrag

import yaml
from playwright.sync_api import Browser, Page, PdfMargins, sync_playwright
from pypdf import PdfReader, PdfWriter
from pypdf.generic import ArrayObject, DictionaryObject, FloatObject, NameObject, NullObject

ROOT = Path(__file__).resolve().parents[1]
HTML = ROOT / "_build" / "html"
TARGET = ROOT / "_build" / "pdf" / "book.pdf"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MACOS = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
MARGINS: PdfMargins = {"top": "18mm", "bottom": "20mm", "left": "18mm", "right": "18mm"}
PRINT = """
#jb-print-docs-body, #pst-header, .bd-header-article, .bd-footer, .prev-next-footer, .headerlink,
.copybtn, .bd-sidebar-primary, .bd-sidebar-secondary, details.hide.above-input,
button { display: none !important; }
html { font-size: 12px; }
.bd-article h1 { display: block !important; }
.bd-main .bd-content { margin-left: 0; }
.bd-main .bd-content table { break-inside: auto; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; }
figure, pre, mjx-container { break-inside: avoid; }
h1, h2, h3, .rubric { break-after: avoid; }
"""
READY = """async () => {
    await globalThis.MathJax?.startup?.promise;
    document.querySelectorAll("details").forEach(one => { one.open = true; });
    document.querySelectorAll(".toggle-hidden").forEach(
        one => one.classList.remove("toggle-hidden"));
    const pictures = [...document.images].filter(one => one.checkVisibility());
    pictures.forEach(one => { one.loading = "eager"; });
    await Promise.all(pictures.map(one => one.decode()));
    await document.fonts.ready;
}"""
TITLE = "document.querySelector('h1').firstChild.textContent"
FRONT = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 11pt/1.45 sans-serif; color: #222; }}
header {{ height: 240mm; padding-top: 80mm; box-sizing: border-box; break-after: page; }}
h1 {{ font-size: 30pt; line-height: 1.2; margin: 0 0 8mm; }}
h2 {{ font-size: 12pt; margin: 5mm 0 1mm; break-after: avoid; }}
a {{ display: flex; justify-content: space-between; color: inherit; text-decoration: none; }}
a.deeper {{ padding-left: 6mm; }}
</style>
<header><h1>{title}</h1><p>{author}</p>
<p>Printed from the pages of the book, without the code that draws its figures and records its
checks: that is in the notebooks. Text and figures: CC BY 4.0. Code: MIT.</p></header>
<main><h1>Contents</h1>{contents}</main></html>"""
NUMBERS = """<!DOCTYPE html>
<style>
@page {{ size: A4; margin: 0; }}
body {{ margin: 0; font: 9pt sans-serif; text-align: center; }}
p {{ height: 296mm; margin: 0; padding-top: 284mm; box-sizing: border-box; break-after: page; }}
</style>{numbers}"""


@dataclass
class Chapter:
    """A page of the book, the part it is in, and how deep."""

    page: str
    part: str
    depth: int
    title: str = ""
    start: int = 0  # how many sheets come before it
    sheets: PdfReader = field(init=False)

    @property
    def address(self) -> str:
        """Return what links to this page say when it is read from the disk."""
        return (HTML / f"{self.page}.html").as_uri()


def main() -> None:
    """Print the book and say where it is."""
    if not (HTML / "index.html").is_file():
        sys.exit("There is no book in _build/html to print; run: make book")
    program = browser_program()
    if program is None:
        sys.exit(
            "Printing needs Chromium or Chrome, and none was found. On Debian and Ubuntu: apt-get "
            "install chromium; on macOS install Google Chrome. Or print single pages in a browser."
        )
    chapters = list(read_toc())
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        print_chapters(browser, chapters)
        book = join(browser, chapters)
        browser.close()
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    partial = TARGET.with_suffix(".partial")
    book.write(partial)
    partial.replace(TARGET)
    megabytes = TARGET.stat().st_size / 1e6
    print(f"The book: {TARGET.as_uri()} ({len(book.pages)} pages, {megabytes:.1f} MB)")


def browser_program() -> str | None:
    """Return the path of Chromium or Chrome, if there is one."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    return found or (str(MACOS) if MACOS.is_file() else None)


def read_toc() -> Iterator[Chapter]:
    """Yield the pages in the order of the table of contents.

    Yields
    ------
    Chapter
    """
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    yield Chapter(toc["root"], "", 0)
    for part in toc["parts"]:
        for entry in part["chapters"]:
            yield Chapter(entry["file"], part["caption"], 0)
            for section in entry.get("sections", ()):
                yield Chapter(section["file"], part["caption"], 1)


def print_chapters(browser: Browser, chapters: list[Chapter]) -> None:
    """Print every page and note its title."""
    page = browser.new_page(color_scheme="light")
    for chapter in chapters:
        if not (HTML / f"{chapter.page}.html").is_file():
            sys.exit(f"{chapter.page} is not in _build/html; run: make book")
        page.goto(chapter.address)
        page.add_style_tag(content=PRINT)
        page.evaluate(READY)
        chapter.title = page.evaluate(TITLE).strip()
        chapter.sheets = sheets(page)
    page.close()


def sheets(page: Page) -> PdfReader:
    """Print what a page shows on sheets of A4."""
    return PdfReader(BytesIO(page.pdf(format="A4", margin=MARGINS, print_background=True)))


def join(browser: Browser, chapters: list[Chapter]) -> PdfWriter:
    """Put front matter and chapters together, with numbers, an outline and links."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    page = browser.new_page()
    # How long the contents are does not depend on the numbers in them.
    start = len(front(page, config, chapters).pages)
    for chapter in chapters:
        chapter.start = start
        start += len(chapter.sheets.pages)
    book = PdfWriter()
    book.append(front(page, config, chapters), import_outline=False)
    for chapter in chapters:
        book.append(chapter.sheets, import_outline=False)
    link(book, chapters)
    number(page, book)
    outline(book, chapters)
    book.add_metadata({"/Title": config["title"], "/Author": config["author"]})
    book.compress_identical_objects()
    return book


def front(page: Page, config: dict[str, str], chapters: list[Chapter]) -> PdfReader:
    """Print the title page and the contents."""
    lines, part = [], ""
    for chapter in chapters:
        if chapter.part != part:
            part = chapter.part
            lines.append(f"<h2>{escape(part)}</h2>")
        lines.append(
            f'<a href="{chapter.address}" class="{"deeper" if chapter.depth else ""}">'
            f"<span>{escape(chapter.title)}</span><span>{chapter.start + 1}</span></a>"
        )
    names = {name: escape(config[name]) for name in ("title", "author")}
    page.set_content(FRONT.format(contents="\n".join(lines), **names))
    return sheets(page)


def link(book: PdfWriter, chapters: list[Chapter]) -> None:
    """Turn links to files into links inside the book; drop those to files that are not in it."""
    places = {place: where for chapter in chapters for place, where in places_of(chapter)}
    own = {
        chapter.start + k: chapter.address
        for chapter in chapters
        for k in range(len(chapter.sheets.pages))
    }
    for k, leaf in enumerate(book.pages):
        kept = ArrayObject()
        for reference in leaf.annotations or ():
            annotation = reference.get_object()
            if "/Dest" in annotation:
                address = f"{own[k]}#{annotation['/Dest'].lstrip('/')}"
            else:
                address = annotation["/A"]["/URI"]
            if address.startswith("file:"):
                # Chromium names only the places that their own page links to.
                place = places.get(address) or places.get(urldefrag(address).url)
                if place is None:
                    continue
                lead(book, annotation, *place)
            kept.append(reference)
        leaf.annotations = kept


def places_of(chapter: Chapter) -> Iterator[tuple[str, tuple[int, float]]]:
    """Yield the addresses in a chapter: on which sheet of the book, and how high, they are."""
    top = float(chapter.sheets.pages[0].mediabox.top)
    yield chapter.address, (chapter.start, top)
    for name, target in chapter.sheets.named_destinations.items():
        sheet = chapter.sheets.get_destination_page_number(target)
        if sheet is not None:
            place = chapter.start + sheet, float(target.top or top)
            yield f"{chapter.address}#{name.lstrip('/')}", place


def lead(book: PdfWriter, annotation: DictionaryObject, sheet: int, top: float) -> None:
    """Let a link lead to a place of the book."""
    where = [book.pages[sheet].indirect_reference, NameObject("/XYZ"), NullObject()]
    annotation.pop("/A", None)
    annotation[NameObject("/Dest")] = ArrayObject([*where, FloatObject(top), NullObject()])


def number(page: Page, book: PdfWriter) -> None:
    """Print its number at the foot of each sheet, but for the first."""
    numbers = ("&nbsp;", *range(2, len(book.pages) + 1))
    page.set_content(NUMBERS.format(numbers="".join(f"<p>{number}</p>" for number in numbers)))
    overlays = PdfReader(BytesIO(page.pdf(prefer_css_page_size=True)))
    for leaf, overlay in zip(book.pages, overlays.pages, strict=True):
        leaf.merge_page(overlay)
        leaf.compress_content_streams()


def outline(book: PdfWriter, chapters: list[Chapter]) -> None:
    """Add the bookmarks that a reader shows beside the book: parts, chapters, sections."""
    part, above, last = "", None, None
    for chapter in chapters:
        if chapter.part != part:
            part = chapter.part
            above = book.add_outline_item(title=part, page_number=chapter.start)
        parent = last if chapter.depth else above
        item = book.add_outline_item(title=chapter.title, page_number=chapter.start, parent=parent)
        last = last if chapter.depth else item


if __name__ == "__main__":
    main()
