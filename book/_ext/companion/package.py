"""The package pages: an overview table of a folder's public names, then each with its docstring.

Names and groups come from the folder's ``__all__``, so that a page cannot forget or invent one.
"""

import importlib
import inspect
import tokenize
from abc import ABC
from collections.abc import Iterator
from functools import cache
from io import StringIO
from types import ModuleType

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from .tables import table, text, title_row

# The modules with an ``__all__``, in the order of the pages.
MODULES = (
    "stabcore.sampling",
    "stabcore.exponent",
    "stabcore.stable_sets",
    "stabcore.sweeps",
    "stabcore.problems",
    "stabcore.problems.layers",
    "stabcore.lyapunov",
    "stabcore.minima",
    "stabcore.descent",
    "stabcore.saddles",
    "stabcore.networks",
    "stabcore.simulation",
    "stabcore.companion",
    "stabcore.companion.plotting",
)
Groups = list[tuple[str, list[str]]]
STAR = "★"


class PackagePage(SphinxDirective):
    """Document modules: ``{package-page} stabcore.minima``, or several of them in a row."""

    required_arguments = 1
    optional_arguments = 20

    def run(self) -> list[nodes.Node]:
        """Write a table and the directives of autodoc, and let them be parsed."""
        result: list[nodes.Node] = []
        for name in self.arguments:
            module = importlib.import_module(name)
            self.env.note_dependency(str(inspect.getsourcefile(module)))
            groups = groups_of(module)
            result += self._overview(module, groups)
            lines = [line for title, names in groups for line in _signatures(module, title, names)]
            source = "\n".join(["````{eval-rst}", *lines, "````"])
            result += self.parse_text_to_nodes(source)
        return result

    def _overview(self, module: ModuleType, groups: Groups) -> list[nodes.Node]:
        """Return a table of the names and what they are, and where they can be imported from."""
        top = importlib.import_module("stabcore").__all__
        rows: list[nodes.row | list[list[nodes.Node]]] = []
        for title, names in groups:
            if title:
                rows.append(title_row(title, 2))
            for name in names:
                link = f"{{py:obj}}`{name} <{module.__name__}.{name}>`"
                link = link if _has_entry(module, name) else f"`{name}`"
                mark = f"{link} {STAR}" if name in top else link
                rows.append([self.parse_text_to_nodes(mark), text(_summary(module, name))])
        origin = f"Import from `{module.__name__}`"
        starred = any(name in top for _, names in groups for name in names)
        where = f"{origin}; names with a {STAR} also from `stabcore`." if starred else f"{origin}."
        return [*self.parse_text_to_nodes(where), table(("Name", "What it is"), rows)]


def groups_of(module: ModuleType) -> Groups:
    """Return the public names of a module by the comments in its ``__all__``."""
    title, groups = "", Groups()
    for kind, content in _tokens_of_all(inspect.getsource(module)):
        if kind == tokenize.COMMENT and not content.startswith("# noqa"):
            title = content.lstrip("# ")
        elif kind == tokenize.STRING:
            if not groups or groups[-1][0] != title:
                groups.append((title, []))
            groups[-1][1].append(content.strip("\"'"))
    return groups


def _tokens_of_all(source: str) -> Iterator[tuple[int, str]]:
    """Yield the tokens between the brackets of ``__all__``."""
    start = source.index("__all__ = [")
    for token in tokenize.generate_tokens(StringIO(source[start:]).readline):
        if token.string == "]":
            return
        yield token.type, token.string


def _has_entry(module: ModuleType, name: str) -> bool:
    """Return whether a name gets an entry of its own: functions and classes do."""
    value = getattr(module, name)
    return inspect.isclass(value) or inspect.isroutine(value)


def _summary(module: ModuleType, name: str) -> str:
    """Return the first sentence of a docstring; for a constant its value."""
    value = getattr(module, name)
    if not _has_entry(module, name):
        return repr(value)
    return (inspect.getdoc(value) or "").split("\n\n")[0].replace("\n", " ").replace("`", "")


def _signatures(module: ModuleType, title: str, names: list[str]) -> Iterator[str]:
    """Yield the directives that document some names, under a small title."""
    if title:
        yield from (f".. rubric:: {title[0].upper()}{title[1:]}", "")
    for name in names:
        if _has_entry(module, name):
            value = getattr(module, name)
            if inspect.isclass(value):
                yield f".. autoclass:: {module.__name__}.{name}"
                yield "   :members:"
                if value.__bases__ not in ((object,), (ABC,)):
                    yield "   :show-inheritance:"
            else:
                yield f".. autofunction:: {module.__name__}.{name}"
            yield ""


@cache
def targets() -> dict[str, str]:
    """Return where each public name of the package is documented."""
    found: dict[str, str] = {}
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        for name in module.__all__:
            if _has_entry(module, name):
                found.setdefault(name, f"{module_name}.{name}")
    return found


def places() -> dict[str, str]:
    """Return where each function, class and method is documented, by where it is defined."""
    found: dict[str, str] = {}
    for target in targets().values():
        module_name, _, name = target.rpartition(".")
        value = getattr(importlib.import_module(module_name), name)
        members = [one for one in dir(value) if inspect.isclass(value) and not one.startswith("_")]
        for tail in ("", *(f".{one}" for one in members)):
            found[f"{value.__module__}.{name}{tail}"] = f"{target}{tail}"
    return found


def target_of(reference: str) -> str | None:
    """Return the documented object that a word in backticks means, None if there is none."""
    head, *rest = reference.removesuffix("()").removeprefix("stabcore.").split(".")
    for module_name in MODULES:  # written with its folder, as in `stabcore.lyapunov.transfer`
        folder = module_name.removeprefix("stabcore.")
        if rest and reference.removeprefix("stabcore.").startswith(f"{folder}."):
            head, *rest = reference.removeprefix(f"stabcore.{folder}.").split(".")
    target = targets().get(head)
    if target is None:
        return None
    module_name, _, name = target.rpartition(".")
    value = getattr(importlib.import_module(module_name), name)
    if rest and not hasattr(value, rest[0]):
        return None
    return ".".join([target, *rest])
