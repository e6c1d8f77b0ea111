import math
from dataclasses import replace
from decimal import Decimal, localcontext
from fractions import Fraction
from importlib import import_module
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stabcore import SGD, FiniteLaw, Minimum, SGDLaw
from stabcore.lyapunov import enclosure, monte_carlo
from stabcore.lyapunov.enclosures import _Factors, _Grid, _log, _sweeps

POLLICOTT = FiniteLaw([[[2, 1], [1, 1]], [[3, 1], [2, 1]]])
FIBONACCI = FiniteLaw([[[0, 1], [1, 1]], [[0, 1], [1, -1]]])
HALF = 0.5 * math.sqrt(2.5)
RENEWAL = FiniteLaw([[[0, 0], [-HALF, 1]], [[1, -HALF], [0, -1.5]]])
KERNEL = np.array([[1.0, 0.5], [0.5, 2.0]])
CHANGE = np.array([[1.0, 2.0], [0.5, 3.0]])

ENTRIES = st.floats(-3, 3)
MATRICES = st.lists(
    st.lists(ENTRIES, min_size=4, max_size=4).map(lambda x: np.reshape(x, (2, 2))),
    min_size=1,
    max_size=4,
)
# Entries whose products round, cancel and differ by many orders of magnitude.
ROUGH = st.builds(math.ldexp, st.floats(-1, 1), st.integers(-60, 60))
ROUGH_MATRICES = st.lists(
    st.lists(ROUGH, min_size=4, max_size=4).map(lambda x: np.reshape(x, (2, 2))),
    min_size=1,
    max_size=3,
)


def changed(matrices):
    """Return the matrices in another basis."""
    return FiniteLaw(CHANGE @ np.array(matrices, float) @ np.linalg.inv(CHANGE))


def check(result, value, width):
    assert result.kind == result.method == "enclosure"
    assert result.converged
    assert result.lower <= value <= result.upper
    assert result.upper - result.lower <= width
    assert result.lower <= result.value <= result.upper


# Known values


@pytest.mark.parametrize(
    ("law", "value"),
    [
        (POLLICOTT, 1.1433110351029492458432518536555882994025),
        (FIBONACCI, 0.1239755988),
        (RENEWAL, 0.10551172445156578605),
        (SGDLaw([[1, HALF], [HALF, 2.5]], 1.0), 0.10551172445156578605),
        (FiniteLaw([[[2, 1], [1, 1]]]), math.log((3 + math.sqrt(5)) / 2)),
        (FiniteLaw([[[0, 2], [1, 0]]]), math.log(2) / 2),  # T g has period two
        # Reducible, in another basis; the invariant line has the smaller, then the larger exponent.
        (changed([[[2, 1], [0, 3]], [[0.5, -1], [0, 2]]]), math.log(6) / 2),
        (changed([[[3, 1], [0, 2]], [[2, -1], [0, 0.5]]]), math.log(6) / 2),
    ],
)
@pytest.mark.parametrize("width", [1e-1, 1e-3, 1e-4])
def test_known_values(law, value, width):
    check(enclosure(law, width=width), value, width)


def test_pollicott_to_six_digits():
    check(enclosure(POLLICOTT, width=2e-6, max_arcs=2**20), 1.1433110351029492, 2e-6)


@pytest.mark.parametrize("transpose", [False, True])
def test_triangular_factors(transpose):
    matrices = np.array([[[2, 1], [0, 3]], [[0.5, -4], [0, 0.1]]])
    law = FiniteLaw(np.swapaxes(matrices, 1, 2) if transpose else matrices, [0.25, 0.75])
    exponents = 0.25 * np.log([2, 3]) + 0.75 * np.log([0.5, 0.1])
    check(enclosure(law, width=1e-13), max(exponents), 1e-13)


def test_triangular_factors_with_a_zero():
    law = FiniteLaw([[[2, 1], [0, 0]], [[3, 0], [0, 5]]])
    check(enclosure(law, width=1e-13), math.log(6) / 2, 1e-13)
    nilpotent = enclosure(FiniteLaw([[[0, 1], [0, 0]], [[3, 0], [0, 0]]]))
    assert nilpotent.value == nilpotent.upper == -math.inf
    assert nilpotent.converged


