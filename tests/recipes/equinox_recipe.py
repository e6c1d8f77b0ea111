"""Equinox and Optax: a module is a pytree, whose arrays of floating-point numbers are trained."""

import equinox
import jax
import jax.numpy as jnp
import optax
from digits import batches, x, y

from stabcore import SGD, stability
from stabcore.networks import minimum_of

model = equinox.nn.MLP(64, 10, 32, depth=1, activation=jnp.tanh, key=jax.random.key(0))
optimiser = optax.sgd(learning_rate=0.5, momentum=0.9)


@equinox.filter_grad
def gradient_of(model, x, y):
    return jnp.mean((jax.vmap(model)(x) - y) ** 2)


@equinox.filter_jit
def step(model, state, x, y):
    updates, state = optimiser.update(gradient_of(model, x, y), state)
    return equinox.apply_updates(model, updates), state


state = optimiser.init(equinox.filter(model, equinox.is_inexact_array))
for batch in batches:
    model, state = step(model, state, x[batch], y[batch])

# The verdict begins.
params, static = equinox.partition(model, equinox.is_inexact_array)
minimum = minimum_of(
    lambda params, x: jax.vmap(equinox.combine(params, static))(x), params, x, y, loss="mean_square"
)
print(minimum)
print(stability(minimum, 0.5, SGD(batch_size=4, momentum=0.9), rng=0))
# The verdict ends.
