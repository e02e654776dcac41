"""What an exported graph is compared with, and how it is run for that.

Shapes: B samples, N blocks.
"""

from typing import Any

import numpy as np
import torch
from onnx import ModelProto
from torch import Tensor

from spnet.inference.runtimes.onnx.agreement import LOGIT_TOLERANCE, Run, probe, relative_error
from spnet.inference.runtimes.onnx.forcing import force_bias
from spnet.inference.runtimes.onnx.int8 import Quantisation
from spnet.inference.runtimes.onnx.library import open_session
from spnet.inference.runtimes.onnx.network import path_model
from spnet.network.dynamic import DynamicNetwork
from spnet.progress import counted

INT8_PATHS = 8
"""Random ones; each takes a graph of its own to compare with."""


def runner(model: ModelProto | bytes, *, single: bool) -> Run:
    """Run a graph on any number of images; `single`: one by one."""
    session = open_session(model if isinstance(model, bytes) else model.SerializeToString())

    def run(x: np.ndarray, bias: np.ndarray | None) -> list[np.ndarray]:
        forced = {} if bias is None or not bias.size else {"router_bias": bias}
        if not single:
            return session.run(None, {"image": x, **forced})
        cuts = [slice(k, k + 1) for k in range(len(x))]
        rows = [
            session.run(None, {"image": x[cut], **{name: b[cut] for name, b in forced.items()}})
            for cut in counted(cuts, "images compared", len(cuts))
        ]
        return [np.concatenate(column) for column in zip(*rows, strict=True)]

    return run


def refuse(wrong: str | None) -> None:
    if wrong is not None:
        raise RuntimeError(f"the exported graph disagrees with the network, so no file was written: {wrong}.")


@torch.no_grad()
def compare_int8(
    int8: Quantisation, net: DynamicNetwork, model: ModelProto, form: str, path: Tensor | None, real: Tensor | None
) -> dict[str, Any]:
    """Every block in full must give what the quantised static network gives, other paths what they give as graphs
    without routers, and own decisions what the same decisions give when forced; RuntimeError at the first difference.

    fp32 is no referee here: how far int8 is from it, accuracy tells.
    """
    noise, decisions = probe(net, INT8_PATHS)
    images = noise if real is None or not len(real) else torch.cat([noise, net.prepare(real).float()])
    x, run = images.numpy(), runner(model, single=form == "single")
    errors = []

    def agree(found: np.ndarray, expected: np.ndarray, where: str) -> None:
        errors.append(relative_error(found, torch.from_numpy(expected)))
        refuse(
            None if errors[-1] <= LOGIT_TOLERANCE else f"its logits differ by {errors[-1]:.1e} of the largest {where}"
        )

    full = torch.tensor(net.options) - 1
    static = runner(int8.static(), single=False)(x, None)[0]
    paths = decisions if path is None else path[None]
    for chosen in counted(paths, "paths compared", len(paths)):
        alone = runner(path_model(net, chosen.tolist(), int8=int8), single=False)(x, None)[0]
        if torch.equal(chosen, full):
            agree(alone, static, "from the quantised static network's")
        outputs = run(x, None if path is not None else force_bias(net, chosen.expand(len(x), -1)))
        agree(outputs[0], alone, "on a forced path")
        if path is None and not (outputs[1] == chosen.numpy()).all():
            refuse("it does not follow forced decisions")
    if path is None:
        logits, own = run(x, None)[:2]
        agree(run(x, force_bias(net, torch.from_numpy(own)))[0], logits, "on its own decisions")
    counts = {"images": len(x), "real": len(x) - len(noise), "paths": len(paths), "close": 0}
    return {**counts, "error": max(errors)}
