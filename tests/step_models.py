"""Sets of stable step sizes, written down and computed the naive way."""

import math

import numpy as np

from stabcore.stable_sets import StableSet


def intervals(*pairs, lower=0.0, upper=math.inf, brackets=()):
    return StableSet(intervals=pairs, brackets=brackets, lower=lower, upper=upper)


def log_sum(weights, curvatures, steps):
    """Return Σ w_m log|1 − ηk_m| at many η, the naive way."""
    with np.errstate(divide="ignore"):
        return np.log(np.abs(1 - np.multiply.outer(steps, curvatures))) @ np.asarray(weights)


def parallel(curvatures):
    return np.outer(np.sqrt(curvatures), np.sqrt(curvatures))
