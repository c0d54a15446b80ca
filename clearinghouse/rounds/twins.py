"""The same model twice: the later submission gets the stored answer, and no epsilon is spent.

One run for each model and request: a second opening of the same scores would only average the
noise away.
"""

from dataclasses import dataclass

from clearinghouse.rounds.desk import Desk
from clearinghouse.store.records import Request, Run
from clearinghouse.store.store import Tx

SAME_AS = "same_as"
"""Key of a run's model document: the run that answers for it."""


def original_of(tx: Tx, request: Request, digest: str) -> Run | None:
    """The run of this request that scores (or scored) the model of that digest."""
    for run in tx.runs.of(request.id, "score"):
        if run.model["digest"] == digest and SAME_AS not in run.model:
            return run
    return None


@dataclass(frozen=True, slots=True)
class Twin:
    """A run that waits for another's answer, and that other run, which has ended."""

    run: Run
    original: Run


def answered(tx: Tx, request: Request) -> Twin | None:
    """The first twin whose original has ended; released ones once their receipt is dealt with."""
    runs = {run.id: run for run in tx.runs.of(request.id, "score")}
    receipts = tx.runs.receipts(request.id)
    for run in runs.values():
        original = runs.get(str(run.model.get(SAME_AS, "")))
        if run.state != "running" or original is None or original.state == "running":
            continue
        if original.state == "failed" or original.id in receipts or original.reason:
            return Twin(run, original)
    return None


def repeat(tx: Tx, _desk: Desk, _request: Request, found: Twin, _result: None) -> bool:
    """Give the twin its original's answer."""
    words = f"the same model as {found.original.id}: its stored answer, no epsilon was spent"
    if found.original.state == "failed":
        tx.runs.fail(found.run.id, f"{words}; {found.original.reason}")
        return False
    tx.runs.release(found.run.id, {**found.original.result, "epsilon_micro": 0})
    tx.runs.note(found.run.id, words)
    return False
