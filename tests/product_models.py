"""Random matrix products with known exponents, and the naive ways to compute them."""

import math
from itertools import permutations

import numpy as np
from scipy.special import digamma

from stabcore import SGD, FiniteLaw, Minimum, SGDLaw
from stabcore.lyapunov import SampledLaw


def epochs(law):
    """Return the products of all orders in which an epoch can use the samples, as a law."""
    size, count = law.batches.batch_size, law.minimum.n_samples
    products = []
    for order in permutations(range(count)):
        product = np.eye(law.dimension)
        for batch in np.reshape(order, (-1, size)):
            rows = law.minimum.gradients[batch]
            product = (np.eye(law.dimension) - law.step_size / size * rows.T @ rows) @ product
        products.append(product)
    return FiniteLaw(products)


def gaussian(dimension):
    return SampledLaw(lambda rng, size: rng.normal(size=(size, dimension, dimension)), dimension)


def gaussian_exponents(dimension):
    """the i-th exponent is (log 2 + ψ((d − i + 1)/2))/2."""
    return (math.log(2) + digamma((dimension - np.arange(dimension)) / 2)) / 2


def gram(angles, norms=1.0):
    """Return the kernel of gradients in the plane with these directions and norms."""
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.reshape(norms, (-1, 1))
    return vectors @ vectors.T


def naive_exponents(law, steps, rng):
    """Return all exponents of a finite law by QR, and the mean of log|det| along the way."""
    basis, logs = np.eye(law.dimension), np.zeros(law.dimension)
    drawn = np.random.default_rng(rng).choice(len(law.matrices), steps, p=law.probabilities)
    for index in drawn:
        basis, triangle = np.linalg.qr(law.matrices[index] @ basis)
        logs += np.log(np.abs(np.diag(triangle)))
    return logs / steps, np.log(np.abs(np.linalg.det(law.matrices)))[drawn].mean()


def weighted_law(kernel, step_size, *, probabilities=None, **fields):
    """Return SGD on data with these probabilities; the other options are those of the method."""
    return SGDLaw(Minimum(kernel, probabilities), step_size, SGD(**fields))


def z_score(result, truth):
    """Return the distance from the truth in standard errors."""
    return (result.value - truth) / result.standard_error


def kernel(seed, samples, parameters=None):
    jacobian = np.random.default_rng(seed).normal(size=(samples, parameters or samples))
    return jacobian @ jacobian.T


def random_law(seed, factors=3, dimension=2):
    generator = np.random.default_rng(seed)
    matrices = generator.normal(size=(factors, dimension, dimension))
    return FiniteLaw(matrices, generator.dirichlet(np.ones(factors)))
