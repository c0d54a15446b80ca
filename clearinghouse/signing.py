"""Ed25519 identities and signed acts: DSSE envelopes around in-toto statements.

A signed act can be checked by a third party years later, unlike a signed request. What is signed
is the pre-authentication encoding of the exact payload bytes, never a parsed value encoded again.
Everything has one byte form (canonical JSON, canonical base64, signatures in order of key), so that
an envelope's hash names the act and no byte of it can change unnoticed.

Sources: RFC 8032 (Ed25519), DSSE 1.0, in-toto Statement v1.
"""

import base64
import binascii
import hashlib
import os
import re
import stat
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from clearinghouse.canonical import canonical_bytes, parse_canonical
from clearinghouse.errors import InputError, VerificationError

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
MAX_SIGNATURES = 16

_FIELD_PRIME = 2**255 - 19
# y coordinates of the points of order 1, 2, 4 and 8: under such a key one signature fits many
# messages, so its owner could later deny having signed this one.
_SMALL_ORDER_Y = frozenset(
    int.from_bytes(bytes.fromhex(text), "little")
    for text in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    )
)
_HEX_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[!-~]{1,200}")


def key_id_of(public_key_digest: str) -> str:
    """Return the key id for the SHA-256 (hex) of a raw public key: "key_" and 100 of its bits."""
    text = base64.b32encode(bytes.fromhex(public_key_digest)).decode().lower()
    return "key_" + text[:20]


def b64encode(data: bytes) -> str:
    """Standard base64 with padding (RFC 4648 section 4)."""
    return base64.b64encode(data).decode()


def b64decode_strict(text: str) -> bytes:
    """Decode base64 that is in its only canonical form.

    Raises:
        VerificationError: Foreign characters, wrong padding, or padding bits that are not zero
            (several texts would otherwise mean the same bytes).
    """
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise VerificationError("text is not base64") from None
    if b64encode(data) != text:
        raise VerificationError("base64 is not canonical")
    return data


