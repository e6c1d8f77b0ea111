r"""The four phases of SGD at a neuron's saddle, over grids, and the curves between them.

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
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from stabcore import _validation as check
from stabcore._validation import Array
from stabcore.exponent import Exponent
from stabcore.problems.signals import Signal, as_signal
from stabcore.saddles.exponents import DIRECTIONS
from stabcore.saddles.steps import contracting_steps
from stabcore.stable_sets import StableSet

PHASES = ("Ia", "Ib", "II", "III", "IV", "boundary/undetermined")

IA, IB, II, III, IV, UNDETERMINED = range(6)

FARTHEST_LINK = 0.5  # between neighbouring columns of a traced curve, relative to η

EPSILON = float(np.finfo(float).eps)


def phase(
    plus: Exponent | ArrayLike,
    minus: Exponent | ArrayLike,
    correlation: ArrayLike = 1.0,
    mean_square: ArrayLike = math.inf,
    tolerance: ArrayLike = 0.0,
) -> NDArray[np.int64]:
    r"""Return the phase as an index into `PHASES`, elementwise.

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
    array of int
        "boundary/undetermined" where a sign is open, or I and II cannot be told apart because
        E[xy] = 0.

    Examples
    --------
    >>> [PHASES[k] for k in phase([1.0, -1.0, -1.0, 1.0, 0.0], [-1.0, 1.0, -1.0, 1.0, 1.0])]
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
        [UNDETERMINED, III, IV, UNDETERMINED, II, UNDETERMINED, IB],
        IA,
    )
    return np.asarray(codes, dtype=np.int64)


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

    @property
    def phases(self) -> NDArray[np.int64]:
        """The phases, as indices into `PHASES`; undetermined where an error hides a sign."""
        plus = np.where(np.abs(self.plus) <= self.plus_error, math.nan, self.plus)
        minus = np.where(np.abs(self.minus) <= self.minus_error, math.nan, self.minus)
        return phase(plus, minus, self.correlation, self.mean_square, 16 * EPSILON)

    @property
    def distance(self) -> Array:
        """min(|Λ₊|, |Λ₋|): how far a cell is from the boundaries, in nats per step."""
        return np.asarray(np.minimum(np.abs(self.plus), np.abs(self.minus)))


def saddle_grid(
    signal: Signal | ArrayLike,
    step_size: ArrayLike,
    batch_size: int = 1,
    weight_decay: ArrayLike = 0.0,
    *,
    probabilities: ArrayLike | None = None,
    replacement: bool | None = None,
    rng: int | np.random.Generator | None = 0,
) -> SaddleGrid:
    r"""Return Λ₊ and Λ₋ over a grid of step sizes, laws and weight decays.

    Everything broadcasts: a family of laws with parameters of shape (m, 1) and step sizes of shape
    (n,) give a grid (m, n). A family of data sets has values of shape (m, 1, N).

    Source: our derivation.

    Parameters
    ----------
    signal : Signal or array, shape (..., N)
        A law of xy or a family of them, or the values.
    step_size : array
        η > 0.
    batch_size : int
        B.
    weight_decay : array
        γ ≥ 0.
    probabilities : array, shape (N,), optional
        Of the values; uniform by default.
    replacement : bool, optional
        As in `Sampling`.
    rng : int, numpy.random.Generator or None
        Used where the batches are too many to be listed.

    Returns
    -------
    SaddleGrid

    Raises
    ------
    ValueError
        If an argument is invalid or the shapes do not fit together.

    Examples
    --------
    >>> from stabcore.problems.signals import LabelFlips
    >>> grid = saddle_grid(LabelFlips([[0.0], [0.4]]), [0.5, 1.0, 1.5])
    >>> [[PHASES[k] for k in row] for row in grid.phases]
    [['Ib', 'Ib', 'Ib'], ['III', 'III', 'Ia']]
    """
    eta = check.finite_array("step_size", step_size)
    if (eta <= 0).any():
        raise ValueError(f"step_size must be positive, got {eta.min():g}; leave it out.")
    decay = check.finite_array("weight_decay", weight_decay)
    if (decay < 0).any():
        raise ValueError(f"weight_decay must be at least 0, got {decay.min():g}.")
    law = as_signal(signal, probabilities).batched(batch_size, replacement, rng)
    try:
        np.broadcast_shapes(eta.shape, decay.shape, np.shape(law.mean))
    except ValueError as error:
        raise ValueError(
            f"step_size of shape {eta.shape}, weight_decay of shape {decay.shape} and a signal of "
            f"shape {np.shape(law.mean)} do not broadcast; give one of them an axis of length 1."
        ) from error
    offset = 1 - eta * decay
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


