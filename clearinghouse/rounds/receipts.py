"""Score receipts: what server and hospital sign, and the text with its place in the log."""

from collections.abc import Mapping, Sequence
from typing import Any

from clearinghouse.canonical import digest
from clearinghouse.clock import timestamp
from clearinghouse.ids import new_id
from clearinghouse.log.claim import Metric, ScoreClaim, Signer
from clearinghouse.log.receipt import read_claim, sign_claim
from clearinghouse.messages.intake import SealValset
from clearinghouse.messages.tasks import ReceiptSignAnswer
from clearinghouse.noise_laws import privacy_facts
from clearinghouse.rounds import drafts
from clearinghouse.rounds.desk import Desk
from clearinghouse.signing import VerifyKey
from clearinghouse.store.records import Receipt, Request, Run
from clearinghouse.store.store import Tx

_STATUS = {"ok": "determined", "undetermined": "undetermined"}


def envelope(
    tx: Tx,
    desk: Desk,
    request: Request,
    run: Run,
    scorecard: Mapping[str, Any],
    digests: Any,
    coins: Sequence[int],
) -> dict[str, Any]:
    """The score statement, signed by the server.

    Args:
        tx: The transaction that records the release.
        desk: Who signs.
        request: Whose terms hold.
        run: What was scored.
        scorecard: Metrics and intervals.
        digests: Of release and transcript.
        coins: A cell of each released table; 0 under geometric noise.
    """
    valset = tx.cohorts.valset(request.valset_id)
    hospital = tx.parties.get(request.org_id)
    release, transcript = digests
    claim = ScoreClaim(
        receipt=new_id("rcp"),
        request=request.id,
        run=run.id,
        release=new_id("rel"),
        model=run.model_id,
        valset=request.valset_id,
        developer=str(run.model["org_id"]),
        hospital=hospital.id,
        model_sha256=str(run.model["digest"]),
        valset_commitment=SealValset.model_validate_json(valset.body).commitment,
        release_sha256=release,
        transcript_sha256=transcript,
        policy_sha256=request.terms_digest,
        kind=str(run.model["kind"]),
        issued_at=timestamp(desk.clock.now()),
        status=_STATUS[scorecard["status"]],
        confidence=scorecard["level"],
        epsilon_micro=request.terms.epsilon_score_micro,
        metrics={
            name: Metric(scorecard[name], *ends) for name, ends in scorecard["intervals"].items()
        },
        facts=privacy_facts(coins, request.terms.rho_score_micro),
        signers=tuple(
            Signer(role, org.id, org.key_id)
            for role, org in (("clearinghouse", desk.org), ("hospital", hospital))
        ),
    )
    return sign_claim(claim, [desk.key])


def countersigned(
    signed: Mapping[str, Any], answer: ReceiptSignAnswer, signers: Mapping[str, VerifyKey]
) -> dict[str, Any]:
    """The statement with the hospital's signature added.

    Raises:
        VerificationError: The signature does not hold, or is another organisation's.
    """
    added = {"keyid": answer.key_id, "sig": answer.signature}
    both = sorted([*signed["signatures"], added], key=lambda item: str(item["keyid"]))
    whole = {**signed, "signatures": both}
    read_claim(whole, signers)
    return whole


def signer_keys(tx: Tx, *org_ids: str) -> dict[str, VerifyKey]:
    """The keys that may sign a receipt for these organisations now."""
    keys = [key for org_id in org_ids for key in tx.parties.keys(org_id) if not key.is_revoked]
    return {key.id: VerifyKey.from_base64(key.public_key) for key in keys}


def issue(tx: Tx, desk: Desk, request: Request, run: Run, whole: Mapping[str, Any]) -> None:
    """Log a fully signed statement and draft its receipt, in one transaction.

    It is written at once where its entry has its place at once, and by the sequencer otherwise.
    """
    signers = signer_keys(tx, desk.org.id, request.org_id)
    claim = read_claim(whole, signers)
    objects = {name: claim.ids[name] for name in ("receipt", "request", "run", "model", "valset")}
    entry_id = desk.record(
        tx, "receipt.issued", desk.org, objects=objects, hashes={"envelope": digest(dict(whole))}
    )
    drafted = drafts.draft(whole, entry_id, signers)
    receipt = Receipt(claim.receipt, request.id, run.id, "", drafted)
    tx.runs.add_receipt(receipt)
    if tx.log.is_sequenced_at_once and desk.sequencer is not None:
        desk.sequencer.sign(tx)
        drafts.write(tx, desk.note_key, receipt)
