"""Receipts: they verify offline, and no byte of one can change unnoticed."""

import re
import secrets
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from clearinghouse.canonical import digest
from clearinghouse.clock import timestamp
from clearinghouse.errors import VerificationError
from clearinghouse.ids import new_id
from clearinghouse.log import merkle
from clearinghouse.log.checkpoint import (
    cosign_checkpoint,
    log_key,
    parse_note,
    parse_vkey,
    sign_checkpoint,
    witness_key,
)
from clearinghouse.log.claim import Metric, Signer
from clearinghouse.log.proof import LogProof, parse_proof
from clearinghouse.log.receipt import build_receipt, read_claim, sign_claim
from clearinghouse.log.verify import ReceiptPolicy, verify_receipt
from clearinghouse.signing import SigningKey, sign_statement


def one_entry_proof(world: Any, data: bytes, note_key: SigningKey | None = None) -> LogProof:
    """A log of one entry, so that any entry can be put into a properly signed tree."""
    nodes = merkle.MemoryNodes()
    merkle.append(nodes, data)
    head = replace(world.proof(0).signed.checkpoint, size=1, root=merkle.root(nodes))
    note = sign_checkpoint(head, note_key or world.log_secret)
    return LogProof(0, (), parse_note(note.encode()))


def rebuilt(world: Any, envelope: Any = None, **changes: Any) -> bytes:
    """A receipt about `envelope` that is right in everything else."""
    envelope = envelope or world.envelope
    fields = {
        "objects": {"receipt": world.claim.receipt},
        "hashes": {"envelope": digest(envelope)},
    } | changes
    entry = world.operator.entry("receipt.issued", **fields)
    proof = one_entry_proof(world, entry.data)
    return world.receipt(envelope=envelope, entry=entry.data, proof=proof, witness_keys=())


def refused(data: bytes, check: str, **options: Any) -> None:
    with pytest.raises(VerificationError, match=re.escape(check)):
        verify_receipt(data, **options)


def test_log_receipt_verifies_and_says_what_was_signed(world: Any) -> None:
    verified = verify_receipt(world.receipt())
    assert verified.claim == world.claim
    assert [item.number for item in verified.checks] == list(range(1, 8))
    assert verified.log_key_is_embedded
    assert verified.log_fingerprint == world.log_key.fingerprint
    assert verified.cosigned_at_s == {"witness.example/w1": 1_900_000_005}
    trusted = verify_receipt(world.receipt(), trusted_log_key=world.log_key.vkey + "\n")
    assert not trusted.log_key_is_embedded


def test_log_receipt_top_shows_every_number_of_the_claim(world: Any) -> None:
    top = world.receipt().decode().split("=== signed statement")[0]
    claim = world.claim
    shown = [*claim.ids.values(), claim.issued_at, claim.status, "epsilon 0.50", "Größe Ω v1"]
    shown.remove(claim.release)  # bound by hash only
    for metric in claim.metrics.values():
        shown += [metric.value, metric.low, metric.high]
    assert not [text for text in shown if text not in top]


EVERY = 7
"""By default one byte in so many is changed, beginning at another one in each run."""


def changed_receipts(data: bytes, places: range) -> Iterator[tuple[int, bytes]]:
    for place in places:
        byte = data[place]
        before, after = data[:place], data[place + 1 :]
        for changed in (
            before + bytes([byte ^ 1]) + after,
            before + b" " + after,
            before + after,
            before + b"\n" + data[place:],
        ):
            if changed != data:
                yield place, changed


def outcome_of(data: bytes) -> str:
    """What the verifier says; any error other than its own fails the test."""
    try:
        verify_receipt(data)
    except VerificationError as error:
        return str(error)
    return "accepted"


def check_changed_bytes(world: Any, cosigned: bool, begin: int, every: int) -> None:
    proof = world.proof(world.receipt_index, cosigned=cosigned)
    data = world.receipt(proof=proof)
    verify_receipt(data)
    places = range(begin, len(data), every)
    count = 0
    for place, changed in changed_receipts(data, places):
        count += 1
        outcome = outcome_of(changed)
        assert re.match(r"receipt: check [1-7] failed \(", outcome), (begin, place, outcome)
    assert count > 3.8 * len(places)  # a space may replace a space, a line end follow another
    refused(data + b"\n", "check 1 failed (form)")
    refused(data.replace(b"\n", b"\r\n"), "check 1 failed (form)")


