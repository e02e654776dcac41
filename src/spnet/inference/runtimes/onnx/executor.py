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

from spnet.inference.runtimes.onnx.agreement import (
    difference_under_rules,
    disagreement,
    own_decisions_disagreement,
    probe,
)
from spnet.inference.runtimes.onnx.blocked import blocked
from spnet.inference.runtimes.onnx.forcing import Forcing, force_bias
from spnet.inference.runtimes.onnx.int8 import Quantisation
from spnet.inference.runtimes.onnx.library import load_runtime, open_session
from spnet.inference.runtimes.onnx.network import FormName, dynamic_model, path_model
from spnet.inference.runtimes.onnx.pixels import Pixels
from spnet.inference.runtimes.onnx.quantise import check_processor
from spnet.inference.runtimes.onnx.ran import Ran, RanInFull
from spnet.inference.runtimes.onnx.sessions import Sessions, chunk_size
from spnet.inference.runtimes.onnx.walk import Rules
from spnet.inference.runtimes.protocol import Images
from spnet.network.dynamic import DynamicNetwork
from spnet.network.trace import LazyTrace, Trace

NO_RULES = Rules()


class OnnxExecutor:
    """Called like the network; returns a `Trace` whose fields `logits`, `decisions`, `macs`, `router_logits` and
    `exit_stage` are filled, the others empty. Router logits are worked out by a second run when they are first asked
    for.

    One image runs an `If` graph, with `threads` threads inside; more run a gather graph, cut into chunks that `threads`
    single-threaded workers take one by one.

    Args:
        net: a network whose blocks and router have ONNX forms; moved nowhere, not changed.
        threads: processor cores to use.
        layout: `blocked` keeps features in onnxruntime's own layout where it has one and the result is right;
            `plain` runs exactly what an export holds.
        exit_confidence, max_cost: as in `DynamicNetwork.forward`; forced decisions run to the end all the same.
        int8: the network's weights and scales in 8 bits, to run instead of its own; onnxruntime's layout is plain then.

    Raises:
        UserError: onnxruntime is missing, the network has a part without an ONNX form, max_cost is out of reach, or
            int8 is of another processor.
    """

    def __init__(
        self,
        net: DynamicNetwork,
        threads: int = 1,
        *,
        layout: str = "blocked",
        exit_confidence: float | None = None,
        max_cost: float | None = None,
        int8: Quantisation | None = None,
    ) -> None:
        load_runtime()
        if int8 is not None:
            check_processor(int8.bits, "this engine", "make it here")
        self.net = net
        self.threads = threads
        self.layout = layout if int8 is None else "plain"
        self.int8 = int8
        self.rules = Rules(exits=exit_confidence is not None, bounded=max_cost is not None)
        self._ruled = self.rules != NO_RULES
        self._rule_values: dict[str, Any] = {}
        if exit_confidence is not None:
            self._rule_values["exit_confidence"] = np.array(exit_confidence, np.float32)
        if max_cost is not None:
            self._rule_values["allowance"] = np.array([[net.path_cost.spare(max_cost, heads=self.rules.exits)]])
        self._sessions = Sessions(self._open, threads)
        self._pixels = Pixels(net)
        self._forcing = Forcing(net)
        self._widths = [net.options[i] for i in net.gated_indices]
        self._network_shift = net.decision_shift.numpy()  # a view: it follows the network

    def _open(self, key: tuple[FormName, bool, bool]) -> Any:
        """One image has threads of its own, the workers share a session."""
        form, ruled, router_logits = key
        rules = self.rules if ruled else NO_RULES
        threads = self.threads if form == "single" else 1
        fast = self._open_blocked(form, rules, router_logits, threads) if self.layout == "blocked" else None
        return fast or self._open_plain(form, rules, router_logits, threads)

    def _open_plain(self, form: FormName, rules: Rules, router_logits: bool, threads: int) -> Any:
        model = dynamic_model(self.net, form, router_logits=router_logits, rules=rules, int8=self.int8)
        return open_session(model.SerializeToString(), threads, spinning=threads > 1)

    def _open_blocked(self, form: FormName, rules: Rules, router_logits: bool, threads: int) -> Any:
        """A session in the blocked layout, or None where onnxruntime refuses it or it disagrees with the eager network
        (under rules: with the plain session).

        The pass leans on onnxruntime's internals, so nothing is taken on trust."""
        model = dynamic_model(self.net, form, router_logits=router_logits, for_blocked=True, rules=rules)
        images, decisions = probe(self.net, paths=2)
        try:
            fast = open_session(blocked(model).SerializeToString(), threads, spinning=threads > 1)
            if rules == NO_RULES:

                def run(x: np.ndarray, bias: np.ndarray | None) -> list[np.ndarray]:
                    return self._run(fast, form, x, {}, bias)

                wrong = disagreement(self.net, images, decisions, run)
                wrong = wrong or own_decisions_disagreement(self.net, images, run)[0]
            else:
                plain = partial(self._run, self._open_plain(form, rules, router_logits, 1), form)
                other = partial(self._run, fast, form)
                wrong = difference_under_rules(plain, other, images.numpy(), force_bias(self.net, decisions), rules)
        except Exception:  # whatever another version of onnxruntime makes of its own node types
            return None
        return fast if wrong is None else None

    def __call__(self, images: Images, force: Tensor | None = None, shift: float | None = None) -> Trace:
        """Run images (B, C, H, W), uint8 or float, of the right size.

        Args:
            force: decisions (B, N) or (N,) to run, routers still computed.
            shift: the decision threshold; None takes the network's.
        """
        bias = None
        if force is not None:
            try:
                decisions = force.numpy() if isinstance(force, Tensor) else np.asarray(force)
            except (TypeError, ValueError, RuntimeError):  # on another device, a ragged list
                decisions = self.net.checked_path(torch.empty(len(images)), force).cpu().numpy()
            bias = self._forcing(decisions, len(images))
            if bias is None:
                self.net.checked_path(torch.empty(len(images)), force)  # says what is wrong
        pixels = self._pixels(images)
        shift = float(self._network_shift) if shift is None else shift
        outputs = self.arrays(pixels, bias, shift)
        if pixels is images or not pixels.flags.owndata:
            pixels = pixels.copy()  # the caller's memory may hold another image when router logits are asked for
        exits = self.rules.exits and bias is None

        def router_logits() -> np.ndarray:
            return self.arrays(pixels, bias, shift, router_logits=True)[2]

        return LazyTrace(Ran(self.net, outputs, exits, router_logits))

    def logits(self, images: Images, shift: float | None = None) -> np.ndarray:
        """(B, classes) alone."""
        return self.arrays(self._pixels(images), None, shift)[0]

    def arrays(
        self,
        images: np.ndarray,
        bias: np.ndarray | None = None,
        shift: float | None = None,
        *,
        router_logits: bool = False,
    ) -> list[np.ndarray]:
        """Normalised float32 images (B, C, H, W), router bias (B, R) or None -> logits, decisions; then router logits
        where they are asked for and, without a bias, (B, 1) exit stages where samples may leave early."""
        form: FormName = "single" if len(images) == 1 else "batch"
        ruled = self._ruled and bias is None  # forced decisions run to the end and cost what they cost
        values = dict(self._rule_values) if ruled else {}
        if self._widths:
            values["decision_shift"] = self._network_shift if shift is None else np.array(shift, np.float32)
        return self._run(self._sessions[form, ruled, router_logits], form, images, values, bias)

    def _run(
        self, session: Any, form: FormName, images: np.ndarray, values: dict[str, Any], bias: np.ndarray | None = None
    ) -> list[np.ndarray]:
        """Outputs for all images, whatever their number; `values` are inputs that all of them share."""
        biased = bias is not None and bool(self._widths)
        if len(images) == 1:
            return session.run(None, {"image": images, **values, **({"router_bias": bias} if biased else {})})
        chunk = 1 if form == "single" else chunk_size(images, self.threads)

        def run(start: int) -> list[np.ndarray]:
            part = slice(start, start + chunk)
            rows = {"router_bias": bias[part]} if bias is not None and biased else {}
            return session.run(None, {"image": images[part], **values, **rows})

        starts = range(0, len(images), chunk)
        if len(starts) == 1:
            return run(0)
        parts = self._sessions.map(run, starts) if form == "batch" else map(run, starts)
        return [np.concatenate(columns) for columns in zip(*parts, strict=True)]


