"""The three numbers a hospital wants, each with where it comes from and what speaks against it.

The page and the terminal show the same `Headline`, so they cannot disagree.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from clearinghouse.report.winners import (
    baselines,
    lead_in_noise,
    method_words,
    standing,
    winners_in_short,
)
from clearinghouse.report.words import (
    amount,
    compact,
    count_of,
    decimal,
    items,
    mapping,
    money,
    number,
    one_line,
    pair,
    percent,
    significant,
)

METRIC_WORDS = {
    "auc": "AUC",
    "brier": "Brier score",
    "log_loss": "log loss",
    "mae": "mean absolute error",
    "mse": "mean squared error",
    "rmse": "root mean squared error",
}
LOWER_IS_BETTER = frozenset({"brier", "log_loss", "mae", "mse", "rmse"})
ERRORS = ("rmse", "mae", "bias")
"""What is said of a model of numbers beside the purse's metric."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One shown number and the exact report values it is the sum of.

    Attributes:
        label: What the number is.
        shown: The number as people read it.
        exact: The unrounded value as decimal text; empty when the report has none.
        pointers: RFC 6901 pointers into the report; several mean their sum.
    """

    label: str
    shown: str
    exact: str
    pointers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Card:
    """One of the three numbers: the figure, a sentence, supporting facts and cautions."""

    title: str
    figure: Fact
    sentence: str
    facts: tuple[Fact, ...]
    cautions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Headline:
    """What the run found, in three cards."""

    closeness: Card
    score: Card
    cost: Card

    @property
    def cards(self) -> tuple[Card, Card, Card]:
        """The three cards in reading order."""
        return self.closeness, self.score, self.cost


def headline(report: Mapping[str, object]) -> Headline:
    """The three numbers of a report dictionary; missing values give cards that say so."""
    return Headline(_closeness(report), _score(report), _cost(report))


def metric_words(name: object) -> str:
    """A metric's name for people."""
    text = one_line(name)
    return METRIC_WORDS.get(text, text.replace("_", " "))


