"""Laws of integer models: the range law, exact evaluation, columns, edges, strict JSON."""

import json
import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_eval.integer_model import (
    PLAIN_MODULUS,
    Column,
    IntegerModel,
    IntegerTree,
    hidden_edges,
)
from secure_eval.model_range import score_range

F = 3


def random_tree(rng: np.random.Generator, columns: int, depth: int, size: int) -> IntegerTree:
    """A random tree of at most `depth` splits with leaves up to `size`."""
    rows: list[list[int]] = [[0, 0]]
    table = []
    for node, (_, level) in enumerate(rows):
        if level < depth and rng.random() < (1.0 if level == 0 else 0.7):
            table.append([int(rng.integers(columns)), len(rows), len(rows) + 1, 0])
            rows += [[node, level + 1], [node, level + 1]]
        else:
            table.append([-1, -1, -1, int(rng.integers(-size, size + 1))])
    return IntegerTree(*np.array(table, dtype=np.int64).T)


def random_model(seed: int, kind: str) -> IntegerModel:
    """A random model whose scale is the largest power of two that the range law admits."""
    rng = np.random.default_rng(seed)
    bits = [Column.bit_of(int(rng.integers(F)), float(rng.normal())) for _ in range(6)]
    bits.append(Column.bit_of(bits[0].feature, bits[0].threshold))  # a repeated threshold
    binary = [Column.value_of(2, 0.0, 1.0, 2)]
    values = [Column.value_of(f, -2.0, float(rng.uniform(0.05, 0.6)), 16) for f in range(2)]
    columns = tuple(bits + (values + binary if kind == "linear" else binary))
    for power in range(19, 0, -1):
        size = 1 << power
        weights = rng.integers(-size, size + 1, len(columns))
        trees = tuple(random_tree(rng, len(columns), 4, size) for _ in range(5))
        try:
            return IntegerModel(
                kind=kind,  # type: ignore[arg-type]
                columns=columns,
                weights=weights * 0 if kind == "trees" else weights,
                bias=int(rng.integers(-9, 10)),
                n_features=F,
                trees=trees if kind == "trees" else (),
            )
        except ValueError as error:
            assert "score range" in str(error)  # noqa: PT017
    raise AssertionError("no scale fits")


def critical_rows(model: IntegerModel, seed: int) -> np.ndarray:
    """Rows at every threshold, its float neighbours, grid borders and far outside."""
    rng = np.random.default_rng(seed)
    points = [0.0, -0.0, 1e300, -1e300, math.inf, -math.inf, 5e-324]
    for column in model.columns:
        if column.kind == "bit":
            points += [column.threshold, np.nextafter(column.threshold, -math.inf)]
        else:
            points += list(column.low + column.step * (np.arange(column.size + 1) - 0.5))
    return rng.choice(np.array(points), size=(3000, F))


def slow_score(text: str, row: list[float]) -> int:
    """An independent evaluation from the model's text alone."""
    model = json.loads(text)
    levels = []
    for column in model["columns"]:
        x = row[column["feature"]]
        if column["kind"] == "bit":
            levels.append(int(x >= float.fromhex(column["threshold"])))
        else:
            low, step = float.fromhex(column["low"]), float.fromhex(column["step"])
            q = (x - low) / step
            levels.append(round(min(max(q, 0.0), column["size"] - 1.0)))  # half to even
    total = model["bias"] + sum(w * q for w, q in zip(model["weights"], levels, strict=True))
    for tree in model["trees"]:
        node = 0
        while tree["column"][node] >= 0:
            node = tree["right" if levels[tree["column"][node]] else "left"][node]
        total += tree["value"][node]
    return int(total)


@pytest.mark.parametrize("kind", ["linear", "additive", "trees"])
@pytest.mark.parametrize("seed", range(12))
def test_range_law_and_exact_evaluation(kind: str, seed: int) -> None:
    model = random_model(seed, kind)
    rows = critical_rows(model, seed)
    scores = model.score(rows)
    edges = hidden_edges(model.bins)
    assert edges[0] <= model.low <= scores.min()
    assert scores.max() <= model.high < edges[-1]
    assert np.abs(2 * scores).max() < PLAIN_MODULUS / 2
    text = model.to_json()
    picked = rows[:150]
    assert [slow_score(text, row) for row in picked.tolist()] == scores[:150].tolist()
    assert np.array_equal(model.score_columns(model.encode(rows)), scores)
    assert np.array_equal(model.predict(rows), scores >= model.threshold)


