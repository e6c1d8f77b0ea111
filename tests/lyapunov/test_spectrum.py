import math

import numpy as np
import pytest
from product_models import (
    gaussian,
    gaussian_exponents,
    gram,
    naive_exponents,
    weighted_law,
    z_score,
)

from stabcore import (
    SGD,
    ExponentWarning,
    FiniteLaw,
    SGDLaw,
)
from stabcore.lyapunov import lyapunov_spectrum, monte_carlo

PAIR = np.array([[[2.0, 1.0], [1.0, 1.0]], [[3.0, 1.0], [2.0, 1.0]]])

POLLICOTT = 1.1433110351029492458

KERNEL = np.array([[2.0, 0.3, 0.1], [0.3, 1.0, -0.5], [0.1, -0.5, 4.0]])


@pytest.mark.parametrize("dimension", [1, 2, 4])
def test_spectrum_of_gaussian_matrices(dimension):
    results = lyapunov_spectrum(gaussian(dimension), rng=1, steps=4_000)
    assert len(results) == dimension
    for result, truth in zip(results, gaussian_exponents(dimension), strict=True):
        assert abs(z_score(result, truth)) < 4
        assert result.converged
        assert result.upper - result.lower < 0.02


@pytest.mark.parametrize("options", [{}, {"probabilities": [0.2, 0.5, 0.3]}], ids=str)
@pytest.mark.parametrize("step_size", [0.3, 0.7, 0.9])
def test_sum_rule_and_top_of_the_spectrum(options, step_size):
    """The exponents sum to Σ p_i log|1 − ηk_i|; its spread over draws is known exactly."""
    law = weighted_law(KERNEL, step_size, **options)
    results = lyapunov_spectrum(law, rng=0, steps=5_000)
    logs, p = np.log(np.abs(1 - step_size * np.diag(KERNEL))), law.batches.probabilities
    spread = math.sqrt(p @ (logs - p @ logs) ** 2 / (32 * 5_000))
    assert abs(sum(result.value for result in results) - p @ logs) < 4 * spread
    top = monte_carlo(law, rng=1)
    assert abs(results[0].value - top.value) < results[0].upper - top.lower
    assert sorted(results, key=lambda result: -result.value) == list(results)


def test_sum_rule_where_every_factor_has_the_same_determinant():
    first, second = lyapunov_spectrum(FiniteLaw(PAIR), rng=0, steps=2_000)
    assert first.value + second.value == pytest.approx(0, abs=1e-12)
    assert abs(z_score(first, POLLICOTT)) < 4
    scaled = lyapunov_spectrum(FiniteLaw(1e-200 * PAIR), rng=0, steps=2_000)
    assert scaled[1].value == pytest.approx(second.value - 200 * math.log(10), abs=1e-9)


@pytest.mark.parametrize(
    "law",
    [
        SGDLaw(gram([0.1, 1.0, 2.0], [1.4, 1.0, 2.0]), 0.4),
        SGDLaw(gram([0.1, 1.0, 2.0], [1.4, 1.0, 2.0]), 0.9, SGD(batch_size=2)),
        SGDLaw(KERNEL, 0.7, SGD(batch_size=2)),
        SGDLaw(KERNEL, 0.7, SGD(batch_size=5, replacement=True)),
    ],
    ids=repr,
)
def test_spectrum_against_qr_of_the_factors_written_out(law):
    naive, _ = naive_exponents(law.finite(), 20_000, rng=0)
    direct = lyapunov_spectrum(law, rng=1, steps=5_000)
    written = lyapunov_spectrum(law.finite(), rng=2, steps=5_000)
    assert len(direct) == law.dimension
    for value, one, other in zip(naive, direct, written, strict=True):
        error = math.hypot(one.standard_error, other.standard_error)
        assert abs(one.value - other.value) < 4 * error
        # The naive run is one replica of 20,000 steps, ours are 32 of 5,000: √8 of its error.
        assert abs(value - one.value) < 4 * one.standard_error * math.sqrt(9)


