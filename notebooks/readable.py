"""A notebook outside the book: what only the book understands becomes words.

The book's pages are written in MyST. Jupyter shows its roles and directives as they are typed:
`{glue:text}` instead of a number, `{cite:t}` instead of a name. `readable` resolves them from what
the notebook itself contains, its outputs and labels, and from the bibliography. `standalone` keeps
MyST, for a book of this one page, and resolves what leads to other pages.
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
WORDS_OF_LINK = re.compile(r"\[([^\]]*)\]\((?!\w+:|#)[^)\s]+\)")
LABEL = re.compile(r"^\(([\w-]+)\)=$|^:(?:label|name): *(\S+)$|^\$\$ *\(([\w-]+)\)", re.MULTILINE)
REFERENCES = ("doc", "eq", "numref", "prf:ref", "ref", "term")
OPENING = re.compile(r"^(:{3,})\{([\w:-]+)\}\s*(.*)$")
OPTION = re.compile(r"^:\w+:")


def readable(node: NotebookNode, source: Path, target: Path | None = None) -> NotebookNode:
    """Return an executed notebook in plain Markdown.

    Parameters
    ----------
    node : NotebookNode
        As executed.
    source : Path
        Where it comes from.
    target : Path, optional
        Where it will lie; links to other pages are turned accordingly. Without it nobody knows, and
        such a link becomes its words.

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
            cell.source = _turned(cell.source, source, target) if target else _links(cell.source)
        elif figure := _figure(cell):
            caption = _inline(figure.get("caption", ""), roles)
            text = f"*Figure {figures[figure['name']]}.* {caption}"
            cells.append(nbformat.v4.new_markdown_cell(text, id=f"{cell.id}-caption"[-64:]))
    result.cells = cells
    return result


def standalone(node: NotebookNode) -> NotebookNode:
    """Return a notebook, in MyST as it is, that refers to nothing outside itself.

    Returns
    -------
    NotebookNode
        References and links to other pages of the book are words; citations stay.
    """
    result = deepcopy(node)
    texts = [cell for cell in result.cells if cell.cell_type == "markdown"]
    inside = set(_figures(result))
    for cell in texts:
        inside |= {name for found in LABEL.findall(cell.source) for name in found if name}
    roles = {name: made for name, made in _roles({}, {}, {}).items() if name in REFERENCES}

    def resolved(role: re.Match[str]) -> str:
        if role[1] not in REFERENCES or _named(role[2]) in inside:
            return role[0]
        return roles[role[1]](role[2])

    for cell in texts:
        cell.source = _links(ROLE.sub(resolved, cell.source))
    return result


def _named(text: str) -> str:
    """Return the target of `words <target>`."""
    return text.rpartition("<")[2].rstrip(">").strip()


def _links(text: str) -> str:
    """Turn links to other pages into their words, titles into italics."""
    return WORDS_OF_LINK.sub(
        lambda link: f"*{link[1]}*" if link[1][:1].isupper() else link[1], text
    )


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
        "doc": _title,
        "term": _title,
        "index": lambda text: _title(text).lstrip("!"),
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


def _turned(text: str, source: Path, target: Path) -> str:
    """Turn links to other pages of the book to where the notebook will lie."""

    def turned(link: re.Match[str]) -> str:
        path, hash_, anchor = link[1].partition("#")
        other = (source.parent / path).resolve()
        if not other.is_file():
            return link[0]
        return f"]({os.path.relpath(other, target.resolve().parent)}{hash_}{anchor})"

    return LINK.sub(turned, text)
