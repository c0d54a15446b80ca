"""Every table. Rows never leave `clearinghouse.store`; other code sees `store.records`.

Amounts of money and epsilon are integers in millionths with CHECKs, so that even a wrong program
cannot store a negative price or spend an account below zero. Both databases hold the same: every
integer has 64 bits, and text is ordered by its code points, whatever language the server speaks.

A change of any table needs a migration in `store.migrations.versions`; tests compare the two.
"""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Integer,
    Text,
    UniqueConstraint,
)
from sqlmodel import AutoString, Field, SQLModel

from clearinghouse.store import conservation

SCHEMA_VERSION = "0009"
"""The newest migration."""

# Constraints have names, so that a migration can drop them on either database.
SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

TEXT = Text().with_variant(Text(collation="C"), "postgresql")


def _check(rule: str, name: str) -> CheckConstraint:
    return CheckConstraint(rule, name=name)


def _counted() -> int:
    """A primary key that we count ourselves, from 0."""
    return Field(primary_key=True, sa_column_kwargs={"autoincrement": False})  # type: ignore[no-any-return]


class MetaRow(SQLModel, table=True):
    """Facts about the database itself."""

    __tablename__ = "meta"
    name: str = Field(primary_key=True)
    value: str


class OrgRow(SQLModel, table=True):
    """An organisation and the key that signs for it now."""

    __tablename__ = "org"
    id: str = Field(primary_key=True)
    name: str
    role: str
    key_id: str = Field(unique=True)
    public_key: str
    age_recipient: str | None = None
    suspended: str = ""


class OrgKeyRow(SQLModel, table=True):
    """A key an organisation has or had; `added` and `revoked` are indexes of log entries."""

    __tablename__ = "org_key"
    __table_args__ = (_check("revoked IS NULL OR revoked > added", "order"),)
    id: str = Field(primary_key=True)
    org_id: str = Field(foreign_key="org.id", index=True)
    public_key: str
    added: int
    revoked: int | None = None


class ApiKeyRow(SQLModel, table=True):
    """A bearer token for reading: its public beginning and the SHA-256 of the whole."""

    __tablename__ = "api_key"
    id: str = Field(primary_key=True)
    org_id: str = Field(foreign_key="org.id", index=True)
    name: str
    prefix: str = Field(unique=True)
    digest: str
    scopes: str
    created: int
    expires: int
    revoked: int | None = None
    last_used: int | None = None


class PersonRow(SQLModel, table=True):
    """A person who may look at an organisation's part of the console."""

    __tablename__ = "person"
    org_id: str = Field(primary_key=True, foreign_key="org.id")
    email: str = Field(primary_key=True, index=True)


class SessionRow(SQLModel, table=True):
    """A person's session in the console, by the SHA-256 of its cookie's token."""

    __tablename__ = "session"
    digest: str = Field(primary_key=True)
    email: str
    org_id: str = Field(foreign_key="org.id")
    expires: int = Field(index=True)


class NonceRow(SQLModel, table=True):
    """A nonce seen in a signed, state-changing call."""

    __tablename__ = "nonce"
    key_id: str = Field(primary_key=True)
    nonce: str = Field(primary_key=True)
    expires: int = Field(index=True)


class ReplyRow(SQLModel, table=True):
    """The stored answer to an idempotent call."""

    __tablename__ = "reply"
    org_id: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    digest: str
    body: str


class SchemaRow(SQLModel, table=True):
    """A registered schema, as canonical JSON."""

    __tablename__ = "schema"
    id: str = Field(primary_key=True)
    digest: str = Field(unique=True)
    body: str


class SourceRow(SQLModel, table=True):
    """A committed cohort."""

    __tablename__ = "source"
    __table_args__ = (_check("committed IS NULL OR committed >= 0", "committed"),)
    id: str = Field(primary_key=True)
    org_id: str = Field(foreign_key="org.id", index=True)
    name: str
    schema_id: str = Field(foreign_key="schema.id", index=True)
    size_class: int
    rows_root: str
    leaves: int
    committed: int | None = None


class SummaryRow(SQLModel, table=True):
    """A source's one DP release."""

    __tablename__ = "summary"
    __table_args__ = (_check("epsilon_micro > 0", "epsilon_spent"),)
    source_id: str = Field(primary_key=True, foreign_key="source.id")
    digest: str
    level: str
    counts: str
    epsilon_micro: int


