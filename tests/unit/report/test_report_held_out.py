"""Models on held-out rows: figures by definition, pairing, and the judgements they lead to."""

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from clearinghouse.rehearsal.comparison import redrawn
from clearinghouse.rehearsal.held_out import SEEDS, Choice, compare_choices, figures, resample
from clearinghouse.rehearsal.oracle import World
from clearinghouse.report.winners import ahead, measures, standing, winners
from clearinghouse.schema import Schema, parse_schema
from clearinghouse.tables import Table, from_records, pooled
from matching.baselines import draw_random

LABELS = {
    "binary": {"name": "ill", "levels": [0, 1]},
    "classes": {"name": "ill", "levels": ["none", "mild", "grave"]},
    "number": {"name": "ill", "kind": "number", "low": 0, "high": 10},
}


def schema_of(task: str) -> Schema:
    return parse_schema(
        {
            "name": "made",
            "label": LABELS[task],
            "columns": {"dose": {"kind": "number", "low": 0, "high": 10, "cuts": [5]}},
            "strata": [["dose"]],
        },
        file="made",
    )


def label_of(task: str, dose: float, told: bool, luck: float) -> Any:
    """The label that a dose leads to, or one that has nothing to do with it."""
    score = dose if told else 10 * luck
    if task == "number":
        return round(score, 3)
    levels = LABELS[task]["levels"]
    return levels[min(int(score / 10 * len(levels)), len(levels) - 1)]


def rows_of(task: str, n: int, *, told: bool, seed: int) -> Table:
    rng = np.random.default_rng(seed)
    doses, luck = rng.uniform(0, 10, n), rng.uniform(0, 1, n)
    rows = [
        {"dose": f"{dose:.3f}", "ill": str(label_of(task, float(dose), told, float(x)))}
        for dose, x in zip(doses, luck, strict=True)
    ]
    return from_records(SCHEMAS[task], rows, file="made")


SCHEMAS = {task: schema_of(task) for task in LABELS}
N = 60


def compared(task: str, ours: Table, theirs: Table, *, held: int = 80) -> dict[str, Any]:
    """A report that holds `ours` against `theirs`, both as one fixed set."""
    holdout = rows_of(task, held, told=True, seed=5)
    world = World(SCHEMAS[task], holdout, holdout, {"ours": ours, "theirs": theirs})
    rows = np.arange(ours.n + theirs.n)
    choices = {
        "clearinghouse": Choice.fixed(rows[: ours.n]),
        "use_all": Choice.fixed(rows[ours.n :]),
    }
    return {"downstream": compare_choices(world, pooled([ours, theirs]), choices, 3)}


@pytest.mark.parametrize("task", LABELS)
def test_a_baseline_that_is_better_by_far_is_named_a_clear_winner(task: str) -> None:
    blind, seeing = (rows_of(task, N, told=told, seed=1) for told in (False, True))
    report = compared(task, blind, seeing)
    first = measures(report)[0]
    assert ahead(report, "use_all", first) == (-1, "clear")
    (said,) = winners(report)
    assert said.startswith("A baseline wins: use every record")
    assert "worse than use every record" in standing(report)
    turned = compared(task, seeing, blind)
    assert ahead(turned, "use_all", first) == (1, "clear")
    assert winners(turned) == []
    assert "better than use every record" in standing(turned)


@pytest.mark.parametrize("task", LABELS)
def test_one_that_is_ahead_within_noise_is_named_and_called_so(task: str) -> None:
    """Draws of one population against other draws of it: whichever is ahead is so by luck."""
    holdout = rows_of(task, 80, told=True, seed=5)
    pool = rows_of(task, 400, told=True, seed=8)
    world = World(SCHEMAS[task], holdout, holdout, {"all": pool})
    mine, theirs = ([draw_random(400, N, seed + i) for i in range(SEEDS)] for seed in (100, 200))
    reports = [
        {
            "downstream": compare_choices(
                world, pool, {"clearinghouse": Choice([a[0]], a), "use_all": Choice([b[0]], b)}, 3
            )
        }
        for a, b in ((mine, theirs), (theirs, mine))
    ]
    measure = measures(reports[0])[-1]
    sides = [ahead(report, "use_all", measure) for report in reports]
    assert sorted(side for side, _ in sides) == [-1, 1]
    assert {sure for _, sure in sides} == {"noise"}
    behind = reports[sides.index((-1, "noise"))]
    said = [sentence for sentence in winners(behind) if measure.words in sentence]
    assert len(said) == 1
    assert "within noise" in said[0]


@pytest.mark.parametrize("task", LABELS)
def test_the_interval_is_recomputed_from_the_values_of_each_seed(task: str) -> None:
    report = compared(task, *(rows_of(task, N, told=told, seed=2) for told in (True, False)))
    ours, theirs = (report["downstream"][name] for name in ("clearinghouse", "use_all"))
    assert set(ours["per_seed"]) == {m.key for m in measures(report)}
    for key, values in ours["per_seed"].items():
        apart = np.array(values) - np.array(theirs["per_seed"][key])
        found = theirs["difference"][key]
        assert found["seeds"] == len(apart) == SEEDS
        assert found["value"] == pytest.approx(ours[key] - theirs[key], abs=2e-6)
        reach = 1.7291328 * apart.std(ddof=1)  # t at 95%, 19 degrees of freedom
        assert [found["low"], found["high"]] == pytest.approx(
            [found["value"] - reach, found["value"] + reach], abs=3e-6
        )


