"""One row a method: what the sweep over all methods (test_methods.py) trains. A new method is one more row here."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Case:
    """A method small enough to train in a second; `epochs` lets each of its phases have one or two."""

    method: str
    wrapper: str = ""
    epochs: int = 2
    settings: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        note = "".join(f" {name}={value}" for name, value in self.settings.items())
        return f"{self.method}{' + ' + self.wrapper if self.wrapper else ''}{note}"


CASES = [
    Case("static"),
    Case("static", "spnet"),
    Case("dynamic", epochs=3, settings={"static_share": 0.3, "hidden": 8}),
    Case("dynamic", settings={"targets": (0.5, 1, 0.5), "cost": 0.1, "lookahead": 2}),
    Case("convnet-aig"),
    Case("convnet-aig", "spnet"),
    Case("spnet", epochs=3, settings={"static_share": 0.3}),
    Case(
        "spnet", settings={"preset": "paper", "evolution_form": "stage", "evolution_pairs": "all", "logits_form": "kl"}
    ),
    Case("spnet", settings={"evolution_form": "kl", "evolution": 0.1, "path_form": "kl", "logits_target": "last"}),
    Case("skipnet", epochs=3, settings={"reinforce_share": 0.3}),
    Case("skipnet", "spnet", epochs=2, settings={"gate": "ff1"}),
    Case("blockdrop", epochs=3),
    Case("blockdrop", "spnet", epochs=3),
    Case("codinet"),
    Case("codinet", "spnet"),
    Case("rdi-net", epochs=3),
    Case("rdi-net", "spnet", epochs=3),
    Case("sandwich", epochs=3, settings={"static_share": 0.3}),
    Case("convnet-aig", "sandwich", settings={"third_path": "cheapest"}),
    Case("codinet", "sandwich", settings={"third_path": "random", "distill_share": 1.0}),
    Case("rdi-net", "sandwich", epochs=3, settings={"third_path": "random"}),
    Case("blockdrop", "sandwich", epochs=3),
    Case("skipnet", "spnet+sandwich"),
    Case("dynamic", "spnet+sandwich", settings={"distill_share": 0.0}),
]
