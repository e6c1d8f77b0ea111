import numpy as np
import pytest
from step_models import log_sum

from stabcore import (
    SGD,
    DiagonalLinearNetwork,
    Minimum,
    ReluPair,
    ScalarFactorization,
    sgd_exponent,
    stable_arcs,
)
from stabcore.stable_sets import stable_set

# Paper D, figure 4: the ends, derived from the formulas of ReluPair.
ARCS = [
    (0.15, 0.5, ["3.77715"], [("2.000000", "2.635898"), ("6.661222", "9.297119")]),
    (0.3, 0.58, ["2.154151"], [("2.537249", "4.998564")]),
]


@pytest.mark.parametrize(("eta", "p", "gd", "sgd"), ARCS)
def test_stable_arcs_of_paper_d_to_all_printed_digits(eta, p, gd, sgd):
    arcs = stable_arcs(ReluPair(probabilities=[p, 1 - p]), eta)
    ((start, end),) = arcs.gd.intervals
    assert (start, f"{end:.{len(gd[0]) - 2}f}") == (2.0, gd[0])
    assert [(f"{a:.6f}", f"{b:.6f}") for a, b in arcs.sgd.intervals] == sgd
    assert arcs.gd.resolution == arcs.sgd.resolution == 0


@pytest.mark.parametrize(("eta", "p"), [(0.15, 0.5), (0.3, 0.58)])
def test_stable_arcs_against_a_fine_scan(eta, p):
    arcs = stable_arcs(ReluPair(probabilities=[p, 1 - p]), eta)
    s = np.linspace(2, 20, 200_001)
    assert (
        arcs.sgd.contains(s) == (log_sum([p, 1 - p], eta * np.array([0.81, 6.25]), s) < 0)
    ).all()
    mean = p * 0.81 + (1 - p) * 6.25
    assert (arcs.gd.contains(s) == (np.abs(1 - eta * mean * s) < 1)).all()


def test_batches_of_the_whole_data_set_make_the_arcs_equal():
    arcs = stable_arcs(ReluPair(), 0.15, SGD(batch_size=2))
    assert arcs.sgd.intervals == arcs.gd.intervals


def test_scan_of_a_family_of_minima():
    """Along θ₁θ₂ = 1: paper D's arcs again, this time from the exponents one by one."""
    problem = ReluPair()

    def exponent(s):
        return sgd_exponent(Minimum.at(problem, problem.minimum(s)), 0.15)

    found = stable_set(exponent, 2.0, 12.0, points=41)
    exact = stable_arcs(problem, 0.15).sgd
    ends = [end for interval in found.intervals for end in interval]
    assert ends == pytest.approx([e for pair in exact.intervals for e in pair], rel=1e-11)
    assert found.resolution == 0.25
    assert found.contains([2.0, 2.5, 3.0]).tolist() == [True, True, False]
    for low, high in found.brackets:
        assert exponent(low).sign != exponent(high).sign


def test_arcs_of_the_factorisation_with_one_input():
    """One sample: λ = μ = log|1 − ηs|, stable for 2 ≤ s < 2/η."""
    arcs = stable_arcs(ScalarFactorization(), 0.5)
    assert arcs.gd.intervals == arcs.sgd.intervals
    assert arcs.gd.intervals[0] == pytest.approx((2.0, 4.0))
    assert not stable_arcs(ScalarFactorization(), 1.5).gd


def test_arcs_need_a_problem_with_two_parameters():
    with pytest.raises(TypeError, match=r"problem must be a ScalarFactorization.*Diagonal"):
        stable_arcs(DiagonalLinearNetwork(np.eye(2), [1.0, 1.0]), 0.1)


def test_mean_square_arcs_scale_with_the_step_size():
    first, second = (stable_arcs(ReluPair(), eta).mean_square for eta in (0.1, 0.12))
    assert first.intervals[0][1] * 0.1 == pytest.approx(second.intervals[0][1] * 0.12)
