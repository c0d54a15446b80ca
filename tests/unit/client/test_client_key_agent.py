"""The key agent's rounds: in turn, each once, so many openings as agreed, whatever restarts."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from clearinghouse.client.budget import Budget
from clearinghouse.client.key_agent import KeyAgent, Secrets
from clearinghouse.client.keystore import Keystore
from clearinghouse.errors import BudgetExceededError, ProtocolError, RefusedError
from clearinghouse.ids import new_id
from clearinghouse.messages.intake import OpenRequest
from clearinghouse.messages.tasks import ScoreDigitsTask
from clearinghouse.rounds.turns import noise_tables
from dp.cost import Cost
from dp.laws import coins_micro_rho
from secure_eval.checked import CheckedScoringRun
from secure_eval.checks import CHECK_OPENINGS, EARLY_OPENINGS
from secure_eval.framing import Kind, decode, encode
from secure_eval.integer_model import Column, IntegerModel
from secure_eval.keyholder import KeyHolder
from secure_eval.nonces import nonce_commitment
from secure_eval.packing import OPENING_BYTES
from secure_eval.params import PARAMETERS
from secure_eval.upload_checks import UploadChecks

TERMS = OpenRequest.model_validate(
    {
        "valset_id": new_id("val"),
        "source_ids": [new_id("src")],
        "developer_ids": [new_id("org")],
        "records": 20,
        "currency": "EUR",
        "tariff_micro": 6_000_000,
        "distance_price_micro": 1_000_000,
        "share_cap_micro": 1_500_000,
        "fee_micro": 50_000,
        "epsilon_target_micro": 500_000,
        "epsilon_score_micro": 400_000,
        "purse": {
            "kind": "acceptance",
            "amount_micro": 1,
            "metric": "auc",
            "threshold_micro": 700_000,
            "confidence_micro": 900_000,
        },
    }
)
NONCES = ["6e" * 16, "64" * 16]
COMMITMENTS = [nonce_commitment(bytes.fromhex(nonce)).hex() for nonce in NONCES]
MODEL = IntegerModel(
    kind="linear",
    columns=tuple(Column.value_of(index, 0.0, 1.0, 16) for index in range(2)),
    weights=np.array([17_000, -17_000]),
    bias=0,
    n_features=2,
).with_edges([0, 16, 32])


@dataclass
class Bench:
    """A sealed set, and the agent that holds its key; restarted before every call."""

    folder: Any
    sealed: Any
    secrets: Secrets
    limit: int = 340
    terms: OpenRequest = TERMS

    @property
    def agent(self):
        budget = Budget(self.folder / "ledger.sqlite", 2_000_000, self.rho_limit)
        keystore = Keystore.open(self.folder / "home")
        return KeyAgent(self.secrets, keystore, budget, self.limit)

    def upload_checks(self, seed):
        keys = self.secrets.holder.public_keys()
        return UploadChecks(keys, self.sealed.layout, self.sealed.blobs, seed, "valset")

    law: str = "geometric"
    rho_limit: int = 0

    def begin(self):
        """(run id, server) after the digits."""
        run_id, request_id = new_id("run"), new_id("req")
        Keystore.open(self.folder / "home").remember(
            "private/approved", {new_id("run"): {"request": request_id, "model": ""}}
        )
        server = CheckedScoringRun(
            self.secrets.holder.public_keys(),
            self.sealed.layout,
            self.sealed.blobs,
            MODEL,
            range(2),
            bytes(32),
            run_id,
            b"n" * 16,
            coins=[t.coins for t in noise_tables(400_000, 2, 2, [], self.law) if t.coins],
        )
        score = server.score()
        task = ScoreDigitsTask(
            run_id=run_id,
            model_id=new_id("mod"),
            model_digest=MODEL.digest(),
            tables=noise_tables(400_000, 2, 2, [], self.law),
            score_blob="0" * 64,
            seed_commitment="0" * 64,
            nonce_commitments=COMMITMENTS,
        )
        return run_id, server, self.agent.score_digits(request_id, self.terms, task, score)


@pytest.fixture(scope="module")
def holder():
    return KeyHolder.generate()


@pytest.fixture
def bench(tmp_path, holder):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 30)
    sealed = holder.seal(rng.integers(0, 16, (30, 2)), labels, 2)
    given = (holder, sealed.layout, labels[sealed.order], np.zeros(0, np.int64))
    return Bench(tmp_path, sealed, Secrets(*given))


def check_parts(data, kind):
    count = EARLY_OPENINGS if kind is Kind.EARLY_CHECKS else CHECK_OPENINGS
    return [bytes(part) for part in decode(data, kind, [OPENING_BYTES] * count)]


def undecryptable(bench, part):
    """The part with its constant moved until the key holder finds no noise budget left in it."""
    for step in range(1, 200):
        moved = (int.from_bytes(part[:8], "little") + step * 2**36) % PARAMETERS.primes[0]
        changed = moved.to_bytes(8, "little") + part[8:]
        try:
            bench.secrets.holder.opened(memoryview(changed), "x", 1)
        except ValueError:
            return changed
    raise AssertionError("every change could be decrypted")


def test_the_tests_of_the_sealed_set_are_opened_once_in_its_life(bench):
    checks = bench.upload_checks(bytes(32))
    message = checks.message()
    parts = check_parts(message, Kind.UPLOAD_CHECKS)
    for other in ([*parts, parts[0]], parts[:2]):
        with pytest.raises(ValueError, match="expected 3 parts"):
            bench.agent.valset_checks(encode(Kind.UPLOAD_CHECKS, other))
    replies = bench.agent.valset_checks(message)
    checks.accept(replies)
    assert bench.agent.valset_checks(message) == replies
    with pytest.raises(ValueError, match="other bytes"):  # in whichever request they come
        bench.agent.valset_checks(bench.upload_checks(b"1" * 32).message())


def test_rounds_out_of_turn_and_openings_beyond_those_agreed_are_refused(bench):
    run_id, server, digits = bench.begin()
    checks = server.early_checks(digits)
    for call in (
        lambda: bench.agent.score_characters(run_id, b"", NONCES),
        lambda: bench.agent.score_final(run_id, checks),
        lambda: bench.agent.score_replies(run_id, checks),
    ):
        with pytest.raises(ValueError, match="expected the round early_replies first"):
            call()
    parts = check_parts(checks, Kind.EARLY_CHECKS)
    with pytest.raises(ValueError, match="expected 6 parts, got 7"):
        bench.agent.score_early(run_id, encode(Kind.EARLY_CHECKS, [*parts, parts[0]]))
    replies = bench.agent.score_early(run_id, checks)
    assert bench.agent.score_early(run_id, checks) == replies
    with pytest.raises(ValueError, match="other bytes"):
        bench.agent.score_early(run_id, encode(Kind.EARLY_CHECKS, parts[::-1]))
    server.accept_early(replies)
    shares = server.shares(digits)
    characters = bench.agent.score_characters(run_id, shares, NONCES)
    for wrong in (NONCES[::-1], NONCES[:1], ["6e" * 15, NONCES[1]]):
        with pytest.raises(ProtocolError, match="nonces: "):
            bench.agent.score_characters(run_id, shares, wrong)
    checks = server.final_checks(characters)
    with pytest.raises(ValueError, match="expected the round final_replies first"):
        bench.agent.score_replies(run_id, checks)
    with pytest.raises(ValueError, match="expected message kind"):
        bench.agent.score_final(
            run_id, encode(Kind.OPENINGS, check_parts(checks, Kind.FINAL_CHECKS))
        )
    final = bench.agent.score_final(run_id, checks)
    assert bench.agent.score_final(run_id, checks) == final
    server.accept_final(final)
    openings = server.openings(characters)
    count = server.n_cells + 2
    sums = decode(openings, Kind.OPENINGS, [OPENING_BYTES] * count)
    with pytest.raises(ValueError, match=f"expected {count} parts"):
        bench.agent.score_replies(run_id, encode(Kind.OPENINGS, [*sums, sums[0]]))
    opened = server.release(bench.agent.score_replies(run_id, openings))
    assert opened.counts.shape == (2, 2)


def test_a_refusal_after_decryption_ends_the_run_across_restarts(bench):
    run_id, server, digits = bench.begin()
    checks = server.early_checks(digits)
    parts = check_parts(checks, Kind.EARLY_CHECKS)
    mixed = [*parts[:5], undecryptable(bench, parts[0])]
    with pytest.raises(ValueError, match="noise budget"):
        bench.agent.score_early(run_id, encode(Kind.EARLY_CHECKS, mixed))
    with pytest.raises(ValueError, match="the run ended"):
        bench.agent.score_early(run_id, checks)


def test_tests_refused_after_decryption_are_never_opened(bench):
    message = bench.upload_checks(bytes(32)).message()
    parts = check_parts(message, Kind.UPLOAD_CHECKS)
    mixed = [*parts[:2], undecryptable(bench, parts[0])]
    with pytest.raises(ValueError, match="noise budget"):
        bench.agent.valset_checks(encode(Kind.UPLOAD_CHECKS, mixed))
    with pytest.raises(ValueError, match="the run ended"):
        bench.agent.valset_checks(message)


# ---------------------------------------------------------------- the noise law


def test_coins_are_drawn_when_the_request_says_coins_and_never_else(bench):
    bench.law = "coins"
    with pytest.raises(ProtocolError, match="402 coins a cell; the request's noise law is geom"):
        bench.begin()
    assert bench.agent._budget.spent == 0
    bench.terms = TERMS.model_copy(update={"noise_law": "coins"})
    run_id, server, digits = bench.begin()
    server.accept_early(bench.agent.score_early(run_id, server.early_checks(digits)))
    shares = server.shares(digits)
    characters = bench.agent.score_characters(run_id, shares, NONCES)
    server.accept_final(bench.agent.score_final(run_id, server.final_checks(characters)))
    openings = server.openings(characters, [bytes.fromhex(nonce) for nonce in NONCES])
    opened = server.release(bench.agent.score_replies(run_id, openings))
    (table,) = bench.agent.record(run_id)["tables"]
    exact = opened.counts.reshape(-1) - table["noise"]
    assert (exact >= 0).all()
    assert exact.sum() == 30
    bench.law = "geometric"
    with pytest.raises(ProtocolError, match="0 coins a cell; the request's noise law is coins"):
        bench.begin()


def test_what_is_made_ahead_while_idle_is_used_for_the_next_digits(bench):
    assert bench.agent.prepare() == 16
    holder = bench.agent._secrets.holder
    bench.begin()
    assert holder._zeros == []
    assert bench.agent.prepare() == 16


def test_coins_are_paid_in_rho_only_at_the_rho_that_was_agreed(bench):
    rho = coins_micro_rho(402)
    bench.law, bench.rho_limit = "coins", 2 * rho - 1
    for wrong in (rho - 1, rho + 1):
        bench.terms = TERMS.model_copy(update={"noise_law": "coins", "rho_score_micro": wrong})
        with pytest.raises(ProtocolError, match=f"cost {rho} millionths of rho"):
            bench.begin()
    bench.terms = TERMS.model_copy(update={"noise_law": "coins", "rho_score_micro": rho})
    bench.begin()
    assert bench.agent._budget.left == Cost(2_000_000, rho - 1)
    with pytest.raises(BudgetExceededError):
        bench.begin()
    assert bench.agent._budget.left == Cost(2_000_000, rho - 1)


# ---------------------------------------------------------------- openings of a key


def test_a_key_answers_so_many_openings_that_no_replay_cleared(bench):
    """A run of 4 cells has 15 openings; what does not fit is refused before it is paid."""
    bench.limit = 29
    first, _, _ = bench.begin()
    assert bench.agent.quota.used == 15
    assert bench.agent._budget.spent == 400_000
    with pytest.raises(RefusedError, match="needs 15 openings; this key has answered 15 of 29"):
        bench.begin()
    assert bench.agent._budget.spent == 400_000
    with pytest.raises(RefusedError, match="was not opened with this key"):
        bench.agent.quota.clear(new_id("run"))
    bench.agent.quota.clear(first)  # an auditor replayed it
    second, _, _ = bench.begin()
    assert bench.agent.quota.reserved() == {second: 15}
    # reserved once, whatever is asked again
    bench.agent.quota.reserve(first, 15)
    assert bench.agent.quota.used == 15
