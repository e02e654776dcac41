"""Run folders, records, exported networks and the machine's profile, spoilt, each with the commands that read them."""

import io
import json
import shutil

import hypothesis.strategies as st
import numpy as np
import onnx
import torch
from hostile import as_json, spoilt_bytes, spoilt_json, spoilt_lines, spoilt_state, spoilt_tensors, spoilt_values
from judge import call, difference
from places import TARGETS, Draw, Places
from safetensors.torch import load, save

from spnet.bench.profile import profile_path
from spnet.inference.export import open_export
from spnet.inference.export.reader import UNSIGNED, signature
from spnet.runs.weights import to_bytes


def config(draw: Draw, at: Places) -> str:
    verb = draw(st.sampled_from(("predict", "predict", "eval", "budget", "resume", "report", "export", "init")))
    content = draw(spoilt_json((at.run / "config.json").read_bytes()))
    return _on_a_run(at, verb, "config.json", content)


def weights(draw: Draw, at: Places) -> str:
    whole = (at.run / "model.safetensors").read_bytes()
    kind = draw(st.sampled_from(("bytes", "tensors", "signed tensors")))
    if kind == "bytes":
        content = draw(spoilt_bytes(whole))
    else:
        content = (save if kind == "tensors" else to_bytes)(draw(spoilt_tensors(load(whole))))
    verb = draw(st.sampled_from(("predict", "onnx", "eval", "budget", "report", "export", "init")))
    return _on_a_run(at, verb, "model.safetensors", content)


def state(draw: Draw, at: Places) -> str:
    if draw(st.integers(0, 2)):
        buffer = io.BytesIO()
        torch.save(draw(spoilt_state(at.state)), buffer)
        content = buffer.getvalue()
    else:
        content = draw(spoilt_bytes((at.stopped / "state" / "resume.pt").read_bytes()))
    return _on_a_run(at, "resume", "state/resume.pt", content)


def plain_state(draw: Draw, at: Places) -> str:
    """A state dict of the user's own, which a training starts from."""
    whole = load((at.run / "model.safetensors").read_bytes())  # in any order
    own = {name.removeprefix("backbone."): whole[name] for name in sorted(whole) if name.startswith("backbone.")}
    ending = draw(st.sampled_from((".pt", ".pth", ".safetensors")))
    state = draw(st.one_of(st.just(own), spoilt_tensors(own)))
    buffer = io.BytesIO()
    held = draw(st.sampled_from((state, {"state_dict": state}, {"model": state, "epoch": 3}, [state], None)))
    torch.save(held, buffer)
    content = save(state) if ending == ".safetensors" else buffer.getvalue()
    file, new = at.home / f"own{ending}", at.home / "new"
    file.write_bytes(draw(st.one_of(st.just(content), spoilt_bytes(content))))
    tiny = ("--backbone", "resnet8", "--epochs", 1, "--batch-size", 6, "--hidden", 8, "--time-limit", 1e-9)
    try:
        return at.answer("train", "--data", f"folder:{at.pictures}", *tiny, "--init", file, "--out", new)
    finally:
        file.unlink()
        shutil.rmtree(new, ignore_errors=True)


def metrics(draw: Draw, at: Places) -> str:
    content = draw(spoilt_lines((at.run / "metrics.jsonl").read_bytes()))
    return _on_a_run(at, draw(st.sampled_from(("report", "several"))), "metrics.jsonl", content)


def record(draw: Draw, at: Places) -> str:
    content = draw(spoilt_json((at.run / "result.json").read_bytes()))
    verb = draw(st.sampled_from(("report", "several", "finished", "auto")))
    return _on_a_run(at, verb, "result.json", content)


def _on_a_run(at: Places, verb: str, name: str, content: bytes) -> str:
    before = (at.run / name).read_bytes()
    wrong = _answer_on_a_run(at, verb, name, content)
    return f"{wrong} [{name} {difference(before, content)}]" if wrong else ""


def _answer_on_a_run(at: Places, verb: str, name: str, content: bytes) -> str:
    if verb in ("resume", "finished"):
        with at.copied(at.stopped if verb == "resume" else at.run) as run:
            (run / name).write_bytes(content)
            return at.answer("train", "--resume", run, "--json")
    with at.spoilt(at.run / name, content):
        if verb == "init":
            new = at.home / "new"
            tiny = ("--backbone", "resnet8", "--epochs", 1, "--batch-size", 6, "--hidden", 8, "--time-limit", 1e-9)
            try:
                return at.answer("train", "--data", f"folder:{at.pictures}", *tiny, "--init", at.run, "--out", new)
            finally:
                shutil.rmtree(new, ignore_errors=True)
        more: dict[str, tuple[object, ...]] = {
            "predict": ("predict", at.run, at.picture, "--json"),
            "auto": ("predict", at.run, at.picture, "--executor", "auto"),
            "onnx": ("predict", at.run, at.picture, "--executor", "onnx", "--json"),
            "eval": ("eval", at.run, "--json"),
            "budget": ("eval", at.run, "--budget", 0.9, "--json"),
            "export": ("export", at.run, at.page, "--static-path", "all"),
            "report": ("report", at.run, "--out", at.page),
            "several": ("report", at.run, at.stopped, "--out", at.page),
        }
        return at.answer(*more[verb])


def records(draw: Draw, at: Places) -> str:
    """The committed records that tables are made of."""
    file = draw(st.sampled_from(sorted(at.records.glob("*.json"))))
    before = file.read_bytes()
    content = draw(spoilt_json(before))
    target, out = draw(st.sampled_from(TARGETS)), at.home / "tables"
    with at.spoilt(file, content):
        try:
            argv = ("reproduce", target, "--scale", "smoke", "--finished-only", "--results", at.records, "--out", out)
            wrong = at.answer(*argv, "--json")
        finally:
            shutil.rmtree(out, ignore_errors=True)
    return f"{wrong} [{difference(before, content)}]" if wrong else ""


def exported(draw: Draw, at: Places) -> str:
    content = at.onnx.read_bytes()
    if draw(st.integers(0, 2)):
        content = draw(spoilt_bytes(content))
    else:
        model = onnx.load_from_string(content)
        entry = draw(st.sampled_from(list(model.metadata_props)))
        value = entry.value
        if entry.key == "sha256" or draw(st.integers(0, 3)) == 0:
            entry.key, value = draw(st.sampled_from((entry.key, "more"))), draw(st.text(max_size=20))
        elif value.startswith(("[", "{", "null")):
            value = as_json(draw(spoilt_values(json.loads(value)))).decode()
        entry.value = value.encode("utf-8", "replace").decode()
        for signed in (prop for prop in model.metadata_props if prop.key == "sha256"):
            signed.value = UNSIGNED.decode()
        content = model.SerializeToString()
        content = content.replace(UNSIGNED, signature(content, "").encode())
    with at.spoilt(at.onnx, content):

        def run() -> None:
            file = open_export(at.onnx)
            _, decisions = file(np.zeros((2, *file.facts["input_shape"]), np.uint8))
            file.macs(decisions)

        return call(run)


def profile(draw: Draw, at: Places) -> str:
    with at.spoilt(profile_path(), draw(spoilt_json(profile_path().read_bytes()))):
        return at.answer("predict", at.run, at.picture, "--executor", "auto", "--json")
