"""What the book's Sphinx extension computes: verdicts, buttons."""

import importlib
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from docutils import nodes
from docutils.utils import new_document
from sphinx.errors import ConfigError

from companion.accessible import cure
from companion.docstrings import to_markup
from companion.executed import CHECKS, Check, Notebook, read
from companion.ledger import Claim, anchors, read_claims
from companion.package import MODULES, groups_of
from companion.repository import add_buttons
from companion.search import Search, lead_to_paragraphs
from companion.status import by_versions


def check(passed: bool | None) -> Check:
    return Check("sign", "the sign of μ", "−", "−", "as stated", passed)


@pytest.mark.parametrize(
    ("recorded", "verdict"),
    [
        ({"a:x": check(True), "a:y": check(True)}, "holds"),
        ({"a:x": check(True), "a:y": check(False)}, "fails"),
        ({"a:x": check(True), "a:y": check(None)}, "not tested"),
        ({"a:x": check(False), "a:y": check(None)}, "fails"),
        ({"a:x": check(True)}, "missing"),
        ({}, "missing"),
    ],
)
def test_a_claim_holds_when_all_its_checks_do(recorded: dict[str, Check], verdict: str) -> None:
    claim = Claim("A", "statement", "Theorem A", "notebooks/a", ("a:x", "a:y"))
    assert claim.verdict(recorded) == verdict


def test_a_claim_without_a_page_is_not_shown() -> None:
    assert Claim("A", "statement", "Theorem A").verdict({}) == "not shown"


@pytest.mark.parametrize("kind", ["holds", "fails"])
def test_a_restricted_claim_says_where_and_can_still_fail(kind: str) -> None:
    claim = Claim("A", "s", "w", "notebooks/a", ("a:x",), **{f"{kind}_where": "at depth two"})
    assert claim.verdict({"a:x": check(True)}) == f"{kind} where"
    assert claim.restriction == "at depth two"
    assert claim.verdict({"a:x": check(False)}) == "fails"


