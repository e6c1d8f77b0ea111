"""A rerun as one page in the style of the book: it opens from the disk and loads nothing else.

Jupyter Book builds the executed notebook as a book of one page, with the settings of `_config.yml`.
Then everything that the page loads (styles, scripts, fonts, pictures) is written into it.
"""

import base64
import html
import mimetypes
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import nbformat
from nbformat import NotebookNode

from readable import standalone

ROOT = Path(__file__).resolve().parents[1]
# What leads to other pages, or to the file that the page is made from.
THEME: dict[str, object] = {
    "article_header_start": [],
    "disable_search": True,
    "repository_url": "",
    "show_prev_next": False,
    "use_download_button": False,
}
SPHINX: dict[str, object] = {
    "html_copy_source": False,
    "html_domain_indices": False,
    "html_sidebars": {"**": []},
    "html_use_index": False,
    "html_use_opensearch": "",
    "templates_path": ["templates"],
}
EMPTY = ("search-button.html",)  # templates of the theme: there is nothing to search
# Those of the search; and the icons, which the style sheet draws with a font, far smaller.
DROPPED = ("searchtools.js", "language_data.js", "searchindex.js", "fontawesome.js")
REFERENCES = "## References\n\n```{bibliography}\n:filter: docname in docnames\n:style: plain\n```"

ATTRIBUTE = re.compile(r"""([\w-]+)=(["'])(.*?)\2""", re.DOTALL)
LINK = re.compile(r"<link\b[^>]*>")
SCRIPT = re.compile(r"(<script\b[^>]*>)(.*?)</script>", re.DOTALL)
PICTURE = re.compile(r"""(<img\b[^>]*?\ssrc=)(["'])(.*?)\2""", re.DOTALL)
ENLARGE = re.compile(r'(<a class="enlarge" href=)"[^"]*"')
ADDRESS = re.compile(r"""url\((["']?)(?!data:)([^"')]+)\1\)""")
IMPORT = re.compile(r"""@import\s+(?:url\()?(["'])([^"']+)\1\)?;""")
# The theme's icons: no page uses these two fonts, and no browser the older format of the third.
UNUSED_FONTS = re.compile(r"""@font-face\{[^}]*/fa-(?:brands|regular)-[^}]*\}""")
OLDER_FORMAT = re.compile(r""",url\([^)]*\.ttf\) format\("truetype"\)""")
SOURCE_MAP = re.compile(r"(?:/\*|//)# sourceMappingURL=[^\s*]*(?: *\*/)?")
MATHJAX_FONT = re.compile(r"%%URL%%/([\w-]+\.woff)")


class PageError(RuntimeError):
    """Why an executed notebook could not be made a page."""


def page(node: NotebookNode, source: Path, published: Mapping[str, object]) -> str:
    """Return an executed notebook as one page of HTML that needs no other file.

    Parameters
    ----------
    node : NotebookNode
        As executed, with the stamp of its run.
    source : Path
        The notebook of the book.
    published : mapping
        The parameters of the book, to tell which were changed.

    Returns
    -------
    str

    Raises
    ------
    PageError
        If Jupyter Book fails.
    """
    text = standalone(node)
    stamp = node.metadata.companion
    _announce(text, banner(stamp["parameters"], published, stamp["versions"]))
    if any("{cite:" in cell.source for cell in text.cells if cell.cell_type == "markdown"):
        text.cells.append(nbformat.v4.new_markdown_cell(REFERENCES, id="references"))
    with tempfile.TemporaryDirectory() as folder:
        return inlined(_build(text, source.stem, Path(folder)))


def banner(
    used: Mapping[str, object], published: Mapping[str, object], versions: Mapping[str, str]
) -> str:
    """Say in Markdown which parameters a page was computed with.

    Returns
    -------
    str
        Those that differ from the book, one a line, and then the others.
    """
    changed = [name for name in used if used[name] != published.get(name)]
    same = [f"`{name} = {used[name]!r}`" for name in used if name not in changed]
    lines = [":::{admonition} A rerun " + ("with other parameters" if changed else "as published")]
    lines += [
        f"* `{name} = {used[name]!r}`, in the book `{published.get(name)!r}`" for name in changed
    ]
    if same:
        lines += ["", f"As in the book: {', '.join(same)}."]
    with_ = ", ".join(f"{name} {version}" for name, version in versions.items())
    return "\n".join([*lines, "", f"Computed with {with_}.", ":::"])


def _announce(node: NotebookNode, text: str) -> None:
    """Insert a text below the title."""
    first = node.cells[0]
    if first.cell_type == "markdown" and first.source.startswith("# "):
        title, _, rest = first.source.partition("\n")
        first.source = f"{title}\n\n{text}\n{rest}"
    else:
        node.cells.insert(0, nbformat.v4.new_markdown_cell(text, id="parameters-used"))


