"""Docstrings are written for readers of the code; here they become reStructuredText.

* |x| is an absolute value, not a substitution.
* A word in backticks is a link if it is one of our names, and code otherwise.
* "A: b" in the docstring of an attribute is no type, and "B." at the start of a line no list.
"""

import re

from sphinx.application import Sphinx

from .package import target_of

# Quoted text, whose bars are safe, and roles.
QUOTED = re.compile(r"(``.+?``|:[\w:]+:`.+?`|`.+?`)")
ENUMERATED = re.compile(r"^(\s*)([A-Za-zΑ-Ωα-ω])(\.\s|\.$)")


def to_markup(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Rewrite the lines of a docstring in place, before napoleon reads its sections.

    Doctests, from their prompt to the next empty line, are shown as they are.
    """
    doctest = False
    for number, line in enumerate(lines):
        doctest = line.lstrip().startswith(">>>") or (doctest and bool(line.strip()))
        if not doctest:
            lines[number] = _prose(line)
    if what in ("attribute", "property") and lines and lines[0]:
        lines.insert(0, "")  # napoleon takes what precedes a colon in the first line for a type


def _prose(line: str) -> str:
    """Return a line outside doctests as reStructuredText."""
    parts = QUOTED.split(ENUMERATED.sub(r"\1\\\2\3", line))
    parts[::2] = [part.replace("|", r"\|") for part in parts[::2]]
    parts[1::2] = [_quoted(part) for part in parts[1::2]]
    return "".join(parts)


def _quoted(part: str) -> str:
    """Return a link for one of our names, and code for any other word in backticks."""
    if part.startswith(("``", ":")):
        return part
    word = part.strip("`")
    target = target_of(word)
    return f"``{word}``" if target is None else f":py:obj:`{word} <{target}>`"
