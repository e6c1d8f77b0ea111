"""SGD with momentum: known values, the compiled walk against listed factors, a simulation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stabcore import (
    GD,
    SGD,
    LinearRegression,
    Minimum,
    SGDLaw,
    gd_exponent,
    lyapunov_exponent,
    mean_square_edge,
    sgd_exponent,
    stability,
    stable_steps,
    stochastic_gradient_descent,
)
from stabcore.lyapunov import (
    MomentumLaw,
    lyapunov_spectrum,
    mean_square_exponent,
    monte_carlo,
    proven_bounds,
    transfer,
)
from stabcore.minima import irregularities

K = np.array([[2.0, 1.0], [1.0, 3.0]])
BETAS = st.floats(0.01, 0.99)


def heavy(beta, **rest):
    return SGD(momentum=beta, **rest)


def nesterov(beta, **rest):
    return SGD(momentum=beta, nesterov=True, **rest)


def parallel(*curvatures):
    return np.sqrt(np.outer(curvatures, curvatures))


@pytest.mark.parametrize(
    ("eta", "value"),
    [(0.3, -0.0526802578289), (3.81, 0.0626541477557), (0.001, -0.0111891514870)],
)
def test_one_sample(eta, value):
    for found in (gd_exponent, sgd_exponent):
        exponent = found([[1.0]], eta, heavy(0.9))
        assert exponent.value == pytest.approx(value, abs=1e-12)
        assert exponent.kind == "exact"


@pytest.mark.parametrize(
    ("method", "value", "mean_square"),
    [
        (heavy(0.25), -0.209254498796, -0.187949227776),
        (nesterov(0.25), -0.193968823813, -0.178197303815),
    ],
)
def test_parallel_gradients_are_deterministic(method, value, mean_square):
    kernel = parallel(0.05, 0.2)
    found = sgd_exponent(kernel, 1.0, method)
    assert found.value == pytest.approx(value, abs=1e-10)  # the tolerance of exponents
    assert found.kind == "deterministic"
    assert found.proof
    second = mean_square_exponent(MomentumLaw(kernel, 1.0, method))
    assert second.value == pytest.approx(mean_square, abs=1e-11)


@pytest.mark.parametrize(
    ("beta", "edge", "gd"),
    [
        (0.5, 0.305573910509, 0.849858356941),
        (0.9, 0.087655728760, 1.076487252125),
    ],
)
def test_edges_of_one_direction(beta, edge, gd):
    """2(1 − β²)E h/((1 + β)E h² − 2β(E h)²), and 2(1 + β)/E h."""
    h = np.array([0.81, 6.25])
    formula = 2 * (1 - beta**2) * h.mean() / ((1 + beta) * (h**2).mean() - 2 * beta * h.mean() ** 2)
    found = mean_square_edge(parallel(*h), heavy(beta))
    assert found == pytest.approx(edge, rel=1e-11)
    assert found == pytest.approx(formula, rel=1e-11)
    assert stable_steps(parallel(*h), heavy(beta), points=9).gd.intervals[0][1] == pytest.approx(gd)


@pytest.mark.parametrize(
    ("method", "gd", "mean_square", "exponents"),
    [
        (
            heavy(0.5),
            1.658359213500,
            0.582948988449,
            {0.1: (-0.167745745442, -0.2145), 0.3: (-0.168591793955, -0.2299)},
        ),
        (
            nesterov(0.5),
            0.829179606750,
            0.471163651746,
            {0.1: (-0.155388381957, -0.1756), 0.3: (-0.238138745728, -0.3735)},
        ),
    ],
)
def test_two_samples(method, gd, mean_square, exponents):
    table = stable_steps(K, method, rng=0, points=12, steps=4000)
    assert table.gd.intervals[0][1] == pytest.approx(gd, rel=1e-11)
    assert table.mean_square.intervals[0][1] == pytest.approx(mean_square, rel=1e-11)
    ((_, edge),) = table.sgd.intervals
    assert edge > mean_square
    for factor, sign in ((0.95, -1), (1.05, 1)):
        assert sgd_exponent(K, factor * edge, method, rng=1, steps=4000).sign == sign
    for eta, (second, value) in exponents.items():
        law = MomentumLaw(K, eta, method)
        assert mean_square_exponent(law).value == pytest.approx(second, abs=1e-11)
        found = sgd_exponent(K, eta, method, rng=0)
        assert abs(found.value - value) < 0.0008 + 4 * found.standard_error
        assert found.proof == "mean square"


def test_a_preconditioner_with_momentum():
    """With the gradient averaged as (1 − β)g the step is η(1 − β): edge 9.611 = 0.9611/0.1."""
    rows = [[1, 2, 0, 1, 0, 0], [1, 0, 1, 0, 0, 2]]
    minimum = Minimum.from_jacobian(rows, preconditioner=[0.5, 1, 2, 1, 0.25, 4])
    edge = stable_steps(minimum, heavy(0.9), rng=0, points=5, steps=4000).gd.intervals[0][1]
    assert edge / 0.1 == pytest.approx(9.611084368685, rel=1e-11)


def naive_factor(h, eta, method):
    """The map of (θ, v) by PyTorch's rules, column by column; similar to that of two positions."""
    size, beta = len(h), method.momentum

    def step(state):
        theta, v = state[:size], state[size:]
        g = h @ theta
        v = beta * v + g
        return np.concatenate([theta - eta * (g + beta * v if method.nesterov else v), v])

    return np.array([step(e) for e in np.eye(2 * size)]).T


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 4), BETAS, st.booleans(), st.floats(0.01, 3))
def test_factors_have_the_spectrum_of_the_update_rules(seed, size, beta, fast, eta):
    rows = np.random.default_rng(seed).normal(size=(size, size))
    method = SGD(momentum=beta, nesterov=fast)
    law = MomentumLaw(Minimum(rows @ rows.T), eta, method)
    gradients = law.plain.gradients
    for matrix, g in zip(law.finite().matrices, gradients, strict=True):
        naive = np.poly(naive_factor(np.outer(g, g), eta, method))
        assert np.poly(matrix) == pytest.approx(naive, rel=1e-8, abs=1e-8 * np.abs(naive).max())


