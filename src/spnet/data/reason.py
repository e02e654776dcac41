"""Another library's error, short enough to stand in a one-line message."""

from tokenize import TokenError

NO_ARRAYS = (OSError, ValueError, EOFError, TokenError)
"""What numpy raises of files that hold no arrays; TokenError where a header does not end."""


def reason(error: BaseException) -> str:
    """The first line of what it says, or the name of its type if it says nothing."""
    return str(error).strip().partition("\n")[0].rstrip(".: ") or type(error).__name__
