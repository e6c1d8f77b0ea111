import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stabcore import (
    LinearRegression,
    Problem,
    ReluPair,
    ScalarChain,
    ScalarFactorization,
    find_cycles,
    gd_map,
    period_doublings,
)
from stabcore.descent import (
    BalancedChain,
    SearchOutcome,
    balanced_two_cycle,
    multipliers,
    refine_orbit,
)
from stabcore.problems import PiecewiseQuartic


class Endless(Problem):
    """The gradient θ² + 0.1, which is never 0: the map moves left for ever."""

    n_parameters, probabilities = 1, np.ones(1)

    def residuals(self, theta, samples=None):
        raise NotImplementedError

    jacobian = residuals

    def gradient(self, theta):
        return theta**2 + 0.1

    def hessian(self, theta):
        return 2 * theta[..., None]


class NoHessianBeyondOne(ScalarFactorization):
    """The scalar factorisation, with a Hessian that is not a number beyond θ₁ = 1."""

    def hessian(self, theta):
        return np.where(theta[..., :1, None] > 1, np.nan, super().hessian(theta))


def iterate(problem, theta, step_size, steps):
    for _ in range(steps):
        theta = gd_map(problem, theta, step_size)
    return theta


def differentiate(problem, theta, step_size, steps):
    """Return the derivative of the iterated map by central differences."""
    h = 1e-6
    columns = [
        (
            iterate(problem, theta + h * e, step_size, steps)
            - iterate(problem, theta - h * e, step_size, steps)
        )
        / (2 * h)
        for e in np.eye(theta.size)
    ]
    return np.stack(columns, axis=1)


def positive_diagonal(cycles):
    """Return the cycles whose points are on the positive diagonal."""
    return [
        c for c in cycles if np.allclose(c.points[:, 0], c.points[:, 1]) and (c.points > 0).all()
    ]


def test_a_guess_is_refined_to_the_cycle_or_reported():
    problem, closed = ScalarFactorization(), balanced_two_cycle(1.2)
    points, converged = refine_orbit(problem, 1.2, closed[:, None] + [[0.02, -0.01], [0.0, 0.03]])
    assert converged
    assert points == pytest.approx(np.stack([closed, closed], axis=1), abs=1e-14)
    assert not refine_orbit(Endless(), 0.1, [[0.3]])[1]  # no cycle
    assert not refine_orbit(ReluPair(), 0.2, [[-0.5, 0.5]])[1]  # a dead network
    with pytest.raises(ValueError, match=r"points must have shape \(..., 2\)"):
        refine_orbit(problem, 1.2, [[1.0]])


@settings(deadline=None, max_examples=20)
@given(st.floats(1.01, 1.9))
def test_the_error_of_the_multipliers_covers_it(a):
    (cycle,) = positive_diagonal(
        find_cycles(ScalarFactorization(), a, 2, starts=[[x, x] for x in balanced_two_cycle(a)])
    )
    expected = sorted([9 - 2 * (1 + a) ** 2, 3 - 2 * a])
    assert np.abs(np.sort(cycle.multipliers.real) - expected).max() <= cycle.multiplier_error
    assert cycle.multiplier_error < 1e-6 or a < 1.05


@settings(deadline=None, max_examples=20)
@given(st.floats(1.01, 1.9))
def test_the_two_cycle_has_its_closed_form_and_multipliers(a):
    (cycle,) = positive_diagonal(find_cycles(ScalarFactorization(), a, 2, n_starts=120))
    closed = balanced_two_cycle(a)
    assert np.abs(cycle.points - closed[:, None]).max() <= min(cycle.radius, 1e-11)
    expected = np.array([9 - 2 * (1 + a) ** 2, 3 - 2 * a])
    expected = expected[np.argsort(-np.abs(expected))]
    assert cycle.multipliers.real == pytest.approx(expected, abs=1e-9)
    assert (cycle.multipliers.imag == 0).all()
    assert cycle.isolated
    assert cycle.stability == ("stable" if a < math.sqrt(5) - 1 else "unstable")


