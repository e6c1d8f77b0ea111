"""Run the benchmarks and write results.json and results.md: `python benchmarks/record.py`.

`python benchmarks/record.py test_networks.py` runs one file and keeps what is known of the others.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
PACKAGES = ("stabcore", "numpy", "scipy", "numba")
FOOTER = "Medians of 3 or 5 rounds. Rerun with `python benchmarks/record.py`.\n"


def machine():
    """Describe the processor and the versions, nothing that identifies the machine."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    return (
        f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores, "
        f"{platform.system()}, Python {platform.python_version()}, {versions}; "
        f"load average {os.getloadavg()[0]:.1f} at the start"
    )


def measure(files):
    """Run the suite, or some of its files; return {test: {"seconds": median, "steps": number}}."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "benchmarks.json"
        paths = [str(HERE / file) for file in files] or [str(HERE)]
        command = [sys.executable, "-m", "pytest", *paths, f"--benchmark-json={output}", "-q"]
        subprocess.run(command, check=True, cwd=HERE.parent)
        measured = json.loads(output.read_text())["benchmarks"]
    return {
        f"{Path(row['fullname'].split('::')[0]).stem}::{row['name']}": {
            "seconds": float(f"{row['stats']['median']:.4g}"),
            "steps": row["extra_info"]["steps"],
            "error": row["extra_info"].get("error"),
        }
        for row in measured
    }


def render(results):
    """Return the results as Markdown."""
    return "\n".join(
        [
            "# Benchmarks\n",
            f"{results['machine']}.\n",
            *monte_carlo_table(results["benchmarks"]),
            *exponent_table(results["benchmarks"]),
            *peer_table(results["benchmarks"]),
            *trajectory_table(results["benchmarks"]),
            *map_tables(results["benchmarks"]),
            *saddle_tables(results["benchmarks"]),
            *kernel_table(results["benchmarks"]),
            *network_tables(results["benchmarks"]),
            *book_table(results.get("book")),
            FOOTER,
        ]
    )


def monte_carlo_table(measured):
    """Compare nanoseconds per step of a product, by number of samples."""
    yield "## Monte Carlo, one SGD step in residual coordinates\n"
    yield "| N | NumPy loop, ns | one core, ns | ratio | all cores, ns | ratio |"
    yield "|--:|--:|--:|--:|--:|--:|"
    for samples in (10, 100, 1000):
        naive, one, every = (
            nanoseconds(measured[f"test_monte_carlo::{name}"])
            for name in (
                f"test_naive[{samples}]",
                f"test_compiled[{samples}-one core]",
                f"test_compiled[{samples}-all cores]",
            )
        )
        yield (
            f"| {samples} | {naive:.0f} | {one:.1f} | {naive / one:.0f} "
            f"| {every:.1f} | {naive / every:.0f} |"
        )
    yield ""


def exponent_table(measured):
    """List time and error of every method."""
    yield "## λ of Pollicott's pair of matrices\n"
    yield "| method | ms | error |"
    yield "|---|--:|--:|"
    for test, label in (
        ("test_transfer[1e-06]", "transfer operator, tolerance 1e-6"),
        ("test_transfer[1e-10]", "transfer operator, tolerance 1e-10"),
        ("test_transfer[1e-12]", "transfer operator, tolerance 1e-12"),
        ("test_transfer_in_space", "transfer operator, another pair, 3×3 (error estimate)"),
        ("test_enclosure[0.001]", "enclosure, width 1e-3 (proven half-width)"),
        ("test_enclosure[0.0001]", "enclosure, width 1e-4 (proven half-width)"),
        ("test_enclosure[1e-05]", "enclosure, width 1e-5 (proven half-width)"),
        ("test_simulation[2000]", "Monte Carlo, 32 × 2,000 steps (95 % half-width)"),
        ("test_simulation[200000]", "Monte Carlo, 32 × 200,000 steps (95 % half-width)"),
        ("test_textbook_loop", "NumPy QR loop, 20,000 steps"),
    ):
        row = measured[f"test_exponents::{test}"]
        yield f"| {label} | {1e3 * row['seconds']:.3g} | {row['error']:.1e} |"
    yield ""


def peer_table(measured):
    """Compare simulations of one product, on one core: ns per step, and the time to an error."""
    yield "## Simulations by others, on one core\n"
    yield "| | 2×2 pair, ns per step | seconds to 1e-4 | SGD, N = 1000, ns per step |"
    yield "|---|--:|--:|--:|"
    for name, label in (
        ("stabcore", "`monte_carlo`"),
        ("bare", "a row subtracted from a vector, no more"),
        ("numba", "numba loop"),
        ("jax", "JAX loop (`scan`)"),
        ("numpy", "NumPy QR loop"),
        ("lyapynov", "lyapynov 1.0"),
    ):
        pair, sgd = (measured.get(f"test_peers::test_{law}_{name}") for law in ("pair", "sgd"))
        each = "" if pair is None else f"{nanoseconds(pair):.0f}"
        total = "" if pair is None else f"{pair['seconds'] * (pair['error'] / 1e-4) ** 2:.3g}"
        yield f"| {label} | {each} | {total} | {'' if sgd is None else f'{nanoseconds(sgd):.0f}'} |"
    yield ""


def trajectory_table(measured):
    """Compare SGD from 100,000 starts with the NumPy-vectorised twin, per step of one run."""
    naive = nanoseconds(measured["test_trajectories::test_naive"])
    yield "## 100,000 SGD starts in exact coordinates, 20,000 steps at most\n"
    yield "| | seconds | steps | ns per step | times faster than vectorised NumPy |"
    yield "|---|--:|--:|--:|--:|"
    for name, label in (("every_step", "every step"), ("until_decided", "until decided")):
        row = measured[f"test_trajectories::test_{name}"]
        each = nanoseconds(row)
        yield (
            f"| {label} | {row['seconds']:.2f} | {row['steps']:.3g} "
            f"| {each:.2f} | {naive / each:.1f} |"
        )
    yield f"| vectorised NumPy | | | {naive:.1f} | 1 |\n"


def map_tables(measured):
    """Compare bifurcation diagrams and basins with plain Python loops."""
    yield "## Gradient descent as a map\n"
    yield from comparison(
        measured,
        (
            "bifurcation diagram, 2,000 × 5,512 steps, compiled",
            "test_orbits::test_diagram[compiled]",
        ),
        ("the same, chain", "test_orbits::test_diagram[chain]"),
        ("the same, NumPy function", "test_orbits::test_diagram[function]"),
        ("plain Python, 20 step sizes", "test_orbits::test_naive_diagram"),
    )
    for step_size in ("0.5", "1.1"):
        yield from comparison(
            measured,
            (
                f"basin, 10⁶ starts × 500 steps, η = {step_size}",
                f"test_basins::test_basin[{step_size}]",
            ),
            ("plain Python, 2,500 starts", f"test_basins::test_naive[{step_size}]"),
        )
    row = measured["test_orbits::test_doublings"]
    time, error = 1e3 * row["seconds"], row["error"]
    yield f"Six period doublings: {time:.0f} ms, error of the fourth {error:.0e}.\n"


def saddle_tables(measured):
    """Report phase diagrams from exponents, and simulated ones."""
    yield "## Phase diagrams of one neuron\n"
    yield "| | seconds |"
    yield "|---|--:|"
    for data in ("label flips", "finite data", "Gaussian data"):
        row = measured[f"test_saddles::test_phase_diagram[{data}]"]
        yield f"| from exponents, 400 × 400, {data} | {row['seconds']:.2f} |"
    row = measured["test_saddles::test_naive_finite_data"]
    yield f"| NumPy, finite data | {row['seconds']:.2f} |"
    row = measured["test_saddles::test_naive_gaussian_data"]
    yield f"| SciPy's quadrature, one cell of Gaussian data | {row['seconds']:.3f} |"
    for data in ("label flips", "finite data", "Gaussian data"):
        small, large = (
            measured[f"test_saddles::test_simulated_diagram[{data}-{side}]"] for side in (30, 60)
        )
        growth = large["seconds"] / small["seconds"]
        yield (
            f"| simulated, 60 × 60 × 256 runs × 10,000 steps, {data} ({nanoseconds(large):.1f} ns "
            f"per step; {growth:.1f} times as long as 30 × 30) | {large['seconds']:.1f} |"
        )
    row = measured["test_saddles::test_naive_simulation"]
    yield f"\nVectorised NumPy: {nanoseconds(row):.0f} ns per step.\n"


def kernel_table(measured):
    """Report λ(η) of a network on 1,000 images."""
    row, minimum = (
        measured[f"test_kernel::{name}"] for name in ("test_kernel_and_curve", "test_minimum")
    )
    yield "## A network on 1,000 images\n"
    yield (
        f"Minimum, kernel and λ at 40 step sizes: {row['seconds']:.1f} s, of which the minimum "
        f"{minimum['seconds']:.1f} s.\n"
    )


def network_tables(measured):
    """Compare training with loops over compiled steps; report minima and exponents of networks."""
    yield "## Networks: training with batches of one\n"
    yield "| | `train`, 32 runs, µs per run-step | JAX loop, µs | ratio | PyTorch, µs |"
    yield "|---|--:|--:|--:|--:|"
    torch = measured.get("test_networks::test_train_torch")
    for name in ("mlp", "cnn", "transformer"):
        ours, loop = (
            nanoseconds(measured[f"test_networks::{test}[{name}]"]) / 1e3
            for test in ("test_train", "test_train_jax")
        )
        peer = f"{nanoseconds(torch) / 1e3:.0f}" if torch and name == "mlp" else ""
        yield f"| {name} | {ours:.1f} | {loop:.0f} | {loop / ours:.0f} | {peer} |"
    yield "\n## Networks: minima and exponents\n"
    yield "| | seconds |"
    yield "|---|--:|"
    for test, label in (
        *(
            (f"test_levenberg_marquardt[{name}]", f"move to a minimum, 24 × 10 outputs, {name}")
            for name in ("mlp", "cnn", "transformer")
        ),
        ("test_large_kernel", "kernel of 64 × 10 outputs of a CNN, and λ at 20 step sizes"),
        ("test_stable_steps", "all stable steps of six kernels"),
    ):
        yield f"| {label} | {measured[f'test_networks::{test}']['seconds']:.2f} |"
    yield ""


def comparison(measured, *rows):
    """Tabulate times, and how many times faster than the last row each step is."""
    naive = nanoseconds(measured[rows[-1][1]])
    yield "| | seconds | ns per step | times faster |"
    yield "|---|--:|--:|--:|"
    for label, test in rows:
        each = nanoseconds(measured[test])
        yield f"| {label} | {measured[test]['seconds']:.3g} | {each:.2f} | {naive / each:.0f} |"
    yield ""


def book_table(book):
    """Report the times of `make book` that book_times.py measured, if it did."""
    if not book:
        return
    yield "## `make book`, after the installation\n"
    yield "| from nothing | nothing changed |"
    yield "|--:|--:|"
    yield f"| {book['fresh']:.0f} s | {book['unchanged']:.1f} s |\n"


def nanoseconds(row):
    """Return the time per step."""
    return 1e9 * row["seconds"] / row["steps"]


def load():
    """Return what was recorded before."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def store(results):
    """Write both files."""
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    RESULTS.with_suffix(".md").write_text(render(results))


if __name__ == "__main__":
    known, files = load(), sys.argv[1:]
    kept = known.get("benchmarks", {}) if files else {}
    store(known | {"machine": machine(), "benchmarks": kept | measure(files)})
