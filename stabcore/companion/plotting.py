"""The book's figure style, one meaning per colour, and the figures that two notebooks share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.resources import as_file, files
from itertools import pairwise
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap, to_rgb
from matplotlib.patches import Patch
from numpy.typing import ArrayLike

from stabcore._validation import Array
from stabcore.minima.steps import StabilityTable
from stabcore.minima.verdict import REGIONS, region
from stabcore.problems.models import NeuronFate
from stabcore.saddles.phases import PHASES
from stabcore.stable_sets import StableSet

__all__ = [  # noqa: RUF022
    # style
    "use_style",
    "GD_COLOUR",
    "SGD_COLOUR",
    "INK",
    # regions, phases and fates
    "REGION_COLOURS",
    "region_legend",
    "region_map",
    "arc_regions",
    "PHASE_COLOURS",
    "phase_map",
    "phase_handles",
    "FATE_COLOURS",
    "fate_map",
    # minima and intervals
    "hyperbola",
    "minima_arc",
    "shade",
    "interval_band",
]

# Okabe & Ito's colour-blind-safe palette. μ and gradient descent are blue, λ and SGD are orange.
GD_COLOUR, SGD_COLOUR, INK = "#0072B2", "#D55E00", "#333333"

REGION_COLOURS = {
    "both": "#009E73",
    "GD only": "#56B4E9",
    "SGD only": "#E69F00",
    "neither": "#C9C9C9",
    "undecided": "#FFFFFF",
}

# What a neuron learns at its saddle; its fates are phases that happened.
PHASE_COLOURS = {
    "Ia": "#8FD3BC",
    "Ib": "#009E73",
    "II": "#CC79A7",
    "III": "#34346B",
    "IV": "#C9C9C9",
    "boundary/undetermined": "#FFFFFF",
}

FATE_COLOURS = {
    NeuronFate.UNDECIDED: PHASE_COLOURS["boundary/undetermined"],
    NeuronFate.CORRECT: PHASE_COLOURS["Ib"],
    NeuronFate.INCORRECT: PHASE_COLOURS["II"],
    NeuronFate.ORIGIN: PHASE_COLOURS["III"],
    NeuronFate.DIVERGENT: PHASE_COLOURS["IV"],
}


def use_style() -> None:
    """Switch matplotlib to the book's style; in a notebook, with twice the pixels."""
    with as_file(files("stabcore.companion") / "figures.mplstyle") as path:
        plt.style.use(path)
    if "inline" in plt.get_backend():
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("retina")


def region_legend(axes: Axes, names: Sequence[str] = REGIONS[:4], **options: Any) -> None:
    """Draw the legend of the regions: which method a minimum is stable for.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    names : sequence of str
        The regions to list.
    **options
        For `Axes.legend`.
    """
    handles = [Patch(color=REGION_COLOURS[name], label=f"stable for {name}") for name in names]
    axes.legend(handles=handles, **options)


def region_map(axes: Axes, x: ArrayLike, y: ArrayLike, gd: ArrayLike, sgd: ArrayLike) -> None:
    """Colour the plane by the signs of μ and λ.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    x, y : arrays, shapes (n,), (m,)
        Cell centres.
    gd, sgd : arrays, shape (m, n)
        μ and λ (or their signs; 0 where undecided).
    """
    colours = ListedColormap([REGION_COLOURS[name] for name in REGIONS])
    bounds = BoundaryNorm(np.arange(-0.5, len(REGIONS)), len(REGIONS))
    axes.pcolormesh(
        x, y, region(gd, sgd), cmap=colours, norm=bounds, shading="nearest", rasterized=True
    )


def phase_map(axes: Axes, x: ArrayLike, y: ArrayLike, phases: ArrayLike) -> None:
    """Colour the plane by the phases of a neuron's saddle.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    x, y : arrays, shapes (n,), (m,)
        Cell centres.
    phases : array of int, shape (m, n)
        Indices into `PHASES`.
    """
    colours = ListedColormap([PHASE_COLOURS[name] for name in PHASES])
    bounds = BoundaryNorm(np.arange(-0.5, len(PHASES)), len(PHASES))
    axes.pcolormesh(x, y, phases, cmap=colours, norm=bounds, shading="nearest", rasterized=True)


