"""What participants read: wire messages made of the store's values."""

import json
from collections.abc import Mapping
from typing import Any

from clearinghouse.errors import NotFoundError
from clearinghouse.messages.intake import (
    OrgView,
    RequestView,
    SchemaView,
    SealValset,
    SourceView,
    SummaryView,
    ValsetView,
)
from clearinghouse.messages.results import (
    ClearingView,
    OrderList,
    OrderView,
    PostingView,
    RunList,
    RunView,
    StatementView,
)
from clearinghouse.messages.tasks import TaskList, TaskView
from clearinghouse.rounds import job_views, training
from clearinghouse.rounds.audit_views import audit
from clearinghouse.rounds.twins import SAME_AS
from clearinghouse.store.records import Org, Request, Run, SchemaRecord, Source, Summary, Valset
from clearinghouse.store.store import Tx
from clearinghouse.store.tasks import AFTERWARDS

_DOES = {
    "valset.checks": "to open the tests of its sealed rows",
    "target.commit": "to commit to the noise of the target",
    "target.noise": "to draw the noise of the target",
    "target.checks": "to open the test of its noise",
    "target.replies": "to open the target",
    "ask.commit": "to commit its ask",
    "ask.reveal": "to reveal its ask",
    "deliver": "to deliver its records",
    "show": "to show tags of its next rows",
    "receive": "to open and check the deliveries",
    "delete": "to delete records of a withdrawn source",
    "model.submit": "to train and submit a model",
    "bid.reveal": "to open its sealed bid",
    "score.digits": "to answer a blind score",
    "score.early": "to open the tests of its digits",
    "nonce.reveal": "to open the nonce of its model",
    "score.characters": "to answer the comparison of a blind score",
    "score.final": "to open the tests of its characters",
    "score.replies": "to open a blind score",
    "receipt.sign": "to sign a score receipt",
    "log.cosign": "to cosign the log",
    "run.audit": "to replay a drawn run (nothing waits for it)",
}


def org(record: Org) -> OrgView:
    """An organisation as others see it."""
    return OrgView(
        id=record.id,
        name=record.name,
        role=record.role,
        key_id=record.key_id,
        public_key=record.public_key,
        age_recipient=record.age_recipient,
    )


def schema(record: SchemaRecord) -> SchemaView:
    """A registered schema."""
    return SchemaView(id=record.id, digest=record.digest, body=json.loads(record.body))


def source(record: Source) -> SourceView:
    """A source as everybody sees it."""
    return SourceView(
        id=record.id,
        org_id=record.org_id,
        name=record.name,
        schema_id=record.schema_id,
        size_class=record.size_class,
        rows_root=record.rows_root,
        leaves=record.leaves,
        published=record.published,
        withdrawn=record.withdrawn,
    )


def summary(published: Mapping[str, Summary], salt: bytes | None, source_id: str) -> SummaryView:
    """A source's release, exactly as it was published, and what opens its commitment.

    Raises:
        NotFoundError: It has published none.
    """
    if source_id not in published:
        raise NotFoundError(f"source {source_id} has published no summary yet")
    found = published[source_id]
    return SummaryView(
        level=list(found.level),
        counts=list(found.counts),
        epsilon_micro=found.epsilon_micro,
        salt=None if salt is None else salt.hex(),
    )


def valset(record: Valset) -> ValsetView:
    """A sealed validation set."""
    sealed = SealValset.model_validate_json(record.body)
    return ValsetView(
        id=record.id,
        org_id=record.org_id,
        schema_id=record.schema_id,
        size_class=sealed.size_class,
        level=sealed.level,
        commitment=sealed.commitment,
        packed="strips" in sealed.layout,
    )


def request(tx: Tx, record: Request, busy_with: str, now: float) -> RequestView:
    """Where a request stands; `busy_with` says what the server does if nothing else is open."""
    tasks = [task for task in tx.tasks.of(record.id) if task.task.kind not in AFTERWARDS]
    open_tasks = [task for task in tasks if task.state == "open"]
    waiting = sorted(
        f"{tx.parties.get(task.org_id).words} {_DOES[task.task.kind]}" for task in open_tasks
    )
    jobs = job_views.open_of(tx, record.id, now)
    waiting += [job_views.sentence(tx, job) for job in jobs]
    if record.state == "running" and not waiting:
        waiting = [f"the clearinghouse {busy_with}"]
    moved: dict[str, int] = {}
    for message in tx.requests.messages(record.id):
        moved[message.kind] = moved.get(message.kind, 0) + message.size
    return RequestView(
        id=record.id,
        org_id=record.org_id,
        step=record.step,  # type: ignore[arg-type]
        state=record.state,
        reason=record.reason,
        waiting_for=waiting if record.state == "running" else [],
        notes=_notes(tx, record),
        done_tasks=sum(task.state == "answered" for task in tasks),
        open_tasks=len(open_tasks),
        jobs=jobs,
        terms=record.terms,
        terms_digest=record.terms_digest,
        step_seconds={
            time.step: f"{time.finished - time.started:.3f}"
            for time in tx.requests.step_times(record.id)
            if time.finished is not None
        },
        message_bytes=moved,
    )


def _notes(tx: Tx, record: Request) -> list[str]:
    hospital = tx.parties.get(record.org_id)
    if not hospital.suspended:
        return []
    return [f"{hospital.words} is suspended until a dispute is settled: {hospital.suspended}"]


def tasks(tx: Tx, org_id: str) -> TaskList:
    """The open tasks of an organisation."""
    return TaskList(
        tasks=[
            TaskView(id=task.id, request_id=task.request_id, deadline=task.deadline, task=task.task)
            for task in tx.tasks.open_for(org_id)
        ]
    )


