import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stabcore import SGD, phase, saddle_exponents
from stabcore.problems import LabelFlips
from stabcore.saddles import PHASES, Phase, saddle_grid
from stabcore.saddles.phases import SaddleGrid

IA, IB, II, III, IV, UNDETERMINED = Phase

DATA = st.lists(st.floats(-4, 4).map(lambda z: round(z, 2)), min_size=1, max_size=6)


def test_codes():
    assert [PHASES[k] for k in (IA, IB, II, III, IV)] == ["Ia", "Ib", "II", "III", "IV"]
    plus, minus = [1.0, -1.0, -1.0, 1.0], [-1.0, 1.0, -1.0, 1.0]
    assert phase(plus, minus).tolist() == [IA, II, III, IV]
    assert phase(plus, minus, mean_square=0.5).tolist() == [IB, II, III, IV]
    assert phase(plus, minus, correlation=-1.0).tolist() == [II, IA, III, IV]
    assert phase(plus, minus, correlation=0.0).tolist() == [UNDETERMINED, UNDETERMINED, III, IV]
    assert phase(-math.inf, -math.inf) == III
    assert phase([0.0, math.nan, 1.0], [1.0, 1.0, math.nan]).tolist() == [UNDETERMINED] * 3
    assert phase([0.1, 0.3], -1.0, tolerance=0.2).tolist() == [UNDETERMINED, IA]
    assert phase(1.0, -1.0, mean_square=1.0) == UNDETERMINED
    assert phase(np.ones((2, 3)), -np.ones(3)).shape == (2, 3)


def test_phase_of_exponents():
    assert phase(*saddle_exponents(LabelFlips(0.5), 0.5)) == III
    assert phase(*saddle_exponents(LabelFlips(0.1), 0.5)) == IA
    drawn = saddle_exponents(np.linspace(-1, 1, 100), 1e-3, SGD(batch_size=20))
    assert drawn[0].sign is None
    assert phase(*drawn) == UNDETERMINED


@settings(deadline=None, max_examples=50)
@given(DATA, st.floats(0.05, 3), st.sampled_from([0.0, 0.3]), st.sampled_from([1, 2]))
def test_a_grid_agrees_with_its_points(values, eta, decay, batch_size):
    batch_size = min(batch_size, len(values))
    steps = np.array([eta, 2 * eta])
    grid = saddle_grid(values, steps, SGD(batch_size=batch_size, weight_decay=decay))
    for k, step in enumerate(steps):
        plus, minus = saddle_exponents(values, step, SGD(batch_size=batch_size, weight_decay=decay))
        for point, value, error in (
            (plus, grid.plus[k], grid.plus_error[k]),
            (minus, grid.minus[k], grid.minus_error[k]),
        ):
            if math.isfinite(point.value) and math.isfinite(value) and error < 1:
                assert abs(point.value - value) <= error + 1e-15
        if grid.phases[k] in {III, IV}:
            assert grid.phases[k] in {int(phase(plus, minus)), UNDETERMINED}


def test_a_grid_of_label_flips():
    flips, steps = np.linspace(0, 1, 21)[:, None], np.linspace(0.05, 2.5, 50)
    grid = saddle_grid(LabelFlips(flips), steps)
    # Flipping all labels exchanges the directions and what is right: the phases stay.
    assert (grid.phases == grid.phases[::-1]).all()
    assert set(np.unique(grid.phases)) >= {IA, IB, III, IV}
    attracted = grid.phases[10] == III  # flip probability ½
    assert (attracted == (steps < math.sqrt(2))).all()
    attracted = grid.phases[8] == III  # 0.4
    assert (attracted == ((steps > 0.38939068333) & (steps < 1.28879499219))).all()
    # Ib: (1 − η)² (1 − f) + (1 + η)² f < 1, that is η < 2(1 − 2f).
    stable = grid.phases[:10] == IB
    expected = (steps < 2 * (1 - 2 * flips[:10])) & np.isin(grid.phases[:10], [IA, IB])
    assert (stable == expected).all()
    assert grid.distance.shape == grid.phases.shape
    assert (grid.distance <= np.abs(grid.plus)).all()


def test_boundary_points_are_reported():
    grid = saddle_grid([2.0, -1.0], [0.25, 0.5, 2.0])
    # Λ₋ = −∞ at η = ½ and Λ₊ = ½ log|(1 + 2η)(1 − η)| vanishes there exactly.
    assert grid.minus[1] == -math.inf
    assert grid.plus[1] == pytest.approx(0, abs=1e-15)
    assert grid.phases[1] == UNDETERMINED
    certain = saddle_grid([1.0], [0.5, 2.0])  # |1 − 2| = 1
    assert certain.phases.tolist() == [IB, UNDETERMINED]
    assert saddle_grid([0.0], 0.5).phases == UNDETERMINED


def test_incorrect_learning_exists():
    values = [2.5, -0.99]
    grid = saddle_grid(values, [1.0])
    assert np.mean(values) > 0
    assert grid.phases.tolist() == [II]
    assert saddle_grid(np.negative(values), [1.0]).phases.tolist() == [II]


def test_the_mean_square_of_a_grid_is_that_of_the_factor():
    """E(1 − ηγ − ηz)² in the wrong direction, also where E z < 0 and with weight decay."""
    values, eta, decay = np.array([1.5, -0.5, 0.2]), np.array([0.3, 0.9]), 0.7
    for side in (1, -1):
        grid = saddle_grid(side * values, eta, SGD(weight_decay=decay))
        naive = [((1 - e * decay - e * values) ** 2).mean() for e in eta]
        assert grid.mean_square == pytest.approx(naive, rel=1e-14)


@pytest.mark.parametrize("name", ["plus", "minus"])
def test_an_error_that_hides_a_sign_leaves_the_phase_open(name):
    known = {"plus": 0.5, "minus": -0.5} | {name: -1e-3}
    errors = {"plus_error": 1e-9, "minus_error": 1e-9}
    rest = {"mean_square": np.array(0.5), "correlation": np.array(1.0)}

    def phases(**changed):
        parts = known | errors | changed
        return SaddleGrid(**{key: np.array(part) for key, part in parts.items()}, **rest).phases

    assert phases() != Phase.UNDETERMINED
    assert phases(**{f"{name}_error": 2e-3}) == Phase.UNDETERMINED
    assert phases(**{f"{name}_error": 1e-3}) == Phase.UNDETERMINED  # an interval that ends in 0
