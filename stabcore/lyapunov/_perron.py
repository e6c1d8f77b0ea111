r"""The largest eigenvalue of SGD in mean square by a positive vector: a C × C matrix per sample.

With the rows J_i of sample i in the eigenbasis of H, weights c_i > 0 and matrices S, Δ that act
entry by entry, TX = λ SX for TX = ΔX + Σ c_i J_iᵀ(J_i X J_iᵀ)J_i says X = (λS − Δ)⁻¹ Σ J_iᵀ W_i J_i
with

    W = F_λ W,    (F_λ W)_i = c_i J_i [(λS − Δ)⁻¹ ∘ Σ_k J_kᵀ W_k J_k] J_iᵀ,

a map of NC² numbers instead of r(r + 1)/2 that costs two products of matrices. For SGD the matrix
of the 1/(λS_ab − Δ_ab) is positive semidefinite above all poles: it is C/(C' − xy) or
1/(x + y + C') for some numbers x, y of the rows and columns. So F_λ keeps positive semidefinite W,
it is symmetric for (W, W') = Σ tr(W_i W'_i) / c_i, and its radius falls with λ. The eigenvalue is
the level where it is 1:

* from below, by Rayleigh: the λ with (W, F_λ W) = (W, W), for any W; finding it takes no product;
* from above, by Collatz and Wielandt: ρ(F_λ) ≤ 1 + ε if F_λ W ≤ (1 + ε) W for some positive
  definite W; and since ρ(F_λ) is the largest (X, TX − ΔX)/(X, (λS − Δ)X), and all entries of
  (λS − Δ)/(λ'S − Δ) are at most (λ − m)/(λ' − m) for λ' > λ and m = min Δ/S, the eigenvalue is at
  most λ + ε(λ − m).

With one output W is a vector of N numbers. It is improved by a few steps of Lanczos at a time.
(Our derivation.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from stabcore._constants import EPSILON
from stabcore._validation import Array

KRYLOV = 8  # products before the level is adjusted
CYCLES = 60
POLISH = 30  # steps of the power method, which make small entries as good as large ones
SMALLEST = 1e-150  # entry of a vector: the upper bound needs positive ones
CLOSE = 1e-12  # relative distance of the two bounds


@dataclass(frozen=True)
class PerronLevel:
    """Bounds of the largest eigenvalue; the lower one is by far the better estimate."""

    lower: float
    upper: float
    products: int


@dataclass(frozen=True)
class SampleMap:
    """The maps F_λ: gradients (N, C, r), weights (N,), S and Δ (r, r)."""

    gradients: Array
    weights: Array
    scale: Array
    offset: Array

    @property
    def poles(self) -> Array:
        """The levels Δ/S above which F_λ is looked at."""
        return np.asarray(self.offset / self.scale)

    def matrix(self, w: Array) -> Array:
        """Return Σ J_iᵀ W_i J_i for w of shape (N, C, C)."""
        order = self.gradients.shape[-1]
        weighted = (w @ self.gradients).reshape(-1, order)
        return np.asarray(weighted.T @ self.gradients.reshape(-1, order))

    def forms(self, level: float, matrix: Array) -> Array:
        """Return J_i [(λS − Δ)⁻¹ ∘ matrix] J_iᵀ, shape (N, C, C)."""
        divided = matrix / (level * self.scale - self.offset)
        order = self.gradients.shape[-1]
        moved = (self.gradients.reshape(-1, order) @ divided).reshape(self.gradients.shape)
        return np.asarray(np.einsum("nar,nbr->nab", moved, self.gradients, optimize=True))

    def rayleigh_level(self, matrix: Array) -> float:
        """Return the λ with (w, F_λ w) = (w, w) = 1; if it is not above all poles, one just so."""
        squares = matrix**2
        lowest = float(self.poles.max())

        def excess(level: float) -> float:
            """Return something increasing, and nearly straight, that is 0 at the level."""
            above = level * self.scale - self.offset
            if above.min() <= 0:
                return -1.0
            return 1 / float((squares / above).sum()) - 1

        reach = float(np.ptp(self.poles)) + 4 * EPSILON * abs(lowest) + 1e-300
        while excess(lowest + reach) < 0:
            reach *= 2
        close = 4 * EPSILON * (reach + abs(lowest)) + 1e-300
        level = float(brentq(excess, lowest, lowest + reach, xtol=close, rtol=4 * EPSILON))
        return max(level, lowest + close)


def perron_level(maps: SampleMap) -> PerronLevel:
    """Return bounds of the λ at which F_λ has the radius 1."""
    lengths = np.einsum("ncr,ncr->n", maps.gradients, maps.gradients)
    moved = (lengths > 0) & (maps.weights > 0)  # the others drop out of every sum
    rows = _orthogonal_rows(maps.gradients[moved])
    maps = SampleMap(rows, maps.weights[moved], maps.scale, maps.offset)
    root, least = np.sqrt(maps.weights)[:, None, None], float(maps.poles.min())
    v = root * (rows @ np.swapaxes(rows, 1, 2))
    level, excess, products = -np.inf, np.inf, 0
    for _ in range(CYCLES):
        v = v / np.linalg.norm(v)
        matrix = maps.matrix(root * v)
        previous, level = level, maps.rayleigh_level(matrix)
        image = root * maps.forms(level, matrix)
        before, excess = excess, _excess(image, v)
        products += KRYLOV
        settled = level - previous <= 4 * EPSILON * (level - least)
        if excess <= CLOSE or (settled and excess > before / 2):
            break
        v = _ritz_vector(maps, level, root, v, image)
    for _ in range(POLISH):
        if excess <= CLOSE:
            break
        v = image / np.linalg.norm(image)
        matrix = maps.matrix(root * v)
        image = root * maps.forms(level, matrix)
        excess = _excess(image, v)
        products += 1
    return PerronLevel(level, _upper_level(maps, level, root, v, matrix, excess), products)


def _upper_level(
    maps: SampleMap, level: float, root: Array, v: Array, matrix: Array, excess: float
) -> float:
    """Return a level at which F has at most the radius 1."""
    farthest = excess * (level - float(maps.poles.min()))
    # Close to a pole F falls much faster than the general bound allows: try closer levels.
    above = level * maps.scale - maps.offset
    terms = matrix**2 / above
    step = 2 * excess * float(terms.sum() / (terms * maps.scale / above).sum())
    while step < farthest:
        if _excess(root * maps.forms(level + step, matrix), v) == 0:
            return level + step
        step *= 4
    return level + farthest


def _orthogonal_rows(rows: Array) -> Array:
    """Return rows R_i with R_iᵀR_i = J_iᵀJ_i that are orthogonal; dependent ones become 0."""
    if rows.shape[1] == 1:
        return rows
    _, singular, right = np.linalg.svd(rows, full_matrices=False)
    singular = np.where(singular > rows.shape[1] * EPSILON * singular[:, :1], singular, 0.0)
    return np.asarray(singular[..., None] * right)


def _excess(image: Array, v: Array) -> float:
    """Return the least ε ≥ 0 with image ≤ (1 + ε) v; infinite if v is not positive definite."""
    try:
        factors = np.linalg.cholesky(v + SMALLEST * np.eye(v.shape[-1]))
    except np.linalg.LinAlgError:
        return np.inf
    half = np.linalg.solve(factors, image)
    whole = np.linalg.solve(factors, np.swapaxes(half, 1, 2))
    largest = float(np.linalg.eigvalsh(whole).max()) if np.isfinite(whole).all() else np.inf
    return max(0.0, largest - 1)


def _ritz_vector(maps: SampleMap, level: float, root: Array, v: Array, image: Array) -> Array:
    """Return |the best vector| of the span of v, Fv, ..., F^{m−1} v; `image` is Fv."""
    basis, images = [v], [image]
    for _ in range(KRYLOV - 1):
        following = images[-1]
        for _ in range(2):  # orthogonal to rounding takes two passes
            for earlier in basis:
                following = following - float((earlier * following).sum()) * earlier
        size = float(np.linalg.norm(following))
        if size <= EPSILON * float(np.linalg.norm(images[-1])):
            break  # the span is invariant
        basis.append(following / size)
        images.append(root * maps.forms(level, maps.matrix(root * basis[-1])))
    count = len(basis)
    projected = np.reshape(basis, (count, -1)) @ np.reshape(images, (count, -1)).T
    _, vectors = np.linalg.eigh((projected + projected.T) / 2)
    return _modulus(np.tensordot(vectors[:, -1], np.array(basis), 1))


def _modulus(matrices: Array) -> Array:
    """Return |W_i|, from below a tiny multiple of the identity."""
    values, vectors = np.linalg.eigh(matrices)
    values = np.maximum(np.abs(values), SMALLEST)
    return np.asarray((vectors * values[:, None, :]) @ np.swapaxes(vectors, 1, 2))
