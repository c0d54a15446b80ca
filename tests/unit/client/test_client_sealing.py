"""Sealing a set: what it tells of its size, and a second time under a new key."""

from dataclasses import replace

import numpy as np
import pytest
from hospital_court import REQUEST, TARGET, TERMS, Court

from clearinghouse import model_columns
from clearinghouse.client.loopback import app_client
from clearinghouse.errors import InputError, ProtocolError, RefusedError
from clearinghouse.ids import new_id
from clearinghouse.messages.intake import SealValset, SizeRelease
from clearinghouse.rounds.intake import check_layout
from secure_eval.params import PARAMETERS


@pytest.mark.parametrize("packed", [False, True])
def test_nothing_uploaded_says_how_many_rows_there_are(new_bench, heart, schema, tmp_path, packed):
    shapes = []
    for n in (33, 61):
        bench = new_bench()
        with app_client(bench.app) as client:
            court = Court(bench, client, tmp_path / str(n), heart(n, seed=n), schema)
            hospital = court.hospital(terms=replace(TERMS, packed=packed))
            hospital.register()
            hospital.seal()
            message, keys, layout, uploads = court.sealed()
        assert bool(layout.strips) == packed, "a packed set says that it has at most 585 rows"
        public = {name: message[name] for name in ("size_class", "level", "layout")}
        shapes.append((public, set(message), len(keys), [len(blob) for blob in uploads]))
    assert shapes[0] == shapes[1]


def test_more_rows_than_fit_are_not_packed(new_bench, heart, schema, tmp_path):
    bench, packed = new_bench(), replace(TERMS, packed=True)
    with app_client(bench.app) as client:
        court = Court(bench, client, tmp_path / "va", heart(20, seed=3), schema)
        many = heart(20, seed=3).take(np.arange(586) % 20)
        with pytest.raises(InputError, match="at most 585 rows, and the table has 586"):
            court.hospital(many, packed)
        noised = replace(packed, size_class=None, epsilon_size_micro=100_000)
        with pytest.raises(InputError, match="which --epsilon-size is to hide"):
            court.hospital(many.take(np.arange(585)), noised)
        court.hospital(many.take(np.arange(585)), packed)


def test_the_server_refuses_packed_sets_of_another_shape(schema):
    strips = model_columns.strips(schema)
    layout = {
        "version": PARAMETERS.version,
        "n_blocks": 1,
        "columns": sum(strips),
        "labels": 2,
        "cells": 1,
        "groups": [],
    }
    release = SizeRelease(noised=40, epsilon_micro=100_000)
    plain = SealValset.model_construct(
        size_class=8, size_release=None, level=[], layout=layout, upload_blobs=["0" * 64]
    )
    check_layout(schema, plain)
    packed = plain.model_copy(update={"layout": {**layout, "strips": strips}})
    check_layout(schema, packed)
    for change in (
        {"layout": {**layout, "strips": strips[::-1]}},
        {"layout": {**layout, "strips": []}},
        {"layout": {**layout, "strips": strips, "rows": 40}},
        {"size_class": 1024},
        {"size_release": release},
    ):
        with pytest.raises(InputError):
            check_layout(schema, packed.model_copy(update=change))


def test_a_set_is_sealed_again_under_a_new_key_and_the_ledger_carries_on(
    new_bench, heart, schema, tmp_path
):
    bench = new_bench()
    with app_client(bench.app) as client:
        made = Court(bench, client, tmp_path / "va", heart(45, seed=3), schema)
        hospital = made.hospital()
        hospital.register()
        first = hospital.seal()
        made.request = hospital.open_request(REQUEST, [new_id("src")], made.developers)
        made.open_target()
        hospital = made.hospital()
        used, spent = hospital.agent.quota.used, hospital.budget.spent
        assert used == len(made.noised_cells()) + 3
        assert spent == TARGET
        old = (made.directory / "he.key").read_bytes()
        with pytest.raises(RefusedError, match=f"{made.request} is running on this set"):
            hospital.reseal()
        assert (made.directory / "he.key").read_bytes() == old
        second = hospital.reseal(abandon=True)
        assert second != first
        again = made.hospital()
        assert again.seal() == second
        assert (made.directory / "he.key").read_bytes() != old
        assert (made.directory / "private" / "old" / first / "he.key").read_bytes() == old
        # the new key has opened nothing; the patients have paid what they have paid
        assert again.agent.quota.used == 0
        assert again.budget.spent == spent
        assert again.agent._approved() == {made.target_run: {"request": made.request, "model": ""}}
        with pytest.raises(RefusedError, match="opened before"):
            again.agent.target_commit(
                made.request,
                again._terms(made.request),
                made.commit_task.model_copy(update={"run_id": new_id("run")}),
            )
        # nothing of the old set is answered under the new key
        with pytest.raises(RefusedError, match="another validation set"):
            again.handle(made.task(made.commit_task))
        with pytest.raises(ProtocolError, match="under an older key"):
            again.handle(made.task(made.digits_task(made.model_for_nobody())))
