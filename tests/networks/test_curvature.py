from dataclasses import replace

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from networks_data import digits, smoothed

from stabcore import SGD
from stabcore.networks import (
    Adam,
    batch_sharpness,
    minimum_of,
    mlp,
    sharpness,
    train,
    transformer,
)

X, Y = digits(5)


@pytest.mark.parametrize("model", [mlp(64, (6,)), transformer((8, 8), 3)])
def test_it_is_the_largest_eigenvalue_of_the_hessian(model):
    params = model.initial(0)
    with jax.enable_x64(True):
        vector, back = jax.flatten_util.ravel_pytree(jax.tree.map(jnp.asarray, params))

        def loss(theta):
            return 0.5 * ((model.apply(back(theta), X) - Y) ** 2).mean()

        hessian = np.asarray(jax.hessian(loss)(vector))
    assert sharpness(model.apply, params, X, Y) == pytest.approx(
        np.linalg.eigvalsh(hessian)[-1], rel=1e-9
    )


@pytest.mark.parametrize("loss", ["half_square", "mean_square", "sum_square", "cross_entropy"])
def test_at_a_minimum_it_is_that_of_the_kernel(loss):
    x, onehot = digits(5, classes=3)
    y, model = smoothed(onehot), mlp(64, (16,), 3)
    minimum = minimum_of(model.apply, model.initial(0), x, y, loss=loss)
    found = sharpness(model.apply, minimum.params, x, y, loss=loss)
    assert found == pytest.approx(minimum.sharpness, rel=1e-8)


def test_few_parameters():
    found = sharpness(lambda w, x: w["a"] * x, {"a": np.ones(())}, [1.0, 3.0], [0.0, 1.0])
    assert found == pytest.approx(5.0)


def test_with_a_preconditioner_it_is_that_of_the_product():
    model, rng = mlp(64, (6,)), np.random.default_rng(0)
    params = model.initial(0)
    scales = {name: rng.uniform(0.5, 2, size=array.shape) for name, array in params.items()}
    with jax.enable_x64(True):
        vector, back = jax.flatten_util.ravel_pytree(jax.tree.map(jnp.asarray, params))
        hessian = jax.hessian(lambda v: 0.5 * ((model.apply(back(v), X) - Y) ** 2).mean())(vector)
        diagonal = np.asarray(jax.flatten_util.ravel_pytree(scales)[0])
    found = sharpness(model.apply, params, X, Y, preconditioner=scales)
    product = np.asarray(hessian) / diagonal[:, None]
    assert found == pytest.approx(np.linalg.eigvals(product).real.max(), rel=1e-9)


def test_what_divides_the_gradient_of_adam():
    """One step from 0 with gradient g: s = (1 − β₂)g², corrected to g²."""
    adam = Adam(batch_size=None, epsilon=0.5)
    ran = train(
        lambda w, x: w["a"][0] * x, {"a": np.zeros((1, 1))}, [1.0, 3.0], [0.0, 2.0], 0.1, adam, 1
    )
    assert adam.preconditioner(ran.state, 0)["a"] == pytest.approx([3.5])  # |mean of (0, −6)| + ½
    with pytest.raises(ValueError, match="state is that of a training"):
        adam.preconditioner(replace(ran.state, moments=ran.state.moments[:1]), 0)


def test_what_is_refused():
    model = mlp(64, (4,))
    with pytest.raises(ValueError, match="preconditioner must have a positive entry for each"):
        sharpness(model.apply, model.initial(0), X, Y, preconditioner={"a": np.ones(3)})
    with pytest.raises(ValueError, match="x has 5 samples but y has 4"):
        sharpness(model.apply, model.initial(0), X, Y[:4])
    with pytest.raises(ValueError, match="loss must be one of"):
        sharpness(model.apply, model.initial(0), X, Y, loss="hinge")


def written_out(model, params, batches, weights):
    """E[gᵀHg]/E[|g|²] with whole Hessians."""
    with jax.enable_x64(True):
        vector, back = jax.flatten_util.ravel_pytree(jax.tree.map(jnp.asarray, params))
        curved, squared = 0.0, 0.0
        for batch, weight in zip(batches, weights, strict=True):

            def loss(theta, batch=batch):
                return 0.5 * ((model.apply(back(theta), X[batch]) - Y[batch]) ** 2).mean()

            gradient, hessian = jax.grad(loss)(vector), jax.hessian(loss)(vector)
            curved += weight * float(gradient @ hessian @ gradient)
            squared += weight * float(gradient @ gradient)
    return curved / squared


@pytest.mark.parametrize("size", [1, 2, None])
def test_batch_sharpness_is_the_curvature_along_the_gradients(size):
    model, method = mlp(64, (4,)), SGD(batch_size=size)
    params, (batches, weights) = model.initial(0), method.batches(5).listed()
    found = batch_sharpness(model.apply, params, X, Y, method)
    assert found == pytest.approx(written_out(model, params, batches, weights), rel=1e-10)


def test_batch_sharpness_of_drawn_batches():
    """Ten batches of two; 4,000 are drawn. The error is that of a ratio of two means."""
    model, method = mlp(64, (4,)), SGD(batch_size=2)
    params = model.initial(0)
    exact = batch_sharpness(model.apply, params, X, Y, method)
    drawn = [
        batch_sharpness(model.apply, params, X, Y, method, draws=9, rng=seed) for seed in range(200)
    ]
    # A ratio of means of nine is biased by an order of 1/9 of its variance.
    assert abs(np.mean(drawn) - exact) < 4 * np.std(drawn) / np.sqrt(200) + np.var(drawn) / exact


def test_batch_sharpness_where_nothing_moves_is_not_a_number():
    assert np.isnan(batch_sharpness(lambda w, x: w["a"] * x, {"a": np.ones(())}, [2.0], [2.0]))
