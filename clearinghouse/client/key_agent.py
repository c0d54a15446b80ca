"""The hospital's last line of defence: what may be opened, how often, and at which price.

Whatever the server asks, each run is approved against the request's own terms, paid in the ledger
before any noise is drawn or anything decrypted, and answered once.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clearinghouse.client.agreed import HISTOGRAM, check_opened, check_rho, check_tables, runs_in
from clearinghouse.client.budget import Budget
from clearinghouse.client.keystore import Keystore
from clearinghouse.client.opening_quota import OPENING_LIMIT, UPLOAD, OpeningQuota
from clearinghouse.errors import ProtocolError, RefusedError
from clearinghouse.failpoints import reach
from clearinghouse.messages.intake import OpenRequest
from clearinghouse.messages.tasks import (
    ScoreDigitsTask,
    TargetCommitTask,
    TargetNoiseTask,
)
from clearinghouse.noise_laws import run_cost
from secure_eval.agent_target import AgentTarget
from secure_eval.checked_agent import AgentUpload, CheckedAgentRun
from secure_eval.checks import CHECK_OPENINGS, EARLY_OPENINGS
from secure_eval.class_agent import ClassesAgentRun
from secure_eval.keyholder import KeyHolder, RefusedAfterDecryptionError
from secure_eval.layout import MAC_OPENINGS, Layout
from secure_eval.noise import Table

UPLOAD_STATE = "private/states/upload.state"
_PREPARED_AT_ONCE = 16

Integers = NDArray[np.int64]
AgentSide = CheckedAgentRun | ClassesAgentRun
"""The agent's side of a run: one model, or one for each class, with the same rounds."""


class Stateful(Protocol):
    """A side of a protocol whose answers can be stored."""

    def state(self) -> bytes:
        """Everything needed to go on after a restart."""
        ...


@dataclass(frozen=True, slots=True)
class Secrets:
    """What the agent opens with.

    Attributes:
        holder: The secret key.
        layout: Public shape of the sealed set.
        labels: (n,) label codes in the sealed order.
        target: Exact (cell, label) counts of the sealed rows, row-major.
    """

    holder: KeyHolder
    layout: Layout
    labels: Integers
    target: Integers


