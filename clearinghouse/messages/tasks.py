"""Tasks: everything a party is asked to do in a request. GET /v1/agent/tasks, POST one answer.

The server never calls anybody: it writes a task, the party polls, the answer moves the request on.
One task has one answer; the same answer again is a retry, another answer is a conflict.
"""

from typing import Annotated, Literal

from pydantic import Field

from clearinghouse.consent import Purpose
from clearinghouse.messages.base import (
    Base64,
    Count,
    Hex,
    Id,
    Level,
    Message,
    Micro,
    Name,
    Sha256,
)
from clearinghouse.messages.consent import DeleteAnswer, DeleteTask

# ---------------------------------------------------------------- match: test the sealed rows


class ValsetChecksTask(Message):
    """To the hospital: open the tests of its sealed set, once for each set.

    It learns three masked field elements; the server learns whether all three are 0, that is
    whether the set is well formed. Nothing is computed on a set before it passed.
    """

    kind: Literal["valset.checks"] = "valset.checks"
    valset_id: Id
    checks_blob: Sha256


class ValsetChecksAnswer(Message):
    """One field element for each of the three openings."""

    kind: Literal["valset.checks"] = "valset.checks"
    replies_blob: Sha256


# ---------------------------------------------------------------- match: open the target


class TargetNoiseTask(Message):
    """To the hospital: draw the target's noise from the committed key and the nonces."""

    kind: Literal["target.noise"] = "target.noise"
    run_id: Id
    valset_id: Id
    cells: Count
    labels: Count
    epsilon_micro: Micro
    nonces: list[Hex]


class TargetNoiseAnswer(Message):
    """The noise ciphertext."""

    kind: Literal["target.noise"] = "target.noise"
    noise_blob: Sha256


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


# ---------------------------------------------------------------- deliver


class Recipient(Message):
    """A grant holder: who may open the records, and by which grant."""

    org_id: Id
    grant_id: Id
    age_recipient: str


class DeliverTask(Message):
    """To a provider that sold: draw the quota and seal it to the grant holders."""

    kind: Literal["deliver"] = "deliver"
    order_id: Id
    source_id: Id
    level: Level
    by_label: bool = True
    """Whether the quota tells labels apart; if not, rows are drawn whatever their label."""
    quota: list[Count]
    """Records wanted of each cell, or row-major of each (cell, label)."""
    draw_seed: Hex
    """Public: rows of a cell are taken in the order of SHA-256(seed || leaf commitment)."""
    purpose: Purpose
    attributes: list[Name]
    """Columns that the records will hold."""
    recipients: Annotated[list[Recipient], Field(min_length=1)]


class DeliverAnswer(Message):
    """A sealed body of exactly `sum(quota)` records and proofs for the real ones."""

    kind: Literal["deliver"] = "deliver"
    sealed_blob: Sha256
    proofs_blob: Sha256
    """Salted row commitments with RFC 6962 inclusion proofs; no row can be read from them."""
    real: Count


class DeliveryRef(Message):
    """One delivery as a grant holder sees it."""

    delivery_id: Id
    order_id: Id
    source_id: Id
    sealed_blob: Sha256
    rows_root: Sha256
    leaves: int
    level: Level
    by_label: bool = True
    quota: list[Count]
    real: Count


class ReceiveTask(Message):
    """To a developer: open every delivery, check it against commitments and quota."""

    kind: Literal["receive"] = "receive"
    schema_id: Id
    deliveries: list[DeliveryRef]


class DeliveryCheck(Message):
    """What the recipient found."""

    delivery_id: Id
    real: Count
    accepted: bool
    problems: list[Annotated[str, Field(max_length=300)]]


class ReceiveAnswer(Message):
    """One check for each delivery."""

    kind: Literal["receive"] = "receive"
    checks: list[DeliveryCheck]


# ---------------------------------------------------------------- score


class ModelSubmitTask(Message):
    """To a developer: train on the delivered set and submit an integer model."""

    kind: Literal["model.submit"] = "model.submit"
    schema_id: Id
    published_bins: Count
    """How many bins this validation set's size allows."""
    bid: bool = False
    """Whether the purse is a procurement: then a sealed bid comes with the model."""


class ModelSubmitAnswer(Message):
    """The model as canonical JSON in a blob; `nonce` (16 bytes) joins the run's noise."""

    kind: Literal["model.submit"] = "model.submit"
    name: Name
    model_blob: Sha256
    nonce: Hex
    bid_commitment: Sha256 | None = None
    """An ask commitment (see `AskCommitAnswer`) with the developer's id in the source's place."""


