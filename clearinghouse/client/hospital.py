"""A hospital: seals its validation rows, opens a request, and lets its key agent answer."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clearinghouse import cells, model_columns
from clearinghouse.canonical import canonical_bytes, commitment, digest
from clearinghouse.client import sizes
from clearinghouse.client.budget import open_budget
from clearinghouse.client.key_agent import UPLOAD_STATE, KeyAgent, Secrets
from clearinghouse.client.keystore import Keystore
from clearinghouse.client.opening_quota import OPENING_LIMIT
from clearinghouse.client.party import Party
from clearinghouse.client.runs import plan_runs
from clearinghouse.client.score_rounds import ScoreTask, answer_round
from clearinghouse.client.statements import Known, check_claim
from clearinghouse.client.transport import Transport
from clearinghouse.errors import (
    InputError,
    ProtocolError,
    RefusedError,
    SpentError,
    TryAgainError,
    VerificationError,
)
from clearinghouse.log.claim import parse_claim
from clearinghouse.messages.intake import OpenRequest, RequestView, SealValset, ValsetView
from clearinghouse.messages.results import RunList, TargetView
from clearinghouse.messages.tasks import (
    Answer,
    ReceiptSignAnswer,
    ReceiptSignTask,
    ScoreDigitsAnswer,
    ScoreDigitsTask,
    TargetChecksAnswer,
    TargetChecksTask,
    TargetCommitAnswer,
    TargetCommitTask,
    TargetNoiseAnswer,
    TargetNoiseTask,
    TargetRepliesAnswer,
    TargetRepliesTask,
    TaskView,
    ValsetChecksAnswer,
    ValsetChecksTask,
)
from clearinghouse.signing import (
    PAYLOAD_TYPE,
    b64decode_strict,
    b64encode,
    pre_authentication_encoding,
    verify_statement,
)
from clearinghouse.tables import Table
from secure_eval.keyholder import KeyHolder, SealedSet
from secure_eval.layout import Layout

TARGET_SHARE = 1.0
"""A request's level has at most as many cells x labels as epsilon x size class."""

MOST_PLACES = 160
"""Each cell x label is one opening of the target, and half a key's openings are for the scores."""

_KEY_FILE = "he.key"
_ORDER_FILE = "private/order.bin"
TargetTask = TargetCommitTask | TargetNoiseTask | TargetChecksTask | TargetRepliesTask


@dataclass(frozen=True, slots=True)
class HospitalTerms:
    """What a hospital decides about its validation set.

    Attributes:
        size_class: Power of two not above its rows, stated without looking at them; None to
            release a noised number of rows instead.
        epsilon_target_micro: What opening a target will cost; fixes the strata level.
        limit_micro: Most epsilon these patients may ever cost.
        epsilon_size_micro: Spent once on the noised number of rows, where no class is declared.
        opening_limit: Most openings of one key that no replay has cleared.
    """

    size_class: int | None
    epsilon_target_micro: int
    limit_micro: int
    epsilon_size_micro: int = 0
    opening_limit: int = OPENING_LIMIT


