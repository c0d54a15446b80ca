"""Replay of runs: an honest one comes out byte for byte; deviations are refuted and attributed."""

import hashlib
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
from evil import COMMITMENTS, NONCES, SEED, Stage, Thief, parts_of, rewritten
from replaying import found, hashes, without

from secure_eval import framing
from secure_eval.arbiter import check_noise
from secure_eval.encrypted_noise import encrypted_noise
from secure_eval.evaluator import Opened
from secure_eval.framing import Kind
from secure_eval.keyholder import KeyHolder
from secure_eval.layout import Upload
from secure_eval.noise import table_noise
from secure_eval.opening import OpeningBatch
from secure_eval.replay import Transcript, _compare_release, replay, seed_commitment

SENT = ("score", "early_checks", "shares", "final_checks", "openings")


@pytest.fixture(scope="module")
def played(play: Callable, linear_model: Callable) -> object:
    model = linear_model(2).with_edges([0, 16, 32])
    rng = np.random.default_rng(0)
    rows, labels = rng.integers(0, 16, (30, 2)), rng.integers(0, 2, 30)
    return play(model, rows, labels, groups={"sex": (rows[:, 0] % 2, 2)})


@pytest.fixture(scope="module")
def honest(played: object, key_holder: KeyHolder) -> Transcript:
    keys = key_holder.public_keys()
    upload = Upload(played.sealed.layout, played.sealed.blobs).digest.hex()
    inputs = {
        "keys": hashlib.sha256(keys).hexdigest(),
        "upload": upload,
        "model": played.model.digest(),
        "seed": seed_commitment(SEED),
        "nonce": COMMITMENTS[0].hex(),
        "developer_nonce": COMMITMENTS[1].hex(),
    }
    received = {name: data for name, data in played.messages.items() if name not in SENT}
    return Transcript(
        keys,
        played.sealed.layout,
        played.sealed.blobs,
        played.model,
        range(2),
        SEED,
        "run",
        NONCES,
        received,
        {**inputs, **hashes(played.messages)},
        released=played.opened,
    )


def test_an_honest_run_is_reproduced_without_its_own_messages(
    honest: Transcript, played: object
) -> None:
    verdict = replay(honest)
    assert found(verdict) == (True, None, None)
    assert "byte for byte" in verdict.reason
    every = [
        part
        for name, kind in (
            ("score", Kind.SCORE),
            ("early_checks", Kind.EARLY_CHECKS),
            ("shares", Kind.SHARES),
            ("final_checks", Kind.FINAL_CHECKS),
            ("openings", Kind.OPENINGS),
        )
        for part in parts_of(played.messages[name], kind)
    ]
    assert len(set(every)) == len(every) == 1 + 6 + 2 + 3 + 4 + 4 + 2


def test_a_model_changed_by_one_is_refuted_at_the_first_message(honest: Transcript) -> None:
    weights = honest.model.weights.copy()
    weights[1] += 1
    other = replace(honest, model=honest.model._changed(weights=weights))
    assert found(replay(other)) == (False, "model", "record")
    unlogged = replace(other, log=without(honest.log, "model"))
    assert found(replay(unlogged)) == (False, "score", "evaluator")


def test_another_seed_run_or_nonce_is_refuted(honest: Transcript) -> None:
    other = replace(honest, seed=bytes(32))
    assert found(replay(other)) == (False, "seed", "evaluator")
    unlogged = replace(other, log=without(honest.log, "seed"))
    assert found(replay(unlogged)) == (False, "score", "evaluator")
    old = {**honest.log, "seed": seed_commitment(SEED, 1)}
    with pytest.raises(ValueError, match=r"^made under version 1 .*, this program replays version"):
        replay(replace(honest, log=old))
    for name, nonces in (
        ("nonce", (b"m" * 16, NONCES[1])),
        ("developer_nonce", (NONCES[0], b"m" * 16)),
    ):
        assert found(replay(replace(honest, nonces=nonces))) == (False, name, "evaluator")
    unlogged = replace(honest, nonces=(b"m" * 16, NONCES[1]), log=without(honest.log, "nonce"))
    assert found(replay(unlogged)) == (False, "score", "evaluator")
    for changes in ({"run_id": "ruN"}, {"groups": ()}, {"coins": (128, 128)}):
        assert found(replay(replace(honest, **changes))) == (False, "score", "evaluator")


@pytest.mark.parametrize("name", ["digits", "characters", "replies"])
def test_a_changed_byte_is_found_in_the_record(honest: Transcript, name: str) -> None:
    data = bytearray(honest.messages[name])
    data[-1] ^= 1
    other = replace(honest, messages={**honest.messages, name: bytes(data)})
    assert found(replay(other)) == (False, name, "record")
    gone = {key: value for key, value in honest.messages.items() if key != name}
    assert found(replay(replace(honest, messages=gone))) == (False, name, "record")


