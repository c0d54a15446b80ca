"""Replay: every message of the evaluator again, bit for bit, from public objects and its seed.

An auditor holds the public keys, the sealed set, the model, the evaluator's revealed seed and the
key holder's messages - no secret key. Because a run is a function of these (`evaluator`), a fresh
object must give the very bytes whose hashes both sides signed. The first message that differs, and
who answers for it, is the verdict. Protocol section 8 (docs/protocol.md).

What replay proves: a deviating evaluator (extra or scaled sums, stripped noise, skipped checks,
another model, another seed, other counts published) is found, after the fact. What it does not
prove: that the key holder's rows are true, or that its noise is the committed one; for the latter
`check_noise` needs the run's noise key.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from secure_eval import framing
from secure_eval.checked import CheckedScoringRun
from secure_eval.class_models import ClassModels, Model, model_parts
from secure_eval.class_run import ClassesScoringRun
from secure_eval.encrypted_noise import encrypted_noise
from secure_eval.evaluator import Opened, ScoringRun, TargetOpening
from secure_eval.framing import Kind
from secure_eval.layout import Layout, Shapes, Upload
from secure_eval.noise import Table, commitment, table_noise
from secure_eval.one_class import class_run_id, split_parts
from secure_eval.prg import joined
from secure_eval.public_keys import PublicKeys

__all__ = [
    "Fault",
    "TargetTranscript",
    "Transcript",
    "Verdict",
    "check_noise",
    "replay",
    "replay_target",
    "seed_commitment",
]

Integers = NDArray[np.int64]
Fault = Literal["evaluator", "key holder", "record"]
Step = tuple[str, Callable[[], bytes | None]]


def seed_commitment(seed: bytes) -> str:
    """Return the commitment (hexadecimal SHA-256) to an evaluator's seed, logged before a run."""
    return hashlib.sha256(joined("secure_eval evaluator seed 1", seed)).hexdigest()


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
            (its digest) and "seed" (`seed_commitment`).
        groups: attributes opened, by default all.
        checked: whether the run was a `CheckedScoringRun`.
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
    checked: bool = False
    released: Opened | None = None


@dataclass(frozen=True, slots=True, eq=False)
class TargetTranscript:
    """Everything of one target opening that an auditor is given.

    Attributes:
        messages: "noise" and "replies" of the key holder.
        log: hashes of "noise", "openings" and "replies", and of inputs as in a `Transcript`.
        released: (K, L) counts as published, if any.
    """

    keys: bytes
    layout: Layout
    upload: Sequence[bytes]
    seed: bytes = field(repr=False)
    run_id: str
    messages: Mapping[str, bytes]
    log: Mapping[str, str]
    released: Integers | None = None


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


def _digest(message: bytes) -> str:
    return hashlib.sha256(message).hexdigest()


def _refuted(message: str, fault: Fault, reason: str) -> Verdict:
    return Verdict(False, message, fault, f"{message}: {reason}")


def _check_record(transcript: Transcript | TargetTranscript) -> Verdict | None:
    """Compare all bytes at hand with the log."""
    given = {name: _digest(data) for name, data in transcript.messages.items()}
    given |= {
        "keys": _digest(transcript.keys),
        "upload": Upload(transcript.layout, transcript.upload).digest.hex(),
        "seed": seed_commitment(transcript.seed),
    }
    if isinstance(transcript, Transcript):
        given["model"] = transcript.model.digest()
    for name, digest in given.items():
        if name in transcript.log and transcript.log[name] != digest:
            fault: Fault = "evaluator" if name == "seed" else "record"
            return _refuted(name, fault, "the bytes at hand do not have the hash in the log")
    return None


