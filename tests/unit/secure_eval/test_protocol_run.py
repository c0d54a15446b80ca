"""Whole runs with real keys: opened counts are plain counts plus noise, bit for bit."""

from collections.abc import Callable

import numpy as np
import pytest
from evil import COMMITMENTS, NONCES

from secure_eval.comparison import grid
from secure_eval.integer_model import Column, IntegerModel
from secure_eval.keyholder import KeyHolder
from secure_eval.packing import OPENING_BYTES, pack
from secure_eval.params import PARAMETERS

P = PARAMETERS.plain_modulus
MAX_BYTES = 28 * 2**20


def rows(model: IntegerModel, n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, [column.size for column in model.columns], (n, len(model.columns)))


def labels(n: int, n_labels: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, n_labels, n)


def test_linear_full_block_with_groups_and_a_column_map(
    play: Callable, linear_model: Callable
) -> None:
    model = linear_model(6)
    columns = rows(model, 8192)
    groups = {"sex": (columns[:, 0] % 2, 2), "age": (columns[:, 1] % 5, 5)}
    played = play(
        model,
        columns,
        labels(8192, 2),
        groups=groups,
        extra_columns=3,
        column_map=[8, 0, 3, 5, 1, 7],
    )
    played.check()
    assert played.opened.counts.shape == (2, 32)
    assert np.abs(played.agent.noise).sum() > 0
    more = 14 - 4  # subgroup cells beyond those of one attribute with two levels
    size = sum(map(len, played.messages.values()))
    assert size - more * OPENING_BYTES < MAX_BYTES
    # rows lie in several bins, so the equality above says something
    assert (played.expected(0 * played.agent.noise)[0] > 0).sum() > 20


def test_additive_three_labels_merged_bins_in_two_blocks(play: Callable) -> None:
    rng = np.random.default_rng(5)
    model = IntegerModel(
        kind="additive",
        columns=tuple(Column.bit_of(i, 0.5) for i in range(12)),
        weights=rng.integers(-30_000, 30_000, 12),
        bias=-999,
        n_features=12,
    ).with_edges([0, 3, 11, 16, 17, 29, 32])
    groups = {"site": (np.arange(500) % 3, 4)}
    played = play(model, rows(model, 500), labels(500, 3), 3, groups, rows_per_block=300)
    assert played.sealed.layout.n_blocks == 2
    played.check()
    assert played.opened.counts.shape == (3, 6)
    assert played.opened.groups["site"].shape == (4, 3)


def test_trees_exact_counts(play: Callable, tree_model: Callable) -> None:
    model = tree_model(2, 3, 4)
    groups = {"g": (np.arange(50) % 2, 2)}
    played = play(model, rows(model, 50), labels(50, 2), 2, groups, epsilon_micro=None)
    assert not played.agent.noise.any()
    played.check()
    assert played.opened.counts.sum() == 50


def test_threshold_ties_and_extreme_scores(play: Callable) -> None:
    edges = grid(32).edges()
    size = int(edges[-1] - edges[0])
    # one column whose value is the score itself, so that every edge is hit exactly
    model = IntegerModel(
        kind="linear",
        columns=(Column.value_of(0, 0.0, 1.0, size),),
        weights=np.array([1]),
        bias=int(edges[0]),
        n_features=1,
    )
    values = np.concatenate([edges[:-1], edges[1:] - 1, edges[1:-1] + 1]) - edges[0]
    played = play(model, values[:, None], labels(len(values), 2), epsilon_micro=None)
    played.check()
    assert (played.opened.counts.sum(axis=0) >= 2).all()


def test_one_row_and_a_constant_model(play: Callable) -> None:
    model = IntegerModel(
        kind="linear",
        columns=(Column.value_of(0, 0.0, 1.0, 2),),
        weights=np.array([0]),
        bias=-5,
        n_features=1,
    ).with_edges([0, 16, 32])
    played = play(model, np.array([[1]]), np.array([1]), epsilon_micro=None)
    played.check()
    assert played.opened.counts.tolist() == [[0, 0], [1, 0]]


def contains_run(message: bytes, values: np.ndarray) -> bool:
    """Whether 8 slots in a row appear in clear in any of the usual encodings."""
    chunk = values[:8]
    forms = [chunk.astype(kind).tobytes() for kind in ("<u2", "<i4", "<i8", "<f4", "<f8", ">i4")]
    return any(form in message for form in [*forms, pack(chunk.astype(np.uint64))])


