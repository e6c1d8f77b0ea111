import importlib
import logging
import os
import signal
import subprocess
import sys
import textwrap
import warnings
from collections import Counter
from contextlib import contextmanager
from functools import cache, partial

import joblib
import numpy as np
import pytest
from numba import njit

from stabcore import ScalarFactorization, sweep
from stabcore._fingerprint import fingerprint, home_of


def noisy(place, rng):
    """Return two numbers that depend on the seed."""
    return place + rng.normal(size=2)


def diary(folder):
    """Return a function that computes noisy numbers and records every call in a file."""

    def function(place, rng):
        with (folder / "calls").open("a") as calls:
            calls.write(f"{place}\n")
        return place + rng.normal(size=2)

    return function


def calls(folder):
    """Return how often each place was computed."""
    path = folder / "calls"
    return Counter(map(int, path.read_text().split())) if path.exists() else Counter()


def test_a_product_grid_is_called_by_name():
    values = sweep(lambda x, y: [x + y, x * y], {"y": [1.0, 2.0, 3.0], "x": np.array([10, 20])})
    assert values.shape == (3, 2, 2)
    for (i, j), y, x in ((p, 1.0 + p[0], 10 * (1 + p[1])) for p in np.ndindex(3, 2)):
        assert values[i, j].tolist() == [x + y, x * y]


def test_a_list_of_points_is_called_in_order():
    assert sweep(pow, [(2, 3), (3, 2), (7, 0)]).tolist() == [8, 9, 1]


def test_random_numbers_are_spawned_by_place():
    """Also in the order in which NumPy spawns, so that a loop can repeat a sweep."""
    values = sweep(noisy, {"place": range(5)}, rng=3)
    children = np.random.default_rng(3).spawn(5)
    assert (values == [noisy(i, child) for i, child in enumerate(children)]).all()
    assert len(np.unique(values - np.arange(5)[:, None])) == 10
    assert (sweep(noisy, {"place": range(5)}, rng=np.random.default_rng(3)) == values).all()
    assert (sweep(noisy, {"place": range(5)}, rng=4) != values).all()


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_the_workers_do_not_matter(backend, tmp_path):
    expected = sweep(noisy, {"place": range(12)}, rng=1)
    with joblib.parallel_config(backend=backend, n_jobs=2):
        values = sweep(diary(tmp_path), {"place": range(12)}, rng=1, memory=tmp_path / "memory")
    assert (values == expected).all()
    assert calls(tmp_path) == Counter(range(12))
    again = sweep(diary(tmp_path), {"place": range(12)}, rng=1, memory=tmp_path / "memory")
    assert (again == expected).all()
    assert calls(tmp_path) == Counter(range(12))


def test_progress_counts_what_was_there_before(capsys, tmp_path):
    sweep(noisy, {"place": range(3)}, rng=0, memory=tmp_path)
    assert capsys.readouterr().err == ""
    sweep(noisy, {"place": range(3)}, rng=0, memory=tmp_path, progress=True)
    assert "3/3" in capsys.readouterr().err


SCRIPT = """
    import os, signal, sys
    from pathlib import Path
    import numpy as np
    from stabcore import sweep

    def function(place, rng):
        with (folder / "calls").open("a") as calls:
            calls.write(f"{place}\\n")
        if place == 7 and not (folder / "killed").exists():
            (folder / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return place + rng.normal(size=2)

    folder = Path(sys.argv[1])
    values = sweep(function, {"place": range(12)}, rng=5, memory=folder / "memory")
    np.save(folder / "values.npy", values)
"""


