"""Draw the landing page's second figure, ``network.svg``, beside this file.

    python book/figures/network.py

A convolutional network on four images. The two exponents come from the kernel at its minimum; the
rates, and the runs on the right, from training the network beside it, which knows of neither.
"""

import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from stabcore import GD, SGD, gd_exponent, sgd_exponent
from stabcore.companion import first_digits
from stabcore.companion.plotting import GD_COLOUR, INK, SGD_COLOUR, use_style
from stabcore.networks import NetworkMinimum, cnn, minimum_of, train

IMAGES, SEED, RUNS = 4, 0, 256
MODEL = cnn((8, 8), 8)
METHODS = (("SGD", SGD(), SGD_COLOUR, "o"), ("GD", GD, GD_COLOUR, "s"))
SHOWN = 0.62  # of the edge of gradient descent: the step size of the runs on the right
MEASURED = (0.1, 0.2, 0.3, 0.4, 0.55, 0.7, 0.85, 1.0, 1.15)
TARGET = Path(__file__).with_suffix(".svg")


def main() -> None:
    """Write the figure; the same file on every run."""
    use_style()
    mpl.rcParams |= {"svg.hashsalt": "companion", "savefig.facecolor": "white"}
    x, y = first_digits(IMAGES)
    trained = train(MODEL.apply, MODEL.initial(SEED, runs=1), x, y, 0.1, SGD(), 3000, rng=SEED)
    minimum = minimum_of(MODEL.apply, trained.run(0), x, y)
    edge = 2 / minimum.sharpness
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.5), width_ratios=[1.25, 1])
    draw_exponents(left, minimum, edge, (x, y))
    draw_runs(right, minimum, SHOWN * edge, (x, y))
    left.axvline(SHOWN * edge, ymax=0.6, color=INK, linewidth=0.8, linestyle=":")
    figure.savefig(TARGET, metadata={"Date": None, "Creator": None})


def exponent(minimum: NetworkMinimum, step_size: float, name: str) -> float:
    """Return what the kernel predicts."""
    if name == "GD":
        return gd_exponent(minimum, step_size).value
    return sgd_exponent(minimum, step_size, rng=SEED).value


def runs(minimum: NetworkMinimum, step_size: float, method: SGD, data: Any, rate: float) -> Any:
    """Return the log-residuals of runs beside the minimum, by time, along 12 nats at a rate."""
    inside = rate < 0
    starts = minimum.near(1e-4 if inside else 1e-9, RUNS, rng=SEED)
    steps = 12 * math.ceil(1 / abs(rate))
    return train(
        MODEL.apply, starts, *data, step_size, method, steps, rng=SEED, record_every=steps // 12
    )


def draw_exponents(axes: Axes, minimum: NetworkMinimum, edge: float, data: Any) -> None:
    """Draw μ and λ over the step size, and measured rates."""
    grid = np.linspace(0.02, 1.2, 60) * edge
    axes.axhline(0, color=INK, linewidth=0.8)
    for name, method, colour, mark in METHODS:
        values = [exponent(minimum, float(eta), name) for eta in grid]
        style = (0, (6, 1.5)) if name == "SGD" else "-"
        label = r"$\lambda$ (SGD)" if name == "SGD" else r"$\mu$ (gradient descent)"
        axes.plot(grid, values, color=colour, linestyle=style, label=f"{label}, from the kernel")
        points = []
        for eta in np.array(MEASURED) * edge:
            rate = exponent(minimum, float(eta), name)
            if abs(rate) < 0.02:
                continue  # a whole picture would not be long enough to measure it
            found = runs(minimum, float(eta), method, data, rate)
            measured, error = found.growth_rate(int(found.times[4]), int(found.times[9]))
            if abs(measured - rate) > 0.01 + 4 * error:
                raise AssertionError(f"{name} at {eta:.3f}: the caption would be wrong")
            points.append((eta, measured))
        axes.plot(*np.transpose(points), mark, color=colour, mfc="white", label="the network")
    axes.set(xlabel=r"step size $\eta$", ylabel="exponent, rate per step", xlim=(0, grid[-1]))
    axes.legend(loc="upper left")


def draw_runs(axes: Axes, minimum: NetworkMinimum, step_size: float, data: Any) -> None:
    """Draw runs of both methods at one step size, and lines of the predicted slopes."""
    for name, method, colour, _ in METHODS:
        rate = exponent(minimum, step_size, name)
        found = train(
            MODEL.apply,
            minimum.near(1e-6, 24, rng=SEED),
            *data,
            step_size,
            method,
            60,
            rng=SEED,
            record_every=1,
        )
        logs = found.log_residuals / math.log(10)
        axes.plot(found.times, logs, color=colour, linewidth=0.5, alpha=0.4)
        # After ten steps the faster directions are forgotten.
        line = logs[10].mean() + rate / math.log(10) * (found.times[10:] - 10)
        axes.plot(found.times[10:], line, color=INK, linestyle="--" if name == "SGD" else "-")
        axes.text(61, line[-1], rf"$\{'lambda' if name == 'SGD' else 'mu'}$", va="center")
    axes.set(xlabel="step", ylabel=r"$\log_{10}$ residual", xlim=(0, 60))


if __name__ == "__main__":
    main()
