"""A hash that changes when the meaning of a function or a value does.

A result kept on disk may be handed out again only if what computed it is the same. The source of
the function alone does not tell: it names constants, helpers and classes that live elsewhere, as
attributes of modules, in containers, in modules that it imports when it runs. So all code of the
user's own and of stabcore is followed that can be reached from it: functions and classes one by
one, a module whole. "Own" is what does not lie where Python keeps its library and installed
packages; those are taken by name. Code is compared compiled, so that comments and layout do not
matter.
"""

from __future__ import annotations

import copyreg
import functools
import hashlib
import importlib
import inspect
import pickle
import sys
import sysconfig
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Plain = list[Any]

PRIMITIVES = (bool, int, float, complex, str, bytes, type(None), type(...))

# Of a module or a class: where it came from and how it is kept, not what it does.
HOUSEKEEPING = {
    "__annotations__",
    "__builtins__",
    "__cached__",
    "__dict__",
    "__doc__",
    "__file__",
    "__firstlineno__",
    "__loader__",
    "__path__",
    "__spec__",
    "__static_attributes__",
    "__weakref__",
    "_abc_impl",
}


def fingerprint(thing: Any, home: str = "") -> str:
    """Return a hash of `thing`, following code of the package `home`, of one's own and stabcore."""
    return digest(_Tracer(home).everything(thing))


def home_of(function: Any) -> str:
    """Return the top-level package that a function belongs to."""
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(_plain_function(function), "__module__", None) or "").partition(".")[0]


def digest(parts: Plain) -> str:
    """Return a hash of nested lists of text, bytes and numbers."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


class _Tracer:
    """Describes values; code in them is given a number and described once, however often used."""

    def __init__(self, home: str) -> None:
        self.packages = {home, "stabcore"}
        self.code: list[Any] = []  # functions, classes and modules, kept alive: ids stay unique
        self.numbers: dict[int, int] = {}
        self.open: set[int] = set()  # containers that are being described

    def everything(self, thing: Any) -> Plain:
        """Return the description of a value and of all code that it can reach."""
        parts = [self.value(thing)]
        while len(parts) <= len(self.code):
            parts.append(self.body(self.code[len(parts) - 1]))
        return parts

    def value(self, thing: Any) -> Plain:
        """Describe a value, with code in it by number or by name."""
        thing = _plain_function(thing)
        if isinstance(thing, PRIMITIVES) and type(thing) in PRIMITIVES:
            return [type(thing).__name__, repr(thing)]
        if isinstance(thing, types.ModuleType):
            return self.reference(thing, thing.__name__, thing.__name__)
        if inspect.isfunction(thing) or inspect.isclass(thing):
            return self.reference(thing, thing.__module__, thing.__qualname__)
        if isinstance(thing, np.ndarray) and not thing.dtype.hasobject:
            content = hashlib.sha256(np.ascontiguousarray(thing).tobytes()).hexdigest()
            return ["array", str(thing.dtype), list(thing.shape), content]
        if id(thing) in self.open:
            return ["itself"]
        self.open.add(id(thing))
        try:
            return [self.value(type(thing)), *self.parts(thing)]
        finally:
            self.open.discard(id(thing))

    def reference(self, thing: Any, module: str | None, name: str) -> Plain:
        """Return the number of a piece of code that is followed, the name of another."""
        if not self.is_followed(module or ""):
            return ["named", module, name]
        if id(thing) not in self.numbers:
            self.numbers[id(thing)] = len(self.code)
            self.code.append(thing)
        return ["code", self.numbers[id(thing)]]

    def is_followed(self, module: str) -> bool:
        return module.partition(".")[0] in self.packages or _is_own(module)

    def parts(self, thing: Any) -> Iterator[Any]:
        """Yield what a value consists of."""
        if type(thing) in {list, tuple}:
            yield from map(self.value, thing)
        elif type(thing) is dict:
            for key, part in thing.items():
                yield [self.value(key), self.value(part)]
        elif isinstance(thing, set | frozenset):
            yield from map(self.value, sorted(thing, key=_stable_order))
        elif isinstance(thing, types.UnionType):
            yield from map(self.value, thing.__args__)
        elif inspect.ismethod(thing):
            yield from map(self.value, (thing.__func__, thing.__self__))
        else:
            yield from map(self.value, _state(thing))

    def lenient(self, thing: Any) -> Plain:
        """Describe what need not be used: by its type alone where nothing else can be said."""
        try:
            return self.value(thing)
        except TypeError:
            return self.value(type(thing))

    def body(self, thing: Any) -> Plain:
        """Describe a piece of code."""
        if isinstance(thing, types.ModuleType):
            # Names that a module merely imports from elsewhere are code, or constants.
            return [thing.__name__, *self.named(vars(thing))]
        where = [thing.__module__, thing.__qualname__]
        if inspect.isclass(thing):
            return [*where, *map(self.value, thing.__bases__), *self.named(vars(thing))]
        cells = [cell.cell_contents for cell in thing.__closure__ or ()]
        known = thing.__globals__
        used = [known[name] for name in _names(thing.__code__) if name in known]
        imported = list(_imported(thing.__code__, str(known.get("__package__") or "")))
        held = [thing.__defaults__, thing.__kwdefaults__, *cells, *used, *imported]
        return [*where, _code(thing.__code__), *map(self.value, held)]

    def named(self, scope: Any) -> Iterator[Any]:
        """Describe the contents of a module or a class."""
        for name, part in list(scope.items()):
            if name in HOUSEKEEPING:
                continue
            # What a property, a cached property, a static or a class method is made of.
            keys = ("fget", "fset", "fdel", "func", "__func__")
            made_of = [getattr(part, key) for key in keys if hasattr(part, key)]
            yield [name, *map(self.lenient, made_of or [part])]


def _plain_function(thing: Any) -> Any:
    """Return the Python function that numba, jax or a cache has wrapped, or `thing` itself."""
    if isinstance(thing, functools.partial) or inspect.isfunction(thing) or inspect.isclass(thing):
        return thing
    if isinstance(thing, PRIMITIVES):
        return thing
    return getattr(thing, "py_func", getattr(thing, "__wrapped__", thing))


@functools.cache
def _libraries() -> tuple[Path, ...]:
    """Return the folders of Python's library and of installed packages."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple(Path(sysconfig.get_path(name)).resolve() for name in names)