@settings(max_examples=60)
@given(st.floats(0.001, 5), BETAS, st.booleans())
def test_the_exponent_of_gradient_descent_is_the_spectral_radius(x, beta, fast):
    method = SGD(momentum=beta, nesterov=fast)
    found = gd_exponent([[x]], 1.0, method)
    radius = np.abs(np.linalg.eigvals(naive_factor(np.array([[x]]), 1.0, method))).max()
    # A double root is known to the root of the rounding only.
    assert math.exp(found.value) == pytest.approx(radius, abs=1e-6)
    assert found.lower <= found.value <= found.upper


@settings(max_examples=60)
@given(st.floats(0.01, 10), BETAS, st.booleans())
def test_the_edge_of_gradient_descent(curvature, beta, fast):
    method = SGD(momentum=beta, nesterov=fast)
    (edge,) = [end for _, end in stable_steps([[curvature]], method).gd.intervals]
    assert gd_exponent([[curvature]], edge * (1 - 1e-9), method).sign == -1
    assert gd_exponent([[curvature]], edge * (1 + 1e-9), method).sign == 1
    assert stable_steps([[curvature]], method).sgd.intervals == ((0.0, edge),)


@pytest.mark.parametrize("method", [heavy(0.6), nesterov(0.6), heavy(0.9), nesterov(0.3)])
@pytest.mark.parametrize("options", [{}, {"batch_size": 2}, {"batch_size": 2, "replacement": True}])
def test_the_compiled_walk_agrees_with_listed_factors(method, options):
    rng = np.random.default_rng(1)
    how = SGD(momentum=method.momentum, nesterov=method.nesterov, **options)
    for shape in ((4, 6), (4, 3), (4, 2, 9)):  # regular, rank deficient, two outputs
        law = MomentumLaw(Minimum.from_jacobian(rng.normal(size=shape)), 0.15, how)
        one = monte_carlo(law, 0)
        two = monte_carlo(law.finite(), 1)
        assert abs(one.value - two.value) < 4 * math.hypot(one.standard_error, two.standard_error)


