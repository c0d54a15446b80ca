"""`budget show`: the lifetime budget of a home's patients, and what each release means at its n.

Offline: it reads the owner's own ledger. What the market's log says of the same owner is at
`GET /v1/budgets`.
"""

import json
import math
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clearinghouse.cli.epsilon import auc_half_width, meaning
from clearinghouse.cli.files import public_size_class, pure_limit
from clearinghouse.cli.options import Result, columns
from clearinghouse.cli.profile import open_keys, read_profile
from clearinghouse.client.keystore import Keystore
from clearinghouse.client.runs import supported
from clearinghouse.errors import InputError, RefusedError, TryAgainError
from clearinghouse.money import MICRO, format_money
from clearinghouse.noise_laws import DELTA_WORDS, epsilon_of_rho
from clearinghouse.score_bins import published_bins
from dp.coins import standard_deviation
from dp.laws import DELTA, HISTOGRAM_PERCENT, Law, choose
from dp.ledger import Entry, Ledger, LedgerError, Unavailable

LIMITS = {"hospital": "valset-terms", "provider": "source-terms"}
"""Where a role's lifetime budget is remembered."""

SCORE_MICRO = MICRO
"""Epsilon of a run where a request does not say."""

PLANS = (1, 2, 3, 5, 10, 20)
"""Numbers of runs that are laid out."""


USEFUL_AUC = 0.15
"""Half of an AUC's interval beyond which a score says little."""


@dataclass(frozen=True, slots=True)
class Books:
    """What a home's ledger says."""

    spent: int
    limit: int
    entries: tuple[Entry, ...]
    size_class: int
    rho_spent: int = 0
    rho_limit: int = 0
    """The zCDP lane; 0 where the pure lane is all."""

    @property
    def meant(self) -> int:
        """Epsilon of all that was spent: what rho means at delta 1e-6 comes on top."""
        return self.spent + (epsilon_of_rho(self.rho_spent) if self.rho_spent else 0)

    @property
    def meant_limit(self) -> int:
        """Epsilon of all that may ever be spent."""
        return self.limit + (epsilon_of_rho(self.rho_limit) if self.rho_limit else 0)


def budget(home: Path) -> Result:
    """What was spent of the lifetime budget of this home's patients, and what that means.

    Raises:
        InputError: The home was not set up.
        RefusedError: Its ledger is damaged.
    """
    profile, keystore = read_profile(home), open_keys(home)
    terms = keystore.recall(LIMITS.get(profile.role, "none"))
    if terms is None:
        words = f"{home}: no table of patients is in use here, so there is no epsilon to spend"
        return {"role": profile.role, "spent": "0.00", "limit": None, "releases": []}, words
    books = read_books(keystore, terms)
    tables = _tables(keystore)
    value: dict[str, Any] = {
        "role": profile.role,
        "spent": format_money(books.spent),
        "limit": format_money(books.limit),
        "size_class": books.size_class,
        "lanes": _lanes(books),
        "guess_at_most": _guess(books.meant),
        "guess_at_limit": _guess(books.meant_limit),
        "releases": [_release(entry, tables, books.size_class) for entry in books.entries],
    }
    if profile.role == "hospital" and "run_terms" in terms:
        value["sealed_for"] = sealed_for(books, terms)
    elif profile.role == "hospital":
        groups = value["subgroups"] = subgroups_of(keystore)
        value["runs"] = plans(books, int(terms["epsilon_target_micro"]), groups)
    return value, _words(home, books, value)


def _lanes(books: Books) -> dict[str, dict[str, str]]:
    """Both lanes of the ledger, which are never converted into each other."""
    return {
        "epsilon": {"spent": format_money(books.spent), "limit": format_money(books.limit)},
        "rho": {"spent": format_money(books.rho_spent), "limit": format_money(books.rho_limit)},
    }


def sealed_for(books: Books, terms: dict[str, Any]) -> dict[str, Any]:
    """What a set that was sealed for many runs has left for them."""
    run = terms["run_terms"]
    rho, each = int(run["rho_score_micro"]), int(run["epsilon_score_micro"])
    left = books.rho_limit - books.rho_spent if rho else books.limit - books.spent
    return {
        "runs": int(terms["runs"]),
        "left": supported(left, 0, 0 if rho else int(terms["epsilon_target_micro"]), rho or each),
        "law": run["noise_law"],
        "sd": terms["sd"],
        "geometric_sd": terms["geometric_sd"],
        "lane": "rho" if rho else "epsilon",
        "each": format_money(rho or each),
        "auc_half_width_90": f"{_auc(books.size_class, float(terms['sd'])):.3f}",
    }


def _auc(size_class: int, sd: float) -> float:
    """Half of an AUC's 90% interval at this n, with noise of this deviation."""
    return auc_half_width(max(2, size_class), published_bins(size_class), sd)