@dataclass(frozen=True, slots=True)
class VerifyKey:
    """A public key: 32 bytes, refused if not canonical or of small order."""

    raw: bytes
    _key: Ed25519PublicKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.raw) != 32:
            raise VerificationError(f"an Ed25519 public key has 32 bytes, not {len(self.raw)}")
        y = int.from_bytes(self.raw, "little") & (2**255 - 1)
        if y >= _FIELD_PRIME or y in _SMALL_ORDER_Y:
            raise VerificationError("this Ed25519 public key is weak or not in canonical form")
        object.__setattr__(self, "_key", Ed25519PublicKey.from_public_bytes(self.raw))

    @classmethod
    def from_base64(cls, text: str) -> "VerifyKey":
        """Read the form that `base64` gives."""
        return cls(b64decode_strict(text))

    @property
    def base64(self) -> str:
        """The 32 bytes in base64."""
        return b64encode(self.raw)

    @property
    def digest(self) -> str:
        """SHA-256 of the 32 bytes, in hex: what the log records at registration."""
        return hashlib.sha256(self.raw).hexdigest()

    @property
    def key_id(self) -> str:
        """The id by which signatures name this key."""
        return key_id_of(self.digest)

    @property
    def cryptography_key(self) -> Ed25519PublicKey:
        """The same key as the cryptography package's object."""
        return self._key

    def verify(self, signature: bytes, message: bytes) -> None:
        """Return if `signature` is this key's over `message`.

        Raises:
            VerificationError: It is not.
        """
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            raise VerificationError(f"the signature by {self.key_id} does not hold") from None


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A secret key, made and kept on its owner's machine; its repr shows the key id only."""

    _key: Ed25519PrivateKey = field(repr=False)
    verify_key: VerifyKey

    @classmethod
    def generate(cls) -> "SigningKey":
        """Make a new key from the operating system's randomness."""
        return cls._of(Ed25519PrivateKey.generate())

    @classmethod
    def from_raw(cls, seed: bytes) -> "SigningKey":
        """Read a 32-byte RFC 8032 seed.

        Raises:
            InputError: It has another length.
        """
        if len(seed) != 32:
            raise InputError(f"an Ed25519 seed has 32 bytes, not {len(seed)}")
        return cls._of(Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def load(cls, path: Path) -> "SigningKey":
        """Read a key file: PEM (PKCS #8, unencrypted) or 32 raw bytes.

        Raises:
            InputError: It is missing, open to other users, or holds no Ed25519 key.
        """
        try:
            with path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                content = file.read(4096)
        except OSError as error:
            raise InputError(f"cannot read the key file {path}: {error.strerror}") from None
        if stat.S_IMODE(mode) & 0o077:
            raise InputError(f"other users can read the key file {path}: run chmod 600 {path}")
        if len(content) == 32:
            return cls.from_raw(content)
        try:
            key = serialization.load_pem_private_key(content, password=None)
        except (ValueError, TypeError):
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise InputError(f"the key file {path} holds no Ed25519 private key (PEM or 32 bytes)")
        return cls._of(key)

    @classmethod
    def _of(cls, key: Ed25519PrivateKey) -> "SigningKey":
        return cls(key, VerifyKey(key.public_key().public_bytes_raw()))

    def save(self, path: Path) -> None:
        """Write a PEM file that only its owner can read; an existing file is never replaced.

        Raises:
            InputError: The file exists or cannot be written.
        """
        pem = self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        try:
            # The mode is set at creation: chmod afterwards would leave a moment open to others.
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(pem)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise InputError(f"cannot write the key file {path}: {error.strerror}") from None

    @property
    def key_id(self) -> str:
        """The id by which signatures name this key."""
        return self.verify_key.key_id

    @property
    def cryptography_key(self) -> Ed25519PrivateKey:
        """The same key as the cryptography package's object."""
        return self._key

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature over `message` (deterministic, RFC 8032)."""
        return self._key.sign(message)


@dataclass(frozen=True, slots=True)
class Statement:
    """What was signed: a predicate about subjects named by their SHA-256."""

    predicate_type: str
    subjects: Mapping[str, str]
    predicate: Mapping[str, Any]
    signers: tuple[str, ...] = ()


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """Return the bytes a DSSE signature covers: type and payload with their lengths."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def sign_statement(
    predicate_type: str,
    subjects: Mapping[str, str],
    predicate: Mapping[str, Any],
    keys: Sequence[SigningKey],
) -> dict[str, Any]:
    """Make and sign a statement.

    Args:
        predicate_type: URI that says how to read the predicate.
        subjects: Name of each subject and the SHA-256 of its bytes, in hex.
        predicate: JSON without floats.
        keys: One or more distinct keys.

    Returns:
        The DSSE envelope as JSON values; hash it with `canonical.digest`.

    Raises:
        InputError: The predicate has no canonical form.
        ValueError: No key, a key twice, or a malformed subject.
    """
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [
            {"name": name, "digest": {"sha256": subjects[name]}} for name in sorted(subjects)
        ],
        "predicateType": predicate_type,
        "predicate": dict(predicate),
    }
    try:
        _read_statement(statement)
    except VerificationError as error:
        raise ValueError(str(error)) from None
    payload = canonical_bytes(statement)
    envelope: dict[str, Any] = {
        "payloadType": PAYLOAD_TYPE,
        "payload": b64encode(payload),
        "signatures": [],
    }
    if not keys:
        raise ValueError("a statement needs at least one key")
    for key in keys:
        envelope = _add_signature(envelope, payload, key)
    return envelope


def countersign(
    envelope: Mapping[str, Any], keys: Mapping[str, VerifyKey], key: SigningKey
) -> dict[str, Any]:
    """Verify an envelope signed elsewhere, then add this party's signature to it.

    Raises:
        VerificationError: What came does not verify.
        ValueError: `key` has signed already.
    """
    verify_statement(envelope, keys, required=frozenset())
    return _add_signature(envelope, b64decode_strict(envelope["payload"]), key)


