"""A provider: one source, its committed rows, its single DP summary, its asks and deliveries."""

import hashlib
import json
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from clearinghouse import cells
from clearinghouse.asks import ask_commitment
from clearinghouse.canonical import canonical_bytes
from clearinghouse.client import sizes
from clearinghouse.client.budget import open_budget
from clearinghouse.client.consents import Consents, GrantTerms, record_columns
from clearinghouse.client.keystore import Keystore
from clearinghouse.client.orders import check_prices, ordered_before, parcel, seal
from clearinghouse.client.outbox import Outbox
from clearinghouse.client.party import Party
from clearinghouse.client.sealed_body import Entry, check_room, write_body
from clearinghouse.client.shown import Next, write_shown
from clearinghouse.client.transport import Transport
from clearinghouse.errors import ProtocolError, RefusedError
from clearinghouse.failpoints import reach
from clearinghouse.messages.consent import WithdrawalView
from clearinghouse.messages.deliveries import (
    DeliverAnswer,
    DeliverTask,
    ShowAnswer,
    ShowTask,
)
from clearinghouse.messages.intake import PublishSummary, RegisterSource, SourceView
from clearinghouse.messages.tasks import (
    Answer,
    AskCommitAnswer,
    AskCommitTask,
    AskRevealAnswer,
    AskRevealTask,
    TaskView,
)
from clearinghouse.rows import (
    RowCommitments,
    RowProof,
    commit_rows,
    draw_key,
    row_hash,
    write_proofs,
)
from clearinghouse.tables import Table
from dp.noise import geometric
from valuation.ladders import earned

SUMMARY_SHARE = 0.5
"""A source's summary has at most half as many cells x labels as epsilon x size class."""


@dataclass(frozen=True, slots=True)
class SourceTerms:
    """What a provider decides about its source.

    Attributes:
        size_class: Power of two not above its rows, stated without looking at them; None to
            release a noised number of rows instead.
        ask_micro: Standing ask in micro-money per record.
        epsilon_micro: Spent once, on the summary.
        limit_micro: Most epsilon its rows may ever cost.
        deposit_micro: Most money put up for one request; None for any amount.
        epsilon_size_micro: Spent once on the noised number of rows, where no class is declared.
        grants: Given when the source is published; more can be given and all withdrawn later.
    """

    size_class: int | None
    ask_micro: int
    epsilon_micro: int
    limit_micro: int
    _: KW_ONLY
    deposit_micro: int | None = None
    epsilon_size_micro: int = 0
    grants: tuple[GrantTerms, ...] = (GrantTerms(),)


