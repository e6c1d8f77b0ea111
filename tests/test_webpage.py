"""A rerun as one page: it names its parameters and loads nothing, and nothing half-made stays."""

import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_markdown_cell
from project import ROOT, Project, read

from webpage import banner, inlined

TEXT = """\
(part)=
## Part

The size is {glue:text}`size`; see {cite:t}`chemnitz2025`, {eq}`eq-a`, {term}`minimum` and the page
[Other](other.ipynb).

$$
a^2
$$ (eq-a)

:::{prf:theorem} On steps
:label: thm-steps
It holds.
:::
"""
# What a browser loads by itself, and links to other files.
LOADED = re.compile(r"""<(?:link|script|img)\b[^>]*?\s(?:src|href)=["'](?!data:)([^"']*)""")
LEADS = re.compile(r"""<a\b[^>]*\shref=["'](?!#|https:|javascript:)([^"']*)""")


@pytest.fixture
def book(project: Project) -> Project:
    """Return a project with the settings of the book and a notebook."""
    for name in ("_config.yml", "book/references.bib"):
        shutil.copy(ROOT / name, project.root / name)
    for name in ("book/_ext", "book/_static"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, project.root / name, ignore=ignored)
    path = project.add(
        "good", "from myst_nb import glue\nglue('size', f'{size:.2f}', display=False)"
    )
    node = read(path)
    node.cells.append(new_markdown_cell(TEXT, id="text"))
    nbformat.write(node, path)
    return project


def test_a_rerun_is_one_page_that_needs_no_other_file(book: Project) -> None:
    target = book.root / "new" / "mine.html"
    code, output = book.call("notebooks/run.py", "good", "-p", "size", "2", "-o", str(target))
    assert code == 0, output
    assert output.splitlines()[-1] == str(target)
    assert list(target.parent.iterdir()) == [target]
    text = target.read_text(encoding="utf-8")
    changed = text[text.index("A rerun with other parameters") :].partition("</ul>")[0]
    words = re.sub(r"<[^>]*>", "", changed).split()
    assert " ".join(words).endswith("size = 2.0, in the book 0.5")
    assert re.search(r"The size is\s+<span[^>]*>2\.00</span>", text)
    assert "Chemnitz and Engel" in text
    assert "Characterizing dynamical stability" in text
    assert "<em>Other</em>" in text
    assert 'href="#equation-eq-a"' in text
    assert not re.search(
        r"\{(?:glue|cite|term|eq)|:::", re.sub(r"(?s)<script.*?</script>", "", text)
    )
    assert not LOADED.findall(text)
    assert not LEADS.findall(text)


def test_a_page_that_cannot_be_made_says_why_and_leaves_the_old_one(book: Project) -> None:
    target = book.root / "mine.html"
    target.write_text("of an earlier run", encoding="utf-8")
    book.write("book/_ext/companion/__init__.py", "raise ValueError('no extension today')\n")
    code, output = book.call("notebooks/run.py", "good", "-o", "mine.html")
    assert code == 1
    assert "good.ipynb: Jupyter Book could not make the page" in output
    assert "no extension today" in output
    assert target.read_text(encoding="utf-8") == "of an earlier run"
    assert [path.name for path in book.root.glob("*mine*")] == ["mine.html"]


def test_the_banner_says_which_parameters_were_changed() -> None:
    published = {"step": 0.5, "sizes": [1, 2], "law": "a"}
    found = banner({"step": 2.0, "sizes": [1, 2], "law": "b"}, published, {"python": "3.11"})
    assert found.splitlines() == [
        ":::{admonition} A rerun with other parameters",
        "* `step = 2.0`, in the book `0.5`",
        "* `law = 'b'`, in the book `'a'`",
        "",
        "As in the book: `sizes = [1, 2]`.",
        "",
        "Computed with python 3.11.",
        ":::",
    ]
    assert banner(published, published, {}).startswith(":::{admonition} A rerun as published\n")


def test_what_a_page_loads_is_written_into_it(tmp_path: Path) -> None:
    files = {
        "_static/a.css": '@import "b.css";\nbody { background: url("c.svg") }',
        "_static/b.css": "p { color: red }\n/*# sourceMappingURL=b.css.map */",
        "_static/c.svg": "<svg/>",
        "_static/late.js": "late('<img src=\"none.png\">')\n//# sourceMappingURL=late.js.map",
        "_static/now.js": "now('</script>')",
        "pages/page.html": """
<head><link rel="stylesheet" href="../_static/a.css?v=1" /><link rel="next" href="other.html">
<script defer src="../_static/late.js"></script>
<script src="../_static/now.js"></script></head>
<body><img alt="x" src="../_static/c.svg"></body>""",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    picture = "data:image/svg+xml;base64,PHN2Zy8+"
    expected = f"""
<head><style> p {{ color: red }} body {{ background: url("{picture}") }} </style>
<script> now('<\\/script>') </script></head>
<body><img alt="x" src="{picture}"><script> late('<img src="none.png">') </script></body>"""
    assert inlined(tmp_path / "pages" / "page.html").split() == expected.split()
