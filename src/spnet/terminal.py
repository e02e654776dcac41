"""Words for a terminal: names from files and folders are shown so that they cannot steer it, remarks go to stderr."""

import sys
import unicodedata

_JOINERS = "\u200c\u200d"
"""Format characters that words of several scripts, and joined emoji, cannot be spelt without."""


def printable(text: str, keep: str = "") -> str:
    """`text` with its invisible characters written out (`\\x1b`, `\\u202e`), those in `keep` excepted.

    These are control characters, marks that turn the direction of writing and other format characters, line
    separators, and the bytes of a file name that are no text.
    """
    return "".join(c if c in keep or _visible(c) else _spelt(c) for c in text)


def say(remark: str) -> None:
    """Print one line, `spnet: ...`, on stderr, if there is one."""
    if sys.stderr is not None:
        print(f"spnet: {printable(' '.join(remark.split()))}", file=sys.stderr, flush=True)


def _visible(character: str) -> bool:
    return character in _JOINERS or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _spelt(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
