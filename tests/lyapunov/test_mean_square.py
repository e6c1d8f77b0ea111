import math
from itertools import permutations, product

import numpy as np
import pytest
from product_models import kernel, random_law
from scipy.optimize import brentq

from stabcore import SGD, FiniteLaw, Minimum, SGDLaw, gd_exponent, mean_square_edge
from stabcore.lyapunov import (
    _perron,
    mean_square,
    mean_square_exponent,
)

WEIGHTS = np.array([0.1, 0.2, 0.3, 0.4])


def naive_mean_square(matrices, weights):
    moment = sum(w * np.kron(a, a) for a, w in zip(matrices, weights, strict=True))
    return math.log(np.abs(np.linalg.eigvals(moment)).max()) / 2


def naive_batches(minimum, batch_size, probabilities, replacement):
    """Return every ordered batch with its probability, one by one."""
    samples = range(minimum.n_samples)
    if replacement:
        batches = list(product(samples, repeat=batch_size))
        return batches, [math.prod(probabilities[i] for i in batch) for batch in batches]
    batches = list(permutations(samples, batch_size))
    return batches, [1 / len(batches)] * len(batches)


def naive_sgd(minimum, step_size, batch_size, probabilities, replacement):
    batches, weights = naive_batches(minimum, batch_size, probabilities, replacement)
    steps = np.array([minimum.gradients[list(b)].T @ minimum.gradients[list(b)] for b in batches])
    return np.eye(minimum.rank) - step_size / batch_size * steps, weights


SAMPLINGS = [
    pytest.param(kernel(1, 4), size, None, replacement, id=f"B={size} replacement={replacement}")
    for size in (1, 2, 3, 4)
    for replacement in (False, True)
] + [
    pytest.param(kernel(2, 4), 1, WEIGHTS, None, id="weighted"),
    pytest.param(kernel(2, 4), 3, WEIGHTS, None, id="weighted B=3"),
    pytest.param(kernel(3, 4, 2), 2, None, False, id="singular K"),
    pytest.param(kernel(3, 4, 2), 2, WEIGHTS, True, id="singular K, weighted"),
    pytest.param(kernel(3, 4, 1), 2, None, False, id="parallel"),
    pytest.param(kernel(3, 4, 2), 2, [0.0, 0.5, 0.3, 0.2], True, id="a probability 0"),
]


@pytest.mark.parametrize(("matrix", "size", "weights", "replacement"), SAMPLINGS)
def test_mean_square_of_sgd_without_enumerating_batches(matrix, size, weights, replacement):
    minimum = Minimum(matrix)
    probabilities = np.full(4, 0.25) if weights is None else weights
    replaced = weights is not None if replacement is None else replacement
    for step_size in (0.05, 0.3, 2.0):
        law = SGDLaw(
            Minimum(matrix, weights), step_size, SGD(batch_size=size, replacement=replacement)
        )
        expected = naive_mean_square(*naive_sgd(minimum, step_size, size, probabilities, replaced))
        result = mean_square_exponent(law)
        assert result.converged
        assert result.value == pytest.approx(expected, rel=1e-10, abs=1e-12)
        assert result.lower - 1e-13 <= expected <= result.upper + 1e-13
        assert result.upper - result.lower < 1e-9
        finite = mean_square_exponent(law.finite())
        assert finite.value == pytest.approx(expected, rel=1e-10, abs=1e-12)
        assert finite.upper - finite.lower < 1e-9


