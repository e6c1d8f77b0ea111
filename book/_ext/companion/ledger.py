"""The claims ledger: what the papers claim, and what the book's own runs say about it today."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from docutils import nodes
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from .executed import Check, read_all
from .tables import table, text

CLAIMS = Path("book", "claims.yml")
PAPERS = {"A": "Paper A", "B": "Paper B", "C": "Paper C", "D": "Paper D", "ours": "Ours"}
# Each verdict, and how one and several claims with it are counted.
VERDICTS = {
    "holds": ("holds", "hold"),
    "holds where": ("holds under a condition", "hold under a condition"),
    "fails where": ("fails in a case", "fail in a case"),
    "fails": ("fails", "fail"),
    "not tested": ("is not tested", "are not tested"),
    "missing": ("misses a check", "miss a check"),
    "not shown": ("is not shown", "are not shown"),
}
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Claim:
    """An entry of `claims.yml`: a claim of a paper, or ours, and where the book confronts it.

    `statement` and `where` are Markdown; `page` is the document (none: not shown) and `checks`
    name what its notebooks record, as ``notebook:check``. Where the statement is true under a
    condition only, `holds_where` names it; where the book has a counterexample, `fails_where` does,
    and the checks uphold that.
    """

    paper: str
    statement: str
    where: str
    page: str | None = None
    checks: tuple[str, ...] = ()
    holds_where: str | None = None
    fails_where: str | None = None

    @property
    def restriction(self) -> str | None:
        """Return where the statement holds, or fails, if not everywhere."""
        return self.holds_where or self.fails_where

    def verdict(self, recorded: Mapping[str, Check]) -> str:
        """Say what the recorded checks make of the claim; only all of them together uphold it."""
        if self.page is None:
            return "not shown"
        if any(name not in recorded for name in self.checks):
            return "missing"
        passed = {recorded[name].passed for name in self.checks}
        if False in passed:
            return "fails"
        if None in passed:
            return "not tested"
        if self.restriction is None:
            return "holds"
        return "holds where" if self.holds_where else "fails where"


def read_claims(path: Path) -> list[Claim]:
    """Read and check the ledger's entries.

    Returns
    -------
    list of Claim
        The entries in the file's order.

    Raises
    ------
    ValueError
        If an entry lacks a field, has an unknown one, or names a page without checks or checks
        without a page.
    """
    claims = []
    for number, entry in enumerate(yaml.safe_load(path.read_text(encoding="utf-8")), start=1):
        where = f"{path.name}, entry {number}"
        try:
            claim = Claim(**{**entry, "checks": tuple(entry.get("checks", ()))})
        except TypeError as problem:
            raise ValueError(f"{where}: {problem}") from problem
        if claim.paper not in PAPERS:
            raise ValueError(f"{where}: paper is {claim.paper!r}; one of {', '.join(PAPERS)}")
        if (claim.page is None) != (not claim.checks):
            raise ValueError(f"{where}: a page needs checks that uphold the claim, and vice versa")
        if claim.holds_where and claim.fails_where:
            raise ValueError(f"{where}: name where it holds or where it fails, not both")
        claims.append(claim)
    return claims


class ClaimsLedger(SphinxDirective):
    """Count the claims of `claims.yml` by verdict, then tabulate them paper by paper."""

    def run(self) -> list[nodes.Node]:
        """Compute the verdicts from the notebooks of this build."""
        source = Path(self.env.srcdir)
        self.env.note_dependency(str(source / CLAIMS))
        for notebook in (source / "notebooks").glob("*.ipynb"):
            self.env.note_dependency(str(notebook))
        try:
            claims = read_claims(source / CLAIMS)
            recorded = {
                f"{notebook.name}:{check.id}": check
                for notebook in read_all(source).values()
                for check in notebook.checks
            }
        except (OSError, ValueError) as problem:
            raise self.error(str(problem)) from problem
        content = self._summary([claim.verdict(recorded) for claim in claims])
        for paper, title in PAPERS.items():
            if own := [claim for claim in claims if claim.paper == paper]:
                content += [nodes.rubric("", title), self._table(own, recorded)]
        return content

    def _summary(self, verdicts: Sequence[str]) -> list[nodes.Node]:
        count = Counter(verdicts)
        parts = [
            f"{count[name]} {verbs[count[name] > 1]}"
            for name, verbs in VERDICTS.items()
            if count[name]
        ]
        return text(f"{len(verdicts)} claims: {', '.join(parts)}.")

    def _table(self, claims: Sequence[Claim], recorded: Mapping[str, Check]) -> nodes.Node:
        return table(
            ("Where", "Claim", "Predicted and measured", "Verdict"),
            [self._row(claim, recorded) for claim in claims],
        )

    def _row(self, claim: Claim, recorded: Mapping[str, Check]) -> list[list[nodes.Node]]:
        verdict = claim.verdict(recorded)
        if missing := [name for name in claim.checks if name not in recorded]:
            logger.warning(
                "claims.yml names checks that no notebook records: %s",
                ", ".join(missing),
                location=self.get_location(),
            )
        where = f"{claim.where}, {{doc}}`/{claim.page}`" if claim.page else claim.where
        evidence = nodes.bullet_list("")
        for name in claim.checks:
            if check := recorded.get(name):
                line = f"{check.claim}: predicted {check.predicted}, measured {check.measured}"
                evidence += nodes.list_item("", *text(line))
        badge = nodes.inline("", verdict, classes=["verdict", verdict.replace(" ", "-")])
        restricted = verdict in ("holds where", "fails where")
        condition = self.parse_text_to_nodes(str(claim.restriction)) if restricted else []
        return [
            self.parse_text_to_nodes(where),
            self.parse_text_to_nodes(claim.statement),
            [evidence] if evidence.children else [],
            [nodes.paragraph("", "", badge), *condition],
        ]
