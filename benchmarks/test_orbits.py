"""Bifurcation diagram against the plain Python loop, and the first six period doublings."""

import numpy as np
import pytest
from numba import njit

from stabcore import ReluPair, bifurcation_diagram, period_doublings
from stabcore.descent import BalancedChain

STEP_SIZES, TRANSIENT, KEEP = np.linspace(0.9, 1.99, 2000), 5000, 512
NAIVE_STEP_SIZES = STEP_SIZES[::100]
FOURTH_DOUBLING = 1.299227939650203  # two independent computations agree on these digits


def cubic(x, a):
    return x + a * x * (1 - x * x)


def naive_diagram(parameters):
    """Iterate in plain Python floats, one step size after the other."""
    rows = []
    for a in parameters.tolist():
        x = 0.5
        for _ in range(TRANSIENT):
            x = cubic(x, a)
        row = []
        for _ in range(KEEP):
            x = cubic(x, a)
            row.append(x)
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize(
    "step", [cubic, njit(cubic), BalancedChain(2)], ids=["function", "compiled", "chain"]
)
def test_diagram(benchmark, step):
    """The same 2,000 step sizes; the compiled loop is compiled before."""
    options = {"transient": TRANSIENT, "keep": KEEP}
    bifurcation_diagram(step, STEP_SIZES[:2], transient=1, keep=1)
    diagram = benchmark.pedantic(bifurcation_diagram, (step, STEP_SIZES), options, rounds=5)
    assert not diagram.diverged.any()
    benchmark.extra_info.update(steps=STEP_SIZES.size * (TRANSIENT + KEEP))


def test_naive_diagram(benchmark):
    benchmark.pedantic(naive_diagram, (NAIVE_STEP_SIZES,), rounds=3)
    benchmark.extra_info.update(steps=NAIVE_STEP_SIZES.size * (TRANSIENT + KEEP))


def test_doublings(benchmark):
    """Six doublings on the diagonal of paper D's example."""
    doublings = benchmark.pedantic(period_doublings, (ReluPair(), 6), rounds=3)
    scaled = doublings[3] * ReluPair().curvatures.mean()
    benchmark.extra_info.update(steps=6, error=abs(scaled - FOURTH_DOUBLING))
