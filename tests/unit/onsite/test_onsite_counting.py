"""Counting: one cell of each table for each row, whatever scores say; cards of every kind of label.

And the pins: which PySyft the folder's format is.
"""

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from accusing import SURE
from onnx import helper
from onsite_pair import graph

from clearinghouse.cli.preflight import synthetic
from clearinghouse.errors import InputError
from clearinghouse.features import encode, features
from clearinghouse.money import MICRO
from clearinghouse.onsite import box, session
from clearinghouse.onsite.counting import exact_counts, noised, tables_of
from clearinghouse.onsite.developer import Wish, _edges
from clearinghouse.onsite.papers import Job, Offer, feature_names, read_job, read_offer, to_bytes
from clearinghouse.onsite.releases import read_release, sign_release
from clearinghouse.rounds.turns import noise_tables
from clearinghouse.schema import parse_schema
from clearinghouse.score_cards import metrics_of
from clearinghouse.signing import SigningKey
from dp.audit import Statistic, audit_release
from dp.audit_likelihood import Claimed, likelihood_ratio

LABELS = {
    "binary": {"name": "y", "levels": ["no", "yes"]},
    "classes": {"name": "y", "levels": ["low", "mid", "high"]},
    "number": {"name": "y", "kind": "number", "low": "10", "high": "30", "cuts": ["20"]},
}
SCHEMAS = {
    name: parse_schema(
        {
            "name": name,
            "label": label,
            "columns": {
                "age": {"kind": "number", "low": "20", "high": "90", "cuts": ["50"]},
                "sex": {"kind": "category", "levels": ["F", "M"], "missing": "true"},
            },
            "subgroups": ["sex", "age"],
        },
        file=name,
    )
    for name, label in LABELS.items()
}
KEY = SigningKey.generate()


def papers(name: str) -> tuple[Offer, Job]:
    schema = SCHEMAS[name]
    offer = Offer(
        "data", "A", "a@b.org", KEY.verify_key.base64, schema.to_dict(), 64, 8, 100 * MICRO
    )
    edges, threshold = _edges(Wish("a@b.org", "data", "j"), offer, schema)
    names = feature_names(schema)
    job = Job(
        *("data", "a@b.org", "c@d.org", "0" * 64, 10, schema.digest(), names),
        *(offer.epsilon_micro, edges, threshold, 0),
    )
    return offer, job


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_row_is_in_one_cell_of_each_table(name) -> None:
    schema, (_, job) = SCHEMAS[name], papers(name)
    table = synthetic(schema, 60, 3)
    random = np.random.default_rng(1)
    width = 3 if name == "classes" else 1
    scores = random.normal(size=(60, width)) * 10
    scores[:4, 0] = (np.nan, np.inf, -np.inf, 1e300)
    tables = tables_of(schema, 8, job.epsilon_micro)
    counts = exact_counts(table, scores, job.edges, job.threshold_edge)
    assert list(counts) == [cells.name for cells in tables]
    for cells in tables:
        assert len(counts[cells.name]) == cells.size
        assert sum(counts[cells.name]) == 60
    # one row more is one more in one cell of each: what the noise is made for
    less = exact_counts(table.take(range(1, 60)), scores[1:], job.edges, job.threshold_edge)
    for key, values in counts.items():
        assert np.abs(np.subtract(values, less[key])).sum() == 1


@pytest.mark.parametrize("name", SCHEMAS)
def test_epsilons_are_shared_as_in_a_blind_run(name) -> None:
    schema = SCHEMAS[name]
    tables = tables_of(schema, 8, 1_000_003)
    assert sum(cells.epsilon_micro for cells in tables) == 1_000_003
    groups = [] if name == "number" else [(g, 3) for g in schema.subgroups]
    blind = noise_tables(1_000_003, 2, 8, groups, classes=3 if name == "classes" else 1)
    assert [cells.name for cells in tables] == [table.name for table in blind]
    for cells, table in zip(tables, blind, strict=True):
        assert abs(cells.epsilon_micro - table.epsilon_micro) <= 2


def test_the_release_is_as_private_as_it_says() -> None:
    """From scored rows to noised counts, judged by its law; a right path fails 1 time in 10**6."""
    schema, (_, job) = SCHEMAS["binary"], papers("binary")
    table, scores = synthetic(schema, 20, 3), np.linspace(0, 1, 20)[:, None]
    tables = tables_of(schema, 8, 2 * MICRO)[:2]
    claimed = sum(cells.epsilon_micro for cells in tables) / MICRO

    laws = [Claimed(cells.size, cells.epsilon_micro) for cells in tables]

    def counted(chosen) -> dict[str, list[int]]:
        part = table.take(chosen)
        return exact_counts(part, scores[chosen], job.edges, job.threshold_edge)

    def release(chosen) -> np.ndarray:
        return np.concatenate(list(noised(counted(chosen), tables).values()))

    def ratio(*sides) -> list[Statistic]:
        exact = [np.concatenate([counted(side)[c.name] for c in tables]) for side in sides]
        return [likelihood_ratio(laws, *exact)]

    pairs = {"the last patient": (np.arange(1), np.arange(0))}
    verdict = audit_release(release, pairs, claimed, n=2000, confidence=SURE, known=ratio)
    assert verdict.passed, verdict
    assert verdict.worst > 0.5  # of 1.6: it would see a release that costs much more than it says


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_release_is_read_back_as_a_card(name) -> None:
    schema, (offer, job) = SCHEMAS[name], papers(name)
    assert read_offer(to_bytes(offer)) == (offer, schema)
    assert read_job(to_bytes(job), offer, schema) == job
    table = synthetic(schema, 200, 3)
    codes = schema.label.codes(table.labels)
    perfect = {
        "binary": lambda: codes[:, None].astype(float),
        "classes": lambda: np.eye(3)[codes],
        "number": lambda: table.labels[:, None],
    }[name]()
    tables = tables_of(schema, 8, job.epsilon_micro)
    counts = noised(exact_counts(table, perfect, job.edges, job.threshold_edge), tables)
    found = read_release(sign_release(offer, job, "j", tables, counts, KEY), offer, job, "j")
    metrics = metrics_of(found.card)
    if name == "number":
        assert metrics["mae"][1] <= 2.5  # half a bin, of a range of 20
    else:
        assert metrics["auc"][0] == pytest.approx(1.0, abs=0.01)
    assert bool(found.groups) == (name == "binary")


