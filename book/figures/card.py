"""Draw the picture that a message with a link to the book shows, ``book/_static/card.png``.

    python book/figures/card.py

The two exponents along the minima of the landing page's example, on 1200 by 630 pixels.
"""

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from overview import LARGEST, STEP_SIZE, draw_exponents

from stabcore import ReluPair, stable_arcs
from stabcore.companion.plotting import INK, use_style

TARGET = Path(__file__).parents[1] / "_static" / "card.png"


def main() -> None:
    """Write the picture."""
    use_style()
    mpl.rcParams |= {"savefig.facecolor": "white", "lines.linewidth": 2.4}
    figure, axes = plt.subplots(figsize=(6, 3.15), dpi=200, layout="none")
    figure.subplots_adjust(left=0.09, right=0.97, bottom=0.1, top=0.74)
    figure.text(0.04, 0.87, "Which minima can SGD find?", fontsize=19, weight="bold", color=INK)
    figure.text(0.04, 0.79, "An executable book on the stability of gradient descent", color=INK)
    problem = ReluPair()
    draw_exponents(axes, problem, stable_arcs(problem, STEP_SIZE), LARGEST**2 + LARGEST**-2)
    axes.set_xlabel("the minima, from flat to sharp", labelpad=4)
    axes.set(xticks=[], yticks=[0])
    figure.savefig(TARGET, dpi=200, metadata={"Software": None}, pil_kwargs={"optimize": True})


if __name__ == "__main__":
    main()
