"""Which methods there are: the folders beside this file, what plug-ins bring, what the user's own modules define."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from spnet.errors import UserError, choose
from spnet.methods.base import Method
from spnet.methods.wrapper import Wrapper
from spnet.terminal import say

GROUP = "spnet.methods"
"""The entry-point group in which a package names the modules that define its methods."""
HOME = "spnet.methods."


def list_methods() -> list[str]:
    """Names of all methods, those of plug-ins and of the user's own imported modules included.

    Example:
        >>> {"spnet", "static"} <= set(spnet.list_methods())
        True
    """
    return list(_found())


def shipped_methods() -> list[str]:
    """Names of the package's own."""
    return [name for name, cls in _found().items() if cls.__module__.startswith(HOME)]


def method_class(name: str) -> type[Method]:
    found = _found()
    return found[choose("method", name, found)]


def wrapper_class(name: str) -> type[Wrapper]:
    wrappers = {known: cls for known, cls in _found().items() if issubclass(cls, Wrapper)}
    return wrappers[choose("wrapper for 'with'", name, wrappers)]


def card_of(name: str) -> Path:
    """Where a method's card lies if it has one: `card.md` beside the module of its class."""
    return Path(inspect.getfile(method_class(name))).with_name("card.md")


def composition(method: str, wrapper: str = "") -> tuple[type[Method], list[type[Wrapper]]]:
    """What a run's `method` and `with` name: the innermost method and the wrappers around it, from inside out.

    Args:
        method: a method, or a wrapper, which then goes around the method that is its own default.
        wrapper: one wrapper, or several from inside out: `spnet+other`.

    Raises:
        UserError: an unknown name, a wrapper as the method of another, one named twice or out of its place.
    """
    names = wrapper.split("+") if wrapper else []
    inner = method_class(method)
    if issubclass(inner, Wrapper):
        if names:
            each = dict.fromkeys([method, *names])
            order = "+".join(sorted(each, key=lambda name: wrapper_class(name).outermost))
            raise UserError(
                f"'{method}' is a wrapper already; name the method inside: --method {inner.Inner.name} --with {order}."
            )
        return inner.Inner, [inner]
    wrappers = [wrapper_class(name) for name in names]
    for place, (name, cls) in enumerate(zip(names, wrappers, strict=True)):
        if name in names[:place]:
            raise UserError(f"wrapper '{name}' is named twice.")
        if cls.outermost and place < len(names) - 1:
            raise UserError(f"wrapper '{name}' goes around the others: name it last, as in {names[-1]}+{name}.")
    return inner, wrappers


def _found() -> dict[str, type[Method]]:
    """Every named class below `Method`. A name of the package stays the package's; else the one defined last has it."""
    _import_all()
    named = [cls for cls in _below(Method) if "name" in vars(cls)]
    own = {cls.name: cls for cls in named if cls.__module__.startswith(HOME)}
    others = {cls.name: cls for cls in named if not cls.__module__.startswith(HOME)}
    for name in own.keys() & others.keys():
        _say_taken(others[name])
    return dict(sorted((others | own).items()))


def _below(cls: type[Method]) -> Iterator[type[Method]]:
    for child in cls.__subclasses__():
        yield child
        yield from _below(child)


@cache
def _say_taken(cls: type[Method]) -> None:
    say(f"method '{cls.name}' of {cls.__module__} is left out: the package has one of that name.")


@cache
def _import_all() -> None:
    """Import the folders beside this file and, once, every plug-in. A broken one is one line, and is left out."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        importlib.import_module(HOME + module.name)
    for point in entry_points(group=GROUP):
        _import(point)


def _import(point: EntryPoint) -> None:
    try:
        point.load()
    except (Exception, SystemExit) as error:  # it is somebody's code: it may do anything, and we go on without it
        package = f" of {point.dist.name}" if point.dist else ""
        say(
            f"method plug-in '{point.name}'{package} ({point.value}) is left out, for it cannot be imported: "
            f"{type(error).__name__}: {' '.join(str(error).split())}"
        )
