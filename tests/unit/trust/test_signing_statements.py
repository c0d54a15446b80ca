"""Keys and signed statements."""

import base64
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from hypothesis import given
from hypothesis import strategies as st

from clearinghouse.canonical import canonical_bytes, digest
from clearinghouse.errors import InputError, VerificationError
from clearinghouse.ids import is_id
from clearinghouse.signing import (
    PAYLOAD_TYPE,
    SigningKey,
    VerifyKey,
    b64decode_strict,
    b64encode,
    countersign,
    pre_authentication_encoding,
    sign_statement,
    verify_statement,
)

FIRST = SigningKey.from_raw(bytes(range(32)))
SECOND = SigningKey.from_raw(bytes(range(1, 33)))
KEYS = {key.key_id: key.verify_key for key in (FIRST, SECOND)}
SUBJECTS = {"model": "0" * 64, "valset": "f" * 64}
PREDICATE = {"auc": "0.81", "rows": 12}
TYPE = "urn:example:score:v1"

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P


def test_signing_statements_ed25519_vectors_of_the_standard() -> None:
    # RFC 8032 section 7.1, tests 1 and 3.
    vectors = [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
            "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
            "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ),
    ]
    for seed, public, message, signature in vectors:
        key = SigningKey.from_raw(bytes.fromhex(seed))
        assert key.verify_key.raw.hex() == public
        assert key.sign(bytes.fromhex(message)).hex() == signature
        key.verify_key.verify(bytes.fromhex(signature), bytes.fromhex(message))


def test_signing_statements_key_ids() -> None:
    key = SigningKey.generate()
    assert is_id(key.key_id, "key")
    assert VerifyKey(key.verify_key.raw) == key.verify_key
    assert VerifyKey.from_base64(key.verify_key.base64) == key.verify_key
    assert VerifyKey(key.verify_key.raw).key_id == key.key_id
    expected = base64.b32encode(bytes.fromhex(digest(key.verify_key.raw))).decode().lower()[:20]
    assert key.key_id == f"key_{expected}"
    assert SigningKey.generate().key_id != key.key_id


def test_signing_statements_secrets_do_not_show(tmp_path: Path) -> None:
    key = SigningKey.generate()
    secret = key.cryptography_key.private_bytes_raw()
    shown = f"{key!r} {key} {key.verify_key!r}"
    assert secret.hex() not in shown
    assert repr(secret) not in shown
    assert "Ed25519PrivateKey" not in shown


def test_signing_statements_key_files(tmp_path: Path) -> None:
    key, path = SigningKey.generate(), tmp_path / "key.pem"
    key.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert SigningKey.load(path).key_id == key.key_id
    with pytest.raises(InputError, match="cannot write"):
        SigningKey.generate().save(path)
    assert SigningKey.load(path).key_id == key.key_id
    raw = tmp_path / "raw"
    raw.write_bytes(key.cryptography_key.private_bytes_raw())
    raw.chmod(0o600)
    assert SigningKey.load(raw).key_id == key.key_id
    raw.chmod(0o640)
    with pytest.raises(InputError, match="chmod 600"):
        SigningKey.load(raw)


def test_signing_statements_other_key_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        SigningKey.load(tmp_path / "none")
    curve = generate_private_key(SECP256R1())
    contents = [
        b"",
        b"x" * 31,
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        curve.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        FIRST.cryptography_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        ),
        FIRST.cryptography_key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
    ]
    for number, content in enumerate(contents):
        path = tmp_path / str(number)
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(InputError, match="no Ed25519 private key"):
            SigningKey.load(path)
    with pytest.raises(InputError, match="32 bytes"):
        SigningKey.from_raw(b"short")


def double(point: tuple[int, int]) -> tuple[int, int]:
    """Add a point of the twisted Edwards curve to itself (RFC 8032 section 5.1.4)."""
    x, y = point
    k = D * x * x * y * y
    return (
        2 * x * y * pow(1 + k, -1, P) % P,
        (y * y + x * x) * pow(1 - k, -1, P) % P,
    )


def point_with(y: int) -> tuple[int, int]:
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    assert x * x % P == square
    return x, y


WEAK = [
    "00" * 32,
    "01" + "00" * 31,
    "ec" + "ff" * 30 + "7f",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
]