class KeyAgent:
    """Answers the rounds of every run on one sealed set; survives a restart at any point."""

    def __init__(
        self,
        secrets_: Secrets,
        keystore: Keystore,
        budget: Budget,
        opening_limit: int = OPENING_LIMIT,
    ) -> None:
        self._secrets, self._keystore, self._budget = secrets_, keystore, budget
        self.quota = OpeningQuota(keystore, opening_limit)
        self._runs: dict[str, AgentSide] = {}

    # ---------------------------------------------------------------- what is remembered

    def record(self, run_id: str) -> dict[str, Any]:
        """The agent's private note of a run: request, model, tables, noise, exact counts.

        Raises:
            RefusedError: No such run was approved.
        """
        found = self._keystore.recall(f"private/runs/{run_id}")
        if found is None:
            raise RefusedError(f"run {run_id} was never approved")
        return dict(found)

    def write_record(self, run_id: str, record: Mapping[str, Any]) -> None:
        """Keep the note of a run; it is never sent anywhere."""
        self._keystore.remember(f"private/runs/{run_id}", dict(record))

    def _approved(self) -> dict[str, dict[str, str]]:
        """Every run ever approved on this sealed set: run id to request and model digest."""
        return dict(self._keystore.recall("private/approved") or {})

    def _approve(self, run_id: str, request_id: str, model_digest: str) -> None:
        runs = self._approved()
        runs[run_id] = {"request": request_id, "model": model_digest}
        self._keystore.remember("private/approved", runs)

    @contextmanager
    def _saved(self, name: str, agent: Stateful) -> Iterator[None]:
        """Store what an agent answered before it leaves, and what it refused after decryption.

        The latter ends the run for good: a restart must not reopen the round.
        """
        try:
            yield
        except RefusedAfterDecryptionError:
            self._keystore.write(name, agent.state())
            raise
        reach("agent.opened")
        self._keystore.write(name, agent.state())

    # ---------------------------------------------------------------- tests of the sealed rows

    def valset_checks(self, checks: bytes) -> bytes:
        """The three opened tests of the sealed set, once in its life.

        Raises:
            ValueError: Malformed, or other tests than were answered before.
            RefusedError: The key has no openings left.
        """
        self.quota.reserve(UPLOAD, CHECK_OPENINGS)
        agent = AgentUpload(self._secrets.holder)
        state = self._keystore.read(UPLOAD_STATE)
        if state is not None:
            agent.restore(state)
        with self._saved(UPLOAD_STATE, agent):
            return agent.replies(checks)

    # ---------------------------------------------------------------- target

    def target_commit(self, request_id: str, terms: OpenRequest, task: TargetCommitTask) -> bytes:
        """The commitment to the noise key of the request's target; nothing is spent yet.

        Raises:
            RefusedError: Another target was opened for this request.
            ProtocolError: The task is not what was agreed.
        """
        layout = self._secrets.layout
        if (task.cells, task.labels) != (layout.cells, layout.labels):
            raise ProtocolError("the target's cells and labels are not those of the sealed set")
        if task.epsilon_micro != terms.epsilon_target_micro:
            raise ProtocolError("the target's epsilon is not the one of the request")
        self._check_target(request_id, task.run_id)
        agent = self._target(task.run_id)
        commitment = agent.commit(bytes.fromhex(task.nonce_commitment))
        self._keystore.write(_state_name(task.run_id), agent.state())
        if self._keystore.recall(f"private/runs/{task.run_id}") is None:
            self.write_record(
                task.run_id,
                {
                    "kind": "target",
                    "request_id": request_id,
                    "tables": [],
                    "seed_commitment": task.seed_commitment,
                    "nonce_commitment": task.nonce_commitment,
                },
            )
        return commitment

    def _check_target(self, request_id: str, run_id: str) -> None:
        for other, known in self._approved().items():
            if other != run_id and known == {"request": request_id, "model": ""}:
                raise RefusedError("this request's target was opened before")

    def target_noise(self, request_id: str, terms: OpenRequest, task: TargetNoiseTask) -> bytes:
        """The encrypted noise of the request's target; its epsilon is spent first.

        Raises:
            RefusedError: Another target was opened for this request, or the key has no openings
                left.
            ProtocolError: The nonce does not open its commitment.
            BudgetExceededError: The budget does not hold it; nothing was drawn.
        """
        record = self.record(task.run_id)
        self._check_target(request_id, task.run_id)
        nonce, epsilon = bytes.fromhex(task.nonce), terms.epsilon_target_micro
        check_opened([nonce], [record["nonce_commitment"]])
        openings = len(self._secrets.target) + MAC_OPENINGS + 1
        self.quota.check(task.run_id, openings)
        agent = self._target(task.run_id)

        def draw() -> bytes:
            self.quota.reserve(task.run_id, openings)
            self._approve(task.run_id, request_id, "")
            agent.noise_message(nonce, epsilon)
            self._keystore.write(_state_name(task.run_id), agent.state())
            table = _table_record("target", agent.noise, self._secrets.target)
            self.write_record(task.run_id, {**record, "tables": [table]})
            return b"drawn"

        asked = {"run": task.run_id, "request": request_id, "nonces": [task.nonce]}
        self._budget.release(task.run_id, asked, epsilon, draw, "target")
        return self._target(task.run_id).noise_message(nonce, epsilon)

    def target_checks(self, run_id: str, checks: bytes) -> bytes:
        """The opened noise test of a target's noise."""
        self.record(run_id)
        agent = self._target(run_id)
        with self._saved(_state_name(run_id), agent):
            return agent.checks(checks)

    def target_replies(self, run_id: str, openings: bytes) -> bytes:
        """The opened masked sums of a target whose noise was sent."""
        self.record(run_id)
        agent = self._target(run_id)
        with self._saved(_state_name(run_id), agent):
            return agent.replies(openings)

    def _target(self, run_id: str) -> AgentTarget:
        """The target's state, or a fresh one under a noise key of its own."""
        agent = AgentTarget(self._secrets.holder, self._secrets.layout, run_id)
        state = self._keystore.read(_state_name(run_id))
        if state is not None:
            agent.restore(state)
        return agent

    def prepare(self) -> int:
        """Make some encryptions of zero ahead; return how many. A batch takes about 50 ms."""
        return self._secrets.holder.prepare(_PREPARED_AT_ONCE)

    # ---------------------------------------------------------------- score

    def score_digits(
        self, request_id: str, terms: OpenRequest, task: ScoreDigitsTask, score: bytes
    ) -> bytes:
        """One-hot digits of the masked scores; the whole run's epsilon is spent first.

        Raises:
            RefusedError: The model was run before, the request's runs are used up, or the key has
                no openings left.
            ProtocolError: The tables or their noise law are not what was agreed.
            BudgetExceededError: The budget does not hold the run; nothing was decrypted.
        """
        self._check_run(request_id, terms, task)
        check_tables(task.tables, self._secrets.layout, terms.epsilon_score_micro, terms.noise_law)
        check_rho(task.tables, terms.rho_score_micro)
        if len(task.nonce_commitments) != 2:
            raise ProtocolError("a run's noise needs the commitments to two nonces")
        cells = sum(table.cells for table in task.tables)
        parts = runs_in([table.name for table in task.tables])
        openings = cells + parts * (EARLY_OPENINGS + CHECK_OPENINGS + MAC_OPENINGS)
        self.quota.check(task.run_id, openings)
        agreed = (
            [Table(t.name, t.cells, t.epsilon_micro, t.coins) for t in task.tables],
            [bytes.fromhex(item) for item in task.nonce_commitments],
        )

        def draw() -> bytes:
            self.quota.reserve(task.run_id, openings)
            self._approve(task.run_id, request_id, task.model_digest)
            agent = self._fresh_run(task.run_id, [table.name for table in task.tables])
            with self._saved(_state_name(task.run_id), agent):
                agent.digits(score, *agreed)
            self.write_record(
                task.run_id,
                {
                    "kind": "score",
                    "request_id": request_id,
                    "model_id": task.model_id,
                    "model_digest": task.model_digest,
                    "tables": [table.model_dump() for table in task.tables],
                    "seed_commitment": task.seed_commitment,
                    "nonce_commitments": list(task.nonce_commitments),
                },
            )
            return b"drawn"

        asked = {
            "run": task.run_id,
            "request": request_id,
            "model": task.model_digest,
            "score": task.score_blob,
            "tables": [table.model_dump() for table in task.tables],
            "nonces": list(task.nonce_commitments),
        }
        cost = run_cost(terms.epsilon_score_micro, terms.rho_score_micro)
        self._budget.release(task.run_id, asked, cost, draw, "score")
        return self._run(task.run_id).digits(score, *agreed)

    def _check_run(self, request_id: str, terms: OpenRequest, task: ScoreDigitsTask) -> None:
        runs = self._approved()
        others = {run_id: known for run_id, known in runs.items() if run_id != task.run_id}
        if task.run_id in runs and runs[task.run_id] != {
            "request": request_id,
            "model": task.model_digest,
        }:
            raise ProtocolError("this run was approved for another model or request")
        if any(known["model"] == task.model_digest for known in others.values()):
            raise RefusedError("this model was scored before; one run for each model")
        mine = [known for known in others.values() if known["request"] == request_id]
        if not any(known["model"] == "" for known in mine):
            raise RefusedError("no model is scored before the request's target was opened")
        if sum(known["model"] != "" for known in mine) >= terms.most_runs:
            raise RefusedError(f"all {terms.most_runs} runs of this request are used")

    def score_early(self, run_id: str, checks: bytes) -> bytes:
        """The three opened tests of a run's digits."""
        self.record(run_id)
        agent = self._run(run_id)
        with self._saved(_state_name(run_id), agent):
            return agent.early_replies(checks)

    def score_characters(self, run_id: str, shares: bytes, nonces: Sequence[str]) -> bytes:
        """Label characters and the run's noise, which follows from the committed key and nonces.

        Raises:
            ProtocolError: A nonce does not open its commitment.
        """
        opened = [bytes.fromhex(nonce) for nonce in nonces]
        check_opened(opened, self.record(run_id)["nonce_commitments"])
        agent = self._run(run_id)
        with self._saved(_state_name(run_id), agent):
            return agent.characters(shares, opened)

    def score_final(self, run_id: str, checks: bytes) -> bytes:
        """The three opened tests of a run's characters."""
        self.record(run_id)
        agent = self._run(run_id)
        with self._saved(_state_name(run_id), agent):
            return agent.final_replies(checks)

    def score_replies(self, run_id: str, openings: bytes) -> bytes:
        """The opened masked sums of a run; its noise goes into the private record."""
        record = self.record(run_id)
        agent = self._run(run_id)
        with self._saved(_state_name(run_id), agent):
            replies = agent.replies(openings)
        start = 0
        for table in record["tables"]:
            table["noise"] = agent.noise[start : start + table["cells"]].tolist()
            start += table["cells"]
        self.write_record(run_id, record)
        return replies

    def finish(self, run_id: str, exact: Mapping[str, Sequence[int]]) -> None:
        """After the receipt: keep the exact counts, forget the run's ciphertext state."""
        record = self.record(run_id)
        for table in record["tables"]:
            table["exact"] = list(exact[table["name"]])
        self.write_record(run_id, record)
        self._runs.pop(run_id, None)
        self._keystore.forget(_state_name(run_id))

    def travelled(self, run_id: str, **blobs: str) -> None:
        """Note the names of blobs that came and went, for the transcript that is signed."""
        record = self.record(run_id)
        self.write_record(run_id, {**record, "blobs": {**record.get("blobs", {}), **blobs}})

    def _fresh_run(self, run_id: str, tables: Sequence[str]) -> AgentSide:
        kind = CheckedAgentRun if HISTOGRAM in tables else ClassesAgentRun
        found = kind(self._secrets.holder, self._secrets.layout, self._secrets.labels, run_id)
        self._runs[run_id] = found
        return found

    def _run(self, run_id: str) -> AgentSide:
        """A run as it was left, from memory or from its stored state."""
        if run_id in self._runs:
            return self._runs[run_id]
        state = self._keystore.read(_state_name(run_id))
        if state is None:
            raise RefusedError(f"run {run_id} has no state here; it was finished or never begun")
        tables = [table["name"] for table in self.record(run_id)["tables"]]
        found = self._fresh_run(run_id, tables)
        found.restore(state)
        return found


def _state_name(run_id: str) -> str:
    return f"private/states/{run_id}.state"


def _table_record(name: str, noise: Integers, exact: Integers) -> dict[str, Any]:
    return {"name": name, "cells": len(noise), "noise": noise.tolist(), "exact": exact.tolist()}