class ValsetRow(SQLModel, table=True):
    """A sealed validation set."""

    __tablename__ = "valset"
    id: str = Field(primary_key=True)
    org_id: str = Field(foreign_key="org.id", index=True)
    schema_id: str = Field(foreign_key="schema.id")
    body: str
    seed: str = ""
    verdict: str = "untested"
    reason: str = ""


class BlobRow(SQLModel, table=True):
    """A stored blob."""

    __tablename__ = "blob"
    __table_args__ = (_check("size >= 0", "size"),)
    digest: str = Field(primary_key=True)
    size: int


class BlobAccessRow(SQLModel, table=True):
    """Who may read a blob: who uploaded it, and whom it was addressed to."""

    __tablename__ = "blob_access"
    digest: str = Field(primary_key=True, foreign_key="blob.digest")
    org_id: str = Field(primary_key=True, foreign_key="org.id")


class UploadRow(SQLModel, table=True):
    """What an organisation stored here: the bytes that count against its quota."""

    __tablename__ = "upload"
    __table_args__ = (_check("size >= 0", "size"),)
    org_id: str = Field(primary_key=True, foreign_key="org.id")
    digest: str = Field(primary_key=True, foreign_key="blob.digest", ondelete="CASCADE")
    size: int


class RequestRow(SQLModel, table=True):
    """A hospital's wish and where it stands; `version` moves with every step forward.

    `marks` counts what happened to it, and `cause` is the call that did so last.
    """

    __tablename__ = "request"
    id: str = Field(primary_key=True)
    org_id: str = Field(foreign_key="org.id", index=True)
    valset_id: str = Field(foreign_key="valset.id")
    terms: str
    terms_digest: str
    step: str
    state: str = Field(index=True)
    reason: str = ""
    version: int = 0
    due: bool = Field(default=True, index=True)
    marks: int = 0
    cause: str = ""


class PartyRow(SQLModel, table=True):
    """An organisation admitted to a request."""

    __tablename__ = "party"
    request_id: str = Field(primary_key=True, foreign_key="request.id")
    org_id: str = Field(primary_key=True, foreign_key="org.id")


class StepRow(SQLModel, table=True):
    """When a request entered and left a step."""

    __tablename__ = "step"
    request_id: str = Field(primary_key=True, foreign_key="request.id")
    step: str = Field(primary_key=True)
    started: float
    finished: float | None = None


class TaskRow(SQLModel, table=True):
    """What a party is asked to do, and its one answer."""

    __tablename__ = "task"
    __table_args__ = (UniqueConstraint("request_id", "kind", "subject", "org_id"),)
    id: str = Field(primary_key=True)
    request_id: str = Field(foreign_key="request.id", index=True)
    org_id: str = Field(foreign_key="org.id", index=True)
    kind: str
    subject: str
    task: str
    deadline: int
    state: str = Field(index=True)
    answer: str | None = None
    reason: str = ""
    spent_micro: int = 0


class DocumentRow(SQLModel, table=True):
    """A finished result of a step, as the canonical JSON that readers get."""

    __tablename__ = "document"
    request_id: str = Field(primary_key=True, foreign_key="request.id")
    kind: str = Field(primary_key=True)
    body: str


class AskRow(SQLModel, table=True):
    """A committed ask; the amount is unknown to the database until it is revealed."""

    __tablename__ = "ask"
    __table_args__ = (_check("ask_micro IS NULL OR ask_micro >= 0", "ask"),)
    request_id: str = Field(primary_key=True, foreign_key="request.id")
    source_id: str = Field(primary_key=True, foreign_key="source.id")
    commitment: str
    ask_micro: int | None = None
    salt: str | None = None


class OrderRow(SQLModel, table=True):
    """A source's part of a clearing, and what it delivered."""

    __tablename__ = "orders"
    __table_args__ = (
        _check("payment_micro >= 0", "payment"),
        _check("real IS NULL OR (real >= 0 AND real <= units)", "real"),
        _check("earned_micro IS NULL OR earned_micro >= 0", "earned"),
    )
    id: str = Field(primary_key=True)
    request_id: str = Field(foreign_key="request.id", index=True)
    source_id: str = Field(foreign_key="source.id")
    quota: str
    units: int
    payment_micro: int
    delivery_id: str
    sealed_blob: str | None = None
    real: int | None = None
    ladder: str | None = None
    earned_micro: int | None = None
    ground: str | None = None
    disputed: str | None = None
    offered: int | None = None


