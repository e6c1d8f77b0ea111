"""The house: arrows run one way, nothing is shadowed, and the door opens quickly."""

import ast
import importlib
import subprocess
import sys

import pytest

import import_graph
import stabcore

# What one function or one part of the book needs is not imported for all.
HEAVY = ("scipy.stats", "matplotlib", "jax", "sklearn", "joblib", "distributed", "tqdm", "pandas")
FOLDERS = [name for row in import_graph.ROWS for name in row if name != import_graph.BASE]
# What the training of networks may use: it tests the predictions, as simulations do.
FOR_TRAINING = ("networks", "problems", "sampling", "_validation", "_jax", "_rates")
TRAINING = ("training", "_steps", "_drawing", "_losses", "adam")
FOR_SIMULATIONS = (
    "problems",
    "sampling",
    "_random",
    "_rates",
    "_validation",
    "_constants",
    "simulation",
)


@pytest.mark.parametrize(("part", "imported"), sorted(import_graph.arrows()))
def test_arrows_run_one_way(part, imported):
    assert import_graph.allowed(part, imported)


def test_every_part_has_its_place():
    folders = {path.parent.name for path in import_graph.PACKAGE.glob("*/__init__.py")}
    assert folders == set(FOLDERS)


def test_an_arrow_that_runs_back_is_seen():
    assert not import_graph.allowed("problems", "lyapunov")
    assert not import_graph.allowed("minima", "descent")
    assert not import_graph.allowed("saddles", "simulation")
    assert import_graph.allowed("minima", "lyapunov")


def test_a_simulation_shares_no_code_with_predictions():
    for module, path in import_graph.sources().items():
        if import_graph.part_of(module) == "simulation":
            names = {name.split(".")[1] for name in import_graph.imports_of(path) if "." in name}
            assert names <= set(FOR_SIMULATIONS), module


@pytest.mark.parametrize("module", TRAINING)
def test_training_shares_no_code_with_predictions(module):
    path = import_graph.PACKAGE / "networks" / f"{module}.py"
    modules = {name for name in import_graph.imports_of(path) if "." in name}
    assert {name.split(".")[1] for name in modules} <= set(FOR_TRAINING)
    allowed = (*(f"stabcore.networks.{name}." for name in TRAINING), "stabcore.problems.losses.")
    inside = ("stabcore.networks", "stabcore.problems")
    assert all(f"{name}.".startswith(allowed) for name in modules if name.startswith(inside))


def test_modules_of_the_base_import_no_folder():
    for module, path in import_graph.sources().items():
        if import_graph.part_of(module) == import_graph.BASE:
            assert {import_graph.part_of(name) for name in import_graph.imports_of(path)} <= {
                import_graph.BASE
            }


@pytest.mark.parametrize("folder", ["", *FOLDERS])
def test_no_module_is_shadowed_by_a_name_beside_it(folder):
    package = importlib.import_module(f"stabcore.{folder}".rstrip("."))
    here = import_graph.PACKAGE / folder
    modules = {path.stem for path in here.glob("*.py")} | {
        path.parent.name for path in here.glob("*/__init__.py")
    }
    assert not modules & set(package.__all__)


@pytest.mark.parametrize("folder", ["", *FOLDERS])
def test_all_lists_what_is_there_once_and_in_groups(folder):
    package = importlib.import_module(f"stabcore.{folder}".rstrip("."))
    assert len(package.__all__) == len(set(package.__all__))
    assert all(hasattr(package, name) for name in package.__all__)
    source = (import_graph.PACKAGE / folder / "__init__.py").read_text(encoding="utf-8")
    listed = source[source.index("__all__") :]
    assert listed.count("\n    # ") >= 2
    assert ast.get_docstring(ast.parse(source))


def test_the_top_has_what_a_reader_needs_and_no_more():
    assert 30 <= len(stabcore.__all__) <= 40


@pytest.mark.parametrize("heavy", HEAVY)
def test_importing_the_package_imports_nothing_heavy(heavy):
    program = f"import stabcore, sys; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_picture_shows_the_arrows_there_are():
    text = import_graph.PICTURE.read_text(encoding="utf-8")
    assert import_graph.drawn_arrows(text) == import_graph.shown(import_graph.arrows())
