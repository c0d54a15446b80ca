"""REQUEST.yaml: a hospital's wish, in the words of market.yaml, read strictly."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from clearinghouse.cli.files import epsilon, money
from clearinghouse.consent import PURPOSES
from clearinghouse.documents import Fields, load_document, shown
from clearinghouse.errors import InputError
from clearinghouse.ids import Noun, is_id
from clearinghouse.money import MICRO, micro_epsilon
from clearinghouse.purse_file import read_purse

DEADLINES = {
    name: f"{name}_s"
    for name in ("agent", "ask", "deliver", "model", "bid", "dispute", "claim", "ruling")
}
MAX_ID_FILE_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class RequestFile:
    """What a request file says.

    Attributes:
        terms: The fields of `OpenRequest` but for ids.
        source_ids: Admitted sources; None for all that have published.
        developer_ids: Admitted developers.
    """

    terms: dict[str, Any]
    source_ids: tuple[str, ...] | None
    developer_ids: tuple[str, ...]


def read_request_file(
    path: Path, epsilon_target_micro: int, run_terms: Mapping[str, Any] | None = None
) -> RequestFile:
    """Read REQUEST.yaml; files with ids are relative to it.

    Args:
        path: The file.
        epsilon_target_micro: What the validation set was sealed for: the default.
        run_terms: Law, epsilon and rho of a run that it was sealed for, if it was for many.

    Raises:
        InputError: A key is missing, unknown or malformed.
    """
    fields = Fields(load_document(path), file=str(path))
    sources = None
    if not (fields.has("sources") and fields.raw("sources") == "all"):
        sources = _ids(fields, "sources", "src", path.parent)
    found = RequestFile(
        _terms(fields, epsilon_target_micro, run_terms or {}),
        sources,
        _ids(fields, "developers", "org", path.parent),
    )
    fields.close()
    return found


def _terms(
    fields: Fields, epsilon_target_micro: int, run_terms: Mapping[str, Any]
) -> dict[str, Any]:
    costs = _part(fields, "epsilon")
    sealed_for = Fraction(epsilon_target_micro, MICRO)
    target = micro_epsilon(epsilon(costs, "target", sealed_for))
    sealed_score = int(run_terms.get("epsilon_score_micro", MICRO))
    score = micro_epsilon(epsilon(costs, "score", Fraction(sealed_score, MICRO)))
    costs.close()
    if run_terms and score != sealed_score:
        raise costs.fail(
            "score",
            f"the epsilon a run that the validation set was sealed for ({sealed_score / MICRO:g})",
            costs.raw("score"),
            "Leave it out",
        )
    if target != epsilon_target_micro:
        raise costs.fail(
            "target",
            f"the epsilon the validation set was sealed for ({float(sealed_for):g})",
            costs.raw("target"),
            "Leave it out",
        )
    tariff = money(fields, "tariff")
    if not tariff:
        raise fields.fail("tariff", "above 0", "0", 'Write tariff: "6.00"')
    return {
        "records": fields.integer("records", least=1),
        "currency": _currency(fields),
        "tariff_micro": tariff,
        "distance_price_micro": money(fields, "distance_price", "1.00"),
        "share_cap_micro": _share(fields, "share_cap", "1.5", 1, 1000),
        "fee_micro": _share(fields, "fee", "0.05", 0, 1),
        "fairness_pot_micro": _share(fields, "fairness_pot", "0", 0, Fraction(1, 10)),
        "epsilon_target_micro": target,
        "epsilon_score_micro": score,
        **run_terms,
        **({"runs": fields.integer("runs", least=1)} if fields.has("runs") else {}),
        "purse": read_purse(fields).wire,
        "purpose": _purpose(fields),
        **_quota(fields),
        **_deadlines(_part(fields, "deadlines")),
    }


def _part(fields: Fields, key: str) -> Fields:
    return fields.part(key) if fields.has(key) else Fields({}, file=fields.file, path=key)


def _purpose(fields: Fields) -> str:
    text = fields.text("purpose") if fields.has("purpose") else PURPOSES[0]
    if text not in PURPOSES:
        raise fields.fail(
            "purpose", f"one of: {', '.join(PURPOSES)}", text, f"Write purpose: {PURPOSES[0]}"
        )
    return text


def _currency(fields: Fields) -> str:
    text = fields.text("currency") if fields.has("currency") else "EUR"
    if not re.fullmatch(r"[A-Z]{3}", text):
        raise fields.fail("currency", "three capital letters", text, "Write currency: EUR")
    return text


def _share(
    fields: Fields, key: str, default: str, least: int | Fraction, most: int | Fraction
) -> int:
    """Millionths of a share; a share cap, whose `least` is 1, must be above it."""
    value = fields.exact(key) if fields.has(key) else Fraction(default)
    scaled = value * MICRO
    inside = least <= value <= most and not (key == "share_cap" and value == least)
    if not inside or scaled.denominator != 1:
        words = f"between {least} and {float(most):g} with at most six decimals"
        raise fields.fail(key, words, fields.raw(key), f"Write {key}: {default}")
    return int(scaled)


def _quota(fields: Fields) -> dict[str, int]:
    """Scores that one developer may get on the validation set; the protocol's default if absent."""
    if not fields.has("scores_per_owner"):
        return {}
    return {"scores_per_owner": fields.integer("scores_per_owner", least=1)}


def _deadlines(part: Fields) -> dict[str, Any]:
    """Seconds for each kind of task; what is left out takes the protocol's default, a day."""
    found = {field: part.integer(key, least=1) for key, field in DEADLINES.items() if part.has(key)}
    part.close()
    return {"deadlines": found} if found else {}


def _ids(fields: Fields, key: str, noun: Noun, folder: Path) -> tuple[str, ...]:
    """Ids as written, and every id found in the files that are named."""
    found: dict[str, None] = {}
    for text in fields.texts(key):
        if is_id(text, noun):
            found[text] = None
            continue
        path = folder / text
        if not path.is_file() or path.stat().st_size > MAX_ID_FILE_BYTES:
            raise InputError(
                f"{fields.file}: key '{key}' holds {shown(text)}, which is neither an id "
                f"({noun}_...) nor a file with ids. Paths are relative to the file"
            )
        here = re.findall(rf"\b{noun}_[0-9a-z]{{20}}\b", path.read_text(errors="replace"))
        if not here:
            raise InputError(f"{path}: holds no id such as {noun}_...; {fields.file} names it")
        found.update(dict.fromkeys(here))
    if not found:
        raise fields.fail(key, "at least one id", [], f"Write {key}: [{noun}_...]")
    return tuple(found)
