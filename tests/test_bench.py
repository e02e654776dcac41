"""`spnet bench`: what it reports about timings, and the profile that `auto` reads. No test depends on how fast
anything is."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import images, lively

from spnet import Cascade, Engine, UserError, create_model
from spnet.bench.bench import BenchConfig, bench
from spnet.bench.isolated import Isolated
from spnet.bench.latency import Timing, busy_seconds, percentiles, spread, time_calls
from spnet.bench.profile import (
    Profile,
    break_even,
    load_profile,
    network_key,
    profile_of,
    profile_path,
    save_profile,
)
from spnet.bench.rivals import RIVALS, build, not_measured, rivals_for
from spnet.bench.rivals.eager import folded
from spnet.bench.series import Series, speed_up
from spnet.cli import main
from spnet.inference.runtimes.onnx.network import path_model
from spnet.inference.runtimes.onnx.quantise import quantised
from spnet.progress import listening


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def net():
    return lively(create_model("resnet8", "dynamic", in_channels=1, image_size=8, hidden=4, lookahead=2, seed=0))


def test_break_even_worked():
    # time = 0.1 + 0.9 cost reaches 1 at cost 1; time = 0.1 + cost at 0.9
    assert break_even([0.3, 0.5, 0.9], [1 / 0.37, 1 / 0.55, 1 / 0.91]) == pytest.approx(1.0)
    assert break_even([0.3, 0.5], [1 / 0.4, 1 / 0.6]) == pytest.approx(0.9)
    assert break_even([0.3, 0.5], [0.5, 0.4]) == 0.0  # always slower
    assert break_even([0.3, 0.5], [2.0, 2.0]) == 1.0  # cost makes no difference, and it is faster


def test_spread_and_percentiles_worked():
    assert spread([4.0]) == {"median": 4.0, "q25": 4.0, "q75": 4.0}
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0]) == {"median": 3.0, "q25": 2.0, "q75": 4.0}
    cuts = percentiles([float(k) for k in range(101)])
    assert cuts == pytest.approx({"p50": 50, "p90": 90, "p99": 99})
    assert percentiles([2.0]) == {"p50": 2.0, "p90": 2.0, "p99": 2.0}


def test_contended_means_others_took_cores_that_were_needed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    busy = Timing((0.1,), cpu=1.0, others=2.5)
    assert not busy.contended(threads=1) and busy.contended(threads=2) and busy.contended(threads=8)
    assert not Timing((0.1,), 1.0, float("nan")).contended(2)
    assert Timing((0.2, 0.4), cpu=0.5, others=0).cpu_seconds == pytest.approx(0.15)


def test_a_speed_up_is_taken_within_rounds_against_the_best_rival(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)

    def series(*rounds: tuple[float, float]) -> Series:
        return Series(1, [Timing((seconds,), 1.0, others) for seconds, others in rounds])

    slow, fast = series((8, 0), (16, 0), (8, 0)), series((4, 0), (80, 2), (6, 0))
    own = series((2, 0), (4, 0), (2, 0))
    found = speed_up({"slow": slow, "fast": fast}, own)
    assert (found["rival"], found["speed_up"], found["compared"]) == ("fast", 2.5, 2)  # 4/2 and 6/2; 80/4 was contended
    assert speed_up({"fast": fast}, series((2, 2), (4, 2), (2, 2)))["compared"] == 0
    assert speed_up({"fast": fast}, series((2, 2), (4, 2), (2, 2)))["speed_up"] == 3  # of 2, 20 and 3


def test_time_calls_runs_each_call_at_least_once():
    seen = []
    timing = time_calls([lambda k=k: seen.append(k) for k in range(3)], min_seconds=0.0)
    assert seen == [0, 1, 2] and len(timing.seconds) == 3 and timing.others >= 0
    assert busy_seconds() > 0


def test_rivals():
    assert "onnx-workers" in rivals_for(2, 64, False) and "onnx-workers" not in rivals_for(2, 1, False)
    assert "onnx-workers" not in rivals_for(1, 64, False) and "onnx-int8-workers" not in rivals_for(1, 64, False)
    assert {"eager", "folded", "onnx-intra", "onnx-int8"} <= set(rivals_for(1, 1, False))


def test_what_is_not_measured_is_said(monkeypatch: pytest.MonkeyPatch):
    assert "--compile" in not_measured()["compiled"] and "compiled" not in not_measured(compiled=True)
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "openvino" else found(name))
    assert not_measured()["openvino"] == not_measured()["openvino-int8"] == "pip install 'spnet[openvino]'"
    assert not {"openvino", "openvino-int8"} & set(rivals_for(1, 1, False))
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert "C++ compiler" in not_measured(compiled=True)["compiled"]


def _logits(net, name: str, x: torch.Tensor) -> torch.Tensor:
    """Of a rival; int8 calibrated on the very images."""
    if name.startswith("openvino"):
        pytest.importorskip("openvino")
    int8 = quantised(path_model(net), x.numpy()).SerializeToString() if RIVALS[name].int8 else None
    call = build(name, net, threads=2 if "workers" in name else 1, batch=len(x), int8=int8)(x.numpy(), None)
    call()
    return torch.as_tensor(np.asarray(call()).copy())


@pytest.mark.parametrize("name", [name for name, rival in RIVALS.items() if not rival.int8 and name != "compiled"])
def test_every_static_rival_computes_the_full_path(net, name: str):
    x = images(20)
    expected = net.forward_path(x, torch.ones(3, dtype=torch.int64)).logits.detach()
    torch.testing.assert_close(_logits(net, name, x), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", [name for name, rival in RIVALS.items() if rival.int8])
def test_every_rival_in_8_bits_is_near_but_not_the_same(net, name: str):
    x = images(20)
    expected = net.forward_path(x, torch.ones(3, dtype=torch.int64)).logits.detach()
    error = (_logits(net, name, x) - expected).abs().max() / expected.abs().max()
    assert 1e-4 < error < 0.1


def test_a_rival_reads_the_images_of_its_call(net):
    x, y = images(4), images(4, seed=1)
    prepare = build("onnx-intra", net, threads=1, batch=4)
    first, second = prepare(x.numpy(), None), prepare(y.numpy(), None)
    one, two = np.array(first()), np.array(second())
    assert np.array_equal(first(), one) and not np.allclose(one, two)


def test_folding_leaves_no_batch_norm_and_the_original_alone(net):
    before = {name: value.clone() for name, value in net.state_dict().items()}
    flat = folded(net.backbone)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in flat.modules())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_variant_in_its_own_process(net):
    x = images(8).numpy()
    with Isolated("engine", net, threads=1, batch=4, images=x) as worker:
        timing = worker.time([np.ones((4, 3), np.int64)], seconds=0.0)
        assert len(timing.seconds) == 1 and timing.seconds[0] > 0
        assert len(worker.time(None, seconds=0.0).seconds) == 2  # its own decisions: every batch once
        served = worker.serve(np.array([0, 0, 0.001, 0.001, 0.002]), workers=2)
        assert len(served.seconds) == 5 and min(served.seconds) > 0
        with pytest.raises(RuntimeError, match="variant 'engine' failed: UserError: decisions must be"):
            worker.time([np.ones((4, 1), np.int64)], seconds=0.0)
        process = worker._process
    assert not process.is_alive()
    with pytest.raises(UserError, match=r"unknown variant 'engin'\. Did you mean 'engine'"):
        Isolated("engin", net, 1, 4, x)


class InThisProcess(Isolated):
    """A variant without a process of its own, which takes seconds to start."""

    def __init__(
        self, name: str, net, threads: int, batch: int, images: np.ndarray, exit_confidence=None, int8=None
    ) -> None:
        self.images = images[:batch]
        self.prepare = build(name, net, threads, batch, exit_confidence, int8)

    def run(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(self.prepare(images, None)()).copy()

    def time(self, decisions: list[np.ndarray] | None, seconds: float) -> Timing:
        return time_calls([self.prepare(self.images, forced) for forced in decisions or [None]], seconds)

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spnet.bench.bench.Isolated", InThisProcess)
    monkeypatch.setattr("spnet.bench.bench.rivals_for", lambda threads, batch, compiled: ["onnx-intra"])
    monkeypatch.setattr("spnet.bench.bench.TRUSTED", 0)  # a machine that runs tests is not a quiet one


def test_a_record(net, quick: None):
    config = BenchConfig(rates=(0.0, 1.0), batches=(2,), threads=(1,), rounds=2, seconds=0.01)
    heard = []
    with listening(lambda under_way: heard.append([(each.what, each.done, each.total) for each in under_way])):
        (record,) = bench(net, config)
    cell = ("batch sizes and thread counts", 0, 1)
    assert heard[:3] == [[cell], [cell, ("rounds", 0, 2)], [cell, ("rounds", 1, 2)]] and heard[-1] == []
    named = [(row["variant"], row["rate"]) for row in record["dynamic"]]
    assert named == [("engine", 0.0), ("engine", 1.0), ("session", 0.0), ("session", 1.0)]
    low, high = record["dynamic"][:2]
    routers = sum(net.router.macs)
    skipped = net.backbone.stem_macs + net.backbone.head_macs + sum(block.macs[0] for block in net.blocks) + routers
    assert low["cost"] == pytest.approx(skipped / net.static_macs)
    assert high["cost"] == pytest.approx(1 + routers / net.static_macs) and high["realised"] is None
    assert "auto" not in record["dynamic"][2]
    for row in record["dynamic"][:2]:
        assert row["rival"] == "onnx-intra" and row["speed_up"] > 0
        assert row["rounds"] == 2 and 0 <= row["compared"] <= row["kept"] <= 2
        assert row["latency_ms"]["p50"] <= row["latency_ms"]["p90"] <= row["latency_ms"]["p99"]
        falls_back = row["cost"] >= record["break_even_cost"]
        assert row["auto"]["runs"] == ("static" if falls_back else "dynamic")


def test_own_decisions_may_leave_early(quick: None):
    """Everybody leaves at the first stage: the cost is that of the first stage, its routers and its head."""
    net = create_model("resnet8", "spnet", image_size=8, seed=0).eval()
    settings: dict[str, Any] = {"batches": (1, 2), "threads": (1,), "rounds": 1, "seconds": 0.01}
    records = bench(net, BenchConfig(rates=("own",), exit_confidence=0.0, **settings))
    with torch.no_grad():
        images = np.random.default_rng(0).standard_normal((64, 3, 8, 8), np.float32)
        expected = net(torch.from_numpy(images), exit_confidence=0.0).macs.double().mean() / net.static_macs
    assert [record["dynamic"][0]["cost"] for record in records] == pytest.approx([float(expected)] * 2)
    assert expected < 0.5
    with pytest.raises(UserError, match="add --rates own"):
        BenchConfig(rates=(0.5,), exit_confidence=0.9)
    with pytest.raises(UserError, match="stage heads"):
        bench(create_model("resnet8", "dynamic", image_size=8), BenchConfig(rates=("own",), exit_confidence=0.9))


def test_int8_counts_where_it_is_as_accurate(monkeypatch: pytest.MonkeyPatch, quick: None, digits, net):
    """The rival's int8 is fast here; whether the headline is taken over it rests on the test images alone."""
    monkeypatch.setattr("spnet.bench.int8.Isolated", InThisProcess)
    monkeypatch.setattr("spnet.bench.bench.rivals_for", lambda threads, batch, compiled: ["onnx-intra", "onnx-int8"])
    monkeypatch.setattr("spnet.bench.bench.speed_up", lambda rivals, own: _fastest(rivals, own))
    config = BenchConfig(rates=(1.0,), batches=(2,), threads=(1,), rounds=1, seconds=0.01)

    def row(data: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        (record,) = bench(net, config, data=data)
        assert "precision" in record["static"]["onnx-intra"]
        return record["dynamic"][0], record["static"]["onnx-int8"]

    own, int8 = row(None)
    assert own["rival"] == "onnx-intra" and own["over_int8"]["rival"] == "onnx-int8"
    assert int8["precision"] == "int8" and int8["accuracy"] is None and int8["equal"] is False
    for allowed, rival in ((100.0, "onnx-int8"), (-100.0, "onnx-intra")):
        monkeypatch.setattr("spnet.bench.int8.EQUAL", allowed)
        own, int8 = row(digits)
        assert own["rival"] == rival and int8["equal"] is (allowed > 0) and int8["test_images"] == 40
        x = net.prepare(digits.test.images)
        full = net.forward_path(x, torch.ones(3, dtype=torch.int64)).logits.argmax(1)
        right = 100 * (full == digits.test.labels).double().mean()
        assert int8["accuracy_fp32"] == pytest.approx(float(right))
        assert abs(int8["accuracy"] - int8["accuracy_fp32"]) <= 10


def _fastest(rivals: Any, own: Any) -> dict[str, Any]:
    """`speed_up` as if the last rival were the fastest."""
    return speed_up({list(rivals)[-1]: list(rivals.values())[-1]}, own)


def test_wrong_settings():
    cases: list[dict[str, Any]] = [{"rates": (1.5,)}, {"rates": ()}, {"batches": (0,)}, {"threads": ()}]
    cases += [{"rounds": 0}, {"seconds": 0}, {"seconds": float("nan")}, {"rates": (0.5, 0.5)}]
    for wrong in cases:
        with pytest.raises(UserError):
            BenchConfig(**wrong)
    with pytest.raises(UserError, match="nothing to skip"):
        bench(create_model("resnet8", "static", image_size=8), BenchConfig())


def test_the_profile_is_read_back_and_steers_auto(cache: Path, net):
    assert load_profile() == Profile()
    assert save_profile(Profile(0.2, 0.95, "here")) == profile_path() == cache / "profile.json"
    assert load_profile() == Profile(0.2, 0.95, "here")
    engine = Engine(net, expected_cost=0.5)
    assert engine.choice(1) == "static" and engine.choice(64) == "onnx"


def test_a_profile_holds_for_the_network_it_was_measured_on(cache: Path) -> None:
    """A bench of a tiny network, where nothing pays, says nothing of others."""
    measured, other = (create_model("resnet8", "dynamic", image_size=8, seed=s, hidden=h) for s, h in ((0, 8), (1, 9)))
    save_profile(Profile(0.0, 0.0, "here", network_key(measured)))
    assert [profile_of(net).single for net in (measured, other)] == [0.0, Profile().single]
    chosen = [Engine(net, expected_cost=0.5).choice(1) for net in (measured, other)]
    assert chosen == ["static", "onnx"]


def test_a_foreign_profile_is_ignored_and_a_damaged_one_named(cache: Path):
    path = save_profile(Profile(0.2, 0.3, "here"))
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "machine": "another"}))
    assert load_profile() == Profile()
    for value in ("fast", "0.5", None, True, -0.1, 1.5, 10**400, float("nan"), float("inf"), [0.5]):
        path.write_text(json.dumps({**record, "single": value}))
        with pytest.raises(UserError, match="is damaged: 'single' is no share"):
            load_profile()
    path.write_text(json.dumps({name: value for name, value in record.items() if name != "batch"}))
    with pytest.raises(UserError, match="is damaged: 'batch' is no share"):
        load_profile()
    path.write_text("{")
    with pytest.raises(UserError, match="is damaged: delete it"):
        load_profile()