@pytest.mark.parametrize("seed", range(8))
def test_proven_range_of_bits_is_attained(seed: int) -> None:
    """For threshold bits alone the proof is exact: some row scores `low` and some row `high`."""
    rng = np.random.default_rng(seed)
    columns = tuple(Column.bit_of(i % 2, float(rng.normal())) for i in range(8))
    weights = rng.integers(-900, 900, 8)
    model = IntegerModel(kind="additive", columns=columns, weights=weights, bias=3, n_features=2)
    points = np.array([-9.0, *(c.threshold for c in columns)])
    rows = np.array([(a, b) for a in points for b in points])
    scores = model.score(rows)
    assert (scores.min(), scores.max()) == (model.low, model.high)


def test_hidden_edges_follow_the_comparison_formula() -> None:
    for bins in (8, 16, 32, 64):
        width = (PLAIN_MODULUS - 1) // bins
        shift = -(bins // 2) * width - 1
        for b, edge in enumerate(hidden_edges(bins).tolist()):
            assert 2 * edge >= b * width + shift > 2 * (edge - 1)


def one_column(**changes: Any) -> IntegerModel:
    plain: dict[str, Any] = {
        "kind": "linear",
        "columns": (Column.value_of(0, 0.0, 1.0, 100),),
        "weights": np.array([5]),
        "bias": 0,
        "n_features": 1,
    }
    return IntegerModel(**{**plain, **changes})


def test_range_law_is_the_bins_own() -> None:
    low, high = int(hidden_edges(32)[0]), int(hidden_edges(32)[-1])
    assert one_column(weights=np.array([0]), bias=low).low == low
    assert one_column(weights=np.array([0]), bias=high - 1).high == high - 1
    for bias in (low - 1, high):
        with pytest.raises(ValueError, match="score range"):
            one_column(weights=np.array([0]), bias=bias)


def test_groups_are_made_true_and_tighten_the_range() -> None:
    columns = tuple(Column.value_of(f, 0.0, 1.0, 2) for f in range(4))
    weights = np.array([10, -4, 7, 3])
    plain = {"kind": "linear", "columns": columns, "weights": weights, "bias": 0, "n_features": 4}
    rows = np.array([[a, b, c, d] for a in (0, 1) for b in (0, 1) for c in (0, 1) for d in (0, 1)])
    free = IntegerModel(**plain)  # type: ignore[arg-type]
    assert (free.low, free.high) == (-4, 20)
    one_hot = IntegerModel(**plain, groups=(("one_hot", (0, 1, 2)),))  # type: ignore[arg-type]
    assert (one_hot.low, one_hot.high) == (-4, 13)
    encoded = one_hot.encode(rows)
    assert encoded[:, :3].sum(axis=1).max() == 1
    assert np.array_equal(encoded[rows[:, :3].sum(1) <= 1], rows[rows[:, :3].sum(1) <= 1])
    ladder = IntegerModel(**plain, groups=(("monotone", (0, 1, 2, 3)),))  # type: ignore[arg-type]
    assert (ladder.low, ladder.high) == (0, 16)
    encoded = ladder.encode(rows)
    assert (np.diff(encoded, axis=1) <= 0).all()
    for model in (one_hot, ladder):
        scores = model.score(rows)
        assert (scores.min(), scores.max()) == (model.low, model.high)
        assert IntegerModel.from_json(model.to_json()) == model


def test_contradicting_paths_do_not_widen_the_range() -> None:
    columns = (Column.bit_of(0, 1.0), Column.bit_of(0, 2.0))
    tree = IntegerTree(
        np.array([1, -1, 0, -1, -1]),
        np.array([1, -1, 3, -1, -1]),
        np.array([2, -1, 4, -1, -1]),
        np.array([0, 1, 0, 9999, 3]),  # 9999 needs x >= 2 and x < 1
    )
    low, high = score_range(columns, np.zeros(2, np.int64), 0, (tree,), ())
    assert (low, high) == (1, 3)


def test_value_column_rounds_half_to_even_and_clips() -> None:
    column = Column.value_of(0, 1.0, 0.5, 4)
    values = np.array([-math.inf, 0.9, 1.25, 1.75, 2.5, 2.75, 1e300, math.inf])
    assert column.encode(values).tolist() == [0, 0, 0, 2, 3, 3, 3, 3]


def test_bit_is_one_from_its_threshold_on() -> None:
    column = Column.bit_of(0, 0.3)
    values = np.array([np.nextafter(0.3, 0), 0.3, np.nextafter(0.3, 1)])
    assert column.encode(values).tolist() == [0, 1, 1]


def test_rows_are_checked() -> None:
    model = one_column()
    with pytest.raises(ValueError, match=r"expected \(n, 1\)"):
        model.score(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="NaN") as caught:
        model.score(np.array([[123456.0], [math.nan]]))
    assert "123456" not in str(caught.value)
    assert model.score(np.zeros((0, 1))).shape == (0,)


def test_published_edges() -> None:
    model = one_column().with_edges([0, 16, 20, 32])
    assert model.edges.tolist() == hidden_edges(32)[[0, 16, 20, 32]].tolist()
    for bad in ([0, 20, 32], [0, 16], [1, 16, 32], [0, 16, 16, 32], [0, 16, 33], [32, 16, 0]):
        with pytest.raises(ValueError, match="bin_edges"):
            model.with_edges(bad)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(-258_048, 258_047), min_size=1, max_size=60),
    st.integers(2, 32),
    st.integers(0, 32),
)
def test_quantile_edges(scores: list[int], n_bins: int, threshold: int) -> None:
    model = one_column(threshold_bin=threshold).with_quantile_edges(scores, n_bins)
    assert threshold in model.bin_edges
    assert len(model.bin_edges) <= n_bins + 1
    assert (model.bin_edges[0], model.bin_edges[-1]) == (0, 32)


