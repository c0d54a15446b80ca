"""Rows as the database holds them, in the words of `told`: texts that are logged by hash as hashes.

Where a text was stored in another form than the one that was hashed, it is brought into that form
here; a row that cannot be read so is a difference, never an error.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from clearinghouse.canonical import canonical_bytes, digest
from clearinghouse.consent import DEVELOPERS
from clearinghouse.errors import ClearinghouseError
from clearinghouse.log.receipt import parse_receipt
from clearinghouse.signing import VerifyKey
from clearinghouse.store.store import Tx
from clearinghouse.world.rows import Values
from clearinghouse.world.told import key_of

Row = Mapping[str, Any]

LOGGED_DOCUMENTS = frozenset({"clearing", "certificate", "award", "prices"})
"""Kinds of documents that must not be there without an entry that has their digest."""

_NAMING_ENTRIES = {
    "org_key": ("added", "revoked"),
    "source": ("committed",),
    "release": ("entry",),
}
"""Columns with ids of entries; they are compared as indexes."""

_TWIN, _UNREADABLE = "same_as", "unreadable"


def rows_of(tx: Tx, table: str) -> dict[str, Values]:
    """The rows of one table by key, as they are compared."""
    read = _SHAPES[table]
    named = _NAMING_ENTRIES.get(table, ())
    places = tx.log.places() if named else {}
    rows = (
        {**row, **{name: places.get(row[name], row[name]) for name in named}}
        for row in tx.plain.rows(table)
    )
    return dict(found for row in rows for found in read(row, tx))


def _plain(*names: str, key: str = "id") -> "Shape":
    def read(row: Row, _tx: Tx) -> Iterator[tuple[str, Values]]:
        yield str(row[key]), {name: row[name] for name in names}

    return read


def _org_key(row: Row, _tx: Tx) -> Iterator[tuple[str, Values]]:
    values = {name: row[name] for name in ("org_id", "added", "revoked")}
    public = _safe(lambda: VerifyKey.from_base64(row["public_key"]).digest)
    yield row["id"], {**values, "public_key": public}


def _summary(row: Row, tx: Tx) -> Iterator[tuple[str, Values]]:
    body = _safe(
        lambda: {
            "level": json.loads(row["level"]),
            "counts": json.loads(row["counts"]),
            "epsilon_micro": row["epsilon_micro"],
        }
    )
    salt = tx.erasure.salt(row["source_id"])
    release = None if salt is None else _salted(salt, body)
    yield row["source_id"], {"epsilon_micro": row["epsilon_micro"], "release": release}


def _salted(salt: bytes, body: object) -> object:
    return _safe(lambda: hashlib.sha256(salt + canonical_bytes(body)).hexdigest())


def _withdrawal(row: Row, _tx: Tx) -> Iterator[tuple[str, Values]]:
    yield row["source_id"], {"erased": row["erased"] is not None}


def _grant(row: Row, _tx: Tx) -> Iterator[tuple[str, Values]]:
    names = ("source_id", "sender", "purpose", "expires")
    yield (
        row["id"],
        {
            **{name: row[name] for name in names},
            "recipient": None if row["recipient"] == DEVELOPERS else row["recipient"],
            "attributes": _safe(lambda: digest(sorted(json.loads(row["attributes"])))),
            "withdrawn": row["withdrawn"] is not None,
        },
    )


def _valset(row: Row, _tx: Tx) -> Iterator[tuple[str, Values]]:
    manifest = _safe(lambda: digest(json.loads(row["body"])))
    values = {"org_id": row["org_id"], "schema_id": row["schema_id"], "manifest": manifest}
    yield row["id"], values


def _request(row: Row, _tx: Tx) -> Iterator[tuple[str, Values]]:
    # The log says that it is done before the last cosignatures come; only those may follow.
    is_over = row["step"] == "audit" and row["closed"] is not None
    running = "done" if is_over else ""
    yield (
        row["id"],
        {
            **{name: row[name] for name in ("org_id", "valset_id", "terms_digest")},
            "terms": _safe(lambda: digest(json.loads(row["terms"]))),
            "ended": running if row["state"] == "running" else row["state"],
        },
    )


def _ask(row: Row, _tx: Tx) -> Iterator[tuple[str, Values]]:
    key = key_of(row["request_id"], row["source_id"])
    yield key, {"commitment": row["commitment"], "ask_micro": row["ask_micro"]}


def _order(row: Row, _tx: Tx) -> Iterator[tuple[str, Values]]:
    """An order is in the log once something of it is; one that earned must be."""
    names = ("source_id", "delivery_id", "units", "real", "earned_micro")
    values = {name: row[name] for name in names}
    yield row["id"], {**values, "ground": row["ground"] or ""}


def _run(row: Row, _tx: Tx) -> Iterator[tuple[str, Values]]:
    """A run, unless it opened nothing: a model that could not be read, or a repeated one."""
    model = _safe(lambda: json.loads(row["model"]))
    if isinstance(model, dict) and (_TWIN in model or model.get("kind") == _UNREADABLE):
        return
    values = {name: row[name] for name in ("request_id", "model_id")}
    yield row["id"], {**values, "released": row["state"] == "released"}


def _receipt(row: Row, tx: Tx) -> Iterator[tuple[str, Values]]:
    values: dict[str, object] = {name: row[name] for name in ("request_id", "run_id")}
    if row["draft"] is not None:
        yield row["id"], values | _draft(row["draft"], tx)
        return
    try:
        receipt = parse_receipt(row["body"].encode())
    except (ClearinghouseError, ValueError):
        yield row["id"], values
    else:
        more = {"envelope": receipt.envelope_digest, "entry": receipt.proof.index}
        yield row["id"], values | more


def _draft(text: str, tx: Tx) -> dict[str, object]:
    """What a receipt will say that is not written yet."""
    told = _safe(lambda: json.loads(text))
    if not isinstance(told, dict):
        return {}
    entry = _safe(lambda: tx.log.places()[told["entry"]])
    return {"envelope": _safe(lambda: digest(told["envelope"])), "entry": entry}


def _document(row: Row, _tx: Tx) -> Iterator[tuple[str, Values]]:
    yield key_of(row["request_id"], row["kind"]), {"body": digest(row["body"].encode())}


def _dispute(row: Row, _tx: Tx) -> Iterator[tuple[str, Values]]:
    names = ("request_id", "opener_id", "respondent_id", "subject", "state", "deadline")
    hashed = {name: digest(row[name].encode()) for name in ("claim", "answer")}
    yield row["id"], {**{name: row[name] for name in names}, **hashed}


def _safe(read: Callable[[], object]) -> object:
    """What `read` gives, or None where the stored text cannot be read."""
    try:
        return read()
    except (ClearinghouseError, ValueError, KeyError, TypeError):
        return None


Shape = Callable[[Row, Tx], Iterator[tuple[str, Values]]]

_SHAPES: Mapping[str, Shape] = {
    "org": _plain(),
    "org_key": _org_key,
    "source": _plain("org_id", "schema_id", "rows_root", "leaves", "size_class", "committed"),
    "summary": _summary,
    "withdrawal": _withdrawal,
    "grants": _grant,
    "valset": _valset,
    "request": _request,
    "release": _plain(
        "owner",
        "data",
        "kind",
        "request_id",
        "run_id",
        "epsilon_micro",
        "rho_micro",
        "time",
        key="entry",
    ),
    "ask": _ask,
    "orders": _order,
    "run": _run,
    "receipt": _receipt,
    "document": _document,
    "dispute": _dispute,
}
