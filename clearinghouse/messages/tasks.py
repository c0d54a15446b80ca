"""Tasks: everything a party is asked to do in a request. GET /v1/agent/tasks, POST one answer.

The server never calls anybody: it writes a task, the party polls, the answer moves the request on.
One task has one answer; the same answer again is a retry, another answer is a conflict.
"""

from typing import Annotated, Literal

from pydantic import Field

from clearinghouse.messages.audits import RunAuditAnswer, RunAuditTask
from clearinghouse.messages.base import (
    Count,
    Hex,
    Id,
    Message,
    Micro,
    Sha256,
)
from clearinghouse.messages.consent import DeleteAnswer, DeleteTask
from clearinghouse.messages.deliveries import (
    DeliverAnswer,
    DeliverTask,
    ReceiveAnswer,
    ReceiveTask,
    ShowAnswer,
    ShowTask,
)
from clearinghouse.messages.score_tasks import (
    BidRevealAnswer,
    BidRevealTask,
    ModelSubmitAnswer,
    ModelSubmitTask,
    NoiseTable,
    NonceRevealAnswer,
    NonceRevealTask,
    ReceiptSignAnswer,
    ReceiptSignTask,
    ScoreCharactersAnswer,
    ScoreCharactersTask,
    ScoreDigitsAnswer,
    ScoreDigitsTask,
    ScoreEarlyAnswer,
    ScoreEarlyTask,
    ScoreFinalAnswer,
    ScoreFinalTask,
    ScoreRepliesAnswer,
    ScoreRepliesTask,
)

__all__ = [
    "Answer",
    "AnswerTask",
    "AskCommitAnswer",
    "AskCommitTask",
    "AskRevealAnswer",
    "AskRevealTask",
    "BidRevealAnswer",
    "BidRevealTask",
    "LogCosignAnswer",
    "LogCosignTask",
    "ModelSubmitAnswer",
    "ModelSubmitTask",
    "NoiseTable",
    "NonceRevealAnswer",
    "NonceRevealTask",
    "ReceiptSignAnswer",
    "ReceiptSignTask",
    "RefuseTask",
    "RunAuditAnswer",
    "RunAuditTask",
    "ScoreCharactersAnswer",
    "ScoreCharactersTask",
    "ScoreDigitsAnswer",
    "ScoreDigitsTask",
    "ScoreEarlyAnswer",
    "ScoreEarlyTask",
    "ScoreFinalAnswer",
    "ScoreFinalTask",
    "ScoreRepliesAnswer",
    "ScoreRepliesTask",
    "TargetChecksAnswer",
    "TargetChecksTask",
    "TargetCommitAnswer",
    "TargetCommitTask",
    "TargetNoiseAnswer",
    "TargetNoiseTask",
    "TargetRepliesAnswer",
    "TargetRepliesTask",
    "Task",
    "TaskList",
    "TaskView",
    "ValsetChecksAnswer",
    "ValsetChecksTask",
]

# ---------------------------------------------------------------- match: test the sealed rows


class ValsetChecksTask(Message):
    """To the hospital: open the tests of its sealed set, once for each set.

    It learns three masked field elements; the server learns whether all three are 0, that is
    whether the set is well formed. Nothing is computed on a set before it passed.
    """

    kind: Literal["valset.checks"] = "valset.checks"
    valset_id: Id
    checks_blob: Sha256
    seed_commitment: Sha256
    """To the seed of everything the server draws for the tests; also in the log."""


class ValsetChecksAnswer(Message):
    """One field element for each of the three openings."""

    kind: Literal["valset.checks"] = "valset.checks"
    replies_blob: Sha256


# ---------------------------------------------------------------- match: open the target


class TargetCommitTask(Message):
    """To the hospital: commit to a fresh noise key; the server has committed to its nonce."""

    kind: Literal["target.commit"] = "target.commit"
    run_id: Id
    valset_id: Id
    cells: Count
    labels: Count
    epsilon_micro: Micro
    seed_commitment: Sha256
    """To the seed of everything the server draws in this run; also in the log."""
    nonce_commitment: Sha256


class TargetCommitAnswer(Message):
    """The commitment to the noise key of this target."""

    kind: Literal["target.commit"] = "target.commit"
    noise_commitment: Sha256


class TargetNoiseTask(Message):
    """To the hospital: the noise that follows from its committed key and the opened nonce."""

    kind: Literal["target.noise"] = "target.noise"
    run_id: Id
    nonce: Hex


class TargetNoiseAnswer(Message):
    """The noise ciphertext."""

    kind: Literal["target.noise"] = "target.noise"
    noise_blob: Sha256


