"""Notebooks for a reader's own Jupyter: nothing is left of MyST, and nothing is lost."""

import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import run
from readable import readable, standalone


def plain(*texts: str, **glued: str) -> str:
    """Return the Markdown that some cells become."""
    outputs = [
        new_output(
            "display_data",
            {"text/plain": f"'{value}'"},
            metadata={"scrapbook": {"name": name.replace("_", "-")}},
        )
        for name, value in glued.items()
    ]
    cells = [new_markdown_cell(text) for text in texts]
    node = new_notebook(cells=[*cells, new_code_cell(outputs=outputs)])
    found = readable(node, Path("notebooks/a.ipynb"), Path("notebooks/b.ipynb"))
    return "\n".join(cell.source for cell in found.cells if cell.cell_type == "markdown")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("up to {glue:text}`gd-end`.", "up to 3.78."),
        ("{cite:t}`chemnitz2025` prove", "Chemnitz and Engel (2025) prove"),
        ("a theorem {cite:p}`polyak1964`", "a theorem [Polyak 1964]"),
        ("{cite:p}`craciun2024,craciun2025`", "[Crăciun and Ghoshdastidar 2024; Crăciun"),
        ("{cite:t}`ziyin2024`", "Ziyin et al. (2024)"),
        ("a {term}`stable arc <stable arc>`, {term}`λ`", "a stable arc, λ"),
        ("{prf:ref}`Theorem A <thm-gd>`", "Theorem A"),
        ("{index}`!Theorem A`, {index}`rate <single: ! Lyapunov>`", "Theorem A, rate"),
        ("(here)=\n## Title", "## Title"),
    ],
)
def test_roles_become_words(text: str, expected: str) -> None:
    assert plain(text, gd_end="3.78").startswith(expected)


def test_equations_are_numbered_and_referred_to() -> None:
    found = plain("by {eq}`eq-b`", "$$\na\n$$ (eq-a)", "$$\nb\n$$ (eq-b)")
    assert found == "by (2)\n$$\na\n\\tag{1}\n$$\n$$\nb\n\\tag{2}\n$$"


def test_a_theorem_is_a_quotation_and_solutions_fold() -> None:
    theorem = (
        ":::{prf:theorem} On steps; {cite:t}`chemnitz2025`\n:label: thm\n:nonumber:\n\nIt is.\n:::"
    )
    assert plain(theorem).splitlines() == [
        "> **Theorem (On steps; Chemnitz and Engel (2025)).**",
        ">",
        ">",
        "> It is.",
    ]
    solutions = plain(":::{dropdown} Solutions\n1. Yes.\n:::")
    assert solutions == "<details>\n<summary>Solutions</summary>\n\n1. Yes.\n\n</details>"


def test_figures_have_a_number_and_their_caption() -> None:
    metadata = {"mystnb": {"figure": {"name": "fig-a", "caption": "A curve."}}}
    text = new_markdown_cell("{numref}`fig-a` shows it.")
    node = new_notebook(cells=[text, new_code_cell("plot()", metadata=metadata)])
    found = readable(node, Path("a.ipynb"), Path("b.ipynb"))
    nbformat.validate(found)
    assert [cell.source for cell in found.cells] == [
        "Figure 1 shows it.",
        "plot()",
        "*Figure 1.* A curve.",
    ]
    assert node.cells[0].source == "{numref}`fig-a` shows it."


def test_links_lead_to_the_other_pages_from_the_new_place(tmp_path: Path) -> None:
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "other.ipynb").touch()
    links = "[page](other.ipynb#part) [web](https://a.org) [gone](gone.md)"
    node = new_notebook(cells=[new_markdown_cell(links)])
    found = readable(node, tmp_path / "notebooks" / "a.ipynb", tmp_path / "runs" / "mine.ipynb")
    expected = "[page](../notebooks/other.ipynb#part) [web](https://a.org) [gone](gone.md)"
    assert found.cells[0].source == expected


def test_links_become_words_where_nobody_knows_the_place() -> None:
    links = "[Page](other.ipynb#part), [words](../book/gone.md), [web](https://a.org), [up](#up)"
    node = new_notebook(cells=[new_markdown_cell(links)])
    expected = "*Page*, words, [web](https://a.org), [up](#up)"
    assert readable(node, Path("a.ipynb")).cells[0].source == expected
    assert standalone(node).cells[0].source == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "{glue:text}`gd-end` {cite:t}`chemnitz2025`",
            "{glue:text}`gd-end` {cite:t}`chemnitz2025`",
        ),
        ("a {term}`stable arc <arc>`, {term}`λ`", "a stable arc, λ"),
        ("{prf:ref}`Theorem A <thm-away>`", "Theorem A"),
        ("{prf:ref}`Theorem B <thm-here>`", "{prf:ref}`Theorem B <thm-here>`"),
        ("{ref}`there <part>` {ref}`away <elsewhere>`", "{ref}`there <part>` away"),
        ("{eq}`eq-here` {eq}`eq-away`", "{eq}`eq-here` the equation"),
        ("{numref}`fig-here` {numref}`fig-away`", "{numref}`fig-here` the figure"),
    ],
)
def test_a_page_of_its_own_keeps_what_is_inside(text: str, expected: str) -> None:
    inside = "(part)=\n## Part\n\n$$\na\n$$ (eq-here)\n\n:::{prf:theorem}\n:label: thm-here\n:::"
    metadata = {"mystnb": {"figure": {"name": "fig-here", "caption": "A curve."}}}
    cells = [new_markdown_cell(text), new_markdown_cell(inside), new_code_cell(metadata=metadata)]
    found = standalone(new_notebook(cells=cells))
    assert [cell.source for cell in found.cells[:2]] == [expected, inside]


@pytest.mark.parametrize("name", run.notebooks())
def test_nothing_is_left_of_myst(name: str) -> None:
    source = run.notebooks()[name]
    found = readable(nbformat.read(source, as_version=4), source, source)
    nbformat.validate(found)
    text = "\n\n".join(cell.source for cell in found.cells if cell.cell_type == "markdown")
    left = re.findall(r"\{[a-z:]+\}`|^:{3,}|^\([\w-]+\)=|\$\$ \(|the equation\b.\d", text, re.M)
    assert not left
    assert "the figure {" not in text
