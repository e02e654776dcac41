"""DynamicNetwork: stem -> gated blocks -> neck -> heads. The only loop over gated blocks in eager code.

Shapes: B samples, N blocks, L gated blocks, K_i options of block i, C channels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spnet.backbones.base import Backbone, Block
from spnet.errors import UserError
from spnet.inference.runtimes.masked import Dense, masked
from spnet.network.budget_mask import limit_to
from spnet.network.cost import PathCost
from spnet.network.heads import StageHeads
from spnet.network.origin import Origin
from spnet.network.recorder import Book, Rows, select
from spnet.network.sampling import Argmax, Forced, Sampler
from spnet.network.trace import UNREACHED, Trace
from spnet.routers.base import Router

Executor = Callable[[Block, Tensor, Tensor], Tensor]
"""(block, x, gate_BK) -> features: how a gate becomes work."""


@dataclass(frozen=True)
class Noise:
    """The random streams of one forward pass; None draws from torch's default generator."""

    gates: torch.Generator | None = None
    dropout: torch.Generator | None = None


class DynamicNetwork(nn.Module):
    """A backbone, a router that decides per image which option of each block runs, and optional stage heads.

    Args:
        backbone: the plain network.
        router: None makes it static: every block runs in full.
        stage_heads: classifiers after the earlier stages.
        mean, std: per channel, in units of [0, 1]; used when images arrive as uint8.

    Made by `create_model`, `make_dynamic` and `load`. Called with images (B, C, H, W), uint8 (0 to 255) or normalised
    floats, it gives a `Trace`.

    Raises:
        UserError: the router decides a block that has one option; images of another shape or type.

    Example:
        >>> net = spnet.create_model("resnet8", "dynamic", seed=0).eval()
        >>> full = net.forward_path(torch.zeros(1, 3, 32, 32), torch.ones(3, dtype=torch.int64))
        >>> int(full.macs) >= net.static_macs
        True
    """

    decision_shift: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        router: Router | None = None,
        stage_heads: StageHeads | None = None,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.router = router
        self.stage_heads = stage_heads
        self.options = backbone.options
        self.gated = router.gated if router is not None else (False,) * len(backbone.blocks)
        for i, gated in enumerate(self.gated):
            if gated and self.options[i] == 1:
                raise UserError(
                    f"the router decides block {i} of {backbone.name}, which has one option: it always runs."
                )
        self.dense = Dense()
        """What computes the blocks in training mode; `spnet.inference.runtimes.compiled` where a run asks for it."""
        self.static_macs = backbone.static_macs
        """Multiply-adds per sample of the plain backbone: no router, no stage head."""
        channels = backbone.input_shape[0]
        kind = torch.get_default_dtype()  # whole numbers too
        self.register_buffer("mean", torch.tensor(mean or (0.0,) * channels, dtype=kind).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std or (1.0,) * channels, dtype=kind).view(-1, 1, 1))
        # Added to a gated block's logits in proportion to each option's cost, at test only: the calibrated threshold.
        self.register_buffer("decision_shift", torch.zeros(()))
        self.path_cost = PathCost(backbone, router, stage_heads)
        """What paths cost, and what a bound on it leaves."""
        self.origin: Origin | None = None
        """How it was made, where `create_model` or `make_dynamic` did: `spnet.train` asks for it."""
        self.classes: tuple[str, ...] | None = None
        """Names of the classes in the order of the logits, where they are known: `spnet.load` sets them."""

    @property
    def blocks(self) -> Sequence[Block]:
        """The backbone's own list: a block that is replaced there is the one that runs."""
        return self.backbone.blocks  # type: ignore[return-value]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        return self.backbone.input_shape

    @property
    def num_classes(self) -> int:
        return self.backbone.num_classes

    @property
    def classified_stages(self) -> tuple[int, ...]:
        """The stages with a classifier, as `Trace.stage_logits` has them: those with a head, and the last."""
        heads = self.stage_heads.stages if self.stage_heads is not None else ()
        return (*heads, len(self.backbone.stages.lengths) - 1)

    @property
    def stage_lengths(self) -> tuple[int, ...]:
        """Blocks of each stage."""
        return tuple(self.backbone.stages.lengths)

    @property
    def gated_indices(self) -> tuple[int, ...]:
        return tuple(i for i, gated in enumerate(self.gated) if gated)

    @property
    def cheapest_path(self) -> Tensor:
        """(N,) the least every sample runs: option 0 of each gated block, the last option of the others."""
        return self.path_cost.cheapest

    def option_costs(self, i: int) -> Tensor:
        """(K_i,) cost of each option of block i, as a share of the full block's avoidable cost."""
        return self.path_cost.share(i)

    def check_images(self, images: Tensor) -> None:
        """Raise `UserError` unless these are images (B, C, H, W) that this network takes."""
        if images.layout != torch.strided:
            raise UserError(f"images are a dense tensor, not {images.layout}: call to_dense() first.")
        if images.dim() != 4 or tuple(images.shape[1:]) != self.input_shape:
            expected = "x".join(map(str, self.input_shape))
            raise UserError(
                f"this network takes images of (B, {expected}), not {tuple(images.shape)}: resize or convert them."
            )
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise UserError(f"images are uint8 (0 to 255) or normalised floats, not {images.dtype}: convert them.")

    def prepare(self, images: Tensor) -> Tensor:
        """Check (B, C, H, W) images against the network's input; uint8 ones are scaled and normalised, floats taken
        as is."""
        self.check_images(images)
        if images.dtype == torch.uint8:
            return (images.to(self.mean.dtype) / 255 - self.mean) / self.std
        return images.to(self.mean.dtype)

    def forward(
        self,
        images: Tensor,
        *,
        sampler: Sampler | None = None,
        noise: Noise | None = None,
        executor: Executor | None = None,
        heads: bool = True,
        exit_confidence: float | None = None,
        max_cost: float | None = None,
        decision_shift: float | None = None,
    ) -> Trace:
        """Run the network.

        Args:
            images: (B, C, H, W), uint8 or normalised float.
            sampler: how logits become decisions; None is the test rule: arg-max, no noise, with the calibrated shift.
            noise: random streams for sampling and dropout.
            executor: how decisions become work; None computes every option of every block, as training needs.
            heads: run the earlier stages' classifiers; their cost is counted only if they run.
            exit_confidence: a sample leaves at the first stage whose class probability reaches this (needs stage
                heads).
            max_cost: no sample's cost exceeds this share of the static cost; for the test rule only.
            decision_shift: the threshold of the test rule; None takes the calibrated one, `self.decision_shift`.

        Raises:
            UserError: images of another size or type, or a max_cost below the cheapest path.
        """
        if max_cost is not None and sampler is not None:
            raise ValueError("max_cost bounds the test rule: leave the sampler out.")
        rule = sampler or Argmax()
        shift = self.decision_shift if decision_shift is None else decision_shift
        noise = noise or Noise()
        dense = self.dense if self.training else Dense()
        executor = executor or dense.mix
        heads = self.stage_heads is not None and (heads or exit_confidence is not None)
        routed = self.router is not None and rule.needs_logits
        x = self.prepare(images)
        rows = Rows(x.shape[0], x.device) if exit_confidence is not None else None
        limit = limit_to(max_cost, self.path_cost, x.shape[0], heads=heads)
        state = self.router.start(x, noise.dropout) if routed else None  # type: ignore[union-attr]
        x = self.backbone.stem(x)
        pooled = self.backbone.pool(x)
        book = Book(rows)
        stage_ends = self.backbone.stages.last_blocks
        last_stage = len(stage_ends) - 1
        headed = self.stage_heads.stages if heads else range(last_stage)  # type: ignore[union-attr]
        for i, block in enumerate(self.blocks):
            if self.gated[i]:
                logits = x.new_zeros(x.shape[0], self.options[i], dtype=torch.float32)
                if routed:
                    logits, state = self.router(state, i, x, pooled)  # type: ignore[misc]
                    book.add("router_logits", logits)
                shifted = logits + shift * self.option_costs(i) if sampler is None else logits
                draw = rule(i, limit.offer(i, shifted), noise.gates)
                limit.pay(i, draw.gate_BK)
                if routed:
                    state = self.router.observe(state, i, draw.gate_BK)  # type: ignore[union-attr]
                x = executor(block, x, draw.gate_BK)
                book.add_draw(draw)
            else:
                x = dense.whole(block, x)
                book.add("decisions", torch.full((x.shape[0],), self.options[i] - 1, device=x.device))
            pooled = self.backbone.pool(x)
            book.add("block_features", pooled)
            if i not in stage_ends:
                continue
            stage = stage_ends.index(i)
            x = self.backbone.stages[stage](x)
            if stage in headed:
                aligned = self.stage_heads.align(stage, pooled) if heads else pooled  # type: ignore[union-attr]
                book.add("aligned_features", aligned)
                if heads:
                    logits = self.stage_heads.classify(stage, aligned)  # type: ignore[union-attr]
                    book.add("stage_logits", logits)
                    if rows is not None and exit_confidence is not None:
                        stay = logits.softmax(1).amax(1) < exit_confidence
                        rows.leave(stay, stage, logits)
                        limit.keep(stay)
                        x, pooled, state = x[stay], pooled[stay], select(state, stay)
        logits = self.backbone.head(self.backbone.summary(x, pooled))
        book.add("aligned_features", pooled)
        if rows is not None:
            logits, exit_stage = rows.finish(logits, last_stage)
        else:
            exit_stage = torch.full((logits.shape[0],), last_stage, device=logits.device)
        block_features = book.get("block_features")
        decisions = torch.stack(book.get("decisions", UNREACHED), 1)
        log_prob = book.get("log_prob")
        return Trace(
            logits=logits,
            stage_logits=(*book.get("stage_logits"), logits),
            block_features=block_features,
            stage_features=tuple(block_features[i] for i in stage_ends),
            aligned_features=book.get("aligned_features"),
            router_logits=book.get("router_logits"),
            gates=book.get("gates"),
            log_prob=torch.stack(log_prob, 1) if log_prob else logits.new_zeros(logits.shape[0], 0),
            decisions=decisions,
            macs=self.macs_of(decisions, exit_stage, routed=routed, heads=heads),
            exit_stage=exit_stage,
        )

    def forward_path(
        self, images: Tensor, decisions: Tensor, *, executor: Executor = masked, heads: bool = True
    ) -> Trace:
        """Run given decisions (B, N) or (N,), options 0 ... K_i - 1, to the end; routers still score. The rest as in
        `forward`."""
        return self(images, sampler=Forced(self.checked_path(images, decisions)), executor=executor, heads=heads)

    def checked_path(self, images: Tensor, decisions: Tensor) -> Tensor:
        """Return decisions as (B, N) on the images' device, or raise `UserError` when they name no path of this
        network."""
        try:
            decisions = torch.as_tensor(decisions, device=images.device)
        except (TypeError, ValueError, RuntimeError) as error:  # torch's words for a text, a ragged list, an object
            raise UserError(f"decisions are whole numbers, options of each block; not {decisions!r:.60}.") from error
        if decisions.is_floating_point() or decisions.is_complex():
            raise UserError(f"decisions are whole numbers, options of each block; not {decisions.dtype}.")
        if decisions.dim() == 1:
            decisions = decisions.expand(images.shape[0], -1)
        shape = (images.shape[0], len(self.blocks))
        if tuple(decisions.shape) != shape:
            raise UserError(f"decisions must be (samples, blocks) = {shape}, not {tuple(decisions.shape)}.")
        limits = torch.tensor(self.options, device=decisions.device)
        lowest = self.cheapest_path.to(limits.device)
        wrong = ((decisions < lowest) | (decisions >= limits)).any(0).nonzero().flatten().tolist()
        if wrong:
            i = wrong[0]
            raise UserError(
                f"block {i} takes options {int(lowest[i])} to {self.options[i] - 1}; a decision lies outside."
            )
        return decisions

    def macs_of(self, decisions: Tensor, exit_stage: Tensor, *, routed: bool, heads: bool) -> Tensor:
        """(B,) multiply-adds of each path (B, N), as `PathCost` adds them up. No host sync."""
        return self.path_cost(decisions, exit_stage, routed=routed, heads=heads)
