"""`spnet.network.budget_mask` in a graph: what each sample may still spend above the cheapest path, as a value (n, 1).

Shapes: n samples in hand, K options of a block.
"""

from dataclasses import replace

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor

from spnet.inference.runtimes.onnx.decisions import Decision
from spnet.inference.runtimes.onnx.graph import Graph


def afford(g: Graph, decision: Decision, macs: Tensor, left: str) -> tuple[Decision, str]:
    """The best option that a sample can pay for, and what it then has left.

    Args:
        macs: (K,) integers, multiply-adds of the options.
        left: (n, 1) int64.
    """
    extra = (macs - macs[0]).cpu().numpy()
    if decision.binary:
        price = g.constant([[extra[1]]], np.int64)
        one = g.add("And", decision.one, g.add("GreaterOrEqual", left, price))
        paid = g.add("Mul", g.add("Cast", one, to=TensorProto.INT64), price)
    else:
        too_dear = g.add("Less", left, g.constant(extra[None], np.int64))
        offered = g.add("Where", too_dear, g.constant(-torch.inf), decision.scores)
        one = g.add("ArgMax", offered, axis=1, keepdims=1)
        paid = g.add("Gather", g.constant(extra, np.int64), one)
    return replace(decision, one=one, shown=one, masks={}), g.add("Sub", left, paid)
