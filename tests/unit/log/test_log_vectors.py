"""Our tree and receipts against implementations that share no line and no author with us.

`vectors/merkle.json` holds the numbers of transparency-dev's test data (source and commit in it):
whether each proof holds is their word, not ours. sigstore-python reads our receipts' envelopes and
recomputes our roots. Go's own code is asked in `test_log_interop`.
"""

import base64
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sigstore import dsse
from sigstore._internal.merkle import verify_merkle_inclusion
from sigstore._internal.rekor.checkpoint import LogCheckpoint, SignedNote
from sigstore.errors import VerificationError as SigstoreError

from clearinghouse.errors import VerificationError
from clearinghouse.log import merkle
from clearinghouse.log.claim import SCORE_PREDICATE
from clearinghouse.signing import PAYLOAD_TYPE

VECTORS = json.loads(
    (Path(__file__).resolve().parents[2] / "support" / "vectors" / "merkle.json").read_text()
)
HASHES = [base64.b64decode(text) for text in VECTORS["hashes"]]

MORE_STRICT = {
    "consistency": {"additional/sizes-are-equal-one-and-proof-is-empty"},
    "inclusion": set(),
}
"""Proofs that hold by their word and not by ours: two equal roots that are no hashes at all."""


def verdicts(kind: str) -> list[tuple[str, bool, bool]]:
    """(name, what they say, what we say) of every vector of a kind."""
    found = []
    for name, first, second, one, two, proof, holds in VECTORS[kind]:
        path = [HASHES[number] for number in proof]
        try:
            if kind == "inclusion":
                merkle.verify_inclusion(HASHES[one], first, second, path, HASHES[two])
            else:
                merkle.verify_consistency(first, second, HASHES[one], HASHES[two], path)
        except VerificationError:
            found.append((name, holds, False))
        else:
            found.append((name, holds, True))
    return found


@pytest.mark.parametrize(("kind", "count"), [("inclusion", 98), ("consistency", 98)])
def test_log_vectors_of_transparency_dev_are_judged_alike(kind: str, count: int) -> None:
    found = verdicts(kind)
    assert len(found) == count
    assert {theirs for _, theirs, _ in found} == {True, False}
    assert {name for name, theirs, ours in found if theirs != ours} == MORE_STRICT[kind]


def sigstore_entry(world: Any, index: int) -> Any:
    """An entry of our log in the shape that sigstore checks, built from our proof alone."""
    proof = world.proof(index, cosigned=False)
    inclusion = SimpleNamespace(
        log_index=proof.index,
        tree_size=proof.signed.checkpoint.size,
        hashes=list(proof.path),
        root_hash=proof.signed.checkpoint.root,
    )
    body = world.entries[index].data
    return SimpleNamespace(
        _inner=SimpleNamespace(inclusion_proof=inclusion, canonicalized_body=body)
    )


def test_log_vectors_sigstore_recomputes_our_roots_and_sees_every_change(world: Any) -> None:
    for index in range(len(world.entries)):
        entry = sigstore_entry(world, index)
        verify_merkle_inclusion(entry)
        for field, wrong in (
            ("root_hash", bytes(32)),
            ("hashes", entry._inner.inclusion_proof.hashes[:-1]),
            ("log_index", (index + 1) % len(world.entries)),
        ):
            spoiled = sigstore_entry(world, index)
            setattr(spoiled._inner.inclusion_proof, field, wrong)
            with pytest.raises(SigstoreError):
                verify_merkle_inclusion(spoiled)
        other = sigstore_entry(world, index)
        other._inner.canonicalized_body += b" "
        with pytest.raises(SigstoreError):
            verify_merkle_inclusion(other)


def test_log_vectors_sigstore_reads_our_note_and_checkpoint(world: Any) -> None:
    text = world.checkpoint(cosigned=True)
    note = SignedNote.from_text(text)
    assert [line.name for line in note.signatures] == [world.log_key.name, "witness.example/w1"]
    assert [line.sig_hash for line in note.signatures] == [
        world.log_key.key_hash,
        world.witness_key.key_hash,
    ]
    head = LogCheckpoint.from_text(text.partition("\n\n")[0] + "\n")
    assert head.log_size == len(world.entries)
    assert bytes.fromhex(head.log_hash) == merkle.root(world.nodes)


def theirs(envelope: Any, number: int = 0) -> dsse.Envelope:
    """An envelope as sigstore reads it: one signature at a time, that is its rule."""
    one = {**envelope, "signatures": [envelope["signatures"][number]]}
    return dsse.Envelope._from_json(json.dumps(one))


def test_log_vectors_sigstore_reads_the_statement_in_our_receipt(world: Any) -> None:
    """DSSE and in-toto: their parser takes envelope and statement, their bytes are what we sign."""
    payload = base64.b64decode(world.envelope["payload"])
    for number, signature in enumerate(world.envelope["signatures"]):
        envelope = theirs(world.envelope, number)
        assert envelope._inner.payload_type == dsse.Envelope._TYPE == PAYLOAD_TYPE
        key = Ed25519PublicKey.from_public_bytes(world.signer_keys[signature["keyid"]].raw)
        key.verify(envelope.signature, envelope.pae())
        with pytest.raises(InvalidSignature):
            key.verify(envelope.signature, envelope.pae() + b" ")
    statement = dsse.Statement(payload)
    subjects = {item.name: item.digest.root["sha256"] for item in statement._inner.subjects}
    assert subjects == world.claim.subjects
    assert statement._inner.predicate_type == SCORE_PREDICATE
    assert statement._inner.predicate == json.loads(json.dumps(world.claim.predicate))


def test_log_vectors_sigstore_sees_another_payload_type(world: Any) -> None:
    envelope = theirs({**world.envelope, "payloadType": "text/plain"})
    key = world.signer_keys[world.envelope["signatures"][0]["keyid"]]
    with pytest.raises(InvalidSignature):
        Ed25519PublicKey.from_public_bytes(key.raw).verify(envelope.signature, envelope.pae())