def test_paper_d_has_a_stable_two_cycle_at_its_larger_step_size():
    cycles = find_cycles(ReluPair(), 0.325, 2)
    (cycle,) = cycles.stable
    a = 0.325 * 3.53
    assert cycle.points[:, 0] == pytest.approx(balanced_two_cycle(a), abs=1e-12)
    assert cycle.multipliers.real == pytest.approx([3 - 2 * a, 9 - 2 * (1 + a) ** 2], abs=1e-12)
    assert len(find_cycles(ReluPair(), 0.25, 2)) == 0


@pytest.mark.parametrize(("period", "expected"), [(2, 2), (3, 8), (4, 18)])
@pytest.mark.parametrize("step_size", [0.7, 1.2])
def test_the_boundary_of_the_bounded_region_carries_a_tripling_map(step_size, period, expected):
    """u² + v² − ηuv = 4/η − η is invariant and G^p has 3^p − (−1)^p fixed points on it."""
    cycles = find_cycles(
        ScalarFactorization(), step_size, period, n_starts=1500, transient=0, box=(-2.5, 2.5)
    )
    squares = np.array(
        [(c.points**2).sum(axis=1) - step_size * c.points.prod(axis=1) for c in cycles]
    )
    on = np.abs(squares - (4 / step_size - step_size)).max(axis=1) < 1e-10
    assert on.sum() == expected
    spectra = np.array([c.multipliers for c in cycles])[on]
    assert np.abs(np.abs(spectra) - 3**period).min(axis=1) == pytest.approx(0, abs=1e-10)


def test_all_cycles_are_distinct_genuine_and_of_minimal_period():
    cycles = find_cycles(ScalarFactorization(), 1.6, 4)
    assert len(cycles) > 15
    for cycle in cycles:
        turned = gd_map(ScalarFactorization(), cycle.points, 1.6)
        assert turned == pytest.approx(np.roll(cycle.points, -1, axis=0), abs=1e-13)
        assert np.abs(cycle.points[0] - cycle.points[2]).max() > 1e-3
        naive = differentiate(ScalarFactorization(), cycle.points[0], 1.6, 4)
        assert cycle.multipliers.sum().real == pytest.approx(np.trace(naive), rel=1e-4)
        assert cycle.points[0].tolist() == min(cycle.points.tolist())
    everything = np.concatenate([cycle.points for cycle in cycles])
    gaps = np.abs(everything[:, None] - everything).max(axis=2) + np.eye(len(everything))
    assert gaps.min() > 1e-4


def test_chains_have_one_multiplier_along_and_the_others_across():
    """At θ = x(1, 1, 1): along 1 − η(5x⁴ − 2x), across 1 + η(x⁴ − x)."""
    cycles = find_cycles(ScalarChain(3), 0.75, 2)
    (cycle,) = [c for c in cycles.stable if (c.points > 0).all()]
    x = cycle.points[:, 0]
    along = (1 - 0.75 * (5 * x**4 - 2 * x)).prod()
    across = (1 + 0.75 * (x**4 - x)).prod()
    assert np.sort(cycle.multipliers.real) == pytest.approx([along, across, across], abs=1e-12)
    assert len(cycles.stable) == 4  # the signs of three factors with positive product


@pytest.mark.parametrize("problem", [ScalarFactorization(), ScalarChain(3)])
def test_newton_converges_from_everywhere_near_a_manifold_of_minima(problem):
    # Undamped, the directions along the manifold spoil 7 of the 300 starts of each.
    outcomes = find_cycles(problem, 0.6, 1, transient=0).outcomes
    assert set(outcomes) == {SearchOutcome.FOUND, SearchOutcome.DUPLICATE}


def test_minima_are_not_isolated_and_the_saddle_is():
    cycles = find_cycles(ScalarFactorization(), 0.6, 1)
    (saddle,) = [c for c in cycles if c.isolated]
    assert saddle.points == pytest.approx(np.zeros((1, 2)), abs=1e-12)
    assert saddle.multipliers.real == pytest.approx([1.6, 0.4])
    assert saddle.stability == "unstable"
    minima = [c for c in cycles if not c.isolated]
    assert len(minima) > 20
    for minimum in minima:
        s = (minimum.points**2).sum()
        assert minimum.radius == math.inf
        assert "multiplier is 1" in minimum.status
        assert np.abs(minimum.multipliers - 1).min() < 1e-9
        assert minimum.stability == ("neutral" if 0.6 * s < 2 else "unstable")