# --- A book of one page ---------------------------------------------------------------------------


def _build(node: NotebookNode, name: str, folder: Path) -> Path:
    """Build a book of one page and return that page."""
    import yaml

    for part in ("notebooks", "templates"):
        (folder / part).mkdir()
    for template in EMPTY:
        (folder / "templates" / template).touch()
    (folder / "book").symlink_to(ROOT / "book", target_is_directory=True)
    nbformat.write(node, folder / "notebooks" / f"{name}.ipynb")
    contents = yaml.safe_dump({"format": "jb-book", "root": f"notebooks/{name}"})
    (folder / "_toc.yml").write_text(contents, encoding="utf-8")
    config = _of_one_page(yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8")))
    (folder / "_config.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    result = subprocess.run(
        [Path(sys.executable).with_name("jupyter-book"), "build", "-q", folder],
        env={name: value for name, value in os.environ.items() if "COMPANION" not in name},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    built = folder / "_build" / "html" / "notebooks" / f"{name}.html"
    if result.returncode or not built.is_file():
        raise PageError(f"Jupyter Book could not make the page:\n{result.stdout.strip()}")
    return built


def _of_one_page(config: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the book without what needs its other pages."""
    sphinx = config.setdefault("sphinx", {}).setdefault("config", {})
    sphinx |= SPHINX | {"html_theme_options": sphinx.get("html_theme_options", {}) | THEME}
    config.pop("launch_buttons", None)
    return config


# --- One file -------------------------------------------------------------------------------------


def inlined(path: Path) -> str:
    """Return a page with everything that it loads written into it.

    Returns
    -------
    str
    """
    text = path.read_text(encoding="utf-8")
    late: list[str] = []  # scripts that run when the page is complete
    # Scripts last: their text may contain what looks like a picture or a link.
    text = PICTURE.sub(lambda tag: f'{tag[1]}"{_data(path.parent, html.unescape(tag[3]))}"', text)
    text = ENLARGE.sub(r'\1"#"', text)  # the script shows the picture that is in the page
    text = LINK.sub(lambda tag: _link(tag[0], path.parent), text)
    text = SCRIPT.sub(lambda script: _script(script, path.parent, late), text)
    body, end, rest = text.rpartition("</body>")
    return "".join([body, *late, end, rest])


def _link(tag: str, folder: Path) -> str:
    """Return what stands for a <link>: the style sheet, the icon, or nothing."""
    attributes = _attributes(tag)
    if attributes.get("rel") == "stylesheet":
        media = f' media="{attributes["media"]}"' if "media" in attributes else ""
        return f"<style{media}>\n{_sheet(_file(folder, attributes['href']))}\n</style>"
    if "icon" in attributes.get("rel", ""):
        return f'<link rel="icon" href="{_data(folder, attributes["href"])}">'
    return ""


def _script(script: re.Match[str], folder: Path, late: list[str]) -> str:
    """Return a script with its source inside; one that is deferred goes to the end of the page."""
    attributes = _attributes(script[1])
    if "src" not in attributes:
        return script[0]
    source = _file(folder, attributes.pop("src"))
    if source.name in DROPPED:
        return ""
    content = source.read_text(encoding="utf-8").replace("</script", r"<\/script")
    fonts = source.parent / "output" / "chtml" / "fonts" / "woff-v2"
    content = SOURCE_MAP.sub("", content)
    content = MATHJAX_FONT.sub(lambda font: _encoded(fonts / font[1]), content)
    deferred = re.search(r"\sdefer\b", script[1])
    kept = "".join(f' {name}="{value}"' for name, value in attributes.items() if name != "defer")
    result = f"<script{kept}>\n{content}\n</script>"
    if not deferred:
        return result
    late.append(result)
    return ""


def _sheet(path: Path) -> str:
    """Return a style sheet with what it imports and loads inside."""
    text = UNUSED_FONTS.sub("", path.read_text(encoding="utf-8"))
    text = OLDER_FORMAT.sub("", text)
    text = SOURCE_MAP.sub("", text)
    text = IMPORT.sub(lambda found: _sheet(_file(path.parent, found[2])), text)
    return ADDRESS.sub(lambda found: f'url("{_data(path.parent, found[2])}")', text)


def _attributes(tag: str) -> dict[str, str]:
    return {name: html.unescape(value) for name, _, value in ATTRIBUTE.findall(tag)}


def _file(folder: Path, address: str) -> Path:
    """Return the file of an address as a page or a style sheet in `folder` gives it."""
    return folder / unquote(urlsplit(address).path)


def _data(folder: Path, address: str) -> str:
    """Return an address that contains the file; what is elsewhere already stays."""
    return address if urlsplit(address).scheme else _encoded(_file(folder, address))


def _encoded(path: Path) -> str:
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
