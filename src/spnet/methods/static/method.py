"""The plain network through the same code: the baseline of every table, and the first phase of many trainings."""

from spnet.methods.base import Method, Phase, classification_loss
from spnet.methods.warmups import is_static_part
from spnet.network.sampling import AllRun


class Static(Method):
    """Every block runs. `static --with spnet` adds the stage heads and the teacher without any routing."""

    name = "static"
    routed = False
    ignored = ("static_share", "blocks", "ignore")

    def phases(self, epochs: int) -> list[Phase]:
        return [Phase("static", epochs, classification_loss, AllRun(), trainable=is_static_part)]
