"""Run the recipes of the page "Your framework", each in an environment of its own.

    python tests/recipes/run.py              # all frameworks
    python tests/recipes/run.py jax pytorch  # some of them

Each environment gets this package with its extra `networks` and what `requirements/` names, without
a lock: the newest that pip finds (pip's own variables, such as PIP_CONSTRAINT, count). The recipe
trains a network in single precision and prints a verdict, which must be decided. Needed are Python
with venv and a connection to a package index. Times are printed, and never judged.
"""

import argparse
import math
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FRAMEWORKS = sorted(path.name.removesuffix("_recipe.py") for path in HERE.glob("*_recipe.py"))
REGIONS = ("both", "GD only", "SGD only", "neither")
NUMBER = r"[+-]?(?:\d[\d.e+-]*|inf|nan)"
MOVED = re.compile(rf"moved=({NUMBER}) \(({NUMBER}) of \|theta\|\)")
REGION = re.compile(r"^stable for: (.*)$", re.MULTILINE)
EXPONENT = re.compile(rf"^  lambda = ({NUMBER}) in \[({NUMBER}), ({NUMBER})\]", re.MULTILINE)


class RecipeError(RuntimeError):
    """What went wrong with one recipe; the others still run."""


@dataclass(frozen=True)
class Verdict:
    """What a recipe printed of one network."""

    moved: float  # to the minimum, from the parameters in single precision
    relative: float  # the same in units of their length
    region: str
    exponent: float  # λ
    low: float
    high: float

    def __str__(self) -> str:
        """Return one line."""
        return (
            f"stable for: {self.region}; λ = {self.exponent:.3g} in [{self.low:.3g}, "
            f"{self.high:.3g}]; moved by {self.moved:.1e}, {self.relative:.1e} of |θ|"
        )

    def complaints(self) -> list[str]:
        """Say what is wrong with it."""
        found = []
        if not 0 < self.relative < 0.1:
            found.append(
                f"moved by {self.relative:.2g} of |θ|, and not a little from a trained network"
            )
        if self.region not in REGIONS:
            found.append(f"undecided: {self.region!r}")
        if not math.isfinite(self.exponent):
            found.append(f"λ = {self.exponent} is not finite")
        if not (self.low <= self.exponent <= self.high and self.low * self.high > 0):
            found.append(f"λ has no sign: {self.exponent} in [{self.low}, {self.high}]")
        return found


def verdicts_of(printed: str) -> list[Verdict]:
    """Read the verdicts that a recipe printed.

    Returns
    -------
    list of Verdict

    Raises
    ------
    RecipeError
        If there is none, or one is incomplete or not decided.
    """
    parts = [pattern.findall(printed) for pattern in (MOVED, REGION, EXPONENT)]
    if not parts[0] or len({len(part) for part in parts}) > 1:
        raise RecipeError(f"no complete verdict in what it printed:\n{printed}")
    verdicts = [
        Verdict(*map(float, moved), region, *map(float, exponent))
        for moved, region, exponent in zip(*parts, strict=True)
    ]
    if complaints := [text for verdict in verdicts for text in verdict.complaints()]:
        raise RecipeError(f"{'; '.join(complaints)}:\n{printed}")
    return verdicts


def prepare(framework: str, folder: Path) -> Path:
    """Make the environment of a framework, or bring it up to date; return its interpreter."""
    environment = folder / framework
    python = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        call([sys.executable, "-m", "venv", "--clear", str(environment)])
    wanted = HERE / "requirements" / f"{framework}.txt"
    call([str(python), "-m", "pip", "install", "-q", "-r", str(wanted), f"{ROOT}[networks]"])
    return python


def call(command: list[str]) -> str:
    """Run a command without the caller's Python path; return what it printed."""
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if ran.returncode:
        raise RecipeError(f"{' '.join(command)} failed:\n{ran.stdout}{ran.stderr}")
    return ran.stdout


def run(framework: str, folder: Path) -> None:
    """Run one recipe twice, the second time with what the first has compiled, and report."""
    python, seconds = prepare(framework, folder), []
    for _ in range(2):
        began = time.perf_counter()
        verdicts = verdicts_of(call([str(python), str(HERE / f"{framework}_recipe.py")]))
        seconds.append(time.perf_counter() - began)
    for verdict in verdicts:
        print(f"{framework}: {verdict}")
    print(f"{framework}: {seconds[0]:.1f} s, again {seconds[1]:.1f} s", flush=True)


def main() -> None:
    """Run what was asked for; fail if a recipe does."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "frameworks", nargs="*", metavar="FRAMEWORK", help=f"{', '.join(FRAMEWORKS)}; default: all"
    )
    parser.add_argument(
        "--envs",
        type=Path,
        default=ROOT / "_build" / "recipes",
        help="where the environments are kept; default: _build/recipes",
    )
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.frameworks) - set(FRAMEWORKS)):
        parser.error(f"no recipe for {', '.join(unknown)}; there are {', '.join(FRAMEWORKS)}")
    failed = []
    for framework in arguments.frameworks or FRAMEWORKS:
        try:
            run(framework, arguments.envs.resolve())
        except RecipeError as problem:
            failed.append(framework)
            print(f"{framework}: {problem}", file=sys.stderr, flush=True)
    if failed:
        sys.exit(f"These recipes failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
