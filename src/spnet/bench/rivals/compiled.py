"""torch.compile with freezing: weights become constants, laid out once for the kernels that read them."""

import shutil

import torch

from spnet.bench.rivals.eager import binding, folded
from spnet.bench.rivals.protocol import Bind, Case, Rival


class Compiled(Rival):
    name = "compiled"
    on_request = "it takes tens of seconds each time: --compile"

    def why_not(self) -> str | None:
        there = any(map(shutil.which, ("c++", "g++", "clang++", "cl")))
        return None if there else "torch.compile needs a C++ compiler"

    def open(self, case: Case) -> Bind:
        net = folded(case.net.backbone).to(memory_format=torch.channels_last)
        return binding(torch.compile(net, options={"freezing": True}), torch.channels_last)
