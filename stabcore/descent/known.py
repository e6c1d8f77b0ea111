"""Cycles and regions of the scalar factorisation that are known in closed form."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stabcore import _validation as check
from stabcore._validation import Array
from stabcore.problems.base import declared_product
from stabcore.problems.checking import require_problem
from stabcore.problems.factorised import ScalarFactorization

LONGEST = 16  # period of which all cycles are listed: 43 million points


@check.public()
def bounded_region(
    problem: ScalarFactorization, theta: ArrayLike, step_size: float
) -> NDArray[np.bool_]:
    r"""Return whether gradient descent stays bounded from θ, but for a null set.

    For L = (κ/2)(1 − θ₁θ₂)² and c = ηκ < 2 it does inside the ellipse θ₁² + θ₂² − cθ₁θ₂ < 4/c − c,
    whose boundary it maps to itself three to one (sin²ψ → sin²3ψ). It converges from almost all of
    it for c < 1 and from a null set for c > 1. For c ≥ 2 nothing is left.

    Source: Liang & Montúfar 2025; this form is our derivation.

    Parameters
    ----------
    problem : ScalarFactorization
    theta : array, shape (..., 2)
    step_size : float
        η > 0.

    Returns
    -------
    array of bool, shape (...)

    Raises
    ------
    TypeError
        If the problem is not a scalar factorisation, or is a `ReluPair`.

    Examples
    --------
    >>> from stabcore import ScalarFactorization
    >>> bounded_region(ScalarFactorization(), [[1.2, 0.6], [4.0, 4.0]], 0.5)
    array([ True, False])
    """
    require_problem(problem)
    model = declared_product(problem)
    if model is None or model.depth != 2 or model.relu:
        raise TypeError(
            "problem must be a ScalarFactorization (a ReluPair stays where it is once it is dead), "
            f"got {type(problem).__name__}; use ScalarFactorization with the same inputs."
        )
    point = check.parameters("theta", theta, problem.n_parameters)
    c = check.step_size(step_size) * model.curvature
    x, y = point[..., 0], point[..., 1]
    return np.asarray((c < 2) & (x**2 + y**2 - c * x * y < 4 / c - c))[()]


@check.public()
def boundary_cycles(step_size: float, period: int) -> Array:
    r"""Return the cycles on the ellipse that bounds what gradient descent on ½(1 − uv)² keeps.

    With a = η < 2 let u + v = 2√((2 + a)/a) cos ψ and u − v = 2√((2 − a)/a) sin ψ, which is the
    ellipse u² + v² − auv = 4/a − a. Then a(uv − 1) = 2 cos 2ψ, and one step maps ψ to π − 3ψ. So
    the angle φ = ψ − π/4 is multiplied by −3, the points of period p are φ = 2πj/|(−3)^p − 1|,
    and the multiplier along the ellipse is (−3)^p; the other one is ∏(1 + am_i + m_i²) with
    m_i = 2 cos 2ψ_i. At a = 2 the ellipse is a piece of the diagonal.

    Source: our derivation.

    Parameters
    ----------
    step_size : float
        0 < a ≤ 2: the step size of the scalar factorisation with one input 1; in general, the step
        size times the mean squared input.
    period : int
        1 ≤ p ≤ 16.

    Returns
    -------
    array, shape (n, p, 2)
        All n cycles of exactly this period, points in the order of the orbit.

    Raises
    ------
    ValueError
        If the step size is not in (0, 2], or the period is not between 1 and 16.

    Examples
    --------
    >>> [len(boundary_cycles(1.2, p)) for p in (1, 2, 3, 4)]
    [4, 2, 8, 18]
    >>> float(boundary_cycles(1.2, 1).prod(axis=-1).max().round(12))  # four minima, uv = 1
    1.0
    """
    a = check.step_size(step_size)
    if a > 2:
        raise ValueError(f"step_size must be at most 2, got {a:g}: there is no ellipse beyond.")
    count = check.integer("period", period)
    if count > LONGEST:
        raise ValueError(
            f"period must be at most {LONGEST}, got {count}: there are about 3^{count} points, "
            f"{3.0**count * 16 / 1e9:.0f} GB of them; ask for a shorter one."
        )
    size = abs((-3) ** count - 1)
    # Exact: φ = 2πj/size, by its numerator j. Each cycle is kept at its smallest j, and only if
    # that does not come back before the period.
    first = following = np.arange(size)
    for _ in range(1, count):
        following = -3 * following % size
        kept = first < following
        first, following = first[kept], following[kept]
    orbits = np.empty((first.size, count), dtype=np.int64)
    orbits[:, 0] = first
    for i in range(1, count):
        orbits[:, i] = -3 * orbits[:, i - 1] % size
    psi = np.pi / 4 + 2 * np.pi * orbits / size
    total = 2 * np.sqrt((2 + a) / a) * np.cos(psi)
    difference = 2 * np.sqrt((2 - a) / a) * np.sin(psi)
    return np.stack([total + difference, total - difference], axis=-1) / 2


@check.public()
def balanced_two_cycle(step_size: float) -> Array:
    r"""Return the 2-cycle of u' = u + a u(1 − u²) between two positive points, for a > 1.

    x², y² = [(1 + 1/a) ± √((1 − 1/a)(1 + 3/a))]/2 and xy = 1/a. Its multiplier along the diagonal
    of the scalar factorisation is 9 − 2(1 + a)², across it 3 − 2a.

    Source: our derivation.

    Parameters
    ----------
    step_size : float
        a > 1: the step size of the scalar factorisation with one input 1; in general, the step
        size times the mean squared input.

    Returns
    -------
    array, shape (2,)
        Ascending.

    Raises
    ------
    ValueError
        If a ≤ 1: there is no such cycle.

    Examples
    --------
    >>> from stabcore.descent.lines import BalancedChain
    >>> cycle = balanced_two_cycle(1.2)
    >>> BalancedChain(2)(cycle, 1.2).round(12)[::-1] == cycle.round(12)
    array([ True,  True])
    """
    a = check.real("step_size", step_size, above=1.0)
    high = np.sqrt(((1 + 1 / a) + np.sqrt((1 - 1 / a) * (1 + 3 / a))) / 2)
    return np.array([1 / (a * high), high])
