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
from stabcore._constants import MAP_CEILING
from stabcore._random import run_replicas
from stabcore._validation import Array
from stabcore.descent._shooting import in_space
from stabcore.descent.lines import LineMap, chain_slope
from stabcore.problems.base import Problem


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

    def __str__(self) -> str:
        """Return the number of parameters and of kept points in words."""
        first, last = self.parameters[[0, -1]]
        return (
            f"{self.points.shape[1]} points of the orbit at each of {self.parameters.size} "
            f"parameters from {first:.6g} to {last:.6g}; {self.diverged.sum()} orbits diverged"
        )


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
        starts = np.broadcast_to(x, (values.size, family.n_parameters))
        return _diagram(values, _follow_all(in_space(family).step, starts, values, wait, size))
    if x.shape not in {(), values.shape}:
        raise ValueError(
            f"start must be a number or have one entry per parameter ({values.size}), "
            f"got shape {x.shape}."
        )
    x = np.broadcast_to(x, values.shape).copy()
    step = LineMap(family) if isinstance(family, Problem) else family
    if not callable(step):
        raise TypeError(
            f"family must be a Problem or a function (x, parameter), got {type(family).__name__}."
        )
    slope = chain_slope(step)
    if slope is None and not is_jitted(step):
        return _diagram(values, _follow_all(step, x, values, wait, size))
    points = np.empty((size, values.size))
    if slope is not None:
        run_replicas(
            lambda part: _follow_chain(*slope, x[part], values[part], wait, points[:, part]),
            values.size,
        )
    else:
        run_replicas(
            lambda part: _follow(step, x[part], values[part], wait, points[:, part]), values.size
        )
    return _diagram(values, points)


def _diagram(values: Array, points: Array) -> BifurcationDiagram:
    """Return the diagram of the kept points, shape (keep, P) or (keep, P, D)."""
    kept = np.moveaxis(points, 0, 1).copy()
    diverged = np.asarray(~(np.abs(kept) < MAP_CEILING).reshape(values.size, -1).all(axis=1))
    kept[diverged] = np.nan
    return BifurcationDiagram(parameters=values, points=kept, diverged=diverged)


def _follow_all(
    step: Callable[..., Any], x: Array, parameters: Array, transient: int, keep: int
) -> Array:
    """Iterate a map for all parameters together; return the points after the transient."""
    points = np.empty((keep, *x.shape))
    with np.errstate(over="ignore", invalid="ignore"):
        for i in range(-transient, keep):
            x = step(x, parameters)
            if i >= 0:
                points[i] = x
    return points


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