class StaticExecutor:
    """The whole network without routers, every block in full: what to run where skipping does not pay.

    Its trace says so: all decisions are the last option, and the cost is that of the static network, no router charged.

    Args:
        model: an ONNX file of it; the network's own, in fp32, when left out.
    """

    def __init__(self, net: DynamicNetwork, threads: int = 1, *, model: bytes | None = None) -> None:
        self.net = net
        self.threads = threads
        self.model = path_model(net).SerializeToString() if model is None else model
        self._sessions = Sessions(self._open, threads)
        self._pixels = Pixels(net)

    def _open(self, threads: int) -> Any:
        return open_session(self.model, threads, spinning=threads > 1)

    def __call__(self, images: Images, force: Tensor | None = None, shift: float | None = None) -> Trace:
        """Run images (B, C, H, W), uint8 or float, of the right size. There is nothing to force or to shift."""
        return LazyTrace(RanInFull(self.net, [self.logits(images)]))

    def logits(self, images: Images, shift: float | None = None) -> np.ndarray:
        """(B, classes) alone."""
        return self.run(self._pixels(images))

    def run(self, images: np.ndarray) -> np.ndarray:
        if self.threads == 1 or len(images) == 1:
            return self._sessions[self.threads].run(None, {"image": images})[0]
        session = self._sessions[1]
        chunk = chunk_size(images, self.threads)
        parts = [images[start : start + chunk] for start in range(0, len(images), chunk)]
        return np.concatenate(self._sessions.map(lambda part: session.run(None, {"image": part})[0], parts))
