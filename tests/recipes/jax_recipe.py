"""JAX and Optax: a network is a function of its parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from digits import batches, x, y

from stabcore import SGD, stability
from stabcore.networks import minimum_of

draw = np.random.default_rng(1)
params = {
    "hidden": jnp.asarray(draw.normal(size=(64, 32)) / 8, jnp.float32),
    "bias": jnp.zeros(32),
    "out": jnp.asarray(draw.normal(size=(32, 10)) / 6, jnp.float32),
}


def apply(params, x):
    return jnp.tanh(x @ params["hidden"] + params["bias"]) @ params["out"]


def loss(params, x, y):
    return jnp.mean((apply(params, x) - y) ** 2)


optimiser = optax.sgd(learning_rate=0.5, momentum=0.9)


@jax.jit
def step(params, state, x, y):
    updates, state = optimiser.update(jax.grad(loss)(params, x, y), state)
    return optax.apply_updates(params, updates), state


state = optimiser.init(params)
for batch in batches:
    params, state = step(params, state, x[batch], y[batch])

# The verdict begins.
minimum = minimum_of(apply, params, x, y, loss="mean_square")
print(minimum)
print(stability(minimum, 0.5, SGD(batch_size=4, momentum=0.9), rng=0))
# The verdict ends.
