"""The notebooks teach: visible code, announced figures, endings, links."""

import re
from itertools import pairwise

import nbformat
import pytest
from nbformat import NotebookNode

import run
from companion.checks import made_by

NOTEBOOKS = run.notebooks()
ENDING = ("## What to remember", "**Exercises.**", "**Where next.**", "## Checks")


@pytest.fixture(params=NOTEBOOKS)
def cells(request: pytest.FixtureRequest) -> list[NotebookNode]:
    return nbformat.read(NOTEBOOKS[request.param], as_version=4).cells


def hidden(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and "hide-input" in cell.metadata.get("tags", [])


def visible(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and not hidden(cell)


def length(cell: NotebookNode) -> int:
    """Return the number of lines that are not empty."""
    return sum(bool(line.strip()) for line in cell.source.splitlines())


def questions(cell: NotebookNode) -> int:
    """Return the number of lines that are neither empty nor an import."""
    lines = [line for line in cell.source.splitlines() if line.strip()]
    return sum(not line.startswith(("import ", "from ")) for line in lines)


def figure(cell: NotebookNode) -> str | None:
    return cell.metadata.get("mystnb", {}).get("figure", {}).get("name")


def prose(cells: list[NotebookNode]) -> str:
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def sections(cells: list[NotebookNode]) -> dict[str, list[NotebookNode]]:
    """Return the code cells under each second heading, up to what is to be remembered."""
    found: dict[str, list[NotebookNode]] = {}
    title = None
    for cell in cells:
        if cell.cell_type == "markdown":
            titles = re.findall(r"^## (.*)$", cell.source, re.MULTILINE)
            title = titles[-1] if titles else title
        elif title:
            found.setdefault(title, []).append(cell)
    return {title: code for title, code in found.items() if title != "Checks"}


def test_at_least_a_third_of_the_code_is_visible(cells):
    code = [cell for cell in cells if cell.cell_type == "code"]
    seen = sum(length(cell) for cell in code if visible(cell))
    assert seen >= sum(map(length, code)) / 3


def test_each_section_with_code_asks_a_question_that_can_be_seen(cells):
    mute = [
        title
        for title, code in sections(cells).items()
        if not any(visible(cell) and 2 <= questions(cell) <= 8 and cell.outputs for cell in code)
    ]
    assert not mute


def test_visible_cells_are_short(cells):
    long = [cell.source for cell in cells if visible(cell) and length(cell) > 16]
    assert all(source.startswith(("import ", "from ")) for source in long), long


def test_hidden_cells_are_named_merged_and_not_long(cells):
    for cell, following in pairwise(cells):
        assert not (hidden(cell) and hidden(following)), following.source
    for cell in filter(hidden, cells):
        assert cell.metadata.get("mystnb", {}).get("code_prompt_show", "").startswith("Code of ")
        assert length(cell) <= 44, cell.source


def test_each_figure_is_announced(cells):
    for place, cell in enumerate(cells):
        if name := figure(cell):
            assert f"{{numref}}`{name}`" in prose(cells[:place]), name


def test_the_page_ends_with_what_to_remember_exercises_and_where_next(cells):
    text = prose(cells)
    places = [text.find(part) for part in ENDING]
    assert -1 not in places
    assert places == sorted(places)
    assert [cell.source for cell in cells if cell.cell_type == "code"][-1] == "checks.conclude()"
    ending = text[places[0] :]
    assert len(re.findall(r"^\* ", ending[: ending.find("**Exercises.**")], re.MULTILINE)) == 3
    exercises, solutions = ending.split(":::{dropdown} Solutions")
    numbers = [re.findall(r"^(\d)\. ", part, re.MULTILINE) for part in (exercises, solutions)]
    assert numbers[0] == numbers[1]
    assert 2 <= len(numbers[0]) <= 3
    assert "notebooks/run.py" in exercises + solutions


def test_the_text_links_to_the_glossary_and_to_theorems(cells):
    text = prose(cells)
    assert len(set(re.findall(r"\{term\}`[^`]+`", text))) >= 3
    assert "{prf:ref}`" in text


def test_the_record_of_each_check_names_its_cell(cells):
    """So that the table can link to it."""
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    patterns = [pattern for source in code for pattern in made_by(source)]
    for output in cells[-1].outputs:
        for row in output.data["application/vnd.stabcore.checks+json"]["checks"]:
            assert any(pattern.fullmatch(row["id"]) for pattern in patterns), row["id"]
