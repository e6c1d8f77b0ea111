"""Read what the book's notebooks recorded when they were executed."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKS = "application/vnd.stabcore.checks+json"


@dataclass(frozen=True)
class Check:
    """One claim that a notebook confronted with a computation."""

    id: str
    claim: str
    predicted: str
    measured: str
    tolerance: str
    passed: bool | None  # None: not tested


@dataclass(frozen=True)
class Notebook:
    """An executed notebook: the checks it recorded and how it was run."""

    name: str
    checks: tuple[Check, ...]
    stamp: dict[str, Any]


def read(path: Path) -> Notebook:
    """Read a notebook's checks from its outputs and its stamp from its metadata.

    Returns
    -------
    Notebook
        What was recorded; the stamp is empty if `notebooks/run.py` did not run it.

    Raises
    ------
    ValueError
        If a recorded check does not have the agreed fields, or two have the same id.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    checks: dict[str, Check] = {}
    for cell in content["cells"]:
        for output in cell.get("outputs", ()):
            for entry in output.get("data", {}).get(CHECKS, {}).get("checks", ()):
                check = _check(path, entry)
                if check.id in checks:
                    raise ValueError(f"{path.name} records the check {check.id!r} twice")
                checks[check.id] = check
    stamp = content["metadata"].get("companion", {})
    return Notebook(path.stem, tuple(checks.values()), stamp)


def _check(path: Path, entry: dict[str, Any]) -> Check:
    try:
        check = Check(**entry)
    except TypeError as problem:
        raise ValueError(f"{path.name} records a check {entry!r}: {problem}") from problem
    if not isinstance(check.passed, bool | None):
        raise ValueError(f"{path.name}: passed of check {check.id!r} is not a bool or null")
    return check


def read_all(source: Path) -> dict[str, Notebook]:
    """Read every notebook of the book, by name."""
    return {path.stem: read(path) for path in sorted((source / "notebooks").glob("*.ipynb"))}
