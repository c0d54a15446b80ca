"""Replay of a target opening, bit for bit. Protocol section 8 (docs/protocol.md); see `replay`."""

import hashlib
from collections.abc import Callable

import numpy as np

from secure_eval.replay import TargetTranscript, Verdict, check_record, refuted
from secure_eval.target import TargetOpening

__all__ = ["replay_target"]

_NEEDS = {
    "checks": "noise",
    "acceptance": "check_replies",
    "openings": "noise",
    "release": "replies",
}
"""What the evaluator does, in order, and the message of the key holder that it needs."""


def replay_target(transcript: TargetTranscript) -> Verdict:
    """Make the messages of a target opening again and compare them with the log.

    Raises:
        ValueError: the inputs are no target at all (keys, layout, upload or seed malformed).
    """
    found = check_record(transcript)
    if found is not None:
        return found
    opening = TargetOpening(
        transcript.keys, transcript.layout, transcript.upload, transcript.seed, transcript.run_id
    )
    for place, (name, wanted) in enumerate(_NEEDS.items()):
        later = _later(transcript, list(_NEEDS)[place:])
        verdict = _needed(transcript, wanted, later)
        if verdict is not None:
            return verdict
        try:
            same = _made(opening, transcript, name)()
        except ValueError as error:
            if later is not None:
                reason = f"although {wanted} had to be refused: {error}"
                return refuted(later, "evaluator", reason)
            return Verdict(True, wanted, "key holder", f"{wanted}: rightly refused: {error}")
        if not same:
            if name in ("checks", "openings") and name not in transcript.log:
                return _broken_off(name, later)
            return refuted(name, "evaluator", "does not follow from its seed and inputs")
    return Verdict(True, None, None, "the target is reproduced byte for byte")


def _made(opening: TargetOpening, transcript: TargetTranscript, name: str) -> Callable[[], bool]:
    """Return a call that takes a step and says whether it is what was logged or published."""
    messages, log = transcript.messages, transcript.log

    def logged(message: bytes) -> bool:
        return log.get(name) == hashlib.sha256(message).hexdigest()

    def accepted() -> bool:
        opening.accept(messages["check_replies"])
        return True

    def published() -> bool:
        counts, released = opening.release(messages["replies"]), transcript.released
        return released is None or np.array_equal(counts, released)

    return {
        "checks": lambda: logged(opening.checks(messages["noise"])),
        "acceptance": accepted,
        "openings": lambda: logged(opening.openings(messages["noise"])),
        "release": published,
    }[name]


def _later(transcript: TargetTranscript, names: list[str]) -> str | None:
    """Return the first thing from here on that the evaluator sent or published."""
    sent = [name for name in names if name in ("checks", "openings") and name in transcript.log]
    return sent[0] if sent else ("release" if transcript.released is not None else None)


def _needed(transcript: TargetTranscript, wanted: str, later: str | None) -> Verdict | None:
    if wanted in transcript.messages:
        return None
    if wanted in transcript.log:
        return refuted(wanted, "record", "its hash is in the log, its bytes are missing")
    return _broken_off(wanted, later)


def _broken_off(name: str, later: str | None) -> Verdict:
    if later is not None:
        return refuted(later, "evaluator", f"was sent without {name} before it")
    return Verdict(True, None, None, f"the target broke off before {name}")
