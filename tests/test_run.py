"""The papermill runner: what it refuses, what it publishes, what a kill leaves behind."""

import errno
import math
import re
import signal
import time
from pathlib import Path

import pytest
from project import Project, eventually, printed, read

import run

EVERY_TYPE = """\
step_size: float = 0.15  # η
steps: int = 5
fast: bool = True
name: str = "relu"
grid: list[float] = [0.1, 0.2]
window: tuple[float, int] = (1.0, 2)
"""


@pytest.fixture
def notebook(project: Project) -> Path:
    return project.add("typed", "print(step_size)", parameters=EVERY_TYPE)


def test_parameters_are_read_from_the_tagged_cell(notebook: Path) -> None:
    found = run.parameters(notebook)
    assert list(found) == ["step_size", "steps", "fast", "name", "grid", "window"]
    assert str(found["step_size"]) == "step_size: float = 0.15  # η"
    assert found["window"].default == (1.0, 2)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("step_size", 1, 1.0),
        ("step_size", "0.3", 0.3),
        ("steps", "7", 7),
        ("fast", "False", False),
        ("name", "0.3", "0.3"),
        ("grid", "[1, 2.5]", [1.0, 2.5]),
        ("grid", (1, 2), [1.0, 2.0]),
        ("window", [0, 3], (0.0, 3)),
    ],
)
def test_values_take_their_declared_type(
    notebook: Path, name: str, value: object, expected: object
) -> None:
    checked = run.check(notebook, {name: value})
    assert checked == {name: expected}
    assert type(checked[name]) is type(expected)


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("stepsize", 0.3, "no parameter 'stepsize' (got 0.3); it has: step_size, steps"),
        ("stepsize", 0.3, "grid, window; did you mean step_size?"),
        ("step_size", True, "True is not of type float"),
        ("step_size", "large", "'large' is not of type float; give a float, such as 0.15"),
        ("step_size", math.nan, "not finite"),
        ("step_size", "inf", "not finite"),
        ("steps", 5.0, "5.0 is not of type int"),
        ("steps", True, "True is not of type int"),
        ("fast", 1, "1 is not of type bool"),
        ("name", 3, "3 is not of type str"),
        ("grid", 0.1, "0.1 is not of type list[float]"),
        ("grid", ["a"], "'a' is not of type float"),
        ("grid", [math.inf], "not finite"),
        ("window", (1.0, 2, 3), "3 entries"),
    ],
)
def test_wrong_values_are_refused_with_a_remedy(
    notebook: Path, name: str, value: object, complaint: str
) -> None:
    with pytest.raises(run.ParameterError) as error:
        run.check(notebook, {name: value})
    assert complaint in str(error.value)


def test_all_problems_are_reported_at_once(notebook: Path) -> None:
    with pytest.raises(run.ParameterError) as error:
        run.check(notebook, {"stepsize": 1, "steps": 0.5, "fast": "yes"})
    assert len(str(error.value).splitlines()) == 3


@pytest.mark.parametrize(
    "cell",
    [
        "size = 1",
        "size: float = 1 + eta",
        "size: array = 1",
        "size: int = 1.5",
        "import os",
        "size: float | None = 1.0",
        "size: list = [1]",
        # Annotations are read, never run.
        "size: ().__class__.__base__.__subclasses__()[0] = 1",
        "size: open('ran', 'w') = 1",
    ],
)
def test_the_parameters_cell_holds_annotated_literals_only(project: Project, cell: str) -> None:
    with pytest.raises(run.ParameterError, match="wrong"):
        run.parameters(project.add("wrong", parameters=cell))


def test_a_run_with_problems_starts_nothing(project: Project) -> None:
    project.add("good", "open('ran', 'w').close()")
    code, output = project.call("notebooks/run.py", "-p", "sise", "1", "-o", "out")
    assert code == 1
    assert "good has no parameter 'sise'" in output
    assert "Traceback" not in output
    assert not (project.root / "out").exists()
    assert not (project.root / "notebooks" / "ran").exists()
    output = project.call("notebooks/run.py", "god")[1]
    assert "no notebook 'god'; there are: good; did you mean good?" in output


