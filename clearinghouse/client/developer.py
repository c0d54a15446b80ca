"""A developer: opens and checks deliveries, keeps the training set, submits an integer model."""

import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clearinghouse.asks import SALT_BYTES, ask_commitment
from clearinghouse.canonical import digest
from clearinghouse.client.checks import Opened, open_delivery, refuse_repeated
from clearinghouse.client.judged import Judged
from clearinghouse.client.keystore import Keystore
from clearinghouse.client.party import Party
from clearinghouse.client.recipes import ModelSource, publish_bins
from clearinghouse.client.repeats import Shown, judge
from clearinghouse.client.run_audit import Auditor, nonce_name
from clearinghouse.client.shown import read_shown
from clearinghouse.client.transport import Transport
from clearinghouse.columns import NumberColumn
from clearinghouse.errors import (
    ClearinghouseError,
    NoGrantError,
    NotFoundError,
    ProtocolError,
    RefusedError,
    TryAgainError,
)
from clearinghouse.messages.audits import RunAuditAnswer, RunAuditTask
from clearinghouse.messages.consent import DeleteAnswer, DeleteTask, Training, TrainingView
from clearinghouse.messages.deliveries import DeliveryRef, ReceiveAnswer, ReceiveTask, ShownRef
from clearinghouse.messages.tasks import (
    Answer,
    BidRevealAnswer,
    BidRevealTask,
    ModelSubmitAnswer,
    ModelSubmitTask,
    NonceRevealAnswer,
    NonceRevealTask,
    TaskView,
)
from clearinghouse.packed_sets import fits
from clearinghouse.schema import Schema
from clearinghouse.tables import Table, pooled, read_table, write_parquet
from secure_eval.nonces import new_nonce, nonce_commitment

TRAINING_SET = "training_set.parquet"


class Developer(Party):
    """A developer with one model on offer; `ask_micro` is its sealed bid in procurements."""

    def __init__(
        self,
        name: str,
        keystore: Keystore,
        transport: Transport,
        schema: Schema,
        make_model: ModelSource,
        *,
        ask_micro: int | None = None,
    ) -> None:
        super().__init__(name, "developer", keystore, transport, schema)
        self.make_model, self.ask_micro = make_model, ask_micro

    def handle(self, view: TaskView) -> Answer:
        """Receive deliveries, train and submit, open the nonce, replay a run that was drawn."""
        task = view.task
        if isinstance(task, DeleteTask):
            return self._delete(view.request_id, task)
        if isinstance(task, NonceRevealTask):
            return self._reveal(view.request_id, task)
        if isinstance(task, ReceiveTask | ModelSubmitTask):
            if task.schema_id != self.schema_id:
                raise RefusedError("the request uses another schema than this developer's")
            if isinstance(task, ReceiveTask):
                return self._receive(view.request_id, task)
            return self._submit(view.request_id, task)
        if isinstance(task, BidRevealTask):
            return self._reveal_bid(view.request_id)
        if isinstance(task, RunAuditTask):
            return self._audit(view.request_id, task)
        return super().handle(view)

    def _audit(self, request_id: str, task: RunAuditTask) -> RunAuditAnswer:
        auditor = Auditor(self.keystore, self.transport, self.schema, self.org_id)
        return RunAuditAnswer(verdict=digest(dict(auditor.audit(request_id, task.run_id).envelope)))

    def _receive(self, request_id: str, task: ReceiveTask) -> ReceiveAnswer:
        opened = refuse_repeated([self._open(ref) for ref in task.deliveries])
        shown = [item for item in map(self._open_shown, task.shown) if item is not None]
        judged = judge(self.schema, opened, shown, bytes.fromhex(task.draw_seed))
        for name, proof in judged.proofs.items():
            self.keystore.write(f"requests/{request_id}/copies/{name}.json", proof)
        path = self.training_path(request_id)
        write_training_set(self.schema, without_copies(opened, judged.found), path)
        self.keystore.write(TRAINING_SET, path.read_bytes())
        checks = [item.check(found) for item, found in zip(opened, judged.found, strict=True)]
        return ReceiveAnswer(checks=checks)

    def _open_shown(self, ref: ShownRef) -> Shown | None:
        """Tags of one source; what cannot be read protects nobody and harms nobody."""
        try:
            body = self.keystore.unseal(self.transport.get_blob(ref.shown_blob))
            return Shown(ref, read_shown(body, ref.source_id))
        except TryAgainError:
            raise
        except ClearinghouseError:
            return None

    def _open(self, ref: DeliveryRef) -> Opened:
        self.keystore.remember(
            f"orders/{ref.order_id}", {"sealed_blob": ref.sealed_blob, "source_id": ref.source_id}
        )
        try:
            sealed = self.transport.get_blob(ref.sealed_blob)
        except NotFoundError:
            return Opened(ref, None, ("the sealed body is not there",))
        except NoGrantError as error:
            return Opened(ref, None, (str(error),))
        return open_delivery(self.schema, ref, sealed, self.keystore)

    def training_path(self, request_id: str) -> Path:
        """Where the records of a request are kept; the newest set is also in the directory."""
        return self.keystore.path(f"requests/{request_id}/{TRAINING_SET}")

    def _submit(self, request_id: str, task: ModelSubmitTask) -> ModelSubmitAnswer:
        path = self.training_path(request_id)
        if not path.exists():
            raise RefusedError("nothing was received for this request")
        table = self._allowed(request_id, path)
        model = publish_bins(
            self.make_model(self.schema, table), self.schema, table, task.published_bins
        )
        if task.packed and not fits(model):
            raise RefusedError("the validation set is packed, and this model has trees")
        text = model.to_json().encode("ascii")
        nonce = new_nonce()
        answer = ModelSubmitAnswer(
            name=self.name,
            model_blob=self.transport.put_blob(text, "model"),
            nonce_commitment=nonce_commitment(nonce).hex(),
            bid_commitment=self._commit_bid(request_id) if task.bid else None,
        )
        # stored before the answer is: what was committed to can always be opened
        known = {"nonce": nonce.hex(), "model": answer.model_blob}
        self.keystore.remember(nonce_name(request_id, answer.nonce_commitment), known)
        return answer

    def _reveal(self, request_id: str, task: NonceRevealTask) -> NonceRevealAnswer:
        """Open the nonce that was committed with a model, for that model only.

        Raises:
            RefusedError: Nothing was committed so.
            ProtocolError: It was committed for another model.
        """
        known = self.keystore.recall(nonce_name(request_id, task.nonce_commitment))
        if known is None:
            raise RefusedError("no such nonce was committed for this request")
        if known["model"] != task.model_digest:
            raise ProtocolError("the nonce was committed for another model")
        return NonceRevealAnswer(nonce=known["nonce"])

    def _allowed(self, request_id: str, path: Path) -> Table | None:
        """The records that may be trained on now; of withdrawn sources none are kept either."""
        leave = self.transport.post(f"/requests/{request_id}/training", Training(), TrainingView)
        for source_id in leave.refused:
            drop_source(self.schema, path, source_id)
        if leave.refused:
            self.keystore.write(TRAINING_SET, path.read_bytes())
        return read_training_set(self.schema, path)

    def _delete(self, request_id: str, task: DeleteTask) -> DeleteAnswer:
        """Delete a withdrawn source's records from every file here."""
        path = self.training_path(request_id)
        dropped = drop_source(self.schema, path, task.source_id) if path.exists() else 0
        newest = self.keystore.path(TRAINING_SET)
        if newest.exists():
            drop_source(self.schema, newest, task.source_id)
        return DeleteAnswer(records=dropped)

    def _commit_bid(self, request_id: str) -> str | None:
        """Commit to the ask for the model, drawn once; without an ask the model is not for sale."""
        if self.ask_micro is None:
            return None
        stored = self.keystore.recall(f"bids/{request_id}")
        if stored is None:
            stored = {"ask_micro": self.ask_micro, "salt": secrets.token_hex(SALT_BYTES)}
            self.keystore.remember(f"bids/{request_id}", stored)
        salt, ask = bytes.fromhex(stored["salt"]), int(stored["ask_micro"])
        return ask_commitment(salt, request_id, self.org_id, ask)

    def _reveal_bid(self, request_id: str) -> BidRevealAnswer:
        stored = self.keystore.recall(f"bids/{request_id}")
        if stored is None:
            raise RefusedError("no bid was committed for this request")
        return BidRevealAnswer(ask_micro=int(stored["ask_micro"]), salt=str(stored["salt"]))


