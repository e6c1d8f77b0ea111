"""Tiny projects in which the runner and the build can be tried, broken and killed."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parents[1]
TOOLS = (
    "notebooks/run.py",
    "notebooks/readable.py",
    "notebooks/webpage.py",
    "book/build.py",
    "tools/lock.py",
)
KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
CONFIG = """\
title: A tiny book
only_build_toc_files: true
execute: {execute_notebooks: "off"}
repository: {url: ""}
"""


class Project:
    """A repository with nothing but notebooks, one page, and the real runner and build."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in TOOLS:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, root / name)
        (root / "stabcore").mkdir()
        self.write("stabcore/code.py", "answer = 42\n")
        self.write("requirements.lock", "numpy==2\n")
        self.write("_config.yml", CONFIG)
        self.write("_toc.yml", "format: jb-book\nroot: book/index\n")
        self.write("book/index.md", "# A tiny book\n\nOne page.\n")

    def write(self, name: str, content: str) -> None:
        """Write a file of the project."""
        (self.root / name).write_text(content, encoding="utf-8")

    def add(self, name: str, *code: str, parameters: str = "size: float = 0.5  # how big") -> Path:
        """Add a notebook: a title, a parameters cell and the given code, and name it in the toc."""
        first = new_code_cell(parameters, metadata={"tags": ["parameters"]})
        cells = [new_markdown_cell(f"# {name}"), first, *map(new_code_cell, code)]
        for number, cell in enumerate(cells):
            cell["id"] = f"cell-{number}"
        path = self.root / "notebooks" / f"{name}.ipynb"
        nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": KERNEL}), path)
        names = sorted(one.stem for one in path.parent.glob("*.ipynb"))
        chapters = "".join(f"- file: notebooks/{one}\n" for one in names)
        self.write("_toc.yml", f"format: jb-book\nroot: book/index\nchapters:\n{chapters}")
        return path

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start one of the project's programs."""
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def call(self, *command: str) -> tuple[int, str]:
        """Run one of the project's programs; return its exit code and what it printed."""
        process = self.start(*command)
        output, _ = process.communicate(timeout=120)
        return process.returncode, output

    def executed(self, name: str) -> Path:
        """Return where the build keeps the executed copy of a notebook."""
        return self.root / "_build" / "notebooks" / f"{name}.ipynb"


def read(path: Path) -> NotebookNode:
    """Read a notebook."""
    return nbformat.read(path, as_version=4)


def printed(path: Path) -> str:
    """Return everything that a notebook printed."""
    outputs = [output for cell in read(path).cells for output in cell.get("outputs", ())]
    return "".join(output.get("text", "") for output in outputs)


def eventually(condition: Callable[[], bool], seconds: float = 30) -> bool:
    """Wait until a condition holds; say whether it did in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
