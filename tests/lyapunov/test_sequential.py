"""Runs that stop by themselves, and control variates."""

import math
import warnings

import numpy as np
import pytest
from scipy import stats

from stabcore import SGD, ExponentWarning, FiniteLaw, Minimum, SGDLaw
from stabcore.lyapunov import SampledLaw, monte_carlo

KERNEL = np.array([[2.0, 0.3, 0.1], [0.3, 1.0, -0.5], [0.1, -0.5, 4.0]])
RENEWAL = (
    SGDLaw(np.array([[1.0, math.sqrt(2.5) / 2], [math.sqrt(2.5) / 2, 2.5]]), 1.0),
    0.10551172445156578605,
)
POLLICOTT = FiniteLaw([[[2.0, 1.0], [1.0, 1.0]], [[3.0, 1.0], [2.0, 1.0]]]), 1.1433110351029492458
GAUSSIAN = SampledLaw(lambda rng, size: rng.normal(size=(size, 2, 2)), 2)
COIN = FiniteLaw([[[2.0]], [[0.5]]])  # λ = 0
SKEWED = FiniteLaw([[[math.exp(-9.0)]], [[math.exp(1.0)]]], [0.1, 0.9])  # λ = 0


def half_width(result):
    return (result.upper - result.lower) / 2


@pytest.mark.parametrize("transient", [None, 300])
@pytest.mark.parametrize("law", [SGDLaw(KERNEL, 0.5), POLLICOTT[0], GAUSSIAN], ids=repr)
def test_rounds_continue_the_same_products(law, transient):
    """What three rounds know is what one run of the final length knows."""
    with pytest.warns(ExponentWarning, match="stopped at max_steps"):
        rounds = monte_carlo(
            law, 0, steps=500, transient=transient, standard_error=1e-9, max_steps=2_500
        )
    once = monte_carlo(law, 0, steps=2_000, transient=transient)
    assert rounds.value == pytest.approx(once.value, abs=1e-12)
    assert half_width(rounds) == pytest.approx(half_width(once), abs=1e-10)
    assert rounds.evaluations == once.evaluations


@pytest.mark.parametrize(("law", "truth"), [RENEWAL, POLLICOTT], ids=["renewal", "Pollicott"])
@pytest.mark.parametrize("target", [1e-3, 3e-4])
def test_a_requested_standard_error(law, truth, target):
    result = monte_carlo(law, 1, steps=500, standard_error=target)
    assert target / 4 < result.standard_error <= target  # not much more work than needed
    assert abs(result.value - truth) < 4 * target
    assert result.converged


def test_an_error_that_a_first_round_has_already_costs_no_second_one():
    short, stopped = (monte_carlo(COIN, 0, steps=500, **o) for o in ({}, {"standard_error": 1.0}))
    assert stopped == short


@pytest.mark.parametrize("step_size", [0.5, 0.505, 0.51, 0.9])
def test_the_sign_is_decided_and_right(step_size):
    """λ = −0.00908, −0.0028, 0.0037, 0.306 from long runs: the closer to 0 the longer."""
    long = monte_carlo(SGDLaw(KERNEL, step_size), 1, steps=200_000)
    result = monte_carlo(
        SGDLaw(KERNEL, step_size), 0, steps=50, decide_sign=1e-3, max_steps=100_000
    )
    assert result.sign == long.sign
    assert result.converged


def test_the_level_is_that_of_the_round():
    """The interval of round k has level 1 − 6α/(π²k²)."""
    alpha = 0.1
    with pytest.warns(ExponentWarning):
        first = monte_carlo(COIN, 0, steps=100, transient=0, decide_sign=alpha, max_steps=100)
    plain = monte_carlo(COIN, 0, steps=100, transient=0)
    assert half_width(plain) == pytest.approx(plain.standard_error * stats.t.ppf(0.975, 31))
    ratio = stats.t.ppf(1 - 3 * alpha / math.pi**2, 31) / stats.t.ppf(0.975, 31)
    assert half_width(first) == pytest.approx(ratio * half_width(plain), rel=1e-6)
    with pytest.warns(ExponentWarning):
        third = monte_carlo(COIN, 0, steps=100, transient=0, decide_sign=alpha, max_steps=400)
    plain = monte_carlo(COIN, 0, steps=400, transient=0)
    ratio = stats.t.ppf(1 - 3 * alpha / (3 * math.pi) ** 2, 31) / stats.t.ppf(0.975, 31)
    assert half_width(third) == pytest.approx(ratio * half_width(plain), rel=1e-6)


@pytest.mark.filterwarnings("ignore::stabcore.ExponentWarning")
@pytest.mark.parametrize("law", [COIN, SKEWED], ids=["coin", "skewed"])
def test_the_sign_of_zero_is_called_no_more_often_than_stated(law):
    """λ = 0, so that every sign is wrong; four looks, of which each must not cost α."""
    options = {"steps": 50, "transient": 0, "decide_sign": 0.2, "max_steps": 400}
    runs = [monte_carlo(law, seed, **options) for seed in range(200)]
    wrong = sum(run.sign is not None for run in runs)
    assert stats.binomtest(wrong, len(runs), 0.2, "greater").pvalue > 1e-3
    assert wrong > 0


def test_the_limit_is_kept_and_said():
    with pytest.warns(ExponentWarning, match="the sign is not decided; raise max_steps"):
        result = monte_carlo(COIN, 0, steps=100, transient=50, decide_sign=0.01, max_steps=799)
    assert result.evaluations == 40 * (50 + 400)
    assert not result.converged
    assert result.lower < 0 < result.upper
    with pytest.warns(ExponentWarning, match=r"standard error is .* and the sign is not decided"):
        monte_carlo(COIN, 0, steps=100, decide_sign=0.01, standard_error=1e-6)


