import numpy as np
import pytest

from stabcore import (
    SGD,
    LinearNetwork,
    Minimum,
    Problem,
    ReluPair,
    ScalarFactorization,
    basin,
    bifurcation_diagram,
    find_cycles,
    find_minimum,
    gd_map,
    gradient_descent,
    period_doublings,
    stochastic_gradient_descent,
)
from stabcore.descent import LineMap, gd_jacobian, map_exponent
from stabcore.problems import check_problem
from stabcore.problems.checking import GRADIENT, HESSIAN, SAMPLES, require_problem
from stabcore.saddles import saddle_law
from stabcore.simulation import escape_times
from tests.problems.test_base import PROBLEMS

INPUTS = np.array([[1.0, 0.5], [2.0, -1.0], [0.5, 3.0]])


class Product(Problem):
    """F(θ, x) = θ₁²x₁ + θ₁θ₂x₂ with targets 1, everything as it is asked for."""

    n_parameters = 2
    probabilities = np.array([0.5, 0.25, 0.25])

    def residuals(self, theta, samples=None):
        x = INPUTS if samples is None else INPUTS[samples]
        first = theta[..., :1] ** 2 * x[..., 0]
        return first + theta[..., :1] * theta[..., 1:] * x[..., 1] - 1

    def jacobian(self, theta, samples=None):
        x = INPUTS if samples is None else INPUTS[samples]
        u, v = theta[..., :1], theta[..., 1:]
        return np.stack([2 * u * x[..., 0] + v * x[..., 1], u * x[..., 1]], axis=-1)

    def residual_curvature(self, theta, weights):
        moments = weights @ INPUTS
        result = np.zeros((*theta.shape, 2))
        result[..., 0, 0] = 2 * moments[..., 0]
        result[..., 0, 1] = result[..., 1, 0] = moments[..., 1]
        return result


class Unbatched(Product):
    def residuals(self, theta, samples=None):
        x = INPUTS if samples is None else INPUTS[samples]
        return theta[0] ** 2 * x[..., 0] + theta[0] * theta[1] * x[..., 1] - 1


class MixedReplicas(Product):
    """Right shapes, but what is subtracted is a mean over the replicas."""

    def residuals(self, theta, samples=None):
        return super().residuals(theta, samples) - 0.1 * theta.mean()


class IgnoresSamples(Product):
    def residuals(self, theta, samples=None):
        return super().residuals(theta)


class TakesFirstSamples(Product):
    """As many rows as were asked for, but always the first ones."""

    def jacobian(self, theta, samples=None):
        rows = super().jacobian(theta)
        return rows if samples is None else rows[..., : samples.shape[-1], :]


class HalfJacobian(Product):
    def jacobian(self, theta, samples=None):
        return super().jacobian(theta, samples) / 2


class OneWrongEntry(Product):
    def jacobian(self, theta, samples=None):
        x = INPUTS if samples is None else INPUTS[samples]
        u, v = theta[..., :1], theta[..., 1:]
        return np.stack([2 * u * x[..., 0] + v * x[..., 1], u * np.abs(x[..., 1])], axis=-1)


class WrongCurvature(Product):
    def residual_curvature(self, theta, weights):
        return super().residual_curvature(theta, weights) * np.array([[1.0, 1.0], [1.0, 2.0]]) + 0.5


class UnbatchedCurvature(Product):
    def residual_curvature(self, theta, weights):
        return super().residual_curvature(theta.reshape(-1, 2)[0], weights.reshape(-1, 3)[0])


class WrongBatch(Product):
    def batch_gradient(self, theta, samples, weights=None):
        return super().batch_gradient(theta, samples) * 1.0


class WrongGradient(Product):
    def gradient(self, theta):
        return -super().gradient(theta)


class HeavyProbabilities(Product):
    probabilities = np.ones(3)


class ListedProbabilities(Product):
    probabilities = [0.5, 0.25, 0.25]  # noqa: RUF012


class NoParameters(Product):
    n_parameters = 0


class SmoothNowhere(Product):
    def smooth(self, theta):
        return np.zeros(theta.shape[:-1], dtype=bool)


class SmoothNumbers(Product):
    def smooth(self, theta):
        return np.ones(theta.shape[:-1])


class Raises(Product):
    def residuals(self, theta, samples=None):
        return float(theta[0]) * INPUTS[:, 0]


BROKEN = {
    Unbatched: "Unbatched.residuals",
    MixedReplicas: "MixedReplicas.residuals changes",
    IgnoresSamples: "IgnoresSamples.residuals must return shape",
    TakesFirstSamples: "TakesFirstSamples.jacobian changes its values for samples",
    HalfJacobian: "HalfJacobian.jacobian is not the derivative of residuals",
    OneWrongEntry: "OneWrongEntry.jacobian is not the derivative",
    WrongCurvature: "WrongCurvature.residual_curvature is not the derivative",
    UnbatchedCurvature: "UnbatchedCurvature.hessian",
    WrongBatch: "WrongBatch.batch_gradient is not the mean",
    WrongGradient: "WrongGradient.gradient is not the derivative of loss",
    HeavyProbabilities: "HeavyProbabilities.probabilities must sum to 1",
    NoParameters: "NoParameters.n_parameters must be at least 1",
    SmoothNowhere: "points has none",
    SmoothNumbers: "smooth must return booleans",
    Raises: r"Raises.residuals fails for θ of shape .* leading axes",
}


