import math
import warnings
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from product_models import (
    epochs,
    gaussian,
    gaussian_exponents,
    gram,
    naive_exponents,
    weighted_law,
    z_score,
)

from stabcore import (
    SGD,
    DiagonalLinearNetwork,
    ExponentWarning,
    FiniteLaw,
    Minimum,
    SGDLaw,
    gd_exponent,
    lyapunov_exponent,
    sgd_exponent,
)
from stabcore.lyapunov import SampledLaw, closed_form, monte_carlo

PAIR = np.array([[[2.0, 1.0], [1.0, 1.0]], [[3.0, 1.0], [2.0, 1.0]]])

POLLICOTT = 1.1433110351029492458

FIBONACCI = np.array([[[0.0, 1.0], [1.0, 1.0]], [[0.0, 1.0], [1.0, -1.0]]])

KERNEL = np.array([[2.0, 0.3, 0.1], [0.3, 1.0, -0.5], [0.1, -0.5, 4.0]])

RENEWAL = 0.10551172445156578605


def circle(count=200):
    """Return the kernel of unit gradients evenly spread over the directions of the plane."""
    return gram(np.pi * np.arange(count) / count)


def naive_loop(kernel, step_size, steps, rng):
    """Return (1/n) log|r_n| for a plain SGD loop in residual coordinates."""
    generator, total = np.random.default_rng(rng), 0.0
    residual = generator.normal(size=len(kernel))
    residual /= np.linalg.norm(residual)
    for index in generator.integers(len(kernel), size=steps):
        residual = residual - step_size * residual[index] * kernel[:, index]
        norm = np.linalg.norm(residual)
        residual, total = residual / norm, total + math.log(norm)
    return total / steps


@pytest.mark.parametrize(
    ("law", "truth"),
    [
        (FiniteLaw(PAIR), POLLICOTT),
        (FiniteLaw(np.swapaxes(PAIR, 1, 2)), POLLICOTT),
        (FiniteLaw(-PAIR / 10), POLLICOTT - math.log(10)),
        (FiniteLaw(FIBONACCI), 0.1239755988),
        (SGDLaw(gram([0, math.pi / 3], [1, math.sqrt(2.5)]), 1.0), RENEWAL),
        # I − κuuᵀ with u uniform on the circle, log((1 + |1 − κ|)/2).
        (SGDLaw(circle(), 1.5), math.log(0.75)),
        (SGDLaw(circle(), 4.0), math.log(2)),
        (SGDLaw(circle(), 0.5), math.log(0.75)),
    ],
    ids=["Pollicott", "transposed", "scaled", "Fibonacci", "renewal", "circle", "far", "near"],
)
def test_known_values(law, truth):
    result = lyapunov_exponent(law, "monte_carlo", rng=1)
    assert abs(z_score(result, truth)) < 4
    assert result.upper - result.lower < 0.01
    assert result.converged
    assert result.kind == "statistical"


def test_renewal_formula():
    """The series, summed here: the value used above."""
    terms = (0.5**k * math.log(abs(0.25 + 0.75 * (-1.5) ** k)) for k in range(200))
    assert 0.25 * sum(terms) == pytest.approx(RENEWAL, abs=1e-15)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch_size": 2},
        {"batch_size": 2, "replacement": True},
        {"batch_size": 2, "probabilities": [0.2, 0.5, 0.3]},
        {"batch_size": 5, "replacement": True},
        {"probabilities": [0.0, 0.4, 0.6]},
    ],
    ids=str,
)
@pytest.mark.parametrize("kernel", [KERNEL, gram([0.1, 1.0, 2.0], [1.4, 1.0, 2.0])])
@pytest.mark.parametrize("step_size", [0.4, 0.9])
def test_sgd_against_its_factors_written_out(options, kernel, step_size):
    law = weighted_law(kernel, step_size, **options)
    direct = monte_carlo(law, rng=1)
    written = monte_carlo(law.finite(), rng=2)
    error = math.hypot(direct.standard_error, written.standard_error)
    assert abs(direct.value - written.value) < 4 * error