class RunRow(SQLModel, table=True):
    """One opening of encrypted rows: the target of a request, or a model's blind score."""

    __tablename__ = "run"
    id: str = Field(primary_key=True)
    request_id: str = Field(foreign_key="request.id", index=True)
    kind: str
    position: int
    state: str
    reason: str = ""
    seed: str
    nonce: str
    model_id: str = ""
    model: str = "{}"
    result: str = "{}"


class MessageRow(SQLModel, table=True):
    """A blob that was moved in a request, in order."""

    __tablename__ = "message"
    request_id: str = Field(primary_key=True, foreign_key="request.id")
    position: int = Field(primary_key=True)
    run_id: str = Field(default="", index=True)
    kind: str
    digest: str
    size: int


class AccountRow(SQLModel, table=True):
    """The balance of an account; only the outside world may be below zero."""

    __tablename__ = "account"
    __table_args__ = (
        _check("balance_micro >= 0 OR substr(name, 1, 9) = 'external:'", "not_overdrawn"),
    )
    name: str = Field(primary_key=True)
    balance_micro: int = 0


class ZeroRow(SQLModel, table=True):
    """The one value that a transfer may sum to."""

    __tablename__ = "zero"
    __table_args__ = (_check("value = 0", "zero"),)
    value: int = _counted()


class TransferRow(SQLModel, table=True):
    """A double entry; `total_micro` follows its postings and is zero at every commit."""

    __tablename__ = "transfer"
    name: str = Field(primary_key=True)
    total_micro: int = Field(
        default=0,
        sa_column=Column(
            BigInteger,
            ForeignKey("zero.value", deferrable=True, initially="DEFERRED"),
            nullable=False,
        ),
    )
    at_s: int = 0


class PostingRow(SQLModel, table=True):
    """One side of a double entry."""

    __tablename__ = "posting"
    __table_args__ = (_check("amount_micro <> 0", "moves"),)
    transfer: str = Field(primary_key=True, foreign_key="transfer.name")
    account: str = Field(primary_key=True, foreign_key="account.name", index=True)
    request_id: str = Field(foreign_key="request.id", index=True)
    position: int
    amount_micro: int


class EntryRow(SQLModel, table=True):
    """A log entry: canonical JSON bytes."""

    __tablename__ = "entry"
    position: int = _counted()
    body: bytes


class ReleaseRow(SQLModel, table=True):
    """A release of an owner's data: what its log entry says, for sums by owner."""

    __tablename__ = "release"
    __table_args__ = (_check("epsilon_micro >= 0", "epsilon"),)
    position: int = Field(
        primary_key=True,
        foreign_key="entry.position",
        sa_column_kwargs={"autoincrement": False},
    )
    owner: str = Field(index=True)
    data: str
    kind: str
    request_id: str | None = None
    run_id: str | None = None
    epsilon_micro: int
    time: str


class NodeRow(SQLModel, table=True):
    """A hash of the log's tree."""

    __tablename__ = "node"
    level: int = Field(primary_key=True)
    position: int = Field(primary_key=True)
    hash: bytes


class CheckpointRow(SQLModel, table=True):
    """A signed tree head."""

    __tablename__ = "checkpoint"
    size: int = _counted()
    note: str


class WitnessRow(SQLModel, table=True):
    """A witness whose cosignatures are kept: of an organisation, or named by the operator."""

    __tablename__ = "witness"
    vkey: str = Field(primary_key=True)
    org_id: str | None = Field(default=None, foreign_key="org.id", unique=True)


class CosignatureRow(SQLModel, table=True):
    """A witness's dated signature under one checkpoint, as its line in the note."""

    __tablename__ = "cosignature"
    size: int = Field(
        primary_key=True,
        foreign_key="checkpoint.size",
        sa_column_kwargs={"autoincrement": False},
    )
    vkey: str = Field(primary_key=True, foreign_key="witness.vkey")
    line: str


class ReceiptRow(SQLModel, table=True):
    """A receipt, as the text that is verified offline."""

    __tablename__ = "receipt"
    id: str = Field(primary_key=True)
    request_id: str = Field(foreign_key="request.id", index=True)
    run_id: str = Field(unique=True)
    body: str


class GrantRow(SQLModel, table=True):
    """A permission to send records of a source to somebody."""

    __tablename__ = "grants"
    id: str = Field(primary_key=True)
    source_id: str = Field(foreign_key="source.id", index=True)
    sender: str = Field(foreign_key="org.id")
    recipient: str = Field(index=True)
    attributes: str
    purpose: str
    given: int
    expires: int
    withdrawn: int | None = None


