"""The hospital's side of real runs: the test plays a server with the real evaluator."""

import secrets
import sqlite3
from dataclasses import replace

import numpy as np
import pytest
from hospital_court import LIMIT, NONCES, REQUEST, SCORE, TARGET, TERMS, Court, Scored

from clearinghouse import cells, model_columns
from clearinghouse.client import key_agent
from clearinghouse.client.loopback import app_client
from clearinghouse.client.recipes import publish_bins, recipe_source
from clearinghouse.errors import (
    BudgetExceededError,
    InputError,
    ProtocolError,
    RefusedError,
    SpentError,
    VerificationError,
)
from clearinghouse.ids import new_id
from clearinghouse.log.claim import Metric
from clearinghouse.messages.tasks import (
    NoiseTable,
    ScoreCharactersTask,
    ScoreEarlyTask,
    ScoreFinalTask,
    ScoreRepliesTask,
    ValsetChecksTask,
)
from clearinghouse.signing import pre_authentication_encoding
from secure_eval.checked import CheckedScoringRun
from secure_eval.noise import commitment
from secure_eval.scorecard import METRICS, Scorecard


@pytest.fixture(scope="module")
def court(new_bench, heart, schema, tmp_path_factory):
    bench = new_bench()
    with app_client(bench.app) as client:
        made = Court(bench, client, tmp_path_factory.mktemp("h") / "va", heart(45, seed=3), schema)
        hospital = made.hospital()
        hospital.register()
        hospital.seal()
        made.request = hospital.open_request(REQUEST, [new_id("src")], made.developers)
        made.model = publish_bins(
            recipe_source("logistic", 7)(schema, heart(80, seed=4)), schema, heart(80, seed=4), 8
        )
        made.other = recipe_source("gam", 7)(schema, heart(80, seed=5))
        with pytest.raises(RefusedError, match="before the request's target"):
            hospital.agent.score_digits(
                made.request, hospital._terms(made.request), made.digits_task(made.model), b""
            )
        made.noised = made.open_target()
        yield made


@pytest.fixture(scope="module")
def scored(court):
    """One whole run with a restart of the hospital before every message."""
    _, keys, layout, uploads = court.sealed()
    model = court.model
    where = model_columns.columns(court.schema)
    mapped = [where.index(column) for column in model.columns]
    run_id, nonces = new_id("run"), NONCES
    server = CheckedScoringRun(
        keys,
        layout,
        uploads,
        model,
        mapped,
        secrets.token_bytes(32),
        run_id,
        bytes.fromhex(nonces[0]),
    )
    task = court.digits_task(model, server.score(), run_id=run_id)
    digits = court.hospital().handle(court.task(task)).digits_blob
    early = court.put(server.early_checks(court.bench.blobs[digits]))
    tests = ScoreEarlyTask(run_id=run_id, checks_blob=early)
    early_replies = court.hospital().handle(court.task(tests)).replies_blob
    server.accept_early(court.bench.blobs[early_replies])
    shares = court.put(server.shares(court.bench.blobs[digits]))
    second = ScoreCharactersTask(run_id=run_id, shares_blob=shares, nonces=nonces)
    characters = court.hospital().handle(court.task(second)).characters_blob
    final = court.put(server.final_checks(court.bench.blobs[characters]))
    more = ScoreFinalTask(run_id=run_id, checks_blob=final)
    final_replies = court.hospital().handle(court.task(more)).replies_blob
    server.accept_final(court.bench.blobs[final_replies])
    openings = court.put(server.openings(court.bench.blobs[characters]))
    third = ScoreRepliesTask(run_id=run_id, openings_blob=openings)
    replies = court.hospital().handle(court.task(third)).replies_blob
    again = court.hospital()
    assert again.handle(court.task(task)).digits_blob == digits
    assert again.handle(court.task(tests)).replies_blob == early_replies
    assert again.handle(court.task(second)).characters_blob == characters
    assert again.handle(court.task(more)).replies_blob == final_replies
    assert again.handle(court.task(third)).replies_blob == replies
    opened = server.release(court.bench.blobs[replies])
    blobs = [task.score_blob, digits, early, early_replies, shares, characters]
    blobs += [final, final_replies, openings, replies]
    return Scored(task, opened, blobs)


