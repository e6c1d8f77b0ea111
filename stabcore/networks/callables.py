r"""The minimum next to a network of another framework, which differentiates it itself.

`minimum_of` differentiates with JAX. `minimum_of_functions` asks for the outputs and their
gradients as two functions, which PyTorch, say, or NumPy evaluates; the rest is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from stabcore import _validation as check
from stabcore._constants import EPSILON
from stabcore._jax import double_precision, jax
from stabcore._validation import Array
from stabcore.networks.interpolation import SAME_OUTPUT, NetworkMinimum, _NetworkProblem
from stabcore.problems.base import Indices
from stabcore.problems.losses import LOSSES, as_double
from stabcore.problems.minimum import find_minimum

Function = Callable[[Any, Any], Any]

# A central difference over √ε, so short that it hardly meets a kink of a ReLU network, is off by
# rounding only: the outputs' own, a thousand sums long, and √ε of the difference.
SAME_DERIVATIVE = 1e-5

ROUNDING = 1e3 * EPSILON


@check.public()
def minimum_of_functions(
    outputs: Function,
    gradients: Function,
    params: Any,
    x: Any,
    y: ArrayLike,
    *,
    loss: str = "half_square",
    preconditioner: ArrayLike | None = None,
    probabilities: ArrayLike | None = None,
    tolerance: float = 1e-12,
    max_iterations: int = 200,
) -> NetworkMinimum:
    r"""Return the minimum next to the parameters of a trained network, given as two functions.

    Both are called with parameters and inputs of the kind that was passed, NumPy arrays or tensors
    of PyTorch, but in double precision; buffers that a module holds are taken there by
    ``model.double()``. For a PyTorch module

    .. code-block:: python

        def output(params, one):
            return torch.func.functional_call(model, params, (one[None],))[0]

        outputs = torch.vmap(output, (None, 0))
        gradients = torch.vmap(torch.func.jacrev(output), (None, 0))
        minimum = minimum_of_functions(outputs, gradients, dict(model.named_parameters()), x, y)

    Source: our derivation; the method is Levenberg and Marquardt's.

    Parameters
    ----------
    outputs : callable
        ``outputs(params, x)``: of a batch of inputs (N, ...), shape (N,) or (N, C).
    gradients : callable
        ``gradients(params, x)``: the derivatives of the outputs in each array of `params`, in the
        same structure, where an array has the shape ``(N, *shape)`` or ``(N, C, *shape)``.
    params : dict of arrays, or another pytree
        Floating-point numbers, in any precision.
    x, y : arrays, shapes (N, ...), (N,) or (N, C)
        Inputs and targets; for cross-entropy the smoothed labels.
    loss : str
        As in `Minimum.from_jacobian`: "half_square", "mean_square", "sum_square", "cross_entropy".
    preconditioner : array, shape (D,) or (D, D), optional
        As in `Minimum.from_jacobian`, with the arrays of a dict in the order of their names.
    probabilities : array, shape (N,), optional
        Uniform by default.
    tolerance : float
        Largest \|residual\| at the minimum (for cross-entropy of the logits' differences).
    max_iterations : int

    Returns
    -------
    NetworkMinimum
        Its `params` are of the kind that was passed.

    Raises
    ------
    TypeError
        If the outputs or gradients come out in single precision all the same.
    ValueError
        If the outputs are random, or depend on the other samples of the batch, or have another
        shape than the targets; if the gradients are not those of the outputs; if labels are hard.
    MemoryError
        If the Jacobian would need more than 4 GB; the message says how much.
    RuntimeError
        If no interpolating parameter is found.

    Examples
    --------
    F(θ, x) = tanh(Wx), W of shape (2, 3), in NumPy:

    >>> def outputs(w, x):
    ...     return np.tanh(x @ w.T)
    >>> def gradients(w, x):
    ...     slopes = 1 - outputs(w, x) ** 2
    ...     return np.einsum("nc,cd,ni->ncdi", slopes, np.eye(2), x)
    >>> x, y = np.eye(3)[:2], np.array([[0.5, -0.5], [0.25, 0.75]])
    >>> minimum = minimum_of_functions(outputs, gradients, np.zeros((2, 3)), x, y)
    >>> np.tanh(minimum.params).round(6).tolist()
    [[0.5, 0.25, 0.0], [-0.5, 0.75, 0.0]]
    """
    check.choice("loss", loss, LOSSES)
    with double_precision():
        problem = _FunctionsProblem(outputs, gradients, params, x, y, loss, probabilities)
    first = float(np.abs(problem.residuals(problem.start)).max())
    try:
        point = find_minimum(
            problem, problem.start, tolerance=tolerance, max_iterations=max_iterations
        ).point
    except RuntimeError as error:
        raise RuntimeError(
            f"{error} At the parameters that were given the largest residual is {first:.3g}; the "
            f"network has {problem.n_parameters} parameters for {problem.n_samples} samples with "
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
    result.point, result.unravel = point, problem.parameters
    result.params = problem.parameters(point)
    result.moved = float(np.linalg.norm(point - problem.start))
    result.relative = result.moved / max(float(np.linalg.norm(problem.start)), 1e-300)
    result.largest_residual = first
    return result


class _FunctionsProblem(_NetworkProblem):
    """The residuals of a network that is known by two functions of another framework."""

    def __init__(
        self,
        outputs: Function,
        gradients: Function,
        params: Any,
        x: Any,
        y: ArrayLike,
        loss: str,
        probabilities: ArrayLike | None,
    ) -> None:
        for name, function in (("outputs", outputs), ("gradients", gradients)):
            if not callable(function):
                raise TypeError(
                    f"{name} must be a function of (params, x), got {check.short(function)}."
                )
        self.functions, self.given, self.own_inputs = (outputs, gradients), params, _doubled(x)
        numbers = jax.tree.map(_numbers, params)
        super().__init__(
            outputs, numbers, _numbers(self.own_inputs), _numbers(y), loss, probabilities
        )

    def parameters(self, theta: Any) -> Any:
        """Return the parameters, of the kind that was given, for a vector."""
        _, structure, fixed = self.network
        rebuilt = structure.rebuild(np.asarray(theta), fixed)
        return jax.tree.map(_like, self.given, rebuilt)

    def residuals(self, theta: Array, samples: Indices | None = None) -> Array:
        """Return F − y, row by row."""
        found = self._values(theta, self.own_inputs).reshape(self.wanted.shape)
        return np.asarray(((found - self.wanted) @ self.differences.T).reshape(-1))

    def gradients(self, theta: Array) -> Array:
        """Return the gradient of every output of every sample, shape (N, C, D)."""
        parameters = self.parameters(theta)
        found = self.functions[1](parameters, self.own_inputs)
        structures = [str(jax.tree.structure(tree)) for tree in (found, parameters)]
        if structures[0] != structures[1]:
            raise ValueError(
                f"gradients returns the structure {structures[0]} but params has {structures[1]}; "
                "return one array for every array of params."
            )
        pairs = zip(jax.tree.leaves(found), jax.tree.leaves(parameters), strict=True)
        return np.concatenate([self._rows(*pair) for pair in pairs], axis=2)

    def _values(self, theta: Array, inputs: Any) -> Array:
        return _numbers(self.functions[0](self.parameters(theta), inputs))

    def _rows(self, leaf: Any, parameter: Any) -> Array:
        """Return the gradients in one array of the parameters, one row an output of a sample."""
        values, shape = as_double("gradients", leaf), tuple(parameter.shape)
        wanted = [outputs + shape for outputs in self._output_shapes()]
        if values.shape not in wanted:
            raise ValueError(
                f"gradients returns shape {values.shape} for an array of params of shape {shape}; "
                f"it must be {wanted[0]}."
            )
        return values.reshape(len(self.targets), self.outputs, -1)

    def _output_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Return that of the targets; one output may have an axis of its own."""
        shape = self.targets.shape
        return (shape, (*shape, 1)) if len(shape) == 1 else (shape,)

    def _check_outputs(self, apply: Function) -> None:
        """Refuse outputs of the wrong shape or precision, random ones, and coupled samples."""
        first, second = (self._values(self.start, self.own_inputs) for _ in range(2))
        if first.shape not in self._output_shapes():
            raise ValueError(
                f"outputs returns shape {first.shape} but y has shape {self.targets.shape}; they "
                "must agree."
            )
        if first.dtype != np.float64:
            raise TypeError(
                f"outputs returns {first.dtype} for parameters and inputs in double precision; "
                "take what else it holds to double precision too (model.double())."
            )
        if not np.isfinite(first).all():
            raise ValueError("outputs returns numbers that are not finite at these parameters.")
        scale = SAME_OUTPUT * (1 + np.abs(first).max())
        if not np.abs(first - second).max() <= scale:
            raise ValueError(
                "outputs returns different numbers for the same inputs; switch dropout and other "
                "randomness off (model.eval())."
            )
        one = [slice(k, k + 1) for k in range(len(first))]
        alone = [self._values(self.start, self.own_inputs[k]) for k in one]
        if not np.abs(first - np.concatenate(alone)).max() <= scale:
            raise ValueError(
                "the output of a sample depends on the others in its batch, as with batch "
                "normalisation in training mode: random batches then in general have no common "
                "minimum; use evaluation mode (model.eval()), or layer normalisation."
            )
        self._check_gradients()

    def _check_gradients(self) -> None:
        """Refuse gradients that are not the derivatives of the outputs, along a random line."""
        direction = np.random.default_rng(0).normal(size=self.start.size)
        length = np.sqrt(EPSILON) * (1 + np.linalg.norm(self.start))
        step = length * direction / np.linalg.norm(direction)
        ahead, behind = (
            self._values(self.start + move, self.own_inputs).reshape(len(self.targets), -1)
            for move in (step, -step)
        )
        along = 2 * self.gradients(self.start) @ step
        error, largest = (float(np.abs(a).max()) for a in (ahead - behind - along, along))
        allowed = SAME_DERIVATIVE * largest + ROUNDING * (1 + float(np.abs(ahead).max()))
        if not error <= allowed:
            raise ValueError(
                "gradients are not the derivatives of outputs: along a random line of parameters "
                f"they are off by {error / max(error, largest):.2g} of the larger; compare the two "
                "functions."
            )


def _numbers(value: Any) -> Array:
    """Return an array of NumPy, JAX or PyTorch as one of NumPy."""
    return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)


def _doubled(value: Any) -> Any:
    """Return floating-point numbers in double precision, of the same kind."""
    if hasattr(value, "detach"):
        return value.detach().double() if value.is_floating_point() else value.detach()
    array = np.asarray(value)
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _like(given: Any, values: Array) -> Any:
    """Return numbers as the kind of array that was given, in double precision."""
    return _doubled(given).new_tensor(values) if hasattr(given, "detach") else values