def test_accuracy_of_the_arithmetic_is_admitted():
    result = enclosure(FiniteLaw([[[2, 1], [0, 3]]]), width=1e-20)
    assert "accuracy of the arithmetic" in result.status
    assert result.lower < math.log(3) < result.upper


def test_isometries():
    c, s = math.cos(0.3), math.sin(0.3)
    law = FiniteLaw([[[c, -s], [s, c]], [[0, 1], [1, 0]], [[1, 0], [0, -1]]])
    check(enclosure(law), 0.0, 1e-13)
    assert enclosure(law).sign is None


def test_isometry_in_another_basis():
    c, s = math.cos(1.0), math.sin(1.0)
    check(enclosure(changed([[[c, -s], [s, c]]]), width=1e-2), 0.0, 1e-2)


def test_zero_factor():
    result = enclosure(FiniteLaw([[[0, 0], [0, 0]], [[1, 2], [3, 4]]], [0.1, 0.9]))
    assert result.value == result.upper == -math.inf
    assert result.sign == -1


def test_factors_that_never_occur():
    law = FiniteLaw([[[2, 1], [1, 1]], [[0, 0], [0, 0]], [[3, 1], [2, 1]]], [0.5, 0, 0.5])
    assert enclosure(law) == enclosure(POLLICOTT)


def test_reachable_kernel_leaves_no_lower_bound():
    # The image of the only factor is its kernel: the product vanishes at the second step.
    law = FiniteLaw([[[1, -1], [1, -1]]])
    result = enclosure(law, max_arcs=4096)
    assert result.lower == -math.inf
    assert result.value == result.upper < -1
    assert result.status.startswith("no lower bound")
    assert "kernel" in result.status
    assert enclosure(law, decide_sign=True).sign == -1


def test_singular_factor_whose_kernel_is_reached_at_random():
    # A rotation by one radian takes the image of the singular factor everywhere.
    c, s = math.cos(1.0), math.sin(1.0)
    law = FiniteLaw([[[1, 1], [1, 1]], [[c, -s], [s, c]]])
    result = enclosure(law, max_arcs=4096)
    assert result.lower == -math.inf
    # Renewal: λ = Σ_k 2^-(k+2) log|⟨u, R^k u⟩·2|, u = (1, 1)/√2.
    value = sum(2.0 ** -(k + 2) * math.log(abs(2 * math.cos(k))) for k in range(60))
    assert value < result.upper < value + 0.1


# SGD


@pytest.mark.parametrize("step_size", [0.3, 0.7, 1.2, 1.9])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_sgd_on_two_samples_agrees_with_monte_carlo(step_size, batch_size):
    law = SGDLaw(KERNEL, step_size, SGD(batch_size=batch_size, replacement=True))
    estimate = monte_carlo(law, 0, steps=20_000)
    result = enclosure(law, width=1e-4)
    assert result.converged
    assert result.lower <= estimate.upper
    assert estimate.lower <= result.upper
    decided = enclosure(law, decide_sign=True)
    assert decided.sign == estimate.sign
    assert decided.evaluations <= result.evaluations


def test_what_is_proven_of_sgd_holds_for_its_kernel():
    """Gradients (1, 0), (2, 1), (8, 9) and η = 1: A₁A₂A₁ = 0, though not in floating point."""
    result = enclosure(SGDLaw([[1, 2, 8], [2, 5, 25], [8, 25, 145.0]], 1.0))
    assert result.lower == -math.inf
    # A reflection that exchanges the axes of the other factor: log-continuous only, so that the
    # roundings of the kernel move λ = (3/8) log 3 by some percent.
    turned = SGDLaw(Minimum([[2, 2], [2, 4.0]], [0.25, 0.75]), 1.0)
    result = enclosure(turned, max_arcs=2**14)
    assert result.lower < 3 / 8 * math.log(3) < result.upper
    # In three rows of rank two the factors come from eigenvectors; the kernel of rows 1 and 2 not.
    vectors = np.array([[1.0, 0.2], [0.3, 1.1], [0.0, 0.0]])
    small = enclosure(SGDLaw(Minimum(vectors[:2] @ vectors[:2].T), 0.8), width=1e-4)
    large = enclosure(SGDLaw(Minimum(vectors @ vectors.T, [0.5, 0.5, 0.0]), 0.8), width=1e-4)
    assert large.lower <= small.upper
    assert small.lower <= large.upper
    assert large.upper - large.lower < 2e-4


