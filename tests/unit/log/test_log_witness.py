"""Witnesses against an operator that shows two histories, and everything short of that."""

import base64
import json
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from clearinghouse.clock import FixedClock
from clearinghouse.errors import InputError, NotFoundError, TryAgainError, VerificationError
from clearinghouse.log import merkle
from clearinghouse.log.checkpoint import (
    Checkpoint,
    log_key,
    parse_note,
    sign_checkpoint,
    verify_cosignature,
    witness_key,
)
from clearinghouse.log.cosigned import merge_cosignatures, renew_receipt
from clearinghouse.log.verify import ReceiptPolicy, verify_receipt
from clearinghouse.log.witness import ForkError, Witness, observe, verify_evidence
from clearinghouse.messages.results import CheckpointView, LogProofView
from clearinghouse.signing import SigningKey

ORIGIN = "clearinghouse.example/log"


@dataclass
class Log:
    """An operator's log; `branch` gives it another history from some entry on."""

    key: SigningKey
    entries: list[bytes] = field(default_factory=list)

    @property
    def vkey(self) -> str:
        return log_key(ORIGIN, self.key).vkey

    def grow(self, number: int, tag: str = "") -> "Log":
        start = len(self.entries)
        self.entries += [b"entry %d%s" % (start + i, tag.encode()) for i in range(number)]
        return self

    def branch(self, size: int) -> "Log":
        return Log(self.key, self.entries[:size])

    @property
    def nodes(self) -> merkle.MemoryNodes:
        nodes = merkle.MemoryNodes()
        for entry in self.entries:
            merkle.append(nodes, entry)
        return nodes

    def note(self, size: int | None = None) -> bytes:
        size = len(self.entries) if size is None else size
        return sign_checkpoint(
            Checkpoint(ORIGIN, size, merkle.root(self.nodes, size)), self.key
        ).encode()

    def prove(self, old: int, new: int) -> list[bytes]:
        try:
            return merkle.consistency_proof(self.nodes, old, new)
        except ValueError as error:
            raise InputError(f"no such proof: {error}") from None


@pytest.fixture
def log() -> Log:
    return Log(SigningKey.generate()).grow(7)


@pytest.fixture
def make(tmp_path: Path, log: Log) -> Any:
    def witness(name: str = "w1", **options: Any) -> Witness:
        return Witness(tmp_path / name, f"witness.example/{name}", FixedClock(), **options)

    return witness


def refuse(old: int, new: int) -> list[bytes]:
    raise AssertionError(f"no proof is needed, but one of {old} to {new} was asked for")


def show(witness: Witness, log: Log, size: int | None = None) -> str | None:
    return witness.observe(log.note(size), log.vkey, log.prove)


def test_log_witness_cosigns_what_extends_what_it_saw(log: Log, make: Any) -> None:
    witness = make()
    first = witness.observe(log.note(3), log.vkey, refuse)
    again = witness.observe(log.note(3), log.vkey, refuse)
    assert first == again  # one clock: the same words
    for size in (4, 5, 7):
        cosigned = show(witness, log, size)
        assert cosigned is not None
        assert verify_cosignature(parse_note(cosigned.encode()), witness.key) >= 0
        assert witness.seen.checkpoint.size == size
    assert witness.forks == ()


def test_log_witness_an_older_checkpoint_is_no_news_and_no_fork(log: Log, make: Any) -> None:
    witness = make()
    show(witness, log)
    assert show(witness, log, 3) is None
    assert witness.seen.checkpoint.size == 7
    assert witness.forks == ()


@pytest.mark.parametrize("shared", range(7))
@pytest.mark.parametrize("shown", [5, 7, 9])
def test_log_witness_finds_a_fork_wherever_it_begins(
    log: Log, make: Any, shared: int, shown: int
) -> None:
    other = log.branch(shared).grow(shown - shared, tag=" other") if shared < shown else None
    if other is None:
        other = log.branch(shown - 1).grow(1, tag=" other")
    witness = make()
    show(witness, log)
    with pytest.raises(ForkError) as caught:
        show(witness, other)
    assert witness.seen.checkpoint == parse_note(log.note()).checkpoint  # it stands by what it saw
    (kept,) = witness.forks
    evidence = verify_evidence(kept.read_bytes())
    assert evidence == caught.value.evidence
    assert {evidence.seen.encode(), evidence.shown.encode()} == {log.note(), other.note()}
    # Neither history can refute it.
    old, new = sorted((7, shown))
    for branch in (log, other):
        if old < new <= len(branch.entries):
            verify_evidence(kept.read_bytes(), branch.prove(old, new))
    # Shown again it is one fork, not two.
    with pytest.raises(ForkError):
        show(witness, other)
    assert len(witness.forks) == 1


