"""Signed tree heads in the C2SP text formats that other verifiers read too.

A checkpoint says "this log had this many entries and this root". The log signs it; witnesses that
saw it extend what they saw before add a dated cosignature. Formats: c2sp.org/signed-note,
c2sp.org/tlog-checkpoint, c2sp.org/tlog-cosignature (version 1, Ed25519).
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from clearinghouse.errors import VerificationError
from clearinghouse.log.merkle import HASH_BYTES
from clearinghouse.signing import SigningKey, VerifyKey, b64decode_strict, b64encode

ED25519 = 0x01
COSIGNATURE = 0x04
MAX_NOTE_BYTES = 16_384
MAX_NOTE_SIGNATURES = 32

_NAME = re.compile(r"[!-*,-~]{1,200}")  # printable ASCII without space and plus
_SIZE = re.compile(r"0|[1-9][0-9]{0,15}")
_KEY_HASH = re.compile(r"[0-9a-f]{8}")
_DASH = "\u2014"


@dataclass(frozen=True, slots=True)
class NoteKey:
    """A named public key that signs notes; `kind` is ED25519 (logs) or COSIGNATURE (witnesses)."""

    name: str
    kind: int
    key: VerifyKey

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise VerificationError("a note key's name is printable ASCII without space or plus")
        if self.kind not in (ED25519, COSIGNATURE):
            raise VerificationError(f"unknown note signature type {self.kind}")

    @property
    def key_hash(self) -> bytes:
        """The 4 bytes that name this key in a signature line (an identifier, not a proof)."""
        text = self.name.encode() + b"\n" + bytes([self.kind]) + self.key.raw
        return hashlib.sha256(text).digest()[:4]

    @property
    def vkey(self) -> str:
        """The text form `name+hash+key`."""
        return f"{self.name}+{self.key_hash.hex()}+{b64encode(bytes([self.kind]) + self.key.raw)}"

    @property
    def fingerprint(self) -> str:
        """What people compare: `sha256:` and the hash of the public key in hex."""
        return f"sha256:{self.key.digest}"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree head: which log, how many entries, which root."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """The three lines that are signed."""
        return f"{self.origin}\n{self.size}\n{b64encode(self.root)}\n"


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line, not verified yet."""

    name: str
    key_hash: bytes
    signature: bytes

    @property
    def line(self) -> str:
        """The line with its newline."""
        return f"{_DASH} {self.name} {b64encode(self.key_hash + self.signature)}\n"


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint and its signature lines as they came."""

    checkpoint: Checkpoint
    signatures: tuple[NoteSignature, ...]

    @property
    def text(self) -> str:
        """The whole note."""
        return f"{self.checkpoint.text}\n{''.join(item.line for item in self.signatures)}"


def log_key(origin: str, key: SigningKey | VerifyKey) -> NoteKey:
    """Name a log's key after its origin."""
    return NoteKey(origin, ED25519, key if isinstance(key, VerifyKey) else key.verify_key)


def witness_key(name: str, key: SigningKey | VerifyKey) -> NoteKey:
    """Name a witness's key. A witness must not use one key under two names."""
    return NoteKey(name, COSIGNATURE, key if isinstance(key, VerifyKey) else key.verify_key)


def parse_vkey(text: str) -> NoteKey:
    """Read `name+hash+key`.

    Raises:
        VerificationError: The form or the hash is wrong.
    """
    parts = text.split("+", 2)  # base64 may hold further plus signs
    if len(parts) != 3 or not _KEY_HASH.fullmatch(parts[1]):
        raise VerificationError("a verifier key has the form name+hash+key")
    material = b64decode_strict(parts[2])
    if len(material) != 33:
        raise VerificationError("a verifier key holds a type byte and 32 bytes")
    result = NoteKey(parts[0], material[0], VerifyKey(material[1:]))
    if result.key_hash.hex() != parts[1]:
        raise VerificationError("the verifier key's hash does not fit its name and key")
    return result


def sign_checkpoint(checkpoint: Checkpoint, key: SigningKey) -> str:
    """Return the checkpoint as a note signed by the log, under its origin's name.

    The caller keeps the promise it makes: never sign a checkpoint that does not extend the last.
    """
    name = log_key(checkpoint.origin, key)
    signature = NoteSignature(name.name, name.key_hash, key.sign(checkpoint.text.encode()))
    return parse_note(SignedCheckpoint(checkpoint, (signature,)).text.encode()).text


