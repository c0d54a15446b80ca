"""What the store gives out: frozen values, never rows."""

from dataclasses import dataclass
from typing import Literal

from clearinghouse.errors import TryAgainError
from clearinghouse.messages.intake import OpenRequest, Role
from clearinghouse.messages.tasks import Answer, Task

TaskState = Literal["open", "answered", "refused", "expired", "void"]
RunKind = Literal["target", "score"]
RunState = Literal["running", "released", "failed"]
RequestState = Literal["running", "done", "failed"]
DisputeState = Literal["open", "answered", "resolved", "expired"]
Verdict = Literal["untested", "passed", "failed"]


@dataclass(frozen=True, slots=True)
class Org:
    """An organisation and one of its keys: the one that signed a call, or the one in use now.

    `public_key` is base64, `suspended` says why it is, if it is.
    """

    id: str
    name: str
    role: Role | Literal["clearinghouse"]
    key_id: str
    public_key: str
    age_recipient: str | None
    suspended: str = ""

    @property
    def words(self) -> str:
        """How sentences name it."""
        return f"{self.name} ({self.id})"


@dataclass(frozen=True, slots=True)
class OrgKey:
    """A key of an organisation.

    Attributes:
        added: Index of the log entry from which on it signs; None until that has one.
        revoked: Index of the log entry from which on it is refused; None also until that has one.
        is_revoked: Whether it is refused now.
    """

    id: str
    org_id: str
    public_key: str
    added: int | None
    revoked: int | None
    is_revoked: bool


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A bearer token for reading; times are seconds since 1970.

    Attributes:
        prefix: The token's public beginning, by which it is found.
        digest: SHA-256 of the whole token, in hex.
        scopes: What it may read.
    """

    id: str
    org_id: str
    name: str
    prefix: str
    digest: str
    scopes: tuple[str, ...]
    created: int
    expires: int
    revoked: int | None = None
    last_used: int | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """A person's session in the console: who, for which organisation, until when."""

    email: str
    org_id: str
    expires: int


@dataclass(frozen=True, slots=True)
class SchemaRecord:
    """A registered schema; `body` is canonical JSON."""

    id: str
    digest: str
    body: str


@dataclass(frozen=True, slots=True)
class Source:
    """A committed cohort.

    Attributes:
        committed: Log index of its row commitment; None until that has one.
    """

    id: str
    org_id: str
    name: str
    schema_id: str
    size_class: int
    rows_root: str
    leaves: int
    published: bool
    committed: int | None = None
    withdrawn: bool = False

    @property
    def place(self) -> int:
        """The log index of its row commitment.

        Raises:
            TryAgainError: It has none yet.
        """
        if self.committed is None:
            raise TryAgainError(
                f"source {self.id} is registered, and its log entry gets its number within a "
                "second; repeat the same call"
            )
        return self.committed


@dataclass(frozen=True, slots=True)
class Summary:
    """A source's one DP release: noisy (cells, labels) counts, row-major, at `level`."""

    source_id: str
    level: tuple[str, ...]
    counts: tuple[int, ...]
    epsilon_micro: int
    digest: str


