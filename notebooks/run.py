"""Run the book's notebooks through papermill.

Papermill itself accepts unknown parameters and wrong types, formats its output path as a string
and changes the working directory of the whole process. Here every argument is checked before
anything runs, each notebook has a process of its own, and a result appears under its name only
when it is complete.

    python notebooks/run.py --list
    python notebooks/run.py gd_stability -p step_size 0.3 -o mine.html
    python notebooks/run.py gd_stability -p step_size 0.3 -o mine.ipynb

The first result is a page in the style of the book, in one file, the second a notebook in plain
Markdown.

A parameter is a plain literal, annotated and commented, in the cell tagged ``parameters``:
``step_size: float = 0.15  # η, in (0, 2)``. What the comment says is checked before a run: ``in``
and an interval for every number, ``one of "a", "b"`` for text, and of a list ``3 to 5 entries``
(``2 entries``, ``at least 1 entry``), ``ascending`` or ``descending``. A long comment stands in the
lines above.
"""

import argparse
import ast
import base64
import copy
import difflib
import errno
import hashlib
import io
import itertools
import json
import math
import multiprocessing
import os
import platform
import re
import signal
import sys
import tempfile
import threading
import time
import tokenize
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, get_args, get_origin

REMEDY = "it belongs to the packages of the book: run make venv, or pip install -e '.[book]'"
try:
    import nbformat
    from nbformat import NotebookNode
    from tqdm import tqdm
except ModuleNotFoundError as problem:
    raise SystemExit(f"{problem.name} is not installed; {REMEDY}") from problem

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent
RUNS = ROOT / "_build" / "runs"
PACKAGES = ("numpy", "scipy", "numba", "matplotlib", "stabcore")
SCALARS: dict[str, Any] = {"bool": bool, "int": int, "float": float, "str": str}
KINDS = SCALARS | {"list": list, "tuple": tuple}
CELL_SECONDS = int(os.environ.get("COMPANION_CELL_SECONDS", "900"))  # a longer cell hangs
START_TIMEOUT = 600  # seconds: a busy machine can take more than the default minute
INTERVAL = re.compile(r"\bin ([\[(])([^\s,]+), ([^\s,]+)([\])])")
ENTRIES = re.compile(r"(?P<open>at least )?(?P<least>\d+)( to (?P<most>\d+))? entr(y|ies)")
CHOICES = re.compile(r"""\bone of ("[^"]*"(?:, "[^"]*")*)""")
ORDER = re.compile(r"\b(ascending|descending)\b")
RESULTS = (".ipynb", ".html")
NEEDED = ("ipykernel", "papermill", "PIL")  # by every run
NEEDED_BY_PAGES = ("jupyter_book", "myst_nb", "sphinx_book_theme", "yaml")
LANGUAGE = {"name": "python", "pygments_lexer": "ipython3"}


class ParameterError(ValueError):
    """What is wrong with the arguments of a run, everything at once; nothing was run."""


class FileError(RuntimeError):
    """A file, folder or package that cannot be read, written or found; and what to do."""


class ExecutionError(RuntimeError):
    """Which notebooks failed, in which cell, with which error; their old results are untouched."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a notebook, as its `parameters` cell declares it."""

    name: str
    annotation: str
    default: object
    comment: str

    def __str__(self) -> str:
        """Show the declaration as it stands in the notebook."""
        declaration = f"{self.name}: {self.annotation} = {self.default!r}"
        return f"{declaration}  # {self.comment}" if self.comment else declaration

    def violations(self, value: object) -> list[str]:
        """Say in which ways a value is not what the comment asks for."""
        numbers = _numbers(value)
        found = []
        if interval := INTERVAL.search(self.comment):
            opening, low, high, closing = interval.groups()
            least, most = (float(end.replace("∞", "inf")) for end in (low, high))
            outside = [
                one
                for one in numbers
                if not (least < one or (opening == "[" and one == least))
                or not (one < most or (closing == "]" and one == most))
            ]
            if outside:
                found.append(f"{outside[0]!r} is not {interval.group()}")
        choices = CHOICES.search(self.comment)
        if choices and value not in re.findall(r'"([^"]*)"', choices[1]):
            found.append(f"it is not {choices.group()}")
        if isinstance(value, list):
            found += self._misshapen(value, numbers)
        return found

    def _misshapen(self, value: list[object], numbers: list[float]) -> list[str]:
        """Say what is wrong with the length and the order of a list."""
        found = []
        if entries := ENTRIES.search(self.comment):
            least = int(entries["least"])
            most = math.inf if entries["open"] else int(entries["most"] or least)
            if not least <= len(value) <= most:
                found.append(f"it has {len(value)} and not {entries.group()}")
        if order := ORDER.search(self.comment):
            steps = [b - a for a, b in itertools.pairwise(numbers)]
            signed = steps if order.group() == "ascending" else [-step for step in steps]
            if any(step <= 0 for step in signed):
                found.append(f"it is not {order.group()}")
        return found


