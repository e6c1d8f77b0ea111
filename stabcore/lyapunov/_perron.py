r"""The largest eigenvalue of SGD in mean square by a positive vector with one entry per sample.

With gradients g_i in the eigenbasis of H, h_i = g_i g_iᵀ, weights c_i > 0 and matrices S, Δ that
act entry by entry, TX = λ SX for TX = ΔX + Σ c_i (h_i, X) h_i says X = Σ w_i (λS − Δ)⁻¹ h_i with

    w = F_λ w,    (F_λ w)_i = c_i g_iᵀ [(λS − Δ)⁻¹ ∘ Gᵀ diag(w) G] g_i,

a map of N numbers instead of r(r + 1)/2 that costs two products of matrices. For SGD the matrix of
the 1/(λS_ab − Δ_ab) is positive semidefinite above all poles: it is C/(C' − xy) or 1/(x + y + C')
for some numbers x, y of the rows and columns. So F_λ has no negative entry, it is symmetric for
(w, w') = Σ w_i w'_i / c_i, and its radius falls with λ. The eigenvalue is the level where it is 1:

* from below, by Rayleigh: the λ with (w, F_λ w) = (w, w), for any w; finding it takes no product;
* from above, by Collatz and Wielandt: ρ(F_λ) ≤ 1 + ε = max_i (F_λ w)_i / w_i for w > 0, and since
  all entries of (λS − Δ)/(λ'S − Δ) are at most (λ − m)/(λ' − m) for λ' > λ and m = min Δ/S, the
  eigenvalue is at most λ + ε(λ − m).

The vector is improved by a few steps of Lanczos at a time. (Our derivation.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from stabcore._validation import Array

EPS = float(np.finfo(float).eps)
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
    """The maps F_λ: gradients (N, r), weights (N,), S and Δ (r, r)."""

    gradients: Array
    weights: Array
    scale: Array
    offset: Array

    @property
    def poles(self) -> Array:
        """The levels Δ/S above which F_λ is looked at."""
        return np.asarray(self.offset / self.scale)

    def matrix(self, w: Array) -> Array:
        """Return Σ w_i h_i."""
        return np.asarray((self.gradients.T * w) @ self.gradients)

    def forms(self, level: float, matrix: Array) -> Array:
        """Return g_iᵀ [(λS − Δ)⁻¹ ∘ matrix] g_i."""
        divided = matrix / (level * self.scale - self.offset)
        return np.asarray(np.einsum("nr,nr->n", self.gradients @ divided, self.gradients))

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

        reach = float(np.ptp(self.poles)) + 4 * EPS * abs(lowest) + 1e-300
        while excess(lowest + reach) < 0:
            reach *= 2
        close = 4 * EPS * (reach + abs(lowest)) + 1e-300
        level = float(brentq(excess, lowest, lowest + reach, xtol=close, rtol=4 * EPS))
        return max(level, lowest + close)


def perron_level(maps: SampleMap) -> PerronLevel:
    """Return bounds of the λ at which F_λ has the radius 1."""
    lengths = np.einsum("nr,nr->n", maps.gradients, maps.gradients)
    moved = (lengths > 0) & (maps.weights > 0)  # the others drop out of every sum
    maps = SampleMap(maps.gradients[moved], maps.weights[moved], maps.scale, maps.offset)
    root, least = np.sqrt(maps.weights), float(maps.poles.min())
    v = root * lengths[moved]
    level, excess, products = -np.inf, np.inf, 0
    for _ in range(CYCLES):
        v = v / np.linalg.norm(v)
        matrix = maps.matrix(root * v)
        previous, level = level, maps.rayleigh_level(matrix)
        image = root * maps.forms(level, matrix)
        before, excess = excess, _excess(image, v)
        products += KRYLOV
        settled = level - previous <= 4 * EPS * (level - least)
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


def _excess(image: Array, v: Array) -> float:
    """Return max_i (F v)_i / v_i − 1 for v ≥ 0; infinite if an entry is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = image / v
    return max(0.0, float(ratios.max()) - 1) if np.isfinite(ratios).all() else np.inf


def _ritz_vector(maps: SampleMap, level: float, root: Array, v: Array, image: Array) -> Array:
    """Return |the best vector| of the span of v, Fv, ..., F^{m−1} v; `image` is Fv."""
    basis, images = [v], [image]
    for _ in range(KRYLOV - 1):
        following = images[-1]
        for _ in range(2):  # orthogonal to rounding takes two passes
            span = np.array(basis)
            following = following - (span @ following) @ span
        size = float(np.linalg.norm(following))
        if size <= EPS * float(np.linalg.norm(images[-1])):
            break  # the span is invariant
        basis.append(following / size)
        images.append(root * maps.forms(level, maps.matrix(root * basis[-1])))
    projected = np.array(basis) @ np.array(images).T
    _, vectors = np.linalg.eigh((projected + projected.T) / 2)
    return np.asarray(np.maximum(np.abs(vectors[:, -1] @ np.array(basis)), SMALLEST))
