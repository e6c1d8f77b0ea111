"""Who imports whom in `stabcore`: `python tools/import_graph.py` draws `book/figures/imports.svg`.

The folders of the package form layers, and arrows run one way. `tests/test_imports.py` reads the
imports with the functions of this file and refuses an arrow that runs back; the picture in
CONTRIBUTING.md is drawn from the same arrows, so that it cannot show anything else.
"""

import ast
import re
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "stabcore"
PICTURE = ROOT / "book" / "figures" / "imports.svg"
BASE = "base"  # the modules that lie beside the folders
# From below to above: a part may import what is in a row below its own, and nothing else.
ROWS = (
    (BASE,),
    ("problems",),
    ("lyapunov", "simulation"),
    ("minima", "descent", "saddles", "networks"),
    ("companion",),
)
# Beyond the rule of the rows: a simulation shares no code with the predictions it tests.
NEVER = {("minima", "simulation"), ("descent", "simulation"), ("saddles", "simulation")}
WIDTH, HEIGHT, GAP = 168, 44, 66  # of a box, and between rows, in pixels


def part_of(module: str) -> str:
    """Return the folder of a module of the package, or `BASE`."""
    names = module.split(".")
    return names[1] if len(names) > 1 and (PACKAGE / names[1]).is_dir() else BASE


def imports_of(path: Path) -> set[str]:
    """Return the modules of the package that a file imports, at the top or inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] == PACKAGE.name}


def sources() -> dict[str, Path]:
    """Return the modules of the package and their files, without the map at the top."""
    paths = (path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(paths)
    }


def arrows() -> set[tuple[str, str]]:
    """Return (part, part that it imports) for all parts of the package."""
    return {
        (part_of(module), part_of(imported))
        for module, path in sources().items()
        for imported in imports_of(path)
        if part_of(module) != part_of(imported)
    }


def allowed(part: str, imported: str) -> bool:
    """Return whether the plan has an arrow from one part to another."""
    level = {name: row for row, names in enumerate(ROWS) for name in names}
    return level[imported] < level[part] and (part, imported) not in NEVER


def drawn_arrows(text: str) -> set[tuple[str, str]]:
    """Return the arrows that a picture says it shows."""
    pairs = (tuple(pair.split(" to ")) for pair in re.findall(r"<title>(.+?)</title>", text)[1:])
    return {(first, second) for first, second in pairs}


def shown(edges: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return the arrows that are not implied by longer ways."""
    return {
        (one, other)
        for one, other in edges
        if not any((one, middle) in edges and (middle, other) in edges for _, middle in edges)
    }


def passages(
    place: dict[str, tuple[float, float]], start: tuple[float, float], end: tuple[float, float]
) -> list[tuple[float, float]]:
    """Return where an arrow passes the rows between its ends, beside their boxes."""
    found = []
    for level in sorted({y for _, y in place.values() if start[1] < y < end[1]}):
        boxes = sorted(x for x, y in place.values() if y == level)
        side = WIDTH / 2 + 12
        gaps = [boxes[0] - side, *(x + side for x in boxes)]
        straight = start[0] + (end[0] - start[0]) * (level - start[1]) / (end[1] - start[1])
        found.append((min(gaps, key=lambda gap: abs(gap - straight)), level))
    return found


def picture() -> str:
    """Return the graph as SVG: a box for each part, arrows to what it imports."""
    widest = max(map(len, ROWS))
    width = widest * (WIDTH + 24) + 24
    height = len(ROWS) * (HEIGHT + GAP) - GAP + 48
    place = {
        name: (
            width / 2 + (column - (len(names) - 1) / 2) * (WIDTH + 24),
            height - 24 - HEIGHT / 2 - row * (HEIGHT + GAP),
        )
        for row, names in enumerate(ROWS)
        for column, name in enumerate(names)
    }
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="sans-serif" font-size="15">',
        "<title>The parts of stabcore and what they import</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" '
        'markerHeight="8" orient="auto"><path d="M0 0L10 5L0 10z" fill="#3c4650"/></marker></defs>',
    ]
    for one, other in sorted(shown(arrows())):
        (x, y), (u, v) = place[one], place[other]
        bends = "".join(
            f"L{gap:g} {level - HEIGHT / 2 - 6:g}L{gap:g} {level + HEIGHT / 2 + 6:g}"
            for gap, level in passages(place, (x, y), (u, v))
        )
        lines.append(
            f'<path d="M{x:g} {y + HEIGHT / 2:g}{bends}L{u:g} {v - HEIGHT / 2 - 3:g}" fill="none" '
            f'stroke="#3c4650" stroke-width="1.4" marker-end="url(#tip)">'
            f"<title>{one} to {other}</title></path>"
        )
    for name, (x, y) in place.items():
        label = "sampling, …" if name == BASE else f"{name}/"
        lines.append(
            f'<rect x="{x - WIDTH / 2:g}" y="{y - HEIGHT / 2:g}" width="{WIDTH}" '
            f'height="{HEIGHT}" rx="6" fill="#eef3f8" stroke="#3c4650"/>'
            f'<text x="{x:g}" y="{y + 5:g}" text-anchor="middle" fill="#111820">'
            f"{escape(label)}</text>"
        )
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
    print(f"drawn: {PICTURE.relative_to(ROOT)}")