class Provider(Party):
    """A provider with one source."""

    def __init__(
        self, name: str, keystore: Keystore, transport: Transport, table: Table, terms: SourceTerms
    ) -> None:
        super().__init__(name, "provider", keystore, transport, table.schema)
        self.table, self.terms = table, terms
        self.budget = open_budget(keystore, table, terms.limit_micro)
        self._records = table.records()
        self._commitments: RowCommitments | None = None
        self._hashes: list[bytes] | None = None
        self._size: sizes.PublicSize | None = None

    @property
    def size(self) -> sizes.PublicSize:
        """What is published about the number of rows; a noised one is paid at the first call."""
        if self._size is None:
            declared, rows = self.terms.size_class, self.table.n
            if declared is None:
                whole = hashlib.sha256(canonical_bytes(self._records)).hexdigest()
                epsilon = self.terms.epsilon_size_micro
                self._size = sizes.released(self.budget, whole, rows, epsilon)
            else:
                self._size = sizes.declared(declared, rows)
        return self._size

    @property
    def commitments(self) -> RowCommitments:
        """The row commitments, made from the stored seed; equal each time.

        Raises:
            NoGrantError: The source was withdrawn, and its salts with it.
        """
        if self._commitments is None:
            self.consents.check_here("of this home")
            seed = self.keystore.read("rows.seed")
            if seed is None:
                check_room(self.schema, self._records)
                seed = secrets.token_bytes(32)
                self.keystore.write("rows.seed", seed)
            self._commitments = commit_rows(self._records, seed, self.size.leaves)
        return self._commitments

    @property
    def source_id(self) -> str:
        """The id of the registered source."""
        known = self.keystore.recall("source")
        if known is None:
            raise RefusedError(f"{self.name} has no registered source yet; call publish first")
        return str(known["source_id"])

    def publish(self) -> str:
        """Register the source, publish its summary, give its grants, all once; the source id.

        Raises:
            BudgetExceededError: The summary costs more epsilon than the limit leaves.
            ProtocolError: The table is not the one that was committed to before.
        """
        self.register()
        known = self.keystore.recall("source")
        if known is None:
            message = RegisterSource(
                name=self.name,
                schema_id=self.schema_id,
                size_class=self.size.size_class,
                rows_root=self.commitments.root.hex(),
                leaves=self.commitments.size,
                size_release=self.size.release,
            )
            key = f"{self.org_id}.source.{self.schema_id}"
            view = self.transport.post("/sources", message, SourceView, idempotency_key=key)
            reach("provider.registered")
            known = {"source_id": view.id, "rows_root": message.rows_root}
            self.keystore.remember("source", known)
        if known["rows_root"] != self.commitments.root.hex():
            raise ProtocolError(
                f"the table of {self.name} is not the one it committed to. "
                "Register it as a new source"
            )
        self.transport.post(
            f"/sources/{self.source_id}/summary",
            self.summary(),
            SourceView,
            idempotency_key=f"{self.source_id}.summary",
        )
        self.consents.give_first(self.source_id, self.terms.grants)
        return self.source_id

    @property
    def consents(self) -> Consents:
        """The grants that this provider gave, as it remembers them itself."""
        return Consents(self.keystore, self.transport, record_columns(self.schema))

    def withdraw(self) -> WithdrawalView:
        """Take the source back for good; see `Consents.leave`."""
        view = self.consents.leave(self.source_id, self.terms.limit_micro)
        self._commitments = None
        return view

    def summary(self) -> PublishSummary:
        """The one noised table of this source, drawn at the first call and replayed ever after.

        Guarantee: epsilon-DP for adding or removing one patient, for all calls together.
        Assumes: one row per patient; level and epsilon read no row.
        Proof: a patient is in one place of the table, so its L1 sensitivity is 1 and two-sided
        geometric noise gives epsilon; the ledger debits before the draw and stores the answer,
        and every later call returns the stored bytes.
        """
        terms = self.terms
        level = cells.finest_level(
            self.schema,
            epsilon_micro=terms.epsilon_micro,
            size_class=self.size.size_class,
            share=SUMMARY_SHARE,
        )
        body = {"source": self.source_id, "level": list(level), "epsilon": terms.epsilon_micro}

        def draw() -> bytes:
            exact = cells.counts(self.table, level)
            noised = geometric(exact, Fraction(terms.epsilon_micro, 1_000_000))
            return canonical_bytes([int(value) for value in noised])

        key = f"{self.source_id}.summary"
        counts = self.budget.release(key, body, terms.epsilon_micro, draw, "summary")
        return PublishSummary(
            level=list(level), counts=json.loads(counts), epsilon_micro=terms.epsilon_micro
        )

    def handle(self, view: TaskView) -> Answer:
        """Commit and reveal the ask, deliver what was sold, show tags of what was not."""
        task = view.task
        if isinstance(task, AskCommitTask | AskRevealTask | DeliverTask | ShowTask):
            if task.source_id != self.source_id:
                raise RefusedError(f"{task.source_id} is not a source of {self.name}")
            self.consents.check_here(task.source_id)
            if isinstance(task, AskCommitTask):
                return self._commit_ask(view.request_id, task.deposit_micro)
            if isinstance(task, AskRevealTask):
                return self._reveal_ask(view.request_id)
            if isinstance(task, ShowTask):
                return self._show(view.request_id, task)
            return self._deliver(view.request_id, task)
        return super().handle(view)

    def _commit_ask(self, request_id: str, deposit_micro: int = 0) -> AskCommitAnswer:
        most = self.terms.deposit_micro
        if most is not None and deposit_micro > most:
            raise RefusedError("the deposit is above the limit of this source's owner")
        name = f"asks/{request_id}"
        stored = self.keystore.recall(name)
        if stored is None:
            stored = {"ask_micro": self.terms.ask_micro, "salt": secrets.token_hex(32)}
            self.keystore.remember(name, stored)
        salt, ask = bytes.fromhex(stored["salt"]), int(stored["ask_micro"])
        return AskCommitAnswer(commitment=ask_commitment(salt, request_id, self.source_id, ask))

    def _reveal_ask(self, request_id: str) -> AskRevealAnswer:
        stored = self.keystore.recall(f"asks/{request_id}")
        if stored is None:
            raise RefusedError("no ask was committed for this request")
        return AskRevealAnswer(ask_micro=int(stored["ask_micro"]), salt=str(stored["salt"]))

    def _deliver(self, request_id: str, task: DeliverTask) -> DeliverAnswer:
        self.consents.check_delivery(task, self.org_id)
        if self.keystore.recall(f"asks/{request_id}") is None:
            raise RefusedError("an order came for a request in which this source made no ask")
        check_prices(self.keystore, request_id, task)
        skip = ordered_before(self.keystore, request_id, task)
        reach("provider.ordered")
        entries = self.draw(
            task.level, task.quota, bytes.fromhex(task.draw_seed), by_label=task.by_label, skip=skip
        )

        def sealed() -> bytes:
            body = write_body(
                self.schema,
                self.commitments.size,
                order_id=task.order_id,
                source_id=task.source_id,
                purpose=task.purpose,
                entries=entries,
            )
            return seal(body, task.recipients)

        proofs = write_proofs([entry.proof for entry in entries if entry.weight])
        reach("provider.sealed")
        sealed_blob = Outbox(self.keystore, self.transport).send(parcel(task), sealed, "delivery")
        reach("provider.uploaded")
        return DeliverAnswer(
            sealed_blob=sealed_blob,
            proofs_blob=self.transport.put_blob(proofs, "proofs"),
            real=sum(entry.weight for entry in entries),
            claim_micro=earned(
                [(place, price, units) for place, price, units in task.ladder],
                Counter(entry.place for entry in entries if entry.weight),
            ),
        )

    def _show(self, request_id: str, task: ShowTask) -> ShowAnswer:
        """Tags of the rows that follow what was ordered, sealed to the grant holders."""
        if self.keystore.recall(f"asks/{request_id}") is None:
            raise RefusedError("tags are wanted for a request in which this source made no ask")
        self.consents.check_shown(task)
        seed = bytes.fromhex(task.draw_seed)
        rows = self.draw(task.level, task.show, seed, by_label=task.by_label, skip=task.skip)
        told: list[Next | int] = [
            Next(entry.place, entry.record, entry.salt, entry.proof)
            if entry.weight
            else entry.place
            for entry in rows
        ]
        document = write_shown(seed, task.source_id, told, self.commitments.size)
        return ShowAnswer(
            shown_blob=self.transport.put_blob(seal(document, task.recipients), "shown")
        )

    def draw(
        self,
        level: Sequence[str],
        quota: Sequence[int],
        draw_seed: bytes,
        *,
        by_label: bool = True,
        skip: Sequence[int] = (),
    ) -> list[Entry]:
        """Exactly `quota` entries: committed rows in the seed's order, then dummies.

        Args:
            level: Strata level of the quota.
            quota: Entries wanted in each (cell, label) place, or in each cell.
            draw_seed: Public; decides which rows of a place are taken.
            by_label: Whether the quota tells labels apart.
            skip: Rows of each place that come before; none if it is empty.

        Raises:
            ProtocolError: The quota has another number of places than the level.
        """
        wanted = np.asarray(quota, dtype=np.int64)
        expected = cells.n_places(self.schema, level, by_label=by_label)
        passed = list(skip) or [0] * expected
        if wanted.shape != (expected,) or len(passed) != expected:
            raise ProtocolError(f"the quota must have {expected} places, not {len(quota)}")
        place_of = cells.places(self.table, level, by_label=by_label)
        entries: list[Entry] = []
        for place in np.flatnonzero(wanted).tolist():
            need = int(wanted[place])
            rows = self._ordered(np.flatnonzero(place_of == place), draw_seed)
            rows = rows[passed[place] : passed[place] + need]
            entries += [self._entry(place, row) for row in rows]
            entries += [self._dummy(place) for _ in range(need - len(rows))]
        return entries

    def _ordered(self, rows: NDArray[np.int64], draw_seed: bytes) -> list[int]:
        if self._hashes is None:
            self._hashes = [row_hash(record) for record in self._records]
        hashes = self._hashes
        return sorted(rows.tolist(), key=lambda row: (draw_key(draw_seed, hashes[row]), row))

    def _entry(self, place: int, row: int) -> Entry:
        commitments = self.commitments
        return Entry(place, 1, self._records[row], commitments.salts[row], commitments.proof(row))

    def _dummy(self, place: int) -> Entry:
        """An entry that carries nothing; the recipient leaves it out."""
        depth = self.commitments.size.bit_length() - 1
        path = tuple(secrets.token_bytes(32) for _ in range(depth))
        proof = RowProof(secrets.randbelow(self.commitments.size), secrets.token_bytes(32), path)
        blank = dict.fromkeys(self._records[0], None)
        return Entry(place, 0, blank, secrets.token_bytes(32), proof)
