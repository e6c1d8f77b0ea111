import math

import numpy as np
import pytest

from stabcore import (
    ScalarFactorization,
    find_cycles,
    gd_map,
)
from stabcore.descent import (
    Ending,
    boundary_cycles,
    bounded_region,
    endings,
    multipliers,
)

PROBLEM = ScalarFactorization()


def uniform(count, size, reach=2.5, seed=0):
    return np.random.default_rng(seed).uniform(-reach, reach, size=(count, size))


@pytest.mark.parametrize("step_size", [0.3, 0.8, 0.999, 1.1, 1.6, 1.9])
def test_the_bounded_region_in_closed_form(step_size):
    """u² + v² − ηuv < 4/η − η: all of it stays bounded, all the rest diverges."""
    starts = uniform(20_000, 2, 1.2 * math.sqrt(2 / step_size + 1))
    inside = bounded_region(PROBLEM, starts, step_size)
    assert 0.1 < inside.mean() < 0.9
    assert ((endings(PROBLEM, starts, step_size, 2_000) == Ending.DIVERGED) == ~inside).all()


def test_the_region_depends_on_the_mean_curvature():
    problem = ScalarFactorization([0.9, 2.5], [0.25, 0.75])
    starts, kappa = uniform(500, 2), 0.25 * 0.81 + 0.75 * 6.25
    expected = bounded_region(PROBLEM, starts, 0.7)
    assert (bounded_region(problem, starts, 0.7 / kappa) == expected).all()


def test_no_region_is_left_at_two():
    assert not bounded_region(PROBLEM, uniform(1_000, 2, 30), 2.0).any()
    assert not bounded_region(PROBLEM, uniform(1_000, 2, 30), 2.5).any()
    assert (endings(PROBLEM, uniform(1_000, 2), 2.0, 5_000) == Ending.DIVERGED).all()


@pytest.mark.parametrize("step_size", [0.3, 1.0, 1.2, 1.9, 2.0])
@pytest.mark.parametrize("period", [1, 2, 3, 4, 5])
def test_boundary_cycles_are_genuine_and_have_the_multipliers_of_tripling(step_size, period):
    problem, cycles = ScalarFactorization(), boundary_cycles(step_size, period)
    u, v = cycles[..., 0], cycles[..., 1]
    scale = (np.abs(cycles) ** 2).max()
    on_ellipse = u**2 + v**2 - step_size * u * v - (4 / step_size - step_size)
    assert np.abs(on_ellipse).max() < 1e-13 * scale
    following = gd_map(problem, cycles, step_size)
    assert np.abs(following - np.roll(cycles, -1, axis=1)).max() < 1e-13 * scale
    m = step_size * (u * v - 1)
    across = (1 + step_size * m + m**2).prod(axis=1)
    for points, other in zip(cycles, across, strict=True):
        found = multipliers(problem, step_size, points)
        expected = [(-3.0) ** period, other]
        assert sorted(found.real) == pytest.approx(sorted(expected), rel=1e-6, abs=1e-6)
        for q in range(1, period):
            assert np.abs(points - np.roll(points, q, axis=0)).max() > 1e-6 or step_size == 2


@pytest.mark.parametrize("period", [1, 2, 3, 4, 5, 6])
def test_boundary_cycles_are_counted_by_the_moebius_formula(period):
    def necklaces(p):
        inner = sum(q * necklaces(q) for q in range(1, p) if p % q == 0)
        return (abs((-3) ** p - 1) - inner) // p

    assert boundary_cycles(0.7, period).shape == (necklaces(period), period, 2)


@pytest.mark.parametrize("period", [2, 3])
def test_newton_finds_every_cycle_on_the_boundary(period):
    expected = boundary_cycles(1.1, period)
    found = find_cycles(
        ScalarFactorization(), 1.1, period, n_starts=1200, transient=0, box=(-2.5, 2.5)
    )
    for points in expected:
        gaps = [
            np.abs(np.roll(cycle.points, q, axis=0) - points).max()
            for cycle in found
            for q in range(period)
        ]
        assert min(gaps) < 1e-10


@pytest.mark.parametrize(
    ("step_size", "period", "message"),
    [
        (2.1, 1, "at most 2"),
        (-1.0, 1, "step_size"),
        (1.0, 0, "period"),
        (1.0, 17, r"period must be at most 16, .* 2 GB of them; ask for a shorter"),
    ],
)
def test_boundary_cycles_refuse_what_has_no_ellipse(step_size, period, message):
    with pytest.raises(ValueError, match=message):
        boundary_cycles(step_size, period)
