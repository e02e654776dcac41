"""Warm-up phases any method can borrow. A wrapper leaves them alone: they only prepare the network."""

from collections.abc import Sequence
from dataclasses import replace

from spnet.errors import UserError
from spnet.methods.base import Phase, classification_loss
from spnet.network.sampling import AllRun, StraightThrough, Uniform


def is_static_part(name: str) -> bool:
    """Parameters of the plain network: the backbone, without routers and stage heads."""
    return name.startswith("backbone.")


def static(epochs: int) -> Phase:
    """Train the plain network, every block run (the trained static start of SP-Net, BlockDrop and RDI-Net)."""
    return Phase("static", epochs, classification_loss, AllRun(), trainable=is_static_part, warmup=True)


def supervised(epochs: int) -> Phase:
    """SkipNet's supervised pre-training: hard decisions, straight-through on the probability, cross-entropy only."""
    return Phase("supervised", epochs, classification_loss, StraightThrough(), warmup=True)


def uniform(epochs: int) -> Phase:
    """RDI-Net's warm-up: every block's option drawn uniformly per sample and step; no router runs."""
    return Phase("uniform", epochs, classification_loss, Uniform(), trainable=is_static_part, warmup=True)


def split(epochs: int, shares: Sequence[float]) -> list[int]:
    """Cut `epochs` into phases by their shares; a phase with a positive share gets at least one epoch, one with share 0
    none.

    The last phase takes what is left.
    """
    wanted = sum(1 for share in shares if share > 0)
    if epochs < wanted:
        raise UserError(f"this training has {wanted} phases and needs at least as many epochs, not {epochs}.")
    parts = [max(1, round(epochs * share)) if share > 0 else 0 for share in shares[:-1]]
    while sum(parts) > epochs - 1:
        parts[parts.index(max(parts))] -= 1
    return [*parts, epochs - sum(parts)]


def by_share(
    epochs: int, main: Phase, *, before: Sequence[tuple[float, Phase]] = (), after: Sequence[tuple[float, Phase]] = ()
) -> list[Phase]:
    """`main` with the phases `before` and `after` it that have a positive share of the epochs; `main` has the rest.

    Every phase gets at least one epoch; the epochs that the phases came with are replaced.
    """
    shares = [share for share, _ in (*before, *after)]
    rest = 1 - sum(shares)
    if min(shares, default=0.0) < 0 or rest < 1e-9:
        raise UserError(
            f"the shares of the epochs are at least 0 and together less than 1, not {', '.join(map(str, shares))}."
        )
    plan = [(share, phase) for share, phase in (*before, (rest, main), *after) if share > 0]
    parts = split(epochs, [share for share, _ in plan])
    return [replace(phase, epochs=part) for part, (_, phase) in zip(parts, plan, strict=True)]


def after_static(share: float, epochs: int, rest: Phase) -> list[Phase]:
    """`rest`, preceded by a static phase that takes `share` of the epochs (none for 0)."""
    if not 0 <= share < 1:
        raise UserError(f"static_share must lie in [0, 1), not {share}.")
    return by_share(epochs, rest, before=[(share, static(epochs))])
