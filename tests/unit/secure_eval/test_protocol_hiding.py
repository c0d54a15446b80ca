"""What flooding has to hide: the own noise of everything that the key holder is sent, by its key.

Flooding of 2^58 leaves 58 - n bits over noise of 2^n. docs/protocol.md promises 44 or more of
everything but the noise tests, which hold nothing of the evaluator's and are not flooded. Noise
above 2^61 would besides make an honest key holder refuse.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from evil import COMMITMENTS, NONCES, Thief, parts_of, rewritten

from secure_eval.checked import CheckedScoringRun
from secure_eval.checked_agent import AgentUpload, CheckedAgentRun
from secure_eval.class_agent import ClassesAgentRun
from secure_eval.class_models import ClassModels
from secure_eval.class_run import ClassesScoringRun
from secure_eval.framing import Kind
from secure_eval.integer_model import Column, IntegerModel
from secure_eval.keyholder import KeyHolder
from secure_eval.noise import Table
from secure_eval.one_class import split_parts
from secure_eval.params import PARAMETERS
from secure_eval.prg import Prg
from secure_eval.upload_checks import UploadChecks

SEED = bytes(range(32))
HIDING = 44
#: bits of budget that the key holder finds in an unflooded noise test, at least; it needs 1
NOISE_TEST_BUDGET = 3


@pytest.fixture
def unflooded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same messages without flooding, so that their own noise shows."""
    drawn = Prg.centred

    def centred(prg: Prg, bits: int, count: int, *name: Any) -> np.ndarray:
        values = drawn(prg, bits, count, *name)
        return values * 0 if name[0] == "flood" else values

    monkeypatch.setattr(Prg, "centred", centred)


class Ear:
    """Records the loudest own noise of each kind of opening and vector."""

    def __init__(self, holder: KeyHolder) -> None:
        self.thief = Thief(holder)
        self.bits: dict[str, float] = {}
        self.budgets: list[int] = []

    def openings(self, message: bytes, kind: Kind, tests: bool) -> None:
        for index, part in enumerate(parts := parts_of(message, kind)):
            if tests and index == len(parts) - 1:
                self.noise_test(part)
                continue
            name = f"{kind.name} {index}" if tests else kind.name
            self._heard(name, abs(self.thief.opening_noise_of(part)))

    def vectors(self, message: bytes, kind: Kind) -> None:
        for part in parts_of(message, kind):
            self._heard(kind.name, max(map(abs, self.thief.noise_of(part))))

    def _heard(self, name: str, noise: int) -> None:
        self.bits[name] = max(self.bits.get(name, 0.0), float(np.log2(max(1, noise))))

    def noise_test(self, part: bytes) -> None:
        budget = 0
        while budget < 20:
            try:
                self.thief.holder.opened(memoryview(part), "x", budget + 1)
            except ValueError:
                break
            budget += 1
        self.budgets.append(budget)


def listened(holder: KeyHolder, server: Any, agent: Any, split: Callable) -> Ear:
    """A whole run, each message heard."""
    ear = Ear(holder)
    tables = [Table(name, cells, 500_000) for name, cells in server.table_cells]
    score = server.score()
    digits = agent.digits(score, tables, COMMITMENTS)
    early = server.early_checks(digits)
    server.accept_early(agent.early_replies(early))
    shares = server.shares(digits)
    characters = agent.characters(shares, NONCES)
    final = server.final_checks(characters)
    server.accept_final(agent.final_replies(final))
    openings = server.openings(characters, NONCES)
    for message, kind in ((score, Kind.SCORE), (shares, Kind.SHARES)):
        for part in split(message):
            ear.vectors(part, kind)
    for message, kind in ((early, Kind.EARLY_CHECKS), (final, Kind.FINAL_CHECKS)):
        for part in split(message):
            ear.openings(part, kind, tests=True)
    for part in split(openings):
        ear.openings(part, Kind.OPENINGS, tests=False)
    server.release(agent.replies(openings))
    return ear


def check(ear: Ear) -> None:
    kinds = {name.partition(" ")[0] for name in ear.bits}
    assert kinds == {"SCORE", "SHARES", "EARLY_CHECKS", "FINAL_CHECKS", "OPENINGS"}
    assert sum(name.startswith("EARLY") for name in ear.bits) == 5
    assert sum(name.startswith("FINAL") for name in ear.bits) == 2
    loud = {name: bits for name, bits in ear.bits.items() if PARAMETERS.flood_bits - bits < HIDING}
    assert not loud, f"own noise in bits: {loud}; at most {PARAMETERS.flood_bits - HIDING}"
    assert min(ear.budgets) >= NOISE_TEST_BUDGET, ear.budgets


def residual_model() -> IntegerModel:
    """A prediction less the label, which is the last column."""
    columns = (Column.value_of(0, 0.0, 1.0, 511), Column.value_of(1, 0.0, 1.0, 511))
    weights = np.array([498, -500])
    return IntegerModel(kind="linear", columns=columns, weights=weights, bias=500, n_features=2)


