"""Results in a few archives of limited size: at most 8 files of at most 16 MiB, gpu.json among them."""

import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from spnet.files import write_atomically, write_bytes
from spnet.runs.config import RunConfig

FILES, LIMIT = 8, 16 << 20
_TAR = 64 << 10
"""More than a tar's own end takes."""


def pack(record: Path, runs: Sequence[RunConfig], work: Path, results: Path, out: Path) -> list[str]:
    """Write `out`/gpu.json and archives gpu-1.tar.gz ...: records, logs and metrics first, then weights, finished runs
    before others, each file whole in one archive. Returns what was written and what found no room, line by line."""
    for stale in out.glob("gpu-*.tar.gz"):
        stale.unlink()
    write_bytes(out / "gpu.json", record.read_bytes())
    bins: list[tuple[int, list[tuple[str, Path]]]] = []
    left_out = []
    for name, path in contents(runs, work, results):
        size = _stored(path)
        for i, (used, entries) in enumerate(bins):
            if used + size <= LIMIT - _TAR:
                bins[i] = (used + size, [*entries, (name, path)])
                break
        else:
            if len(bins) < FILES - 1 and size <= LIMIT - _TAR:
                bins.append((size, [(name, path)]))
            else:
                left_out.append(name)
    lines = [f"wrote {out / 'gpu.json'}"]
    for i, (_, entries) in enumerate(bins):
        path = out / f"gpu-{i + 1}.tar.gz"
        write_atomically(path, lambda temporary, entries=entries: _archive(temporary, entries))
        lines.append(f"wrote {path}: {len(entries)} files, {path.stat().st_size / 2**20:.1f} MiB")
    return lines + [f"no room for {name}" for name in left_out]


def contents(runs: Sequence[RunConfig], work: Path, results: Path) -> Iterator[tuple[str, Path]]:
    """(name in the archive, file) of all there is, the most wanted first."""
    done = sorted(runs, key=lambda run: not (results / f"{run.hash}.json").is_file())
    wanted = [[(f"results/{run.hash}.json", results / f"{run.hash}.json") for run in done]]
    wanted.append([(f"runs/{run.hash}.log", work / f"{run.hash}.log") for run in done])
    for file in ("config.json", "result.json", "metrics.jsonl", "model.safetensors", "model.pt"):
        wanted.append([(f"runs/{run.hash}/{file}", work / run.hash / file) for run in done])
    yield from ((name, path) for group in wanted for name, path in group if path.is_file())


def _stored(path: Path) -> int:
    """Bytes in a tar: a header, and whole blocks of 512."""
    return 512 + -(-path.stat().st_size // 512) * 512


def _archive(path: Path, entries: Sequence[tuple[str, Path]]) -> None:
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:  # weights hardly get smaller
        for name, file in entries:
            archive.add(file, arcname=name)
