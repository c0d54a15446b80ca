"""One key pair for the whole session, and helpers to play both roles."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from evil import Stage, Thief

from secure_eval.checked import CheckedScoringRun
from secure_eval.checked_agent import CheckedAgentRun
from secure_eval.evaluator import Opened
from secure_eval.integer_model import Column, IntegerModel, IntegerTree
from secure_eval.keyholder import KeyHolder, SealedSet
from secure_eval.noise import Table
from secure_eval.nonces import nonce_commitment

SEED = bytes(range(32))
NONCES = (b"n" * 16, b"d" * 16)
COMMITMENTS = [nonce_commitment(nonce) for nonce in NONCES]


@pytest.fixture(scope="session")
def key_holder() -> KeyHolder:
    return KeyHolder.generate()


@pytest.fixture(scope="session")
def thief(key_holder: KeyHolder) -> Thief:
    """The key's holder, who does what it likes."""
    return Thief(key_holder)


@pytest.fixture(scope="session")
def stage(key_holder: KeyHolder, linear_model: Callable) -> Stage:
    """A run up to its digits; each lie begins again from there (`early`)."""
    return Stage(key_holder, linear_model(2).with_edges([0, 16, 32]))


@dataclass
class Played:
    """Everything of one run, for tests to look at and to continue from."""

    sealed: SealedSet
    model: IntegerModel
    columns: np.ndarray
    labels: np.ndarray
    groups: dict[str, tuple[np.ndarray, int]]
    n_labels: int
    server: CheckedScoringRun
    agent: CheckedAgentRun
    new_server: Callable[..., CheckedScoringRun]
    new_agent: Callable[[], CheckedAgentRun]
    tables: list[Table]
    messages: dict[str, bytes] = field(default_factory=dict)
    opened: Opened | None = None

    def expected(self, noise: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Plain counts plus noise, straight from the definition."""
        scores = self.model.score_columns(self.columns)
        bins = np.searchsorted(self.model.edges, scores, side="right") - 1
        published = len(self.model.bin_edges) - 1
        counts = np.zeros((self.n_labels, published), np.int64)
        np.add.at(counts, (self.labels, bins), 1)
        counts += noise[: counts.size].reshape(counts.shape)
        start, groups = counts.size, {}
        positive = scores >= self.model.threshold
        for name, (codes, levels) in self.groups.items():
            table = np.zeros((levels, self.n_labels), np.int64)
            np.add.at(table, (codes[positive], self.labels[positive]), 1)
            groups[name] = table + noise[start : start + table.size].reshape(table.shape)
            start += table.size
        return counts, groups

    def server_before(self, name: str, **others: Any) -> CheckedScoringRun:
        """A fresh server led through this run's messages to its shares or openings."""
        server, messages = self.new_server(**others), self.messages
        server.early_checks(messages["digits"])
        server.accept_early(messages["early_replies"])
        if name == "openings":
            server.shares(messages["digits"])
            server.final_checks(messages["characters"])
            server.accept_final(messages["final_replies"])
        return server

    def agent_before(self, name: str) -> CheckedAgentRun:
        """The key holder in the middle of the run, before it answered a round."""
        agent = self.new_agent()
        agent.restore(self.agent.state())
        names = agent._ROUNDS
        for later in names[names.index(name) :]:
            del agent._rounds.stored[later]
        return agent

    def check(self) -> None:
        """Opened counts are plain counts plus the agent's noise, bit for bit."""
        assert self.opened is not None
        counts, groups = self.expected(self.agent.noise)
        assert np.array_equal(self.opened.counts, counts)
        assert self.opened.counts.dtype == np.int64
        assert sorted(self.opened.groups) == sorted(groups)
        for name, table in groups.items():
            assert np.array_equal(self.opened.groups[name], table)


@pytest.fixture(scope="session")
def play(key_holder: KeyHolder) -> Callable[..., Played]:
    """Return a function that runs the protocol up to a given message (all by default)."""

    def run(
        model: IntegerModel,
        columns: np.ndarray,
        labels: np.ndarray,
        n_labels: int = 2,
        groups: Mapping[str, tuple[Any, int]] | None = None,
        *,
        epsilon_micro: int | None = 500_000,
        coins: Sequence[int] = (),
        rows_per_block: int = 8192,
        until: str = "release",
        extra_columns: int = 0,
        column_map: Sequence[int] | None = None,
        key: KeyHolder = key_holder,
        strips: Sequence[int] = (),
    ) -> Played:
        groups = {n: (np.asarray(c), k) for n, (c, k) in (groups or {}).items()}
        where = list(range(len(model.columns))) if column_map is None else list(column_map)
        upload = np.zeros((len(labels), len(model.columns) + extra_columns), np.int64)
        upload[:, where] = columns
        sealed = key.seal(
            upload,
            labels,
            n_labels,
            groups=groups,
            max_rows_per_block=rows_per_block,
            strips=strips,
        )
        keys = key.public_keys()

        def new_server(seed: bytes = SEED, run_id: str = "run", **others: Any) -> CheckedScoringRun:
            given = {"model": model, "coins": coins, **others}
            return CheckedScoringRun(
                keys,
                sealed.layout,
                sealed.blobs,
                given["model"],
                where,
                seed,
                run_id,
                NONCES[0],
                coins=given["coins"],
            )

        def new_agent() -> CheckedAgentRun:
            return CheckedAgentRun(
                key,
                sealed.layout,
                labels[sealed.order],
                "run",
                bins=model.bins,
                rows_per_block=rows_per_block,
                allow_exact=epsilon_micro is None,
            )

        server, agent = new_server(), new_agent()
        numbers = coins or [0] * len(server.table_cells)
        tables = [
            Table(name, cells, epsilon_micro, number)
            for (name, cells), number in zip(server.table_cells, numbers, strict=True)
        ]
        played = Played(
            sealed,
            model,
            columns,
            labels,
            groups,
            n_labels,
            server,
            agent,
            new_server,
            new_agent,
            tables,
        )
        messages = played.messages
        steps: list[tuple[str, Callable[[], bytes]]] = [
            ("score", server.score),
            ("digits", lambda: agent.digits(messages["score"], tables, COMMITMENTS)),
            ("early_checks", lambda: server.early_checks(messages["digits"])),
            ("early_replies", lambda: agent.early_replies(messages["early_checks"])),
            ("shares", lambda: server.shares(messages["digits"])),
            ("characters", lambda: agent.characters(messages["shares"], NONCES)),
            ("final_checks", lambda: server.final_checks(messages["characters"])),
            ("final_replies", lambda: agent.final_replies(messages["final_checks"])),
            ("openings", lambda: server.openings(messages["characters"], NONCES)),
            ("replies", lambda: agent.replies(messages["openings"])),
        ]
        for name, step in steps:
            messages[name] = step()
            if name == "early_replies":
                server.accept_early(messages[name])
            elif name == "final_replies":
                server.accept_final(messages[name])
            if name == until:
                return played
        played.opened = server.release(messages["replies"])
        return played

    return run


@pytest.fixture(scope="session")
def linear_model() -> Callable[..., IntegerModel]:
    """Return a function that makes a linear model of value columns that fills the bins."""

    def make(n_columns: int, size: int = 16, seed: int = 0, **others: Any) -> IntegerModel:
        rng = np.random.default_rng(seed)
        raw = rng.normal(size=n_columns)
        weights = np.rint(raw * 515_000 / (np.abs(raw).sum() * (size - 1))).astype(np.int64)
        columns = tuple(Column.value_of(i, 0.0, 1.0, size) for i in range(n_columns))
        middle = int(weights.sum()) * (size - 1) // 2
        return IntegerModel(
            kind="linear",
            columns=columns,
            weights=weights,
            bias=-middle,
            n_features=n_columns,
            **others,
        )

    return make


@pytest.fixture(scope="session")
def tree_model() -> Callable[..., IntegerModel]:
    """Return a function that makes random trees, each of at most the given depth."""

    def make(
        n_trees: int, depth: int, n_bits: int, seed: int = 0, stop: float = 0.1, leaf: int = 0
    ) -> IntegerModel:
        rng = np.random.default_rng(seed)
        bound = leaf or 250_000 // n_trees
        columns = tuple(Column.bit_of(i, 0.5) for i in range(n_bits))

        def grow() -> IntegerTree:
            column: list[int] = []
            left: list[int] = []
            right: list[int] = []
            value: list[int] = []

            def node(level: int, free: list[int]) -> int:
                index = len(column)
                for array in (column, left, right):
                    array.append(-1)
                value.append(int(rng.integers(-bound, bound + 1)))
                if level < depth and (level == 0 or rng.random() > stop):
                    column[index] = bit = int(rng.choice(free))
                    rest = [other for other in free if other != bit] or free
                    left[index] = node(level + 1, rest)
                    right[index] = node(level + 1, rest)
                return index

            node(0, list(range(n_bits)))
            return IntegerTree(*map(np.array, (column, left, right, value)))

        return IntegerModel(
            kind="trees",
            columns=columns,
            weights=np.zeros(n_bits, np.int64),
            bias=int(rng.integers(-1000, 1000)),
            trees=tuple(grow() for _ in range(n_trees)),
            n_features=n_bits,
        )

    return make
