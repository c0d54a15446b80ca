"""A transaction that only looks, and asks the database for the same thing once.

What a request waits for follows from its tasks, runs and jobs, and each of a step's moves asks for
them again. In a transaction that sees one state of the database the answers are the same, so they
are kept until its end.
"""

from collections.abc import Callable, Hashable
from typing import TypeVar, cast

from clearinghouse.store.cohorts import Cohorts
from clearinghouse.store.jobs import Jobs
from clearinghouse.store.market import Asks, Orders, Runs
from clearinghouse.store.parties import Parties
from clearinghouse.store.records import (
    Ask,
    Order,
    Org,
    Receipt,
    Run,
    SchemaRecord,
    Source,
    TaskRecord,
    Valset,
)
from clearinghouse.store.store import Tx
from clearinghouse.store.tables import TaskRow
from clearinghouse.store.tasks import Tasks, task_of

Value = TypeVar("Value")


class Recall(Tx):
    """Sees what a transaction sees, each thing as it was when it was first asked for.

    For looking at one state: what is written afterwards, also through itself, is not seen.
    """

    def __init__(self, tx: Tx) -> None:
        """Look through a transaction that is open, and as long as it is."""
        super().__init__(tx._session)
        kept = _Kept()
        self.tasks = _Tasks(tx.tasks, kept)
        self.jobs = _Jobs(tx.jobs, kept)
        self.parties = _Parties(tx.parties, kept)
        self.cohorts = _Cohorts(tx.cohorts, kept)
        self.asks, self.orders = _Asks(tx.asks, kept), _Orders(tx.orders, kept)
        self.runs = _Runs(tx.runs, kept)


class _Kept:
    """Answers by question."""

    def __init__(self) -> None:
        self._answers: dict[Hashable, object] = {}

    def __call__(self, question: Hashable, ask: Callable[[], Value]) -> Value:
        if question not in self._answers:
            self._answers[question] = ask()
        return cast(Value, self._answers[question])


class _Tasks(Tasks):
    def __init__(self, tasks: Tasks, kept: _Kept) -> None:
        super().__init__(tasks._session)
        self._kept = kept

    def of(self, request_id: str, *kinds: str, subject: str = "") -> tuple[TaskRecord, ...]:
        """All of a request are fetched at once; those that are asked for are read."""
        rows = self._kept(("tasks", request_id), lambda: self.rows(request_id))
        return tuple(
            self._read(row)
            for row in rows
            if (not kinds or row.kind in kinds) and (not subject or row.subject == subject)
        )

    def _read(self, row: TaskRow) -> TaskRecord:
        return self._kept(("task", row.id), lambda: task_of(row))


class _Jobs(Jobs):
    def __init__(self, jobs: Jobs, kept: _Kept) -> None:
        super().__init__(jobs._session)
        self._kept = kept

    def busy(self, request_id: str) -> frozenset[str]:
        ask = super().busy
        return self._kept(("jobs.busy", request_id), lambda: ask(request_id))


class _Parties(Parties):
    def __init__(self, parties: Parties, kept: _Kept) -> None:
        super().__init__(parties._session)
        self._kept = kept

    def get(self, org_id: str) -> Org:
        ask = super().get
        return self._kept(("parties.get", org_id), lambda: ask(org_id))


class _Cohorts(Cohorts):
    def __init__(self, cohorts: Cohorts, kept: _Kept) -> None:
        super().__init__(cohorts._session)
        self._kept = kept

    def schema(self, schema_id: str) -> SchemaRecord:
        ask = super().schema
        return self._kept(("cohorts.schema", schema_id), lambda: ask(schema_id))

    def source(self, source_id: str) -> Source:
        ask = super().source
        return self._kept(("cohorts.source", source_id), lambda: ask(source_id))

    def valset(self, valset_id: str) -> Valset:
        ask = super().valset
        return self._kept(("cohorts.valset", valset_id), lambda: ask(valset_id))


class _Asks(Asks):
    def __init__(self, asks: Asks, kept: _Kept) -> None:
        super().__init__(asks._session)
        self._kept = kept

    def of(self, request_id: str) -> dict[str, Ask]:
        ask = super().of
        return self._kept(("asks.of", request_id), lambda: ask(request_id))


class _Orders(Orders):
    def __init__(self, orders: Orders, kept: _Kept) -> None:
        super().__init__(orders._session)
        self._kept = kept

    def of(self, request_id: str) -> tuple[Order, ...]:
        ask = super().of
        return self._kept(("orders.of", request_id), lambda: ask(request_id))


class _Runs(Runs):
    def __init__(self, runs: Runs, kept: _Kept) -> None:
        super().__init__(runs._session)
        self._kept = kept

    def of(self, request_id: str, kind: str) -> tuple[Run, ...]:
        ask = super().of
        return self._kept(("runs.of", request_id, kind), lambda: ask(request_id, kind))

    def receipts(self, request_id: str) -> dict[str, Receipt]:
        ask = super().receipts
        return self._kept(("runs.receipts", request_id), lambda: ask(request_id))
