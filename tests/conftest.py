"""Fixtures that several test files share."""

from pathlib import Path

import pytest
from hypothesis import settings
from project import Project

# A change is checked with the same examples every time; `--hypothesis-profile search`, which the
# weekly run uses, draws new ones.
settings.register_profile("change", derandomize=True)
settings.register_profile("search", derandomize=False)
settings.load_profile("change")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return an empty project."""
    return Project(tmp_path / "project")
