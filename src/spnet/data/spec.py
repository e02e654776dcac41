"""The way a data set is named on the command line: `NAME`, `NAME:PATH` or `NAME:PATH?size=N`."""

import re
from dataclasses import dataclass
from pathlib import Path

from spnet.data.reason import reason
from spnet.errors import UserError, choose

MAX_SIZE = 4096
"""The largest N of `?size=N`, in pixels."""

# name -> (may have a PATH, must have one, understands ?size=N, one-line description)
_KNOWN: dict[str, tuple[bool, bool, bool, str]] = {
    "digits": (False, False, False, "1,797 scanned digits of 8x8 pixels, 10 classes, shipped with scikit-learn"),
    "cifar10": (True, False, False, "CIFAR-10: 60,000 photographs of 32x32 pixels, 10 classes"),
    "cifar100": (True, False, False, "CIFAR-100: 60,000 photographs of 32x32 pixels, 100 classes"),
    "folder": (
        True,
        True,
        True,
        "folder:PATH, your own images: PATH/train/CLASS/*.png and PATH/test/..., or PATH/CLASS/*",
    ),
    "photos": (
        True,
        True,
        True,
        "photos:PATH?size=224, photographs of any size, read while they are needed: class folders or Parquet files",
    ),
    "parquet": (True, True, True, "parquet:PATH, Parquet files with an image and a label column (Hugging Face layout)"),
}


@dataclass(frozen=True)
class Spec:
    """A data specification taken apart. `size`: side in pixels that images are resized to, or None."""

    name: str
    path: Path | None = None
    size: int | None = None

    def resizing(self, size: int | str) -> str:
        """The specification that would resize the images to `size`, for use in messages."""
        return f"{self.name}:{self.path}?size={size}"


def names() -> list[tuple[str, str]]:
    """(name, one-line description) of every kind of data `load` knows."""
    return [(name, row[-1]) for name, row in _KNOWN.items()]


def parse(text: str) -> Spec:
    """Take a specification apart; UserError on an unknown name, a PATH missing or not wanted, or an unknown option."""
    name, _, rest = text.partition(":")
    if not rest and "?" in name:
        name, _, option = name.partition("?")
        rest = f"?{option}"
    choose("data", name, _KNOWN)
    may_have_path, must_have_path, resizes, _ = _KNOWN[name]
    size = None
    if option := re.fullmatch(r"(.*)\?(\w+)=([^?/]*)", rest):
        rest, key, value = option.groups()
        if not resizes or key != "size":
            known = "only ?size=N is known" if resizes else f"'{name}' has no options"
            raise UserError(f"data '{text}': unknown option '{key}'; {known}")
        if not value.isdecimal() or len(value) > 4 or not 1 <= int(value) <= MAX_SIZE:
            raise UserError(f"data '{text}': size must be a number of pixels from 1 to {MAX_SIZE}, not '{value}'")
        size = int(value)
    if must_have_path and not rest:
        raise UserError(f"data '{name}' needs a path: {name}:PATH")
    if rest and not may_have_path:
        raise UserError(f"data '{name}' takes no path; write just '{name}'")
    if not rest:
        return Spec(name, None, size)
    try:
        path = Path(rest).expanduser()
        there = path.exists()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL, a `~` without a home
        raise UserError(f"data '{text}': the path cannot be looked up ({reason(error)}); check it") from error
    if not there:
        raise UserError(f"data '{text}': there is no file or folder '{path}'; check the path")
    return Spec(name, path, size)


def sized_as(text: str, trained_on: str) -> str:
    """`text` with the `?size=N` of the specification that a network was trained on, where it has none of its own."""
    own, theirs = (re.search(r"\?size=\w*$", spec) for spec in (text, trained_on))
    known = _KNOWN.get(text.partition(":")[0])
    return text if theirs is None or own is not None or known is None or not known[2] else text + theirs.group()
