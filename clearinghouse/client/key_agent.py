"""The hospital's last line of defence: what may be opened, how often, and at which price.

Whatever the server asks, each run is approved against the request's own terms, paid in the ledger
before any noise is drawn or anything decrypted, and answered once.
"""

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clearinghouse.client.budget import Budget
from clearinghouse.client.keystore import Keystore
from clearinghouse.errors import ProtocolError, RefusedError
from clearinghouse.messages.intake import OpenRequest
from clearinghouse.messages.tasks import NoiseTable, ScoreDigitsTask, TargetNoiseTask
from secure_eval import framing
from secure_eval.agent import AgentTarget
from secure_eval.checked_agent import AgentUpload, CheckedAgentRun
from secure_eval.framing import Kind
from secure_eval.keyholder import KeyHolder, RefusedAfterDecryptionError
from secure_eval.layout import Layout
from secure_eval.noise import MIN_EPSILON_MICRO, Table, commitment

NOISE_KEY_BYTES = 32
NONCE_BYTES = 16
HISTOGRAM = "histogram"
MOST_BINS = 64
_NO_NONCE = bytes(NONCE_BYTES)
_UPLOAD_STATE = "private/states/upload.state"

Integers = NDArray[np.int64]


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
        noise_key: The committed key of the target's noise.
        target: Exact (cell, label) counts of the sealed rows, row-major.
    """

    holder: KeyHolder
    layout: Layout
    labels: Integers
    noise_key: bytes
    target: Integers


class KeyAgent:
    """Answers the rounds of every run on one sealed set; survives a restart at any point."""

    def __init__(self, secrets_: Secrets, keystore: Keystore, budget: Budget) -> None:
        self._secrets, self._keystore, self._budget = secrets_, keystore, budget
        self._runs: dict[str, CheckedAgentRun] = {}

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
        self._keystore.write(name, agent.state())

    # ---------------------------------------------------------------- tests of the sealed rows

    def valset_checks(self, checks: bytes) -> bytes:
        """The three opened tests of the sealed set, once in its life.

        Raises:
            ValueError: Malformed, or other tests than were answered before.
        """
        agent = AgentUpload(self._secrets.holder)
        state = self._keystore.read(_UPLOAD_STATE)
        if state is not None:
            agent.restore(state)
        with self._saved(_UPLOAD_STATE, agent):
            return agent.replies(checks)

    # ---------------------------------------------------------------- target

    def target_noise(self, request_id: str, terms: OpenRequest, task: TargetNoiseTask) -> bytes:
        """The encrypted noise of the request's target; its epsilon is spent first.

        Raises:
            RefusedError: Another target was opened for this request.
            ProtocolError: The task is not what was agreed.
            BudgetExceededError: The budget does not hold it; nothing was drawn.
        """
        layout = self._secrets.layout
        if (task.cells, task.labels) != (layout.cells, layout.labels):
            raise ProtocolError("the target's cells and labels are not those of the sealed set")
        if task.epsilon_micro != terms.epsilon_target_micro:
            raise ProtocolError("the target's epsilon is not the one of the request")
        first, second = _nonces(task.nonces)
        for run_id, known in self._approved().items():
            if run_id != task.run_id and known == {"request": request_id, "model": ""}:
                raise RefusedError("this request's target was opened before")
        agent = self._target(task.run_id)

        def draw() -> bytes:
            self._approve(task.run_id, request_id, "")
            agent.noise_message((first, second), task.epsilon_micro)
            self._keystore.write(_state_name(task.run_id), agent.state())
            table = _table_record("target", agent.noise, self._secrets.target)
            body = {"kind": "target", "request_id": request_id, "tables": [table]}
            self.write_record(task.run_id, body)
            return b"drawn"

        asked = {"run": task.run_id, "request": request_id, "nonces": list(task.nonces)}
        self._budget.release(task.run_id, asked, task.epsilon_micro, draw, "target")
        return self._target(task.run_id).noise_message((first, second), task.epsilon_micro)

    def target_replies(self, run_id: str, openings: bytes) -> bytes:
        """The opened masked sums of a target whose noise was sent."""
        self.record(run_id)
        agent = self._target(run_id)
        with self._saved(_state_name(run_id), agent):
            return agent.replies(openings)

    def _target(self, run_id: str) -> AgentTarget:
        """The target's state, or a fresh one under the committed noise key."""
        agent = AgentTarget(self._secrets.holder, self._secrets.layout, run_id)
        state = self._keystore.read(_state_name(run_id))
        agent.restore(state or target_state(run_id, self._secrets.noise_key))
        return agent

    # ---------------------------------------------------------------- score

    def score_digits(
        self, request_id: str, terms: OpenRequest, task: ScoreDigitsTask, score: bytes
    ) -> bytes:
        """One-hot digits of the masked scores; the whole run's epsilon is spent first.

        Raises:
            RefusedError: The model was run before, or the request's runs are used up.
            ProtocolError: The tables are not what was agreed.
            BudgetExceededError: The budget does not hold the run; nothing was decrypted.
        """
        self._check_run(request_id, terms, task)
        check_tables(task.tables, self._secrets.layout, terms.epsilon_score_micro)

        def draw() -> bytes:
            self._approve(task.run_id, request_id, task.model_digest)
            agent = self._fresh_run(task.run_id)
            with self._saved(_state_name(task.run_id), agent):
                agent.digits(score)
            self.write_record(
                task.run_id,
                {
                    "kind": "score",
                    "request_id": request_id,
                    "model_id": task.model_id,
                    "model_digest": task.model_digest,
                    "tables": [table.model_dump() for table in task.tables],
                },
            )
            return b"drawn"

        asked = {
            "run": task.run_id,
            "request": request_id,
            "model": task.model_digest,
            "score": task.score_blob,
            "tables": [table.model_dump() for table in task.tables],
        }
        self._budget.release(task.run_id, asked, terms.epsilon_score_micro, draw, "score")
        return self._run(task.run_id).digits(score)

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
        """Label characters and the run's encrypted noise, drawn from the committed key."""
        record = self.record(run_id)
        if len(nonces) != 2:
            raise ProtocolError(f"a run's noise needs two nonces, not {len(nonces)}")
        tables = [
            Table(item["name"], item["cells"], item["epsilon_micro"]) for item in record["tables"]
        ]
        agent = self._run(run_id)
        with self._saved(_state_name(run_id), agent):
            return agent.characters(shares, _nonces(nonces), tables)

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

    def _fresh_run(self, run_id: str) -> CheckedAgentRun:
        found = CheckedAgentRun(
            self._secrets.holder, self._secrets.layout, self._secrets.labels, run_id
        )
        self._runs[run_id] = found
        return found

    def _run(self, run_id: str) -> CheckedAgentRun:
        """A run as it was left, from memory or from its stored state."""
        if run_id in self._runs:
            return self._runs[run_id]
        state = self._keystore.read(_state_name(run_id))
        if state is None:
            raise RefusedError(f"run {run_id} has no state here; it was finished or never begun")
        found = self._fresh_run(run_id)
        found.restore(state)
        return found


