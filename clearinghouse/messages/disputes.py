"""Disputes, reputation and statements: what parties send and read after deliveries and scores."""

from typing import Annotated, Any, Literal

from pydantic import Field

from clearinghouse.messages.base import Count, Id, Message, Micro, Name, Sha256
from clearinghouse.messages.results import PriceView

Reason = Literal["delivery", "duplicate", "payment", "score", "test"]
Remedy = Literal["refund", "pay", "forfeit"]
Outcome = Literal["refund", "pay", "forfeit", "award"]
Words = Annotated[str, Field(min_length=1, max_length=2000)]
Hashes = Annotated[dict[Name, Sha256], Field(max_length=64)]


class OpenDispute(Message):
    """POST /v1/disputes: a claim about an order (ord_...) or a scoring run (run_...).

    The disputed money is frozen from this moment until the dispute is decided.
    """

    request_id: Id
    subject: Id
    reason: Literal["delivery", "duplicate", "payment", "score"]
    remedy: Remedy
    """refund: payments to the customer. forfeit: deposits too. pay: to the seller or winner."""
    words: Words
    receipts: Annotated[list[Id], Field(max_length=64)] = Field(default_factory=list)
    """Ids of score receipts (rcp_...) and deliveries (dlv_...) that the claim rests on."""
    evidence: Hashes = Field(default_factory=dict)
    """SHA-256 of what the claim rests on, by name; the hashes are logged, the things are kept."""


class AnswerDispute(Message):
    """POST /v1/disputes/{id}/answer: the respondent's one answer."""

    words: Words
    evidence: Hashes = Field(default_factory=dict)


class ResolveDispute(Message):
    """POST /v1/disputes/{id}/resolve: the arbiter's ruling, signed with the server's key."""

    outcome: Outcome
    """award: the frozen purse is divided as `prizes` says, and the rest goes to the customer."""
    words: Words
    prizes: Annotated[dict[Id, Micro], Field(max_length=64)] = Field(default_factory=dict)
    """By scoring run (run_...) what its developer gets; for `award` only."""
    reinstate: bool = False
    """Whether a suspended hospital may take part again."""


class DisputeView(Message):
    """A dispute as its parties and the arbiter read it."""

    id: Id
    request_id: Id
    opener_id: Id
    respondent_id: Id
    subject: Id
    reason: Reason
    remedy: Remedy
    state: Literal["open", "answered", "resolved", "expired"]
    opened_s: Count
    deadline: Count
    """While open: until then the respondent may answer, or the claim stands. While answered: until
    then the arbiter may rule, or the claim fails."""
    frozen_micro: Micro
    claim: dict[str, Any]
    answer: dict[str, Any]
    finding: dict[str, Any]
    """What repeating the disputed computation from stored bytes said."""
    ruling: dict[str, Any]
    """The decision as a DSSE envelope signed by the arbiter; its digest is in the log."""


class DisputeList(Message):
    """GET /v1/disputes: those that the caller opened or has to answer; the operator sees all."""

    disputes: list[DisputeView]


class OutcomeView(Message):
    """One attested outcome."""

    digest: Sha256
    attester_id: Id
    request_id: Id
    kind: Name
    good: bool
    at_s: Count


class ReputationView(Message):
    """GET /v1/reputation?org_id=: what attested outcomes alone say about an owner."""

    org_id: Id
    status: Literal["new", "known"]
    standing_micro: Micro
    """What rules use: the 10% quantile in millionths, at least a newcomer's."""
    low_micro: Micro
    good_micro: Micro
    """Weight of kept promises after forgetting (half-life 180 days), in millionths."""
    bad_micro: Micro
    outcomes: list[OutcomeView]


class LineView(Message):
    """One line of a statement."""

    at_s: Count
    request_id: Id
    transfer: Name
    account: Name
    amount_micro: int
    balance_micro: int
    """Of this account after the line."""


class OrgStatement(Message):
    """GET /v1/orgs/{id}/statement: every posting of an organisation's accounts."""

    org_id: Id
    name: Name
    currency: Annotated[str, Field(pattern=r"^([A-Z]{3})?$")]
    """Of every amount; empty while nobody has opened a request."""
    lines: list[LineView]
    balances: dict[str, int]
    frozen: dict[str, int]
    """By frozen account: money meant for this organisation that a dispute holds."""


class PastPriceView(Message):
    """What a source was paid or would have been paid in one request."""

    request_id: Id
    at_s: Count
    price: PriceView


class PriceHistory(Message):
    """GET /v1/sources/{id}/prices: oldest first, of the requests that the caller takes part in."""

    source_id: Id
    prices: list[PastPriceView]
    next_cursor: str | None
    """Give it as `cursor` for the next page; null on the last one."""
