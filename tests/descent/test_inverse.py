import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stabcore import DiagonalLinearNetwork, ReluPair, ScalarFactorization, gd_map
from stabcore.descent import fold_curves, gd_jacobian, gd_log_abs_det, preimage_counts, preimages

PROBLEM = ScalarFactorization()
STEPS = [0.1, 0.3, 0.5, 0.99, 1.0, 1.01, 1.5, 2.5, 4.0]
COORDINATE = st.integers(-5000, 5000).map(lambda k: k / 1000)


@settings(deadline=None, max_examples=200)
@given(st.floats(0.01, 5), COORDINATE, COORDINATE)
def test_every_preimage_is_sent_to_the_point(step_size, first, second):
    point = np.array([first, second])
    found = preimages(PROBLEM, step_size, point)
    assert len(found) == preimage_counts(PROBLEM, step_size, point)
    assert len(found) in ((3, 5) if abs(first) != abs(second) else range(1, 6))
    # The error of θ is rounding, of size ε|θ|; the map multiplies it by its derivative.
    slope = np.linalg.norm(gd_jacobian(PROBLEM, found, step_size), axis=(-2, -1))
    slack = 1e-13 * (1 + np.abs(found).max(axis=1)) * (1 + slope) + 1e-12
    error = np.abs(gd_map(PROBLEM, found, step_size) - point).max(axis=1)
    assert (error < slack).all()
    assert len(np.unique(found, axis=0)) == len(found)


@pytest.mark.parametrize("step_size", STEPS)
def test_counts_against_newton_from_many_starts(step_size):
    """Nothing is missed: Newton's method on G(θ) = y finds no point but those listed."""
    rng = np.random.default_rng(2)
    for point in rng.uniform(-2, 2, size=(4, 2)):
        listed = preimages(PROBLEM, step_size, point)
        theta = rng.uniform(-6, 6, size=(400, 2))
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(60):
                error = gd_map_unchecked(theta, step_size) - point
                theta = (
                    theta
                    - np.linalg.solve(
                        np.eye(2) - step_size * PROBLEM.hessian(theta), error[..., None]
                    )[..., 0]
                )
            theta = theta[np.abs(gd_map_unchecked(theta, step_size) - point).max(axis=1) < 1e-10]
        distance = np.abs(theta[:, None] - listed).max(axis=-1)
        assert (distance.min(axis=1) < 1e-6).all()
        assert (distance.min(axis=0) < 1e-6).all()


def gd_map_unchecked(theta, step_size):
    return theta - step_size * PROBLEM.gradient(theta)


@pytest.mark.parametrize("step_size", STEPS)
def test_the_degree_of_the_map_is_the_same_everywhere(step_size):
    """The signs of det DG at the preimages of a point add up to −3, however many there are."""
    for point in np.random.default_rng(3).uniform(-1, 1, size=(200, 2)):
        found = preimages(PROBLEM, step_size, point)
        signs = np.sign(np.linalg.det(gd_jacobian(PROBLEM, found, step_size)))
        assert signs.sum() == -3


@pytest.mark.parametrize("step_size", STEPS)
def test_the_fold_is_where_the_jacobian_is_singular(step_size):
    curves = fold_curves(PROBLEM, step_size, samples=101)
    assert curves.shape == ((1 if step_size <= 1 else 2), 101, 2)
    assert curves[:, 0] == pytest.approx(curves[:, -1], abs=1e-12)
    jacobian = gd_jacobian(PROBLEM, curves, step_size)
    assert np.abs(np.linalg.det(jacobian)).max() < 1e-13 * np.abs(jacobian).max() ** 2
    x, y = np.moveaxis(curves, -1, 0)
    identity = (1 - step_size * x**2) * (1 - step_size * y**2) - (step_size * (2 * x * y - 1)) ** 2
    assert np.abs(identity).max() < 1e-12 * (1 + np.abs(curves).max() ** 4)


@pytest.mark.parametrize("step_size", STEPS)
def test_the_fold_is_all_there_is(step_size):
    """The determinant changes sign between two neighbours on a grid only across the curves."""
    side = np.linspace(-2.5, 2.5, 241)
    grid = np.stack(np.meshgrid(side, side), axis=-1)
    sign = np.linalg.det(gd_jacobian(PROBLEM, grid, step_size)) > 0
    across = grid[:, :-1][sign[:, :-1] != sign[:, 1:]]
    curves = fold_curves(PROBLEM, step_size, samples=4000).reshape(-1, 2)
    nearest = np.array([np.abs(curves - point).max(axis=1).min() for point in across])
    assert (nearest < 1.5 * (side[1] - side[0])).all()


