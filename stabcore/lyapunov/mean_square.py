r"""Stability in mean square: the growth of E‖A_n ⋯ A_1‖², exactly, and its edge.

L(2)/2 = ½ log ρ(E[A⊗A]) ≥ λ: stability in mean square implies λ < 0, and not the other way round.

Of the second moment all that matters is TX = E[A X Aᵀ] on symmetric matrices, a linear map that
keeps the cone of positive semidefinite ones. With h_i = J_iᵀJ_i, J_i the rows of sample i (one for
each output), and H = Σ p_i h_i, SGD has

    TX = (1 − s) (I − ηH) X (I − ηH) + s Σ p_i (I − ηh_i) X (I − ηh_i),

s = 1/B with replacement and (N − B)/(B(N − 1)) without (the first and second moments of how often a
batch contains a sample): in mean square a batch is a lottery between a step of gradient descent and
a step of batch size one. No batch is ever written out. (With importance sampling q_i and w_i h_i
stand in for p_i and h_i.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import eigh
from scipy.optimize import brentq
from scipy.sparse.linalg import LinearOperator, eigs, gmres

from stabcore import _validation as check
from stabcore._constants import EPSILON
from stabcore._log_sums import largest, log_moment, one_minus
from stabcore._validation import Array
from stabcore.exponent import Exponent, affine, exact
from stabcore.lyapunov._factors import (
    listed,
    relative_powers,
    require_independent_steps,
    rescaled,
)
from stabcore.lyapunov._perron import SampleMap, perron_level
from stabcore.lyapunov.closed_forms import scalar_parts
from stabcore.lyapunov.isotropic import isotropic_moment
from stabcore.lyapunov.laws import IsotropicLaw, Law, MomentumLaw, SGDLaw
from stabcore.lyapunov.momentum import momentum_edge
from stabcore.problems.minimum import Minimum
from stabcore.sampling import SGD, Batches, covered_method

MOST_ORDER = 44  # of symmetric matrices whose linear maps are written out, for finite laws
MOST_ORDER_SGD = 12  # the same for SGD; see _perron above
FIRST_OCTAVE = 24  # below the edge of full batches, where the search for the edge begins
TIGHT = 1e-10  # tolerance of eigenvalues found by iteration
MARGINS = 10.0 ** np.arange(-14, 5)  # tried around ρ until it is bracketed
COARSE_MARGINS = 10.0 ** np.arange(-8, 3, 2)  # the same where equations are solved by iteration


@check.public()
def mean_square_exponent(law: Law | IsotropicLaw | MomentumLaw) -> Exponent:
    r"""Return ½ log ρ(E[A⊗A]) = L(2)/2 ≥ λ, negative exactly for stability in mean square.

    For finite laws ρ is bracketed by a test that is exact but for rounding. Solve sX − TX = I at a
    level s > 0. If X is positive definite, TX < sX, hence ρ < s (Collatz and Wielandt, on the cone
    of positive semidefinite matrices); and if ρ < s, then X = Σ Tᵏ I / sᵏ⁺¹ is positive definite.
    For SGD T is self-adjoint, T = Δ + η²s Σ p_i h_i · h_i with Δ diagonal in the eigenbasis of
    H, and ρ is the level where the largest eigenvalue of the second term reaches sI − Δ. Above
    rank 12 it is enclosed by vectors with a C × C matrix per sample, at the price of a few dozen
    products of an NC × r and an r × r matrix.

    Source: Wu, Ma & E 2018; Ma & Ying 2021; Mulayoff & Michaeli 2024; the bracket is our
    derivation.

    Parameters
    ----------
    law : FiniteLaw, SGDLaw, MomentumLaw, GaussianMatrixLaw, GaussianInputLaw, UniformDirectionLaw
        With any number of batches.

    Returns
    -------
    Exponent
        Of kind "exact" in one dimension and "deterministic" above.

    Raises
    ------
    TypeError
        If `law` is not a law.

    Examples
    --------
    E A² = (2² + 0²)/2 = 2:

    >>> from stabcore.lyapunov.laws import FiniteLaw
    >>> result = mean_square_exponent(FiniteLaw([[[2.0]], [[0.0]]]))
    >>> round(result.value / math.log(2), 12)
    0.5
    """
    if isinstance(law, IsotropicLaw):
        return affine(isotropic_moment(law, 2.0), 0.5)
    if isinstance(law, MomentumLaw):
        return _momentum_mean_square(law)
    require_independent_steps(law)
    if isinstance(law, SGDLaw):
        return _sgd_mean_square(law)
    parts = scalar_parts(law)
    if parts is not None:
        return affine(largest([log_moment(part, 2.0) for part in parts]), 0.5)
    matrices, logs, probabilities = listed(law)
    weights, shift = relative_powers(probabilities, logs, 2.0)
    return affine(second_moment(matrices, weights), 0.5, shift / 2)


@check.public()
def mean_square_edge(minimum: Minimum | ArrayLike, method: SGD = SGD()) -> float:
    r"""Return the step size η* with: SGD is stable in mean square exactly for 0 < η < η*.

    Write TX = X − η(2C − ηD)X with 2CX = HX + XH and DX = (1 − s) HXH + s Σ p_i h_i X h_i. T is
    self-adjoint (for tr XY) and keeps the cone of positive semidefinite matrices, so its spectral
    radius is its largest eigenvalue (Krein and Rutman), 1 − η λ_min(2C − ηD). Hence stability is
    2C − ηD ≻ 0. As D ⪰ 0, that holds on an interval: η* = 2/λ_max(C⁻¹D), all on the normal space.

    With momentum it is where the growth in mean square first reaches 1, from the second moments
    that are stationary there: for the heavy ball a largest eigenvalue again, for Nesterov's
    momentum a root. For one normal direction with random curvature h the heavy ball has
    η* = 2(1 − β²)E h / ((1 + β)E h² − 2β(E h)²).

    Source: Mulayoff & Michaeli 2024 for uniform batches without replacement; our derivation for
    the others.

    Parameters
    ----------
    minimum : Minimum or array, shape (N, N)
        The minimum, or its kernel.
    method : SGD
        With independent steps: not reshuffled.

    Returns
    -------
    float
        η*, to about twelve digits; 0 if no sample that is drawn moves some normal direction.

    Raises
    ------
    NotImplementedError
        If the method has weight decay.
    ValueError
        If it reshuffles: the edge of reshuffled epochs is not known.

    Examples
    --------
    In one dimension E(1 − ηk)² < 1 for η < 2 E k / E k²:

    >>> round(mean_square_edge([[1.0, 2.0], [2.0, 4.0]]), 12)
    0.588235294118
    """
    covered_method(method, "mean_square_edge", "momentum")
    if method.momentum:
        return _momentum_edge(MomentumLaw(minimum, 1.0, method))
    law = SGDLaw(minimum, 1.0, method)
    require_independent_steps(law)
    if law.minimum.hessian_spectrum[0] == 0:
        return 0.0
    lottery = _Lottery.of(law)
    if lottery.share == 0:
        return 2 / float(lottery.curvatures.max())
    if law.dimension > MOST_ORDER_SGD:
        return 1 / perron_level(lottery.edge_maps()).lower
    space = _SymmetricMatrices(law.dimension)
    first, second = lottery.curvatures[space.rows], lottery.curvatures[space.columns]
    diagonal = (1 - lottery.share) * first * second / (first + second)
    return 1 / lottery.largest_eigenvalue(space, diagonal, 1 / np.sqrt(first + second))


def _momentum_mean_square(law: MomentumLaw) -> Exponent:
    """Return ½ log ρ with momentum: factors are affine in h, so that the lottery is the same."""
    require_independent_steps(law.plain)
    lottery, eta = _Lottery.of(law.plain), law.step_size
    single = np.swapaxes(lottery.gradients, 1, 2) @ lottery.gradients
    hessians = np.concatenate([np.diag(lottery.curvatures)[None], single])
    weights = np.append(1 - lottery.share, lottery.share * lottery.probabilities)
    used = weights > 0
    factors = law.factors(np.eye(law.plain.dimension) - eta * hessians[used])
    matrices, logs = rescaled(factors)
    weights, shift = relative_powers(weights[used], logs, 2.0)
    return affine(second_moment(matrices, weights), 0.5, shift / 2)


def _momentum_edge(law: MomentumLaw) -> float:
    """Return the step size at which the growth in mean square first reaches 1."""
    # There a second moment is stationary. In the eigenbasis of H the mean of a step acts on pairs
    # of directions a, b; the moment Z of the points that feel the gradient is its response to the
    # noise, Z_ab = w_ab η²s (Σ p_i h_i Z h_i − HZH)_ab. For the heavy ball η²/w is linear in η
    # up to a factor η: 1/η is an eigenvalue, and the largest is 1/η*.
    require_independent_steps(law.plain)
    spectrum = law.minimum.hessian_spectrum
    if spectrum[0] == 0:
        return 0.0
    highest = momentum_edge(float(spectrum[-1]), law.method)
    lottery, beta = _Lottery.of(law.plain), law.method.momentum
    if lottery.share == 0:
        return highest
    if not law.method.nesterov:
        return 1 / perron_level(lottery.heavy_ball_edge_maps(beta)).lower

    def excess(eta: float) -> float:
        return perron_level(lottery.nesterov_maps(eta, beta)).lower - 1

    # Where full batches are not stable, no others are. From the small steps, which are.
    steps = highest * (1 - 1e-12) * 2.0 ** -np.arange(FIRST_OCTAVE, -1, -1)
    above = next((k for k, eta in enumerate(steps) if excess(float(eta)) >= 0), None)
    if above is None:
        return highest
    if above == 0:
        return 0.0
    low, high = steps[above - 1 : above + 1]
    return float(brentq(excess, low, high, xtol=1e-14 * low, rtol=1e-13))


class _SymmetricMatrices:
    """Orthonormal coordinates (for tr XY) of the symmetric matrices of one order."""

    def __init__(self, order: int) -> None:
        self.order = order
        self.rows, self.columns = np.triu_indices(order)
        self.weights = np.where(self.rows == self.columns, 1.0, math.sqrt(2))
        self.indices = self.rows, self.columns
        self.size = self.rows.size
        self.identity = np.where(self.rows == self.columns, 1.0, 0.0)

    def pack(self, matrix: Array) -> Array:
        """Return the coordinates of a symmetric matrix."""
        return np.asarray(matrix[self.rows, self.columns] * self.weights)

    def unpack(self, coordinates: Array) -> Array:
        """Return the matrix with these coordinates."""
        matrix = np.empty((self.order, self.order))
        matrix[self.rows, self.columns] = matrix[self.columns, self.rows] = (
            coordinates / self.weights
        )
        return matrix


@dataclass(frozen=True)
class _Lottery:
    """SGD in mean square: gradient descent, or with probability `share` one sample at a time."""

    curvatures: Array  # eigenvalues of H, shape (r,)
    gradients: Array  # of the samples that are drawn, in the eigenbasis of H, shape (N, C, r)
    probabilities: Array
    share: float

    @classmethod
    def of(cls, law: SGDLaw) -> _Lottery:
        outputs, drawn = law.minimum.n_outputs, law.batches.probabilities > 0
        rows = law.gradients[np.repeat(drawn, outputs)]
        probabilities = law.batches.probabilities[drawn]
        weights = np.repeat(probabilities, outputs)
        curvatures, vectors = np.linalg.eigh((rows.T * weights) @ rows)
        gradients = (rows @ vectors).reshape(-1, outputs, law.dimension)
        return cls(np.maximum(curvatures, 0), gradients, probabilities, _share(law.batches))

    def maps(self, step_size: float) -> SampleMap:
        """Return the maps whose level is ρ."""
        scaled = step_size * self.curvatures
        both = np.multiply.outer(scaled, scaled)
        return SampleMap(
            math.sqrt(step_size) * self.gradients,
            self.share * self.probabilities,
            np.ones_like(both),
            1 - np.add.outer(scaled, scaled) + (1 - self.share) * both,
        )

    def edge_maps(self) -> SampleMap:
        """Return the maps whose level is 1/η*."""
        return SampleMap(
            self.gradients,
            self.share * self.probabilities,
            np.add.outer(self.curvatures, self.curvatures),
            (1 - self.share) * np.multiply.outer(self.curvatures, self.curvatures),
        )

    def heavy_ball_edge_maps(self, beta: float) -> SampleMap:
        """Return the maps whose level is 1/η* of the heavy ball."""
        total, product = (f.outer(self.curvatures, self.curvatures) for f in (np.add, np.multiply))
        noise = self.share * (1 - beta**2)
        squares = np.subtract.outer(self.curvatures, self.curvatures) ** 2
        return SampleMap(
            self.gradients,
            noise * self.probabilities,
            (1 - beta) ** 2 * (1 + beta) * total,
            ((1 - beta) ** 2 - noise) * product - beta * squares,
        )

    def nesterov_maps(self, step_size: float, beta: float) -> SampleMap:
        """Return the maps whose level is 1 at an edge of Nesterov's momentum."""
        x = step_size * self.curvatures
        total, product = np.add.outer(x, x), np.multiply.outer(x, x)
        lost, kept = total - product, 1 - x
        # 1 − ρ of the mean step, written so that nothing cancels where η is small.
        damped = (
            (1 - beta) ** 2 * (1 + beta) * total
            - (1 + beta**2 * (1 + 2 * beta)) * product
            + lost * (beta * (1 + beta) ** 2 * total - beta**2 * (1 + 2 * beta) * lost)
        ) / (1 - beta**2 * (1 - lost))
        # E[x_t x_{t−1}ᵀ] = q ∘ E[x_t x_tᵀ] where both are stationary.
        q = (1 + beta) * np.outer(kept, 1 - beta * kept) / (1 - beta**2 * (1 - lost))
        ahead = (1 + beta) ** 2 + beta**2 - beta * (1 + beta) * (q + q.T)
        return SampleMap(
            self.gradients,
            self.share * self.probabilities,
            damped / (step_size**2 * ahead),
            -self.share * np.multiply.outer(self.curvatures, self.curvatures),
        )

    def largest_eigenvalue(self, space: _SymmetricMatrices, diagonal: Array, root: Array) -> float:
        """Return that of `diagonal` + s `root` (Σ p_i h_i X h_i) `root`, all in coordinates."""
        # h X h = Σ_ab (J X Jᵀ)_ab g_a g_bᵀ: one symmetric matrix for every pair of rows a ≤ b.
        matrix, last = np.diag(diagonal), space.size - 1
        for a, b in combinations_with_replacement(range(self.gradients.shape[1]), 2):
            one, other = self.gradients[:, a], self.gradients[:, b]
            products = one[:, space.rows] * other[:, space.columns]
            if a < b:
                products = products + other[:, space.rows] * one[:, space.columns]
                products /= math.sqrt(2)
            products *= space.weights * root
            matrix += self.share * (products.T * self.probabilities) @ products
        return float(eigh(matrix, eigvals_only=True, subset_by_index=[last, last])[0])