def test_the_target_is_the_exact_counts_plus_the_committed_noise(court):
    record = court.hospital().agent.record(court.target_run)
    (table,) = record["tables"]
    exact = cells.counts(court.table, court.hospital().level)
    assert table["exact"] == exact.tolist()
    assert court.noised == (exact + np.array(table["noise"])).tolist()
    agent = court.hospital().agent._target(court.target_run)
    assert court.committed == commitment(agent._noise_key).hex()


def test_sealing_and_opening_again_change_nothing(court, heart):
    before = len(court.bench.posts)
    hospital = court.hospital()
    assert hospital.seal() == hospital._valset()["valset_id"]
    source = court.hospital()._terms(court.request).source_ids
    assert hospital.open_request(REQUEST, source, court.developers) == court.request
    assert len(court.bench.posts) == before
    with pytest.raises(ProtocolError, match="not the one that was sealed"):
        court.hospital(table=heart(45, seed=9)).seal()
    with pytest.raises(InputError, match="limits"):
        court.hospital(terms=replace(TERMS, limit_micro=LIMIT + 1))


def test_a_whole_run_opens_the_exact_counts_of_the_plain_model(court, scored):
    from clearinghouse.features import encode

    record = court.hospital().agent.record(scored.task.run_id)
    noise = {table["name"]: np.array(table["noise"]) for table in record["tables"]}
    scores = court.model.score(encode(court.schema, court.table))
    bins = np.searchsorted(court.model.edges, scores, side="right") - 1
    expected = np.zeros((2, len(court.model.bin_edges) - 1), np.int64)
    np.add.at(expected, (court.table.labels, bins), 1)
    assert (scored.opened.counts == expected + noise["histogram"].reshape(2, -1)).all()
    predicted = scores >= court.model.threshold
    assert set(scored.opened.groups) == {"sex"}  # a table by age has too many cells for 45 rows
    for name in scored.opened.groups:
        codes = court.schema.stratum_codes(court.table, name)
        rows = np.zeros((len(court.schema.stratum_names(name)), 2), np.int64)
        np.add.at(rows, (codes[predicted], court.table.labels[predicted]), 1)
        found = scored.opened.groups[name] - noise[f"group:{name}"].reshape(rows.shape)
        assert (found == rows).all()


def test_each_release_is_paid_once_and_in_full(court, scored):
    assert court.hospital().budget.spent == TARGET + SCORE
    assert court.hospital().budget.limit == LIMIT


def refuse(court, task, error, words):
    hospital = court.hospital()
    spent = hospital.budget.spent
    with pytest.raises(error, match=words):
        hospital.handle(court.task(task))
    assert hospital.budget.spent == spent


def test_a_second_run_of_a_model_is_refused(court, scored):
    refuse(court, court.digits_task(court.model), RefusedError, "scored before")


def test_a_second_target_is_refused(court, scored):
    task = court.commit_task.model_copy(update={"run_id": new_id("run")})
    refuse(court, task, RefusedError, "opened before")


def test_an_altered_target_task_is_refused(court):
    for update, words in (
        ({"epsilon_micro": TARGET + 1}, "epsilon"),
        ({"cells": 1}, "cells"),
        ({"valset_id": new_id("val")}, "another validation set"),
    ):
        task = court.commit_task.model_copy(update={"run_id": new_id("run"), **update})
        refuse(court, task, ProtocolError, words)


def test_tables_that_were_not_agreed_are_refused(court, scored):
    good = court.digits_task(court.other).tables
    more = [good[0].model_copy(update={"epsilon_micro": good[0].epsilon_micro + 1}), *good[1:]]
    twice = [*good, good[-1].model_copy(update={"name": "again", "epsilon_micro": 1})]
    wide = [good[0].model_copy(update={"cells": 2 * 65}), *good[1:]]
    odd = [good[0].model_copy(update={"cells": good[0].cells + 1}), *good[1:]]
    group = [good[0], good[1].model_copy(update={"cells": 40}), *good[2:]]
    free = [
        good[0].model_copy(update={"epsilon_micro": good[0].epsilon_micro + good[1].epsilon_micro}),
        good[1].model_copy(update={"epsilon_micro": 0}),
        *good[2:],
    ]
    for tables in (more, twice, wide, odd, group, free, good[:1], good[::-1]):
        refuse(court, court.digits_task(court.other, tables=tables), ProtocolError, "table|histo")


