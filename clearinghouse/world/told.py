"""What rows a log implies: the database, as far as its log explains it, built from entries alone.

Every table here is checked both ways: a logged row that is missing or differs, and a row that no
entry explains. Money is in `told_money`, because it also needs documents whose digests are logged.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from clearinghouse.canonical import digest
from clearinghouse.errors import InputError
from clearinghouse.log.consents import PURPOSE_OF
from clearinghouse.log.entries import Entry
from clearinghouse.log.entry_types import is_release
from clearinghouse.log.replay_orders import GROUNDS
from clearinghouse.money import parse_money
from clearinghouse.world.rows import Told

TABLES = (
    "org",
    "org_key",
    "source",
    "summary",
    "withdrawal",
    "grants",
    "valset",
    "request",
    "release",
    "ask",
    "orders",
    "run",
    "receipt",
    "document",
    "dispute",
)
"""The tables that the log explains, apart from money and prices."""


@dataclass(slots=True)
class Story:
    """Rows by table and key, and what money needs to know.

    Attributes:
        operator: The log's first organisation.
        statements: (index, request, digest) of every settled statement.
        disputes: By dispute the entries that opened and decided it; None while it is pending.
        entries: All of them, in order.
    """

    tables: dict[str, dict[str, Told]] = field(
        default_factory=lambda: {name: {} for name in TABLES}
    )
    operator: str = ""
    statements: list[tuple[int, str, str]] = field(default_factory=list)
    disputes: dict[str, tuple[int, int | None]] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)


def tell(entries: Iterable[Entry]) -> Story:
    """Build the rows that a log implies."""
    story = Story()
    for index, entry in enumerate(entries):
        story.entries.append(entry)
        story.operator = story.operator or entry.actor
        if is_release(entry.type):
            _release(story, index, entry)
        handler = _HANDLERS.get(entry.type)
        if handler is not None:
            handler(story, index, entry)
    return story


def failed_release(run: str) -> str:
    """The digest that the log has of a run that was paid for and failed."""
    return digest({"run": run, "failed": True})


def key_of(*parts: str) -> str:
    """The key of a row that is named by several columns."""
    return " ".join(parts)


def _add(story: Story, table: str, key: str, index: int, **values: object) -> None:
    story.tables[table].setdefault(key, Told(index, dict(values)))


def _set(story: Story, table: str, key: str, index: int, **values: object) -> None:
    row = story.tables[table].get(key)
    if row is not None:
        row.set(index, **values)


# ---------------------------------------------------------------- who, and what is declared


def _org(story: Story, index: int, entry: Entry) -> None:
    _add(story, "org", entry.actor, index)
    _key(story, index, entry, entry.key)


def _key(story: Story, index: int, entry: Entry, key: str = "") -> None:
    _add(
        story,
        "org_key",
        key or entry.objects["key"],
        index,
        org_id=entry.actor,
        public_key=entry.hashes["public_key"],
        added=index,
        revoked=None,
    )


def _revoked(story: Story, index: int, entry: Entry) -> None:
    _set(story, "org_key", entry.objects["key"], index, revoked=index)


def _source(story: Story, index: int, entry: Entry) -> None:
    _add(
        story,
        "source",
        entry.objects["source"],
        index,
        org_id=entry.objects["owner"],
        committed=index,
        **_some(entry.objects, schema="schema_id"),
        **_some(entry.hashes, rows_root="rows_root"),
        **_some(entry.amounts, leaves="leaves", size_class="size_class"),
    )


def _some(found: Mapping[str, object], **names: str) -> dict[str, object]:
    """Those of an entry's members that it has, under the names of columns."""
    return {column: found[name] for name, column in names.items() if name in found}


def _summary(story: Story, index: int, entry: Entry) -> None:
    _add(
        story,
        "summary",
        entry.objects["source"],
        index,
        epsilon_micro=entry.epsilon_micro,
        release=entry.hashes["release"],
    )


def _left(story: Story, index: int, entry: Entry) -> None:
    source = entry.objects["source"]
    _add(story, "withdrawal", source, index, erased=False)
    story.tables["summary"].pop(source, None)


def _erased(story: Story, index: int, entry: Entry) -> None:
    _set(story, "withdrawal", entry.objects["source"], index, erased=True)


def _grant(story: Story, index: int, entry: Entry) -> None:
    _add(
        story,
        "grants",
        entry.objects["grant"],
        index,
        source_id=entry.objects["source"],
        sender=entry.objects["sender"],
        recipient=entry.objects.get("recipient"),
        attributes=entry.hashes["attributes"],
        purpose=PURPOSE_OF.get(entry.hashes["purpose"]),
        expires=entry.amounts["expires"],
        withdrawn=False,
    )


def _ungrant(story: Story, index: int, entry: Entry) -> None:
    _set(story, "grants", entry.objects["grant"], index, withdrawn=True)


def _valset(story: Story, index: int, entry: Entry) -> None:
    _add(
        story,
        "valset",
        entry.objects["valset"],
        index,
        org_id=entry.objects["owner"],
        manifest=entry.hashes["manifest"],
        **_some(entry.objects, schema="schema_id"),
    )


def _release(story: Story, index: int, entry: Entry) -> None:
    objects = entry.objects
    _add(
        story,
        "release",
        str(index),
        index,
        owner=objects["owner"],
        data=objects.get("source") or objects.get("valset") or objects["owner"],
        kind=entry.type,
        request_id=objects.get("request"),
        run_id=objects.get("run"),
        epsilon_micro=entry.epsilon_micro,
        rho_micro=entry.rho_micro,
        time=entry.time,
    )