class UseRow(SQLModel, table=True):
    """Something that was done with an order's records under a grant, or refused; once each."""

    __tablename__ = "grant_use"
    __table_args__ = (_check("(grant_id IS NULL) = (reason <> '')", "outcome"),)
    order_id: str = Field(primary_key=True, foreign_key="orders.id")
    org_id: str = Field(primary_key=True, foreign_key="org.id")
    act: str = Field(primary_key=True)
    allowed: bool = Field(primary_key=True)
    source_id: str = Field(foreign_key="source.id", index=True)
    request_id: str = Field(foreign_key="request.id", index=True)
    grant_id: str | None = Field(default=None, foreign_key="grants.id")
    blob: str = Field(default="", index=True)
    at: int
    reason: str = ""


class WithdrawalRow(SQLModel, table=True):
    """A source that its owner took back, and when its body was gone."""

    __tablename__ = "withdrawal"
    source_id: str = Field(primary_key=True, foreign_key="source.id")
    at: int
    erased: int | None = None


class SaltRow(SQLModel, table=True):
    """The salt of a commitment in the log; once it is erased, the commitment tells nothing."""

    __tablename__ = "salt"
    object_id: str = Field(primary_key=True)
    salt: str


class DoomedRow(SQLModel, table=True):
    """A blob that is to be removed from the disk; nobody can read it any more."""

    __tablename__ = "doomed"
    digest: str = Field(primary_key=True)


class StaleRow(SQLModel, table=True):
    """A settled request whose indicative prices rest on a source that was withdrawn."""

    __tablename__ = "stale"
    request_id: str = Field(primary_key=True, foreign_key="request.id")


class JobRow(SQLModel, table=True):
    """A long piece of work: who wants it, who does it, and what came of it."""

    __tablename__ = "job"
    __table_args__ = (
        UniqueConstraint("request_id", "key"),
        _check("attempts >= 0 AND token >= attempts", "attempts"),
        _check("(state = 'running') = (owner <> '')", "owner"),
    )
    id: str = Field(primary_key=True)
    request_id: str = Field(foreign_key="request.id", index=True)
    org_id: str = Field(foreign_key="org.id", index=True)
    kind: str
    subject: str
    words: str
    key: str
    protocol: str
    priority: int
    state: str = Field(index=True)
    attempts: int = 0
    token: int = 0
    turn: int = 0
    owner: str = ""
    slot: str = ""
    beats: int = 0
    enqueued: float
    not_before: float = 0.0
    started: float | None = None
    finished: float | None = None
    deadline: int
    arguments: str
    result: str = ""
    error: str = ""
    reason: str = ""
    cause: str = ""


class WorkerRow(SQLModel, table=True):
    """A process that does jobs, as long as it lives."""

    __tablename__ = "worker"
    id: str = Field(primary_key=True)
    host: str
    place: str
    pid: int
    begun: str
    protocol: str
    slots: int
    state: str
    started: float
    seen: float
    beats: int = 0


class DisputeRow(SQLModel, table=True):
    """A claim against a delivery, a score, a payment or a failed test, and what became of it."""

    __tablename__ = "dispute"
    id: str = Field(primary_key=True)
    request_id: str = Field(foreign_key="request.id", index=True)
    opener_id: str = Field(foreign_key="org.id", index=True)
    respondent_id: str = Field(foreign_key="org.id", index=True)
    subject: str = Field(index=True)
    reason: str
    remedy: str
    state: str = Field(index=True)
    opened_s: int
    deadline: int
    claim: str
    answer: str = ""
    finding: str = ""
    ruling: str = ""


class OutcomeRow(SQLModel, table=True):
    """A promise that was kept or broken, as somebody else attests."""

    __tablename__ = "outcome"
    digest: str = Field(primary_key=True)
    subject_id: str = Field(foreign_key="org.id", index=True)
    attester_id: str = Field(foreign_key="org.id")
    request_id: str = Field(foreign_key="request.id")
    kind: str
    good: bool
    at_s: int


class PriceRow(SQLModel, table=True):
    """A source's price in one request, as canonical JSON."""

    __tablename__ = "price"
    source_id: str = Field(primary_key=True, foreign_key="source.id")
    request_id: str = Field(primary_key=True, foreign_key="request.id")
    at_s: int = Field(index=True)
    body: str


conservation.attach(SQLModel.metadata.tables["zero"], SQLModel.metadata.tables["posting"])

for _table in SQLModel.metadata.tables.values():
    for _column in _table.columns:
        if isinstance(_column.type, AutoString):
            _column.type = TEXT
        elif isinstance(_column.type, Integer):
            _column.type = BigInteger()
