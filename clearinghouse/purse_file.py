"""The `purse` of a market or request file: kind, amount, rule; read strictly, exact numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

from clearinghouse.documents import Fields, exact_number
from clearinghouse.money import MICRO, MicroMoney, parse_money
from clearinghouse.schema import Schema
from clearinghouse.score_cards import LOWER_IS_BETTER, PURSE_METRICS, purse_metrics

FLOOR_METRICS = ("sensitivity", "specificity")
DEFAULT_ERROR = 4
"""A purse for a number asks for an error of at most this part of the label's range by default."""

MOST_ERROR = Fraction(10**9)
PRIZES = (50, 30, 20)
MOST_PRIZES = 20

Kind = Literal["acceptance", "contest", "procurement"]
KINDS: tuple[Kind, ...] = ("acceptance", "contest", "procurement")


@dataclass(frozen=True, slots=True)
class Floor:
    """What a model must show in every stratum of an attribute."""

    attribute: str
    metric: str
    floor: Fraction


@dataclass(frozen=True, slots=True)
class Purse:
    """What developers may earn.

    Attributes:
        kind: acceptance (best model at the threshold), contest (prizes by rank) or procurement
            (lowest sealed bid at the threshold, paid the next one).
        amount: The purse.
        metric: What is compared; of a numeric label an error, of which less is better.
        threshold: Least value of the metric, of an error the greatest, shown with `confidence`.
        confidence: One-sided, 0.5 to below 1.
        prizes: Of a contest: falling shares by rank.
        fairness: A floor for every stratum of an attribute, or None.
        asks: Of a procurement in a rehearsal: each developer's sealed bid.
    """

    kind: Kind
    amount: MicroMoney
    metric: str
    threshold: Fraction
    confidence: Fraction
    prizes: tuple[int, ...] = PRIZES
    fairness: Floor | None = None
    asks: Mapping[str, MicroMoney] = field(default_factory=dict)

    @property
    def wire(self) -> dict[str, Any]:
        """The purse as the protocol has it (`messages.intake.Purse`)."""
        floor = self.fairness
        return {
            "kind": self.kind,
            "amount_micro": int(self.amount),
            "metric": self.metric,
            "threshold_micro": int(self.threshold * MICRO),
            "confidence_micro": int(self.confidence * MICRO),
            "prizes": list(self.prizes),
            "fairness": None
            if floor is None
            else {
                "attribute": floor.attribute,
                "metric": floor.metric,
                "floor_micro": int(floor.floor * MICRO),
            },
        }


def read_purse(fields: Fields, *, schema: Schema | None = None, asks: bool = False) -> Purse:
    """Read the mapping under `purse`, or the default purse where there is none.

    Args:
        fields: Of the file.
        schema: Where known: a fairness attribute must be one of its subgroups.
        asks: Whether `asks` may be written: in a rehearsal, which plays the developers too.

    Raises:
        InputError: A key is unknown, malformed or of another kind of purse.
    """
    part = fields.part("purse") if fields.has("purse") else Fields({}, file=fields.file)
    kind = _choice(part, "kind", KINDS, "acceptance")
    metrics = (*PURSE_METRICS, *LOWER_IS_BETTER) if schema is None else purse_metrics(schema.label)
    metric = _choice(part, "metric", metrics, metrics[0])
    purse = Purse(
        kind,
        _money(part, "amount", "300.00"),
        metric,
        _threshold(part, metric, schema),
        _share(part, "confidence", "0.9", Fraction(1, 2), Fraction(MICRO - 1, MICRO)),
        _prizes(part) if kind == "contest" else PRIZES,
        _fairness(part, schema),
        _asks(part) if kind == "procurement" and asks else {},
    )
    part.close()
    return purse


def _threshold(part: Fields, metric: str, schema: Schema | None) -> Fraction:
    """By default 0.7; of an error a part of the label's range, where that is known."""
    if metric in PURSE_METRICS:
        return _share(part, "threshold", "0.7", Fraction(0), Fraction(1))
    default = "1"
    if schema is not None:
        default = f"{(schema.label.high - schema.label.low) / DEFAULT_ERROR:.6f}"
    return _share(part, "threshold", default, Fraction(0), MOST_ERROR)


def _choice(part: Fields, key: str, choices: tuple[Any, ...], default: str) -> Any:
    text = part.text(key) if part.has(key) else default
    if text not in choices:
        raise part.fail(key, f"one of {', '.join(choices)}", text, f"Write {key}: {default}")
    return text


def _money(part: Fields, key: str, default: str) -> MicroMoney:
    value = part.raw(key) if part.has(key) else default
    if not isinstance(value, str | int) or exact_number(value) is None:
        raise part.fail(key, "a decimal amount of money", value, f'Write {key}: "2.00"')
    return parse_money(value, name=f"{part.file}: key '{part.name(key)}'")


def _share(part: Fields, key: str, default: str, least: Fraction, most: Fraction) -> Fraction:
    value = part.exact(key) if part.has(key) else Fraction(default)
    if not least <= value <= most or (value * MICRO).denominator != 1:
        words = f"between {float(least):g} and {float(most):g} with at most six decimals"
        raise part.fail(key, words, part.raw(key), f"Write {key}: {default}")
    return value


def _prizes(part: Fields) -> tuple[int, ...]:
    if not part.has("prizes"):
        return PRIZES
    numbers = [exact_number(item) for item in part.items("prizes")]
    whole = [int(number) for number in numbers if number is not None and number.denominator == 1]
    falling = whole == sorted(whole, reverse=True) and all(1 <= prize <= MICRO for prize in whole)
    if len(whole) != len(numbers) or not 1 <= len(whole) <= MOST_PRIZES or not falling:
        words = f"1 to {MOST_PRIZES} falling whole numbers above 0"
        raise part.fail("prizes", words, part.items("prizes"), "Write prizes: [50, 30, 20]")
    return tuple(whole)


def _fairness(part: Fields, schema: Schema | None) -> Floor | None:
    if not part.has("fairness"):
        return None
    inner = part.part("fairness")
    attribute = inner.text("attribute")
    if schema is not None and attribute not in schema.subgroups:
        known = ", ".join(schema.subgroups) or "none"
        raise inner.fail(
            "attribute", f"one of the schema's subgroups ({known})", attribute, "Correct it"
        )
    metric = _choice(inner, "metric", FLOOR_METRICS, "sensitivity")
    floor = _share(inner, "floor", "0.5", Fraction(1, MICRO), Fraction(1))
    inner.close()
    return Floor(attribute, metric, floor)


def _asks(part: Fields) -> dict[str, MicroMoney]:
    if not part.has("asks"):
        return {}
    inner = part.part("asks")
    return {name: _money(inner, name, "0") for name in inner.keys()}  # noqa: SIM118 - marks them known