# ---------------------------------------------------------------- requests


def _open(story: Story, index: int, entry: Entry) -> None:
    terms = entry.hashes["terms"]
    _add(
        story,
        "request",
        entry.objects["request"],
        index,
        org_id=entry.objects["owner"],
        valset_id=entry.objects["valset"],
        terms_digest=terms,
        terms=terms,
        ended="",
    )


def _close(story: Story, index: int, entry: Entry) -> None:
    ended = "failed" if entry.amounts.get("failed") else "done"
    _set(story, "request", entry.objects["request"], index, ended=ended)


def _ask(story: Story, index: int, entry: Entry) -> None:
    key = key_of(entry.objects["request"], entry.objects["source"])
    _add(story, "ask", key, index, commitment=entry.commit, ask_micro=None)


def _opened(story: Story, index: int, entry: Entry) -> None:
    key = key_of(entry.objects["request"], entry.objects["source"])
    try:
        ask: object = parse_money(entry.amounts["ask"], name="ask")
    except InputError:
        ask = entry.amounts["ask"]
    _set(story, "ask", key, index, ask_micro=ask)


def _document(name: str, kind: str) -> "Handler":
    def keep(story: Story, index: int, entry: Entry) -> None:
        if name in entry.hashes:
            key = key_of(entry.objects["request"], kind)
            row = story.tables["document"].setdefault(key, Told(index, {}))
            row.set(index, body=entry.hashes[name])

    return keep


def _cleared(story: Story, index: int, entry: Entry) -> None:
    _document("clearing", "clearing")(story, index, entry)
    _document("certificate", "certificate")(story, index, entry)


def _statement(story: Story, index: int, entry: Entry) -> None:
    _document("prices", "prices")(story, index, entry)
    story.statements.append((index, entry.objects["request"], entry.hashes["statement"]))


def _sealed(story: Story, index: int, entry: Entry) -> None:
    if "order" in entry.objects:
        _add(story, "orders", entry.objects["order"], index, delivery_id=entry.objects["delivery"])
        _set(story, "orders", entry.objects["order"], index, source_id=entry.objects["source"])


def _settled(story: Story, index: int, entry: Entry) -> None:
    order = entry.objects["order"]
    _add(story, "orders", order, index, delivery_id=entry.objects["delivery"])
    ground = next((name for name in GROUNDS if name in entry.amounts), "")
    names = ("units", "real", "earned_micro")
    told = {name: entry.amounts[name] for name in names}
    _set(story, "orders", order, index, source_id=entry.objects["source"], ground=ground, **told)


# ---------------------------------------------------------------- runs, receipts, disputes


def _begun(story: Story, index: int, entry: Entry) -> None:
    _add(
        story,
        "run",
        entry.objects["run"],
        index,
        request_id=entry.objects["request"],
        model_id=entry.objects.get("model", ""),
        released=False,
    )


def _ran(story: Story, index: int, entry: Entry) -> None:
    run = entry.objects.get("run", "")
    failed = entry.hashes["release"] == failed_release(run)
    _set(story, "run", run, index, released=not failed)


def _receipt(story: Story, index: int, entry: Entry) -> None:
    _add(
        story,
        "receipt",
        entry.objects["receipt"],
        index,
        envelope=entry.hashes["envelope"],
        entry=index,
        **_some(entry.objects, request="request_id", run="run_id"),
    )


def _dispute(story: Story, index: int, entry: Entry) -> None:
    objects = entry.objects
    story.disputes.setdefault(objects["dispute"], (index, None))
    _add(
        story,
        "dispute",
        objects["dispute"],
        index,
        request_id=objects["request"],
        opener_id=objects["opener"],
        respondent_id=objects["respondent"],
        claim=entry.hashes["claim"],
        state="open",
        deadline=entry.amounts["answer_by"],
        **_some(objects, subject="subject"),
    )


def _answer(story: Story, index: int, entry: Entry) -> None:
    _set(
        story,
        "dispute",
        entry.objects["dispute"],
        index,
        state="answered",
        answer=entry.hashes["answer"],
        deadline=entry.amounts["ruling_by"],
    )


def _ruled(story: Story, index: int, entry: Entry) -> None:
    name = entry.objects["dispute"]
    _set(story, "dispute", name, index, state=entry.type.removeprefix("dispute."))
    if name in story.disputes:
        story.disputes[name] = (story.disputes[name][0], index)


Handler = Callable[[Story, int, Entry], None]

_HANDLERS: Mapping[str, Handler] = {
    "org.registered": _org,
    "key.added": _key,
    "key.revoked": _revoked,
    "source.registered": _source,
    "summary.released": _summary,
    "source.withdrawn": _left,
    "source.erased": _erased,
    "grant.given": _grant,
    "grant.withdrawn": _ungrant,
    "valset.sealed": _valset,
    "request.opened": _open,
    "request.closed": _close,
    "ask.committed": _ask,
    "ask.revealed": _opened,
    "clearing.decided": _cleared,
    "order.offered": _document("orders", "offered_again"),
    "award.decided": _document("award", "award"),
    "prices.revised": _document("prices", "prices"),
    "statement.settled": _statement,
    "delivery.sealed": _sealed,
    "order.settled": _settled,
    "run.begun": _begun,
    "target.released": _ran,
    "run.released": _ran,
    "receipt.issued": _receipt,
    "dispute.opened": _dispute,
    "dispute.answered": _answer,
    "dispute.resolved": _ruled,
    "dispute.expired": _ruled,
}
