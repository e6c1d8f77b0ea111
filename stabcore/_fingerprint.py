"""Plain data that change when the meaning of a function or a value does.

A result kept on disk may be handed out again only if what computed it is the same. The source of
the function alone does not tell: it names constants, helpers and classes that live elsewhere. So
code is followed, through everything of its own package and of stabcore that it names; other
packages are taken by name. Code is compared compiled, so that comments and layout do not matter.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import pickle
import types
from collections.abc import Iterator
from typing import Any

import numpy as np

Plain = list[Any]

CLASS_CONSTANTS = (bool, int, float, str, tuple, np.ndarray)


def fingerprint(thing: Any, home: str = "") -> str:
    """Return a hash of `thing`, following code of the package `home` and of stabcore."""
    return digest(_describe(thing, {home, "stabcore"}, set()))


def home_of(function: Any) -> str:
    """Return the top-level package that a function belongs to."""
    return str(getattr(_plain_function(function), "__module__", None) or "").partition(".")[0]


def digest(parts: Plain) -> str:
    """Return a hash of nested lists of text, bytes and numbers."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _plain_function(thing: Any) -> Any:
    """Return the Python function that numba, jax or a cache has wrapped, or `thing` itself."""
    if isinstance(thing, functools.partial):
        return _plain_function(thing.func)
    if inspect.isfunction(thing) or inspect.isclass(thing):
        return thing
    return getattr(thing, "py_func", getattr(thing, "__wrapped__", thing))


def _describe(thing: Any, packages: set[str], seen: set[int]) -> Plain:
    def describe(part: Any) -> Plain:
        return _describe(part, packages, seen)

    if isinstance(thing, types.ModuleType):
        return ["module", thing.__name__]
    if isinstance(thing, functools.partial):
        keywords = [[name, describe(value)] for name, value in thing.keywords.items()]
        return ["partial", describe(thing.func), list(map(describe, thing.args)), keywords]
    if inspect.ismethod(thing):
        return ["method", describe(thing.__func__), describe(thing.__self__)]
    thing = _plain_function(thing)
    if not (inspect.isfunction(thing) or inspect.isclass(thing)):
        kind = type(thing)
        return ["value", [] if kind.__module__ == "builtins" else describe(kind), _hash(thing)]
    name = [thing.__module__, thing.__qualname__]
    if thing.__module__.partition(".")[0] not in packages or id(thing) in seen:
        return name
    seen.add(id(thing))
    parts = _class_parts(thing) if inspect.isclass(thing) else _function_parts(thing)
    return [*name, *map(describe, parts)]


def _function_parts(function: types.FunctionType) -> Iterator[Any]:
    """Yield what a function's value depends on, besides its arguments."""
    yield _code(function.__code__)
    yield function.__defaults__
    yield function.__kwdefaults__
    yield from (cell.cell_contents for cell in function.__closure__ or ())
    known = function.__globals__
    yield from (known[name] for name in _names(function.__code__) if name in known)


def _class_parts(kind: type) -> Iterator[Any]:
    """Yield the bases, methods and constants of a class."""
    yield from kind.__bases__
    for name, part in vars(kind).items():
        # What a property, a cached property, a static or a class method is made of.
        method = next(
            (getattr(part, key) for key in ("fget", "func", "__func__") if hasattr(part, key)), part
        )
        constant = isinstance(part, CLASS_CONSTANTS) and not name.startswith("__")
        if inspect.isfunction(method) or constant:
            yield method


def _code(code: types.CodeType) -> str:
    """Return the bytecode, names and constants as text, without line numbers."""
    constants = [
        _code(constant) if isinstance(constant, types.CodeType) else repr(_ordered(constant))
        for constant in code.co_consts
    ]
    return repr([code.co_code, code.co_names, code.co_varnames, constants])


def _names(code: types.CodeType) -> Iterator[str]:
    """Yield the names that the code, and functions defined in it, may look up globally."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _ordered(constant: Any) -> Any:
    """Return a constant in an order that does not depend on the process."""
    return sorted(constant, key=repr) if isinstance(constant, frozenset) else constant


def _hash(thing: Any) -> str:
    """Return a hash of a value."""
    try:
        import joblib  # only a sweep needs it

        return str(joblib.hash(thing, hash_name="sha1"))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TypeError(
            f"memory needs values that can be pickled, got a {type(thing).__name__} ({error}); "
            "pass what the function needs as plain arguments, or memory=None."
        ) from error
