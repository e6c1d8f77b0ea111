r"""Moments of random matrix products, L(q) = lim (1/n) log E‖A_n ⋯ A_1‖^q, and the tail index.

L is convex, L(0) = 0, and L(q)/q falls to λ as q falls to 0. Where λ < 0 < L(2) the products
converge to 0 almost surely while their second moment explodes; in between lies Kesten's tail index,
the q > 0 with L(q) = 0.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import map_coordinates
from scipy.optimize import brentq

from stabcore import _validation as check
from stabcore._constants import EPSILON
from stabcore._log_sums import largest, log_moment
from stabcore._validation import Array
from stabcore.exponent import Exponent, ExponentWarning, affine
from stabcore.lyapunov._factors import listed, relative_powers, require_independent_steps
from stabcore.lyapunov.closed_forms import scalar_parts
from stabcore.lyapunov.isotropic import isotropic_log_norm, isotropic_moment
from stabcore.lyapunov.laws import FiniteLaw, IsotropicLaw, Law, SGDLaw
from stabcore.lyapunov.mean_square import MOST_ORDER, mean_square_exponent, second_moment

GRIDS = tuple(48 * 2**k for k in range(10))  # directions of the plane
SWEEPS = 2_000  # of the power iteration on one grid
MOST_EVALUATIONS = 8_000_000  # interpolations of the power iteration
SAFETY = 2.0  # of error estimates
STEADY = 4.0  # how much a change from grid to grid is expected to shrink, at the most
SMALLEST_MOMENT, LARGEST_MOMENT = 2.0**-20, 2.0**12  # where to look for the tail index


@check.public()
def moment_exponent(law: Law | IsotropicLaw, q: float, *, tolerance: float = 1e-10) -> Exponent:
    r"""Return L(q) = lim (1/n) log E‖A_n ⋯ A_1‖^q for q > 0.

    Covered are: laws that split into random numbers (one dimension, triangular factors, gradients
    that are parallel or in orthogonal groups of parallel ones, the whole data set as batch), where
    L(q) = log Σ p_m |a_m|^q, the largest over the parts; the isotropic laws with a density, where
    L(q) = log E|Av|^q (`stabcore.lyapunov.isotropic`); q = 2 for any law; q = 4, 6, ... through
    tensor powers in few dimensions; and every q in two dimensions, where e^L(q) is the spectral
    radius of (Tf)(v) = Σ p_i |A_i v|^q f(A_i v) on directions v, |v| = 1. T is applied to
    splines on grids of angles, finer and finer, until a power iteration makes the smallest and the
    largest Tf/f agree, between which the spectral radius of a positive operator lies.

    Source: Le Page 1982 for the operator; the discretisation is our derivation.

    Parameters
    ----------
    law : FiniteLaw, SGDLaw, GaussianMatrixLaw, GaussianInputLaw or UniformDirectionLaw
    q : float
        q > 0.
    tolerance : float
        Wanted error in two dimensions.

    Returns
    -------
    Exponent
        Of kind "exact" or "deterministic"; `status` says when the tolerance was not reached.

    Raises
    ------
    ValueError
        If the law is not covered.
    TypeError
        If `law` is not a law.

    Examples
    --------
    E A² = (1² + 3²)/2 = 5:

    >>> round(moment_exponent(FiniteLaw([[[1.0]], [[-3.0]]]), 2.0).value / math.log(5), 12)
    1.0
    """
    q = check.real("q", q, above=0.0)
    goal = check.real("tolerance", tolerance, above=0.0)
    if isinstance(law, IsotropicLaw):
        return isotropic_moment(law, q)
    require_independent_steps(law)
    parts = scalar_parts(law)
    if parts is not None:
        return largest([log_moment(part, q) for part in parts])
    if q == 2 or (isinstance(law, FiniteLaw) and (law.probabilities > 0).sum() == 1):
        return affine(mean_square_exponent(law), q)
    even = q % 2 == 0 and law.dimension ** (q / 2) <= MOST_ORDER
    if not even and law.dimension != 2:
        raise ValueError(
            f"moment_exponent does not cover q = {q:g} for {law!r}: it covers every q > 0 where "
            "the law splits into numbers or has dimension 2, q = 2 for every law, and even q where "
            f"dimension ** (q / 2) <= {MOST_ORDER}."
        )
    matrices, logs, probabilities = listed(law)
    weights, shift = relative_powers(probabilities, logs, q)
    if even:
        return affine(second_moment(_tensor_power(matrices, int(q) // 2), weights), 1.0, shift)
    return affine(_planar_moment(matrices, weights, q, goal), 1.0, shift)


@check.public()
def tail_index(law: Law | IsotropicLaw, *, tolerance: float = 1e-8) -> float:
    r"""Return Kesten's tail index: the q > 0 with L(q) = 0, for a law with λ < 0.

    The products converge to 0 almost surely, and so do their moments of order below q, while those
    above explode: with a little noise added at each step, |θ − θ*| has tails of order t^(−q).

    Source: Kesten 1973; Gürbüzbalaban, Şimşekli & Zhu 2021 (for SGD).

    Parameters
    ----------
    law : FiniteLaw, SGDLaw, GaussianMatrixLaw, GaussianInputLaw or UniformDirectionLaw
        One that `moment_exponent` covers for every q.
    tolerance : float
        Of L(q), in two dimensions.

    Returns
    -------
    float
        ∞ when no factor expands (all norms are at most 1) or the products vanish.

    Raises
    ------
    ValueError
        If λ ≥ 0, if the law is not covered, or if there is no zero below q = 4096.
    TypeError
        If `law` is not a law.

    Examples
    --------
    Label flips 1 ± η with η < 1: E|A| = 1.

    >>> round(tail_index(FiniteLaw([[[0.2]], [[1.8]]])), 12)
    1.0
    """
    if not isinstance(law, IsotropicLaw):
        require_independent_steps(law)
    if _largest_log_norm(law) <= 8 * law.dimension * EPSILON:
        return math.inf

    def moment(q: float) -> Exponent:
        return moment_exponent(law, q, tolerance=tolerance)

    low = 1.0
    while (first := moment(low)).sign != -1:
        low /= 2
        if low < SMALLEST_MOMENT:
            raise ValueError(
                f"tail_index needs λ < 0, but L({2 * low:.1e}) is {first.value:.3e} for {law!r}: "
                "λ is not negative, or too close to 0 to tell; choose another step_size."
            )
    if math.isinf(first.value):
        return math.inf
    high = 2 * low
    while moment(high).value <= 0:
        high *= 2
        if high > LARGEST_MOMENT:
            raise ValueError(
                f"tail_index found no zero of L(q) below q = {LARGEST_MOMENT:g} for {law!r}: long "
                "products may never expand, although single factors do."
            )
    index = brentq(lambda q: moment(q).value, high / 2, high, xtol=1e-14)
    at_index = moment(index)
    if not at_index.converged:
        check.warn(
            f"the tail index {index:.6g} cannot be trusted to all digits: {at_index.status}",
            ExponentWarning,
        )
    return float(index)


def _largest_log_norm(law: Law | IsotropicLaw) -> float:
    """Return the logarithm of the largest spectral norm of a factor that is drawn."""
    if isinstance(law, IsotropicLaw):
        return isotropic_log_norm(law)
    parts = scalar_parts(law) if isinstance(law, SGDLaw) or law.dimension == 1 else None
    if parts is not None:
        return float(max(logs[weights > 0].max() for weights, logs, _ in parts))
    matrices, logs, _ = listed(law)
    with np.errstate(divide="ignore"):
        return float((np.log(np.linalg.norm(matrices, 2, axis=(1, 2))) + logs).max())


def _tensor_power(matrices: Array, power: int) -> Array:
    """Return A ⊗ ... ⊗ A for every factor."""
    result = matrices
    for _ in range(power - 1):
        size = result.shape[1] * matrices.shape[1]
        product = result[:, :, None, :, None] * matrices[:, None, :, None, :]
        result = product.reshape(-1, size, size)
    return result


def _planar_moment(matrices: Array, weights: Array, q: float, goal: float) -> Exponent:
    """Return L(q) of a law in the plane, or of its transpose, whose L(q) is the same."""
    norm = float(np.linalg.norm(matrices, 2, axis=(1, 2)).max())  # |Av|^q ≤ 1 after division
    result = _power_iteration(matrices / norm, weights, q, goal)
    if not result.converged:
        # Where the plane has an invariant direction one of the two eigenfunctions may vanish there.
        transposed = np.swapaxes(matrices, 1, 2) / norm
        other = _power_iteration(transposed, weights, q, goal)
        result = min(result, other, key=lambda found: found.upper - found.lower)
    return affine(result, 1.0, q * math.log(norm))


def _power_iteration(matrices: Array, weights: Array, q: float, goal: float) -> Exponent:
    f, half_width, work = np.ones(GRIDS[0]), math.inf, 0
    values: list[float] = []
    bounds = (-math.inf, math.inf)
    for points in GRIDS:
        grid = _Directions(points, matrices, weights, q)
        f = _positive(_spline(f, grid.angles))
        # Between the points of the last grid these ones tell what interpolation has cost.
        lower, _, upper = _ratios(grid.apply(f), f)
        bounds = max(bounds[0], lower), min(bounds[1], upper)
        f, residual, sweeps = grid.leading(f, goal)
        values.append(residual[1])
        half_width = _half_width(values, bounds) + residual[2] - residual[0]
        work += sweeps * grid.positions.size
        if half_width <= goal or work > MOST_EVALUATIONS:
            break
    return Exponent(
        value=values[-1],
        lower=values[-1] - half_width,
        upper=values[-1] + half_width,
        kind="deterministic",
        method="transfer operator of moments",
        status="converged"
        if half_width <= goal
        else f"error estimate {half_width:.1e} above the tolerance {goal:.1e}: the moments depend "
        "on the starting direction, or do so in a rough way",
        evaluations=work,
    )


def _half_width(values: list[float], bounds: tuple[float, float]) -> float:
    """Return an error estimate from the change from grid to grid, or from bounds if smaller."""
    changes = np.abs(np.diff(values))[::-1]
    rounding = 1e-14 * (1 + abs(values[-1]))
    if changes.size < 2:
        return math.inf
    error = SAFETY * max(changes[0], changes[1] / STEADY)
    if bounds[0] <= values[-1] <= bounds[1]:
        error = min(error, SAFETY * (bounds[1] - bounds[0]))
    return float(error) + rounding


class _Directions:
    """The operator T_q, from functions of the direction to functions on a grid."""

    def __init__(self, points: int, matrices: Array, weights: Array, q: float) -> None:
        self.angles = np.arange(points, dtype=np.float64) * (math.pi / points)
        moved: Array = matrices @ np.stack([np.cos(self.angles), np.sin(self.angles)])
        self.positions = np.arctan2(moved[:, 1], moved[:, 0])
        self.factors = weights[:, None] * np.hypot(moved[:, 0], moved[:, 1]) ** q

    def apply(self, f: Array) -> Array:
        """Return Tf."""
        return np.asarray((self.factors * _spline(f, self.positions)).sum(axis=0))

    def leading(self, f: Array, goal: float) -> tuple[Array, tuple[float, float, float], int]:
        """Return the leading eigenfunction, its ratios, and the steps of the power iteration."""
        for sweep in range(1, SWEEPS):
            image = self.apply(f)
            ratios = _ratios(image, f)
            if ratios[2] - ratios[0] <= goal / 4 or not image.any():
                return f, ratios, sweep
            # Adding f keeps factors that exchange directions from going round in circles.
            f = _positive(image / image.sum() + f / f.sum())
        return f, _ratios(self.apply(f), f), SWEEPS


def _spline(f: Array, angles: Array) -> Array:
    """Return the periodic spline of degree 5 through f at other angles."""
    positions = angles * (f.size / math.pi)
    return np.asarray(map_coordinates(f, positions[None], order=5, mode="grid-wrap"))


def _positive(f: Array) -> Array:
    """Return f divided by its largest value, cut off at a tiny positive number."""
    return np.asarray(np.maximum(f / f.max(), 1e-200))


def _ratios(image: Array, f: Array) -> tuple[float, float, float]:
    """Return the logarithms of the smallest, the mean and the largest Tf/f."""
    with np.errstate(divide="ignore"):
        logs = np.log(np.maximum(image, 0) / f)
        mean = np.log(max(image.sum(), 0) / f.sum())
    lower, upper = float(logs.min()), float(logs.max())
    return lower, min(max(float(mean), lower), upper), upper
