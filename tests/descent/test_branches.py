import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
from cycle_models import Logistic
from hypothesis import given, settings
from hypothesis import strategies as st

from stabcore import (
    ReluPair,
    ScalarFactorization,
)
from stabcore._constants import EPSILON
from stabcore.descent import (
    BalancedChain,
    balanced_two_cycle,
    cycle_branches,
)

TANGENCY = 1 + math.sqrt(8)  # where the logistic map's cycles of period 3 appear


@pytest.mark.parametrize(
    ("period", "expected"), [(1, 3), (2, 3), (3, 8), (4, 18), (5, 48), (6, 116)]
)
def test_at_two_all_cycles_of_the_chebyshev_map_are_found(period, expected):
    """x = √2 sin φ conjugates the cubic to −T₃ or T₃: 3^p points of period p."""
    branches = cycle_branches(BalancedChain(2), 2.0, period, (-1.6, 1.6))
    assert len(branches.points) == expected
    assert branches.points.shape == (expected, period)
    assert branches.unresolved.tolist() == [0]
    assert branches.radius.max() < 1e-12
    # all multipliers are ±3^p, except those of the cycles through the ends ±√2
    inner = np.abs(branches.points).max(axis=1) < math.sqrt(2) - 1e-9
    assert np.abs(branches.multipliers[inner]) == pytest.approx(3**period, rel=1e-9)
    assert not branches.stable.any()


@pytest.mark.parametrize("a", [0.9, 1.1, 1.3, 1.7])
def test_branches_against_the_roots_of_the_polynomial(a):
    polynomial = np.polynomial.Polynomial([0.0, 1 + a, 0.0, -a])
    twice = polynomial(polynomial)
    roots = (twice - np.polynomial.Polynomial([0.0, 1.0])).roots()
    real = np.sort(roots[np.abs(roots.imag) < 1e-7].real)
    found = [cycle_branches(BalancedChain(2), a, p, (-2.5, 2.5)).points.ravel() for p in (1, 2)]
    assert np.sort(np.concatenate(found)) == pytest.approx(real, abs=1e-7)


@pytest.mark.parametrize("gap", [1e-2, 4e-3, 1e-5])
def test_the_radius_outlasts_rounding_next_to_a_bifurcation(gap):
    """Where the multiplier is nearly 1, G²(x) − x changes its sign hardly at all; say so."""
    for a in 1 + gap * np.linspace(1, 1.3, 30):
        branches = cycle_branches(BalancedChain(2), a, 2, (0.5, 1.4), grid=513)
        error = np.abs(branches.points - exact_two_cycle(a)).max()
        assert error <= branches.radius[0] < 1e-8


@pytest.mark.parametrize("depth", [3, 4, 5])
def test_no_cycle_is_invented_where_orbits_escape(depth):
    """Outside, G^6 is of degree (2k − 1)^6 and Newton's method creeps."""
    chain = BalancedChain(depth)
    parameters = np.linspace(0.85, 1.65, 20) * 2 / depth
    branches = cycle_branches(chain, parameters, 6, (-2.0, 2.0), grid=2049)
    following = chain(branches.points, branches.parameters[:, None])
    assert following == pytest.approx(np.roll(branches.points, -1, axis=1), abs=1e-11)
    assert len(branches.points) > 10
    assert np.abs(branches.points).max() < 1.5


def exact_two_cycle(a):
    with localcontext(prec=50):
        a = Decimal(float(a))
        root = ((1 - 1 / a) * (1 + 3 / a)).sqrt()
        return [float((((1 + 1 / a) + sign * root) / 2).sqrt()) for sign in (-1, 1)]


def test_branches_keep_parameters_apart_and_know_what_is_stable():
    parameters = [0.9, 1.1, 1.2, 1.3]
    branches = cycle_branches(BalancedChain(2), parameters, 2, (0.0, 1.5))
    assert branches.parameters.tolist() == [1.1, 1.2, 1.3]
    assert branches.multipliers == pytest.approx([9 - 2 * (1 + a) ** 2 for a in parameters[1:]])
    assert branches.stable.tolist() == [True, True, False]
    for a, points in zip(branches.parameters, branches.points, strict=True):
        assert points == pytest.approx(balanced_two_cycle(a), abs=1e-14)


def test_an_interval_without_cycles_has_no_branches():
    branches = cycle_branches(ScalarFactorization(), [0.5, 0.6], 3, (0.2, 0.8))
    assert branches.points.shape == (0, 3)
    assert branches.stable.size == branches.parameters.size == 0
    assert branches.unresolved.tolist() == [0, 0]


