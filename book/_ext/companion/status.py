"""The execution status: how the notebooks behind this build were run, and with which versions."""

from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from .executed import Notebook, read_all
from .tables import table, text


class ExecutionStatus(SphinxDirective):
    """Tabulate the notebooks: checks passed, run time, versions.

    The committed notebooks carry no run time, which differs from machine to machine; those that
    ``make book`` executed do.
    """

    def run(self) -> list[nodes.Node]:
        """Read the stamps that `notebooks/run.py` left."""
        source = Path(self.env.srcdir)
        for path in (source / "notebooks").glob("*.ipynb"):
            self.env.note_dependency(str(path))
        try:
            notebooks = list(read_all(source).values())
        except ValueError as problem:
            raise self.error(str(problem)) from problem
        if unstamped := [one.name for one in notebooks if "versions" not in one.stamp]:
            raise self.error(f"not executed by notebooks/run.py: {', '.join(unstamped)}")
        return [node for group in by_versions(notebooks) for node in self._section(group)]

    def _section(self, notebooks: list[Notebook]) -> list[nodes.Node]:
        """Return the versions that some notebooks share, and a table of these notebooks."""
        versions = notebooks[0].stamp["versions"]
        packages = sorted(versions, key=lambda name: (name != "python", name))
        shared = ", ".join(f"{name} {versions[name]}" for name in packages)
        head = ("Notebook", "Checks passed", "Run time")
        return [
            nodes.paragraph("", f"With {shared}:"),
            table(head, [self._row(one) for one in notebooks]),
        ]

    def _row(self, one: Notebook) -> list[list[nodes.Node]]:
        passed = sum(bool(check.passed) for check in one.checks)
        seconds = one.stamp.get("seconds")
        return [
            self.parse_text_to_nodes(f"{{doc}}`/notebooks/{one.name}`"),
            text(f"{passed} of {len(one.checks)}"),
            text("not recorded" if seconds is None else f"{seconds} s"),
        ]


def by_versions(notebooks: list[Notebook]) -> list[list[Notebook]]:
    """Group the notebooks that were executed with the same versions: usually all of them."""
    groups: dict[tuple[tuple[str, str], ...], list[Notebook]] = {}
    for one in notebooks:
        groups.setdefault(tuple(sorted(one.stamp["versions"].items())), []).append(one)
    return list(groups.values())
