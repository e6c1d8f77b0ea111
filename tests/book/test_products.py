"""What makes the pages products: figures, cards, an icon, a page for no page, a print."""

import re
import struct
from collections.abc import Iterator
from pathlib import Path

import pdf
import pytest
import yaml
from playwright.sync_api import Browser, Route
from pypdf import PdfReader
from reader import DESKTOP, PHONE, reading

ROOT = Path(__file__).resolve().parents[2]
PICTURE = re.compile(r'<span class="picture"[^>]*><img ([^>]*)/>')
ATTRIBUTE = re.compile(r'([\w:-]+)="([^"]*)"')
META = re.compile(r"<meta ([^>]*)>")
HEIGHTS = "[...document.querySelectorAll('.picture img')].map(one => one.offsetHeight)"


def pages_with_pictures(html: Path) -> Iterator[tuple[Path, list[dict[str, str]]]]:
    for path in sorted([*html.glob("notebooks/*.html"), *html.glob("book/**/*.html")]):
        tags = PICTURE.findall(path.read_text(encoding="utf-8"))
        if tags:
            yield path, [dict(ATTRIBUTE.findall(tag)) for tag in tags]


def test_every_figure_has_a_size_and_twice_the_pixels(html: Path) -> None:
    found, wrong = 0, []
    for page, pictures in pages_with_pictures(html):
        for picture in pictures:
            found += 1
            path = (page.parent / picture["src"]).resolve()
            width, height = int(picture["width"]), int(picture["height"])
            if path.suffix == ".png":
                across, down = struct.unpack(">II", path.read_bytes()[16:24])
                if abs(across - 2 * width) > 1 or abs(down - 2 * height) > 1:
                    wrong.append(f"{page.name}: {across} × {down} for {width} × {height}")
    assert found > len(list((ROOT / "notebooks").glob("*.ipynb")))
    assert not wrong, "\n".join(wrong)


def test_no_picture_of_a_page_was_left_as_it_was(html: Path) -> None:
    bare = [
        f"{path.name}: {tag}"
        for path in sorted(html.rglob("*.html"))
        for tag in re.findall(r'<img [^>]*src="[^"]*_images/[^>]*>', path.read_text("utf-8"))
        if "height=" not in tag
    ]
    assert not bare


def test_every_page_has_a_description_and_a_card(html: Path) -> None:
    described: dict[str, str] = {}
    for chapter in pdf.read_toc():
        tags = META.findall((html / f"{chapter.page}.html").read_text(encoding="utf-8"))
        values = [dict(ATTRIBUTE.findall(tag)) for tag in tags]
        named = {one.get("name", one.get("property", "")): one.get("content") for one in values}
        assert sum(one.get("name") == "description" for one in values) == 1, chapter.page
        assert named["og:description"] == named["description"]
        assert named["og:title"]
        assert named["og:type"] in ("article", "website")
        # An address that is not absolute would be wrong wherever the card is shown.
        assert ("og:image" in named) == ("og:url" in named)
        assert named.get("og:image", "https://").startswith(("https://", "http://"))
        described[chapter.page] = named["description"]
    assert len(set(described.values())) == len(described)


def test_pages_have_an_icon_and_addresses_without_a_page_one_of_theirs(html: Path) -> None:
    page = html / "notebooks" / "story.html"
    (icon,) = re.findall(r'<link rel="icon" href="([^"]*)"', page.read_text(encoding="utf-8"))
    assert "<svg" in (page.parent / icon).resolve().read_text(encoding="utf-8")
    lost = (html / "404.html").read_text(encoding="utf-8")
    # It is served at any depth: a relative address would lead nowhere.
    assert all(address.startswith("http") for address in re.findall(r'(?:href|src)="([^"]*)', lost))


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_the_text_does_not_move_when_figures_arrive(
    html: Path, browser: Browser, width: int
) -> None:
    held: list[Route] = []
    with reading(browser, width) as reader:
        reader.page.route("**/_images/*", lambda route: held.append(route))
        reader.page.goto((html / "notebooks" / "story.html").as_uri(), wait_until="commit")
        reader.page.wait_for_selector(".picture img")
        reader.page.wait_for_function("document.readyState != 'loading'")
        before = reader.page.evaluate(HEIGHTS)
        assert held
        for route in held:
            route.continue_()
        reader.page.unroute("**/_images/*")
        reader.page.evaluate(
            "Promise.all([...document.querySelectorAll('.picture img')]"
            ".map(one => { one.loading = 'eager'; return one.decode(); }))"
        )
        # A width and a height in whole pixels are each off by half of one at most, so that a figure
        # which is not enlarged moves by less than one; an offsetHeight is a whole number again.
        after = reader.page.evaluate(HEIGHTS)
        assert max(abs(a - b) for a, b in zip(after, before, strict=True)) <= 1
        assert min(before) > 50


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_a_figure_can_be_enlarged_by_pointer_and_by_keyboard(
    html: Path, browser: Browser, width: int
) -> None:
    with reading(browser, width) as reader:
        page = reader.page
        reader.visit((html / "notebooks" / "story.html").as_uri())
        link = page.locator("a.enlarge").first
        small = page.locator(".picture img").first.bounding_box()
        link.click()
        large = page.locator("dialog.enlarged img").bounding_box()
        assert small
        assert large
        assert large["width"] > 1.2 * small["width"]
        alternative = page.locator(".picture img").first.get_attribute("alt")
        assert page.locator("dialog.enlarged img").get_attribute("alt") == alternative
        page.locator("dialog.enlarged button").click()
        assert page.locator("dialog.enlarged").count() == 0
        link.focus()
        page.keyboard.press("Enter")
        assert page.locator("dialog.enlarged").is_visible()
        page.keyboard.press("Escape")
        page.locator("dialog.enlarged").wait_for(state="detached")
        assert page.evaluate("document.activeElement.className") == "enlarge"
        assert not reader.complaints


