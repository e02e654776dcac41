"""A dynamic network compiled for onnxruntime on this machine's processor.

Weights are taken when the first session is opened. What happens at every call is kept small: at batch 1 a small network
takes less than a millisecond.

Shapes: B samples, N blocks, R = sum of K_i over gated blocks.
"""

from functools import partial
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
from spnet.executors.onnx.forcing import Forcing, force_bias
from spnet.executors.onnx.network import FormName, dynamic_model, path_model
from spnet.executors.onnx.runtime import load_runtime, open_session
from spnet.executors.onnx.sessions import Sessions
from spnet.executors.onnx.walk import Rules
from spnet.trace import LazyTrace, Trace

CHUNK = 16
"""Samples a worker takes at a time: features of more no longer stay in its cache, of fewer waste calls."""


class Pixels:
    """Images -> what a graph takes: as `DynamicNetwork.prepare`, by numpy, whose calls are cheap and which keeps no
    threads that a forked child would miss."""

    def __init__(self, net: DynamicNetwork) -> None:
        self.mean, self.std = (values.numpy().astype(np.float32) for values in (net.mean, net.std))

    def __call__(self, images: Tensor) -> np.ndarray:
        """(B, C, H, W) uint8 or float -> normalised float32."""
        if images.dtype == torch.uint8:
            scaled = images.numpy().astype(np.float32)
            scaled /= 255
            scaled -= self.mean
            scaled /= self.std
            return scaled
        return images.detach().float().contiguous().numpy()


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
        self._sessions = Sessions(self._open, threads)
        self._pixels = Pixels(net)
        self._forcing = Forcing(net)
        self._last_stage = len(net.backbone.stages.lengths) - 1
        self._widths = [net.options[i] for i in net.gated_indices]

    def _open(self, key: tuple[FormName, Rules]) -> Any:
        """One image has threads of its own, the workers share a session."""
        form, rules = key
        threads = self.threads if form == "single" else 1
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

    def __call__(self, images: Tensor, force: Tensor | None = None, shift: float | None = None) -> Trace:
        """Run images (B, C, H, W), uint8 or float.

        Args:
            force: decisions (B, N) or (N,) to run, routers still computed.
            shift: the decision threshold; None takes the network's.
        """
        self.net.check_images(images)
        if len(images) == 0:
            raise UserError("there are no images to run: give at least one.")
        bias = None
        if force is not None:
            decisions = np.asarray(force)
            if not self._forcing.valid(decisions, len(images)):
                self.net.checked_path(images, force)  # says what is wrong
            bias = self._forcing.bias(decisions, len(images))
        rules = self._rules_of(bias)
        return self._trace(self.arrays(self._pixels(images), bias, shift), rules)

    def _rules_of(self, bias: np.ndarray | None) -> Rules:
        """Forced decisions run to the end and cost what they cost."""
        return self.rules if bias is None else Rules()

    def arrays(
        self, images: np.ndarray, bias: np.ndarray | None = None, shift: float | None = None
    ) -> list[np.ndarray]:
        """Normalised float32 images (B, C, H, W), router bias (B, R) or None -> logits, decisions; then router logits
        where they were asked for and, without a bias, (B, 1) exit stages where samples may leave early."""
        form: FormName = "single" if len(images) == 1 else "batch"
        rules = self._rules_of(bias)
        values = dict(self._rule_values) if bias is None else {}
        if self._widths:
            threshold = float(self.net.decision_shift) if shift is None else shift
            values["decision_shift"] = np.array(threshold, np.float32)
        return self._run(self._sessions[form, rules], form, images, values, bias)

    def _run(
        self, session: Any, form: FormName, images: np.ndarray, values: dict[str, Any], bias: np.ndarray | None = None
    ) -> list[np.ndarray]:
        """Outputs for all images, whatever their number; `values` are inputs that all of them share."""
        chunk = 1 if form == "single" else min(CHUNK, -(-len(images) // self.threads))
        starts = range(0, len(images), chunk)

        def run(start: int) -> list[np.ndarray]:
            part = slice(start, start + chunk)
            rows = {} if bias is None or not self._widths else {"router_bias": bias[part]}
            return session.run(None, {"image": images[part], **values, **rows})

        if len(starts) == 1:
            return run(0)
        parts = self._sessions.map(run, starts) if form == "batch" else map(run, starts)
        return [np.concatenate(columns) for columns in zip(*parts, strict=True)]

    def _trace(self, outputs: list[np.ndarray], rules: Rules) -> Trace:
        logits, decisions, *more = (torch.from_numpy(array) for array in outputs)
        left_at = more.pop() if rules.exits else None
        net, last, widths = self.net, self._last_stage, self._widths

        def exit_stage() -> Tensor:
            return torch.full((len(logits),), last) if left_at is None else left_at.squeeze(1)

        return LazyTrace(
            {
                "router_logits": lambda: more[0].split(widths, 1) if more else (),
                "log_prob": lambda: logits.new_zeros(len(logits), len(widths)),
                "exit_stage": exit_stage,
                "macs": lambda: net.macs_of(decisions, exit_stage(), routed=net.router is not None, heads=rules.exits),
            },
            logits=logits,
            stage_logits=(logits,),
            decisions=decisions,
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
        self.shares = workers and threads > 1
        self._sessions = Sessions(self._open, threads)
        self._pixels = Pixels(net)

    def _open(self, threads: int) -> Any:
        return open_session(self.model, threads, spinning=threads > 1)

    def __call__(self, images: Tensor, force: Tensor | None = None, shift: float | None = None) -> Trace:
        """Run images (B, C, H, W), uint8 or float. There is nothing to force or to shift."""
        self.net.check_images(images)
        net, logits = self.net, torch.from_numpy(self.run(self._pixels(images)))
        count, last = len(logits), len(self.net.backbone.stages.lengths) - 1
        return LazyTrace(
            {
                "log_prob": lambda: logits.new_zeros(count, 0),
                "decisions": lambda: (torch.tensor(net.options) - 1).expand(count, -1),
                "exit_stage": lambda: torch.full((count,), last),
                "macs": lambda: torch.full((count,), net.static_macs),
            },
            logits=logits,
            stage_logits=(logits,),
        )

    def run(self, images: np.ndarray) -> np.ndarray:
        if not self.shares or len(images) == 1:
            return self._sessions[self.threads].run(None, {"image": images})[0]
        session = self._sessions[1]
        chunk = min(CHUNK, -(-len(images) // self.threads))
        parts = [images[start : start + chunk] for start in range(0, len(images), chunk)]
        return np.concatenate(self._sessions.map(lambda part: session.run(None, {"image": part})[0], parts))
