"""The part of an invented report that compares models on held-out patients."""

from typing import Any

SEEDS = 20


def downstream(baseline_wins: bool, undetermined: bool, task: str) -> dict[str, Any]:
    """Every method's figures; a baseline that wins does so clearly, the others are in noise."""
    auc = {
        "clearinghouse": 0.761,
        "random": 0.733,
        "use_all": 0.779 if baseline_wins else 0.752,
        "label_only": 0.741,
    }
    found: dict[str, Any] = {}
    for name, value in auc.items():
        figures = {"auc": value, "accuracy": value - 0.04, "log_loss": round(1.3 - value, 4)}
        if task == "number":
            figures = {"mae": round(60 - 50 * value, 3), "rmse": round(80 - 50 * value, 3)}
        if undetermined:
            figures = figures | {"auc": 0.5}
        found[name] = {
            "auc": 0.5,
            "accuracy": None,
            "log_loss": None,
            **figures,
            "n": 719 if name == "use_all" else 150,
            "status": "undetermined" if undetermined else "ok",
            "per_seed": {key: [figure] * SEEDS for key, figure in figures.items()},
        }
    for name, entry in found.items():
        if name != "clearinghouse":
            clear = baseline_wins and name == "use_all"
            entry["difference"] = {
                key: _difference(found["clearinghouse"][key], entry[key], clear)
                for key in entry["per_seed"]
                if not (undetermined and key == "auc")
            }
    return found


def _difference(ours: float, theirs: float, clear: bool) -> dict[str, Any]:
    value = round(ours - theirs, 6)
    reach = abs(value) / 2 if clear else 2 * abs(value) + 0.01
    ends = {"low": round(value - reach, 6), "high": round(value + reach, 6)}
    return {"value": value, **ends, "seeds": SEEDS}
