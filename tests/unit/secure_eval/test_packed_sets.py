"""Packed sets: where columns lie, that counts are exact, and that everything else is as of any set.

Protocol section 8c. What liars earn is in test_evil_packed.py.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from evil import COMMITMENTS, NONCES, SEED

from secure_eval.checked_agent import CheckedAgentRun
from secure_eval.class_agent import ClassesAgentRun
from secure_eval.class_models import ClassModels
from secure_eval.class_run import ClassesScoringRun
from secure_eval.integer_model import Column, IntegerModel
from secure_eval.keyholder import KeyHolder
from secure_eval.layout import Layout, ReadParts
from secure_eval.many_models import score_many
from secure_eval.one_class import split_parts
from secure_eval.params import PARAMETERS
from secure_eval.strips import STRIP_ROWS, STRIPS, folded, layers, places, repeated

N = PARAMETERS.degree
P = PARAMETERS.plain_modulus


def test_groups_lie_in_one_strip_and_nothing_lies_twice() -> None:
    rng = np.random.default_rng(0)
    for groups in (1, 13, 14, 15, 40, 200):
        sizes = tuple(rng.integers(1, 20, groups).tolist())
        found = places(sizes)
        assert len(set(found)) == len(found) == sum(sizes)
        start = 0
        for size in sizes:
            mine = found[start : start + size]
            assert len({number for _, number in mine}) == 1
            assert all(after[0] == before[0] + 1 for before, after in pairwise(mine))
            start += size
        assert layers(sizes) <= sum(sizes) / STRIPS + max(sizes)
        assert {number for _, number in found} <= set(range(STRIPS))
    assert layers((16,) * 30) == 48, "480 bits of 30 numbers"
    assert layers((1,) * 30) == 3


def test_folding_undoes_any_split_into_strips() -> None:
    rng = np.random.default_rng(1)
    slots = rng.integers(0, P, N)
    rows = folded(slots)
    assert not rows[STRIP_ROWS:].any()
    parts = [slots[s * STRIP_ROWS : (s + 1) * STRIP_ROWS] for s in range(STRIPS)]
    assert np.array_equal(rows[:STRIP_ROWS], np.sum(parts, axis=0) % P)
    alike = repeated(parts[3])
    assert np.array_equal(folded(alike)[:STRIP_ROWS], STRIPS * parts[3] % P)
    assert not alike[STRIPS * STRIP_ROWS :].any()


def packed(**others: object) -> Layout:
    plain = Layout(PARAMETERS.version, 1, 5, 2, 3, (("sex", 2),))
    return replace(plain, **{"strips": (2, 3), **others})  # type: ignore[arg-type]


def test_a_layout_says_that_it_is_packed_and_other_layouts_are_what_they_were() -> None:
    assert Layout.from_json(packed().to_json()) == packed()
    plain = packed(strips=())
    assert "strips" not in json.loads(plain.to_json()), "seeds are bound to this text"
    assert (plain.ciphertexts, packed().ciphertexts) == (plain.parts, 3 + 13 + 1)
    assert [plain.ciphertext_of(part) for part in range(18)] == list(range(18))
    assert [packed().ciphertext_of(part) for part in range(5, 18)] == list(range(3, 16))
    assert packed().valid_in_strips == 16
    with pytest.raises(ValueError, match="no ciphertext of its own"):
        packed().ciphertext_of(4)


@pytest.mark.parametrize(
    "others",
    [*({"strips": bad} for bad in ((2, 2), (6, -1), (2, 3.0), (5, 0), (True, 4))), {"n_blocks": 2}],
)
def test_malformed_strips_are_refused(others: dict) -> None:
    with pytest.raises(ValueError, match="layout: "):
        packed(**others)
    bad = json.loads(packed().to_json()) | {
        key: list(value) if isinstance(value, tuple) else value for key, value in others.items()
    }
    with pytest.raises(ValueError, match="layout: "):
        Layout.from_json(json.dumps(bad))
    with pytest.raises(ValueError, match="layout: "):
        Layout.from_json(json.dumps({**bad, "n_blocks": 1, "strips": "23"}))


def test_at_most_585_rows_are_packed(key_holder: KeyHolder) -> None:
    for rows in (STRIP_ROWS + 1, N):
        with pytest.raises(ValueError, match="at most 585 rows"):
            key_holder.seal(np.zeros((rows, 2), np.int64), np.zeros(rows), 2, strips=(2,))
    with pytest.raises(ValueError, match="strips must hold all of 2 columns"):
        key_holder.seal(np.zeros((3, 2), np.int64), np.zeros(3, np.int64), 2, strips=(3,))


def mixed(seed: int, bits: int = 20, values: int = 17, bins: int = 32) -> IntegerModel:
    """Weighted bits and values, more groups than strips."""
    rng = np.random.default_rng(seed)
    columns = [Column.value_of(i, 0.0, 1.0, 2) for i in range(bits)]
    columns += [Column.value_of(i, 0.0, 1.0, 50) for i in range(bits, bits + values)]
    bound = 400_000 // (bits + 49 * values)
    weights = rng.integers(-bound, bound + 1, bits + values)
    low, high = (int(np.where(weights * sign > 0, weights, 0)[:bits].sum()) for sign in (-1, 1))
    low += 49 * int(weights[bits:].clip(max=0).sum())
    high += 49 * int(weights[bits:].clip(min=0).sum())
    return IntegerModel(
        kind="linear",
        columns=tuple(columns),
        weights=weights,
        bias=-(low + high) // 2,
        n_features=bits + values,
        bins=bins,
    )


def rows_of(model: IntegerModel, n: int, labels: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    sizes = [column.size for column in model.columns]
    return rng.integers(0, sizes, (n, len(sizes))), rng.integers(0, labels, n)


STRIP_SIZES = (5, 5, 10, *[1] * 17)


@pytest.fixture(scope="module")
def played(play: Callable) -> object:
    """A whole run on as many rows as fit, three labels, two attributes, a column nobody reads."""
    model = mixed(0, bins=8)
    rows, labels = rows_of(model, STRIP_ROWS, 3)
    groups = {"sex": (rows[:, 0], 2), "site": (rows[:, 25] % 3, 3)}
    where = np.random.default_rng(7).permutation(38)[:37].tolist()
    strips = (*STRIP_SIZES, 1)
    return play(model, rows, labels, 3, groups, strips=strips, extra_columns=1, column_map=where)


def test_counts_of_a_packed_set_are_exact(played: object) -> None:
    played.check()
    # 22 groups in 14 strips: 10 layers instead of 38 columns, and valid once more
    assert played.sealed.layout.layers == 10
    assert played.sealed.layout.ciphertexts == played.sealed.layout.parts - 38 + 10 + 1


def test_a_packed_run_is_repeated_byte_for_byte(played: object) -> None:
    messages, again = played.messages, played.new_server()
    again.share_parts(ReadParts())
    assert again.score() == messages["score"]
    assert again.early_checks(messages["digits"]) == messages["early_checks"]
    agent = played.agent_before("characters")
    assert agent.digits(messages["score"], played.tables, COMMITMENTS) == messages["digits"]
    assert agent.characters(messages["shares"], NONCES)[:200] == messages["characters"][:200]
    other = played.new_server(model=replace(played.model, bias=played.model.bias + 1))
    assert other.score() != messages["score"]


def test_many_models_at_once_give_the_same_bytes(played: object) -> None:
    runs = [played.new_server(), played.new_server(model=mixed(5, bins=8))]
    assert next(iter(score_many(runs))) == played.messages["score"]


def test_what_is_decrypted_adds_up_and_its_strips_are_uniform(
    played: object, key_holder: KeyHolder
) -> None:
    part = memoryview(played.messages["score"])[-180_224:]
    seen = key_holder.vector(part, "x")
    plain = 2 * played.model.score_columns(played.columns)[played.sealed.order]
    mask = played.server._row_mask(0)
    assert np.array_equal(folded(seen)[:STRIP_ROWS], (plain + mask[:STRIP_ROWS]) % P)
    # the strips where nothing was added up show as much as the others, padding slots too
    low = np.bincount(seen * 16 // P, minlength=16)
    assert ((low - N / 16) ** 2 / (N / 16)).sum() < 50, "chi2 of 15 degrees of freedom, 1e-5"


def test_trees_are_refused(play: Callable, tree_model: Callable) -> None:
    model = tree_model(3, 2, 6)
    rows, labels = rows_of(model, 20, 2)
    with pytest.raises(ValueError, match="linear and additive models only"):
        play(model, rows, labels, strips=(6,), until="score")


def test_a_constant_model_and_a_single_column(play: Callable) -> None:
    columns = (Column.value_of(0, 0.0, 1.0, 2),)
    for weight in (0, 3):
        model = IntegerModel(
            kind="linear", columns=columns, weights=np.array([weight]), bias=5, n_features=1
        )
        rows, labels = rows_of(model, 9, 2)
        found = play(model, rows, labels, strips=(1,), until="score")
        seen = found.agent._holder.vector(memoryview(found.messages["score"])[-180_224:], "x")
        score = (folded(seen) - found.server._row_mask(0))[:9] % P
        assert np.array_equal(score, 10 + 2 * weight * rows[found.sealed.order, 0])


def test_classes_of_a_packed_set(key_holder: KeyHolder) -> None:
    model = ClassModels(tuple(mixed(seed, 6, 4) for seed in (1, 2, 3)), "one-vs-rest")
    rows, labels = rows_of(model.models[0], 50, 3)
    sealed = key_holder.seal(rows, labels, 3, groups={"a": (rows[:, 0], 2)}, strips=(6, *[1] * 4))
    inputs = (key_holder.public_keys(), sealed.layout, sealed.blobs, model, [range(10)] * 3)
    server = ClassesScoringRun(*inputs, SEED, "run", NONCES[0])
    score, order = server.score(), sealed.order
    assert all(
        run._layout.strips
        for run in ClassesAgentRun(key_holder, sealed.layout, labels, "run")._runs
    )
    for part, run, one in zip(split_parts(score, 3), server._runs, model.models, strict=True):
        seen = folded(key_holder.vector(memoryview(part)[-180_224:], "x"))
        masked = 2 * one.score_columns(rows)[order] + run._row_mask(0)[:50]
        assert np.array_equal(seen[:50], masked % P)


def test_an_agent_refuses_more_rows_than_a_strip_holds(key_holder: KeyHolder) -> None:
    with pytest.raises(ValueError, match="a packed set has at most 585 rows"):
        CheckedAgentRun(key_holder, packed(), np.zeros(586, np.int64), "run")