def test_edges_and_papers_that_ask_for_more_are_refused() -> None:
    offer, job = papers("binary")
    schema = SCHEMAS["binary"]
    wrong = {
        "edges must rise": {"edges": (0, 5, 5, MICRO + 1)},
        "whole millionths": {"edges": (*range(12), MICRO + 1)},
        "names no edge": {"threshold_edge": 99},
        "'epsilon_micro' is not": {"epsilon_micro": 5},
        "'schema_sha256' is not": {"schema_sha256": "1" * 64},
        "'columns' is not": {"columns": ("age",)},
    }
    for words, change in wrong.items():
        with pytest.raises(InputError, match=words):
            read_job(to_bytes(replace(job, **change)), offer, schema)
    with pytest.raises(InputError, match="and no other"):
        read_job(to_bytes(job).replace(b'"columns"', b'"columnz"'), offer, schema)
    with pytest.raises(InputError, match="add a cut"):
        _edges(Wish("a@b.org", "data", "j", cuts=(0.25,)), offer, schema)


def test_scores_are_read_by_the_labels_levels() -> None:
    width = len(features(SCHEMAS["classes"]))
    weights = np.random.default_rng(0).normal(size=(width, 3)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("Softmax", ["z"], ["p"], axis=1),
    ]
    model = graph(nodes, [("w", weights)], width).SerializeToString()
    table = synthetic(SCHEMAS["classes"], 8, 0)
    rows = encode(SCHEMAS["classes"], table)
    levels = SCHEMAS["classes"].label.levels
    found = session.answer(model, rows, levels)["scores"]
    expected = np.exp(rows @ weights - (rows @ weights).max(axis=1, keepdims=True))
    expected /= expected.sum(axis=1, keepdims=True)
    assert np.allclose(found, expected, atol=1e-5)
    with pytest.raises(ValueError, match="3 scores a row, and the label has 2 levels"):
        session.answer(model, rows, ("no", "yes"))
    assert session.read_scores([{"high": 0.1, "low": 0.7, "mid": 0.2}], levels) == [0.7, 0.2, 0.1]
    assert session.read_scores([{1: 0.1, 0: 0.9}], ("no", "yes")) == [0.1]
    with pytest.raises(ValueError, match="not the label's levels"):
        session.read_scores([{"a": 0.1, "b": 0.9}], ("no", "yes"))


# ---------------------------------------------------------------- the pins


def test_the_pins_are_what_is_installed_and_locked() -> None:
    """If this fails, PySyft moved: read its changes and test_onsite_path.py before pinning it."""
    locked = (Path(__file__).parents[3] / "requirements" / "dev.txt").read_text()
    for name, pin in box.PINS.items():
        assert version(name) == pin, f"{name} moved to {version(name)}"
        assert f"\n{name}=={pin} " in locked, f"{name} is locked at another version"
    assert "\nsyft==" not in (Path(__file__).parents[3] / "requirements" / "server.txt").read_text()


def test_what_is_used_of_pysyft_is_there() -> None:
    """Names the part of PySyft that is gone, where an upgrade takes one away."""
    from syft_datasets.dataset_manager import SyftDatasetManager
    from syft_job import JobClient, JobState, JobStatus, JobSubmissionMetadata
    from syft_job.job_storage import JobStorage
    from syft_permissions import AccessLevel, ACLService
    from syft_perms import SyftPermContext

    used = {
        SyftDatasetManager: ("create", "get"),
        JobStorage: (
            *("new_submission_ref", "submission_dir", "review_dir", "iter_submission_refs"),
            *("write_submission", "write_state", "read_state"),
        ),
        JobClient: ("from_config", "setup_ds_job_folder_as_do"),
        SyftPermContext: ("open",),
        ACLService: ("load_permissions_from_filesystem", "can_access"),
        AccessLevel: ("READ", "WRITE"),
        JobStatus: ("PENDING", "REJECTED", "DONE"),
    }
    missing = [f"{c.__name__}.{n}" for c, names in used.items() for n in names if not hasattr(c, n)]
    assert missing == []
    assert {"name", "type", "submitted_at", "files", "datasets"} <= set(
        JobSubmissionMetadata.model_fields
    )
    assert {"status", "review_reason", "return_code"} <= set(JobState.model_fields)


def test_another_pysyft_is_refused_by_name(monkeypatch, tmp_path) -> None:
    monkeypatch.setitem(box.PINS, "syft-job", "0.2.0")
    with pytest.raises(InputError, match=r"works with syft-job 0\.2\.0, not 0\.1\.40"):
        box.Box(tmp_path, "a@b.org")
    monkeypatch.setitem(box.PINS, "syft-nothing", "1.0")
    monkeypatch.delitem(box.PINS, "syft-job")
    with pytest.raises(InputError, match=r"needs the package syft-nothing.*pysyft"):
        box.Box(tmp_path, "a@b.org")
