r"""One-dimensional maps x ↦ G(x, η): invariant lines of gradient descent, and their exponents.

If ∇L stays on a line {x·d} of parameters (the balanced line of a chain of factors, by symmetry),
gradient descent started there is a map of one variable,

    G(x, η) = x − η d·∇L(xd) / |d|²,

and in one dimension much more can be said: how its cycles change with η is in `bifurcations`, and
its exponent is the mean of log|G'| along an orbit.

Both take any object with `map(x, parameter)` and `map.derivative(x, parameter)`,
elementwise over arrays; a `Problem` is turned into such a map by `LineMap`. A problem without an
invariant line, or off it, is followed in the space of its parameters: pass a start of shape (D,).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stabcore import _validation as check
from stabcore._validation import Array
from stabcore.problems.base import Problem, declared_product
from stabcore.problems.checking import GRADIENT, HESSIAN, require_problem


class ScalarMap(Protocol):
    """A one-dimensional map with a parameter, elementwise over arrays."""

    def __call__(self, x: Any, parameter: Any) -> Array:
        """Return G(x, parameter)."""

    def derivative(self, x: Any, parameter: Any) -> Array:
        """Return ∂G/∂x."""


MapLike: TypeAlias = Problem | ScalarMap


class LineMap:
    r"""Gradient descent restricted to an invariant line θ = x·d.

    Source: our derivation; the diagonal of paper D's example is such a line.

    Parameters
    ----------
    problem : Problem
        With a Hessian (`residual_curvature`) for the derivative.
    direction : array, shape (D,), optional
        d; (1, ..., 1) by default. It need not be normalised: x is measured in multiples of it.

    Raises
    ------
    ValueError
        If the gradient leaves the line somewhere.

    Examples
    --------
    >>> from stabcore import ReluPair
    >>> diagonal = LineMap(ReluPair())
    >>> float(diagonal(1.1, 0.3).round(6)) == round(1.1 + 0.3 * 3.53 * 1.1 * (1 - 1.1**2), 6)
    True
    """

    def __init__(self, problem: Problem, direction: ArrayLike | None = None) -> None:
        require_problem(problem, GRADIENT, HESSIAN)
        ones = np.ones(problem.n_parameters)
        given = ones if direction is None else check.finite_array("direction", direction, ndim=1)
        self.problem = problem
        self.direction = check.parameters("direction", given, problem.n_parameters)
        self._square = float(self.direction @ self.direction)
        if self._square == 0:
            raise ValueError("direction must not be 0; pass the direction of a line.")
        self._require_invariance()

    def point(self, x: ArrayLike) -> Array:
        """Return θ = x·d: shape (...) -> (..., D)."""
        return np.asarray(x, dtype=float)[..., None] * self.direction

    def slope(self, x: ArrayLike) -> Array:
        """Return d·∇L(xd)/|d|², what the step size multiplies."""
        return np.asarray(self.problem.gradient(self.point(x)) @ self.direction) / self._square

    def curvature(self, x: ArrayLike) -> Array:
        """Return dᵀ Hess L(xd) d/|d|², the derivative of `slope`."""
        bent = self.problem.hessian(self.point(x)) @ self.direction
        return np.asarray(bent @ self.direction) / self._square

    def __call__(self, x: ArrayLike, parameter: ArrayLike) -> Array:
        """Return x − η d·∇L(xd)/|d|², elementwise; the parameter is the step size η."""
        return np.asarray(np.asarray(x) - np.asarray(parameter) * self.slope(x))

    def derivative(self, x: ArrayLike, parameter: ArrayLike) -> Array:
        """Return 1 − η dᵀ Hess L(xd) d/|d|², elementwise."""
        return np.asarray(1 - np.asarray(parameter) * self.curvature(x))

    def smooth(self, x: ArrayLike) -> NDArray[np.bool_]:
        """Return where the loss is smooth and the network alive."""
        return np.asarray(self.problem.smooth(self.point(x)))

    def _require_invariance(self) -> None:
        x = np.random.default_rng(0).uniform(-2, 2, size=32)
        gradient = self.problem.gradient(self.point(x))
        across = gradient - self.slope(x)[:, None] * self.direction
        worst = float(np.abs(across).max())
        if worst > 1e-10 * max(1.0, float(np.abs(gradient).max())):
            raise ValueError(
                f"direction {self.direction.tolist()} spans no invariant line: the gradient leaves "
                f"it by up to {worst:.3g}; pass the direction of a symmetric line of parameters, "
                f"or a start of shape ({self.problem.n_parameters},) where that is possible."
            )


@dataclass(frozen=True)
class BalancedChain:
    r"""Gradient descent on ½(u₁⋯u_k − 1)² with all factors equal: u' = u − η(u^k − 1)u^{k−1}.

    The same as `LineMap(ScalarChain(depth=k))`, but without the problem's matrices. k = 2 is also
    the diagonal of paper D's example, with η times the mean squared input for η.

    Source: our derivation.

    Parameters
    ----------
    depth : int
        k ≥ 1.

    Raises
    ------
    ValueError
        If the depth is not a positive integer.

    Examples
    --------
    >>> float(BalancedChain(3)(2.0, 0.25)), float(BalancedChain(3).derivative(1.0, 0.25))
    (-5.0, 0.25)
    """

    depth: int = 2

    def __post_init__(self) -> None:
        """Refuse an impossible depth."""
        check.integer("depth", self.depth)

    def __call__(self, x: ArrayLike, parameter: ArrayLike) -> Array:
        """Return u − η(u^k − 1)u^{k−1}, elementwise."""
        u = np.asarray(x, dtype=float)
        lower = _power(u, self.depth - 1)
        return np.asarray(u - np.asarray(parameter) * (lower * u - 1) * lower)

    def derivative(self, x: ArrayLike, parameter: ArrayLike) -> Array:
        """Return 1 − η((2k − 1)u^{2k−2} − (k − 1)u^{k−2}), elementwise."""
        u, k = np.asarray(x, dtype=float), self.depth
        bend = (k - 1) * _power(u, k - 2) if k > 1 else 0.0
        return np.asarray(1 - np.asarray(parameter) * ((2 * k - 1) * _power(u, 2 * k - 2) - bend))

    def across(self, x: ArrayLike, parameter: ArrayLike) -> Array:
        """Return 1 + η(u^k − 1)u^{k−2}, which multiplies small differences of the factors."""
        check.integer("depth", self.depth, minimum=2)  # a single factor has no others
        u = np.asarray(x, dtype=float)
        lower = _power(u, self.depth - 2)
        return np.asarray(1 + np.asarray(parameter) * (lower * u * u - 1) * lower)


def _power(x: Array, exponent: int) -> Array:
    """Return x^exponent by multiplication, which is much faster than the general power."""
    result = x if exponent else np.ones_like(x)
    for _ in range(exponent - 1):
        result = result * x
    return result


class ChainSlope(NamedTuple):
    """The slope w(q u^k − 1)u^{k−1} of a loss on a line; 0 where `side`·u < 0 (a dead ReLU)."""

    depth: int  # k
    product: float  # q
    weight: float  # w
    side: float  # 1 or −1; 0 if the formula holds everywhere


def chain_slope(value: object) -> ChainSlope | None:
    """Return the slope of a map u − η·slope in closed form, None where none is known."""
    if isinstance(value, BalancedChain) and type(value).__call__ is BalancedChain.__call__:
        return ChainSlope(value.depth, 1.0, 1.0, 0.0)
    if not isinstance(value, LineMap):
        return None
    model, direction = declared_product(value.problem), value.direction
    if model is None:
        return None
    product = float(direction.prod())
    weight, side = model.curvature * model.depth * product / float(direction @ direction), 0.0
    if model.relu:
        side = float(np.sign(direction[0]))
        weight = weight if product > 0 else 0.0  # one of the two parameters is never positive
    return ChainSlope(model.depth, product, weight, side)


def as_scalar_map(value: MapLike) -> ScalarMap:
    """Return the map of a problem on its diagonal, or the map itself."""
    if isinstance(value, Problem):
        return cast("ScalarMap", LineMap(value))
    if not callable(value) or not hasattr(value, "derivative"):
        raise TypeError(
            f"expected a Problem or a map with a method `derivative`, got {type(value).__name__}; "
            "see ScalarMap."
        )
    return value
