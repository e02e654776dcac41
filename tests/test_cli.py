"""The command line as its users and their scripts see it: verbs, flags, one JSON object, exit codes."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

import spnet
from spnet import data
from spnet.cli import VERBS, main
from spnet.cli.epochs import line
from spnet.cli.predict import draw_path
from spnet.runs.record import EpochRow
from spnet.version import __version__

TINY = ("--backbone", "resnet8", "--epochs", "2", "--subset", "100", "--batch-size", "50")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):
    """Run a command in this process: exit code, stdout, stderr."""

    def start(*argv: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = main([str(part) for part in argv])
        except SystemExit as end:  # argparse leaves this way after --help
            code = int(end.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return start


@pytest.fixture
def as_json(run):
    """Run a command that must succeed with --json: its one object."""

    def start(*argv: object) -> dict:
        code, out, err = run(*argv, "--json")
        assert code == 0, err
        assert out.count("\n") == 1, out
        return json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))

    return start


@pytest.fixture(scope="module")
def digit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first test digit as a PNG of its own size."""
    path = tmp_path_factory.mktemp("pictures") / "digit.png"
    Image.fromarray(data.load("digits").test.images[0, 0].numpy()).save(path)
    return path


# Help


def loaded_after(*argv: str) -> set[str]:
    """Modules a fresh interpreter holds after a command."""
    code = (
        "import sys\nfrom spnet.cli import main\n"
        f"try: main({list(argv)!r})\nexcept SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize(
    "argv", [("--help",), ("--version",), ("list", "--help"), ("eval", "--help"), ("predict", "--help")]
)
def test_help_does_not_wait_for_torch(argv: tuple[str, ...]):
    loaded = loaded_after(*argv)
    assert "spnet.cli" in loaded
    assert not {"torch", "numpy", "sklearn", "matplotlib", "lightning_fabric"} & loaded


def test_help_names_every_verb(run):
    for argv in ([], ["--help"], ["-h"]):
        code, out, _ = run(*argv)
        assert code == 0 and all(verb in out for verb in VERBS)
    assert run("--version")[1] == f"spnet {__version__}\n"


def test_help_groups_verbs_by_what_people_want_to_do(run):
    lines = run("--help")[1].splitlines()
    at = {line: n for n, line in enumerate(lines)}
    order = ["Train", "Use", "Measure", "Reproduce"]
    assert [line for line in lines if line in order] == order
    assert at["Use"] < next(n for n, line in enumerate(lines) if line.startswith("  predict ")) < at["Measure"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_told_what_completes_a_command(shell: str, run):
    pytest.importorskip("shtab")
    code, out, _ = run("--completion", shell)
    assert code == 0 and all(word in out for word in (*VERBS, "--budget-ms", "--stages", "--auxiliary-momentum"))
    code, _, err = run("--completion", "tcsh")
    assert code == 2 and "unknown shell 'tcsh'" in err and err.count("\n") == 1


def test_bash_completes_verbs_and_options(run, tmp_path: Path):
    pytest.importorskip("shtab")
    (tmp_path / "spnet.sh").write_text(run("--completion", "bash")[1])
    ask = "source spnet.sh; COMP_WORDS=({words}); COMP_CWORD={last}; _shtab_spnet; echo ${{COMPREPLY[@]}}"
    for words, wanted in (("spnet ex", "export"), ("spnet export --sta", "--stages --static-path")):
        script = ask.format(words=words, last=len(words.split()) - 1)
        done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True)
        assert sorted(done.stdout.split()) == sorted(wanted.split()), done.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_json(verb: str, run):
    code, out, _ = run(verb, "--help")
    assert code == 0 and "--json" in out and VERBS[verb] in out


def test_every_setting_of_the_chosen_method_is_a_flag(run):
    def flags(*argv: str) -> str:
        return run("train", *argv, "--help")[1]

    assert all(
        flag in flags()
        for flag in ("--auxiliary-momentum", "--stage-weights", "--target", "--clip-value", "--time-limit")
    )
    aig = flags("--method", "convnet-aig")
    assert "(default 0.6)" in aig and "--auxiliary-momentum" not in aig
    assert "--auxiliary-momentum" in flags("--method", "convnet-aig", "--with", "spnet")