def test_a_run_above_the_budget_is_refused_before_anything_is_decrypted(court, scored, monkeypatch):
    def never(*_):
        raise AssertionError("decrypted")

    monkeypatch.setattr(key_agent.CheckedAgentRun, "digits", never)
    with sqlite3.connect(court.directory / "ledger.sqlite") as ledger:
        left = (
            LIMIT - ledger.execute("SELECT spent FROM account WHERE lane='epsilon'").fetchone()[0]
        )
    assert left >= SCORE  # one more run would fit ...
    hospital = court.hospital()
    terms = hospital._terms(court.request).model_copy(update={"epsilon_score_micro": left + 1})
    _, *rest = court.digits_task(court.other).tables
    tables = [t.model_copy(update={"epsilon_micro": 1_000}) for t in rest]
    most = left + 1 - 1_000 * len(rest)
    tables.insert(0, NoiseTable(name="histogram", cells=16, epsilon_micro=most))
    task = court.digits_task(court.model, tables=tables, model_digest="0" * 64)
    with pytest.raises(BudgetExceededError):  # ... but not one that costs a millionth too much
        hospital.agent.score_digits(court.request, terms, task, b"")
    assert hospital.budget.spent == LIMIT - left


def test_runs_of_strangers_and_unknown_requests_are_refused(court, scored):
    hospital = court.hospital()
    task = ScoreRepliesTask(run_id=new_id("run"), openings_blob="0" * 64)
    with pytest.raises(RefusedError, match="never approved"):
        hospital.handle(court.task(task))
    task = ScoreRepliesTask(run_id=scored.task.run_id, openings_blob="0" * 64)
    with pytest.raises(ProtocolError, match="another request"):
        hospital.handle(court.task(task, new_id("req")))
    with pytest.raises(ProtocolError, match="another request"):
        hospital.handle(court.task(court.target_task, new_id("req")))


def test_other_bytes_for_an_answered_round_are_refused(court, scored):
    hospital = court.hospital()
    openings = bytearray(court.bench.blobs[scored.blobs[8]])
    openings[-1] ^= 1
    task = ScoreRepliesTask(run_id=scored.task.run_id, openings_blob=court.put(bytes(openings)))
    with pytest.raises(SpentError, match="not possible here"):
        hospital.handle(court.task(task))


def test_the_tests_of_another_set_are_refused(court):
    task = ValsetChecksTask(valset_id=new_id("val"), checks_blob="0" * 64, seed_commitment="0" * 64)
    refuse(court, task, ProtocolError, "another validation set")


def test_a_target_published_with_other_counts_stops_scoring(court, scored):
    key = f"{court.request}/target"
    good = court.bench.documents[key]
    court.bench.documents[key] = {**good, "noised": [good["noised"][0] + 1, *good["noised"][1:]]}
    try:
        refuse(court, court.digits_task(court.other), ProtocolError, "published target")
    finally:
        court.bench.documents[key] = good