def test_a_changed_byte_under_a_changed_log_contradicts_what_was_sent(honest: Transcript) -> None:
    data = bytearray(honest.messages["digits"])
    data[-1] ^= 1
    messages = {**honest.messages, "digits": bytes(data)}
    other = replace(honest, messages=messages, log={**honest.log, **hashes(messages)})
    assert found(replay(other)) == (False, "early_checks", "evaluator")


def test_stripped_or_doubled_noise_is_refuted(
    honest: Transcript, played: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = played.server_before("openings")
    with monkeypatch.context() as patch:
        patch.setattr(OpeningBatch, "add_noise", lambda _self, _residues: None)
        stripped = server.openings(played.messages["characters"])
    log = {**honest.log, **hashes({"openings": stripped})}
    verdict = replay(replace(honest, log=log))
    assert found(verdict) == (False, "openings", "evaluator")
    assert verdict.reason == "openings: does not follow from its seed and inputs"


def test_other_counts_than_opened_are_refuted(honest: Transcript, played: object) -> None:
    counts = played.opened.counts.copy()
    counts[0, 0] += 1
    groups = {"sex": played.opened.groups["sex"] + 1}
    for lie in (
        Opened(counts, played.opened.groups),
        Opened(played.opened.counts, groups),
        Opened(played.opened.counts, {}),
    ):
        verdict = _compare_release(played.opened, replace(honest, released=lie))
        assert found(verdict) == (False, "release", "evaluator")
    assert found(replay(replace(honest, released=lie))) == (False, "release", "evaluator")


def test_a_run_that_broke_off_is_reproduced_as_far_as_it_went(honest: Transcript) -> None:
    gone = ("characters", "final_checks", "final_replies", "openings", "replies")
    log = without(honest.log, *gone)
    messages = {name: honest.messages[name] for name in ("digits", "early_replies")}
    broken = replace(honest, log=log, messages=messages, released=None)
    verdict = replay(broken)
    assert found(verdict) == (True, None, None)
    assert "broke off before characters" in verdict.reason
    # counts cannot come of it
    lie = replace(broken, released=honest.released)
    assert found(replay(lie)) == (False, "release", "evaluator")


def test_the_auditor_loads_no_secret_side() -> None:
    code = "import secure_eval.replay, sys; print('secure_eval.keyholder' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# ------------------------------------------------------------------------------- the arbiter


def test_the_arbiter_rebuilds_the_noise_and_refutes_another(
    honest: Transcript, played: object, key_holder: KeyHolder
) -> None:
    key, tables = played.agent._noise_key, played.tables
    assert found(check_noise(honest, key, tables)) == (True, None, None)
    assert found(check_noise(honest, b"k" * 32, tables)) == (False, "digits", "key holder")
    other = replace(
        honest, nonces=(b"m" * 16, NONCES[1]), log=without(honest.log, "nonce", "developer_nonce")
    )
    assert found(check_noise(other, key, tables)) == (False, "characters", "key holder")
    # one cell moved by 25: the run is accepted as it is, the arbiter is not deceived
    noise = table_noise(key, "run", NONCES, tables)
    noise[1] += 25
    public_key = key_holder.public.public_key
    steered = encrypted_noise(public_key, key, "run", noise)

    def change(parts: list[bytes]) -> None:
        parts[0] = steered

    characters = rewritten(honest.messages["characters"], Kind.CHARACTERS, change)
    server = played.server_before("openings")
    server._received.pop("CHARACTERS")
    agent = played.agent_before("final_replies")
    final = server.final_checks(characters)
    final_replies = agent.final_replies(final)
    server.accept_final(final_replies)
    openings = server.openings(characters)
    replies = agent.replies(openings)
    moved = server.release(replies).counts.reshape(-1) - played.opened.counts.reshape(-1)
    assert moved.tolist() == [0, 25, 0, 0], "measured: earned 25 rows in a cell of its choice"
    steered_messages = {
        "characters": characters,
        "final_replies": final_replies,
        "replies": replies,
    }
    messages = {**honest.messages, **steered_messages}
    log = {**honest.log, **hashes({**messages, "final_checks": final, "openings": openings})}
    run = replace(honest, messages=messages, log=log, released=None)
    assert replay(run).reproduced
    assert found(check_noise(run, key, tables)) == (False, "characters", "key holder")


# ------------------------------------------------------------------------------- checked runs


@pytest.fixture(scope="module")
def stage(key_holder: KeyHolder, linear_model: Callable) -> Stage:
    result = Stage(key_holder, linear_model(2).with_edges([0, 16, 32]))
    result.to_characters()
    result.to_openings()
    rounds = result.agent._rounds.stored
    for name in ("early_replies", "final_replies"):
        result.messages[name] = rounds[name][1]
    result.messages["replies"] = result.agent.replies(result.messages["openings"])
    return result


def checked(stage: Stage, messages: Mapping[str, bytes], log: Mapping[str, str]) -> Transcript:
    return Transcript(
        stage.holder.public_keys(),
        stage.sealed.layout,
        stage.sealed.blobs,
        stage.model,
        range(2),
        SEED,
        "run",
        NONCES,
        messages,
        log,
    )


def checked_log(stage: Stage) -> dict[str, str]:
    """The log of the honest run; the checks' own messages are made again from the same server."""
    stage.server._received.clear()
    early = stage.server.early_checks(stage.messages["digits"])
    final = stage.server.final_checks(stage.messages["characters"])
    return hashes({**stage.messages, "early_checks": early, "final_checks": final})


def test_a_checked_run_is_reproduced_and_its_checks_cannot_be_skipped(
    stage: Stage, key_holder: KeyHolder
) -> None:
    log = checked_log(stage)
    received = {
        name: data
        for name, data in stage.messages.items()
        if name not in ("score", "shares", "openings")
    }
    assert found(replay(checked(stage, received, log))) == (True, None, None)
    # early checks skipped, yet shares sent
    skipped = {name: data for name, data in received.items() if name != "early_replies"}
    verdict = replay(checked(stage, skipped, without(log, "early_replies")))
    assert found(verdict) == (False, "shares", "evaluator")
    assert verdict.reason == "shares: was sent without early_replies before it"
    silent = replay(checked(stage, received, without(log, "early_checks")))
    assert found(silent) == (False, "shares", "evaluator")
    lost = replay(checked(stage, skipped, log))
    assert found(lost) == (False, "early_replies", "record")
    # failed checks, yet shares sent
    bad = framing.encode(Kind.EARLY_REPLIES, [np.arange(1, 7, dtype="<u4").tobytes()])
    failed = {**received, "early_replies": bad}
    verdict = replay(checked(stage, failed, {**log, **hashes({"early_replies": bad})}))
    assert found(verdict) == (False, "shares", "evaluator")
    assert "was sent although early_replies had to be refused" in verdict.reason


def test_a_lying_key_holder_is_named_by_the_replay(stage: Stage, key_holder: KeyHolder) -> None:
    thief = Thief(key_holder)
    run = Stage(key_holder, stage.model)
    run.sealed, run.columns, run.labels = stage.sealed, stage.columns, stage.labels
    run.start("run")
    lie = rewritten(run.messages["digits"], Kind.DIGITS, thief.set(5, 3, 7))
    checks = run.early(lie)
    replies = thief.replies(checks, Kind.EARLY_CHECKS, Kind.EARLY_REPLIES)
    messages = {"digits": lie, "early_replies": replies}
    log = hashes({**messages, "score": run.messages["score"], "early_checks": checks})
    verdict = replay(checked(run, messages, log))
    assert found(verdict) == (True, "early_replies", "key holder")
    assert "rightly refused" in verdict.reason


# ------------------------------------------------------------------------------- coins


def test_a_run_of_coins_is_reproduced_with_the_nonces_that_turned_them(
    key_holder: KeyHolder, linear_model: Callable
) -> None:
    run = Stage(key_holder, linear_model(2).with_edges([0, 16, 32]), coins=[128])
    run.to_characters()
    run.to_openings()
    rounds = run.agent._rounds.stored
    run.messages["replies"] = run.agent.replies(run.messages["openings"])
    opened = run.server.release(run.messages["replies"])
    assert np.array_equal(opened.counts, run.plain_counts() + run.agent.noise.reshape(2, 2))
    for name in ("early_replies", "final_replies"):
        run.messages[name] = rounds[name][1]
    log = checked_log(run)
    received = {name: data for name, data in run.messages.items() if name not in SENT}
    honest = replace(checked(run, received, log), coins=(128,), released=opened)
    assert found(replay(honest)) == (True, None, None)
    with pytest.raises(ValueError, match="nothing to arbitrate"):
        check_noise(honest, b"k" * 32, run.tables)
    # other flips than the opened nonces give: other sums, and other bytes
    bent = replace(honest, nonces=(NONCES[0], b"m" * 16))
    assert found(replay(bent)) == (False, "openings", "evaluator")
    # the other law, or other coins: another run from the first message on
    for coins in ((), (126,)):
        assert found(replay(replace(honest, coins=coins))) == (False, "score", "evaluator")
