"""What the user did wrong, in one line that names the remedy.

The command line turns a `UserError` into that line and exit code 2; every other exception is our fault (exit code 1).
"""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """The input was wrong. The message is one line: what, and how to mend it."""


class DivergedError(RuntimeError):
    """Training met a loss that is not finite. The last good state is on disk."""


class NoEffectWarning(UserWarning):
    """A setting was given that changes nothing in this run."""


class ImagesWarning(UserWarning):
    """Images look as if they were not prepared as the network expects."""


def check_share(name: str, share: float, such_as: float = 0.6) -> None:
    """Raise a `UserError` unless `share` can be a share of the static cost; routers may push it past 1."""
    if not 0 < share <= 1.5:
        raise UserError(f"{name} is a share of the static cost, such as {such_as}; not {share}.")


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for the option closest to `name`, or the empty string."""
    close = get_close_matches(name, list(options), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""


def choose(kind: str, name: str, options: Iterable[str]) -> str:
    """Return `name` if it is one of `options`; else raise a `UserError` that names the nearest and lists all."""
    options = list(options)
    if name in options:
        return name
    raise UserError(f"unknown {kind} '{name}'.{did_you_mean(name, options)} Known: {', '.join(options)}.")
