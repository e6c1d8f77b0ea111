"""One place for the questions every public entry point asks of its arguments.

Each function returns the validated value in the form the mathematics wants and raises a
`ValueError` (`TypeError` for the wrong kind of thing) that names the argument, says what was
got, and what to do about it.
"""

from __future__ import annotations

import functools
import inspect
import math
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from numbers import Real
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

PACKAGE = str(Path(__file__).parent)
# What says how one trains: fields of `SGD`, and no options of any other function.
METHOD_FIELDS = (
    "batch_size",
    "momentum",
    "nesterov",
    "weight_decay",
    "replacement",
    "reshuffle",
    "probabilities",
)

SMALL, LARGE = 1e-150, 1e150  # of what is squared
LEAST, MOST = 1e-250, 1e250  # of what is multiplied with others of its kind
PROBABILITY_TOLERANCE = 1e-9
SYMMETRY_TOLERANCE = 1e-10
DEFINITENESS_TOLERANCE = 1e-10


def public(
    more: Callable[..., Any] | None = None,
) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Make a function name the closest right option when it is called with a wrong one.

    Parameters
    ----------
    more : callable, optional
        The function whose keywords are the options behind `**options`.

    Returns
    -------
    callable
        The decorator.
    """

    def decorate(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        signature = inspect.signature(function).parameters.values()
        options = {part.name for part in signature if part.kind != part.VAR_KEYWORD}
        options |= set(inspect.signature(more).parameters) if more is not None else set()
        name = function.__qualname__.removesuffix(".__init__")

        @functools.wraps(function)
        def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            if not kwargs.keys() <= options:
                _refuse_option(name, kwargs.keys() - options, options)
            return function(*args, **kwargs)

        return call

    return decorate


def _refuse_option(name: str, wrong: Iterable[str], options: set[str]) -> None:
    """Raise the error for an option that a function does not have."""
    option = sorted(wrong)[0]
    # Looked up first: it is what earlier versions of the package took one by one.
    if option in METHOD_FIELDS and "method" in options:
        raise TypeError(
            f"{name}() has no option {option!r}: how one trains is said by the method; pass "
            f"SGD({option}=...), in its place or as method=."
        )
    fields = set(METHOD_FIELDS) if "method" in options else set()
    close = get_close_matches(option, sorted(options | fields), n=1, cutoff=0.5)
    if close and close[0] not in options:
        hint = f"did you mean method=SGD({close[0]}=...)?"
    elif close:
        hint = f"did you mean {close[0]!r}?"
    else:
        hint = f"it takes {', '.join(sorted(options))}."
    raise TypeError(f"{name}() has no option {option!r}; {hint}")


def warn(message: str, category: type[Warning]) -> None:
    """Warn in the name of the line outside the package that made the call."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def finite_array(name: str, value: ArrayLike, ndim: int | None = None) -> Array:
    """Return `value` as a float array of dimension `ndim`, all entries finite."""
    if np.ma.is_masked(value):
        raise ValueError(
            f"{name} is a masked array with masked entries; fill them, or drop their rows."
        )
    try:
        if np.iscomplexobj(value) or np.asarray(value).dtype.kind in "Mm":
            raise TypeError("not real")
        array = np.array(value, dtype=np.float64)
    except OverflowError as error:
        raise ValueError(f"{name} has an integer too large for a float; rescale it.") from error
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{name} must be an array of real numbers, got {short(value)}; "
            "pass numbers in a rectangular (nested) sequence."
        ) from error
    if ndim is not None and array.ndim != ndim:
        raise ValueError(
            f"{name} must have {ndim} dimension(s), got shape {array.shape}; reshape it."
        )
    if array.size == 0:
        raise ValueError(f"{name} is empty (shape {array.shape}); pass at least one entry.")
    if not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(
            f"{name} has a NaN or infinite entry ({array[where]} at index {where}); "
            "remove or repair it before the call."
        )
    return array


