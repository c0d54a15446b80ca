"""Step 1, intake: who takes part and what each declares, publishes or seals."""

from typing import Annotated, Any, Literal

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
    SignedCount,
)
from clearinghouse.messages.jobs import JobView
from clearinghouse.noise_laws import NoiseLaw, epsilon_of_rho

Role = Literal["hospital", "provider", "developer", "auditor"]

SizeClass = Annotated[int, Field(ge=1, le=2**40)]
"""A power of two not above the owner's number of rows, stated without looking at the table."""


class RegisterOrg(Message):
    """POST /v1/orgs, signed with the very key it registers."""

    name: Name
    role: Role
    public_key: Base64
    """32 raw bytes of the Ed25519 public key."""
    age_recipient: Annotated[str, Field(pattern=r"^age1[0-9a-z]{58}$")] | None = None
    """Where sealed records for this organisation are encrypted to; developers need one."""
    witness: Annotated[str, Field(min_length=1, max_length=400)] | None = None
    """Verifier key of its witness of the log; without it nobody hears its witness."""


class OrgView(Message):
    """An organisation as others see it."""

    id: Id
    name: Name
    role: Role | Literal["clearinghouse"]
    """Only the server itself is a clearinghouse; nobody can register as one."""
    key_id: str
    public_key: Base64
    age_recipient: str | None
    standing_micro: Micro = 100_000
    """Reputation from attested outcomes, as rules use it; see GET /v1/reputation."""


class RegisterSchema(Message):
    """POST /v1/schemas. `body` is `Schema.to_dict()`; the same schema gets the same id."""

    body: dict[str, Any]


class SchemaView(Message):
    """A registered schema."""

    id: Id
    digest: Sha256
    body: dict[str, Any]


class SizeRelease(Message):
    """A noised number of rows, from an owner that declares no size class: one DP release."""

    noised: SignedCount
    epsilon_micro: Micro


class RegisterSource(Message):
    """POST /v1/sources: a cohort, committed row by row before anything is matched or priced."""

    name: Name
    schema_id: Id
    size_class: SizeClass
    rows_root: Sha256
    """RFC 6962 root over salted row commitments, padded with random leaves to `leaves`."""
    leaves: SizeClass
    """A power of two that depends on the size class only, so the root tells nothing about n."""
    size_release: SizeRelease | None = None
    """Where the size class follows from a noised n; `leaves` then follows from it too."""


class SourceView(Message):
    """A source as everybody sees it."""

    id: Id
    org_id: Id
    name: Name
    schema_id: Id
    size_class: SizeClass
    rows_root: Sha256
    leaves: SizeClass
    published: bool
    """Whether the source's summary has been published."""
    withdrawn: bool = False
    """Whether its owner took it back; it takes part in nothing any more."""
    standing_micro: Micro = 100_000
    """Its owner's reputation; sources of one owner share it."""


class SourceList(Message):
    """GET /v1/sources?schema_id=&cursor=&limit=: in order of id."""

    sources: list[SourceView]
    next_cursor: Id | None
    """Give it as `cursor` for the next page; null on the last one."""


class PublishSummary(Message):
    """POST /v1/sources/{id}/summary: one DP release, reused for free, never repeated."""

    level: Level
    counts: Annotated[list[SignedCount], Field(max_length=2**20)]
    """Row-major (cells, labels) counts with two-sided geometric noise."""
    epsilon_micro: Micro


class SummaryView(PublishSummary):
    """GET /v1/sources/{id}/summary: a release with the salt of its commitment in the log.

    Both are gone once its owner has withdrawn the source.
    """

    salt: Hex | None
    """None for a release from before commitments were salted."""


class SealValset(Message):
    """POST /v1/valsets: an encrypted validation set; every blob was uploaded before."""

    schema_id: Id
    size_class: SizeClass
    level: Level
    """Strata level of the sealed (cell x label) one-hots."""
    layout: dict[str, Any]
    """`secure_eval` Layout: blocks, columns, labels, cells, groups; never n. Strips, if packed."""
    keys_blob: Sha256
    upload_blobs: Annotated[list[Sha256], Field(min_length=1, max_length=1024)]
    """One blob for each block."""
    commitment: Sha256
    """Salted commitment to the sealed rows and seeds."""
    size_release: SizeRelease | None = None
    """Where the size class follows from a noised n."""


class ValsetView(Message):
    """A sealed validation set."""

    id: Id
    org_id: Id
    schema_id: Id
    size_class: SizeClass
    level: Level
    commitment: Sha256
    packed: bool = False
    """Whether it is scored by linear and additive models only (docs/protocol.md, section 8c)."""


class Fairness(Message):
    """A floor that a model must show in every stratum of one attribute."""

    attribute: Name
    metric: Literal["sensitivity", "specificity"]
    floor_micro: Annotated[int, Field(gt=0, le=1_000_000)]


