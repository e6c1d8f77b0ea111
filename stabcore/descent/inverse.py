r"""How often gradient descent on the scalar factorisation reaches a point: preimages and folds.

For L = (κ/2)(1 − θ₁θ₂)² put c = ηκ, a = θ₁ + θ₂, b = θ₁ − θ₂ and t = c(1 − θ₁θ₂). One step is

    a' = (1 + t) a,    b' = (1 − t) b,    and t = c(1 − (a² − b²)/4) ties t to a and b.

So the points that are sent to (a', b') are the real roots of one polynomial of degree five,

    p(t) = c(1 − t)² a'² − c(1 + t)² b'² − 4(c − t)(1 − t²)²,

with a = a'/(1 + t), b = b'/(1 − t). For a'b' ≠ 0, p(−∞) < 0 < p(−1) and p(1) < 0 < p(∞): every
such point has three preimages or five. The number changes across the image of the fold
{det DG = 0}, where

    det DG = (1 − cθ₁²)(1 − cθ₂²) − c²(2θ₁θ₂ − 1)² = 1 − t² − (c/2)((1 − t)a² + (1 + t)b²),

which is explicit in t: c a² = (1 + t)(1 + 2c − 3t), c b² = (1 − t)(1 − 2c + 3t). Its image has
cusps at t = c/2. The signs of det DG at the preimages of a point always add up to −3.
(Our derivation.)
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from stabcore import _validation as check
from stabcore._random import run_replicas
from stabcore._validation import Array
from stabcore.problems.base import declared_product
from stabcore.problems.checking import require_problem
from stabcore.problems.factorised import ScalarFactorization

# Where the roots are divided into those found from t = 1 and from t = −1; p must not vanish there.
SPLITS = (0.0, 0.25, -0.25, 0.5, -0.5)

MOST_HALVINGS = 2200  # more than there are between the largest float and the smallest

FARTHEST = 1e50  # of c and of c|θ|²: fifth powers of them stay in the range of floats


@check.public()
def preimage_counts(
    problem: ScalarFactorization, step_size: float, points: ArrayLike
) -> NDArray[np.int64]:
    r"""Return how many θ one step of gradient descent sends to each point.

    Source: our derivation.

    Parameters
    ----------
    problem : ScalarFactorization
    step_size : float
        η > 0.
    points : array, shape (..., 2)

    Returns
    -------
    array of int, shape (...)
        The two preimages that meet in a point of the fold's image are both counted or neither.

    Raises
    ------
    TypeError
        If the problem is not a scalar factorisation, or is a `ReluPair`.

    Examples
    --------
    >>> preimage_counts(ScalarFactorization(), 0.5, [[0.5, 0.7], [9.0, 1.0]])
    array([5, 3])
    """
    c = _scaled_curvature(problem, step_size)
    target = _targets("points", points, c)
    flat = target.reshape(-1, 2)
    counts, roots = np.zeros(len(flat), np.int64), np.empty((len(flat), 5, 2))
    run_replicas(lambda part: _solve(c, flat[part], False, counts[part], roots[part]), len(flat))
    return counts.reshape(target.shape[:-1])


@check.public()
def preimages(problem: ScalarFactorization, step_size: float, point: ArrayLike) -> Array:
    r"""Return all θ that one step of gradient descent sends to a point.

    Source: our derivation.

    Parameters
    ----------
    problem : ScalarFactorization
    step_size : float
        η > 0.
    point : array, shape (2,)

    Returns
    -------
    array, shape (m, 2)
        By ascending t = c(1 − θ₁θ₂), mirror images ±a or ±b last.

    Raises
    ------
    TypeError
        If the problem is not a scalar factorisation, or is a `ReluPair`.

    Examples
    --------
    Five points jump onto the saddle, itself among them:

    >>> preimages(ScalarFactorization(), 0.5, [0.0, 0.0]).round(6) + 0.0
    array([[ 0.      ,  0.      ],
           [-1.732051, -1.732051],
           [ 1.732051,  1.732051],
           [-1.      ,  1.      ],
           [ 1.      , -1.      ]])
    """
    c = _scaled_curvature(problem, step_size)
    target = _targets("point", check.finite_array("point", point, ndim=1), c)
    counts, roots = np.zeros(1, np.int64), np.empty((1, 5, 2))
    _solve(c, target[None], True, counts, roots)
    return np.asarray(roots[0, : counts[0]])


@check.public()
def fold_curves(problem: ScalarFactorization, step_size: float, *, samples: int = 512) -> Array:
    r"""Return the fold {det(I − η Hess L) = 0} as closed curves.

    One curve around the origin for c = ηκ ≤ 1, two for c > 1. Their image `gd_map(problem, curves,
    step_size)` are the points where the number of preimages changes by two.

    Source: our derivation.

    Parameters
    ----------
    problem : ScalarFactorization
    step_size : float
        η > 0.
    samples : int
        Points on a curve; the last one is the first.

    Returns
    -------
    array, shape (curves, samples, 2)

    Raises
    ------
    TypeError
        If the problem is not a scalar factorisation, or is a `ReluPair`.

    Examples
    --------
    >>> from stabcore.descent import gd_log_abs_det
    >>> curves = fold_curves(ScalarFactorization(), 0.5)
    >>> curves.shape, bool((gd_log_abs_det(ScalarFactorization(), curves, 0.5) < -30).all())
    ((1, 512, 2), True)
    """
    c = _scaled_curvature(problem, step_size)
    count = check.integer("samples", samples, minimum=2)
    angle = np.linspace(0, 2 * math.pi, count)
    start = (2 * c - 1) / 3  # b = 0 there, and at t = 1; a = 0 at t = start + 2/3
    if c <= 1:
        t = start + 2 / 3 * np.sin(angle) ** 2
        a = np.sqrt(2 * (1 + t) / c) * np.cos(angle)
        b = np.sqrt(2 * (1 - t) / c) * np.sin(angle)
        return np.stack([a + b, a - b], axis=-1)[None] / 2
    t = start + (1 - start) * np.sin(angle / 2) ** 2
    a = np.sqrt((1 + t) * (1 + 2 * c - 3 * t) / c)
    b = np.sqrt(3 / c) * abs(1 - start) * np.sin(angle) / 2
    right = np.stack([a + b, a - b], axis=-1) / 2
    return np.stack([right, -right])


def _scaled_curvature(problem: ScalarFactorization, step_size: float) -> float:
    """Return c = ηκ."""
    require_problem(problem)
    model = declared_product(problem)
    if model is None or model.depth != 2 or model.relu:
        raise TypeError(
            "problem must be a ScalarFactorization (of a ReluPair every point of the plateau is "
            f"its own preimage), got {type(problem).__name__}; use ScalarFactorization with the "
            "same inputs."
        )
    return check.step_size(step_size) * model.curvature


def _targets(name: str, value: ArrayLike, c: float) -> Array:
    """Return points of shape (..., 2) for which nothing below overflows."""
    points = check.parameters(name, value, 2)
    largest = float(np.abs(points).max())
    if not (c <= FARTHEST and math.sqrt(c) * largest <= math.sqrt(FARTHEST)):
        raise ValueError(
            f"{name} has an entry of {largest:.3g} at ηκ = {c:.3g}, and the polynomial of its "
            f"preimages leaves the range of floats; keep ηκ and ηκ|θ|² below {FARTHEST:g}."
        )
    return points


@njit(nogil=True, cache=True)
def _solve(c, targets, located, counts, results):  # type: ignore[no-untyped-def]
    """Find the number of preimages of each target and, to be located, themselves in a row each."""
    e_side, f_side, roots, work = np.empty(6), np.empty(6), np.empty(5), np.empty((2, 6))
    # Close to an axis two roots are close to t = 1 or t = −1, and to each other. In the variables
    # e = 1 − t and f = 1 + t they can be told apart: there p is known to a small relative error.
    for i in range(len(targets)):
        a, b = targets[i, 0] + targets[i, 1], targets[i, 0] - targets[i, 1]
        A, B = c * a * a, c * b * b
        e_side[0], e_side[1], e_side[2] = -4.0, 20 - 4 * c, 16 * c - 32
        e_side[3], e_side[4], e_side[5] = A - B - 16 * (c - 1), 4 * B, -4 * B
        f_side[0], f_side[1], f_side[2] = 4.0, -20 - 4 * c, 16 * c + 32
        f_side[3], f_side[4], f_side[5] = A - B - 16 * (c + 1), -4 * A, 4 * A
        # On an axis p has a double root there, at which b (or a) follows from t: `_add_pair`.
        e_degree, f_degree = 5 if B > 0.0 else 3, 5 if A > 0.0 else 3
        split = SPLITS[0]
        for split in SPLITS:
            above = _value(e_side, e_degree, 1 - split)
            below = _value(f_side, f_degree, 1 + split)
            if above * below > 0.0:
                break
        e_count = _real_roots(e_side, e_degree, 1 - split, located, work, roots)
        for k in range(e_count if located else 0):
            e = roots[k]
            results[i, k, 0] = a / (2 - e) / 2
            results[i, k, 1] = b / e / 2 if B > 0.0 else 0.0
        f_count = _real_roots(f_side, f_degree, 1 + split, located, work, roots)
        for k in range(f_count if located else 0):
            f = roots[k]
            results[i, e_count + k, 0] = a / f / 2 if A > 0.0 else 0.0
            results[i, e_count + k, 1] = b / (2 - f) / 2
        count = e_count + f_count
        if A == 0.0:
            count = _add_pair(b / 2, b * b / 4 + 4 * (1 + 1 / c), 0, results[i], count)
        if B == 0.0:
            count = _add_pair(a / 2, a * a / 4 - 4 * (1 - 1 / c), 1, results[i], count)
        for k in range(count if located else 0):
            half_a, half_b = _polish(c, a, b, results[i, k, 0], results[i, k, 1])
            results[i, k, 0], results[i, k, 1] = half_a + half_b, half_a - half_b
        counts[i] = count


@njit(nogil=True, cache=True)
def _add_pair(other, square, column, results, count):  # type: ignore[no-untyped-def]
    """Append the points with ±√square in one column; halves, as everywhere in `results`."""
    if square <= 0.0:
        return count
    for sign in (-1.0, 1.0):
        results[count, column] = sign * math.sqrt(square) / 2
        results[count, 1 - column] = other / 2
        count += 1
    return count


@njit(nogil=True, cache=True)
def _polish(c, target_a, target_b, half_a, half_b):  # type: ignore[no-untyped-def]
    """Improve a preimage by Newton's method, which knows it better than t does near t = ±1."""
    a, b, best = 2 * half_a, 2 * half_b, np.inf
    for _ in range(4):
        t = c * (1 - (a * a - b * b) / 4)
        error_a, error_b = (1 + t) * a - target_a, (1 - t) * b - target_b
        error = max(abs(error_a), abs(error_b))
        if not error < best:
            break
        best, half_a, half_b = error, a / 2, b / 2
        along, across, mixed = 1 + t - c * a * a / 2, 1 - t - c * b * b / 2, c * a * b / 2
        determinant = along * across - mixed * mixed
        if determinant == 0.0:
            break
        a -= (across * error_a - mixed * error_b) / determinant
        b -= (along * error_b - mixed * error_a) / determinant
    return half_a, half_b