def test_branches_of_a_problem_are_those_of_its_line():
    line = cycle_branches(ScalarFactorization(), [1.1, 1.5], 4, (0.0, 1.6), grid=1025)
    chain = cycle_branches(BalancedChain(2), [1.1, 1.5], 4, (0.0, 1.6), grid=1025)
    assert line.points == pytest.approx(chain.points, abs=1e-12)


def test_the_dead_network_has_no_branches():
    """Every x ≤ 0 is a fixed point of the ReLU network's diagonal, and none is a cycle."""
    branches = cycle_branches(ReluPair(), 1.2 / 3.53, 1, (-1.0, 1.5))
    assert branches.points == pytest.approx(np.ones((1, 1)))
    assert branches.multipliers == pytest.approx([-1.4])


@pytest.mark.parametrize(("offset", "expected"), [(-1e-6, 0), (1e-9, 2), (1e-6, 2)])
def test_cycles_born_together_are_found_between_grid_points(offset, expected):
    branches = cycle_branches(Logistic(), TANGENCY + offset, 3, (-0.1, 1.1), grid=501)
    assert len(branches.points) == expected
    assert branches.stable.sum() == expected // 2


def test_a_touching_zero_is_reported_as_unresolved():
    """u' = u − η(u³ − 1)u² has a double fixed point at 0."""
    branches = cycle_branches(BalancedChain(3), 0.3, 1, (-1.0, 2.0))
    assert branches.points[:, 0] == pytest.approx([1.0], abs=2 * EPSILON)
    assert branches.unresolved.tolist() == [1]


@settings(deadline=None, max_examples=15)
@given(st.integers(2, 12))
def test_chains_flip_supercritically(depth):
    """f' = (x^k − 1)x^{k−1} at 1; the prediction against the 2-cycle itself."""
    k = depth
    polynomial = np.polynomial.Polynomial.basis(2 * k - 1) - np.polynomial.Polynomial.basis(k - 1)
    second, third, fourth = (float(polynomial.deriv(n)(1.0)) for n in (1, 2, 3))
    assert second == k
    assert 3 * third**2 > second * fourth
    branches = cycle_branches(BalancedChain(k), 2.002 / k, 2, (0.8, 1.2))
    assert branches.stable.sum() == 1


def test_branches_say_what_they_hold():
    text = str(cycle_branches(BalancedChain(2), [1.2, 2.0], 2, (-1.5, 1.5)))
    assert text.startswith("5 cycles of period 2 at 2 parameters, 2 of them stable")


MOEBIUS = {1: 1, 2: -1, 3: -1, 4: 0, 5: -1, 6: 1, 7: -1, 8: 0, 9: 0}


@pytest.mark.parametrize("period", [7, 8, 9])
def test_a_grid_that_is_coarser_than_the_laps_is_refined(period):
    """3^p laps on 4,097 points: conjugate to −T₃, the map has Σ_{d|p} μ(d) 3^{p/d} / p cycles."""
    branches = cycle_branches(BalancedChain(2), 2.0, period, (-1.5, 1.5))
    divisors = [d for d in range(1, period + 1) if period % d == 0]
    assert len(branches.points) == sum(MOEBIUS[d] * 3 ** (period // d) for d in divisors) // period
    assert np.abs(branches.multipliers) == pytest.approx(3.0**period, rel=1e-6)


def test_what_the_refined_grid_cannot_follow_is_said(monkeypatch):
    monkeypatch.setattr("stabcore.descent.branches.LEVELS", 0)
    with pytest.warns(RuntimeWarning, match=r"iterate 8 of the map turns too often .* larger grid"):
        branches = cycle_branches(BalancedChain(2), 2.0, 8, (-1.5, 1.5))
    assert len(branches.points) < 810
    assert branches.unresolved[0] > 1000


def test_no_warning_where_the_grid_is_fine(recwarn):
    cycle_branches(BalancedChain(2), np.linspace(1.0, 2.0, 9), 5, (-1.5, 1.5))
    assert not recwarn.list


def test_cycles_that_begin_alike_are_told_apart():
    """Tent-like near its end: the smallest points of two cycles differ by less than 1e-9."""
    whole = cycle_branches(BalancedChain(2), 2.0, 11, (-math.sqrt(2), math.sqrt(2)), grid=2**20)
    smallest = np.sort(whole.points[:, 0])
    assert len(whole.points) == (3**11 - 3) // 11
    assert np.diff(smallest).min() < 1e-9
