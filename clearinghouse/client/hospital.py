"""A hospital: seals its validation rows, opens a request, and lets its key agent answer."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clearinghouse import cells
from clearinghouse.canonical import digest
from clearinghouse.client.key_agent import KeyAgent, Secrets
from clearinghouse.client.runs import plan_runs
from clearinghouse.client.score_rounds import ScoreTask, answer_round
from clearinghouse.client.sealed_rows import (
    MOST_PLACES,
    ORDER_FILE,
    TARGET_SHARE,
    HospitalTerms,
    SealedRows,
)
from clearinghouse.client.statements import Known, check_claim
from clearinghouse.errors import (
    InputError,
    ProtocolError,
    RefusedError,
    SpentError,
    TryAgainError,
    VerificationError,
)
from clearinghouse.log.claim import parse_claim
from clearinghouse.messages.intake import OpenRequest, RequestView
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
from clearinghouse.noise_laws import privacy_facts
from clearinghouse.signing import (
    PAYLOAD_TYPE,
    b64decode_strict,
    b64encode,
    pre_authentication_encoding,
    verify_statement,
)
from clearinghouse.subgroups import published_subgroups
from secure_eval.layout import Layout

__all__ = ["MOST_PLACES", "TARGET_SHARE", "Hospital", "HospitalTerms", "tests_name"]

TargetTask = TargetCommitTask | TargetNoiseTask | TargetChecksTask | TargetRepliesTask


def tests_name(valset_id: str) -> str:
    """Where a hospital keeps the hashes of what it saw of its set's tests."""
    return f"private/tests/{valset_id}"


class Hospital(SealedRows):
    """A hospital with one validation set, which it seals, opens requests on and answers for."""

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
            order = self.keystore.read(ORDER_FILE)
            if order is None:
                raise RefusedError("the private part of the sealed set is gone; seal it again")
            labels = self._label_codes()
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

    def idle(self) -> None:
        """Make encryptions of zero ahead for the next run, once this party has answered a task."""
        if self._agent is not None:
            self._agent.prepare()

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
            self.agent.travelled(task.run_id, checks=task.checks_blob, check_replies=blob)
            return TargetChecksAnswer(replies_blob=blob)
        if isinstance(task, TargetRepliesTask):
            openings = self.transport.get_blob(task.openings_blob)
            replies = self.agent.target_replies(task.run_id, openings)
            blob = self.transport.put_blob(replies, "replies")
            self.agent.travelled(task.run_id, openings=task.openings_blob, replies=blob)
            return TargetRepliesAnswer(replies_blob=blob)
        return answer_round(self.agent, self.transport, task)

    def _valset_checks(self, task: ValsetChecksTask) -> str:
        if task.valset_id != self._valset()["valset_id"]:
            raise ProtocolError("the tests are of another validation set")
        checks = self.transport.get_blob(task.checks_blob)
        blob = self.transport.put_blob(self.agent.valset_checks(checks), "valset.replies")
        seen = {"checks": task.checks_blob, "replies": blob, "seed": task.seed_commitment}
        self.keystore.remember(tests_name(task.valset_id), seen)
        return blob

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
        blob = self.transport.put_blob(noise, "noise")
        self.agent.travelled(task.run_id, noise=blob)
        return blob

    def _score_digits(self, request_id: str, task: ScoreDigitsTask) -> str:
        if self._terms(request_id).valset_id != self._valset()["valset_id"]:
            raise ProtocolError("the request is on a set that was sealed under an older key")
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
        labels = self._label_codes()
        classes = cells.n_labels(self.schema)
        levels = {}
        for name in published_subgroups(self.schema, self.size.size_class):
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
            facts=privacy_facts(
                [table.get("coins", 0) for table in record["tables"]], terms.rho_score_micro
            ),
            record=record,
            labels=np.bincount(labels, minlength=classes),
            levels=levels,
            label=self.schema.label,
        )


def _request(body: Mapping[str, Any]) -> OpenRequest:
    try:
        return OpenRequest.model_validate_json(json.dumps(body))
    except ValueError as error:
        raise InputError(f"the terms of the request are malformed: {error}") from None