@pytest.mark.parametrize("method", [SGD(), SGD(batch_size=2, replacement=True)])
def test_two_rows_are_enclosed_from_the_kernel(method):
    """With importance sampling and batches: the same as the law written out, and a little wider."""
    for weights in (None, (0.3, 0.7)):
        law = SGDLaw(KERNEL, 0.9, replace(method, probabilities=weights))
        result, plain = enclosure(law, width=1e-4), enclosure(law.finite(), width=1e-4)
        assert result.lower <= plain.upper
        assert plain.lower <= result.upper
    twin = SGDLaw(Minimum(KERNEL, outputs=2), 0.9)  # one sample with two outputs: gradient descent
    result, descent = enclosure(twin, width=1e-3), 1 - 0.9 * np.linalg.eigvalsh(KERNEL)
    assert result.lower <= math.log(np.abs(descent).max()) <= result.upper


def test_sgd_in_a_normal_space_of_dimension_two():
    angles = np.linspace(0, 3, 7)
    law = SGDLaw(np.cos(np.subtract.outer(angles, angles)), 1.3)
    estimate = monte_carlo(law, 0)
    result = enclosure(law, width=1e-3)
    assert result.lower <= estimate.upper
    assert estimate.lower <= result.upper
    assert result.sign == -1


@pytest.mark.parametrize(
    "law", [POLLICOTT, FIBONACCI, RENEWAL, changed([[[2, 1], [0, 3]], [[0.5, -1], [0, 2]]])]
)
def test_long_monte_carlo_is_inside(law):
    estimate = monte_carlo(law, 1, steps=200_000)
    error = (estimate.upper - estimate.lower) / 2
    result = enclosure(law, width=1e-4)
    assert result.lower - 2 * error < estimate.value < result.upper + 2 * error


# Properties


@pytest.mark.parametrize("law", [POLLICOTT, FIBONACCI, RENEWAL, SGDLaw(KERNEL, 0.7)])
def test_nested(law):
    results = [enclosure(law, width=width) for width in (1e-1, 1e-2, 1e-3, 1e-4)]
    for wide, narrow in pairwise(results):
        assert wide.lower <= narrow.lower < narrow.upper <= wide.upper


@pytest.mark.parametrize("scale", [1e-300, 1e-5, -3.0, 1e300])
def test_scaling(scale):
    law = FiniteLaw(scale * POLLICOTT.matrices)
    value = 1.1433110351029492 + math.log(abs(scale))
    check(enclosure(law, width=1e-4), value, 1e-4)


def test_factors_of_different_size():
    matrices = [1e-200 * POLLICOTT.matrices[0], 1e150 * POLLICOTT.matrices[1]]
    value = 1.1433110351029492 - 25 * math.log(10)
    check(enclosure(FiniteLaw(matrices), width=1e-4), value, 1e-4)


def test_nearly_singular_factor():
    law = FiniteLaw([[[1, 1], [1, 1 + 1e-9]], [[0.3, -2], [1, 1]]])
    estimate = monte_carlo(law, 0, steps=100_000)
    result = enclosure(law, width=1e-3)
    check(result, result.value, 1e-3)
    assert result.lower <= estimate.upper
    assert estimate.lower <= result.upper


def growth(law, count=2000, depth=150):
    """Return the exponent by brute force: T^k g on a fine grid of angles, interpolated."""
    angles = np.arange(count) * np.pi / count
    directions = np.stack([np.cos(angles), np.sin(angles)])
    images = law.matrices @ directions
    f = np.log(np.hypot(images[:, 0], images[:, 1])).T @ law.probabilities
    positions = (np.arctan2(images[:, 1], images[:, 0]) % np.pi) * count / np.pi
    left = positions.astype(int)
    share = positions - left
    for _ in range(depth):
        values = (1 - share) * f[left % count] + share * f[(left + 1) % count]
        f = law.probabilities @ values
    return f.min(), f.max()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_contains_a_brute_force_estimate(seed):
    """Positive matrices, for which the brute force converges."""
    law = FiniteLaw(np.random.default_rng(seed).uniform(0.2, 2.0, size=(3, 2, 2)))
    lower, upper = growth(law)
    assert upper - lower < 1e-6
    result = enclosure(law, width=1e-3)
    # The estimate has the error of an interpolation, larger where a factor is steep.
    assert result.lower - 1e-3 <= lower
    assert upper <= result.upper + 1e-3


