"""A function over a grid: on any number of workers, resumable, the same array every time.

Work is shared out by joblib, so `joblib.parallel_config` chooses who does it: this process by
default, `n_jobs=-1` for every core, `backend="dask"` for the workers of an active
`distributed.Client`. A point's random numbers depend on its place in the grid alone, never on who
computes it or when.

Finished points can be kept on disk. Not with `joblib.Memory`, which knows a function by its own
source: it would hand out old results after a change in a constant or a helper that the function
uses (a notebook's parameters, say), and forget all of them after a change in a comment. Here the
file's name is a hash of everything the value depends on, the file appears whole or not at all
(written beside, then renamed), and it ends with a checksum, so that a damaged one is recomputed.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.random import SeedSequence
from numpy.typing import NDArray

import stabcore
from stabcore import _validation as check
from stabcore._fingerprint import digest, fingerprint, home_of

__all__ = ["sweep"]

Grid = Mapping[str, Sequence[Any]] | Sequence[tuple[Any, ...]]

Value = NDArray[Any]

CHECKSUM_BYTES = hashlib.sha256().digest_size


def sweep(
    function: Callable[..., Any],
    grid: Grid,
    *,
    rng: int | np.random.Generator | None = None,
    memory: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> Value:
    r"""Return the values of `function` over a grid.

    Parameters
    ----------
    function : callable
        Returns a number, or an array of one shape at all points. It must not depend on anything
        but its arguments, its closure and its module's constants.
    grid : dict of sequences, or sequence of tuples
        The axes of a product grid, called as `function(name=value, ...)`; or the arguments of each
        point, called as `function(*arguments)`.
    rng : int, numpy.random.Generator or None
        If given, each point is called with a generator of its own as the keyword `rng`, spawned
        by its place in the grid.
    memory : path, optional
        A folder for finished points; a sweep that was interrupted, or repeated, takes them from
        there. On a cluster, one that all workers see. A point is recomputed after a change in its
        arguments, seed or place; in `function`, its closure, defaults and the global values it
        names; in the functions, classes and whole modules of your own (files outside Python's
        library and installed packages) and of `stabcore` that it names or imports, directly or
        through each other; in the version of `stabcore`. Changes in other packages, and in files
        that are read, are not noticed: empty the folder then.
    progress : bool
        Show a progress bar.

    Returns
    -------
    array, shape (*axes, *value)
        For a dict one axis per entry, else one axis for the points; then the axes of a value.

    Raises
    ------
    TypeError
        If the grid is neither kind, a value is not numerical, or `memory` is used and something
        the value depends on cannot be pickled.
    ValueError
        If the grid is empty or the values differ in shape.
    RuntimeError
        If `function` raises, or its process dies; the message names the grid point (those that
        were being computed, if several were). Finished points are kept.

    Examples
    --------
    >>> sweep(lambda base, power: base**power, {"base": [2, 3], "power": [0, 1, 2]})
    array([[1, 2, 4],
           [1, 3, 9]])
    >>> one, two = (sweep(lambda scale, rng: rng.normal(), [(1,), (2,)], rng=0) for _ in range(2))
    >>> bool((one == two).all()), bool(one[0] == one[1])
    (True, False)
    """
    if not callable(function):
        raise TypeError(f"function must be callable, got {type(function).__name__}.")
    calls, shape = _calls(grid)
    seeds: Sequence[SeedSequence | None] = [None] * len(calls)
    if rng is not None:
        seeds = _seed_sequence(check.generator(rng)).spawn(len(calls))
    paths: Sequence[Path | None] = [None] * len(calls)
    if memory is not None:
        folder = Path(memory).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        home = home_of(function)
        code = [stabcore.__version__, fingerprint(function, home)]
        keys = (_key(code, *point, home) for point in zip(calls, seeds, strict=True))
        paths = [folder / f"{key}.npy" for key in keys]

    values: dict[int, Value] = {}
    for index, path in enumerate(paths):
        stored = _load(path)
        if stored is not None:
            values[index] = stored
    missing = [index for index in range(len(calls)) if index not in values]
    tasks = [(index, function, calls[index], seeds[index], paths[index]) for index in missing]
    from tqdm import tqdm  # only a sweep needs it

    bar = tqdm(
        total=len(calls), initial=len(values), disable=not check.boolean("progress", progress)
    )
    with bar:
        for index, value in _arrivals(tasks):
            values[index] = value
            bar.update()
    return _stack([values[index] for index in range(len(calls))], calls).reshape(
        *shape, *values[0].shape
    )


class _Call:
    """One grid point: positional and keyword arguments."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.args, self.kwargs = args, kwargs

    def __str__(self) -> str:
        """Return the arguments as they are written in a call."""
        named = (f"{name}={value!r}" for name, value in self.kwargs.items())
        return ", ".join([*map(repr, self.args), *named])


_Task = tuple[int, Callable[..., Any], _Call, SeedSequence | None, Path | None]


def _calls(grid: Grid) -> tuple[list[_Call], tuple[int, ...]]:
    """Return the grid's points and shape."""
    if isinstance(grid, Mapping):
        axes = {name: list(axis) for name, axis in grid.items()}
        shape = tuple(len(axis) for axis in axes.values())
        points = itertools.product(*axes.values())
        calls = [_Call((), dict(zip(axes, point, strict=True))) for point in points]
        empty = not axes or 0 in shape
    elif isinstance(grid, Sequence) and all(isinstance(point, tuple) for point in grid):
        calls, shape = [_Call(point, {}) for point in grid], (len(grid),)
        empty = not calls
    else:
        raise TypeError(
            "grid must be a dict of axes, {name: values}, or a sequence of argument tuples, got "
            f"{type(grid).__name__}; for one argument pass {{name: values}}."
        )
    if empty:
        raise ValueError("grid is empty; every axis needs at least one value.")
    return calls, shape


