"""`find_blocks`: what of a network could be skipped, before anything is made."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from spnet.backbones.adapters.assemble import adapt


@dataclass(frozen=True)
class FoundBlock:
    """One block of a network.

    Attributes:
        name: what `blocks=` and `ignore=` call it.
        kind: the class it comes from.
        stage: what `exits=` calls the stage it belongs to.
        macs: multiply-adds an image, in full.
        avoidable: those a skip saves.
        share: `avoidable` over all of the network's multiply-adds.
        identity_skip: skipping it hands its input on unchanged.
        left_out: why it always runs; "" where it may be skipped.
    """

    name: str
    kind: str
    stage: str
    macs: int
    avoidable: int
    share: float
    identity_skip: bool
    left_out: str


@dataclass(frozen=True)
class BlockTable:
    """The blocks of a network, in order; prints as a table. Iterates over `FoundBlock`."""

    network: str
    static_macs: int
    blocks: tuple[FoundBlock, ...]

    def __iter__(self) -> Iterator[FoundBlock]:
        return iter(self.blocks)

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, i: int) -> FoundBlock:
        return self.blocks[i]

    def __str__(self) -> str:
        head = ("block", "class", "stage", "MMACs", "share", "skip")
        rows = [
            (b.name, b.kind, b.stage, f"{b.macs / 1e6:.2f}", f"{100 * b.share:.1f} %", _skip(b)) for b in self.blocks
        ]
        widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
        lines = [
            "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)
        ]
        share = sum(b.share for b in self.blocks)
        chosen = sum(not b.left_out for b in self.blocks)
        lines.append(
            f"{self.network}: {self.static_macs / 1e6:.1f} MMACs, of which {100 * share:.0f} % can be skipped, "
            f"in {chosen} of {len(self.blocks)} blocks."
        )
        return "\n".join(line.rstrip() for line in lines)


def _skip(block: FoundBlock) -> str:
    if block.left_out:
        return f"never: {block.left_out}"
    return "identity" if block.identity_skip else "what is always paid"


def find_blocks(model: nn.Module, example: Tensor) -> BlockTable:
    """The blocks of a network, as `make_dynamic` will see them: name, class, stage, multiply-adds, share of the whole,
    what a skip is, and what is left out and why.

    Args:
        model: a network of torchvision or timm, or of your own with `register_adapter`. Not changed.
        example: (B, C, H, W), normalised floats.

    Raises:
        UserError: an unknown network, one whose blocks are used twice or out of order, an example it does not take.

    Example:
        >>> table = spnet.find_blocks(torchvision.models.resnet18(), torch.randn(1, 3, 64, 64))
        >>> len(table), table[0].name
        (8, 'layer1.0')
    """
    backbone, found = adapt(model, example)
    stages = backbone.stages
    stage_of = [name for name, length in zip(stages.names, stages.lengths, strict=True) for _ in range(length)]
    rows = []
    for entry, stage, block in zip(found, stage_of, backbone.blocks, strict=True):
        full, least = block.macs[-1], block.macs[0]  # type: ignore[index]
        rows.append(
            FoundBlock(
                entry.name,
                entry.kind,
                stage,
                full,  # type: ignore[arg-type]
                full - least,  # type: ignore[operator,arg-type]
                (full - least) / backbone.static_macs,  # type: ignore[operator]
                bool(block.identity_skip),
                entry.reason,
            )
        )
    return BlockTable(backbone.name, backbone.static_macs, tuple(rows))
