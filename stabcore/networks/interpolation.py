r"""From a trained network to the minimum next to it: exact interpolation in double precision.

Training stops near a minimum; the theorems speak of the minimum. `minimum_of` moves there by
Levenberg and Marquardt's method, θ ← θ − Jᵀ(JJᵀ + νI)⁻¹φ, whose steps lie in the row space: it ends
close to the nearest interpolating parameter, and says how far it has moved.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from stabcore import _validation as check
from stabcore._jax import double_precision, jax, jnp
from stabcore._validation import Array
from stabcore.networks._flat import Structure, flat
from stabcore.problems.base import Indices, Problem
from stabcore.problems.losses import LOSSES, _smoothed_labels
from stabcore.problems.minimum import Minimum, find_minimum

MOST_BYTES = 4e9  # of a Jacobian

AT_ONCE = 16  # samples whose gradients are computed together

SAME_OUTPUT = 1e-9  # relative; sums in another order are off by far less

Apply = Callable[[Any, Any], Any]


class NetworkMinimum(Minimum):
    """The minimum next to a trained network.

    Attributes
    ----------
    params : pytree
        The parameters there, of the structure that was given, in double precision.
    moved : float
        Euclidean distance from the parameters that were given.
    relative : float
        The same in units of their length.
    largest_residual : float
        Of the outputs that were given.
    unravel : callable
        From a vector of parameters, such as `point`, to the pytree.
    """

    params: Any
    unravel: Callable[[Any], Any]
    moved: float
    relative: float
    largest_residual: float

    def near(self, distance: float, runs: int, rng: int | np.random.Generator | None = None) -> Any:
        """Return starts next to the minimum, for `train`.

        Parameters
        ----------
        distance : float
            From the minimum, in parameter space.
        runs : int
            R.
        rng : int, numpy.random.Generator or None
            For random directions of the normal space. Without it all start along the direction in
            which the mean loss is flattest: the last one that SGD forgets.

        Returns
        -------
        pytree
            With the runs along the first axis of every array.
        """
        size = check.real("distance", distance, above=0.0)
        count = check.integer("runs", runs)
        assert self.point is not None
        assert self.jacobian is not None
        if rng is None:
            root = np.sqrt(self.row_probabilities)
            vectors = np.linalg.eigh(root[:, None] * self.kernel * root)[1]
            slowest = root * vectors[:, len(vectors) - self.rank]
            weights = np.repeat(slowest[:, None], count, axis=1)
        else:
            weights = check.generator(rng).normal(size=(len(self.jacobian), count))
        directions = self.jacobian.T @ weights
        starts = self.point[:, None] + size * directions / np.linalg.norm(directions, axis=0)
        with double_precision():
            single = [self.unravel(start) for start in starts.T]
            return jax.tree.map(lambda *leaves: np.stack([np.asarray(a) for a in leaves]), *single)

    def __repr__(self) -> str:
        """Return the sizes, and how far the parameters have moved."""
        return (
            f"{super().__repr__()[:-1]}, moved={self.moved:.3g} ({self.relative:.2g} of |theta|), "
            f"from residuals of {self.largest_residual:.2g})"
        )


@check.public()
def minimum_of(
    apply: Apply,
    params: Any,
    x: ArrayLike,
    y: ArrayLike,
    *,
    loss: str = "half_square",
    preconditioner: ArrayLike | None = None,
    probabilities: ArrayLike | None = None,
    tolerance: float = 1e-12,
    max_iterations: int = 200,
) -> NetworkMinimum:
    r"""Return the minimum next to the parameters of a trained network.

    Source: our derivation; the method is Levenberg and Marquardt's.

    Parameters
    ----------
    apply : callable
        ``apply(params, x)``, written with JAX: a batch of inputs (N, ...) to outputs (N,) or
        (N, C). For Flax ``lambda p, x: model.apply(p, x)``, for Equinox
        ``lambda p, x: jax.vmap(equinox.combine(p, static))(x)``.
    params : pytree
        The parameters, in any precision; leaves that are no floating-point arrays stay fixed.
    x, y : arrays, shapes (N, ...), (N,) or (N, C)
        Inputs and targets; for cross-entropy the smoothed labels.
    loss : str
        As in `Minimum.from_jacobian`: "half_square", "mean_square", "sum_square", "cross_entropy".
    preconditioner : array, shape (D,) or (D, D), optional
        As in `Minimum.from_jacobian`, in the order of ``jax.flatten_util.ravel_pytree``.
    probabilities : array, shape (N,), optional
        Uniform by default.
    tolerance : float
        Largest |residual| at the minimum (for cross-entropy of the logits' differences).
    max_iterations : int

    Returns
    -------
    NetworkMinimum
        A `Minimum` that also knows `params`, and how far it has `moved`.

    Raises
    ------
    TypeError
        If `apply` computes in single precision whatever it is given.
    ValueError
        If the outputs are random, or depend on the other samples of the batch (batch normalisation
        in training mode), or have another shape than the targets; if labels are hard.
    MemoryError
        If the Jacobian would need more than 4 GB; the message says how much.
    RuntimeError
        If no interpolating parameter is found.

    Examples
    --------
    >>> from stabcore.networks import minimum_of, mlp
    >>> model = mlp(2, (8,))
    >>> x, y = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), np.array([1.0, -1.0, 0.5])
    >>> minimum = minimum_of(model.apply, model.initial(0), x, y)
    >>> minimum.n_samples, minimum.rank, bool(minimum.moved < 2)
    (3, 3, True)
    """
    check.choice("loss", loss, LOSSES)
    with double_precision():
        problem = _NetworkProblem(apply, params, x, y, loss, probabilities)
        start = problem.start
        first = float(np.abs(problem.residuals(start)).max())
        try:
            point = find_minimum(
                problem, start, tolerance=tolerance, max_iterations=max_iterations
            ).point
        except RuntimeError as error:
            raise RuntimeError(
                f"{error} At the parameters that were given the largest residual is {first:.3g}; "
                f"the network has {start.size} parameters for {problem.n_samples} samples with "
                f"{problem.outputs} outputs."
            ) from error
        assert point is not None
        result = NetworkMinimum.from_jacobian(
            problem.gradients(point),
            loss=loss,
            labels=problem.targets if loss == "cross_entropy" else None,
            preconditioner=preconditioner,
            probabilities=probabilities,
        )
        assert isinstance(result, NetworkMinimum)
        result.params = problem.as_given(point)
    result.point, result.unravel = point, problem.unravel
    result.moved = float(np.linalg.norm(point - start))
    result.relative = result.moved / max(float(np.linalg.norm(start)), 1e-300)
    result.largest_residual = first
    return result


class _NetworkProblem(Problem):
    """The residuals of a network as a function of one vector of parameters."""

    def __init__(
        self,
        apply: Apply,
        params: Any,
        x: ArrayLike,
        y: ArrayLike,
        loss: str,
        probabilities: ArrayLike | None,
    ) -> None:
        self.start, structure, fixed = flat(params)
        self.unravel = partial(_rebuilt, structure, fixed)
        self.n_parameters = self.start.size
        self.targets = check.finite_array("y", np.asarray(y))
        if self.targets.ndim not in (1, 2):
            raise ValueError(f"y must have shape (N,) or (N, C), got {self.targets.shape}.")
        inputs = np.asarray(x)
        if inputs.ndim == 0 or len(inputs) != len(self.targets):
            raise ValueError(
                f"x has shape {inputs.shape} but y has {len(self.targets)} samples; pass one input "
                "per target."
            )
        self.inputs = jnp.asarray(inputs, jnp.float64 if inputs.dtype.kind == "f" else None)
        self.probabilities = check.probabilities(probabilities, len(self.targets))
        self.outputs = 1 if self.targets.ndim == 1 else self.targets.shape[1]
        self._check_memory()

        self.network = apply, structure, fixed
        self._check_outputs(apply)
        # Cross-entropy: the logits count up to a constant, so that their differences are residuals.
        self.differences = np.eye(self.outputs)
        self.wanted = self.targets.reshape(len(self.targets), self.outputs)
        if loss == "cross_entropy":
            labels = _smoothed_labels(self.targets, self.wanted.shape)
            self.wanted, self.differences = np.log(labels), _helmert(self.outputs)
        self.n_outputs = len(self.differences)

    def residuals(self, theta: Array, samples: Indices | None = None) -> Array:
        """Return F − y, row by row."""
        found = np.asarray(_outputs(*self.network, theta, self.inputs)).reshape(self.wanted.shape)
        return np.asarray(((found - self.wanted) @ self.differences.T).reshape(-1))

    def jacobian(self, theta: Array, samples: Indices | None = None) -> Array:
        """Return the rows ∇F."""
        rows = self.differences @ self.gradients(theta)
        return np.asarray(rows.reshape(-1, self.n_parameters))

    def gradients(self, theta: Array) -> Array:
        """Return the gradient of every output of every sample, shape (N, C, D)."""
        found = np.asarray(_gradients(*self.network, theta, self.inputs))
        return found.reshape(len(self.targets), self.outputs, self.n_parameters)

    def as_given(self, theta: Array) -> Any:
        """Return the pytree with arrays of NumPy, which stay in double precision anywhere."""
        _, structure, fixed = self.network
        return structure.rebuild(theta, fixed)

    def _check_memory(self) -> None:
        entries = self.targets.size * self.n_parameters
        if entries * 8 > MOST_BYTES:
            raise MemoryError(
                f"the Jacobian of {len(self.targets)} samples with {self.outputs} outputs has "
                f"{entries:.2g} entries, {entries * 8 / 1e9:.0f} GB, and its kernel "
                f"{self.targets.size**2 * 8 / 1e9:.2g} GB; take fewer samples, or do without "
                "both: stabcore.networks.without_kernel."
            )

    def _check_outputs(self, apply: Apply) -> None:
        """Refuse outputs of the wrong shape or precision, random ones, and coupled samples."""
        parameters = self.unravel(jnp.asarray(self.start))
        first, second = (np.asarray(apply(parameters, self.inputs)) for _ in range(2))
        if first.shape not in {self.targets.shape, (len(self.targets), 1)[: self.targets.ndim + 1]}:
            raise ValueError(
                f"apply returns outputs of shape {first.shape} but y has shape "
                f"{self.targets.shape}; they must agree."
            )
        if first.dtype != np.float64:
            raise TypeError(
                f"apply returns {first.dtype} for parameters and inputs in double precision: it "
                "casts inside; let it compute in the precision of its parameters (in Flax, "
                "dtype=None)."
            )
        if not np.isfinite(first).all():
            raise ValueError("apply returns outputs that are not finite at these parameters.")
        scale = SAME_OUTPUT * (1 + np.abs(first).max())
        if not np.abs(first - second).max() <= scale:
            raise ValueError(
                "apply returns different outputs for the same inputs; switch dropout and other "
                "randomness off (evaluation mode)."
            )
        alone = np.asarray(_one_by_one(*self.network, self.start, self.inputs))
        alone = alone.reshape(first.shape)
        if not np.abs(first - alone).max() <= scale:
            raise ValueError(
                "the output of a sample depends on the others in its batch, as with batch "
                "normalisation in training mode: random batches then in general have no common "
                "minimum; use evaluation mode, or layer normalisation."
            )


def _rebuilt(structure: Structure, fixed: tuple[Any, ...], theta: Any) -> Any:
    """Return the pytree for a vector of parameters."""
    return structure.rebuild(jnp.asarray(theta), fixed)


# Compiled once for a network, however often its minima are asked for.
@partial(jax.jit, static_argnums=(0, 1))
def _outputs(
    apply: Apply, structure: Structure, fixed: tuple[Any, ...], theta: Any, inputs: Any
) -> Any:
    return apply(structure.rebuild(theta, fixed), inputs)


@partial(jax.jit, static_argnums=(0, 1))
def _one_by_one(
    apply: Apply, structure: Structure, fixed: tuple[Any, ...], theta: Any, inputs: Any
) -> Any:
    params = structure.rebuild(theta, fixed)
    return jax.lax.map(lambda one: apply(params, one[None])[0], inputs)


@partial(jax.jit, static_argnums=(0, 1))
def _gradients(
    apply: Apply, structure: Structure, fixed: tuple[Any, ...], theta: Any, inputs: Any
) -> Any:
    def single(point: Any, one: Any) -> Any:
        return apply(structure.rebuild(point, fixed), one[None])[0]

    return jax.lax.map(lambda one: jax.jacrev(single)(theta, one), inputs, batch_size=AT_ONCE)


def _helmert(size: int) -> Array:
    """Return an orthonormal basis of what is orthogonal to (1, ..., 1), shape (size − 1, size)."""
    basis = np.linalg.svd(np.ones((1, size)))[2]
    return np.asarray(basis[1:])
