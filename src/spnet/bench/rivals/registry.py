"""Against what a dynamic network is timed. A new rival is a class and its place here."""

from spnet.bench.rivals.compiled import Compiled
from spnet.bench.rivals.eager import Eager, Folded
from spnet.bench.rivals.onnx_session import OnnxRuntime
from spnet.bench.rivals.openvino_model import OpenVino
from spnet.bench.rivals.protocol import Rival

RIVALS: dict[str, Rival] = {
    rival.name: rival
    for rival in (
        Eager(),
        Folded(),
        OnnxRuntime("onnx-intra"),
        OnnxRuntime("onnx-workers", workers=True),
        OnnxRuntime("onnx-int8", int8=True),
        OnnxRuntime("onnx-int8-workers", workers=True, int8=True),
        OpenVino("openvino"),
        OpenVino("openvino-int8", int8=True),
        Compiled(),
    )
}
"""By name."""


def not_measured(compiled: bool = False) -> dict[str, str]:
    """Which rivals stay out on this machine, by name, and why. `compiled`: those on request were asked for."""
    reasons = {name: rival.why_not() or ("" if compiled else rival.on_request) for name, rival in RIVALS.items()}
    return {name: reason for name, reason in reasons.items() if reason}


def rivals_for(threads: int, batch: int, compiled: bool) -> list[str]:
    """The rivals worth running with this many threads and images."""
    out = not_measured(compiled)
    return [name for name, rival in RIVALS.items() if name not in out and rival.differs(threads, batch)]
