"""The curvature along training: of the whole loss, and of batches along their own gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse.linalg import LinearOperator, eigsh

from stabcore import _validation as check
from stabcore._jax import double_precision, jax, jnp
from stabcore._validation import Array
from stabcore.networks._flat import Structure, flat
from stabcore.networks._losses import PER_SAMPLE
from stabcore.problems.losses import LOSSES
from stabcore.sampling import SGD, as_method

AT_ONCE = 16  # batches whose curvature is computed together

DENSE = 3  # parameters up to which the matrix is written out: too few for Lanczos


@check.public()
def sharpness(
    apply: Callable[[Any, Any], Any],
    params: Any,
    x: ArrayLike,
    y: ArrayLike,
    *,
    loss: str = "half_square",
    preconditioner: Any = None,
    rng: int | np.random.Generator | None = 0,
) -> float:
    r"""Return the largest eigenvalue of the Hessian H of the mean loss, at any parameters.

    Lanczos' method (SciPy's ``eigsh``) with Hessian-vector products in double precision: no matrix
    is written out. At a minimum it is `Minimum.sharpness`; with other parameters the residuals and
    the curvature of the network count too.

    Source: standard.

    Parameters
    ----------
    apply : callable
        ``apply(params, x)``, written with JAX.
    params : pytree
    x, y : arrays, shapes (N, ...), (N,) or (N, C)
        For the sharpness of a batch pass its samples; for cross-entropy y are the labels.
    loss : str
        As in `Minimum.from_jacobian`.
    preconditioner : pytree, optional
        P > 0, of the structure of `params`, such as `Adam.preconditioner`: the eigenvalue is then
        that of P⁻¹H.
    rng : int, numpy.random.Generator or None
        Of the vector that Lanczos' method starts from.

    Returns
    -------
    float

    Examples
    --------
    F(θ, x) = θx on x = 1, 2 has the Hessian (1 + 4)/2:

    >>> round(sharpness(lambda w, x: w[0] * x, [np.zeros(())], [1.0, 2.0], [0.0, 0.0]), 9)
    2.5
    """
    check.choice("loss", loss, LOSSES)
    targets, inputs = check.finite_array("y", np.asarray(y)), np.asarray(x)
    if len(inputs) != len(targets):
        raise ValueError(f"x has {len(inputs)} samples but y has {len(targets)}; pass one each.")
    with double_precision():
        start, structure, fixed = flat(params)
        batch = jnp.asarray(inputs, jnp.float64 if inputs.dtype.kind == "f" else None)

        network = apply, structure, loss, fixed, batch, jnp.asarray(targets)
        root = np.ones(start.size) if preconditioner is None else _root(preconditioner, start.size)

        def product(vector: Array) -> Array:
            # P^(−1/2) H P^(−1/2), which has the eigenvalues of P⁻¹H.
            return np.asarray(_product(*network, start, vector.ravel() / root)) / root

        if start.size <= DENSE:
            columns = [product(e) for e in np.eye(start.size)]
            return float(np.linalg.eigvalsh(np.array(columns))[-1])
        operator = LinearOperator((start.size, start.size), product, dtype=np.float64)
        first = check.generator(rng).normal(size=start.size)
        return float(eigsh(operator, 1, which="LA", v0=first, return_eigenvectors=False)[0])


def _root(preconditioner: Any, size: int) -> Array:
    """Return the square roots of the entries of P."""
    entries, _, _ = flat(preconditioner)
    if entries.size != size or (entries <= 0).any():
        raise ValueError(
            f"preconditioner must have a positive entry for each of the {size} parameters, got "
            f"{entries.size} entries, the smallest {entries.min():.3g}; pass what divides the "
            "gradient, such as Adam.preconditioner(state, run)."
        )
    return np.sqrt(entries)


@check.public()
def batch_sharpness(
    apply: Callable[[Any, Any], Any],
    params: Any,
    x: ArrayLike,
    y: ArrayLike,
    method: SGD = SGD(),
    *,
    loss: str = "half_square",
    draws: int = 1000,
    rng: int | np.random.Generator | None = 0,
) -> float:
    r"""Return E[gᵀHg]/E[|g|²], the curvature of a batch's loss along its own gradient g.

    H is the Hessian of the same batch. All batches are summed over if there are at most `draws`;
    otherwise as many are drawn, with their probabilities, from the listed law of the method.

    Source: Andreyev & Beneventano (arXiv 2412.20553), who observe that SGD keeps it near 2/η.

    Parameters
    ----------
    apply, params, x, y, loss
        As in `sharpness`.
    method : SGD
        How the batches are drawn.
    draws : int
        Batches, at least 1.
    rng : int, numpy.random.Generator or None
        Of the batches, where they are drawn.

    Returns
    -------
    float
        NaN where the gradients of all batches are 0.

    Examples
    --------
    F(θ, x) = θx on x = 1, 2 with residuals −1, −1: curvatures 1 and 4, gradients −1 and −2:

    >>> apply, params = lambda w, x: w[0] * x, [np.zeros(())]
    >>> batch_sharpness(apply, params, [1.0, 2.0], [1.0, 1.0])
    3.4
    """
    check.choice("loss", loss, LOSSES)
    targets, inputs = check.finite_array("y", np.asarray(y)), np.asarray(x)
    if len(inputs) != len(targets):
        raise ValueError(f"x has {len(inputs)} samples but y has {len(targets)}; pass one each.")
    law, most = as_method(method).batches(len(targets)), check.integer("draws", draws)
    if law.count <= most:
        batches, weights = law.listed()
    else:
        batches, weights = law.draw(most, check.generator(rng)), np.full(most, 1 / most)
    with double_precision():
        start, structure, fixed = flat(params)
        data = jnp.asarray(inputs, jnp.float64 if inputs.dtype.kind == "f" else None)
        network = apply, structure, loss, fixed
        curved, squared = _along_gradients(
            *network, data, jnp.asarray(targets), jnp.asarray(law.scales), start, batches
        )
    total = float(weights @ np.asarray(squared))
    return float(weights @ np.asarray(curved)) / total if total > 0 else math.nan


@partial(jax.jit, static_argnums=(0, 1, 2))
def _product(
    apply: Callable[[Any, Any], Any],
    structure: Structure,
    loss: str,
    fixed: tuple[Any, ...],
    inputs: Any,
    targets: Any,
    theta: Any,
    direction: Any,
) -> Any:
    """Return the Hessian of the mean loss times a direction."""

    def mean_loss(point: Any) -> Any:
        return PER_SAMPLE[loss](apply(structure.rebuild(point, fixed), inputs), targets).mean()

    return jax.jvp(jax.grad(mean_loss), (theta,), (direction,))[1]


@partial(jax.jit, static_argnums=(0, 1, 2))
def _along_gradients(
    apply: Callable[[Any, Any], Any],
    structure: Structure,
    loss: str,
    fixed: tuple[Any, ...],
    inputs: Any,
    targets: Any,
    scales: Any,
    theta: Any,
    batches: Any,
) -> tuple[Any, Any]:
    """Return gᵀHg and |g|² of every batch."""

    def one(batch: Any) -> tuple[Any, Any]:
        def mean_loss(point: Any) -> Any:
            outputs = apply(structure.rebuild(point, fixed), inputs[batch])
            return (scales[batch] * PER_SAMPLE[loss](outputs, targets[batch])).mean()

        gradient = jax.grad(mean_loss)(theta)
        product = jax.jvp(jax.grad(mean_loss), (theta,), (gradient,))[1]
        return gradient @ product, gradient @ gradient

    found: tuple[Any, Any] = jax.lax.map(one, batches, batch_size=AT_ONCE)
    return found