@dataclass(frozen=True)
class Job:
    """One notebook to execute: from where, to where, with which parameters changed.

    A target that ends in `.html` becomes one page in the style of the book, any other a notebook.
    With `committed`, whatever differs from run to run (durations, the source key) is left out, so
    that executing again what is committed gives no difference unless a result changed. With
    `readable` the text of a notebook becomes plain Markdown, for a reader's own Jupyter.
    """

    source: Path
    target: Path
    overrides: Mapping[str, object] = field(default_factory=dict)
    committed: bool = False
    readable: bool = False

    @property
    def is_page(self) -> bool:
        """Say whether the result is a page."""
        return self.target.suffix.lower() == ".html"


# --- What there is to run -------------------------------------------------------------------------


def notebooks() -> dict[str, Path]:
    """Return the repository's notebooks by name, in alphabetical order."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.ipynb"))}


def parameters(notebook: Path) -> dict[str, Parameter]:
    """Read the parameters of a notebook from its cell tagged `parameters`.

    Returns
    -------
    dict of str to Parameter
        The parameters by name, in the order of the cell.

    Raises
    ------
    ParameterError
        If the cell holds anything but annotated plain literals of the types it names.
    """
    cells = [
        cell.source
        for cell in read(notebook).cells
        if cell.cell_type == "code" and "parameters" in cell.metadata.get("tags", [])
    ]
    source = "\n".join(cells)
    try:
        statements = ast.parse(source).body
    except SyntaxError as problem:
        raise ParameterError(
            f"{notebook.name}: the parameters cell is no Python: {problem.msg} in line "
            f"{problem.lineno}, {(problem.text or '').strip()!r}; correct it"
        ) from problem
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: token for token in tokens if token.type == tokenize.COMMENT}
    found = {}
    for statement in statements:
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                annotation = ast.unparse(statement.annotation)
                comment = _comment(comments, statement)
            case _:
                raise ParameterError(
                    f"{notebook.name}: the parameters cell holds {ast.unparse(statement)!r}; "
                    "write annotated literals only, such as step_size: float = 0.15"
                )
        try:
            default = _coerce(ast.literal_eval(value), _kind(annotation))
        except (TypeError, ValueError) as problem:
            raise ParameterError(
                f"{notebook.name}: the parameters cell has {ast.unparse(statement)!r}; {problem}"
            ) from problem
        found[name] = Parameter(name, annotation, default, comment)
        if violations := found[name].violations(default):
            raise ParameterError(
                f"{notebook.name}: the published {name} = {default!r} contradicts its own comment "
                f"({comment!r}): {'; '.join(violations)}; correct one of them"
            )
    return found


def _comment(comments: Mapping[int, tokenize.TokenInfo], statement: ast.stmt) -> str:
    """Return the comment behind a statement, or that in the lines above it."""
    last = statement.end_lineno or statement.lineno
    lines = [last] if last in comments else []
    line = statement.lineno - 1
    while last not in lines and line in comments and comments[line].line.lstrip().startswith("#"):
        lines.insert(0, line)
        line -= 1
    return " ".join(comments[line].string.lstrip("# ") for line in lines)


def read(notebook: Path) -> NotebookNode:
    """Read a notebook.

    Returns
    -------
    NotebookNode

    Raises
    ------
    FileError
        If the file is no notebook or cannot be read.
    """
    try:
        node: NotebookNode = nbformat.read(notebook, as_version=4)
        return node
    except OSError as problem:
        raise FileError(f"{notebook} cannot be read: {problem.strerror}") from problem
    except Exception as problem:  # nbformat raises many kinds for what is no notebook
        raise FileError(
            f"{notebook} is no notebook ({type(problem).__name__}); repair it, or restore it with "
            "git checkout"
        ) from problem


def _kind(annotation: str) -> Any:
    """Turn an annotation such as `list[float]` into the type it names, without running it."""
    try:
        kind = _type_of(ast.parse(annotation, mode="eval").body)
    except (KeyError, TypeError, SyntaxError):
        kind = None
    if _supported(kind):
        return kind
    raise TypeError(f"annotate with {', '.join(SCALARS)}, list[...] or tuple[...]")


def _type_of(node: ast.expr) -> Any:
    """Return the type that a syntax tree names; KeyError or TypeError if it is none of ours."""
    match node:
        case ast.Name(id=name):
            return KINDS[name]
        case ast.Constant(value=value) if value is ...:
            return ...
        case ast.Subscript(value=ast.Name(id=name), slice=ast.Tuple(elts=parts)):
            return KINDS[name][tuple(_type_of(part) for part in parts)]
        case ast.Subscript(value=ast.Name(id=name), slice=part):
            return KINDS[name][_type_of(part)]
    raise TypeError("no type")


def _supported(kind: Any) -> bool:
    """Say whether `kind` is a scalar type or a list or tuple of such."""
    if get_origin(kind) in (list, tuple):
        return all(part is Ellipsis or _supported(part) for part in get_args(kind))
    return kind in SCALARS.values()


def _coerce(value: object, kind: Any) -> object:
    """Return `value` as `kind`; an int will do for a float, a bool for neither."""
    if kind is float and type(value) is int:
        return float(value)
    if kind in SCALARS.values():
        if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
            return kind(value)
        raise TypeError(f"{value!r} is not of type {kind.__name__}")
    if not isinstance(value, list | tuple):
        raise TypeError(f"{value!r} is not of type {kind}")
    container, inner = get_origin(kind), get_args(kind)
    if container is list or inner[-1] is Ellipsis:
        inner = inner[:1] * len(value)
    if len(inner) != len(value):
        raise TypeError(f"{value!r} has {len(value)} entries, {kind} has {len(inner)}")
    return container(_coerce(entry, part) for entry, part in zip(value, inner, strict=True))


def _numbers(value: object) -> list[float]:
    """Return all numbers in a value, in their order."""
    if isinstance(value, list | tuple):
        return [number for part in value for number in _numbers(part)]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


def _finite(value: object) -> bool:
    """Say whether no number in `value` is infinite or NaN."""
    return all(map(math.isfinite, _numbers(value)))


def check(notebook: Path, overrides: Mapping[str, object]) -> dict[str, object]:
    """Check the overrides of a notebook's parameters; report everything that is wrong.

    Text is accepted for any type, as it comes from the command line, and read as a literal.

    Returns
    -------
    dict of str to object
        The overrides, with the types that the notebook declares.

    Raises
    ------
    ParameterError
        If a name is unknown, a value has the wrong type or is outside the range that the comment
        states, or a number is NaN or infinite where the published value is not.
    """
    known = parameters(notebook)
    checked, problems = {}, []
    for name, value in overrides.items():
        if name not in known:
            problems.append(
                f"{notebook.stem} has no parameter {name!r} (got {value!r}); "
                f"it has: {_listed(known, name)}"
            )
            continue
        try:
            checked[name] = _coerce(_literal(value, known[name]), _kind(known[name].annotation))
        except TypeError as problem:
            problems.append(
                f"{notebook.stem}: {name} = {value!r}: {problem}; "
                f"give a {known[name].annotation}, such as {known[name].default!r}"
            )
            continue
        if not _finite(checked[name]) and _finite(known[name].default):
            problems.append(
                f"{notebook.stem}: {name} = {value!r} is not finite; "
                f"give finite numbers, such as {known[name].default!r}"
            )
        elif violations := known[name].violations(checked[name]):
            problems.append(
                f"{notebook.stem}: {name} = {value!r} is outside its range "
                f"({'; '.join(violations)}); choose another, such as {known[name].default!r}"
            )
    if problems:
        raise ParameterError("\n".join(problems))
    return checked


def _listed(known: Iterable[str], wrong: str) -> str:
    """List what is known, and say which of it a misspelt name may mean."""
    names = list(known)
    close = difflib.get_close_matches(wrong, names, n=1)
    return (", ".join(names) or "none") + "".join(f"; did you mean {name}?" for name in close)


def _literal(value: object, parameter: Parameter) -> object:
    """Read text as a literal, unless text is what the parameter wants."""
    if not isinstance(value, str) or parameter.annotation == "str":
        return value
    try:
        return float(value) if parameter.annotation == "float" else ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value


# --- Is a result up to date? ----------------------------------------------------------------------


def key(notebook: Path, overrides: Mapping[str, object] | None = None) -> str:
    """Hash everything that decides what a notebook computes.

    These are its cells and their metadata (outputs apart), its parameters, every file of
    `stabcore` and of this folder that is no notebook, the pinned dependencies and the versions in
    use.

    Returns
    -------
    str
        The hash, in hexadecimal.
    """
    node = _normalised(read(notebook))
    cells = [(cell.cell_type, cell.source, cell.metadata) for cell in node.cells]
    described = json.dumps(
        [cells, node.metadata, overrides or {}, _versions(), code()], sort_keys=True
    )
    return hashlib.sha256(described.encode()).hexdigest()


def current(notebook: Path, executed: Path) -> bool:
    """Say whether `executed` is what running the notebook as published would give now."""
    if not executed.is_file():
        return False
    try:
        node = read(executed)
    except FileError:  # cut short, or no notebook any more
        return False
    stamp = node.metadata.get("companion", {})
    return bool(stamp.get("key") == key(notebook) and stamp.get("outputs") == _outputs(node))


def _outputs(node: NotebookNode) -> str:
    """Hash the outputs, so that an executed copy that was changed by hand is noticed."""
    outputs = [cell.get("outputs", []) for cell in node.cells]
    return hashlib.sha256(json.dumps(outputs, sort_keys=True).encode()).hexdigest()


def code() -> dict[str, str]:
    """Hash the files that every notebook depends on.

    These are `stabcore`, what lies beside the notebooks (this runner, modules, data), and the pins.

    Returns
    -------
    dict of str to str
        Hashes by path.

    Raises
    ------
    FileError
        If there are no pins.
    """
    lock = ROOT / "requirements.lock"
    if not lock.is_file():
        raise FileError(f"{lock} is missing; restore it with git checkout requirements.lock")
    files = {lock.name: lock}
    for folder in (ROOT / "stabcore", ROOT / "notebooks"):
        for path in sorted(folder.rglob("*")):
            inside = path.relative_to(folder).parts
            if path.is_file() and path.suffix != ".ipynb" and not any(map(_hidden, inside)):
                files[path.relative_to(ROOT).as_posix()] = path
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}


def _hidden(name: str) -> bool:
    """Say whether a file or folder is a tool's own."""
    return name == "__pycache__" or name.startswith(".")