def verify_statement(
    envelope: object, keys: Mapping[str, VerifyKey], required: AbstractSet[str]
) -> Statement:
    """Check an envelope and return what it says.

    Every signature must hold, also those not required: an envelope has no unverified byte.

    Args:
        envelope: Parsed JSON (`canonical.parse_strict`).
        keys: The public keys that may sign, by key id.
        required: Key ids that must have signed.

    Raises:
        VerificationError: The form is not exact, a signer is unknown, a signature does not hold,
            or a required one is missing.
    """
    payload, signatures = _read_envelope(envelope)
    message = pre_authentication_encoding(PAYLOAD_TYPE, payload)
    for key_id, signature in signatures:
        if key_id not in keys:
            raise VerificationError(f"signed by {key_id}, which is not a known key")
        if keys[key_id].key_id != key_id:
            raise VerificationError(f"the key given as {key_id} is {keys[key_id].key_id}")
        keys[key_id].verify(signature, message)
    signers = tuple(key_id for key_id, _ in signatures)
    missing = sorted(required - set(signers))
    if missing:
        raise VerificationError(f"the signature by {missing[0]} is missing")
    try:
        content = parse_canonical(payload)
    except InputError as error:
        raise VerificationError(f"statement: {error}") from None
    statement = _read_statement(content)
    return Statement(statement.predicate_type, statement.subjects, statement.predicate, signers)


def _add_signature(envelope: Mapping[str, Any], payload: bytes, key: SigningKey) -> dict[str, Any]:
    entries = {item["keyid"]: item["sig"] for item in envelope["signatures"]}
    if key.key_id in entries:
        raise ValueError(f"{key.key_id} has signed this statement already")
    entries[key.key_id] = b64encode(key.sign(pre_authentication_encoding(PAYLOAD_TYPE, payload)))
    ordered = [{"keyid": key_id, "sig": entries[key_id]} for key_id in sorted(entries)]
    return {**envelope, "signatures": ordered}


def _read_envelope(envelope: object) -> tuple[bytes, list[tuple[str, bytes]]]:
    problem = "an envelope has payload, payloadType and 1 to 16 signatures (keyid, sig), no more"
    if not isinstance(envelope, Mapping) or set(envelope) != {
        "payload",
        "payloadType",
        "signatures",
    }:
        raise VerificationError(problem)
    payload, found = envelope["payload"], envelope["signatures"]
    if envelope["payloadType"] != PAYLOAD_TYPE or not isinstance(payload, str):
        raise VerificationError(f"{problem}; its payloadType is {PAYLOAD_TYPE}")
    if not isinstance(found, list) or not 1 <= len(found) <= MAX_SIGNATURES:
        raise VerificationError(problem)
    signatures = []
    for item in found:
        if not isinstance(item, Mapping) or set(item) != {"keyid", "sig"}:
            raise VerificationError(problem)
        if not isinstance(item["keyid"], str) or not isinstance(item["sig"], str):
            raise VerificationError(problem)
        signatures.append((item["keyid"], b64decode_strict(item["sig"])))
    names = [key_id for key_id, _ in signatures]
    if names != sorted(set(names)):
        raise VerificationError("signatures must be in order of key id, each key once")
    return b64decode_strict(payload), signatures


def _read_statement(content: object) -> Statement:
    fields = {"_type", "subject", "predicateType", "predicate"}
    if not isinstance(content, Mapping) or set(content) != fields:
        raise VerificationError("a statement has _type, subject, predicateType and predicate")
    kind, predicate = content["predicateType"], content["predicate"]
    if content["_type"] != STATEMENT_TYPE:
        raise VerificationError(f"the statement's _type must be {STATEMENT_TYPE}")
    if not isinstance(kind, str) or not _NAME.fullmatch(kind) or not isinstance(predicate, Mapping):
        raise VerificationError("a statement needs a predicateType (URI) and a predicate (object)")
    if not isinstance(content["subject"], list) or not content["subject"]:
        raise VerificationError("a statement needs at least one subject")
    subjects: dict[str, str] = {}
    for item in content["subject"]:
        name, digest = _read_subject(item)
        if subjects and name <= max(subjects):
            raise VerificationError("subjects must be in order of name, each once")
        subjects[name] = digest
    return Statement(kind, subjects, predicate)


def _read_subject(item: object) -> tuple[str, str]:
    problem = "a subject has a name and a digest with one sha256 in hex"
    if not isinstance(item, Mapping) or set(item) != {"name", "digest"}:
        raise VerificationError(problem)
    name, digest = item["name"], item["digest"]
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise VerificationError(problem)
    if not isinstance(digest, Mapping) or set(digest) != {"sha256"}:
        raise VerificationError(problem)
    if not isinstance(digest["sha256"], str) or not _HEX_DIGEST.fullmatch(digest["sha256"]):
        raise VerificationError(problem)
    return name, digest["sha256"]
