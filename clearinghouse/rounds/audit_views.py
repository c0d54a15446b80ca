"""What participants read of a run's audit: drawn, asked, answered; from receipt, tasks, verdict."""

import json

from clearinghouse.errors import InputError, VerificationError
from clearinghouse.log.audit_draw import is_drawn
from clearinghouse.log.receipt import parse_receipt, read_claim
from clearinghouse.messages.audits import AuditView
from clearinghouse.store.records import Receipt, Request, Run
from clearinghouse.store.store import Tx


def stored_as(run_id: str) -> str:
    """The kind of document under which a run's verdict is kept."""
    return f"audit:{run_id}"


def audit(tx: Tx, request: Request, run: Run, receipt: Receipt | None) -> AuditView:
    """The audit of a run so far; `receipt` is the run's own, if it has one."""
    damaged, is_in_draw = "", False
    if receipt is not None and receipt.draft is None:
        try:
            is_in_draw = _is_drawn(receipt)
        except (VerificationError, InputError) as error:
            damaged = f"receipt damaged: {error}"
    body = tx.requests.document(request.id, stored_as(run.id))
    if body is not None:
        return AuditView.model_validate({**json.loads(body), "drawn": is_in_draw})
    if damaged:  # said here, so that one receipt does not hide the runs beside it
        return AuditView(state="damaged", reason=damaged)
    if not is_in_draw:
        return AuditView()
    tasks = tx.tasks.of(request.id, "run.audit", subject=run.id)
    is_asked = any(task.state == "open" for task in tasks)
    return AuditView(drawn=True, state="asked" if is_asked else "overdue")


def _is_drawn(receipt: Receipt) -> bool:
    """Whether the draw fell on it.

    Raises:
        VerificationError: It is damaged, or not signed by the hospital.
        InputError: It is no receipt.
    """
    found = parse_receipt(receipt.body.encode())
    return is_drawn(read_claim(found.envelope, found.signer_keys), found.envelope)
