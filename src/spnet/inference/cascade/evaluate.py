"""Evaluation of a cascade by the protocol: every cost counted, its members alone beside it, the control that shows what
choosing by confidence wins."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from spnet.data import Source
from spnet.errors import check_finite
from spnet.inference.cascade.engine import CascadeEngine
from spnet.inference.evaluate import collect, percent, summarise
from spnet.progress import counted
from spnet.runs.record import Evaluation, MemberFigures


@torch.no_grad()
def evaluate_cascade(engine: CascadeEngine, split: Source, *, batch_size: int = 256) -> Evaluation:
    """The figures of `spnet.inference.evaluate.evaluate`, and those of the members.

    `accuracy_shuffled_paths`: every image answered by the member that answered another image, which costs about as
    much. There is no fixed path of equal cost, so those figures are NaN.
    """
    results = collect(engine, split, batch_size)
    check_finite(results["confidence"])
    figures = summarise(results, engine.model.static_macs, engine.model.options)
    alone = [collect(member, split, batch_size) for member in counted(engine.engines, "members alone", engine.exits)]
    correct = torch.stack([found["correct"] for found in alone])
    answered = results["exit_stage"]
    members = [
        MemberFigures(
            confidence=confidence,
            decision_shift=member.decision_shift,
            share=(answered == k).double().mean().item(),
            accuracy=percent(results["correct"][answered == k]),
            accuracy_alone=percent(found["correct"]),
            cost_alone=found["macs"].double().mean().item() / engine.model.static_macs,
        )
        for k, (confidence, member, found) in enumerate(
            zip((*engine.confidences, math.nan), engine.engines, alone, strict=True)
        )
    ]
    return replace(
        figures,
        images_per_second=figures.n / max(results["seconds"], 1e-9),
        accuracy_shuffled_paths=percent(correct.gather(0, _shuffled(answered)[None])[0]),
        members=tuple(members),
    )


def _shuffled(values: Tensor) -> Tensor:
    """Every image gets another's; the same for the same number of images."""
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(0)).to(values.device)
    given = torch.empty_like(values)
    given[order] = values[order.roll(1)]
    return given
