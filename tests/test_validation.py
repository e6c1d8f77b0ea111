"""Bad input at every public entry point: an error at the door that names argument and value."""

import math

import numpy as np
import pytest

from stabcore import (
    SGD,
    DiagonalLinearNetwork,
    ExponentWarning,
    FiniteLaw,
    Minimum,
    ReluPair,
    ScalarFactorization,
    SGDLaw,
    TwoLayerNetwork,
    basin,
    bifurcation_diagram,
    find_cycles,
    find_minimum,
    gd_exponent,
    gd_map,
    gradient_descent,
    lyapunov_exponent,
    period_doublings,
    sgd_exponent,
    stability,
    stable_arcs,
    stable_steps,
    stochastic_gradient_descent,
)
from stabcore import _validation as check
from stabcore.companion import digit_pair
from stabcore.descent import (
    LineMap,
    asymptotic_gradient_norm,
    bad_step_sizes,
    converged_fraction,
    cycle_branches,
    fold_curves,
    gd_jacobian,
    gd_log_abs_det,
    map_exponent,
    multipliers,
    preimage_counts,
)
from stabcore.lyapunov import monte_carlo
from stabcore.minima import irregularities
from stabcore.saddles import saddle_type
from stabcore.simulation import exact_runs
from stabcore.stable_sets import StableSet, stable_set

K = [[2.0, 1.0], [1.0, 2.0]]
PROBLEM, PAIR = ScalarFactorization(), ReluPair()
THETA = np.array([2.0, 1.0])
LAW = SGDLaw(K, 0.5)
HALF = FiniteLaw([[[0.5]]])
SET = StableSet(intervals=((0.0, 1.0),), brackets=(), lower=0.0, upper=math.inf)

# Every function of a kernel, of a step size, of probabilities, of a batch size, of a seed.
KERNEL_CALLS = {
    "Minimum": Minimum,
    "SGDLaw": lambda k: SGDLaw(k, 0.5),
    "gd_exponent": lambda k: gd_exponent(k, 0.5),
    "sgd_exponent": lambda k: sgd_exponent(k, 0.5),
    "stability": lambda k: stability(k, 0.5),
    "irregularities": lambda k: irregularities(k, 0.5),
    "stable_steps": stable_steps,
}
STEP_CALLS = {
    "gd_map": lambda h: gd_map(PROBLEM, THETA, h),
    "gd_jacobian": lambda h: gd_jacobian(PROBLEM, THETA, h),
    "gd_log_abs_det": lambda h: gd_log_abs_det(PROBLEM, THETA, h),
    "gd_exponent": lambda h: gd_exponent(K, h),
    "sgd_exponent": lambda h: sgd_exponent(K, h),
    "SGDLaw": lambda h: SGDLaw(K, h),
    "stability": lambda h: stability(K, h),
    "irregularities": lambda h: irregularities(K, h),
    "stable_arcs": lambda h: stable_arcs(PAIR, h),
    "gradient_descent": lambda h: gradient_descent(PROBLEM, [THETA], h, 1),
    "stochastic_gradient_descent": lambda h: stochastic_gradient_descent(
        PROBLEM, [THETA], h, SGD(), 1
    ),
    "exact_runs": lambda h: exact_runs(PROBLEM, 0.1, 2.5, h, SGD(), 1),
}
PROBABILITY_CALLS = {
    "Minimum": lambda p: Minimum(K, p),
    "FiniteLaw": lambda p: FiniteLaw(np.ones((2, 1, 1)), p),
    "SGDLaw": lambda p: SGDLaw(Minimum(K, p), 0.5),
    "Sampling": lambda p: SGD().batches(2, p),
    "gd_exponent": lambda p: gd_exponent(Minimum(K, p), 0.5),
    "sgd_exponent": lambda p: sgd_exponent(Minimum(K, p), 0.5),
    "stability": lambda p: stability(Minimum(K, p), 0.5),
    "stable_steps": lambda p: stable_steps(Minimum(K, p)),
    "from_jacobian": lambda p: Minimum.from_jacobian(np.eye(2), probabilities=p),
    "importance sampling": lambda p: sgd_exponent(K, 0.5, SGD(probabilities=p)),
    "DiagonalLinearNetwork": lambda p: DiagonalLinearNetwork(np.eye(2), [1.0, 1.0], p),
    "ScalarFactorization": lambda p: ScalarFactorization([1.0, 2.0], p),
    "ReluPair": lambda p: ReluPair(probabilities=p),
    "TwoLayerNetwork": lambda p: TwoLayerNetwork(np.eye(2), [1.0, 1.0], 2, p),
}
BATCH_CALLS = {
    "SGDLaw": lambda b: SGDLaw(K, 0.5, SGD(batch_size=b)),
    "Sampling": lambda b: SGD(batch_size=b).batches(2),
    "sgd_exponent": lambda b: sgd_exponent(K, 0.5, SGD(batch_size=b)),
    "stability": lambda b: stability(K, 0.5, SGD(batch_size=b)),
    "stable_steps": lambda b: stable_steps(K, SGD(batch_size=b)),
    "stable_arcs": lambda b: stable_arcs(PAIR, 0.5, SGD(batch_size=b)),
    "exact_runs": lambda b: exact_runs(PAIR, 0.1, 2.5, 0.1, SGD(batch_size=b), 1),
    "SGD": lambda b: stochastic_gradient_descent(PAIR, [THETA], 0.1, SGD(batch_size=b), 1),
}
SEED_CALLS = {
    "monte_carlo": lambda r: monte_carlo(LAW, r),
    "lyapunov_exponent": lambda r: lyapunov_exponent(LAW, rng=r),
    "sgd_exponent": lambda r: sgd_exponent(K, 0.5, rng=r),
    "stability": lambda r: stability(K, 0.5, rng=r),
    "stable_steps": lambda r: stable_steps(K, rng=r),
    "exact_runs": lambda r: exact_runs(PAIR, 0.1, 2.5, 0.1, SGD(), 1, rng=r),
    "SGD": lambda r: stochastic_gradient_descent(PAIR, [THETA], 0.1, SGD(), 1, rng=r),
    "bad_step_sizes": lambda r: bad_step_sizes(PROBLEM, rng=r),
    "draw": lambda r: SGD().batches(3).draw(1, r),
    "initial": lambda r: TwoLayerNetwork([[1.0]], [1.0], 1).initial(r),
    "digit_pair": lambda r: digit_pair(rng=r),
}