@pytest.mark.parametrize(("matrix", "size", "weights", "replacement"), SAMPLINGS)
def test_edge_is_where_the_spectral_radius_is_one(matrix, size, weights, replacement):
    minimum = Minimum(matrix)
    probabilities = np.full(4, 0.25) if weights is None else np.asarray(weights)
    replaced = weights is not None if replacement is None else replacement

    def excess(step_size):
        return naive_mean_square(*naive_sgd(minimum, step_size, size, probabilities, replaced))

    edge = mean_square_edge(Minimum(matrix, weights), SGD(batch_size=size, replacement=replacement))
    assert edge == pytest.approx(brentq(excess, 1e-3, 100.0, xtol=1e-14), rel=1e-9)
    for fraction in (0.01, 0.3, 0.6, 0.99):  # one interval, not several
        assert (
            mean_square_exponent(
                SGDLaw(
                    Minimum(matrix, weights),
                    fraction * edge,
                    SGD(batch_size=size, replacement=replacement),
                )
            ).sign
            == -1
        )
    for fraction in (1.01, 2.0, 30.0):
        assert (
            mean_square_exponent(
                SGDLaw(
                    Minimum(matrix, weights),
                    fraction * edge,
                    SGD(batch_size=size, replacement=replacement),
                )
            ).sign
            == 1
        )


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_edge_by_its_formula(size):
    """2/λ_max(C⁺D) of Mulayoff & Michaeli 2024, batches without replacement."""
    minimum = Minimum(kernel(3, 4))
    hessians = [np.outer(g, g) for g in minimum.gradients]
    mean, one = np.mean(hessians, axis=0), np.eye(4)
    share = (4 - size) / (size * 3)
    drift = (np.kron(mean, one) + np.kron(one, mean)) / 2
    noise = np.mean([np.kron(h, h) for h in hessians], axis=0)
    matrix = np.linalg.pinv(drift) @ ((1 - share) * np.kron(mean, mean) + share * noise)
    expected = 2 / np.linalg.eigvals(matrix).real.max()
    assert mean_square_edge(minimum, SGD(batch_size=size, replacement=False)) == pytest.approx(
        expected, rel=1e-9
    )


def test_edge_of_the_whole_data_set_is_that_of_gradient_descent():
    matrix = kernel(4, 5)
    sharpness = Minimum(matrix).sharpness
    assert mean_square_edge(matrix, SGD(batch_size=5)) == pytest.approx(2 / sharpness, rel=1e-12)
    assert mean_square_edge([[3.0]]) == pytest.approx(2 / 3, rel=1e-14)
    edges = [mean_square_edge(matrix, SGD(batch_size=size)) for size in range(1, 6)]
    assert edges == sorted(edges)
    assert mean_square_edge(matrix, SGD(batch_size=10_000, replacement=True)) < 2 / sharpness


def test_mean_square_of_the_whole_data_set_is_that_of_gradient_descent():
    matrix = kernel(4, 5)
    result = mean_square_exponent(SGDLaw(matrix, 0.4, SGD(batch_size=5)))
    assert result.value == pytest.approx(gd_exponent(matrix, 0.4).value, rel=1e-12)


def test_a_direction_that_no_sample_moves():
    matrix, weights = kernel(5, 3), [0.5, 0.5, 0.0]
    assert mean_square_edge(Minimum(matrix, weights)) == 0.0
    assert mean_square_exponent(SGDLaw(Minimum(matrix, weights), 0.01)).value == pytest.approx(
        0, abs=1e-13
    )


def test_orthogonal_gradients():
    """E[A⊗A] splits: the largest of 1 − 2ηk_i/N + (ηk_i)²/N."""
    k, step_size = np.array([1.0, 2.0, 5.0]), 0.7
    expected = np.log(1 - (2 * step_size * k - (step_size * k) ** 2) / 3).max() / 2
    assert mean_square_exponent(SGDLaw(np.diag(k), step_size)).value == pytest.approx(expected)
    assert mean_square_edge(np.diag(k)) == pytest.approx(2 / 5)


@pytest.mark.parametrize("samples", [14, 20])
def test_large_normal_spaces_agree_with_small_ones(samples, monkeypatch):
    law, size = SGDLaw(kernel(6, samples), 0.05, SGD(batch_size=3)), samples
    finite = random_law(7, 3, samples)
    iterated = mean_square_exponent(law), mean_square_edge(law.minimum, SGD(batch_size=3))
    written = mean_square_exponent(finite)
    monkeypatch.setattr(mean_square, "MOST_ORDER_SGD", size)
    monkeypatch.setattr(mean_square, "MOST_ORDER", 5)
    assert mean_square_exponent(law).value == pytest.approx(iterated[0].value, abs=1e-11)
    assert mean_square_edge(law.minimum, SGD(batch_size=3)) == pytest.approx(iterated[1], rel=1e-11)
    other = mean_square_exponent(finite)
    assert other.value == pytest.approx(written.value, abs=1e-9)
    assert other.lower <= written.value <= other.upper
    assert other.upper - other.lower < 1e-3


CLUSTERED = np.kron(np.eye(5), np.ones((3, 3))) + 0.5 * np.eye(15)

