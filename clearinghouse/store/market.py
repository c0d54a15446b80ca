"""Asks, orders, runs and receipts."""

import json

from sqlmodel import Session, col, select

from clearinghouse.errors import NotFoundError
from clearinghouse.store.records import Ask, Order, Receipt, Run
from clearinghouse.store.tables import AskRow, OrderRow, ReceiptRow, RequestRow, RunRow


class Asks:
    """Queries about asks. No amount is in the database before it is revealed."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def commit(self, request_id: str, source_id: str, commitment: str) -> None:
        """Store an ask's commitment."""
        self._session.add(AskRow(request_id=request_id, source_id=source_id, commitment=commitment))
        self._session.flush()

    def reveal(self, request_id: str, source_id: str, ask_micro: int, salt: str) -> None:
        """Store an ask that opened its commitment."""
        row = self._session.get(AskRow, (request_id, source_id))
        if row is None:
            raise NotFoundError(f"no ask of {source_id}")
        row.ask_micro, row.salt = ask_micro, salt
        self._session.flush()

    def of(self, request_id: str) -> dict[str, Ask]:
        """Return the asks of a request by source."""
        rows = self._session.exec(select(AskRow).where(AskRow.request_id == request_id))
        return {
            row.source_id: Ask(
                row.request_id, row.source_id, row.commitment, row.ask_micro, row.salt
            )
            for row in rows
        }


class Orders:
    """Queries about orders and their deliveries."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, order: Order) -> None:
        """Store an order."""
        self._session.add(
            OrderRow(
                id=order.id,
                request_id=order.request_id,
                source_id=order.source_id,
                quota=json.dumps(list(order.quota)),
                units=order.units,
                payment_micro=order.payment_micro,
                delivery_id=order.delivery_id,
                ladder=json.dumps(order.ladder, separators=(",", ":")),
                offered=order.offered,
            )
        )
        self._session.flush()

    def of(self, request_id: str) -> tuple[Order, ...]:
        """Return the orders of a request, in order of source, a second one after the first."""
        query = (
            select(OrderRow)
            .where(OrderRow.request_id == request_id)
            .order_by(col(OrderRow.source_id), col(OrderRow.offered))
        )
        return tuple(_order(row) for row in self._session.exec(query))

    def get(self, order_id: str) -> Order:
        """Return an order.

        Raises:
            NotFoundError: There is none.
        """
        return _order(self._row(order_id))

    def delivered(self, order_id: str, sealed_blob: str | None, real: int) -> None:
        """Record what came: a sealed blob and how many proven rows; None and 0 for silence."""
        row = self._row(order_id)
        row.sealed_blob, row.real = sealed_blob, real
        self._session.flush()

    def earned(self, order_id: str, earned_micro: int, ground: str) -> None:
        """Record what an order is paid, and why its deposit is lost, if it is."""
        row = self._row(order_id)
        row.earned_micro, row.ground = earned_micro, ground
        self._session.flush()

    def reprice(
        self, order_id: str, ladder: tuple[tuple[int, int, int], ...], payment_micro: int
    ) -> None:
        """Give an order that is not settled yet other prices."""
        row = self._row(order_id)
        row.ladder = json.dumps(ladder, separators=(",", ":"))
        row.payment_micro = payment_micro
        self._session.flush()

    def dispute(self, order_id: str, reason: str) -> None:
        """Freeze an order's money; the first reason stays."""
        row = self._row(order_id)
        row.disputed = row.disputed or reason
        self._session.flush()

    def _row(self, order_id: str) -> OrderRow:
        row = self._session.get(OrderRow, order_id)
        if row is None:
            raise NotFoundError(f"no order {order_id}")
        return row


def _order(row: OrderRow) -> Order:
    return Order(
        row.id,
        row.request_id,
        row.source_id,
        tuple(json.loads(row.quota)),
        row.units,
        row.payment_micro,
        row.delivery_id,
        row.sealed_blob,
        row.real,
        tuple(tuple(rung) for rung in json.loads(row.ladder or "[]")),
        row.earned_micro,
        row.ground or "",
        row.disputed or "",
        row.offered or 1,
    )