def test_without_a_script_the_link_opens_the_picture(html: Path, browser: Browser) -> None:
    page = browser.new_page(java_script_enabled=False)
    page.goto((html / "notebooks" / "story.html").as_uri())
    page.locator("a.enlarge").first.click()
    assert "/_images/" in page.url
    page.close()


def small_book(folder: Path) -> None:
    """Write a book of two pages that link to each other and to what is not in a print."""
    (folder / "book").mkdir()
    texts = {
        "one": '<p><a href="two.html">over</a> <a href="two.html#low">down</a> '
        '<a href="#here">here</a> <a href="../gone.html">gone</a> '
        '<a href="https://host.example/">out</a></p><p id="here">There</p>',
        "two": '<details><summary>Solutions</summary><p>Unfolded.</p></details><a href="#low">low'
        '</a><details class="hide above-input"><summary>Code</summary>plot()</details>'
        '<p id="low" style="margin-top: 400mm">Low.</p>',
    }
    for name, text in texts.items():
        (folder / "book" / f"{name}.html").write_text(
            f'<!DOCTYPE html><meta charset="utf-8"><h1>Page {name}</h1>{text}', encoding="utf-8"
        )
    (folder / "index.html").write_text("", encoding="utf-8")
    toc = {"root": "book/one", "parts": [{"caption": "A part", "chapters": [{"file": "book/two"}]}]}
    (folder / "_toc.yml").write_text(yaml.dump(toc), encoding="utf-8")
    (folder / "_config.yml").write_text("title: A small book\nauthor: Nobody\n", encoding="utf-8")


@pytest.fixture
def printed(tmp_path: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> PdfReader:
    """Print a small book."""
    small_book(tmp_path)
    monkeypatch.setattr(pdf, "ROOT", tmp_path)
    monkeypatch.setattr(pdf, "HTML", tmp_path)
    chapters = list(pdf.read_toc())
    pdf.print_chapters(browser, chapters)
    pdf.join(browser, chapters).write(tmp_path / "book.pdf")
    return PdfReader(tmp_path / "book.pdf")


def test_the_print_has_a_title_contents_numbers_and_what_was_folded(printed: PdfReader) -> None:
    texts = [page.extract_text() for page in printed.pages]
    assert len(texts) == 5  # title, contents, one, and two on two sheets
    assert "A small book" in texts[0]
    assert re.search(r"Page one\s+3\s+A part\s+Page two\s+4", texts[1])
    assert [text.split()[-1] for text in texts[1:]] == ["2", "3", "4", "5"]
    assert "Unfolded." in texts[3]
    assert "plot()" not in texts[3]
    one, part, (two,) = printed.outline
    assert [item.title for item in (one, part, two)] == ["Page one", "A part", "Page two"]
    assert [printed.get_destination_page_number(item) for item in (one, part, two)] == [2, 3, 3]
    assert printed.metadata
    assert printed.metadata.title == "A small book"


def test_links_stay_inside_the_print(printed: PdfReader) -> None:
    numbers = {page.indirect_reference.idnum: k for k, page in enumerate(printed.pages)}
    links = [one.get_object() for one in printed.pages[2]["/Annots"]]
    inside = [numbers[one["/Dest"][0].idnum] for one in links if "/Dest" in one]
    outside = [one["/A"]["/URI"] for one in links if "/A" in one]
    assert inside == [3, 4, 2]
    assert outside == ["https://host.example/"]
    contents = [one.get_object()["/Dest"][0].idnum for one in printed.pages[1]["/Annots"]]
    assert [numbers[one] for one in contents] == [2, 3]


def test_without_a_book_or_a_browser_printing_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pdf, "HTML", tmp_path)
    with pytest.raises(SystemExit, match="make book"):
        pdf.main()
    (tmp_path / "index.html").write_text("", encoding="utf-8")
    monkeypatch.setattr(pdf, "browser_program", lambda: None)
    with pytest.raises(SystemExit, match="apt-get install chromium"):
        pdf.main()