def cosign_checkpoint(note: str, name: str, key: SigningKey, now_s: int) -> str:
    """Return the note with a witness's dated cosignature added.

    The caller has verified the log's signature and that the tree extends the last one it saw.
    """
    signed = parse_note(note.encode())
    message = _cosigned_message(signed.checkpoint, now_s)
    signature = now_s.to_bytes(8, "big") + key.sign(message)
    line = NoteSignature(name, witness_key(name, key).key_hash, signature)
    return parse_note((note + line.line).encode()).text


def parse_note(data: bytes) -> SignedCheckpoint:
    """Read a signed checkpoint in its exact form; signatures are not verified.

    Extension lines are refused: no auditor could check them.

    Raises:
        VerificationError: The form is not exact.
    """
    if len(data) > MAX_NOTE_BYTES:
        raise VerificationError(f"a checkpoint has at most {MAX_NOTE_BYTES} bytes")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise VerificationError("a checkpoint is UTF-8 text") from None
    lines = text.split("\n")
    if len(lines) < 6 or lines[3] or lines[-1]:
        raise VerificationError(
            "a checkpoint has origin, size, root, an empty line and signature lines"
        )
    checkpoint = _parse_head(lines[0], lines[1], lines[2])
    if len(lines) - 5 > MAX_NOTE_SIGNATURES:
        raise VerificationError(f"a checkpoint has at most {MAX_NOTE_SIGNATURES} signatures")
    signatures = tuple(_parse_signature(line) for line in lines[4:-1])
    if len({(item.name, item.key_hash) for item in signatures}) != len(signatures):
        raise VerificationError("a key signed the checkpoint twice")
    return SignedCheckpoint(checkpoint, signatures)


def verify_log_signature(signed: SignedCheckpoint, key: NoteKey) -> None:
    """Check that the log signed this checkpoint under its origin's name.

    Raises:
        VerificationError: It did not.
    """
    if key.kind != ED25519 or key.name != signed.checkpoint.origin:
        raise VerificationError(
            f"the checkpoint is of {signed.checkpoint.origin}, the key of {key.name}"
        )
    signature = _signature_of(signed, key)
    key.key.verify(signature, signed.checkpoint.text.encode())


def verify_cosignature(signed: SignedCheckpoint, key: NoteKey) -> int:
    """Check a witness's cosignature and return when it was made, in seconds since 1970.

    Raises:
        VerificationError: There is none by this key, or it does not hold.
    """
    if key.kind != COSIGNATURE:
        raise VerificationError(f"{key.name} is no witness key")
    signature = _signature_of(signed, key)
    time_s = int.from_bytes(signature[:8], "big")
    key.key.verify(signature[8:], _cosigned_message(signed.checkpoint, time_s))
    return time_s


def verify_checkpoint(data: bytes, key: NoteKey, witnesses: Sequence[NoteKey] = ()) -> Checkpoint:
    """Read a note and check the log's signature and that of each witness given.

    Raises:
        VerificationError: Something does not hold.
    """
    signed = parse_note(data)
    verify_log_signature(signed, key)
    for witness in witnesses:
        verify_cosignature(signed, witness)
    return signed.checkpoint


def _cosigned_message(checkpoint: Checkpoint, time_s: int) -> bytes:
    if not 0 <= time_s < 2**63:
        raise VerificationError("a cosignature's time is out of range")
    return f"cosignature/v1\ntime {time_s}\n{checkpoint.text}".encode()


def _signature_of(signed: SignedCheckpoint, key: NoteKey) -> bytes:
    for item in signed.signatures:
        if (item.name, item.key_hash) == (key.name, key.key_hash):
            return item.signature
    raise VerificationError(f"the checkpoint has no signature by the key of {key.name}")


def _parse_head(origin: str, size: str, root: str) -> Checkpoint:
    if not _NAME.fullmatch(origin):
        raise VerificationError("a checkpoint's origin is printable ASCII without space or plus")
    if not _SIZE.fullmatch(size):
        raise VerificationError("a checkpoint's size is a decimal number without leading zeros")
    root_hash = b64decode_strict(root)
    if len(root_hash) != HASH_BYTES:
        raise VerificationError(f"a checkpoint's root has {HASH_BYTES} bytes")
    return Checkpoint(origin, int(size), root_hash)


def _parse_signature(line: str) -> NoteSignature:
    parts = line.split(" ")
    if len(parts) != 3 or parts[0] != _DASH or not _NAME.fullmatch(parts[1]):
        raise VerificationError("a signature line is a dash, a key name and base64")
    content = b64decode_strict(parts[2])
    if len(content) < 5:
        raise VerificationError("a signature line holds a key hash and a signature")
    return NoteSignature(parts[1], content[:4], content[4:])