def test_log_witness_two_witnesses_that_were_kept_apart_find_out_by_comparing(
    log: Log, make: Any
) -> None:
    """The operator serves two trees; each witness alone is content."""
    other = log.branch(5).grow(4, tag=" other")
    ann, bob = make("ann"), make("bob")
    for size in (5, 6, 7):
        assert show(ann, log, size)
    for size in (5, 6, 9):
        assert show(bob, other, size)
    ann.compare(log.note(6), log.prove)
    with pytest.raises(ForkError):
        ann.compare(other.note(9), other.prove)
    with pytest.raises(ForkError):
        bob.compare(log.note(7), log.prove)
    for witness in (ann, bob):
        verify_evidence(witness.forks[0].read_bytes())
    # A checkpoint from before the fork is in both histories.
    assert len(ann.forks) == len(bob.forks) == 1
    bob.compare(log.note(5), other.prove)


def test_log_witness_a_log_that_lost_its_tail_is_a_fork(log: Log, make: Any) -> None:
    """A server restored from an old backup: it cannot prove what it has forgotten."""
    witness = make()
    show(witness, log)
    with pytest.raises(ForkError, match="no such proof"):
        show(witness, log.branch(4))


@pytest.mark.parametrize("error", [NotFoundError("gone"), InputError("no"), VerificationError("x")])
def test_log_witness_a_log_that_will_not_prove_has_forked(
    log: Log, make: Any, error: Exception
) -> None:
    witness = make()
    show(witness, log, 3)

    def no(_old: int, _new: int) -> list[bytes]:
        raise error

    with pytest.raises(ForkError):
        witness.observe(log.note(7), log.vkey, no)


def test_log_witness_silence_decides_nothing(log: Log, make: Any) -> None:
    witness = make()
    show(witness, log, 3)

    def away(_old: int, _new: int) -> list[bytes]:
        raise TryAgainError("the server is away")

    with pytest.raises(TryAgainError):
        witness.observe(log.note(7), log.vkey, away)
    assert witness.forks == ()
    assert witness.seen.checkpoint.size == 3
    assert show(witness, log)


def test_log_witness_refuses_what_the_log_did_not_sign(log: Log, make: Any) -> None:
    witness = make()
    show(witness, log)
    stranger = Log(SigningKey.generate(), list(log.entries))
    for vkey in (log.vkey, stranger.vkey):
        with pytest.raises(VerificationError):
            witness.observe(stranger.note(), vkey, stranger.prove)
    note = log.note()
    for place in range(len(note)):
        changed = note[:place] + bytes([note[place] ^ 1]) + note[place + 1 :]
        with pytest.raises(VerificationError):
            witness.observe(changed, log.vkey, log.prove)
    assert witness.forks == ()  # a stranger cannot make the log look guilty


def test_log_witness_watches_one_log_for_ever(log: Log, make: Any) -> None:
    other = Log(SigningKey.generate()).grow(2)
    with pytest.raises(VerificationError):
        make("pinned", log_vkey=log.vkey).observe(other.note(), other.vkey, refuse)
    show(make("pinned", log_vkey=log.vkey), log)
    with pytest.raises(InputError, match="watches the log"):
        make("pinned", log_vkey=other.vkey)
    with pytest.raises(VerificationError, match="no log yet"):
        make("fresh").compare(log.note(), refuse)


def test_log_witness_remembers_across_restarts(log: Log, make: Any) -> None:
    key = make().key
    show(make(), log)
    assert make().key == key
    assert make().seen.checkpoint.size == 7
    with pytest.raises(ForkError):
        show(make(), log.branch(5).grow(3, tag=" other"))
    assert len(make().forks) == 1


