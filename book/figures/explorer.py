"""Draw the explorer's still picture, ``explorer.svg``, beside this file.

    python book/figures/explorer.py

The four pictures of the explorer at its first state, by `stabcore`: what a reader sees without a
script, and on paper.
"""

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from stabcore import ReluPair, ScalarFactorization, stable_arcs, stable_steps
from stabcore.companion.plotting import (
    GD_COLOUR,
    INK,
    REGION_COLOURS,
    SGD_COLOUR,
    hyperbola,
    phase_map,
    region_legend,
    use_style,
)
from stabcore.descent import bifurcation_diagram
from stabcore.problems import LabelFlips
from stabcore.problems.minimum import Minimum
from stabcore.saddles import saddle_grid

STEP_SIZE, FIRST_WEIGHT = 0.15, 2.8
LARGEST = 3.4  # of θ₁ and θ₂
STEPS = np.geomspace(0.02, 2.5, 2_000)
TARGET = Path(__file__).with_suffix(".svg")


def main() -> None:
    """Write the figure; the same file on every run."""
    use_style()
    mpl.rcParams |= {"svg.hashsalt": "companion", "savefig.facecolor": "white"}
    problem = ReluPair()
    figure, axes = plt.subplots(2, 2, figsize=(8.6, 6.6))
    draw_minima(axes[0, 0], problem)
    draw_gradients(axes[0, 1], problem)
    draw_orbits(axes[1, 0], problem)
    draw_phases(axes[1, 1])
    figure.savefig(TARGET, metadata={"Date": None, "Creator": None}, dpi=150)


def draw_minima(axes: Axes, problem: ReluPair) -> None:
    """Draw the curve of minima, each coloured by who can stay there."""
    hyperbola(axes, stable_arcs(problem, STEP_SIZE), LARGEST, linewidth=6)
    axes.plot(FIRST_WEIGHT, 1 / FIRST_WEIGHT, "o", color="white", markeredgecolor=INK, markersize=9)
    axes.set(xlabel=r"$\theta_1$", ylabel=r"$\theta_2$", title="Which minima are stable")
    axes.set(xlim=(0, LARGEST + 0.1), ylim=(0, LARGEST + 0.1))
    region_legend(axes)


def draw_gradients(axes: Axes, problem: ReluPair) -> None:
    """Draw μ, λ and the exponent in mean square of the marked minimum over the step size."""
    minimum = Minimum.at(problem, [FIRST_WEIGHT, 1 / FIRST_WEIGHT])
    factors = np.abs(1 - STEPS[:, None] * np.diag(minimum.kernel))
    mean = np.abs(1 - STEPS * np.diag(minimum.kernel).mean())
    with np.errstate(divide="ignore"):
        axes.plot(STEPS, np.log(mean), color=GD_COLOUR, label=r"$\mu$, gradient descent")
        axes.plot(
            STEPS,
            np.log(factors).mean(axis=1),
            color=SGD_COLOUR,
            linestyle=(0, (6, 1.5)),
            label=r"$\lambda$, SGD",
        )
    second = np.log((factors**2).mean(axis=1)) / 2
    axes.plot(STEPS, second, ":", color="#6D6D6D", label="SGD in mean square")
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.axvline(STEP_SIZE, color=INK, linewidth=0.8, linestyle="--")
    for start, end in stable_steps(minimum).sgd.intervals:
        axes.axvspan(start, end, color=REGION_COLOURS["SGD only"], alpha=0.28, linewidth=0)
    axes.set(xscale="log", xlim=(0.02, 2.5), ylim=(-2, 2), xlabel=r"step size $\eta$")
    axes.set(ylabel="exponent", title="Two gradients, here parallel")
    axes.legend(loc="lower right")


def draw_orbits(axes: Axes, problem: ReluPair) -> None:
    """Draw where runs on the diagonal settle, over the step size."""
    curvature = float(problem.curvatures @ problem.probabilities)
    etas = np.linspace(0.8, 2.0, 1_200) / curvature
    smooth = ScalarFactorization([0.9, 2.5])
    for start, colour in ((-0.3, "#969696"), (0.3, GD_COLOUR)):
        found = bifurcation_diagram(smooth, etas, start, keep=100)
        places = np.repeat(etas, 100)
        axes.plot(places, found.points.ravel(), ",", color=colour, alpha=0.4, rasterized=True)
    axes.axvline(1 / curvature, color=INK, linewidth=0.8)
    axes.set(xlabel=r"step size $\eta$", ylabel=r"$x = \theta_1 = \theta_2$")
    axes.set(ylim=(-1.6, 1.6), title="Beyond the last stable step")


def draw_phases(axes: Axes) -> None:
    """Draw the phases of a neuron whose labels are flipped."""
    flips, etas = (np.arange(200) + 0.5) / 400, (np.arange(300) + 0.5) / 120
    phase_map(axes, etas, flips, saddle_grid(LabelFlips(flips[:, None]), etas).phases)
    axes.plot(STEP_SIZE, 0.3, "o", color="white", markeredgecolor=INK, markersize=9)
    places = (("Ib", 0.4, 0.12), ("Ia", 1.2, 0.22), ("III", 1.15, 0.4), ("IV", 2.2, 0.35))
    for name, eta, flip in places:
        colour = "white" if name == "III" else INK
        axes.text(eta, flip, name, color=colour, ha="center", weight="bold")
    axes.set(xlabel=r"step size $\eta$", ylabel="probability of a flipped label")
    axes.set_title("A neuron's saddle")


if __name__ == "__main__":
    main()
