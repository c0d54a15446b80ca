"""Words of tests that replay transcripts: hashes of messages, logs with gaps, what was found."""

import hashlib
from collections.abc import Mapping

from secure_eval.replay import Verdict


def hashes(messages: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(data).hexdigest() for name, data in messages.items()}


def without(log: Mapping[str, str], *names: str) -> dict[str, str]:
    return {name: digest for name, digest in log.items() if name not in names}


def found(verdict: Verdict) -> tuple[bool, str | None, str | None]:
    return verdict.reproduced, verdict.message, verdict.fault