@settings(deadline=None, max_examples=60)
@given(MATRICES, st.floats(0.1, 10))
def test_scaling_and_transposition(matrices, scale):
    law = FiniteLaw(matrices)
    assume(np.abs(law.matrices).max(axis=(1, 2)).all())
    assume((np.abs(law.matrices)[law.matrices != 0] > 1e-300).all())
    first = enclosure(law, width=1e-2, max_arcs=256)
    scaled = enclosure(FiniteLaw(scale * law.matrices), width=1e-2, max_arcs=256)
    other = enclosure(FiniteLaw(np.swapaxes(law.matrices, 1, 2)[::-1]), width=1e-2, max_arcs=256)
    shift = math.log(scale)
    for result, move in ((scaled, shift), (other, 0.0)):
        assert result.lower <= first.upper + move + 1e-9
        assert first.lower + move <= result.upper + 1e-9


# Outward rounding, against exact arithmetic


def exact_direction(position, arcs):
    """Return the point of the square's half-boundary at a rational position."""
    if 2 * position <= arcs:
        return Fraction(1), 4 * position / arcs - 1
    return 3 - 4 * position / arcs, Fraction(1)


def exact_position(x, y, arcs):
    """Return the position, in [0, arcs), of the line through (x, y)."""
    if abs(x) > abs(y) or x == -y:
        return (1 + y / x) * arcs / 4 % arcs
    return (3 - x / y) * arcs / 4 % arcs


def image(matrix, direction):
    a, b, c, d = (Fraction(float(entry)) for entry in matrix.ravel())
    x, y = direction
    return a * x + b * y, c * x + d * y


def exact_log(x):
    return (Decimal(x.numerator) / Decimal(x.denominator)).ln()


def exact_growth(law, direction):
    """Return g with 60 digits; the probabilities are normalised exactly."""
    total = sum(map(Fraction, law.probabilities.tolist()))
    result = Decimal(0)
    for matrix, share in zip(law.matrices, law.probabilities, strict=True):
        x, y = image(matrix, direction)
        square = (x**2 + y**2) / (direction[0] ** 2 + direction[1] ** 2)
        if square == 0:
            return Decimal("-inf")
        weight = Fraction(float(share)) / total
        result += Decimal(weight.numerator) / Decimal(weight.denominator) * exact_log(square) / 2
    return result


def points_of(arc):
    """Return rational positions in an arc, its ends among them."""
    return [arc + Fraction(k, 8) for k in range(9)] + [
        arc + Fraction(1, 10**12),
        arc + 1 - Fraction(1, 10**12),
    ]