def _is_own(module: str) -> bool:
    """Return whether a module is a file outside Python's library and its installed packages."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is not None and not any(
        Path(file).resolve().is_relative_to(library) for library in _libraries()
    )


def _state(thing: Any) -> Iterable[Any]:
    """Return what an object is made of, in the way pickle takes it apart."""
    try:
        registered = copyreg.dispatch_table.get(type(thing))
        protocol = pickle.HIGHEST_PROTOCOL
        reduced = thing.__reduce_ex__(protocol) if registered is None else registered(thing)
    except Exception as error:  # whatever the class raises
        raise TypeError(
            f"memory needs values that can be pickled, got a {type(thing).__name__} ({error}); "
            "pass what the function needs as plain arguments, or memory=None."
        ) from error
    if isinstance(reduced, str):  # a global of that name
        return [reduced]
    return [list(part) if isinstance(part, Iterator) else part for part in reduced]


def _stable_order(thing: Any) -> tuple[str, ...]:
    """Return a key that sorts a set in the same way in every process."""
    names = [str(getattr(thing, name, "")) for name in ("__module__", "__qualname__")]
    return type(thing).__name__, *names, "" if callable(thing) else repr(thing)


def _imported(code: types.CodeType, package: str) -> Iterator[Any]:
    """Yield the modules, or what is taken from them, that code imports when it runs."""
    import dis  # only a sweep needs it

    level, module = 0, None
    constants: list[Any] = []
    for step in dis.get_instructions(code):
        if step.opname.startswith("LOAD_CONST") or step.opname == "LOAD_SMALL_INT":
            constants.append(step.argval)
        elif step.opname == "IMPORT_NAME":
            level = constants[-2] if len(constants) > 1 else 0
            taken = constants[-1] if constants else None
            module = _module("." * level + step.argval, package)
            if module is not None and not taken:
                yield module
        elif step.opname == "IMPORT_FROM" and module is not None:
            yield getattr(module, step.argval, None) or _module(
                f"{module.__name__}.{step.argval}", package
            )
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _imported(constant, package)


def _module(name: str, package: str) -> types.ModuleType | None:
    """Return a module, None if it cannot be imported: the function itself will say so."""
    try:
        return importlib.import_module(name, package or None)
    except Exception:
        return None


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