def test_a_multiplier_of_minus_one_is_undecided():
    cycles = find_cycles(ScalarFactorization(), math.sqrt(5) - 1, 2)
    (cycle,) = positive_diagonal(cycles)
    assert cycle.stability == "undecided"
    assert cycle.isolated


def test_every_start_is_accounted_for():
    cycles = find_cycles(ScalarFactorization(), 1.2, 4, n_starts=100)
    assert len(cycles.outcomes) == 102
    assert sum(cycles.count(kind) for kind in SearchOutcome) == 102
    assert 0 < cycles.count(SearchOutcome.FOUND) <= len(cycles)  # the others are images
    found = cycles.count(SearchOutcome.FOUND) + cycles.count(SearchOutcome.DUPLICATE)
    assert len(cycles.hits) == len(cycles)
    assert min(cycles.hits) > 0
    assert max(cycles.hits) <= found <= sum(cycles.hits)
    assert cycles.count(SearchOutcome.DIVISOR) == sum(cycles.divisor_periods.values())
    assert set(cycles.divisor_periods) == {1, 2}
    assert cycles.count(SearchOutcome.DIVERGED) > 0
    assert f"{cycles.count(SearchOutcome.FOUND)} found" in str(cycles)
    assert all(cycle.period == 4 for cycle in cycles)
    assert cycles[0].points is cycles.cycles[0].points


def test_duplicates_under_rotation_are_one_cycle():
    x, y = balanced_two_cycle(1.2)
    cycles = find_cycles(ScalarFactorization(), 1.2, 2, starts=[[y, y], [x, x]], transient=0)
    assert len(cycles) == 1
    assert cycles.count(SearchOutcome.DUPLICATE) == 3  # each start is used twice
    assert cycles[0].points[:, 0] == pytest.approx([x, y], abs=1e-14)


def test_minima_are_cycles_of_a_divisor_period():
    cycles = find_cycles(ScalarFactorization(), 0.2, 3, starts=[[1.1, 0.9]])
    assert cycles.divisor_periods == {1: 2}
    assert len(cycles) == 0


def test_diverging_orbits_are_told_apart():
    cycles = find_cycles(LinearRegression([[1.0]], [1.0]), 2.5, 1, starts=[[0.0]])
    assert [outcome.name for outcome in cycles.outcomes] == ["DIVERGED", "FOUND"]
    assert cycles[0].multipliers.real == pytest.approx([-1.5])
    assert cycles[0].stability == "unstable"
    assert cycles[0].radius < 1e-14  # a linear map: Newton is exact


def test_dead_networks_and_missing_hessians_leave_the_domain():
    dead = find_cycles(ReluPair(), 0.3, 2, starts=[[-1.0, 1.0]])
    assert set(dead.outcomes) == {SearchOutcome.LEFT_DOMAIN}
    chaotic = find_cycles(ReluPair(), 1.7 / 3.53, 2, starts=[[0.9, 0.9]], transient=5000)
    assert chaotic.outcomes[0] == SearchOutcome.LEFT_DOMAIN
    undefined = find_cycles(NoHessianBeyondOne(), 1.2, 1, starts=[[1.5, 0.5]], transient=0)
    assert set(undefined.outcomes) == {SearchOutcome.LEFT_DOMAIN}


def test_a_cycle_through_a_kink_is_outside_the_domain_of_smoothness():
    """At η = ¼ the piecewise quartic maps 2 to 1 and 1 to 2, and its Hessian jumps at 2."""
    assert gd_map(PiecewiseQuartic(), np.array([[2.0], [1.0]]), 0.25).tolist() == [[1.0], [2.0]]
    cycles = find_cycles(PiecewiseQuartic(), 0.25, 2, starts=[[1.0], [2.0]], transient=0)
    assert len(cycles) == 0
    assert SearchOutcome.LEFT_DOMAIN in cycles.outcomes


def test_newton_that_does_not_converge_is_reported():
    cycles = find_cycles(Endless(), 0.1, 1, starts=[[0.5], [-0.3]], transient=0)
    assert set(cycles.outcomes) == {SearchOutcome.NOT_CONVERGED}
    assert len(cycles) == 0


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-8])
def test_the_radius_covers_the_error_of_a_coarse_cycle(tolerance):
    cycles = find_cycles(ScalarFactorization(), 1.2, 2, tolerance=tolerance)
    closed = balanced_two_cycle(1.2)
    for cycle in positive_diagonal(cycles):
        error = np.linalg.norm(cycle.points - closed[:, None])
        assert error <= cycle.radius < 0.01


