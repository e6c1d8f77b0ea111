"""Figures that keep their place while they load, and can be seen large.

Every picture of a page gets its width and height, so that the text does not jump when it arrives,
and a link to its own file beside it. ``enlarge.js`` opens that link above the page.
"""

import re
import struct
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

from docutils import nodes
from sphinx.application import Sphinx

IMAGE = re.compile(r"<img\b[^>]*>")
ATTRIBUTE = re.compile(r'([\w-]+)="([^"]*)"')
FOLDER = "_images"
DENSITY = 110  # pixels of the screen per inch of a figure, as in stabcore's figures.mplstyle
INCH = 0.0254  # metres
# Pixels of the screen in each unit that an SVG may name.
UNITS = {"": 1.0, "px": 1.0, "pt": 4 / 3, "in": 96.0, "cm": 96 / 2.54, "mm": 96 / 25.4}
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def prepare_figures(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Give the pictures of a page their size and a link to enlarge them."""
    if "<img" not in context.get("body", ""):
        return
    sources = {
        name: Path(app.srcdir) / source
        for source, name in getattr(app.builder, "images", {}).items()
    }
    context["body"] = with_sizes(context["body"], sources)
    app.add_js_file("enlarge.js", loading_method="defer")


def with_sizes(body: str, sources: Mapping[str, Path]) -> str:
    """Return the HTML of a page with sizes and links for its pictures.

    Parameters
    ----------
    body : str
        The page's article.
    sources : dict of str to Path
        The files of the pictures, by their names in the folder of pictures.

    Returns
    -------
    str
        Pictures from elsewhere stay as they were.
    """
    seen = 0

    def prepared(tag: re.Match[str]) -> str:
        nonlocal seen
        attributes = dict(ATTRIBUTE.findall(tag.group()))
        address = PurePosixPath(unquote(attributes.get("src", "")))
        source = sources.get(address.name)
        if address.parent.name != FOLDER or source is None:
            return tag.group()
        seen += 1
        width, height = size(source)
        if "height" in attributes.get("style", ""):  # it would not give way on a narrow screen
            del attributes["style"]
        given = {"width": str(width), "height": str(height), "decoding": "async"}
        if seen > 1:  # the first is likely to be on the screen
            given["loading"] = "lazy"
        described = " ".join(f'{name}="{value}"' for name, value in (attributes | given).items())
        return (
            f'<span class="picture" style="--width: {width}px"><img {described} />'
            f'<a class="enlarge" href="{attributes["src"]}" '
            'aria-label="Enlarge the figure"></a></span>'
        )

    return IMAGE.sub(prepared, body)


def size(path: Path) -> tuple[int, int]:
    """Return how wide and high a picture is meant to be, in pixels of the screen.

    A PNG that says how many of its pixels make an inch has more than the screen needs.

    Returns
    -------
    int, int
        Width and height.

    Raises
    ------
    ValueError
        If the file is neither PNG nor SVG, or does not say how large it is.
    """
    content = path.read_bytes()
    if content.startswith(SIGNATURE):
        return _png(content)
    if path.suffix == ".svg":
        return _svg(path, content)
    raise ValueError(f"{path} is neither PNG nor SVG")


def _png(content: bytes) -> tuple[int, int]:
    width, height = struct.unpack(">II", content[16:24])
    before_pixels = content[: content.index(b"IDAT")]
    ratio = 1.0
    if (start := before_pixels.find(b"pHYs")) >= 0:
        across, _, unit = struct.unpack(">IIB", content[start + 4 : start + 13])
        ratio = across * INCH / DENSITY if unit == 1 else 1.0
    return round(width / ratio), round(height / ratio)


def _svg(path: Path, content: bytes) -> tuple[int, int]:
    root = ElementTree.fromstring(content)
    sides = [_pixels(root.get(name, "")) for name in ("width", "height")]
    if None in sides:
        sides = [float(side) for side in root.get("viewBox", "").replace(",", " ").split()[2:]]
    if len(sides) != 2:
        raise ValueError(f"{path} has neither width and height nor a viewBox")
    width, height = (round(side or 0) for side in sides)
    return width, height


def _pixels(length: str) -> float | None:
    """Return a length in pixels; None if it is a share, or in units of the text."""
    found = re.fullmatch(r"([\d.]+)(\w*)", length.strip())
    return float(found[1]) * UNITS[found[2]] if found and found[2] in UNITS else None