def test_the_command(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], quick: None):
    arguments = ["bench", "resnet8", "--rates", "0,0.5", "--batches", "1,2", "--threads", "1", "--rounds", "1"]
    assert main([*arguments, "--seconds", "0.01", "--out", str(tmp_path / "out"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [record["batch"] for record in result["records"]] == [1, 2] and result["profile"] == str(profile_path())
    assert json.loads((tmp_path / "out" / "bench.json").read_text())["records"] == result["records"]
    assert (tmp_path / "out" / "bench.png").read_bytes()[:4] == b"\x89PNG"
    profile = load_profile()
    assert (profile.single, profile.batch) == tuple(record["break_even_cost"] for record in result["records"])


def test_a_noisy_machine_writes_no_profile(
    cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, quick: None
):
    monkeypatch.setattr("spnet.bench.bench.TRUSTED", 3)
    arguments = ["bench", "resnet8", "--rates", "0,0.5", "--batches", "1,2", "--threads", "1", "--rounds", "2"]
    assert main([*arguments, "--seconds", "0.01"]) == 0
    assert "no profile written" in capsys.readouterr().err and not profile_path().exists()


@pytest.mark.parametrize("wrong", [["--rates", "2"], ["--rates", "x"], ["--batches", "0"], ["--rates", "own"]])
def test_the_command_refuses(wrong: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(["bench", "resnet8", *wrong]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_cascade_is_timed_through_the_door_beside_its_last_member(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("spnet.bench.bench.rivals_for", lambda threads, batch, compiled: ["onnx-intra", "onnx-int8"])
    small = create_model("resnet8", "static", in_channels=1, image_size=8, seed=0)
    dear = create_model("resnet14", "dynamic", in_channels=1, image_size=8, seed=0)
    cascade = Cascade([small, dear], 0)
    (record,) = bench(cascade, BenchConfig(("own",), batches=(1,), threads=(1,), rounds=1, seconds=0.01))
    (row,) = record["dynamic"]
    assert row["variant"] == "engine" and set(record["static"]) == {"onnx-intra", "onnx-int8"}
    assert row["cost"] == pytest.approx(small.static_macs / dear.static_macs)  # everything stops at the first
    assert "auto" not in row and row["speed_up"] > 0
    for wrong in (BenchConfig(("own", 0.5)), BenchConfig(("own",), plain=True)):
        with pytest.raises(UserError, match="a cascade's decisions cannot be forced"):
            bench(cascade, wrong)