@pytest.mark.parametrize("method", [heavy(0.8, batch_size=2), nesterov(0.8), heavy(0.5)])
@pytest.mark.parametrize("eta", [0.03, 0.1])
def test_the_rate_of_simulated_training_is_lambda(method, eta):
    """SGD as it is simulated in parameters, which shares nothing with the factors."""
    # As many parameters as samples, and the minimum at 0: nothing keeps a run from going on to 0.
    inputs = np.random.default_rng(3).normal(size=(4, 4)) + 2 * np.eye(4)
    problem = LinearRegression(inputs, np.zeros(4))
    minimum = Minimum.from_jacobian(inputs)
    exponent = sgd_exponent(minimum, eta, method, rng=0)
    starts = np.random.default_rng(4).normal(size=(300, 4))
    half = int(60 / abs(exponent.value))  # 120 nats in all: no overflow, and no vanishing
    runs = stochastic_gradient_descent(
        problem, starts, eta, method, 2 * half, rng=5, record_every=half
    )
    rate, error = runs.growth_rate(half, 2 * half)
    assert abs(rate - exponent.value) < 4 * math.hypot(error, exponent.standard_error)


def test_reshuffled_epochs_are_simulated_too():
    method = heavy(0.5, reshuffle=True)
    inputs = np.array([[1.0, 0.2], [0.4, 1.1]])
    exponent = sgd_exponent(Minimum.from_jacobian(inputs), 0.4, method, rng=0)
    problem = LinearRegression(inputs, np.zeros(2))
    starts = np.random.default_rng(4).normal(size=(400, 2))
    runs = stochastic_gradient_descent(problem, starts, 0.4, method, 200, rng=5, record_every=100)
    rate, error = runs.growth_rate(100, 200)
    assert abs(rate - exponent.value) < 4 * math.hypot(error, exponent.standard_error)


@pytest.mark.parametrize("beta", [0.3, 0.9])
def test_the_exponents_of_the_heavy_ball_sum_to_r_log_beta(beta):
    law = MomentumLaw(K, 0.4, heavy(beta))
    spectrum = lyapunov_spectrum(law, rng=0, steps=2000)
    assert sum(e.value for e in spectrum) == pytest.approx(2 * math.log(beta), abs=1e-9)


def test_those_of_nesterov_sum_to_the_determinants_too():
    law = MomentumLaw(K, 0.4, nesterov(0.6))
    spectrum = lyapunov_spectrum(law, rng=0, steps=20_000)
    total = 2 * math.log(0.6) + np.log(np.abs(1 - 0.4 * np.diag(K))).mean()
    spread = math.sqrt(sum(e.standard_error**2 for e in spectrum))
    assert abs(sum(e.value for e in spectrum) - total) < 4 * spread
    # The bound is the mean of all of them.
    assert proven_bounds(law).lower == pytest.approx(total / 4, abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_bounds_hold_and_name_their_proof(seed):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(3, 5))
    method = [heavy, nesterov][seed % 2](float(rng.uniform(0.1, 0.9)))
    for eta in (0.05, 0.3, 1.0):
        law = MomentumLaw(Minimum.from_jacobian(rows), eta, method)
        bounds, found = proven_bounds(law), monte_carlo(law, seed, steps=3000)
        assert bounds.lower - 4 * found.standard_error <= found.value
        assert found.value <= bounds.upper + 4 * found.standard_error
        if not method.nesterov:
            assert bounds.lower == pytest.approx(math.log(method.momentum) / 2, rel=1e-12)
        if bounds.sign is not None:
            assert bounds.proof in {"mean square", "determinant"}


def test_lambda_cannot_fall_below_half_log_beta():
    """Where a plain step would be −∞: ηk = 1 for every sample."""
    assert sgd_exponent(np.eye(2), 1.0).value == -math.inf
    found = sgd_exponent(np.eye(2), 1.0, heavy(0.5), rng=0)
    assert found.lower >= math.log(0.5) / 2 - 1e-12


def test_orthogonal_groups_are_taken_one_by_one():
    """A sample that is drawn with probability ½; in between the ball coasts."""
    kernel = np.diag([1.0, 0.3])
    found = sgd_exponent(kernel, 0.5, heavy(0.4))
    assert found.kind == "deterministic"
    singles = [
        lyapunov_exponent(MomentumLaw(np.diag(part), 0.5, heavy(0.4)).finite()).value
        for part in ([1.0, 0.0], [0.0, 0.3])
    ]
    assert found.value == pytest.approx(max(singles), abs=1e-10)


