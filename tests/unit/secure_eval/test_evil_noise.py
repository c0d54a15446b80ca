"""Lies about noise: nonces that were ground or do not open, coins that are none or are loud.

Bound (docs/protocol.md, sections 3 and 5): the noise follows from the key holder's commitment and
two nonces committed before it, so nobody who keeps one of the three secret can be outvoted; coins
that are not 0 or 1 pass with odds of 4e-12; loud ones as in digits.
"""

from collections.abc import Callable

import numpy as np
import pytest
from evil import COMMITMENTS, NONCES, SEED, N, P, Stage, Thief, parts_of, rewritten

from secure_eval.agent_target import AgentTarget
from secure_eval.checked_agent import CheckedAgentRun
from secure_eval.coins import CoinPlan
from secure_eval.framing import Kind
from secure_eval.keyholder import KeyHolder
from secure_eval.noise import Table, table_noise
from secure_eval.nonces import new_nonce, nonce_commitment
from secure_eval.target import TargetOpening

COINS = 128
TABLES = [Table("histogram", 4, 500_000)]
FLIPPED = [Table("histogram", 4, 500_000, COINS)]


@pytest.fixture(scope="module")
def thief(key_holder: KeyHolder) -> Thief:
    return Thief(key_holder)


@pytest.fixture(scope="module")
def stage(key_holder: KeyHolder, linear_model: Callable) -> Stage:
    return Stage(key_holder, linear_model(2).with_edges([0, 16, 32]), coins=[COINS])


# ------------------------------------------------------------------------------- coins


def test_coins_are_exact_and_follow_the_binomial_whatever_was_committed() -> None:
    plan = CoinPlan(((64, COINS), (4, COINS)))
    assert plan.ciphertexts == 2
    assert plan.spans[63] == (0, N - COINS, N)
    assert plan.spans[64] == (1, 0, COINS)
    rng = np.random.default_rng(0)
    shape = (2, N)
    for bits in (np.zeros(shape, np.int64), np.ones(shape, np.int64), rng.integers(0, 2, shape)):
        found = []
        for run in range(300):
            flips = plan.flips(f"run {run}", (b"n" * 16, run.to_bytes(16, "big")))
            noise = plan.noise(bits, flips)
            # linear in the coins: the public part and the signed sum, as the evaluator opens it
            signed = [int(((1 - 2 * flips) * bits)[c, a:b].sum()) for c, a, b in plan.spans]
            assert np.array_equal(noise, plan.offsets(flips) + signed)
            found.append(noise)
        values = np.concatenate(found)
        # 20,400 draws of variance 32: six standard deviations of mean and of variance
        assert abs(values.mean()) < 6 * np.sqrt(32 / len(values))
        assert abs(values.var() - 32) < 6 * 32 * np.sqrt(2 / len(values))