@pytest.mark.parametrize("step_size", [0.3, 0.7, 1.5])
def test_against_qr_and_the_determinant(step_size):
    """the exponents sum to Σ p_i log|1 − ηk_i|, so λ is at least the mean."""
    law = SGDLaw(KERNEL, step_size)
    exponents, _ = naive_exponents(law.finite(), 20_000, rng=0)
    total = np.log(np.abs(1 - step_size * np.diag(KERNEL))).mean()
    spread = np.log(np.abs(1 - step_size * np.diag(KERNEL))).std() / math.sqrt(20_000)
    assert abs(exponents.sum() - total) < 4 * spread
    result = monte_carlo(law, rng=0)
    assert result.lower > total / 3
    # The naive run is one replica of 20,000 steps: √32 times our standard error.
    assert abs(exponents[0] - result.value) < 4 * result.standard_error * math.sqrt(33)


def test_against_the_naive_loop():
    result = monte_carlo(SGDLaw(KERNEL, 0.5), rng=0)
    naive = [naive_loop(KERNEL, 0.5, 4_000, rng) for rng in range(8)]
    error = np.std(naive, ddof=1) / math.sqrt(8)
    assert abs(np.mean(naive) - result.value) < 5 * math.hypot(error, result.upper - result.value)


def test_subadditivity():
    """λ ≤ (1/n) E log‖A_n ⋯ A_1‖ for every n, over all words."""
    law, products = SGDLaw(KERNEL, 0.6), [np.eye(3)]
    result = monte_carlo(law, rng=0)
    for length in range(1, 7):
        products = [a @ b for a in law.finite().matrices for b in products]
        norms = np.linalg.norm(products, 2, axis=(1, 2))
        assert result.lower < np.log(norms).mean() / length


def test_mean_square_stability_bounds_the_exponent():
    """λ ≤ ½ log ρ(E[A ⊗ A])."""
    for step_size in (0.3, 0.5, 0.8):
        law = SGDLaw(KERNEL, step_size)
        square = np.mean([np.kron(a, a) for a in law.finite().matrices], axis=0)
        bound = math.log(np.abs(np.linalg.eigvals(square)).max()) / 2
        assert monte_carlo(law, rng=0).lower < bound


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000), st.integers(2, 5))
def test_contractions_that_span_the_normal_space_are_stable(seed, samples):
    """ηk_i < 2 for all i ⇒ λ < 0."""
    jacobian = np.random.default_rng(seed).normal(size=(samples, samples + 2))
    kernel = jacobian @ jacobian.T
    result = monte_carlo(SGDLaw(kernel, 1.5 / np.diag(kernel).max()), rng=0, steps=4_000)
    assert result.sign == -1


def test_scaling_shifts_the_same_random_products():
    plain, scaled = (monte_carlo(FiniteLaw(c * PAIR), rng=3, steps=500) for c in (1.0, -1e3))
    assert scaled.value - plain.value == pytest.approx(math.log(1e3), abs=1e-12)


def test_the_full_space_gives_the_wrong_answer_and_the_normal_space_the_right_one():
    """a product in R^D contains the tangent space, whose exponent is 0."""
    problem = DiagonalLinearNetwork([[1.0, 0.3], [-0.5, 2.0]], [1.0, 0.7])
    minimum = Minimum.at(problem, problem.minimum(3.0, 2.0))
    full = [np.eye(4) - 0.15 * np.outer(g, g) for g in minimum.jacobian]
    result = sgd_exponent(minimum, 0.15, rng=0)
    naive, _ = naive_exponents(FiniteLaw(full), 5_000, rng=0)
    assert naive[0] > -1e-3
    assert result.sign == -1
    # The third exponent of the naive product is the first on the normal space.
    assert abs(naive[2] - result.value) < 0.02


def test_dependent_gradients_are_followed_in_the_normal_space():
    """In residual coordinates rounding survives along ker K and turns λ < 0 into 0."""
    kernel = circle(6)
    result = monte_carlo(SGDLaw(kernel, 1.5), rng=0)
    residual = kernel @ np.ones(6)
    logs = []
    for index in np.random.default_rng(0).integers(6, size=2_000):
        residual = residual - 1.5 * residual[index] * kernel[:, index]
        logs.append(math.log(np.linalg.norm(residual)))
    assert result.upper < -0.2
    assert abs(logs[-1] - logs[999]) / 1_000 < 1e-3
    assert logs[-1] > -60