def test_quantile_edges_balance_the_bins() -> None:
    rng = np.random.default_rng(5)
    scores = rng.normal(30_000, 60_000, 4000).astype(np.int64)
    model = one_column().with_quantile_edges(scores, 8)
    counts, _ = np.histogram(scores, model.edges)
    assert len(counts) == 8
    assert counts.min() > 0.5 * 500
    assert counts.max() < 1.6 * 500


@pytest.mark.parametrize("kind", ["linear", "additive", "trees"])
def test_json_round_trip(kind: str) -> None:
    model = random_model(3, kind)
    text = model.to_json()
    again = IntegerModel.from_json(text)
    assert again == model
    assert again.to_json() == text
    assert again == IntegerModel.from_json(text.encode())
    assert again.digest() == model.digest()
    assert again.digest() != one_column().digest()
    assert "." not in text.replace("0x1.", "").replace("0x0.", "")  # no decimal floats


def mutate(**changes: Any) -> str:
    plain = json.loads(random_model(3, "trees").to_json())
    for path, value in changes.items():
        place: Any = plain
        *parents, last = path.split("__")
        for name in parents:
            place = place[int(name) if name.isdigit() else name]
        if value is ...:
            del place[last]
        else:
            place[int(last) if last.isdigit() else last] = value
    return json.dumps(plain)


