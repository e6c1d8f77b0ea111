import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stabcore import (
    DiagonalLinearNetwork,
    ReluPair,
    ScalarChain,
    ScalarFactorization,
    TwoLayerNetwork,
)
from stabcore.descent import (
    BalancedChain,
    LineMap,
    balanced_two_cycle,
    gd_jacobian,
    multipliers,
    refine_orbit,
)
from stabcore.descent.lines import as_scalar_map
from stabcore.problems import PiecewiseQuartic


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_the_balanced_line_of_a_chain_is_its_closed_form(depth):
    line, chain = LineMap(ScalarChain(depth)), BalancedChain(depth)
    x = np.linspace(-1.5, 1.5, 31)
    eta = np.linspace(0.1, 2.0, 31)
    assert line(x, eta) == pytest.approx(chain(x, eta), rel=1e-12, abs=1e-12)
    assert line.derivative(x, eta) == pytest.approx(chain.derivative(x, eta), rel=1e-12, abs=1e-12)


@settings(deadline=None)
@given(st.integers(1, 6), st.floats(-1.5, 1.5), st.floats(0.01, 2.0))
def test_the_derivative_is_the_slope_of_the_map(depth, x, eta):
    chain = BalancedChain(depth)
    slope = (chain(x + 1e-6, eta) - chain(x - 1e-6, eta)) / 2e-6
    assert chain.derivative(x, eta) == pytest.approx(slope, rel=1e-5, abs=1e-5)


def test_the_diagonal_of_paper_d_is_a_cubic_where_the_network_is_alive():
    line = LineMap(ReluPair())
    x = np.array([0.3, 1.0, 1.4, 0.0, -0.7])
    a = 0.4 * 3.53
    expected = np.where(x > 0, x + a * x * (1 - x**2), x)
    assert line(x, 0.4) == pytest.approx(expected, abs=1e-14)
    assert line.smooth(x).tolist() == [True, True, True, False, False]
    assert LineMap(ScalarFactorization()).smooth(x).all()


def test_other_lines_are_invariant_too():
    """On θ₂ = −θ₁ the loss is ½(1 + x²)²; a whole network can be one parameter."""
    line = LineMap(ScalarFactorization(), [1.0, -1.0])
    assert line(0.5, 0.1) == pytest.approx(0.5 - 0.1 * (1.25) * 0.5)
    scaled = LineMap(ScalarFactorization(), [2.0, 2.0])
    assert 2 * scaled(0.4, 0.3) == pytest.approx(float(BalancedChain(2)(0.8, 0.3)))
    assert LineMap(PiecewiseQuartic())(1.0, 0.25) == 2.0


def test_a_line_that_the_gradient_leaves_is_refused():
    with pytest.raises(ValueError, match=r"direction \[1.0, 2.0\] spans no invariant line"):
        LineMap(ScalarFactorization(), [1.0, 2.0])
    with pytest.raises(ValueError, match="spans no invariant line"):
        LineMap(TwoLayerNetwork([[0.0], [1.0]], [0.0, 1.0], width=1))
    with pytest.raises(ValueError, match="direction must not be 0"):
        LineMap(ScalarFactorization(), [0.0, 0.0])
    with pytest.raises(ValueError, match=r"direction must have shape \(..., 2\)"):
        LineMap(ScalarFactorization(), [1.0])
    with pytest.raises(TypeError, match="problem must be a Problem"):
        LineMap(lambda x: x)
    with pytest.raises(TypeError, match="expected a Problem or a map with a method `derivative`"):
        as_scalar_map(lambda x, parameter: x)
    with pytest.raises(ValueError, match="depth must be at least 1"):
        BalancedChain(0)


def test_refining_a_cycle_reaches_rounding_accuracy():
    cycle, converged = refine_orbit(BalancedChain(2), 1.2, [[0.72], [1.15]])
    assert converged
    assert cycle[:, 0] == pytest.approx(balanced_two_cycle(1.2), abs=4e-16)
    multiplier = multipliers(BalancedChain(2), 1.2, cycle).item()
    assert multiplier == pytest.approx(9 - 2 * 2.2**2, abs=1e-14)
    assert not refine_orbit(BalancedChain(2), 1.2, [[1e200], [-1e200]])[1]


def test_a_network_of_several_samples_has_a_balanced_line():
    network = DiagonalLinearNetwork([[1.0], [2.0]], [1.0])
    assert LineMap(network)(1.2, 0.1) == pytest.approx(float(BalancedChain(2)(1.2, 0.25)))


@pytest.mark.parametrize("depth", [2, 3, 4, 5])
@pytest.mark.parametrize("x", [0.6, 1.0, 1.3])
def test_differences_of_factors_are_multiplied_by_the_other_eigenvalues(depth, x):
    along = float(BalancedChain(depth).derivative(x, 0.3))
    across = float(BalancedChain(depth).across(x, 0.3))
    expected = [along] + (depth - 1) * [across]
    found = np.linalg.eigvalsh(gd_jacobian(ScalarChain(depth), np.full(depth, x), 0.3))
    assert np.sort(found) == pytest.approx(np.sort(expected), abs=1e-12)


def test_at_two_differences_neither_grow_nor_shrink():
    """m = 2cos ψ with ψ uniform, and the mean of log|1 + 2cos ψ| is 0."""
    psi = (np.arange(300_000) + 0.5) * 2 * math.pi / 300_000
    x = np.sqrt(1 + np.cos(psi))
    growth = np.log(np.abs(BalancedChain(2).across(x, 2.0))).mean()
    assert growth == pytest.approx(0, abs=1e-5)


def test_a_single_factor_has_no_others():
    with pytest.raises(ValueError, match="depth"):
        BalancedChain(1).across(1.0, 0.3)
