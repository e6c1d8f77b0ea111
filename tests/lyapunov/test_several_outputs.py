"""A sample with C outputs owns C rows: every method against brute force and known values."""

import math
from itertools import combinations, product

import numpy as np
import pytest

from stabcore import (
    GD,
    SGD,
    LinearNetwork,
    Minimum,
    SGDLaw,
    find_minimum,
    gd_exponent,
    mean_square_edge,
    sgd_exponent,
    stable_steps,
    stochastic_gradient_descent,
)
from stabcore.lyapunov import (
    closed_form,
    determinant_bound,
    lyapunov_spectrum,
    mean_square,
    mean_square_exponent,
    monte_carlo,
    transfer,
)

# The Jacobian of two samples with two outputs; reference values derived for the book.
JACOBIAN = np.array(
    [[[1, 2, 0, 1, 0, 0], [0, 1, 1, 0, 2, 0]], [[1, 0, 1, 0, 0, 2], [0, 1, 0, 2, 1, 1]]], float
)
SMALL = np.random.default_rng(3).normal(size=(3, 2, 4))  # rank 4 of 6
DEPENDENT = np.array([[[1.0, 2.0, 0.0], [2.0, 4.0, 0.0]], [[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]]])


def brute_force(jacobian, step_size, size=1, probabilities=None, *, replacement=False):
    """Return the factors I − (η/B) Σ J_iᵀJ_i on the normal space, from its SVD, and weights."""
    samples = range(len(jacobian))
    rows = jacobian.reshape(-1, jacobian.shape[-1])
    _, singular, right = np.linalg.svd(rows, full_matrices=False)
    basis = right[singular > 1e-10 * singular[0]].T
    p = np.full(len(jacobian), 1 / len(jacobian)) if probabilities is None else probabilities
    if replacement:
        batches = list(product(samples, repeat=size))
        weights = [math.prod(p[i] for i in batch) for batch in batches]
    else:
        batches = list(combinations(samples, size))
        weights = [p[batch[0]] if size == 1 else 1 / len(batches) for batch in batches]
    factors = []
    for batch in batches:
        hessian = sum(jacobian[i].T @ jacobian[i] for i in batch) / size
        factors.append(np.eye(basis.shape[1]) - step_size * basis.T @ hessian @ basis)
    return np.array(factors), np.array(weights)


def second_moment(factors, weights):
    moment = sum(w * np.kron(a, a) for a, w in zip(factors, weights, strict=True))
    return math.log(np.abs(np.linalg.eigvals(moment)).max()) / 2


def test_known_values():
    minimum = Minimum.from_jacobian(JACOBIAN)
    assert 2 / minimum.sharpness == pytest.approx(0.301044892719, abs=1e-12)
    assert 2 / minimum.sample_curvatures.max() == pytest.approx(0.233602483536, abs=1e-12)
    assert mean_square_edge(minimum) == pytest.approx(0.244905039622, abs=1e-12)
    assert gd_exponent(minimum, 0.2).value == pytest.approx(-0.256511390360, abs=1e-12)
    law = SGDLaw(minimum, 0.2)
    assert 4 * determinant_bound(law).value == pytest.approx(-2.322996090254, abs=1e-12)
    assert mean_square_exponent(law).value == pytest.approx(-0.148792787177, abs=1e-12)
    simulated = monte_carlo(law, rng=0)
    assert abs(simulated.value + 0.1982) < 4 * (simulated.standard_error + 0.0003)
    # At η = 1 and orthonormal rows each factor is a projection (a method of Kaczmarz).
    rows = np.array([np.linalg.qr(one.T)[0].T for one in JACOBIAN])
    projections = sgd_exponent(Minimum.from_jacobian(rows), 1.0, rng=0)
    assert abs(projections.value + 0.196627681558) < 4 * projections.standard_error