# list


@pytest.mark.parametrize(
    ("kind", "some"),
    [
        ("methods", {"static", "dynamic", "convnet-aig", "spnet"}),
        ("backbones", {"resnet20", "resnet110"}),
        ("recipes", {"digits"}),
        ("data", {"digits", "cifar10", "cifar100", "folder", "parquet"}),
        ("pretrained", {"cifar10", "cifar10-fast", "cifar10-small", "cifar10-static"}),
    ],
)
def test_list(kind: str, some: set[str], run, as_json):
    entries = as_json("list", kind)["entries"]
    names = {entry["name"] for entry in entries}
    assert some <= names and (kind != "pretrained" or some == names)
    assert all(entry["text"] for entry in entries)
    code, out, err = run("list", kind)
    assert code == 0 and err == "" and all(entry["name"] in out for entry in entries)


def test_lists_are_the_librarys(as_json):
    assert [entry["name"] for entry in as_json("list", "methods")["entries"]] == spnet.list_methods()
    assert [entry["name"] for entry in as_json("list", "backbones")["entries"]] == spnet.list_backbones()


# train


def test_train(run, as_json, tmp_path: Path):
    code, out, err = run("train", *TINY, "--out", tmp_path / "run", "--json", "--precision", "fp32")
    result = json.loads(out)
    assert code == 0 and out.count("\n") == 1
    assert result["finished"] is True and result["run"] == str(tmp_path / "run")
    assert result["final"]["n"] == 450 and result["config"]["method"] == "spnet"
    lines = err.splitlines()
    assert len(lines) == 3 and lines[0].startswith("spnet on digits, resnet8")
    assert [line.split()[:2] for line in lines[1:]] == [["epoch", "1/2"], ["epoch", "2/2"]]
    assert (tmp_path / "run" / "report.html").is_file()
    again = as_json("train", "--resume", tmp_path / "run")  # finished: nothing left to do
    assert again["final"] == result["final"]
    code, out, _ = run("train", "--resume", tmp_path / "run")
    assert code == 0 and f"test accuracy {result['final']['accuracy']:.2f} % (n = 450)" in out


def test_flags_become_settings(run, as_json, tmp_path: Path):
    flags = (
        "--method",
        "convnet-aig",
        "--with",
        "spnet",
        "--target",
        "0.7",
        "--targets",
        "0.5,1,0.5",
        "--clip-value",
        "none",
    )
    config = as_json("train", *TINY, *flags, "--nesterov", "yes", "--out", tmp_path / "run")["config"]
    assert (config["method"], config["wrapper"], config["backbone"]) == ("convnet-aig", "spnet", "resnet8")
    settings = config["settings"]
    assert (settings["target"], settings["targets"]) == (0.7, [0.5, 1.0, 0.5])
    assert settings["clip_value"] is None and settings["nesterov"] is True and settings["subset"] == 100