def _sgd_mean_square(law: SGDLaw) -> Exponent:
    lottery = _Lottery.of(law)
    norms = law.step_size * law.curvatures[law.batches.probabilities > 0]
    share, weights = lottery.share, lottery.probabilities
    if law.dimension == 1:
        totals = norms.sum(axis=1)
        parts = np.append(1 - share, share * weights), np.append(weights @ totals, totals)
        return affine(log_moment(one_minus(*parts), 2.0), 0.5)
    scaled = law.step_size * lottery.curvatures
    order = law.dimension
    rounding = 8 * order * EPSILON * (1 + float(max(scaled.max(), norms.max()))) ** 2
    if order > MOST_ORDER_SGD and share > 0:
        found = perron_level(lottery.maps(law.step_size))
        if found.upper <= 0:
            return exact(-math.inf, 0.0, "mean square")
        return _half_log(found.lower, found.upper - found.lower + rounding, found.products)
    space = _SymmetricMatrices(order)
    first, second = scaled[space.rows], scaled[space.columns]
    diagonal = (1 - share) * (1 - first) * (1 - second) + share * (1 - first - second)
    zeros = np.zeros(space.size)

    def excess(level: float) -> float:
        """Return something increasing that is 0 at ρ."""
        above = level - diagonal
        if above.min() <= 0:
            return -1.0
        root = law.step_size / np.sqrt(above)
        return 1 / lottery.largest_eigenvalue(space, zeros, root) - 1

    lowest, least = float(diagonal.max()), float(diagonal.min())
    accuracy = space.size * EPSILON
    norm = (1 - share) * (1 - scaled) ** 2 + share * max(1.0, float(((1 - norms) ** 2).max()))
    radius = lowest
    if share > 0:
        close = accuracy * (lowest - least) + 1e-300
        radius = float(brentq(excess, lowest, 2 * norm.max() + 1, xtol=close, rtol=4 * EPSILON))
    if radius <= 0:
        return exact(-math.inf, 0.0, "mean square")
    return _half_log(radius, 2 * accuracy * (radius - least) + rounding, space.size)


