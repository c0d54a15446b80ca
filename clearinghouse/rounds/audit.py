"""Step 7, audit: the last entry, a signed head that covers everything, and its witnesses."""

from collections.abc import Mapping

from clearinghouse.messages.tasks import LogCosignAnswer
from clearinghouse.rounds import witnessing
from clearinghouse.rounds.desk import Desk
from clearinghouse.rounds.moves import Move, Step, no_work
from clearinghouse.store.records import Request
from clearinghouse.store.store import Tx


def close(tx: Tx, desk: Desk, request: Request, state: str) -> None:
    """Log the end of a request; after that only cosignatures follow."""
    entry_id = desk.record(
        tx,
        "request.closed",
        desk.org,
        objects={"request": request.id},
        amounts={"failed": int(state == "failed")},
    )
    tx.requests.date_end(request.id, entry_id)


def _open(_tx: Tx, request: Request) -> bool | None:
    return True if request.closed is None else None


def _close(tx: Tx, desk: Desk, request: Request, _found: bool, _result: None) -> bool:
    close(tx, desk, request, "done")
    return False


def _placed(tx: Tx, request: Request) -> int | None:
    """The size of the log with all of the request, once its last entry has its place."""
    if request.closed is None or witnessing.is_asked(tx, request):
        return None
    place = tx.log.place(request.closed)
    if place is None or not (tx.log.is_sequenced_at_once or tx.log.signed_size() > place):
        return None
    return place + 1


def _ask(tx: Tx, desk: Desk, request: Request, _found: int, _result: None) -> bool:
    if tx.log.is_sequenced_at_once and desk.sequencer is not None:
        desk.sequencer.sign(tx)
    witnessing.ask(tx, desk, request, tx.log.last_checkpoint() or "")
    return False


def _cosigned(tx: Tx, request: Request) -> Mapping[str, LogCosignAnswer] | None:
    return witnessing.answers(tx, request) if witnessing.is_asked(tx, request) else None


def _renew(
    tx: Tx,
    desk: Desk,
    request: Request,
    found: Mapping[str, LogCosignAnswer],
    _result: None,
) -> bool:
    witnessing.keep(tx, desk, found)
    witnessing.renew(tx, tuple(tx.runs.receipts(request.id).values()))
    tx.tasks.void(request.id)
    return True


STEP = Step(
    "audit",
    (
        Move("to close the request", _open, no_work, _close),
        Move("to ask for cosignatures", _placed, no_work, _ask),
        Move("to write receipts with their witnesses", _cosigned, no_work, _renew),
    ),
)
