r"""Deterministic exponents in two and three dimensions, by the transfer operator.

On directions v (the projective line or plane) put g(v) = Σ p_i log|A_i v|, |v| = 1, the mean growth
of one step, and (Th)(v) = Σ p_i h(A_i v), the mean of h one step later. If the growth rate does not
depend on the starting direction, the Poisson equation

    h − Th + (mean of h) = g

has a solution, and the mean of h is λ. Collocation turns it into a sparse linear system: h is
interpolated on a grid, by polynomials of degree 5 in each coordinate. Where the maps contract, h is
smooth and the error falls with the sixth power of the spacing; where they expand enough to make h
rough, it falls slowly.

The error estimate measures how far the interpolated h is from a solution. Between the points of
the grid the equation leaves a rest, r = g − h + Th − (mean of h), and by stationarity λ − (mean of
h) is the mean of r under the stationary measure, for any h. So |λ − (mean of h)| is at most the
mean of |r|. That measure is approximated by many steps of a Markov chain, the same maps with linear
interpolation, from the worst start. (Collocation and estimate are our derivation.) One error this
cannot see, an invariant line that is not the one that matters. In the plane a proven enclosure
guards against it, in space (and for very many factors) a simulation in which every factor was
drawn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, gmres, splu

from stabcore import _validation as check
from stabcore._constants import EPSILON
from stabcore._random import run_replicas
from stabcore._validation import Array
from stabcore.exponent import Exponent, exact
from stabcore.lyapunov._factors import listed
from stabcore.lyapunov.enclosures import MOST_ENCLOSED, enclosure
from stabcore.lyapunov.laws import FiniteLaw, Law, SGDLaw, require_law
from stabcore.lyapunov.simulated_products import simulated

STENCIL = 6  # points of the local interpolation, in each coordinate

LINEAR = 2  # the same, where weights must not be negative

# Of 4,000 random laws in the plane (pairs of normal matrices; two samples, at angles from 0 to 90
# degrees, curvatures up to 400 apart and batches of up to three) no interval missed λ, at
# tolerances from 1e-2 to 1e-10. The largest error was 0.54 of the estimate; where h is smooth it is
# about 0.33, since r has one sign there.
SAFETY = 3.0  # of the error estimate

# Where between the points the equation is tested, in spacings: near the middle, where interpolation
# is worst, but not in the middle of a face of the cube, which diagonal factors never leave.
BETWEEN = 0.4

# So many of them to a spacing on a circle of fewer points, for so few factors that one would miss
# where h is rough.
FINER, COARSE, FEW = 4, 768, 64

AVERAGED, PATIENT = 128, 2048  # steps of the chain, unless its start no longer matters before

EVEN = 1e-2  # of the mean: so little

FOREVER = 1e9  # steps

GUARD_STEPS = 2000  # of the simulation that every result is held against, at least

GUARD_REPLICAS = 16

GUARD_DRAWS = 30  # times that the rarest factor is drawn in it

LONGEST_GUARD = 2**16  # steps

NARROW, WIDE = 1e-3, 1e-2  # widths of the enclosure that guards in the plane

LONG = 2000  # steps of the mean growth where the equation has no solution

# Where a factor maps a grid point to 0, its neighbourhood matters, on which g is finite.
SHORTEST = 1e-17

MOST_ENTRIES = 40_000_000  # work on all grids, unless the first four need more

ITERATIONS, GAIN = (
    100,
    100.0,
)  # steps that must shrink the rest so much, or the equation is solved otherwise

SOLVED = 1e-11  # largest residual of a solution, relative to the largest growth

DIRECT = 800  # unknowns up to which by a factorisation; beyond, by a Krylov method

MOST_FACTORS = 1_000_000

CHUNK = 2_000_000  # interpolations carried out at once

GRIDS = {
    2: (24, 48, 96, 192, 384, 768, 1536, 3072, 6144, 12288),
    3: (8, 12, 16, 24, 32, 48),
}


@check.public()
def transfer(law: Law, *, tolerance: float = 1e-10) -> Exponent:
    r"""Return the exponent of a finite law in two or three dimensions.

    Source: the transfer operator of Le Page 1982 and Pollicott 2010; the collocation is our
    derivation.

    Parameters
    ----------
    law : FiniteLaw or SGDLaw
        Of dimension 2 or 3.
    tolerance : float
        Refine the grid until the error estimate is below it.

    Returns
    -------
    Exponent
        Of kind "deterministic" ("exact" for products that vanish). Its `status` says when the
        tolerance was not reached: where h is rough, and where the growth rate depends on the
        starting direction (then the value is the largest growth rate found).

    Raises
    ------
    ValueError
        If the dimension is neither 2 nor 3, or the law has too many factors to be written out.

    Examples
    --------
    Pollicott's pair, λ = 1.1433110351029492458...:

    >>> from stabcore import FiniteLaw
    >>> law = FiniteLaw([[[2, 1], [1, 1]], [[3, 1], [2, 1]]])
    >>> abs(transfer(law, tolerance=1e-12).value - 1.1433110351029492458) < 1e-12
    True
    """
    require_law(law)
    goal = check.real("tolerance", tolerance, above=0.0)
    if law.dimension not in GRIDS:
        raise ValueError(
            f"transfer needs a law of dimension 2 or 3, got {law.dimension}; "
            "use algorithm='closed_form' in dimension 1 and 'monte_carlo' above 3."
        )
    return solved(law, goal)


def solved(law: Law, goal: float, *, enclosed: bool = True) -> Exponent:
    """Return the exponent of a law of dimension 2 or 3.

    Parameters
    ----------
    law : FiniteLaw or SGDLaw
    goal : float
        The tolerance.
    enclosed : bool
        Whether to hold it against an enclosure in the plane, which costs more than all the rest
        where factors are nearly singular; otherwise it is held against a simulation there, too.

    Returns
    -------
    Exponent
    """
    finite = law.finite(MOST_FACTORS) if isinstance(law, SGDLaw) else law
    found = _refined(_Factors(*listed(finite)), law.dimension, goal)
    if enclosed and law.dimension == 2 and len(finite.matrices) <= MOST_ENCLOSED:
        # A line that is invariant or nearly so is never forgotten; what is left to find is gross.
        widest = WIDE if found.forgetful else NARROW
        proven = enclosure(law, width=min(max(10 * found.error, NARROW), widest))
        found = found.inside(proven)
        guard = _simulated(finite) if math.isinf(proven.lower) else None
    else:
        guard = _simulated(finite)
        found = found.held_against(guard) if guard.converged else found
    if guard is not None and math.isinf(guard.value):  # one product that is 0 settles it
        return exact(guard.value, 0.0, "transfer operator", guard.evaluations)
    error = max(found.upper - found.value, found.value - found.lower)
    status = f"error estimate {error:.1e} above the tolerance {goal:.1e}: {found.cause}"
    return Exponent(
        value=found.value,
        lower=found.lower,
        upper=found.upper,
        kind="deterministic",
        method="transfer operator",
        status="converged" if error <= goal else status,
        evaluations=found.work,
    )


@dataclass(frozen=True)
class _Found:
    """An exponent as it was found: between two numbers, why not closer, and at what cost."""

    value: float
    lower: float
    upper: float
    cause: str
    work: int
    forgetful: bool  # of the starting direction: T^k g converges

    @property
    def error(self) -> float:
        return self.upper - self.value

    def inside(self, proven: Exponent) -> _Found:
        """Return what is left of the interval inside a proven one."""
        low, high = max(self.lower, proven.lower), min(self.upper, proven.upper)
        cause = self.cause
        if low > high or not (proven.converged or math.isinf(proven.lower)):
            # An invariant line, or nearly one: interpolation leaks on to it, finds its exponent.
            low, high = proven.lower, proven.upper
            cause = "a proven interval does not confirm it: the law is nearly reducible, or rough"
        value = min(max(self.value, low), high)
        return replace(self, value=value, lower=low, upper=high, cause=cause)

    def held_against(self, simulated: Exponent) -> _Found:
        """Return the simulated exponent instead if the two disagree."""
        if abs(self.value - simulated.value) <= self.error + simulated.upper - simulated.lower:
            return self
        spread = simulated.upper - simulated.lower
        return replace(
            self,
            value=simulated.value,
            lower=simulated.value - spread,
            upper=simulated.value + spread,
            cause="simulation disagrees, the law is reducible or nearly so",
        )


def _simulated(law: FiniteLaw) -> Exponent:
    """Return a simulated exponent; every factor is drawn a few times, or it is not converged."""
    rarest = float(law.probabilities[law.probabilities > 0].min())
    steps = math.ceil(GUARD_DRAWS / GUARD_REPLICAS / rarest)
    steps = min(max(GUARD_STEPS, steps), LONGEST_GUARD)
    return simulated(law, np.random.default_rng(0), steps=steps, replicas=GUARD_REPLICAS)


def _refined(factors: _Factors, dimension: int, goal: float) -> _Found:
    """Solve the equation on finer and finer grids until the error estimate is below the goal."""
    value, error, work, forgetful = math.nan, math.inf, 0, False  # of the best grid
    cause = "the solution is rough for this grid"
    for number, points in enumerate(GRIDS[dimension]):
        grid = _GRIDS[dimension](points)
        effort = grid.size * len(factors.matrices) * STENCIL ** (dimension - 1)
        if number > 3 and work + effort > MOST_ENTRIES:
            break
        work += effort
        operator, growth = _operator(factors, grid, grid.directions())
        solution, rest, forgets = _solve(operator, growth, goal / 100)
        if solution is None:
            cause = "the growth rate depends on the starting direction, or forgets it slowly"
            largest, doubt = _largest_growth(operator, growth)
            if not abs(value - largest) <= error + doubt:  # it depends; else it forgets slowly
                value, error, forgetful = largest, doubt, forgets
            break
        # What is left of the equation at the points themselves, and the rounding of g and Th, is
        # part of the error, too.
        size = 1 + float(np.abs(solution).max() + np.abs(growth).max())
        missing = _missing(factors, grid, solution, goal / 100)
        estimate = SAFETY * (missing + rest) + 16 * EPSILON * size
        if estimate < error:
            value, error, forgetful = float(solution.mean()), estimate, forgets
        if error <= goal:
            break
    return _Found(value, value - error, value + error, cause, work, forgetful)


def _missing(factors: _Factors, grid: _Circle | _Cube, solution: Array, enough: float) -> float:
    """Return the mean of what is left of the equation between the points."""
    coarse = isinstance(grid, _Circle) and grid.points < COARSE
    others = grid.between(FINER if coarse and len(factors.matrices) <= FEW else 1)
    nodes = others.directions()
    operator, growth = _operator(factors, grid, nodes)
    indices, weights = grid.stencil(nodes)
    here = (solution[indices] * weights).sum(axis=-1)
    rest = np.abs(growth - here + operator @ solution - solution.mean())
    chain, _ = _operator(factors, others, nodes)
    direct = rest.size <= DIRECT
    for _ in range(AVERAGED if direct else PATIENT):
        rest = chain @ rest
        if rest.max() - rest.min() <= max(EVEN * rest.max(), enough):
            return float(rest.max())
    if direct:  # the mean over a time that is so long that nothing is singular
        remaining = sparse.eye_array(rest.size, format="csc") - (1 - 1 / FOREVER) * chain
        rest = splu(sparse.csc_array(remaining)).solve(rest / FOREVER)
    return float(rest.max())


@dataclass(frozen=True)
class _Factors:
    """The factors of a law, each divided by its largest entry, and the logarithms of these."""

    matrices: Array
    logarithms: Array
    probabilities: Array

    def images(self, directions: Array) -> tuple[Array, Array]:
        """Return A_i v, shape (directions, factors, d), and log|A_i v|."""
        moved = np.einsum("mij,nj->nmi", self.matrices, directions)
        lengths = np.log(np.maximum(np.linalg.norm(moved, axis=2), SHORTEST))
        return moved, lengths + self.logarithms

    def chunks(self, directions: int) -> list[slice]:
        """Return slices of the factors that keep the work arrays small."""
        size = max(1, CHUNK // directions)
        return [slice(start, start + size) for start in range(0, len(self.matrices), size)]

    def part(self, chunk: slice) -> _Factors:
        """Return some of the factors."""
        return _Factors(self.matrices[chunk], self.logarithms[chunk], self.probabilities[chunk])


class _Circle:
    """Directions of the plane: angles in [0, π), periodic, n equidistant points."""

    def __init__(self, points: int, width: int = STENCIL, shift: float = 0.0) -> None:
        self.points = self.size = points
        self.width, self.shift = width, shift  # of the interpolation; of the angles, in spacings

    def between(self, finer: int) -> _Circle:
        """Return so many points to a spacing between these, with linear interpolation."""
        return _Circle(self.points * finer, LINEAR, BETWEEN)

    def directions(self) -> Array:
        """Return the unit vectors of the grid, shape (size, 2)."""
        angle = (np.arange(self.points) + self.shift) * (math.pi / self.points)
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)

    def stencil(self, vectors: Array) -> tuple[NDArray[np.int64], Array]:
        """Return grid indices and weights, shape (..., width), that interpolate at `vectors`."""
        position = np.arctan2(vectors[..., 1], vectors[..., 0]) * (self.points / math.pi)
        position -= self.shift
        first = np.floor(position) - (self.width // 2 - 1)
        indices = first.astype(np.int64)[..., None] + np.arange(self.width)
        return indices % self.points, _weights(position - first, self.width)


class _Cube:
    """Directions of space: three faces of a cube, n×n points each, equal angles apart."""

    def __init__(
        self, points: int, width: int = STENCIL, shift: float = 0.0, spacing: float | None = None
    ) -> None:
        self.points, self.size = points, 3 * points**2
        self.width, self.shift = width, shift
        self.spacing = math.pi / 2 / (points - 1) if spacing is None else spacing

    def between(self, finer: int) -> _Cube:
        """Return so many points to a spacing between these, with linear interpolation."""
        return _Cube((self.points - 1) * finer, LINEAR, BETWEEN, self.spacing / finer)

    def directions(self) -> Array:
        """Return the unit vectors of the grid, shape (size, 3)."""
        angle = (np.arange(self.points) + self.shift) * self.spacing - math.pi / 4
        first, second = np.meshgrid(np.tan(angle), np.tan(angle), indexing="ij")
        face = np.stack([np.ones(first.size), first.ravel(), second.ravel()], axis=1)
        face /= np.linalg.norm(face, axis=1, keepdims=True)
        return np.concatenate([np.roll(face, axis, axis=1) for axis in range(3)])

    def stencil(self, vectors: Array) -> tuple[NDArray[np.int64], Array]:
        """Return grid indices and weights, shape (..., width²), that interpolate at `vectors`."""
        face = np.abs(vectors).argmax(axis=-1)
        top, one, two = (
            np.take_along_axis(vectors, ((face + k) % 3)[..., None], axis=-1)[..., 0]
            for k in range(3)
        )
        top = np.where(top == 0, 1.0, top)
        (row, row_weights), (column, column_weights) = (
            self._line(np.arctan(side / top)) for side in (one, two)
        )
        indices = (face[..., None, None] * self.points + row[..., :, None]) * self.points
        indices = indices + column[..., None, :]
        weights = row_weights[..., :, None] * column_weights[..., None, :]
        shape = (*face.shape, self.width**2)
        return indices.reshape(shape), weights.reshape(shape)

    def _line(self, angle: Array) -> tuple[NDArray[np.int64], Array]:
        position = (angle + math.pi / 4) / self.spacing - self.shift
        first = np.floor(position) - (self.width // 2 - 1)
        first = np.clip(first, 0, self.points - self.width)
        indices = first.astype(np.int64)[..., None] + np.arange(self.width)
        return indices, _weights(position - first, self.width)


_GRIDS: dict[int, type[_Circle] | type[_Cube]] = {2: _Circle, 3: _Cube}


def _lagrange(t: Any) -> tuple[Any, ...]:
    """Return the six Lagrange polynomials on the nodes 0, ..., 5 at t, a number or an array."""
    a, b, c, d, e, f = t, t - 1, t - 2, t - 3, t - 4, t - 5
    abc, def_ = a * b * c, d * e * f
    return (
        b * c * def_ * (-1 / 120),
        a * c * def_ * (1 / 24),
        a * b * def_ * (-1 / 12),
        abc * e * f * (1 / 12),
        abc * d * f * (-1 / 24),
        abc * d * e * (1 / 120),
    )


_compiled_lagrange = njit(_lagrange)


def _weights(t: Array, width: int) -> Array:
    """Return the weights at t of the nodes 0, ..., width − 1, shape (..., width)."""
    if width == STENCIL:
        return np.stack(_lagrange(t), axis=-1)
    t = np.clip(t, 0, 1)  # beyond the last node of a face its value counts
    return np.stack([1 - t, t], axis=-1)


def _solve(
    operator: sparse.csr_array, growth: Array, enough: float = 0.0
) -> tuple[Array | None, float, bool]:
    """Return h with h − Th + mean(h) = g, or None; what is left of it; whether Tᵏg converges."""
    goal = SOLVED * float(np.abs(growth).max())

    def applied(h: Array) -> Array:
        return np.asarray(h - operator @ h + h.mean())

    solution, rest = growth, growth - applied(growth)
    before, after = math.inf, float(np.abs(rest).max())
    while after <= before / GAIN:  # the sum of T^k (g − λ), which contraction makes converge
        before = after
        for _ in range(ITERATIONS):
            solution = solution + rest
            rest = growth - applied(solution)
            after = float(np.abs(rest).max())
            if after <= max(enough, 4 * EPSILON * float(np.abs(solution).max())):
                return solution, after, True
    if after <= goal:
        return solution, after, True
    if growth.size > DIRECT:
        system = LinearOperator(operator.shape, matvec=applied, dtype=np.float64)
        solution, _ = gmres(system, growth, rtol=SOLVED / 10, atol=0, restart=60, maxiter=2)
    else:
        identity, one = sparse.eye_array(growth.size, format="csr"), np.ones((growth.size, 1))
        bordered = sparse.block_array([[identity - operator, one], [one.T / growth.size, None]])
        try:
            extended = splu(bordered.tocsc()).solve(np.append(growth, 0.0))
        except RuntimeError:  # exactly singular
            return None, math.inf, False
        solution = np.asarray(extended[:-1] + extended[-1])
    after = float(np.abs(applied(solution) - growth).max())
    return (solution if after <= goal else None), after, False


def _largest_growth(operator: sparse.csr_array, growth: Array) -> tuple[float, float]:
    """Return max over directions of the mean growth over many steps, and how much it changes."""
    total, current, means = np.zeros(growth.size), growth, []
    for step in range(1, 2 * LONG + 1):
        total, current = total + current, operator @ current
        if step in (LONG, 2 * LONG):
            means.append(float(total.max()) / step)
    return means[1], SAFETY * abs(means[1] - means[0]) + 1 / LONG


def _operator(
    factors: _Factors, grid: _Circle | _Cube, nodes: Array
) -> tuple[sparse.csr_array, Array]:
    """Return the matrix that takes h on the grid to Th at some nodes, and g at these."""
    if isinstance(grid, _Circle) and len(factors.matrices) * STENCIL > grid.size:
        return _crowded_operator(factors, grid, nodes)
    return _sparse_operator(factors, grid, nodes)


def _sparse_operator(
    factors: _Factors, grid: _Circle | _Cube, nodes: Array
) -> tuple[sparse.csr_array, Array]:
    growth = np.zeros(len(nodes))
    operator = sparse.csr_array((len(nodes), grid.size))
    for chunk in factors.chunks(len(nodes)):
        part = factors.part(chunk)
        moved, lengths = part.images(nodes)
        growth += lengths @ part.probabilities
        indices, weights = grid.stencil(moved)
        weights *= part.probabilities[:, None]
        rows = np.broadcast_to(np.arange(len(nodes))[:, None, None], indices.shape)
        entries = (weights.ravel(), (rows.ravel(), indices.ravel()))
        operator = operator + sparse.coo_array(entries, shape=operator.shape).tocsr()
    return operator, growth


def _crowded_operator(
    factors: _Factors, grid: _Circle, nodes: Array
) -> tuple[sparse.csr_array, Array]:
    """Do the same for so many factors that most entries of the matrix are sums of many weights."""
    operator, growth = np.zeros((len(nodes), grid.size)), np.zeros(len(nodes))

    def run(part: slice) -> None:
        _accumulate(
            factors.matrices,
            factors.logarithms,
            factors.probabilities,
            nodes[part],
            grid.width == LINEAR,
            grid.shift,
            operator[part],
            growth[part],
        )

    run_replicas(run, len(nodes))
    return sparse.csr_array(operator), growth


@njit(nogil=True, cache=True)
def _accumulate(matrices, logarithms, probabilities, nodes, linear, shift, operator, growth):  # type: ignore[no-untyped-def]
    """Add up the weights of all factors at some nodes of the circle."""
    size = operator.shape[1]
    for n in range(len(nodes)):
        for m in range(len(matrices)):
            matrix, probability = matrices[m], probabilities[m]
            x = matrix[0, 0] * nodes[n, 0] + matrix[0, 1] * nodes[n, 1]
            y = matrix[1, 0] * nodes[n, 0] + matrix[1, 1] * nodes[n, 1]
            square = max(x * x + y * y, SHORTEST * SHORTEST)
            growth[n] += probability * (logarithms[m] + np.log(square) / 2)
            position = np.arctan2(y, x) * (size / np.pi) - shift
            left = math.floor(position)
            t = position - left
            column = left % size
            if linear:
                operator[n, column] += probability * (1 - t)
                operator[n, (column + 1) % size] += probability * t
                continue
            column = (column - 2) % size
            for weight in _compiled_lagrange(t + 2):
                operator[n, column] += probability * weight
                column = column + 1 if column + 1 < size else 0
