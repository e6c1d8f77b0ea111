"""Docstrings are written for readers of the code: |x| in them is an absolute value."""

import re

from sphinx.application import Sphinx

# Quoted text, whose bars are safe.
QUOTED = re.compile(r"(``.+?``|`.+?`)")


def keep_bars(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Escape the bars of a docstring, which reStructuredText would take for a substitution.

    Doctests, from their prompt to the next empty line, are shown as they are.
    """
    doctest = False
    for number, line in enumerate(lines):
        doctest = line.lstrip().startswith(">>>") or (doctest and bool(line.strip()))
        if not doctest:
            parts = QUOTED.split(line)
            parts[::2] = [part.replace("|", r"\|") for part in parts[::2]]
            lines[number] = "".join(parts)
