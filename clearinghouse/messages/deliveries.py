"""Step 4, deliver: what sellers seal, what undersold sources show, and what recipients find."""

from typing import Annotated, Literal

from pydantic import Field

from clearinghouse.consent import Purpose
from clearinghouse.messages.base import Count, Hex, Id, Level, Message, Micro, Name, Rung, Sha256


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
    skip: list[Count] = Field(default_factory=list)
    """Records of each place that an earlier order of the same request takes already."""
    spot_check: bool = False
    """A few rows of a source that sold nothing, unpaid, for a share of the pot: may be declined."""
    ladder: list[Rung] = Field(default_factory=list)
    """Prices of the units; in each place the dearest are paid, one for each real record."""
    draw_seed: Hex
    """Public: rows of a place are taken in the order of SHA-256(seed || SHA-256(row)), so that
    copies of a table deliver the same rows."""
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
    claim_micro: Micro = 0
    """What the real records earn by the ladder. Who reads neither rows nor places can only bound
    it; recipients confirm it."""


class ShowTask(Message):
    """To a source that was undersold: tags of its next rows, so that copies of them are found.

    Without them nobody sees that a thief undersold its victim and sold in its place. A source that
    does not answer is not protected, and loses nothing else.
    """

    kind: Literal["show"] = "show"
    source_id: Id
    level: Level
    by_label: bool = True
    skip: list[Count]
    """Records of each place that its orders take; the tags are of those that follow."""
    show: list[Count]
    """Tags wanted of each place; what it does not have is filled with random ones."""
    draw_seed: Hex
    recipients: Annotated[list[Recipient], Field(min_length=1)]


class ShowAnswer(Message):
    """Tags sealed to the grant holders: see `client.shown` for what they tell."""

    kind: Literal["show"] = "show"
    shown_blob: Sha256


class ShownRef(Message):
    """Sealed tags of a source's next rows, as a grant holder gets them."""

    source_id: Id
    shown_blob: Sha256
    rows_root: Sha256
    leaves: int
    committed: Count


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
    ladder: list[Rung] = Field(default_factory=list)
    committed: Count = 0
    """Log index of the source's row commitment: of equal rows the earlier one is paid."""


class ReceiveTask(Message):
    """To a developer: open every delivery, check it against commitments and quota."""

    kind: Literal["receive"] = "receive"
    schema_id: Id
    deliveries: list[DeliveryRef]
    draw_seed: Hex = "00"
    shown: list[ShownRef] = Field(default_factory=list)


class Copies(Message):
    """Rows of a delivery that an earlier committed source holds as well."""

    source_id: Id
    """The earlier source."""
    rows: Count
    evidence: Sha256
    """Digest of the openings that prove it (`client.repeats`); the recipient keeps them."""


Ground = Literal["label_disagreement", "near_copies", "closeness", "inside_repeats"]
"""Statistics by which a delivery may stand out: see `valuation.evidence`."""


class DeliveryCheck(Message):
    """What the recipient found."""

    delivery_id: Id
    real: Count
    accepted: bool
    problems: list[Annotated[str, Field(max_length=300)]]
    earned_micro: Micro = 0
    """What its records earn by the ladder, copies left out; 0 if it was refused."""
    copies: list[Copies] = Field(default_factory=list)
    forfeits: bool = False
    """Whether so large a part of it is copied that the deposit is lost."""
    grounds: list[Ground] = Field(default_factory=list)
    """What stands out without being a proof: the order is disputed, its money frozen."""


class ReceiveAnswer(Message):
    """One check for each delivery."""

    kind: Literal["receive"] = "receive"
    checks: list[DeliveryCheck]
