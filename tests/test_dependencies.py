"""Three files name the dependencies; they must agree, and none may name a machine."""

import re
import subprocess
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
# A lock without index lines works with whatever index its reader uses.
INDEX_OPTIONS = ("-i", "--index-url", "--extra-index-url", "--find-links", "--trusted-host")
MACHINE = re.compile(
    r"(?:/(?:home|Users)/\w|/ro[o]t/|[A-Z]:\\Users\\|file:/[/]/\w)"
    # An address of a package index or of one of its files.
    r"|https?://[^\s\"')]*/(?:simple|packages|wheels?)/"
)


def project() -> dict[str, Requirement]:
    """Return the direct dependencies of pyproject.toml, all extras included."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = chain(table["dependencies"], *table["optional-dependencies"].values())
    return {canonicalize_name(one.name): one for one in map(Requirement, lines)}


def conda() -> dict[str, Requirement]:
    """Return the requirements of environment.yml, those for pip included."""
    lines: list[str] = []
    for entry in yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))[
        "dependencies"
    ]:
        lines += entry["pip"] if isinstance(entry, dict) else [entry]
    wanted = [Requirement(line) for line in lines if line != "-e ."]
    return {canonicalize_name(one.name): one for one in wanted}


def lock() -> Iterator[tuple[Requirement, list[str]]]:
    """Return every pin of requirements.lock with its hashes."""
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            pin, *hashes = line.split("--hash=")
            yield Requirement(pin), hashes


@pytest.mark.parametrize("name", project())
def test_conda_has_the_same_bounds(name: str) -> None:
    assert name in conda()
    assert conda()[name].specifier == project()[name].specifier


def test_conda_has_nothing_else() -> None:
    assert set(conda()) - set(project()) == {"python", "pip"}


@pytest.mark.parametrize("name", project())
def test_the_lock_is_within_the_bounds(name: str) -> None:
    pins = [pin for pin, _ in lock() if canonicalize_name(pin.name) == name]
    assert pins
    for pin in pins:
        (version,) = pin.specifier
        assert version.operator == "=="
        assert project()[name].specifier.contains(version.version, prereleases=True)


def test_every_pin_has_hashes() -> None:
    for pin, hashes in lock():
        assert hashes, pin
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}\s*", one) for one in hashes), pin


def test_the_lock_names_no_index() -> None:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if line.lstrip().startswith(INDEX_OPTIONS)]


def test_no_tracked_file_names_a_machine() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git repository")
    names = listed.stdout.splitlines()
    assert "uv.lock" not in names
    found = []
    for name in names:
        path = ROOT / name
        if not path.is_file() or path == Path(__file__):
            continue
        content = path.read_text(encoding="utf-8", errors="ignore")
        found += [f"{name}: {hit[0]}" for hit in MACHINE.finditer(content)]
    assert not found