def test_the_mean_square_of_batches_is_that_of_listed_ones():
    rows = np.random.default_rng(0).normal(size=(4, 6))
    minimum = Minimum.from_jacobian(rows)
    for options in ({"batch_size": 2}, {"batch_size": 3, "replacement": True}):
        for method in (heavy(0.7, **options), nesterov(0.7, **options)):
            law = MomentumLaw(minimum, 0.2, method)
            listed = mean_square_exponent(law.finite())
            assert mean_square_exponent(law).value == pytest.approx(listed.value, abs=1e-10)


def test_full_batches():
    minimum, method = Minimum(K), SGD(batch_size=None, momentum=0.7)
    assert sgd_exponent(minimum, 0.5, method).value == gd_exponent(minimum, 0.5, method).value
    table = stable_steps(minimum, method)
    assert str(table.sgd) == str(table.gd) == str(table.mean_square)
    assert table.gd.intervals[0][1] == pytest.approx(
        1.7 * stable_steps(minimum, GD).gd.intervals[0][1]
    )


def test_a_direction_that_nothing_moves():
    minimum = Minimum(np.eye(2), [1.0, 0.0])
    assert gd_exponent(minimum, 0.3, heavy(0.5)).value == 0.0
    table = stable_steps(minimum, heavy(0.5))
    assert not (table.gd)
    assert not (table.sgd)
    assert not (table.mean_square)


def test_the_verdict_and_its_notes():
    verdict = stability(K, 0.3, heavy(0.5), rng=0)
    assert verdict.region == "both"
    assert verdict.irregularities == ()
    assert "singular" not in " ".join(irregularities(np.diag([1.0, 2.0]), 1.0, heavy(0.5)))
    assert "singular" in irregularities(np.diag([1.0, 2.0]), 1.0, nesterov(0.5))[0]
    assert "reflection" in irregularities([[3.0]], 1.0, heavy(0.5))[0]


def test_what_is_refused():
    with pytest.raises(ValueError, match="method must have momentum"):
        MomentumLaw(K, 0.3, SGD())
    with pytest.raises(NotImplementedError, match="does not cover weight_decay"):
        sgd_exponent(K, 0.3, SGD(momentum=0.5, weight_decay=0.1))
    with pytest.raises(NotImplementedError, match="momentum with reshuffle=True"):
        stable_steps(K, heavy(0.5, reshuffle=True))
    with pytest.raises(NotImplementedError, match="does not cover momentum"):
        SGDLaw(K, 0.3, heavy(0.5))
    with pytest.raises(TypeError, match=r"MomentumLaw is listed by its finite\(\)"):
        transfer(MomentumLaw(K, 0.3, heavy(0.5)))
    with pytest.raises(ValueError, match="independent"):
        mean_square_edge(K, heavy(0.5, reshuffle=True))


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9, 0.99])
def test_the_edge_is_where_the_growth_in_mean_square_is_zero(nesterov, beta):
    """Two computations that share nothing but the law; several outputs, weights and batches."""
    rng = np.random.default_rng(int(100 * beta) + nesterov)
    for size, outputs, batch in ((2, 1, 1), (4, 1, 2), (2, 2, 1), (3, 1, 2)):
        rows = rng.normal(size=(size, outputs, size * outputs)) * np.exp(
            rng.normal(size=(size, 1, 1))
        )
        p = rng.dirichlet(np.ones(size)) if batch == 1 else None
        minimum = Minimum.from_jacobian(rows, probabilities=p)
        method = SGD(batch_size=batch, momentum=beta, nesterov=nesterov)
        edge = mean_square_edge(minimum, method)

        def growth(factor, where=(minimum, edge, method)):
            point, step, how = where
            return mean_square_exponent(MomentumLaw(point, factor * step, how)).value

        assert growth(1 - 1e-8) < 0 < growth(1 + 1e-8)
        assert all(growth(factor) < 0 for factor in (1e-3, 0.1, 0.5, 0.9))


def test_the_edge_of_a_hundred_rows_takes_no_matrix_of_their_pairs():
    """Of the second moments 40,000 numbers squared would be 13 GB."""
    jacobian = np.eye(100, 140) + 0.1 * np.random.default_rng(0).normal(size=(100, 140))
    plain = mean_square_edge(Minimum.from_jacobian(jacobian))
    for nesterov in (False, True):
        edge = mean_square_edge(
            Minimum.from_jacobian(jacobian), SGD(momentum=0.5, nesterov=nesterov)
        )
        assert 0.3 * plain < edge < 0.7 * plain  # close to 1 − β of it, where noise decides