BAD_KERNELS = [
    ([[1.0, 2.0]], ValueError, r"kernel must be square, got shape \(1, 2\)"),
    ([1.0, 2.0], ValueError, r"kernel must have 2 dimension.* shape \(2,\)"),
    ([], ValueError, r"kernel .*\(0,\)"),
    (np.zeros((0, 0)), ValueError, r"kernel is empty"),
    ([[1.0, math.nan], [math.nan, 1.0]], ValueError, r"kernel has a NaN .*nan at index \(0, 1\)"),
    ([[1.0, 0.0], [0.0, math.inf]], ValueError, r"kernel has .*inf at index \(1, 1\)"),
    ([[1.0, 0.5], [0.2, 1.0]], ValueError, r"kernel must be symmetric.*0\.3"),
    ([[1.0, 2.0], [2.0, 1.0]], ValueError, r"kernel must be positive semidefinite.* -1 "),
    (np.zeros((2, 2)), ValueError, r"kernel is zero"),
    ([["a"]], TypeError, r"kernel must be an array of real numbers.*'a'"),
    ([[1.0], [1.0, 2.0]], TypeError, r"kernel must be an array of real numbers"),
    ([[1j]], TypeError, r"kernel must be an array of real numbers.*1j"),
    (np.array([[1j]]), TypeError, r"kernel must be an array of real numbers.*j"),
    (1e308 * np.eye(2), ValueError, "the largest entry of kernel must be between .* got 1e.308"),
    (5e-324 * np.eye(2), ValueError, "the largest entry of kernel must be .* rescale"),
    ([[10**400]], ValueError, "kernel has an integer too large for a float; rescale"),
    (np.full((2, 2), "2020", "M8[Y]"), TypeError, "kernel must be an array of real numbers"),
    (np.ma.masked_array(np.eye(2), [[0, 1], [1, 0]]), ValueError, "kernel is a masked .*; fill"),
    (
        np.outer([1, 0.3], [1, 0.3]).astype(np.float32) + np.float32(1e-8) * np.eye(2, dtype="f4"),
        ValueError,
        "kernel is float32: its eigenvalue .* rank is not known; compute .* float64",
    ),
]
BAD_STEPS = [
    (0, ValueError, "step_size must be .*greater than 0.* 0"),
    (-0.5, ValueError, r"step_size must be .*-0\.5"),
    (math.inf, ValueError, "step_size must be finite.*inf"),
    (math.nan, ValueError, "step_size must be finite.*nan"),
    ("0.1", TypeError, r"step_size must be a real number, got '0\.1'"),
    (True, TypeError, "step_size must be a real number, got True"),
    (None, TypeError, "step_size must be a real number, got None"),
    (1j, TypeError, "step_size must be a real number, got 1j"),
    ([0.1], TypeError, r"step_size must be a real number, got \[0\.1\]"),
    (10**400, ValueError, "step_size must be finite"),
    (1e308, ValueError, r"step_size must be between 1e-250 and 1e.250, got 1e.308"),
    (5e-324, ValueError, "step_size must be between .* rescale the problem"),
]
BAD_PROBABILITIES = [
    ([1.0], ValueError, "probabilities has length 1 but there are 2 samples"),
    ([0.5, 0.25, 0.25], ValueError, "probabilities has length 3"),
    ([1.5, -0.5], ValueError, r"probabilities must not be negative, got -0\.5 at index 1"),
    ([0.5, 0.25], ValueError, r"probabilities must sum to 1, got 0\.75"),
    ([0.0, 0.0], ValueError, r"probabilities must sum to 1, got 0\.0"),
    ([math.nan, 1.0], ValueError, "probabilities has a NaN .*nan at index"),
    ([math.inf, 0.0], ValueError, "probabilities has .*inf at index"),
    ([[0.5, 0.5]], ValueError, r"probabilities must have 1 dimension.*\(1, 2\)"),
    ("half", TypeError, "probabilities must be an array of real numbers, got 'half'"),
]
BAD_BATCHES = [
    (0, ValueError, "batch_size must be at least 1, got 0"),
    (-1, ValueError, "batch_size must be at least 1, got -1"),
    (3, ValueError, "batch_size is 3 but there are only 2 samples"),
    (1.0, TypeError, r"batch_size must be an integer, got 1\.0"),
    (True, TypeError, "batch_size must be an integer, got True"),
    (False, TypeError, "batch_size must be an integer, got False"),
    ("1", TypeError, "batch_size must be an integer, got '1'"),
]
BAD_SEEDS = [
    (-1, ValueError, "rng must be at least 0, got -1"),
    (0.5, TypeError, r"rng must be .*0\.5"),
    ("seed", TypeError, "rng must be .*'seed'"),
    (True, TypeError, "rng must be .*True"),
]


