"""One recipe trained on every choice of rows and tested on the customer's held-out rows.

What decides a figure by luck is decided by a seed, alike for every method: a method that draws
draws again, and the held-out rows are resampled within their classes. So a seed is one more draw
and one more sample of patients like these, and methods are compared seed by seed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from threadpoolctl import threadpool_limits

from clearinghouse.client.recipes import train
from clearinghouse.columns import Label
from clearinghouse.features import encode
from clearinghouse.rehearsal.oracle import World
from clearinghouse.tables import Table
from matching.paired import resampled_interval

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

RECIPE = "logistic"
SEEDS = 20
FIGURES = ("auc", "accuracy", "log_loss")
NUMBER_FIGURES = ("mae", "rmse")
LEAST_CHANCE = 1e-6
"""A probability is not taken for smaller: log loss stays finite."""

PAIRING = (
    "difference is clearinghouse minus method; each seed draws every method's rows again (the "
    "market's own within its orders) and resamples the held-out rows within their classes, alike "
    "for every method; the interval is the difference on all held-out rows plus and minus "
    "Student's t times the standard deviation of the differences over the seeds"
)


@dataclass(frozen=True, slots=True)
class Choice:
    """What one method would train on.

    Attributes:
        shown: Sets whose mean figure is shown; one where the method has one set.
        drawn: A set for each seed; the same one where the method draws nothing.
    """

    shown: Sequence[Ints]
    drawn: Sequence[Ints]

    @classmethod
    def fixed(cls, rows: Ints) -> "Choice":
        """A method that always takes the same rows."""
        return cls([rows], [rows] * SEEDS)

    @classmethod
    def of_draws(cls, drawn: Sequence[Ints]) -> "Choice":
        """A method that draws, once a seed: what is shown is the mean over its draws."""
        return cls(drawn, drawn)


def figures(label: Label, found: Floats, truth: NDArray[Any]) -> dict[str, float | None]:
    """What predictions are worth.

    Args:
        label: Says what is predicted.
        found: Probability of class 1 (n,), of each class (n, classes), or the number (n,).
        truth: Labels (n,), n >= 1: class codes or numbers.

    Returns:
        Of classes: auc (mean one-vs-rest over the classes present where there are three or more;
        None where fewer than two are present), accuracy (the share of rows whose likeliest class is
        theirs) and log_loss. Of a number, which is never simply right: mae and rmse.
    """
    if label.kind == "number":
        errors = np.clip(found, label.low, label.high) - truth
        return {
            "mae": float(np.mean(np.abs(errors))),
            "rmse": float(np.sqrt(np.mean(errors**2))),
        }
    if label.is_binary:
        found = np.column_stack([1 - found, found])
    chance = np.clip(found, LEAST_CHANCE, None)
    chance = chance / chance.sum(axis=1, keepdims=True)
    present = np.unique(truth).tolist()
    ranked = [1] if label.is_binary else present
    auc = [_auc(chance[:, k], truth == k) for k in ranked if len(present) > 1]
    return {
        "auc": float(np.mean(auc)) if auc else None,
        "accuracy": float(np.mean(chance.argmax(axis=1) == truth)),
        "log_loss": float(-np.log(chance[np.arange(len(truth)), truth]).mean()),
    }


def _auc(chance: Floats, positive: NDArray[np.bool_]) -> float:
    """The share of (positive, negative) pairs that are ranked right; ties count half."""
    positives = int(positive.sum())
    above = rankdata(chance)[positive].sum() - positives * (positives + 1) / 2
    return float(above / (positives * (len(positive) - positives)))


def resample(label: Label, truth: NDArray[Any], seed: int) -> Ints:
    """As many held-out rows, drawn with replacement; of classes, as many of each class."""
    generator = np.random.default_rng(seed)
    if not len(truth):
        return np.zeros(0, np.int64)
    if label.kind == "number":
        return generator.integers(0, len(truth), len(truth)).astype(np.int64)
    parts = [np.flatnonzero(truth == k) for k in np.unique(truth)]
    return np.concatenate([generator.choice(part, len(part)) for part in parts]).astype(np.int64)


def compare_choices(
    world: World, pool: Table, choices: Mapping[str, Choice], seed: int
) -> dict[str, Any]:
    """Figures of every method, seed by seed, with the paired difference to `clearinghouse`.

    Args:
        world: Has the held-out rows.
        pool: The rows that choices are made from.
        choices: By method; `clearinghouse` among them.
        seed: First of `SEEDS` seeds.

    Returns:
        By method: each figure (its mean over the shown sets; an AUC nobody knows is 0.5), n (rows
        of the first shown set), status ("undetermined" where no AUC is known: one class, or no
        row), `per_seed` {figure: [value or None]}, and but for `clearinghouse` `difference`
        {figure: {value, low, high, seeds}}, each None where it is not known.
    """
    label, held = world.schema.label, encode(world.schema, world.holdout)
    truth = world.holdout.labels if label.kind == "number" else label.codes(world.holdout.labels)
    everyone = np.arange(len(truth))
    again = [resample(label, truth, seed + i) for i in range(SEEDS)]
    found: dict[str, Any] = {}
    # many small fits: a second thread for each costs more than it helps
    with threadpool_limits(limits=1):
        for name, choice in choices.items():
            predict = _predictor(world, pool, held, seed)
            shown = [_figures(label, predict(rows), truth, everyone) for rows in choice.shown]
            drawn = [
                _figures(label, predict(rows), truth, index)
                for rows, index in zip(choice.drawn, again, strict=True)
            ]
            found[name] = _entry(label, shown, drawn, len(choice.shown[0]))
    for name, entry in found.items():
        if name != "clearinghouse":
            entry["difference"] = _differences(found["clearinghouse"], entry)
    return found


@dataclass(frozen=True, slots=True)
class _Predicted:
    """Predictions of the held-out rows, and whether the training set could rank them."""

    values: Floats
    ranks: bool


def _predictor(
    world: World, pool: Table, held: Floats, seed: int
) -> Callable[[Ints], _Predicted | None]:
    """Predicts from a training set, trained on once; None from no rows."""
    known: dict[bytes, _Predicted] = {}

    def predict(rows: Ints) -> _Predicted | None:
        if not len(rows) or not len(held):
            return None
        key = rows.tobytes()
        if key not in known:
            training = pool.take(rows)
            model = train(RECIPE, world.schema, training, seed)
            known[key] = _Predicted(model.predict(held), len(np.unique(training.labels)) > 1)
        return known[key]

    return predict


def _figures(
    label: Label, found: _Predicted | None, truth: NDArray[Any], index: Ints
) -> dict[str, float | None]:
    if found is None:
        return dict.fromkeys(_names(label))
    measured = figures(label, found.values[index], truth[index])
    return measured if found.ranks or label.kind == "number" else measured | {"auc": None}


def _names(label: Label) -> tuple[str, ...]:
    return NUMBER_FIGURES if label.kind == "number" else FIGURES


def _entry(
    label: Label,
    shown: Sequence[Mapping[str, float | None]],
    drawn: Sequence[Mapping[str, float | None]],
    rows: int,
) -> dict[str, Any]:
    names = _names(label)
    means = {name: _mean([one[name] for one in shown]) for name in names}
    known = means[names[0]] is not None
    per_seed = {name: [_rounded(one[name]) for one in drawn] for name in names}
    return {
        **dict.fromkeys(FIGURES),
        **means,
        "auc": 0.5 if means.get("auc") is None else means["auc"],
        "n": rows,
        "status": "ok" if known else "undetermined",
        "per_seed": per_seed,
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return _rounded(float(np.mean(known))) if known else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, mine in ours["per_seed"].items():
        pairs = zip(mine, theirs["per_seed"][name], strict=True)
        apart = [a - b for a, b in pairs if a is not None and b is not None]
        sides = (ours[name], theirs[name])
        unranked = name == "auc" and "undetermined" in (ours["status"], theirs["status"])
        if unranked or None in sides:
            found[name] = {"value": None, "low": None, "high": None, "seeds": len(apart)}
            continue
        value = sides[0] - sides[1]
        low, high = resampled_interval(value, apart) or (None, None)
        ends: dict[str, float | None] = {"value": value, "low": low, "high": high}
        found[name] = {key: _rounded(end) for key, end in ends.items()} | {"seeds": len(apart)}
    return found
