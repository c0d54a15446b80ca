"""Replay of a scoring run after the fact: its transcript, the auditor's verdict, the draw."""

from typing import Any, Literal

from pydantic import Field

from clearinghouse.messages.base import Count, Hex, Id, Message, Name, Sha256, SignedCount
from clearinghouse.messages.intake import SealValset
from clearinghouse.messages.score_tasks import NoiseTable

ANSWERS = frozenset({"digits", "early_replies", "characters", "final_replies", "replies"})
"""The hospital's messages in a run: a replay reads their bytes and makes the others again."""


class SentMessage(Message):
    """One message of a run."""

    name: Name
    digest: Sha256
    """Also the blob's name; those of the hospital, and the inputs, may be read by the auditor."""
    size: Count


class TranscriptView(Message):
    """GET /v1/requests/{id}/runs/{run}/transcript: for the model's owner, once the run has ended.

    The seed unmasks every score of the run, so the hospital must never have it.
    """

    request_id: Id
    run_id: Id
    model_id: Id
    model_digest: Sha256
    state: Literal["released", "failed"]
    seed: Hex
    nonce: Hex
    """The server's; the developer knows its own."""
    valset_id: Id
    sealed: SealValset
    """As it was registered: its digest is in the log."""
    tables: list[NoiseTable]
    messages: list[SentMessage]
    """In the order they travelled."""
    counts: list[list[SignedCount]] | None
    groups: dict[str, list[list[SignedCount]]] | None


class AuditRun(Message):
    """POST /v1/requests/{id}/runs/{run}/audit: the verdict, signed by the model's owner, once."""

    envelope: dict[str, Any]


class AuditView(Message):
    """What is known of a run's audit."""

    state: Literal["none", "asked", "overdue", "reproduced", "refuted", "damaged"] = "none"
    """damaged: its receipt cannot be read, so nobody can tell whether the draw fell on it."""
    drawn: bool = False
    """Whether the draw fell on it; the receipt alone says so too."""
    auditor: str = ""
    """The organisation that replayed it."""
    message: str = ""
    fault: str = ""
    reason: str = ""
    digest: Sha256 | None = None
    """Of the signed verdict; the log names it."""
    envelope: dict[str, Any] = Field(default_factory=dict)


class Seed(Message):
    """The seed of everything that the server drew for one opening that has ended."""

    of: Id
    """The validation set, for its tests; else the run of a target."""
    seed: Hex


class SeedList(Message):
    """GET /v1/valsets/{id}/seeds: for the set's owner, of its tests and targets that have ended.

    They unmask nothing that the owner could not decrypt: a target holds no model. Seeds of scores
    are never among them, as these unmask a developer's weights.
    """

    seeds: list[Seed]


class RunAuditTask(Message):
    """To the developer of a drawn run: replay it and send the verdict. Nothing waits for it."""

    kind: Literal["run.audit"] = "run.audit"
    run_id: Id
    model_digest: Sha256


class RunAuditAnswer(Message):
    """Digest of the verdict that was sent."""

    kind: Literal["run.audit"] = "run.audit"
    verdict: Sha256
