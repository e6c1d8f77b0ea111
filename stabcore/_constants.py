"""Numerical constants that several modules share, each with its meaning."""

import sys

EPSILON = sys.float_info.epsilon  # relative distance of neighbouring floats, 2⁻⁵²
EXACT_FLOOR = 1e-250  # a coordinate that is only ever multiplied has vanished below
EXACT_CEILING = 1e150  # beyond it a run has diverged: its square still is a float
MAP_CEILING = 1e100  # beyond it the orbit of a map has diverged: its cube still is a float
SAME_POINT = 1e-6  # points of an orbit closer than this, relative to 1 + |x|, are one