def test_pairing_takes_out_what_held_out_rows_do_to_both() -> None:
    """A set against itself with one row more: the difference varies far less than the figures."""
    rows = rows_of("binary", N, told=True, seed=4)
    more = rows_of("binary", 1, told=True, seed=6)
    report = compared("binary", rows, pooled([rows, more]))
    ours, theirs = (report["downstream"][name] for name in ("clearinghouse", "use_all"))
    own = np.std(ours["per_seed"]["log_loss"])
    ends = theirs["difference"]["log_loss"]
    assert ends["high"] - ends["low"] < own


def test_a_set_of_one_class_is_no_excuse() -> None:
    """No model can be ranked that never saw an ill patient; one that could be is the better one."""
    seeing = rows_of("binary", N, told=True, seed=1)
    healthy = seeing.take(np.flatnonzero(seeing.labels == 0))
    report = compared("binary", healthy, seeing)
    ours = report["downstream"]["clearinghouse"]
    assert (ours["status"], ours["auc"]) == ("undetermined", 0.5)
    assert ours["per_seed"]["auc"] == [None] * SEEDS
    assert 0 < ours["accuracy"] < 1
    assert "none from the matched set" in " ".join(winners(report))


def test_no_delivered_row_gives_no_figure_and_no_interval() -> None:
    seeing = rows_of("binary", N, told=True, seed=1)
    report = compared("binary", seeing.take(np.zeros(0, np.int64)), seeing)
    ours, theirs = (report["downstream"][name] for name in ("clearinghouse", "use_all"))
    assert (ours["accuracy"], ours["log_loss"], ours["n"]) == (None, None, 0)
    assert theirs["difference"]["accuracy"] == {
        "value": None,
        "low": None,
        "high": None,
        "seeds": 0,
    }
    assert winners(report)


@pytest.mark.parametrize("task", LABELS)
def test_without_held_out_rows_nothing_is_claimed(task: str) -> None:
    rows = rows_of(task, N, told=True, seed=1)
    nobody = rows.take(np.zeros(0, np.int64))
    world = World(SCHEMAS[task], rows, nobody, {"all": rows})
    choices = {name: Choice.fixed(np.arange(N)) for name in ("clearinghouse", "use_all")}
    report = {"downstream": compare_choices(world, rows, choices, 3)}
    assert {entry["status"] for entry in report["downstream"].values()} == {"undetermined"}
    assert (winners(report), standing(report)) == ([], "")


def test_figures_by_hand() -> None:
    label = SCHEMAS["binary"].label
    found = figures(label, np.array([0.2, 0.6, 0.7, 0.4]), np.array([0, 0, 1, 1]))
    assert found["auc"] == 0.75
    assert found["accuracy"] == 0.5
    assert found["log_loss"] == pytest.approx(-np.log([0.8, 0.4, 0.7, 0.4]).mean())
    grades = SCHEMAS["classes"].label
    chance = np.array([[0.5, 0.3, 0.2], [0.1, 0.3, 0.6], [0.2, 0.3, 0.5]])
    found = figures(grades, chance, np.array([0, 1, 2]))
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["auc"] == pytest.approx(np.mean([1.0, 0.5, 0.5]), abs=1e-12)
    number = figures(SCHEMAS["number"].label, np.array([2.0, 30.0]), np.array([1.0, 6.0]))
    assert number == {"mae": 2.5, "rmse": pytest.approx(np.sqrt(8.5))}


@pytest.mark.parametrize("classes", [2, 3])
def test_figures_are_those_of_scikit_learn(classes: int) -> None:
    """With ties, and with a class that no row has."""
    rng = np.random.default_rng(classes)
    label = SCHEMAS["binary" if classes == 2 else "classes"].label
    for _ in range(20):
        truth = rng.integers(0, 2, 40)
        parts = rng.multinomial(16 - classes, np.ones(classes) / classes, 40)
        chance = (parts + 1) / 16  # sums are one exactly, so ties stay ties
        found = figures(label, chance[:, 1] if classes == 2 else chance, truth)
        ranked = [1] if classes == 2 else [0, 1]
        auc = np.mean([roc_auc_score(truth == k, chance[:, k]) for k in ranked])
        assert found["auc"] == pytest.approx(auc, abs=1e-12)
        assert found["log_loss"] == pytest.approx(
            log_loss(truth, chance, labels=list(range(classes)))
        )


def test_held_out_classes_keep_their_sizes_when_resampled() -> None:
    truth = np.array([0] * 50 + [1])
    for seed in range(5):
        index = resample(SCHEMAS["binary"].label, truth, seed)
        assert np.bincount(truth[index]).tolist() == [50, 1]
    assert len({resample(SCHEMAS["binary"].label, truth, s).tobytes() for s in range(5)}) == 5


def test_a_drawn_set_again_has_the_same_rows_of_each_kind() -> None:
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 6, 200)
    rows = np.sort(rng.choice(200, 40, replace=False))
    again = [redrawn(kinds, rows, seed) for seed in range(4)]
    for one in again:
        assert len(set(one.tolist())) == len(one) == 40
        assert np.array_equal(np.bincount(kinds[one]), np.bincount(kinds[rows]))
    assert len({np.sort(one).tobytes() for one in again}) == 4
    assert len(redrawn(kinds, rows[:0], 0)) == 0


def test_every_method_meets_the_same_held_out_rows_of_a_seed() -> None:
    """A set twice under two names: no seed tells them apart."""
    rows = rows_of("binary", N, told=True, seed=4)
    report = compared("binary", rows, rows)
    theirs = report["downstream"]["use_all"]
    assert theirs["per_seed"] == report["downstream"]["clearinghouse"]["per_seed"]
    assert theirs["difference"]["auc"] == {"value": 0.0, "low": 0.0, "high": 0.0, "seeds": SEEDS}
    assert len(set(theirs["per_seed"]["log_loss"])) > SEEDS // 2
    assert (winners(report), standing(report)) == ([], "")
