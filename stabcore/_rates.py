"""The rate at which simulated runs approach a minimum or leave it."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stabcore._validation import Array


class Recorded(Protocol):
    """Runs, one to a column, of which some steps are recorded, one to a row."""

    @property
    def times(self) -> NDArray[np.int64]:
        """The recorded steps."""

    @property
    def log_residuals(self) -> Array:
        """The logarithms of the residuals."""


def growth_rate(self: Recorded, start: int, end: int) -> tuple[float, float]:
    """Return the mean rate of log|φ| between two recorded steps, and its standard error.

    Near a minimum the rate of gradient descent tends to μ and that of SGD to λ.

    Parameters
    ----------
    start, end : int
        Two of `times`, `start` < `end`.

    Returns
    -------
    mean, standard_error : float
        In nats per step, over the runs; the error of a single run is NaN.

    Raises
    ------
    ValueError
        If a step was not recorded, or the two are not in order.
    """
    recorded = set(self.times.tolist())
    if not (start in recorded and end in recorded and start < end):
        raise ValueError(
            f"start and end must be recorded steps with start < end, got {start} and {end}; "
            f"recorded are {', '.join(map(str, self.times[:2]))}, ..., {self.times[-1]}."
        )
    first, last = self.log_residuals[np.searchsorted(self.times, [start, end])]
    rates = (last - first) / (end - start)
    if rates.size == 1:
        return float(rates[0]), math.nan
    return float(rates.mean()), float(rates.std(ddof=1) / math.sqrt(rates.size))
