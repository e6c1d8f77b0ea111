r"""Training, many runs at once: SGD as in PyTorch, compiled, with batches drawn beforehand.

A simulation: it knows the network, the loss and the batches, and nothing of kernels or exponents.
Every run has its own parameters, step size and batches. The same seed gives the same result.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stabcore import _rates
from stabcore import _validation as check
from stabcore._jax import double_precision, is_floating, jax, jnp
from stabcore._validation import Array
from stabcore.networks._drawing import Drawing
from stabcore.networks._steps import NEVER, follow, look
from stabcore.networks.adam import Adam
from stabcore.problems.losses import LOSSES, _smoothed_labels
from stabcore.sampling import SGD, Batches, as_method

BARS = 100  # pieces of a training that shows its progress


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """What a training needs besides the parameters to go on as if it had not stopped.

    Attributes
    ----------
    moments : tuple of pytrees
        The velocity; of Adam the two averages.
    steps : int
        Steps taken so far.
    diverged_at : array of int, shape (R,)
    left : array of int, shape (R, steps, B)
        What is left of an epoch.
    """

    moments: tuple[Any, ...]
    steps: int
    diverged_at: NDArray[np.int64]
    left: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Training:
    """Runs of SGD on a network, at the step where they stopped.

    Attributes
    ----------
    params : pytree
        Of all runs, along the first axis of every array.
    state : TrainingState
        To go on from here.
    times : array of int, shape (T,)
        The recorded steps: 0, k, 2k, ... and the last; those of a resumed training go on.
    log_residuals : array, shape (T, R)
        log‖F − y‖ over all samples and outputs (cross-entropy: of the softmax minus the labels).
    losses : array, shape (T, R)
        The mean loss over the data, as it was named.
    diverged_at : array of int, shape (R,)
        The first step after which a parameter was not finite; −1 if that never happened.
    """

    params: Any
    state: TrainingState
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

    growth_rate = _rates.growth_rate

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
    method: SGD | Adam,
    steps: int,
    *,
    loss: str = "half_square",
    rng: int | np.random.Generator | None = None,
    record_every: int | None = None,
    state: TrainingState | None = None,
    progress: bool = False,
) -> Training:
    r"""Train a network, many runs at once.

    A grid of data sets, widths or methods is a matter of `stabcore.sweep`, which asks a function
    of yours that calls this one, on all cores, or with Dask or Ray on several machines.

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
    method : SGD or Adam
        How one trains; all they can say is done.
    steps : int
    loss : str
        As in `Minimum.from_jacobian`.
    rng : int, numpy.random.Generator or None
        Of the batches.
    record_every : int, optional
        Record every so many steps; only the start and the end by default.
    state : TrainingState, optional
        Of an earlier `Training`, to go on from where it stopped; with its `params`, and the same
        generator as `rng`, the result is that of one training.
    progress : bool
        Show a progress bar.

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
    how = method if isinstance(method, Adam) else as_method(method)
    count = check.integer("steps", steps)
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
    generator = check.generator(rng)
    stride = count if record_every is None else check.integer("record_every", record_every)
    check.boolean("progress", progress)
    double = any(leaf.dtype == np.float64 for leaf in jax.tree.leaves(params) if is_floating(leaf))
    with double_precision() if double else nullcontext():
        batches = how.batches(len(targets))
        start = _fresh(params, how, batches) if state is None else _fitting(state, params, how)
        times = start.steps + np.unique(np.append(np.arange(0, count + 1, stride), count))
        draw = Drawing(batches, runs, generator, start.left)
        problem = _Problem(apply, loss, how, inputs, targets, batches.scales, params)
        return _trained(problem, params, start, rates, times, draw, progress)


class _Problem:
    """The network, its loss and the data, in the precision of the parameters."""

    def __init__(
        self,
        apply: Callable[[Any, Any], Any],
        loss: str,
        method: SGD | Adam,
        inputs: NDArray[Any],
        targets: Array,
        scales: Array,
        params: Any,
    ) -> None:
        self.kind = jnp.result_type(jax.tree.leaves(params)[0])
        self.how = apply, loss, method
        self.data = (
            jnp.asarray(inputs, self.kind if inputs.dtype.kind == "f" else None),
            jnp.asarray(targets, self.kind),
        )
        self.scales = jnp.asarray(scales, self.kind)

    def look(self, params: Any) -> tuple[Array, Array]:
        """Return the log-residual and the mean loss of every run."""
        logs, losses = look(*self.how[:2], params, *self.data)
        return np.asarray(logs, dtype=float), np.asarray(losses, dtype=float)


def _trained(
    problem: _Problem,
    params: Any,
    state: TrainingState,
    rates: Array,
    times: NDArray[np.int64],
    draw: Drawing,
    progress: bool,
) -> Training:
    from tqdm import tqdm  # only a long training needs it

    runs = draw.runs
    step_sizes = jnp.broadcast_to(jnp.asarray(rates, problem.kind), (runs,))
    params = jax.tree.map(jnp.asarray, params)
    carry = params, state.moments, jnp.asarray(state.diverged_at), jnp.asarray(state.steps)
    seen = [problem.look(params)]
    total = int(times[-1] - times[0])
    most = max(1, total // BARS) if progress else total
    with tqdm(total=total, disable=not progress, unit="step") as bar:
        for first, last in pairwise(times):
            for size in draw.pieces(int(last - first), most):
                drawn = draw.next(size)
                # Padded to a power of two: a run of another length need not be compiled again.
                padding = 2 ** (size - 1).bit_length() - size
                padded = np.pad(drawn, ((0, padding), (0, 0), (0, 0)))
                carry = follow(
                    *problem.how, carry, padded, size, *problem.data, problem.scales, step_sizes
                )
                bar.update(size)
            seen.append(problem.look(carry[0]))
    logs, losses = (np.array(part) for part in zip(*seen, strict=True))
    diverged = np.asarray(carry[2], dtype=np.int64)
    return Training(
        params=carry[0],
        state=TrainingState(
            moments=carry[1], steps=int(times[-1]), diverged_at=diverged, left=draw.left
        ),
        times=times.astype(np.int64),
        log_residuals=logs,
        losses=losses,
        diverged_at=diverged,
    )


def _fresh(params: Any, method: SGD | Adam, batches: Batches) -> TrainingState:
    """Return the state in which a training starts."""
    runs, zeros = _runs(params), jax.tree.map(jnp.zeros_like, params)
    return TrainingState(
        moments=(zeros, zeros) if isinstance(method, Adam) else (zeros,),
        steps=0,
        diverged_at=np.full(runs, NEVER),
        left=np.empty((runs, 0, batches.batch_size), np.int64),
    )


def _fitting(state: TrainingState, params: Any, method: SGD | Adam) -> TrainingState:
    """Return the state of an earlier training, and refuse that of another one."""
    if not isinstance(state, TrainingState):
        raise TypeError(
            f"state must be that of an earlier Training, got {check.short(state)}; pass its .state."
        )
    needed = 2 if isinstance(method, Adam) else 1
    shapes = [[leaf.shape for leaf in jax.tree.leaves(one)] for one in state.moments]
    if shapes != [[np.shape(leaf) for leaf in jax.tree.leaves(params)]] * needed:
        raise ValueError(
            "state is that of other runs or another method; pass the params and the state of one "
            "Training, and its method."
        )
    return state


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