def test_list_names_notebooks_and_parameters(project: Project) -> None:
    project.add("good")
    assert project.call("notebooks/run.py", "--list") == (
        0,
        "good\n    size: float = 0.5  # how big\n",
    )


def test_parameters_change_the_result(project: Project) -> None:
    source = project.add("good", "print(f'{size:.3f}')")
    before = source.read_bytes()
    # Papermill would format this path.
    target = project.root / "{size}" / "out.ipynb"
    code, output = project.call("notebooks/run.py", "good", "-p", "size", "2", "-o", str(target))
    assert code == 0, output
    assert printed(target) == "2.000\n"
    stamp = read(target).metadata.companion
    assert stamp.parameters == {"size": 2.0}
    assert set(stamp.versions) == {"python", "numpy", "scipy", "numba", "matplotlib", "stabcore"}
    assert list(target.parent.iterdir()) == [target]
    assert source.read_bytes() == before


def test_a_cell_that_hangs_is_stopped(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPANION_CELL_SECONDS", "2")
    project.add("slow", "import time; time.sleep(600)")
    code, output = project.call("notebooks/run.py", "-o", "out")
    assert code == 1
    assert "slow.ipynb: a cell ran longer than 2 seconds" in output
    assert "time.sleep(600)" in output
    assert "COMPANION_CELL_SECONDS" in output
    assert not (project.root / "out" / "slow.ipynb").exists()


def test_a_failure_names_notebook_cell_and_error(project: Project) -> None:
    project.add("bad", "print(1)", "raise ValueError('too steep')")
    project.add("good", "print(2)")
    old = project.root / "out" / "bad.ipynb"
    old.parent.mkdir()
    old.write_text("the result of an earlier run", encoding="utf-8")
    code, output = project.call("notebooks/run.py", "-o", "out")
    assert code == 1
    assert "bad.ipynb: cell 4: ValueError: too steep" in output
    assert old.read_text(encoding="utf-8") == "the result of an earlier run"
    assert printed(project.root / "out" / "good.ipynb") == "2\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_kill_leaves_neither_output_nor_kernel(project: Project, number: int) -> None:
    pulse = project.root / "pulse"
    beat = (
        f"import pathlib, time\nwhile True: pathlib.Path({str(pulse)!r}).touch(); time.sleep(.05)"
    )
    project.add("endless", beat)
    process = project.start("notebooks/run.py", "-o", "out")
    assert eventually(pulse.exists)
    process.send_signal(number)
    output, _ = process.communicate(timeout=30)
    assert process.returncode != 0
    assert "Traceback" not in output

    def still() -> bool:
        last = pulse.stat().st_mtime_ns
        time.sleep(0.5)
        return pulse.stat().st_mtime_ns == last

    assert eventually(still), "the kernel outlived its runner"
    assert not (project.root / "out").exists()


def test_refresh_is_reproducible(project: Project) -> None:
    source = project.add("good", "print(size)")
    assert project.call("notebooks/run.py", "--refresh")[0] == 0
    first = source.read_bytes()
    assert project.call("notebooks/run.py", "--refresh")[0] == 0
    assert source.read_bytes() == first
    assert printed(source) == "0.5\n"
    assert set(read(source).metadata.companion) == {"parameters", "versions"}
    assert str(project.root).encode() not in first


def test_the_key_follows_everything_a_result_depends_on(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "ROOT", project.root)
    source = project.add("good", "print(1)")
    keys = [run.key(source), run.key(source, {"size": 2.0})]
    project.write("stabcore/code.py", "answer = 43\n")
    keys.append(run.key(source))
    project.write("requirements.lock", "numpy==3\n")
    keys.append(run.key(source))
    project.add("good", "print(2)")
    keys.append(run.key(source))
    assert len(set(keys)) == len(keys)


def test_the_key_ignores_outputs_and_bytecode(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "ROOT", project.root)
    source = project.add("good", "print(1)")
    key = run.key(source)
    assert project.call("notebooks/run.py", "--refresh")[0] == 0
    (project.root / "stabcore" / "__pycache__").mkdir()
    project.write("stabcore/__pycache__/code.pyc", "x")
    assert run.key(source) == key


RANGED = """\
step: float = 0.5  # η, in (0, 2]
sizes: list[int] = [1, 4]  # in [1, 9], ascending, 2 to 3 entries
law: str = "a law"  # of the noise, one of "a law", "no law"; and more
"""


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("step", "0", r"0.0 is not in \(0, 2\]"),
        ("step", "2.5", r"2.5 is not in \(0, 2\]\); choose another, such as 0.5"),
        ("sizes", "[1, 12]", r"12 is not in \[1, 9\]"),
        ("sizes", "[4]", "it has 1 and not 2 to 3 entries"),
        ("sizes", "[1, 2, 3, 4]", "it has 4 and not 2 to 3 entries"),
        ("sizes", "[4, 4]", "it is not ascending"),
        ("law", "a", 'it is not one of "a law", "no law"'),
    ],
)
def test_values_outside_their_range_are_refused(
    project: Project, name: str, value: str, complaint: str
) -> None:
    path = project.add("ranged", parameters=RANGED)
    with pytest.raises(
        run.ParameterError, match=f"ranged: {name} = .* outside its range .*{complaint}"
    ):
        run.check(path, {name: value})