@pytest.mark.parametrize("cosigned", [True, False])
def test_log_receipt_any_changed_byte_is_refused(world: Any, cosigned: bool) -> None:
    check_changed_bytes(world, cosigned, secrets.randbelow(EVERY), EVERY)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("cosigned", [True, False])
def test_log_receipt_every_changed_byte_is_refused(world: Any, cosigned: bool) -> None:
    check_changed_bytes(world, cosigned, 0, 1)


def test_log_receipt_other_bits_of_each_byte_are_refused_too(world: Any) -> None:
    data = world.receipt()
    for place in range(0, len(data), 7):
        for bit in (2, 0x20, 0x80):
            changed = data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :]
            with pytest.raises(VerificationError):
                verify_receipt(changed)


def test_log_receipt_each_check_names_itself(world: Any) -> None:
    data = world.receipt()
    text = data.decode()
    refused(b"", "check 1 failed (form)")
    refused(b"\x00" * 200_000, "check 1 failed (form)")
    refused(data.replace(b"epsilon 0.50", b"epsilon 0.05"), "check 7 failed (exact text)")
    refused(data.replace(b"=== end ===", b"=== End ==="), "check 1 failed (form)")
    swapped = text.replace("0.8134  (", "0.9134  (")
    refused(swapped.encode(), "check 7 failed (exact text): line")


def test_log_receipt_signature_of_another_key_is_refused(world: Any) -> None:
    other = SigningKey.generate()
    forged = sign_claim(world.claim, [world.operator.key, other])
    keys = world.signer_keys | {other.key_id: other.verify_key}
    with pytest.raises(VerificationError, match="exactly the signers"):
        build_receipt(
            forged,
            world.entries[world.receipt_index].data,
            world.proof(world.receipt_index),
            world.log_key,
            keys,
        )
    # The same inside a file: the hospital's signature is replaced by the operator's.
    data = world.receipt()
    signatures = world.envelope["signatures"]
    stolen = data.replace(signatures[0]["sig"].encode(), signatures[1]["sig"].encode())
    refused(stolen, "check 2 failed (statement signatures)")


def test_log_receipt_without_the_hospital_needs_a_policy_that_says_so(world: Any) -> None:
    signers = (world.claim.signers[0],)
    claim = replace(world.claim, signers=signers)
    data = rebuilt(world, sign_claim(claim, [world.operator.key]))
    refused(data, "check 2 failed (statement signatures): a signature by the hospital")
    alone = ReceiptPolicy(roles=frozenset({"clearinghouse"}))
    assert verify_receipt(data, policy=alone).claim == claim


def test_log_receipt_a_hospital_role_must_be_the_hospital(world: Any) -> None:
    stranger = Signer("hospital", new_id("org"), world.hospital.key.key_id)
    with pytest.raises(VerificationError, match="hospital who signs"):
        replace(world.claim, signers=(world.claim.signers[0], stranger))


def test_log_receipt_entry_must_be_about_this_statement(world: Any) -> None:
    verify_receipt(rebuilt(world))
    check = "check 3 failed (log entry)"
    refused(rebuilt(world, hashes={"envelope": "0" * 64}), check)
    refused(rebuilt(world, objects={"receipt": new_id("rcp")}), check)
    others = {"receipt": world.claim.receipt, "model": new_id("mod")}
    refused(rebuilt(world, objects=others), check)
    closed = world.entries[-1].data
    refused(world.receipt(entry=closed, proof=one_entry_proof(world, closed)), check)
    stranger = replace(world.operator, org=new_id("org")).entry(
        "receipt.issued",
        objects={"receipt": world.claim.receipt},
        hashes={"envelope": digest(world.envelope)},
    )
    proof = one_entry_proof(world, stranger.data)
    refused(world.receipt(entry=stranger.data, proof=proof), f"{check}: the entry was made by none")


def test_log_receipt_entry_outside_the_tree_is_refused(world: Any) -> None:
    unlogged = world.operator.entry(
        "receipt.issued",
        objects={"receipt": world.claim.receipt, "release": world.claim.release},
        hashes={"envelope": digest(world.envelope)},
    )
    refused(world.receipt(entry=unlogged.data), "check 4 failed (inclusion in the log)")
    wrong_place = replace(world.proof(world.receipt_index), index=world.receipt_index + 1)
    refused(world.receipt(proof=wrong_place), "check 4 failed (inclusion in the log)")