@pytest.mark.parametrize("scale", [1e10, 1e30, 1e60, 1e120])
def test_factors_whose_product_overflows(scale):
    """Parallel gradients, by Monte Carlo: λ = Σ p_i log|1 − ηk_i|."""
    curvatures = np.array([1.0, 2.0, 5.0])
    kernel = scale * np.sqrt(np.outer(curvatures, curvatures))
    with np.errstate(over="ignore"):
        assert np.prod((1 - scale * curvatures) ** 20) == math.inf
    result = monte_carlo(SGDLaw(kernel, 1.0), rng=0)
    assert abs(z_score(result, np.log(np.abs(1 - scale * curvatures)).mean())) < 4


@pytest.mark.parametrize("scale", [1e10, 1e30, 1e60, 1e120])
def test_independent_factors_whose_product_overflows(scale):
    """Far out A_i ≈ −ηk_i × a projection: λ = log η + E log|K e_i · e_j| for the next index j."""
    result = monte_carlo(SGDLaw(scale * KERNEL, 1.0), rng=0)
    assert abs(z_score(result, math.log(scale) + np.log(np.abs(KERNEL)).mean())) < 4


@pytest.mark.parametrize("seed", range(5))
def test_a_normal_space_of_one_dimension(seed):
    """No start may vanish: parallel gradients with too many different batches to be enumerated."""
    curvatures = np.linspace(0.5, 2.5, 700)
    kernel = np.sqrt(np.outer(curvatures, curvatures))
    law = SGDLaw(kernel, 1.0, SGD(batch_size=2))
    first, second = np.triu_indices(700, 1)
    truth = np.log(np.abs(1 - (curvatures[first] + curvatures[second]) / 2)).mean()
    assert law.batches.count > 200_000
    assert abs(z_score(lyapunov_exponent(law, rng=seed, steps=2_000), truth)) < 4


def test_factors_whose_product_underflows():
    nearly_zero = 1 - 1e-12
    kernel = nearly_zero * np.array([[1.0, 1.0], [1.0, 1.0]])
    result = monte_carlo(SGDLaw(kernel, 1.0), rng=0)
    assert result.value == pytest.approx(math.log(1e-12), rel=1e-4)


def test_factors_that_overflow_by_themselves_are_no_vanishing_product():
    """The entries are finite, but a sum of two of them is not: any answer but −∞ or nan."""
    law = FiniteLaw(np.array([np.full((2, 2), 1e308), PAIR[0]]))
    result = monte_carlo(law, rng=0, steps=200)
    # Each block of k factors 10³⁰⁸·(1 1; 1 1) has rank one; a rough bracket is enough here.
    assert 0.4 * math.log(1e308) < result.value < 0.6 * math.log(2e308) + 1


@pytest.mark.parametrize(
    "law",
    [
        FiniteLaw([[[0.0, 1.0], [0.0, 0.0]], [[1.0, 0.0], [1.0, 1.0]], [[0.0, 0.0], [1.0, 0.0]]]),
        SGDLaw([[2.0]], 0.5),
    ],
)
def test_products_that_vanish(law):
    result = lyapunov_exponent(law, "monte_carlo", rng=0, steps=100)
    assert result.value == result.lower == result.upper == -math.inf
    assert result.sign == -1


@pytest.mark.parametrize("batch_size", [1, 2])
def test_samples_of_probability_zero_do_not_count(batch_size):
    angles, norms = np.array([0.1, 1.0, 2.0]), np.array([1.4, 1.0, 5.0])
    p = np.array([0.25, 0.75])
    without = SGDLaw(Minimum(gram(angles[:2], norms[:2]), p), 0.6, SGD(batch_size=batch_size))
    result = monte_carlo(
        SGDLaw(Minimum(gram(angles, norms), [*p, 0.0]), 0.6, SGD(batch_size=batch_size)), rng=0
    )
    reference = monte_carlo(without, rng=1)
    assert abs(result.value - reference.value) < result.upper - result.lower


