"""Products with a Jacobian and its transpose for several replicas at once, plain or compiled."""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stabcore._jax import double_precision, jax, jnp
from stabcore._validation import Array
from stabcore.sampling import SGD

AT_ONCE = 256  # samples times replicas whose activations are held at a time: in the cache


class Engine(Protocol):
    """Products with J and Jᵀ for several replicas: vectors (R, D), duals (R, N, C)."""

    def pull(self, duals: Array) -> Array:
        """Return Jᵀa of every replica."""

    def push(self, vectors: Array) -> Array:
        """Return Jv of every replica."""

    def largest_block(self) -> float:
        """Return the largest eigenvalue of all J_iJ_iᵀ."""

    def steps(
        self, state: Array, drawn: NDArray[np.int64], rate: float, method: SGD, longest: int
    ) -> tuple[Array, Array]:
        """Return the state (k, R, D) after the batches drawn (T, R, B), and −rate·J_i v of all."""


class Plain:
    """Products by calling Python for every batch of every replica."""

    def __init__(self, products: Any) -> None:
        self.products = products

    def pull(self, duals: Array) -> Array:
        """Return Jᵀa of every replica."""
        blocks = _blocks(self.products.n_samples, 1)
        return np.array(
            [sum(_array(self.products.vjp(block, a[block])) for block in blocks) for a in duals]
        )

    def push(self, vectors: Array) -> Array:
        """Return Jv of every replica."""
        blocks = _blocks(self.products.n_samples, 1)
        return np.array(
            [np.concatenate([_array(self.products.jvp(b, v)) for b in blocks]) for v in vectors]
        )

    def largest_block(self) -> float:
        """Return the largest eigenvalue of all J_iJ_iᵀ."""
        units = np.eye(self.products.n_outputs)[:, None]
        largest = 0.0
        for sample in np.arange(self.products.n_samples)[:, None]:
            rows = np.array([_array(self.products.vjp(sample, unit)) for unit in units])
            largest = max(largest, float(np.linalg.eigvalsh(rows @ rows.T)[-1]))
        return largest

    def steps(
        self, state: Array, drawn: NDArray[np.int64], rate: float, method: SGD, longest: int
    ) -> tuple[Array, Array]:
        """Return the state after the batches drawn, and the increments of the duals."""
        state = state.copy()
        weights = np.empty((*drawn.shape, self.products.n_outputs))
        with np.errstate(all="ignore"):  # what overflows is done again in shorter stretches
            for step, batches in enumerate(drawn):
                for replica, batch in enumerate(batches):
                    found = -rate * _array(self.products.jvp(batch, state[0, replica]))
                    pull = _array(self.products.vjp(batch, found))
                    state[:, replica] = _stepped(state[:, replica], pull, method, np)
                    weights[step, replica] = found
        return state, weights


class Compiled:
    """Products of callables that JAX compiles, all replicas at once."""

    def __init__(self, products: Any) -> None:
        self.products = products

    def pull(self, duals: Array) -> Array:
        """Return Jᵀa of every replica."""
        with double_precision():
            return np.asarray(_pull(self.products.vjp, duals, self.products.n_parameters))

    def push(self, vectors: Array) -> Array:
        """Return Jv of every replica."""
        with double_precision():
            return np.asarray(_push(self.products.jvp, vectors, self.products.n_samples))

    def largest_block(self) -> float:
        """Return the largest eigenvalue of all J_iJ_iᵀ."""
        products = self.products
        with double_precision():
            found = _blocks_of_kernel(products.vjp, products.n_samples, products.n_outputs)
            return float(np.linalg.eigvalsh(np.asarray(found)).max())

    def steps(
        self, state: Array, drawn: NDArray[np.int64], rate: float, method: SGD, longest: int
    ) -> tuple[Array, Array]:
        """Return the state after the batches drawn, and the increments of the duals."""
        # Padded to one length: stretches of another length need not be compiled again.
        padded = np.pad(drawn, ((0, longest - len(drawn)), (0, 0), (0, 0)))
        with double_precision():
            found = _steps(
                self.products.jvp,
                self.products.vjp,
                state,
                padded,
                len(drawn),
                rate,
                method,
                self.products.n_outputs,
            )
            return np.asarray(found[0]), np.asarray(found[1])[: len(drawn)]


