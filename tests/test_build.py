"""The build: what it runs again, what it refuses to publish, kills and two builds at once."""

import signal
import time

import pytest
from project import Project, eventually, printed

BUILD = "book/build.py"


def pages(project: Project) -> dict[str, bytes]:
    """Return the content of the book, apart from the notebooks' copies with their run times."""
    html = project.root / "_build" / "html"
    kinds = (".html", ".js", ".css")
    return {str(p.relative_to(html)): p.read_bytes() for p in html.rglob("*") if p.suffix in kinds}


def test_only_what_changed_is_done_again(project: Project) -> None:
    project.add("one", "print(1)")
    project.add("two", "print(2)")
    code, output = project.call(BUILD)
    assert code == 0, output
    assert "index.html" in output
    first = pages(project)

    started = time.monotonic()
    assert "done in" not in project.call(BUILD)[1]
    assert time.monotonic() - started < 10
    assert pages(project) == first

    project.add("two", "print(22)")
    output = project.call(BUILD)[1]
    assert "two: done in" in output
    assert "one: done in" not in output
    assert printed(project.executed("two")) == "22\n"

    project.write("stabcore/code.py", "answer = 43\n")
    output = project.call(BUILD)[1]
    assert "one: done in" in output
    assert "two: done in" in output


def test_a_failing_notebook_publishes_nothing(project: Project) -> None:
    project.add("one", "print(1)")
    assert project.call(BUILD)[0] == 0
    first = pages(project)
    project.add("one", "raise ValueError('too steep')")
    code, output = project.call(BUILD)
    assert code == 1
    assert "one.ipynb: cell 3: ValueError: too steep" in output
    assert pages(project) == first


def test_a_warning_publishes_nothing(project: Project) -> None:
    project.write("book/index.md", "# A tiny book\n\nSee {doc}`nowhere`.\n")
    code, output = project.call(BUILD)
    assert code == 1
    assert "nowhere" in output
    assert not (project.root / "_build" / "html").exists()


def test_the_working_tree_stays_as_it_was(project: Project) -> None:
    def tree() -> dict[str, bytes]:
        files = (p for p in project.root.rglob("*") if p.is_file())
        made = {"_build", "__pycache__"}
        return {str(p): p.read_bytes() for p in files if not made & set(p.parts)}

    project.add("one", "print(1)")
    before = tree()
    assert project.call(BUILD)[0] == 0
    assert tree() == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_build_is_made_good_by_the_next(project: Project, number: int) -> None:
    project.add("one", "print(1)")
    assert project.call(BUILD)[0] == 0
    wanted = pages(project)
    (project.root / "_build").rename(project.root / "aside")

    # Once while the notebook runs, once while the pages are made, once at the rename.
    build = project.root / "_build"
    moments = (
        lambda: build.exists(),
        lambda: any(build.glob("building-*")),
        lambda: any(build.glob("building-*/_build/html/searchindex.js")),
    )
    for moment in moments:
        process = project.start(BUILD)
        assert eventually(moment)
        process.send_signal(number)
        process.communicate(timeout=60)
    code, output = project.call(BUILD)
    assert code == 0, output
    assert pages(project) == wanted


def test_two_builds_at_once(project: Project) -> None:
    project.add("one", "print(1)")
    first = project.start(BUILD)
    assert eventually((project.root / "_build" / ".lock").exists)
    second = project.start(BUILD)
    outputs = [process.communicate(timeout=120)[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outputs
    assert sum("waiting" in output for output in outputs) == 1
    assert "".join(outputs).count("one: done in") == 1
    assert "index.html" in pages(project)


def test_a_failed_build_leaves_nothing_behind(project: Project) -> None:
    project.write("book/index.md", "# A tiny book\n\nSee {doc}`nowhere`.\n")
    assert project.call(BUILD)[0] == 1
    assert not list((project.root / "_build").glob("building-*"))


def test_a_page_edited_during_the_build_is_noticed(project: Project) -> None:
    """As a slow page would, a Sphinx extension edits a page while the pages are being made."""
    (project.root / "book/_ext").mkdir()
    index = project.root / "book" / "index.md"
    project.write("book/_ext/editor.py", EDITOR.replace("PAGE", repr(str(index))))
    project.write("_config.yml", (project.root / "_config.yml").read_text() + EXTENSION)
    code, output = project.call(BUILD)
    assert code == 1, output
    assert "Sources changed during the build; run it again." in output
    assert not (project.root / "_build" / "html").exists()
    code, output = project.call(BUILD)
    assert code == 0, output
    assert "Edited." in (project.root / "_build/html/book/index.html").read_text(encoding="utf-8")


EDITOR = """
import pathlib

def edit(app, _):
    page = pathlib.Path(PAGE)
    if "Edited." not in page.read_text():
        page.write_text(page.read_text() + "\\nEdited.\\n")

def setup(app):
    app.connect("build-finished", edit)
"""
EXTENSION = """
sphinx:
  local_extensions: {editor: book/_ext}
"""


def test_an_executed_copy_changed_by_hand_is_run_again(project: Project) -> None:
    project.add("one", "print(40 + 2)")
    assert project.call(BUILD)[0] == 0
    copy = project.executed("one")
    copy.write_text(copy.read_text(encoding="utf-8").replace('"42', '"43'), encoding="utf-8")
    assert printed(copy) == "43\n"
    code, output = project.call(BUILD)
    assert code == 0, output
    assert "one: done in" in output
    assert printed(copy) == "42\n"


def test_an_executed_copy_that_was_cut_short_is_run_again(project: Project) -> None:
    project.add("one", "print(1)")
    assert project.call(BUILD)[0] == 0
    copy = project.executed("one")
    content = copy.read_bytes()
    for part in (content[: len(content) // 2], b"", b"[]"):
        copy.write_bytes(part)
        code, output = project.call(BUILD)
        assert code == 0, output
        assert printed(copy) == "1\n"


def test_pages_that_were_lost_or_overwritten_come_back(project: Project) -> None:
    assert project.call(BUILD)[0] == 0
    first = pages(project)
    html = project.root / "_build" / "html"
    (html / "book" / "index.html").write_text("overwritten", encoding="utf-8")
    assert project.call(BUILD)[0] == 0
    assert pages(project) == first
    (html / "book" / "index.html").unlink()
    assert project.call(BUILD)[0] == 0
    assert pages(project) == first


def test_a_module_beside_the_notebooks_is_followed(project: Project) -> None:
    project.write("notebooks/helpers.py", "answer = 1\n")
    project.add("one", "import helpers", "print(helpers.answer)")
    assert project.call(BUILD)[0] == 0
    project.write("notebooks/helpers.py", "answer = 2\n")
    assert "one: done in" in project.call(BUILD)[1]
    assert printed(project.executed("one")) == "2\n"


@pytest.mark.parametrize("name", ["requirements.lock", "notebooks/one.ipynb"])
def test_what_is_missing_or_broken_is_said_in_one_sentence(project: Project, name: str) -> None:
    project.add("one", "print(1)")
    if name.endswith("lock"):
        (project.root / name).unlink()
    else:
        project.write(name, "{")
    code, output = project.call(BUILD)
    assert code == 1
    assert "Traceback" not in output
    assert name.rpartition("/")[2] in output
    assert "git checkout" in output
    assert "The book was not built." in output
