"""What a search engine, or a message with a link, says about a page: `book/descriptions.yml`."""

from functools import cache
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

FILE = "book/descriptions.yml"
LENGTH = range(70, 161)  # what search engines show is cut at about 160 characters
CARD = "_static/card.png"  # drawn by book/figures/card.py
CARD_SIZE = 1200, 630
CARD_ALT = (
    "Two curves over a line of minima: mu rises through zero once; lambda falls below zero again "
    "further out, where SGD can end and gradient descent cannot."
)
LOGGER = logging.getLogger(__name__)


def describe(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Add a page's description and card to its head.

    The picture of the card needs an absolute address. Where it is not known, there is none.
    """
    path = Path(app.srcdir) / FILE
    if page not in app.env.all_docs or not path.is_file():
        return  # the index and the search; a rerun outside of the book
    description = read_descriptions(path).get(page)
    if description is None:
        LOGGER.warning("%s has no line for the page %s", FILE, page)
        return
    named = {"description": description}
    properties = {
        "og:type": "website" if page == app.config.root_doc else "article",
        "og:site_name": app.config.html_title,
        "og:title": app.env.titles[page].astext(),
        "og:description": description,
    }
    if address := app.config.html_baseurl:
        width, height = CARD_SIZE
        properties |= {
            "og:url": urljoin(address, app.builder.get_target_uri(page)),
            "og:image": urljoin(address, CARD),
            "og:image:width": str(width),
            "og:image:height": str(height),
            "og:image:alt": CARD_ALT,
        }
        named |= {"twitter:card": "summary_large_image", "twitter:image:alt": CARD_ALT}
    else:
        named["twitter:card"] = "summary"
    context["metatags"] = context.get("metatags", "") + _tags("name", named)
    context["metatags"] += _tags("property", properties)


def _tags(kind: str, values: dict[str, str]) -> str:
    return "".join(
        f'<meta {kind}="{name}" content="{escape(value)}" />\n' for name, value in values.items()
    )


@cache
def read_descriptions(path: Path) -> dict[str, str]:
    """Read the descriptions of the pages.

    Returns
    -------
    dict of str to str
        One sentence a page. There may be lines for pages that are not built.

    Raises
    ------
    ValueError
        If a description is too short, too long, has a formula, or is that of another page.
    """
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    for page, text in found.items():
        if not isinstance(text, str) or len(text) not in LENGTH or set("$`{") & set(text):
            raise ValueError(
                f"{path.name}, {page}: {text!r}; write a sentence of {LENGTH.start} to "
                f"{LENGTH.stop - 1} characters without formulas"
            )
    texts = list(found.values())
    if twice := {text for text in texts if texts.count(text) > 1}:
        raise ValueError(f"{path.name} says of several pages: {', '.join(sorted(twice))}")
    return dict(found)
