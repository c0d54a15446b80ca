"""Labels of classes and numbers in the rounds: tables, purse, and models that do not fit."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearinghouse.blobs.disk import DiskStore
from clearinghouse.blobs.place import BlobPlace
from clearinghouse.client.agreed import check_tables
from clearinghouse.client.recipes import integer_model, train
from clearinghouse.errors import ClearinghouseError, InputError, ProtocolError
from clearinghouse.messages.intake import Purse
from clearinghouse.messages.tasks import NoiseTable
from clearinghouse.rounds.awards import Scored, decide
from clearinghouse.rounds.turns import noise_tables
from clearinghouse.schema import parse_schema
from clearinghouse.worker import WorkerProcess
from secure_eval.layout import Layout
from secure_eval.params import PARAMETERS


def schema(label):
    return parse_schema(
        {
            "name": "s",
            "label": {"name": "y", **label},
            "columns": {
                "age": {"kind": "number", "low": 20, "high": 90, "cuts": [50]},
                "sex": {"kind": "category", "levels": ["F", "M"]},
            },
        },
        file="s",
    )


BINARY = schema({"levels": ["no", "yes"]})
CLASSES = schema({"levels": ["a", "b", "c"]})
NUMBER = schema({"kind": "number", "low": 0, "high": 60})


@given(
    st.integers(200_000, 5_000_000),
    st.integers(3, 16),
    st.lists(st.integers(1, 6), max_size=3),
)
def test_the_tables_of_all_classes_spend_exactly_the_run_s_epsilon(epsilon, classes, levels):
    groups = [(f"g{index}", count) for index, count in enumerate(levels)]
    tables = noise_tables(epsilon, classes, 8, groups, classes=classes)
    assert sum(table.epsilon_micro for table in tables) == epsilon
    assert [t.cells for t in tables if t.name.startswith("histogram:")] == [16] * classes
    per_class = 1 + len(groups)
    assert len(tables) == classes * per_class
    shares = [table.epsilon_micro for table in tables[::per_class]]
    assert max(shares) - min(shares) <= classes
    layout = Layout(PARAMETERS.version, 1, 4, classes, 0, tuple(groups))
    check_tables(tables, layout, epsilon)


def test_the_agent_refuses_other_tables_of_classes():
    layout = Layout(PARAMETERS.version, 1, 4, 3, 0, (("sex", 2),))
    good = noise_tables(1_000_000, 3, 8, [("sex", 2)], classes=3)
    check_tables(good, layout, 1_000_000)
    wide = NoiseTable(name="group:1:sex", cells=6, epsilon_micro=good[3].epsilon_micro)
    for tables, epsilon in (
        (good[:4], 1_000_000),
        (good[::-1], 1_000_000),
        ([*good[:3], wide, *good[4:]], 1_000_000),
        (good, 1_000_001),
        ([*good, *good], 2_000_000),
    ):
        with pytest.raises(ProtocolError):
            check_tables(tables, layout, epsilon)


# ---------------------------------------------------------------- purse


def scored(name, point, bound, determined=True):
    return Scored(f"run_{name * 20}", f"org_{name * 20}", point, bound, determined)


def test_of_an_error_the_least_wins_if_its_upper_bound_keeps_the_threshold():
    purse = Purse.model_validate(
        {
            "kind": "acceptance",
            "amount_micro": 300,
            "metric": "mae",
            "threshold_micro": 10_000_000,
            "confidence_micro": 900_000,
        }
    )
    found = [
        scored("a", 4_000_000, 11_000_000),
        scored("b", 6_000_000, 9_000_000),
        scored("c", 7_000_000, 8_000_000),
        scored("d", 1_000_000, 2_000_000, determined=False),
    ]
    assert dict(decide(purse, found).amounts) == {found[1].run_id: 300}
    assert not decide(purse, found[:1]).amounts
    assert decide(purse, found[:1]).refund == 300


# ---------------------------------------------------------------- models in the worker


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    folder = tmp_path_factory.mktemp("blobs")
    made = WorkerProcess(BlobPlace(folder, 2**26), wall_s=120, memory_bytes=6 * 2**30)
    made.blobs = DiskStore(folder, max_bytes=2**26)
    yield made
    made.close()


def inspected(worker, text, for_schema, bins=32):
    blob = worker.blobs.put(text if isinstance(text, bytes) else text.encode())
    arguments = {"model": blob, "schema": for_schema.to_dict(), "published_bins": bins}
    return worker.run("model.inspect", arguments)


def made(for_schema, recipe="trees"):
    return integer_model(train(recipe, for_schema, None, 7), for_schema).to_json()


def test_a_model_of_the_label_s_form_is_read(worker):
    one = inspected(worker, made(BINARY, "gam"), BINARY)
    assert (one["task"], one["kind"]) == ("binary", "linear")
    assert 0 <= one["score_bits"] <= 19
    assert 0.0 <= float(one["headroom"]) <= 1.0
    many = inspected(worker, made(CLASSES), CLASSES)
    assert (many["task"], len(many["histograms"]), len(many["columns"])) == ("classes", 3, 3)
    number = inspected(worker, made(NUMBER), NUMBER)
    assert number["task"] == "number"
    assert float(number["unit"]) > 0
    assert float(number["width"]) == 60.0


def changed(text, **changes):
    plain = {**json.loads(text), **changes}
    return json.dumps(plain, sort_keys=True, separators=(",", ":"))


def deep(depth):
    """A chain of splits of this depth on one column."""
    inner = np.arange(depth)
    column = [0] * depth + [-1] * (depth + 1)
    left = [depth + int(node) for node in inner] + [-1] * (depth + 1)
    right = [int(node) + 1 for node in inner[:-1]] + [2 * depth] + [-1] * (depth + 1)
    return {"column": column, "left": left, "right": right, "value": [0] * (2 * depth + 1)}


LEAF = {"column": [-1], "left": [-1], "right": [-1], "value": [0]}


def bad_models():
    text = made(BINARY, "gam")
    bit = {
        "feature": 1,
        "kind": "value",
        "low": (0.0).hex(),
        "step": (1.0).hex(),
        "size": 2,
        "threshold": (0.0).hex(),
    }
    trees = {"kind": "trees", "columns": [bit], "weights": [0]}
    return {
        "not a number": changed(text, scale="nan"),
        "beyond the bins": changed(text, bias=1 << 39),
        "a million trees": changed(text, **trees, trees=[LEAF] * 60_000),
        "depth nine": changed(text, **trees, trees=[deep(9)]),
        "an unknown kind": changed(text, kind="network"),
        "another column": changed(text, columns=[{**bit, "low": (0.5).hex()}], weights=[5]),
        "a pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix",
        "several scores": made(CLASSES),
        "a residual": made(NUMBER),
    }


@pytest.mark.parametrize("name", list(bad_models()))
def test_a_bad_model_is_one_error_and_the_worker_serves_on(worker, name):
    inspected(worker, made(BINARY), BINARY)
    process = worker.pid
    with pytest.raises(ClearinghouseError) as caught:
        inspected(worker, bad_models()[name], BINARY)
    assert len(str(caught.value)) < 400
    assert inspected(worker, made(BINARY), BINARY)["task"] == "binary"
    assert worker.pid == process


def test_models_of_another_label_are_refused_in_words(worker):
    with pytest.raises(InputError, match="model of 3 classes"):
        inspected(worker, made(BINARY), CLASSES)
    with pytest.raises(InputError, match="one score"):
        inspected(worker, made(CLASSES), NUMBER)
    with pytest.raises((InputError, ProtocolError), match="no residual"):
        inspected(worker, made(BINARY), NUMBER)