def test_rows_are_not_samples():
    """Row by row, at twice the step for the mean over twice as many, the edge is another one."""
    rows = JACOBIAN.reshape(4, 6)
    assert mean_square_edge(rows @ rows.T) / 2 == pytest.approx(0.157250176979, abs=1e-12)


@pytest.mark.parametrize("jacobian", [JACOBIAN, SMALL, DEPENDENT], ids=["full", "small", "zero"])
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("perron", [False, True])
def test_against_brute_force(jacobian, size, replacement, perron, monkeypatch):
    if perron:
        monkeypatch.setattr(mean_square, "MOST_ORDER_SGD", 0)
    minimum = Minimum.from_jacobian(jacobian)
    method = SGD(batch_size=size, replacement=replacement)
    step_size = 0.4 / minimum.sharpness
    law = SGDLaw(minimum, step_size, method)
    factors, weights = brute_force(jacobian, step_size, size, replacement=replacement)
    assert law.dimension == factors.shape[1]
    expected = np.sort(np.linalg.eigvalsh(np.tensordot(weights, factors, 1)))
    finite = law.finite()
    found = np.sort(np.linalg.eigvalsh(np.tensordot(finite.probabilities, finite.matrices, 1)))
    assert found == pytest.approx(expected, abs=1e-12)
    moment = second_moment(factors, weights)
    assert mean_square_exponent(law).value == pytest.approx(moment, abs=1e-10)
    logs = np.log(np.abs(np.linalg.det(factors)))
    bound = determinant_bound(law)
    assert bound.value == pytest.approx(weights @ logs / law.dimension, abs=1e-11)
    edge = mean_square_edge(minimum, method)
    for factor, sign in ((0.999, -1), (1.001, 1)):
        at = brute_force(jacobian, factor * edge, size, replacement=replacement)
        assert np.sign(second_moment(*at)) == sign


def test_unequal_probabilities():
    p = [0.2, 0.5, 0.3]
    minimum = Minimum.from_jacobian(SMALL, probabilities=p)
    factors, weights = brute_force(SMALL, 0.1, 1, p)
    hessian = np.tensordot(weights, np.eye(4) - factors, 1) / 0.1
    assert minimum.hessian_spectrum == pytest.approx(np.linalg.eigvalsh(hessian), rel=1e-10)
    law = SGDLaw(minimum, 0.1)
    moment = second_moment(factors, weights)
    assert mean_square_exponent(law).value == pytest.approx(moment, abs=1e-12)


def test_equal_gradients_are_one_output_with_the_sum():
    """J_iᵀJ_i is the same for rows (g, g) and for the row √2 g."""
    rows = np.array([[1.0, 0.4], [0.3, 1.2], [-0.5, 0.8]])
    twice = Minimum.from_jacobian(np.stack([rows, rows], axis=1))
    once = Minimum(2 * rows @ rows.T)
    assert twice.rank == once.rank == 2
    assert twice.hessian_spectrum == pytest.approx(once.hessian_spectrum, rel=1e-12)
    for method in (SGD(), SGD(batch_size=2), SGD(reshuffle=True), GD):
        one, two = (sgd_exponent(point, 0.7, method) for point in (once, twice))
        assert two.value == pytest.approx(one.value, abs=1e-9)
    assert mean_square_edge(twice) == pytest.approx(mean_square_edge(once), rel=1e-10)
    first, second = (str(stable_steps(point, points=16)) for point in (once, twice))
    assert first == second
    line = Minimum.from_jacobian(np.ones((3, 2, 1)) * [[[1.0]], [[2.0]], [[0.5]]])
    flat = Minimum(2 * np.outer([1, 2, 0.5], [1, 2, 0.5]))
    assert closed_form(SGDLaw(line, 0.3)).value == pytest.approx(
        closed_form(SGDLaw(flat, 0.3)).value, abs=1e-14
    )


