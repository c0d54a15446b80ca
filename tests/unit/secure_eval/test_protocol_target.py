"""The matching target: noised cell x label counts out of the sealed set."""

import numpy as np
import pytest

from secure_eval.agent_target import AgentTarget
from secure_eval.keyholder import KeyHolder
from secure_eval.nonces import nonce_commitment
from secure_eval.target import TargetOpening

SEED = bytes(range(32))
NONCE = b"n" * 16
COMMITTED = nonce_commitment(NONCE)


@pytest.mark.parametrize(("n", "rows_per_block", "n_labels"), [(300, 8192, 2), (40, 25, 3)])
def test_target_is_plain_counts_plus_noise(
    key_holder: KeyHolder, n: int, rows_per_block: int, n_labels: int
) -> None:
    rng = np.random.default_rng(n)
    cells, labels = rng.integers(0, 5, n), rng.integers(0, n_labels, n)
    sealed = key_holder.seal(
        np.zeros((n, 0), np.int64),
        labels,
        n_labels,
        cells,
        6,
        {"sex": (labels, n_labels)},
        max_rows_per_block=rows_per_block,
    )
    keys = key_holder.public_keys()

    def server() -> TargetOpening:
        return TargetOpening(keys, sealed.layout, sealed.blobs, SEED, "target")

    agent = AgentTarget(key_holder, sealed.layout, "target")
    first = server()
    committed = agent.commit(COMMITTED)
    noise = agent.noise_message(NONCE, 500_000)
    checks = first.checks(noise)
    with pytest.raises(ValueError, match="no opening before the noise test is accepted"):
        first.openings(noise)
    checked = agent.checks(checks)
    first.accept(checked)
    openings = first.openings(noise)
    replies = agent.replies(openings)
    opened = first.release(replies)
    counts = np.zeros((6, n_labels), np.int64)
    np.add.at(counts, (cells, labels), 1)
    assert np.array_equal(opened, counts + agent.noise.reshape(6, n_labels))
    assert agent.noise.any()
    assert opened.dtype == np.int64

    # resumes on both sides with the same bytes
    again = server()
    assert again.checks(noise) == checks
    again.accept(checked)
    assert again.openings(noise) == openings
    assert np.array_equal(again.release(replies), opened)
    restored = AgentTarget(key_holder, sealed.layout, "target")
    restored.restore(agent.state())
    assert restored.commit(COMMITTED) == committed
    assert restored.noise_message(NONCE, 500_000) == noise
    assert restored.checks(checks) == checked
    assert restored.replies(openings) == replies
    with pytest.raises(ValueError, match="already answered for other bytes"):
        restored.noise_message(b"x" * 16, 500_000)
    with pytest.raises(ValueError, match="another opening"):
        AgentTarget(key_holder, sealed.layout, "other").restore(agent.state())

    for bad in (noise[:-1], noise + b"\0", noise[:30] + b"\xff" * 20 + noise[50:]):
        with pytest.raises(ValueError, match=r"TARGET_NOISE|noise"):
            server().checks(bad)
    for bad in (replies[:-1], replies + b"\0", replies[:-4] + b"\xff" * 4):
        with pytest.raises(ValueError, match="TARGET_REPLIES"):
            again.release(bad)
    tampered = bytearray(replies)
    tampered[10] ^= 1
    with pytest.raises(ValueError, match="batch check failed"):
        first.release(bytes(tampered))


def test_exact_targets_are_for_rehearsals(key_holder: KeyHolder) -> None:
    layout = key_holder.seal(
        np.zeros((3, 0), np.int64), np.zeros(3, np.int64), 2, np.arange(3), 3
    ).layout
    with pytest.raises(ValueError, match="exact counts are for rehearsals"):
        AgentTarget(key_holder, layout, "t").noise_message(NONCE, None)
    with pytest.raises(ValueError, match="expected the round commitment first"):
        AgentTarget(key_holder, layout, "t").replies(b"")
