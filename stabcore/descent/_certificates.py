"""Cycles with what is known about their error: multipliers, radius, stability."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stabcore._constants import EPSILON
from stabcore._validation import Array
from stabcore.descent._shooting import Dynamics, shooting

SINGULAR = 1e-7  # a derivative with a singular value below this is taken to be singular

NEIGHBOURHOOD = 1e-5  # radius of the ball in which the derivative's Lipschitz constant is sampled

NEIGHBOURS = 16


@dataclass(frozen=True, kw_only=True)
class Cycle:
    """A periodic orbit of the gradient descent map, with what is known about its error.

    Attributes
    ----------
    points : array, shape (p, D)
        In the order of the orbit, the lexicographically smallest first.
    multipliers : array of complex, shape (D,)
        Eigenvalues of the derivative along the cycle, the largest modulus first.
    multiplier_error : float
        How far off each can be, by the theorem of Bauer and Fike: as good as the radius.
    residual : float
        max_i |G(x_i) − x_{i+1}|, as computed.
    radius : float
        A true cycle lies within this distance of the points, by the theorem of Newton and
        Kantorovich with an *estimated* Lipschitz constant (see `find_cycles`); ∞ where the
        theorem does not apply.
    stability : str
        "stable", "unstable", "neutral" (not isolated, and nothing else repels), or "undecided"
        (a modulus is 1 up to its error).
    status : str
        "isolated", or "not isolated" and why the radius is infinite.
    """

    points: Array
    multipliers: NDArray[np.complex128]
    multiplier_error: float
    residual: float
    radius: float
    stability: str
    status: str

    @property
    def period(self) -> int:
        """The number of points."""
        return len(self.points)

    @property
    def isolated(self) -> bool:
        """Whether no other cycle of this period is arbitrarily close."""
        return self.status == "isolated"

    def __str__(self) -> str:
        """Return the period, the verdict and the multipliers in words."""
        shown = ", ".join(f"{m.real:.6g}" if m.imag == 0 else f"{m:.6g}" for m in self.multipliers)
        return f"{self.stability} cycle of period {self.period}, multipliers {shown}"


def certified(
    dynamics: Dynamics, parameter: float, points: Array, rng: np.random.Generator
) -> Cycle:
    """Return the cycle with its multipliers and error bounds; `find_cycles` has the formulas."""
    derivatives = dynamics.derivative(points, parameter)
    values = shooting(dynamics, points, parameter)
    smallest = isolation(derivatives)
    isolated = smallest > SINGULAR
    gap = np.linalg.norm(values) + _rounding(dynamics, parameter, points, derivatives)
    newton = float(gap) / (smallest if isolated else 1.0)
    slope = _lipschitz(dynamics, parameter, points, 2 * newton, rng)
    radius = math.inf
    status = "not isolated: a multiplier is 1, as on a manifold of minima or at a bifurcation"
    if isolated:
        radius = _kantorovich_radius(newton, slope / smallest)
        status = "isolated"
    residual = float(np.linalg.norm(values, axis=-1).max())
    matrix = transfer(derivatives)
    spectrum = eigenvalues(matrix)
    # Bauer–Fike: the eigenvalues move by at most cond(V) times the change of the product.
    sizes = np.linalg.norm(derivatives, 2, axis=(1, 2)) + EPSILON
    reach = radius if math.isfinite(radius) else residual
    change = sizes.prod() * ((8 * EPSILON * (1 + sizes) + slope * reach) / sizes).sum()
    error = float(np.linalg.cond(np.linalg.eig(matrix)[1]) * change)
    return Cycle(
        points=points,
        multipliers=spectrum,
        multiplier_error=error,
        residual=residual,
        radius=radius,
        stability=_stability(spectrum, error, isolated),
        status=status,
    )


def isolation(derivatives: Array) -> float:
    """Return the smallest singular value of the derivative of F; 0 if the cycle is not isolated."""
    return float(np.linalg.svd(_shooting_jacobian(derivatives), compute_uv=False)[-1])


def transfer(derivatives: Array) -> Array:
    """Return DG(x_p)⋯DG(x_1)."""
    product = derivatives[0]
    for factor in derivatives[1:]:
        product = np.asarray(factor @ product)
    return np.asarray(product)


def eigenvalues(matrix: Array) -> NDArray[np.complex128]:
    """Return the eigenvalues, the largest modulus first."""
    values = np.linalg.eigvals(matrix).astype(complex)
    order = np.lexsort((-values.imag, -values.real, -np.abs(values)))
    return np.asarray(values[order])


def _shooting_jacobian(derivatives: Array) -> Array:
    """Return DF(X), shape (pD, pD): DG(x_i) in block (i, i), −I in block (i, i + 1)."""
    period, dimension = derivatives.shape[:2]
    blocks = np.zeros((period, dimension, period, dimension))
    for i in range(period):  # added, since for p = 1 the two blocks are the same
        blocks[i, :, i] += derivatives[i]
        blocks[i, :, (i + 1) % period] -= np.eye(dimension)
    return blocks.reshape(period * dimension, period * dimension)


def _stability(spectrum: NDArray[np.complex128], error: float, isolated: bool) -> str:
    """Return the verdict of the multipliers, each known to within `error`."""
    modulus = np.abs(spectrum)
    if modulus[0] > 1 + max(error, 0 if isolated else SINGULAR):
        return "unstable"
    if not isolated:
        return "neutral"
    return "stable" if modulus[0] < 1 - error else "undecided"


def _rounding(dynamics: Dynamics, parameter: float, points: Array, derivatives: Array) -> float:
    """Return a bound for what rounding can have changed in F(X)."""
    # What is added to x is as exact as if its argument had been changed by a few ulps.
    bends = np.linalg.norm(derivatives - np.eye(dynamics.dimension), axis=(-2, -1))
    moves = np.linalg.norm(dynamics.step(points, parameter) - points, axis=-1)
    sizes = np.linalg.norm(points, axis=-1)
    return float(8 * EPSILON * np.linalg.norm((1 + bends) * sizes + moves))


def _lipschitz(
    dynamics: Dynamics, parameter: float, points: Array, reach: float, rng: np.random.Generator
) -> float:
    """Return twice the largest ‖DG(x) − DG(y)‖ / |x − y| among sampled neighbours y."""
    radius = max(NEIGHBOURHOOD * (1 + float(np.abs(points).max())), reach)
    direction = rng.normal(size=(NEIGHBOURS, *points.shape))
    direction *= radius / np.linalg.norm(direction, axis=-1, keepdims=True)
    there = dynamics.derivative(points + direction, parameter)
    change = there - dynamics.derivative(points, parameter)
    return float(2 * np.linalg.norm(change, 2, axis=(-2, -1)).max() / radius)


def _kantorovich_radius(newton: float, slope: float) -> float:
    """Return (1 − √(1 − 2h)) / slope with h = slope · newton; infinite where h > ½."""
    h = slope * newton
    return 2 * newton / (1 + math.sqrt(1 - 2 * h)) if h <= 0.5 else math.inf
