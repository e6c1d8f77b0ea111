"""What the book adds to Sphinx.

Directives: claims ledger, execution status, package pages. Around pages: buttons and downloads,
figures that can be enlarged, descriptions, words for screen readers, and a page for addresses
without one. Beside them: a search for names without accents. A local Sphinx extension, so that
``make book`` and a plain ``jupyter-book build .`` show the same.
"""

from sphinx.application import Sphinx
from sphinx.config import Config

from .accessible import cure
from .checks import link_checks
from .descriptions import describe
from .docstrings import to_markup
from .downloads import offer_notebooks_only, write_downloads
from .figures import prepare_figures
from .ledger import ClaimsLedger
from .not_found import write_not_found
from .package import PackagePage, places
from .repository import add_buttons, set_address
from .search import Search
from .status import ExecutionStatus


def setup(app: Sphinx) -> dict[str, object]:
    """Register the directives and connect the rest."""
    app.add_directive("claims-ledger", ClaimsLedger)
    app.add_directive("execution-status", ExecutionStatus)
    app.add_directive("package-page", PackagePage)
    app.add_search_language(Search)
    app.connect("config-inited", add_buttons)
    app.connect("config-inited", link_code)
    app.connect("config-inited", set_address)
    app.connect("doctree-resolved", link_checks)
    app.connect("autodoc-process-docstring", to_markup)
    app.connect("build-finished", write_downloads)
    # After the theme has added its buttons.
    app.connect("html-page-context", offer_notebooks_only, priority=900)
    app.connect("html-page-context", cure, priority=900)
    app.connect("html-page-context", prepare_figures)
    app.connect("html-page-context", describe)
    app.connect("build-finished", write_not_found)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def link_code(app: Sphinx, config: Config) -> None:
    """Let names in code, as they are imported in the notebooks, lead to the package pages."""
    config.codeautolink_inventory_map = places()
