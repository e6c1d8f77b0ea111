"""Maps and problems with known cycles, for the tests of several modules."""

import numpy as np

from stabcore import Problem, TwoLayerNetwork


class Logistic:
    def __call__(self, x, parameter):
        return parameter * x * (1 - x)

    def derivative(self, x, parameter):
        return parameter * (1 - 2 * x)


class Turned(Problem):
    """Σ_j f_j(x_j) in coordinates x = θ Q turned by a random rotation.

    f' = wx(x² − 1), whose cascade is that of the cubic map; the last one is ½c x² if c is given.
    """

    probabilities = np.ones(1)

    def __init__(self, weights, curvature=None):
        self.weights, self.curvature = np.array(weights), curvature
        self.n_parameters = self.weights.size + (curvature is not None)
        noise = np.random.default_rng(5).normal(size=(self.n_parameters, self.n_parameters))
        self.rotation = np.linalg.qr(noise)[0]

    def point(self, *x):
        return self.rotation @ np.array(x)

    def residuals(self, theta, samples=None):
        raise NotImplementedError

    jacobian = residuals

    def gradient(self, theta):
        x = theta @ self.rotation
        slope = np.full(x.shape, self.curvature or 0.0) * x
        u = x[..., : self.weights.size]
        slope[..., : self.weights.size] = self.weights * u * (u**2 - 1)
        return slope @ self.rotation.T

    def hessian(self, theta):
        x = theta @ self.rotation
        bend = np.full(x.shape, self.curvature or 0.0)
        u = x[..., : self.weights.size]
        bend[..., : self.weights.size] = self.weights * (3 * u**2 - 1)
        return (self.rotation * bend[..., None, :]) @ self.rotation.T


def cubic(x, a):
    return x + a * x * (1 - x * x)


def small_network():
    """More samples (20) than parameters (3): the minimum is isolated and the loss is not 0."""
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(20, 1))
    targets = 1.5 * np.tanh(2 * inputs[:, 0] - 0.5) + 0.3 * rng.normal(size=20)
    return TwoLayerNetwork(inputs, targets, width=1)
