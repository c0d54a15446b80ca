"""Step 7, audit: the last entry and a signed head that covers everything before it."""

from clearinghouse.rounds.desk import Desk
from clearinghouse.rounds.moves import Move, Step, no_work
from clearinghouse.store.records import Request
from clearinghouse.store.store import Tx


def _ready(_tx: Tx, _request: Request) -> bool:
    return True


def _commit(tx: Tx, desk: Desk, request: Request, _found: bool, _result: None) -> bool:
    close(tx, desk, request, "done")
    return True


def close(tx: Tx, desk: Desk, request: Request, state: str) -> None:
    """Log the end of a request and sign the log's head."""
    desk.record(
        tx,
        "request.closed",
        desk.org,
        objects={"request": request.id},
        amounts={"failed": int(state == "failed")},
    )
    desk.checkpoint(tx)


STEP = Step("audit", (Move("to close the request", _ready, no_work, _commit),))