HARD = [
    pytest.param(np.eye(15), 1, None, id="equal and orthogonal"),
    pytest.param(np.diag(np.linspace(0.5, 2, 15)), 2, None, id="orthogonal"),
    pytest.param(np.eye(15) + 1e-4 * kernel(10, 15), 1, None, id="nearly orthogonal"),
    pytest.param(CLUSTERED, 1, None, id="equal groups"),
    pytest.param(np.diag(np.logspace(0, -6, 15)), 3, None, id="six decades"),
    pytest.param(kernel(11, 15), 2, np.arange(15) / 105, id="a probability 0"),
]


@pytest.mark.parametrize(("matrix", "size", "weights"), HARD)
def test_positive_vectors_where_eigenvalues_are_close(matrix, size, weights, monkeypatch):
    """Against the dense matrix of order r(r + 1)/2; the intervals are honest and thin."""
    for step_size in (0.01, 0.5, 1.9, 3.0):
        law = SGDLaw(Minimum(matrix, weights), step_size, SGD(batch_size=size))
        found = (
            mean_square_exponent(law),
            mean_square_edge(Minimum(matrix, weights), SGD(batch_size=size)),
        )
        with monkeypatch.context() as patch:
            patch.setattr(mean_square, "MOST_ORDER_SGD", 15)
            dense = (
                mean_square_exponent(law),
                mean_square_edge(Minimum(matrix, weights), SGD(batch_size=size)),
            )
        assert found[0].value == pytest.approx(dense[0].value, abs=1e-11)
        assert found[0].lower <= dense[0].upper
        assert dense[0].lower <= found[0].upper
        assert 0 < found[0].upper - found[0].lower < 1e-10
        assert found[1] == pytest.approx(dense[1], rel=1e-11)


def test_both_bounds_hold_for_a_vector_that_has_not_converged(monkeypatch):
    """After one look at the start they are far apart, and the eigenvalue is between them."""
    monkeypatch.setattr(_perron, "POLISH", 0)
    law = SGDLaw(kernel(12, 20), 0.05)
    value = mean_square_exponent(law).value
    for cycles in (1, 2):
        monkeypatch.setattr(_perron, "CYCLES", cycles)
        early = mean_square_exponent(law)
        assert early.lower < value < early.upper
        assert early.upper - early.lower > (1e-4, 1e-8)[cycles - 1]


def test_gradient_descent_in_a_large_normal_space():
    matrix = kernel(13, 40)
    top = float(np.linalg.eigvalsh(matrix)[-1]) / 40
    assert mean_square_edge(matrix, SGD(batch_size=40)) == pytest.approx(2 / top, rel=1e-12)
    result = mean_square_exponent(SGDLaw(matrix, 3 / top, SGD(batch_size=40)))
    assert result.value == pytest.approx(math.log(2), abs=1e-12)


@pytest.mark.parametrize("dimension", [2, 3, 5])
def test_mean_square_of_finite_laws(dimension):
    law = random_law(8, 4, dimension)
    result = mean_square_exponent(law)
    assert result.kind == "deterministic"
    assert result.value == pytest.approx(
        naive_mean_square(law.matrices, law.probabilities), abs=1e-12
    )
    assert 0 < result.upper - result.lower < 1e-10


def test_mean_square_of_reducible_and_defective_laws():
    turn = np.linalg.qr(np.random.default_rng(9).normal(size=(3, 3)))[0]
    jordan = turn @ np.array([[2.0, 1.0, 0.0], [0.0, 2.0, 1.0], [0.0, 0.0, 2.0]]) @ turn.T
    result = mean_square_exponent(FiniteLaw([jordan]))
    assert result.lower <= math.log(2) <= result.upper
    assert result.upper - result.lower < 0.02  # a triple eigenvalue is known to a few digits
    split = turn @ np.diag([3.0, 0.5, 1e-9]) @ turn.T
    result = mean_square_exponent(FiniteLaw([split, 2 * split]))
    assert result.value == pytest.approx(math.log(9 * 2.5) / 2, abs=1e-12)
    assert result.upper - result.lower < 1e-10


@pytest.mark.parametrize(("matrix", "size", "weights", "replacement"), SAMPLINGS)
def test_positive_vectors_enclose_the_radius(matrix, size, weights, replacement, monkeypatch):
    """The way of large normal spaces, on small ones."""
    monkeypatch.setattr(mean_square, "MOST_ORDER_SGD", 0)
    test_mean_square_of_sgd_without_enumerating_batches(matrix, size, weights, replacement)
    test_edge_is_where_the_spectral_radius_is_one(matrix, size, weights, replacement)