def read_books(keystore: Keystore, terms: dict[str, Any]) -> Books:
    """What a home's ledger says.

    Raises:
        RefusedError: It is damaged.
        TryAgainError: Its database does not answer.
    """
    place, known = keystore.ledger_words, keystore.recall("unit") or {}
    limit, rho_limit = pure_limit(terms), int(terms.get("rho_limit_micro", 0))
    try:
        ledger = Ledger.open(
            keystore.ledger_place,
            limit_micro=limit,
            rho_limit_micro=rho_limit,
            unit=str(known.get("unit", "")),
        )
        spent, _ = ledger.balance()
        rho_spent, _ = ledger.balance("rho")
        entries = ledger.entries()
    except ValueError as error:
        raise InputError(f"{place}: {error}") from None
    except Unavailable as error:
        raise TryAgainError(f"{place}: {error}") from None
    except (LedgerError, sqlite3.Error) as error:
        raise RefusedError(
            f"{place} is damaged ({error}): nothing can be released from this "
            "table any more. Take the newest backup only if nothing was released since"
        ) from None
    size = public_size_class(terms) or 1
    return Books(spent, limit, entries, size, rho_spent, rho_limit)


def _guess(epsilon_micro: int) -> str:
    return f"{meaning(epsilon_micro).guess:.4f}" if epsilon_micro else "0.5000"


# ---------------------------------------------------------------- what a release means


@dataclass(frozen=True, slots=True)
class CountTable:
    """A released table: its epsilon, and its committed coins a cell, 0 for geometric noise."""

    name: str
    epsilon_micro: int
    coins: int

    @property
    def sd(self) -> float:
        """Standard deviation of the noise of a count."""
        return standard_deviation(self.coins) if self.coins else meaning(self.epsilon_micro).sd

    @property
    def half_width(self) -> int:
        """9 of 10 counts are at most so wrong; coins are near a bell curve."""
        return math.ceil(1.645 * self.sd) if self.coins else meaning(self.epsilon_micro).half_width


def _tables(keystore: Keystore) -> dict[str, list[CountTable]]:
    """By run: what a score's tables count, with the epsilon of each; they share the run's."""
    found = {}
    for folder, names in (("private/runs", "run_*"), ("private/onsite/tables", "onsite.*")):
        for path in sorted(keystore.directory.glob(f"{folder}/{names}.json")):
            record = keystore.recall(f"{folder}/{path.stem}")
            if record["kind"] != "score":
                continue
            found[path.stem] = [
                CountTable(
                    str(table["name"]).replace("group:", "subgroup "),
                    int(table["epsilon_micro"]),
                    int(table.get("coins", 0)),
                )
                for table in record["tables"]
            ]
    return found


def _release(entry: Entry, tables: dict[str, list[CountTable]], size_class: int) -> dict[str, Any]:
    """One release: its cost, how wrong its counts are at this n, how much it gives away."""
    in_rho = entry.lane == "rho"
    meant = epsilon_of_rho(entry.cost_micro) if in_rho else entry.cost_micro
    shown: dict[str, Any] = {
        "purpose": entry.purpose,
        "lane": entry.lane,
        "epsilon": "0.00" if in_rho else format_money(entry.cost_micro),
        "rho": format_money(entry.cost_micro) if in_rho else "0.00",
        "state": entry.state,
        "guess_at_most": _guess(meant if entry.state != "voided" else 0),
        "counts": [],
    }
    if entry.state != "answered":
        return shown
    whole = [CountTable(entry.purpose, entry.cost_micro, 0)]
    for table in tables.get(entry.key, whole):
        shown["counts"].append(
            {
                "what": table.name,
                "epsilon": format_money(table.epsilon_micro),
                "half_width_90": table.half_width,
                "sd": f"{table.sd:.2f}",
                "percent_of_patients": f"{100 * table.half_width / size_class:.1f}",
            }
        )
    return shown


# ---------------------------------------------------------------- how many runs the set supports


def plans(books: Books, target_micro: int, groups: int, *, fresh: bool = False) -> dict[str, Any]:
    """Runs that what is left pays for, and what each plan of N runs would show at this n.

    What is left after one more target is divided among N runs. The law of a set that is not sealed
    yet (`fresh`) is the one with less noise for N; one that was sealed without a number of runs has
    a pure lane only, so its noise is geometric.
    """
    delta = DELTA if fresh else 0.0
    room = books.limit - books.spent - target_micro
    bins = published_bins(books.size_class)
    laid_out: list[dict[str, Any]] = []
    useful = 0
    for runs in range(1, PLANS[-1] + 1) if room > 0 else ():
        try:
            law = choose(runs, room, groups=groups, delta=delta)
        except ValueError:  # a table would get next to nothing
            break
        auc = _auc(books.size_class, law.sd)
        useful = runs if auc <= USEFUL_AUC else useful
        if runs in PLANS:
            laid_out.append(
                {
                    "runs": runs,
                    "law": law.name,
                    "epsilon_each": format_money(law.each_micro),
                    "sd": f"{law.sd:.2f}",
                    "count_half_width_90": _half_width(law, groups),
                    "auc_half_width_90": f"{auc:.3f}",
                }
            )
    return {
        "supported_at_epsilon_1": supported(books.limit, books.spent, target_micro, SCORE_MICRO),
        "supported_within_auc_015": useful,
        "bins": bins,
        "plans": laid_out,
    }


