"""onnxruntime sessions and the threads that share them. The only file that imports onnxruntime,
but for its tools, which `quantise` calls."""

from pathlib import Path
from typing import Any

from onnx import ModelProto

from spnet.errors import UserError


def load_runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError("this needs onnxruntime, which is not installed: pip install 'spnet[onnx]'.") from error
    return onnxruntime


def open_session(model: bytes, threads: int = 1, *, spinning: bool = False, optimised_file: Path | None = None) -> Any:
    """A CPU session. Spinning threads answer faster but fight with everything else in the process."""
    runtime = load_runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    if optimised_file is not None:
        options.optimized_model_filepath = str(optimised_file)
    # Without its fallback, which prints on stdout when a model is damaged.
    return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"], enable_fallback=0)


def optimise(model: ModelProto, file: Path) -> None:
    """Write the model as onnxruntime rewrites it for this machine."""
    open_session(model.SerializeToString(), optimised_file=file)