def _stepped(state: Any, pull: Any, method: SGD, numpy: Any) -> Any:
    """Return the position, or position and velocity, after one step."""
    if not method.momentum:
        return state + pull
    velocity = method.momentum * state[1] + pull
    ahead = pull + method.momentum * velocity if method.nesterov else velocity
    return numpy.stack([state[0] + ahead, velocity])


def _array(value: Any) -> Array:
    return np.asarray(value, dtype=np.float64)


def _blocks(samples: int, replicas: int) -> list[NDArray[np.int64]]:
    size = _block_size(samples, replicas)
    return [np.arange(i, min(i + size, samples)) for i in range(0, samples, size)]


def _block_size(samples: int, replicas: int) -> int:
    return min(samples, max(16, AT_ONCE // replicas))


@partial(jax.jit, static_argnums=(6, 7))
def _steps(
    jvp: Any,
    vjp: Any,
    state: Any,
    drawn: Any,
    count: Any,
    rate: Any,
    method: SGD,
    outputs: int,
) -> Any:
    """Take `count` steps of all replicas."""

    def single(batch: Any, state: Any) -> tuple[Any, Any]:
        weights = -rate * jvp(batch, state[0])
        return _stepped(state, vjp(batch, weights), method, jnp), weights

    def body(step: Any, carry: Any) -> Any:
        state, kept = carry
        state, weights = jax.vmap(single, (0, 1), (1, 0))(drawn[step], state)
        return state, kept.at[step].set(weights)

    kept = jnp.zeros((*drawn.shape, outputs))
    return jax.lax.fori_loop(0, count, body, (state, kept))


@partial(jax.jit, static_argnums=2)
def _pull(vjp: Any, duals: Any, parameters: int) -> Any:
    """Return Σ_i J_iᵀa_i of all replicas, block after block of samples."""
    replicas, samples, outputs = duals.shape
    size = _block_size(samples, replicas)
    whole = samples // size

    def add(total: Any, part: Any) -> tuple[Any, None]:
        block, weights = part
        return total + jax.vmap(vjp, (None, 0))(block, weights), None

    blocks = jnp.arange(whole * size).reshape(whole, size)
    weights = duals[:, : whole * size].reshape(replicas, whole, size, outputs)
    total = jnp.zeros((replicas, parameters))
    total, _ = jax.lax.scan(add, total, (blocks, jnp.moveaxis(weights, 1, 0)))
    if samples == whole * size:
        return total
    return add(total, (jnp.arange(whole * size, samples), duals[:, whole * size :]))[0]


@partial(jax.jit, static_argnums=2)
def _push(jvp: Any, vectors: Any, samples: int) -> Any:
    """Return J_i v of all replicas, block after block of samples."""
    size = _block_size(samples, len(vectors))
    whole = samples // size

    def products(block: Any) -> Any:
        return jax.vmap(jvp, (None, 0))(block, vectors)

    found = jax.lax.map(products, jnp.arange(whole * size).reshape(whole, size))
    found = jnp.moveaxis(found, 0, 1).reshape(len(vectors), whole * size, -1)
    if samples == whole * size:
        return found
    return jnp.concatenate([found, products(jnp.arange(whole * size, samples))], axis=1)


@partial(jax.jit, static_argnums=(1, 2))
def _blocks_of_kernel(vjp: Any, samples: int, outputs: int) -> Any:
    """Return J_iJ_iᵀ of every sample, one after another."""

    def block(sample: Any) -> Any:
        units = jnp.eye(outputs)[:, None]
        rows = jax.vmap(vjp, (None, 0))(sample[None], units)
        return rows @ rows.T

    return jax.lax.map(block, jnp.arange(samples))
