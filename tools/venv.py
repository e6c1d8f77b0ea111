"""Make `.venv` hold exactly what `requirements.lock` pins, and `stabcore` itself.

Run by every make target that needs Python, so the common case (nothing to do) must be fast and the
uncommon one (an installation killed half-way) must repair itself: the stamp that says "installed"
is removed before anything is touched and written when everything is done. Standard library only,
because nothing else is there yet.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from lock import exclusive

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
STAMP = VENV / "installed"
OLDEST = (3, 11)


def main() -> None:
    """Create, update or repair the environment unless its stamp says that it is up to date."""
    check_python()
    waiting = "Another make is preparing .venv; waiting for it ..."
    with exclusive(ROOT / ".venv.lock", waiting) as lock:
        wanted = f"{interpreter()}\n{fingerprint()}\n"
        installed = STAMP.read_text(encoding="utf-8") if STAMP.is_file() else ""
        if installed == wanted:
            return
        print("Preparing .venv from requirements.lock (a few minutes, once) ...", flush=True)
        STAMP.unlink(missing_ok=True)
        # Only an environment that was complete, and made by this interpreter, is worth updating.
        if not installed.startswith(f"{interpreter()}\n"):
            run(lock, sys.executable, "-m", "venv", "--clear", str(VENV))
        install(lock)
        STAMP.write_text(wanted, encoding="utf-8")


def check_python() -> None:
    """Stop with a remedy when this interpreter cannot make the environment."""
    if sys.version_info < OLDEST:
        sys.exit(
            f"Python {OLDEST[0]}.{OLDEST[1]} or newer is needed, but {sys.executable} is "
            f"{sys.version.split()[0]}. Name a newer one: make PYTHON=/path/to/python3.11"
        )
    try:
        import ensurepip  # noqa: F401
    except ModuleNotFoundError:
        sys.exit(
            f"{sys.executable} has no module ensurepip, without which venv gives no pip. "
            "On Debian and Ubuntu: apt-get install python3-venv"
        )


def interpreter() -> str:
    """Name the interpreter and the place: an environment can be moved to neither another."""
    return f"{sys.version.split()[0]} {sys.base_prefix} {VENV}"


def fingerprint() -> str:
    """Hash what decides which packages are there: the pins and the project's own metadata."""
    pins = (ROOT / "requirements.lock").read_bytes()
    project = (ROOT / "pyproject.toml").read_bytes()
    return hashlib.sha256(pins + project).hexdigest()


def install(lock: int) -> None:
    """Install the pinned packages, hashes checked, and the repository's own package."""
    pip = (str(VENV / "bin" / "python"), "-m", "pip", "install", "--quiet")
    run(lock, *pip, "--require-hashes", "--requirement", "requirements.lock")
    run(lock, *pip, "--no-deps", "--no-build-isolation", "--editable", ".")


def run(lock: int, *command: str) -> None:
    """Run a command in the repository, under the lock; end this program if it fails."""
    environment = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    result = subprocess.run(command, cwd=ROOT, env=environment, pass_fds=(lock,), check=False)
    if result.returncode:
        sys.exit(f"Failed: {' '.join(command)}\nRun make again: it starts this step afresh.")


if __name__ == "__main__":
    main()
