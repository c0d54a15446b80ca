"""A witness: it remembers the newest tree it saw of a log, and cosigns only what extends it.

A log that shows one history to some and another to others must keep them apart for ever. Every
party runs a witness beside its own work, so the log's operator would have to fool all of them: the
first two that compare what they saw hold two checkpoints with the log's own signature, and those
are the evidence.

What a witness keeps, in a folder of its own: `key.pem` (its key, used for nothing else), `log.vkey`
(the log it watches, fixed at first sight or given), `seen` (the newest checkpoint) and `forks/`
(one file for each fork, never removed). Formats: c2sp.org/tlog-witness, c2sp.org/tlog-cosignature.
"""

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from clearinghouse.canonical import canonical_bytes, parse_canonical
from clearinghouse.clock import Clock
from clearinghouse.errors import InputError, NotFoundError, VerificationError
from clearinghouse.log.checkpoint import (
    NoteKey,
    SignedCheckpoint,
    cosign_checkpoint,
    parse_note,
    parse_vkey,
    verify_log_signature,
    witness_key,
)
from clearinghouse.log.merkle import verify_consistency
from clearinghouse.messages.base import Message
from clearinghouse.messages.results import CheckpointView, CosignedList, LogProofView
from clearinghouse.signing import SigningKey

Prove = Callable[[int, int], Sequence[bytes]]
"""Asks the log for the proof that its tree of the second size extends that of the first."""

Reply = TypeVar("Reply", bound=Message)


class ForkError(VerificationError):
    """The log showed two histories; `evidence` holds both signed checkpoints."""

    def __init__(self, message: str, evidence: "Evidence") -> None:
        super().__init__(message)
        self.evidence = evidence


@dataclass(frozen=True, slots=True)
class Evidence:
    """Two checkpoints with the log's signature that no one tree can have.

    Two of the same size with different roots convict the log by themselves. Of two sizes they are a
    challenge that only an honest log can answer: show the consistency proof between them.
    """

    vkey: str
    seen: str
    shown: str

    @property
    def data(self) -> bytes:
        """The form that is kept and passed on."""
        return canonical_bytes({"vkey": self.vkey, "seen": self.seen, "shown": self.shown}) + b"\n"


def verify_evidence(data: bytes, proof: Sequence[bytes] | None = None) -> Evidence:
    """Judge evidence of a fork: it stands unless the log's answer refutes it.

    Args:
        data: `Evidence.data`, from whoever found it.
        proof: The log's answer, for checkpoints of two sizes: a consistency proof.

    Raises:
        VerificationError: It is no evidence: a signature does not hold, both say the same, or the
            proof shows that one extends the other.
        InputError: It is not in the form of evidence.
    """
    content = parse_canonical(data.removesuffix(b"\n"))
    if not isinstance(content, dict) or set(content) != {"vkey", "seen", "shown"}:
        raise InputError("evidence has exactly vkey, seen and shown")
    if not all(isinstance(text, str) for text in content.values()):
        raise InputError("evidence holds texts")
    evidence = Evidence(**content)
    key = parse_vkey(evidence.vkey)
    notes = [parse_note(text.encode()) for text in (evidence.seen, evidence.shown)]
    for note in notes:
        verify_log_signature(note, key)
    old, new = sorted((note.checkpoint for note in notes), key=lambda head: head.size)
    if old == new:
        raise VerificationError("both checkpoints say the same: no fork")
    if old.size < new.size and (proof is not None or old.size == 0):
        try:
            _extends(old.size, old.root, new.size, new.root, proof or ())
        except VerificationError:
            return evidence
        raise VerificationError("the proof shows that one checkpoint extends the other: no fork")
    return evidence


