"""Step 7, audit: the last entry, a signed head that covers everything, and its witnesses."""

from collections.abc import Mapping

from clearinghouse.messages.tasks import LogCosignAnswer
from clearinghouse.rounds import witnessing
from clearinghouse.rounds.desk import Desk
from clearinghouse.rounds.moves import Move, Step, no_work
from clearinghouse.store.records import Request
from clearinghouse.store.store import Tx


def is_closed(tx: Tx, request: Request) -> bool:
    """Whether the log says that the request has ended; only cosignatures may follow."""
    return bool(tx.tasks.of(request.id, "log.cosign"))


def close(tx: Tx, desk: Desk, request: Request, state: str) -> str:
    """Log the end of a request and return the signed head of the log."""
    desk.record(
        tx,
        "request.closed",
        desk.org,
        objects={"request": request.id},
        amounts={"failed": int(state == "failed")},
    )
    return desk.checkpoint(tx)


def _open(tx: Tx, request: Request) -> bool | None:
    return None if is_closed(tx, request) else True


def _close(tx: Tx, desk: Desk, request: Request, _found: bool, _result: None) -> bool:
    witnessing.ask(tx, desk, request, close(tx, desk, request, "done"))
    return False


def _cosigned(tx: Tx, request: Request) -> Mapping[str, LogCosignAnswer] | None:
    return witnessing.answers(tx, request) if is_closed(tx, request) else None


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
        Move("to write receipts with their witnesses", _cosigned, no_work, _renew),
    ),
)