def test_a_direction_that_nothing_moves_has_exponent_zero():
    result = monte_carlo(SGDLaw(Minimum(KERNEL, [0.5, 0.5, 0.0]), 0.3), rng=0)
    assert result.value == pytest.approx(0, abs=1e-10)
    assert result.sign in {0, None}


def test_rotations_and_reflections_have_exponent_zero():
    rotations = [[[math.cos(t), -math.sin(t)], [math.sin(t), math.cos(t)]] for t in (0.3, 1.1)]
    with warnings.catch_warnings():
        # An isometry never forgets its start, so the run may well call itself too short.
        warnings.simplefilter("ignore", ExponentWarning)
        result = monte_carlo(FiniteLaw(rotations), rng=0)
    assert result.lower <= 0 <= result.upper
    assert result.upper - result.lower < 1e-4


@pytest.mark.parametrize(
    "law",
    [
        FiniteLaw(PAIR),
        SGDLaw(KERNEL, 0.5),
        SGDLaw(KERNEL, 0.5, SGD(batch_size=2)),
        SGDLaw(circle(5), 1.0),
    ],
)
def test_same_seed_same_result_on_any_number_of_cores(monkeypatch, law):
    results = []
    for workers in (1, 2, 5, 64):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, w=workers: range(w), raising=False)
        results.append(monte_carlo(law, rng=7, steps=500))
    assert all(result == results[0] for result in results)
    assert monte_carlo(law, rng=np.random.default_rng(7), steps=500) == results[0]
    assert monte_carlo(law, rng=8, steps=500).value != results[0].value


def test_a_generator_moves_on():
    generator = np.random.default_rng(0)
    law = FiniteLaw(PAIR)
    assert monte_carlo(law, generator, steps=50) != monte_carlo(law, generator, steps=50)


def test_the_interval_covers_as_often_as_it_says():
    """95 %, or more since it is widened: 50 runs; 42 or fewer would be a 1 in 1000 event."""
    law = FiniteLaw(PAIR)
    results = [monte_carlo(law, rng=seed, steps=200) for seed in range(50)]
    covered = sum(r.lower <= POLLICOTT <= r.upper for r in results)
    assert covered >= 43


def test_precision_grows_with_the_work():
    short, long = (monte_carlo(FiniteLaw(PAIR), rng=0, steps=n) for n in (1_000, 100_000))
    assert 5 < (short.upper - short.lower) / (long.upper - long.lower) < 20
    assert long.evaluations == 100 * short.evaluations


def short_runs():
    """Yield (name, law, truth): ill-conditioned, so that few steps forget nothing."""
    spread = np.logspace(-4, 0, 200)
    # Exactly orthogonal gradients would be simulated group by group, without any transient.
    yield "nearly orthogonal", SGDLaw(np.diag(spread) + 1e-9, 1.0), math.log(1 - 1e-4) / 200
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(200, 200)))[0]
    kernel = 200 * (rotation * spread) @ rotation.T
    yield "full batch", SGDLaw(kernel, 1.9, SGD(batch_size=200)), gd_exponent(kernel, 1.9).value
    yield (
        "full batch, slow",
        SGDLaw(kernel, 1.0, SGD(batch_size=200)),
        gd_exponent(kernel, 1.0).value,
    )


@pytest.mark.parametrize(("name", "law", "truth"), list(short_runs()))
@pytest.mark.parametrize("steps", [20, 200])
def test_a_run_too_short_says_so_and_is_honest(name, law, truth, steps):
    with pytest.warns(ExponentWarning, match="too short"):
        result = monte_carlo(law, rng=0, steps=steps)
    assert not result.converged
    assert "raise steps and transient" in result.status
    assert result.lower <= truth <= result.upper


