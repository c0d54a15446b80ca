"""Replay of a target and of an upload's tests: every deviation is refuted and attributed."""

from dataclasses import replace

import pytest
from evil import COMMITMENTS, NONCES, SEED
from replaying import found, hashes, without

from secure_eval import framing
from secure_eval.agent_target import AgentTarget
from secure_eval.arbiter import check_target_noise
from secure_eval.checked_agent import AgentUpload
from secure_eval.checks import Terms
from secure_eval.encrypted_noise import encrypted_noise
from secure_eval.framing import Kind
from secure_eval.keyholder import KeyHolder
from secure_eval.layout import Upload
from secure_eval.noise import Table, commitment, table_noise
from secure_eval.nonces import NO_DEVELOPER, nonce_commitment
from secure_eval.opening import OpeningBatch
from secure_eval.replay import TargetTranscript, UploadTranscript, seed_commitment
from secure_eval.replay_target import replay_target
from secure_eval.replay_upload import replay_upload
from secure_eval.target import TargetOpening
from secure_eval.upload_checks import UploadChecks

# --------------------------------------------------------------------------------------- the target


def test_a_target_is_reproduced_and_deviations_are_refuted(
    key_holder: KeyHolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed = key_holder.seal([[1], [2], [3]], [0, 1, 1], 2, [0, 1, 1], 2)
    keys = key_holder.public_keys()

    def fresh() -> TargetOpening:
        return TargetOpening(keys, sealed.layout, sealed.blobs, SEED, "target")

    server, agent = fresh(), AgentTarget(key_holder, sealed.layout, "target")
    committed = agent.commit(COMMITMENTS[0])
    noise = agent.noise_message(NONCES[0], 500_000)
    checks = server.checks(noise)
    checked_ = agent.checks(checks)
    server.accept(checked_)
    openings = server.openings(noise)
    state = agent.state()
    replies = agent.replies(openings)
    messages = {
        "commitment": committed,
        "noise": noise,
        "check_replies": checked_,
        "replies": replies,
    }
    log = {
        **hashes({**messages, "checks": checks, "openings": openings}),
        "seed": seed_commitment(SEED),
        "nonce": COMMITMENTS[0].hex(),
    }
    counts = server.release(replies)
    inputs = (keys, sealed.layout, sealed.blobs, SEED, "target")
    honest = TargetTranscript(*inputs, messages, log, NONCES[0], released=counts)
    assert found(replay_target(honest)) == (True, None, None)
    # exact counts instead of noised ones
    lying = fresh()
    lying.checks(noise)
    lying.accept(checked_)
    with monkeypatch.context() as patch:
        patch.setattr(OpeningBatch, "add_noise", lambda _self, _residues: None)
        stripped = lying.openings(noise)
    again = AgentTarget(key_holder, sealed.layout, "target")
    again.restore(state)
    exact = lying.release(again.replies(stripped))
    assert exact.tolist() == [[1, 0], [0, 2]], "measured: earned the exact counts"
    untested = without(log, "checks", "check_replies")
    skipped = {name: data for name, data in messages.items() if name != "check_replies"}
    for changes, verdict in (
        ({"log": {**log, **hashes({"openings": stripped})}}, (False, "openings", "evaluator")),
        ({"seed": bytes(32)}, (False, "seed", "evaluator")),
        ({"nonce": b"m" * 16}, (False, "nonce", "evaluator")),
        ({"log": without(log, "seed"), "seed": bytes(32)}, (False, "checks", "evaluator")),
        ({"log": untested, "messages": skipped}, (False, "openings", "evaluator")),
        ({"released": counts + 1}, (False, "release", "evaluator")),
        ({"messages": {**messages, "noise": noise[:-1]}}, (False, "noise", "record")),
        ({"messages": {"noise": noise}}, (False, "check_replies", "record")),
    ):
        assert found(replay_target(replace(honest, **changes))) == verdict
    broken = replace(honest, messages={}, log={}, released=None)
    assert found(replay_target(broken)) == (True, None, None)
    early = replace(broken, messages={"noise": noise}, log=hashes({"noise": noise}))
    assert found(replay_target(early)) == (True, None, None)
    assert found(replay_target(replace(early, released=counts)))[2] == "evaluator"
    bad = bytearray(replies)
    bad[-1] ^= 1
    wrong = {**messages, "replies": bytes(bad)}
    refused = replace(honest, messages=wrong, log={**log, **hashes(wrong)}, released=None)
    assert found(replay_target(refused)) == (True, "replies", "key holder")
    assert found(replay_target(replace(refused, released=counts)))[2] == "evaluator"


# ------------------------------------------------------------------------- tests of an upload


def test_tests_of_an_upload_are_reproduced_and_deviations_are_refuted(
    key_holder: KeyHolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed = key_holder.seal([[1], [2], [3]], [0, 1, 1], 2, [0, 1, 1], 2)
    inputs = (key_holder.public_keys(), sealed.layout, sealed.blobs, SEED, "val")
    checks = UploadChecks(*inputs).message()
    replies = AgentUpload(key_holder).replies(checks)
    # a server that opens a column of rows in place of its first test
    column, test_of = Upload(sealed.layout, sealed.blobs).ciphertext(0, 0), Terms.zero
    with monkeypatch.context() as patch:
        patch.setattr(Terms, "zero", lambda self, test, _total: test_of(self, test, column))
        reading = UploadChecks(*inputs).message()
    assert reading != checks
    log = {**hashes({"checks": checks, "replies": replies}), "seed": seed_commitment(SEED)}
    honest = UploadTranscript(*inputs, {"replies": replies}, log)
    assert found(replay_upload(honest)) == (True, None, None)
    assert found(replay_upload(replace(honest, messages={}))) == (True, None, None)
    bad = bytearray(replies)
    bad[-1] ^= 1
    wrong = {"replies": bytes(bad)}
    for changes, verdict in (
        ({"log": {**log, **hashes({"checks": reading})}}, (False, "checks", "evaluator")),
        ({"log": without(log, "checks")}, (False, "checks", "evaluator")),
        ({"seed": bytes(32)}, (False, "seed", "evaluator")),
        ({"log": without(log, "seed"), "seed": bytes(32)}, (False, "checks", "evaluator")),
        ({"check_id": "other"}, (False, "checks", "evaluator")),
        ({"relations": [{0: 1}]}, (False, "checks", "evaluator")),
        ({"messages": wrong}, (False, "replies", "record")),
        (
            {"messages": wrong, "log": {**log, **hashes(wrong)}},
            (True, "replies", "key holder"),
        ),
    ):
        assert found(replay_upload(replace(honest, **changes))) == verdict


def test_the_arbiter_rebuilds_a_targets_noise(key_holder: KeyHolder) -> None:
    sealed = key_holder.seal([[1], [2], [3]], [0, 1, 1], 2, [0, 1, 1], 2)
    agent = AgentTarget(key_holder, sealed.layout, "target")
    committed = agent.commit(COMMITMENTS[0])
    noise = agent.noise_message(NONCES[0], 500_000)
    key = agent._noise_key
    assert committed == commitment(key)
    messages = {"commitment": committed, "noise": noise}
    log = {**hashes(messages), "nonce": nonce_commitment(NONCES[0]).hex()}
    inputs = (key_holder.public_keys(), sealed.layout, sealed.blobs, SEED, "target")
    honest = TargetTranscript(*inputs, messages, log, NONCES[0])
    assert found(check_target_noise(honest, key, 500_000)) == (True, None, None)
    for change, name in (({"key": b"k" * 32}, "commitment"), ({"epsilon": 10_000}, "noise")):
        given = {"key": key, "epsilon": 500_000, **change}
        verdict = check_target_noise(honest, given["key"], given["epsilon"])
        assert found(verdict) == (False, name, "key holder")
    # a cell moved by 25 passes the noise test, and not the arbiter
    tables = [Table("target", 4, 500_000)]
    moved = table_noise(key, "target", (NONCES[0], NO_DEVELOPER), tables)
    moved[0] += 25
    part = encrypted_noise(key_holder.public.public_key, key, "target", moved)
    steered = framing.encode(Kind.TARGET_NOISE, [part])
    server = TargetOpening(key_holder.public_keys(), sealed.layout, sealed.blobs, SEED, "target")
    server.accept(agent.checks(server.checks(steered)))
    cheat = {**messages, "noise": steered}
    other = replace(honest, messages=cheat, log={**log, **hashes(cheat)})
    assert found(check_target_noise(other, key, 500_000)) == (False, "noise", "key holder")
    for name in messages:
        gone = {key_: data for key_, data in messages.items() if key_ != name}
        verdict = check_target_noise(replace(honest, messages=gone), key, 500_000)
        assert found(verdict) == (False, name, "record")