def _half_width(law: Law, groups: int) -> int:
    """Of the noise of one histogram count, in 9 of 10 cases; coins are near a bell curve."""
    if law.name == "coins":
        return math.ceil(1.645 * law.sd)
    each = law.cost.micro_epsilon
    part = each * (100 - HISTOGRAM_PERCENT) // 100 // groups if groups else 0
    return meaning(each - part * groups).half_width


def subgroups_of(keystore: Keystore) -> int:
    """Subgroup tables of each run on the sealed set."""
    known = keystore.recall("valset")
    return len(json.loads(known["layout"])["groups"]) if known else 0


# ---------------------------------------------------------------- words


def _words(home: Path, books: Books, value: dict[str, Any]) -> str:
    spent, limit = value["spent"], value["limit"]
    lines = [
        f"{home}: epsilon {spent} of {limit} spent, for life, on about {books.size_class} patients"
    ]
    if books.rho_limit:
        rho = value["lanes"]["rho"]
        lines.append(
            f"and rho {rho['spent']} of {rho['limit']} for scores; together that means epsilon "
            f"{format_money(books.meant)} of {format_money(books.meant_limit)} at delta 1e-6 "
            f"({DELTA_WORDS})"
        )
    if value["releases"]:
        lines.append(_table_words(value["releases"]))
        lines.append(
            "+- holds for 9 of 10 counts; 'right guesses' is the most that someone who knows all "
            "but one patient can be right about that one"
        )
    all_spent = books.meant == books.meant_limit
    lines.append(_promise("all is spent" if all_spent else "so far", books.meant))
    if not all_spent:
        lines.append(_promise("once all is spent", books.meant_limit))
    if "sealed_for" in value:
        lines.append(sealed_words(value["sealed_for"]))
    lines += plan_words(value["runs"]) if "runs" in value else []
    return "\n".join(lines)


def sealed_words(found: dict[str, Any]) -> str:
    """What a set that was sealed for many runs has left, and with which noise."""
    other = found["geometric_sd"]
    beside = f" (geometric noise: {other})" if other not in (None, found["sd"]) else ""
    return (
        f"sealed for {found['runs']} runs, {found['left']} left, each {found['lane']} "
        f"{found['each']}: {found['law']} noise of standard deviation {found['sd']} a count{beside}"
        f", an AUC near 0.8 within +-{found['auc_half_width_90']} in 9 of 10 cases"
    )


def _table_words(releases: Sequence[dict[str, Any]]) -> str:
    rows = [["release", "costs", "state", "right guesses", "a count of", "+-", "of patients"]]
    for item in releases:
        costs = f"rho {item['rho']}" if item["lane"] == "rho" else f"epsilon {item['epsilon']}"
        head = [item["purpose"], costs, item["state"]]
        head.append(f"{100 * float(item['guess_at_most']):.1f}%")
        counts = item["counts"] or [{}]
        for count in counts:
            share = f"{count['percent_of_patients']}%" if count else ""
            tail = [count.get("what", ""), str(count.get("half_width_90", "")), share]
            rows.append([*head, *tail])
            head = [""] * 4
    return columns(rows)


def _promise(when: str, epsilon_micro: int) -> str:
    if epsilon_micro == 0:
        return f"{when}: nothing about any patient has left that anyone could read"
    return (
        f"{when}: someone who knows everything but whether one patient is in the table, and would "
        f"be right 50% of the time by guessing, is right at most "
        f"{100 * meaning(epsilon_micro).guess:.1f}% of the time"
    )


def plan_words(runs: dict[str, Any]) -> list[str]:
    """How many runs a set supports, and what each would show."""
    fits, useful = runs["supported_at_epsilon_1"], runs["supported_within_auc_015"]
    most = f"{PLANS[-1]} or more" if useful == PLANS[-1] else str(useful)
    lines = [
        f"what is left pays one more target and {fits} runs at epsilon 1 each; divided evenly, "
        f"{most} {'run keeps' if useful == 1 else 'runs keep'} an AUC within +-{USEFUL_AUC:g}"
    ]
    if runs["plans"]:
        rows = [["divided among", "noise", "epsilon a run", "a count +-", "an AUC +-"]]
        rows += [
            [
                f"{plan['runs']} {'runs' if plan['runs'] > 1 else 'run'}",
                plan["law"],
                plan["epsilon_each"],
                str(plan["count_half_width_90"]),
                plan["auc_half_width_90"],
            ]
            for plan in runs["plans"]
        ]
        lines.append(columns(rows))
        lines.append(
            "(9 of 10 cases; the AUC of an even set near 0.8, sampling and noise together)"
        )
    return lines
