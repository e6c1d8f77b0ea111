r"""Losses, as far as a minimum knows them: the curvature of each sample's loss in its outputs.

At a minimum of every sample, ∇ℓ_i(F_i) = 0, all that counts of the loss ℓ_i is H_i = ∇²ℓ_i, C × C:
SGD moves as for the half square, once J_i is replaced by H_i^½ J_i. The names are those of the
losses of frameworks; with their factors `step_size` is the learning rate that was typed there.

* half_square, ½ Σ_c φ_c²: H = I;
* mean_square, (1/C) Σ_c φ_c², as PyTorch's ``MSELoss()``: H = (2/C) I;
* sum_square, Σ_c φ_c²: H = 2I;
* cross_entropy with smoothed labels q: H = diag(q) − qqᵀ, of rank C − 1, where the softmax is q.

(Our derivation.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from stabcore import _validation as check
from stabcore._constants import EPSILON
from stabcore._validation import Array

LOSSES = ("half_square", "mean_square", "sum_square", "cross_entropy")

SMALLEST_LABEL = 1e-6  # below, the curvature of cross-entropy is practically 0 in a direction

INSIGNIFICANT = 1e-12  # of the largest eigenvalue of a curvature


def curvature_roots(
    loss: str | ArrayLike, labels: ArrayLike | None, shape: tuple[int, int]
) -> Array:
    """Return R_i with R_iᵀR_i = H_i for every sample, shape (N, m, C), m ≤ C.

    Parameters
    ----------
    loss : str or array, shape (N, C, C)
        One of `LOSSES`, or the H_i themselves.
    labels : array, shape (N, C), optional
        Of cross-entropy.
    shape : tuple of int
        (N, C).

    Returns
    -------
    array, shape (N, m, C)
    """
    samples, outputs = shape
    if not isinstance(loss, str):
        if labels is not None:
            raise ValueError("labels belong to loss='cross_entropy'; leave them out.")
        return _roots(_curvatures(loss, shape))
    name = check.choice("loss", loss, LOSSES)
    if name == "cross_entropy":
        q = _smoothed_labels(labels, shape)
        return _roots(np.eye(outputs) * q[:, None, :] - q[:, :, None] * q[:, None, :])
    if labels is not None:
        raise ValueError(f"labels belong to loss='cross_entropy', not to {name!r}; leave them out.")
    factor = {"half_square": 1.0, "mean_square": 2.0 / outputs, "sum_square": 2.0}[name]
    return np.broadcast_to(np.sqrt(factor) * np.eye(outputs), (samples, outputs, outputs))


def _curvatures(loss: ArrayLike, shape: tuple[int, int]) -> Array:
    samples, outputs = shape
    curvatures = check.finite_array("loss", loss, ndim=3)
    if curvatures.shape != (samples, outputs, outputs):
        raise ValueError(
            f"loss must be one of {', '.join(map(repr, LOSSES))} or have shape "
            f"{(samples, outputs, outputs)}, one curvature a sample, got {curvatures.shape}."
        )
    largest = np.abs(curvatures).max(axis=(1, 2), keepdims=True)
    if (np.abs(curvatures - np.swapaxes(curvatures, 1, 2)) > 1e-10 * largest).any():
        raise ValueError(
            "loss must hold symmetric matrices; pass (H + H.mT) / 2 if it is rounding."
        )
    return (curvatures + np.swapaxes(curvatures, 1, 2)) / 2


def _smoothed_labels(labels: ArrayLike | None, shape: tuple[int, int]) -> Array:
    if labels is None:
        raise ValueError(
            "loss='cross_entropy' needs labels=, the smoothed labels of shape (samples, classes)."
        )
    q = check.finite_array("labels", labels, ndim=2)
    if q.shape != shape or shape[1] < 2:
        raise ValueError(
            f"labels must have shape (samples, classes) = {shape} with two classes or more, got "
            f"{q.shape}; take the logits of all classes as outputs."
        )
    if (np.abs(q.sum(axis=1) - 1) > 1e-6).any() or (q < 0).any():
        raise ValueError("labels must be probabilities that sum to 1 for every sample.")
    if q.min() < SMALLEST_LABEL:
        raise ValueError(
            f"labels has an entry of {q.min():.3g}: with hard labels cross-entropy has no finite "
            "minimum, and the theory is silent; train with smoothed labels, such as "
            "0.9 * onehot + 0.1 / classes."
        )
    return np.asarray(q / q.sum(axis=1, keepdims=True))


def _roots(curvatures: Array) -> Array:
    """Return roots with as many rows as the largest rank, so that none is 0 for all samples."""
    eigenvalues, vectors = np.linalg.eigh(curvatures)
    largest = np.abs(eigenvalues).max()
    if eigenvalues.min() < -1e-10 * largest:
        raise ValueError(
            f"loss must be convex in the outputs, but a curvature has the eigenvalue "
            f"{eigenvalues.min():.3g}; at a minimum of every sample there is none below 0."
        )
    rank = int((eigenvalues > INSIGNIFICANT * largest).sum(axis=1).max())
    if rank == 0:
        raise ValueError("loss has no curvature: all its matrices are 0.")
    kept = np.sqrt(np.maximum(eigenvalues[:, -rank:], 0.0))
    return np.asarray(kept[:, :, None] * np.swapaxes(vectors[:, :, -rank:], 1, 2))


def as_double(name: str, value: Any) -> Array:
    """Return an array of NumPy, JAX or PyTorch; refuse what was computed in single precision.

    Parameters
    ----------
    name : str
    value : array

    Returns
    -------
    array
    """
    tensor = value.detach().cpu() if hasattr(value, "detach") else value
    kind = str(getattr(tensor, "dtype", "")).rpartition(".")[2]
    if kind in {"float32", "float16", "bfloat16", "half"}:
        raise ValueError(
            f"{name} is {kind}: its small eigenvalues are rounding, and they decide; compute it in "
            "double precision, with jax.enable_x64() or model.double(), not by a cast afterwards."
        )
    return check.finite_array(name, np.asarray(tensor))


def preconditioned(rows: Array, preconditioner: ArrayLike | None) -> Array:
    """Return J P^-½ for a frozen preconditioner, shape (D,) or (D, D).

    Parameters
    ----------
    rows : array, shape (M, D)
    preconditioner : array, optional

    Returns
    -------
    array, shape (M, D)
    """
    if preconditioner is None:
        return rows
    size = rows.shape[1]
    matrix = check.finite_array("preconditioner", preconditioner)
    if matrix.shape == (size,):
        if matrix.min() <= 0:
            raise ValueError(f"preconditioner must be positive, got a smallest {matrix.min():.3g}.")
        return np.asarray(rows / np.sqrt(matrix))
    if matrix.shape != (size, size):
        raise ValueError(
            f"preconditioner must have shape ({size},) or ({size}, {size}), got {matrix.shape}."
        )
    if np.abs(matrix - matrix.T).max() > 1e-10 * np.abs(matrix).max():
        raise ValueError("preconditioner must be symmetric; pass (P + P.T) / 2 if it is rounding.")
    eigenvalues, vectors = np.linalg.eigh(matrix)
    if eigenvalues[0] <= size * EPSILON * eigenvalues[-1]:
        raise ValueError(
            f"preconditioner must be positive definite, got the eigenvalue {eigenvalues[0]:.3g}."
        )
    return np.asarray(rows @ (vectors / np.sqrt(eigenvalues)) @ vectors.T)