TREE = "trees__0"
HOSTILE = {
    "empty": ("", "not JSON"),
    "not json": ("{", "not JSON"),
    "not utf-8": (b"\xff\xfe{}", "not JSON"),
    "nested": ("[" * 200_000, "not JSON"),
    "a list": ("[]", "expected an object"),
    "too large": (" " * 9_000_000, "at most"),
    "nan": (mutate(bias=math.nan), "only integers"),
    "infinity": (mutate(bias=math.inf), "only integers"),
    "a float": (mutate(bias=1.5), "only integers"),
    "huge integer": (mutate(bias=10**60), "64-bit"),
    "beyond int64": (mutate(bias=1 << 63), "64-bit"),
    "a boolean": (mutate(bias=True), "model.bias"),
    "a string": (mutate(bias="1"), "model.bias"),
    "null": (mutate(trees=None), "model.trees"),
    "unknown key": (mutate(extra=1), "unknown keys"),
    "missing key": (mutate(weights=...), "missing key 'weights'"),
    "twice": ('{"bias":1,"bias":2}', "twice"),
    "format": (mutate(format="integer-model/9"), "format"),
    "kind": (mutate(kind="deep"), "kind"),
    "bins": (mutate(bins=31), "bins"),
    "negative features": (mutate(n_features=-1), "n_features"),
    "many features": (mutate(n_features=10**9), "n_features"),
    "column feature": (mutate(columns__0__feature=3), "feature"),
    "column kind": (mutate(columns__0__kind="code"), "kind"),
    "column size": (mutate(columns__7__size=1), "size"),
    "column huge": (mutate(columns__7__size=1 << 40), "size"),
    "infinite cut": (mutate(columns__0__threshold="inf"), "threshold"),
    "nan cut": (mutate(columns__0__threshold="nan"), "threshold"),
    "overflow cut": (mutate(columns__0__threshold="0x1p99999"), "threshold"),
    "sloppy cut": (mutate(columns__0__threshold="1.0"), "canonical"),
    "negative step": (mutate(columns__7__step="-0x1.0000000000000p+0"), "step"),
    "zero step": (mutate(columns__7__step="0x0.0p+0"), "step"),
    "short weights": (mutate(weights=[0]), "weights"),
    "tree weights": (mutate(weights=[1] * 8), "weighs no column of two levels"),
    "out of range": (mutate(bias=258_048), "score range"),
    "huge bias": (mutate(bias=1 << 62), "bias"),
    "no trees": (mutate(trees=[]), "trees"),
    "many trees": (
        mutate(trees=[{"column": [-1], "left": [-1], "right": [-1], "value": [0]}] * 1001),
        "1000 trees",
    ),
    "empty tree": (
        mutate(trees=[{"column": [], "left": [], "right": [], "value": []}]),
        "at least one node",
    ),
    "tree cycle": (mutate(trees__0__left__0=0), "twice"),
    "tree child": (mutate(trees__0__left__0=999), "not a node"),
    "tree column": (mutate(trees__0__column__0=8), "reads column"),
    "tree leaf": (mutate(trees__0__value__2=1 << 40), "leaves"),
    "tree lengths": (mutate(trees__0__left=[1]), "same length"),
    "deep tree": (
        mutate(
            trees=[
                {
                    "column": [0, -1] * 5 + [-1],
                    "left": [1, -1, 3, -1, 5, -1, 7, -1, 9, -1, -1],
                    "right": [2, -1, 4, -1, 6, -1, 8, -1, 10, -1, -1],
                    "value": [0] * 11,
                }
            ]
        ),
        "deeper than 4",
    ),
    "edges": (mutate(bin_edges=[0, 5, 32]), "bin_edges"),
    "no edges": (mutate(bin_edges=[]), "bin_edges"),
    "threshold": (mutate(threshold_bin=-1), "threshold_bin"),
    "group kind": (mutate(groups=[{"kind": "any", "columns": [0]}]), "groups"),
    "group column": (mutate(groups=[{"kind": "one_hot", "columns": [99]}]), "groups"),
    "group twice": (mutate(groups=[{"kind": "one_hot", "columns": [1, 1]}]), "groups"),
    "infinite scale": (mutate(scale="inf"), "scale"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_json_is_refused(name: str) -> None:
    text, message = HOSTILE[name]
    start = time.thread_time()
    with pytest.raises(ValueError, match=message):
        IntegerModel.from_json(text)
    assert time.thread_time() - start < 1.0


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_any_damaged_text_is_refused_or_lawful(data: st.DataObject) -> None:
    text = random_model(1, "trees").to_json().encode()
    at = data.draw(st.integers(0, len(text) - 1))
    damaged = text[:at] + data.draw(st.binary(max_size=4)) + text[at + 1 :]
    try:
        model = IntegerModel.from_json(damaged)
    except ValueError:
        return
    scores = model.score(np.random.default_rng(0).normal(size=(50, model.n_features)))
    assert model.low <= scores.min()
    assert scores.max() <= model.high


def test_arrays_are_frozen_copies() -> None:
    weights = np.array([5])
    model = one_column(weights=weights)
    weights[0] = 6
    assert model.weights.tolist() == [5]
    with pytest.raises(ValueError, match="read-only"):
        model.weights[0] = 7
    with pytest.raises(ValueError, match="integers"):
        one_column(weights=np.array([5.0]))