def _half_log(x: float, error: float, evaluations: int) -> Exponent:
    """Return ½ log x for a number known up to an error."""
    return Exponent(
        value=math.log(x) / 2,
        lower=math.log(x - error) / 2 if error < x else -math.inf,
        upper=math.log(x + error) / 2,
        kind="deterministic",
        method="mean square",
        evaluations=evaluations,
    )


def _share(batches: Batches) -> float:
    size, count = batches.batch_size, batches.n_samples
    if batches.full_batch:
        return 0.0
    return 1 / size if batches.independent else (count - size) / (size * (count - 1))


def second_moment(matrices: Array, weights: Array) -> Exponent:
    """Return log ρ(T) of TX = Σ w_m A_m X A_mᵀ, for any weights w_m ≥ 0."""
    if _vanish(matrices):
        return exact(-math.inf, 0.0, "mean square")
    moment = _SecondMoment(matrices, weights)
    with np.errstate(divide="ignore"):
        lower, value, upper = (float(x) for x in np.log(moment.spectral_radius()))
    return Exponent(
        value=value,
        lower=lower,
        upper=upper,
        kind="deterministic",
        method="mean square",
        status="lost to underflow: the factors differ too much in size; see the upper end"
        if math.isinf(value)
        else "converged",
        evaluations=moment.space.size,
    )