def special_arcs(law, arcs, rng):
    """Return a few arcs, those with a kernel or an eigenvector of AᵀA among them."""
    chosen = {0, arcs // 4, arcs // 2 - 1, arcs // 2, arcs - 1, *rng.integers(0, arcs, 3).tolist()}
    for matrix in law.matrices:
        for x, y in np.linalg.svd(matrix)[2]:
            position = exact_position(Fraction(float(x)), Fraction(float(y)), arcs)
            chosen.add(math.floor(position))
    return sorted(chosen)


def check_tables(law, arcs, slack=0.0, at=None):
    """Check the tables of a law whose entries are in error; the true entries are those of `at`."""
    grid = _Grid.of(_Factors.of(law.matrices, law.probabilities, slack), arcs, 0)
    law = law if at is None else at
    with localcontext() as context:
        context.prec = 60
        for arc in special_arcs(law, arcs, np.random.default_rng(0)):
            for position in points_of(arc):
                direction = exact_direction(position, arcs)
                value = exact_growth(law, direction)
                assert Decimal(float(grid.lower[arc])) <= value <= Decimal(float(grid.upper[arc]))
                for i, matrix in enumerate(law.matrices):
                    x, y = image(matrix, direction)
                    if x == y == 0:
                        continue
                    met = exact_position(x, y, arcs)
                    assert (math.floor(met) - grid.first[arc, i]) % arcs < grid.count[arc, i]


@pytest.mark.parametrize("arcs", [64, 1024, 2**17])
@pytest.mark.parametrize(
    "law",
    [
        POLLICOTT,
        FIBONACCI,
        RENEWAL,
        FiniteLaw([[[1, -1], [1, -1]], [[1, 1], [1, 1 + 1e-15]]], [0.3, 0.7]),
        FiniteLaw([[[0.6, -0.8], [0.8, 0.6]], [[0, 1], [1, 0]]]),
        FiniteLaw([[[0.1, 0.3], [0.2, 0.6]], [[1 / 3, 1e-17], [1e-17, 1 / 7]]], [0.1, 0.9]),
        FiniteLaw([[[1e300, 1], [1e-300, 1]], [[1, 1e-310], [1e-310, 1e-310]]]),
        FiniteLaw([[[1e300, 1], [1, 1e-5]], [[1e-300, 1e-310], [1e-308, 1e-300]]]),
        SGDLaw([[1, HALF], [HALF, 2.5]], 1.0).finite(),
    ],
)
def test_tables_against_exact_arithmetic(law, arcs):
    check_tables(law, arcs)


@pytest.mark.parametrize("arcs", [64, 4096])
@pytest.mark.parametrize("size", [1e-2, 1e-15])
@pytest.mark.parametrize("seed", range(3))
def test_tables_hold_for_all_matrices_within_the_errors(arcs, size, seed):
    """At the corners of the box of entries, where the bounds are met if anywhere."""
    rng = np.random.default_rng(seed)
    law = FiniteLaw(rng.normal(size=(2, 2, 2)), [0.3, 0.7])
    if seed == 0:  # a singular factor: its kernel moves
        law = FiniteLaw([[[1, -1], [1, -1]], [[1, 1], [1, 2]]], [0.3, 0.7])
    slack = size * np.abs(rng.normal(size=(2, 2, 2)))
    for _ in range(2):
        corner = FiniteLaw(law.matrices + slack * rng.choice([-1, 1], (2, 2, 2)), [0.3, 0.7])
        moved = np.abs(corner.matrices - law.matrices)
        check_tables(law, arcs, moved * (1 + 1e-15), corner)


@pytest.mark.parametrize("steps", [0, 4, 8, 14])
def test_extremes_of_growth_in_the_middle_of_an_arc(steps):
    # The singular directions are (1, t) and (−t, 1), midway between two v_j.
    v = np.array([1, (2 * steps + 1) / 32])
    check_tables(FiniteLaw([np.eye(2) + 8 * np.outer(v, v)]), 64)


@pytest.mark.parametrize("seed", range(40))
def test_kernel_up_to_rounding_at_an_end(seed):
    # A v_j is 0 in floating point, or all rounding error.
    rng = np.random.default_rng(seed)
    t = rng.integers(1, 16) / 16
    column = rng.normal(size=2)
    check_tables(FiniteLaw([np.stack([column, -column / t], axis=1)]), 64)


@pytest.mark.parametrize("share", [[0.5, 0.5 - 1e-9], [0.5, 0.5 + 1e-9], [0.7] + [0.001] * 300])
def test_probabilities_are_normalised_exactly(share):
    share = np.array(share)
    grid = _Grid.of(_Factors.of(np.array([3 * np.eye(2)] * share.size), share), 64, 0)
    assert (grid.lower < math.log(3)).all()
    assert (math.log(3) < grid.upper).all()


@settings(deadline=None, max_examples=60)
@given(ROUGH_MATRICES, st.sampled_from([64, 4096]))
def test_tables_of_rough_matrices(matrices, arcs):
    law = FiniteLaw(matrices)
    assume(law.matrices.any(axis=(1, 2)).all())
    check_tables(law, arcs)


@settings(deadline=None, max_examples=60)
@given(MATRICES)
def test_the_set_of_arcs_is_closed(matrices):
    law = FiniteLaw(matrices)
    assume(law.matrices.any(axis=(1, 2)).all())
    grid = _Grid.of(_Factors.of(law.matrices, law.probabilities), 128, 0)
    inside = set(grid.members.tolist())
    assert inside
    for arc in inside:
        for i in range(len(law.matrices)):
            met = (grid.first[arc, i] + np.arange(grid.count[arc, i])) % 128
            assert inside.issuperset(met.tolist())


@pytest.mark.parametrize("law", [POLLICOTT, FIBONACCI, RENEWAL])
def test_bracket_against_exact_arithmetic(law):
    factors, arcs = _Factors.of(law.matrices, law.probabilities), 128
    grid = _Grid.of(factors, arcs, 0)
    h = np.random.default_rng(0).normal(size=arcs)
    proven, _ = _sweeps(
        grid.first,
        grid.count,
        grid.members,
        factors.share,
        factors.rounding,
        grid.upper,
        h.copy(),
        h.copy(),
        1,
    )
    total = sum(map(Fraction, factors.share.tolist()))
    brackets = []
    for arc in grid.members:
        bracket = Fraction(float(grid.upper[arc])) - Fraction(float(h[arc]))
        for i, share in enumerate(factors.share):
            met = (grid.first[arc, i] + np.arange(grid.count[arc, i])) % arcs
            met = grid.members if grid.count[arc, i] == arcs else met
            bracket += Fraction(float(share)) / total * Fraction(float(h[met].max()))
        brackets.append(bracket)
    assert max(brackets) <= Fraction(float(proven)) <= max(brackets) + Fraction(1, 10**12)


@settings(deadline=None, max_examples=300)
@given(
    st.one_of(
        st.floats(5e-324, 1.7e308),
        st.floats(0.999, 1.001),
        st.floats(0.70710, 0.70711),
        st.floats(1.4142, 1.4143),
    )
)
def test_logarithm_against_sixty_digits(x):
    value, error = _log(x)
    with localcontext() as context:
        context.prec = 60
        assert abs(Decimal(value) - Decimal(x).ln()) <= Decimal(error) / 3
    assert error <= 2e-15 * (1 + 2 * abs(math.log(x)))


# Honest failure and bad input


def test_max_arcs_is_reported():
    result = enclosure(FIBONACCI, width=1e-6, max_arcs=1000)
    assert "not the requested 1e-06" in result.status
    assert "512 arcs were used; raise max_arcs" in result.status
    assert result.lower < 0.1239755988 < result.upper


def test_too_many_factors_for_more_arcs(monkeypatch):
    # The package may export the function under the name of the module.
    module = import_module("stabcore.lyapunov.enclosures")
    monkeypatch.setattr(module, "MOST_TABLE_ENTRIES", 256)
    result = enclosure(POLLICOTT, width=1e-6)
    assert "128 arcs were used; the law has too many factors" in result.status


def test_lost_contraction_is_reported():
    # Two invariant lines, neither on an axis, visited by turns: exponents 0 and log(0.9)/2.
    law = changed([[[3, 0], [0, 2]], [[0.3, 0], [0, 0.5]]])
    result = enclosure(law, max_arcs=2**12)
    assert "forget their starting direction" in result.status
    assert result.lower <= 0 <= result.upper
    assert "sign not decided" in enclosure(law, decide_sign=True, max_arcs=2**12).status


@pytest.mark.parametrize(
    ("law", "message"),
    [
        (FiniteLaw([[[2.0]]]), "dimension 1; use algorithm='closed_form'"),
        (FiniteLaw([np.eye(3)]), "dimension 3; use algorithm='monte_carlo'"),
        (SGDLaw([[1, 2], [2, 4]], 1.0), "dimension 1"),
    ],
)
def test_laws_that_are_refused(law, message):
    with pytest.raises(ValueError, match=message):
        enclosure(law)


def test_too_many_factors():
    matrices = np.broadcast_to(POLLICOTT.matrices[0], (2**18 + 1, 2, 2))
    with pytest.raises(ValueError, match="262145 factors, above the limit 262144"):
        enclosure(FiniteLaw(matrices))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"width": 0.0}, ValueError, "width must be finite and greater than 0"),
        ({"width": math.nan}, ValueError, "width"),
        ({"width": "small"}, TypeError, "width"),
        ({"decide_sign": 1}, TypeError, "decide_sign must be True or False"),
        ({"max_arcs": 10}, ValueError, "max_arcs must be at least 64"),
        ({"max_arcs": 1e3}, TypeError, "max_arcs must be an integer"),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        enclosure(POLLICOTT, **options)


def test_not_a_law():
    with pytest.raises(TypeError, match="law must be"):
        enclosure(KERNEL)
