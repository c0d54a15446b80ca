"""Validation sets of one row, of one class and with strata of one patient in a hundred.

Each goes through a whole market on real ciphertexts: it costs what was agreed, shows no more than
its noised counts, and its score says how little is known. What a score says hangs on its noise: in
a market of one row only what follows from the counts is certain, so how often its intervals hold
is looked at over noise of a seed.
"""

import numpy as np
import pytest

from clearinghouse.client.hospital import HospitalTerms
from clearinghouse.log.entries import epsilon_by_owner, parse_entry
from clearinghouse.log.replay import verify_replay
from clearinghouse.messages.results import LogView, RunList, TargetView
from clearinghouse.score_cards import Released, document
from clearinghouse.tables import read_table

TARGET, SCORE = 500_000, 1_000_000
UNKNOWN = ["0.000000", "1.000000"]


def scored(world, rows, size_class, score=SCORE):
    """The one run of a market around these patients, after the checks that hold for any set."""
    path = world.folder / "odd.csv"
    path.write_text("\n".join(["age,sex,sick", *rows]) + "\n")
    world.patients = read_table(path, world.schema)
    world.limits = HospitalTerms(size_class, TARGET, TARGET + score)
    world.gather(epsilon_score_micro=score)
    assert world.hospital.budget.spent == 0  # sealing shows nothing
    view = world.work(world.everybody)
    assert (view.state, view.reason) == ("done", "")
    transport = world.hospital.transport
    (run,) = transport.get(f"/requests/{world.request_id}/runs", RunList).runs
    assert (run.state, run.epsilon_micro, bool(run.receipt)) == ("released", score, True)
    texts = transport.get("/log/entries", LogView).entries
    entries = [parse_entry(text.encode()) for text in texts]
    verify_replay(entries)
    spent = epsilon_by_owner(entries)[world.hospital.org_id]
    assert world.hospital.budget.spent == spent == TARGET + score
    # what left is noised in every cell, and without the noise it is the table, row for row
    (histogram, *_) = world.hospital.agent.record(run.id)["tables"]
    assert sum(histogram["exact"]) == len(rows)
    counts = [count for label in run.counts for count in label]
    assert [a + b for a, b in zip(histogram["exact"], histogram["noise"], strict=True)] == counts
    return run


def test_a_set_of_one_row_is_scored_and_nothing_is_claimed_of_it(world):
    run = scored(world, ["61.0,M,yes"], 1)
    assert run.groups == {}
    is_known = min(map(sum, run.counts)) >= 1
    assert run.scorecard["status"] == ("ok" if is_known else "undetermined")
    target = world.hospital.transport.get(f"/requests/{world.request_id}/target", TargetView)
    assert target.level == []  # one cell: there is room for no finer one


def test_intervals_of_one_row_hold_as_often_as_they_say_and_exclude_hardly_anything():
    """One sick patient called sick, in eight bins of noise: its sensitivity is 1."""
    rng, rounds, width = np.random.default_rng(3), 400, []
    held = 0
    for _ in range(rounds):
        noise = rng.geometric(1 - np.exp(-1), (2, 2, 8))
        counts = noise[0] - noise[1]
        counts[1, 6] += 1
        edges = [list(range(0, 90, 10))]
        card = Released("binary", counts.tolist(), SCORE, edges, [4]).card(0.9)
        intervals = document(card, "auc", 0.9)["intervals"]
        low, high = map(float, intervals["sensitivity"])
        held += low <= 1 <= high
        width.append(np.mean([float(high) - float(low) for low, high in intervals.values()]))
    assert held >= 0.9 * rounds
    assert np.mean(width) > 0.9
    assert np.quantile(width, 0.01) > 0.6


@pytest.mark.long
def test_a_set_of_one_class_has_scores_only_of_what_it_has(world):
    """Forty sick patients and nobody else: what needs a healthy one stays unknown."""
    rows = [f"{40 + i}.0,{'FM'[i % 2]},yes" for i in range(40)]
    intervals = scored(world, rows, 32, 20 * SCORE).scorecard["intervals"]  # with hardly any noise
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
