"""Reports of models of several classes, and of models that predict a number."""

import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from clearinghouse.report.charts import all_charts
from clearinghouse.report.headline import best_score, headline
from clearinghouse.report.html import render_html
from clearinghouse.report.story import tell
from clearinghouse.report.tables import downstream_table
from clearinghouse.report.tables_scores import classes_table, score_groups_table, scores_table

Sample = Callable[..., dict[str, Any]]


def told(report: dict[str, Any]) -> str:
    out = io.StringIO()
    tell(report, Console(file=out, width=100))
    return out.getvalue()


def columns_of(table: Any) -> dict[str, str]:
    """The first row by column title."""
    return dict(zip((column.title for column in table.columns), table.rows[0], strict=True))


def test_a_number_has_errors_with_intervals_and_no_auc(sample: Sample) -> None:
    report = sample(task="number")
    first = columns_of(scores_table(report))
    assert (first["MSE"], first["90% interval"], first["MSE in clear"]) == (
        "812",
        "406 to 1,625",
        "772",
    )
    assert (first["RMSE"], first["MAE"], first["bias"]) == ("28.5", "20.1", "-3.20")
    assert first["bias, 90%"] == "-8.00 to 2.00"
    assert not any("AUC" in title for title in first)
    assert classes_table(report).rows == ()
    groups = columns_of(score_groups_table(report))
    assert (groups["patients"], groups["predicted too high"], groups["of them"]) == (
        "F",
        "44%",
        "22",
    )
    text = told(report)
    assert "406 to 1,625" in text
    assert "AUC" not in text.split("Models, scored")[1].split("Distance")[0]


def test_the_best_model_of_numbers_has_the_smallest_error(sample: Sample) -> None:
    report = sample(task="number")
    found = best_score(report)
    assert found is not None
    assert (found[0], found[2]) == (2, "mse")
    card = headline(report).score
    assert (card.figure.shown, card.figure.pointers) == ("612", ("/scores/2/mse",))
    assert "mean squared error of trees on encrypted patients" in card.sentence
    assert {"root mean squared error", "mean absolute error", "bias"} <= {
        fact.label for fact in card.facts
    }
    del report["purse"]
    found = best_score(report)
    assert found is not None
    assert (found[0], found[2]) == (2, "mse")


def test_residuals_are_drawn_in_their_bins(sample: Sample) -> None:
    charts = all_charts(sample(task="number"))["scores"]
    assert [chart.name for chart in charts] == ["errors", *(f"residuals{i}" for i in range(3))]
    residuals = charts[1]
    assert "The fullest bin goes from 0 to 40; 85 patients in all" in residuals.summary
    # seven bins, of which the first is all beyond the label's range
    assert residuals.svg.count('id="residuals0-patch_') == 1 + 6 + 1
    assert [chart.name for chart in all_charts(sample())["scores"]] == ["roc", "auc"]


def test_each_class_has_a_row_and_a_mark(sample: Sample) -> None:
    report = sample(task="classes", n_developers=2)
    table = classes_table(report)
    assert [row[:3] for row in table.rows[:3]] == [
        ("logistic", "none", "0.700"),
        ("logistic", "mild", "0.750"),
        ("logistic", "grave", "0.800"),
    ]
    assert len(table.rows) == 6
    assert columns_of(table)["sensitivity, 90%"] == "0.400 to 0.800"
    groups = score_groups_table(report)
    assert [row[:3] for row in groups.rows[:3]] == [
        ("logistic", "F", grade) for grade in ("none", "mild", "grave")
    ]
    charts = {chart.name: chart for chart in all_charts(report)["scores"]}
    assert set(charts) == {"roc", "auc", "classes"}
    assert "logistic: grave 0.800" in charts["roc"].summary
    assert "Each class against the rest" in told(report)
    assert "means over the classes" in scores_table(report).title


@pytest.mark.parametrize("task", ["classes", "number"])
def test_pages_of_each_kind_are_whole_and_names_are_inert(sample: Sample, task: str) -> None:
    page = render_html(sample(task=task))
    assert page == render_html(sample(task=task))
    if task == "number":
        assert "mean squared error of at most 900" in page
        assert "Residuals of trees" in page
    hostile = render_html(sample(task=task, hostile=True))
    assert "<script>" not in hostile
    assert "alert(1)>" not in hostile.replace("&gt;", "")
    told(sample(task=task, hostile=True))


@pytest.mark.parametrize("task", ["binary", "classes", "number"])
def test_models_on_held_out_patients_are_compared_with_intervals(sample: Sample, task: str) -> None:
    report = sample(task=task)
    table = downstream_table(report)
    titles = [column.title for column in table.columns]
    measures = ["RMSE", "MAE"] if task == "number" else ["AUC", "accuracy", "log loss"]
    assert titles == [
        "trained on",
        *measures,
        "rows",
        *(f"{measure} diff., 90%" for measure in measures),
        "matched set is",
    ]
    text = told(report).split("Downstream: tested")[1].split("Privacy budget")[0]
    assert "ahead, in noise" in text
    first = "rmse" if task == "number" else "auc"
    ends = report["downstream"]["use_all"]["difference"][first]
    row = next(row for row in table.rows if row[0] == "use every record")
    low, high = row[titles.index(f"{measures[0]} diff., 90%")].split(" to ")
    assert [float(low), float(high)] == pytest.approx([ends["low"], ends["high"]], rel=0.01)
    assert float(high) > 0 > float(low)


def test_a_clearly_better_baseline_stands_first_and_is_called_so(sample: Sample) -> None:
    report = sample(baseline_wins=True)
    first = downstream_table(report).rows[0]
    assert (first[0], first[-1]) == ("use every record", "clearly behind")
    assert "worse than use every record" in render_html(report)
