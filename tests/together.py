"""Trains cases into folders of a place, on as many processes as there are: `torchrun ... tests/together.py PLACE`."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import torch
from cases import CASES, Case
from tiny import part

from spnet import data
from spnet.errors import UserError
from spnet.runs.config import RunConfig
from spnet.training.distributed import Place, joined
from spnet.training.fit import fit

BATCH = 31
"""Shared by two processes as 16 and 15, by three as 11, 10 and 10."""
LONG = [
    replace(case, epochs=20)
    for case in (Case("static"), Case("spnet"), Case("codinet"), Case("rdi-net", settings={"relation": 1.0}))
]
QUEUE = Case("rdi-net", epochs=6, settings={"relation_form": "contrastive", "relation_queue": 40})
TOGETHER = [*LONG, QUEUE, *CASES]


def train(case: Case, number: int, place: Path) -> Path:
    """Train a case into a folder of `place`: one step an epoch, so that its log is its loss curve."""
    settings = {"batch_size": BATCH, "validation": 0.0, "lr": 0.05, "precision": "fp32", "epochs": case.epochs}
    config = RunConfig(case.method, case.wrapper, "resnet8", "digits", {**settings, **case.settings})
    out = place / str(number)
    fit(config, part(data.load("digits"), train=40, test=20), out)
    return out


def refused(place: Place, out: Path) -> None:
    """Write what is said where processes differ, each in its own file."""
    try:
        place.refuse_differences(versions=f"spnet {place.rank}")
    except UserError as error:
        (out / f"refused-{place.rank}").write_text(str(error))


if __name__ == "__main__":
    torch.set_num_threads(1)
    os.fsync = lambda file: None
    with joined() as here:
        target = Path(sys.argv[1])
        for number, case in enumerate(TOGETHER):
            train(case, number, target)
        refused(here, target)