def _vanish(matrices: Array) -> bool:
    """Whether all long products are 0. Then those of d factors are."""
    second = np.eye(matrices.shape[1])  # Σ PPᵀ over all products, rescaled; no weight can hide one
    for _ in range(len(second)):
        second = (matrices @ second @ np.swapaxes(matrices, 1, 2)).sum(axis=0)
        if not second.any():
            return True
        second /= np.abs(second).max()
    return False


class _SecondMoment:
    """The map TX = Σ w_m A_m X A_mᵀ in coordinates."""

    def __init__(self, matrices: Array, weights: Array) -> None:
        self.space = space = _SymmetricMatrices(matrices.shape[1])
        self.bulk = float(weights @ (matrices**2).sum(axis=(1, 2)))  # at least the norm of T
        self.operator: Array | LinearOperator
        if space.order > MOST_ORDER:

            def apply(x: Array) -> Array:
                moved = matrices @ space.unpack(x.ravel()) @ np.swapaxes(matrices, 1, 2)
                return space.pack(np.tensordot(weights, moved, 1))

            self.operator = LinearOperator((space.size, space.size), apply, dtype=np.float64)
            return
        flat = matrices.reshape(len(matrices), -1)
        shape = (space.order,) * 4
        tensor = ((flat.T * weights) @ flat).reshape(shape)  # Σ w A_ik A_jl at i, k, j, l
        i, j = space.rows[:, None], space.columns[:, None]
        once, swapped = (tensor[i, k, j, m] for k, m in (space.indices, space.indices[::-1]))
        self.operator = np.outer(space.weights, space.weights / 2) * (once + swapped)

    def spectral_radius(self) -> tuple[float, float, float]:
        """Return a lower bound, an estimate and an upper bound."""
        written_out = isinstance(self.operator, np.ndarray)
        if written_out:
            values, vectors = np.linalg.eig(self.operator)
        else:
            values, vectors = eigs(
                self.operator, k=1, which="LR", v0=self.space.identity, tol=TIGHT
            )
        index = int(np.abs(values).argmax())
        radius, vector = float(abs(values[index])), np.real(vectors[:, index])
        if radius == 0:
            return 0.0, 0.0, self.bulk
        margins = 1 + (MARGINS if written_out else COARSE_MARGINS)
        above = (s for s in radius * margins if self._side(s, radius, vector) < 0)
        below = (s for s in radius / margins if self._side(s, radius, vector) > 0)
        return float(next(below, 0.0)), radius, float(next(above, max(radius, self.bulk)))

    def _side(self, level: float, radius: float, vector: Array) -> int:
        """Return −1 if ρ < level is certain, 1 if ρ ≥ level is, and 0 otherwise."""
        try:
            solution = self._resolvent(level, radius, vector)
        except np.linalg.LinAlgError:  # the level is an eigenvalue
            return 0
        residual = self.space.unpack(level * solution - self.operator @ solution)
        matrix = self.space.unpack(solution)
        rounding = 8 * self.space.order * EPSILON * float(np.linalg.norm(matrix))
        if not np.linalg.eigvalsh(residual)[0] > rounding * (level + self.bulk):
            return 0
        lowest = float(np.linalg.eigvalsh(matrix)[0])
        return 0 if abs(lowest) <= rounding else -int(math.copysign(1, lowest))

    def _resolvent(self, level: float, radius: float, vector: Array) -> Array:
        """Return X with level X − TX = I, roughly (what is left over is looked at later)."""
        identity, operator = self.space.identity, self.operator
        if isinstance(operator, np.ndarray):
            return np.asarray(np.linalg.solve(level * np.eye(identity.size) - operator, identity))
        system = LinearOperator(
            operator.shape, lambda x: level * x - operator @ x, dtype=np.float64
        )
        guess = vector * (vector @ identity) / (level - radius)
        tolerance = 0.5 / math.sqrt(self.space.order)
        return np.asarray(
            gmres(system, identity, x0=guess, rtol=tolerance, restart=30, maxiter=3)[0]
        )