def real(name: str, value: Any, *, above: float = -math.inf, below: float = math.inf) -> float:
    """Return `value` as a finite float strictly between `above` and `below`."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a real number, got {short(value)}; pass a float.")
    try:
        number = float(value)
    except OverflowError as error:
        raise ValueError(f"{name} must be finite, got an integer too large for a float.") from error
    if not math.isfinite(number) or not above < number < below:
        low = "finite" if above == -math.inf else f"finite and greater than {above:g}"
        high = "" if below == math.inf else f" and less than {below:g}"
        raise ValueError(f"{name} must be {low}{high}, got {number!r}; choose another value.")
    return number


def step_size(value: Any, name: str = "step_size") -> float:
    """Return a step size: positive, finite, and not at the ends of the range of floats."""
    number = real(name, value, above=0.0)
    require_moderate(name, number)
    return number


def moderate_array(name: str, value: ArrayLike, *, least: float = SMALL) -> Array:
    """Return `value` as a finite array that is 0 or whose square neither overflows nor vanishes."""
    array = finite_array(name, value)
    largest = float(np.abs(array).max())
    if largest and not least <= largest <= LARGE:
        raise ValueError(
            f"{name} must be 0, or its largest modulus between {least:g} and {LARGE:g}, got "
            f"{largest:g}: its square leaves the range of floats; rescale it."
        )
    return array


def require_moderate(name: str, number: float) -> None:
    """Refuse a positive number at the ends of the range of floats."""
    if not LEAST <= number <= MOST:
        raise ValueError(
            f"{name} must be between {LEAST:g} and {MOST:g}, got {number:g}: products with it "
            "leave the range of floats; rescale the problem."
        )


def non_negative(name: str, value: Any) -> float:
    """Return `value` as a finite float that is at least 0."""
    number = real(name, value)
    if number < 0:
        raise ValueError(f"{name} must be at least 0, got {number!r}; choose another value.")
    return number


def integer(name: str, value: Any, *, minimum: int = 1) -> int:
    """Return `value` as an int of at least `minimum`."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer, got {short(value)}.")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {int(value)}; raise it.")
    return int(value)


def boolean(name: str, value: Any) -> bool:
    """Return `value` as a bool."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {short(value)}.")
    return bool(value)


def instance(name: str, value: Any, kind: type) -> None:
    """Refuse a `value` that is not a `kind`."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be a {kind.__name__}, got {type(value).__name__}.")


def parameters(name: str, value: ArrayLike, count: int) -> Array:
    """Return `value` as parameters of shape (..., count)."""
    array = finite_array(name, value)
    if array.ndim == 0 or array.shape[-1] != count:
        raise ValueError(
            f"{name} must have shape (..., {count}), got {array.shape}; the coordinates of "
            "a point belong along the last axis."
        )
    return array


def probabilities(value: ArrayLike | None, n_samples: int) -> Array:
    """Return sampling probabilities of shape (n_samples,), uniform when `value` is None."""
    if value is None:
        return np.full(n_samples, 1.0 / n_samples)
    array = finite_array("probabilities", value, ndim=1)
    if array.size != n_samples:
        raise ValueError(
            f"probabilities has length {array.size} but there are {n_samples} samples; "
            "pass one probability per sample."
        )
    if (array < 0).any():
        where = int(np.argmin(array))
        raise ValueError(
            f"probabilities must not be negative, got {array[where]} at index {where}; "
            "use 0 for a sample that is never drawn."
        )
    total = math.fsum(array)
    if abs(total - 1) > PROBABILITY_TOLERANCE:
        raise ValueError(f"probabilities must sum to 1, got {total!r}; divide them by their sum.")
    return array / total


def kernel(value: ArrayLike) -> Array:
    """Return a kernel: square and symmetric (up to rounding, then symmetrised)."""
    # Positive semidefiniteness needs the spectrum: `Minimum` asks for it where it is computed.
    array = finite_array("kernel", value, ndim=2)
    rows, columns = array.shape
    if rows != columns:
        raise ValueError(
            f"kernel must be square, got shape {array.shape}; for a jacobian J of shape "
            "(samples, parameters) pass J @ J.T."
        )
    asymmetry = float(np.abs(array - array.T).max())
    if asymmetry > SYMMETRY_TOLERANCE * np.abs(array).max():
        raise ValueError(
            f"kernel must be symmetric, got a largest |K - K.T| of {asymmetry:.3g}; "
            "pass K = J @ J.T, or (K + K.T) / 2 if the asymmetry is rounding."
        )
    if array.any():
        require_moderate("the largest entry of kernel", float(np.abs(array).max()))
    return np.asarray((array + array.T) / 2)


def generator(rng: int | np.random.Generator | None) -> np.random.Generator:
    """Return a `numpy.random.Generator` from a seed, a generator or None."""
    if rng is None or isinstance(rng, np.random.Generator):
        return np.random.default_rng(rng)
    return np.random.default_rng(integer("rng", rng, minimum=0))


def choice(name: str, value: Any, options: Sequence[str]) -> str:
    """Return `value` if it is one of `options`."""
    if value not in options:
        listed = ", ".join(repr(option) for option in options)
        raise ValueError(f"{name} must be one of {listed}, got {short(value)}.")
    return str(value)


def short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