@njit(nogil=True, cache=True)
def _real_roots(coefficients, degree, end, located, work, roots):  # type: ignore[no-untyped-def]
    """Write the real roots below `end` of a polynomial, highest power first, in ascending order."""
    # Only their number, and nothing useful in `roots`, unless they are to be located.
    # Between two neighbouring roots of its derivative a polynomial is monotone, so that signs
    # decide where it has a root. The derivatives are climbed from the quadratic one upwards.
    # No root is farther out than Cauchy's bound, and `end` is positive.
    start = 0.0
    for k in range(1, degree + 1):
        start = min(start, -abs(coefficients[k] / coefficients[0]))
    start -= 1.0
    derivative, nodes = work
    _differentiate(coefficients, degree, 2, derivative)
    found = _quadratic_roots(derivative, start, end, roots)
    for order in range(3, degree + 1):
        _differentiate(coefficients, degree, order, derivative)
        nodes[0], nodes[found + 1] = start, end
        nodes[1 : found + 1] = roots[:found]
        pieces, found = found + 1, 0
        for piece in range(pieces):
            low, high = nodes[piece], nodes[piece + 1]
            rising = _value(derivative, order, low) < 0.0
            if rising == (_value(derivative, order, high) < 0.0):
                continue
            if located or order < degree:
                roots[found] = _root(derivative, order, low, high, rising)
            found += 1
    return found


