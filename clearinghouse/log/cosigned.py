"""Receipts under witnesses: gather cosignatures, and write a receipt again with them."""

from collections.abc import Sequence

from clearinghouse.errors import VerificationError
from clearinghouse.log.checkpoint import (
    NoteKey,
    SignedCheckpoint,
    parse_note,
    verify_cosignature,
    verify_log_signature,
)
from clearinghouse.log.proof import LogProof
from clearinghouse.log.receipt import build_receipt, parse_receipt


def merge_cosignatures(notes: Sequence[bytes], witnesses: Sequence[NoteKey]) -> SignedCheckpoint:
    """Put the cosignatures of several copies of one checkpoint onto one note.

    Raises:
        VerificationError: The notes are of different checkpoints, or a cosignature by one of
            `witnesses` does not hold. Cosignatures by others are left out.
    """
    if not notes:
        raise VerificationError("there is no checkpoint to merge")
    copies = [parse_note(note) for note in notes]
    first = copies[0]
    if any(copy.checkpoint != first.checkpoint for copy in copies):
        raise VerificationError("these are cosignatures of different checkpoints")
    lines = {(line.name, line.key_hash): line for copy in copies for line in copy.signatures}
    merged = SignedCheckpoint(first.checkpoint, tuple(lines.values()))
    kept = [first.signatures[0]]
    for key in witnesses:
        if (key.name, key.key_hash) in lines:
            verify_cosignature(merged, key)
            kept.append(lines[key.name, key.key_hash])
    return SignedCheckpoint(first.checkpoint, tuple(kept))


def renew_receipt(
    data: bytes, signed: SignedCheckpoint, path: Sequence[bytes], witnesses: Sequence[NoteKey]
) -> str:
    """Write a receipt again under a newer checkpoint, with the cosignatures that this one has.

    A receipt is written before a witness can have seen its entry; so its owner renews it once
    enough of them have. Statement, signatures and entry stay as they are.

    Args:
        data: The receipt.
        signed: A checkpoint of the same log that covers the receipt's entry.
        path: The entry's audit path in that tree (GET /v1/log/proof).
        witnesses: Keys of the cosigners to name.

    Raises:
        VerificationError: The entry is not in that tree, or the result would not verify.
    """
    receipt = parse_receipt(data)
    verify_log_signature(signed, receipt.log_key)
    proof = LogProof(receipt.proof.index, tuple(path), signed)
    proof.verify_entry(receipt.entry.data)
    return build_receipt(
        receipt.envelope,
        receipt.entry.data,
        proof,
        receipt.log_key,
        receipt.signer_keys,
        witnesses,
    )
