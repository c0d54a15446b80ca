"""A hospital that crafts its rows to read the model out of its own exact histogram.

Bound (docs/protocol.md): it knows its noise, so it knows the exact counts of (label, bin). With
counts of up to 8,192 rows it can tell 12 rows of each label apart by repeating them 1, 2, 4, ...
times, so a run shows the bins of 24 rows of its choice, at most log2(bins) = 5 bits each; nothing
else of the scores. Sets are committed before models and each model is run once, so rows cannot
follow what was learned.
"""

from collections.abc import Callable

import numpy as np
from evil import NONCES, Stage

from secure_eval.keyholder import KeyHolder
from secure_eval.noise import table_noise

ROWS = 24
BINS = 32


def crafted(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The set (8190 rows) that repeats 12 rows of each label 1, 2, 4, ... times."""
    times = np.tile(1 << np.arange(ROWS // 2), 2)
    labels = np.repeat([0, 1], ROWS // 2)
    return np.repeat(rows, times, axis=0), np.repeat(labels, times)


def read_bins(counts: np.ndarray) -> np.ndarray:
    """The bin of each of the 24 rows, from the exact counts (2, bins)."""
    bits = counts[:, :, None] >> np.arange(ROWS // 2) & 1
    assert (bits.sum(axis=1) == 1).all()
    return bits.argmax(axis=1).reshape(-1)


def test_a_crafted_set_reads_the_bins_of_24_rows_and_no_more(linear_model: Callable) -> None:
    rows = 15 * np.eye(ROWS, dtype=np.int64)
    table, labels = crafted(rows)
    assert len(table) == 8190
    seen = []
    for seed in range(200):
        model = linear_model(ROWS, seed=seed)
        scores = model.score(table)
        counts = np.stack([np.histogram(scores[labels == y], model.edges)[0] for y in (0, 1)])
        bins = read_bins(counts)
        assert np.array_equal(bins, np.searchsorted(model.edges, model.score(rows), "right") - 1)
        seen.append(bins)
    # information about a weight: the entropy of what is seen of it, over random models
    shares = [np.bincount(column, minlength=BINS) / len(seen) for column in np.array(seen).T]
    bits = [-sum(p * np.log2(p) for p in share[share > 0]) for share in shares]
    measured = float(np.mean(bits))
    assert 1.0 < measured <= np.log2(BINS), f"measured {measured:.2f} bits a weight; bound 5"


def test_what_a_hospital_knows_of_a_run_is_its_exact_counts(
    key_holder: KeyHolder, linear_model: Callable
) -> None:
    """Released counts less its own noise, bit for bit: and that is all that reaches it in clear."""
    stage = Stage(key_holder, linear_model(2).with_edges([0, 16, 32]))
    stage.to_characters()
    stage.to_openings()
    opened = stage.server.release(stage.agent.replies(stage.messages["openings"]))
    exact = opened.counts - stage.agent.noise.reshape(opened.counts.shape)
    assert np.array_equal(exact, stage.plain_counts())
    law = table_noise(stage.agent._noise_key, "run", NONCES, stage.tables)
    assert np.array_equal(stage.agent.noise, law)  # which may be 0 in all four cells