class Witness:
    """One witness of one log. Safe beside other processes on the same folder.

    Args:
        folder: Where it keeps its key and what it saw; made if need be.
        name: How its cosignatures name it: printable ASCII without space or plus.
        clock: Dates the cosignatures.
        log_vkey: The log to watch; without it, the one that is seen first.

    Raises:
        InputError: The folder watches another log, or a file in it is damaged.
    """

    def __init__(
        self, folder: Path, name: str, clock: Clock, *, log_vkey: str | None = None
    ) -> None:
        self._folder, self._clock, self.name = folder, clock, name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._alone():
            path = folder / "key.pem"
            if not path.exists():
                SigningKey.generate().save(path)
            self._key = SigningKey.load(path)
            if log_vkey is not None:
                self._pin(log_vkey)
        self.key: NoteKey = witness_key(name, self._key)

    @property
    def log_key(self) -> NoteKey | None:
        """The key of the log it watches, once it knows."""
        text = self._read("log.vkey")
        return None if text is None else parse_vkey(text.decode())

    @property
    def seen(self) -> SignedCheckpoint | None:
        """The newest checkpoint it saw."""
        data = self._read("seen")
        return None if data is None else parse_note(data)

    @property
    def forks(self) -> tuple[Path, ...]:
        """Files of evidence, oldest name first."""
        return tuple(sorted((self._folder / "forks").glob("*.json")))

    def observe(self, note: bytes, vkey: str, prove: Prove) -> str | None:
        """Take in a checkpoint that the log itself shows, and cosign it.

        What it will vouch for is on its disk before the cosignature leaves, so that a crash cannot
        make it vouch for two histories.

        Args:
            note: The signed checkpoint.
            vkey: The key that the log says it has; it must be the one that is watched.
            prove: Asks the log for consistency proofs.

        Returns:
            The note with this witness's cosignature; None for an older checkpoint, which is
            consistent with what it saw but no longer news.

        Raises:
            VerificationError: Not signed by the log that is watched.
            ForkError: It does not extend what this witness saw; the evidence is kept.
            ClearinghouseError: The log did not answer; nothing was decided.
        """
        with self._alone():
            signed = self._check(note, vkey)
            head, seen = signed.checkpoint, self.seen
            if seen is not None:
                self._compare(seen, signed, prove)
                if head.size < seen.checkpoint.size:
                    return None
            if seen is None or head.size > seen.checkpoint.size:
                self._write("seen", signed.text.encode())
            return cosign_checkpoint(
                _without(signed, self.key), self.name, self._key, int(self._clock.now())
            )

    def compare(self, note: bytes, prove: Prove) -> None:
        """Compare with a checkpoint that somebody else saw (in a receipt, by another witness).

        Raises:
            VerificationError: Not signed by the log that is watched.
            ForkError: The log showed them another history; the evidence is kept.
        """
        with self._alone():
            signed, seen = self._check(note, None), self.seen
            if seen is not None:
                self._compare(seen, signed, prove)

    def _check(self, note: bytes, vkey: str | None) -> SignedCheckpoint:
        signed = parse_note(note)
        key = self.log_key
        if key is None:
            if vkey is None:
                raise VerificationError("this witness has seen no log yet")
            verify_log_signature(signed, parse_vkey(vkey))
            self._pin(vkey)
            key = parse_vkey(vkey)
        if vkey is not None and parse_vkey(vkey) != key:
            raise VerificationError(
                f"the log now says it has another key than {key.fingerprint}, which is watched"
            )
        verify_log_signature(signed, key)
        return signed

    def _compare(self, seen: SignedCheckpoint, shown: SignedCheckpoint, prove: Prove) -> None:
        old, new = sorted(
            (seen.checkpoint, shown.checkpoint), key=lambda head: (head.size, head.root)
        )
        try:
            if old.size == new.size:
                if old.root != new.root:
                    raise VerificationError("it signed two roots for one size")
                return
            proof = () if old.size == 0 else prove(old.size, new.size)
            _extends(old.size, old.root, new.size, new.root, proof)
        except (VerificationError, InputError, NotFoundError) as error:
            # A wrong proof, or the log's word that it has none. Silence is neither: that passes on.
            evidence = Evidence(self._vkey(), seen.text, shown.text)
            self._keep(evidence)
            raise ForkError(
                f"the log forked: it signed a tree of {seen.checkpoint.size} entries and now shows "
                f"one of {shown.checkpoint.size} that does not fit it ({error}). Both signed "
                f"checkpoints are kept in {self._folder / 'forks'}",
                evidence,
            ) from None

    def _vkey(self) -> str:
        key = self.log_key
        return "" if key is None else key.vkey

    def _pin(self, vkey: str) -> None:
        known, given = self.log_key, parse_vkey(vkey.strip())
        if known is not None and known != given:
            raise InputError(f"{self._folder} watches the log {known.vkey}, not {given.vkey}")
        if known is None:
            self._write("log.vkey", given.vkey.encode())

    def _keep(self, evidence: Evidence) -> None:
        name = hashlib.sha256(evidence.data).hexdigest()[:32]
        (self._folder / "forks").mkdir(mode=0o700, exist_ok=True)
        if not (self._folder / "forks" / f"{name}.json").exists():
            self._write(f"forks/{name}.json", evidence.data)

    def _read(self, name: str) -> bytes | None:
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def _write(self, name: str, data: bytes) -> None:
        path = self._folder / name
        fresh = path.with_name(path.name + ".new")
        with fresh.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time: two may watch from the same folder."""
        with (self._folder / "lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _extends(
    old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]
) -> None:
    if old_size == 0:
        return  # every tree extends the empty one
    verify_consistency(old_size, new_size, old_root, new_root, proof)


def _without(signed: SignedCheckpoint, key: NoteKey) -> str:
    """The note without an earlier cosignature by `key`: a key signs a note once."""
    kept = tuple(
        item for item in signed.signatures if (item.name, item.key_hash) != (key.name, key.key_hash)
    )
    return SignedCheckpoint(signed.checkpoint, kept).text


# ---------------------------------------------------------------- beside a party's own work


class LogClient(Protocol):
    """What `observe` needs of a party's connection."""

    @property
    def clock(self) -> Clock:
        """The party's clock."""
        ...

    def get(self, path: str, reply: type[Reply], *, query: str = "") -> Reply:
        """Ask the server and read its answer."""
        ...


