"""A wrapper is a method around another one: the same network and the same warm-ups, with more in every later step."""

from abc import abstractmethod
from typing import Any, ClassVar

from torch import nn

from spnet.backbones.base import Backbone
from spnet.methods.base import Method, Phase
from spnet.network.dynamic import DynamicNetwork
from spnet.network.heads import StageHeads
from spnet.network.rule import BlockRule
from spnet.routers.base import Router


class Wrapper(Method):
    """Abstract: a wrapper says what it makes of a phase (`around`). Its settings stand beside the inner method's: its
    `Config` is a dataclass of its own, and shares no name with theirs.

    Args:
        config: the wrapper's own settings.
        inner: the wrapped method; `Inner` with its defaults when left out.
    """

    Inner: ClassVar[type[Method]]
    """What is wrapped when the wrapper is named as the method itself."""
    outermost: ClassVar[bool] = False
    """True for a wrapper that changes the terms of whatever it wraps: no other goes around it."""

    def __init__(self, config: Any = None, inner: Method | None = None) -> None:
        super().__init__(config)
        self.inner = inner or self.Inner()

    def block_rule(self) -> BlockRule:
        return self.inner.block_rule()

    def build_router(self, backbone: Backbone) -> Router | None:
        return self.inner.build_router(backbone)

    def build_heads(self, backbone: Backbone) -> StageHeads | None:
        return self.inner.build_heads(backbone)

    def attach(self, net: DynamicNetwork) -> None:
        """The inner method's modules, and under their names those of `own_modules`."""
        self.inner.attach(net)
        self.state = nn.ModuleDict({"inner": self.inner.state, **self.own_modules(net)})

    def own_modules(self, net: DynamicNetwork) -> dict[str, nn.Module]:
        """Modules the wrapper owns beside the network: saved for resume, never exported."""
        return {}

    def phases(self, epochs: int) -> list[Phase]:
        """The inner method's; those that only prepare are left alone."""
        phases = self.inner.phases(epochs)
        first = next((phase for phase in phases if not phase.warmup), None)
        return [phase if phase.warmup else self.around(phase, first=phase is first) for phase in phases]

    @abstractmethod
    def around(self, phase: Phase, first: bool) -> Phase:
        """The phase with what the wrapper adds; `first`: whether it is the first one after the warm-ups."""
