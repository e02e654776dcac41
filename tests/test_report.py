"""The report page: whole, self-contained and honest about what is missing, for whatever a run folder holds."""

import json
import math
import re
import shlex
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from spnet import data
from spnet.data import Split
from spnet.errors import UserError
from spnet.report import tested as of_test_images
from spnet.report import write_report
from spnet.report.command import command
from spnet.report.figures import Line, Mark, Point, heat_map, histogram, line_chart, sample, scatter, theme
from spnet.report.groups import group
from spnet.report.markup import Markup, element
from spnet.report.numbers import duration, fixed, significant, standard_error
from spnet.report.run import read_run
from spnet.report.sections.comparison import accuracy
from spnet.report.sections.images import _extremes
from spnet.report.sections.mistakes import mistakes
from spnet.runs.config import RunConfig
from spnet.runs.facts import Facts
from spnet.runs.folder import write_config
from spnet.runs.forms import to_json
from spnet.runs.record import (
    BestEpoch,
    EndOfTraining,
    Environment,
    EpochRow,
    Evaluation,
    RunResult,
    WrittenConfig,
)

SECTIONS = (
    "What each test image costs",
    "Accuracy, cost and blocks over the epochs",
    "Stability",
    "Losses, gradients and stages",
    "Collapse",
    "Full configuration",
)
FIGURES = ("Execution rate of every block", "Flipped decisions", "Path agreement", "Losses", "Gradient shares")


# --- run folders: the records that training writes, with figures of our own in them


def evaluation(accuracy: float, ratio: float, blocks: int, static: bool, macs: int, **more: Any) -> Evaluation:
    return Evaluation(
        accuracy=accuracy,
        n=450,
        macs_mean=ratio * macs,
        macs_static=macs,
        gflops_mean=2e-9 * ratio * macs,
        cost_ratio=ratio,
        execution_rate=ratio,
        execution_rate_per_block=(1.0 if static else round(ratio, 4),) * blocks,
        distinct_paths=1 if static else 31,
        stage_accuracy=(accuracy - 40, accuracy - 10, accuracy),
        evolution_kl=0.4,
        accuracy_shuffled_paths=accuracy - 2,
        accuracy_fixed_path=accuracy - 1,
        cost_ratio_fixed_path=ratio,
        **more,
    )


def epoch_row(epoch: int, epochs: int, blocks: int, static: bool, held_out: bool, shift: float) -> EpochRow:
    done = epoch / epochs
    rates = tuple(
        1.0 if static else round(1 - done * (0.5 + 0.5 * math.sin(3 * block + shift)) * 0.8, 4)
        for block in range(blocks)
    )
    classification = {"classification": 2.3 * math.exp(-3 * done) + 0.02}
    others = {"rate": 0.1 * (1.2 - done), "path": 0.03, "logits": 0.1, "evolution": 1.2e-4}
    shares = {"classification": 0.6, "rate": 0.2, "path": 0.1, "logits": 0.0999, "evolution": 1e-4}
    accuracy = 98 - 80 * math.exp(-6 * done) + shift
    row = EpochRow(
        epoch=epoch,
        phase="static" if static or (epochs > 1 and done <= 0.3) else "dynamic",
        losses=classification if static else classification | others,
        gradient_share={"classification": 1.0} if static else shares,
        loss=2.3 * math.exp(-3 * done),
        train_accuracy=97 - 80 * math.exp(-6 * done) + shift,
        train_macs_mean=2.5e6 * (sum(rates) / blocks if blocks else 1.0) * 0.95,
        n=512,
        macs_mean=2.5e6 * sum(rates) / max(blocks, 1),
        macs_static=2500000,
        cost_ratio=sum(rates) / max(blocks, 1),
        execution_rate=sum(rates) / max(blocks, 1),
        execution_rate_per_block=rates,
        distinct_paths=31,
        stage_accuracy=(30 + 20 * done, 60 + 30 * done, 98 - 80 * math.exp(-6 * done) + shift),
        evolution_kl=0.3 + 0.4 * math.exp(-4 * done) + 0.01 * shift,
        lr=0.1 * (1 - done),
        seconds=2.5,
        train_images=1344,
    )
    row = replace(row, validation_accuracy=accuracy) if held_out else replace(row, probe_accuracy=accuracy)
    if static:
        return row
    flips = math.nan if epoch == 1 else 0.2 * (1.1 - done) + 0.01 * shift
    return replace(row, flips=flips, path_agreement=0.8 + 0.15 * done, always_run=(0,), always_skipped=())