class Folder(Protocol):
    """What `observe` needs of a party's keystore."""

    @property
    def directory(self) -> Path:
        """The party's own folder."""
        ...

    @property
    def signing_key(self) -> SigningKey:
        """The key by which the party is known."""
        ...


def party_witness(keystore: Folder, clock: Clock) -> Witness:
    """The witness in a party's own folder, named after the party's key."""
    return Witness(keystore.directory / "witness", f"witness/{keystore.signing_key.key_id}", clock)


def observe(transport: LogClient, keystore: Folder) -> str | None:
    """Look at the log once, as a witness; cheap enough for every poll.

    Returns:
        The cosigned checkpoint, for others to see; None if the log showed an older one.

    Raises:
        ForkError: The log showed another history than before; stop working with it.
        ClearinghouseError: As the call to the server.
    """
    witness = party_witness(keystore, transport.clock)
    view = transport.get("/log/checkpoint", CheckpointView)
    return witness.observe(view.checkpoint.encode(), view.vkey, log_prover(transport))


def gossip(witness: Witness, transport: LogClient) -> int:
    """Compare with what other witnesses cosigned; return how many checkpoints those were.

    Raises:
        ForkError: The log showed them another history.
        ClearinghouseError: As the call to the server.
    """
    others = transport.get("/log/cosigned", CosignedList).checkpoints
    for note in others:
        witness.compare(note.encode(), log_prover(transport))
    return len(others)


def cosign(transport: LogClient, keystore: Folder, checkpoint: str) -> tuple[str, str]:
    """Vouch for a checkpoint, or for the log's newest one where a newer one was seen.

    Returns:
        The witness's verifier key, and the cosigned note.

    Raises:
        ForkError: The log has shown two histories, here or to others.
        VerificationError: It is not signed by the log that is watched, or is older than what the
            log now shows.
        ClearinghouseError: As the calls to the server.
    """
    witness = party_witness(keystore, transport.clock)
    view = transport.get("/log/checkpoint", CheckpointView)
    cosigned = witness.observe(checkpoint.encode(), view.vkey, log_prover(transport))
    if cosigned is None:
        cosigned = witness.observe(view.checkpoint.encode(), view.vkey, log_prover(transport))
    if cosigned is None:
        raise VerificationError("the log shows an older checkpoint than before")
    gossip(witness, transport)
    return witness.key.vkey, cosigned


def log_prover(transport: LogClient) -> Prove:
    """Consistency proofs by the server of `transport`."""

    def prove(old: int, new: int) -> Sequence[bytes]:
        view = transport.get("/log/consistency", LogProofView, query=f"old={old}&size={new}")
        return tuple(bytes.fromhex(item) for item in view.path)

    return prove
