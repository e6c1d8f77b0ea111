r"""Where the orbits of a map settle, for every parameter.

Beyond the step size at which a minimum loses its stability, gradient descent on an invariant line
oscillates between two points, then four, eight, ...: a cycle whose multiplier (G^p)' passes −1
hands its stability to one of twice the period. The step sizes of these period doublings accumulate
geometrically, with ratios that tend to Feigenbaum's constant; chaos begins where they do.

The same happens in the space of all D parameters around an isolated minimum: there the multipliers
are D eigenvalues, and the one that passes −1 is the largest in modulus. The functions take a start
of shape (D,) for that, and then ask for no invariant line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numba.extending import is_jitted
from numpy.typing import ArrayLike, NDArray

from stabcore import _validation as check
from stabcore._random import run_replicas
from stabcore._validation import Array
from stabcore.descent.lines import (
    CEILING,
    LineMap,
    chain_slope,
)
from stabcore.problems.base import Problem

SAME = 1e-6  # points closer than this, relative to 1 + |x|, are one point of an orbit


@dataclass(frozen=True, kw_only=True)
class BifurcationDiagram:
    """Where the orbit of a map settles, for every parameter.

    Attributes
    ----------
    parameters : array, shape (P,)
    points : array, shape (P, keep), or (P, keep, D) in the space of a problem's parameters
        Consecutive points of the orbit after the transient; NaN where it diverged.
    diverged : array of bool, shape (P,)
    """

    parameters: Array
    points: Array
    diverged: NDArray[np.bool_]


@check.public()
def bifurcation_diagram(
    family: Callable[..., Any] | Problem,
    parameters: ArrayLike,
    start: ArrayLike = 0.5,
    *,
    transient: int = 5000,
    keep: int = 512,
) -> BifurcationDiagram:
    r"""Iterate a map at many parameters and keep what remains after a transient.

    A callable is iterated for all parameters together; one compiled by numba (`@njit`, of two
    scalars) in a compiled loop on all cores, and so are a `BalancedChain` and the lines of a
    `ScalarChain`, a `ScalarFactorization` and a `ReluPair`. Any other problem is asked for its
    gradient at every step, which costs more than a formula.

    Source: standard.

    Parameters
    ----------
    family : callable or Problem
        `family(x, parameter)`, elementwise over arrays of one shape; a problem stands for its
        `LineMap`, unless the start is a point of its parameters.
    parameters : array, shape (P,)
        Step sizes, for gradient descent.
    start : float or array, shape (P,); for a problem also (D,), (1, D) or (P, D)
        A number, or one for every step size, is a point of the line. The other shapes are points
        in the space of a problem's parameters, where no invariant line is needed; use (1, D) if
        there are as many step sizes as parameters.
    transient, keep : int
        Steps before the first kept point, and number of kept points.

    Returns
    -------
    BifurcationDiagram

    Raises
    ------
    TypeError
        If `family` is neither a problem nor a function.

    Examples
    --------
    A minimum, a 2-cycle, and a diverging orbit of the scalar factorisation:

    >>> from stabcore.descent.lines import BalancedChain
    >>> diagram = bifurcation_diagram(BalancedChain(2), [0.9, 1.1, 2.1], 0.9)
    >>> [len(set(row.round(9))) for row in diagram.points[:2]], diagram.diverged.tolist()
    ([1, 2], [False, False, True])

    Off the diagonal the same 2-cycle is reached by both parameters:

    >>> from stabcore import ScalarFactorization
    >>> diagram = bifurcation_diagram(ScalarFactorization(), [1.1], [0.9, 0.8], keep=2)
    >>> diagram.points.shape, float(np.ptp(diagram.points, axis=-1).max().round(9))
    ((1, 2, 2), 0.0)
    """
    values = check.finite_array("parameters", parameters, ndim=1)
    x = check.finite_array("start", start)
    wait = check.integer("transient", transient, minimum=0)
    size = check.integer("keep", keep)
    if isinstance(family, Problem) and _in_space(family, values, x):
        return _diagram_in_space(family, values, x, wait, size)
    if x.shape not in {(), values.shape}:
        raise ValueError(
            f"start must be a number or have one entry per parameter ({values.size}), "
            f"got shape {x.shape}."
        )
    points = np.empty((size, values.size))
    x = np.broadcast_to(x, values.shape).copy()
    step = LineMap(family) if isinstance(family, Problem) else family
    if not callable(step):
        raise TypeError(
            f"family must be a Problem or a function (x, parameter), got {type(family).__name__}."
        )
    slope = chain_slope(step)
    if slope is not None:
        run_replicas(
            lambda part: _follow_chain(*slope, x[part], values[part], wait, points[:, part]),
            values.size,
        )
    elif is_jitted(step):
        run_replicas(
            lambda part: _follow(step, x[part], values[part], wait, points[:, part]), values.size
        )
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(wait):
                x = step(x, values)
            for row in points:
                x = step(x, values)
                row[:] = x
    return _diagram(values, points.T.copy())


def _diagram(values: Array, kept: Array) -> BifurcationDiagram:
    """Return the diagram of the kept points, shape (P, keep) or (P, keep, D)."""
    diverged = np.asarray(~(np.abs(kept) < CEILING).reshape(values.size, -1).all(axis=1))
    kept[diverged] = np.nan
    return BifurcationDiagram(parameters=values, points=kept, diverged=diverged)


def _in_space(problem: Problem, values: Array, start: Array) -> bool:
    """Return whether a start is a point of the problem's parameters, not of its line."""
    dimension = problem.n_parameters
    if start.shape == (dimension,) == values.shape:
        raise ValueError(
            f"start of shape ({dimension},) may be one point of all {dimension} parameters or a "
            f"number for each of {dimension} step sizes; pass [start] for the first, "
            "LineMap(problem) for the second."
        )
    return start.shape in {(dimension,), (1, dimension), (values.size, dimension)}


