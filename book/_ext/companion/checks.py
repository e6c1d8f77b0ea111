"""Each row of a page's table of checks leads to the section whose code made it."""

import re

from docutils import nodes
from sphinx.application import Sphinx

ROW = re.compile(r'(<tr data-check="([^"]*)"><td>)(.*?)(</td>)')
CALL = re.compile(r'checks\.(?:close|holds|sigma|states)\(\s*f?"([^"]+)"')


def link_checks(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Link the rows of the tables of checks of a page."""
    tables = [raw for raw in doctree.findall(nodes.raw) if "data-check=" in raw.astext()]
    if not tables:
        return
    sections = _sections(doctree)

    def linked(row: re.Match[str]) -> str:
        start, name, claim, end = row.groups()
        anchor = next((anchor for made, anchor in sections if made.fullmatch(name)), None)
        return f'{start}<a href="#{anchor}">{claim}</a>{end}' if anchor else row.group()

    for raw in tables:
        text = ROW.sub(linked, raw.astext())
        raw.parent.replace(raw, nodes.raw(text, text, **raw.attributes))


def made_by(code: str) -> list[re.Pattern[str]]:
    """Return what the names of the checks that some code makes look like, f-strings too."""
    names = map(re.escape, CALL.findall(code))
    return [re.compile(re.sub(r"\\\{.*?\\\}", ".+", name)) for name in names]


def _sections(doctree: nodes.document) -> list[tuple[re.Pattern[str], str]]:
    """Return what the names of the checks look like, and the anchors of their sections."""
    return [
        (made, section["ids"][0])
        for section in doctree.findall(nodes.section)
        for block in section.children
        for code in block.findall(nodes.literal_block)
        if not isinstance(block, nodes.section)
        for made in made_by(code.astext())
    ]
