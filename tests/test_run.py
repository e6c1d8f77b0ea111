"""The papermill runner: what it refuses, what it publishes, what a kill leaves behind."""

import math
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
    assert "no notebook 'god'" in project.call("notebooks/run.py", "god")[1]


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