@njit(nogil=True, cache=True)
def _differentiate(coefficients, degree, order, derivative):  # type: ignore[no-untyped-def]
    """Write the derivative that has degree `order`."""
    for k in range(order + 1):
        factor = coefficients[k]
        for j in range(degree - order):
            factor *= degree - k - j
        derivative[k] = factor


@njit(nogil=True, cache=True)
def _quadratic_roots(coefficients, start, end, roots):  # type: ignore[no-untyped-def]
    """Write the roots of a quadratic polynomial between two numbers, ascending."""
    half, square = -0.5 * coefficients[1], 0.25 * coefficients[1] * coefficients[1]
    discriminant = square - coefficients[0] * coefficients[2]
    if discriminant <= 0.0:
        return 0
    # The sum without a cancellation gives one root, the product of both the other.
    large = half + math.copysign(math.sqrt(discriminant), half)
    first, second = large / coefficients[0], coefficients[2] / large
    found = 0
    for root in (min(first, second), max(first, second)):
        if start < root < end:
            roots[found] = root
            found += 1
    return found


@njit(nogil=True, cache=True)
def _value(coefficients, degree, t):  # type: ignore[no-untyped-def]
    """Evaluate a polynomial."""
    value = coefficients[0]
    for k in range(1, degree + 1):
        value = value * t + coefficients[k]
    return value


@njit(nogil=True, cache=True)
def _root(coefficients, degree, low, high, rising):  # type: ignore[no-untyped-def]
    """Return the root in a bracket: Newton's steps, a bisection where they would not halve it."""
    t = 0.5 * (low + high)
    before = high - low
    for _ in range(MOST_HALVINGS):
        value, slope = coefficients[0], 0.0
        for k in range(1, degree + 1):
            slope = slope * t + value
            value = value * t + coefficients[k]
        if (value < 0.0) == rising:
            low = t
        else:
            high = t
        step = value / slope if slope != 0.0 else np.inf
        if not (low < t - step < high and abs(step) < 0.5 * before):
            step = t - 0.5 * (low + high)
        before = abs(step)
        following = t - step
        if before <= 2.0**-52 * abs(following) or following <= low or following >= high:
            return following
        t = following
    return t