def test_the_ends_of_a_range_belong_to_it_as_it_says(project: Project) -> None:
    path = project.add("ranged", parameters=RANGED)
    given = {"step": "2", "sizes": "[1, 5, 9]", "law": "no law"}
    assert run.check(path, given) == {"step": 2.0, "sizes": [1, 5, 9], "law": "no law"}


def test_entries_and_comments_in_the_lines_above(project: Project) -> None:
    text = "# of the map,\n# in (0, ∞), 2 entries\npair: list[float] = [1.0, 2.0]\nfree: int = 3"
    path = project.add("above", parameters=text)
    assert run.parameters(path)["pair"].comment == "of the map, in (0, ∞), 2 entries"
    assert run.parameters(path)["free"].comment == ""
    assert run.check(path, {"pair": "[1e300, 1]", "free": "-5"})
    for wrong in ("[0.0, 1.0]", "[1.0]"):
        with pytest.raises(run.ParameterError, match="outside its range"):
            run.check(path, {"pair": wrong})


def test_a_published_value_outside_its_own_range_is_refused(project: Project) -> None:
    path = project.add("odd", parameters="step: float = 3.0  # in (0, 2]")
    with pytest.raises(
        run.ParameterError, match=r"published step = 3.0 contradicts its own comment"
    ):
        run.parameters(path)


@pytest.mark.parametrize("name", run.notebooks())
def test_every_parameter_of_a_notebook_has_a_range(name: str) -> None:
    for parameter in run.parameters(run.notebooks()[name]).values():
        stated = run.CHOICES if "str" in parameter.annotation else run.INTERVAL
        assert stated.search(parameter.comment), parameter


def lines(output: str) -> list[str]:
    return [
        line for line in output.splitlines() if line and "%|" not in line and "it/s" not in line
    ]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [("{", "is no notebook"), ("[1, 2]", "is no notebook"), ("", "is no notebook")],
)
def test_a_broken_notebook_is_named_in_one_sentence(
    project: Project, content: str, complaint: str
) -> None:
    project.write("notebooks/broken.ipynb", content)
    code, output = project.call("notebooks/run.py", "broken", "-o", "out")
    assert code == 1
    (line,) = lines(output)
    assert "broken.ipynb" in line
    assert complaint in line
    assert "git checkout" in line
    assert not (project.root / "out").exists()


def test_a_syntax_error_in_the_parameters_cell_is_named(project: Project) -> None:
    project.add("wrong", parameters="size: float = = 0.5")
    code, output = project.call("notebooks/run.py", "wrong")
    assert code == 1
    (line,) = lines(output)
    assert "wrong.ipynb: the parameters cell is no Python" in line
    assert "line 1" in line


def test_missing_pins_are_named(project: Project) -> None:
    project.add("good", "print(1)")
    (project.root / "requirements.lock").unlink()
    code, output = project.call("notebooks/run.py", "good")
    assert code == 1
    assert "requirements.lock is missing; restore it" in output
    assert "Traceback" not in output