def test_a_run_without_out_is_named_by_its_config(as_json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    result = as_json("train", "--method", "static", *TINY[:2], "--epochs", 1, *TINY[4:])
    assert result["run"] == f"runs/static-{result['hash']}" and (tmp_path / result["run"] / "result.json").is_file()


def test_a_setting_without_effect_is_said_in_a_line(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    flags = ("--static-share", "0.5", "--augment", "no", "--flip", "true", "--schedule", "constant")
    assert main([str(a) for a in ("train", "--method", "static", *TINY, *flags, "--out", tmp_path / "run")]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "no effect" in line]
    assert said == [
        "spnet: setting 'flip' has no effect with augment false.",
        "spnet: setting 'static_share' has no effect with method 'static': leave it out.",
    ]


def test_a_recipe_can_be_varied(as_json, tmp_path: Path):
    result = as_json("train", "--recipe", "digits", *TINY, "--seed", 3, "--out", tmp_path / "run")
    settings = result["config"]["settings"]
    assert (settings["seed"], settings["epochs"], settings["budget"], settings["clip_value"]) == (3, 2, 0.7, 0.5)


def test_a_recipes_budgets_are_dropped_where_nothing_is_decided(as_json, tmp_path: Path):
    recipe = ("--recipe", "cifar10-resnet20-cpu", "--method", "static", "--data", "digits")
    settings = as_json("train", *recipe, *TINY, "--out", tmp_path / "run")["config"]["settings"]
    assert (settings["budget"], settings["more_budgets"], settings["nesterov"]) == (0.0, [], True)


def test_time_limit_and_resume(as_json, run, tmp_path: Path):
    stopped = as_json("train", *TINY, "--out", tmp_path / "run", "--time-limit", "1e-9")
    assert stopped == {"run": str(tmp_path / "run"), "finished": False, "epochs_done": 0, "epochs_gained": 0}
    code, out, err = run("train", "--resume", tmp_path / "run", "--time-limit", "1e-9")
    assert code == 0 and f"spnet train --resume {tmp_path / 'run'}" in out
    assert err.splitlines()[-1].startswith("spnet: no epoch ended within --time-limit 1e-09")
    assert as_json("train", "--resume", tmp_path / "run")["finished"] is True
    whole = as_json("train", *TINY, "--out", tmp_path / "whole")
    assert whole["finished"] is True
    a, b = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("run", "whole"))
    assert a == b


def test_a_line_of_progress_warns_of_collapse_and_fits_a_terminal():
    row = EpochRow(
        epoch=3,
        phase="dynamic",
        loss=1.0,
        probe_accuracy=50.0,
        cost_ratio=0.9,
        distinct_paths=1,
        seconds=0.5,
        always_run=(0, 1),
        always_skipped=(2,),
    )
    assert line(row, 10) == "epoch   3/10 dynamic  loss 1.0000  probe 50.00  cost 0.900  paths 1  0.5 s"
    row = replace(row, phase="main")
    assert line(row, 10) == "epoch   3/10 main loss 1.0000 probe 50.00 cost 0.900 paths 1 0.5 s 2 on, 1 off"
    assert "on," not in line(replace(row, always_run=(), always_skipped=()), 10)
    long = replace(row, epoch=1000, phase="supervised", loss=12.3456, seconds=1e5, distinct_paths=50_000)
    assert len(line(long, 1000)) <= 79 and line(long, 1000).startswith("epoch 1000/1000 supervised loss 12.3456")


# eval


STARRED = {
    "accuracy",
    "n",
    "macs_mean",
    "macs_static",
    "gflops_mean",
    "cost_ratio",
    "execution_rate",
    "distinct_paths",
    "accuracy_shuffled_paths",
    "stage_accuracy",
    "evolution_kl",
    "images_per_second",
    "executor",
}


def test_eval(trained: Path, as_json, run):
    figures = as_json("eval", trained)
    assert set(figures) >= STARRED
    assert figures["n"] == 450 and figures["executor"] == "masked" and len(figures["stage_accuracy"]) == 3
    code, out, err = run("eval", trained)
    assert code == 0 and err == "" and f"accuracy            {figures['accuracy']:.2f} %" in out


def test_executors_evaluate_alike(trained: Path, as_json):
    masked, *others = (as_json("eval", trained, "--executor", name) for name in ("masked", "gathered", "auto"))
    for figures in others:
        assert set(figures) >= STARRED
        assert figures["accuracy"] == masked["accuracy"] and figures["distinct_paths"] == masked["distinct_paths"]
        heads = 16 * 10 + 32 * 10  # `masked` shows the accuracy of earlier stages, whose heads it then counts
        assert figures["macs_mean"] == pytest.approx(masked["macs_mean"] - heads)


def test_eval_to_a_budget(trained: Path, as_json):
    before = (trained / "model.safetensors").read_bytes()
    figures = as_json("eval", trained, "--budget", 0.6, "--executor", "gathered")
    assert figures["cost_ratio"] == pytest.approx(0.6, rel=0.05)  # met within 2 % on training images
    assert (trained / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("executor", ["branching", "onnx"])
def test_predict_under_rules(executor: str, trained: Path, digit: Path, as_json, run):
    arguments = ("predict", trained, digit, "--executor", executor)
    (whole,), (early,) = (as_json(*arguments, *more)["predictions"] for more in ((), ("--exit-confidence", 0)))
    assert (whole["exit_stage"], early["exit_stage"]) == (2, 0) and early["macs"] < whole["macs"]
    assert early["path"][1:] == [-1, -1] and "|-|-" in run(*arguments, "--exit-confidence", 0)[1]
    bound = whole["cost_ratio"] - 0.01
    assert as_json(*arguments, "--max-cost", bound)["predictions"][0]["cost_ratio"] <= bound


def test_eval_with_early_exit(trained: Path, as_json):
    whole = as_json("eval", trained)
    early = as_json("eval", trained, "--exit-confidence", 0.12)
    assert early["macs_mean"] < whole["macs_mean"]


def test_eval_with_a_bound_on_every_image(trained: Path, as_json):
    whole = as_json("eval", trained)
    bounded = as_json("eval", trained, "--max-cost", 0.6)
    assert bounded["cost_ratio"] < 0.6 < whole["cost_ratio"]


# predict and report


def test_predict(trained: Path, digit: Path, as_json, run):
    result = as_json("predict", trained, digit, digit)
    first, second = result["predictions"]
    assert first == second and first["image"] == str(digit)
    net = spnet.load(trained)
    trace = net(data.load("digits").test.images[:1], heads=False)
    assert first["class"] == str(int(trace.logits.argmax())) and first["path"] == trace.decisions[0].tolist()
    assert first["probability"] == pytest.approx(trace.logits.softmax(1).max().item(), abs=1e-5)
    assert first["macs"] == int(trace.macs[0]) and first["cost_ratio"] == pytest.approx(first["macs"] / net.static_macs)
    assert first["note"] is None
    code, out, err = run("predict", trained, digit)
    assert code == 0 and err == ""
    drawn = draw_path(first["path"], (1, 1, 1))
    assert f"{digit}: {first['class']}  ({100 * first['probability']:.1f} %)  path {drawn}  " in out
    assert f"{first['macs'] / 1e6:.3f} MMACs" in out


@pytest.mark.parametrize("executor", ["masked", "branching", "gathered"])
def test_predict_with_any_executor(trained: Path, digit: Path, executor: str, as_json):
    expected, result = as_json("predict", trained, digit), as_json("predict", trained, digit, "--executor", executor)
    assert result["predictions"][0]["path"] == expected["predictions"][0]["path"]


def test_predict_says_when_it_changed_a_picture(trained: Path, tmp_path: Path, as_json, run):
    Image.new("RGB", (30, 20), "white").save(tmp_path / "wide.jpg")
    prediction = as_json("predict", trained, tmp_path / "wide.jpg")["predictions"][0]
    assert "30x20" in prediction["note"]
    assert prediction["note"] in run("predict", trained, tmp_path / "wide.jpg")[1]


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_predict_imports_nothing_slow_beside_torch(trained: Path, tmp_path: Path, suffix: str):
    """What a prediction waits for: torch, this package, and what reads a picture and the weights."""
    picture = tmp_path / f"picture.{suffix}"
    Image.new("RGB", (200, 150), "white").save(picture)
    code = (
        "import sys, torch\nbare = set(sys.modules)\nfrom spnet.cli import main\n"
        f"assert main(['predict', {str(trained)!r}, {str(picture)!r}]) == 0\n"
        "print(*(set(sys.modules) - bare), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert "spnet.inference.engine" in loaded
    assert {name.split(".")[0] for name in loaded} - sys.stdlib_module_names == {"spnet", "PIL", "safetensors"}
    assert "PIL.PdfImagePlugin" not in loaded, "Pillow has imported its plugins for rare formats"


def test_paths_are_drawn_by_stage():
    assert draw_path([1, 0, 2, -1, 1], (2, 1, 2)) == "10|2|-1"


def test_report(trained: Path, tmp_path: Path, as_json):
    page = tmp_path / "page.html"
    assert as_json("report", trained, "--out", page) == {"page": str(page), "runs": [str(trained)]}
    assert page.read_text().lstrip().lower().startswith("<!doctype html")


# The package as a program


def test_python_dash_m(tmp_path: Path):
    def spnet_(*argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "spnet", *argv], capture_output=True, text=True, cwd=tmp_path)

    assert spnet_("--version").stdout == f"spnet {__version__}\n"
    wrong = spnet_("lsit")
    assert wrong.returncode == 2 and wrong.stdout == "" and wrong.stderr.count("\n") == 1
    assert "Did you mean 'list'?" in wrong.stderr