class BidRevealTask(Message):
    """To a developer: all models are scored, open your bid."""

    kind: Literal["bid.reveal"] = "bid.reveal"
    model_id: Id


class BidRevealAnswer(Message):
    """The least the developer takes for the model, and the salt that opens the commitment."""

    kind: Literal["bid.reveal"] = "bid.reveal"
    ask_micro: Micro
    salt: Hex


class NoiseTable(Message):
    """One table of a release: a patient falls in at most one of its cells."""

    name: Name
    cells: Count
    epsilon_micro: Micro


class ScoreDigitsTask(Message):
    """To the hospital: decrypt the masked scores, answer with one-hot digits.

    It learns uniform values: every slot of every score carries a mask of its own.
    """

    kind: Literal["score.digits"] = "score.digits"
    run_id: Id
    model_id: Id
    model_digest: Sha256
    tables: list[NoiseTable]
    score_blob: Sha256


class ScoreDigitsAnswer(Message):
    """Digits and the commitment to the run's noise key, before the nonces are known."""

    kind: Literal["score.digits"] = "score.digits"
    digits_blob: Sha256


class ScoreEarlyTask(Message):
    """To the hospital: open the tests of its digits.

    It learns three masked field elements; the server learns whether all three are 0. If not, the
    run is burnt: no share is ever sent for false digits, as those would show the model.
    """

    kind: Literal["score.early"] = "score.early"
    run_id: Id
    checks_blob: Sha256


class ScoreEarlyAnswer(Message):
    """One field element for each of the three openings."""

    kind: Literal["score.early"] = "score.early"
    replies_blob: Sha256


class ScoreCharactersTask(Message):
    """To the hospital, whose digits passed: its shares; the nonces are revealed.

    It learns a share of each row's bin, uniform on its own.
    """

    kind: Literal["score.characters"] = "score.characters"
    run_id: Id
    shares_blob: Sha256
    nonces: list[Hex]


class ScoreCharactersAnswer(Message):
    """Characters and the noise ciphertext."""

    kind: Literal["score.characters"] = "score.characters"
    characters_blob: Sha256


class ScoreFinalTask(Message):
    """To the hospital: open the tests of its characters.

    It learns three masked field elements; the server learns whether all three are 0. If not, the
    run is burnt and no sum is opened.
    """

    kind: Literal["score.final"] = "score.final"
    run_id: Id
    checks_blob: Sha256


class ScoreFinalAnswer(Message):
    """One field element for each of the three openings."""

    kind: Literal["score.final"] = "score.final"
    replies_blob: Sha256


class ScoreRepliesTask(Message):
    """To the hospital, whose characters passed: open the masked sums.

    It learns masked field elements; the server learns the counts with the hospital's noise.
    """

    kind: Literal["score.replies"] = "score.replies"
    run_id: Id
    openings_blob: Sha256


class ScoreRepliesAnswer(Message):
    """One field element for each opening."""

    kind: Literal["score.replies"] = "score.replies"
    replies_blob: Sha256


class ReceiptSignTask(Message):
    """To the hospital: sign the score statement (a DSSE payload) if it says what was opened."""

    kind: Literal["receipt.sign"] = "receipt.sign"
    run_id: Id
    payload: Base64


class ReceiptSignAnswer(Message):
    """The hospital's DSSE signature over the payload."""

    kind: Literal["receipt.sign"] = "receipt.sign"
    key_id: Name
    signature: Base64


Task = Annotated[
    ValsetChecksTask
    | TargetNoiseTask
    | TargetRepliesTask
    | AskCommitTask
    | AskRevealTask
    | DeliverTask
    | ReceiveTask
    | DeleteTask
    | ModelSubmitTask
    | BidRevealTask
    | ScoreDigitsTask
    | ScoreEarlyTask
    | ScoreCharactersTask
    | ScoreFinalTask
    | ScoreRepliesTask
    | ReceiptSignTask,
    Field(discriminator="kind"),
]
Answer = Annotated[
    ValsetChecksAnswer
    | TargetNoiseAnswer
    | TargetRepliesAnswer
    | AskCommitAnswer
    | AskRevealAnswer
    | DeliverAnswer
    | ReceiveAnswer
    | DeleteAnswer
    | ModelSubmitAnswer
    | BidRevealAnswer
    | ScoreDigitsAnswer
    | ScoreEarlyAnswer
    | ScoreCharactersAnswer
    | ScoreFinalAnswer
    | ScoreRepliesAnswer
    | ReceiptSignAnswer,
    Field(discriminator="kind"),
]


class RefuseTask(Message):
    """POST /v1/agent/tasks/{id}/refuse: the party will not do it, and says why."""

    reason: Annotated[str, Field(min_length=1, max_length=500)]


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
