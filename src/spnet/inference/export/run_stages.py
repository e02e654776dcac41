"""Run a network that was exported stage by stage; needs numpy, and onnxruntime or openvino, not spnet.

spnet export RUN DIR --stages
python DIR/run_stages.py IMAGES.npy [onnxruntime|openvino]

`IMAGES.npy` holds (B, C, H, W), uint8 or normalised floats; they run one by one. `stages.json` is the plan: each step
has one piece, or one for each option of a block, and may tell what later blocks do (`decides`) or end the way (`exit`).
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np


def open_onnxruntime(file: str, threads: int) -> Any:
    import onnxruntime

    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session: Any = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    return lambda arrays: session.run(None, dict(zip(names, arrays, strict=True)))


def open_openvino(file: str, threads: int) -> Any:
    import openvino  # type: ignore[import-not-found]

    how = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    how |= {"NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False}
    model = openvino.Core().compile_model(file, "CPU", how)
    request = model.create_infer_request()
    results = [np.empty(tuple(output.shape), np.float32) for output in model.outputs]  # written anew by every call
    for number, result in enumerate(results):
        request.set_output_tensor(number, openvino.Tensor(result, shared_memory=True))

    def run(arrays: list[np.ndarray]) -> list[np.ndarray]:
        for number, array in enumerate(arrays):
            request.set_input_tensor(number, openvino.Tensor(array, shared_memory=True))
        request.infer()
        return results

    return run


RUNTIMES = {"onnxruntime": open_onnxruntime, "openvino": open_openvino}


class Stages:
    """Opens a folder; called with one image. ValueError, in one line, for what is not as it was exported."""

    def __init__(self, folder: str | Path, runtime: str = "onnxruntime", threads: int = 1) -> None:
        if runtime not in RUNTIMES:
            raise ValueError(f"the runtime is {' or '.join(RUNTIMES)}, not '{runtime}'.")
        try:
            self.plan = json.loads((Path(folder) / "stages.json").read_text(encoding="utf-8"))
            files = {name: (Path(folder) / name, digest) for name, digest in self.plan["sha256"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{folder} has no stages.json as it was written: export the network again.") from error
        for file, digest in files.values():
            if not file.is_file():
                raise ValueError(f"{file} is missing: export the network again.")
            if hashlib.sha256(file.read_bytes()).hexdigest() != digest:
                raise ValueError(f"{file} is damaged or of another network: export the network again.")
        self.models = {name: RUNTIMES[runtime](str(file), threads) for name, (file, _) in files.items()}
        self.costs = [np.array(block, np.float32) for block in self.plan["costs"]]

    def prepare(self, images: np.ndarray) -> np.ndarray:
        """(B, C, H, W) as the stages take them."""
        if images.ndim != 4 or list(images.shape[1:]) != self.plan["input_shape"]:
            raise ValueError(f"images are (B, {', '.join(map(str, self.plan['input_shape']))}), not {images.shape}.")
        if images.dtype == np.uint8:
            mean, std = (np.array(self.plan[key], np.float32).reshape(-1, 1, 1) for key in ("mean", "std"))
            images = (images / np.float32(255) - mean) / std
        return images.astype(np.float32)

    def __call__(self, image: np.ndarray, force: Any = None) -> tuple[np.ndarray, list[int], int]:
        """(1, C, H, W) normalised -> logits (1, classes), the option of each block (-1: not reached), multiply-adds.
        `force`: options to take instead, one a block."""
        values, macs = {"image": image}, 0
        path, shift = [len(cost) - 1 for cost in self.costs], np.float32(self.plan["decision_shift"])
        for step in self.plan["steps"]:
            piece = step["options"][path[step["block"]] if "block" in step else 0]
            macs += piece["macs"]
            if piece["file"]:
                found = self.models[piece["file"]]([values[name] for name in piece["inputs"]])
                values.update(zip(piece["outputs"], found, strict=True))
            values.update((name, np.array(value, np.float32)) for name, value in piece.get("constants", {}).items())
            start = 0
            for block in step.get("decides", ()):
                cost = self.costs[block]
                scores = values["scores"][0, start : start + len(cost)] + shift * cost
                path[block] = int(scores.argmax() if force is None else force[block])
                start += len(cost)
            if "exit" in step:
                odds = np.exp(values["logits"] - values["logits"].max())
                if odds.max() / odds.sum() >= step["exit"]["confidence"]:
                    path[step["exit"]["blocks"] :] = [-1] * (len(path) - step["exit"]["blocks"])
                    break
        return np.array(values["logits"]), path, macs


if __name__ == "__main__":
    try:
        stages = Stages(Path(__file__).parent, sys.argv[2] if len(sys.argv) > 2 else "onnxruntime")
        for number, image in enumerate(stages.prepare(np.load(sys.argv[1]))):
            logits, path, macs = stages(image[None])
            name = stages.plan["classes"][int(logits.argmax())]
            print(f"{number}: {name}  path {''.join('-' if k < 0 else str(k) for k in path)}  {macs / 1e6:.2f} MMACs")
    except (ValueError, OSError, ImportError, IndexError) as error:
        sys.exit(f"run_stages: {error}")