def test_log_receipt_of_another_log_is_refused(world: Any) -> None:
    impostor = SigningKey.generate()
    check = "check 5 failed (checkpoint signature)"
    # Everything is consistent, but the log is another one: only a trusted key tells.
    entry = world.entries[world.receipt_index].data
    parts = {
        "entry": entry,
        "proof": one_entry_proof(world, entry, impostor),
        "log_key": log_key(world.log_key.name, impostor),
        "witness_keys": (),
    }
    forged = world.receipt(**parts)
    assert verify_receipt(forged).log_key_is_embedded
    refused(forged, check, trusted_log_key=world.log_key.vkey)
    refused(world.receipt(), check, trusted_log_key="nonsense")
    refused(world.receipt(), check, trusted_log_key=world.witness_key.vkey)
    # The embedded key is the true one, the signature is not its.
    refused(world.receipt(**(parts | {"log_key": world.log_key})), check)


def test_log_receipt_quorum_counts_trusted_witnesses_once(world: Any) -> None:
    check = "check 6 failed (witnesses)"
    vkey = world.witness_key.vkey
    data = world.receipt()
    verify_receipt(data, policy=ReceiptPolicy(witnesses=(vkey,), quorum=1))
    refused(data, check, policy=ReceiptPolicy(witnesses=(vkey,), quorum=2))
    refused(data, check, policy=ReceiptPolicy(witnesses=(vkey, vkey), quorum=2))
    refused(data, check, policy=ReceiptPolicy(quorum=1))
    stranger = witness_key("witness.example/w1", SigningKey.generate()).vkey
    refused(data, check, policy=ReceiptPolicy(witnesses=(stranger,), quorum=1))
    bare = world.receipt(proof=world.proof(world.receipt_index, cosigned=False))
    refused(bare, check, policy=ReceiptPolicy(witnesses=(vkey,), quorum=1))
    # One key under two names is one witness.
    note = cosign_checkpoint(
        world.checkpoint(), "witness.example/w2", world.witness_secret, 1_900_000_006
    )
    proof = replace(world.proof(world.receipt_index), signed=parse_note(note.encode()))
    second = witness_key("witness.example/w2", world.witness_secret)
    twice = world.receipt(proof=proof, witness_keys=(world.witness_key, second))
    both = ReceiptPolicy(witnesses=(vkey, second.vkey), quorum=2)
    refused(twice, check, policy=both)
    verify_receipt(twice, policy=replace(both, quorum=1))


def test_log_receipt_has_no_signature_line_that_nobody_can_check(world: Any) -> None:
    refused(world.receipt(witness_keys=()), "check 6 failed (witnesses)")


def test_log_receipt_has_no_key_that_nobody_needs(world: Any) -> None:
    other = SigningKey.generate().verify_key
    line = f"signer {other.key_id} {other.base64}\n=== end"
    data = world.receipt().decode().replace("=== end", line)
    refused(data.encode(), "check 2 failed (statement signatures): the keys of exactly")
    wrong_name = f"signer {world.operator.key.key_id[:-1]}_ {other.base64}\n=== end"
    refused(world.receipt().decode().replace("=== end", wrong_name).encode(), "check 2")
    log_line = f"log {world.log_key.vkey}\n"
    refused(world.receipt().decode().replace(log_line, log_line * 2).encode(), "check 1")
    refused(world.receipt().decode().replace(log_line, "").encode(), "check 1")


def test_log_receipt_malleable_encodings_are_refused(world: Any) -> None:
    data = world.receipt()
    # The last character of a padded base64 text has spare bits: every other value of them.
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    for found in re.finditer(rb"[A-Za-z0-9+/](?==)", data):
        for letter in alphabet:
            changed = data[: found.start()] + bytes([letter]) + data[found.end() :]
            if changed != data:
                with pytest.raises(VerificationError):
                    verify_receipt(changed)
    # JSON that means the same.
    for old, new in ((b'"v":1}', b'"v":1.0}'), (b'{"actor"', b'{ "actor"'), (b"null", b"Null")):
        assert old in data
        with pytest.raises(VerificationError):
            verify_receipt(data.replace(old, new))


