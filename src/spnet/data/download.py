"""One attempt to fetch CIFAR's official archive: checked, atomic, taken up again where it broke off."""

import hashlib
import http.client
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path

from spnet.data.cache import cache_root
from spnet.data.reason import reason
from spnet.errors import UserError
from spnet.files import alone
from spnet.progress import work

SITE = "https://www.cs.toronto.edu/~kriz/"
ARCHIVES = {  # name -> (file, md5 as published on the site)
    "cifar10": ("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"),
    "cifar100": ("cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8"),
}
MB = 1e6
TIMEOUT = 15  # seconds without an answer


def download(name: str) -> Path:
    """The official binary archive of `name` under `cache_root() / name`, fetched if it is not there yet.

    UserError, one line that names the ways out, if it cannot be fetched or is not what was published.
    """
    file, md5 = ARCHIVES[name]
    target = cache_root() / name / file
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with alone(target.with_name(file + ".lock")):
            if not target.exists():
                part = target.with_name(file + ".part")
                print(f"downloading {SITE}{file} to {target}", file=sys.stderr)
                _fetch(SITE + file, part)
                if _md5(part) != md5:
                    part.unlink()
                    raise OSError("what arrived is not the published archive")
                os.replace(part, target)
    except (OSError, http.client.HTTPException) as error:
        raise UserError(
            f"{name} is not on this machine and could not be downloaded ({reason(error)}); {ways_out(name)}"
        ) from error
    return target


def ways_out(name: str) -> str:
    """What to do without a download, the end of a sentence."""
    return f"give its place with --data {name}:PATH or set SPNET_DATA to a folder that contains {name}/"


def _fetch(url: str, part: Path) -> None:
    """Append to `part` what it lacks. OSError if the connection fails or breaks; what has come is kept."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is left to send: the checksum decides
            return
        raise
    with response, part.open("ab" if response.status == 206 else "wb") as file:
        length = response.headers.get("Content-Length")
        missing = int(length) if length else 0
        with work(f"MB of {part.stem}", round((have + missing) / MB, 1), round(have / MB, 1)) as reached:
            while chunk := response.read(1 << 20):
                file.write(chunk)
                missing -= len(chunk)
                reached(round(file.tell() / MB, 1))
    if missing > 0:
        raise OSError(f"the connection broke {missing} bytes before the end; try again to go on from there")


def _md5(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
