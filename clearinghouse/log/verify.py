"""Offline verification: a receipt, or a whole exported log, without any server.

Each check has a number and a name; a failure names both, so that a reader learns what does not
hold. Nothing here trusts the file: without a trusted log key given from outside, the embedded one
is used and the result says so, because then the file only proves that it agrees with itself.
"""

import hmac
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from clearinghouse.errors import InputError, VerificationError
from clearinghouse.log import merkle
from clearinghouse.log.checkpoint import (
    Checkpoint,
    NoteKey,
    SignedCheckpoint,
    parse_note,
    parse_vkey,
    verify_cosignature,
    verify_log_signature,
)
from clearinghouse.log.claim import ScoreClaim
from clearinghouse.log.entries import Entry, KeyHistory, epsilon_by_owner, parse_entry
from clearinghouse.log.receipt import Receipt, parse_receipt, read_claim, render

__all__ = [
    "Check",
    "LogReport",
    "ReceiptPolicy",
    "Verified",
    "epsilon_by_owner",
    "export_log",
    "verify_entries",
    "verify_log_directory",
    "verify_receipt",
]

MAX_LOG_FILE_BYTES = 2**30
_ENTRIES, _LEAVES, _CHECKPOINT, _VKEY = "entries.jsonl", "leaves.txt", "checkpoint", "log.vkey"


@dataclass(frozen=True, slots=True)
class Check:
    """One check that held."""

    number: int
    name: str
    detail: str


@dataclass(frozen=True, slots=True)
class ReceiptPolicy:
    """What a reader demands beyond consistency.

    Attributes:
        roles: Roles that must be among the signers.
        witnesses: Verifier keys of witnesses the reader trusts.
        quorum: How many of them must have cosigned the checkpoint.
    """

    roles: frozenset[str] = frozenset({"clearinghouse", "hospital"})
    witnesses: tuple[str, ...] = ()
    quorum: int = 0


@dataclass(frozen=True, slots=True)
class Verified:
    """A receipt that holds, what it says, and how far it can be trusted.

    Attributes:
        checks: The numbered checks, all passed.
        claim: What the receipt says.
        receipt: Its parts.
        log_fingerprint: Of the log key used.
        log_key_is_embedded: True if no trusted key was given: say so to the reader.
        cosigned_at_s: When each cosigner saw the checkpoint, by name, in seconds since 1970.
    """

    checks: tuple[Check, ...]
    claim: ScoreClaim
    receipt: Receipt
    log_fingerprint: str
    log_key_is_embedded: bool
    cosigned_at_s: dict[str, int]


@dataclass(slots=True)
class _Checks:
    """Runs numbered checks and keeps those that held."""

    subject: str
    passed: list[Check] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[Callable[[str], None]]:
        """Name the check in any failure inside; the value given takes its detail."""
        number = len(self.passed) + 1
        details: list[str] = []
        try:
            yield details.append
        except (VerificationError, InputError, ValueError) as error:
            raise VerificationError(
                f"{self.subject}: check {number} failed ({name}): {error}"
            ) from None
        self.passed.append(Check(number, name, " ".join(details)))


def verify_receipt(
    text: bytes,
    *,
    trusted_log_key: str | None = None,
    policy: ReceiptPolicy | None = None,
) -> Verified:
    """Check a receipt and return what it says.

    Args:
        text: The file's bytes.
        trusted_log_key: Verifier key (`name+hash+key`) of the log, from elsewhere than the file.
        policy: Required signers and witnesses.

    Raises:
        VerificationError: A check failed; the message names it by number and words.
    """
    checks, policy = _Checks("receipt"), policy or ReceiptPolicy()
    # (1) The parts are there, each in its exact form.
    with checks.step("form") as note:
        receipt = parse_receipt(text)
        note(f"{len(text)} bytes")
    # (2) Everyone the statement names has signed it, and the roles we ask for are among them.
    with checks.step("statement signatures") as note:
        claim = read_claim(receipt.envelope, receipt.signer_keys)
        _check_signers(receipt, claim, policy)
        note("signed by " + ", ".join(f"{item.role} {item.org}" for item in claim.signers))
    # (3) The log entry is about this statement, and made by one of its signers.
    with checks.step("log entry") as note:
        _check_entry(receipt, claim)
        note(f"names statement {receipt.envelope_digest[:16]}")
    # (4) The entry is in the tree of the checkpoint.
    with checks.step("inclusion in the log") as note:
        receipt.proof.verify_entry(receipt.entry.data)
        note(f"entry {receipt.proof.index} of {receipt.proof.signed.checkpoint.size}")
    # (5) The log has signed the checkpoint, with the key that the reader trusts if one is given.
    with checks.step("checkpoint signature") as note:
        _check_trusted(receipt.log_key, trusted_log_key)
        verify_log_signature(receipt.proof.signed, receipt.log_key)
        note(f"{receipt.log_key.name} {receipt.log_key.fingerprint}")
    # (6) Every cosignature holds, and enough are by witnesses the reader trusts.
    with checks.step("witnesses") as note:
        cosigned_at_s = _check_witnesses(receipt, policy)
        note(f"{len(cosigned_at_s)} cosignatures, {policy.quorum} demanded")
    # (7) The file is the only text that says this: not one byte differs, the lines on top included.
    with checks.step("exact text") as note:
        _check_text(text, render(receipt, claim).encode())
        note("written again byte for byte")
    return Verified(
        tuple(checks.passed),
        claim,
        receipt,
        receipt.log_key.fingerprint,
        trusted_log_key is None,
        cosigned_at_s,
    )