def test_a_killed_sweep_resumes(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    command = [sys.executable, str(script), str(tmp_path)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert calls(tmp_path) == Counter(range(8))
    subprocess.run(command, check=True)
    assert calls(tmp_path) == Counter(range(12)) + Counter([7])
    expected = sweep(noisy, {"place": range(12)}, rng=5)
    assert (np.load(tmp_path / "values.npy") == expected).all()


@pytest.fixture
def cluster(tmp_path):
    """Return a function that starts a Dask cluster of worker processes, used through joblib."""
    distributed = pytest.importorskip("distributed")

    @contextmanager
    def start(workers, allowed_failures):
        with (
            warnings.catch_warnings(),
            dask_config({"distributed.scheduler.allowed-failures": allowed_failures}),
        ):
            warnings.simplefilter("ignore")  # Dask's own: sockets and loops that close late
            with (
                distributed.LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    processes=True,
                    dashboard_address=None,
                    local_directory=str(tmp_path / "dask"),
                    silence_logs=logging.CRITICAL,
                ) as running,
                distributed.Client(running),
                joblib.parallel_config(backend="dask"),
            ):
                yield

    return start


def dask_config(settings):
    return pytest.importorskip("dask").config.set(settings)


def test_a_cluster_gives_the_same_array_when_a_worker_is_killed(cluster, tmp_path):
    """Three worker processes, one of which dies in the middle of a grid point."""
    killed = tmp_path / "killed"

    def deadly(place, rng):
        if place == 13 and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return place + rng.normal(size=2)

    grid, memory = {"place": range(40)}, tmp_path / "memory"
    expected = sweep(noisy, grid, rng=9)
    with cluster(3, allowed_failures=3):
        undisturbed = sweep(noisy_of_place(), grid, rng=9)
        disturbed = sweep(deadly, grid, rng=9, memory=memory)
        with pytest.raises(RuntimeError, match=r"at the grid point \(place=3\): ZeroDivision"):
            sweep(lambda place: 1 / (place - 3), grid)
    assert killed.exists()
    assert (undisturbed == expected).all()
    assert (disturbed == expected).all()
    assert len(list(memory.iterdir())) == 40


def test_a_point_that_kills_every_worker_is_reported(cluster):
    """Nobody waits for it for ever."""
    with (
        cluster(1, allowed_failures=0),
        pytest.raises(RuntimeError, match=r"at the grid point \(place=0\): each worker .* died"),
    ):
        sweep(lambda place: os.kill(os.getpid(), signal.SIGKILL), {"place": [0]})


def test_a_point_that_kills_a_worker_process_is_reported():
    def work(place):
        if place == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return place

    with (
        joblib.parallel_config(backend="loky", n_jobs=2),
        pytest.raises(RuntimeError, match=r"grid points? .*place=2.*a worker died; look for"),
    ):
        sweep(work, {"place": range(4)})


def noisy_of_place():
    """Return `noisy` in a form that a process that cannot import this file understands."""
    return lambda place, rng: place + rng.normal(size=2)


def test_a_failure_names_the_point_and_keeps_the_others(tmp_path):
    def function(x, y):
        with (tmp_path / "calls").open("a") as log:
            log.write(f"{x}\n")
        return 1 / (x - y if not (tmp_path / "repaired").exists() else 1)

    grid = {"x": range(5), "y": [3]}
    with pytest.raises(RuntimeError, match=r"at the grid point \(x=3, y=3\): ZeroDivisionError"):
        sweep(function, grid, memory=tmp_path / "memory")
    (tmp_path / "repaired").touch()
    sweep(function, grid, memory=tmp_path / "memory")
    assert calls(tmp_path) == Counter([0, 1, 2, 3, 3, 4])


def test_a_failure_in_a_worker_process_names_the_point():
    with (
        joblib.parallel_config(n_jobs=2),
        pytest.raises(RuntimeError, match=r"at the grid point \(2, 0\): ZeroDivisionError"),
    ):
        sweep(lambda a, b: a / b, [(1, 1), (2, 0)])


@pytest.mark.parametrize("damage", ["truncated", "one bit", "empty"])
def test_a_damaged_file_is_recomputed(tmp_path, damage):
    memory, grid = tmp_path / "memory", {"place": range(4)}
    expected = sweep(diary(tmp_path), grid, rng=0, memory=memory)
    files = sorted(memory.iterdir())
    assert len(files) == 4
    content = bytearray(files[2].read_bytes())
    if damage == "one bit":
        content[len(content) // 2] ^= 1
    files[2].write_bytes({"truncated": content[:-9], "one bit": content, "empty": b""}[damage])
    assert (sweep(diary(tmp_path), grid, rng=0, memory=memory) == expected).all()
    assert sorted(calls(tmp_path).values()) == [1, 1, 1, 2]
    assert sorted(memory.iterdir()) == files


def test_what_is_kept_depends_on_arguments_and_seed(tmp_path):
    memory = tmp_path / "memory"
    sweep(diary(tmp_path), {"place": [0, 1]}, rng=0, memory=memory)
    longer = sweep(diary(tmp_path), {"place": [0, 1, 2]}, rng=0, memory=memory)
    assert calls(tmp_path) == Counter([0, 1, 2])
    assert (longer == sweep(noisy, {"place": range(3)}, rng=0)).all()
    sweep(diary(tmp_path), {"place": [0]}, rng=1, memory=memory)
    assert calls(tmp_path)[0] == 2
    sweep(diary(tmp_path), {"place": [1]}, rng=0, memory=memory)  # another place, another seed
    assert calls(tmp_path)[1] == 2


def test_another_version_does_not_reuse_results(tmp_path, monkeypatch):
    for version in ("1", "2"):
        monkeypatch.setattr("stabcore.__version__", version)
        sweep(diary(tmp_path), {"place": [0]}, rng=0, memory=tmp_path / "memory")
    assert calls(tmp_path)[0] == 2


def described(source, name="f", **known):
    """Return the fingerprint of what `source` defines as `name`, in a module of its own."""
    scope = {"__name__": "scratch.module", **known}
    exec(textwrap.dedent(source), scope)
    return fingerprint(scope[name], home_of(scope[name]))


F = "def f(x): return x + 1"
SAME = [
    (F, "def f(x):\n    # a comment\n\n    return x + 1"),
    ("def f(x): return x in {'a', 'b', 'c'}", "def f(x): return x in {'c', 'a', 'b'}"),
    ("a = 1\ndef f(x): return x", "a = 2\ndef f(x): return x"),
    ("def f(x): return f(x - 1)", "def f(x): return f(x - 1)"),
]
DIFFERENT = [
    (F, "def f(x): return x + 2"),
    (F, "def f(x): return x - 1"),
    ("def f(x, y=1): return x", "def f(x, y=2): return x"),
    ("def f(x, *, y=1): return x", "def f(x, *, y=2): return x"),
    ("a = 1\ndef f(x): return x + a", "a = 2\ndef f(x): return x + a"),
    ("a = 1\nf = lambda x: [x + a for _ in x]", "a = 2\nf = lambda x: [x + a for _ in x]"),
    (
        "def g(x): return x\ndef f(x): return g(x)",
        "def g(x): return 2 * x\ndef f(x): return g(x)",
    ),
    (
        "def g():\n    a = 1\n    return lambda x: x + a\nf = g()",
        "def g():\n    a = 2\n    return lambda x: x + a\nf = g()",
    ),
    (
        "class C:\n    def m(self): return 1\ndef f(x): return C().m()",
        "class C:\n    def m(self): return 2\ndef f(x): return C().m()",
    ),
    (
        "class C:\n    @property\n    def m(self): return 1\nf = lambda x: C().m",
        "class C:\n    @property\n    def m(self): return 2\nf = lambda x: C().m",
    ),
    ("class C:\n    a = 1\nf = lambda x: C.a", "class C:\n    a = 2\nf = lambda x: C.a"),
    *(
        (before, before.replace("return x", "return -x").replace("[1]", "[2]"))
        for before in (
            "class C:\n    a = [1]\nf = lambda x: C.a",
            "class C:\n    a = {'b': [1]}\nf = lambda x: C.a",
            "class B:\n    a = [1]\nclass C(B): pass\nf = lambda x: C.a",
            "class C:\n    class D:\n        a = [1]\nf = lambda x: C.D.a",
            "class C:\n    @staticmethod\n    def m(x): return x\nf = lambda x: C.m(x)",
            "class C:\n    @classmethod\n    def m(cls, x): return x\nf = lambda x: C.m(x)",
            "class C:\n    def __call__(self, x): return x\nc = C()\nf = lambda x: c(x)",
            "class C:\n    def __init__(self): self.a = [1]\nc = C()\nf = lambda x: c.a",
            "class C:\n    __slots__ = ('a',)\nc = C()\nc.a = [1]\nf = lambda x: c.a",
            "class C:\n    def m(self, x): return x\nm = C().m\nf = lambda x: m(x)",
            "def g(x): return x\nt = [g]\nf = lambda x: t[0](x)",
            "def g(x): return x\nt = {'g': (g,)}\nf = lambda x: t['g'][0](x)",
            "def g(x): return x\ndef f(x, h=(g,)): return h[0](x)",
            "def g(x): return x\nclass C: pass\nc = C()\nc.g = g\nf = lambda x: c.g(x)",
            "from functools import partial\ndef g(y, x): return x\nh = partial(g, 1)\n"
            "f = lambda x: h(x)",
            "from collections import deque\ndef g(x): return x\nd = deque([g])\n"
            "f = lambda x: d[0](x)",
            "from dataclasses import dataclass, field\n@dataclass\nclass C:\n"
            "    a: list = field(default_factory=lambda: [1])\nf = lambda x: C().a",
            "from functools import wraps\ndef d(g):\n    @wraps(g)\n    def h(x): return g(x)\n"
            "    return h\n@d\ndef f(x): return x",
        )
    ),
]


# Ways to reach another module: what the function says, and a change of that module.
HELPERS = "C = 1\nS = [1]\ndef g(x): return x\nclass K:\n    a = [1]\n"
BEHIND_A_MODULE = {
    "a function by attribute": (
        "import helpers\ndef f(x): return helpers.g(x)",
        "return x",
        "return -x",
    ),
    "a constant by attribute": ("import helpers\ndef f(x): return helpers.C", "C = 1", "C = 2"),
    "a list by attribute": ("import helpers\ndef f(x): return helpers.S", "S = [1]", "S = [2]"),
    "a class by attribute": ("import helpers\ndef f(x): return helpers.K.a", "a = [1]", "a = [2]"),
    "another name": ("import helpers as h\ndef f(x): return h.g(x)", "return x", "return -x"),
    "by getattr": ("import helpers\ndef f(x): return getattr(helpers, x)", "C = 1", "C = 2"),
    "imported inside": (
        "def f(x):\n    import helpers\n    return helpers.g(x)",
        "return x",
        "return -x",
    ),
    "taken inside": (
        "def f(x):\n    from helpers import g\n    return g(x)",
        "return x",
        "return -x",
    ),
    "a constant taken inside": (
        "def f(x):\n    from helpers import C\n    return C",
        "C = 1",
        "C = 2",
    ),
    "inside a lambda": (
        "import helpers\nf = lambda x: [helpers.g(y) for y in x]",
        "return x",
        "return -x",
    ),
    "imported in an inner function": (
        "def f(x):\n    def inner():\n        import helpers\n        return helpers.g(x)\n"
        "    return inner()",
        "return x",
        "return -x",
    ),
    "a function that was taken": (
        "from helpers import g\ndef f(x): return g(x)",
        "return x",
        "return -x",
    ),
    "a class that was taken": ("from helpers import K\ndef f(x): return K.a", "a = [1]", "a = [2]"),
    "through a second module": (
        "import middle\ndef f(x): return middle.h(x)",
        "return x",
        "return -x",
    ),
}


@pytest.mark.parametrize(("source", "old", "new"), BEHIND_A_MODULE.values(), ids=BEHIND_A_MODULE)
def test_changes_in_modules_of_ones_own_matter(source, old, new, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    middle = "import helpers\ndef h(x): return helpers.g(x)\n"
    (tmp_path / "middle.py").write_text(middle, encoding="utf-8")
    keys = []
    for text in (HELPERS, "# a comment\n\n" + HELPERS, HELPERS.replace(old, new)):
        for name in ("helpers", "middle"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        (tmp_path / "helpers.py").write_text(text, encoding="utf-8")
        importlib.invalidate_caches()
        keys.append(described(source))
    assert keys[0] == keys[1]
    assert keys[1] != keys[2]


def test_a_constant_of_a_module_that_was_set_by_hand_matters(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "knobs.py").write_text("C = 1\n", encoding="utf-8")
    source = "import knobs\ndef f(x): return knobs.C"
    before = described(source)
    monkeypatch.setattr(sys.modules["knobs"], "C", 2)
    assert described(source) != before
    monkeypatch.delitem(sys.modules, "knobs")


def test_modules_of_stabcore_are_followed_and_those_of_others_are_named(monkeypatch):
    source = "import stabcore.problems as p\ndef f(x): return p.ScalarFactorization()"
    before = described(source)
    monkeypatch.setattr("stabcore.problems.models.NeuronFate", 3)
    assert described("import numpy as np\ndef f(x): return np.sum(x)") != before
    monkeypatch.setattr("stabcore.problems.ScalarFactorization", 3)
    assert described(source) != before


def test_what_cannot_be_pickled_is_refused_only_where_it_is_used(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    text = "import threading\nlock = threading.Lock()\nC = 1\n"
    (tmp_path / "locked.py").write_text(text, encoding="utf-8")
    described("import locked\ndef f(x): return locked.C")
    described("import threading\nclass K:\n    lock = threading.Lock()\ndef f(x): return K()")
    with pytest.raises(TypeError, match="can be pickled, got a lock"):
        described("import threading\nlock = threading.Lock()\ndef f(x): return lock")
    monkeypatch.delitem(sys.modules, "locked")


@pytest.mark.parametrize(("one", "two"), SAME)
def test_changes_that_do_not_matter(one, two):
    assert described(one) == described(two)


@pytest.mark.parametrize(("one", "two"), DIFFERENT)
def test_changes_that_matter(one, two):
    assert described(one) != described(two)


@pytest.mark.parametrize("wrap", [njit, cache, lambda f: partial(f, 1)])
def test_changes_behind_a_wrapper_matter(wrap):
    one, two = (described(f"{source}\nf = wrap(f)", wrap=wrap) for source in DIFFERENT[0])
    assert one != two
    assert one == described(f"{F}\nf = wrap(f)", wrap=wrap)


def test_code_of_stabcore_is_followed(monkeypatch):
    source = "def f(x): return stabcore_problem(x)"
    before = described(source, stabcore_problem=ScalarFactorization)
    monkeypatch.setattr(ScalarFactorization, "residuals", lambda self, theta: theta)
    monkeypatch.setattr(ScalarFactorization.residuals, "__module__", "stabcore.problems")
    assert described(source, stabcore_problem=ScalarFactorization) != before


def test_values_are_compared_by_value():
    one, two = (ScalarFactorization([1.0, x]) for x in (2.0, 3.0))
    assert fingerprint(one) == fingerprint(ScalarFactorization([1.0, 2.0]))
    assert fingerprint(one) != fingerprint(two)
    assert fingerprint(np.arange(3)) != fingerprint(np.arange(3.0))
    assert fingerprint(one.loss) != fingerprint(two.loss)


def test_keys_do_not_depend_on_the_process():
    """A hash of strings, and with it the order of a set, differs between two processes."""
    source = "from stabcore._fingerprint import fingerprint as f; from stabcore import find_minimum"
    results = {
        subprocess.run(
            [sys.executable, "-c", f"{source}; print(f(find_minimum))"],
            check=True,
            capture_output=True,
            env=os.environ | {"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(results) == 1


@pytest.mark.parametrize(
    ("grid", "error", "message"),
    [
        ({}, ValueError, "grid is empty"),
        ({"place": []}, ValueError, "grid is empty"),
        ([], ValueError, "grid is empty"),
        ([1, 2], TypeError, "grid must be a dict of axes"),
        (3, TypeError, "grid must be a dict of axes"),
    ],
)
def test_bad_grids(grid, error, message):
    with pytest.raises(error, match=message):
        sweep(noisy, grid)


def test_bad_functions():
    with pytest.raises(TypeError, match="function must be callable, got int"):
        sweep(3, [(1,)])
    with pytest.raises(TypeError, match=r"numbers, got str at the grid point \(1\)"):
        sweep(str, [(1,)])
    with pytest.raises(ValueError, match=r"got \(1,\) at \(1\) but \(2,\) at \(2\)"):
        sweep(np.zeros, [(1,), (2,)])


def test_bad_options(tmp_path):
    with pytest.raises(TypeError, match="rng must be an integer"):
        sweep(noisy, [(1,)], rng="a")
    with pytest.raises(TypeError, match="progress must be True or False"):
        sweep(pow, [(1, 2)], progress=2)
    with pytest.raises(TypeError, match="memory needs values that can be pickled"):
        sweep(lambda x: x, [((i for i in range(3)),)], memory=tmp_path)
