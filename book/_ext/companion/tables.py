"""Build a table node by node: a MyST table could not hold a formula with a vertical bar."""

from collections.abc import Iterable, Sequence

from docutils import nodes


def table(
    head: Sequence[str], rows: Iterable[nodes.row | Sequence[list[nodes.Node]]]
) -> nodes.table:
    """Return a table with a head of plain text and rows that are nodes or lists of cells."""
    group = nodes.tgroup(cols=len(head))
    group += [nodes.colspec(colwidth=1) for _ in head]
    group += nodes.thead("", row([text(title) for title in head]))
    body = (one if isinstance(one, nodes.row) else row(one) for one in rows)
    group += nodes.tbody("", *body)
    # "colwidths-auto": the browser knows better than equal widths.
    return nodes.table("", group, classes=["colwidths-auto", "companion"])


def row(cells: Sequence[list[nodes.Node]]) -> nodes.row:
    """Return a row of cells."""
    return nodes.row("", *(nodes.entry("", *cell) for cell in cells))


def title_row(content: str, width: int) -> nodes.row:
    """Return a row whose only cell spans the table."""
    cell = nodes.entry("", nodes.paragraph("", "", nodes.emphasis("", content)), morecols=width - 1)
    return nodes.row("", cell)


def text(content: str) -> list[nodes.Node]:
    """Return a cell that holds plain text."""
    return [nodes.paragraph("", content)]