def _state_name(run_id: str) -> str:
    return f"private/states/{run_id}.state"


def _table_record(name: str, noise: Integers, exact: Integers) -> dict[str, Any]:
    return {"name": name, "cells": len(noise), "noise": noise.tolist(), "exact": exact.tolist()}


def _nonces(texts: Sequence[str]) -> tuple[bytes, bytes]:
    """Two nonces of 16 bytes; zeros stand in for the second where only one is given.

    Raises:
        ProtocolError: Another number or length.
    """
    raw = [bytes.fromhex(text) for text in texts]
    if not 1 <= len(raw) <= 2 or any(len(nonce) != NONCE_BYTES for nonce in raw):
        raise ProtocolError(f"expected one or two nonces of {NONCE_BYTES} bytes")
    return raw[0], raw[1] if len(raw) == 2 else _NO_NONCE


def check_tables(tables: Sequence[NoiseTable], layout: Layout, epsilon_micro: int) -> None:
    """Check that a run releases the histogram and each subgroup once, for the agreed epsilon.

    A patient is in one cell of each table, so the tables' epsilons add.

    Raises:
        ProtocolError: Other tables, other shapes, or another sum of epsilons.
    """
    expected = [f"group:{name}" for name, _ in layout.groups]
    if [table.name for table in tables] != [HISTOGRAM, *expected]:
        raise ProtocolError(f"a run releases the tables {[HISTOGRAM, *expected]}, no others")
    bins, rest = divmod(tables[0].cells, layout.labels)
    if rest or not 1 <= bins <= MOST_BINS:
        raise ProtocolError(f"a histogram has labels x 1 to {MOST_BINS} bins")
    for table, (name, levels) in zip(tables[1:], layout.groups, strict=True):
        if table.cells != levels * layout.labels:
            raise ProtocolError(f"the table of {name} has {levels * layout.labels} cells")
    if any(table.epsilon_micro < MIN_EPSILON_MICRO for table in tables):
        raise ProtocolError(f"every table needs an epsilon of {MIN_EPSILON_MICRO} millionths")
    total = sum(table.epsilon_micro for table in tables)
    if total != epsilon_micro:
        raise ProtocolError(
            f"the tables' epsilons sum to {total} millionths; the request says {epsilon_micro}"
        )


def new_noise_key() -> tuple[bytes, str]:
    """A fresh key for the target's noise and the commitment to publish."""
    key = secrets.token_bytes(NOISE_KEY_BYTES)
    return key, commitment(key).hex()


def target_state(run_id: str, noise_key: bytes) -> bytes:
    """The state of a target that has answered nothing yet, under a key committed before."""
    head = json.dumps({"run_id": run_id}).encode()
    return framing.encode(Kind.TARGET_STATE, [head, noise_key, b"", b"", b"", b"", b""])
