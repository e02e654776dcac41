"""The pictures in a folder, the same for training and for `spnet predict`, and a count of everything left out."""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from spnet.data.formats import endings
from spnet.data.reason import reason
from spnet.errors import UserError
from spnet.terminal import say


@dataclass
class LeftOut:
    """What lay among pictures and was not taken. Hidden files count if their ending is a picture's."""

    endings: Counter[str] = field(default_factory=Counter)
    """Files that are no pictures by their ending."""
    hidden: int = 0
    outside: int = 0
    """Pictures beside the class folders instead of in one."""
    folders: int = 0
    special: list[str] = field(default_factory=list)
    """Names of pipes, devices, sockets and broken links: opening one may never end."""

    def say(self, where: Path) -> None:
        """One line on stderr that counts it all; none if nothing was left out."""
        kinds = []
        if count := self.endings.total():
            shown = ", ".join(ending or "none" for ending, _ in self.endings.most_common(3))
            kinds.append(f"{count} by the ending ({shown}{', ...' if len(self.endings) > 3 else ''})")
        if self.special:
            kinds.append(f"{len(self.special)} not a regular file ('{min(self.special)}')")
        for count, what in ((self.hidden, "hidden"), (self.outside, "in no class folder"), (self.folders, "folders")):
            if count:
                kinds.append(f"{count} {what}")
        if kinds:
            count = self.endings.total() + len(self.special) + self.hidden + self.outside + self.folders
            say(f"left out in '{where}': {count}, that is {', '.join(kinds)}")


def pictures_in(folder: Path, left_out: LeftOut, recursive: bool = False) -> list[Path]:
    """Regular files with a picture's ending, sorted by name; what is passed over is added to `left_out`.

    With `recursive` those of inner folders too, each folder's own before them; links to folders are not followed, for
    they may lead in a circle. UserError if a folder cannot be read.
    """
    files, inner = look(folder, left_out)
    if not recursive:
        left_out.folders += len(inner)
        return files
    for child in inner:
        if child.is_symlink():
            left_out.folders += 1
        else:
            files += pictures_in(child, left_out, recursive)
    return files


def look(folder: Path, left_out: LeftOut) -> tuple[list[Path], list[Path]]:
    """(pictures, folders) right in a folder, sorted by name. Hidden ones are not taken."""
    files, folders = [], []
    try:
        with os.scandir(folder) as found:
            for entry in sorted(found, key=lambda entry: entry.name):
                path, ending = folder / entry.name, Path(entry.name).suffix.lower()
                if entry.is_dir():
                    folders += [] if entry.name[0] == "." else [path]
                elif entry.name[0] == ".":
                    left_out.hidden += ending in endings()
                elif not entry.is_file():
                    left_out.special.append(entry.name)
                elif ending not in endings():
                    left_out.endings[ending] += 1
                else:
                    files.append(path)
    except OSError as error:
        raise UserError(f"'{folder}' cannot be read ({reason(error)}); check its permissions") from error
    return files, folders
