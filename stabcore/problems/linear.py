"""Deep linear networks with several outputs."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from stabcore import _validation as check
from stabcore._validation import Array
from stabcore.problems.base import Indices, Problem, _rows


class LinearNetwork(Problem):
    r"""F(θ, x) = W_D⋯W_1 x with several outputs, θ = (W_1, ..., W_D) flattened row by row.

    L = Σ_i p_i ½ |W_D⋯W_1 x_i − y_i|². With whitened inputs, Σ p_i x_i x_iᵀ = I, this is
    ½ ‖W_D⋯W_1 − W*‖² + constant, W* the least-squares solution (`target_map`).

    Source: paper C (the model); the formulas are our derivation.

    Parameters
    ----------
    inputs : array, shape (N, d)
    targets : array, shape (N, C), or (N,) for one output
    widths : sequence of int
        Widths of the hidden layers, D − 1 of them; () is linear regression.
    probabilities : array, shape (N,), optional
        Uniform by default.

    Examples
    --------
    >>> import numpy as np
    >>> network = LinearNetwork(np.eye(2), 2 * np.eye(2), widths=[2])
    >>> theta = np.array([1.0, 0.0, 0.0, 1.0, 2.0, 0.0, 0.0, 2.0])
    >>> network.product(theta)
    array([[2., 0.],
           [0., 2.]])
    >>> float(network.loss(theta)), network.n_parameters, network.n_samples, network.n_outputs
    (0.0, 8, 2, 2)
    """

    def __init__(
        self,
        inputs: ArrayLike,
        targets: ArrayLike,
        widths: Sequence[int] = (),
        probabilities: ArrayLike | None = None,
    ) -> None:
        self.inputs = check.finite_array("inputs", inputs, ndim=2)
        array = check.finite_array("targets", targets)
        self.targets = (
            array[:, None] if array.ndim == 1 else check.finite_array("targets", array, ndim=2)
        )
        n, d = self.inputs.shape
        if len(self.targets) != n:
            raise ValueError(
                f"targets has length {len(self.targets)} but inputs has {n} rows; "
                "pass one per sample."
            )
        outputs = self.targets.shape[1]
        hidden = [check.integer("widths", width) for width in widths]
        sizes = [d, *hidden, outputs]
        self.shapes = tuple(zip(sizes[1:], sizes[:-1], strict=True))
        self.n_parameters = sum(rows * columns for rows, columns in self.shapes)
        self.n_outputs = outputs
        self.probabilities = check.probabilities(probabilities, n)

    @property
    def depth(self) -> int:
        """Number of matrices D."""
        return len(self.shapes)

    @property
    def target_map(self) -> Array:
        """The least-squares solution W* (of least norm), shape (C, d): the best linear map."""
        root = np.sqrt(self.probabilities)[:, None]
        return np.asarray(np.linalg.lstsq(root * self.inputs, root * self.targets, rcond=None)[0].T)

    def layers(self, theta: Array) -> list[Array]:
        """Return [W_1, ..., W_D], each of shape (..., rows, columns)."""
        ends = np.cumsum([rows * columns for rows, columns in self.shapes])[:-1]
        parts = np.split(theta, ends, axis=-1)
        return [
            part.reshape(*theta.shape[:-1], *shape)
            for part, shape in zip(parts, self.shapes, strict=True)
        ]

    def product(self, theta: Array) -> Array:
        """Return W_D⋯W_1: shape (..., D) -> (..., C, d)."""
        return _chain(self.layers(theta), self.inputs.shape[1])

    def residuals(self, theta: Array, samples: Indices | None = None) -> Array:
        """Return the entries of W_D⋯W_1 x_i − y_i."""
        errors = self._errors(theta, samples)
        return errors.reshape(*errors.shape[:-2], -1)

    def jacobian(self, theta: Array, samples: Indices | None = None) -> Array:
        """Return the rows: block l is a row of W_D⋯W_{l+1} times (W_{l−1}⋯W_1 x_i)ᵀ."""
        layers, inputs = self.layers(theta), _rows(self.inputs, samples)
        blocks = []
        for index, (size, _) in enumerate(self.shapes):
            after = _chain(layers[index + 1 :], size)
            signal = inputs @ np.swapaxes(_chain(layers[:index], inputs.shape[-1]), -1, -2)
            block = after[..., None, :, :, None] * signal[..., :, None, None, :]
            blocks.append(block.reshape(*block.shape[:-4], inputs.shape[-2] * self.n_outputs, -1))
        rows = np.concatenate(blocks, axis=-1)
        return np.broadcast_to(rows, (*theta.shape[:-1], *rows.shape[-2:]))

    def gradient(self, theta: Array) -> Array:
        """Return ∇L(θ) by backpropagation."""
        errors = self._errors(theta, None)
        return self._backward(theta, self.inputs, self.probabilities[:, None] * errors)

    def batch_gradient(self, theta: Array, samples: Indices, weights: Array | None = None) -> Array:
        """Return (1/B) Σ_{i in samples} w_i ∇l_i by backpropagation."""
        errors = self._errors(theta, samples) / samples.shape[-1]
        if weights is not None:
            errors = errors * weights[..., None]
        return self._backward(theta, self.inputs[samples], errors)

    def residual_curvature(self, theta: Array, weights: Array) -> Array:
        """Return Σ w ∇²φ: with M = Σ w e_o x_iᵀ, the second derivative of tr(MᵀW_D⋯W_1)."""
        layers, (d, outputs) = self.layers(theta), (self.inputs.shape[1], self.n_outputs)
        moment = np.einsum(
            "...io,ij->...oj", weights.reshape(*weights.shape[:-1], -1, outputs), self.inputs
        )
        starts = np.cumsum([0, *(rows * columns for rows, columns in self.shapes)])
        result = np.zeros((*theta.shape, self.n_parameters))
        for high in range(self.depth):
            after = _chain(layers[high + 1 :], self.shapes[high][0])
            for low in range(high):
                before = _chain(layers[:low], d)
                outer = np.swapaxes(after, -1, -2) @ moment @ np.swapaxes(before, -1, -2)
                inner = _chain(layers[low + 1 : high], self.shapes[low][0])
                block = np.einsum("...ae,...bc->...abce", outer, inner)
                shape = [starts[high + 1] - starts[high], starts[low + 1] - starts[low]]
                block = block.reshape(*block.shape[:-4], *shape)
                rows, columns = slice(*starts[high : high + 2]), slice(*starts[low : low + 2])
                result[..., rows, columns] = block
                result[..., columns, rows] = np.swapaxes(block, -1, -2)
        return result

    def initial(self, rng: int | np.random.Generator | None = None) -> Array:
        """Return random parameters: the entries of each W are N(0, 1/columns); shape (D,)."""
        generator = check.generator(rng)
        parts = [generator.normal(size=shape) / np.sqrt(shape[1]) for shape in self.shapes]
        return np.concatenate([part.reshape(-1) for part in parts])

    def balanced_minimum(self) -> Array:
        r"""Return the balanced global minimum: W* = UΣVᵀ shared evenly among the layers.

        W_1 = Σ^{1/D} Vᵀ, W_l = Σ^{1/D}, W_D = U Σ^{1/D}, padded with zeros. With whitened inputs
        no global minimum is flatter: its sharpness is D σ₁^{2−2/D}, so for
        η > 2/(D σ₁^{2−2/D}) gradient descent ends at a global minimum from a null set of starts
        only. Source: our proof; the value is in Ghosh et al. (2502.20531).

        Returns
        -------
        array, shape (D,)

        Raises
        ------
        ValueError
            If a hidden layer is narrower than the rank of W*.
        """
        left, singular, right = np.linalg.svd(self.target_map, full_matrices=False)
        rank = int((singular > 1e-12 * singular[0]).sum())
        narrowest = min((rows for rows, _ in self.shapes[:-1]), default=rank)
        if narrowest < rank:
            raise ValueError(
                f"widths must be at least the rank {rank} of the least-squares solution, got "
                f"{narrowest}; widen the narrowest layer."
            )
        share = singular[:rank] ** (1 / self.depth)
        parts = [np.zeros(shape) for shape in self.shapes]
        for part in parts:
            part[:rank, :rank] = np.diag(share)
        parts[0] = parts[0][:, :rank] @ right[:rank]
        parts[-1] = left[:, :rank] @ parts[-1][:rank]
        return np.concatenate([part.reshape(-1) for part in parts])

    def _errors(self, theta: Array, samples: Indices | None) -> Array:
        """Return W_D⋯W_1 x_i − y_i, shape (..., B, C)."""
        inputs, targets = _rows(self.inputs, samples), _rows(self.targets, samples)
        return np.asarray(inputs @ np.swapaxes(self.product(theta), -1, -2) - targets)

    def _backward(self, theta: Array, inputs: Array, errors: Array) -> Array:
        """Return Σ over the samples of the gradient of errors·F, shape (..., D)."""
        layers, signals = self.layers(theta), [inputs]
        for layer in layers[:-1]:
            signals.append(signals[-1] @ np.swapaxes(layer, -1, -2))
        parts = []
        for layer, signal in zip(reversed(layers), reversed(signals), strict=True):
            part = np.swapaxes(errors, -1, -2) @ signal
            parts.append(part.reshape(*part.shape[:-2], -1))
            errors = errors @ layer
        return np.concatenate(parts[::-1], axis=-1)


def _chain(layers: Sequence[Array], size: int) -> Array:
    """Return the product of the layers, the first one rightmost; of none, the identity."""
    if not layers:
        return np.eye(size)
    return functools.reduce(lambda product, layer: layer @ product, layers)
