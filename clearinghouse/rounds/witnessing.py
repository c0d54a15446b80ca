"""Cosignatures of the log: who may give them, and receipts that carry them.

Every participant runs a witness beside its own work. Before a request ends each of them is asked to
cosign a checkpoint that covers all of it; once enough have, its receipts are written again with
their cosignatures. Witnesses from outside may be named by the operator (`witnesses` in settings).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clearinghouse.errors import InputError, RefusedError, VerificationError
from clearinghouse.log.checkpoint import (
    COSIGNATURE,
    NoteKey,
    parse_note,
    parse_vkey,
    verify_cosignature,
    verify_log_signature,
)
from clearinghouse.log.cosigned import renew_receipt
from clearinghouse.log.receipt import parse_receipt
from clearinghouse.messages.results import Cosigned, CosignedList
from clearinghouse.messages.tasks import LogCosignAnswer, LogCosignTask
from clearinghouse.rounds.desk import Desk
from clearinghouse.store.records import Org, Receipt, Request
from clearinghouse.store.store import Tx

MOST_SHOWN = 20
"""Cosigned checkpoints that are shown for comparison."""


@dataclass(frozen=True, slots=True)
class Cosignature:
    """One that holds, under a checkpoint that this log signed."""

    size: int
    key: NoteKey
    line: str


def register(tx: Tx, org: Org, vkey: str) -> str:
    """Keep an organisation's witness key, and return the digest of its public key.

    Raises:
        InputError: It is no witness key, or another's.
    """
    try:
        key = parse_vkey(vkey)
    except VerificationError as error:
        raise InputError(f"witness: {error}") from None
    if key.kind != COSIGNATURE:
        raise InputError("witness: this is the key of a log; give that of a witness")
    if tx.log.knows_witness(key.vkey):
        raise InputError("witness: this key is another organisation's; a witness keeps to one")
    tx.log.add_witness(key.vkey, org.id)
    return key.key.digest


def read_cosignature(tx: Tx, vkey: str, checkpoint: str, log: NoteKey) -> Cosignature:
    """Check a cosigned note: the log's own checkpoint, and the witness's signature under it.

    Raises:
        VerificationError: It is not this log's checkpoint, or the cosignature does not hold.
    """
    key, signed = parse_vkey(vkey), parse_note(checkpoint.encode())
    verify_log_signature(signed, log)
    stored = tx.log.checkpoint_of(signed.checkpoint.size)
    if stored is None or parse_note(stored.encode()).checkpoint != signed.checkpoint:
        raise VerificationError("the log signed no such checkpoint")
    verify_cosignature(signed, key)
    lines = [
        item.line
        for item in signed.signatures
        if (item.name, item.key_hash) == (key.name, key.key_hash)
    ]
    return Cosignature(signed.checkpoint.size, key, lines[0])


def take(tx: Tx, desk: Desk, message: Cosigned) -> None:
    """Keep a cosignature by a witness that is known here.

    Raises:
        RefusedError: Neither a participant's nor among the operator's witnesses.
        VerificationError: It does not hold.
    """
    vkey = parse_vkey(message.vkey).vkey
    if not tx.log.knows_witness(vkey):
        if vkey not in desk.settings.witness_keys:
            raise RefusedError(
                "this witness is not known here: participants' witnesses are, and those that the "
                "operator names in CLEARINGHOUSE_WITNESSES"
            )
        tx.log.add_witness(vkey, None)
    found = read_cosignature(tx, vkey, message.checkpoint, desk.note_key)
    tx.log.cosign(found.size, vkey, found.line)


def show(tx: Tx) -> CosignedList:
    """The newest cosigned checkpoints, for comparison."""
    sizes = tx.log.cosigned_sizes(0, MOST_SHOWN)
    keys = {vkey for size in sizes for vkey in tx.log.cosigners(size)}
    return CosignedList(
        checkpoints=[tx.log.cosigned(size) for size in sizes], witnesses=sorted(keys)
    )


# ---------------------------------------------------------------- a request's own cosignatures


def participants(tx: Tx, request: Request) -> tuple[str, ...]:
    """Organisations that take part in a request, each once."""
    sellers = [tx.cohorts.source(source).org_id for source in request.terms.source_ids]
    return tuple(dict.fromkeys([request.org_id, *sellers, *request.terms.developer_ids]))


def is_asked(tx: Tx, request: Request) -> bool:
    """Whether participants were asked to cosign."""
    return bool(tx.tasks.of(request.id, "log.cosign"))


def ask(tx: Tx, desk: Desk, request: Request, checkpoint: str) -> None:
    """Ask every participant to cosign a checkpoint."""
    deadline = int(desk.clock.now()) + request.terms.deadlines.agent_s
    task = LogCosignTask(checkpoint=checkpoint)
    for org_id in participants(tx, request):
        tx.tasks.create(request.id, org_id, task, subject=request.id, deadline=deadline)


def answers(tx: Tx, request: Request) -> Mapping[str, LogCosignAnswer] | None:
    """What participants cosigned, by organisation; None while too few have and more may come."""
    tasks = tx.tasks.of(request.id, "log.cosign")
    given = {task.org_id: task.answer for task in tasks if isinstance(task.answer, LogCosignAnswer)}
    is_open = any(task.state == "open" for task in tasks)
    return None if is_open and len(given) < request.terms.witness_quorum else given


def keep(tx: Tx, desk: Desk, given: Mapping[str, LogCosignAnswer]) -> None:
    """Keep the cosignatures that hold, by the witness that each organisation registered with."""
    for org_id in sorted(given):
        answer = given[org_id]
        try:
            found = read_cosignature(tx, answer.vkey, answer.checkpoint, desk.note_key)
        except VerificationError:
            continue  # it stands for itself: a participant that signs nonsense is no witness
        if tx.log.witness_of(org_id) == found.key.vkey:
            tx.log.cosign(found.size, found.key.vkey, found.line)


def renew(tx: Tx, receipts: Sequence[Receipt]) -> None:
    """Write receipts again under the checkpoint after them that most witnesses cosigned."""
    indexes = {receipt.id: parse_receipt(receipt.body.encode()).proof.index for receipt in receipts}
    sizes = tx.log.cosigned_sizes(max(indexes.values(), default=-1) + 1, MOST_SHOWN)
    best = max(sizes, key=lambda size: (len(tx.log.cosigners(size)), -size), default=None)
    if best is None:
        return
    signed = parse_note(tx.log.cosigned(best).encode())
    keys = [parse_vkey(vkey) for vkey in tx.log.cosigners(best)]
    for receipt in receipts:
        path = tx.log.proof(indexes[receipt.id], best)
        text = renew_receipt(receipt.body.encode(), signed, path, keys)
        tx.runs.renew_receipt(receipt.id, text)
