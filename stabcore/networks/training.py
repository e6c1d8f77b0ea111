r"""Training, many runs at once: SGD as in PyTorch, compiled, with batches drawn beforehand.

A simulation: it knows the network, the loss and the batches, and nothing of kernels or exponents.
Every run has its own parameters, step size and batches. The same seed gives the same result.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stabcore import _validation as check
from stabcore._jax import double_precision, is_floating, jax, jnp
from stabcore._validation import Array
from stabcore.networks._losses import PER_SAMPLE, RESIDUAL
from stabcore.problems.losses import LOSSES, _smoothed_labels
from stabcore.sampling import SGD, Batches, as_method

BLOCK = 2**22  # indices drawn at a time

NEVER = -1


@dataclass(frozen=True, kw_only=True)
class Training:
    """Runs of SGD on a network, at the step where they stopped.

    Attributes
    ----------
    params, velocity : pytrees
        Of all runs, along the first axis of every array.
    times : array of int, shape (T,)
        The recorded steps: 0, k, 2k, ... and the last.
    log_residuals : array, shape (T, R)
        log‖F − y‖ over all samples and outputs (cross-entropy: of the softmax minus the labels).
    losses : array, shape (T, R)
        The mean loss over the data, as it was named.
    diverged_at : array of int, shape (R,)
        The first step after which a parameter was not finite; −1 if that never happened.
    """

    params: Any
    velocity: Any
    times: NDArray[np.int64]
    log_residuals: Array
    losses: Array
    diverged_at: NDArray[np.int64]

    def run(self, index: int) -> Any:
        """Return the parameters of one run.

        Parameters
        ----------
        index : int

        Returns
        -------
        pytree
        """
        return jax.tree.map(lambda leaf: leaf[index], self.params)

    def __str__(self) -> str:
        """Return the numbers of runs and steps, and when runs diverged."""
        lost = self.diverged_at[self.diverged_at != NEVER]
        text = f"{self.diverged_at.size} runs of {int(self.times[-1])} steps"
        if lost.size:
            text += f", {lost.size} diverged, the first at step {int(lost.min())}"
        return text


@check.public()
def train(
    apply: Callable[[Any, Any], Any],
    params: Any,
    x: ArrayLike,
    y: ArrayLike,
    step_size: ArrayLike,
    method: SGD,
    steps: int,
    *,
    loss: str = "half_square",
    rng: int | np.random.Generator | None = None,
    record_every: int | None = None,
    velocity: Any = None,
) -> Training:
    r"""Train a network, many runs at once.

    Source: standard; momentum and weight decay as in ``torch.optim.SGD`` (see `SGD`).

    Parameters
    ----------
    apply : callable
        ``apply(params, x)``, written with JAX: inputs (B, ...) to outputs (B,) or (B, C).
    params : pytree
        Of R runs, along the first axis of every array, as `Model.initial(rng, runs=R)` gives them.
        Their precision is that of the training.
    x, y : arrays, shapes (N, ...), (N,) or (N, C)
        Inputs and targets; for cross-entropy the smoothed labels.
    step_size : float or array, shape (R,)
        η > 0, the learning rate.
    method : SGD
        How one trains; all it can say is done.
    steps : int
    loss : str
        As in `Minimum.from_jacobian`.
    rng : int, numpy.random.Generator or None
        Of the batches.
    record_every : int, optional
        Record every so many steps; only the start and the end by default.
    velocity : pytree, optional
        Of an earlier `Training`, to go on from where it stopped, with the same generator as `rng`;
        0 by default. Epochs begin anew: stop at the end of one.

    Returns
    -------
    Training

    Raises
    ------
    ValueError
        If the parameters of the runs, the step sizes or the data do not fit together.

    Examples
    --------
    >>> from stabcore import SGD
    >>> from stabcore.networks import mlp, train
    >>> model = mlp(2, (8,))
    >>> x, y = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([1.0, -1.0])
    >>> runs = train(model.apply, model.initial(0, runs=3), x, y, 0.1, SGD(), 500, rng=0)
    >>> print(runs)
    3 runs of 500 steps
    >>> bool((runs.log_residuals[-1] < -6).all())
    True
    """
    how, count = as_method(method), check.integer("steps", steps)
    check.choice("loss", loss, LOSSES)
    runs = _runs(params)
    rates = check.finite_array("step_size", step_size)
    if rates.shape not in {(), (runs,)} or (rates <= 0).any():
        raise ValueError(
            f"step_size must be positive, a number or one for each of the {runs} runs, got shape "
            f"{rates.shape} and a smallest of {rates.min():g}."
        )
    targets = check.finite_array("y", np.asarray(y))
    inputs = np.asarray(x)
    if len(inputs) != len(targets):
        raise ValueError(f"x has {len(inputs)} samples but y has {len(targets)}; pass one each.")
    if loss == "cross_entropy":
        targets = _smoothed_labels(targets, targets.shape[:2] if targets.ndim == 2 else (0, 0))
    batches = how.batches(len(targets))
    generator = check.generator(rng)
    stride = count if record_every is None else check.integer("record_every", record_every)
    times = np.unique(np.append(np.arange(0, count + 1, stride), count))
    double = any(leaf.dtype == np.float64 for leaf in jax.tree.leaves(params) if is_floating(leaf))
    with double_precision() if double else nullcontext():
        return _trained(
            apply,
            params,
            (inputs, targets),
            rates,
            how,
            batches,
            times,
            loss,
            generator,
            velocity,
        )


def _trained(
    apply: Callable[[Any, Any], Any],
    params: Any,
    data: tuple[NDArray[Any], Array],
    rates: Array,
    method: SGD,
    batches: Batches,
    times: NDArray[np.int64],
    loss: str,
    rng: np.random.Generator,
    velocity: Any,
) -> Training:
    params = jax.tree.map(jnp.asarray, params)
    kind = jnp.result_type(jax.tree.leaves(params)[0])
    inputs = jnp.asarray(data[0], kind if data[0].dtype.kind == "f" else None)
    targets, scales = jnp.asarray(data[1], kind), jnp.asarray(batches.scales, kind)
    runs = _runs(params)
    step_sizes = jnp.broadcast_to(jnp.asarray(rates, kind), (runs,))
    moved = jax.tree.map(jnp.zeros_like, params) if velocity is None else velocity
    carry = params, moved, jnp.full(runs, NEVER), jnp.asarray(0)
    how = apply, loss, method
    given = inputs, targets
    seen = [_look(apply, loss, params, *given)]
    draw = _Drawing(batches, runs, rng)
    for first, last in pairwise(times):
        for size in draw.pieces(int(last - first)):
            drawn = draw.next(size)
            # Padded to a power of two: a run of another length need not be compiled again.
            padding = 2 ** (size - 1).bit_length() - size
            padded = np.pad(drawn, ((0, padding), (0, 0), (0, 0)))
            carry = _follow(*how, carry, padded, size, *given, scales, step_sizes)
        seen.append(_look(apply, loss, carry[0], *given))
    logs, losses = (np.array([np.asarray(one[k]) for one in seen], dtype=float) for k in (0, 1))
    return Training(
        params=carry[0],
        velocity=carry[1],
        times=times.astype(np.int64),
        log_residuals=logs,
        losses=losses,
        diverged_at=np.asarray(carry[2], dtype=np.int64),
    )


@partial(jax.jit, static_argnums=(0, 1, 2))
def _follow(
    apply: Callable[[Any, Any], Any],
    loss: str,
    method: SGD,
    carry: Any,
    drawn: Any,
    steps: Any,
    inputs: Any,
    targets: Any,
    scales: Any,
    step_sizes: Any,
) -> Any:
    """Take so many steps of all runs."""

    def batch_loss(one: Any, batch: Any) -> Any:
        values = PER_SAMPLE[loss](apply(one, inputs[batch]), targets[batch])
        return (scales[batch] * values).mean()

    def step(one: Any, v: Any, eta: Any, batch: Any) -> tuple[Any, Any]:
        gradient = jax.grad(batch_loss)(one, batch)
        if method.weight_decay:
            gradient = jax.tree.map(lambda g, p: g + method.weight_decay * p, gradient, one)
        v = jax.tree.map(lambda old, g: method.momentum * old + g, v, gradient)
        ahead = v
        if method.nesterov:
            ahead = jax.tree.map(lambda new, g: g + method.momentum * new, v, gradient)
        return jax.tree.map(lambda p, a: p - eta * a, one, ahead), v

    def body(index: Any, carry: Any) -> Any:
        now, v, lost, done = carry
        now, v = jax.vmap(step)(now, v, step_sizes, drawn[index])
        finite = jnp.stack(
            [jnp.isfinite(a).reshape(len(a), -1).all(axis=1) for a in jax.tree.leaves(now)]
        ).all(axis=0)
        return now, v, jnp.where((lost == NEVER) & ~finite, done + 1, lost), done + 1

    return jax.lax.fori_loop(0, steps, body, carry)


@partial(jax.jit, static_argnums=(0, 1))
def _look(
    apply: Callable[[Any, Any], Any], loss: str, params: Any, inputs: Any, targets: Any
) -> tuple[Any, Any]:
    """Return the log-residual and the mean loss of every run, over all data."""
    outputs = jax.vmap(lambda one: apply(one, inputs))(params)
    distances = RESIDUAL[loss](outputs, targets).reshape(len(outputs), -1)
    values = jax.vmap(lambda f: PER_SAMPLE[loss](f, targets))(outputs).mean(axis=1)
    return jnp.log(jnp.sqrt((distances**2).sum(axis=1))), values


class _Drawing:
    """Batches of all runs, drawn some steps at a time; epochs go on from piece to piece."""

    def __init__(self, batches: Batches, runs: int, rng: np.random.Generator) -> None:
        self.batches, self.runs, self.rng = batches, runs, rng
        self.left = np.empty((runs, 0, batches.batch_size), np.int64)

    def pieces(self, steps: int) -> list[int]:
        """Return numbers of steps that are drawn at a time."""
        most = max(1, BLOCK // (self.runs * self.batches.batch_size))
        return [min(most, steps - done) for done in range(0, steps, most)]

    def next(self, steps: int) -> NDArray[np.int64]:
        """Return the batches of so many steps, shape (steps, R, B)."""
        size, count = self.batches.batch_size, self.batches.n_samples
        if self.batches.full_batch:
            whole = np.arange(count, dtype=np.int64)
            return np.broadcast_to(whole, (steps, self.runs, count))
        if self.batches.reshuffle:
            length = self.batches.epoch_length
            epochs = -(-(steps - self.left.shape[1]) // length)
            # Epoch by epoch, so that what is drawn does not depend on the pieces.
            orders = np.tile(np.arange(count), (max(epochs, 0), self.runs, 1))
            fresh = np.swapaxes(self.rng.permuted(orders, axis=2), 0, 1)
            self.left = np.concatenate([self.left, fresh.reshape(self.runs, -1, size)], axis=1)
            taken, self.left = self.left[:, :steps], self.left[:, steps:]
            return np.swapaxes(taken, 0, 1)
        if self.batches.independent:
            return self.rng.choice(
                count, size=(steps, self.runs, size), p=self.batches.probabilities
            )
        keys = self.rng.random((steps, self.runs, count))
        return np.argpartition(keys, size - 1, axis=-1)[..., :size]


def _runs(params: Any) -> int:
    """Return the number of runs, the length of the first axis of every array."""
    leaves = jax.tree.leaves(params)
    if not leaves or not all(np.ndim(leaf) and is_floating(leaf) for leaf in leaves):
        raise ValueError(
            "params must hold floating-point arrays whose first axis is that of the runs, as "
            "Model.initial(rng, runs=R) gives them."
        )
    lengths = {len(leaf) for leaf in leaves}
    if len(lengths) > 1:
        raise ValueError(
            f"params has arrays of {sorted(lengths)} runs along their first axes; they must agree, "
            "as in Model.initial(rng, runs=R)."
        )
    return int(lengths.pop())
