"""What a request leaves behind, as its participants may read it."""

from typing import Annotated, Any, Literal, Optional

from pydantic import Field

from clearinghouse.messages.audits import AuditView
from clearinghouse.messages.base import (
    Count,
    Id,
    Level,
    Message,
    Micro,
    Name,
    Rung,
    Sha256,
    SignedCount,
)


class TargetView(Message):
    """GET /v1/requests/{id}/target: the DP target, the codebook and the frozen inputs."""

    run_id: Id
    level: Level
    cells: Count
    labels: Count
    noised: list[SignedCount]
    """Row-major (cells, labels), exactly as opened."""
    label_cost_applied: bool
    """Whether labels are matched too. If so a place below is a (cell, label), row-major; if not it
    is a cell, and the labels of what is delivered are those that the sources' cells hold."""
    wanted: list[Count]
    """(places,) records wanted; sums to the request's records."""
    distances_micro: list[list[int]]
    """(places, places) money lost between two places, as the clearing sees it: moved apart by less
    than a tenth of a cent each, so that no two ways to serve a record cost exactly the same."""
    supplies: dict[str, list[Count]]
    """By source id: projected counts at this level, before the share cap."""
    capped: dict[str, list[Count]]
    """By source id: what it may sell."""
    barred: list[Id] = Field(default_factory=list)
    """Sources whose published labels hang on cells unlike everybody else's; they sell nothing."""
    deposits_micro: dict[str, Micro] = Field(default_factory=dict)
    """By source id: what it puts up when it commits an ask; hangs on no ask."""
    frozen_digest: Sha256


class OrderView(Message):
    """One source's part of a clearing."""

    order_id: Id | None
    source_id: Id
    ask_micro: Micro | None
    units: Count
    quota: list[Count]
    marginal_micro: Micro
    real: Count | None
    paid_micro: Micro | None
    status: Literal["sold", "unsold", "silent", "barred"]
    ladder: list[Rung] = Field(default_factory=list)
    """The price of every unit: what others' asks would have made it cost elsewhere."""
    monopoly_bound: bool = False
    """Whether the tariff sets its price rather than rivals."""
    deposit_micro: Micro = 0
    disputed: str = ""
    """Why its money is frozen, if it is."""


class OrderList(Message):
    """Orders for what somebody did not deliver."""

    orders: list[OrderView]
    repriced: list[OrderView] = Field(default_factory=list)
    """Kept orders at their prices in the market without those that did not deliver."""


class ClearingView(Message):
    """GET /v1/requests/{id}/clearing."""

    objective_micro: int
    reserve_micro: Micro
    orders: list[OrderView]
    unserved: list[Count]
    """(places,) wanted records that no source serves within the tariff."""
    method: Name
    draw_seed: Name | None
    cell_prices: list[int] = Field(default_factory=list)
    """(places,) dual prices: what one unit more from each place would cost."""
    certificate_sha256: Sha256 | None = None
    """Digest of what GET /v1/requests/{id}/certificate gives: a proof that this is the optimum."""
    offered_again: list[OrderView] = Field(default_factory=list)
    """Orders for units that somebody did not deliver, at their prices in `cleared_again`."""
    repriced: list[OrderView] = Field(default_factory=list)
    """Kept orders at their prices in `cleared_again`; those that are missing kept theirs."""
    cleared_again: Optional["ClearingView"] = None
    """The same asks cleared without those that did not deliver; prices are firm by it."""

    def decided(self) -> dict[str, Any]:
        """What was decided, without what was delivered, paid or offered since.

        The log has the digest of its canonical JSON.
        """
        nothing = {"real": None, "paid_micro": None, "disputed": ""}
        orders = [order.model_copy(update=nothing) for order in self.orders]
        view = self.model_copy(update={"orders": orders, "offered_again": []})
        return view.model_dump(exclude={"repriced", "cleared_again"})