def pointer(*parts: object) -> str:
    """An RFC 6901 JSON pointer."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def gap_reason(report: Mapping[str, object]) -> str:
    """Why `gap_closed` is null, as the report says it."""
    match = mapping(report.get("match"))
    ours = mapping(mapping(match.get("methods")).get("clearinghouse"))
    for holder in (ours, match):
        for key in ("gap_closed_reason", "gap_reason", "reason"):
            if holder.get(key):
                return one_line(holder[key])
    return "the gap itself is smaller than its standard error"


def _fact(label: str, value: object, shown: str, *path: object) -> Fact:
    parsed = amount(value)
    return Fact(label, shown, "" if parsed is None else f"{parsed:f}", (pointer(*path),))


def _method_fact(
    methods: Mapping[str, object], name: str, key: str, label: str, shown: str
) -> Fact:
    value = mapping(methods.get(name)).get(key)
    return _fact(label, value, shown, "match", "methods", name, key)


def _best(methods: Mapping[str, object], key: str, *, highest: bool) -> str | None:
    """The baseline that does best by `key`, random draws aside (they are the zero point)."""
    known = {
        name: value
        for name in baselines(methods)
        if name != "random" and (value := number(mapping(methods[name]).get(key))) is not None
    }
    if not known:
        return None
    return max(known, key=lambda name: known[name] if highest else -known[name])


def _closeness(report: Mapping[str, object]) -> Card:
    methods = mapping(mapping(report.get("match")).get("methods"))
    ours = mapping(methods.get("clearinghouse"))
    gap, w2 = number(ours.get("gap_closed")), number(ours.get("w2"))
    if gap is not None:
        figure = _method_fact(methods, "clearinghouse", "gap_closed", "gap closed", percent(gap))
        sentence = (
            "of the gap between a random draw (0%) and this hospital's own patients (100%) "
            "is closed by the matched set"
        )
    else:
        figure = _method_fact(methods, "clearinghouse", "w2", "W2 distance", decimal(w2))
        sentence = "is the transport distance (W2) from the matched set to held-out patients"
    facts = [_w2_fact(methods, "clearinghouse", "W2 distance, matched set")]
    facts += [_w2_fact(methods, "random", "W2 distance, random draw")]
    best_w2 = _best(methods, "w2", highest=False)
    if best_w2 is not None:
        facts.append(
            _w2_fact(methods, best_w2, f"W2 distance, best baseline ({method_words(best_w2)})")
        )
    best_gap = _best(methods, "gap_closed", highest=True)
    if gap is not None and best_gap is not None:
        shown = percent(mapping(methods[best_gap]).get("gap_closed"))
        label = f"gap closed, best baseline ({method_words(best_gap)})"
        facts.append(_method_fact(methods, best_gap, "gap_closed", label, shown))
    known = tuple(fact for fact in facts if fact.exact)
    cautions = _match_cautions(report, methods, gap)
    return Card("How close is the matched set?", figure, sentence, known, cautions)


def _w2_fact(methods: Mapping[str, object], name: str, label: str) -> Fact:
    return _method_fact(methods, name, "w2", label, decimal(mapping(methods.get(name)).get("w2")))


def _match_cautions(
    report: Mapping[str, object], methods: Mapping[str, object], gap: float | None
) -> tuple[str, ...]:
    cautions = [] if gap is not None else [f"No share of a gap is given: {gap_reason(report)}."]
    spread = number(mapping(methods.get("random")).get("gap_sd"))
    if gap is not None and spread is not None and abs(gap) < 2 * spread:
        cautions.append(
            f"One random draw differs from the next by {percent(spread)} (standard deviation): "
            "this match is not clearly better than chance."
        )
    lead = lead_in_noise(methods)
    cautions += [lead] if lead else []
    told = standing(report)
    model = [told] if "not told apart" in told or "worse" in told else []
    clear, unsure = winners_in_short(report)
    model += [unsure] if unsure else []
    return (*cautions, *([" ".join(model)] if model else []), *clear)


def best_score(report: Mapping[str, object]) -> tuple[int, Mapping[str, object], str] | None:
    """Index, score and metric of the best model: by the purse's metric, determined ones first."""
    scores = items(report.get("scores"))
    metric = one_line(mapping(report.get("purse")).get("metric") or "auc")
    if not scores:
        return None
    if all(number(score.get(metric)) is None for score in scores):
        metric = "auc"
    if metric == "auc" and any(score.get("task") == "number" for score in scores):
        metric = "mse"  # a number has no AUC
    sign = -1 if metric in LOWER_IS_BETTER else 1

    def rank(i: int) -> tuple[bool, float, int]:
        value = number(scores[i].get(metric))
        sure = value is not None and scores[i].get("status") != "undetermined"
        return sure, sign * value if value is not None else float("-inf"), -i

    best = max(range(len(scores)), key=rank)
    return best, scores[best], metric


def _show(metric: str) -> Callable[[object], str]:
    """How a metric is written: errors are in units of the label, of whatever size."""
    return significant if metric in ("mae", "mse", "rmse", "bias") else decimal


def _score(report: Mapping[str, object]) -> Card:
    title = "How good is the best model, scored blind?"
    found = best_score(report)
    if found is None:
        return Card(title, Fact("score", "-", "", ()), "no model was scored", (), ())
    i, score, metric = found
    words = metric_words(metric)
    known = score.get("status") != "undetermined"
    show = _show(metric)
    shown = show(score.get(metric)) if known else "not known"
    figure = _fact(words, score.get(metric), shown, "scores", i, metric)
    ends = mapping(score.get("intervals")).get(metric)
    sentence = f"{words} of {one_line(score.get('developer', '?'))} on encrypted patients"
    if pair(ends) is not None:
        low, high = pair(ends) or (0.0, 0.0)
        sentence += f", 90% interval {show(low)} to {show(high)}"
    facts = _score_facts(score, i, metric)
    cautions = []
    if not known:
        cautions.append(
            "Undetermined: after noise a class holds fewer than one patient, so the report's "
            f"{show(score.get(metric))} says nothing. A larger validation set or more epsilon "
            "is needed."
        )
    if score.get("exact_counts_match") is False:
        cautions.append(
            "The opened counts differ from the plaintext oracle's. Do not trust this score."
        )
    return Card(title, figure, sentence, facts, tuple(cautions))


