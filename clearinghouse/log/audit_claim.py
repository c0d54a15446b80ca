"""What an auditor signs about a run it replayed: the verdict, and exactly which bytes it is about.

A verdict is worth nothing to somebody who saw other bytes than the auditor: a server could show
each of them a run of its own. So the claim names the hash of every message and input, and who
relies on it compares them with what it saw itself.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from clearinghouse.errors import VerificationError
from clearinghouse.ids import Noun, is_id
from clearinghouse.signing import SigningKey, VerifyKey, sign_statement, verify_statement

__all__ = ["AUDIT_PREDICATE", "FAULTS", "INPUTS", "AuditClaim", "read_audit", "sign_audit"]

AUDIT_PREDICATE = "urn:clearinghouse:run-audit:v1"
FAULTS = ("none", "evaluator", "key holder", "record")
"""As `secure_eval.replay.Fault` has them; this module must not load ciphertexts' code."""
INPUTS = ("keys", "upload", "layout", "coins", "model", "seed", "nonce", "developer_nonce")
"""Hashes of what the run was computed from: of keys, upload (list of blobs), layout and coins as
canonical JSON, of the model; of seed and nonces the commitments in the log."""

MAX_REASON = 500
_IDS: Mapping[str, Noun] = {"request": "req", "run": "run", "model": "mod", "auditor": "org"}
_HASH = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[a-z][a-z0-9_.]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditClaim:
    """The content of an audit. Building one checks every field.

    Attributes:
        reproduced: Every message of the evaluator is the one that had to be sent.
        message: The first message at fault; empty if none is.
        fault: Who answers for it: one of `FAULTS`.
        reason: One sentence, without a value of anybody's rows.
        inputs: Name to SHA-256, all of `INPUTS`.
        messages: Name to SHA-256 of every message of the run, in the order they travelled.
        transcript_sha256: As `run.released` names it, over the hashes of `messages`.

    Raises:
        VerificationError: A field is malformed.
    """

    request: str
    run: str
    model: str
    auditor: str
    reproduced: bool
    message: str
    fault: str
    reason: str
    inputs: Mapping[str, str]
    messages: Mapping[str, str]
    transcript_sha256: str

    def __post_init__(self) -> None:
        for name, noun in _IDS.items():
            if not is_id(getattr(self, name), noun):
                raise VerificationError(f"audit: {name} must be an id")
        if type(self.reproduced) is not bool or self.fault not in FAULTS:
            raise VerificationError(f"audit: needs a verdict, and a fault of {', '.join(FAULTS)}")
        if not self.reproduced and (self.fault == "none" or not self.message):
            raise VerificationError("audit: what is refuted names a message and whose fault it is")
        if not isinstance(self.reason, str) or len(self.reason) > MAX_REASON:
            raise VerificationError(f"audit: the reason is a text of at most {MAX_REASON} letters")
        if not isinstance(self.message, str) or not _is_hashes({"all": self.transcript_sha256}):
            raise VerificationError("audit: message or transcript is malformed")
        if not _is_hashes(self.inputs) or set(self.inputs) != set(INPUTS):
            raise VerificationError(f"audit: the inputs are the hashes of {', '.join(INPUTS)}")
        if not _is_hashes(self.messages):
            raise VerificationError("audit: the messages are hashes by name")

    @property
    def clears(self) -> bool:
        """Whether it shows that the evaluator's openings were honest."""
        return self.reproduced and self.fault == "none"


def _is_hashes(found: object) -> bool:
    return (
        isinstance(found, Mapping)
        and len(found) <= 64
        and all(
            isinstance(name, str)
            and _NAME.fullmatch(name)
            and isinstance(value, str)
            and _HASH.fullmatch(value)
            for name, value in found.items()
        )
    )


def sign_audit(claim: AuditClaim, key: SigningKey) -> dict[str, Any]:
    """Return the envelope of an audit."""
    predicate = {**asdict(claim), "inputs": dict(claim.inputs), "messages": dict(claim.messages)}
    return sign_statement(AUDIT_PREDICATE, {claim.run: claim.transcript_sha256}, predicate, [key])


def read_audit(envelope: object, keys: Sequence[VerifyKey]) -> AuditClaim:
    """Verify an audit, signed by one of these keys, and return what it says.

    Raises:
        VerificationError: A signature or the claim does not hold.
    """
    statement = verify_statement(envelope, {key.key_id: key for key in keys}, frozenset())
    if statement.predicate_type != AUDIT_PREDICATE:
        raise VerificationError(f"an audit is a statement of the type {AUDIT_PREDICATE}")
    try:
        claim = AuditClaim(**dict(statement.predicate))
    except TypeError:
        raise VerificationError("an audit has exactly the fields of AuditClaim") from None
    if dict(statement.subjects) != {claim.run: claim.transcript_sha256}:
        raise VerificationError("an audit is about its run's transcript")
    return claim