def test_a_run_that_is_not_trusted_decides_nothing():
    """Nearly orthogonal gradients, ill-conditioned: the first rounds are precise, and wrong."""
    law = SGDLaw(np.diag(np.logspace(-2, 0, 10)) + 1e-6, 1.9)
    truth = math.log(1 - 0.019) / 10
    options = {"steps": 20, "standard_error": 2e-3}
    with pytest.warns(ExponentWarning, match="too short"):
        first = monte_carlo(law, 0, max_steps=20, **options)
    assert first.lower <= truth <= first.upper
    result = monte_carlo(law, 0, max_steps=100_000, **options)
    assert result.converged
    assert result.lower <= truth <= result.upper
    assert result.evaluations > 10 * first.evaluations


def test_products_that_vanish_stop_at_once():
    result = monte_carlo(SGDLaw([[2.0]], 0.5), 0, steps=10, decide_sign=0.01)
    assert (result.value, result.sign) == (-math.inf, -1)
    assert result.evaluations == 40 * 15


@pytest.mark.parametrize(
    "options",
    [{"standard_error": 1e-3}, {"decide_sign": 0.01}, {"standard_error": 1e-3, "replicas": 40}],
    ids=str,
)
@pytest.mark.parametrize("controls", [False, True])
def test_same_seed_same_result_whatever_the_workers(monkeypatch, options, controls):
    results = []
    for workers in (1, 3):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, n=workers: range(n), raising=False)
        law = SGDLaw(KERNEL, 0.6, SGD(batch_size=2))
        results.append(monte_carlo(law, 5, steps=100, control_variates=controls, **options))
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"standard_error": 0.0}, ValueError, "standard_error must be .* 0"),
        ({"standard_error": "x"}, TypeError, "standard_error must be .*'x'"),
        ({"decide_sign": 0.0}, ValueError, "decide_sign must be .* 0"),
        ({"decide_sign": 1}, ValueError, "decide_sign must be .* 1"),
        ({"decide_sign": True}, TypeError, "decide_sign must be .*True"),
        ({"max_steps": 50_000}, ValueError, "max_steps is 50000, but without standard_error"),
        ({"max_steps": 10, "decide_sign": 0.1}, ValueError, "max_steps must be at least 20000"),
        ({"control_variates": 1}, TypeError, "control_variates must be True or False, got 1"),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        monte_carlo(COIN, 0, **options)


SMALL = [
    SGDLaw(KERNEL, 0.6),
    SGDLaw(KERNEL, 0.9),
    SGDLaw(KERNEL, 0.6, SGD(batch_size=2)),
    SGDLaw(KERNEL, 0.6, SGD(batch_size=2, replacement=True)),
    SGDLaw(Minimum(KERNEL, [0.2, 0.5, 0.3]), 0.6),
    SGDLaw(Minimum(KERNEL[:2, :2], [0.2, 0.8]), 1.5),
    RENEWAL[0],
    POLLICOTT[0],
]


@pytest.mark.parametrize("law", SMALL, ids=repr)
def test_control_variates_reduce_the_variance(law):
    """Of the estimate itself, over 100 seeds, and as the interval claims."""
    plain, controlled = (
        [monte_carlo(law, s, steps=500, control_variates=c) for s in range(100)]
        for c in (False, True)
    )
    ratio = np.var([r.value for r in controlled]) / np.var([r.value for r in plain])
    claimed = np.mean([half_width(r) for r in controlled]) / np.mean([half_width(r) for r in plain])
    assert ratio < 0.6
    assert claimed**2 < 0.6
    # Two variances of 100 values each: their ratio is known to a factor of 1.5 (2.3 at 4σ).
    assert 0.4 < ratio / claimed**2 < 2.3


@pytest.mark.parametrize(("law", "truth"), [RENEWAL, POLLICOTT], ids=["renewal", "Pollicott"])
def test_control_variates_leave_the_mean_where_it_is(law, truth):
    values = [monte_carlo(law, s, steps=500, control_variates=True).value for s in range(100)]
    assert abs(np.mean(values) - truth) < 4 * np.std(values, ddof=1) / 10


def test_intervals_with_control_variates_cover():
    runs = [monte_carlo(RENEWAL[0], s, steps=500, control_variates=True) for s in range(250)]
    covered = sum(run.lower <= RENEWAL[1] <= run.upper for run in runs)
    assert stats.binomtest(covered, len(runs), 0.95).pvalue > 1e-3


def test_parallel_gradients_leave_no_variance():
    """The rate is then a function of the frequencies."""
    curvatures = np.array([1.0, 2.0, 5.0])
    law = SGDLaw(np.sqrt(np.outer(curvatures, curvatures)), 0.3)
    result = monte_carlo(law, 0, steps=200, control_variates=True)
    assert result.value == pytest.approx(np.log(np.abs(1 - 0.3 * curvatures)).mean(), abs=1e-12)
    assert half_width(result) < 1e-11


def test_a_full_batch_has_nothing_to_control():
    law = SGDLaw(KERNEL, 0.2, SGD(batch_size=3))
    plain, controlled = (monte_carlo(law, 0, steps=500, control_variates=c) for c in (False, True))
    assert controlled.value == pytest.approx(plain.value, abs=1e-12)


def test_where_there_are_no_control_variates_or_too_many():
    with pytest.raises(ValueError, match=r"control_variates .*got a SampledLaw"):
        monte_carlo(GAUSSIAN, control_variates=True)
    with pytest.raises(ValueError, match="at least 36, got 32; raise replicas"):
        monte_carlo(SGDLaw(np.eye(10), 0.5), control_variates=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExponentWarning)
        monte_carlo(SGDLaw(np.eye(10), 0.5), replicas=36, steps=10, control_variates=True)