@dataclass(frozen=True, slots=True)
class Valset:
    """A sealed validation set; `body` is the canonical JSON of `SealValset`.

    Attributes:
        seed: Hex of the seed of its tests; secret, stored before first use.
        verdict: What its tests said, once for all requests.
        reason: Why they failed.
    """

    id: str
    org_id: str
    schema_id: str
    body: str
    seed: str = ""
    verdict: Verdict = "untested"
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """A hospital's wish and where it stands.

    Attributes:
        version: Moves with every step forward.
        marks: Counts what happened to it.
        cause: The call that did so last.
        closed: Id of the log entry that says how it ended, if one does.
    """

    id: str
    org_id: str
    valset_id: str
    terms: OpenRequest
    terms_digest: str
    step: str
    state: RequestState
    reason: str
    version: int
    marks: int = 0
    cause: str = ""
    closed: int | None = None


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds since 1970 when a request entered and left a step."""

    step: str
    started: float
    finished: float | None


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """A task, its state and its answer; `subject` is what it is about (a source, a run...)."""

    id: str
    request_id: str
    org_id: str
    subject: str
    task: Task
    deadline: int
    state: TaskState
    answer: Answer | None
    reason: str
    spent_micro: int = 0
    """Epsilon that a party says it was charged before it refused."""


@dataclass(frozen=True, slots=True)
class Ask:
    """An ask; amount and salt are None until it is revealed and found to fit its commitment."""

    request_id: str
    source_id: str
    commitment: str
    ask_micro: int | None
    salt: str | None


SPOT_CHECK = 3


@dataclass(frozen=True, slots=True)
class Order:
    """A source's part of a clearing.

    Attributes:
        payment_micro: What it earns if every unit is real and no copy.
        sealed_blob: What came; None before, and where nothing did.
        real: Proven records, after the recipients looked those they accept; None until it delivered
            or fell silent.
        ladder: (place, price in micro-money, units) of its units.
        earned_micro: What it is paid; None until the recipients looked.
        ground: Why its deposit is lost, if it is: see `rounds.deposits`.
        disputed: Why its money is frozen, if it is.
        offered: 1 in the clearing, 2 if it was offered again what somebody else did not deliver,
            `SPOT_CHECK` for a few rows of a source that sold nothing: see `rounds.pot`.
    """

    id: str
    request_id: str
    source_id: str
    quota: tuple[int, ...]
    units: int
    payment_micro: int
    delivery_id: str
    sealed_blob: str | None
    real: int | None
    ladder: tuple[tuple[int, int, int], ...] = ()
    earned_micro: int | None = None
    ground: str = ""
    disputed: str = ""
    offered: int = 1


@dataclass(frozen=True, slots=True)
class Run:
    """One opening of encrypted rows.

    Attributes:
        seed: Hex of the seed of everything the server sends in it; stored before first use.
        nonce: Hex of the server's part of the noise nonces.
        model: For scores: owner, name, kind, digest, blob, developer's nonce, metadata.
        result: What was released.
    """

    id: str
    request_id: str
    kind: RunKind
    position: int
    state: RunState
    reason: str
    seed: str
    nonce: str
    model_id: str
    model: dict[str, object]
    result: dict[str, object]


@dataclass(frozen=True, slots=True)
class MessageRecord:
    """A blob that was moved in a request."""

    run_id: str
    kind: str
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Release:
    """A logged release: `entry` is its index in the log, None until it has one.

    Attributes:
        data: The source or validation set.
    """

    entry: int | None
    owner: str
    data: str
    kind: str
    request_id: str | None
    run_id: str | None
    epsilon_micro: int
    time: str
    rho_micro: int = 0


@dataclass(frozen=True, slots=True)
class Posting:
    """One side of a double entry."""

    transfer: str
    account: str
    amount_micro: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A posting as a statement lists it; `at_s` is 0 where the time is not known."""

    transfer: str
    account: str
    request_id: str
    amount_micro: int
    at_s: int


@dataclass(frozen=True, slots=True)
class Dispute:
    """A claim and what became of it; texts are canonical JSON, empty while there is none.

    Attributes:
        subject: The order, run or request it is about.
        deadline: While open for the answer, while answered for the ruling; seconds since 1970.
        finding: What the replay of the evidence said.
        ruling: The decision as a signed statement.
    """

    id: str
    request_id: str
    opener_id: str
    respondent_id: str
    subject: str
    reason: str
    remedy: str
    state: DisputeState
    opened_s: int
    deadline: int
    claim: str
    answer: str = ""
    finding: str = ""
    ruling: str = ""


@dataclass(frozen=True, slots=True)
class StoredOutcome:
    """An attested outcome; `digest` is that of the receipt or log entry that proves it."""

    digest: str
    subject_id: str
    attester_id: str
    request_id: str
    kind: str
    good: bool
    at_s: int


@dataclass(frozen=True, slots=True)
class PastPrice:
    """A source's price in one request, as canonical JSON."""

    source_id: str
    request_id: str
    at_s: int
    body: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """A receipt's text, empty while it is a draft.

    Attributes:
        draft: JSON that it will be written from once its log entry has its index.
    """

    id: str
    request_id: str
    run_id: str
    body: str
    draft: str | None = None