def test_outputs_that_decouple():
    """K = K₁ ⊗ diag(m): every output is a problem of its own, and λ the largest of their λ."""
    kernel, m = np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([0.3, 1.1])
    minimum = Minimum(np.kron(kernel, np.diag(m)), outputs=2)
    assert len(minimum.blocks) == 2
    own = [transfer(SGDLaw(factor * kernel, 0.4)).value for factor in m]
    result = sgd_exponent(minimum, 0.4, rng=0)
    assert result.lower < max(own) < result.upper
    diagonal = Minimum(np.kron(np.diag([1.0, 2.0]), np.diag(m)), outputs=2)
    expected = max(np.log(abs(1 - 0.4 * k * factor)) / 2 for k in (1, 2) for factor in m)
    assert closed_form(SGDLaw(diagonal, 0.4)).value == pytest.approx(expected, abs=1e-14)


def test_outputs_that_decouple_after_a_rotation():
    kernel, m = np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([[2, 0.5], [0.5, 1]])
    result = sgd_exponent(Minimum(np.kron(kernel, m), outputs=2), 0.4, rng=0)
    assert abs(result.value - 0.157617690) < 4 * result.standard_error


def test_spectrum_sums_to_the_determinants():
    law = SGDLaw(Minimum.from_jacobian(JACOBIAN), 0.2)
    total = sum(one.value for one in lyapunov_spectrum(law, rng=0, steps=2_000))
    factors, _ = brute_force(JACOBIAN, 0.2)
    logs = np.log(np.abs(np.linalg.det(factors)))
    spread = logs.std() / math.sqrt(32 * 2_000)
    assert abs(total - logs.mean()) < 4 * spread


def test_monte_carlo_in_both_coordinates():
    """A regular kernel is followed in residuals, a singular one in the normal space."""
    for jacobian, size in ((JACOBIAN, 1), (SMALL, 1), (SMALL, 2)):
        law = SGDLaw(Minimum.from_jacobian(jacobian), 0.1, SGD(batch_size=size))
        direct, written = monte_carlo(law, rng=1), monte_carlo(law.finite(), rng=2)
        error = math.hypot(direct.standard_error, written.standard_error)
        assert abs(direct.value - written.value) < 4 * error


def test_a_linear_network_with_two_outputs_moves_at_the_rate_of_its_exponent():
    rng = np.random.default_rng(0)
    inputs = 1.7 * np.eye(3) + 0.3 * rng.normal(size=(3, 3))  # nearly whitened: a short transient
    network = LinearNetwork(inputs, rng.normal(size=(3, 2)), [4])
    minimum = find_minimum(network, network.initial(1))
    assert (minimum.n_samples, minimum.n_outputs, minimum.rank) == (3, 2, 6)
    step_size = 0.5 / minimum.sharpness
    predicted = sgd_exponent(minimum, step_size, rng=0)
    offset = minimum.normal_basis @ rng.normal(size=(6, 400))
    near = minimum.point + 1e-6 * offset.T
    half = int(6 / abs(predicted.value))  # e⁻¹² of a millionth is far above rounding
    runs = stochastic_gradient_descent(
        network, near, step_size, SGD(), 2 * half, rng=rng, record_every=half
    )
    rate, error = runs.growth_rate(half, 2 * half)  # the first half is the transient
    assert predicted.sign == -1
    assert abs(rate - predicted.value) < 4 * error + (predicted.upper - predicted.value)


def test_bad_outputs_are_named():
    with pytest.raises(ValueError, match="outputs is 2, which does not divide the 3 rows"):
        Minimum(np.eye(3), outputs=2)
    with pytest.raises(ValueError, match="outputs must be at least 1"):
        Minimum(np.eye(3), outputs=0)
    with pytest.raises(ValueError, match=r"jacobian must have shape .*got \(2,\)"):
        Minimum.from_jacobian([1.0, 2.0])
    with pytest.raises(ValueError, match="probabilities has length 4 but there are 2 samples"):
        Minimum.from_jacobian(JACOBIAN, probabilities=np.full(4, 0.25))
