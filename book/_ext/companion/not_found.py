"""The page that a server shows for an address that leads nowhere."""

from html import escape
from pathlib import Path

from sphinx.application import Sphinx

# It is served at any depth, so it loads nothing and links only to absolute addresses.
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8" />
<meta name="viewport" content="width=device-width, initial-scale=1" />
<meta name="robots" content="noindex" />
<title>Page not found: {title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ background: Canvas; font: 1.1rem/1.6 sans-serif; }}
main {{ max-width: 34rem; margin: 15vh auto; padding: 0 1rem; }}
</style>
</head>
<body>
<main>
<h1>This page does not exist</h1>
<p>No page of the book <em>{title}</em> has this address. It may have been renamed, or the address
was cut short on its way to you.</p>
{way_on}
</main>
</body>
</html>
"""
# Addresses of the book, as links on the page.
LINKS = {
    "index.html": "The first page",
    "notebooks/story.html": "The story in ten minutes",
    "book/glossary.html": "The glossary",
    "search.html": "Search",
}
WITHOUT_ADDRESS = "<p>Go back, or remove the last part of the address until the book appears.</p>"


def write_not_found(app: Sphinx, problem: Exception | None) -> None:
    """Write ``404.html`` beside the first page."""
    if problem is None and app.builder.format == "html":
        path = Path(app.outdir) / "404.html"
        path.write_text(not_found(app.config.html_title, app.config.html_baseurl), encoding="utf-8")


def not_found(title: str, address: str) -> str:
    """Return the page; without the book's address it has no links.

    Parameters
    ----------
    title : str
        Of the book.
    address : str
        Where the book is, with a slash at its end, or nothing.

    Returns
    -------
    str
        HTML.
    """
    links = "\n".join(
        f'<li><a href="{escape(address + page)}">{text}</a></li>' for page, text in LINKS.items()
    )
    way_on = f"<ul>\n{links}\n</ul>" if address else WITHOUT_ADDRESS
    return PAGE.format(title=escape(title), way_on=way_on)
