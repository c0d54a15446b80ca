"""Taking a party's answer: store it, and mark the request, in one transaction."""

from clearinghouse.messages.consent import DeleteAnswer, DeleteTask
from clearinghouse.messages.tasks import Answer, RefuseTask
from clearinghouse.rounds import withdrawal
from clearinghouse.rounds.desk import Desk
from clearinghouse.store.records import Org
from clearinghouse.store.store import Tx


def answer(tx: Tx, desk: Desk, caller: Org, task_id: str, given: Answer) -> None:
    """Store an answer; the identical one again changes nothing.

    Raises:
        NotFoundError: The task is not the caller's.
        ConflictError: It has another answer.
        RefusedError: It is of another kind, or too late.
        InputError: It names a blob that the caller has not uploaded.
    """
    blobs = {name: value for name, value in given.model_dump().items() if name.endswith("_blob")}
    task = tx.tasks.get(task_id, caller.id)
    sizes = {name: tx.blobs.size(value, caller.id) for name, value in blobs.items()}
    if not tx.tasks.answer(task_id, caller.id, given, desk.clock.now()):
        return
    if isinstance(given, DeleteAnswer) and isinstance(task.task, DeleteTask):
        withdrawal.confirm_deletion(tx, desk, caller, task.request_id, task.task, given)
    run_id = task.subject if task.subject.startswith("run_") else ""
    for name in sorted(blobs):
        kind = f"{given.kind}.{name.removesuffix('_blob')}"
        tx.requests.moved(task.request_id, kind, blobs[name], sizes[name], run_id)
    tx.requests.mark_due(task.request_id)


def refuse(tx: Tx, desk: Desk, caller: Org, task_id: str, given: RefuseTask) -> None:
    """Record that a party will not do a task.

    Raises:
        NotFoundError: The task is not the caller's.
        ConflictError: It was answered.
        RefusedError: It is too late.
    """
    task = tx.tasks.get(task_id, caller.id)
    if tx.tasks.refuse(task_id, caller.id, given.reason, desk.clock.now(), given.spent_micro):
        tx.requests.mark_due(task.request_id)
