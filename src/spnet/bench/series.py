"""Timings of one thing over the rounds, and the ratio of two such series."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from spnet.bench.latency import Timing, percentiles, spread


@dataclass
class Series:
    """Timings of one thing, one a round."""

    threads: int
    timings: list[Timing] = field(default_factory=list)

    def clean(self) -> list[int]:
        """Rounds in which nobody took the cores."""
        return [k for k, timing in enumerate(self.timings) if not timing.contended(self.threads)]

    def record(self) -> dict[str, Any]:
        """Figures of the clean rounds; of all of them where none is clean (`kept` says so)."""
        clean = self.clean()
        timings = [self.timings[k] for k in clean] or self.timings
        calls = percentiles([seconds for timing in timings for seconds in timing.seconds])
        return {
            "ms": {key: 1e3 * value for key, value in spread([t.mean for t in timings]).items()},
            "latency_ms": {key: 1e3 * value for key, value in calls.items()},
            "cpu_ms": 1e3 * spread([t.cpu_seconds for t in timings])["median"],
            "rounds": len(self.timings),
            "kept": len(clean),
            "cpu": sum(t.cpu for t in timings) / len(timings),
            "others": sum(t.others for t in timings) / len(timings),
        }


def speed_up(rivals: Mapping[str, Series], own: Series) -> dict[str, Any]:
    """Of `own` over the rival that looks best beside it: the median over rounds of the ratio within a round.

    Only rounds in which both were left alone count; where there is none (`compared` is 0) all do, and the figure is
    as good as interleaving makes it. `cpu_speed_up` is the same in processor time.
    """
    found = []
    for name, rival in rivals.items():
        both = sorted(set(rival.clean()) & set(own.clean()))
        pairs = [(rival.timings[k], own.timings[k]) for k in both or range(len(own.timings))]
        ratio = spread([theirs.mean / ours.mean for theirs, ours in pairs])
        cpu = spread([theirs.cpu_seconds / ours.cpu_seconds for theirs, ours in pairs])["median"]
        found.append((ratio, cpu, len(both), name))
    ratio, cpu, compared, name = min(found, key=lambda entry: entry[0]["median"])
    return {
        "rival": name,
        "speed_up": ratio["median"],
        "speed_up_quartiles": [ratio["q25"], ratio["q75"]],
        "cpu_speed_up": cpu,
        "compared": compared,
    }
