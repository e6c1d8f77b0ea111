"""Where the repository and the published book are, when the environment says so."""

import os
import re

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ConfigError

ADDRESS = re.compile(r"https://[\w.-]+/[\w.-]+/[\w.-]+")
BRANCH = re.compile(r"[\w./-]+")
BOOK = re.compile(r"https?://[\w.-]+(:\d+)?(/[\w.~-]+)*")


def add_buttons(app: Sphinx, config: Config) -> None:
    """Point the theme's buttons at the repository; without an address there are none.

    ``COMPANION_REPOSITORY_URL`` is the address (``https://host/owner/name``),
    ``COMPANION_REPOSITORY_BRANCH`` the branch (main by default). The workflows set them.

    Raises
    ------
    ConfigError
        If the address or the branch cannot be one.
    """
    address = os.environ.get("COMPANION_REPOSITORY_URL", "")
    if not address:
        return
    address = address.rstrip("/").removesuffix(".git")
    if not ADDRESS.fullmatch(address):
        raise ConfigError(
            f"COMPANION_REPOSITORY_URL is {address!r}; give an address such as "
            "https://github.com/owner/name"
        )
    branch = os.environ.get("COMPANION_REPOSITORY_BRANCH") or "main"
    if not BRANCH.fullmatch(branch):
        raise ConfigError(
            f"COMPANION_REPOSITORY_BRANCH is {branch!r}; give a branch's name, such as main"
        )
    launch = {"binderhub_url": "https://mybinder.org", "notebook_interface": "jupyterlab"}
    if address.startswith("https://github.com/"):
        launch["colab_url"] = "https://colab.research.google.com"
    config.html_theme_options |= {
        "repository_url": address,
        "repository_branch": branch,
        # Pages lie in the repository where they lie in the book.
        "path_to_docs": "",
        "use_repository_button": True,
        "use_issues_button": True,
        "launch_buttons": launch,
    }


def set_address(app: Sphinx, config: Config) -> None:
    """Say where the book will be: cards and canonical links need absolute addresses.

    ``COMPANION_BOOK_URL`` is the address of the folder with the first page.

    Raises
    ------
    ConfigError
        If it cannot be one.
    """
    address = os.environ.get("COMPANION_BOOK_URL", "").rstrip("/")
    if not address:
        return
    if not BOOK.fullmatch(address):
        raise ConfigError(
            f"COMPANION_BOOK_URL is {address!r}; give an address such as https://host/book"
        )
    config.html_baseurl = f"{address}/"
