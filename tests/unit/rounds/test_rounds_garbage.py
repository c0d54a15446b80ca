"""Garbage: what nothing names goes, what anything names stays, and a crash loses nothing."""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jobs
import pytest
from desk_market import BLOB, DeskMarket

from clearinghouse.messages.uploads import BeginUpload
from clearinghouse.rounds import garbage, pipeline, uploads
from clearinghouse.rounds.desk import open_desk
from clearinghouse.rounds.queue import PROTOCOL
from clearinghouse.settings import Settings

HOURS = 3600
SUPPORT = Path(__file__).resolve().parents[2] / "support"


@pytest.fixture
def market(tmp_path):
    made = DeskMarket(tmp_path / "server")
    made.desk.blobs.put(b"ciphertext")
    yield made
    made.close()


def put(market, data, *, known=True):
    """Store bytes, and index them for the hospital if they are to be known."""
    digest = market.desk.blobs.put(data)
    if known:
        with market.write() as tx:
            tx.blobs.add(digest, len(data), market.hospital.id)
            tx.quotas.store(market.hospital.id, digest, len(data), 2**40)
    return digest


def age(market, hours=49):
    """Let everything that is stored be so old."""
    market.clock.advance(hours * HOURS)
    for stored in market.desk.blobs.listed():
        then = time.time() - hours * HOURS
        os.utime(market.desk.blobs.path(stored.digest), (then, then))


def here(market):
    return {stored.digest for stored in market.desk.blobs.listed()}


def test_what_nothing_names_goes_after_the_grace_period(market):
    unnamed, stray = put(market, b"never said what for"), put(market, b"stray", known=False)
    message = put(market, b"a message")
    with market.write() as tx:
        tx.requests.moved(market.request_id, "score.digits", message, 9)
        before = tx.quotas.stored(market.hospital.id)
    assert garbage.collect(market.desk).bytes == 0
    age(market, 47)
    assert garbage.collect(market.desk).bytes == 0
    assert here(market) == {unnamed, stray, message, BLOB}
    age(market)
    found = garbage.find(market.desk)
    assert (set(found.unnamed), [s.digest for s in found.strays]) == ({unnamed}, [stray])
    done = garbage.collect(market.desk)
    assert (done.unnamed, done.strays, done.missing, done.bytes) == (1, 1, 0, 19 + 5)
    assert here(market) == {message, BLOB}
    with market.read() as tx:
        assert tx.blobs.find(unnamed) is None
        assert tx.quotas.stored(market.hospital.id) == before - 19
        assert tx.erasure.doomed() == ()
    assert garbage.last(market.desk) == done
    assert garbage.collect(market.desk).bytes == 0


@pytest.mark.parametrize("moment", ["announced", "named", "sent"])
def test_what_is_wanted_again_while_the_collector_looks_stays(market, monkeypatch, moment):
    data = b"never said what for"
    unnamed, looked = put(market, data), garbage.find
    age(market)

    def meanwhile(desk):
        found = looked(desk)
        with market.write() as tx:
            if moment == "announced":
                message = BeginUpload(digest=unnamed, size=len(data), kind="test")
                assert uploads.begin(tx, desk, market.hospital, message).done
            elif moment == "named":
                assert tx.blobs.size(unnamed, market.hospital.id) == len(data)
        if moment == "sent":
            desk.blobs.put(data)
        return found

    monkeypatch.setattr(garbage, "find", meanwhile)
    assert garbage.collect(market.desk).unnamed == 0
    assert market.desk.blobs.get(unnamed) == data
    with market.read() as tx:
        assert tx.blobs.readable(unnamed, market.hospital.id)


def test_a_stray_whose_row_comes_while_the_collector_looks_stays(market, monkeypatch):
    """An upload takes days from its bytes to its row, say because its server was frozen."""
    stray, looked = put(market, b"stray", known=False), garbage.find
    age(market)

    def meanwhile(desk):
        found = looked(desk)
        with market.write() as tx:
            tx.blobs.add(stray, 5, market.hospital.id)
        return found

    monkeypatch.setattr(garbage, "find", meanwhile)
    assert garbage.collect(market.desk).strays == 0
    assert market.desk.blobs.get(stray) == b"stray"


def test_a_jobs_bytes_stay_while_its_request_runs(market):
    stray = put(market, b"a result", known=False)
    with market.write() as tx:
        request = tx.requests.get(market.request_id)
        job = tx.jobs.add(request, jobs.wanted(protocol=PROTOCOL + ".none"), 0.0)
        assert tx.jobs.claim("wrk_x", "wrk_x/0", PROTOCOL + ".none", 0.0) is not None
        claimed = tx.jobs.get(job.id)
        assert tx.jobs.finish(claimed, json.dumps({"blob": stray}), 0.0)
    age(market)
    assert garbage.collect(market.desk).strays == 0
    pipeline.fail(market.desk, market.request_id, "for this test")
    assert garbage.collect(market.desk).strays == 1


def test_what_the_index_has_and_the_store_has_not_is_told(market):
    gone = put(market, b"gone")
    with market.write() as tx:
        tx.requests.moved(market.request_id, "score.digits", gone, 4)
    market.desk.blobs.remove(gone)
    age(market)
    assert garbage.find(market.desk).missing == (gone,)
    assert garbage.collect(market.desk).missing == 1


def test_unfinished_uploads_are_no_garbage_before_their_time(market):
    with market.write() as tx:
        message = BeginUpload(digest="1" * 64, size=10, kind="test")
        told = uploads.begin(tx, market.desk, market.hospital, message)
    partial, piece = uploads.open_piece(market.desk, market.hospital, told.id, 0)
    piece.write(b"hello")
    uploads.keep(market.desk, market.hospital, partial, piece, hashlib.sha256(b"hello").digest())
    piece.close()
    path = market.desk.blobs.staging.partial / told.id
    market.clock.advance(23 * HOURS)
    garbage.collect(market.desk)
    assert path.read_bytes() == b"hello"
    market.clock.advance(2 * HOURS)
    garbage.collect(market.desk)
    assert not path.exists()


@pytest.mark.parametrize("point", ["garbage.doomed", "blob.removed"])
def test_killed_between_its_steps_it_loses_nothing_and_frees_later(tmp_path, point):
    market = DeskMarket(tmp_path / "server")
    market.desk.blobs.put(b"ciphertext")
    for number in range(3):
        put(market, bytes([number]) * 99)
    age(market)
    market.close()
    command = [sys.executable, "-m", "clearinghouse.cli.main", "store", "gc"]
    command += ["--data", str(tmp_path / "server"), "--json"]
    environment = os.environ | {"PYTHONPATH": str(SUPPORT)}
    killed = subprocess.run(command, env=environment | {"CLEARINGHOUSE_FAIL": f"{point}=kill"})
    assert killed.returncode == -9
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["missing"] == 0
    desk = open_desk(Settings(tmp_path / "server"))
    assert {stored.digest for stored in desk.blobs.listed()} == {BLOB}
    with desk.store.read() as tx:
        assert tx.erasure.doomed() == ()
    desk.store.close()
