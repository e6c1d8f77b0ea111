"""Draw the landing page's figure, ``overview.svg``, beside this file.

    python book/figures/overview.py

Paper D's worked example at η = 0.15 with both samples equally likely. Everything in the figure is
computed here: the stable arcs and the two exponents from their closed forms, and the fates of
random starts, which know nothing of either, from exact-coordinate simulation.
"""

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from stabcore import GD, SGD, ReluPair, stable_arcs
from stabcore.companion.plotting import (
    GD_COLOUR,
    INK,
    REGION_COLOURS,
    SGD_COLOUR,
    arc_regions,
    hyperbola,
    use_style,
)
from stabcore.minima import StabilityTable
from stabcore.simulation import exact_runs

STEP_SIZE = 0.15
LARGEST = 3.4  # of θ₁ and θ₂
STARTS = 200_000
STEPS = 20_000
SEED = 0
TARGET = Path(__file__).with_suffix(".svg")
LABELS = {"both": "GD and SGD", "GD only": "GD only", "SGD only": "SGD only", "neither": "neither"}


def main() -> None:
    """Write the figure; the same file on every run."""
    use_style()
    mpl.rcParams |= {"svg.hashsalt": "companion", "savefig.facecolor": "white"}
    problem = ReluPair()
    arcs = stable_arcs(problem, STEP_SIZE)
    figure, axes = plt.subplot_mosaic(
        [["minima", "exponents"], ["minima", "limits"]],
        figsize=(8.6, 4.3),
        width_ratios=[1, 1.45],
        height_ratios=[1.7, 1],
    )
    largest = LARGEST**2 + LARGEST**-2
    draw_minima(axes["minima"], arcs)
    draw_exponents(axes["exponents"], problem, arcs, largest)
    draw_limits(axes["limits"], problem, arcs, largest)
    figure.savefig(TARGET, metadata={"Date": None, "Creator": None})


def draw_minima(axes: Axes, arcs: StabilityTable) -> None:
    """Draw the curve of minima, each coloured by who can find it."""
    hyperbola(axes, arcs, LARGEST, linewidth=6)
    axes.set(xlim=(0, LARGEST + 0.1), ylim=(0, LARGEST + 0.1))
    label = axes.text(0.66, 0.66, r"minima $\theta_1\theta_2 = 1$", color=INK)
    label.set(ha="center", va="center", rotation=-45)
    handles = [Patch(color=REGION_COLOURS[name], label=label) for name, label in LABELS.items()]
    axes.legend(handles=handles, loc="upper right", title="a minimum is stable for")


def draw_exponents(axes: Axes, problem: ReluPair, arcs: StabilityTable, largest: float) -> None:
    """Draw μ and λ over s, above the colours of their signs."""
    s = np.linspace(2, largest, 4_000)
    scaled = STEP_SIZE * s[:, None] * problem.curvatures
    mu = np.log(np.abs(1 - scaled @ problem.probabilities))
    lyapunov = np.log(np.abs(1 - scaled)) @ problem.probabilities
    background(axes, arcs, largest)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.plot(s, mu, color=GD_COLOUR)
    axes.plot(s, lyapunov, color=SGD_COLOUR, linestyle=(0, (6, 1.5)))
    axes.text(3.95, 1.15, r"$\mu$ (gradient descent)", color=GD_COLOUR)
    axes.text(6.35, -0.75, r"$\lambda$ (SGD)", color=SGD_COLOUR, ha="right")
    axes.set(xlim=(2, largest), ylim=(-2.4, 2), ylabel="exponent")
    axes.tick_params(labelbottom=False)


def draw_limits(axes: Axes, problem: ReluPair, arcs: StabilityTable, largest: float) -> None:
    """Draw where simulated runs from random starts end."""
    rng = np.random.default_rng(SEED)
    starts = rng.uniform(0, LARGEST, size=(STARTS, 2))
    delta, s = problem.exact_coordinates(starts)
    # A bin that straddled the end of an arc would seem to hold runs on both sides of it.
    pieces = [(start, end) for start, end, _ in arc_regions(arcs, 2, largest)]
    edges = [np.linspace(start, end, 1 + round(9 * (end - start))) for start, end in pieces]
    bins = np.unique(np.concatenate(edges))
    background(axes, arcs, largest)
    for method, stable, colour in ((GD, arcs.gd, GD_COLOUR), (SGD(), arcs.sgd, SGD_COLOUR)):
        runs = exact_runs(problem, delta, s, STEP_SIZE, method, STEPS, rng=rng)
        if not stable.contains(runs.limits).all():
            raise AssertionError("a run ended at an unstable minimum: the caption would be wrong")
        counts, _ = np.histogram(runs.limits, bins)
        axes.stairs(np.maximum(counts, 0.5), bins, color=colour, baseline=0.5, linewidth=1.2)
    axes.set(
        yscale="log",
        xlim=(2, largest),
        ylim=(0.5, 2 * STARTS),
        ylabel="runs ending\nthere",
        xlabel=r"$s = \theta_1^2 + \theta_2^2$ of the minimum",
    )


def background(axes: Axes, arcs: StabilityTable, largest: float) -> None:
    """Tint the axis with the region of each minimum."""
    for start, end, name in arc_regions(arcs, 2, largest):
        axes.axvspan(start, end, color=REGION_COLOURS[name], alpha=0.28, linewidth=0)


if __name__ == "__main__":
    main()