@cache
def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


def _normalised(node: NotebookNode) -> NotebookNode:
    """Return a copy without the metadata that executing a notebook leaves."""
    node = copy.deepcopy(node)
    for name in ("papermill", "companion", "language_info"):
        node.metadata.pop(name, None)
    for cell in node.cells:
        for name in ("papermill", "execution"):
            cell.metadata.pop(name, None)
        if not cell.metadata.get("tags"):  # papermill gives every cell a list of them
            cell.metadata.pop("tags", None)
    return node


# --- Running --------------------------------------------------------------------------------------


def run(jobs: Sequence[Job], processes: int | None = None) -> None:
    """Execute notebooks, several at once, under one progress bar over all their cells.

    Parameters
    ----------
    jobs : sequence of Job
        What to run. All overrides are checked before the first notebook starts.
    processes : int, optional
        How many notebooks run at the same time; by default as many as there are processors.

    Raises
    ------
    ParameterError
        If an override is unknown, has the wrong type or is outside its range.
    FileError
        If a target cannot be written or a package is missing; nothing was run.
    ExecutionError
        If notebooks failed; the others were finished first, and are published.
    """
    jobs = _checked(jobs)
    _require_installed(any(job.is_page for job in jobs))
    for job in jobs:
        require_writable(job.target)
    waiting = list(reversed(jobs))
    live: dict[Connection, tuple[Job, Any]] = {}
    at_once = processes or os.cpu_count() or 1
    free = _cores(min(at_once, len(jobs)))
    held: dict[Connection, set[int] | None] = {}
    failures = []
    _warm_font_cache()
    # "spawn", because papermill's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with tqdm(total=sum(map(_size, jobs)), unit="cell", desc="notebooks", disable=None) as bar:
        try:
            while waiting or live:
                while waiting and len(live) < at_once:
                    job = waiting.pop()
                    ours, theirs = context.Pipe(duplex=False)
                    held[ours] = free.pop()
                    process = context.Process(target=_work, args=(job, theirs, held[ours]))
                    process.start()
                    theirs.close()
                    live[ours] = job, process
                for pipe in wait(list(live)):
                    assert isinstance(pipe, Connection)
                    job, process = live[pipe]
                    try:
                        message = pipe.recv()
                    except EOFError:
                        process.join()
                        message = f"its process ended with exit code {process.exitcode}"
                    if message is None:
                        bar.update()
                        continue
                    del live[pipe]
                    process.join()
                    free.append(held.pop(pipe))
                    if isinstance(message, str):
                        failures.append(f"{job.source.name}: {message}")
                        bar.write(f"{job.source.stem}: failed")
                    else:
                        bar.write(f"{job.source.stem}: done in {message:.0f} s")
        finally:
            # Nothing is left to stop unless we were interrupted.
            for _, process in live.values():
                process.terminate()
            for _, process in live.values():
                process.join()
    if failures:
        raise ExecutionError("\n\n".join(failures))


