"""Which saddles attract SGD.

A saddle repels gradient descent. SGD near one where the gradient noise vanishes is a product of
random factors, and it may be attracted. The saddle of one neuron is known in full: two exponents,
four phases, every stable step size. In one direction of any saddle E log|1 − ηh| decides.
"""

from stabcore.saddles.exponents import DIRECTIONS, factor_law, saddle_exponents
from stabcore.saddles.finite_time import label_flip_fates
from stabcore.saddles.layers import direction_exponents, feature_saddle_law, relu_signal
from stabcore.saddles.phases import PHASES, Phase, SaddleGrid, phase, saddle_grid
from stabcore.saddles.rank_one import rank_one_exponent, rank_one_tail_index, second_order_step
from stabcore.saddles.steps import contracting_steps, stable_saddle_steps
from stabcore.saddles.types import SaddleType, saddle_law, saddle_type

__all__ = [  # noqa: RUF022
    # one neuron: exponents, phases, step sizes
    "saddle_exponents",
    "phase",
    "Phase",
    "PHASES",
    "saddle_grid",
    "SaddleGrid",
    "stable_saddle_steps",
    "contracting_steps",
    "DIRECTIONS",
    "factor_law",
    "label_flip_fates",
    # one direction of any saddle
    "rank_one_exponent",
    "second_order_step",
    "rank_one_tail_index",
    # any saddle
    "saddle_type",
    "SaddleType",
    "saddle_law",
    # wider models
    "relu_signal",
    "feature_saddle_law",
    "direction_exponents",
]