def _check_signers(receipt: Receipt, claim: ScoreClaim, policy: ReceiptPolicy) -> None:
    if set(receipt.signer_keys) != {signer.key for signer in claim.signers}:
        raise VerificationError("the keys of exactly the named signers must be in the file")
    missing = sorted(policy.roles - {signer.role for signer in claim.signers})
    if missing:
        raise VerificationError(f"a signature by the {missing[0]} is required")


def _check_entry(receipt: Receipt, claim: ScoreClaim) -> None:
    entry = receipt.entry
    if entry.type != "receipt.issued":
        raise VerificationError(f"the entry must be receipt.issued, not {entry.type}")
    if not hmac.compare_digest(entry.hashes["envelope"], receipt.envelope_digest):
        raise VerificationError("the entry names another statement")
    for name, value in entry.objects.items():
        if claim.ids.get(name, value) != value:
            raise VerificationError(f"the entry names another {name}")
    if (entry.actor, entry.key) not in {(signer.org, signer.key) for signer in claim.signers}:
        raise VerificationError("the entry was made by none of the signers")


def _check_trusted(embedded: NoteKey, trusted: str | None) -> None:
    if trusted is not None and parse_vkey(trusted.strip()) != embedded:
        raise VerificationError(
            f"the file is from the log {embedded.name} with key {embedded.fingerprint}, "
            "not from the trusted log"
        )


def _check_witnesses(receipt: Receipt, policy: ReceiptPolicy) -> dict[str, int]:
    """Verify each signature line beside the log's: a receipt has no line nobody can check."""
    signed = receipt.proof.signed
    lines = [(item.name, item.key_hash) for item in signed.signatures]
    expected = [(key.name, key.key_hash) for key in (receipt.log_key, *receipt.witness_keys)]
    if lines != expected:
        raise VerificationError("signature lines and keys must match one to one, the log's first")
    times = {key.name: verify_cosignature(signed, key) for key in receipt.witness_keys}
    if len(times) != len(receipt.witness_keys):
        raise VerificationError("a witness counts once")
    trusted = {parse_vkey(text.strip()) for text in policy.witnesses}
    # By public key: one witness under two names is one witness.
    found = {key.key.raw for key in receipt.witness_keys if key in trusted}
    if len(found) < policy.quorum:
        raise VerificationError(
            f"{len(found)} trusted witnesses have cosigned, {policy.quorum} are demanded"
        )
    return times


def _check_text(found: bytes, expected: bytes) -> None:
    if found == expected:
        return
    pairs = zip(found, expected, strict=False)
    place = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(found), len(expected)))
    line = found[:place].count(b"\n") + 1
    raise VerificationError(f"line {line} is not what the signed parts say")


@dataclass(frozen=True, slots=True)
class LogReport:
    """A log that holds from its first entry to its checkpoint."""

    checks: tuple[Check, ...]
    entries: tuple[Entry, ...]
    checkpoint: Checkpoint
    log_fingerprint: str
    log_key_is_embedded: bool
    epsilon_by_owner: dict[str, int]


def export_log(entries: Iterable[bytes], checkpoint: str, vkey: str, path: Path) -> None:
    """Write a log so that `verify_log_directory` can check it.

    Args:
        entries: Bytes of every entry the checkpoint covers, in order.
        checkpoint: The signed note.
        vkey: The log's verifier key.
        path: An existing or new directory.
    """
    path.mkdir(parents=True, exist_ok=True)
    with (path / _ENTRIES).open("wb") as lines, (path / _LEAVES).open("w") as leaves:
        for entry in entries:
            lines.write(entry + b"\n")
            leaves.write(merkle.leaf_hash(entry).hex() + "\n")
    (path / _CHECKPOINT).write_bytes(checkpoint.encode())
    (path / _VKEY).write_text(vkey + "\n")


