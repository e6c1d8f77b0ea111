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
