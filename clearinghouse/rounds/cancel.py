"""Ending one scoring run early, on its hospital's wish."""

from clearinghouse.errors import NotFoundError, RefusedError
from clearinghouse.rounds.desk import Desk
from clearinghouse.rounds.releases import burn
from clearinghouse.rounds.twins import SAME_AS
from clearinghouse.store.records import Org
from clearinghouse.store.store import Tx


def cancel_run(tx: Tx, desk: Desk, caller: Org, request_id: str, run_id: str, reason: str) -> None:
    """Burn a run: its tasks are withdrawn, its jobs cancelled, the other runs go on.

    What the hospital's ledger paid for the run stays paid, and is logged if it was asked for noise.
    Cancelling a run that has failed already changes nothing.

    Raises:
        NotFoundError: The caller is not in the request, or it has no such run.
        RefusedError: The caller is not the hospital, or the run has released its score.
    """
    request = tx.access.request(request_id, caller.id)
    run = next((run for run in tx.runs.of(request_id, "score") if run.id == run_id), None)
    if run is None:
        raise NotFoundError(f"no run {run_id}")
    if caller.id != request.org_id:
        raise RefusedError("only the hospital whose request it is may cancel a run")
    if run.state == "failed":
        return
    if run.state == "released" or request.state != "running":
        raise RefusedError(f"run {run_id} has ended and cannot be cancelled")
    if SAME_AS in run.model:
        raise RefusedError(f"run {run_id} only repeats the answer of {run.model[SAME_AS]}")
    tx.requests.claim(request)  # what a move has worked out of the run meanwhile is dropped
    burn(tx, desk, request, run, f"cancelled by {caller.words}: {reason}")
