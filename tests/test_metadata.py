"""Binder and the citation: what others read of the repository agrees with it."""

import tomllib
from datetime import date
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import stabcore

ROOT = Path(__file__).resolve().parents[1]
# What only those need who build, test or print the book.
NOT_FOR_READERS = {"jupyter-book", "pytest", "ruff", "mypy", "playwright", "pypdf", "uv"}


def pins(name: str) -> set[tuple[str, str]]:
    """Return the versions in a file of pins: several of a package if they differ by Python."""
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.split(" --hash")[0] for line in text.splitlines() if "==" in line]
    found = [Requirement(line) for line in lines if not line.lstrip().startswith("#")]
    return {(canonicalize_name(one.name), str(one.specifier)) for one in found}


def test_the_citation_has_the_version_of_the_package() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == stabcore.__version__
    assert isinstance(citation["date-released"], date)
    assert f"## [{stabcore.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_binder_has_the_pinned_versions_of_what_running_needs() -> None:
    pinned = pins(".binder/requirements.txt")
    assert pinned <= pins("requirements.lock")
    chosen = {name for name, _ in pinned}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = project["dependencies"] + project["optional-dependencies"]["networks"]
    lines = (ROOT / ".binder" / "requirements.in").read_text(encoding="utf-8").splitlines()
    asked += [line for line in lines if not line.startswith("#")]
    assert {canonicalize_name(Requirement(one).name) for one in asked} <= chosen
    assert not NOT_FOR_READERS & chosen
