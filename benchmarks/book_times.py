"""Time `make book` from nothing and with nothing changed: `python benchmarks/book_times.py`.

In a copy of the repository, so that the build at hand stays as it is. The installation is not
part of the time.
"""

import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from record import load, store

ROOT = Path(__file__).parents[1]
SKIPPED = shutil.ignore_patterns(
    ".git", ".venv", "_build", "__pycache__", ".*_cache", ".hypothesis"
)


def seconds(target, folder):
    """Return how long `make target` takes."""
    start = time.perf_counter()
    subprocess.run(["make", target], check=True, cwd=folder)
    return time.perf_counter() - start


def main():
    """Measure both and add them to the recorded results."""
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(shutil.copytree(ROOT, Path(temporary) / "book", ignore=SKIPPED))
        seconds("venv", copy)
        times = {"fresh": seconds("book", copy), "unchanged": seconds("book", copy)}
    store(load() | {"book": {name: round(value, 1) for name, value in times.items()}})


if __name__ == "__main__":
    main()
