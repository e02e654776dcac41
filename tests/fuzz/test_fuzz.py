"""Whatever is read from disk, spoilt in every way: a result, or one line and exit code 2.

pytest tests/fuzz                                    a few hundred cases
pytest tests/fuzz --fuzz 20000 --fuzz-record FILE    at length; seed, commit, counts and failures are added to FILE
pytest tests/fuzz --fuzz-seed 7                      other cases
"""

import json
import resource
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import HypothesisWarning
from on_images import cifar, folders, parquet, picture
from on_runs import config, exported, metrics, plain_state, profile, record, records, state, weights
from places import Draw, Places

from spnet.training.finish import commit

KINDS: dict[str, Callable[[Draw, Places], str]] = {
    kind.__name__: kind
    for kind in (
        *(config, weights, state, plain_state, metrics, record, records, exported, profile),
        *(picture, parquet, folders, cifar),
    )
}
ROOM = 8 << 30
"""Bytes of address space that spoilt sizes may take, beyond what the process has: no case may take the machine."""
SHOWN = 10
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("fuzz")
        patch.setenv("SPNET_CACHE", str(tmp_path_factory.mktemp("cache")))  # which may be written at any time
        patch.chdir(home)
        before = resource.getrlimit(resource.RLIMIT_AS)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, before[1]))
        yield Places(home)
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_or_one_line(kind: str, places: Places, request: pytest.FixtureRequest):
    cases, start = (int(request.config.getoption(name)) for name in ("--fuzz", "--fuzz-seed"))  # type: ignore[arg-type]
    failures: list[str] = []
    count = 0

    @seed(start)
    @settings(
        max_examples=max(1, cases // len(KINDS)),
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=[*HealthCheck],  # type: ignore[arg-type]
    )
    @given(st.data())
    def case(data: st.DataObject) -> None:
        nonlocal count
        count += 1
        if wrong := KINDS[kind](data.draw, places):
            failures.append(wrong)

    began = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HypothesisWarning)  # large values are wanted
        case()
    if name := request.config.getoption("--fuzz-record"):
        file = Path(request.config.invocation_params.dir) / name
        _write(file, kind, start, count, failures, time.monotonic() - began)
    assert not failures, f"seed {start}, {len(failures)} of {count}:\n" + "\n".join(dict.fromkeys(failures[:SHOWN]))


def _write(file: Path, kind: str, start: int, count: int, failures: list[str], seconds: float) -> None:
    """Add a kind's cases to what the file holds: a run for each seed and commit, and their sums."""
    runs = json.loads(file.read_text())["runs"] if file.is_file() else []
    named = {"seed": start, "commit": commit()}
    run = next((run for run in runs if named.items() <= run.items()), None)
    if run is None:
        runs.append(run := {**named, "kinds": {}})
    run["kinds"][kind] = {"cases": count, "failures": len(failures), "seconds": round(seconds, 1)}
    for sums in ("cases", "failures"):
        run[sums] = sum(entry[sums] for entry in run["kinds"].values())
    total = {sums: sum(run[sums] for run in runs) for sums in ("cases", "failures")}
    file.write_text(json.dumps({**total, "runs": runs}, indent=1) + "\n")
