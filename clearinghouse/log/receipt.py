"""A receipt: one text file that people can read and anyone can verify offline.

The top is for people. Below it are the signed statement, the log entry that names its hash, the
proof that the entry is in the log, and the public keys. The top is not trusted: it is written again
from the signed parts and must come out byte for byte the same. So must every other byte: a receipt
has one form only, hence any change to it is refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clearinghouse.canonical import canonical_bytes, digest, parse_canonical
from clearinghouse.errors import VerificationError
from clearinghouse.log.checkpoint import COSIGNATURE, ED25519, NoteKey, parse_vkey
from clearinghouse.log.claim import SCORE_PREDICATE, ScoreClaim, parse_claim
from clearinghouse.log.entries import Entry, parse_entry
from clearinghouse.log.proof import LogProof, parse_proof
from clearinghouse.signing import SigningKey, VerifyKey, sign_statement, verify_statement

MAX_RECEIPT_BYTES = 131_072

_MARKS = (
    "=== signed statement (DSSE envelope, canonical JSON) ===\n",
    "=== log entry (canonical JSON) ===\n",
    "=== log proof (c2sp.org/tlog-proof) ===\n",
    "=== public keys ===\n",
    "=== end ===\n",
)
_TITLE = """\
CLEARINGHOUSE RECEIPT

A model was scored on a hospital's encrypted validation set. Metrics carry privacy noise.

"""
_HOW = """
Check this file on any computer, without a network: clearinghouse verify FILE
These lines repeat what is signed below; the check writes them again and compares every byte.

"""


@dataclass(frozen=True, slots=True)
class Receipt:
    """The parts of a receipt: well formed, not verified."""

    envelope: Mapping[str, Any]
    entry: Entry
    proof: LogProof
    log_key: NoteKey
    witness_keys: tuple[NoteKey, ...]
    signer_keys: Mapping[str, VerifyKey]

    @property
    def envelope_digest(self) -> str:
        """SHA-256 of the envelope's canonical bytes: what the log entry names."""
        return digest(dict(self.envelope))


def sign_claim(claim: ScoreClaim, keys: Sequence[SigningKey]) -> dict[str, Any]:
    """Return the envelope of a score receipt; other signers add theirs with `countersign`."""
    return sign_statement(SCORE_PREDICATE, claim.subjects, claim.predicate, keys)


def read_claim(envelope: object, keys: Mapping[str, VerifyKey]) -> ScoreClaim:
    """Verify an envelope's signatures, by exactly the signers it names, and return its claim.

    Raises:
        VerificationError: A signature or the claim does not hold.
    """
    statement = verify_statement(envelope, keys, required=frozenset())
    claim = parse_claim(statement)
    if set(statement.signers) != {signer.key for signer in claim.signers}:
        raise VerificationError("exactly the signers that the statement names must have signed it")
    return claim


def build_receipt(
    envelope: Mapping[str, Any],
    entry: bytes,
    proof: LogProof,
    log_key: NoteKey,
    signer_keys: Mapping[str, VerifyKey],
    witness_keys: Sequence[NoteKey] = (),
) -> str:
    """Write the receipt.

    Args:
        envelope: The claim, signed by all its signers.
        entry: Bytes of the `receipt.issued` entry that names the envelope's digest.
        proof: Where that entry is in the log.
        log_key: The log's key.
        signer_keys: The public keys of the signers, by key id; others are left out.
        witness_keys: Keys of the checkpoint's cosigners; others are left out.

    Raises:
        VerificationError: A part is malformed or a signature of the claim does not hold. Whether
            the whole holds is `verify_receipt`'s to say.
    """
    claim = read_claim(envelope, signer_keys)
    names = sorted(item["keyid"] for item in envelope["signatures"])
    by_line = {(key.name, key.key_hash): key for key in witness_keys}
    lines = [(item.name, item.key_hash) for item in proof.signed.signatures]
    receipt = Receipt(
        envelope,
        parse_entry(entry),
        proof,
        log_key,
        tuple(by_line[line] for line in lines if line in by_line),
        {name: signer_keys[name] for name in names},
    )
    return render(receipt, claim)


