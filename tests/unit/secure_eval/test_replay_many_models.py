"""Many models at once give the very bytes that each run gives alone, so replays hold."""

from collections.abc import Callable

import numpy as np
import pytest
from evil import NONCES, SEED

from secure_eval import layout
from secure_eval.checked import CheckedScoringRun
from secure_eval.integer_model import IntegerModel
from secure_eval.keyholder import KeyHolder, SealedSet
from secure_eval.layout import ReadParts, Upload
from secure_eval.many_models import doubled_sums, score_many


@pytest.fixture(scope="module")
def sealed(key_holder: KeyHolder) -> SealedSet:
    rng = np.random.default_rng(0)
    table = rng.integers(0, 2, (20, 70))
    return key_holder.seal(table, rng.integers(0, 2, 20), 2, max_rows_per_block=15)


def run_of(
    holder: KeyHolder, sealed: SealedSet, model: IntegerModel, columns: list
) -> CheckedScoringRun:
    keys = holder.public_keys()
    return CheckedScoringRun(
        keys, sealed.layout, sealed.blobs, model, columns, SEED, "run", NONCES[0]
    )


def test_messages_are_those_of_single_runs(
    key_holder: KeyHolder, sealed: SealedSet, linear_model: Callable, tree_model: Callable
) -> None:
    assert sealed.layout.n_blocks == 2
    zero = linear_model(1)._changed(weights=np.array([0]), bias=7)
    asked = [
        (linear_model(70, size=2, seed=1), list(range(69, -1, -1))),
        (linear_model(3, size=2, seed=2), [69, 0, 33]),
        (tree_model(1, 2, 3), [4, 5, 6]),
        (zero, [8]),
    ]

    def runs() -> list[CheckedScoringRun]:
        return [run_of(key_holder, sealed, model, columns) for model, columns in asked]

    together = list(score_many(runs()))
    assert together == [run.score() for run in runs()]
    assert len(set(together)) == len(asked)
    assert list(score_many([])) == []


def test_other_sets_and_trees_are_refused(
    key_holder: KeyHolder, sealed: SealedSet, linear_model: Callable, tree_model: Callable
) -> None:
    other = key_holder.seal([[1], [0]], [0, 1], 2)
    model = linear_model(1, size=2)
    runs = [run_of(key_holder, place, model, [0]) for place in (sealed, other)]
    with pytest.raises(ValueError, match="one sealed set"):
        list(score_many(runs))
    with pytest.raises(ValueError, match="without trees"):
        doubled_sums([tree_model(1, 2, 3)], [[0, 1, 2]], runs[0].upload, 0)


def test_runs_on_one_set_read_its_columns_once_and_send_the_same_bytes(
    key_holder: KeyHolder,
    sealed: SealedSet,
    linear_model: Callable,
    tree_model: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[int] = []
    expand = layout.seeded_ciphertext

    def counted(part: memoryview, what: str) -> object:
        read.append(1)
        return expand(part, what)

    models = [linear_model(5, size=2, seed=seed) for seed in (1, 2)]
    alone = [run_of(key_holder, sealed, model, list(range(5))).score() for model in models]
    monkeypatch.setattr(layout, "seeded_ciphertext", counted)
    kept = ReadParts()
    for model, wanted in zip(models, alone, strict=True):
        run = run_of(key_holder, sealed, model, list(range(5)))
        run.share_parts(kept)
        assert run.score() == wanted
        assert run.score() == wanted, "what was kept is as it was read"
    assert len(read) == 2 * 5, "five columns of two blocks, once"
    # trees select among what is kept, and leave it as it was
    trees = tree_model(2, 4, 5)
    alone.append(run_of(key_holder, sealed, trees, list(range(5))).score())
    for model, wanted in ((trees, alone[2]), (trees, alone[2]), (models[0], alone[0])):
        run = run_of(key_holder, sealed, model, list(range(5)))
        run.share_parts(kept)
        assert run.score() == wanted
    # another set is never answered from the first one's, and makes it go
    other = key_holder.seal(np.ones((20, 5), np.int64), np.zeros(20, np.int64), 2)
    run = run_of(key_holder, other, models[0], list(range(5)))
    wanted = run.score()
    again = run_of(key_holder, other, models[0], list(range(5)))
    again.share_parts(kept)
    assert again.score() == wanted
    small = ReadParts(most=1)
    parts = Upload(other.layout, other.blobs)
    parts.kept = small
    read.clear()
    for part in (0, 1, 0, 1):
        parts.ciphertext(0, part)
    assert len(read) == 3, "no more are kept than there is room for"