class Purse(Message):
    """What the hospital pays for a model, and when.

    `acceptance`: all of it to the best model at the threshold. `contest`: fixed prizes by rank.
    `procurement`: the lowest sealed bid at the threshold, paid the next one, at most the amount.
    """

    kind: Literal["acceptance", "contest", "procurement"]
    amount_micro: Micro
    metric: Literal["auc", "accuracy", "sensitivity", "specificity", "mae", "mse", "rmse"]
    """Of a label with levels one of the first four, means over three or more classes; of a numeric
    label one of the errors, which must stay at or below the threshold."""
    threshold_micro: Micro
    confidence_micro: Micro
    prizes: Annotated[
        list[Annotated[int, Field(ge=1, le=1_000_000)]], Field(min_length=1, max_length=20)
    ] = Field(default_factory=lambda: [50, 30, 20])
    """Of a contest: shares by rank, falling."""
    fairness: Fairness | None = None


class Deadlines(Message):
    """Seconds each party has for one task of a kind; a silent party never blocks the others."""

    agent_s: Annotated[int, Field(ge=1, le=30 * 86400)] = 86400
    ask_s: Annotated[int, Field(ge=1, le=30 * 86400)] = 86400
    deliver_s: Annotated[int, Field(ge=1, le=30 * 86400)] = 86400
    model_s: Annotated[int, Field(ge=1, le=30 * 86400)] = 86400
    bid_s: Annotated[int, Field(ge=1, le=30 * 86400)] = 86400
    """To open a sealed bid."""
    dispute_s: Annotated[int, Field(ge=1, le=365 * 86400)] = 30 * 86400
    """After the end: so long a dispute may be opened."""
    claim_s: Annotated[int, Field(ge=1, le=365 * 86400)] = 7 * 86400
    """To answer a dispute's claim; unanswered, the claim stands."""
    ruling_s: Annotated[int, Field(ge=1, le=365 * 86400)] = 30 * 86400
    """For the arbiter to resolve an answered dispute; unresolved, the claim fails."""


class OpenRequest(Message):
    """POST /v1/requests: the hospital's wish. Its digest freezes every public input."""

    valset_id: Id
    source_ids: Annotated[list[Id], Field(min_length=1, max_length=10_000)]
    developer_ids: Annotated[list[Id], Field(min_length=1, max_length=1000)]
    records: Annotated[int, Field(ge=1, le=10_000_000)]
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    tariff_micro: Micro
    distance_price_micro: Micro
    label_cost_micro: Micro = 4_000_000
    """Distance of a label mismatch, where the label counts at all."""
    share_cap_micro: Annotated[int, Field(gt=1_000_000, le=1_000_000_000)]
    fee_micro: Annotated[int, Field(ge=0, le=1_000_000)]
    fairness_pot_micro: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Share of records x tariff, fixed before asks."""
    epsilon_target_micro: Annotated[int, Field(gt=0, le=100_000_000)]
    epsilon_score_micro: Annotated[int, Field(gt=0, le=100_000_000)]
    runs: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Scoring runs that the set's budget pays for, fixed here; None for one a developer."""
    noise_law: NoiseLaw = "geometric"
    """Law of the scores' noise; a target is one release and always geometric."""
    rho_score_micro: Annotated[int, Field(ge=0, le=100_000_000)] = 0
    """Millionths of rho of each run, where the zCDP lane of the set's ledger pays for the runs: so
    their noise need only grow with the root of their number. 0: the pure lane pays."""
    purse: Purse
    purpose: Purpose = "train models"
    """What delivered records are for; only sources that granted this take part."""
    witness_quorum: Annotated[int, Field(ge=0, le=100)] = 2
    """Participants that must cosign the log before the request ends, as far as there are so many;
    its receipts then carry their cosignatures."""
    scores_per_owner: Annotated[int, Field(ge=1, le=1000)] = 10
    """So many scores one developer may ever get on this validation set, in all requests: who may
    try often enough wins by chance."""
    arbiter: Literal["operator"] = "operator"
    """Who resolves disputes; every party agrees by taking part."""
    deadlines: Deadlines = Deadlines()

    @property
    def most_runs(self) -> int:
        """N: run N + 1 is refused, by the server and by the hospital's agent."""
        return len(self.developer_ids) if self.runs is None else self.runs

    @property
    def most_epsilon_micro(self) -> int:
        """What the request can cost the hospital's patients: the target and every run."""
        if self.rho_score_micro:
            return self.epsilon_target_micro + epsilon_of_rho(self.most_runs * self.rho_score_micro)
        return self.epsilon_target_micro + self.most_runs * self.epsilon_score_micro


class RequestView(Message):
    """GET /v1/requests/{id}: where it stands and, always, what it is waiting for."""

    id: Id
    org_id: Id
    step: Literal["intake", "match", "clear", "deliver", "score", "settle", "audit"]
    state: Literal["running", "done", "failed"]
    reason: str
    waiting_for: list[str]
    """Sentences such as "cleveland (org_...) to commit its ask"."""
    notes: list[str] = Field(default_factory=list)
    """What participants should know, such as that the hospital failed a test and is suspended."""
    done_tasks: Count
    open_tasks: Count
    jobs: list[JobView] = Field(default_factory=list)
    """The server's own long work that is queued or being done for it now."""
    terms: OpenRequest
    terms_digest: Sha256
    step_seconds: dict[str, str]
    """Seconds spent in each finished step, as decimal strings."""
    message_bytes: dict[str, int]
    """Bytes moved so far for each message kind."""
