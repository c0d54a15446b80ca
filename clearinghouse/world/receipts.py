"""Receipts: each verifies offline, and rests on the very entry of this log."""

from collections.abc import Iterator, Sequence

from clearinghouse.errors import ClearinghouseError
from clearinghouse.log.checkpoint import NoteKey
from clearinghouse.log.receipt import parse_receipt
from clearinghouse.log.verify import verify_receipt
from clearinghouse.store.store import Tx
from clearinghouse.world.trouble import Trouble


def check(tx: Tx, bodies: Sequence[bytes], key: NoteKey | None) -> Iterator[Trouble]:
    """Yield receipts that do not hold."""
    for row in tx.plain.rows("receipt"):
        if row["draft"] is not None:
            continue  # compared with the log as a row; there is no text yet
        text = row["body"].encode()
        try:
            verify_receipt(text, trusted_log_key=None if key is None else key.vkey)
            receipt = parse_receipt(text)
        except ClearinghouseError as error:
            yield Trouble("receipts", f"{row['id']}: {error}")
            continue
        index = receipt.proof.index
        if index >= len(bodies) or bodies[index] != receipt.entry.data:
            yield Trouble("receipts", f"{row['id']}: entry {index} of this log is another one")
