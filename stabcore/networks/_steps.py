"""Steps of a training, compiled: those of SGD and Adam, and what is recorded on the way."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from stabcore._jax import jax, jnp
from stabcore.networks._losses import PER_SAMPLE, RESIDUAL
from stabcore.networks.adam import Adam
from stabcore.sampling import SGD

NEVER = -1


@partial(jax.jit, static_argnums=(0, 1, 2))
def follow(
    apply: Callable[[Any, Any], Any],
    loss: str,
    method: SGD | Adam,
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

    rule = partial(_adam_step, method) if isinstance(method, Adam) else partial(_sgd_step, method)

    def step(count: Any, one: Any, moments: Any, eta: Any, batch: Any) -> tuple[Any, Any]:
        gradient = jax.grad(batch_loss)(one, batch)
        if method.weight_decay:
            gradient = jax.tree.map(lambda g, p: g + method.weight_decay * p, gradient, one)
        moments, ahead = rule(count, moments, gradient)
        return jax.tree.map(lambda p, a: p - eta * a, one, ahead), moments

    def body(index: Any, carry: Any) -> Any:
        now, moments, lost, done = carry
        batches = drawn[index]
        now, moments = jax.vmap(partial(step, done + 1))(now, moments, step_sizes, batches)
        finite = jnp.stack(
            [jnp.isfinite(a).reshape(len(a), -1).all(axis=1) for a in jax.tree.leaves(now)]
        ).all(axis=0)
        return now, moments, jnp.where((lost == NEVER) & ~finite, done + 1, lost), done + 1

    return jax.lax.fori_loop(0, steps, body, carry)


def _sgd_step(method: SGD, count: Any, moments: Any, gradient: Any) -> tuple[Any, Any]:
    """Return the new velocity and what is subtracted, in units of the step size."""
    beta = method.momentum
    velocity = jax.tree.map(lambda old, g: beta * old + g, moments[0], gradient)
    if not method.nesterov:
        return (velocity,), velocity
    return (velocity,), jax.tree.map(lambda new, g: g + beta * new, velocity, gradient)


def _adam_step(method: Adam, count: Any, moments: Any, gradient: Any) -> tuple[Any, Any]:
    """Return the new averages and what is subtracted, in units of the step size."""
    one, two = method.beta1, method.beta2
    first = jax.tree.map(lambda m, g: one * m + (1 - one) * g, moments[0], gradient)
    second = jax.tree.map(lambda s, g: two * s + (1 - two) * g**2, moments[1], gradient)

    def ahead(m: Any, s: Any) -> Any:
        # Powers of Python numbers would be in the precision of the counter, not of the parameters.
        start_first, start_second = (1 - jnp.asarray(beta, m.dtype) ** count for beta in (one, two))
        return (m / start_first) / (jnp.sqrt(s / start_second) + method.epsilon)

    return (first, second), jax.tree.map(ahead, first, second)


@partial(jax.jit, static_argnums=(0, 1))
def look(
    apply: Callable[[Any, Any], Any], loss: str, params: Any, inputs: Any, targets: Any
) -> tuple[Any, Any]:
    """Return the log-residual and the mean loss of every run, over all data."""
    outputs = jax.vmap(lambda one: apply(one, inputs))(params)
    distances = RESIDUAL[loss](outputs, targets).reshape(len(outputs), -1)
    values = jax.vmap(lambda f: PER_SAMPLE[loss](f, targets))(outputs).mean(axis=1)
    return jnp.log(jnp.sqrt((distances**2).sum(axis=1))), values
