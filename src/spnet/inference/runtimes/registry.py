"""What an `Engine` can be asked to run on."""

from spnet.inference.runtimes.eager import Eager
from spnet.inference.runtimes.onnx.service import OnnxRuntime
from spnet.inference.runtimes.protocol import Runtime

RUNTIMES: dict[str, Runtime] = {
    runtime.name: runtime
    for runtime in (Eager("masked"), Eager("branching", single=1), Eager("gathered", batch=1), OnnxRuntime())
}
"""By name; a new one is a class and its place here."""