def _score_facts(score: Mapping[str, object], i: int, metric: str) -> tuple[Fact, ...]:
    facts, show = [], _show(metric)
    ends = pair(mapping(score.get("intervals")).get(metric))
    for side, end in enumerate(ends or ()):
        label = f"90% interval, {('low', 'high')[side]} end"
        facts.append(_fact(label, end, show(end), "scores", i, "intervals", metric, side))
    clear = mapping(score.get("plaintext_reference")).get(metric)
    label = f"{metric_words(metric)} in the clear (rehearsal only)"
    facts.append(_fact(label, clear, show(clear), "scores", i, "plaintext_reference", metric))
    if score.get("task") == "number":
        for error in (name for name in ERRORS if name != metric):
            value = score.get(error)
            facts.append(_fact(metric_words(error), value, significant(value), "scores", i, error))
    elif metric != "accuracy":
        accuracy = score.get("accuracy")
        facts.append(_fact("accuracy", accuracy, decimal(accuracy), "scores", i, "accuracy"))
    spent = score.get("epsilon")
    label = "privacy spent (epsilon)"
    facts.append(_fact(label, spent, compact(spent), "scores", i, "epsilon"))
    return tuple(fact for fact in facts if fact.exact)


def _cost(report: Mapping[str, object]) -> Card:
    clearing, purse = mapping(report.get("clearing")), mapping(report.get("purse"))
    currency = one_line(mapping(report.get("market")).get("currency", ""))
    data = amount(clearing.get("customer_pays"))
    awarded = purse.get("awarded_to") is not None
    prize = amount(purse.get(_prize(purse))) if awarded else None
    paths = [("clearing", "customer_pays")]
    paths += [("purse", _prize(purse))] if prize is not None else []
    total = None if data is None else data + (prize or Decimal(0))
    figure = _sum("customer pays", total, currency, paths)
    facts = _cost_facts(clearing, purse, currency, awarded)
    known = tuple(fact for fact in facts if fact.exact)
    cautions = [] if _balances(clearing) else ["Payments and fee do not add up to this price."]
    return Card("What does it cost, and why?", figure, _why(report, awarded), known, (*cautions,))


def _prize(purse: Mapping[str, object]) -> str:
    """What was paid of the purse; a procurement pays less than its amount."""
    return "paid" if "paid" in purse else "amount"


def _cost_facts(
    clearing: Mapping[str, object], purse: Mapping[str, object], currency: str, awarded: bool
) -> list[Fact]:
    facts = []
    for key, label in (("payments", "to the sources"), ("pot", "to the sources, fairness pot")):
        parts = mapping(clearing.get(key))
        amounts = [amount(value) for value in parts.values()]
        if amounts and None not in amounts:
            total = sum((value for value in amounts if value is not None), Decimal(0))
            facts.append(_sum(label, total, currency, [("clearing", key, s) for s in parts]))
    facts.append(_sum("platform fee", amount(clearing.get("fee")), currency, [("clearing", "fee")]))
    if awarded:
        label = f"purse, to {one_line(purse.get('awarded_to'))}"
        key = _prize(purse)
        facts.append(_sum(label, amount(purse.get(key)), currency, [("purse", key)]))
    surplus = amount(clearing.get("customer_surplus"))
    label = "worth to the customer above the price"
    return [*facts, _sum(label, surplus, currency, [("clearing", "customer_surplus")])]


def _sum(
    label: str, total: Decimal | None, currency: str, paths: Sequence[tuple[str, ...]]
) -> Fact:
    exact = "" if total is None else f"{total:f}"
    return Fact(label, money(total, currency), exact, tuple(pointer(*path) for path in paths))


def _balances(clearing: Mapping[str, object]) -> bool:
    """Whether payments + pot + fee is what the customer pays (unknown parts count as fine)."""
    parts = [clearing.get("fee"), *mapping(clearing.get("payments")).values()]
    parts += list(mapping(clearing.get("pot")).values())
    amounts = [amount(part) for part in parts]
    pays = amount(clearing.get("customer_pays"))
    if pays is None or None in amounts:
        return True
    total = sum((part for part in amounts if part is not None), Decimal(0))
    return total == pays


def _why(report: Mapping[str, object], awarded: bool) -> str:
    clearing, records = mapping(report.get("clearing")), mapping(report.get("records"))
    sold = sum(1 for units in mapping(clearing.get("quotas")).values() if (number(units) or 0) > 0)
    bought = number(records.get("real"))
    what = "records" if bought is None else count_of(int(bought), "record")
    purse = " and the purse for the model" if awarded else "; no model earned the purse"
    return (
        f"for {what} from {count_of(sold, 'source')}{purse}. A source is paid its ask plus its "
        "marginal value: what the match would lose without it"
    )
