"""The log against the database: rows, money, prices; every difference by table, key and field."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from clearinghouse.canonical import canonical_bytes, digest
from clearinghouse.errors import ClearinghouseError
from clearinghouse.log.entries import Entry
from clearinghouse.messages.intake import OpenRequest
from clearinghouse.messages.results import PostingView, StatementView
from clearinghouse.store.store import Tx
from clearinghouse.world import told_money
from clearinghouse.world.found import LOGGED_DOCUMENTS, rows_of
from clearinghouse.world.rows import Difference, Told, Values, compare
from clearinghouse.world.told import TABLES, Story, key_of, tell

OUTSIDE = "external:"


def differences(tx: Tx, entries: Iterable[Entry]) -> tuple[Difference, ...]:
    """Everything in which the database is not what its log says; empty if they agree.

    Args:
        tx: One state of the database.
        entries: All entries of its log, as that same state has them.
    """
    story = tell(entries)
    found: list[Difference] = []
    for table in TABLES:
        found += _table(tx, table, story)
    found += _money(tx, story)
    found += _prices(tx, story)
    return tuple(found)


def _table(tx: Tx, table: str, story: Story) -> Iterator[Difference]:
    told, rows = story.tables[table], rows_of(tx, table)
    if table == "orders":
        # Until something of it is logged an order is in the clearing's document alone.
        rows = {key: row for key, row in rows.items() if key in told or row["earned_micro"]}
    elif table == "document":
        kinds = {key: key.partition(" ")[2] for key in rows}
        rows = {
            key: row for key, row in rows.items() if key in told or kinds[key] in LOGGED_DOCUMENTS
        }
    yield from compare(table, told, rows)


# ---------------------------------------------------------------- money


def _money(tx: Tx, story: Story) -> Iterator[Difference]:
    ledger, order = _ledger(tx)
    terms, awards = _terms(tx), _documents(tx, "award")
    yield from _balances(tx, ledger)
    yield from told_money.differences(story, told_money.due(story, terms, awards), ledger)
    yield from told_money.sums(story, terms, ledger)
    yield from _statements(story, ledger, order, awards)


def _ledger(tx: Tx) -> tuple[dict[str, dict[str, int]], dict[str, str]]:
    """By transfer its postings in order, and the request each posting names."""
    ledger: dict[str, dict[str, int]] = {}
    about: dict[str, str] = {}
    for row in sorted(tx.plain.rows("posting"), key=lambda row: (row["transfer"], row["position"])):
        ledger.setdefault(row["transfer"], {})[row["account"]] = row["amount_micro"]
        about[row["transfer"]] = row["request_id"]
    return ledger, about


def _balances(tx: Tx, ledger: Mapping[str, Mapping[str, int]]) -> Iterator[Difference]:
    """Conservation: each transfer sums to zero, each balance is the sum of its postings."""
    balances: dict[str, int] = {}
    for name, amounts in ledger.items():
        if total := sum(amounts.values()):
            yield Difference("transfer", name, "total_micro", None, "0", str(total))
        for account, amount in amounts.items():
            balances[account] = balances.get(account, 0) + amount
    for row in tx.plain.rows("account"):
        name, told = row["name"], balances.pop(row["name"], 0)
        if row["balance_micro"] != told:
            found = str(row["balance_micro"])
            yield Difference("account", name, "balance_micro", None, str(told), found)
        if told < 0 and not name.startswith(OUTSIDE):
            yield Difference("account", name, "balance_micro", None, "0 or more", str(told))
    for name in balances:
        yield Difference("account", name, "", None, str(balances[name]), "no such row")
    for row in tx.plain.rows("transfer"):
        if row["name"] not in ledger:
            yield Difference("transfer", row["name"], "", None, "nothing", "moves nothing")


def _statements(
    story: Story,
    ledger: Mapping[str, Mapping[str, int]],
    about: Mapping[str, str],
    awards: Mapping[str, Any],
) -> Iterator[Difference]:
    """Each logged statement, written again from the postings that were there then."""
    for index, request, told in story.statements:
        names = [name for name in ledger if about[name] == request]
        names = [name for name in names if not _came_later(name, index, story)]
        found = _statement(names, ledger, awards.get(request, {}))
        if found != told:
            yield Difference("posting", request, "statement", index, told, found)


def _came_later(name: str, index: int, story: Story) -> bool:
    """Whether a transfer belongs to a dispute's opening or end after an entry."""
    _, what, subject = (*name.split(":", 2), "", "")[:3]
    opened, decided = story.disputes.get(subject.split(":")[0], (index, index))
    if what == "freeze":
        return opened > index
    return what == "ruling" and (decided is None or decided > index)


def _statement(
    names: Iterable[str], ledger: Mapping[str, Mapping[str, int]], award: Mapping[str, Any]
) -> str:
    postings = [
        PostingView(transfer=name, account=account, amount_micro=amount)
        for name in sorted(names)
        for account, amount in ledger[name].items()
    ]
    balances: dict[str, int] = {}
    for item in postings:
        balances[item.account] = balances.get(item.account, 0) + item.amount_micro
    is_balanced = not sum(balances.values())
    view = StatementView(
        postings=postings, balances=balances, balanced=is_balanced, award=dict(award)
    )
    return digest(view.model_dump())


# ---------------------------------------------------------------- prices


def _prices(tx: Tx, story: Story) -> Iterator[Difference]:
    """The history of prices: each as the logged list had it when the request was settled."""
    documents = _documents(tx, "prices")
    told: dict[str, Told] = {}
    revised = {e.objects["request"] for e in story.entries if e.type == "prices.revised"}
    for key, row in story.tables["document"].items():
        request, _, kind = key.partition(" ")
        if kind == "prices" and request not in revised:
            for price in documents.get(request, {}).get("prices", []):
                body = canonical_bytes(price).decode()
                told[key_of(price["source_id"], request)] = Told(row.index, {"body": body})
    rows: dict[str, Values] = {
        key_of(row["source_id"], row["request_id"]): {"body": row["body"]}
        for row in tx.plain.rows("price")
        if row["request_id"] not in revised
    }
    yield from compare("price", told, rows)


def _terms(tx: Tx) -> dict[str, OpenRequest]:
    found = {}
    for row in tx.plain.rows("request"):
        try:
            found[str(row["id"])] = OpenRequest.model_validate_json(row["terms"])
        except ValidationError:
            continue  # the row's digest is compared with the log's; that names it
    return found


def _documents(tx: Tx, kind: str) -> dict[str, Any]:
    found = {}
    for row in tx.plain.rows("document"):
        if row["kind"] == kind:
            try:
                found[str(row["request_id"])] = json.loads(row["body"])
            except (ValueError, ClearinghouseError):
                continue
    return found