def test_claims_of_one_name_have_different_addresses() -> None:
    claims = [Claim("C", "s", name) for name in ("Abstract", "Lemma 10", "Abstract")]
    assert anchors(claims) == ["claim-c-abstract", "claim-c-lemma-10", "claim-c-abstract-2"]


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ("{paper: A, statement: s}", "where"),
        ("{paper: A, statement: s, where: w, chcks: [a]}", "chcks"),
        ("{paper: E, statement: s, where: w}", "paper is 'E'"),
        ("{paper: A, statement: s, where: w, page: p}", "a page needs checks"),
        ("{paper: A, statement: s, where: w, holds_where: a, fails_where: b}", "not both"),
        ("{paper: A, statement: s, where: w, checks: ['a:x']}", "a page needs checks"),
    ],
)
def test_wrong_entries_of_the_ledger_are_refused(
    tmp_path: Path, entry: str, complaint: str
) -> None:
    path = tmp_path / "claims.yml"
    path.write_text(f"- {{paper: A, statement: s, where: w}}\n- {entry}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"claims.yml, entry 2: .*{complaint}"):
        read_claims(path)


def notebook(path: Path, *checks: dict[str, object]) -> Path:
    output = {"output_type": "display_data", "data": {CHECKS: {"checks": checks}}}
    content = {"cells": [{"cell_type": "code", "outputs": [output]}], "metadata": {}}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


ENTRY = {
    "id": "sign",
    "claim": "c",
    "predicted": "p",
    "measured": "m",
    "tolerance": "t",
    "passed": True,
}


def test_checks_are_read_from_the_outputs(tmp_path: Path) -> None:
    found = read(notebook(tmp_path / "a.ipynb", ENTRY))
    assert found.name == "a"
    assert found.checks == (Check("sign", "c", "p", "m", "t", True),)


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        ([ENTRY, ENTRY], "twice"),
        ([ENTRY | {"passed": "yes"}], "not a bool"),
        ([ENTRY | {"extra": 1}], "extra"),
        ([{"id": "sign"}], "claim"),
    ],
)
def test_malformed_checks_are_refused(
    tmp_path: Path, entries: list[dict[str, object]], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        read(notebook(tmp_path / "a.ipynb", *entries))


def buttons(monkeypatch: pytest.MonkeyPatch, **environment: str) -> dict[str, object]:
    for name in ("URL", "BRANCH"):
        monkeypatch.delenv(f"COMPANION_REPOSITORY_{name}", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(f"COMPANION_REPOSITORY_{name}", value)
    config = SimpleNamespace(html_theme_options={})
    add_buttons(None, config)
    return config.html_theme_options


def test_without_an_address_there_are_no_buttons(monkeypatch: pytest.MonkeyPatch) -> None:
    assert buttons(monkeypatch) == {}


def test_the_address_sets_the_buttons(monkeypatch: pytest.MonkeyPatch) -> None:
    options = buttons(monkeypatch, URL="https://github.com/owner/name.git", BRANCH="draft")
    assert options["repository_url"] == "https://github.com/owner/name"
    assert options["repository_branch"] == "draft"
    assert "colab_url" in options["launch_buttons"]
    options = buttons(monkeypatch, URL="https://gitlab.com/owner/name")
    assert "colab_url" not in options["launch_buttons"]


@pytest.mark.parametrize(
    "environment",
    [
        {"URL": "http://github.com/owner/name"},
        {"URL": "https://github.com/owner"},
        {"URL": 'https://github.com/owner/name"><script>'},
        {"URL": "https://github.com/owner/name", "BRANCH": "a b"},
    ],
)
def test_what_is_no_address_is_refused(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    with pytest.raises(ConfigError, match="COMPANION_REPOSITORY_"):
        buttons(monkeypatch, **environment)


def test_bars_in_docstrings_are_absolute_values() -> None:
    lines = ["The norm |x| and ``|y|``, :math:`|z|`.", "", ">>> f(1)", "a | b", "", "Then |w|."]
    to_markup(None, "function", "f", None, None, lines)
    assert lines == [
        r"The norm \|x\| and ``|y|``, :math:`|z|`.",
        *lines[1:5],
        r"Then \|w\|.",
    ]
    assert lines[3] == "a | b"


def rewritten(line: str, what: str = "function") -> list[str]:
    lines = [line]
    to_markup(None, what, "f", None, None, lines)
    return lines


def test_names_in_backticks_are_links_if_they_are_ours() -> None:
    assert rewritten("See `stability` and `Minimum.at`; `step_size` is η.") == [
        "See :py:obj:`stability <stabcore.minima.stability>` and "
        ":py:obj:`Minimum.at <stabcore.problems.Minimum.at>`; ``step_size`` is η."
    ]
    assert rewritten("See `stabcore.lyapunov.transfer` and `Minimum.nothing`.") == [
        "See :py:obj:`stabcore.lyapunov.transfer <stabcore.lyapunov.transfer>` and "
        "``Minimum.nothing``."
    ]


def test_a_batch_size_is_no_list_and_a_colon_no_type() -> None:
    assert rewritten("    B.") == [r"    \B."]
    assert rewritten("η. The step.") == [r"\η. The step."]
    assert rewritten("    B; at most N.") == ["    B; at most N."]
    assert rewritten("Where: here.", "attribute") == ["", "Where: here."]


def test_every_module_of_the_pages_is_in_groups_and_has_docstrings() -> None:
    for name in MODULES:
        module = importlib.import_module(name)
        listed = [one for _, names in groups_of(module) for one in names]
        assert listed == list(module.__all__)
        for one in listed:
            value = getattr(module, one)
            assert not callable(value) or (value.__doc__ or "").strip()


def test_every_folder_has_a_page() -> None:
    pages = Path(__file__).resolve().parents[1] / "book" / "api"
    shown = " ".join(page.read_text(encoding="utf-8") for page in pages.glob("*.md"))
    assert set(re.findall(r"\{package-page\} (\S+)", shown)) == set(MODULES)


def test_notebooks_are_grouped_by_the_versions_they_ran_with() -> None:
    old, new = ({"versions": {"python": version}} for version in ("3.11", "3.13"))
    notebooks = [
        Notebook(name, (), stamp) for name, stamp in zip("abc", (old, new, old), strict=True)
    ]
    assert [[one.name for one in group] for group in by_versions(notebooks)] == [["a", "c"], ["b"]]


def test_names_are_searched_for_with_and_without_accents() -> None:
    words = Search({}).split("Crăciun and Müller")
    assert words == ["Crăciun", "and", "Müller", "Craciun", "Muller"]


def test_entries_of_the_index_lead_to_paragraphs() -> None:
    paragraph = nodes.paragraph("", "", nodes.target("", "", ids=["index-0"]), nodes.Text("here"))
    document = new_document("page")
    document += paragraph
    lead_to_paragraphs(None, document)
    assert paragraph["ids"] == ["index-0"]
    assert not list(document.findall(nodes.target))


def test_labels_say_what_the_words_say() -> None:
    arrow = "<details open><summary><i></i></summary>"
    context = {
        "body": '<summary aria-label="Toggle hidden content">Code</summary>',
        "generate_toctree_html": lambda *args, **options: arrow,
    }
    cure(None, "page", "page.html", context, None)
    assert context["body"] == "<summary>Code</summary>"
    assert 'aria-label="Pages of this part"' in context["generate_toctree_html"]("sidebar")
