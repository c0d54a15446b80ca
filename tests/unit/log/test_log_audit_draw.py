"""The draw of runs for a replay: its share, that nobody can know it before, and its inputs."""

import math
import secrets

import pytest

from clearinghouse.errors import VerificationError
from clearinghouse.ids import new_id
from clearinghouse.log.audit_claim import INPUTS, AuditClaim, read_audit, sign_audit
from clearinghouse.log.audit_draw import DRAW_SHARE_MICRO, drawn
from clearinghouse.signing import SigningKey, sign_statement

DRAWS = 200_000


def test_the_draw_takes_one_run_in_twenty() -> None:
    """False alarms: more than 6 standard deviations, that is odds below 2e-9."""
    share = DRAW_SHARE_MICRO / 1_000_000
    assert share == 0.05
    count = sum(drawn(secrets.token_bytes(64)) for _ in range(DRAWS))
    spread = math.sqrt(DRAWS * share * (1 - share))
    assert abs(count - DRAWS * share) < 6 * spread


def test_the_draw_is_fixed_by_the_signature_alone() -> None:
    """Known answers: an implementation elsewhere must give the same."""
    assert drawn(b"")
    found = [n for n in range(100) if drawn(n.to_bytes(64, "big"))]
    assert found == [7, 9, 31, 33, 68]
    assert drawn(b"x", 1_000_000)
    assert not drawn(b"x", 0)


def test_real_signatures_of_one_key_are_drawn_alike_often() -> None:
    """2,000 signatures under one key; false alarms as above."""
    key = SigningKey.generate()
    count = sum(drawn(key.sign(n.to_bytes(4, "big"))) for n in range(2000))
    assert abs(count - 100) < 6 * math.sqrt(95)


def claim(**fields: object) -> AuditClaim:
    whole = {
        "request": new_id("req"),
        "run": new_id("run"),
        "model": new_id("mod"),
        "auditor": new_id("org"),
        "reproduced": True,
        "message": "",
        "fault": "none",
        "reason": "all is as it was",
        "inputs": dict.fromkeys(INPUTS, "1" * 64),
        "messages": {"score": "2" * 64},
        "transcript_sha256": "3" * 64,
    }
    return AuditClaim(**(whole | fields))  # type: ignore[arg-type]


def test_an_audit_is_read_as_it_was_signed() -> None:
    key, other = SigningKey.generate(), SigningKey.generate()
    made = claim()
    envelope = sign_audit(made, key)
    assert read_audit(envelope, [other.verify_key, key.verify_key]) == made
    assert made.clears
    with pytest.raises(VerificationError, match="not a known key"):
        read_audit(envelope, [other.verify_key])
    with pytest.raises(VerificationError):
        read_audit({**envelope, "payload": sign_audit(claim(), key)["payload"]}, [key.verify_key])


@pytest.mark.parametrize(
    "fields",
    [
        {"run": "run_x"},
        {"reproduced": 1},
        {"reproduced": False},
        {"reproduced": False, "fault": "evaluator"},
        {"fault": "nobody"},
        {"reason": "x" * 501},
        {"inputs": {"keys": "1" * 64}},
        {"inputs": dict.fromkeys(INPUTS, "x")},
        {"messages": {"score": "2" * 63}},
        {"transcript_sha256": ""},
    ],
)
def test_a_malformed_audit_is_no_audit(fields: dict[str, object]) -> None:
    with pytest.raises(VerificationError, match="audit"):
        claim(**fields)


def test_another_statement_is_no_audit() -> None:
    key = SigningKey.generate()
    made = claim()
    other = sign_statement("urn:clearinghouse:other:v1", {made.run: "3" * 64}, {}, [key])
    with pytest.raises(VerificationError, match="statement of the type"):
        read_audit(other, [key.verify_key])
    assert not claim(fault="key holder", message="digits").clears
