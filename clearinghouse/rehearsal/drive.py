"""One market from the first registration to the last log entry, and what it left behind."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from clearinghouse.cells import finest_level
from clearinghouse.client.keystore import Keystore
from clearinghouse.client.provider import SUMMARY_SHARE
from clearinghouse.client.transport import Transport
from clearinghouse.clock import SystemClock
from clearinghouse.errors import ClearinghouseError, TryAgainError
from clearinghouse.market import Market
from clearinghouse.messages.intake import RequestView, SourceView
from clearinghouse.messages.results import (
    CheckpointView,
    ClearingView,
    LogView,
    PriceList,
    RunList,
    StatementView,
    TargetView,
)
from clearinghouse.money import micro_epsilon
from clearinghouse.rehearsal.stage import TASK_S, Stage
from clearinghouse.report.progress import Progress

OnStep = Callable[[str, Stage], None]
"""Called when a step has just finished, while everything still runs."""

STEP_WORDS = {
    "intake": "parties register; sources publish noised counts; the hospital seals its rows",
    "match": "the agent opens a noised histogram of the encrypted rows",
    "clear": "asks are committed, closed and revealed; one exact flow decides",
    "deliver": "records are drawn, sealed and sent to the grant holders",
    "score": "models are evaluated on encrypted rows",
    "settle": "the purse is awarded, sources are paid, the books are balanced",
    "audit": "the last entries are logged; receipts are checked",
}
_POLL_S = 0.5
_WATCH_S = 0.1
"""So often it looks where somebody acts on every step: quick ones must not pass unseen."""

_PAGE = 500


class MarketFailedError(ClearinghouseError):
    """The market came to an end before its time; the message is the server's reason."""

    problem_type = "market-failed"
    exit_code = 3


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the customer may read of a finished request, and who is who."""

    request: RequestView
    seconds: Mapping[str, float]
    """Wall-clock seconds of each step; intake from the first registration to the open request."""
    target: TargetView
    clearing: ClearingView
    prices: PriceList
    runs: RunList
    statement: StatementView
    receipts: Mapping[str, str]
    """Receipt text by run id."""
    entries: tuple[str, ...]
    checkpoint: CheckpointView
    names: Mapping[str, str]
    """Names by organisation and source id."""
    published: Mapping[str, tuple[str, ...]]
    """Strata level of each source's summary, by source id."""


def drive(stage: Stage, market: Market, progress: Progress, on_step: OnStep | None) -> Outcome:
    """Bring the parties together, wait for the end, and collect what is there to read.

    Raises:
        PartyProcessError: A process ended early.
        MarketFailedError: The request failed.
    """
    progress.step("intake", STEP_WORDS["intake"])
    started = time.monotonic()
    ready = {
        role: stage.expect(role, "ready")["parties"]
        for role in ("providers", "developers", "agent")
    }
    stage.actors["agent"].send(
        {
            "source_ids": [party["source_id"] for party in ready["providers"]],
            "developer_ids": [party["org_id"] for party in ready["developers"]],
        }
    )
    request_id = str(stage.expect("agent", "request")["request_id"])
    intake_s = time.monotonic() - started
    keystore = Keystore.open(stage.directory / "agent" / market.customer.name)
    with stage.connect() as client:
        transport = Transport(stage.url, keystore.signing_key, SystemClock(), client)
        request = _follow(stage, transport, request_id, progress, on_step)
        if request.state != "done":
            raise MarketFailedError(f"the market ended in step '{request.step}': {request.reason}")
        return _collect(transport, market, request, ready, intake_s)


def _follow(
    stage: Stage,
    transport: Transport,
    request_id: str,
    progress: Progress,
    on_step: OnStep | None,
) -> RequestView:
    """Poll the request until it ends; tell of every step as it changes."""
    step = "intake"
    order = list(STEP_WORDS)
    give_up = time.monotonic() + 2 * TASK_S
    while True:
        stage.check()
        try:
            request = transport.get(f"/requests/{request_id}", RequestView)
        except TryAgainError:
            stage.check()  # a dead server explains more than a connection that failed
            raise
        if request.step != step:
            if on_step is not None:
                on_step(step, stage)
            for passed in order[order.index(step) + 1 : order.index(request.step) + 1]:
                progress.step(passed, STEP_WORDS[passed])  # quick steps may pass between two looks
            step = request.step
        if request.state != "running":
            if on_step is not None:
                on_step(step, stage)
            return request
        total = request.done_tasks + request.open_tasks
        waiting = request.waiting_for[0] if request.waiting_for else ""
        progress.advance(step, request.done_tasks, max(total, 1), waiting)
        if time.monotonic() > give_up:
            raise MarketFailedError(f"no end in sight; it is waiting for {waiting or 'nothing'}")
        time.sleep(_POLL_S if on_step is None else _WATCH_S)


def _collect(
    transport: Transport,
    market: Market,
    request: RequestView,
    ready: Mapping[str, list[dict[str, Any]]],
    intake_s: float,
) -> Outcome:
    base = f"/requests/{request.id}"
    runs = transport.get(f"{base}/runs", RunList)
    names: dict[str, str] = {}
    for party in (party for parties in ready.values() for party in parties):
        names[party["org_id"]] = party["name"]
        if "source_id" in party:
            names[party["source_id"]] = party["name"]
    return Outcome(
        request=request,
        seconds={
            **{step: float(value) for step, value in request.step_seconds.items()},
            "intake": round(intake_s, 3),
        },
        target=transport.get(f"{base}/target", TargetView),
        clearing=transport.get(f"{base}/clearing", ClearingView),
        prices=transport.get(f"{base}/prices", PriceList),
        runs=runs,
        statement=transport.get(f"{base}/statement", StatementView),
        receipts={
            run.id: transport.get_text(f"/receipts/{run.receipt}")
            for run in runs.runs
            if run.receipt
        },
        entries=_entries(transport),
        checkpoint=transport.get("/log/checkpoint", CheckpointView),
        names=names,
        published={
            source: _published_level(transport, market, source)
            for source in request.terms.source_ids
        },
    )


def _entries(transport: Transport) -> tuple[str, ...]:
    found: list[str] = []
    while True:
        query = f"start={len(found)}&limit={_PAGE}"
        page = transport.get("/log/entries", LogView, query=query)
        found.extend(page.entries)
        if len(found) >= page.size or not page.entries:
            return tuple(found)


def _published_level(transport: Transport, market: Market, source_id: str) -> tuple[str, ...]:
    """Level of a source's summary; it follows from public numbers alone."""
    source = transport.get(f"/sources/{source_id}", SourceView)
    return finest_level(
        market.schema,
        epsilon_micro=micro_epsilon(market.epsilon.source),
        size_class=source.size_class,
        share=SUMMARY_SHARE,
    )
