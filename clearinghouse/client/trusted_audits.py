"""A hospital lets an audit that it trusts clear the openings of a run.

Whoever signs such an audit can free a key for further openings, so it is named by its key, not by a
name or id that the server could give to somebody else, and nobody is trusted unless named. The
audit must be about the very bytes that this hospital saw and sent: otherwise a server could show
the auditor an honest run, and the hospital another.
"""

import json
from collections.abc import Mapping, Set
from typing import Any

from clearinghouse.canonical import digest
from clearinghouse.client.hospital import Hospital
from clearinghouse.errors import ClearinghouseError
from clearinghouse.log.audit_claim import AuditClaim, read_audit
from clearinghouse.messages.audits import AuditView
from clearinghouse.messages.intake import OrgView
from clearinghouse.messages.results import RunList
from clearinghouse.signing import VerifyKey

__all__ = ["clear_audited"]


def clear_audited(hospital: Hospital, trusted: Set[str]) -> dict[str, str]:
    """Clear the openings of every run that a trusted auditor reproduced.

    Args:
        hospital: With its key agent.
        trusted: Key ids of auditors.

    Returns:
        By run that has an audit by one of them and still counts: "cleared", or why not.

    Raises:
        ClearinghouseError: As the calls to the server.
    """
    told: dict[str, str] = {}
    if not trusted:
        return told
    waiting: dict[str, list[str]] = {}
    for name in hospital.agent.quota.reserved():
        if name.startswith("run_") and hospital.agent.record(name)["kind"] == "score":
            request = str(hospital.agent.record(name)["request_id"])
            waiting.setdefault(request, []).append(name)
    for request, names in waiting.items():
        for view in hospital.transport.get(f"/requests/{request}/runs", RunList).runs:
            if view.id in names and _signers(view.audit) & trusted:
                told[view.id] = _clear(hospital, request, view.id, view.audit, trusted)
    return told


def _signers(audit: AuditView) -> set[str]:
    signatures = audit.envelope.get("signatures", [])
    return {str(item.get("keyid")) for item in signatures if isinstance(item, Mapping)}


def _clear(hospital: Hospital, request: str, run: str, audit: AuditView, trusted: Set[str]) -> str:
    try:
        view = hospital.transport.get(f"/orgs/{audit.auditor}", OrgView)
        key = VerifyKey.from_base64(view.public_key)
        # a key id is the hash of the key: the server cannot give it to another key
        claim = read_audit(audit.envelope, [key] if key.key_id in trusted else [])
        problem = _unlike(hospital, request, run, claim)
    except ClearinghouseError as error:
        return str(error)
    if problem:
        return problem
    hospital.agent.quota.clear(run)
    return "cleared"


def _unlike(hospital: Hospital, request: str, run: str, claim: AuditClaim) -> str:
    """Why an audit does not clear the run as this hospital knows it; empty if it does."""
    record = hospital.agent.record(run)
    if (claim.request, claim.run) != (request, run):
        return "the audit is about another run"
    if not claim.clears:
        return f"the audit does not clear it: {claim.reason}"
    if dict(claim.messages) != dict(record.get("blobs", {})):
        return "the audit is about other messages than this hospital saw"
    own = _inputs(hospital, record)
    other = sorted(name for name in own if claim.inputs[name] != own[name])
    return f"the audit is about another {', '.join(other)} than this hospital's" if other else ""


def _inputs(hospital: Hospital, record: Mapping[str, Any]) -> dict[str, str]:
    """What the run was computed from, as this hospital knows it without asking anybody."""
    sealed = hospital.keystore.recall("private/commitment")
    layout = json.loads(hospital.keystore.recall("valset")["layout"])
    nonce, developers = record["nonce_commitments"]
    return {
        "keys": sealed["keys"],
        "upload": digest(list(sealed["uploads"])),
        "layout": digest(layout),
        "coins": digest([table["coins"] for table in record["tables"] if table["coins"]]),
        "model": record["model_digest"],
        "seed": record["seed_commitment"],
        "nonce": nonce,
        "developer_nonce": developers,
    }