def test_a_right_problem_passes():
    check_problem(Product())
    check_problem(Product(), points=[[0.0, 0.0], [1e3, -1e-3]], rng=3)


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS.keys())
def test_the_models_of_the_package_pass(problem):
    positive = np.abs(np.random.default_rng(0).normal(size=(3, problem.n_parameters)))
    check_problem(problem, points=positive + 0.1)


def test_several_outputs_pass():
    rng = np.random.default_rng(0)
    check_problem(LinearNetwork(rng.normal(size=(4, 2)), rng.normal(size=(4, 3)), [2]))


@pytest.mark.parametrize(("kind", "message"), BROKEN.items())
def test_what_is_broken_is_named(kind, message):
    with pytest.raises(ValueError, match=message):
        check_problem(kind())


def test_probabilities_are_an_array():
    with pytest.raises(TypeError, match=r"probabilities must be an array.*np.full"):
        check_problem(ListedProbabilities())


def test_no_problem_at_all():
    with pytest.raises(TypeError, match="problem must be a Problem, got int"):
        check_problem(3)


def test_a_kink_inside_the_domain_of_smoothness_shows():
    class Bent(ReluPair):
        def smooth(self, theta):
            return np.ones(theta.shape[:-1], dtype=bool)

        def residuals(self, theta, samples=None):
            return np.abs(super().residuals(theta, samples))

    with pytest.raises(ValueError, match=r"Bent.jacobian is not the derivative .* kinks"):
        check_problem(Bent(), points=[[0.5, 0.5]])


ENTRIES = {
    "gd_map": lambda p: gd_map(p, [1.0, 1.0], 0.1),
    "gd_jacobian": lambda p: gd_jacobian(p, [1.0, 1.0], 0.1),
    "basin": lambda p: basin(p, [1.0], [1.0], 0.1, 10),
    "gradient_descent": lambda p: gradient_descent(p, [[1.0, 1.0]], 0.1, 10),
    "sgd": lambda p: stochastic_gradient_descent(p, [[1.0, 1.0]], 0.1, SGD(), 10, rng=0),
    "escape_times": lambda p: escape_times(p, [0, 0], [[0.1, 0.1]], 0.1, SGD(), 9, radius=1.0),
    "find_cycles": lambda p: find_cycles(p, 0.1, 2, n_starts=3),
    "bifurcation_diagram": lambda p: bifurcation_diagram(p, [0.1], [1.0, 1.0], keep=2),
    "period_doublings": lambda p: period_doublings(p, 1, start=[1.0, 1.0]),
    "map_exponent": lambda p: map_exponent(p, 0.1, [1.0, 1.0]),
    "line": LineMap,
    "minimum": lambda p: Minimum.at(p, [1.0, 1.0]),
    "find_minimum": lambda p: find_minimum(p, [1.0, 1.0]),
    "saddle_law": lambda p: saddle_law(p, [0.0, 0.0], 0.1, SGD()),
}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("kind", [Unbatched, HeavyProbabilities, Raises])
def test_every_entry_looks_at_what_it_uses(entry, kind):
    with pytest.raises(ValueError, match=rf"^{kind.__name__}\."):
        ENTRIES[entry](kind())


@pytest.mark.parametrize("entry", ["sgd", "escape_times"])
@pytest.mark.parametrize("kind", [IgnoresSamples, TakesFirstSamples])
def test_sgd_looks_at_samples(entry, kind):
    with pytest.raises(ValueError, match=rf"^{kind.__name__}\."):
        ENTRIES[entry](kind())


@pytest.mark.parametrize("entry", ["gd_jacobian", "find_cycles", "map_exponent"])
def test_what_needs_a_hessian_looks_at_it(entry):
    with pytest.raises(ValueError, match=r"^UnbatchedCurvature.hessian"):
        ENTRIES[entry](UnbatchedCurvature())


def test_full_batches_need_no_samples():
    runs = gradient_descent(IgnoresSamples(), [[1.0, 1.0]], 0.01, 10)
    assert np.isfinite(runs.ends).all()


def test_a_subclass_is_looked_at_although_its_parent_is_ours():
    class Broken(ScalarFactorization):
        def residuals(self, theta, samples=None):
            return theta[0] * theta[1] - np.ones(1)

    with pytest.raises(ValueError, match=r"^Broken.residuals"):
        gd_map(Broken(), [1.0, 2.0], 0.1)


def test_the_cheap_look_asks_for_no_whole_jacobian():
    calls = []

    class Wide(Product):
        def jacobian(self, theta, samples=None):
            calls.append(None if samples is None else samples.shape)
            return super().jacobian(theta, samples)

        def gradient(self, theta):
            return super().gradient(theta)

    class OwnGradient(Wide):
        def gradient(self, theta):
            return np.zeros_like(theta)

    require_problem(OwnGradient(), GRADIENT, SAMPLES)
    assert calls
    assert None not in calls


def test_a_problem_without_curvature_is_no_broken_one():
    class Flat(Product):
        residual_curvature = Problem.residual_curvature

    require_problem(Flat(), GRADIENT, HESSIAN)
    check_problem(Flat())