class TargetChecksTask(Message):
    """To the hospital: open the noise test of its noise ciphertext.

    It learns its own noise and a mask; the server learns whether the ciphertext is quiet enough.
    """

    kind: Literal["target.checks"] = "target.checks"
    run_id: Id
    checks_blob: Sha256


class TargetChecksAnswer(Message):
    """One field element."""

    kind: Literal["target.checks"] = "target.checks"
    replies_blob: Sha256


class TargetRepliesTask(Message):
    """To the hospital: open the masked sums."""

    kind: Literal["target.replies"] = "target.replies"
    run_id: Id
    openings_blob: Sha256


class TargetRepliesAnswer(Message):
    """One field element for each opening."""

    kind: Literal["target.replies"] = "target.replies"
    replies_blob: Sha256


# ---------------------------------------------------------------- clear: asks


class AskCommitTask(Message):
    """To a provider: commit an ask per record. The inputs are frozen; no ask is known to anyone."""

    kind: Literal["ask.commit"] = "ask.commit"
    source_id: Id
    frozen_digest: Sha256
    deposit_micro: Micro = 0
    """Put up with the commitment; returned unless the ask is not opened or the order not kept."""


class AskCommitAnswer(Message):
    """SHA-256 of "clearinghouse ask v1" || salt || request id || source id || ask."""

    kind: Literal["ask.commit"] = "ask.commit"
    commitment: Sha256


class AskRevealTask(Message):
    """To a provider: the asks are closed, open yours."""

    kind: Literal["ask.reveal"] = "ask.reveal"
    source_id: Id


class AskRevealAnswer(Message):
    """The ask per record and the salt (32 bytes) that open the commitment."""

    kind: Literal["ask.reveal"] = "ask.reveal"
    ask_micro: Micro
    salt: Hex


class LogCosignTask(Message):
    """To every participant: cosign a checkpoint that covers the request, as a witness.

    The party compares it with all that it was shown before and with what others cosigned; if the
    log has shown two histories it refuses, and keeps the evidence.
    """

    kind: Literal["log.cosign"] = "log.cosign"
    checkpoint: Annotated[str, Field(min_length=1, max_length=16_384)]


class LogCosignAnswer(Message):
    """A cosigned checkpoint of at least that size, and the witness's own verifier key."""

    kind: Literal["log.cosign"] = "log.cosign"
    vkey: Annotated[str, Field(min_length=1, max_length=400)]
    checkpoint: Annotated[str, Field(min_length=1, max_length=16_384)]


Task = Annotated[
    ValsetChecksTask
    | TargetCommitTask
    | TargetNoiseTask
    | TargetChecksTask
    | TargetRepliesTask
    | AskCommitTask
    | AskRevealTask
    | DeliverTask
    | ShowTask
    | ReceiveTask
    | DeleteTask
    | ModelSubmitTask
    | NonceRevealTask
    | BidRevealTask
    | ScoreDigitsTask
    | ScoreEarlyTask
    | ScoreCharactersTask
    | ScoreFinalTask
    | ScoreRepliesTask
    | ReceiptSignTask
    | RunAuditTask
    | LogCosignTask,
    Field(discriminator="kind"),
]
Answer = Annotated[
    ValsetChecksAnswer
    | TargetCommitAnswer
    | TargetNoiseAnswer
    | TargetChecksAnswer
    | TargetRepliesAnswer
    | AskCommitAnswer
    | AskRevealAnswer
    | DeliverAnswer
    | ShowAnswer
    | ReceiveAnswer
    | DeleteAnswer
    | ModelSubmitAnswer
    | NonceRevealAnswer
    | BidRevealAnswer
    | ScoreDigitsAnswer
    | ScoreEarlyAnswer
    | ScoreCharactersAnswer
    | ScoreFinalAnswer
    | ScoreRepliesAnswer
    | ReceiptSignAnswer
    | RunAuditAnswer
    | LogCosignAnswer,
    Field(discriminator="kind"),
]


class RefuseTask(Message):
    """POST /v1/agent/tasks/{id}/refuse: the party will not do it, and says why."""

    reason: Annotated[str, Field(min_length=1, max_length=500)]
    spent_micro: Micro = 0
    """Epsilon that the party's ledger was charged for the run before it refused."""


class TaskView(Message):
    """An open task of the calling organisation."""

    id: Id
    request_id: Id
    deadline: int
    """Seconds since 1970; a task not answered by then counts as refused."""
    task: Task


class TaskList(Message):
    """GET /v1/agent/tasks."""

    tasks: list[TaskView]


class AnswerTask(Message):
    """POST /v1/agent/tasks/{id}."""

    answer: Answer
