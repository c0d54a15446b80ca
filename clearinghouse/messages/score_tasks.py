"""Tasks of a blind score, from the model to the receipt: the messages of docs/protocol.md."""

from typing import Literal

from clearinghouse.messages.base import Base64, Count, Hex, Id, Message, Micro, Name, Sha256


class ModelSubmitTask(Message):
    """To a developer: train on the delivered set and submit an integer model."""

    kind: Literal["model.submit"] = "model.submit"
    schema_id: Id
    published_bins: Count
    """How many bins this validation set's size allows."""
    bid: bool = False
    """Whether the purse is a procurement: then a sealed bid comes with the model."""
    packed: bool = False
    """Whether the validation set is packed: then a model without trees is wanted."""


class ModelSubmitAnswer(Message):
    """The model as canonical JSON in a blob, and a commitment to a nonce for the run's noise."""

    kind: Literal["model.submit"] = "model.submit"
    name: Name
    model_blob: Sha256
    nonce_commitment: Sha256
    """`secure_eval.nonces.nonce_commitment` of 16 secret bytes, opened with `nonce.reveal`."""
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


class NonceRevealTask(Message):
    """To the developer of a model whose digits passed their tests: open its nonce.

    It learns that its run has come so far. Silence ends its own run only; the hospital's epsilon is
    spent by then.
    """

    kind: Literal["nonce.reveal"] = "nonce.reveal"
    run_id: Id
    model_digest: Sha256
    nonce_commitment: Sha256


class NonceRevealAnswer(Message):
    """The 16 bytes that open the commitment."""

    kind: Literal["nonce.reveal"] = "nonce.reveal"
    nonce: Hex


class NoiseTable(Message):
    """One table of a release: a patient falls in at most one of its cells."""

    name: Name
    cells: Count
    epsilon_micro: Micro
    coins: Count = 0
    """Committed coins per cell; 0 under the geometric law."""


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
    seed_commitment: Sha256
    """To the seed of everything the server draws in this run; also in the log."""
    nonce_commitments: list[Sha256]
    """To the server's and the developer's nonce; also in the log."""


class ScoreDigitsAnswer(Message):
    """Digits, coins if any, and the commitment to the noise key, before the nonces are known."""

    kind: Literal["score.digits"] = "score.digits"
    digits_blob: Sha256


class ScoreEarlyTask(Message):
    """To the hospital: open the tests of its digits.

    It learns six masked field elements; the server learns whether all six are 0. If not, the
    run is burnt: no share is ever sent for false digits, as those would show the model.
    """

    kind: Literal["score.early"] = "score.early"
    run_id: Id
    checks_blob: Sha256


class ScoreEarlyAnswer(Message):
    """One field element for each of the six openings."""

    kind: Literal["score.early"] = "score.early"
    replies_blob: Sha256


class ScoreCharactersTask(Message):
    """To the hospital, whose digits passed: its shares; the nonces open their commitments.

    It learns a share of each row's bin, uniform on its own.
    """

    kind: Literal["score.characters"] = "score.characters"
    run_id: Id
    shares_blob: Sha256
    nonces: list[Hex]


class ScoreCharactersAnswer(Message):
    """Characters, after the noise ciphertext under the geometric law."""

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