@pytest.fixture(scope="module")
def models(linear_model: Callable, tree_model: Callable) -> dict[str, IntegerModel]:
    bits = tuple(Column.bit_of(i, 0.5) for i in range(40))
    weights = np.random.default_rng(0).integers(-6000, 6001, 40)
    return {
        "linear": linear_model(8),
        "additive": IntegerModel(
            kind="additive", columns=bits, weights=weights, bias=0, n_features=40
        ),
        # one tree has the largest leaves, many trees the most terms; they are equally loud
        "trees of depth 3": tree_model(20, 3, 12, stop=0.0),
        "one tree of depth 4": tree_model(1, 4, 16, stop=0.0),
        "a number": residual_model(),
    }


ONE_TREE = pytest.param("one tree of depth 4", marks=pytest.mark.long)
"""As loud as many of depth 3; trees of depth 4 are also in the run of classes."""

KINDS = ["linear", "additive", "trees of depth 3", ONE_TREE, "a number", "packed"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("unflooded")
def test_every_opening_of_a_run_is_hidden(
    key_holder: KeyHolder, models: dict[str, IntegerModel], kind: str
) -> None:
    packed = kind == "packed"
    kind = "additive" if packed else kind
    model, rng = models[kind].with_edges([0, 16, 32]), np.random.default_rng(1)
    labels = 1 if kind == "a number" else 2
    columns = rng.integers(0, [column.size for column in model.columns], (60, len(model.columns)))
    codes = rng.integers(0, labels, 60)
    groups = {"sex": (rng.integers(0, 2, 60), 2)}
    strips = (1,) * len(model.columns) if packed else ()
    sealed = key_holder.seal(columns, codes, labels, groups=groups, strips=strips)
    inputs = (key_holder.public_keys(), sealed.layout, sealed.blobs, model)
    server = CheckedScoringRun(*inputs, range(len(model.columns)), SEED, "run", NONCES[0])
    agent = CheckedAgentRun(key_holder, sealed.layout, codes[sealed.order], "run", bins=model.bins)
    check(listened(key_holder, server, agent, lambda message: [message]))


@pytest.mark.parametrize("where", [slice(77, 78), slice(None)], ids=["one", "all"])
@pytest.mark.usefixtures("unflooded")
def test_loud_layers_leave_no_trace_in_a_packed_score(
    key_holder: KeyHolder, models: dict[str, IntegerModel], where: slice
) -> None:
    """Noise far above what passes the upload's test, 2^22, vanishes when primes are dropped.

    Measured: 2^60 leaves the honest 2^11; from 2^80 (all coefficients) or 2^90 (one) it shows.
    """
    model, rng, thief = models["additive"], np.random.default_rng(1), Thief(key_holder)
    columns, codes = rng.integers(0, 2, (60, 40)), rng.integers(0, 2, 60)
    sealed = key_holder.seal(columns, codes, 2, strips=(1,) * 40)
    loud = thief.loud(range(sealed.layout.layers), 60, where)
    blob = rewritten(sealed.blobs[0], Kind.UPLOAD_BLOCK, loud)
    inputs = (key_holder.public_keys(), sealed.layout, [blob], model)
    server, ear = CheckedScoringRun(*inputs, range(40), SEED, "run", NONCES[0]), Ear(key_holder)
    ear.vectors(server.score(), Kind.SCORE)
    assert ear.bits["SCORE"] <= PARAMETERS.flood_bits - HIDING


@pytest.mark.usefixtures("unflooded")
def test_every_opening_of_a_run_of_classes_is_hidden(
    key_holder: KeyHolder, tree_model: Callable
) -> None:
    rng = np.random.default_rng(2)
    trees = [tree_model(4, depth, 12, seed=depth, stop=0.0) for depth in (1, 3, 4)]
    parts = tuple(part.with_edges([0, 16, 32]) for part in trees)
    model = ClassModels(parts, "one-vs-rest")
    columns, codes = rng.integers(0, 2, (60, 12)), rng.integers(0, 3, 60)
    sealed = key_holder.seal(columns, codes, 3)
    inputs = (key_holder.public_keys(), sealed.layout, sealed.blobs, model)
    server = ClassesScoringRun(*inputs, [range(12)] * 3, SEED, "run", NONCES[0])
    agent = ClassesAgentRun(key_holder, sealed.layout, codes[sealed.order], "run")
    check(listened(key_holder, server, agent, lambda message: split_parts(message, 3)))


@pytest.mark.parametrize("strips", [(), (2,)])
@pytest.mark.usefixtures("unflooded")
def test_the_tests_of_an_upload_are_hidden(key_holder: KeyHolder, strips: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    bits = np.sort(rng.integers(0, 2, (40, 2)))[:, ::-1]
    labels, cells = rng.integers(0, 2, 40), rng.integers(0, 3, 40)
    sealed = key_holder.seal(bits, labels, 2, cells, 3, strips=strips)
    checks = UploadChecks(
        key_holder.public_keys(),
        sealed.layout,
        sealed.blobs,
        SEED,
        "upload",
        partitions=[[{4: 1, 0: -1}, {0: 1, 1: -1}, {1: 1}]],
    )
    message, ear = checks.message(), Ear(key_holder)
    ear.openings(message, Kind.UPLOAD_CHECKS, tests=True)
    assert max(ear.bits.values()) <= PARAMETERS.flood_bits - HIDING
    assert min(ear.budgets) >= NOISE_TEST_BUDGET
    checks.accept(AgentUpload(key_holder).replies(message))
