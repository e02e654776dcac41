"""Evaluation by the protocol: deterministic decisions, every cost counted, the controls that show what the decisions
win.

Shapes: B samples of a batch, N images of the set, L blocks.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from spnet.data import Source, ordered_batches
from spnet.errors import check_finite
from spnet.network.dynamic import DynamicNetwork
from spnet.network.path_statistics import decision_entropy, distinct_paths, evolution_kl, execution_rate_per_block
from spnet.network.trace import Trace
from spnet.numerics import mean
from spnet.progress import counted
from spnet.runs.record import Evaluation

Forward = Callable[[Tensor], Trace]


@torch.no_grad()
def collect(
    forward: Callable[..., Trace],
    split: Source,
    batch_size: int = 256,
    decisions: Tensor | None = None,
    stages: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Run every image once. Returns tensors over N (`correct`, `predicted`, `labels`, `confidence`, `decisions`,
    `macs`, `exit_stage`), `stage_correct` (by stage, of those with a classifier), the list `stage_features`, and the
    `seconds` spent in the network.

    Args:
        forward: images (B, C, H, W) uint8, and decisions (B, L) when given, -> Trace.
        stages: which stages have a classifier (`net.classified_stages`); all from the first on when left out.
    """
    columns: dict[str, list[Tensor]] = {}
    stage_correct: dict[int, list[Tensor]] = {}
    stage_features: list[list[Tensor]] = []
    seconds = 0.0
    done = 0
    for images, labels in ordered_batches(split, batch_size):
        forced = () if decisions is None else (decisions[done : done + len(images)],)
        start = time.perf_counter()
        trace = forward(images, *forced)
        if images.is_cuda:
            torch.cuda.synchronize(images.device)  # a launch is not yet a result
        seconds += time.perf_counter() - start
        done += len(images)
        confidence, predicted = trace.logits.float().softmax(1).max(1)
        row = {
            "correct": predicted == labels,
            "predicted": predicted,
            "labels": labels,
            "confidence": confidence,
            "decisions": trace.decisions,
            "macs": trace.macs,
            "exit_stage": trace.exit_stage,
        }
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
        # With early exit: an earlier head speaks for the images that reached it, features evolve where all stages ran.
        heads = len(trace.stage_logits)
        classified = (range(heads) if stages is None else stages)[-heads:]  # a graph hands out the last one alone
        for stage, logits in zip(classified, trace.stage_logits, strict=True):
            right = logits.argmax(1) == labels
            last = stage == classified[-1]
            stage_correct.setdefault(stage, []).append(right if last else right[trace.exit_stage >= stage])
        whole = trace.exit_stage == len(trace.stage_features) - 1
        stage_features.extend([] for _ in range(len(trace.stage_features) - len(stage_features)))
        for kept, feature in zip(stage_features, trace.stage_features, strict=True):
            kept.append(feature[whole])
    return {
        **{name: torch.cat(values) for name, values in columns.items()},
        "stage_correct": {stage: torch.cat(values) for stage, values in stage_correct.items()},
        "stage_features": [torch.cat(values) for values in stage_features],
        "seconds": seconds,
    }


def summarise(results: dict[str, Any], static_macs: int, options: Sequence[int] | None = None) -> Evaluation:
    """The figures of an evaluation, without controls. Accuracies in percent, costs in MACs and GFLOPs (2 per MAC).

    Args:
        options: of each block; blocks with one option have no part in the mean execution rate. None: all have more.
    """
    macs = results["macs"].double()
    decisions = results["decisions"]
    rates = execution_rate_per_block(decisions, options)
    chosen = torch.tensor([k > 1 for k in options], device=rates.device) if options else slice(None)
    return Evaluation(
        accuracy=percent(results["correct"]),
        class_accuracy=class_accuracy(results["correct"], results["labels"]),
        n=len(macs),
        macs_mean=macs.mean().item(),
        macs_static=static_macs,
        gflops_mean=2e-9 * macs.mean().item(),
        cost_ratio=macs.mean().item() / static_macs,
        execution_rate=rates[chosen].mean().item(),
        execution_rate_per_block=tuple(round(rate, 4) for rate in rates.tolist()),
        distinct_paths=int(distinct_paths(decisions)),
        # In nats: 0 where every image is decided alike, ln 2 where skip and run are as frequent.
        decision_entropy_per_block=tuple(round(entropy, 4) for entropy in decision_entropy(decisions).tolist()),
        stage_accuracy=_by_stage(results["stage_correct"]),
        # An exported graph hands out no features: then there is nothing to say, and 0 would say too much.
        evolution_kl=float(evolution_kl(results["stage_features"])) if results["stage_features"] else math.nan,
    )