def _checked(jobs: Iterable[Job]) -> list[Job]:
    """Check the overrides of all jobs; report every problem of every job."""
    checked, problems = [], []
    for job in jobs:
        try:
            overrides = check(job.source, job.overrides)
            checked.append(replace(job, overrides=overrides))
        except ParameterError as problem:
            problems.append(str(problem))
    if problems:
        raise ParameterError("\n".join(problems))
    return checked


def _require_installed(pages: bool) -> None:
    """Refuse a run whose packages are missing."""
    needed = NEEDED + (NEEDED_BY_PAGES if pages else ())
    if missing := [name for name in needed if find_spec(name) is None]:
        raise FileError(f"{', '.join(missing)}: not installed; {REMEDY}")


def require_writable(target: Path) -> None:
    """Refuse a target that is protected, or in a folder in which nothing can be written."""
    if target.exists() and not (target.is_file() and _may_write(target)):
        what = "is read-only" if target.is_file() else "is no file"
        raise FileError(f"{target} {what}; choose another place with -o, or remove it")
    folder = target.parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise FileError(f"{folder} is a file and no folder; choose another place with -o")
    if not _may_write(folder):
        raise FileError(f"{folder} cannot be written; choose another place with -o")


def _may_write(path: Path) -> bool:
    """Say whether a path may be written, by its own permissions too (root may write anything)."""
    return os.access(path, os.W_OK) and bool(path.stat().st_mode & 0o222)


