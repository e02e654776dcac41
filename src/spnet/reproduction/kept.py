"""Records beside those of runs, each a JSON file: made once, read by every table."""

from pathlib import Path
from typing import TypeVar

from spnet.errors import UserError
from spnet.files import read_json
from spnet.runs.forms import Misfit, fill

T = TypeVar("T")


def read_kept(form: type[T], file: Path) -> T | None:
    """The record; None where there is none.

    Raises:
        UserError: the record is damaged.
    """
    if not file.is_file():
        return None
    try:
        return fill(form, read_json(file))
    except Misfit as error:
        raise UserError(f"{file} is damaged: {error}. Delete it, and make it anew.") from error