class _Walk:
    """A fresh evaluator led through the messages of a transcript."""

    def __init__(self, transcript: Transcript) -> None:
        kind: Any = CheckedScoringRun if transcript.checked else ScoringRun
        if isinstance(transcript.model, ClassModels):
            kind = ClassesScoringRun
        self._given = transcript
        self.run: ScoringRun | ClassesScoringRun = kind(
            transcript.keys,
            transcript.layout,
            transcript.upload,
            transcript.model,
            transcript.column_map,
            transcript.seed,
            transcript.run_id,
            transcript.nonces[0],
            groups=transcript.groups,
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
        early: list[Step] = []
        final: list[Step] = []
        if isinstance(run, CheckedScoringRun | ClassesScoringRun):
            early = [
                ("early_checks", lambda: run.early_checks(self._of("digits"))),
                ("early_replies", lambda: self._accept(run.accept_early, "early_replies")),
            ]
            final = [
                ("final_checks", lambda: run.final_checks(self._of("characters"))),
                ("final_replies", lambda: self._accept(run.accept_final, "final_replies")),
            ]
        return [
            ("score", run.score),
            *early,
            ("shares", lambda: run.shares(self._of("digits"))),
            *final,
            ("openings", lambda: run.openings(self._of("characters"))),
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
        ValueError: the inputs are no run at all (keys, layout, upload or seed malformed).
    """
    found = _check_record(transcript)
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
            return _refuted(name, "evaluator", "does not follow from its seed and inputs")
    return _compare_release(walk.opened, transcript)


def _broken_off(name: str, later: str | None, transcript: Transcript) -> Verdict:
    """Judge a run whose log or messages end here."""
    if name in transcript.log:
        return _refuted(name, "record", "its hash is in the log, its bytes are missing")
    if later is not None:
        return _refuted(later, "evaluator", f"was sent without {name} before it")
    if transcript.released is not None:
        return _refuted("release", "evaluator", f"counts were published without {name}")
    return Verdict(True, None, None, f"the run broke off before {name}; all before is as it was")


def _stopped(
    name: str, wanted: str | None, later: str | None, transcript: Transcript, why: str
) -> Verdict:
    """Judge a message that has to be refused."""
    if later is not None:
        return _refuted(later, "evaluator", f"was sent although {wanted} had to be refused: {why}")
    if transcript.released is not None:
        return _refuted("release", "evaluator", f"published although {wanted} fails: {why}")
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
            return _refuted("release", "evaluator", "other counts were published than opened")
    return Verdict(True, None, None, "every message of the evaluator is reproduced byte for byte")


def replay_target(transcript: TargetTranscript) -> Verdict:
    """Make the openings of a target again and compare them with the log.

    Raises:
        ValueError: the inputs are no target at all (keys, layout, upload or seed malformed).
    """
    found = _check_record(transcript)
    if found is not None:
        return found
    messages, log, released = transcript.messages, transcript.log, transcript.released
    opening = TargetOpening(
        transcript.keys, transcript.layout, transcript.upload, transcript.seed, transcript.run_id
    )
    for wanted, name, sent in (
        ("noise", "openings", "openings" in log),
        ("replies", "release", released is not None),
    ):
        if wanted not in messages:
            if wanted in log:
                return _refuted(wanted, "record", "its hash is in the log, its bytes are missing")
            if sent or released is not None:
                return _refuted(name, "evaluator", f"was sent without {wanted} before it")
            return Verdict(True, None, None, f"the target broke off before {wanted}")
        try:
            if name == "openings":
                same = _digest(opening.openings(messages[wanted])) == log.get(name)
            else:
                counts = opening.release(messages[wanted])
                same = released is None or np.array_equal(counts, released)
        except ValueError as error:
            if sent or released is not None:
                return _refuted(name, "evaluator", f"although {wanted} had to be refused: {error}")
            return Verdict(True, wanted, "key holder", f"{wanted}: rightly refused: {error}")
        if not same and (sent or released is not None):
            return _refuted(name, "evaluator", "does not follow from its seed and inputs")
        if not sent and released is None:
            return Verdict(True, None, None, f"the target broke off before {name}")
    return Verdict(True, None, None, "the target is reproduced byte for byte")


def check_noise(
    transcript: Transcript, noise_key: bytes, tables: Sequence[Table], *, of_class: int = 0
) -> Verdict:
    """Rebuild the key holder's noise ciphertext from the run's revealed noise key.

    The arbiter then knows the noise of this run, hence its exact counts, and is bound to silence.

    Args:
        transcript: with the digits and characters messages.
        noise_key: the run's key, 32 bytes.
        tables: what was agreed to be released, with epsilons; of the class alone, if one is meant.
        of_class: of a run of one model a class: whose noise key it is.

    Returns:
        Reproduced, or the key holder (or the record) at fault.

    Raises:
        ValueError: a key or nonce of another length.
    """
    found = _check_record(transcript)
    if found is not None:
        return found
    for name in ("digits", "characters"):
        if name not in transcript.messages:
            return _refuted(name, "record", "it is missing")
    run_id, labels, messages = transcript.run_id, transcript.layout.labels, transcript.messages
    parts = model_parts(transcript.model)
    shapes = Shapes(transcript.layout.n_blocks, labels, parts[0].bins, 0, transcript.checked)
    try:
        if isinstance(transcript.model, ClassModels):  # each class has a key of its own
            run_id, labels = class_run_id(run_id, of_class), 2
            shapes = Shapes(transcript.layout.n_blocks, labels, parts[of_class].bins, 0, True)
            messages = {
                name: split_parts(messages[name], len(parts))[of_class]
                for name in ("digits", "characters")
            }
        committed = framing.decode(messages["digits"], Kind.DIGITS, shapes.digits())[0]
        sent = framing.decode(messages["characters"], Kind.CHARACTERS, shapes.characters())[0]
    except ValueError as error:
        return _refuted("noise", "key holder", str(error))
    noise = table_noise(noise_key, run_id, transcript.nonces, tables)
    if bytes(committed) != commitment(noise_key):
        return _refuted("digits", "key holder", "the revealed noise key is not the committed one")
    public_key = PublicKeys.from_bytes(transcript.keys).public_key
    if bytes(sent) != encrypted_noise(public_key, noise_key, run_id, noise):
        return _refuted("characters", "key holder", "the noise is not the one that was committed")
    return Verdict(True, None, None, "the noise is the committed one, bit for bit")