def table(calls, bad):
    """Return every call with every bad value, and readable names."""
    return [
        pytest.param(call, *case, id=f"{name}-{case[0]!r}"[:60])
        for name, call in calls.items()
        for case in bad
    ]


@pytest.mark.parametrize(
    ("call", "value", "error", "message"),
    [
        *table(KERNEL_CALLS, BAD_KERNELS),
        *table(STEP_CALLS, BAD_STEPS),
        *table(PROBABILITY_CALLS, BAD_PROBABILITIES),
        *table(BATCH_CALLS, BAD_BATCHES),
        *table(SEED_CALLS, BAD_SEEDS),
    ],
)
def test_arguments_that_many_functions_share(call, value, error, message):
    with pytest.raises(error, match=message):
        call(value)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        # problems
        (lambda: DiagonalLinearNetwork([], [1.0]), ValueError, r"inputs .*\(0,\)"),
        (lambda: DiagonalLinearNetwork([[math.nan]], [1.0]), ValueError, "inputs has a NaN"),
        (
            lambda: DiagonalLinearNetwork([[1.0]], [1.0, 2.0]),
            ValueError,
            "coefficients has length 2",
        ),
        (
            lambda: DiagonalLinearNetwork([[1.0]], [1.0]).minimum(1.0, 2.0),
            ValueError,
            "squares .* 2",
        ),
        (lambda: DiagonalLinearNetwork([[1.0]], [1.0]).minimum(1.9), ValueError, r"squares .*1\.9"),
        (lambda: PAIR.minimum(math.nan), ValueError, "squares has a NaN"),
        (lambda: ScalarFactorization([]), ValueError, "inputs is empty"),
        (lambda: ScalarFactorization([[1.0]]), ValueError, "inputs must have 1 dimension"),
        (lambda: ReluPair([0.9, -2.5]), ValueError, r"inputs must be positive, got .*-2\.5"),
        (lambda: ReluPair([0.9, 0.0]), ValueError, r"inputs must be positive, got .*0\.0"),
        (lambda: TwoLayerNetwork([[1.0]], [1.0, 2.0], 1), ValueError, "targets has length 2"),
        (lambda: TwoLayerNetwork([[1.0]], [1.0], 0), ValueError, "width must be at least 1, got 0"),
        (lambda: TwoLayerNetwork([[1.0]], [1.0], 1.5), TypeError, r"width .*1\.5"),
        (lambda: TwoLayerNetwork([[1.0]], [math.inf], 1), ValueError, "targets has .*inf"),
        (lambda: TwoLayerNetwork(np.zeros((0, 2)), [], 1), ValueError, "inputs is empty"),
        # minima
        (lambda: Minimum.at(PROBLEM, [1.0]), ValueError, "point has length 1 but .* 2 parameters"),
        (lambda: Minimum.at(PROBLEM, [1.0, math.nan]), ValueError, "point has a NaN"),
        (
            lambda: Minimum.at(PROBLEM, [2.0, 1.0]),
            ValueError,
            r"point is not a minimum.*1\.000e\+00",
        ),
        (lambda: Minimum.at(PROBLEM, [1.0, 1.0], 0.0), ValueError, "tolerance must .* 0"),
        (lambda: Minimum.at(PROBLEM, [1.0, 1.0], math.nan), ValueError, "tolerance .*nan"),
        (lambda: Minimum.at(K, [1.0, 1.0]), TypeError, "problem must be a Problem, got list"),
        (lambda: find_minimum(PROBLEM, [1.0]), ValueError, "start has length 1"),
        (lambda: find_minimum(PROBLEM, [math.inf, 1.0]), ValueError, "start has .*inf"),
        (lambda: find_minimum(PROBLEM, THETA, tolerance=-1.0), ValueError, "tolerance must .*-1"),
        (lambda: find_minimum(PROBLEM, THETA, tolerance=math.nan), ValueError, "tolerance .*nan"),
        (lambda: find_minimum(PROBLEM, THETA, max_iterations=0), ValueError, "max_iterations .* 0"),
        # gd
        (lambda: gd_map(PROBLEM, [math.nan, 1.0], 0.1), ValueError, "theta has a NaN"),
        (lambda: gd_map(PROBLEM, [1.0, 1.0, 1.0], 0.1), ValueError, r"theta .*\(3,\)"),
        (lambda: gd_jacobian(PROBLEM, [1.0, 1.0, 1.0], 0.1), ValueError, r"theta .*\(3,\)"),
        (lambda: gd_log_abs_det(PROBLEM, [1.0], 0.1), ValueError, r"theta .*\(1,\)"),
        (
            lambda: bad_step_sizes(PROBLEM, samples=1),
            ValueError,
            "samples must be at least 2, got 1",
        ),
        (lambda: bad_step_sizes(PROBLEM, scale=0.0), ValueError, "scale must be .* 0"),
        # sampling, products
        (lambda: SGD().batches(0), ValueError, "n_samples must be at least 1, got 0"),
        (lambda: SGD().batches(2.0), TypeError, r"n_samples must be an integer, got 2\.0"),
        (lambda: SGD(replacement="no").batches(2), TypeError, "replacement must be .*'no'"),
        (
            lambda: SGD(batch_size=2, replacement=False).batches(3, [0.5, 0.25, 0.25]),
            ValueError,
            "replacement=False .*got .* 2",
        ),
        (lambda: SGD().batches(3).draw(0), ValueError, "size must be at least 1, got 0"),
        (lambda: FiniteLaw([[1.0]]), ValueError, r"matrices must have 3 dimension.*\(1, 1\)"),
        (lambda: FiniteLaw([[[1.0, 2.0]]]), ValueError, r"matrices must be square.*\(1, 1, 2\)"),
        (lambda: FiniteLaw([[[math.nan]]]), ValueError, r"matrices has a NaN .*\(0, 0, 0\)"),
        (lambda: FiniteLaw(np.zeros((0, 2, 2))), ValueError, "matrices is empty"),
        (lambda: LAW.finite(1), ValueError, "2 different batches, above the limit 1"),
        # exponents
        (lambda: lyapunov_exponent(LAW, "magic"), ValueError, "algorithm must be one of .*'magic'"),
        (lambda: lyapunov_exponent(K), TypeError, "law must be a FiniteLaw, .*, got list"),
        (lambda: monte_carlo(K), TypeError, "law must be .*got list"),
        (
            lambda: sgd_exponent(K, 0.5, algorithm="magic"),
            ValueError,
            "algorithm must be one of .*'magic'",
        ),
        (lambda: monte_carlo(LAW, steps=1), ValueError, "steps must be at least 2, got 1"),
        (lambda: monte_carlo(LAW, steps=10.0), TypeError, r"steps must be an integer, got 10\.0"),
        (lambda: monte_carlo(LAW, replicas=7), ValueError, "replicas must be at least 8, got 7"),
        (
            lambda: monte_carlo(LAW, transient=-1),
            ValueError,
            "transient must be at least 0, got -1",
        ),
        (lambda: lyapunov_exponent(HALF, stepz=3), TypeError, "stepz"),
        (lambda: lyapunov_exponent(HALF, steps=-3), ValueError, "steps .*-3"),
        (lambda: sgd_exponent([[1.0]], 0.5, rng="seed"), TypeError, "rng .*'seed'"),
        # stability
        (lambda: stable_steps(K, upper=0.0), ValueError, "upper must be .* 0"),
        (lambda: stable_steps(K, upper=math.nan), ValueError, "upper must be .*nan"),
        (lambda: stable_steps(K, points=1), ValueError, "points must be at least 2, got 1"),
        (lambda: stable_steps([[1.0]], points=1), ValueError, "points must be at least 2, got 1"),
        (lambda: stable_set(lambda _: None, 2.0, 1.0), ValueError, "upper must be .*2.* 1"),
        (lambda: stable_set(lambda _: None, 0.0, math.inf), ValueError, "upper must be .*inf"),
        (lambda: stable_set(lambda _: None, math.nan, 1.0), ValueError, "lower must be .*nan"),
        (lambda: stable_set(lambda _: None, 0, 1, points=1), ValueError, "points .* got 1"),
        (lambda: SET.restricted(3.0, 2.0), ValueError, "upper must be .*2"),
        (lambda: SET.restricted(math.nan), ValueError, "lower must be .*nan"),
        (lambda: SET.scaled(0.0), ValueError, "factor must be .* 0"),
        (lambda: SET.scaled(-1.0), ValueError, "factor must be .*-1"),
        # trajectories
        (lambda: exact_runs(PROBLEM, [], [], 0.1, SGD(), 1), ValueError, "delta is empty"),
        (lambda: exact_runs(PROBLEM, math.nan, 3.0, 0.1, SGD(), 1), ValueError, "delta has a NaN"),
        (
            lambda: exact_runs(PROBLEM, 0.0, 1.9, 0.1, SGD(), 1),
            ValueError,
            r"s must be at least .*-0\.1",
        ),
        (
            lambda: exact_runs(PAIR, 1.0, 3.0, 0.1, SGD(), 1),
            ValueError,
            "delta must be below 1 .*got 1",
        ),
        (
            lambda: exact_runs(PAIR, [0.1, 0.2], [3, 3, 3], 0.1, SGD(), 1),
            ValueError,
            r"delta .*\(2,\).*\(3,\)",
        ),
        (
            lambda: exact_runs(PAIR, 0.1, 3.0, 0.1, SGD(), 0),
            ValueError,
            "steps must be at least 1, got 0",
        ),
        (
            lambda: exact_runs(PAIR, 0.1, 3.0, 0.1, SGD(), 1, record_every=-1),
            ValueError,
            "record_every .*-1",
        ),
        (
            lambda: exact_runs(DiagonalLinearNetwork(np.eye(2), [1, 1]), 0.1, 3.0, 0.1, SGD(), 1),
            TypeError,
            "problem must be a ScalarFactorization.*Diagonal",
        ),
        (
            lambda: gradient_descent(PROBLEM, [1.0, 1.0], 0.1, 1),
            ValueError,
            "starts must have 2 dim",
        ),
        (
            lambda: gradient_descent(PROBLEM, [[1.0]], 0.1, 1),
            ValueError,
            r"starts must have shape.*\(1, 1\)",
        ),
        (
            lambda: gradient_descent(PROBLEM, [[1.0, math.nan]], 0.1, 1),
            ValueError,
            "starts has a NaN",
        ),
        (lambda: gradient_descent(PROBLEM, [THETA], 0.1, 0), ValueError, "steps .*got 0"),
        (
            lambda: gradient_descent(PROBLEM, [THETA], 0.1, 1, record_every=0),
            ValueError,
            "record_every",
        ),
        (lambda: stochastic_gradient_descent(PROBLEM, [], 0.1, SGD(), 1), ValueError, "starts"),
        # data
        (lambda: digit_pair(3, 3), ValueError, "two different digits, got 3 and 3"),
        (lambda: digit_pair(3, 10), ValueError, "digits, got 3 and 10"),
        (lambda: digit_pair(-1, 3), ValueError, "first must be at least 0, got -1"),
        (lambda: digit_pair(n_samples=0), ValueError, "n_samples must be at least 1, got 0"),
        (lambda: digit_pair(n_samples=5_000), ValueError, "n_samples is 5000 but .*only 357"),
    ],
)
def test_arguments_of_their_own(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_what_is_legal_is_let_through():
    assert check.step_size(np.float32(0.5)) == 0.5
    assert check.step_size(np.array(0.5)) == 0.5
    assert check.step_size(1) == 1.0
    assert check.integer("n", np.int64(3)) == 3
    assert check.probabilities([1 / 3, 1 / 3, 1 / 3], 3).sum() == pytest.approx(1, abs=1e-16)
    assert check.probabilities(None, 4).tolist() == [0.25] * 4
    assert check.generator(np.int64(3)).random() == np.random.default_rng(3).random()
    generator = np.random.default_rng(0)
    assert check.generator(generator) is generator


def test_a_long_value_is_shortened_in_the_message():
    with pytest.raises(TypeError, match=r"got 'x{56}\.\.\.[;.]"):
        check.real("step_size", "x" * 1000)


def test_a_batch_larger_than_the_data_is_legal_with_replacement():
    assert SGD(batch_size=5, replacement=True).batches(2).count == 6
    assert SGD(batch_size=5).batches(2, [0.25, 0.75]).replacement


@pytest.mark.parametrize(
    "call",
    [
        lambda x: find_minimum(x, [1.0]),
        lambda x: gd_map(x, THETA, 0.5),
        lambda x: gd_jacobian(x, THETA, 0.5),
        lambda x: bad_step_sizes(x),
        lambda x: gradient_descent(x, [THETA], 0.5, 1),
        lambda x: stochastic_gradient_descent(x, [THETA], 0.5, SGD(), 1),
        lambda x: exact_runs(x, 0.5, 3.0, 0.5, SGD(), 1),
        lambda x: find_cycles(x, 0.5, 2),
        lambda x: multipliers(x, 0.5, [THETA]),
        lambda x: LineMap(x),
        lambda x: bifurcation_diagram(x, [0.5]),
        lambda x: cycle_branches(x, [0.5], 2, (0.0, 1.0)),
        lambda x: period_doublings(x, 2),
        lambda x: map_exponent(x, 0.5),
        lambda x: basin(x, [1.0], [1.0], 0.5, 1),
        lambda x: converged_fraction(x, [THETA], 0.5, 1),
        lambda x: asymptotic_gradient_norm(x, [THETA], 0.5, 1),
        lambda x: preimage_counts(x, 0.5, THETA),
        lambda x: fold_curves(x, 0.5),
        lambda x: saddle_type(x, [0.0, 0.0]),
    ],
)
@pytest.mark.parametrize("thing", [None, "network", np.eye(2)])
def test_what_is_no_problem_is_refused(call, thing):
    with pytest.raises(TypeError, match=r"must be a (Problem|Scalar)|expected a Problem"):
        call(thing)


@pytest.mark.parametrize("algorithm", ["closed_form", "transfer", "enclosure"])
@pytest.mark.parametrize("option", [{"steps": 100}, {"decide_sign": True}, {"replicas": 16}])
def test_options_of_monte_carlo_are_not_ignored(algorithm, option):
    name = next(iter(option))
    with pytest.raises(ValueError, match=f"{name} is an option of Monte Carlo, and algorithm="):
        lyapunov_exponent(SGDLaw(K, 0.5), algorithm, **option)


def test_a_scan_needs_exponents():
    with pytest.raises(TypeError, match=r"exponent must return an Exponent, got -0\.5; pass for"):
        stable_set(lambda t: t - 1, 0.5, 2.0)


def test_single_precision_is_accepted_where_the_rank_is_clear():
    assert Minimum(np.diag([1.0, 0.5]).astype(np.float32)).rank == 2
    rows = np.random.default_rng(4).normal(size=(3, 2)).astype(np.float32)
    with pytest.raises(ValueError, match=r"kernel is float32: .* compute the Jacobian"):
        Minimum(rows @ rows.T)
    assert Minimum(rows.astype(float) @ rows.T.astype(float)).rank == 2


def test_a_warning_names_the_line_of_the_caller():
    with pytest.warns(ExponentWarning) as caught:
        lyapunov_exponent(
            SGDLaw(np.diag([1.0, 0.5, 0.1, 1e-4]) + 1e-5, 1.9), "monte_carlo", rng=0, steps=10
        )
    assert caught[0].filename == __file__
