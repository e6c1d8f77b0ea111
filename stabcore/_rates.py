"""The rate at which simulated runs approach a minimum or leave it."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from stabcore._validation import Array


def growth_rate(
    times: NDArray[np.int64], log_residuals: Array, start: int, end: int
) -> tuple[float, float]:
    """Return the mean rate of log|φ| between two recorded steps, and its standard error."""
    recorded = set(times.tolist())
    if not (start in recorded and end in recorded and start < end):
        raise ValueError(
            f"start and end must be recorded steps with start < end, got {start} and {end}; "
            f"recorded are {times[0]}, {times[1]}, ..., {times[-1]}."
        )
    first, last = log_residuals[np.searchsorted(times, [start, end])]
    rates = (last - first) / (end - start)
    if rates.size == 1:
        return float(rates[0]), math.nan
    return float(rates.mean()), float(rates.std(ddof=1) / math.sqrt(rates.size))
