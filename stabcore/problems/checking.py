"""Does a `Problem` of one's own do what its methods promise? A full check, and a cheap one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from stabcore import _validation as check
from stabcore._constants import EPSILON
from stabcore._validation import Array
from stabcore.problems.base import Problem, _combine

# What an entry point is about to use, and `require_problem` looks at.
GRADIENT, HESSIAN, SAMPLES = "gradient", "hessian", "samples"

ROUNDING = 1e-10  # relative; the same sums in another order, of up to 10⁵ terms


@check.public()
def check_problem(
    problem: Problem,
    *,
    points: ArrayLike | None = None,
    rng: int | np.random.Generator | None = 0,
) -> None:
    r"""Raise a ValueError for the first promise of `Problem` that a problem does not keep.

    In this order: the numbers of parameters, outputs and samples; probabilities that sum to 1;
    leading axes of θ that are carried through; `samples` that pick rows; the Jacobian, the
    gradient, the curvature and the Hessian against differences of what they are the derivatives
    of; the mean over a batch.

    **The tolerance.** A derivative along a random direction v is compared with the central
    difference Δ_h = (f(θ + hv) − f(θ − hv))/2h, h = 10⁻⁴(1 + |θ|)/|v|. Its error is h²f'''/6 + …,
    which is a third of |Δ_2h − Δ_h|, and rounding, 2ε|f|/h; both are allowed for twice over.
    An entry that is wrong shows along a random direction with probability one.

    Source: standard.

    Parameters
    ----------
    problem : Problem
    points : array, shape (R, D), optional
        Where to look; six draws from N(0, 1) by default. Points where `smooth` is false are looked
        at for shapes only.
    rng : int, numpy.random.Generator or None
        Seed of points, directions and batches.

    Raises
    ------
    ValueError
        With the method, what it returned and what was expected.

    Examples
    --------
    A Jacobian with a forgotten factor:

    >>> import numpy as np
    >>> class Square(Problem):
    ...     n_parameters, probabilities = 1, np.ones(1)
    ...     def residuals(self, theta, samples=None):
    ...         rows = np.zeros(1, int) if samples is None else samples
    ...         return (theta**2 - 1) * np.ones(rows.shape)
    ...     def jacobian(self, theta, samples=None):
    ...         rows = np.zeros(1, int) if samples is None else samples
    ...         return (theta * np.ones(rows.shape))[..., None]
    >>> try:
    ...     check_problem(Square(), points=[[3.0]])
    ... except ValueError as error:
    ...     print(str(error).split(";")[0])
    Square.jacobian is not the derivative of residuals: along a direction 3 was expected to be 6
    """
    generator = check.generator(rng)
    require_problem(problem, GRADIENT, SAMPLES)
    size = problem.n_parameters
    if points is None:
        theta = generator.normal(size=(6, size))
    else:
        theta = check.parameters("points", points, size).reshape(-1, size)
    _check_shapes(problem, theta, generator)
    alive = np.asarray(problem.smooth(theta))
    if not alive.any():
        raise ValueError(
            f"points has none where {_name(problem)}.smooth is true, so that no derivative can be "
            "checked; pass points= inside the domain of smoothness."
        )
    for point in theta[alive]:
        direction = generator.normal(size=size)
        _check_derivatives(problem, point, direction, generator)
        _check_batch(problem, point, generator)


def require_problem(problem: Any, *uses: str) -> None:
    """Refuse what is no problem, or a user's problem whose arrays have wrong shapes.

    `uses` says what will be asked of it. Models of the package are tested, not checked.
    """
    check.instance("problem", problem, Problem)
    name = _name(problem)
    for attribute in ("n_parameters", "n_outputs"):
        check.integer(f"{name}.{attribute}", getattr(problem, attribute, None))
    given = getattr(problem, "probabilities", None)
    if not isinstance(given, np.ndarray) or given.ndim != 1:
        raise TypeError(
            f"{name}.probabilities must be an array of shape (N,), got {check.short(given)}; "
            "for equal weights set np.full(N, 1 / N)."
        )
    try:
        check.probabilities(given, given.size)
    except ValueError as error:
        raise ValueError(f"{name}.{error}") from error
    if not _of_the_package(problem):
        # Two points that differ in every coordinate, far from the places where models are special.
        theta = np.linspace(0.31, 0.73, 2 * problem.n_parameters).reshape(2, -1)
        with np.errstate(all="ignore"):
            _check_axes(problem, theta, uses)


def _of_the_package(problem: Problem) -> bool:
    return all(
        kind.__module__.partition(".")[0] == "stabcore"
        for kind in type(problem).__mro__[: type(problem).__mro__.index(Problem)]
    )


def _name(problem: Problem) -> str:
    return type(problem).__name__


def _check_axes(problem: Problem, theta: Array, uses: tuple[str, ...]) -> None:
    """Compare what the methods return for several points with what they return for each."""
    size, outputs = problem.n_parameters, problem.n_outputs
    calls: list[tuple[str, tuple[int, ...], tuple[Any, ...]]] = []
    if GRADIENT in uses:
        calls.append(("residuals", (problem.n_samples * outputs,), ()))
        calls.append(("gradient", (size,), ()))
    if HESSIAN in uses:
        calls.append(("hessian", (size, size), ()))
    if SAMPLES in uses:
        pair = np.array([problem.n_samples - 1, 0])
        batches = np.stack([pair, pair[::-1]])[np.arange(len(theta)) % 2]
        calls.append(("residuals", (2 * outputs,), (batches,)))
        calls.append(("jacobian", (2 * outputs, size), (batches,)))
        calls.append(("batch_gradient", (size,), (batches,)))
    for method, shape, batch in calls:
        together = _ask(problem, method, (len(theta), *shape), theta, *batch)
        if together is None:
            continue
        for i, point in enumerate(theta):
            alone = _ask(problem, method, shape, point, *(rows[i] for rows in batch))
            _compare(problem, method, together[i], alone, f"for θ of shape {theta.shape}")
    if SAMPLES in uses:
        _check_samples(problem, theta[0], pair)


def _check_samples(problem: Problem, point: Array, pair: Array) -> None:
    """See that the rows follow the samples that are asked for."""
    outputs = problem.n_outputs
    everything = _ask(problem, "residuals", (problem.n_samples * outputs,), point)
    for method in ("residuals", "jacobian"):
        picked = _ask(problem, method, None, point, pair)
        swapped = _ask(problem, method, None, point, pair[::-1])
        if picked is None or swapped is None:
            continue
        _compare(problem, method, picked, np.roll(swapped, outputs, axis=0), _IGNORED)
        if method == "residuals" and everything is not None:
            rows = everything.reshape(problem.n_samples, outputs)[pair].reshape(-1)
            _compare(problem, method, picked, rows, _IGNORED)


_IGNORED = "for samples in another order, so that it does not pick the rows it is asked for"


def _ask(
    problem: Problem, method: str, shape: tuple[int, ...] | None, theta: Array, *rest: Any
) -> Array | None:
    """Return what a method says, None if it is not defined; refuse a wrong shape."""
    name = f"{_name(problem)}.{method}"
    asked = f"θ of shape {theta.shape}" + (f" and samples {rest[0].shape}" if rest else "")
    try:
        value = np.asarray(getattr(problem, method)(theta, *rest))
    except NotImplementedError:
        return None
    except Exception as error:
        raise ValueError(
            f"{name} fails for {asked} ({type(error).__name__}: {error}); every method takes any "
            "leading axes of θ, and rows of samples with the same ones."
        ) from error
    if shape is not None and value.shape != shape:
        raise ValueError(
            f"{name} must return shape {shape} for {asked}, got {value.shape}; every method "
            "carries the leading axes of θ through, and a sample owns n_outputs rows."
        )
    return value


def _compare(problem: Problem, method: str, got: Array, expected: Array | None, where: str) -> None:
    if expected is None or np.shares_memory(got, expected):
        return
    scale = np.abs(expected[np.isfinite(expected)]).max(initial=0.0)
    if not np.allclose(got, expected, rtol=ROUNDING, atol=ROUNDING * scale, equal_nan=True):
        raise ValueError(
            f"{_name(problem)}.{method} changes its values {where}; let `samples` index the data, "
            "and write sums over the last axes only."
        )


def _check_shapes(problem: Problem, theta: Array, rng: np.random.Generator) -> None:
    """Check every method for θ with two leading axes and batches drawn at random."""
    several = np.stack([theta, theta[::-1]])
    size, rows = problem.n_parameters, problem.n_samples * problem.n_outputs
    samples = rng.integers(problem.n_samples, size=(*several.shape[:-1], 3))
    shapes: dict[str, tuple[int, ...]] = {
        "residuals": (rows,),
        "jacobian": (rows, size),
        "loss": (),
        "gradient": (size,),
        "hessian": (size, size),
        "smooth": (),
    }
    for method, shape in shapes.items():
        values = _ask(problem, method, (*several.shape[:-1], *shape), several)
        if values is None:
            continue
        if method == "smooth" and values.dtype != np.bool_:
            raise ValueError(f"{_name(problem)}.smooth must return booleans, got {values.dtype}.")
        for index in np.ndindex(several.shape[:-1]):
            alone = _ask(problem, method, shape, several[index])
            _compare(problem, method, values[index], alone, f"for θ of shape {several.shape}")
        if method not in {"residuals", "jacobian"}:
            continue
        picked = _ask(problem, method, None, several, samples)
        if picked is None:
            continue
        owned = values.reshape(*several.shape[:-1], problem.n_samples, problem.n_outputs, -1)
        for index in np.ndindex(several.shape[:-1]):
            expected = owned[index][samples[index]].reshape(picked[index].shape)
            _compare(problem, method, picked[index], expected, _IGNORED)


def _check_derivatives(
    problem: Problem, point: Array, direction: Array, rng: np.random.Generator
) -> None:
    """Compare each derivative along a direction with differences of what it derives from."""
    weights = rng.normal(size=problem.n_samples * problem.n_outputs)
    pairs: list[tuple[str, str, Callable[[Array], Array], Callable[[], Array]]] = [
        ("jacobian", "residuals", problem.residuals, lambda: problem.jacobian(point) @ direction),
        ("gradient", "loss", problem.loss, lambda: problem.gradient(point) @ direction),
        (
            "residual_curvature",
            "weights @ jacobian",
            lambda theta: weights @ problem.jacobian(theta),
            lambda: problem.residual_curvature(point, weights) @ direction,
        ),
        ("hessian", "gradient", problem.gradient, lambda: problem.hessian(point) @ direction),
    ]
    for name, base, function, derivative in pairs:
        try:
            claimed, differences = derivative(), _differences(function, point, direction)
        except NotImplementedError:
            continue
        measured, tolerance = differences
        wrong = ~(np.abs(claimed - measured) <= tolerance)
        if wrong.any():
            where = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
            got = np.asarray(claimed)[where] / np.linalg.norm(direction)
            expected = measured[where] / np.linalg.norm(direction)
            raise ValueError(
                f"{_name(problem)}.{name} is not the derivative of {base}: along a direction "
                f"{got:.6g} was expected to be {expected:.6g}; look for a lost factor or a sign "
                "(if the model has kinks, define `smooth`)."
            )


def _differences(
    function: Callable[[Array], Array], point: Array, direction: Array
) -> tuple[Array, Array]:
    """Return the derivative of a function along a direction, and how far off it may be."""
    step = 1e-4 * (1 + np.linalg.norm(point)) / np.linalg.norm(direction)
    values = [np.asarray(function(point + k * step * direction)) for k in (-2, -1, 1, 2)]
    near, far = (values[2] - values[1]) / (2 * step), (values[3] - values[0]) / (4 * step)
    # A function of D parameters is known to about √D roundings of its largest value.
    rounding = 4 * np.sqrt(point.size) * EPSILON * max(np.abs(v).max() for v in values) / step
    return near, np.abs(far - near) + 2 * rounding


def _check_batch(problem: Problem, point: Array, rng: np.random.Generator) -> None:
    """Compare the gradient of a weighted batch with the sum of its rows."""
    samples = rng.integers(problem.n_samples, size=3)
    weights = rng.uniform(0.5, 2.0, size=3)
    got = _ask(problem, "batch_gradient", (problem.n_parameters,), point, samples, weights)
    residuals = _ask(problem, "residuals", None, point, samples)
    jacobian = _ask(problem, "jacobian", None, point, samples)
    if got is None or residuals is None or jacobian is None:
        return
    expected = _combine(np.repeat(weights, problem.n_outputs) * residuals / 3, jacobian)
    scale = np.abs(residuals).max() * np.abs(jacobian).max() * residuals.size
    if not np.allclose(got, expected, rtol=ROUNDING, atol=ROUNDING * scale):
        raise ValueError(
            f"{_name(problem)}.batch_gradient is not the mean of weights · φ · Dφ over the batch; "
            "weigh each sample, and divide by the number of samples in the batch."
        )
