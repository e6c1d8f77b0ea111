r"""From a large trained network to the minimum next to it, without its Jacobian and its kernel.

As in `interpolation`, by Levenberg and Marquardt's method. Its linear equations are solved by LSQR,
which only multiplies by J and Jᵀ; what it returns lies in the row space, however few products it
may take.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse.linalg import LinearOperator, lsqr

from stabcore import _validation as check
from stabcore._constants import EPSILON
from stabcore._jax import double_precision, jax, jnp
from stabcore._validation import Array
from stabcore.networks._engines import Compiled
from stabcore.networks._flat import Structure
from stabcore.networks.interpolation import Apply, _NetworkProblem
from stabcore.networks.matrix_free import JacobianProducts, MatrixFreeMinimum
from stabcore.problems.losses import LOSSES, curvature_roots

LINEAR_TOLERANCE = 1e-2  # of the linear equations of one step; the next step makes up for it

MOST_DAMPING = 1e12


@check.public()
def without_kernel(
    apply: Apply,
    params: Any,
    x: ArrayLike,
    y: ArrayLike,
    *,
    loss: str = "half_square",
    tolerance: float = 1e-9,
    max_iterations: int = 100,
    most_products: int = 300,
) -> MatrixFreeMinimum:
    r"""Return the minimum next to a trained network, without its Jacobian and its kernel.

    As `minimum_of`, for N·C too large to store (N·C)² or N·C·D numbers. Where the parameters do not
    interpolate yet they are moved, by Levenberg and Marquardt's method again, with LSQR for its
    linear equations. Its steps lie in the row space too. A network that is trained needs a few
    seconds or minutes, one that is not can need very long: train it before.

    What is held at a time: a few vectors of D and of N·C numbers for each of R replicas, the
    activations of 256 samples, the `most_products` vectors of N·C numbers of Lanczos' method, and
    for cross-entropy N·C² numbers.

    Source: our derivation.

    Parameters
    ----------
    apply, params, x, y, loss
        As in `minimum_of`.
    tolerance : float
        Largest |residual| that counts as interpolation.
    max_iterations : int
        Of Levenberg and Marquardt's method; 0 to refuse parameters that do not interpolate.
    most_products : int
        As in `MatrixFreeMinimum`, and for the equations of one iteration.

    Returns
    -------
    MatrixFreeMinimum
        It also knows `params`, how far it has `moved`, and from which `largest_residual`.

    Raises
    ------
    TypeError, ValueError
        As `minimum_of`.
    RuntimeError
        If no interpolating parameter is found; the message says how large the residual still is.

    Examples
    --------
    >>> from stabcore import SGD
    >>> from stabcore.networks import mlp, without_kernel
    >>> model = mlp(2, (8,))
    >>> x, y = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), np.array([1.0, -1.0, 0.5])
    >>> minimum = without_kernel(model.apply, model.initial(0), x, y)
    >>> minimum.gd_exponent(1.9 / minimum.sharpness).sign
    -1
    >>> minimum.sgd_exponent(1.0 / minimum.sharpness, SGD(batch_size=2), rng=0, steps=200).sign
    -1
    """
    check.choice("loss", loss, LOSSES)
    most = check.integer("most_products", most_products)
    iterations = check.integer("max_iterations", max_iterations, minimum=0)
    largest = check.real("tolerance", tolerance, above=0.0)
    with double_precision():
        problem = _LargeProblem(apply, params, x, y, loss, None)
        start = problem.start
        first = float(np.abs(problem.residuals(start)).max())
        point = _interpolating(problem, start, largest, iterations, most)
        labels = problem.targets if loss == "cross_entropy" else None
        roots = curvature_roots(loss, labels, (len(problem.targets), problem.outputs))
        # Where all are the same multiple of the identity the multiple will do.
        weights = np.asarray(roots if loss == "cross_entropy" else roots[0, 0, 0])
        minimum = MatrixFreeMinimum(problem.products(point, weights), most_products=most)
        minimum.params = problem.as_given(point)
    minimum.moved = float(np.linalg.norm(point - start))
    minimum.largest_residual = first
    return minimum


class _LargeProblem(_NetworkProblem):
    """A network whose Jacobian is not formed."""

    def _check_memory(self) -> None:
        """Let any size pass."""

    def products(self, theta: Array, roots: Array) -> JacobianProducts:
        """Return the products with R_i J_i at a point; roots are the R_i or one number."""
        apply, structure, fixed = self.network
        held = jnp.asarray(theta), fixed, self.inputs, jnp.asarray(roots)
        return JacobianProducts(
            n_samples=len(self.targets),
            n_outputs=self.outputs if roots.ndim == 0 else roots.shape[1],
            n_parameters=self.n_parameters,
            jvp=jax.tree_util.Partial(_Jvp(apply, structure), *held),
            vjp=jax.tree_util.Partial(_Vjp(apply, structure), *held),
        )

    def residual_products(self, theta: Array) -> JacobianProducts:
        """Return the products with the Jacobian of the residuals."""
        one = len(self.differences) == self.outputs
        shape = len(self.targets), *self.differences.shape
        return self.products(
            theta, np.asarray(1.0) if one else np.broadcast_to(self.differences, shape)
        )


@dataclass(frozen=True)
class _Outputs:
    """The outputs of some samples, each multiplied by R_i, as a function of the parameters.

    Equal where network and structure are: what JAX has compiled serves again.
    """

    apply: Apply
    structure: Structure

    def at(self, fixed: Any, inputs: Any, roots: Any, samples: Any) -> Callable[[Any], Any]:
        def outputs(theta: Any) -> Any:
            found = self.apply(self.structure.rebuild(theta, fixed), inputs[samples])
            found = found.reshape(len(samples), -1)
            if roots.ndim == 0:
                return roots * found
            return jnp.einsum("bmc,bc->bm", roots[samples], found)

        return outputs


class _Jvp(_Outputs):
    def __call__(
        self, theta: Any, fixed: Any, inputs: Any, roots: Any, samples: Any, vector: Any
    ) -> Any:
        return jax.jvp(self.at(fixed, inputs, roots, samples), (theta,), (vector,))[1]


class _Vjp(_Outputs):
    def __call__(
        self, theta: Any, fixed: Any, inputs: Any, roots: Any, samples: Any, weights: Any
    ) -> Any:
        return jax.vjp(self.at(fixed, inputs, roots, samples), theta)[1](weights)[0]


def _interpolating(
    problem: _LargeProblem, start: Array, tolerance: float, iterations: int, most: int
) -> Array:
    """Return parameters where all residuals are 0, close to the start."""
    theta, residuals, damping = start, problem.residuals(start), 1.0
    for _ in range(iterations):
        if np.abs(residuals).max() <= tolerance or damping > MOST_DAMPING:
            break
        step, linear = _step(problem, theta, residuals, damping, most)
        proposed = problem.residuals(theta - step)
        before, after = float(np.linalg.norm(residuals)), float(np.linalg.norm(proposed))
        # How much of the decrease that the linear equations promise has come true.
        gain = (before - after) / max(before - linear, EPSILON * before)
        damping *= 0.1 if gain > 0.75 else 1.0 if gain > 0.25 else 4.0
        if gain > 0:
            theta, residuals = theta - step, proposed
    largest = float(np.abs(residuals).max())
    if largest <= tolerance:
        return theta
    tried = f"after {iterations} iterations" if iterations else "at the parameters given"
    raise RuntimeError(
        f"the network does not interpolate: {tried} the largest residual is {largest:.3g}, above "
        f"the tolerance {tolerance:.1g} (it has {theta.size:,} parameters for {residuals.size:,} "
        "residuals). The theorems speak of interpolation: train on, raise max_iterations or "
        "most_products, or take a larger network."
    )


def _step(
    problem: _LargeProblem, theta: Array, residuals: Array, damping: float, most: int
) -> tuple[Array, float]:
    """Return the step of Levenberg and Marquardt, and the residual it would leave of a line."""
    engine = Compiled(problem.residual_products(theta))
    shape = 1, len(problem.targets), problem.n_outputs
    operator = LinearOperator(
        (residuals.size, theta.size),
        matvec=lambda v: engine.push(v.reshape(1, -1)).ravel(),
        rmatvec=lambda a: engine.pull(a.reshape(shape))[0],
        dtype=np.float64,
    )
    # The damping in units of K where the residuals are.
    scale = np.linalg.norm(operator.rmatvec(residuals)) / np.linalg.norm(residuals)
    found = lsqr(
        operator,
        residuals,
        damp=float(scale * np.sqrt(damping)),
        atol=0.0,
        btol=LINEAR_TOLERANCE,
        conlim=0.0,
        iter_lim=most,
    )
    return np.asarray(found[0]), float(found[3])