def drop_source(schema: Schema, path: Path, source_id: str) -> int:
    """Take a source's records out of a training set; how many there were."""
    whole = pq.read_table(path)
    kept = whole.filter(pc.not_equal(whole[source_column(schema)], source_id))
    if kept.num_rows < whole.num_rows:
        beside = path.with_name(f".{path.name}.new")
        pq.write_table(kept, beside)
        beside.chmod(0o600)
        beside.replace(path)
    return int(whole.num_rows - kept.num_rows)


def without_copies(opened: Sequence[Opened], found: Sequence[Judged]) -> list[Opened]:
    """The deliveries with the records that are paid: what is a copy is there already."""
    result = []
    for item, judged in zip(opened, found, strict=True):
        kept = np.flatnonzero(judged.paid)
        table = None if item.table is None or not len(kept) else item.table.take(kept)
        result.append(replace(item, table=table))
    return result


def source_column(schema: Schema) -> str:
    """Name of the column of a training set that says which source a record came from."""
    taken = {column.name for column in schema.columns} | {schema.label.name}
    name = "source"
    while name in taken:
        name += "_id"
    return name


def write_training_set(schema: Schema, deliveries: Sequence[Opened], path: Path) -> None:
    """Write all accepted records, in the order of the deliveries, with their sources' ids.

    No records give a file without rows.
    """
    accepted = [item for item in deliveries if item.table is not None]
    tables = [item.table for item in accepted if item.table is not None]
    table = pooled(tables) if tables else _no_rows(schema)
    write_parquet(table, path)
    sources = [item.ref.source_id for item in accepted for _ in range(item.real)]
    written = pq.read_table(path)
    column = pa.array(sources, pa.string())
    pq.write_table(written.append_column(source_column(schema), column), path)
    path.chmod(0o600)


def _no_rows(schema: Schema) -> Table:
    numbers = [column.name for column in schema.columns if isinstance(column, NumberColumn)]
    others = [column.name for column in schema.columns if not isinstance(column, NumberColumn)]
    return Table(
        schema,
        0,
        {name: np.zeros(0, np.float64) for name in numbers},
        {name: np.zeros(0, np.int64) for name in others},
        np.zeros(0, np.int64) if schema.label.kind == "category" else np.zeros(0, np.float64),
        np.zeros(0, np.int64),
    )


def read_training_set(schema: Schema, path: Path) -> Table | None:
    """The records of a training set, or None if it has none."""
    if not pq.read_metadata(path).num_rows:
        return None
    # Patients' ids are never delivered.
    return read_table(path, replace(schema, patient_id=None))
