"""Fixtures that several test files share."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings
from project import Project

# A change is checked with the same examples every time; `--hypothesis-profile search`, which the
# weekly run uses, draws new ones.
settings.register_profile("change", derandomize=True)
settings.register_profile("search", derandomize=False)
settings.load_profile("change")


def pytest_configure(config: pytest.Config) -> None:
    """Give each worker a processor of its own: the threads of JAX would wait for each other.

    Let it, and what it starts, hear Ctrl-C, which the background job of a shell does not.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    worker = getattr(config, "workerinput", {}).get("workerid", "")
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return an empty project."""
    return Project(tmp_path / "project")