def test_statements_that_are_not_what_was_opened_are_not_signed(court, scored):
    counts, groups = scored.opened.counts, scored.opened.groups
    one_more, moved = counts.copy(), counts.copy()
    one_more[1, -1] += 1
    moved[0, 0] -= 200
    moved[0, 1] += 200
    across = counts.copy()
    edge = court.model.bin_edges.index(court.model.threshold_bin)
    across[0, edge - 1] += 1
    across[0, edge] -= 1  # class totals hold, but the subgroups' do not
    group = {name: part.copy() for name, part in groups.items()}
    group["sex"][0, 0] += 1
    lists = {name: part.tolist() for name, part in group.items()}
    fewer = {name: part.tolist() for name, part in groups.items() if name != "sex"}
    better = Metric("0.990000", "0.980000", "0.995000")
    metrics = court.hospital()
    other = new_id
    epsilon = scored.task.tables[0].epsilon_micro / 1e6
    card = Scorecard.from_counts(counts.tolist(), epsilon, court.model.edges, edge)
    wrong_status = "undetermined" if card.status == "ok" else "determined"
    for change, words in (
        ({"counts": one_more.tolist()}, "do not sum"),
        ({"counts": moved.tolist()}, "negative"),
        ({"counts": across.tolist()}, "negative|histogram's"),
        ({"groups": lists}, "sum to the histogram's|more or less"),
        ({"groups": fewer}, "other tables"),
        ({"release_sha256": "0" * 64}, "release"),
        ({"transcript_sha256": "0" * 64}, "transcript"),
        ({"model_sha256": "0" * 64}, "model_sha256"),
        ({"valset_commitment": "0" * 64}, "valset_commitment"),
        ({"policy_sha256": "0" * 64}, "policy_sha256"),
        ({"request": other("req")}, "request"),
        ({"run": other("run")}, "run"),
        ({"model": other("mod")}, "model"),
        ({"valset": other("val")}, "valset"),
        ({"developer": other("org")}, "developer"),
        ({"epsilon_micro": SCORE - 1}, "epsilon"),
        ({"status": wrong_status}, "status"),
        ({"facts": {"award": "this model wins"}}, "facts"),
        ({"metrics": {"auc": better}}, "metrics"),
        ({"metrics": dict.fromkeys(METRICS, better)}, "follow"),
    ):
        with pytest.raises(ProtocolError, match=words):
            metrics.handle(scored.statement(court, **change))
    task = scored.statement(court).task
    for payload in ("", "AAAA", task.payload[:-4], task.payload.replace("e", "f", 1)):
        with pytest.raises((VerificationError, ProtocolError)):
            metrics.handle(court.task(task.model_copy(update={"payload": payload})))


def test_an_honest_statement_is_signed_and_the_run_put_away(court, scored):
    view = scored.statement(court)
    hospital = court.hospital()
    answer = hospital.answer(view)
    import base64

    payload = base64.b64decode(view.task.payload)
    message = pre_authentication_encoding("application/vnd.in-toto+json", payload)
    key = hospital.keystore.signing_key.verify_key
    key.verify(base64.b64decode(answer.signature), message)
    assert answer.key_id == key.key_id
    assert hospital.answer(view) == answer
    record = hospital.agent.record(scored.task.run_id)
    for table in record["tables"]:
        part = (
            scored.opened.counts
            if table["name"] == "histogram"
            else scored.opened.groups[table["name"].removeprefix("group:")]
        )
        assert part.reshape(-1).tolist() == [
            noise + exact for noise, exact in zip(table["noise"], table["exact"], strict=True)
        ]
    assert not list((court.directory / "private" / "states").glob(f"{scored.task.run_id}*"))
    assert (court.directory / "private").stat().st_mode & 0o077 == 0


def test_epsilon_is_debited_before_the_masked_scores_are_decrypted(court, scored, monkeypatch):
    seen = []

    def crash(*_):
        seen.append(court.spent())
        raise KeyboardInterrupt

    hospital = court.hospital()
    before = hospital.budget.spent
    task = court.digits_task(court.other)
    monkeypatch.setattr(key_agent.CheckedAgentRun, "digits", crash)
    with pytest.raises(KeyboardInterrupt):
        hospital.handle(court.task(task))
    monkeypatch.undo()
    assert seen == [before + SCORE]
    # After the restart the run is burnt: its cost is gone and nothing is opened for free.
    with pytest.raises(SpentError, match=r"0\.4 of epsilon was spent on this run") as refused:
        court.hospital().handle(court.task(task))
    assert refused.value.spent_micro == SCORE
    assert court.hospital().budget.spent == before + SCORE
    third = court.digits_task(court.model, model_digest="1" * 64)
    refuse(court, third, RefusedError, "are used")