def _size(job: Job) -> int:
    """Count what a job does: cells with code, injected parameters, and the page at the end."""
    cells = read(job.source).cells
    coded = [cell for cell in cells if cell.cell_type == "code" and cell.source.strip()]
    return len(coded) + bool(job.overrides) + job.is_page


def _warm_font_cache() -> None:
    """Let matplotlib look for fonts now: on a new machine it says so in a notebook's output."""
    import matplotlib.font_manager  # noqa: F401


def _cores(count: int) -> list[set[int] | None]:
    """Deal the processors out to so many notebooks that run at the same time.

    Notebooks that compete for processors wait for each other's threads: on two, two notebooks with
    JAX take nearly twice as long as with one each.

    Returns
    -------
    list of (set of int) or None
    """
    if count == 1 or not hasattr(os, "sched_getaffinity"):
        return [None] * count
    cores = sorted(os.sched_getaffinity(0))
    return [set(cores[k::count]) or set(cores) for k in range(count)]


def _work(job: Job, pipe: Connection, cores: set[int] | None) -> None:
    """Execute one job in a process of its own, on some processors, and send how it went.

    Sends None for every cell, then the duration in seconds, or a description of the failure.
    """
    # Ctrl-C reaches every process of the terminal; the parent answers it by terminating us. The
    # exit unwinds the stack, and papermill shuts its kernel down on the way.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if cores is not None:
        os.sched_setaffinity(0, cores)
    try:
        with tempfile.TemporaryDirectory() as private:
            # The user's start-up files and history are no part of the book.
            os.environ |= {"IPYTHONDIR": private, "JUPYTER_RUNTIME_DIR": private}
            if not os.access(Path.home(), os.W_OK):  # or matplotlib complains in the first cell
                os.environ.setdefault("MPLCONFIGDIR", private)
            pipe.send(_execute(job, pipe))
    except Exception as error:
        pipe.send(_describe(error))


