"""What a row of metrics.jsonl and a result.json hold, checked where they are read: a file may say anything.

A form is `float` (a number), `int`, `str`, `[form]` (a list of such), `{None: form}` (any names), or a dictionary of
forms by name; a name that is absent and a value of null always fit. Names a form does not know are left alone.
"""

import math
from collections.abc import Mapping
from typing import Any

LARGEST = 1e100
"""No figure reaches it; an infinite one says that there is none, and is left out where it is shown."""


def _each(form: Any, names: str) -> dict[str | None, Any]:
    return dict.fromkeys(names.split(), form)


_EVALUATION: dict[str | None, Any] = {
    **_each(float, "accuracy class_accuracy n macs_mean macs_static gflops_mean cost_ratio execution_rate"),
    **_each(float, "distinct_paths evolution_kl"),
    **_each(float, "accuracy_shuffled_paths accuracy_fixed_path cost_ratio_fixed_path images_per_second"),
    **_each(float, "budget calibration_cost"),
    **_each([float], "stage_accuracy execution_rate_per_block decision_entropy_per_block"),
    "missed": str,
}
ROW = {
    **_EVALUATION,
    **_each(float, "loss lr time seconds flips path_agreement train_accuracy train_macs_mean"),
    **_each(float, "validation_accuracy probe_accuracy"),
    **_each({None: float}, "losses watched gradient_share"),
    **_each([int], "always_run always_skipped"),
    **_each(int, "epoch train_images student_passes"),
    **_each(str, "phase precision"),
}
RESULT = {
    **_each(str, "hash label"),
    "config": {**_each(str, "method wrapper backbone data"), "settings": {None: object}},
    **_each(_EVALUATION, "last calibrated reestimated final"),
    "budgets": [_EVALUATION],
    "best_epoch": {"epoch": int, "validation_accuracy": float},
    "end_of_training": ROW,
    **_each(float, "train_seconds train_images student_passes"),
    "made_with": {**_each(str, "spnet commit torch python hardware precision"), "threads": int},
    "started_from": _each(str, "name hash"),
    "curves": {"phase": [str], None: [float]},
}

_IN_TABLES = _each(float, "accuracy n macs_mean macs_static gflops_mean cost_ratio distinct_paths") | _each(
    float, "accuracy_shuffled_paths accuracy_fixed_path cost_ratio_fixed_path"
)
KEPT = {
    "hash": str,
    "last": _IN_TABLES,
    "end_of_training": {},
    **_each(float, "train_seconds"),
    "made_with": {**_each(str, "spnet commit torch hardware precision"), "threads": int},
    "curves": {"phase": [str]},
}
"""What a record has that tables are made of."""


def lacking(record: dict[str, Any]) -> str | None:
    """What tables need and a record, whose entries have their forms, does not have; None if it is whole."""
    if (name := misfit(record, KEPT, whole=True)) is not None:
        return name
    tried = {
        "calibrated": record.get("calibrated"),
        **{f"budgets/{i}": b for i, b in enumerate(record.get("budgets") or ())},
    }
    for name, found in {"last": record["last"], **tried}.items():
        if not found or "accuracy" not in found:  # a budget that was missed
            continue
        if (wrong := misfit(found, _IN_TABLES, name, whole=True)) is not None:
            return wrong
        if not found["macs_static"] > 0:
            return f"{name}/macs_static"
    return None


def student_passes(record: Mapping[str, Any]) -> int | None:
    """Images that a training passed through the student, each as often as its steps did; rows of a table are compared
    at equal passes.

    Records of before do not say it; their methods passed every copy of an image once. None where a record says neither.
    """
    passes = record.get("student_passes") or record.get("train_images")
    return None if passes is None else int(passes)


def misfit(value: Any, form: Any, name: str = "", *, whole: bool = False) -> str | None:
    """The name of the first entry that does not have its form (`losses/path`); None if all do. `whole`: nothing may be
    absent or null."""
    if form is object or (value is None and not whole):
        return None
    forms: dict[Any, Any] = {}
    if isinstance(form, list):
        parts = enumerate(value) if isinstance(value, list) else None
        forms = {None: form[0]}
    elif isinstance(form, dict):
        parts = value.items() if isinstance(value, dict) else None
        forms = form
    else:
        kinds = (int, float) if form is float else form
        return None if isinstance(value, kinds) and not isinstance(value, bool) and _holds(value) else name
    if parts is None:
        return name
    for key, part in parts:
        inner = forms.get(key, forms.get(None, object))
        if (wrong := misfit(part, inner, f"{name}/{key}" if name else str(key), whole=whole)) is not None:
            return wrong
    absent = [key for key in forms if key is not None and key not in value] if whole and isinstance(form, dict) else []
    return (f"{name}/{absent[0]}" if name else str(absent[0])) if absent else None


def _holds(value: Any) -> bool:
    """Whether a number is one that can be reckoned with: its square is a number too."""
    limit = 2**63 if isinstance(value, int) else LARGEST
    return not isinstance(value, (int, float)) or not limit <= abs(value) < math.inf
