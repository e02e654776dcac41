"""Markdown whose lines fit a screen. Tables, and words longer than a line, stay as they are."""

import re
import textwrap
from functools import partial

WIDTH = 120
_wrap = partial(textwrap.wrap, break_long_words=False, break_on_hyphens=False)


def wrapped(text: str) -> str:
    """The text with prose and list entries broken at `WIDTH` characters; commands before an option, with ` \\`."""
    lines, code = [], False
    for line in text.split("\n"):
        code ^= line.startswith("```")
        if len(line) <= WIDTH or line.startswith("|"):
            lines.append(line)
        elif code:
            glued = re.sub(r" (?!--)", "\0", line)  # an option and what it is given stay together
            lines.append(" \\\n".join(_wrap(glued, WIDTH - 2, subsequent_indent="    ")).replace("\0", " "))
        else:
            lines += _wrap(line, WIDTH, subsequent_indent="  " if line.startswith("- ") else "")
    return "\n".join(lines)