def parse_receipt(data: bytes) -> Receipt:
    """Split a receipt into its parts; the lines for people are left aside.

    Raises:
        VerificationError: It is not a receipt.
        InputError: The statement is not canonical JSON.
    """
    if len(data) > MAX_RECEIPT_BYTES:
        raise VerificationError(f"a receipt has at most {MAX_RECEIPT_BYTES} bytes")
    envelope, entry, proof, keys = _split(data)
    log_key, witnesses, signers = _parse_keys(keys)
    content = parse_canonical(_line_of(envelope, "statement"))
    if not isinstance(content, dict):
        raise VerificationError("the signed statement must be a JSON object")
    return Receipt(
        content,
        parse_entry(_line_of(entry, "log entry")),
        parse_proof(proof),
        log_key,
        witnesses,
        signers,
    )


def render(receipt: Receipt, claim: ScoreClaim) -> str:
    """Write the one text that says `claim` with these parts."""
    keys = [f"log {receipt.log_key.vkey}\n"]
    keys += [f"witness {witness.vkey}\n" for witness in receipt.witness_keys]
    keys += [f"signer {name} {key.base64}\n" for name, key in receipt.signer_keys.items()]
    sections = (
        canonical_bytes(dict(receipt.envelope)).decode() + "\n",
        receipt.entry.data.decode() + "\n",
        receipt.proof.text,
        "".join(keys),
        "",
    )
    people = "\n".join([*claim.lines, "", *_log_lines(receipt)]) + "\n"
    machine = (mark + part for mark, part in zip(_MARKS, sections, strict=True))
    return _TITLE + people + _HOW + "".join(machine)


def _log_lines(receipt: Receipt) -> list[str]:
    head, entry = receipt.proof.signed.checkpoint, receipt.entry
    witnesses = ", ".join(witness.name for witness in receipt.witness_keys) or "none"
    return [
        "Recorded in the log",
        f"  log              {head.origin}",
        f"  log key          {receipt.log_key.fingerprint}",
        f"  entry            index {receipt.proof.index}, log size {head.size}, {entry.time}",
        f"  witnesses        {witnesses}",
    ]


def _split(data: bytes) -> list[bytes]:
    """Return what stands between the marks, which must each come once, as lines, in order."""
    rest, parts = data, []
    for number, mark in enumerate(_MARKS):
        before, found, rest = rest.partition(b"\n" + mark.encode())
        if not found:
            raise VerificationError(f"a receipt has the line {mark.strip()!r}")
        if number:
            parts.append(before + b"\n")
    if rest:
        raise VerificationError("nothing may follow the end of a receipt")
    return parts


def _line_of(part: bytes, name: str) -> bytes:
    line, newline, rest = part.partition(b"\n")
    if not newline or rest:
        raise VerificationError(f"the {name} must be one line")
    return line


def _parse_keys(
    data: bytes,
) -> tuple[NoteKey, tuple[NoteKey, ...], dict[str, VerifyKey]]:
    logs: list[NoteKey] = []
    witnesses: list[NoteKey] = []
    signers: dict[str, VerifyKey] = {}
    for line in data.decode("ascii", errors="replace").removesuffix("\n").split("\n"):
        words = line.split(" ")
        if words[0] == "log" and len(words) == 2:
            logs.append(parse_vkey(words[1]))
        elif words[0] == "witness" and len(words) == 2:
            witnesses.append(parse_vkey(words[1]))
        elif words[0] == "signer" and len(words) == 3 and words[1] not in signers:
            signers[words[1]] = VerifyKey.from_base64(words[2])
        else:
            raise VerificationError("a key line is log, witness or signer with its key")
    if len(logs) != 1 or logs[0].kind != ED25519:
        raise VerificationError("a receipt has one log key")
    if any(witness.kind != COSIGNATURE for witness in witnesses):
        raise VerificationError("a witness key must be of the cosignature kind")
    return logs[0], tuple(witnesses), signers