def result_of(
    config: RunConfig, rows: list[EpochRow], accuracy: float, ratio: float, blocks: int, macs: int, held_out: bool
) -> RunResult:
    static, epochs = config.method == "static", config.training.epochs
    made = Environment("0.1", "abc123-dirty", "2.14", "3.12", "2x A <fast> CPU & friends", 2, "fp32")
    final = evaluation(accuracy, 1.0 if static else ratio, blocks, static, macs)
    result = RunResult(
        hash=config.hash,
        label=config.label,
        config=WrittenConfig(**config.to_json()),
        last=final,
        final=final,
        best_epoch=BestEpoch(epochs, 98.0) if held_out else None,
        end_of_training=EndOfTraining.of(rows[-1]) if rows else EndOfTraining(),
        train_seconds=2.5 * epochs,
        train_images=1344 * epochs,
        made_with=made,
    )
    if static:
        return result
    return replace(
        result,
        last=evaluation(accuracy + 0.4, 0.84, blocks, False, macs),
        budgets=(evaluation(accuracy - 2, 0.5, blocks, False, macs, budget=0.5, calibration_cost=0.5),),
        calibrated=replace(final, budget=0.7, calibration_cost=0.699),
    )


def make_run(
    folder: Path,
    *,
    method: str = "spnet",
    backbone: str = "resnet20",
    data: str = "digits",
    epochs: int = 12,
    blocks: int = 9,
    seed: int = 0,
    finished: bool = True,
    held_out: bool = False,
    accuracy: float = 97.33,
    ratio: float = 0.702,
    change: Any = lambda rows, result: None,
    **settings: Any,
) -> Path:
    """Write a run folder. `change(rows, result)` may spoil what is written."""
    static = method == "static"
    settings = {"epochs": epochs, "seed": seed, "validation": 0.1 if held_out else 0.0, **settings}
    settings |= {} if static else {"budget": 0.7}
    config = RunConfig(method, "", backbone, data, settings)
    folder.mkdir(parents=True)
    height = 8 if data == "digits" else 32
    facts = Facts(tuple(map(str, range(10))), (1, height, height), (0.3,), (0.4,))
    write_config(folder, config, facts)
    logged = [
        epoch_row(e + 1, epochs, blocks, static, held_out, 0.5 * seed)
        for e in range(epochs if finished else epochs // 2)
    ]
    macs = {"resnet8": 800_000, "resnet14": 1_700_000}.get(backbone, 2_500_000)
    result = to_json(result_of(config, logged, accuracy, ratio, blocks, macs, held_out))
    rows = [to_json(row) for row in logged]
    change(rows, result)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if finished:
        (folder / "result.json").write_text(json.dumps(result))
    return folder


# --- reading a page


class Page(HTMLParser):
    """What a page shows, and proof that every element is closed where it should be."""

    VOID = frozenset({"meta", "img", "br", "link"})

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.raw = file.read_bytes()
        self.stack: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.pieces: list[str] = []
        self.feed(self.raw.decode("utf-8"))
        assert not self.stack

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.stack and self.stack[-1] not in ("script", "style"):
            self.pieces.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.pieces).split())

    def check(self) -> "Page":
        """Nothing is fetched from anywhere, nothing is not a number."""
        for name, value in self.attributes:
            if name in ("src", "href", "action", "data", "srcset", "poster"):
                assert value is not None and value.startswith(("data:", "#")), value
            assert "nan" not in (value or "").lower().split() and "inf" not in (value or "").lower().split(), (
                name,
                value,
            )
        assert b"http://" not in self.raw and b"https://" not in self.raw
        assert b"@import" not in self.raw and b"url(" not in self.raw
        assert not re.search(r"\b(nan|NaN|None|inf)\b", self.text.replace("none", "")), self.text
        return self


def page_of(*folders: Path) -> Page:
    out = folders[0].parent / "page.html"
    write_report(list(folders), out)
    return Page(out).check()


# --- one run


def test_one_run_shows_every_section_and_its_headline_figures(tmp_path: Path) -> None:
    page = page_of(make_run(tmp_path / "run"))
    assert page.raw == page_of(tmp_path / "run").raw, "a page of the same run is the same"
    for words in (*SECTIONS, *FIGURES):
        assert words in page.text
    for words in ("97.33 %", "n = 450", "70.2 %", "1.755 MMACs", "0.00351 GFLOPs", "95.33 %", "96.33 %", "30 s"):
        assert words in page.text, words
    for words in ("2x A <fast> CPU & friends", "torch 2.14", "abc123-dirty", "spnet train --method spnet"):
        assert words in page.text, words
    for words in ("as trained", "calibrated", "calibrated to 50.0 %", "aim 70.0 % of static, reached 69.9 %"):
        assert words in page.text, words
    assert "1 of 9 blocks ran for every watched image" in page.text
    assert all(byte < 128 for byte in page.raw)


