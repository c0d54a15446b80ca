"""One request as the entries of a log tell it, for `replay`."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class RequestStory:
    """One request as its entries tell it; indexes point into the log.

    Attributes:
        escrow_micro: Put aside when it was opened.
        frozen: Digest of the inputs that clearing must use, last frozen at `frozen_at`.
        commitments: Ask commitment by source.
        asks: Opened asks by source, in micro-money per record.
        deliveries: By delivery id: source, blob.
        models: By model id: digest of its bytes.
        runs: By released run id: the model, None once the run is known to have failed.
        deposits: By source what it has put up and is still held, in micro-money.
        sealed: By delivery id: units, real records, the seller's claim.
        findings: By delivery and recipient: whether accepted, what it earns, what was found.
        orders: By settled order: source, and why its deposit is lost.
        frozen_sources: Sources of orders whose money waits for a dispute.
        earned_micro: What settled orders earn.
        offered: Where undelivered units were offered again.
        repriced: Orders whose prices changed then.
        bids: By model id: its developer and the commitment to its bid.
        first_bid: Where the first bid was opened.
        purse_micro: What the award pays out.
        failed: How it ended; None while it runs.
        most_runs: Scoring runs fixed at opening; None where an old log does not say.
        rho_run_micro: What each run takes of the zCDP lane; 0 if the pure lane pays.
    """

    owner: str
    valset: str
    escrow_micro: int
    opened: int
    target: int | None = None
    frozen: str | None = None
    frozen_at: int = -1
    commitments: dict[str, str] = field(default_factory=dict)
    asks: dict[str, int] = field(default_factory=dict)
    first_opening: int | None = None
    clearing: int | None = None
    deliveries: dict[str, tuple[str, str]] = field(default_factory=dict)
    received: set[tuple[str, str]] = field(default_factory=set)
    deposits: dict[str, int] = field(default_factory=dict)
    sealed: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    findings: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict)
    orders: dict[str, tuple[str, str]] = field(default_factory=dict)
    frozen_sources: set[str] = field(default_factory=set)
    earned_micro: int = 0
    offered: int | None = None
    repriced: set[str] = field(default_factory=set)
    models: dict[str, str] = field(default_factory=dict)
    runs: dict[str, str | None] = field(default_factory=dict)
    receipts: dict[str, str] = field(default_factory=dict)
    bids: dict[str, tuple[str, str]] = field(default_factory=dict)
    first_bid: int | None = None
    opened_bids: set[str] = field(default_factory=set)
    award: int | None = None
    purse_micro: int = 0
    statements: list[int] = field(default_factory=list)
    closed: int | None = None
    failed: bool | None = None
    most_runs: int | None = None
    rho_run_micro: int = 0
