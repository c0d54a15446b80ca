"""Tables of scored models: of two classes, of several, of a number; the subgroups of each."""

from collections.abc import Mapping

from clearinghouse.report.tables import Column, Table
from clearinghouse.report.words import (
    compact,
    count,
    decimal,
    interval,
    items,
    mapping,
    number,
    one_line,
    percent,
    significant,
    text_of,
)

__all__ = ["classes_table", "of_numbers", "score_groups_table", "scores_table"]


def of_numbers(report: Mapping[str, object]) -> bool:
    """Whether the models predict a number, which has errors in place of an AUC."""
    return any(score.get("task") == "number" for score in items(report.get("scores")))


def scores_table(report: Mapping[str, object], marked: int = -1) -> Table:
    """One row a model; of a number its errors."""
    if of_numbers(report):
        return _errors_table(report, marked)
    rows = []
    for score in items(report.get("scores")):
        reference = mapping(score.get("plaintext_reference"))
        intervals = mapping(score.get("intervals"))
        row = (
            text_of(score.get("developer")),
            _model(score),
            decimal(score.get("auc")),
            interval(intervals.get("auc")),
            decimal(reference.get("auc")),
            decimal(score.get("accuracy")),
            decimal(reference.get("accuracy")),
            decimal(score.get("sensitivity")),
            decimal(score.get("specificity")),
            decimal(score.get("brier")),
            *_end(score),
        )
        rows.append(row)
    columns = (
        Column("developer"),
        Column("model", wide=True),
        Column("AUC", True),
        Column("90% interval", True),
        Column("AUC in clear", True),
        Column("accuracy", True),
        Column("accuracy in clear", True, wide=True),
        Column("sensitivity", True, wide=True),
        Column("specificity", True, wide=True),
        Column("Brier", True, wide=True),
        *_END,
    )
    title = "Models, scored on encrypted patients"
    if any(score.get("classes") for score in items(report.get("scores"))):
        title += ": means over the classes, each against the rest"
    return Table(title, columns, tuple(rows), marked)


_END = (
    Column("exact"),
    Column("epsilon", True, wide=True),
    Column("status"),
    Column("receipt", wide=True),
)


def _model(score: Mapping[str, object]) -> str:
    return f"{text_of(score.get('model'))} ({text_of(score.get('kind'))})"


def _end(score: Mapping[str, object]) -> tuple[str, str, str, str]:
    exact = score.get("exact_counts_match")
    words = ("yes" if exact else "NO") if isinstance(exact, bool) else "not checked"
    return (
        words,
        compact(score.get("epsilon")),
        text_of(score.get("status")),
        text_of(score.get("receipt")),
    )


def _errors_table(report: Mapping[str, object], marked: int) -> Table:
    """Errors in units of the label: from residual bins, so intervals hold wherever in a bin."""
    rows = []
    for score in items(report.get("scores")):
        reference = mapping(score.get("plaintext_reference"))
        ends = mapping(score.get("intervals"))
        row = (
            text_of(score.get("developer")),
            _model(score),
            significant(score.get("mse")),
            _span(ends.get("mse")),
            significant(reference.get("mse")),
            significant(score.get("rmse")),
            _span(ends.get("rmse")),
            significant(score.get("mae")),
            _span(ends.get("mae")),
            significant(score.get("bias")),
            _span(ends.get("bias")),
            *_end(score),
        )
        rows.append(row)
    columns = (
        Column("developer"),
        Column("model", wide=True),
        Column("MSE", True),
        Column("90% interval", True),
        Column("MSE in clear", True),
        Column("RMSE", True),
        Column("RMSE, 90%", True, wide=True),
        Column("MAE", True),
        Column("MAE, 90%", True, wide=True),
        Column("bias", True),
        Column("bias, 90%", True, wide=True),
        *_END,
    )
    title = "Models, scored on encrypted patients: errors in units of the label"
    return Table(title, columns, tuple(rows), marked)


def _span(value: object) -> str:
    ends = value if isinstance(value, list | tuple) and len(value) == 2 else (None, None)
    low, high = (significant(end) for end in ends)
    return f"{low} to {high}" if number(ends[0]) is not None else low


def classes_table(report: Mapping[str, object]) -> Table:
    """Each class against the rest; empty where labels have two levels or are numbers."""
    rows = []
    for score in items(report.get("scores")):
        for one in items(score.get("classes")):
            ends = mapping(one.get("intervals"))
            row = (
                text_of(score.get("developer")),
                text_of(one.get("level")),
                decimal(one.get("auc")),
                interval(ends.get("auc")),
                decimal(one.get("plaintext_auc")),
                decimal(one.get("sensitivity")),
                interval(ends.get("sensitivity")),
                decimal(one.get("specificity")),
                interval(ends.get("specificity")),
                decimal(one.get("accuracy")),
                text_of(one.get("status")),
            )
            rows.append(row)
    columns = (
        Column("developer"),
        Column("class"),
        Column("AUC", True),
        Column("90% interval", True),
        Column("AUC in clear", True),
        Column("sensitivity", True),
        Column("sensitivity, 90%", True, wide=True),
        Column("specificity", True),
        Column("specificity, 90%", True, wide=True),
        Column("accuracy", True, wide=True),
        Column("status"),
    )
    return Table("Each class against the rest", columns, tuple(rows))


def score_groups_table(report: Mapping[str, object]) -> Table:
    """Rates by subgroup, from noised counts; of a number how often it is overestimated.

    Of several classes a row for each class.
    """
    if of_numbers(report):
        return _overestimates_table(report)
    rows = []
    several = False
    for score in items(report.get("scores")):
        for levels in mapping(score.get("subgroups")).values():
            for level, found in mapping(levels).items():
                each = mapping(mapping(found).get("classes"))
                several = several or bool(each)
                for of_class, rates in each.items() if each else [("", found)]:
                    rows.append(_group_row(score, level, of_class, mapping(rates)))
    columns: tuple[Column, ...] = (
        Column("developer"),
        Column("patients"),
        Column("class"),
        Column("sensitivity", True),
        Column("specificity", True),
        Column("true positives", True, wide=True),
        Column("false positives", True, wide=True),
        Column("status"),
    )
    if not several:
        columns = (*columns[:2], *columns[3:])
        rows = [(*row[:2], *row[3:]) for row in rows]
    return Table("Rates by subgroup, from noised counts", columns, tuple(rows))


def _group_row(
    score: Mapping[str, object], level: str, of_class: str, rates: Mapping[str, object]
) -> tuple[str, ...]:
    return (
        text_of(score.get("developer")),
        one_line(level),
        one_line(of_class),
        decimal(rates.get("sensitivity"), 2),
        decimal(rates.get("specificity"), 2),
        count(rates.get("true_positives")),
        count(rates.get("false_positives")),
        text_of(rates.get("status")),
    )


def _overestimates_table(report: Mapping[str, object]) -> Table:
    rows = tuple(
        (
            text_of(score.get("developer")),
            one_line(level),
            percent(mapping(found).get("overestimated_share")),
            count(mapping(found).get("overestimated")),
            text_of(mapping(found).get("status")),
        )
        for score in items(report.get("scores"))
        for levels in mapping(score.get("subgroups")).values()
        for level, found in mapping(levels).items()
    )
    columns = (
        Column("developer"),
        Column("patients"),
        Column("predicted too high", True),
        Column("of them", True, wide=True),
        Column("status"),
    )
    return Table("Overestimates by subgroup, from noised counts", columns, rows)
