"""One process at a time: an advisory lock that the system drops when its holder dies."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def exclusive(path: Path, waiting: str) -> Iterator[int]:
    """Hold the lock on `path`, created if need be; say `waiting` when another process has it.

    A lock of the kernel (``flock``) needs no cleaning up: however the holder ends, the lock is free
    again, so a killed build never blocks the next one.

    Parameters
    ----------
    path : Path
        The lock file. It stays, empty: removing it would let two processes lock different files.
    waiting : str
        What to print, once, before waiting.

    Yields
    ------
    int
        The lock's file descriptor. A child process that gets it (``pass_fds``) shares the lock:
        should it outlive us, whoever comes next waits for it, too.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(waiting, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()
