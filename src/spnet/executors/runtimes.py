"""What an `Engine` can be asked to run on."""

from spnet.executors.eager import Eager
from spnet.executors.onnx.service import OnnxRuntime
from spnet.executors.runtime import Runtime

RUNTIMES: dict[str, Runtime] = {
    runtime.name: runtime
    for runtime in (Eager("masked"), Eager("branching", single=1), Eager("gathered", batch=1), OnnxRuntime())
}
"""By name; a new one is a class and its place here."""
