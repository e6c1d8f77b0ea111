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
        known = {name for one in notebooks for name in one.stamp["versions"]}
        packages = ["python", *sorted(known - {"python"})]
        head = ("Notebook", "Checks passed", "Run time", *packages)
        return [table(head, [self._row(one, packages) for one in notebooks])]

    def _row(self, one: Notebook, packages: list[str]) -> list[list[nodes.Node]]:
        passed = sum(check.passed for check in one.checks)
        seconds = one.stamp.get("seconds")
        return [
            self.parse_text_to_nodes(f"{{doc}}`/notebooks/{one.name}`"),
            text(f"{passed} of {len(one.checks)}"),
            text("not recorded" if seconds is None else f"{seconds} s"),
            *(text(one.stamp["versions"].get(name, "")) for name in packages),
        ]
