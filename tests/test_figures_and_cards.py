"""What the book's extension does for figures, for cards of pages, and for addresses without one."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from PIL import Image
from sphinx.errors import ConfigError

from companion.descriptions import read_descriptions
from companion.figures import size, with_sizes
from companion.not_found import not_found
from companion.repository import set_address

ROOT = Path(__file__).resolve().parents[1]
SENTENCE = "A sentence that is long enough to say what a page of the book is about, and no longer."


def png(path: Path, **options: object) -> Path:
    Image.fromarray(np.zeros((44, 222), np.uint8)).save(path, **options)
    return path


@pytest.mark.parametrize(
    ("options", "shown"),
    [({}, (222, 44)), ({"dpi": (110, 110)}, (222, 44)), ({"dpi": (220, 220)}, (111, 22))],
)
def test_pixels_beyond_the_screens_do_not_enlarge_a_png(
    tmp_path: Path, options: dict[str, object], shown: tuple[int, int]
) -> None:
    assert size(png(tmp_path / "a.png", **options)) == shown


@pytest.mark.parametrize(
    "attributes",
    [
        'width="300pt" height="75pt"',
        'width="400" height="100px"',
        'width="100%" height="100%" viewBox="0 0 400 100"',
        'viewBox="0,0,400,100"',
    ],
)
def test_an_svg_says_its_size_in_several_ways(tmp_path: Path, attributes: str) -> None:
    path = tmp_path / "a.svg"
    path.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" {attributes}></svg>')
    assert size(path) == (400, 100)


def test_a_picture_that_does_not_say_its_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.svg"
    path.write_text('<svg xmlns="http://www.w3.org/2000/svg"></svg>')
    with pytest.raises(ValueError, match=r"a\.svg has neither"):
        size(path)
    path = tmp_path / "a.gif"
    path.write_bytes(b"GIF89a")
    with pytest.raises(ValueError, match="neither PNG nor SVG"):
        size(path)


def test_pictures_get_their_size_and_a_link(tmp_path: Path) -> None:
    source = png(tmp_path / "a.png", dpi=(220, 220))
    tag = '<img alt="&quot;x&quot;" src="../_images/a.png" style="width: 9px; height: 9px;" />'
    logo = '<img alt="" src="../_static/a.png" />'
    body = with_sizes(f"<p>{tag}</p>{logo}{tag}", {"a.png": source})
    assert body.count('width="111" height="22"') == 2
    assert body.count('<a class="enlarge" href="../_images/a.png" aria-label="Enlarge') == 2
    assert body.count('alt="&quot;x&quot;"') == 2
    assert body.count('loading="lazy"') == 1
    assert "9px" not in body
    assert logo in body


def test_every_page_has_a_description_of_its_own() -> None:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    entries = [entry for part in toc["parts"] for entry in part["chapters"]]
    entries += [section for entry in entries for section in entry.get("sections", ())]
    described = read_descriptions(ROOT / "book" / "descriptions.yml")
    missing = {toc["root"], *(entry["file"] for entry in entries)} - set(described)
    assert not missing


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (f"a: {SENTENCE}\nb: {SENTENCE}", "several pages"),
        ("a: Too short.", "70 to 160"),
        (f"a: {SENTENCE} {SENTENCE}", "70 to 160"),
        (f"a: The exponent $\\lambda$. {SENTENCE}", "without formulas"),
        ("a: 3", "sentence"),
    ],
)
def test_descriptions_that_do_not_serve_are_refused(
    tmp_path: Path, lines: str, complaint: str
) -> None:
    path = tmp_path / "descriptions.yml"
    path.write_text(lines, encoding="utf-8")
    with pytest.raises(ValueError, match=complaint):
        read_descriptions(path)


def address(monkeypatch: pytest.MonkeyPatch, value: str) -> str:
    monkeypatch.setenv("COMPANION_BOOK_URL", value)
    config = SimpleNamespace(html_baseurl="")
    set_address(None, config)
    return config.html_baseurl


def test_the_address_of_the_book_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert address(monkeypatch, "") == ""
    for value in ("https://host.example/book", "https://host.example/book/"):
        assert address(monkeypatch, value) == "https://host.example/book/"
    for value in ("host.example/book", "https://host.example/a b", 'https://h/"><script>'):
        with pytest.raises(ConfigError, match="COMPANION_BOOK_URL"):
            address(monkeypatch, value)


def test_the_page_for_no_page_links_to_what_it_knows() -> None:
    assert "href" not in not_found("A book", "")
    known = not_found("A <book>", "https://host.example/book/")
    assert 'href="https://host.example/book/index.html"' in known
    assert "A &lt;book&gt;" in known
    assert "src=" not in known
