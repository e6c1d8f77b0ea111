"""What the download buttons give: notebooks in plain Markdown, and no sources of prose.

The theme offers the source of a page. That is MyST, which only the book shows as it is meant. A
notebook reads without it, once its numbers are filled in. The other pages can be printed.
"""

import sys
from pathlib import Path
from typing import Any

import nbformat
from docutils.nodes import document
from sphinx.application import Sphinx

sys.path.append(str(Path(__file__).resolve().parents[3] / "notebooks"))

from readable import readable


def write_downloads(app: Sphinx, problem: Exception | None) -> None:
    """Write every notebook of a finished book again, in plain Markdown.

    They are the notebooks that the pages show, so text and outputs are the same, and so is the
    code. What is written depends on the sources alone: a page that was not built again is the same.
    """
    if problem or app.builder.format != "html" or not app.config.html_copy_source:
        return
    for page in sorted(app.env.found_docs):
        source = Path(app.env.doc2path(page))
        if source.suffix == ".ipynb":
            node = readable(nbformat.read(source, as_version=4), source)
            download = Path(app.outdir) / "_sources" / f"{page}.ipynb"
            download.write_text(f"{nbformat.writes(node)}\n", encoding="utf-8")


def offer_notebooks_only(
    app: Sphinx, page: str, template: str, context: dict[str, Any], tree: document | None
) -> None:
    """Take the button away that offers the source of a page of prose."""
    if context.get("page_source_suffix") == ".ipynb":
        return
    for group in context.get("header_buttons", []):
        if group.get("label") == "download-buttons":
            buttons = group["buttons"]
            group["buttons"] = [b for b in buttons if b["label"] != "download-source-button"]
