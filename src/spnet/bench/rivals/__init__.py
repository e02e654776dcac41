"""What is timed, each in a process of its own: the static network in its strongest forms, and the dynamic one.

protocol, registry   what a rival is; all of them
eager, compiled, onnx_session, openvino_model   one file a runtime
dynamic              the dynamic network, through its public door and without it
"""

import torch

from spnet.bench.rivals.dynamic import DYNAMIC, ENGINE, PLAIN, SESSION
from spnet.bench.rivals.protocol import Case, Prepare
from spnet.bench.rivals.registry import RIVALS, not_measured, rivals_for
from spnet.errors import choose
from spnet.inference.cascade import Cascade, Model

__all__ = ["ENGINE", "PLAIN", "RIVALS", "SESSION", "VARIANTS", "build", "not_measured", "rivals_for"]

VARIANTS = (*RIVALS, *DYNAMIC)


def build(
    name: str,
    net: Model,
    threads: int,
    batch: int,
    exit_confidence: float | None = None,
    int8: bytes | None = None,
) -> Prepare:
    """One variant, ready to be given batches; own decisions of a dynamic one leave early at `exit_confidence`.

    Args:
        int8: the static network in QDQ form, for the rivals that run that.
    """
    choose("variant", name, VARIANTS)
    torch.set_num_threads(threads)
    net.eval()
    if name in DYNAMIC:
        return DYNAMIC[name](net, threads, exit_confidence)
    if isinstance(net, Cascade):
        raise ValueError("a cascade is timed through its engine alone.")
    bind = RIVALS[name].open(Case(net, threads, batch, int8))
    return lambda images, decisions: bind(images)