def test_log_receipt_of_another_kind_of_statement_is_refused(world: Any) -> None:
    signed = sign_statement(
        "urn:clearinghouse:other:v1",
        world.claim.subjects,
        world.claim.predicate,
        [world.operator.key, world.hospital.key],
    )
    with pytest.raises(VerificationError, match="not a score receipt"):
        rebuilt(world, signed)
    wrong_subject = sign_statement(
        "urn:clearinghouse:score-receipt:v1",
        {"something": "0" * 64},
        world.claim.predicate,
        [world.operator.key, world.hospital.key],
    )
    with pytest.raises(VerificationError, match="subjects"):
        rebuilt(world, wrong_subject)


@pytest.mark.parametrize(
    "changes",
    [
        {"receipt": "rcp_short"},
        {"model": "val_00000000000000000000"},
        {"transcript_sha256": "F" * 64},
        {"issued_at": "2030-02-30T00:00:00Z"},
        {"issued_at": "2030-2-3T00:00:00Z"},
        {"status": "fine"},
        {"confidence": "1.5"},
        {"epsilon_micro": 0},
        {"epsilon_micro": True},
        {"epsilon_micro": 2**53},
        {"metrics": {}},
        {"metrics": {"auc": Metric("nan", "0", "1")}},
        {"metrics": {"auc": Metric("0.50\n", "0", "1")}},
        {"metrics": {"AUC of us": Metric("0.5", "0", "1")}},
        {"facts": {"note": "two\nlines"}},
        {"facts": {"note": "right-to-left \u202e trick"}},
        {"facts": {"privacy spent": "epsilon 0.00"}},
        {"facts": {"auc": "0.99"}},
        {"facts": {"note": " padded"}},
        {"facts": {"note": "x" * 161}},
        {"signers": ()},
    ],
)
def test_log_receipt_claims_with_malformed_fields_are_refused(
    world: Any, changes: dict[str, Any]
) -> None:
    with pytest.raises(VerificationError, match="score claim"):
        replace(world.claim, **changes)


def predicate_changes(world: Any) -> list[dict[str, Any]]:
    signers = world.claim.predicate["signers"]
    return [
        {"extra": "field"},
        {"status": None},
        {"metrics": []},
        {"metrics": {"auc": {"value": "0.5", "low": "0.4"}}},
        {"metrics": {"auc": "0.5"}},
        {"metrics": {"auc": {"value": 1, "low": "0.4", "high": "0.6"}}},
        {"facts": []},
        {"facts": {"note": 5}},
        {"signers": signers[::-1]},
        {"signers": [signers[0], signers[1] | {"role": "clearinghouse"}]},
        {"signers": [signers[0], signers[0] | {"role": "hospital"}]},
        {"signers": [signers[0] | {"extra": 1}, signers[1]]},
        {"signers": [signers[0] | {"key": None}, signers[1]]},
        {"signers": {}},
        {"model": 5},
        {"epsilon_micro": "500000"},
    ]


def test_log_receipt_properly_signed_malformed_claims_are_refused(world: Any) -> None:
    keys = [world.operator.key, world.hospital.key]
    good = world.claim.predicate
    fewer = [{name: good[name] for name in good if name != left_out} for left_out in good]
    changed = [good | change for change in predicate_changes(world)]
    for predicate in fewer + changed:
        envelope = sign_statement(
            "urn:clearinghouse:score-receipt:v1", world.claim.subjects, predicate, keys
        )
        with pytest.raises(VerificationError):
            read_claim(envelope, world.signer_keys)
    assert read_claim(world.envelope, world.signer_keys) == world.claim


def test_log_receipt_builder_needs_the_keys(world: Any) -> None:
    keys = dict(world.signer_keys)
    keys.pop(world.hospital.key.key_id)
    with pytest.raises(VerificationError, match="not a known key"):
        world.receipt(signer_keys=keys)


def test_log_receipt_proof_section_stands_alone(world: Any) -> None:
    """The section is a c2sp.org/tlog-proof file that other tools can check."""
    section = world.receipt().split(b"(c2sp.org/tlog-proof) ===\n")[1].split(b"=== public")[0]
    proof = parse_proof(section)
    proof.verify_entry(world.entries[world.receipt_index].data)
    assert parse_vkey(world.log_key.vkey) == world.log_key
    assert timestamp(0) == "1970-01-01T00:00:00Z"