def test_log_witness_remembers_before_it_vouches(
    log: Log, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the disk fails, no cosignature leaves: it would be forgotten and given again elsewhere."""
    witness = make()
    show(witness, log, 3)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    # The system call fails, none of our code is replaced: no file system here fails it on demand.
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        show(witness, log)
    assert witness.seen.checkpoint.size == 3


def test_log_witness_keeps_its_key_to_itself(make: Any, tmp_path: Path) -> None:
    make()
    assert stat.S_IMODE((tmp_path / "w1").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "w1" / "key.pem").stat().st_mode) == 0o600


def test_log_witness_evidence_is_judged_without_trust(log: Log) -> None:
    other = log.branch(5).grow(4, tag=" other")

    def evidence(seen: bytes, shown: bytes, vkey: str = log.vkey) -> bytes:
        texts = {"seen": seen.decode(), "shown": shown.decode(), "vkey": vkey}
        return json.dumps(texts, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    verify_evidence(evidence(log.note(), other.note()))
    verify_evidence(evidence(log.note(), other.note(7)))  # one size, two roots
    with pytest.raises(VerificationError, match="no fork"):
        verify_evidence(evidence(log.note(), log.note()))
    with pytest.raises(VerificationError, match="no fork"):
        verify_evidence(evidence(log.note(), log.note(5)), log.prove(5, 7))
    with pytest.raises(VerificationError):
        verify_evidence(evidence(log.note(), Log(SigningKey.generate()).grow(9).note()))
    for wrong in (b"{}", b"[]", b'{"seen":1,"shown":"","vkey":""}'):
        with pytest.raises(InputError):
            verify_evidence(wrong)


# ---------------------------------------------------------------- beside a party's work


@dataclass
class Server:
    """Answers like the clearinghouse's log routes."""

    log: Log
    clock: FixedClock = field(default_factory=FixedClock)

    def get(self, path: str, reply: Any, *, query: str = "") -> Any:
        if path == "/log/checkpoint":
            return CheckpointView(checkpoint=self.log.note().decode(), vkey=self.log.vkey)
        assert path == "/log/consistency"
        old, size = (int(part.partition("=")[2]) for part in query.split("&"))
        path_hex = [item.hex() for item in self.log.prove(old, size)]
        return LogProofView(index=old, size=size, path=path_hex)


@dataclass(frozen=True)
class Party:
    directory: Path
    signing_key: SigningKey


def test_log_witness_a_party_observes_with_each_poll(log: Log, tmp_path: Path) -> None:
    party, server = Party(tmp_path, SigningKey.generate()), Server(log)
    assert observe(server, party)
    log.grow(5)
    note = parse_note((observe(server, party) or "").encode())
    assert note.checkpoint.size == 12
    assert note.signatures[1].name == f"witness/{party.signing_key.key_id}"
    server.log = log.branch(9).grow(9, tag=" other")
    with pytest.raises(ForkError):
        observe(server, party)


def test_log_witness_two_at_once_never_vouch_for_two_histories(log: Log, make: Any) -> None:
    """Two agents on one folder, each shown its own history at the same moment."""
    trees = (log, log.branch(6).grow(1, tag=" other"))
    for turn in range(20):
        name, start = f"w{turn}", threading.Barrier(2)
        witnesses = [make(name), make(name)]

        def watch(pair: Any, start: threading.Barrier = start) -> bool:
            witness, tree = pair
            start.wait()
            try:
                return witness.observe(tree.note(), log.vkey, tree.prove) is not None
            except ForkError:
                return False

        with ThreadPoolExecutor(2) as pool:
            told = list(pool.map(watch, zip(witnesses, trees, strict=True)))
        assert sorted(told) == [False, True]
        assert len(witnesses[0].forks) == 1


# ---------------------------------------------------------------- receipts


def test_log_witness_a_receipt_is_renewed_with_cosignatures_and_meets_a_quorum(
    world: Any, tmp_path: Path
) -> None:
    plain = world.receipt(proof=world.proof(world.receipt_index, cosigned=False))
    note = world.checkpoint(cosigned=False).encode()
    witnesses = [
        Witness(tmp_path / name, f"witness.example/{name}", FixedClock()) for name in "abc"
    ]
    notes = [
        (witness.observe(note, world.log_key.vkey, refuse) or "").encode() for witness in witnesses
    ]
    keys = [witness.key for witness in witnesses]
    merged = merge_cosignatures(notes, keys)
    path = merkle.inclusion_proof(world.nodes, world.receipt_index, world.nodes.size())
    renewed = renew_receipt(plain, merged, path, keys).encode()
    vkeys = tuple(key.vkey for key in keys)

    def check(text: bytes, trusted: tuple[str, ...], quorum: int) -> dict[str, int]:
        policy = ReceiptPolicy(witnesses=trusted, quorum=quorum)
        return verify_receipt(text, policy=policy).cosigned_at_s

    assert set(check(renewed, vkeys, 3)) == {key.name for key in keys}
    check(renewed, vkeys[:2], 2)
    with pytest.raises(VerificationError, match=r"check 6 failed \(witnesses\): 0 trusted"):
        check(plain, vkeys, 1)
    with pytest.raises(VerificationError, match=r"1 trusted witnesses have cosigned, 2"):
        check(renewed, (vkeys[0], witness_key("x", SigningKey.generate()).vkey), 2)
    # One witness under two names counts once.
    twice = replace(keys[0], name="other.example/name").vkey
    with pytest.raises(VerificationError, match="1 trusted"):
        check(renewed, (vkeys[0], twice), 2)


def test_log_witness_cosignatures_are_merged_for_one_checkpoint_only(log: Log, make: Any) -> None:
    ann, bob = make("ann"), make("bob")
    one, two = show(ann, log, 5) or "", show(bob, log, 7) or ""
    with pytest.raises(VerificationError, match="different checkpoints"):
        merge_cosignatures([one.encode(), two.encode()], [ann.key, bob.key])
    with pytest.raises(VerificationError, match="no checkpoint"):
        merge_cosignatures([], [])
    forged = one.replace(*_last_signature_changed(one))
    with pytest.raises(VerificationError):
        merge_cosignatures([forged.encode()], [ann.key])
    assert len(merge_cosignatures([one.encode()], [bob.key]).signatures) == 1


def _last_signature_changed(note: str) -> tuple[str, str]:
    text = note.rstrip("\n").rsplit(" ", 1)[1]
    raw = base64.b64decode(text)
    return text, base64.b64encode(raw[:-1] + bytes([raw[-1] ^ 1])).decode()


def test_log_witness_renewal_refuses_a_tree_without_the_entry(world: Any, fork: Any) -> None:
    plain = world.receipt()
    path = merkle.inclusion_proof(world.nodes, world.receipt_index, world.nodes.size())
    signed = parse_note(fork.checkpoint(cosigned=False).encode())
    with pytest.raises(VerificationError):
        renew_receipt(plain, signed, path, [])