def class_accuracy(correct: Tensor, labels: Tensor) -> float:
    """Percent: the mean over classes of the share of a class that is right; classes without an image have no part."""
    counts = labels.bincount()
    right = labels[correct].bincount(minlength=len(counts))
    there = counts > 0
    return 100.0 * mean(right[there].double() / counts[there].double()).item()


def _by_stage(correct: dict[int, Tensor]) -> tuple[float, ...]:
    """Accuracy of every stage, NaN where there is no classifier; of the last alone where no other stage has one."""
    stages = range(max(correct) + 1) if len(correct) > 1 else correct
    return tuple(percent(correct[stage]) if stage in correct else math.nan for stage in stages)


def percent(correct: Tensor) -> float:
    return 100.0 * mean(correct.double()).item()


@torch.no_grad()
def evaluate(
    net: DynamicNetwork, split: Source, *, batch_size: int = 256, forward: Forward | None = None
) -> Evaluation:
    """All figures of one network on one set, the controls included.

    Args:
        forward: what runs the images (an engine); the network's own masked forward when left out.
    """
    net.eval()
    results = collect(forward or net, split, batch_size, stages=net.classified_stages)
    check_finite(results["confidence"])
    figures = summarise(results, net.static_macs, net.options)
    # The controls run masked: an executor that wants single images is no reason to run them one by one.
    controls = path_controls(net, split, results["decisions"])
    return replace(figures, images_per_second=figures.n / max(results["seconds"], 1e-9), **controls)


@torch.no_grad()
def path_controls(net: DynamicNetwork, split: Source, decisions: Tensor, batch_size: int = 256) -> dict[str, float]:
    """What input dependence wins: every image on another image's path, and everyone on one fixed path of equal cost.

    Both without fine-tuning. An image that left early is given the full network's remaining blocks.
    """
    if not any(net.gated):
        accuracy = percent(collect(net, split, batch_size)["correct"])
        return {"accuracy_shuffled_paths": accuracy, "accuracy_fixed_path": accuracy, "cost_ratio_fixed_path": 1.0}
    full = torch.tensor(net.options, device=decisions.device) - 1
    decisions = torch.where(decisions < 0, full, decisions)
    order = torch.randperm(len(decisions), generator=torch.Generator().manual_seed(0)).to(decisions.device)
    given = torch.empty_like(decisions)
    given[order] = decisions[order.roll(1)]  # a cycle: nobody keeps its own path
    paths = (given, fixed_path(net, decisions).expand_as(decisions))
    controls = counted(paths, "controls", len(paths))
    shuffled, fixed = (collect(net.forward_path, split, batch_size, path) for path in controls)
    return {
        "accuracy_shuffled_paths": percent(shuffled["correct"]),
        "accuracy_fixed_path": percent(fixed["correct"]),
        "cost_ratio_fixed_path": fixed["macs"].double().mean().item() / net.static_macs,
    }


def fixed_path(net: DynamicNetwork, decisions: Tensor) -> Tensor:
    """(L,) the one path of about the decisions' mean cost that runs the most executed options.

    Options are raised in order of how often images chose at least that much, until the mean cost is met as nearly as it
    can be.
    """
    exits = torch.full((1,), len(net.backbone.stages.lengths) - 1, device=decisions.device)
    everyone = torch.full((len(decisions),), int(exits[0]), device=decisions.device)
    goal = net.macs_of(decisions, everyone, routed=True, heads=False).double().mean().item()
    path = net.cheapest_path.to(decisions.device)
    raises = [
        ((decisions[:, i] >= k).double().mean().item(), -i, -k)
        for i in net.gated_indices
        for k in range(1, net.options[i])
    ]
    for _, negative_index, negative_option in sorted(
        raises, reverse=True
    ):  # among equals the first block, the lowest option
        raised = path.clone()
        raised[-negative_index] = -negative_option
        before, after = (net.macs_of(p[None], exits, routed=True, heads=False).item() for p in (path, raised))
        if abs(after - goal) > abs(before - goal):
            break
        path = raised
    return path
