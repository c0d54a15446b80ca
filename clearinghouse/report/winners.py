"""Where the market's choice is behind an alternative, or not clearly ahead of it.

A difference counts as clear when its interval leaves out zero. What is not clear is said all the
same, with the word noise beside it: neither a lost nor a won comparison is left out or puffed up.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from clearinghouse.report.words import (
    count_of,
    decimal,
    mapping,
    number,
    one_line,
    pair,
    percent,
    significant,
)

REFERENCES = frozenset({"noise_free", "points_ot", "greedy_mmd", "importance", "best_source"})
"""Methods that read what a real market never shows anyone: yardsticks, not competitors."""

METHOD_WORDS = {
    "clearinghouse": "clearinghouse",
    "noise_free": "same rule without noise",
    "random": "random draw",
    "use_all": "use every record",
    "label_only": "match labels only",
    "points_ot": "transport on raw rows",
    "greedy_mmd": "greedy choice of raw rows",
    "importance": "weights from raw rows",
    "best_source": "best single source",
}

GAP_SPREADS = 1.64
"""So many standard deviations of one random draw a gap must differ by to be more than noise."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One column of the comparison on held-out patients.

    Attributes:
        key: In report.json.
        words: For people.
        highest: Whether more is better.
    """

    key: str
    words: str
    highest: bool


CLASS_MEASURES = (
    Measure("auc", "AUC", True),
    Measure("accuracy", "accuracy", True),
    Measure("log_loss", "log loss", False),
)
NUMBER_MEASURES = (Measure("rmse", "RMSE", False), Measure("mae", "MAE", False))


def method_words(name: object) -> str:
    """A method's name for people."""
    text = one_line(name)
    return METHOD_WORDS.get(text, text.replace("_", " "))


def baselines(methods: Mapping[str, object]) -> list[str]:
    """Methods that a market could really run instead, in report order."""
    return [name for name in methods if name != "clearinghouse" and name not in REFERENCES]


def measures(report: Mapping[str, object]) -> tuple[Measure, ...]:
    """What models are compared by: errors where they predict a number."""
    entries = mapping(report.get("downstream")).values()
    of_number = any(number(mapping(entry).get("rmse")) is not None for entry in entries)
    return NUMBER_MEASURES if of_number else CLASS_MEASURES


def known(entry: Mapping[str, object], measure: Measure) -> float | None:
    """A method's figure; no AUC where the report calls it undetermined."""
    if measure.key == "auc" and one_line(entry.get("status", "ok")) == "undetermined":
        return None
    return number(entry.get(measure.key))


def ahead(report: Mapping[str, object], name: str, measure: Measure) -> tuple[int, str]:
    """How the market's set stands to a method on held-out patients.

    Returns:
        1 if it is ahead, -1 behind, 0 where that is not known or equal; and whether that is
        "clear", "noise" (zero is in the interval of the difference) or "" (no interval).
    """
    table = mapping(report.get("downstream"))
    ours, theirs = (known(mapping(table.get(one)), measure) for one in ("clearinghouse", name))
    if theirs is not None and ours is None:
        return -1, "clear"  # nothing can be said of a model that could not be trained
    if ours is None or theirs is None or ours == theirs:
        return 0, ""
    side = 1 if (ours > theirs) == measure.highest else -1
    ends = difference(report, name, measure)
    if ends is None:
        return side, ""
    return side, "noise" if ends[0] <= 0 <= ends[1] else "clear"


def difference(
    report: Mapping[str, object], name: str, measure: Measure
) -> tuple[float, float] | None:
    """Ends of the interval of clearinghouse minus method, if the report has it."""
    entry = mapping(mapping(report.get("downstream")).get(name))
    found = mapping(mapping(entry.get("difference")).get(measure.key))
    return pair([found.get("low"), found.get("high")])


def winners(
    report: Mapping[str, object], *, distances: bool = True, models: bool = True
) -> list[str]:
    """A sentence for each baseline that beats the clearinghouse on any shown measure.

    One for what it wins clearly, one for what it is ahead in within noise.

    Args:
        report: The report dictionary.
        distances: Whether gap closed and W2 count.
        models: Whether figures of models on held-out patients count.
    """
    sentences = []
    for name, wins in _all_wins(report, distances, models):
        who = f"{method_words(name)}{_size(report, name)}"
        clear = [words for words, sure in wins if sure]
        unsure = [words for words, sure in wins if not sure]
        if clear:
            sentences.append(f"A baseline wins: {who}: {', '.join(clear)}.")
        if unsure:
            sentences.append(f"A baseline is ahead within noise: {who}: {', '.join(unsure)}.")
    return sentences


def winners_in_short(report: Mapping[str, object]) -> tuple[list[str], str]:
    """`winners` for the headline: the clear ones, and one sentence on those within noise."""
    clear = [sentence for sentence in winners(report) if sentence.startswith("A baseline wins")]
    unsure = [
        f"{method_words(name)} ({', '.join(_figure(words) for words in told)})"
        for name, wins in _all_wins(report, True, True)
        if (told := [words for words, sure in wins if not sure])
    ]
    return clear, f"Ahead of it within noise: {'; '.join(unsure)}." if unsure else ""


