"""Build the wheel and the sdist, and print what is in them: `python scripts/wheel.py [FOLDER]`."""

import sys
import tarfile
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parent.parent


def build(folder: Path) -> tuple[Path, Path]:
    """The wheel and the sdist, in `folder`."""
    kinds = ((WheelBuilder, "standard"), (SdistBuilder, "standard"))
    wheel, sdist = (Path(next(iter(kind(str(ROOT)).build(directory=str(folder), versions=[v])))) for kind, v in kinds)
    return wheel, sdist


def content(archive: Path) -> dict[str, int]:
    """File -> bytes unpacked; of an sdist without its top folder."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as opened:
            return {info.filename: info.file_size for info in opened.infolist()}
    with tarfile.open(archive) as opened:
        return {entry.name.partition("/")[2]: entry.size for entry in opened if entry.isfile()}


def told(archive: Path) -> str:
    """Size, and files and bytes of each folder, two levels deep."""
    files = content(archive)
    counts, sizes = Counter[str](), Counter[str]()
    for name, size in files.items():
        folder = "/".join(name.split("/")[:-1][:2]) or "."
        counts[folder] += 1
        sizes[folder] += size
    lines = [f"{archive.name}: {archive.stat().st_size / 1e6:.2f} MB, {len(files)} files"]
    lines += [f"  {folder:<28} {counts[folder]:>4} files {sizes[folder] / 1e3:>8.0f} kB" for folder in sorted(counts)]
    return "\n".join(lines)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        for archive in build(Path(sys.argv[1]) if sys.argv[1:] else Path(made)):
            print(told(archive))