def _end_with_parent() -> None:
    """Stop this process when its parent is gone, however it went."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _execute(job: Job, pipe: Connection) -> float:
    """Execute a notebook, publish the result and return how long it took in seconds."""
    # Late, because importing papermill takes a second that an up-to-date book need not spend.
    import papermill
    from traitlets.config import Config

    from readable import readable
    from webpage import page

    before = key(job.source, job.overrides)
    started = time.perf_counter()
    # A node instead of a path, and None as the output: papermill treats paths as format strings.
    node = papermill.execute_notebook(
        read(job.source),
        None,
        parameters=dict(job.overrides),
        kernel_name="python3",
        cwd=job.source.parent,
        progress_bar=False,
        start_timeout=START_TIMEOUT,
        execution_timeout=CELL_SECONDS,
        on_cell_executed=lambda **_: pipe.send(None),
        shutdown_kernel="immediate",
        # Other users of the machine need not listen in; without it kernels warn that they could.
        config=Config({"KernelManager": {"transport_encryption": "auto"}}),
    )
    seconds = time.perf_counter() - started
    node = _normalised(node)
    _join_streams(node)
    _shrink_pictures(node)
    node.metadata.language_info = LANGUAGE
    published = {name: one.default for name, one in parameters(job.source).items()}
    stamp: dict[str, object] = {
        "parameters": published | dict(job.overrides),
        "versions": _versions(),
    }
    if not job.committed:
        stored = nbformat.reads(nbformat.writes(node), as_version=4)
        stamp |= {"key": before, "seconds": round(seconds), "outputs": _outputs(stored)}
    node.metadata.companion = stamp
    if job.is_page:
        text = page(node, job.source, published)
        pipe.send(None)
    else:
        text = nbformat.writes(readable(node, job.source, job.target) if job.readable else node)
    _write(text.rstrip("\n") + "\n", job.target)
    return seconds


def _join_streams(node: NotebookNode) -> None:
    """Make one output of what a cell prints in a row; the kernel cuts it by the clock."""
    for cell in node.cells:
        joined: list[NotebookNode] = []
        for output in cell.get("outputs", ()):
            printed = output.output_type == "stream"
            if printed and joined and joined[-1].get("name") == output.name:
                joined[-1].text += output.text
            else:
                joined.append(output)
        if "outputs" in cell:
            cell.outputs = joined


def _shrink_pictures(node: NotebookNode) -> None:
    """Give every picture a palette of 64 colours: a quarter of the bytes, and no visible loss.

    The palette covers the colours that are far apart, however few pixels have them: on 19 figures
    of the book no colour moved by more than 20 of 255. (The usual palette, by how many pixels have
    a colour, moves some by 57 even if it has 256.)
    """
    from PIL import Image

    for cell in node.cells:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" not in data:
                continue
            picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
            if picture.mode == "RGBA" and picture.getchannel("A").getextrema() != (255, 255):
                continue  # transparent, which a palette would lose
            smaller = io.BytesIO()
            picture.convert("RGB").quantize(
                64, method=Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE
            ).save(smaller, "png", optimize=True, dpi=picture.info.get("dpi"))
            data["image/png"] = base64.b64encode(smaller.getvalue()).decode() + "\n"


def _write(text: str, target: Path) -> None:
    """Write a file beside its target and rename it: it appears complete or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _describe(error: Exception) -> str:
    """Say in which cell an execution failed, with the traceback as Python prints it."""
    from nbclient.exceptions import CellTimeoutError
    from papermill.exceptions import PapermillExecutionError

    from webpage import PageError

    if isinstance(error, CellTimeoutError):
        return (
            f"a cell ran longer than {CELL_SECONDS} seconds:\n{error}\n"
            "Make it shorter, or set COMPANION_CELL_SECONDS to allow more."
        )
    if isinstance(error, OSError):
        return in_words(error)
    if isinstance(error, FileError | PageError):
        return str(error)
    if not isinstance(error, PapermillExecutionError):
        return f"{type(error).__name__}: {error}"
    traceback = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback))
    return f"cell {error.cell_index + 1}: {error.ename}: {error.evalue}\n{traceback}"