def _figure(words: str) -> str:
    """`AUC 0.691` of `AUC 0.691 against 0.682 (...)`."""
    return words.partition(" against ")[0]


def _all_wins(
    report: Mapping[str, object], distances: bool, models: bool
) -> list[tuple[str, list[tuple[str, bool]]]]:
    """Baselines that are ahead somewhere, with what in and whether by more than noise."""
    methods = mapping(mapping(report.get("match")).get("methods"))
    downstream = mapping(report.get("downstream"))
    names = [*baselines(methods), *(n for n in baselines(downstream) if n not in methods)]
    found = []
    for name in names:
        wins = _match_wins(methods, name) if distances else []
        wins += _downstream_wins(report, name) if models else []
        if wins:
            found.append((name, wins))
    return found


def _size(report: Mapping[str, object], name: str) -> str:
    """How many rows a method takes, in brackets."""
    rows = mapping(mapping(mapping(report.get("match")).get("methods")).get(name)).get("rows")
    if rows is None:
        rows = mapping(mapping(report.get("downstream")).get(name)).get("n")
    return "" if number(rows) is None else f" ({count_of(int(number(rows) or 0), 'row')})"


def _match_wins(methods: Mapping[str, object], name: str) -> list[tuple[str, bool]]:
    """Distances that a baseline is ahead by, and whether by more than noise."""
    ours, theirs = mapping(methods.get("clearinghouse")), mapping(methods.get(name))
    wins = []
    mine, other = number(ours.get("gap_closed")), number(theirs.get("gap_closed"))
    spread = number(mapping(methods.get("random")).get("gap_sd"))
    sure = True
    if mine is not None and other is not None:
        sure = spread is None or abs(other - mine) > GAP_SPREADS * spread
        if other > mine:
            wins.append((f"gap closed {percent(other)} against {percent(mine)}", sure))
    mine, other = number(ours.get("w2")), number(theirs.get("w2"))
    if mine is not None and other is not None and other < mine:
        wins.append((f"W2 {decimal(other)} against {decimal(mine)} (no interval)", True))
    return wins


def lead_in_noise(methods: Mapping[str, object]) -> str:
    """What is said where the best baseline's gap is behind by no more than noise; else empty."""
    mine = number(mapping(methods.get("clearinghouse")).get("gap_closed"))
    spread = number(mapping(methods.get("random")).get("gap_sd"))
    close = {
        name: gap
        for name in baselines(methods)
        if name != "random"
        and (gap := number(mapping(methods[name]).get("gap_closed"))) is not None
    }
    if mine is None or spread is None or not close:
        return ""
    best = max(close, key=lambda name: close[name])
    if not 0 < mine - close[best] <= GAP_SPREADS * spread:
        return ""
    return (
        f"The lead over the baseline '{method_words(best)}' (gap closed {percent(mine)} against "
        f"{percent(close[best])}) is within noise: one random draw differs from the next by "
        f"{percent(spread)}."
    )


def _downstream_wins(report: Mapping[str, object], name: str) -> list[tuple[str, bool]]:
    """Figures on held-out patients that a baseline is ahead by, and whether by more than noise."""
    table, wins = mapping(report.get("downstream")), []
    for measure in measures(report):
        side, sure = ahead(report, name, measure)
        if side >= 0:
            continue
        show = decimal if measure in CLASS_MEASURES else significant
        ours, theirs = (known(mapping(table.get(one)), measure) for one in ("clearinghouse", name))
        against = "none from the matched set" if ours is None else show(ours)
        words = f"{measure.words} {show(theirs)} against {against}"
        wins.append((words + _spread(report, name, measure), sure != "noise"))
    return wins


def _spread(report: Mapping[str, object], name: str, measure: Measure) -> str:
    """The interval of method minus clearinghouse, in brackets."""
    ends = difference(report, name, measure)
    if ends is None:
        return " (no interval)"
    show = decimal if measure in CLASS_MEASURES else significant
    low, high = (sign_of(-ends[1], show), sign_of(-ends[0], show))
    return f" (difference, 90%: {low} to {high})"


def sign_of(value: float, show: Callable[[object], str]) -> str:
    """A difference with its sign: +0.012, -0.003; zero has none."""
    text = show(value)
    return text if value <= 0 or not text.strip("0.") else f"+{text}"


def standing(report: Mapping[str, object]) -> str:
    """One sentence on the first measure: what the matched set beats, and what it does not.

    Returns:
        Empty where nothing was compared.
    """
    measure = measures(report)[0]
    groups: dict[str, list[str]] = {"better than": [], "worse than": [], "not told apart from": []}
    for name in baselines(mapping(report.get("downstream"))):
        side, sure = ahead(report, name, measure)
        if not sure:
            continue
        group = (
            "not told apart from" if sure == "noise" else ("worse than", "better than")[side > 0]
        )
        groups[group].append(method_words(name))
    told = [f"{words} {', '.join(names)}" for words, names in groups.items() if names]
    if not told:
        return ""
    return f"By {measure.words} of a model trained on it, the matched set is {'; '.join(told)}."
