"""Flax, twice: a module that holds its parameters (NNX), and one that is given them (Linen)."""

import jax
import jax.numpy as jnp
import optax
from digits import batches, x, y
from flax import linen, nnx

from stabcore import SGD, stability
from stabcore.networks import minimum_of

optimiser = optax.sgd(learning_rate=0.5, momentum=0.9)


class Network(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(64, 32, rngs=rngs)
        self.out = nnx.Linear(32, 10, rngs=rngs)

    def __call__(self, x):
        return self.out(jnp.tanh(self.hidden(x)))


model = Network(nnx.Rngs(0))
training = nnx.Optimizer(model, optimiser, wrt=nnx.Param)


@nnx.jit
def step(model, training, x, y):
    gradient = nnx.grad(lambda model: jnp.mean((model(x) - y) ** 2))(model)
    training.update(model, gradient)


for batch in batches:
    step(model, training, x[batch], y[batch])

# The verdict on a module of NNX begins.
graph, params, others = nnx.split(model, nnx.Param, ...)
minimum = minimum_of(
    lambda params, x: nnx.merge(graph, params, others)(x), params, x, y, loss="mean_square"
)
print(minimum)
print(stability(minimum, 0.5, SGD(batch_size=4, momentum=0.9), rng=0))
# The verdict on a module of NNX ends.

model = linen.Sequential([linen.Dense(32), jnp.tanh, linen.Dense(10)])
params = model.init(jax.random.key(0), x)["params"]


@jax.jit
def linen_step(params, state, x, y):
    def loss(params):
        return jnp.mean((model.apply({"params": params}, x) - y) ** 2)

    updates, state = optimiser.update(jax.grad(loss)(params), state)
    return optax.apply_updates(params, updates), state


state = optimiser.init(params)
for batch in batches:
    params, state = linen_step(params, state, x[batch], y[batch])

# The verdict on a module of Linen begins.
minimum = minimum_of(
    lambda params, x: model.apply({"params": params}, x), params, x, y, loss="mean_square"
)
print(minimum)
print(stability(minimum, 0.5, SGD(batch_size=4, momentum=0.9), rng=0))
# The verdict on a module of Linen ends.
