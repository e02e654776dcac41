"""A step that is captured and replayed is the step itself, for every method; and no step waits for the device.

CUDA graphs need a GPU; here their rules are played on the processor (replay.py). `scripts/gpu.py` checks the real ones.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from cases import CASES, Case
from replay import recorded
from tiny import SHAPE, agreeing

from spnet import UserError
from spnet.build import build_network, create_method
from spnet.data import Dataset
from spnet.methods import Optimizer, Phase
from spnet.training.capture import WARM
from spnet.training.epoch import train_epoch
from spnet.training.streams import Streams
from spnet.training.tally import Tally

Train = Callable[..., tuple[Path, object]]
CONFIG = Optimizer(lr=0.05, schedule="cosine", clip_value=0.5)
BATCH, STEPS = 8, 6


def epochs(case: Case, digits: Dataset, record: Callable | None) -> list[tuple[str, dict, Tally]]:
    """(phase, state after its epoch, tally) for each phase of a case; two epochs of the last one."""
    method = create_method(case.method, case.wrapper, case.settings)
    net = build_network(method, "resnet8", num_classes=10, input_shape=SHAPE, seed=0)
    method.attach(net)
    seen = []
    for phase in method.phases(case.epochs):
        if phase.on_start is not None:
            phase.on_start(net)
        trainable = [p for name, p in net.named_parameters() if phase.trainable(name)]
        # The fused form reads its learning rate from a tensor, as it does on CUDA.
        optimizer = torch.optim.SGD(trainable, lr=CONFIG.lr, momentum=0.9, weight_decay=1e-4, fused=True)
        for epoch in range(min(phase.epochs, 2)):
            tally = train_epoch(
                net,
                optimizer,
                phase,
                CONFIG,
                digits.train.select(range(BATCH * STEPS)),
                batch_size=BATCH,
                augmentation=digits.augmentation,
                streams=Streams(0, epoch, torch.device("cpu")),
                epoch_in_phase=epoch,
                precision="fp32",
                record=record if phase.capturable else None,
            )
            assert tally is not None
            state = {**net.state_dict(), **method.state.state_dict()}
            seen.append((phase.name, {name: value.clone() for name, value in state.items()}, tally))
            assert all(isinstance(group["lr"], float) for group in optimizer.param_groups)
    return seen


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_replayed_step_is_the_step(case: Case, digits: Dataset):
    """Same weights, statistics, teacher, sums, rates and random numbers; recording refuses what waits for the
    device."""
    records = []

    def counting(work: Callable[[], None], generators: Sequence[torch.Generator]) -> Callable[[], None]:
        replay = recorded(work, generators)
        records.append(0)

        def count() -> None:
            records[-1] += 1
            replay()

        return count

    plain, replayed = epochs(case, digits, None), epochs(case, digits, counting)
    assert records and all(count == STEPS - WARM - 1 for count in records)  # the last step is taken as it is
    for (name, state, tally), (_, other, other_tally) in zip(plain, replayed, strict=True):
        differing = [key for key in state if not agreeing(state[key].double(), other[key].double(), 1e-5)]
        assert not differing, f"{name}: {differing[:5]}"
        assert (tally.steps, tally.images, tally.rate) == (other_tally.steps, other_tally.images, other_tally.rate)
        ours, theirs = tally.means(), other_tally.means()
        assert ours["losses"] == pytest.approx(theirs["losses"], rel=1e-4, abs=1e-7)


def test_a_counter_on_the_host_makes_a_phase_uncapturable():
    """What would be replayed with its old number: RDI-Net's queue of past paths."""

    def phases(**settings: object) -> dict[str, Phase]:
        return {phase.name: phase for phase in create_method("rdi-net", "", settings).phases(3)}

    assert all(phase.capturable for phase in phases().values())
    contrasting = phases(relation_form="contrastive")
    assert not contrasting["routers"].capturable and contrasting["finetune"].capturable


def test_the_recorder_notices_what_a_graph_would_get_wrong():
    """The test above has teeth: numbers of the host are frozen, and looking at a value is refused."""
    total, steps = torch.zeros(()), [0]

    def counting_on_the_host() -> None:
        steps[0] += 1
        total.add_(steps[0])

    replay = recorded(counting_on_the_host, ())
    for _ in range(3):
        replay()
    assert total.item() == 3  # 1 + 1 + 1, not 1 + 2 + 3
    for looking in (total.item, lambda: torch.tensor([1.0]), lambda: total.nonzero()):
        with pytest.raises(AssertionError, match="waits for the device"):
            recorded(looking, ())


def test_capture_is_refused_where_it_cannot_be(train: Train, tmp_path: Path):
    if torch.cuda.is_available():
        pytest.skip("this machine can capture")
    with pytest.raises(UserError, match="capture replays CUDA graphs on one device"):
        train("static", capture=True)
    assert not (tmp_path / "run").exists()