def verify_log_directory(
    path: Path,
    *,
    trusted_log_key: str | None = None,
    earlier_checkpoints: Iterable[bytes] = (),
) -> LogReport:
    """Check an exported log.

    Args:
        path: Directory written by `export_log`.
        trusted_log_key: Verifier key of the log, from elsewhere.
        earlier_checkpoints: Notes seen before (in receipts, by witnesses): the log must extend
            each of them.

    Raises:
        VerificationError: A check failed; the message names it and, where it can, the entry.
        InputError: A file is missing.
    """
    content = {name: _read(path / name) for name in (_ENTRIES, _LEAVES, _CHECKPOINT, _VKEY)}
    vkey = content[_VKEY].decode("ascii", errors="replace")
    if not vkey.endswith("\n"):
        raise VerificationError("log: log.vkey must be one line")
    vkey = vkey[:-1]
    return verify_entries(
        content[_ENTRIES],
        content[_LEAVES],
        content[_CHECKPOINT],
        vkey,
        trusted_log_key=trusted_log_key,
        earlier_checkpoints=earlier_checkpoints,
    )


def verify_entries(
    lines: bytes,
    leaves: bytes,
    checkpoint: bytes,
    vkey: str,
    *,
    trusted_log_key: str | None = None,
    earlier_checkpoints: Iterable[bytes] = (),
) -> LogReport:
    """Check a log's files given as bytes; see `verify_log_directory`."""
    checks = _Checks("log")
    # (1) The checkpoint is signed by the log.
    with checks.step("checkpoint signature") as note:
        key = parse_vkey(vkey)
        _check_trusted(key, trusted_log_key)
        signed = parse_note(checkpoint)
        verify_log_signature(signed, key)
        note(f"{key.name} {key.fingerprint}")
    # (2) The entries, all of them, hash to the checkpoint's root.
    with checks.step("root over all entries") as note:
        data = _split_lines(lines)
        nodes = _check_root(data, _split_lines(leaves), signed.checkpoint)
        note(f"{len(data)} entries")
    # (3) The log extends what others have seen of it.
    with checks.step("earlier checkpoints") as note:
        count = sum(_check_extends(nodes, parse_note(old), key) for old in earlier_checkpoints)
        note(f"{count} compared")
    # (4) Each entry is canonical, of a known type and complete.
    with checks.step("form of each entry"):
        entries = tuple(_parse_at(index, item) for index, item in enumerate(data))
    # (5) Each was made with a key its actor had registered and not revoked.
    with checks.step("keys") as note:
        history = KeyHistory()
        for index, entry in enumerate(entries):
            _apply_at(history, index, entry)
    return LogReport(
        tuple(checks.passed),
        entries,
        signed.checkpoint,
        key.fingerprint,
        trusted_log_key is None,
        epsilon_by_owner(entries),
    )


def _check_root(data: list[bytes], leaves: list[bytes], head: Checkpoint) -> merkle.MemoryNodes:
    if len(data) != head.size:
        raise VerificationError(f"the checkpoint covers {head.size} entries, not {len(data)}")
    nodes = merkle.MemoryNodes()
    for entry in data:
        merkle.append(nodes, entry)
    found = [nodes.get(0, index).hex().encode() for index in range(len(data))]
    # The leaf hashes name the entry that was changed; the root alone could not.
    different = [index for index, (a, b) in enumerate(zip(found, leaves, strict=False)) if a != b]
    if different:
        raise VerificationError(f"entry {different[0]} differs from its leaf hash")
    if len(leaves) != len(found):
        raise VerificationError(f"there are {len(found)} entries but {len(leaves)} leaf hashes")
    if merkle.root(nodes) != head.root:
        raise VerificationError("the entries do not hash to the checkpoint's root")
    return nodes


def _check_extends(nodes: merkle.MemoryNodes, old: SignedCheckpoint, key: NoteKey) -> bool:
    verify_log_signature(old, key)
    head = old.checkpoint
    if head.size > nodes.size() or merkle.root(nodes, head.size) != head.root:
        raise VerificationError(
            f"a checkpoint of {head.size} entries was signed before that this log does not extend: "
            "both signed checkpoints together prove the fork"
        )
    return True


def _parse_at(index: int, data: bytes) -> Entry:
    try:
        return parse_entry(data)
    except VerificationError as error:
        raise VerificationError(f"entry {index}: {error}") from None


def _apply_at(history: KeyHistory, index: int, entry: Entry) -> None:
    try:
        history.apply(entry)
    except VerificationError as error:
        raise VerificationError(f"entry {index} ({entry.type}): {error}") from None


def _split_lines(data: bytes) -> list[bytes]:
    if not data:
        return []
    if not data.endswith(b"\n"):
        raise VerificationError("the last line has no end")
    return data[:-1].split(b"\n")


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_LOG_FILE_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > MAX_LOG_FILE_BYTES:
        raise InputError(f"{path} has more than {MAX_LOG_FILE_BYTES} bytes")
    return data
