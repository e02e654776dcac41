"""From a network and its adapter to a `Backbone` whose every block in full is the network."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spnet.backbones.adapters.parts import GlobalMean, Parts, Unit, flat, out_of_place, pooled
from spnet.backbones.adapters.registry import cut_of, qualified, split_of
from spnet.backbones.base import Backbone, Stages
from spnet.errors import UserError
from spnet.network.block import Block, PlainBlock, ResidualBlock
from spnet.network.modes import evaluating
from spnet.network.names import keep_names, original_names
from spnet.network.rule import BlockRule

TOLERANCE = 1e-6
"""Relative difference allowed between a network and its blocks, all in full."""


@dataclass(frozen=True)
class Found:
    """A block as it was found: its name, class, the original module, and why it always runs ("" where it may not)."""

    name: str
    kind: str
    reason: str


def adapt(
    model: nn.Module,
    example: Tensor,
    *,
    name: str = "",
    num_classes: int | None = None,
    skip_rule: BlockRule | None = None,
) -> tuple[Backbone, list[Found]]:
    """Cut a network into a backbone that shares its weights; checked against the network on `example`.

    Args:
        example: (B, C, H, W), normalised floats.
        num_classes: another number than the network's own puts a new last layer in place of its classifier.
        skip_rule: what a skipped block is; families keep the shortcuts they have.

    Raises:
        UserError: an unknown network, a block used twice or out of order, an example it does not take.
    """
    name, rule = name or type(model).__name__, skip_rule or BlockRule()
    if rule.options != 2:
        raise UserError(f"blocks of {name} have 2 options (skip, full), not {rule.options}: set options=2.")
    if example.dim() != 4 or not example.is_floating_point():
        raise UserError(f"example is a batch of normalised images (B, C, H, W), not {tuple(example.shape)}.")
    parts = cut(model, name)
    with evaluating(model):
        expected = _run_once(model, example, parts, name)
        blocks, found, layers = _blocks(parts, rule)
        if not any(block.num_options > 1 for block in blocks):
            raise UserError(f"{name}: none of its {len(blocks)} blocks can be skipped ({found[0].reason}).")
        backbone = Backbone(
            name=name,
            stem=nn.Sequential(*parts.stem),
            blocks=blocks,
            stages=lambda shapes: _stages(shapes, [entry.name for entry in found], layers),
            neck=nn.Sequential(*parts.neck) if parts.neck else None,
            pool=parts.pool,
            head=nn.Sequential(*parts.head),
            input_shape=tuple(example.shape[1:]),  # type: ignore[arg-type]
            block_names=[entry.name for entry in found],
        )
        with torch.no_grad(), evaluating(backbone):
            difference = float((backbone(example) - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
    if not difference <= TOLERANCE:
        raise UserError(
            f"{name}: its blocks in full differ from it by {difference:.1e}; it does not run as it is written down. "
            f"Say how with spnet.register_adapter({type(model).__name__}, network=...)."
        )
    names = original_names(backbone, model)
    if num_classes is not None and num_classes != backbone.num_classes:
        _new_classifier(backbone, num_classes, name)
    keep_names(backbone, names)
    return backbone, found


def cut(model: nn.Module, name: str) -> Parts:
    """The parts of a network by its adapter; a network without one, but with known blocks, is read in the order of its
    children."""
    known = cut_of(model)
    if known is not None:
        return known(model)
    entries = _flattened(model)
    blocks = [i for i, (_, module) in enumerate(entries) if split_of(module) is not None]
    if not blocks:
        seen = Counter(type(module).__name__ for module in model.modules() if next(module.children(), None) is None)
        kinds = ", ".join(f"{kind} x{count}" for kind, count in seen.most_common(4))
        raise UserError(
            f"no adapter for {qualified(type(model))} and no known block in it (find_blocks saw {kinds}): "
            "spnet.register_adapter teaches its block's class."
        )
    first, last = blocks[0], blocks[-1]
    after = flat(*(module for _, module in entries[last + 1 :]))
    pools = [i for i, module in enumerate(after) if "Pool" in type(module).__name__ or isinstance(module, GlobalMean)]
    at = pools[-1] if pools else 0
    flattens = bool(pools) and len(after) > at + 1 and isinstance(after[at + 1], nn.Flatten)
    return Parts(
        stem=[module for _, module in entries[:first]],
        body=entries[first : last + 1],
        pool=(pooled(after[at]) if not isinstance(after[at], GlobalMean) else after[at]) if pools else GlobalMean(),
        head=after[at + 1 + flattens :] if pools else after,
        neck=after[:at] if pools else [],
    )


def _flattened(model: nn.Module, prefix: str = "") -> list[tuple[str, nn.Module]]:
    """Children in order; containers that hold a known block are taken apart."""
    found: list[tuple[str, nn.Module]] = []
    for name, child in model.named_children():
        inside = split_of(child) is None and any(split_of(part) for part in child.modules())
        found += _flattened(child, f"{prefix}{name}.") if inside else [(prefix + name, child)]
    return found


def _run_once(model: nn.Module, example: Tensor, parts: Parts, name: str) -> Tensor:
    """The network's own logits, if every block runs once and in order."""
    order: list[str] = []
    hooks = [module.register_forward_hook(lambda *_, name=inner: order.append(name)) for inner, module in parts.body]
    try:
        with torch.no_grad():
            logits = model(example)
    except Exception as error:  # an example of the wrong shape raises almost anything
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{name} does not take an example of {tuple(example.shape)}: {first}") from error
    finally:
        for hook in hooks:
            hook.remove()
    twice = [inner for inner, count in Counter(order).items() if count > 1]
    if twice:
        raise UserError(f"{name}: block '{twice[0]}' is used more than once; such a network cannot be cut.")
    expected = [inner for inner, _ in parts.body]
    if order != expected:
        wrong = next((inner for inner in expected if inner not in order), expected[0])
        raise UserError(f"{name}: its blocks do not run in the order they are written down (see '{wrong}').")
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        raise UserError(f"{name} is no classifier: it returns no (B, classes) logits.")
    return logits