class PriceView(Message):
    """One source's price, with its reasons."""

    source_id: Id
    point_micro: Micro
    low_micro: Micro
    high_micro: Micro
    basis: Literal["per record"]
    status: Literal["indicative", "firm"]
    n_effective: Count
    components: dict[str, Micro]
    """reserve, marginal, dividend, holdback: in micro-money per record."""
    counterfactual: dict[str, int]
    """objective_without_micro: what the market would be worth without this source."""
    shapley_micro: int
    leave_one_out_micro: int
    marginal_micro: Micro
    monopoly_bound: bool = False
    """Whether the tariff sets this price rather than rivals."""
    calls: Count
    seed: Count
    mechanism_version: Name
    commit_hash: Sha256
    flag: str = ""
    """What changed since the request was settled, such as that a source was withdrawn."""


class PriceList(Message):
    """GET /v1/requests/{id}/prices: same query, same bytes."""

    request_id: Id
    prices: list[PriceView]


class HistogramView(Message):
    """How to read one histogram of a release."""

    edges: list[int]
    threshold_edge: Count


class RunView(Message):
    """GET /v1/requests/{id}/runs: one blind scoring each."""

    id: Id
    model_id: Id
    org_id: Id
    model_name: Name
    model_kind: Name
    model_digest: Sha256
    score_bits: Count = 0
    """Bits of the model's proven score range, the least over its classes; 0 if it was not read."""
    headroom: str = ""
    """Share of the bins' range that the proven range leaves unused, decimal text."""
    state: Literal["running", "released", "failed"]
    reason: str
    waiting_for: str = ""
    """While it runs: who does what next."""
    edges: list[int]
    threshold_edge: Count
    histograms: list[HistogramView] = Field(default_factory=list)
    """One for each class of a label of three or more levels; empty where there is one histogram."""
    unit: str = ""
    """Units of a numeric label in one unit of score, decimal text."""
    counts: list[list[SignedCount]]
    """(labels, bins) as opened, noise included; of several classes (2 classes, bins): the rest,
    then the class."""
    groups: dict[str, list[list[SignedCount]]]
    """(levels, labels) predicted positive, noise included; "k:attribute" of class k."""
    tables: list[dict[str, Any]]
    nonces: list[str] = Field(default_factory=list)
    """The server's and the developer's, in hex; they open what the log's `run.begun` names."""
    epsilon_micro: Micro
    scorecard: dict[str, Any]
    """Metrics and intervals as decimal strings."""
    transcript_digest: Sha256 | None
    receipt: str | None
    same_as: Id | None = None
    """The run whose stored answer this is: the same model was submitted before."""
    audit: AuditView = Field(default_factory=AuditView)
    flags: list[str] = Field(default_factory=list)
    """What a user of the model must know, such as that a source it was trained on was withdrawn."""


class RunList(Message):
    """The runs of one request."""

    runs: list[RunView]


class PostingView(Message):
    """One side of a double entry; the amounts of a transfer sum to zero."""

    transfer: Name
    account: Name
    amount_micro: int


class StatementView(Message):
    """GET /v1/requests/{id}/statement: postings and balances, balanced to the micro-unit."""

    postings: list[PostingView]
    balances: dict[str, int]
    balanced: bool
    award: dict[str, Any]


class LogView(Message):
    """GET /v1/log/entries: canonical entry texts from an index on."""

    start: Count
    entries: list[str]
    size: Count


class CheckpointView(Message):
    """GET /v1/log/checkpoint: a C2SP signed note and the key that signs it."""

    checkpoint: str
    vkey: str


class CosignedList(Message):
    """GET /v1/log/cosigned: the newest checkpoints that witnesses cosigned, newest first.

    Parties compare them with what they were shown themselves: that is the gossip.
    """

    checkpoints: list[str]
    witnesses: list[str]
    """Verifier keys of the cosigners."""


class Cosigned(Message):
    """POST /v1/log/cosignatures: a checkpoint with the cosignature of a witness known here."""

    vkey: Annotated[str, Field(min_length=1, max_length=400)]
    checkpoint: Annotated[str, Field(min_length=1, max_length=16_384)]


class LogProofView(Message):
    """GET /v1/log/proof: RFC 6962 hashes in hex, of one entry or between two tree sizes."""

    index: Count
    """Index of the entry, or the older size."""
    size: Count
    path: list[Sha256]
