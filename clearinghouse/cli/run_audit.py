"""`run audit`: replay a run of an own model bit for bit, and say whose fault a difference is."""

from collections.abc import Callable
from typing import Any

from clearinghouse.cli.options import Result
from clearinghouse.cli.profile import Session
from clearinghouse.cli.results import find_run
from clearinghouse.client.run_audit import Auditor
from clearinghouse.errors import VerificationError


def audit_run(
    session: Session, run_id: str, request_id: str | None, say: Callable[[str], None]
) -> Result:
    """Replay a run, sign the verdict and send it.

    Args:
        session: Of the developer that owns the model.
        run_id: The run.
        request_id: Where to look for it.
        say: Told what is done now.

    Raises:
        NotFoundError, RefusedError: It is no run of this developer's, or has not ended.
        VerificationError: The log does not verify.
    """
    request, run = find_run(session, request_id, run_id)
    auditor = Auditor(session.keystore, session.transport, session.schema(), session.org_id(), say)
    found = auditor.audit(request, run.id)
    claim = found.claim
    value: dict[str, Any] = {
        "run_id": run.id,
        "request_id": request,
        "reproduced": claim.reproduced,
        "message": claim.message,
        "fault": claim.fault,
        "reason": claim.reason,
        "messages": dict(claim.messages),
        "transcript_sha256": claim.transcript_sha256,
        "verdict_sha256": found.view.digest,
        "envelope": dict(found.envelope),
    }
    verdict = "reproduced" if claim.reproduced else "REFUTED"
    lines = [
        f"{run.id}: {verdict}, {len(claim.messages)} messages: {claim.reason}",
        f"fault: {claim.fault}",
        f"the verdict is signed, sent and logged (sha256 {found.view.digest})",
    ]
    return value, "\n".join(lines)


def verdict(value: dict[str, Any]) -> None:
    """Turn a refuted run into the exit code of a failed check.

    Raises:
        VerificationError: The run was refuted.
    """
    if not value["reproduced"]:
        raise VerificationError(
            f"{value['run_id']} does not follow from what it was bound to: {value['reason']}. "
            "A dispute is open about it: clearinghouse dispute list"
        )