def runs(tx: Tx, record: Request, org_id: str, now: float) -> RunList:
    """The scoring runs of a request, as one of its participants may see them.

    While models are still scored only the hospital and a model's owner see its score, so that no
    developer can wait for the others' before it submits.
    """
    receipts = tx.runs.receipts(record.id)
    flags = training.flags(tx, record.id)
    is_open = record.state == "running" and record.step == "score"
    views = []
    for run in tx.runs.of(record.id, "score"):
        hidden = is_open and org_id not in (record.org_id, run.model["org_id"])
        owner = str(run.model.get(SAME_AS, run.id))
        receipt = receipts[owner].id if owner in receipts and not hidden else None
        flagged = flags.get(str(run.model["org_id"]), [])
        waiting = _run_waits(tx, record, run, now) if run.state == "running" else ""
        shown = _run(run, {} if hidden else run.result, receipt, waiting, flagged)
        found = audit(tx, record, run, receipts.get(run.id))
        views.append(shown.model_copy(update={"audit": found}))
    return RunList(runs=views)


def _run_waits(tx: Tx, record: Request, run: Run, now: float) -> str:
    """What a running run waits for: its original, a party, a job, or its turn."""
    if SAME_AS in run.model:
        return f"the answer of {run.model[SAME_AS]}, which scores the same model"
    for task in tx.tasks.of(record.id, subject=run.id):
        if task.state == "open":
            return f"{tx.parties.get(task.org_id).words} {_DOES[task.task.kind]}"
    for job in job_views.open_of(tx, record.id, now):
        if job.subject == run.id:
            return job_views.sentence(tx, job)
    return "the clearinghouse to take it up"


def _run(
    record: Run,
    result: Mapping[str, object],
    receipt: str | None,
    waiting: str,
    flags: list[str],
) -> RunView:
    model = record.model
    shown = {
        name: result.get(name, empty)
        for name, empty in (
            ("edges", []),
            ("threshold_edge", 0),
            ("histograms", []),
            ("unit", ""),
            ("counts", []),
            ("groups", {}),
            ("tables", []),
            ("nonces", []),
            ("epsilon_micro", 0),
            ("scorecard", {}),
            ("transcript_digest", None),
        )
    }
    return RunView.model_validate(
        {
            "id": record.id,
            "model_id": record.model_id,
            "org_id": model["org_id"],
            "model_name": model["name"],
            "model_kind": model["kind"],
            "model_digest": model["digest"],
            "score_bits": model.get("score_bits", 0),
            "headroom": model.get("headroom", ""),
            "state": record.state,
            "reason": record.reason,
            "receipt": receipt,
            "waiting_for": waiting,
            "same_as": model.get(SAME_AS),
            "flags": flags,
            **shown,
        }
    )


def clearing(tx: Tx, request_id: str) -> ClearingView | None:
    """The clearing with what was delivered and paid so far, or None before it."""
    body = tx.requests.document(request_id, "clearing")
    if body is None:
        return None
    view = ClearingView.model_validate_json(body)
    again = tx.requests.document(request_id, "offered_again")
    changed = OrderList(orders=[]) if again is None else OrderList.model_validate_json(again)
    without = tx.requests.document(request_id, "cleared_again")
    known = {order.id: order for order in tx.orders.of(request_id)}
    paid = {
        posting.transfer.removeprefix(f"{request_id}:order:"): posting.amount_micro
        for posting in tx.ledger.postings(request_id)
        if posting.transfer.startswith(f"{request_id}:order:")
        and posting.account.startswith("org:")
    }
    is_settled = tx.requests.document(request_id, "prices") is not None

    def so_far(order: OrderView) -> OrderView:
        stored = known.get(order.order_id or "")
        return order.model_copy(
            update={
                "real": None if stored is None else stored.real,
                "paid_micro": paid.get(order.order_id or "", 0 if is_settled else None),
                "disputed": "" if stored is None else stored.disputed,
            }
        )

    return view.model_copy(
        update={
            "orders": [so_far(order) for order in view.orders],
            "offered_again": [so_far(order) for order in changed.orders],
            "repriced": [so_far(order) for order in changed.repriced],
            "cleared_again": (
                None if without is None else ClearingView.model_validate_json(without)
            ),
        }
    )


def _award(body: str | None, named: list[dict[str, object]]) -> dict[str, Any]:
    """What the purse's rule decided, and beside it what rulings made of it."""
    award: dict[str, Any] = {} if body is None else json.loads(body)
    return {**award, "ruled": named} if award and named else award


def statement(tx: Tx, record: Request) -> StatementView:
    """Postings and balances of a request so far."""
    postings = tx.ledger.postings(record.id)
    balances: dict[str, int] = {}
    transfers: dict[str, int] = {}
    for posting in postings:
        balances[posting.account] = balances.get(posting.account, 0) + posting.amount_micro
        transfers[posting.transfer] = transfers.get(posting.transfer, 0) + posting.amount_micro
    award = tx.requests.document(record.id, "award")
    ruled = [json.loads(item.ruling) for item in tx.disputes.of(record.id) if item.ruling]
    named = [
        {"dispute": ruling["dispute"], "prizes": ruling["prizes"]}
        for ruling in ruled
        if ruling.get("prizes")
    ]
    return StatementView(
        postings=[
            PostingView(
                transfer=posting.transfer,
                account=posting.account,
                amount_micro=posting.amount_micro,
            )
            for posting in postings
        ],
        balances=balances,
        balanced=not any(transfers.values()) and not sum(balances.values()),
        award=_award(award, named),
    )