def test_no_server_message_shows_masked_or_plain_scores(
    play: Callable, linear_model: Callable, key_holder: KeyHolder
) -> None:
    model = linear_model(4)
    columns = rows(model, 8192)
    played = play(model, columns, labels(8192, 2), until="openings")
    part = memoryview(played.messages["score"])[-key_holder_vector_bytes() :]
    masked = key_holder.vector(part, "score")
    scores = 2 * model.score_columns(columns)[played.sealed.order]
    assert contains_run(b"x" + masked.astype("<i4").tobytes(), masked)  # the search works
    for name in ("score", "shares", "openings"):
        assert not contains_run(played.messages[name], masked)
        assert not contains_run(played.messages[name], scores % P)
    # what the key holder decrypts is uniform: chi-square with 15 degrees of freedom, fixed seed
    counts = np.bincount(masked * 16 // P, minlength=16)
    assert ((counts - 512) ** 2 / 512).sum() < 60
    assert len(np.unique(masked)) > 8000
    # and not the scores shifted by a constant
    assert len(np.unique((masked - scores) % P)) > 8000


def key_holder_vector_bytes() -> int:
    return PARAMETERS.degree * PARAMETERS.opening_primes * 11


def test_masks_follow_all_messages(play: Callable, linear_model: Callable) -> None:
    model = linear_model(2)
    played = play(model, rows(model, 20), labels(20, 2), until="shares")
    other_agent = played.new_agent()
    other_digits = other_agent.digits(played.messages["score"], played.tables, COMMITMENTS)
    assert other_digits != played.messages["digits"]
    server = played.new_server()
    assert server.score() == played.messages["score"]
    assert played.new_server(seed=bytes(32)).score() != played.messages["score"]
    assert played.new_server(run_id="other").score() != played.messages["score"]
    server.accept_early(other_agent.early_replies(server.early_checks(other_digits)))
    shares = server.shares(other_digits)
    assert shares != played.messages["shares"]
    # one run answers one digits message: two answers under one mask would show its shift
    with pytest.raises(ValueError, match="already answered another such message"):
        server.shares(played.messages["digits"])


def test_a_killed_worker_resumes_with_the_same_bytes(
    play: Callable, linear_model: Callable
) -> None:
    """In the middle; to the end a fresh one goes in every replay (`test_replay_runs`)."""
    model = linear_model(2).with_edges([0, 8, 16, 24, 32])
    played = play(model, rows(model, 40), labels(40, 2), until="shares")
    server = played.server_before("shares")
    messages = played.messages
    assert server.shares(messages["digits"]) == messages["shares"]


def test_a_killed_agent_resumes_with_the_same_bytes(play: Callable, linear_model: Callable) -> None:
    model = linear_model(2).with_edges([0, 16, 32])
    played = play(model, rows(model, 40), labels(40, 2), until="digits")
    first, messages = played.agent, played.messages
    second = played.new_agent()
    second.restore(first.state())
    assert second.commitment == first.commitment
    assert second.digits(messages["score"], played.tables, COMMITMENTS) == messages["digits"]
    early = played.server.early_checks(messages["digits"])
    played.server.accept_early(second.early_replies(early))
    shares = played.server.shares(messages["digits"])
    characters = second.characters(shares, NONCES)
    third = played.new_agent()
    third.restore(second.state())
    assert third.characters(shares, NONCES) == characters
    assert np.array_equal(third.noise, second.noise)
    played.server.accept_final(third.final_replies(played.server.final_checks(characters)))
    openings = played.server.openings(characters)
    replies = third.replies(openings)
    fourth = played.new_agent()
    fourth.restore(third.state())
    assert fourth.replies(openings) == replies
    played.agent, played.opened = fourth, played.server.release(replies)
    played.check()


def test_rehearsal_plays_both_roles(linear_model: Callable) -> None:
    from secure_eval import rehearse

    model = linear_model(3).with_edges([0, 4, 16, 28, 32])
    table = rows(model, 60).astype(float)
    y = labels(60, 2)
    result = rehearse(model, table, y, groups={"g": table[:, 0] > 7, "h": (y, 3)})
    scores = model.score(table)
    for label in (0, 1):
        plain = np.histogram(scores[y == label], model.edges)[0]
        assert np.array_equal(result.counts[label], plain)
    assert np.array_equal(result.edges, model.edges)
    assert result.groups["g"].shape == (2, 2)
    positive = scores >= model.threshold
    assert result.groups["h"][:, 0].tolist() == [(positive & (y == 0)).sum(), 0, 0]
    assert result.groups["h"][:, 1].tolist() == [0, (positive & (y == 1)).sum(), 0]
    assert 20 * 2**20 < result.bytes_sent < MAX_BYTES
    with pytest.raises(ValueError, match="positive epsilon"):
        rehearse(model, table, y, noise=0)
    with pytest.raises(ValueError, match="class codes"):
        rehearse(model, table, y + 0.5)
