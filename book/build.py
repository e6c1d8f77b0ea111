"""Build the book: execute what changed, stage a source tree, run Jupyter Book, publish by rename.

Everything happens under ``_build``, so a build never touches the working tree:

    notebooks/  executed notebooks; each one carries the hash of what it was computed from
    source/     what Jupyter Book reads: the repository's pages and the executed notebooks
    building-*/ a build under way, or the remains of one that was killed
    html/       the book; it is there only when it is complete

Jupyter Book's own execution cache would not notice a change in ``stabcore``; it is switched off.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "notebooks"), str(ROOT / "tools")]

import run  # noqa: E402
from lock import exclusive  # noqa: E402

BUILD = ROOT / "_build"
EXECUTED = BUILD / "notebooks"
SOURCE = BUILD / "source"
HTML = BUILD / "html"
STAMP = ".built-from"
# Pages of the table of contents may include these or be these.
ROOT_FILES = ("_config.yml", "_toc.yml", "*.md", "CITATION.cff", "LICENSE")


def main() -> None:
    """Build the book unless it is up to date, and say where it is."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        waiting = "Another build is running; waiting for it to end ..."
        with exclusive(BUILD / ".lock", waiting) as lock:
            build(lock)
    except (run.ParameterError, run.FileError, run.ExecutionError, BuildError) as problem:
        sys.exit(f"{problem}\n\nThe book was not built.")
    except OSError as problem:
        sys.exit(f"{run.in_words(problem)}\n\nThe book was not built.")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    print(f"The book: {(HTML / 'index.html').as_uri()}")


class BuildError(RuntimeError):
    """Why the pages could not be made; an earlier book in `_build/html` stays as it was."""


def build(lock: int) -> None:
    """Execute, stage, build and publish, each step only where something changed."""
    execute()
    stage()
    wanted = fingerprint()
    stamp = HTML / STAMP
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == f"{wanted}\n{contents(HTML)}\n":
        return
    staged = contents(SOURCE)
    output = Path(tempfile.mkdtemp(prefix="building-", dir=BUILD))
    try:
        html = make_pages(output, lock)
        # What was staged is compared with what would be staged now: pages change too.
        stage()
        if contents(SOURCE) != staged or fingerprint() != wanted or stale():
            raise BuildError("Sources changed during the build; run it again.")
        (html / STAMP).write_text(f"{wanted}\n{contents(html)}\n", encoding="utf-8")
        publish(html)
    finally:
        shutil.rmtree(output, ignore_errors=True)


def contents(folder: Path) -> str:
    """Hash the files of a folder, the stamp apart.

    Returns
    -------
    str
        The hash, in hexadecimal.
    """
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != STAMP)
    found = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


def stale() -> list[run.Job]:
    """List the notebooks whose executed copy is missing or was computed from something else."""
    jobs = [run.Job(path, EXECUTED / path.name) for path in run.notebooks().values()]
    return [job for job in jobs if not run.current(job.source, job.target)]


def execute() -> None:
    """Execute the stale notebooks."""
    if jobs := stale():
        run.run(jobs)


def stage() -> None:
    """Assemble the source tree from the repository's pages and the executed notebooks."""
    if SOURCE.exists():
        shutil.rmtree(SOURCE)
    hidden = shutil.ignore_patterns("__pycache__", ".*")
    # Pages show parts of the recipes.
    for folder in ("book", "tests/recipes"):
        if (ROOT / folder).is_dir():
            shutil.copytree(ROOT / folder, SOURCE / folder, ignore=hidden)
    for pattern in ROOT_FILES:
        for path in ROOT.glob(pattern):
            shutil.copyfile(path, SOURCE / path.name)
    (SOURCE / "notebooks").mkdir()
    for path in run.notebooks().values():
        shutil.copyfile(EXECUTED / path.name, SOURCE / "notebooks" / path.name)
    # The extension writes the downloads with it.
    shutil.copyfile(ROOT / "notebooks" / "readable.py", SOURCE / "notebooks" / "readable.py")


def fingerprint() -> str:
    """Hash everything that decides what the pages look like.

    The API pages come from the docstrings of `stabcore`, the buttons from the environment.

    Returns
    -------
    str
        The hash, in hexadecimal.
    """
    names = ("COMPANION_BOOK_URL", "COMPANION_REPOSITORY_URL", "COMPANION_REPOSITORY_BRANCH")
    decisive = {
        "code": run.code(),
        "environment": {name: os.environ.get(name) for name in names},
        "pages": contents(SOURCE),
        "python": sys.version,
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def make_pages(output: Path, lock: int) -> Path:
    """Run Jupyter Book with warnings as errors in a fresh folder; return that of the pages."""
    for remains in BUILD.glob("building-*"):  # of a build that was killed
        if remains != output:
            shutil.rmtree(remains)
    command = Path(sys.executable).with_name("jupyter-book")
    print("Building the pages ...", flush=True)
    result = subprocess.run(
        [command, "build", "-q", "-W", "--keep-going", "--path-output", output, SOURCE],
        # The order of sets must not decide what a page looks like.
        env=os.environ | {"PYTHONHASHSEED": "0"},
        # It praises a folder that is about to be renamed; warnings and errors go to stderr.
        stdout=subprocess.DEVNULL,
        pass_fds=(lock,),
        check=False,
    )
    if result.returncode:
        raise BuildError("Jupyter Book failed or gave warnings, which are errors here; see above.")
    return output / "_build" / "html"


def publish(html: Path) -> None:
    """Put finished pages in the place of the old ones.

    Folders cannot be exchanged in one step. A kill between the two renames leaves no book, which
    the next build repairs, and never a mixture of two.
    """
    if HTML.exists():
        HTML.rename(html.with_name("old"))
    html.rename(HTML)


if __name__ == "__main__":
    main()