@dataclass(frozen=True, kw_only=True)
class PhaseBoundary:
    """The curves Λ₊ = 0 and Λ₋ = 0 over step size and a parameter of the law.

    Attributes
    ----------
    parameters : array, shape (P,)
        Ascending: the columns that were solved.
    plus, minus : tuple of StableSet
        Per parameter, all step sizes at which Λ₊, and Λ₋, is negative.
    """

    parameters: Array
    plus: tuple[StableSet, ...]
    minus: tuple[StableSet, ...]

    def roots(self, direction: str) -> list[Array]:
        """Return the step sizes at which the exponent changes sign, one array per parameter.

        Parameters
        ----------
        direction : str
            "plus" or "minus".

        Returns
        -------
        list of arrays
        """
        check.choice("direction", direction, DIRECTIONS)
        sets = self.plus if direction == "plus" else self.minus
        return [np.array([(a + b) / 2 for a, b in part.brackets]) for part in sets]

    def curves(self, direction: str) -> list[Array]:
        """Return the curves, shape (K, 2) each: step sizes and parameters along them.

        Sign changes at neighbouring parameters are linked, nearest to nearest; a curve
        begins or ends where two sign changes meet, or leave the domain.

        Parameters
        ----------
        direction : str
            "plus" or "minus".

        Returns
        -------
        list of arrays, shape (K, 2)
        """
        columns = self.roots(direction)
        found = np.concatenate(columns)
        scale = float(np.median(found)) if found.size else 1.0
        done: list[list[tuple[float, float]]] = []
        open_curves: list[list[tuple[float, float]]] = []
        for parameter, roots in zip(self.parameters.tolist(), columns, strict=True):
            links = _links(np.array([curve[-1][0] for curve in open_curves]), roots, scale)
            done += [curve for i, curve in enumerate(open_curves) if i not in links.values()]
            following = []
            for j, root in enumerate(roots.tolist()):
                curve = open_curves[links[j]] if j in links else []
                following.append([*curve, (root, parameter)])
            open_curves = following
        return [np.array(curve) for curve in done + open_curves]


def _links(old: Array, new: Array, scale: float) -> dict[int, int]:
    """Return which of the old roots each new root continues, by least total distance."""
    if not old.size or not new.size:
        return {}
    # In log η, but in η where that is smaller: a curve may run into η = 0.
    difference = np.abs(new[:, None] - old) / scale
    distance = np.minimum(np.abs(np.log(new[:, None] / old)), difference)
    rows, columns = linear_sum_assignment(np.minimum(distance, FARTHEST_LINK))
    return {
        int(j): int(i) for j, i in zip(rows, columns, strict=True) if distance[j, i] < FARTHEST_LINK
    }


def phase_boundary(
    law: Callable[[float], Signal | ArrayLike],
    parameters: ArrayLike,
    batch_size: int = 1,
    weight_decay: float = 0.0,
    *,
    upper: float | None = None,
    replacement: bool | None = None,
    rng: int | np.random.Generator | None = 0,
) -> PhaseBoundary:
    r"""Trace the curves Λ₊ = 0 and Λ₋ = 0 over (step size, parameter).

    For each parameter all sign changes in η are solved for, see `contracting_steps`.

    Source: our derivation.

    Parameters
    ----------
    law : callable
        parameter -> the law of xy, or its values.
    parameters : array, shape (P,)
        Where to solve, ascending: the resolution of the curves.
    batch_size : int
        B.
    weight_decay : float
        γ ≥ 0.
    upper : float, optional
        Largest step size.
    replacement : bool, optional
        As in `Sampling`.
    rng : int, numpy.random.Generator or None
        Used where the batches are too many to be listed.

    Returns
    -------
    PhaseBoundary

    Raises
    ------
    ValueError
        If the parameters are not ascending, or an argument is invalid.
    TypeError
        If `law` is not callable.

    Examples
    --------
    >>> from stabcore.problems.signals import LabelFlips
    >>> boundary = phase_boundary(LabelFlips, [0.3, 0.4, 0.5])
    >>> [part.round(4).tolist() for part in boundary.roots("plus")]
    [[0.7166, 1.1649], [0.3894, 1.2888], [1.4142]]
    """
    if not callable(law):
        raise TypeError(
            f"law must be a function of the parameter, got {type(law).__name__}; for a fixed law "
            "use contracting_steps."
        )
    columns = check.finite_array("parameters", parameters, ndim=1)
    if (np.diff(columns) <= 0).any():
        raise ValueError("parameters must be ascending; sort them and drop repetitions.")

    def solve(direction: str) -> tuple[StableSet, ...]:
        return tuple(
            contracting_steps(
                law(float(parameter)),
                direction,
                batch_size=batch_size,
                weight_decay=weight_decay,
                upper=upper,
                replacement=replacement,
                rng=rng,
            )
            for parameter in columns
        )

    return PhaseBoundary(parameters=columns, plus=solve("plus"), minus=solve("minus"))
