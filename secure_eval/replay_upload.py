"""Replay of the tests of a sealed set, bit for bit. Protocol section 8 (docs/protocol.md)."""

import hashlib

from secure_eval.replay import UploadTranscript, Verdict, check_record, refuted
from secure_eval.upload_checks import UploadChecks

__all__ = ["replay_upload"]


def replay_upload(transcript: UploadTranscript) -> Verdict:
    """Make the tests of a sealed set again and compare them with the log.

    Raises:
        ValueError: the inputs are no tests at all (keys, layout, upload, claims or seed malformed).
    """
    found = check_record(transcript)
    if found is not None:
        return found
    checks = UploadChecks(
        transcript.keys,
        transcript.layout,
        transcript.upload,
        transcript.seed,
        transcript.check_id,
        partitions=transcript.partitions,
        relations=transcript.relations,
    )
    if transcript.log.get("checks") != hashlib.sha256(checks.message()).hexdigest():
        return refuted("checks", "evaluator", "does not follow from its seed and inputs")
    if "replies" not in transcript.messages:
        return Verdict(True, None, None, "the tests broke off before the replies")
    try:
        checks.accept(transcript.messages["replies"])
    except ValueError as error:
        return Verdict(True, "replies", "key holder", f"replies: rightly refused: {error}")
    return Verdict(True, None, None, "the tests are reproduced byte for byte")