def _blocks(parts: Parts, rule: BlockRule) -> tuple[list[Block], list[Found], list[int]]:
    """Blocks, what was found, and which entry of the body each came from."""
    blocks: list[Block] = []
    found: list[Found] = []
    layers: list[int] = []
    positive = _never_negative(parts.stem)
    for layer, (name, module) in enumerate(parts.body):
        split = split_of(module)
        units = split(module) if split is not None else f"no adapter for blocks of class {type(module).__name__}"
        named = {"": units} if isinstance(units, Unit | str) else units
        for suffix, unit in named.items():
            block, positive = _block(module, unit, rule, positive)
            blocks.append(block)
            reason = unit if isinstance(unit, str) else ""
            found.append(Found(f"{name}.{suffix}" if suffix else name, type(module).__name__, reason))
            layers.append(layer)
    return blocks, found, layers


def _block(module: nn.Module, unit: Unit | str, rule: BlockRule, positive: bool) -> tuple[Block, bool]:
    """One block, and whether its output is never negative. `positive`: its input is not."""
    if isinstance(unit, str):
        return PlainBlock(module), _never_negative([module])
    plain = unit.shortcut is None or isinstance(unit.shortcut, nn.Identity)
    rectified = isinstance(unit.tail, nn.ReLU)
    block = ResidualBlock(
        nn.Identity() if plain or unit.shortcut is None else unit.shortcut,
        nn.Sequential(*unit.residual),
        out_of_place(unit.tail),
        tail_on_skip=rule.skip != "plain",
    )
    block.identity_skip = block.identity_skip or (plain and rectified and positive)
    return block, rectified and (rule.skip != "plain" or (plain and positive))


def _never_negative(modules: Sequence[nn.Module]) -> bool:
    """Whether what comes out of these modules is a ReLU's, pooled or not."""
    for module in reversed([part for part in modules if not isinstance(part, nn.Identity)]):
        if isinstance(module, nn.ReLU):
            return True
        if isinstance(module, nn.Sequential):  # torchvision's Conv2dNormActivation is one
            return _never_negative(list(module))
        if isinstance(getattr(module, "act", None), nn.ReLU):  # timm's BatchNormAct2d
            return True
        if not isinstance(module, nn.MaxPool2d | nn.AvgPool2d | nn.Dropout):
            return False
    return False


def _stages(shapes: Sequence[tuple[int, ...]], names: Sequence[str], layers: Sequence[int]) -> Stages:
    """Runs of blocks whose outputs have one shape. Where that is a single run (a transformer), three parts of whole
    layers. A stage is called what its last block's parent is called, or that block where this is not unique."""
    outputs = shapes[1:]
    ends = [i + 1 for i in range(len(outputs) - 1) if outputs[i + 1] != outputs[i]]
    depth = layers[-1] + 1
    if not ends and depth >= 3:
        ends = [layers.index(round(depth * part / 3)) for part in (1, 2)]
    ends.append(len(outputs))
    lengths = [end - start for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    last = [names[end - 1] for end in ends]
    parents = [name.rpartition(".")[0].removesuffix(".blocks") or name for name in last]
    return Stages(lengths, parents if len(set(parents)) == len(parents) else last)


def _new_classifier(backbone: Backbone, num_classes: int, name: str) -> None:
    """Put a fresh last layer for `num_classes` in place; the given network keeps its own."""
    last = backbone.head[-1]  # type: ignore[index]
    if not isinstance(last, nn.Linear):
        raise UserError(
            f"{name} ends in {type(last).__name__}, not in a linear layer: build it for {num_classes} classes."
        )
    fresh = nn.Linear(last.in_features, num_classes, last.bias is not None).to(last.weight.device, last.weight.dtype)
    backbone.head[-1] = fresh  # type: ignore[index,operator]
    backbone.head_macs += last.in_features * (num_classes - last.out_features)
    backbone.num_classes = num_classes