class Hospital(Party):
    """A hospital with one validation set."""

    def __init__(
        self,
        name: str,
        keystore: Keystore,
        transport: Transport,
        table: Table,
        terms: HospitalTerms,
    ) -> None:
        super().__init__(name, "hospital", keystore, transport, table.schema)
        self.table, self.terms = table, terms
        self.budget = open_budget(keystore, table, terms.limit_micro)
        self._agent: KeyAgent | None = None
        self._checked_targets: set[str] = set()
        self._size: sizes.PublicSize | None = None

    # ---------------------------------------------------------------- sealing

    @property
    def size(self) -> sizes.PublicSize:
        """What is published about the number of rows; a noised one is paid at the first call."""
        if self._size is None:
            declared, rows = self.terms.size_class, self.table.n
            if declared is None:
                epsilon = self.terms.epsilon_size_micro
                self._size = sizes.released(self.budget, self._rows_digest(), rows, epsilon)
            else:
                self._size = sizes.declared(declared, rows)
        return self._size

    @property
    def level(self) -> tuple[str, ...]:
        """The strata level of the sealed cells: public inputs only."""
        return cells.finest_level(
            self.schema,
            epsilon_micro=self.terms.epsilon_target_micro,
            size_class=self.size.size_class,
            share=TARGET_SHARE,
            most=MOST_PLACES,
        )

    def seal(self) -> str:
        """Encrypt the rows, upload them and register the validation set, once; returns its id.

        Raises:
            ProtocolError: The table is not the one that was sealed before.
        """
        known = self.keystore.recall("valset")
        if known is None:
            known = self._seal()
        if known["rows_sha256"] != self._rows_digest():
            raise ProtocolError(f"the table of {self.name} is not the one that was sealed")
        return str(known["valset_id"])

    def _seal(self) -> dict[str, Any]:
        holder = self._holder()
        sealed = self._sealed(holder)
        keys_blob = self.transport.put_blob(holder.public_keys(), "valset.keys")
        uploads = [self.transport.put_blob(blob, "valset.block") for blob in sealed.blobs]
        order = sealed.order.astype("<i8").tobytes()
        body = {
            "rows_sha256": self._rows_digest(),
            "order_sha256": hashlib.sha256(order).hexdigest(),
            "keys": keys_blob,
            "uploads": uploads,
        }
        salt, committed = commitment(body)
        message = SealValset(
            schema_id=self.schema_id,
            size_class=self.size.size_class,
            size_release=self.size.release,
            level=list(self.level),
            layout=json.loads(sealed.layout.to_json()),
            keys_blob=keys_blob,
            upload_blobs=uploads,
            commitment=committed,
        )
        self.keystore.write(_ORDER_FILE, order)
        self.keystore.remember("private/commitment", {**body, "salt": salt.hex()})
        view = self.transport.post(
            "/valsets",
            message,
            ValsetView,
            idempotency_key=f"{self.org_id}.valset.{committed[:32]}",
        )
        known = {
            "valset_id": view.id,
            "rows_sha256": body["rows_sha256"],
            "layout": sealed.layout.to_json(),
            "level": list(self.level),
            "commitment": committed,
        }
        self.keystore.remember("valset", known)
        return known

    def reseal(self) -> str:
        """Seal the same rows under a new key and register them as a new set; returns its id.

        The old key opens nothing any more, so no request on the old set may be running. The ledger
        and the models that were scored carry on: the patients are the same.
        """
        known = self._valset()
        if known["rows_sha256"] != self._rows_digest():
            raise ProtocolError(f"the table of {self.name} is not the one that was sealed")
        old = str(known["valset_id"])
        names = (_KEY_FILE, _ORDER_FILE, UPLOAD_STATE, "private/openings.json", "valset.json")
        for name in names:  # the set last: what broke off before it is done again
            path = self.keystore.path(name)
            if path.exists():
                path.rename(self.keystore.path(f"private/old/{old}/{path.name}"))
        self._agent = None
        return self.seal()

    def _holder(self) -> KeyHolder:
        path = self.keystore.path(_KEY_FILE)
        if path.exists():
            return KeyHolder.load(path)
        holder = KeyHolder.generate()
        holder.save(path)
        return holder

    def _sealed(self, holder: KeyHolder) -> SealedSet:
        groups = {
            name: (
                self.schema.stratum_codes(self.table, name),
                len(self.schema.stratum_names(name)),
            )
            for name in self.schema.subgroups
        }
        return holder.seal(
            model_columns.encode(self.schema, self.table),
            np.asarray(self.table.labels, dtype=np.int64),
            cells.n_labels(self.schema),
            cells.cells(self.table, self.level),
            cells.codebook(self.schema, self.level).n_cells,
            groups,
        )

    def _rows_digest(self) -> str:
        return hashlib.sha256(canonical_bytes(self.table.records())).hexdigest()

    # ---------------------------------------------------------------- request

    def open_request(
        self, terms: Mapping[str, Any], source_ids: Sequence[str], developer_ids: Sequence[str]
    ) -> str:
        """Open a request with the fields of `OpenRequest`, once for the same terms.

        The number of runs is fixed here: see `plan_runs`.

        Raises:
            InputError: The terms are malformed.
            BudgetExceededError: The lifetime budget does not hold them.
            ProtocolError: The server opened other terms than were sent.
        """
        body = {
            **terms,
            "valset_id": self._valset()["valset_id"],
            "source_ids": list(source_ids),
            "developer_ids": list(developer_ids),
        }
        message = _request(body)
        if message.epsilon_target_micro != self.terms.epsilon_target_micro:
            raise InputError("epsilon_target_micro is not the one the set was sealed for")
        planned = message.model_dump(mode="json", exclude_none=True)
        message = _request({**body, "runs": plan_runs(self.keystore, self.budget, planned)})
        terms_digest = digest(message.model_dump(mode="json"))
        key = f"{self.org_id}.request.{terms_digest[:32]}"
        view = self.transport.post("/requests", message, RequestView, idempotency_key=key)
        if view.terms != message or view.terms_digest != terms_digest:
            raise ProtocolError("the server opened a request with other terms than were sent")
        self.keystore.remember(f"requests/{view.id}", message.model_dump())
        return view.id

    def _valset(self) -> dict[str, Any]:
        known = self.keystore.recall("valset")
        if known is None:
            raise RefusedError(f"{self.name} has no sealed validation set yet; call seal first")
        return dict(known)

    def _terms(self, request_id: str) -> OpenRequest:
        known = self.keystore.recall(f"requests/{request_id}")
        if known is None:
            raise RefusedError(f"{request_id} is no request of this hospital")
        return OpenRequest.model_validate_json(json.dumps(known))

    # ---------------------------------------------------------------- tasks

    @property
    def agent(self) -> KeyAgent:
        """The key agent, loaded from this party's directory."""
        if self._agent is None:
            known = self._valset()
            order = self.keystore.read(_ORDER_FILE)
            if order is None:
                raise RefusedError("the private part of the sealed set is gone; seal it again")
            labels = np.asarray(self.table.labels, dtype=np.int64)
            self._agent = KeyAgent(
                Secrets(
                    self._holder(),
                    Layout.from_json(known["layout"]),
                    labels[np.frombuffer(order, "<i8")],
                    cells.counts(self.table, known["level"]),
                ),
                self.keystore,
                self.budget,
                self.terms.opening_limit,
            )
        return self._agent

    def handle(self, view: TaskView) -> Answer:
        """Open the tests of the sealed set, answer one round of a run, or sign a receipt.

        Raises:
            SpentError: It is refused after the ledger was charged for the run.
        """
        try:
            return self._handle(view)
        except (TryAgainError, OSError):
            raise  # tried again later, with what was stored
        except Exception as error:
            spent = self._spent(view)
            if not spent:
                raise
            known = isinstance(error, RefusedError | ProtocolError | VerificationError)
            why = str(error) if known else f"not possible here ({type(error).__name__})"
            raise SpentError(why, spent) from error

    def _spent(self, view: TaskView) -> int:
        """Epsilon that was charged for the run a task is about, in millionths."""
        run_id = str(getattr(view.task, "run_id", ""))
        known = self.keystore.recall(f"requests/{view.request_id}")
        if isinstance(view.task, ReceiptSignTask) or known is None or not self.budget.has(run_id):
            return 0
        terms = self._terms(view.request_id)
        is_target = isinstance(view.task, TargetTask)
        return terms.epsilon_target_micro if is_target else terms.epsilon_score_micro

    def _handle(self, view: TaskView) -> Answer:
        request_id, task = view.request_id, view.task
        if isinstance(task, ValsetChecksTask):
            return ValsetChecksAnswer(replies_blob=self._valset_checks(task))
        if isinstance(task, TargetCommitTask):
            return TargetCommitAnswer(noise_commitment=self._target_commit(request_id, task))
        if isinstance(task, TargetNoiseTask):
            return TargetNoiseAnswer(noise_blob=self._target_noise(request_id, task))
        if isinstance(task, ScoreDigitsTask):
            return ScoreDigitsAnswer(digits_blob=self._score_digits(request_id, task))
        if isinstance(task, ReceiptSignTask):
            return self._sign(request_id, task)
        if not isinstance(task, TargetChecksTask | TargetRepliesTask | ScoreTask):
            return super().handle(view)
        self._check_request(task.run_id, request_id)
        if isinstance(task, TargetChecksTask):
            tested = self.agent.target_checks(
                task.run_id, self.transport.get_blob(task.checks_blob)
            )
            blob = self.transport.put_blob(tested, "noise.replies")
            return TargetChecksAnswer(replies_blob=blob)
        if isinstance(task, TargetRepliesTask):
            openings = self.transport.get_blob(task.openings_blob)
            replies = self.agent.target_replies(task.run_id, openings)
            return TargetRepliesAnswer(replies_blob=self.transport.put_blob(replies, "replies"))
        return answer_round(self.agent, self.transport, task)

    def _valset_checks(self, task: ValsetChecksTask) -> str:
        if task.valset_id != self._valset()["valset_id"]:
            raise ProtocolError("the tests are of another validation set")
        checks = self.transport.get_blob(task.checks_blob)
        return self.transport.put_blob(self.agent.valset_checks(checks), "valset.replies")

    def _check_request(self, run_id: str, request_id: str) -> None:
        if self.agent.record(run_id)["request_id"] != request_id:
            raise ProtocolError(f"run {run_id} belongs to another request")

    def _target_commit(self, request_id: str, task: TargetCommitTask) -> str:
        if task.valset_id != self._valset()["valset_id"]:
            raise ProtocolError("the target is asked of another validation set")
        return self.agent.target_commit(request_id, self._terms(request_id), task).hex()

    def _target_noise(self, request_id: str, task: TargetNoiseTask) -> str:
        self._check_request(task.run_id, request_id)
        noise = self.agent.target_noise(request_id, self._terms(request_id), task)
        return self.transport.put_blob(noise, "noise")

    def _score_digits(self, request_id: str, task: ScoreDigitsTask) -> str:
        self._check_target(request_id)
        score = self.transport.get_blob(task.score_blob)
        digits = self.agent.score_digits(request_id, self._terms(request_id), task, score)
        blob = self.transport.put_blob(digits, "digits")
        self.agent.travelled(task.run_id, score=task.score_blob, digits=blob)
        return blob

    def _check_target(self, request_id: str) -> None:
        """Before the first model: the published target is what this agent opened, noise and all.

        Raises:
            ProtocolError: It is not.
        """
        if request_id in self._checked_targets:
            return
        view = self.transport.get(f"/requests/{request_id}/target", TargetView)
        record = self.agent.record(view.run_id)
        (table,) = record["tables"]
        opened = [
            noise + exact for noise, exact in zip(table["noise"], table["exact"], strict=True)
        ]
        if record["request_id"] != request_id or view.noised != opened:
            raise ProtocolError("the published target is not the one that was opened here")
        self._checked_targets.add(request_id)

    def _sign(self, request_id: str, task: ReceiptSignTask) -> ReceiptSignAnswer:
        """Sign a score statement that says what was opened here, and nothing else.

        Raises:
            ProtocolError, VerificationError: It says something else, or is no statement.
        """
        record = self.agent.record(task.run_id)
        if record["request_id"] != request_id or record["kind"] != "score":
            raise ProtocolError(f"run {task.run_id} is no scoring run of this request")
        payload = b64decode_strict(task.payload)
        key = self.keystore.key_named_in(payload)
        signature = key.sign(pre_authentication_encoding(PAYLOAD_TYPE, payload))
        answer = ReceiptSignAnswer(key_id=key.key_id, signature=b64encode(signature))
        # Read by the code that verifies receipts, under this signature, before it leaves.
        envelope = {
            "payload": task.payload,
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"keyid": answer.key_id, "sig": answer.signature}],
        }
        claim = parse_claim(
            verify_statement(envelope, {key.key_id: key.verify_key}, frozenset({key.key_id}))
        )
        found = self.transport.get(f"/requests/{request_id}/runs", RunList).runs
        views = [view for view in found if view.id == task.run_id]
        if len(views) != 1:
            raise ProtocolError("the run to sign is not among the request's runs")
        exact = check_claim(
            claim, views[0], self._known_run(request_id, task.run_id, record, key.key_id)
        )
        self.agent.finish(task.run_id, exact)
        return answer

    def _known_run(
        self, request_id: str, run_id: str, record: Mapping[str, Any], key_id: str
    ) -> Known:
        valset, terms = self._valset(), self._terms(request_id)
        labels = np.asarray(self.table.labels, dtype=np.int64)
        classes = cells.n_labels(self.schema)
        levels = {}
        for name in self.schema.subgroups:
            codes = self.schema.stratum_codes(self.table, name)
            rows = np.zeros((len(self.schema.stratum_names(name)), classes), np.int64)
            np.add.at(rows, (codes, labels), 1)
            levels[f"group:{name}"] = rows
        return Known(
            ids={
                "request": request_id,
                "run": run_id,
                "model": record["model_id"],
                "valset": valset["valset_id"],
                "hospital": self.org_id,
            },
            digests={
                "model_sha256": record["model_digest"],
                "valset_commitment": valset["commitment"],
                "policy_sha256": digest(terms.model_dump(mode="json")),
            },
            key_id=key_id,
            developer_ids=terms.developer_ids,
            epsilon_micro=terms.epsilon_score_micro,
            record=record,
            labels=np.bincount(labels, minlength=classes),
            levels=levels,
        )


def _request(body: Mapping[str, Any]) -> OpenRequest:
    try:
        return OpenRequest.model_validate_json(json.dumps(body))
    except ValueError as error:
        raise InputError(f"the terms of the request are malformed: {error}") from None