def _seed_sequence(generator: np.random.Generator) -> SeedSequence:
    """Return what the generator was seeded with, which spawns its children."""
    sequence = generator.bit_generator.seed_seq
    if not isinstance(sequence, SeedSequence):
        raise TypeError("rng must be a generator that can spawn, np.random.default_rng(seed).")
    return sequence


def _arrivals(tasks: Sequence[_Task]) -> Iterator[tuple[int, Value]]:
    """Yield index and value of each task as it is finished, in any order."""
    import joblib  # only a sweep needs it

    client = getattr(joblib.parallel.get_active_backend()[0], "client", None)
    if client is not None:
        return _cluster_arrivals(client, tasks)
    parallel = joblib.Parallel(return_as="generator_unordered")
    if parallel.n_jobs == 1:
        return (_evaluate(*task) for task in tasks)
    return _process_arrivals(parallel, tasks)


def _process_arrivals(parallel: Any, tasks: Sequence[_Task]) -> Iterator[tuple[int, Value]]:
    """Do so in other processes or threads; know what was computed when one of them dies."""
    import joblib

    with TemporaryDirectory() as folder:
        begun = [Path(folder) / str(task[0]) for task in tasks]
        work = zip(begun, tasks, strict=True)
        try:
            yield from parallel(joblib.delayed(_marked)(mark, task) for mark, task in work)
        except BrokenExecutor as error:
            points = [str(t[2]) for mark, t in zip(begun, tasks, strict=True) if mark.exists()]
            raise RuntimeError(
                f"sweep failed at {'one of ' if len(points) > 1 else ''}the grid point"
                f"{'s' if len(points) > 1 else ''} ({'), ('.join(points)}): a worker died; look "
                "for what ends the process, such as a lack of memory."
            ) from error


def _marked(mark: Path, task: _Task) -> tuple[int, Value]:
    """Compute one point, with a file that says so until it is done."""
    mark.touch()
    try:
        return _evaluate(*task)
    finally:
        mark.unlink(missing_ok=True)


def _cluster_arrivals(client: Any, tasks: Sequence[_Task]) -> Iterator[tuple[int, Value]]:
    """Do the same on a Dask cluster."""
    # Not through joblib, which waits for ever for a task that kills each worker it is given to,
    # and which keeps large arguments on workers only, where they are lost with a worker.
    distributed: Any = importlib.import_module("distributed")  # an optional dependency
    futures = {client.submit(_evaluate, *task, pure=False): task[2] for task in tasks}
    try:
        for future in distributed.as_completed(futures):
            yield future.result()
    except distributed.KilledWorker as error:
        raise RuntimeError(
            f"sweep failed at the grid point ({futures[future]}): each worker it was given to "
            "died, of it or of another point; look for what ends the process, such as a lack of "
            "memory."
        ) from error
    finally:
        client.cancel(list(futures))


def _evaluate(
    index: int,
    function: Callable[..., Any],
    call: _Call,
    seed: SeedSequence | None,
    path: Path | None,
) -> tuple[int, Value]:
    """Compute and keep one point; runs in a worker."""
    random = {} if seed is None else {"rng": np.random.default_rng(seed)}
    try:
        result = function(*call.args, **call.kwargs, **random)
    except Exception as error:
        raise RuntimeError(
            f"sweep failed at the grid point ({call}): {type(error).__name__}: {error}"
        ) from error
    value = np.asarray(result)
    if value.dtype.kind not in "biufc":
        raise TypeError(
            f"function must return a number or an array of numbers, got {type(result).__name__} "
            f"at the grid point ({call})."
        )
    if path is not None:
        _store(path, value)
    return index, value


def _stack(values: list[Value], calls: list[_Call]) -> Value:
    """Return the values in one array."""
    for value, call in zip(values, calls, strict=True):
        if value.shape != values[0].shape:
            raise ValueError(
                "function must return values of one shape, got "
                f"{values[0].shape} at ({calls[0]}) but {value.shape} at ({call})."
            )
    return np.stack(values)


def _store(path: Path, value: Value) -> None:
    """Write a value and its checksum so that the file is never seen half-written."""
    buffer = io.BytesIO()
    np.save(buffer, value, allow_pickle=False)
    content = buffer.getvalue()
    beside = path.with_suffix(f".{uuid4().hex}.part")
    try:
        beside.write_bytes(content + hashlib.sha256(content).digest())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _load(path: Path | None) -> Value | None:
    """Return a stored value, or None if there is none or the file is damaged."""
    if path is None or not path.exists():
        return None
    stored = path.read_bytes()
    content, checksum = stored[:-CHECKSUM_BYTES], stored[-CHECKSUM_BYTES:]
    if hashlib.sha256(content).digest() != checksum:
        return None
    return np.asarray(np.load(io.BytesIO(content), allow_pickle=False))


def _key(code: list[str], call: _Call, seed: SeedSequence | None, home: str) -> str:
    """Return a hash of everything a value depends on."""
    random = [] if seed is None else [seed.entropy, seed.spawn_key]
    positional = [fingerprint(value, home) for value in call.args]
    keywords = [[name, fingerprint(value, home)] for name, value in call.kwargs.items()]
    return digest([code, positional, keywords, random])
