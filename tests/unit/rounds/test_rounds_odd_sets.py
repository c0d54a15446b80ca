"""Validation sets of one row, of one class and with strata of one patient in a hundred.

Each goes through a whole market on real ciphertexts: it costs what was agreed, shows no more than
its noised counts, and its score says how little is known.
"""

import pytest

from clearinghouse.client.hospital import HospitalTerms
from clearinghouse.log.entries import epsilon_by_owner, parse_entry
from clearinghouse.log.replay import verify_replay
from clearinghouse.messages.results import LogView, RunList, TargetView
from clearinghouse.tables import read_table

TARGET, SCORE = 500_000, 1_000_000
UNKNOWN = ["0.000000", "1.000000"]


def scored(world, rows, size_class):
    """The one run of a market around these patients, after the checks that hold for any set."""
    path = world.folder / "odd.csv"
    path.write_text("\n".join(["age,sex,sick", *rows]) + "\n")
    world.patients = read_table(path, world.schema)
    world.limits = HospitalTerms(size_class, TARGET, TARGET + SCORE)
    world.gather()
    assert world.hospital.budget.spent == 0  # sealing shows nothing
    view = world.work(world.everybody)
    assert (view.state, view.reason) == ("done", "")
    transport = world.hospital.transport
    (run,) = transport.get(f"/requests/{world.request_id}/runs", RunList).runs
    assert (run.state, run.epsilon_micro, bool(run.receipt)) == ("released", SCORE, True)
    texts = transport.get("/log/entries", LogView).entries
    entries = [parse_entry(text.encode()) for text in texts]
    verify_replay(entries)
    spent = epsilon_by_owner(entries)[world.hospital.org_id]
    assert world.hospital.budget.spent == spent == TARGET + SCORE
    # what left is noised in every cell, and without the noise it is the table, row for row
    (histogram, *_) = world.hospital.agent.record(run.id)["tables"]
    assert sum(histogram["exact"]) == len(rows)
    counts = [count for label in run.counts for count in label]
    assert [a + b for a, b in zip(histogram["exact"], histogram["noise"], strict=True)] == counts
    return run


def test_a_set_of_one_row_is_scored_and_nothing_is_claimed_of_it(world):
    run = scored(world, ["61.0,M,yes"], 1)
    assert run.groups == {}
    assert run.scorecard["status"] == "undetermined"
    assert set(map(tuple, run.scorecard["intervals"].values())) == {tuple(UNKNOWN)}
    target = world.hospital.transport.get(f"/requests/{world.request_id}/target", TargetView)
    assert target.level == []  # one cell: there is room for no finer one


@pytest.mark.long
def test_a_set_of_one_class_has_scores_only_of_what_it_has(world):
    """Forty sick patients and nobody else: what needs a healthy one stays unknown."""
    rows = [f"{40 + i}.0,{'FM'[i % 2]},yes" for i in range(40)]
    intervals = scored(world, rows, 32).scorecard["intervals"]
    assert intervals["auc"] == intervals["specificity"] == UNKNOWN
    assert intervals["sensitivity"] != UNKNOWN


@pytest.mark.long
def test_a_set_with_one_woman_in_a_hundred_patients_is_scored_and_she_is_covered(world):
    rows = [f"{25 + i % 60}.0,{'F' if i == 3 else 'M'},{('no', 'yes')[i % 2]}" for i in range(100)]
    run = scored(world, rows, 64)
    assert run.scorecard["status"] == "ok"
    (_, groups) = world.hospital.agent.record(run.id)["tables"]
    women = sum(groups["exact"][:2])
    assert women <= 1 < sum(groups["exact"][2:])
    shown = [count for level in run.groups["sex"] for count in level]
    assert [a + b for a, b in zip(groups["exact"], groups["noise"], strict=True)] == shown
    assert groups["epsilon_micro"] <= SCORE // 2  # her row has the noise of every other