@pytest.mark.parametrize("text", WEAK)
def test_signing_statements_weak_keys_are_weak_and_refused(text: str) -> None:
    raw = bytes.fromhex(text)
    eightfold = double(double(double(point_with(int.from_bytes(raw, "little")))))
    assert eightfold == (0, 1)  # so the point's order divides 8
    for sign_bit in (0, 0x80):
        with pytest.raises(VerificationError, match="weak"):
            VerifyKey(raw[:31] + bytes([raw[31] | sign_bit]))


def test_signing_statements_other_spellings_of_a_key_are_refused() -> None:
    for y in (P, P + 1, P + 3, 2**255 - 1):
        with pytest.raises(VerificationError, match="canonical"):
            VerifyKey(y.to_bytes(32, "little"))
    for raw in (b"", bytes(31), bytes(33)):
        with pytest.raises(VerificationError, match="32 bytes"):
            VerifyKey(raw)


def test_signing_statements_bad_signatures_are_refused() -> None:
    signature = FIRST.sign(b"message")
    order = 2**252 + 27742317777372353535851937790883648493
    scalar = int.from_bytes(signature[32:], "little")
    malleable = signature[:32] + (scalar + order).to_bytes(32, "little")
    for wrong in (malleable, b"", signature[:63], signature + b"\x00", bytes(64)):
        with pytest.raises(VerificationError):
            FIRST.verify_key.verify(wrong, b"message")
    with pytest.raises(VerificationError):
        FIRST.verify_key.verify(signature, b"massage")
    with pytest.raises(VerificationError):
        SECOND.verify_key.verify(signature, b"message")


@given(st.binary(max_size=40))
def test_signing_statements_base64_round_trips(data: bytes) -> None:
    assert b64decode_strict(b64encode(data)) == data


@pytest.mark.parametrize(
    "text", ["AB==", "AAB=", "A", "AA", "AA=", "AA==\n", " AA==", "A-__", "AA==AA==", "AAAA=", "Ä"]
)
def test_signing_statements_other_base64_is_refused(text: str) -> None:
    with pytest.raises(VerificationError):
        b64decode_strict(text)


def test_signing_statements_encoding_is_that_of_dsse() -> None:
    # The vector of the DSSE 1.0 protocol document.
    found = pre_authentication_encoding("http://example.com/HelloWorld", b"hello world")
    assert found == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_signing_statements_verify_and_say_who_signed() -> None:
    envelope = sign_statement(TYPE, SUBJECTS, PREDICATE, [SECOND, FIRST])
    statement = verify_statement(envelope, KEYS, required=set(KEYS))
    assert statement.predicate_type == TYPE
    assert statement.subjects == SUBJECTS
    assert statement.predicate == PREDICATE
    assert set(statement.signers) == set(KEYS)
    # The envelope is what any DSSE and in-toto reader expects.
    payload = json.loads(base64.b64decode(envelope["payload"]))
    assert payload["_type"] == "https://in-toto.io/Statement/v1"
    assert payload["subject"][0] == {"name": "model", "digest": {"sha256": "0" * 64}}
    message = pre_authentication_encoding(PAYLOAD_TYPE, base64.b64decode(envelope["payload"]))
    for item in envelope["signatures"]:
        KEYS[item["keyid"]].verify(base64.b64decode(item["sig"]), message)


def test_signing_statements_countersigning_equals_signing_together() -> None:
    first = sign_statement(TYPE, SUBJECTS, PREDICATE, [FIRST])
    both = countersign(first, KEYS, SECOND)
    assert both == sign_statement(TYPE, SUBJECTS, PREDICATE, [SECOND, FIRST])
    assert len(first["signatures"]) == 1
    with pytest.raises(ValueError, match="already"):
        countersign(both, KEYS, SECOND)
    forged = {**first, "payload": b64encode(b"{}")}
    with pytest.raises(VerificationError):
        countersign(forged, KEYS, SECOND)


def test_signing_statements_required_and_unknown_signers() -> None:
    envelope = sign_statement(TYPE, SUBJECTS, PREDICATE, [FIRST])
    verify_statement(envelope, KEYS, required={FIRST.key_id})
    with pytest.raises(VerificationError, match="missing"):
        verify_statement(envelope, KEYS, required={SECOND.key_id})
    with pytest.raises(VerificationError, match="not a known key"):
        verify_statement(envelope, {SECOND.key_id: SECOND.verify_key}, required=set())
    mixed = {FIRST.key_id: SECOND.verify_key}
    with pytest.raises(VerificationError, match="the key given as"):
        verify_statement(envelope, mixed, required=set())


