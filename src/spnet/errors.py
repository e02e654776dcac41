"""What the user did wrong, in one line that names the remedy.

The command line turns a `UserError` into that line and exit code 2; every other exception is our fault (exit code 1).
"""

import errno
from collections.abc import Iterable
from difflib import get_close_matches
from numbers import Integral, Real
from re import findall, sub
from typing import TYPE_CHECKING, TypeGuard

from spnet.terminal import printable

if TYPE_CHECKING:
    from torch import Tensor

LISTED = 40
"""Names that a line may list."""


class UserError(ValueError):
    """The input was wrong. The message is one line: what, and how to mend it.

    Messages name files and classes, so they are shown as a terminal may show them (`spnet.terminal.printable`), and
    what somebody named with a page of letters is cut.
    """

    def __str__(self) -> str:
        told = sub(r"\S{400,}", lambda word: f"{word[0][:60]}...{word[0][-60:]}", super().__str__())
        return printable(told, keep="\n\t")  # the command line makes these spaces


class DivergedError(RuntimeError):
    """Training met a loss that is not finite. The last good state is on disk."""


class NoEffectWarning(UserWarning):
    """A setting was given that changes nothing in this run."""


class ImagesWarning(UserWarning):
    """Images look as if they were not prepared as the network expects."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that there was no memory left; torch and the linker say so in several ways."""
    words = ("can't allocate memory", "not enough memory", "out of memory", "bad alloc", "bad_alloc", "Failed to alloc")
    words += ("annot allocate memory", "failed to map segment", "can't start new thread")
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return isinstance(error, MemoryError) or (
        isinstance(error, (RuntimeError, ImportError)) and any(word in str(error) for word in words)
    )


def check_finite(outputs: "Tensor") -> None:
    """`UserError` for outputs that are no numbers: weights may be finite one by one and still be ruined."""
    if not bool(outputs.isfinite().all()):
        raise UserError("the network's outputs are not finite numbers: its weights are ruined. Restore them.")


def check_share(name: str, share: float, such_as: float = 0.6) -> None:
    """Raise a `UserError` unless `share` can be a share of the static cost; routers may push it past 1."""
    if not is_number(share) or not 0 < share <= 1.5:
        raise UserError(f"{name} is a share of the static cost, such as {such_as}; not {share!r:.60}.")


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a plain number, Python's or numpy's; true and false are none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def check_count(name: str, value: object) -> None:
    """Raise a `UserError` unless `value` is a whole number from 1 on."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise UserError(f"{name} must be a whole number, at least 1; not {value!r:.60}.")
    if value < 1:
        raise UserError(f"{name} must be at least 1, not {value}.")


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for the option closest to `name`, or the empty string.

    Only an option with the same numbers counts as close: letters get mistyped, but another number is another thing
    (ResNet-18 is no misspelt ResNet-8).
    """
    near = [option for option in options if _numbers(option) == _numbers(name)]
    close = get_close_matches(name, near, n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""


def _numbers(name: str) -> list[str]:
    return findall(r"\d+", name)


def choose(kind: str, name: str, options: Iterable[str]) -> str:
    """Return `name` if it is one of `options`; else raise a `UserError` that names the nearest and lists all, or the
    first of very many."""
    options = list(options)
    if not isinstance(name, str):
        raise UserError(f"a {kind} is known by its name, such as '{options[0]}'; not {type(name).__name__}.")
    if name in options:
        return name
    known = options if len(options) <= LISTED else [*options[:LISTED], f"... ({len(options)} altogether)"]
    raise UserError(f"unknown {kind} '{name}'.{did_you_mean(name, options)} Known: {', '.join(known)}.")