def test_sections_come_in_their_order(tmp_path: Path) -> None:
    text = page_of(make_run(tmp_path / "run")).text
    places = [text.index(title) for title in SECTIONS]
    assert places == sorted(places)


def test_probe_accuracy_is_said_to_be_of_training_images(tmp_path: Path) -> None:
    probed, held_out = page_of(make_run(tmp_path / "a")).text, page_of(make_run(tmp_path / "b", held_out=True)).text
    assert (
        "at most 512 of the training images" in probed
        and "validation" not in probed.split("Full configuration")[0].split("Cost")[-1]
    )
    assert "held out of training" in held_out and "512 of the training images" not in held_out
    assert "best epoch by validation" in held_out


def test_the_page_names_the_run_that_was_the_start(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert "--init" not in page_of(run).text
    config = json.loads((run / "config.json").read_text())
    config["started_from"] = {"name": "first", "hash": "0123456789ab"}
    (run / "config.json").write_text(json.dumps(config))
    assert "--init first" in page_of(run).text


def test_phases_are_marked_by_name(tmp_path: Path) -> None:
    page = page_of(make_run(tmp_path / "run"))
    assert "phase static" in page.text and "phase dynamic" in page.text
    assert "phase static" not in page_of(make_run(tmp_path / "flat", method="static")).text


def test_the_command_makes_the_same_run(tmp_path: Path) -> None:
    from spnet.cli import Parser, train

    configs = [
        RunConfig(),
        RunConfig("convnet-aig", "spnet", "resnet14", "digits", {"targets": (0.5,) * 6, "nesterov": True, "epochs": 3}),
        RunConfig("static", "", "resnet8", "cifar10", {"lr": 0.02, "milestones": (0.2, 0.9), "clip_value": 0.5}),
        RunConfig("spnet", "", "resnet20", "digits", {"epochs": 6, "path": 0.3, "stage_weights": (0.1, 0.2, 1.0)}),
    ]
    for config in configs:
        argv = shlex.split(command(config))
        assert argv[:2] == ["spnet", "train"]
        parser = Parser(allow_abbrev=False)
        train.configure(parser, argv[2:])
        args = parser.parse_all(argv[2:])
        given = {name.removeprefix("setting:"): v for name, v in vars(args).items() if name.startswith("setting:")}
        assert train.base_config(args).with_settings(**given).hash == config.hash


# --- what can be odd about a run


def blank(rows: list[dict[str, Any]], result: dict[str, Any]) -> None:
    for record in (*rows, result["final"], result["last"], result):
        for key in [k for k, v in record.items() if isinstance(v, (int, float)) and k != "epoch"]:
            record[key] = math.nan if len(key) % 2 else None
    for row in rows:
        row["losses"] = dict.fromkeys(row["losses"], math.inf)
        row["execution_rate_per_block"] = [math.nan] * 9
        row["gradient_share"] = None


def strip(rows: list[dict[str, Any]], result: dict[str, Any]) -> None:
    for row in rows:
        row.clear()
    result["final"] = {"accuracy": 90.0}
    del result["made_with"], result["end_of_training"], result["calibrated"]


def one_nan(rows: list[dict[str, Any]], result: dict[str, Any]) -> None:
    rows[3]["losses"]["rate"] = math.nan
    rows[3]["execution_rate_per_block"][2] = None
    rows[4]["flips"] = -math.inf


def miss(rows: list[dict[str, Any]], result: dict[str, Any]) -> None:
    result["calibrated"] = {"budget": 0.7, "missed": "budget 0.7 is out of reach"}
    result["final"] = result["last"]
    result["budgets"] = [{"budget": 0.1, "missed": "budget 0.1 is out of reach"}]


def collapse(rows: list[dict[str, Any]], result: dict[str, Any]) -> None:
    rows[-1] |= {"always_run": [0, 1, 2, 3, 4, 5], "always_skipped": [6, 7, 8]}


ODD: dict[str, tuple[dict[str, Any], str]] = {
    "one epoch": ({"epochs": 1}, "97.33 %"),
    "two epochs": ({"epochs": 2}, "97.33 %"),
    "one block": ({"blocks": 1}, "1 of 1 blocks ran for every watched image"),
    "no blocks logged": ({"blocks": 0}, "97.33 %"),
    "many epochs": ({"epochs": 700}, "A column is the mean of"),
    "static": ({"method": "static"}, "A static network: every block runs for every image"),
    "nothing is a number": ({"change": blank}, "Full configuration"),
    "nothing is there": ({"change": strip}, "90.00 %"),
    "one value is none": ({"change": one_nan}, "97.33 %"),
    "budget missed": ({"change": miss}, "Not calibrated: budget 0.7 is out of reach"),
    "collapsed": ({"change": collapse}, "All blocks have collapsed"),
    "unfinished": ({"finished": False}, "the run is not finished (6 of 12 epochs, no result.json)"),
    "not begun": ({"finished": False, "epochs": 1}, "No curves: metrics.jsonl is missing"),
    "nothing collapsed": ({"change": lambda rows, _: rows[-1].update(always_run=[])}, "No block has collapsed"),
    "constant": (
        {"change": lambda rows, _: [row.update(rows[0] | {"epoch": row["epoch"]}) for row in rows]},
        "97.33 %",
    ),
    "negative losses": ({"change": lambda rows, _: [row["losses"].update(reward=-0.5) for row in rows]}, "reward"),
}


@pytest.mark.parametrize("case", ODD)
def test_an_odd_run_still_gets_its_page(tmp_path: Path, case: str) -> None:
    given, words = ODD[case]
    assert words in page_of(make_run(tmp_path / "run", **given)).text


@pytest.mark.slow
def test_odd_runs_stand_beside_a_usual_one(tmp_path: Path) -> None:
    odd = [make_run(tmp_path / str(place), **given) for place, (given, _) in enumerate(ODD.values())]
    text = page_of(make_run(tmp_path / "usual"), *odd).text
    assert [words for _, words in ODD.values() if words.split(":")[0] not in text] == []


def test_damaged_files_are_named(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    (folder / "result.json").write_text('{"label": ')
    log = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(log[:-200] + "\n[1]\n")
    text = page_of(folder).text
    assert "No test figures" in text and "cannot be read as JSON" in text and "Execution rate of every block" in text


def test_what_cannot_be_shown_is_said(tmp_path: Path) -> None:
    assert "Not shown: " in page_of(make_run(tmp_path / "run")).text
    assert "model.safetensors does not exist" in page_of(make_run(tmp_path / "other")).text
    assert "the test set is read only after the last epoch" in page_of(make_run(tmp_path / "half", finished=False)).text


def test_names_are_escaped(tmp_path: Path) -> None:
    def rename(rows: list[dict[str, Any]], result: dict[str, Any]) -> None:
        result["label"] = "<script>alert('1')</script> & \"co\""
        for row in rows:
            row["phase"] = "<b>phase</b>"
            row["losses"]["<i>term</i>"] = 0.1

    first = make_run(tmp_path / "a<b>&", change=rename)
    for page in (page_of(first), page_of(first, make_run(tmp_path / "c"))):
        assert page.tags.count("script") == 1 and "i" not in page.tags
        assert (
            "<script>alert('1')</script> & \"co\"" in page.text and "<i>term</i>" in page.text and "a<b>&" in page.text
        )


def test_a_folder_whose_name_is_no_text(tmp_path: Path) -> None:
    page_of(make_run(tmp_path / "na\udcffme é"))


def test_bad_input_is_a_user_error(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    for folders in ([tmp_path / "none"], [tmp_path / "empty"], [folder, tmp_path / "empty"], []):
        with pytest.raises(UserError):
            write_report(folders, tmp_path / "page.html")
    for out in (tmp_path / "run", folder / "config.json" / "page.html"):
        with pytest.raises(UserError, match="cannot write"):
            write_report([folder], out)
    assert not (tmp_path / "page.html").exists()


# --- several runs


def several(root: Path) -> list[Path]:
    return [
        make_run(root / "s8", method="static", backbone="resnet8", blocks=3, accuracy=95.2),
        make_run(root / "s20", method="static", accuracy=97.8),
        make_run(root / "p0", accuracy=97.0),
        make_run(root / "p1", accuracy=98.0, seed=1, epochs=12),
        make_run(root / "aig", method="convnet-aig", held_out=True, epochs=5, target=0.4),
        make_run(root / "half", method="dynamic", finished=False),
    ]


def test_several_runs_are_compared(tmp_path: Path) -> None:
    folders = several(tmp_path)
    page = page_of(*folders)
    for words in (
        "6 runs",
        "Every run",
        "Means over the finished runs",
        "97.50 ± 0.71",
        "the best static network here that costs no more.",
        "Accuracy against cost on digits",
        "Test set, n = 450 images.",
    ):
        assert words in page.text, words
    for words in (
        "static ladder",
        "± 1 standard deviation",
        "spnet resnet20 (2 seeds)",
        "Probe accuracy",
        "Validation accuracy",
    ):
        assert words in page.text, words
    assert f"because not finished or damaged (see their own parts): {tmp_path / 'half'}" in page.text
    values = dict(page.attributes)
    anchors = {value for name, value in page.attributes if name == "href" and value and value.startswith("#")}
    ids = {f"#{value}" for name, value in page.attributes if name == "id"}
    assert anchors == ids and len(ids) == 6 and values


def test_runs_that_differ_in_their_seed_are_one_group(tmp_path: Path) -> None:
    groups = group([read_run(folder) for folder in several(tmp_path)])
    assert [found.name for found in groups] == [
        "static resnet8",
        "static resnet20",
        "spnet resnet20",
        "convnet-aig resnet20",
        "dynamic resnet20",
    ]
    assert [len(found.runs) for found in groups] == [1, 1, 2, 1, 1]
    values, band = groups[2].curve(lambda run: run.series(lambda row: row.probe_accuracy))
    assert band is not None and all(lo < v < hi for lo, v, hi in zip(band[0], values, band[1], strict=True))  # type: ignore


def test_groups_of_one_label_are_named_by_what_differs(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / str(target), target=target) for target in (0.4, 0.6)]
    assert [found.name for found in group([read_run(f) for f in folders])] == ["spnet target 0.4", "spnet target 0.6"]


def test_the_same_run_twice(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    page = page_of(folder, folder)
    assert "97.33" in page.text and "2 runs" not in page.text


def test_a_mean_counts_the_runs_that_have_the_figure(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / str(seed), seed=seed, finished=seed < 2) for seed in range(3)]
    (found,) = group([read_run(folder) for folder in folders])
    assert found.count(accuracy) == 2 and len(found.runs) == 3
    assert "mean of 2 runs" in page_of(*folders).raw.decode()


# --- with a network and its data


def test_test_images_are_shown(tmp_path: Path) -> None:
    folder = with_network(make_run(tmp_path / "run", backbone="resnet8", blocks=3))
    page = page_of(folder)
    for words in (
        "Cost per test image",
        "The cheapest of each class",
        "The dearest of each class",
        "Which blocks each class runs",
        "result.json has",
    ):
        assert words in page.text, words
    wrong = re.search(r"([\d,]+) of 450 test images are wrong", page.text)
    assert wrong is not None and "Taken for another class" in page.text
    shown = 20 + min(int(wrong[1]), 12)
    assert page.tags.count("img") == shown and page.text.count(" % sure") == shown - 20
    assert len(re.findall(r"\b[01]\|[01]\|[01]\b", page.text)) == shown


def test_mistakes_are_counted_by_class_and_shown_surest_first() -> None:
    tested = of_test_images.Tested(
        images=Split(torch.zeros(6, 1, 8, 8, dtype=torch.uint8), torch.zeros(6, dtype=torch.int64)),
        labels=[0, 0, 0, 1, 1, 1],
        predicted=[0, 1, 1, 1, 0, 1],
        confidence=[0.9, 0.6, 0.8, 0.9, 0.7, 0.9],
        shares=[0.5, 0.9, 0.8, 0.5, 0.7, 0.5],
        decisions=[[1]] * 6,
        options=(2,),
        gated=(True,),
        stage_lengths=(1,),
        classes=("cat", "dog"),
    )
    text = re.sub(r"(<[^>]*>)+", " ", str(mistakes(tested)))
    assert "3 of 6 test images are wrong (50.0 %). They cost 80.0 % of static on average, the others 50.0 %." in text
    assert "cat → dog 2 of 3 66.7 % dog → cat 1 of 3 33.3 %" in text
    assert re.findall(r"(\d+) % sure", text) == ["80", "70", "60"]
    right = replace(tested, predicted=tested.labels)
    assert "Nowhere: all 6 test images are right." in str(mistakes(right))


def test_the_answer_comes_first(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    text = page_of(folder).text
    answer = (
        "97.33 % of 450 test images are right, for 70.2 % of the multiply-adds of the same network with every block "
        "run. By the multiply-adds it can be 1.42 times as fast, no more. Choosing blocks by the image is worth +1.00 "
        "points over one path for all at"
    )
    assert text.index(answer) < text.index("test accuracy") and "Milliseconds were not measured yet" in text
    row = {"rate": "own", "variant": "engine", "ms": {"median": 6.4}, "speed_up": 1.25, "rival": "onnx-intra"}
    cell = {"threads": 1, "batch": 4, "dynamic": [{**row, "rounds": 9, "kept": 8}]}
    (folder / "bench.json").write_text(json.dumps({"records": [cell], "made_with": {"hardware": "2x A"}}))
    assert (
        "1.6 ms an image in batches of 4 on 1 thread(s), 1.25 times as fast as the fastest static network that is as "
        "accurate (onnx-intra; n = 9 rounds, 8 undisturbed), on 2x A."
    ) in page_of(folder).text
    for damaged in ("{", "[]", '{"records": [{}]}'):
        (folder / "bench.json").write_text(damaged)
        assert "bench.json in the run's folder is damaged or of another kind" in page_of(folder).text


def test_each_dynamic_run_is_held_against_the_best_static_one_that_costs_no_more(tmp_path: Path) -> None:
    small = make_run(tmp_path / "s8", method="static", backbone="resnet8", blocks=3, accuracy=95.2)
    large = make_run(tmp_path / "s20", method="static", accuracy=99.0)
    ours = make_run(tmp_path / "p", accuracy=97.0)
    text = page_of(ours, small, large).text
    assert "is right on 97.00 % of the test images at 1.755 million multiply-adds: +1.80 points against static" in text
    assert "no static network here costs as little or less" in page_of(ours, large).text


def test_the_extremes_are_of_each_class_or_of_all_where_classes_are_many() -> None:
    shares, labels = [0.5, 0.9, 0.5, 0.9, 0.7], [0, 0, 0, 1, 1]
    tested = SimpleNamespace(shares=shares, labels=labels, classes=("a", "b", "none has it"))
    assert _extremes(tested) == ("of each class", [0, 4], [1, 3])  # type: ignore[arg-type]
    tested.classes = tuple(map(str, range(100)))
    assert _extremes(tested) == ("2", [0, 2], [1, 3])  # type: ignore[arg-type]


def test_equal_costs_have_no_cheapest_image(tmp_path: Path) -> None:
    text = page_of(with_network(make_run(tmp_path / "run", method="static", backbone="resnet8", blocks=3))).text
    assert "Every one of the 450 test images costs the same: 100.0 % of the static network" in text
    assert "cheapest" not in text


def test_data_that_are_not_here_or_not_those_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SPNET_DATA", raising=False)
    folder = with_network(make_run(tmp_path / "run", backbone="resnet8", blocks=3))
    record = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(record | {"classes": [f"class {i}" for i in range(10)]}))
    assert "have a class '0' that the network does not know; it knows 'class 0'" in page_of(folder).text
    (folder / "config.json").write_text(json.dumps(record | {"data": "cifar10"}))
    assert "cifar10 is not on this machine" in page_of(folder).text
    (folder / "config.json").write_text(json.dumps(record | {"data": f"folder:{tmp_path / 'gone'}"}))
    assert "there is no file or folder" in page_of(folder).text
    (folder / "model.safetensors").write_bytes(b"damaged")
    assert "is damaged" in page_of(folder).text


def with_network(folder: Path) -> Path:
    """Add an untrained network that decides for some images and not for others."""
    import torch

    from spnet.build import build_network, create_method
    from spnet.runs.folder import read_config, save_network

    config, facts = read_config(folder)
    method = create_method(config.method, config.wrapper, config.method_settings)
    given = {"input_shape": facts.input_shape, "mean": facts.mean, "std": facts.std}
    net = build_network(method, config.backbone, num_classes=10, **given, seed=0).eval()
    if any(net.gated):
        with torch.no_grad():
            scores = net(data.load("digits").test.images).router_logits[1]
        net.decision_shift.fill_(float((scores[:, 0] - scores[:, 1]).median()))
    save_network(folder, net)
    return folder


@pytest.mark.slow
def test_twenty_large_runs_stay_under_five_megabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from spnet.report import page as page_module

    generator = torch.Generator().manual_seed(0)
    count, blocks = 1000, 54
    pixels = 4 * torch.randint(0, 64, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)  # 3.6 kB, CIFAR 3.1
    tested = of_test_images.Tested(
        images=Split(pixels, torch.zeros(count, dtype=torch.int64)),
        labels=[i % 100 for i in range(count)],
        predicted=[0] * count,
        confidence=[0.5] * count,
        shares=torch.rand(count, generator=generator).tolist(),
        decisions=torch.randint(0, 2, (count, blocks), generator=generator).tolist(),
        options=(2,) * blocks,
        gated=(True,) * blocks,
        stage_lengths=(18, 18, 18),
        classes=tuple(f"some long class name {i}" for i in range(100)),
    )
    monkeypatch.setattr(page_module, "run_test_images", lambda run, load_data: tested)

    def roughen(rows: list[dict[str, Any]], result: dict[str, Any]) -> None:
        for row in rows:
            row["execution_rate_per_block"] = torch.rand(blocks, generator=generator).tolist()

    first = make_run(tmp_path / "run0", backbone="resnet110", blocks=blocks, epochs=349, change=roughen)
    record = json.loads((first / "config.json").read_text())
    folders = [first]
    for seed in range(1, 20):
        folders.append(shutil.copytree(first, tmp_path / f"run{seed}"))
        record["settings"] |= {"seed": seed, "target": 0.4 + 0.05 * (seed % 10)}
        (folders[-1] / "config.json").write_text(json.dumps(record))
    for chosen, limit in ((folders, 5_000_000), (folders[:1], 1_000_000)):
        write_report(chosen, tmp_path / "page.html")
        assert (tmp_path / "page.html").stat().st_size < limit


# --- the parts


def test_markup_escapes_what_is_not_markup() -> None:
    assert element("b", "a<b", Markup("<i>"), None, title='"&') == '<b title="&quot;&amp;">a&lt;b<i></b>'
    assert element("rect", x=1.0, y=0.25, hidden=True, class_=None) == '<rect x="1" y="0.2" hidden/>'


def test_numbers_as_they_are_written() -> None:
    assert fixed(1234.567, 1) == "1,234.6" and fixed(math.nan) == fixed(None) == fixed("x") == "\N{EN DASH}"
    assert significant(0.012345) == "0.0123" and significant(1.2e-6) == "1.20e-06" and significant(0) == "0"
    assert (
        duration(3.04) == "3.0 s"
        and duration(59.9) == "60 s"
        and duration(725) == "12 min 5 s"
        and duration(12000) == "3 h 20 min"
    )
    assert (
        standard_error(90, 100) == pytest.approx(3.0)
        and standard_error(None, 5) is None
        and standard_error(50, 0) is None
    )


def words_in(drawn: str) -> list[str]:
    """What is written in a drawing, in order."""
    return re.findall(r"<text[^>]*>([^<]*)", drawn)


@pytest.mark.parametrize(
    "values",
    [[], [None], [0.0], [5.0, 5.0], [1e-9, 2e-9], [1e6, 3e6], [-2.0, 7.0], [None, 1.0], [99.999, 100.0], [2.0] * 400],
)
@pytest.mark.parametrize("log", [False, True])
def test_any_values_have_a_curve_inside_and_ticks_that_differ(values: list[float | None], log: bool) -> None:
    x = [float(i + 1) for i in range(len(values))]
    drawn = line_chart(x, [Line("a", values)], y_title="loss", log=log)
    assert drawn == line_chart(x, [Line("a", values)], y_title="loss", log=log)
    curve = re.search(r'class="curve s0"><path d="M([0-9.]+) ([0-9.]+)', drawn)
    assert (curve is not None) == any(v is not None for v in values)
    assert curve is None or theme.TOP <= float(curve[2]) <= theme.HEIGHT - theme.BOTTOM
    ticks = re.findall(r"text-anchor:end[^>]*>([^<]*)", drawn)
    assert 2 <= len(ticks) <= 12 and len(set(ticks)) == len(ticks)


@pytest.mark.parametrize("last", [1, 2, 6, 12, 60, 349, 100000])
def test_epoch_ticks_are_whole_and_few(last: int) -> None:
    drawn = line_chart([1.0, float(last)] if last > 1 else [1.0], [Line("", [0.5] * min(last, 2))], y_title="")
    ticks = [int(tick.replace(",", "")) for tick in re.findall(r"text-anchor:middle[^>]*>([0-9.,]+)<", drawn)]
    assert 1 <= len(ticks) <= 8 and ticks == sorted(set(ticks)) and ticks[0] >= 1 and ticks[-1] <= last


def test_losses_over_decades_get_a_logarithmic_axis() -> None:
    def drawn(*values: float) -> str:
        return line_chart([1.0, 2.0], [Line("", values)], y_title="loss", log=True)

    assert "loss (logarithmic)" in drawn(0.01, 2.0) and {"0.01", "0.1", "1", "10"} <= set(words_in(drawn(0.01, 2.0)))
    for values in ((0.1, 2.0), (-0.01, 2.0), (0.0, 2.0)):
        assert "logarithmic" not in drawn(*values)


def test_figures_of_nothing_and_of_little() -> None:
    assert "<svg" in line_chart([], [], y_title="y") and "<svg" in scatter([], x_title="x", y_title="y")
    drawn = line_chart([1.0], [Line("a", [None]), Line("b", [2.0])], y_title="y", log=True, marks=[Mark(1, "p")])
    assert "b 2.00" in words_in(drawn) and 'class="curve s0"' in drawn and "phase p" in drawn
    assert "<svg" in histogram([], x_title="x", y_title="y")
    equal = histogram([3.0, 3.0], x_title="x", y_title="y", unit=" %")
    assert equal.count('class="bar"') == 1 and "mean 3.0 %" in words_in(equal) and "n = 2" in equal
    assert "<svg" in heat_map([], [], [], row="r", column="c")
    cells = heat_map([[0.5, None], [0.0, 1.0]], ["a", "b"], ["1", "2"], row="r", column="c", written=True)
    assert "r a, c 1: 50.0 %" in cells and "r a, c 2: \N{EN DASH}" in cells
    assert {"r", "c", "a", "b", "1", "2", "0 %", "100 %", "50", "0", "100"} <= set(words_in(cells))


def test_a_lone_value_is_a_dot_and_a_gap_is_left_open() -> None:
    many = [1.0, 2.0] * 20
    curve = r'class="curve s0">(.*?)</g>'
    whole, lone = (
        re.search(curve, line_chart([float(i) for i in range(len(v))], [Line("a", v)], y_title="y"))
        for v in (many, [*many, None, 1.0, None, *many])
    )
    assert whole is not None and whole[1].count("<path") == 1
    assert lone is not None and lone[1].count("<path") == 2 and lone[1].count("translate") == 1
    stroke = re.search(r'd="([^"]*)"', lone[1])
    assert stroke is not None and stroke[1].count("M") >= 2


def test_the_reference_line_and_the_phases_are_named() -> None:
    marks, level = [Mark(1, "static"), Mark(3, "dynamic")], (7.0, "budget 7 %")
    drawn = line_chart([1.0, 2.0, 3.0, 4.0], [Line("a", [1.0] * 4)], y_title="y", level=level, marks=marks)
    assert {"budget 7 %", "static", "6"} <= set(words_in(drawn)) and "phase dynamic" in drawn


def test_points_tell_their_figures_and_their_ladder() -> None:
    rungs = [Point("s8", 1.0, 90.0, "s8: 90 %", joined="the ladder", hollow=True)]
    rungs += [Point("s20", 2.0, 95.0, "s20: 95 %", joined="the ladder", hollow=True)]
    drawn = scatter([*rungs, Point("own", 1.5, 94.0, "own: 94 %", 1, 0.1, 0.5)], x_title="x", y_title="y")
    for title in ("the ladder", "s8: 90 %", "s20: 95 %", "own: 94 %"):
        assert f"<title>{title}</title>" in drawn
    assert {"s8", "s20", "own"} <= set(words_in(drawn)) and drawn.count('class="point s1"') == 3
    crowd = scatter([Point("a long name", 1.0, 1.0, "")] * 18, x_title="", y_title="")
    assert 1 <= words_in(crowd).count("a long name") <= 4


def test_drawings_follow_the_page_and_cannot_clash() -> None:
    """Every colour is a variable of the style sheet, whose light page has the colours of files; nothing has an id."""
    css = (Path(theme.__file__).parents[1] / "style.css").read_text().replace("#fff;", "#ffffff;")
    for name, value in [*theme.INKS.items(), *((f"c{i}", value) for i, value in enumerate(theme.COLOURS))]:
        assert f"--{name}: {value};" in css, name
    lines = [Line(str(style), [1.0, 2.0], style, ([1.0, 1.0], [3.0, 3.0])) for style in range(12)]
    cells = heat_map([[0.2, None]], ["a very long name of a class"], ["1", "2"], row="r", column="c", written=True)
    for drawn in (line_chart([1.0, 2.0], lines, y_title="y", level=(1.0, "l")), cells, sample(9, hollow=True)):
        assert not re.search(r"#[0-9a-f]{6}| id=|xlink|xmlns|clip-path|<use|font", drawn)
    assert len({sample(style, hollow=hollow) for style in range(12) for hollow in (False, True)}) == 24


def test_any_name_can_be_drawn() -> None:
    """A formula is no formula, what no page may hold is replaced, other scripts stay and nothing warns of them."""
    name = "$x_1$ \x00\x1b\udcff \u6587 <b>&"
    drawn = line_chart([1.0, 2.0], [Line(name, [1.0, 2.0])], y_title="y", marks=[Mark(1, name), Mark(2, name)])
    assert "$x_1$ \ufffd" in drawn and "<b>" not in drawn
    assert "\u6587 &lt;b&gt;&amp;" in scatter([Point(name, 1.0, 1.0, name)], x_title="x", y_title="y")
    heat_map([[1.0]], [name], [name], row="r", column="c")