def test_a_read_only_target_is_not_overwritten(project: Project) -> None:
    project.add("good", "print(1)")
    target = project.root / "mine.ipynb"
    target.write_text("precious", encoding="utf-8")
    target.chmod(0o444)
    code, output = project.call("notebooks/run.py", "good", "-o", "mine.ipynb")
    assert code == 1
    (line,) = lines(output)
    assert "mine.ipynb is read-only; choose another place with -o" in line
    assert target.read_text(encoding="utf-8") == "precious"


def test_a_folder_that_cannot_be_written_is_named_before_anything_runs(project: Project) -> None:
    project.add("good", "print(1)")
    folder = project.root / "locked"
    folder.mkdir()
    folder.chmod(0o555)
    code, output = project.call("notebooks/run.py", "good", "-o", "locked/inner")
    folder.chmod(0o755)
    assert code == 1
    (line,) = lines(output)
    assert "locked cannot be written; choose another place with -o" in line
    assert not any(folder.iterdir())


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        ("mine.md", "-o mine.md ends in '.md'; a result is a file that ends in .html or .ipynb"),
        ("taken", "taken is a file and no folder; choose another place with -o"),
        ("taken/mine.html", "taken is a file and no folder; choose another place with -o"),
        ("folder.html", "folder.html is no file; choose another place with -o, or remove it"),
    ],
)
def test_a_place_that_cannot_be_is_named_before_anything_runs(
    project: Project, output: str, complaint: str
) -> None:
    project.add("good", "open('ran', 'w').close()")
    project.write("taken", "precious")
    (project.root / "folder.html").mkdir()
    code, printed_lines = project.call("notebooks/run.py", "good", "-o", output)
    assert code == 1
    (line,) = lines(printed_lines)
    assert complaint in line
    assert not (project.root / "notebooks" / "ran").exists()
    assert (project.root / "taken").read_text(encoding="utf-8") == "precious"


def test_one_file_is_for_one_notebook(project: Project) -> None:
    project.add("one")
    project.add("two")
    code, output = project.call("notebooks/run.py", "-o", "mine.html")
    assert code == 1
    assert "-o mine.html is one file for 2 notebooks; name one notebook, or a folder" in output


def test_a_folder_may_have_a_dot_in_its_name(project: Project) -> None:
    project.add("good")
    (project.root / "v1.2").mkdir()
    assert project.call("notebooks/run.py", "good", "-o", "v1.2")[0] == 0
    assert (project.root / "v1.2" / "good.ipynb").is_file()


def test_missing_packages_are_named_before_anything_runs(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = project.add("good")
    monkeypatch.setattr(run, "find_spec", lambda name: None if "book" in name else object())
    run.run([run.Job(source, project.root / "good.ipynb")])
    with pytest.raises(
        run.FileError, match=r"^jupyter_book, sphinx_book_theme: not installed; .*make venv"
    ):
        run.run([run.Job(source, project.root / "good.html")])


def test_without_the_packages_of_the_book_the_runner_says_so(project: Project) -> None:
    hidden = "import runpy, sys; sys.modules['nbformat'] = None; sys.argv = ['run.py', '--list']; "
    code, output = project.call("-c", f"{hidden}runpy.run_path('notebooks/run.py')")
    assert code == 1
    (line,) = lines(output)
    assert line.startswith("nbformat is not installed; it belongs to the packages of the book: run")


def test_a_full_disk_is_said_in_one_sentence(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(target: Path, text: str, encoding: str) -> None:
        target.write_bytes(text[:4].encode(encoding))
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    target = project.root / "out" / "a.ipynb"
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left") as caught:
        run._write("a whole result", target)
    assert not any(target.parent.iterdir())
    assert re.fullmatch(
        r"No space is left for .*; free some and run again, .*", run._describe(caught.value)
    )


def test_the_key_follows_files_beside_the_notebooks(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "ROOT", project.root)
    source = project.add("good", "print(1)")
    keys = [run.key(source)]
    for content in ("C = 1", "C = 2"):
        project.write("notebooks/helpers.py", content)
        keys.append(run.key(source))
    project.write("notebooks/.cache", "of a tool")
    assert len(set(keys)) == 3
    assert run.key(source) == keys[-1]