def in_words(error: OSError) -> str:
    """Say in one sentence what the system refused, and what to do.

    Returns
    -------
    str
    """
    where = error.filename2 or error.filename or "the disk"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"No space is left for {where}; free some and run again, nothing half-written stays."
    return f"{where}: {error.strerror or error}; see that it exists and can be read and written."


# --- Command line ---------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and do what it says."""
    parser = argparse.ArgumentParser(
        description="Run the book's notebooks through papermill.",
        epilog="For example: run.py gd_stability -p step_size 0.3 -o mine.html",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="notebooks; all by default")
    parser.add_argument("--list", action="store_true", help="list notebooks and parameters")
    parser.add_argument(
        "-p",
        dest="overrides",
        nargs=2,
        action="append",
        default=[],
        metavar=("PARAMETER", "VALUE"),
        help="set a parameter; may be repeated",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "-o",
        dest="output",
        type=Path,
        default=RUNS,
        help="a folder or, for one notebook, a file: .html is one page in the style of the book, "
        "which needs no other file; .ipynb is for Jupyter; by default _build/runs",
    )
    where.add_argument("--refresh", action="store_true", help="execute what is committed, in place")
    parser.add_argument("--jobs", type=int, help="notebooks at the same time; default: processors")
    options = parser.parse_args(arguments)
    if options.refresh and options.overrides:
        parser.error("--refresh publishes the declared parameters; edit the notebook instead of -p")
    if options.jobs is not None and options.jobs < 1:
        parser.error(f"--jobs is {options.jobs}; it must be at least 1")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        chosen = _chosen(options.names)
        if options.list:
            _show(chosen)
            return
        jobs = [
            Job(source, target, dict(options.overrides), options.refresh, not options.refresh)
            for source, target in _targets(chosen, None if options.refresh else options.output)
        ]
        run(jobs, options.jobs)
    except (ParameterError, FileError, ExecutionError) as problem:
        sys.exit(str(problem))
    except BrokenPipeError:
        raise
    except OSError as problem:
        sys.exit(in_words(problem))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    for job in jobs:
        print(job.target)


def _chosen(names: Sequence[str]) -> dict[str, Path]:
    """Return the notebooks of the given names, or all of them."""
    known = notebooks()
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ParameterError(
            f"There is no notebook {', '.join(map(repr, unknown))}; "
            f"there are: {_listed(known, unknown[0])}"
        )
    return {name: known[name] for name in names} if names else known


def _targets(chosen: Mapping[str, Path], output: Path | None) -> list[tuple[Path, Path]]:
    """Pair every notebook with the file its result goes to; itself when there is no output."""
    if output is None:
        return [(path, path) for path in chosen.values()]
    if output.suffix.lower() in RESULTS:
        if len(chosen) > 1:
            raise ParameterError(
                f"-o {output} is one file for {len(chosen)} notebooks; name one notebook, or a "
                "folder after -o"
            )
        return [(path, output) for path in chosen.values()]
    if output.suffix and not output.is_dir():
        raise ParameterError(
            f"-o {output} ends in {output.suffix!r}; a result is a file that ends in .html or "
            ".ipynb, or a folder (make it first if its name has a dot)"
        )
    return [(path, output / path.name) for path in chosen.values()]


def _show(chosen: Mapping[str, Path]) -> None:
    """Print notebooks and what can be changed about them."""
    for name, path in chosen.items():
        print(name)
        for parameter in parameters(path).values():
            print(f"    {parameter}")


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:  # the reader of `--list | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
