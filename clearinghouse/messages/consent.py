"""Grants, their uses, deliveries and withdrawals."""

from typing import Annotated, Literal

from pydantic import Field

from clearinghouse.consent import Act, Purpose
from clearinghouse.messages.base import Count, Id, Level, Message, Micro, Name, Sha256

RecipientName = Annotated[str, Field(pattern=r"^(developers|org_[0-9a-z]{20})$")]
"""An organisation, or the class of all developers that a request admits."""

Attributes = Annotated[list[Name], Field(min_length=1, max_length=2000)]
Seconds = Annotated[int, Field(ge=0, le=2**40)]
"""Since 1970."""


class GiveGrant(Message):
    """POST /v1/grants, by the source's owner. What no grant covers is refused everywhere."""

    source_id: Id
    recipient: RecipientName
    attributes: Attributes
    """Columns of the schema, the label among them. Rows are committed and delivered whole, so a
    grant over fewer columns than the schema's delivers nothing."""
    purpose: Purpose
    expires: Seconds
    sender: Id | None = None
    """Who may send; the owner itself if left out. Another one may then pass records on to
    `recipient`: onward transfer has grants of its own."""


class UseView(Message):
    """One actual use, or an attempt that was refused."""

    act: Act
    recipient: Id
    request_id: Id
    order_id: Id
    at: Seconds
    allowed: bool
    reason: str
    """Why it was refused; empty if it was allowed."""


class GrantView(Message):
    """A grant with everything that was done under it: the owner's notice."""

    id: Id
    source_id: Id
    owner: Id
    sender: Id
    recipient: RecipientName
    attributes: Attributes
    purpose: Purpose
    given: Seconds
    expires: Seconds
    withdrawn: Seconds | None
    uses: list[UseView]


class GrantList(Message):
    """GET /v1/grants?source_id=: grants that the caller gave or that name it."""

    grants: list[GrantView]
    refused: list[UseView]
    """Attempts on the caller's own sources that no grant covered."""


class Withdraw(Message):
    """POST /v1/sources/{id}/withdraw and /v1/grants/{id}/withdraw; there is no way back."""


class WithdrawalView(Message):
    """What a withdrawal did."""

    source_id: Id
    withdrawn: Seconds
    erased: Seconds | None
    """When body, salts and sealed deliveries were gone from the server's disk."""
    grants: list[Id]
    """Grants that ended."""
    requests: list[Id]
    """Running requests that go on without it."""
    notices: Count
    """Recipients that were asked to delete what they have."""
    models: list[Id]
    """Models that were trained on it; they are flagged for good."""


class DeleteTask(Message):
    """To a developer: a source was withdrawn; delete its records and say so, whatever the request.

    The answer is logged, so the source's owner has a receipt of it.
    """

    kind: Literal["delete"] = "delete"
    source_id: Id
    delivery_ids: list[Id]


class DeleteAnswer(Message):
    """How many records were here and are gone."""

    kind: Literal["delete"] = "delete"
    records: Count


class DeliveryView(Message):
    """One order's delivery as its sender or a recipient sees it."""

    delivery_id: Id
    order_id: Id
    request_id: Id
    source_id: Id
    state: Literal["waiting", "sealed", "withdrawn", "ended"]
    units: Count
    real: Count | None
    grant_id: Id | None
    """The grant that covers it for the caller, now."""
    reason: str
    """Why none does; empty if one does."""
    read: bool
    trained: bool


class DeliveryList(Message):
    """GET /v1/deliveries?request_id=."""

    deliveries: list[DeliveryView]


class Training(Message):
    """POST /v1/requests/{id}/training: a developer is about to train on what it received."""


class TrainingView(Message):
    """Sources whose records may be used, and why others may not; each use was logged."""

    allowed: list[Id]
    refused: dict[str, str]


class OnwardTransfer(Message):
    """POST /v1/requests/{id}/onward: a recipient passes records on; needs a grant of its own.

    The body was opened under the sender's own grant and is sealed again to the new recipient.
    """

    order_id: Id
    recipient: Id
    purpose: Purpose
    sealed_blob: Sha256


class OnwardView(Message):
    """A passing on, as sender and recipient see it."""

    order_id: Id
    request_id: Id
    source_id: Id
    sender: Id
    recipient: Id
    grant_id: Id | None
    """The grant that covers it; None where it was refused."""
    sealed_blob: Sha256
    at: Seconds
    reason: str
    """Why it was refused; empty if it was not."""


class OnwardList(Message):
    """GET /v1/onward: what was passed on to the caller, and what it passed on."""

    received: list[OnwardView]
    sent: list[OnwardView]


class WantedPlace(Message):
    """A cell of an open request, with the records it wants there."""

    cell: Name
    label: Name | None
    records: Count


class OpenRequestView(Message):
    """A running request as providers of its schema may see it."""

    id: Id
    org_id: Id
    schema_id: Id
    schema_digest: Sha256
    step: Name
    purpose: Purpose
    records: Count
    currency: Name
    tariff_micro: Micro
    level: Level
    wanted: list[WantedPlace]
    """By the released target, largest first; empty until it is released."""
    takes_asks: bool
    """Whether asks are not closed yet."""
    terms_digest: Sha256


class OpenRequestList(Message):
    """GET /v1/requests?state=open&schema_id=."""

    requests: list[OpenRequestView]