def test_the_same_seed_gives_the_same_cycles():
    first, second = (find_cycles(ScalarFactorization(), 1.2, 3, rng=5) for _ in range(2))
    assert [c.points.tolist() for c in first] == [c.points.tolist() for c in second]
    assert [c.radius for c in first] == [c.radius for c in second]
    assert first.outcomes == second.outcomes


def test_multipliers_of_a_given_cycle_do_not_depend_on_its_first_point():
    x, y = balanced_two_cycle(1.3)
    expected = [9 - 2 * 2.3**2, 3 - 2 * 1.3]
    for points in ([[x, x], [y, y]], [[y, y], [x, x]]):
        assert multipliers(ScalarFactorization(), 1.3, points) == pytest.approx(expected, abs=1e-12)


def test_multipliers_refuse_points_that_are_no_cycle():
    with pytest.raises(ValueError, match="points is no cycle: the map misses"):
        multipliers(ScalarFactorization(), 1.3, [[0.7, 0.7], [1.2, 1.2]])
    with pytest.raises(ValueError, match=r"points must have shape \(..., 2\)"):
        multipliers(ScalarFactorization(), 1.3, [[0.7], [1.2]])


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0.0, 2), {}, "step_size must be finite and greater than 0"),
        ((1.2, 0), {}, "period must be at least 1"),
        ((1.2, 2), {"n_starts": 0}, "n_starts must be at least 1"),
        ((1.2, 2), {"tolerance": 0.0}, "tolerance must be"),
        ((1.2, 2), {"box": (1.0, -1.0)}, "box must be a lower and a higher corner"),
        ((1.2, 2), {"box": np.zeros((3, 2))}, "box must be a lower and a higher corner"),
        ((1.2, 2), {"starts": [[1.0, 2.0, 3.0]]}, r"starts must have shape \(..., 2\)"),
        ((1.2, 2), {"starts": [[math.nan, 2.0]]}, "starts has a NaN"),
    ],
)
def test_bad_arguments_are_named(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        find_cycles(ScalarFactorization(), *arguments, **options)


def test_a_stable_cycle_of_period_eight_is_found_after_the_transient():
    cycles = find_cycles(ScalarFactorization(), 1.295, 8, starts=[[0.9, 0.9]], transient=20_000)
    (cycle,) = cycles
    assert cycle.stability == "stable"
    assert cycle.radius < 1e-11
    assert cycles.count(SearchOutcome.FOUND) == 1


def test_steep_losses_overflow_in_silence():
    cycles = find_cycles(ScalarChain(40), 0.05, 1, starts=[[1e3] * 40], transient=3)
    assert cycles.outcomes == (SearchOutcome.DIVERGED, SearchOutcome.NOT_CONVERGED)


def test_a_line_is_searched_like_a_space():
    """On the diagonal η = 2 is the third Chebyshev polynomial, with slope 9 at the ends ±√2."""
    cycles = find_cycles(BalancedChain(2), 2.0, 2, box=(-1.5, 1.5))
    assert len(cycles) == 3
    assert {round(abs(cycle.multipliers.item())) for cycle in cycles} == {9, 81}
    assert str(cycles[0]).startswith("unstable cycle of period 2, multipliers")


def test_long_cycles_need_only_their_own_gaps():
    """A stable 64-cycle from a rough guess; one orbit of it would be stretched by 10^8."""
    doublings = period_doublings(BalancedChain(2), 7, first=1.0)
    cycle = doublings.cycles[6][:, None]
    noise = 1e-7 * np.random.default_rng(0).normal(size=cycle.shape)
    found, converged = refine_orbit(BalancedChain(2), doublings[6], cycle + noise)
    assert converged
    assert found == pytest.approx(cycle, abs=1e-9)


@pytest.mark.parametrize(
    ("family", "step_size", "period", "true_cycles"),
    [
        (BalancedChain(2), 1.0, 2, 1),
        (BalancedChain(3), 2 / 3, 2, 1),
        (BalancedChain(2), math.sqrt(5) - 1, 4, 0),
        (ScalarFactorization(), 1.0, 2, 2),
        (ReluPair(), 1 / 3.53, 2, 0),
    ],
)
def test_at_a_flip_the_new_cycle_is_still_the_old_one(family, step_size, period, true_cycles):
    """G^2p − id has a zero of third order there: Newton stops 10⁻⁴ from the p-cycle."""
    cycles = find_cycles(family, step_size, period)
    assert len(cycles) == true_cycles
    assert all(cycle.isolated for cycle in cycles)
    assert cycles.divisor_periods


def test_a_young_cycle_close_to_its_parent_is_found():
    """Just beyond the flip the 2-cycle has the amplitude √(6 · 10⁻⁶)."""
    cycles = find_cycles(BalancedChain(2), 1 + 1e-6, 2)
    assert sum(cycle.stability == "stable" for cycle in cycles) == 2  # one on each side of 0


def test_all_48_five_cycles_of_the_cubic_map_are_found():
    """At η = 2 the map is conjugate to T₃, with (3⁵ − 3)/5 = 48 cycles; −x ↦ −G(x) pairs them."""
    cycles = find_cycles(BalancedChain(2), 2.0, 5, box=(-1.5, 1.5))
    assert len(cycles) == 48
    assert min(cycles.hits) > 1
    assert (cycles.missing, cycles.coverage) == (0.0, 1.0)
    assert "which points to about 0 missing" in str(cycles)


def test_a_short_search_says_that_cycles_are_missing():
    few = find_cycles(BalancedChain(2), 2.0, 6, box=(-1.5, 1.5), n_starts=60)
    all_of_them = (3**6 - 3**3 - 3**2 + 3) // 6
    assert len(few) < all_of_them
    assert few.missing > 0.2 * (all_of_them - len(few))
    assert few.coverage < 0.9


def test_the_estimate_of_what_is_missing_follows_its_formula():
    few = find_cycles(ScalarFactorization(), 1.8, 4, n_starts=100, rng=3)
    by_family = {}
    for cycle, hit in zip(few, few.hits, strict=True):
        trace = round(float(cycle.multipliers.real.sum()), 6)  # the same for images
        by_family[trace, hit] = hit
    counts = list(by_family.values())
    once, twice = counts.count(1), counts.count(2)
    assert once > 0
    expected = once**2 / (2 * twice) if twice else once * (once - 1) / 2
    assert few.missing == pytest.approx(expected * len(few) / len(counts))
    assert few.coverage == pytest.approx(1 - once / sum(counts))


def test_none_found_says_nothing_about_what_is_missing():
    none = find_cycles(ScalarFactorization(), 0.1, 3, n_starts=9)
    assert len(none) == 0
    assert none.hits == ()
    assert np.isnan([none.missing, none.coverage]).all()
    assert "missing" not in str(none)


def test_images_by_symmetry_are_added_and_are_cycles():
    cycles = find_cycles(ScalarFactorization(), 1.6, 4, n_starts=30)
    assert cycles.count(SearchOutcome.FOUND) < len(cycles)
    points = [sorted(map(tuple, cycle.points.round(7) + 0.0)) for cycle in cycles]
    for cycle in cycles:
        for image in (cycle.points[:, ::-1], -cycle.points):
            assert sorted(map(tuple, image.round(7) + 0.0)) in points


def test_starts_of_ones_own_get_their_own_cycles_only():
    (cycle,) = find_cycles(ScalarFactorization(), 1.2, 2, starts=[[0.7, 0.7]])
    assert (cycle.points > 0).all()


def test_random_starts_are_alive():
    """Three quarters of the default box are dead for the pair, where no start finds anything."""
    seen = []

    class Watched(ReluPair):
        def gradient(self, theta):
            seen.append(self.smooth(theta).mean())
            return super().gradient(theta)

    find_cycles(Watched(), 0.2, 2, n_starts=60, transient=0)
    assert max(seen[4:]) == 1.0  # after the look at the problem and at its symmetries
    with pytest.raises(ValueError, match=r"box from .* hardly a point .*; choose another box"):
        find_cycles(ReluPair(), 0.2, 2, box=(-2.0, -1.0))
