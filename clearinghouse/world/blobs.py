"""Blobs: what is named is there, with its bytes; what is not named does not stay."""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence

from clearinghouse.blobs import BlobStore
from clearinghouse.log.entries import Entry
from clearinghouse.store.store import Tx
from clearinghouse.world.trouble import Trouble

GRACE_S = 3 * 86_400.0
"""So long bytes may lie there that nothing names; then the server's own sweep takes them."""

_NAME = re.compile(r"\b[0-9a-f]{64}\b")


def check(
    tx: Tx, entries: Sequence[Entry], store: BlobStore, now_s: float, grace_s: float
) -> Iterator[Trouble]:
    """Yield blobs that are missing, changed, or left over."""
    indexed = {row["digest"]: row["size"] for row in tx.plain.rows("blob")}
    doomed = {row["digest"] for row in tx.plain.rows("doomed")}
    for digest, size in indexed.items():
        found = store.find(digest)
        if found is None:
            yield _wrong(f"{digest} is in the index and not where blobs lie")
        elif found.size != size or _hash(store, digest) != digest:
            yield _wrong(f"{digest} has other bytes where blobs lie")
    for digest, who in _named(tx, entries).items():
        if digest not in indexed:
            yield _wrong(f"{digest} is named by {who} and not in the index")
    known = {*indexed, *doomed, *_at_work(tx)}
    for blob in sorted(store.listed(), key=lambda blob: blob.digest):
        if blob.digest not in known and blob.written < now_s - grace_s:
            yield _wrong(f"{blob.digest} lies among the blobs and nothing names it")


def _hash(store: BlobStore, digest: str) -> str:
    whole = hashlib.sha256()
    for chunk in store.chunks(digest):
        whole.update(chunk)
    return whole.hexdigest()


def _named(tx: Tx, entries: Sequence[Entry]) -> dict[str, str]:
    """Blobs that must be there, with who names them; of erased requests and sources none must."""
    found: dict[str, str] = {}
    for row in tx.plain.rows("valset"):
        body = json.loads(row["body"])
        for digest in (body["keys_blob"], *body["upload_blobs"]):
            found[digest] = row["id"]
    erased = {row["request_id"] for row in tx.plain.rows("document") if row["kind"] == "swept"}
    erased |= {item.objects["request"] for item in entries if item.type == "request.erased"}
    withdrawn = {row["source_id"] for row in tx.plain.rows("withdrawal")}
    withdrawn |= {row["source_id"] for row in tx.plain.rows("grants") if row["withdrawn"]}
    orders = {row["id"]: row for row in tx.plain.rows("orders")}
    lost = {name for name, row in orders.items() if row["source_id"] in withdrawn}
    for row in tx.plain.rows("message"):
        may_be_gone = row["kind"].startswith("deliver") and withdrawn
        if row["request_id"] not in erased and not may_be_gone:
            found[row["digest"]] = row["request_id"]
    for name, row in orders.items():
        digest, request = row["sealed_blob"], row["request_id"]
        if digest and name not in lost and request not in erased:
            found[digest] = name
    return found


def _at_work(tx: Tx) -> set[str]:
    """Blobs that jobs have made, whose move is not made yet."""
    texts = (f"{row['arguments']} {row['result']}" for row in tx.plain.rows("job"))
    return {name for text in texts for name in _NAME.findall(text)}


def _wrong(words: str) -> Trouble:
    return Trouble("blobs", words)