def fate_map(axes: Axes, x: ArrayLike, y: ArrayLike, shares: Array) -> None:
    """Colour the plane by the fates of simulated neurons, mixed where runs of a cell differ.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    x, y : arrays, shapes (n,), (m,)
        Cell centres.
    shares : array, shape (m, n, 5)
        The share of the runs of each cell that had each `NeuronFate`.
    """
    mixed = shares @ np.array([to_rgb(colour) for colour in FATE_COLOURS.values()])
    axes.pcolormesh(x, y, mixed.clip(0, 1), shading="nearest", rasterized=True)


def phase_handles(names: Sequence[str] = PHASES[:5]) -> list[Patch]:
    """Return legend entries of the phases.

    Parameters
    ----------
    names : sequence of str
        Of `PHASES`.

    Returns
    -------
    list of matplotlib.patches.Patch

    Examples
    --------
    >>> [handle.get_label() for handle in phase_handles(["II", "III"])]
    ['II: wrong sign', 'III: saddle']
    """
    meanings = {
        "Ia": "Ia: learns",
        "Ib": "Ib: learns, also in mean square",
        "II": "II: wrong sign",
        "III": "III: saddle",
        "IV": "IV: unstable",
        "boundary/undetermined": "undetermined",
    }
    return [
        Patch(facecolor=PHASE_COLOURS[name], edgecolor=INK, linewidth=0.4, label=meanings[name])
        for name in names
    ]


def arc_regions(sets: StabilityTable, lower: float, upper: float) -> list[tuple[float, float, str]]:
    """Cut [lower, upper] at the ends of the stable sets and name the region of each piece.

    Parameters
    ----------
    sets : StabilityTable
    lower, upper : float

    Returns
    -------
    list of (start, end, region)

    Examples
    --------
    >>> from stabcore import ReluPair, stable_arcs
    >>> for start, end, name in arc_regions(stable_arcs(ReluPair(), 0.15), 2, 8):
    ...     print(f"{start:.3f} {end:.3f} {name}")
    2.000 2.636 both
    2.636 3.777 GD only
    3.777 6.661 neither
    6.661 8.000 SGD only
    """
    ends = {end for part in (sets.gd, sets.sgd) for interval in part.intervals for end in interval}
    cuts = sorted({lower, upper, *(end for end in ends if lower < end < upper)})
    pieces = []
    for start, end in pairwise(cuts):
        middle = (start + end) / 2
        signs = (-1 if middle in part else 1 for part in (sets.gd, sets.sgd))
        pieces.append((start, end, REGIONS[int(region(*signs))]))
    return pieces


def hyperbola(axes: Axes, sets: StabilityTable, largest: float, **options: Any) -> None:
    """Draw the minima θ₁θ₂ = 1, θ > 0, up to θ = `largest`, coloured by region.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    sets : StabilityTable
        Of s = θ₁² + θ₂².
    largest : float
    **options
        For `minima_arc`.
    """
    for start, end, name in arc_regions(sets, 2.0, largest**2 + largest**-2):
        minima_arc(axes, start, end, color=REGION_COLOURS[name], **options)
    axes.set(xlabel=r"$\theta_1$", ylabel=r"$\theta_2$", aspect="equal")


def minima_arc(axes: Axes, start: float, end: float, **options: Any) -> None:
    """Draw the minima θ₁θ₂ = 1, θ > 0, with θ₁² + θ₂² between `start` and `end`: two arcs.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    start, end : float
        2 ≤ start < end.
    **options
        For `Axes.plot`.
    """
    t = np.linspace(math.acosh(start / 2) / 2, math.acosh(end / 2) / 2, 200)
    style = {"linewidth": 3.5, "solid_capstyle": "butt", **options}
    for sign in (-1, 1):
        axes.plot(np.exp(sign * t), np.exp(-sign * t), **style)


def shade(axes: Axes, stable: StableSet, colour: str, **options: Any) -> None:
    """Shade the intervals of a stable set along the horizontal axis.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    stable : StableSet
    colour : str
    **options
        For `Axes.axvspan`.
    """
    low, high = axes.get_xlim()
    for start, end in stable.intervals:
        if end > low and start < high:
            axes.axvspan(max(start, low), min(end, high), color=colour, lw=0, **options)
    axes.set_xlim(low, high)


def interval_band(axes: Axes, x: ArrayLike, lower: Array, upper: Array, colour: str) -> None:
    """Draw the error of a curve as a band."""
    axes.fill_between(np.asarray(x), lower, upper, color=colour, alpha=0.25, linewidth=0)