@pytest.mark.parametrize("step_size", [0.1, 0.3, 0.5, 0.9, 4.0])
def test_the_count_changes_by_two_across_the_image_of_the_fold(step_size):
    curve = fold_curves(PROBLEM, step_size, samples=200)[0, 7:-7:11]
    # Not at a cusp, t = c/2, where five preimages become three within one point.
    t = step_size * (1 - curve.prod(axis=-1))
    curve = curve[np.abs(t - step_size / 2) > 0.01]
    assert len(curve) > 10
    image = gd_map(PROBLEM, curve, step_size)
    # The image of G is folded along the direction it cannot move in: the left null vector.
    left = np.linalg.svd(gd_jacobian(PROBLEM, curve, step_size))[0][..., 1]
    one, two = (preimage_counts(PROBLEM, step_size, image + h * left) for h in (1e-7, -1e-7))
    assert (np.abs(one - two) == 2).all()


@pytest.mark.parametrize("step_size", [0.1, 0.5, 1.5, 4.0])
def test_the_cusps_of_the_image(step_size):
    """Where the image turns back, t = c/2: it is slowest there."""
    curve = fold_curves(PROBLEM, step_size, samples=4001)[0]
    speed = np.linalg.norm(np.diff(gd_map(PROBLEM, curve, step_size), axis=0), axis=1)
    t = step_size * (1 - curve.prod(axis=-1))
    inner = (speed[1:-1] < speed[:-2]) & (speed[1:-1] < speed[2:]) & (speed[1:-1] < 1e-5)
    assert t[1:-2][inner] == pytest.approx(step_size / 2, abs=2e-3)
    assert inner.sum() == (4 if step_size <= 1 else 2)


def test_exact_preimages_of_the_saddle():
    """0, ±√(1 + 1/c)(1, 1), and below c = 1 also ±√(1/c − 1)(1, −1)."""
    assert preimage_counts(PROBLEM, 0.25, [0.0, 0.0]) == 5
    assert preimage_counts(PROBLEM, 2.0, [0.0, 0.0]) == 3
    found = {tuple(point) for point in preimages(PROBLEM, 0.25, [0.0, 0.0]).round(12) + 0.0}
    one, two = round(math.sqrt(5), 12), round(math.sqrt(3), 12)
    assert found == {(0, 0), (one, one), (-one, -one), (two, -two), (-two, two)}


def test_a_small_step_is_almost_the_identity_near_the_origin():
    points = np.random.default_rng(0).uniform(-1, 1, size=(50, 2))
    for point in points:
        nearest = np.abs(preimages(PROBLEM, 1e-6, point) - point).max(axis=1).min()
        assert nearest < 1e-5


def test_data_enter_through_their_mean_curvature():
    weighted = ScalarFactorization([0.9, 2.5], [0.25, 0.75])
    points = np.random.default_rng(1).uniform(-1, 1, size=(3, 50, 2))
    counts = preimage_counts(weighted, 0.1, points)
    assert counts.shape == (3, 50)
    scaled = 0.1 * (0.25 * 0.81 + 0.75 * 6.25)
    assert (counts == preimage_counts(PROBLEM, scaled, points)).all()
    assert set(np.unique(counts)) == {3, 5}
    curves = fold_curves(weighted, 0.1)
    assert (gd_log_abs_det(weighted, curves, 0.1) < -30).all()


def test_what_has_no_preimages_to_count():
    with pytest.raises(TypeError, match="ReluPair every point of the plateau"):
        preimages(ReluPair(), 0.1, [1.0, 1.0])
    with pytest.raises(TypeError, match="problem must be a ScalarFactorization"):
        fold_curves(DiagonalLinearNetwork([[1.0]], [1.0]), 0.1)
    with pytest.raises(ValueError, match=r"points must have shape \(..., 2\), got \(3,\)"):
        preimage_counts(PROBLEM, 0.1, [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="step_size must be finite and greater than 0"):
        preimage_counts(PROBLEM, 0.0, [1.0, 2.0])
    with pytest.raises(ValueError, match="samples must be at least 2"):
        fold_curves(PROBLEM, 0.1, samples=1)


@pytest.mark.parametrize("step_size", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("distance", [0.0, 1e-300, 1e-16, 1e-12, 1e-9, 1e-7, 3e-6, 1e-4])
@pytest.mark.parametrize("point", [(0.0, 0.0), (0.7, 0.7), (0.7, -0.7), (-3.0, -3.0), (2.5, -2.5)])
def test_close_to_a_diagonal_nothing_is_lost(step_size, distance, point):
    problem = ScalarFactorization()
    target = np.array(point) + distance * np.array([0.3, 0.8])
    found = preimages(problem, step_size, target)
    assert np.abs(gd_map(problem, found, step_size) - target).max() < 1e-13 * (1 + abs(point[0]))
    differences = np.linalg.norm(found[:, None] - found, axis=-1)
    assert (differences + np.eye(len(found)) > 1e-4).all()
    assert len(found) == preimage_counts(problem, step_size, target)
    beside = np.array(point) + max(2 * distance, 1e-4) * np.array([0.3, 0.8])
    assert len(found) == preimage_counts(problem, step_size, beside)