@pytest.mark.parametrize(("decay", "scaled"), [(2.0, 2.5), (0.5, 2.5), (0.5, 1.0)])
def test_ill_conditioned_kernels_of_200_samples(decay, scaled):
    """Dependent noise in every direction; the truth is a run that is 1500 times longer."""
    jacobian = np.random.default_rng(1).normal(size=(200, 300)) * np.logspace(0, -decay, 300)
    kernel = jacobian @ jacobian.T
    law = SGDLaw(kernel, scaled / np.diag(kernel).max())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExponentWarning)
        long = monte_carlo(law, rng=99, steps=300_000, replicas=8)
    assert long.upper - long.lower < 1e-4
    for seed in range(10):
        with pytest.warns(ExponentWarning, match="too short"):
            short = monte_carlo(law, rng=seed, steps=200)
        assert short.lower <= long.value <= short.upper


def test_a_run_without_transient_sees_its_start():
    law = FiniteLaw([np.diag([2.0, 1.0]), np.array([[2.0, 0.0], [1e-3, 1.0]])])
    with pytest.warns(ExponentWarning):
        result = monte_carlo(law, rng=0, steps=4, transient=0)
    assert result.lower <= math.log(2) <= result.upper


def test_the_arguments_are_not_changed():
    matrices, kernel = PAIR.copy(), KERNEL.copy()
    monte_carlo(FiniteLaw(matrices), rng=0, steps=10)
    sgd_exponent(kernel, 0.5, rng=0, steps=2_000)
    assert (matrices == PAIR).all()
    assert (kernel == KERNEL).all()


def cauchy(scale):
    """Return the law of [[ξC, 1], [1, 0]] with C standard Cauchy."""

    def sampler(rng, size):
        matrices = np.zeros((size, 2, 2))
        matrices[:, 0, 0] = scale * rng.standard_cauchy(size)
        matrices[:, 0, 1] = matrices[:, 1, 0] = 1
        return matrices

    return SampledLaw(sampler, 2)


def uniform_directions(kappa):
    """Return the law of I − κuuᵀ with u uniform on the circle."""

    def sampler(rng, size):
        angles = rng.uniform(0, 2 * np.pi, size)
        u = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        return np.eye(2) - kappa * u[:, :, None] * u[:, None, :]

    return SampledLaw(sampler, 2)


SAMPLED = [
    *((gaussian(d), gaussian_exponents(d)[0]) for d in (1, 2, 3, 6)),
    *((cauchy(s), math.log((s + math.sqrt(s**2 + 4)) / 2)) for s in (0.5, 1.0, 3.0)),
    *((uniform_directions(k), math.log((1 + abs(1 - k)) / 2)) for k in (0.5, 1.5, 4.0)),
    (SampledLaw(lambda rng, size: FIBONACCI[rng.integers(2, size=size)], 2), 0.1239755988),
]


@pytest.mark.parametrize(("law", "truth"), SAMPLED)
def test_known_values_of_sampled_laws(law, truth):
    result = monte_carlo(law, rng=1, steps=5_000)
    assert abs(z_score(result, truth)) < 4
    assert result.upper - result.lower < 0.02
    assert result.converged


def test_sampled_factors_of_any_size():
    """They are scaled one by one: neither overflow nor underflow."""
    scales = np.array([1e300, 1e-300, 1e200])
    law = SampledLaw(
        lambda rng, size: scales[rng.integers(3, size=size), None, None] * np.ones((2, 2)), 2
    )
    result = monte_carlo(law, rng=0, steps=1_000)
    assert abs(z_score(result, math.log(2) + np.log(scales).mean())) < 4


def test_sampled_factors_that_vanish():
    law = SampledLaw(lambda rng, size: rng.integers(2, size=(size, 1, 1)), 1)
    assert monte_carlo(law, rng=0, steps=100).value == -math.inf


PLANE = gram([0.1, 1.0, 2.0], [1.4, 1.0, 2.0])

FOUR = gram([0.1, 1.0, 2.0, 2.9], [1.4, 1.0, 2.0, 0.7])


@pytest.mark.parametrize(
    ("kernel", "batch_size"), [(PLANE, 1), (KERNEL, 1), (FOUR, 1), (FOUR, 2), (PLANE, 3)]
)
@pytest.mark.parametrize("step_size", [0.4, 0.9])
def test_reshuffled_epochs_against_all_orders(kernel, batch_size, step_size):
    """λ per step = λ per epoch / (N/B), the epochs being independent."""
    law = SGDLaw(kernel, step_size, SGD(batch_size=batch_size, reshuffle=True))
    length = len(kernel) // batch_size
    direct, written = monte_carlo(law, rng=1), monte_carlo(epochs(law), rng=2)
    error = math.hypot(direct.standard_error, written.standard_error / length)
    assert abs(direct.value - written.value / length) < 4 * error