def payload_variants() -> list[bytes]:
    good = json.loads(
        base64.b64decode(sign_statement(TYPE, SUBJECTS, PREDICATE, [FIRST])["payload"])
    )
    subject = good["subject"]
    changes: list[dict[str, Any]] = [
        {"_type": "https://in-toto.io/Statement/v0.1"},
        {"predicateType": "two words"},
        {"predicateType": None},
        {"predicate": []},
        {"subject": []},
        {"subject": "model"},
        {"subject": subject[::-1]},
        {"subject": [subject[0], subject[0]]},
        {"subject": [{"name": "model", "digest": {"sha1": "0" * 40}}]},
        {"subject": [{"name": "model", "digest": {"sha256": "F" * 64}}]},
        {"subject": [{"name": "", "digest": {"sha256": "0" * 64}}]},
        {"subject": [{"name": "model"}]},
        {"extra": 1},
    ]
    variants = [canonical_bytes(good | change) for change in changes]
    pretty = json.dumps(good, indent=1).encode()
    return [*variants, pretty, b"", b"[]", b"{}", b"\xff", canonical_bytes(good)[:-1]]


@pytest.mark.parametrize("payload", payload_variants())
def test_signing_statements_properly_signed_nonsense_is_refused(payload: bytes) -> None:
    signature = FIRST.sign(pre_authentication_encoding(PAYLOAD_TYPE, payload))
    envelope = {
        "payloadType": PAYLOAD_TYPE,
        "payload": b64encode(payload),
        "signatures": [{"keyid": FIRST.key_id, "sig": b64encode(signature)}],
    }
    with pytest.raises(VerificationError):
        verify_statement(envelope, KEYS, required=set())


def bad_envelopes() -> list[Any]:
    good = sign_statement(TYPE, SUBJECTS, PREDICATE, [FIRST, SECOND])
    one, two = good["signatures"]
    other = sign_statement(TYPE, SUBJECTS, {"auc": "0.99"}, [FIRST])
    # Signed as another payload type, and over the bare payload.
    payload = base64.b64decode(good["payload"])
    bare = {"keyid": FIRST.key_id, "sig": b64encode(FIRST.sign(payload))}
    text = pre_authentication_encoding("text/plain", payload)
    typed = {"keyid": FIRST.key_id, "sig": b64encode(FIRST.sign(text))}
    return [
        None,
        [],
        {},
        good | {"extra": 1},
        {key: value for key, value in good.items() if key != "payloadType"},
        good | {"payloadType": "application/json"},
        good | {"payload": other["payload"]},
        good | {"payload": good["payload"] + "\n"},
        good | {"payload": 5},
        good | {"signatures": []},
        good | {"signatures": {}},
        good | {"signatures": [one] * 17},
        good | {"signatures": [two, one]},
        good | {"signatures": [one, one]},
        good | {"signatures": [one["sig"]]},
        good | {"signatures": [one | {"extra": 1}]},
        good | {"signatures": [one | {"sig": two["sig"]}]},
        good | {"signatures": [one | {"sig": one["sig"][:-4]}]},
        good | {"signatures": [one | {"sig": 5}]},
        good | {"signatures": [one | {"keyid": None}]},
        good | {"signatures": [bare]},
        good | {"signatures": [typed]},
        # One good signature does not carry a bad one.
        good | {"signatures": [one, two | {"sig": one["sig"]}]},
    ]


@pytest.mark.parametrize("envelope", bad_envelopes())
def test_signing_statements_bad_envelopes_are_refused(envelope: Any) -> None:
    with pytest.raises(VerificationError):
        verify_statement(envelope, KEYS, required=set())


def test_signing_statements_makers_refuse_bad_arguments() -> None:
    with pytest.raises(ValueError, match="at least one key"):
        sign_statement(TYPE, SUBJECTS, PREDICATE, [])
    with pytest.raises(ValueError, match="already"):
        sign_statement(TYPE, SUBJECTS, PREDICATE, [FIRST, FIRST])
    with pytest.raises(ValueError, match="subject"):
        sign_statement(TYPE, {"model": "not a hash"}, PREDICATE, [FIRST])
    with pytest.raises(ValueError, match="subject"):
        sign_statement(TYPE, {}, PREDICATE, [FIRST])
    with pytest.raises(InputError, match="float"):
        sign_statement(TYPE, SUBJECTS, {"auc": 0.81}, [FIRST])
