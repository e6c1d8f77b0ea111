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
from .tables import text

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
    """Count the claims of `claims.yml` by verdict, then list them paper by paper."""

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
            own = [claim for claim in claims if claim.paper == paper]
            if own:
                lines = [
                    self._line(anchor, claim, recorded)
                    for anchor, claim in zip(anchors(own), own, strict=True)
                ]
                content += [nodes.rubric("", title), nodes.bullet_list("", *lines)]
                content[-1]["classes"].append("ledger")
        return content

    def _summary(self, verdicts: Sequence[str]) -> list[nodes.Node]:
        count = Counter(verdicts)
        parts = [
            f"{count[name]} {verbs[count[name] > 1]}"
            for name, verbs in VERDICTS.items()
            if count[name]
        ]
        return text(f"{len(verdicts)} claims: {', '.join(parts)}.")

    def _line(self, anchor: str, claim: Claim, recorded: Mapping[str, Check]) -> nodes.list_item:
        """Return a claim with its verdict, page and folded evidence."""
        verdict = claim.verdict(recorded)
        if missing := [name for name in claim.checks if name not in recorded]:
            logger.warning(
                "claims.yml names checks that no notebook records: %s",
                ", ".join(missing),
                location=self.get_location(),
            )
        page = f" ({{doc}}`/{claim.page}`)" if claim.page else ""
        badge = nodes.inline("", verdict, classes=["verdict", verdict.replace(" ", "-")])
        line = nodes.list_item("", ids=[anchor])
        line += self.parse_text_to_nodes(f"**{claim.where}.** {claim.statement.rstrip()}{page}")
        line += nodes.paragraph("", "", badge)
        if verdict in ("holds where", "fails where"):
            line += nodes.container("", *self.parse_text_to_nodes(str(claim.restriction)))
        line += folded([recorded[name] for name in claim.checks if name in recorded])
        return line


def anchors(claims: Sequence[Claim]) -> list[str]:
    """Return the address of each claim within the page; those of one name are numbered."""
    seen: Counter[str] = Counter()
    found = []
    for claim in claims:
        anchor = nodes.make_id(f"claim {claim.paper} {claim.where}")
        seen[anchor] += 1
        found.append(anchor if seen[anchor] == 1 else f"{anchor}-{seen[anchor]}")
    return found


def folded(checks: Sequence[Check]) -> list[nodes.Node]:
    """Return what the checks predicted and measured, to be unfolded."""
    if not checks:
        return []
    title = "1 check" if len(checks) == 1 else f"{len(checks)} checks"
    lines = [
        f"{check.claim}: predicted {check.predicted}, measured {check.measured}" for check in checks
    ]
    return [
        nodes.raw("", f"<details><summary>{title}</summary>", format="html"),
        nodes.bullet_list("", *(nodes.list_item("", *text(line)) for line in lines)),
        nodes.raw("", "</details>", format="html"),
    ]