def test_reshuffling_is_not_drawing_anew():
    """The same factors, as often; only the dependence within an epoch differs."""
    anew, reshuffled = (
        monte_carlo(SGDLaw(PLANE, 0.9, SGD(reshuffle=choice)), rng=0) for choice in (False, True)
    )
    assert reshuffled.upper < 0.02 < anew.lower


@pytest.mark.parametrize("batch_size", [1, 2, 3, 6])
def test_reshuffled_parallel_gradients_have_their_closed_form(batch_size):
    """Numbers commute: λ is E log|1 − ηc_S| over one batch, as without replacement."""
    curvatures = np.array([0.3, 0.5, 1.0, 1.7, 2.0, 5.0])
    kernel = np.sqrt(np.outer(curvatures, curvatures))
    law = SGDLaw(kernel, 0.7, SGD(batch_size=batch_size, reshuffle=True))
    rates = [
        np.log(np.abs(1 - 0.7 * np.reshape(order, (-1, batch_size)).mean(axis=1))).mean()
        for order in permutations(curvatures)
    ]
    exact = closed_form(law)
    assert exact.value == pytest.approx(np.mean(rates), abs=1e-12)
    simulated = monte_carlo(law, rng=0)
    assert simulated.value == pytest.approx(exact.value, abs=4 * np.std(rates) + 1e-9)


@pytest.mark.filterwarnings("ignore::stabcore.ExponentWarning")
def test_reshuffled_laws_by_whole_epochs_or_by_simulation():
    """In few dimensions epochs are listed: the exponent of a step is that of an epoch over N/B."""
    law = SGDLaw(PLANE, 0.4, SGD(reshuffle=True))
    result, simulated = lyapunov_exponent(law), monte_carlo(law, rng=0)
    assert result.method == "transfer operator"
    assert result.upper - result.lower < 1e-8
    assert simulated.lower < result.value < simulated.upper
    larger = SGDLaw(np.eye(5) + 0.3, 0.4, SGD(reshuffle=True))
    assert lyapunov_exponent(larger, rng=0, steps=1_000).method == "Monte Carlo"


def test_written_out_epochs_are_all_orders():
    law = SGDLaw(FOUR, 0.9, SGD(batch_size=2, reshuffle=True))
    found, expected = law.epochs(), epochs(law)
    assert len(found.matrices) == 6
    assert found.matrices.mean(axis=0) == pytest.approx(expected.matrices.mean(axis=0), abs=1e-13)
    squares = [
        np.einsum("mij,mkl->ijkl", one.matrices, one.matrices) / len(one.matrices)
        for one in (found, expected)
    ]
    assert squares[0] == pytest.approx(squares[1], abs=1e-12)


@pytest.mark.filterwarnings("ignore::stabcore.ExponentWarning")
def test_what_was_hardly_drawn_makes_a_run_too_short():
    law = SGDLaw(Minimum([[1, 1], [1, 10.0]], [1 - 1e-6, 1e-6]), 0.5)
    result = monte_carlo(law, 0)
    assert not result.converged
    assert "a probability of 1e-06 is drawn 0.64 times in all; raise steps" in result.status
    assert (result.lower, result.upper) == (-math.inf, math.inf)
    # The sign is not decided by a run that knows nothing of one factor.
    short = monte_carlo(law, 0, steps=100, decide_sign=0.05, max_steps=1_000)
    assert short.sign is None
    # Many samples that are rare one by one are not rare together.
    many = SGDLaw(np.eye(300) + 1, 1e-3)
    assert "drawn" not in monte_carlo(many, 0, steps=20).status
    never = SGDLaw(Minimum([[1, 1], [1, 10.0]], [1.0, 0.0]), 0.5)
    assert monte_carlo(never, 0, steps=200).upper < math.inf
