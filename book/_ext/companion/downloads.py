"""Turn the notebooks behind the download buttons into plain Markdown.

The theme offers the source of a page. Of a notebook that would be MyST, which only the book shows
as it is meant.
"""

import sys
from pathlib import Path

import nbformat
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
