"""A `DynamicNetwork` as an ONNX model, in the forms that won when measured.

- `single`: batch 1; one `If` per gated block, the branch's weights inside the branch.
- `batch`: any batch size; router -> NonZero -> GatherND -> block -> ScatterND; an option nobody takes costs nothing.
- `path`: no routers; one fixed path for every sample. All blocks in full is the static network.

Inputs of the first two: `image` (B, C, H, W) normalised float32; and two with defaults, so that they may be left out:
`decision_shift` (), the calibrated threshold, and `router_bias` (1 or B, sum of K_i over gated blocks), added to the
option logits, with which decisions are forced while routers really run. Outputs: `logits` (B, classes), `decisions`
(B, N) int64, and, when asked for, `router_logits` (B, sum of K_i), raw.

Under rules, `router_bias` has one row, and there are the inputs `exit_confidence` () and `allowance` (1, 1) int64,
multiply-adds above the cheapest path. With early exit the stage of each sample comes out as `exit_stage` (B, 1), and
blocks it did not reach show the decision -1 and router logits 0.

Deviation from eager: where every block has two options, the two logits' difference is computed directly; it rounds
differently, so decisions may differ where the margin is below 1e-4 or so.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from spnet.errors import UserError
from spnet.inference.runtimes.onnx.forms import KINDS, Rows, Single, apply
from spnet.inference.runtimes.onnx.graph import Graph, float_value, model_of
from spnet.inference.runtimes.onnx.int8 import Quantisation
from spnet.inference.runtimes.onnx.parts import take_apart
from spnet.inference.runtimes.onnx.walk import Rules, Walk
from spnet.network.dynamic import DynamicNetwork

FormName = Literal["single", "batch"]


def path_model(
    net: DynamicNetwork, path: Sequence[int] | None = None, *, int8: Quantisation | None = None
) -> ModelProto:
    """The network down one path (N options; None: every block in full), without routers. Outputs `logits` only.

    Args:
        int8: its weights and scales, of which the graph is made then.
    """
    options = [k - 1 for k in net.options] if path is None else list(path)
    g, parts = Graph(), take_apart(net, options) if int8 is None else int8.parts(net)
    x = parts.stem.one(g, "image")
    for block, option in zip(parts.blocks, options, strict=True):
        x = apply(g, block, option, x)
    logits = parts.head.one(g, parts.pools[-1].one(g, parts.neck.one(g, x)))
    g.nodes.append(helper.make_node("Identity", [logits], ["logits"]))
    return model_of(g.finish("spnet", [_image(net, "batch")], [float_value("logits", ("batch", net.num_classes))]))


def dynamic_model(
    net: DynamicNetwork,
    form: FormName,
    *,
    router_logits: bool = False,
    for_blocked: bool = False,
    rules: Rules | None = None,
    int8: Quantisation | None = None,
) -> ModelProto:
    """The network with its routers, deciding by the test rule. `for_blocked` prepares it for `blocked.blocked`; `int8`:
    its weights and scales, of which the graph is made then."""
    rules = rules or Rules()
    kind = Single() if form == "single" else Rows()
    if int8 is None:
        g, parts = Graph(anchor=True, blocked=for_blocked), take_apart(net, heads=rules.exits)
    else:
        g, parts = Graph(features=TensorProto.UINT8), int8.parts(net, heads=rules.exits)
    walk = Walk(net, parts, kind, raw=router_logits, rules=rules)
    found = walk(g)
    widths = {"logits": net.num_classes, "decisions": len(net.blocks), "router_logits": walk.decide.width}
    names = [name for name in KINDS if name in found]
    for name in names:
        g.nodes.append(helper.make_node("Identity", [found[name]], [name]))
    outputs = [helper.make_tensor_value_info(n, KINDS[n], (kind.batch, widths.get(n, 1))) for n in names]
    inputs = [_image(net, kind.batch)]
    if any(net.gated):
        forced_apart = kind.batch != 1 and not (rules.exits or rules.bounded)
        inputs += walk.decide.prepend_offsets(g, "bias_rows" if forced_apart else 1)
    if rules.exits:
        inputs.append(float_value("exit_confidence", ()))
    if rules.bounded:
        inputs.append(helper.make_tensor_value_info("allowance", TensorProto.INT64, (1, 1)))
    return model_of(g.finish("spnet", inputs, outputs))


def check_form(net: DynamicNetwork) -> None:
    """Raise `UserError` when torch.onnx cannot export a part of this network, or its weights are not float32."""
    coarse = {str(p.dtype) for p in net.parameters() if p.dtype != torch.float32}
    if coarse:
        raise UserError(f"the onnx executor computes in float32, this network's weights are {coarse.pop()}.")
    take_apart(net)


def _image(net: DynamicNetwork, batch: int | str) -> ValueInfoProto:
    return float_value("image", (batch, *net.input_shape))
