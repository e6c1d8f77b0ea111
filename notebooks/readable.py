"""A notebook for a reader's own Jupyter: plain Markdown for what only the book understands.

The book's pages are written in MyST. Jupyter shows its roles and directives as they are typed:
`{glue:text}` instead of a number, `{cite:t}` instead of a name. `readable` resolves them from what
the notebook itself contains, its outputs and labels, and from the bibliography.
"""

import os
import re
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

BIBLIOGRAPHY = Path(__file__).resolve().parents[1] / "book" / "references.bib"

ROLE = re.compile(r"\{([a-z:]+)\}`([^`]+)`")
EQUATION = re.compile(r"^\$\$\s*\(([\w-]+)\)[ ]*$", re.MULTILINE)
TARGET = re.compile(r"^\([\w-]+\)=\n", re.MULTILINE)
LINK = re.compile(r"\]\((?!\w+:|#)([^)\s]+)\)")
OPENING = re.compile(r"^(:{3,})\{([\w:-]+)\}\s*(.*)$")
OPTION = re.compile(r"^:\w+:")


def readable(node: NotebookNode, source: Path, target: Path) -> NotebookNode:
    """Return an executed notebook in plain Markdown.

    Parameters
    ----------
    node : NotebookNode
        As executed.
    source, target : Path
        Where it comes from and where it will lie; links to other pages are turned accordingly.

    Returns
    -------
    NotebookNode
        Numbers are filled in; citations are names and years; figures have a number and their
        caption, equations a number; theorems are quotations, and solutions fold.
    """
    result = deepcopy(node)
    figures = _numbered(_figures(result))
    texts = [cell.source for cell in result.cells if cell.cell_type == "markdown"]
    equations = _numbered(EQUATION.findall("\n".join(texts)))
    roles = _roles(glued_texts(result), figures, equations)
    cells = []
    for cell in result.cells:
        cells.append(cell)
        if cell.cell_type == "markdown":
            cell.source = _plain(cell.source, roles, equations)
            cell.source = LINK.sub(lambda link: _turned(link[1], source, target), cell.source)
        elif figure := _figure(cell):
            caption = _inline(figure.get("caption", ""), roles)
            text = f"*Figure {figures[figure['name']]}.* {caption}"
            cells.append(nbformat.v4.new_markdown_cell(text, id=f"{cell.id}-caption"[-64:]))
    result.cells = cells
    return result


def _figure(cell: NotebookNode) -> Mapping[str, str]:
    found: Mapping[str, str] = cell.metadata.get("mystnb", {}).get("figure", {})
    return found if "name" in found else {}


def _figures(node: NotebookNode) -> list[str]:
    return [figure["name"] for cell in node.cells if (figure := _figure(cell))]


def _numbered(labels: list[str]) -> dict[str, int]:
    return {label: number for number, label in enumerate(labels, start=1)}


def glued_texts(node: NotebookNode) -> dict[str, str]:
    """Return the texts that the notebook computed for its prose."""
    found = {}
    for cell in node.cells:
        for output in cell.get("outputs", ()):
            scrap = output.get("metadata", {}).get("scrapbook")
            if scrap:
                found[scrap["name"]] = str(next(iter(output.data.values()))).strip("'")
    return found


def _roles(
    glued: Mapping[str, str], figures: Mapping[str, int], equations: Mapping[str, int]
) -> dict[str, Callable[[str], str]]:
    """Return what each role of MyST becomes."""
    return {
        "glue:text": lambda name: glued.get(name, name),
        "numref": lambda name: f"Figure {figures[name]}" if name in figures else "the figure",
        "eq": lambda name: f"({equations[name]})" if name in equations else "the equation",
        "term": _title,
        "ref": _title,
        "prf:ref": _title,
        "cite:t": lambda keys: " and ".join(f"{who} ({year})" for who, year in _cited(keys)),
        "cite:p": lambda keys: "[" + "; ".join(f"{who} {year}" for who, year in _cited(keys)) + "]",
    }


def _title(text: str) -> str:
    """Return the words of `words <target>`."""
    return re.sub(r"\s*<[^>]*>$", "", text)


def _cited(keys: str) -> list[tuple[str, str]]:
    entries = _bibliography()
    return [entries.get(key.strip(), (key.strip(), "")) for key in keys.split(",")]


@cache
def _bibliography() -> dict[str, tuple[str, str]]:
    """Return the authors and the year of every entry."""
    from pybtex.database import parse_file
    from pybtex.richtext import Text

    found = {}
    for key, entry in parse_file(str(BIBLIOGRAPHY)).entries.items():
        names = [
            str(Text.from_latex(" ".join(person.prelast_names + person.last_names)))
            for person in entry.persons["author"]
        ]
        who = names[0] if len(names) == 1 else " and ".join(names)
        found[key] = (who if len(names) < 3 else f"{names[0]} et al.", entry.fields["year"])
    return found


def _plain(text: str, roles: Mapping[str, Any], equations: Mapping[str, int]) -> str:
    """Return a cell's Markdown without MyST."""
    text = EQUATION.sub(lambda label: rf"\tag{{{equations[label[1]]}}}" + "\n$$", text)
    return _blocks(_inline(TARGET.sub("", text), roles))


def _inline(text: str, roles: Mapping[str, Any]) -> str:
    return ROLE.sub(lambda role: roles.get(role[1], _title)(role[2]), text)


def _blocks(text: str) -> str:
    """Turn directives into quotations, folded parts and headings."""
    lines: list[str] = []
    open_blocks: list[tuple[str, str]] = []  # the fence and the name of each
    for line in text.splitlines():
        if opening := OPENING.match(line):
            fence, name, title = opening.groups()
            open_blocks.append((fence, name))
            lines += _opened(name, title)
        elif open_blocks and line.strip() == open_blocks[-1][0]:
            _, name = open_blocks.pop()
            lines += ["", "</details>"] if name == "dropdown" else []
        elif open_blocks and OPTION.match(line):
            continue
        else:
            quoted = any(name.startswith("prf:") for _, name in open_blocks)
            lines.append(f"> {line}".rstrip() if quoted else line)
    return "\n".join(lines)


def _opened(name: str, title: str) -> list[str]:
    """Return the first lines of a directive."""
    if name == "dropdown":
        return ["<details>", f"<summary>{title}</summary>", ""]
    if name.startswith("prf:"):
        kind = name.removeprefix("prf:").capitalize()
        return [f"> **{kind}" + (f" ({title})" if title else "") + ".**", ">"]
    return ["", f"**{title}**", ""] if title else []


def _turned(address: str, source: Path, target: Path) -> str:
    """Return a link to another page of the book as it is to be written in the target's folder."""
    path, hash_, anchor = address.partition("#")
    other = (source.parent / path).resolve()
    if not other.is_file():
        return f"]({address})"
    return f"]({os.path.relpath(other, target.resolve().parent)}{hash_}{anchor})"
