"""Receipts that are issued and cannot be written yet: their entry has no place in the log."""

from collections.abc import Mapping
from typing import Any

from clearinghouse.canonical import canonical_bytes, parse_strict
from clearinghouse.errors import InputError
from clearinghouse.log.checkpoint import NoteKey, parse_note
from clearinghouse.log.proof import LogProof
from clearinghouse.log.receipt import build_receipt
from clearinghouse.signing import VerifyKey
from clearinghouse.store.records import Receipt
from clearinghouse.store.store import Tx


def draft(whole: Mapping[str, Any], entry_id: int, signers: Mapping[str, VerifyKey]) -> str:
    """What a receipt is written from: the signed statement, its entry, the keys that signed it."""
    keys = {name: key.base64 for name, key in signers.items()}
    return canonical_bytes({"entry": entry_id, "envelope": dict(whole), "keys": keys}).decode()


def write(tx: Tx, log_key: NoteKey, receipt: Receipt) -> bool:
    """Write a drafted receipt under the newest head; False if its entry has no place yet.

    Args:
        tx: A transaction in which the head of the whole log is signed.
        log_key: The log's key.
        receipt: With its draft.

    Raises:
        VerificationError: The draft is damaged.
        InputError: It is no draft.
    """
    told = read(receipt)
    index = tx.log.place(told["entry"])
    head = tx.log.last_checkpoint()
    if index is None or head is None:
        return False
    note = parse_note(head.encode())
    proof = LogProof(index, tuple(tx.log.proof(index, note.checkpoint.size)), note)
    (entry,) = tx.log.entries(index, 1)
    signers = {name: VerifyKey.from_base64(key) for name, key in told["keys"].items()}
    text = build_receipt(told["envelope"], entry, proof, log_key, signers)
    tx.runs.renew_receipt(receipt.id, text)
    return True


def read(receipt: Receipt) -> dict[str, Any]:
    """The parts of a draft: `entry`, `envelope`, `keys`.

    Raises:
        InputError: It is no draft.
    """
    told = parse_strict((receipt.draft or "").encode())
    if not isinstance(told, dict) or set(told) != {"entry", "envelope", "keys"}:
        raise InputError(f"receipt {receipt.id} has no draft")
    return told