def _diagram_in_space(
    problem: Problem, values: Array, start: Array, wait: int, size: int
) -> BifurcationDiagram:
    """Follow gradient descent at all step sizes together."""
    x = np.broadcast_to(start, (values.size, problem.n_parameters))
    kept = np.empty((values.size, size, problem.n_parameters))
    with np.errstate(over="ignore", invalid="ignore"):
        for i in range(-wait, size):
            x = x - values[:, None] * problem.gradient(x)
            if i >= 0:
                kept[:, i] = x
    return _diagram(values, kept)


@njit(nogil=True)
def _follow(step, x, parameters, transient, points):  # type: ignore[no-untyped-def]
    """Iterate a compiled map; parameters in the inner loop, so that it is vectorised."""
    for _ in range(transient):
        for j in range(x.size):
            x[j] = step(x[j], parameters[j])
    for i in range(points.shape[0]):
        for j in range(x.size):
            x[j] = step(x[j], parameters[j])
            points[i, j] = x[j]


@njit(nogil=True, cache=True)
def _follow_chain(  # type: ignore[no-untyped-def]
    depth, product, weight, side, x, parameters, transient, points
):
    """Iterate a chain; see `ChainSlope`. Loops over the parameters are innermost: vectorised."""
    lower = np.empty_like(x)  # x^{k−1}
    for i in range(-transient, points.shape[0]):
        lower[:] = 1.0
        for _ in range(depth - 1):
            for j in range(x.size):
                lower[j] *= x[j]
        for j in range(x.size):
            # The roundings are those of BalancedChain.__call__.
            moved = x[j] - parameters[j] * weight * (product * (lower[j] * x[j]) - 1.0) * lower[j]
            x[j] = moved if side * x[j] >= 0.0 else x[j]
        if i >= 0:
            points[i, :] = x