def test_the_leading_exponents_do_not_depend_on_how_many_are_asked_for():
    law = SGDLaw(KERNEL, 0.7)
    top = lyapunov_spectrum(law, 1, rng=0, steps=2_000)
    two = lyapunov_spectrum(law, count=2, rng=0, steps=2_000)
    assert (len(top), len(two)) == (1, 2)
    assert abs(top[0].value - two[0].value) < two[0].upper - two[0].lower


@pytest.mark.filterwarnings("ignore::stabcore.ExponentWarning")
def test_the_sum_rule_holds_for_many_samples_and_short_runs():
    """The exponents in the middle are close to each other and still settle; their sum is right."""
    jacobian = np.random.default_rng(0).normal(size=(30, 60))
    kernel = jacobian @ jacobian.T / 60
    results = lyapunov_spectrum(SGDLaw(kernel, 0.9), rng=0, steps=2_000)
    logs = np.log(np.abs(1 - 0.9 * np.diag(kernel)))
    total = sum(result.value for result in results)
    assert abs(total - logs.mean()) < 4 * logs.std() / math.sqrt(32 * 2_000)


def test_exponents_that_rounding_hides_say_so():
    sheared = FiniteLaw([[[1e10, 1.0], [0.0, 1e-10]], [[1e10, 2.0], [0.0, 1e-10]]])
    for law, truth in ((sheared, -math.log(1e10)), (FiniteLaw([[[2.0, 1.0], [4.0, 2.0]]]), None)):
        with pytest.warns(ExponentWarning, match="lost to rounding"):
            first, second = lyapunov_spectrum(law, rng=0, steps=100)
        assert first.converged
        assert not second.converged
        assert second.value == second.lower == -math.inf
        assert truth is None or truth < second.upper
    for result in lyapunov_spectrum(FiniteLaw(np.zeros((1, 2, 2))), rng=0, steps=100):
        assert (result.value, result.upper, result.converged) == (-math.inf, -math.inf, True)


def test_a_spectrum_from_a_run_too_short_says_so():
    with pytest.warns(ExponentWarning, match="too short"):
        results = lyapunov_spectrum(SGDLaw(np.diag(np.logspace(-3, 0, 20)), 1.9), rng=0, steps=10)
    assert not all(result.converged for result in results)


def test_spectrum_and_sampled_laws_do_not_depend_on_the_workers(monkeypatch):
    results = []
    for workers in (1, 2, 5):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, n=workers: range(n), raising=False)
        results.append(
            (
                lyapunov_spectrum(SGDLaw(KERNEL, 0.7), rng=3, steps=100),
                lyapunov_spectrum(FiniteLaw(PAIR), rng=3, steps=100),
                lyapunov_spectrum(gaussian(2), rng=3, steps=100),
                monte_carlo(gaussian(3), rng=3, steps=100),
            )
        )
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize(
    ("count", "error", "message"),
    [
        (0, ValueError, "count must be at least 1, got 0"),
        (3, ValueError, "count is 3 but the law has only 2 exponents"),
        (1.0, TypeError, "count must be an integer"),
    ],
)
def test_bad_counts(count, error, message):
    with pytest.raises(error, match=message):
        lyapunov_spectrum(FiniteLaw(PAIR), count)


@pytest.mark.filterwarnings("ignore::stabcore.ExponentWarning")
def test_the_determinants_of_reshuffled_epochs_are_known_exactly():
    law = SGDLaw(KERNEL, 0.7, SGD(reshuffle=True))
    results = lyapunov_spectrum(law, rng=0, steps=100, transient=10)
    total = sum(result.value for result in results)
    assert total == pytest.approx(np.log(np.abs(1 - 0.7 * np.diag(KERNEL))).mean(), abs=1e-12)
    # 50 and 10 steps are rounded up to whole epochs of 3.
    assert results[0].evaluations == 40 * (51 + 51 + 12)
