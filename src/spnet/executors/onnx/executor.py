"""A dynamic network compiled for onnxruntime on this machine's processor.

Weights are taken when the object is made; the calibrated threshold (`net.decision_shift`) is read at every call.

Shapes: B samples, N blocks, R = sum of K_i over gated blocks.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spnet.dynamic import DynamicNetwork
from spnet.errors import UserError
from spnet.executors.onnx.agreement import (
    difference_under_rules,
    disagreement,
    own_decisions_disagreement,
    probe,
)
from spnet.executors.onnx.blocked import blocked
from spnet.executors.onnx.forcing import force_bias
from spnet.executors.onnx.network import FormName, dynamic_model, path_model
from spnet.executors.onnx.runtime import load_runtime, open_session
from spnet.executors.onnx.walk import Rules
from spnet.trace import Trace

CHUNK = 16
"""Samples a worker takes at a time: features of more no longer stay in its cache, of fewer waste calls."""


class OnnxExecutor:
    """Called like the network; returns a `Trace` whose fields `logits`, `decisions`, `macs`, `router_logits` and
    `exit_stage` are filled, the others empty.

    One image runs an `If` graph, with `threads` threads inside; more run a gather graph, cut into chunks that `threads`
    single-threaded workers take one by one.

    Args:
        net: a network whose blocks and router have ONNX forms; moved nowhere, not changed.
        threads: processor cores to use.
        layout: `blocked` keeps features in onnxruntime's own layout where it has one and the result is right;
            `plain` runs exactly what an export holds.
        router_logits: also return raw router logits (a few more small nodes).
        exit_confidence, max_cost: as in `DynamicNetwork.forward`; forced decisions run to the end all the same.

    Raises:
        UserError: onnxruntime is missing, the network has a part without an ONNX form, or max_cost is out of reach.
    """

    def __init__(
        self,
        net: DynamicNetwork,
        threads: int = 1,
        *,
        layout: str = "blocked",
        router_logits: bool = False,
        exit_confidence: float | None = None,
        max_cost: float | None = None,
    ) -> None:
        load_runtime()
        self.net = net
        self.threads = threads
        self.layout = layout
        self.router_logits = router_logits
        self.rules = Rules(exits=exit_confidence is not None, bounded=max_cost is not None)
        self._rule_values: dict[str, Any] = {}
        if exit_confidence is not None:
            self._rule_values["exit_confidence"] = np.array(exit_confidence, np.float32)
        if max_cost is not None:
            self._rule_values["allowance"] = np.array([[net.path_cost.spare(max_cost, heads=self.rules.exits)]])
        self._sessions: dict[tuple[FormName, Rules], Any] = {}
        self._workers = ThreadPoolExecutor(threads, thread_name_prefix="spnet-worker") if threads > 1 else None

    def _session(self, form: FormName, rules: Rules) -> Any:
        """Opened when first asked for: one image has threads of its own, the workers share a session."""
        if (form, rules) not in self._sessions:
            self._sessions[form, rules] = self._open(form, rules, self.threads if form == "single" else 1)
        return self._sessions[form, rules]

    def _open(self, form: FormName, rules: Rules, threads: int) -> Any:
        fast = self._open_blocked(form, rules, threads) if self.layout == "blocked" else None
        return fast or self._open_plain(form, rules, threads)

    def _open_plain(self, form: FormName, rules: Rules, threads: int) -> Any:
        model = dynamic_model(self.net, form, router_logits=self.router_logits, rules=rules)
        return open_session(model.SerializeToString(), threads, spinning=threads > 1)

    def _open_blocked(self, form: FormName, rules: Rules, threads: int) -> Any:
        """A session in the blocked layout, or None where onnxruntime refuses it or it disagrees with the eager network
        (under rules: with the plain session).

        The pass leans on onnxruntime's internals, so nothing is taken on trust."""
        model = dynamic_model(self.net, form, router_logits=self.router_logits, for_blocked=True, rules=rules)
        images, decisions = probe(self.net, paths=2)
        try:
            fast = open_session(blocked(model).SerializeToString(), threads, spinning=threads > 1)
            if rules == Rules():

                def run(x: np.ndarray, bias: np.ndarray | None) -> list[np.ndarray]:
                    return self._run(fast, form, x, {}, bias)

                wrong = disagreement(self.net, images, decisions, run)
                wrong = wrong or own_decisions_disagreement(self.net, images, run)[0]
            else:
                plain = partial(self._run, self._open_plain(form, rules, 1), form)
                other = partial(self._run, fast, form)
                wrong = difference_under_rules(plain, other, images.numpy(), force_bias(self.net, decisions), rules)
        except Exception:  # whatever another version of onnxruntime makes of its own node types
            return None
        return fast if wrong is None else None

    def __call__(self, images: Tensor, force: Tensor | None = None) -> Trace:
        """Run images (B, C, H, W), uint8 or normalised float; `force`: decisions (B, N) or (N,) to run, routers
        still computed."""
        x = self.net.prepare(images).float()
        bias = None
        if force is not None:
            bias = force_bias(self.net, self.net.checked_path(images, force))
        if len(x) == 0:
            raise UserError("there are no images to run: give at least one.")
        return self._trace(self.arrays(x.numpy(), bias), self._rules_of(bias))

    def _rules_of(self, bias: np.ndarray | None) -> Rules:
        """Forced decisions run to the end and cost what they cost."""
        return self.rules if bias is None else Rules()

    def arrays(self, images: np.ndarray, bias: np.ndarray | None = None) -> list[np.ndarray]:
        """Normalised float32 images (B, C, H, W), router bias (B, R) or None -> logits, decisions; then router logits
        where they were asked for and, without a bias, (B, 1) exit stages where samples may leave early."""
        form: FormName = "single" if len(images) == 1 else "batch"
        rules = self._rules_of(bias)
        values = dict(self._rule_values) if bias is None else {}
        if self.net.gated_indices:
            values["decision_shift"] = self.net.decision_shift.numpy().astype(np.float32)
        return self._run(self._session(form, rules), form, images, values, bias)

    def _run(
        self, session: Any, form: FormName, images: np.ndarray, values: dict[str, Any], bias: np.ndarray | None = None
    ) -> list[np.ndarray]:
        """Outputs for all images, whatever their number; `values` are inputs that all of them share."""
        chunk = 1 if form == "single" else min(CHUNK, -(-len(images) // self.threads))
        starts = range(0, len(images), chunk)

        def run(start: int) -> list[np.ndarray]:
            part = slice(start, start + chunk)
            rows = {} if bias is None or not self.net.gated_indices else {"router_bias": bias[part]}
            return session.run(None, {"image": images[part], **values, **rows})

        if len(starts) == 1:
            return run(0)
        several = form == "batch" and self._workers is not None
        parts = list(self._workers.map(run, starts) if several else map(run, starts))  # type: ignore[union-attr]
        return [np.concatenate(columns) for columns in zip(*parts, strict=True)]

    def _trace(self, outputs: list[np.ndarray], rules: Rules) -> Trace:
        logits, decisions, *more = (torch.from_numpy(array) for array in outputs)
        exit_stage = torch.full((len(logits),), len(self.net.backbone.stages.lengths) - 1)
        if rules.exits:
            exit_stage = more.pop().squeeze(1)
        widths = [self.net.options[i] for i in self.net.gated_indices]
        return Trace(
            logits=logits,
            stage_logits=(logits,),
            block_features=(),
            stage_features=(),
            aligned_features=(),
            router_logits=more[0].split(widths, 1) if more else (),
            gates=(),
            log_prob=logits.new_zeros(len(logits), len(widths)),
            decisions=decisions,
            macs=self.net.macs_of(decisions, exit_stage, routed=self.net.router is not None, heads=rules.exits),
            exit_stage=exit_stage,
        )


class StaticExecutor:
    """The whole network without routers, every block in full: what to run where skipping does not pay.

    Its trace says so: all decisions are the last option, and the cost is that of the static network, no router charged.

    Args:
        workers: cut batches over `threads` single-threaded workers (else one session with `threads` threads).
    """

    def __init__(self, net: DynamicNetwork, threads: int = 1, *, workers: bool = True) -> None:
        self.net = net
        self.threads = threads
        self.model = path_model(net).SerializeToString()
        self.workers = ThreadPoolExecutor(threads) if workers and threads > 1 else None

    @cached_property
    def _whole(self) -> Any:
        return open_session(self.model, self.threads, spinning=self.threads > 1)

    @cached_property
    def _part(self) -> Any:
        return open_session(self.model, 1)

    def __call__(self, images: Tensor) -> Trace:
        x = self.net.prepare(images).float().numpy()
        logits = torch.from_numpy(self.run(x))
        decisions = (torch.tensor(self.net.options) - 1).expand(len(x), -1)
        exit_stage = torch.full((len(x),), len(self.net.backbone.stages.lengths) - 1)
        empty = logits.new_zeros(len(x), 0)
        macs = self.net.macs_of(decisions, exit_stage, routed=False, heads=False)
        return Trace(logits, (logits,), (), (), (), (), (), empty, decisions, macs, exit_stage)

    def run(self, images: np.ndarray) -> np.ndarray:
        if self.workers is None or len(images) == 1:
            return self._whole.run(None, {"image": images})[0]
        chunk = min(CHUNK, -(-len(images) // self.threads))
        parts = [images[start : start + chunk] for start in range(0, len(images), chunk)]
        return np.concatenate(list(self.workers.map(lambda part: self._part.run(None, {"image": part})[0], parts)))
