"""The whole log, read by a party and checked against a checkpoint that its own witness vouches for.

A proof of one entry shows that the entry is there; only the whole log shows that there is no second
one that says otherwise.
"""

from collections.abc import Callable

from clearinghouse.client.keystore import Keystore
from clearinghouse.client.transport import Transport
from clearinghouse.errors import VerificationError
from clearinghouse.log.checkpoint import parse_note
from clearinghouse.log.entries import Entry, parse_entry
from clearinghouse.log.merkle import MemoryNodes, append, root
from clearinghouse.log.witness import log_prover, party_witness
from clearinghouse.messages.results import CheckpointView, LogView

__all__ = ["read_log"]


def read_log(
    transport: Transport, keystore: Keystore, say: Callable[[str], None]
) -> tuple[Entry, ...]:
    """Every entry under the newest checkpoint.

    Args:
        transport: To the server.
        keystore: Of the party, with its witness.
        say: Told how far it is.

    Raises:
        ForkError: The log showed another history than before; the evidence is kept.
        VerificationError: The entries are not those of the checkpoint, or are malformed.
        ClearinghouseError: As the calls to the server.
    """
    view = transport.get("/log/checkpoint", CheckpointView)
    note = view.checkpoint.encode()
    witness = party_witness(keystore, transport.clock)
    witness.observe(note, view.vkey, log_prover(transport))
    head = parse_note(note).checkpoint
    nodes, entries = MemoryNodes(), []
    while nodes.size() < head.size:
        start = nodes.size()
        query = f"start={start}&limit={min(1000, head.size - start)}"
        found = transport.get("/log/entries", LogView, query=query).entries
        if not found or len(found) > head.size - start:
            raise VerificationError(f"the log has {head.size} entries and shows others")
        for text in found:
            append(nodes, text.encode())
            entries.append(parse_entry(text.encode()))
        say(f"log: {nodes.size()} of {head.size} entries read")
    if root(nodes) != head.root:
        raise VerificationError("the log's entries are not those of its signed checkpoint")
    return tuple(entries)
