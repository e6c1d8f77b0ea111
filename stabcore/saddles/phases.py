r"""The four phases of SGD at a neuron's saddle, over grids.

With E[xy] > 0 the coordinate u + w points to the solution and u − w to its mirror image. The signs
of Λ₊ and Λ₋ give four phases (paper B's names; the conditions are our derivation):

* I, Λ₋ < 0 < Λ₊: it learns. Ib also in mean square, E(1 − ηxy)² < 1; otherwise Ia.
* II, Λ₊ < 0 < Λ₋: it learns the wrong sign.
* III, both negative: it is attracted by the saddle.
* IV, both positive: unstable.

With E[xy] < 0 the roles of u + w and u − w are exchanged; with E[xy] = 0 there is no right answer
to learn, and I and II are not told apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stabcore import _validation as check
from stabcore._constants import EPSILON
from stabcore._validation import Array
from stabcore.exponent import Exponent
from stabcore.problems.signals import Signal, as_signal
from stabcore.sampling import SGD, covered_method


class Phase(IntEnum):
    """What SGD does at the saddle of one neuron; prints as paper B names it."""

    IA = 0
    """It learns, but not in mean square."""
    IB = 1
    """It learns, in mean square too."""
    II = 2
    """It learns the wrong sign."""
    III = 3
    """It is attracted by the saddle."""
    IV = 4
    """Both directions grow."""
    UNDETERMINED = 5
    """On a boundary, or not known."""

    @property
    def label(self) -> str:
        """The name that figures and tables use."""
        return PHASES[self]

    def __str__(self) -> str:
        return self.label


PHASES = ("Ia", "Ib", "II", "III", "IV", "boundary/undetermined")  # labels, in the order of Phase


@check.public()
def phase(
    plus: Exponent | ArrayLike,
    minus: Exponent | ArrayLike,
    correlation: ArrayLike = 1.0,
    mean_square: ArrayLike = math.inf,
    tolerance: ArrayLike = 0.0,
) -> Phase | NDArray[np.int64]:
    r"""Return the phase, elementwise for arrays.

    Source: paper B (the names); our derivation (the conditions).

    Parameters
    ----------
    plus, minus : Exponent or arrays
        Λ₊ and Λ₋; NaN is an unknown sign.
    correlation : array
        E[xy], whose sign says which direction is the right one.
    mean_square : array
        The second moment of the factor in the wrong direction, E(1 − ηγ − ηxy)² for E[xy] > 0:
        phase Ib if below 1. By default no cell of phase I is known to be norm stable, and all are
        called Ia.
    tolerance : array
        |Λ| and |mean_square − 1| up to this are on the boundary.

    Returns
    -------
    Phase, or array of its values
        Undetermined where a sign is open, or I and II cannot be told apart because
        E[xy] = 0.

    Examples
    --------
    >>> print(phase(-0.1, -0.2))
    III
    >>> [str(Phase(k)) for k in phase([1.0, -1.0, -1.0, 1.0, 0.0], [-1.0, 1.0, -1.0, 1.0, 1.0])]
    ['Ia', 'II', 'III', 'IV', 'boundary/undetermined']
    """
    p, m = _signs(plus, tolerance), _signs(minus, tolerance)
    side = np.sign(np.asarray(correlation, dtype=float))
    second = np.asarray(mean_square, dtype=float)
    codes = np.select(
        [
            np.isnan(p * m) | (p * m == 0),
            (p < 0) & (m < 0),
            (p > 0) & (m > 0),
            (side == 0) | np.isnan(side),
            p * side < 0,
            np.abs(second - 1) <= tolerance,
            second < 1,
        ],
        [
            Phase.UNDETERMINED,
            Phase.III,
            Phase.IV,
            Phase.UNDETERMINED,
            Phase.II,
            Phase.UNDETERMINED,
            Phase.IB,
        ],
        Phase.IA,
    )
    return Phase(int(codes)) if codes.ndim == 0 else np.asarray(codes, dtype=np.int64)


def _signs(exponent: Exponent | ArrayLike, tolerance: ArrayLike) -> Array:
    """Return −1, 0, 1 or NaN (unknown) for an exponent or an array of them."""
    if isinstance(exponent, Exponent):
        return np.asarray(math.nan if exponent.sign is None else float(exponent.sign))
    values = np.asarray(exponent, dtype=float)
    return np.where(np.abs(values) <= tolerance, 0.0, np.sign(values))


@dataclass(frozen=True, kw_only=True)
class SaddleGrid:
    """The exponents of a neuron's saddle over a grid.

    Attributes
    ----------
    plus, minus : arrays
        Λ₊ and Λ₋.
    plus_error, minus_error : arrays
        Bounds of their errors (estimates for quadrature, 95 % for drawn batches).
    mean_square : array
        The second moment of the factor in the wrong direction, see `phase`.
    correlation : array
        E[xy].
    """

    plus: Array
    minus: Array
    plus_error: Array
    minus_error: Array
    mean_square: Array
    correlation: Array

    def __str__(self) -> str:
        """Return the share of each phase."""
        cells = [(one.label, int((self.phases == one).sum())) for one in Phase]
        shares = ", ".join(f"{name} {count}" for name, count in cells if count)
        return f"{self.plus.size} cells: {shares}"

    @property
    def phases(self) -> NDArray[np.int64]:
        """The phases, values of `Phase`; undetermined where an error hides a sign."""
        plus = np.where(np.abs(self.plus) <= self.plus_error, math.nan, self.plus)
        minus = np.where(np.abs(self.minus) <= self.minus_error, math.nan, self.minus)
        return np.asarray(phase(plus, minus, self.correlation, self.mean_square, 16 * EPSILON))

    @property
    def distance(self) -> Array:
        """min(|Λ₊|, |Λ₋|): how far a cell is from the boundaries, in nats per step."""
        return np.asarray(np.minimum(np.abs(self.plus), np.abs(self.minus)))


@check.public()
def saddle_grid(
    signal: Signal | ArrayLike,
    step_size: ArrayLike,
    method: SGD = SGD(),
    *,
    rng: int | np.random.Generator | None = 0,
) -> SaddleGrid:
    r"""Return Λ₊ and Λ₋ over a grid of step sizes and laws.

    Everything broadcasts: a family of laws with parameters of shape (m, 1) and step sizes of shape
    (n,) give a grid (m, n). A family of data sets has values of shape (m, 1, N).

    Source: our derivation.

    Parameters
    ----------
    signal : Signal or array, shape (..., N)
        A law of xy or a family of them, or the values.
    step_size : array
        η > 0.
    method : SGD
        How one trains; its weight decay is that of the neuron.
    rng : int, numpy.random.Generator or None
        Used where the batches are too many to be listed.

    Returns
    -------
    SaddleGrid

    Raises
    ------
    NotImplementedError
        If the method has momentum.

    Examples
    --------
    >>> from stabcore.problems.signals import LabelFlips
    >>> grid = saddle_grid(LabelFlips([[0.0], [0.4]]), [0.5, 1.0, 1.5])
    >>> [[str(Phase(k)) for k in row] for row in grid.phases]
    [['Ib', 'Ib', 'Ib'], ['III', 'III', 'Ia']]
    """
    eta = check.finite_array("step_size", step_size)
    if (eta <= 0).any():
        raise ValueError(f"step_size must be positive, got {eta.min():g}; leave it out.")
    covered_method(method, "saddle_grid", "weight_decay")
    law = as_signal(signal).batched(method, rng)
    try:
        np.broadcast_shapes(eta.shape, np.shape(law.mean))
    except ValueError as error:
        raise ValueError(
            f"step_size of shape {eta.shape} and a signal of shape {np.shape(law.mean)} do not "
            "broadcast; give one of them an axis of length 1."
        ) from error
    offset = 1 - eta * method.weight_decay
    plus, plus_error = law.mean_log(offset, eta)
    minus, minus_error = law.mean_log(offset, -eta)
    pull = 2 * offset * eta * np.abs(law.mean)
    square, correlation, *_ = np.broadcast_arrays(
        offset**2 - pull + eta**2 * law.second_moment, law.mean, plus
    )
    return SaddleGrid(
        plus=plus,
        minus=minus,
        plus_error=plus_error,
        minus_error=minus_error,
        mean_square=square,
        correlation=correlation,
    )