def lies(thief: Thief, first: int) -> dict[str, Callable]:
    def shifted(parts: list[bytes]) -> None:
        """All coins of the first cell at 1, and a count of 200 rows hidden in one more."""
        thief.set(first, 5, 200)(parts)

    def everywhere(parts: list[bytes]) -> None:
        parts[first] = thief.holder.encrypted(np.full(N, 3))

    return {
        "a coin of 2": thief.set(first, 77, 2),
        "a coin of -1": thief.set(first, 77, P - 1),
        "half a coin": thief.set(first, 77, (P + 1) // 2),
        "a count in a coin": shifted,
        "no coins at all": everywhere,
        "a false coin that no cell counts": thief.set(first, N - 1, 2),
        "noise of 2^40 in one coefficient": thief.loud([first], 40, slice(77, 78)),
        "noise of 2^24 in every coefficient": thief.loud([first], 24, slice(None)),
    }


LIES = sorted(lies(Thief(None), 0))  # type: ignore[arg-type]


@pytest.mark.parametrize("lie", LIES)
def test_false_coins_earn_no_share(stage: Stage, thief: Thief, lie: str) -> None:
    first = stage.server._shapes.first_coin
    digits = rewritten(stage.messages["digits"], Kind.DIGITS, lies(thief, first)[lie])
    checks = stage.early(digits)
    replies = thief.replies(checks, Kind.EARLY_CHECKS, Kind.EARLY_REPLIES)
    with pytest.raises(ValueError, match="EARLY_REPLIES: a test failed; the run is burnt"):
        stage.server.accept_early(replies)
    with pytest.raises(ValueError, match="before the early checks"):
        stage.server.shares(digits)


def test_all_zero_coins_are_allowed_and_earn_nothing(
    key_holder: KeyHolder, linear_model: Callable, thief: Thief
) -> None:
    """A key holder that commits to constants: the flips alone make the noise binomial.

    What it earns: nothing. What it loses: the evaluator, who knows the flips, has its exact counts.
    """
    run = Stage(key_holder, linear_model(2).with_edges([0, 16, 32]), coins=[COINS])
    first = run.server._shapes.first_coin

    def zeros(parts: list[bytes]) -> None:
        parts[first] = thief.holder.encrypted(np.zeros(N, np.int64))

    run.messages["digits"] = rewritten(run.messages["digits"], Kind.DIGITS, zeros)
    run.to_characters()
    run.to_openings()
    opened = run.server.release(run.agent.replies(run.messages["openings"])).counts
    plan = CoinPlan(((4, COINS),))
    offsets = plan.offsets(plan.flips("run", NONCES)).reshape(2, 2)
    assert np.array_equal(opened, run.plain_counts() + offsets)


def test_the_laws_cannot_be_exchanged_on_the_way(stage: Stage, thief: Thief) -> None:
    """Digits of one law are no digits of the other: refused by their shape."""
    plain = Stage(stage.holder, stage.model)
    for server, message in (
        (stage.server, plain.messages["digits"]),
        (plain.server, stage.messages["digits"]),
    ):
        with pytest.raises(ValueError, match=r"DIGITS: expected \d+ parts"):
            server.early_checks(message)
    labels = stage.labels[stage.sealed.order]
    fresh = CheckedAgentRun(stage.holder, stage.sealed.layout, labels, "run")
    with pytest.raises(ValueError, match="follow one noise law"):
        fresh.digits(plain.messages["score"], [*TABLES, Table("x", 2, 9_999, 2)], COMMITMENTS)


# ------------------------------------------------------------------------------- nonces


def best_noise(run_id: str, key: bytes, nonces: list[tuple[bytes, bytes]], tables: list) -> int:
    """The largest noise in cell 0 that a grinder finds."""
    return max(int(table_noise(key, run_id, pair, tables)[0]) for pair in nonces)


@pytest.mark.parametrize("tables", [TABLES, FLIPPED])
def test_grinding_earns_much_without_commitments_and_nothing_with(tables: list) -> None:
    """Key holder and evaluator together, who know all but the developer's nonce.

    Without its commitment the evaluator's nonce is chosen last: the best of 400 tries. With it they
    fixed theirs before the developer's was known, so each run is one draw.
    """
    key, run_id = b"k" * 32, "run"
    tries = [index.to_bytes(16, "big") for index in range(400)]
    last = best_noise(run_id, key, [(nonce, NONCES[1]) for nonce in tries], tables)
    deviation = tables[0].variance ** 0.5
    assert last > 2 * deviation, f"measured without commitments: {last}, sd {deviation:.1f}"
    # the choice that was best against one developer's nonce is a plain draw against others
    chosen = max(
        tries, key=lambda nonce: int(table_noise(key, run_id, (nonce, NONCES[1]), tables)[0])
    )
    others = [
        int(table_noise(key, run_id, (chosen, bytes([index]) * 16), tables)[0])
        for index in range(200)
    ]
    bound = 6 * deviation / 200**0.5
    assert abs(float(np.mean(others))) < bound, "measured with commitments: the mean is 0"


@pytest.mark.parametrize("place", [0, 1])
def test_a_nonce_that_does_not_open_gets_no_characters(
    key_holder: KeyHolder, linear_model: Callable, place: int
) -> None:
    """A revealer that waits and then opens another nonce: refused before any noise exists."""
    run = Stage(key_holder, linear_model(2).with_edges([0, 16, 32]))
    checks = run.early(run.messages["digits"])
    run.server.accept_early(run.agent.early_replies(checks))
    shares = run.server.shares(run.messages["digits"])
    state = run.agent.state()
    for _ in range(20):
        wrong = [*NONCES]
        wrong[place] = new_nonce()
        with pytest.raises(ValueError, match=f"number {place} does not open its commitment"):
            run.agent.characters(shares, wrong)
    assert run.agent.state() == state
    assert not run.agent.noise.size, "learned: nothing was drawn"
    assert run.agent.characters(shares, NONCES)


def test_no_digits_without_two_commitments(key_holder: KeyHolder, stage: Stage) -> None:
    labels = stage.labels[stage.sealed.order]
    for bad in ([], COMMITMENTS[:1], [*COMMITMENTS, COMMITMENTS[0]], [b"", b""]):
        agent = CheckedAgentRun(key_holder, stage.sealed.layout, labels, "run")
        with pytest.raises(ValueError, match="two 32-byte commitments"):
            agent.digits(stage.messages["score"], FLIPPED, bad)
    with pytest.raises(ValueError, match="already answered for other bytes"):
        stage.agent.digits(stage.messages["score"], FLIPPED, COMMITMENTS[::-1])


def test_commitments_hide_and_bind() -> None:
    assert nonce_commitment(NONCES[0]) == COMMITMENTS[0] != nonce_commitment(NONCES[1])
    for bad in (b"", b"n" * 15, b"n" * 17):
        with pytest.raises(ValueError, match="16 bytes"):
            nonce_commitment(bad)


# ------------------------------------------------------------------------------- the target


@pytest.mark.parametrize("bits", [36, 60])
def test_loud_noise_of_a_target_is_refused_before_a_sum(
    key_holder: KeyHolder, thief: Thief, bits: int
) -> None:
    sealed = key_holder.seal([[1], [2], [3]], [0, 1, 1], 2, [0, 1, 1], 2)
    server = TargetOpening(key_holder.public_keys(), sealed.layout, sealed.blobs, SEED, "t")
    agent = AgentTarget(key_holder, sealed.layout, "t")
    agent.commit(COMMITMENTS[0])
    honest = agent.noise_message(NONCES[0], 500_000)
    loud = rewritten(honest, Kind.TARGET_NOISE, thief.loud_whole(0, bits))
    checks = server.checks(loud)
    seen = thief.elements(checks, Kind.TARGET_CHECKS)
    assert len(seen) == 1, "learned: a mask and its own noise"
    replies = thief.replies(checks, Kind.TARGET_CHECKS, Kind.TARGET_CHECK_REPLIES)
    with pytest.raises(ValueError, match="TARGET_CHECK_REPLIES: a test failed"):
        server.accept(replies)
    for message in (loud, honest):
        with pytest.raises(ValueError, match="no opening before the noise test is accepted"):
            server.openings(message)
    with pytest.raises(ValueError, match="already answered another such message"):
        server.checks(honest)


def test_a_target_nonce_that_does_not_open_draws_nothing(key_holder: KeyHolder) -> None:
    sealed = key_holder.seal([[1], [2], [3]], [0, 1, 1], 2, [0, 1, 1], 2)
    agent = AgentTarget(key_holder, sealed.layout, "t")
    agent.commit(COMMITMENTS[0])
    with pytest.raises(ValueError, match="does not open its commitment"):
        agent.noise_message(NONCES[1], 500_000)
    assert not agent.noise.size
    with pytest.raises(ValueError, match="already answered for other bytes"):
        agent.commit(COMMITMENTS[1])


# ------------------------------------------------------------- how loud honest coins' tests are


def refusals(stage: Stage, thief: Thief, change: Callable | None, tries: int) -> int:
    """How often the early tests refuse coins of a shape; each try draws tests of its own.

    The masked score stays as it was sent: the digits are those of its mask.
    """
    found = 0
    for attempt in range(tries):
        message = stage.messages["digits"]
        if change is not None:
            message = rewritten(message, Kind.DIGITS, change)
        stage.server._prg = stage.server._prg.child("another run", attempt)
        stage.server._kept[0] = {("score",): stage.server._kept[0]["score",]}
        checks = stage.early(message)
        replies = thief.replies(checks, Kind.EARLY_CHECKS, Kind.EARLY_REPLIES)
        try:
            stage.server.accept_early(replies)
        except ValueError:
            found += 1
    return found


def test_the_margin_of_honest_coins(stage: Stage) -> None:
    """The noise test of digits with coins keeps 3 bits more than the agent asks for."""
    checks = stage.early(stage.messages["digits"])
    part = parts_of(checks, Kind.EARLY_CHECKS)[-1]
    assert 0 <= stage.holder.opened(memoryview(part), "noise test", 3) < P


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_loudest_coins_that_pass(stage: Stage, thief: Thief) -> None:
    """Worst shapes searched: one coefficient, all of one ciphertext. Bounds of section 10."""
    first = stage.server._shapes.first_coin
    seed = stage.server._prg
    assert refusals(stage, thief, None, 40) == 0, "measured: honest coins are never refused"
    for where, quiet, loud in ((slice(77, 78), 12, 26), (slice(None), 6, 22)):
        stage.server._prg = seed
        assert refusals(stage, thief, thief.loud([first], quiet, where), 12) == 0
        assert refusals(stage, thief, thief.loud([first], loud, where), 12) == 12
