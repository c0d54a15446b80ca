"""Replay: every message of the evaluator again, bit for bit, from public objects and its seed.

An auditor holds the public keys, the sealed set, the model, the evaluator's revealed seed and the
key holder's messages - no secret key. Because a run is a function of these (`evaluator`), a fresh
object must give the very bytes whose hashes both sides signed. The first message that differs, and
who answers for it, is the verdict. Protocol section 8 (docs/protocol.md).

What replay proves: a deviating evaluator (extra or scaled sums, stripped noise, skipped checks,
another model, another seed, other counts published) is found, after the fact. What it does not
prove: that the key holder's rows are true, or that its geometric noise is the committed one; for
the latter an `arbiter` needs the run's noise key. Committed coins were tested in the run itself.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from secure_eval.checked import CheckedScoringRun
from secure_eval.class_models import ClassModels, Model
from secure_eval.class_run import ClassesScoringRun
from secure_eval.evaluator import Opened
from secure_eval.layout import Layout, Upload
from secure_eval.nonces import nonce_commitment, seed_commitment, seed_version
from secure_eval.params import PROTOCOL

__all__ = [
    "Fault",
    "TargetTranscript",
    "Transcript",
    "UploadTranscript",
    "Verdict",
    "check_record",
    "other_version",
    "refuted",
    "replay",
    "seed_commitment",
]

Integers = NDArray[np.int64]
Fault = Literal["evaluator", "key holder", "record"]
Step = tuple[str, Callable[[], bytes | None]]


@dataclass(frozen=True, slots=True, eq=False)
class Transcript:
    """Everything of one run that an auditor is given.

    Attributes:
        keys: the public keys' message.
        layout: shape of the sealed set.
        upload: one blob per block.
        model: what was agreed to be evaluated.
        column_map: for each model column, its index among the uploaded columns; of one model a
            class, one such list a class.
        seed: the evaluator's revealed seed.
        run_id: name of the run.
        nonces: the evaluator's and the developer's.
        messages: bytes at hand by name; the key holder's are needed, the evaluator's are not.
        log: hexadecimal SHA-256 by name of every message that was sent, as signed by both sides,
            and where logged of the inputs "keys", "upload" (over the blocks' digests), "model"
            (its digest), "seed" (`seed_commitment`), "nonce" and "developer_nonce" (their
            commitments).
        groups: attributes opened, by default all.
        coins: committed coins per cell of each table; none under the geometric law.
        released: counts as published, if any.
    """

    keys: bytes
    layout: Layout
    upload: Sequence[bytes]
    model: Model
    column_map: Sequence[Any]
    seed: bytes = field(repr=False)
    run_id: str
    nonces: tuple[bytes, bytes]
    messages: Mapping[str, bytes]
    log: Mapping[str, str]
    groups: Sequence[str] | None = None
    coins: Sequence[int] = ()
    released: Opened | None = None


@dataclass(frozen=True, slots=True, eq=False)
class TargetTranscript:
    """Everything of one target opening that an auditor is given.

    Attributes:
        messages: "commitment" (to the noise key), "noise", "check_replies" and "replies" of the
            key holder.
        log: hashes of these, of "checks" and "openings", and of inputs as in a `Transcript`.
        nonce: the evaluator's; needed by `check_target_noise` only.
        released: (K, L) counts as published, if any.
    """

    keys: bytes
    layout: Layout
    upload: Sequence[bytes]
    seed: bytes = field(repr=False)
    run_id: str
    messages: Mapping[str, bytes]
    log: Mapping[str, str]
    nonce: bytes = b""
    released: Integers | None = None


@dataclass(frozen=True, slots=True, eq=False)
class UploadTranscript:
    """Everything of the tests of one sealed set that an auditor is given.

    Attributes:
        check_id: name of the tests.
        messages: "replies" of the key holder, if it sent them.
        log: hashes of "checks" and "replies", and of inputs as in a `Transcript`.
        partitions, relations: the claims that were tested; see `upload_checks`.
    """

    keys: bytes
    layout: Layout
    upload: Sequence[bytes]
    seed: bytes = field(repr=False)
    check_id: str
    messages: Mapping[str, bytes]
    log: Mapping[str, str]
    partitions: Sequence[Sequence[Mapping[int, int]]] = ()
    relations: Sequence[Mapping[int, int]] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a replay found.

    Attributes:
        reproduced: every message of the evaluator in the log is the one that had to be sent.
        message: the first message at fault, None where there is none.
        fault: who answers for it: the evaluator (its message does not follow from seed and inputs),
            the key holder (its message had to be refused, and was), or the record (bytes that are
            missing or whose hash is not the one in the log).
        reason: one sentence.
    """

    reproduced: bool
    message: str | None
    fault: Fault | None
    reason: str


def other_version(version: int) -> str:
    """Return what is to be said of a run that another release's program has to replay."""
    return (
        f"made under version {version} of the protocol, this program replays version {PROTOCOL}: "
        "a release of that version can replay it"
    )


def _digest(message: bytes) -> str:
    return hashlib.sha256(message).hexdigest()


def refuted(message: str, fault: Fault, reason: str) -> Verdict:
    """Return the verdict that a message is at fault."""
    return Verdict(False, message, fault, f"{message}: {reason}")


def check_record(
    transcript: Transcript | TargetTranscript | UploadTranscript,
) -> Verdict | None:
    """Compare all bytes at hand with the log; None if they agree.

    Raises:
        ValueError: it was made under another version of the protocol.
    """
    version = seed_version(transcript.seed, transcript.log.get("seed", ""))
    if version not in (None, PROTOCOL):
        raise ValueError(other_version(version or 0))
    given = {name: _digest(data) for name, data in transcript.messages.items()}
    given |= {
        "keys": _digest(transcript.keys),
        "upload": Upload(transcript.layout, transcript.upload).digest.hex(),
        "seed": seed_commitment(transcript.seed),
    }
    if isinstance(transcript, Transcript):
        given["model"] = transcript.model.digest()
        given["nonce"], given["developer_nonce"] = (
            nonce_commitment(nonce).hex() for nonce in transcript.nonces
        )
    elif isinstance(transcript, TargetTranscript) and transcript.nonce:
        given["nonce"] = nonce_commitment(transcript.nonce).hex()
    for name, digest in given.items():
        if name in transcript.log and transcript.log[name] != digest:
            revealed = name in ("seed", "nonce", "developer_nonce")
            fault: Fault = "evaluator" if revealed else "record"
            return refuted(name, fault, "the bytes at hand do not have the hash in the log")
    return None


class _Walk:
    """A fresh evaluator led through the messages of a transcript."""

    def __init__(self, transcript: Transcript) -> None:
        kind: Any = CheckedScoringRun
        if isinstance(transcript.model, ClassModels):
            kind = ClassesScoringRun
        self._given = transcript
        self.run: CheckedScoringRun | ClassesScoringRun = kind(
            transcript.keys,
            transcript.layout,
            transcript.upload,
            transcript.model,
            transcript.column_map,
            transcript.seed,
            transcript.run_id,
            transcript.nonces[0],
            groups=transcript.groups,
            coins=transcript.coins,
        )
        self.opened: Opened | None = None

    def _of(self, name: str) -> bytes:
        return self._given.messages[name]

    def _accept(self, accept: Callable[[bytes], None], name: str) -> None:
        accept(self._of(name))

    def _release(self) -> None:
        self.opened = self.run.release(self._of("replies"))

    def steps(self) -> list[Step]:
        """Return (name, call) in order: messages made here, or acceptances of the other side's."""
        run = self.run
        nonces = self._given.nonces
        return [
            ("score", run.score),
            ("early_checks", lambda: run.early_checks(self._of("digits"))),
            ("early_replies", lambda: self._accept(run.accept_early, "early_replies")),
            ("shares", lambda: run.shares(self._of("digits"))),
            ("final_checks", lambda: run.final_checks(self._of("characters"))),
            ("final_replies", lambda: self._accept(run.accept_final, "final_replies")),
            ("openings", lambda: run.openings(self._of("characters"), nonces)),
            ("replies", self._release),
        ]


#: the message of the key holder that a step reads; the others' names are their own
_READS = {
    "early_checks": "digits",
    "shares": "digits",
    "final_checks": "characters",
    "openings": "characters",
}
_ACCEPTANCES = ("early_replies", "final_replies", "replies")


def _wanted(name: str) -> str | None:
    """Return the message of the key holder that a step needs."""
    return name if name in _ACCEPTANCES else _READS.get(name)


def _sent_after(names: Sequence[str], log: Mapping[str, str]) -> str | None:
    """Return the first message of the evaluator among the names that the log holds."""
    return next((name for name in names if name not in _ACCEPTANCES and name in log), None)


def replay(transcript: Transcript) -> Verdict:
    """Make every message of the evaluator again and compare it with the log.

    Args:
        transcript: a finished or broken-off run.

    Returns:
        The verdict. A run that ended because a message of the key holder had to be refused is
        reproduced, with the key holder at fault.

    Raises:
        ValueError: the inputs are no run at all (keys, layout, upload or seed malformed), or a
            run of another version of the protocol.
    """
    found = check_record(transcript)
    if found is not None:
        return found
    walk = _Walk(transcript)
    steps = walk.steps()
    for place, (name, make) in enumerate(steps):
        later = _sent_after([n for n, _ in steps[place:]], transcript.log)
        wanted = _wanted(name)
        if wanted is not None and wanted not in transcript.messages:
            return _broken_off(wanted, later, transcript)
        try:
            message = make()
        except ValueError as error:
            return _stopped(name, wanted, later, transcript, str(error))
        if message is None:
            continue
        if name not in transcript.log:
            return _broken_off(name, later, transcript)
        if transcript.log[name] != _digest(message):
            return refuted(name, "evaluator", "does not follow from its seed and inputs")
    return _compare_release(walk.opened, transcript)


def _broken_off(name: str, later: str | None, transcript: Transcript) -> Verdict:
    """Judge a run whose log or messages end here."""
    if name in transcript.log:
        return refuted(name, "record", "its hash is in the log, its bytes are missing")
    if later is not None:
        return refuted(later, "evaluator", f"was sent without {name} before it")
    if transcript.released is not None:
        return refuted("release", "evaluator", f"counts were published without {name}")
    return Verdict(True, None, None, f"the run broke off before {name}; all before is as it was")


def _stopped(
    name: str, wanted: str | None, later: str | None, transcript: Transcript, why: str
) -> Verdict:
    """Judge a message that has to be refused."""
    if later is not None:
        return refuted(later, "evaluator", f"was sent although {wanted} had to be refused: {why}")
    if transcript.released is not None:
        return refuted("release", "evaluator", f"published although {wanted} fails: {why}")
    fault: Fault = "evaluator" if wanted is None else "key holder"
    return Verdict(True, wanted or name, fault, f"{wanted or name}: rightly refused: {why}")


def _compare_release(opened: Opened | None, transcript: Transcript) -> Verdict:
    published = transcript.released
    if opened is not None and published is not None:
        same = np.array_equal(opened.counts, published.counts)
        same &= sorted(opened.groups) == sorted(published.groups)
        same = same and all(
            np.array_equal(table, published.groups[name]) for name, table in opened.groups.items()
        )
        if not same:
            return refuted("release", "evaluator", "other counts were published than opened")
    return Verdict(True, None, None, "every message of the evaluator is reproduced byte for byte")
