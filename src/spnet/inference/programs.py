"""What answers an engine's batches: programs of the runtimes, opened when first needed, by one thread for all."""

import threading
from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

import torch

from spnet.bench.profile import Profile, profile_of
from spnet.inference.memory import Growth
from spnet.inference.runtimes.eager import EagerProgram
from spnet.inference.runtimes.protocol import Program, Rules
from spnet.inference.runtimes.registry import RUNTIMES
from spnet.network.dynamic import DynamicNetwork, Executor

T = TypeVar("T")

AUTO = "auto"
STATIC = "static"
"""What `choice` calls the network without routers, where skipping does not pay."""


class Programs:
    """Those of one network under one set of rules.

    Pickle and copies leave opened programs behind.

    Args:
        executor: a runtime's name, or `auto`.
        threads: to compute with; None takes torch's setting when a program is opened.
    """

    def __init__(self, model: DynamicNetwork, executor: str, rules: Rules, threads: int | None) -> None:
        self.model = model
        self.executor = executor
        self.rules = rules
        self._threads = threads
        self.forget()

    def forget(self) -> None:
        """Close all: they hold the weights of their first image."""
        self.opened: dict[str, Program | None] = {}
        self.growth = Growth()
        self._ready: dict[tuple[bool, bool, float | None], Program] = {}
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        left = ("opened", "growth", "_ready", "_lock", "_serving")
        return {name: value for name, value in self.__dict__.items() if name not in left}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.forget()

    @cached_property
    def _serving(self) -> dict[str, bool]:
        """Which runtimes can serve this network here."""
        return {name: runtime.why_not(self.model) is None for name, runtime in RUNTIMES.items()}

    @cached_property
    def _profile(self) -> Profile:
        return profile_of(self.model)

    def _runtime(self, batch_size: int) -> str:
        if self.executor != AUTO:
            return self.executor
        return max(RUNTIMES, key=lambda name: RUNTIMES[name].rank(batch_size) * self._serving[name])

    def __getitem__(self, name: str) -> Program | None:
        """Compiled when first asked for. `static NAME`: a runtime's static program, None where it has none."""
        if name not in self.opened:
            with self._lock:
                if name not in self.opened:
                    kind, _, runtime = name.rpartition(" ")
                    if kind == STATIC:
                        made = RUNTIMES[runtime].compile_static(self.model, self._threads)
                    else:
                        made = RUNTIMES[runtime].compile(self.model, self.rules, self._threads)
                    self.opened[name] = made
        return self.opened[name]

    def _skips(self, batch_size: int, expected_cost: float | None) -> bool:
        """Whether to skip blocks at all, or run the static network: `auto` alone asks."""
        if self.executor != AUTO or self.rules.max_cost is not None:
            return True
        limit = self._profile.single if batch_size == 1 else self._profile.batch
        saves = any(self.model.gated) or self.rules.exit_confidence is not None
        return saves and (expected_cost is None or expected_cost < limit)

    def _static(self, batch_size: int, expected_cost: float | None) -> Program | None:
        """What runs instead where skipping does not pay, if the runtime has such a thing."""
        if self._skips(batch_size, expected_cost):
            return None
        return self[f"{STATIC} {self._runtime(batch_size)}"]

    def choice(self, batch_size: int, expected_cost: float | None) -> str:
        """The name of what runs a batch of this size at this expected cost."""
        return STATIC if self._static(batch_size, expected_cost) is not None else self._runtime(batch_size)

    def run(self, count: int, forced: bool, expected_cost: float | None, use: Callable[[Program], T]) -> T:
        """What `use` makes of the program for a batch of `count` images; decisions can be forced only where there are
        some. What the process grows by at the first such batch is measured; later ones find the program at once, for at
        batch 1 the cache is cold, and every function on the way costs microseconds."""
        batch = count == 1, forced, expected_cost
        if (program := self._ready.get(batch)) is not None:
            return use(program)
        program = None if forced else self._static(count, expected_cost)
        program = program or self[self._runtime(count)]
        assert program is not None
        answer = self.growth((id(program), count == 1, forced), lambda: use(program))
        self._ready[batch] = program
        return answer

    def counter(self, executor: Executor) -> Program:
        """Runs the network's own decisions under the rules, whatever runs them later: what calibration counts. In fp32
        by `executor`; in int8, which decides by features of its own, as it will run."""
        if self.rules.int8 is None:
            return EagerProgram(self.model, executor, self.rules, self._threads)
        program = self[self.executor]
        assert program is not None
        return program

    @property
    def threads(self) -> int:
        return self._threads or torch.get_num_threads()