class Runs:
    """Queries about openings of encrypted rows, and receipts of scores."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, run: Run) -> None:
        """Store a run with its seed, before anything is computed from it."""
        self._session.add(
            RunRow(
                id=run.id,
                request_id=run.request_id,
                kind=run.kind,
                position=run.position,
                state=run.state,
                seed=run.seed,
                nonce=run.nonce,
                model_id=run.model_id,
                model=json.dumps(run.model),
            )
        )
        self._session.flush()

    def of(self, request_id: str, kind: str) -> tuple[Run, ...]:
        """Return the runs of a request of one kind, in order."""
        query = (
            select(RunRow)
            .where(RunRow.request_id == request_id, RunRow.kind == kind)
            .order_by(col(RunRow.position))
        )
        return tuple(_run(row) for row in self._session.exec(query))

    def ended_targets(self, valset_id: str) -> tuple[Run, ...]:
        """Return the targets of a validation set that were released or failed, by id."""
        query = (
            select(RunRow)
            .join(RequestRow, col(RequestRow.id) == col(RunRow.request_id))
            .where(
                RequestRow.valset_id == valset_id,
                RunRow.kind == "target",
                RunRow.state != "running",
            )
            .order_by(col(RunRow.id))
        )
        return tuple(_run(row) for row in self._session.exec(query))

    def count_of_owner(self, valset_id: str, org_id: str) -> int:
        """How many of an organisation's models a validation set has scored, readable ones only."""
        query = (
            select(RunRow.model)
            .join(RequestRow, col(RequestRow.id) == col(RunRow.request_id))
            .where(RequestRow.valset_id == valset_id, RunRow.kind == "score")
        )
        models = [json.loads(model) for model in self._session.exec(query)]
        return sum(model["org_id"] == org_id and bool(model["edges"]) for model in models)

    def release(self, run_id: str, result: dict[str, object]) -> None:
        """Record what a run released."""
        row = self._row(run_id)
        row.state, row.result = "released", json.dumps(result)
        self._session.flush()

    def note(self, run_id: str, reason: str) -> None:
        """Say something about a run that stands, such as why it has no receipt."""
        self._row(run_id).reason = reason
        self._session.flush()

    def fail(self, run_id: str, reason: str) -> None:
        """Burn a run; it is never drawn again."""
        row = self._row(run_id)
        row.state, row.reason = "failed", reason
        self._session.flush()

    def add_receipt(self, receipt: Receipt) -> None:
        """Store a receipt."""
        self._session.add(
            ReceiptRow(
                id=receipt.id,
                request_id=receipt.request_id,
                run_id=receipt.run_id,
                body=receipt.body,
                draft=receipt.draft,
            )
        )
        self._session.flush()

    def renew_receipt(self, receipt_id: str, body: str) -> None:
        """Replace a receipt's text by one that says the same under a newer checkpoint.

        A draft is one no more.
        """
        row = self._session.get(ReceiptRow, receipt_id)
        if row is None:
            raise NotFoundError(f"no receipt {receipt_id}")
        row.body, row.draft = body, None
        self._session.flush()

    def receipts(self, request_id: str) -> dict[str, Receipt]:
        """Return the receipts of a request by run."""
        rows = self._session.exec(select(ReceiptRow).where(ReceiptRow.request_id == request_id))
        return {row.run_id: _receipt(row) for row in rows}

    def drafts(self) -> tuple[Receipt, ...]:
        """Return the receipts that wait to be written, in order of id."""
        query = select(ReceiptRow).where(col(ReceiptRow.draft).is_not(None))
        return tuple(_receipt(row) for row in self._session.exec(query.order_by(ReceiptRow.id)))

    def receipt(self, receipt_id: str) -> Receipt:
        """Return a receipt.

        Raises:
            NotFoundError: There is none.
        """
        row = self._session.get(ReceiptRow, receipt_id)
        if row is None:
            raise NotFoundError(f"no receipt {receipt_id}")
        return _receipt(row)

    def _row(self, run_id: str) -> RunRow:
        row = self._session.get(RunRow, run_id)
        if row is None:
            raise NotFoundError(f"no run {run_id}")
        return row


def _run(row: RunRow) -> Run:
    return Run(
        row.id,
        row.request_id,
        row.kind,  # type: ignore[arg-type]
        row.position,
        row.state,  # type: ignore[arg-type]
        row.reason,
        row.seed,
        row.nonce,
        row.model_id,
        json.loads(row.model),
        json.loads(row.result),
    )


def _receipt(row: ReceiptRow) -> Receipt:
    return Receipt(row.id, row.request_id, row.run_id, row.body, row.draft)
