"""The operator's hands on jobs and workers: on the database, with reasons, and never a key made."""

import os

import jobs
import pytest
from databases import fresh_sqlite
from jobs import WorkerCommand

from clearinghouse.messages.uploads import BeginUpload
from clearinghouse.rounds import uploads
from clearinghouse.rounds.desk import open_desk
from clearinghouse.settings import Settings
from clearinghouse.store.store import Store


@pytest.fixture
def store(tmp_path):
    opened = Store(fresh_sqlite(tmp_path / "clearinghouse.db"))
    yield opened
    opened.close()


@pytest.fixture
def job(store):
    request = jobs.add_request(store)
    return jobs.add_job(store, request, jobs.wanted(deadline_s=10**9))


def test_list_and_show_say_what_a_job_waits_for(cli, tmp_path, store, job):
    data = ["--data", tmp_path]
    told = cli("job", "list", *data)
    assert "no worker is alive" in told.out
    assert job.id in told.out
    jobs.add_worker(store, "wrk_a")
    with store.write() as tx:
        mine = tx.jobs.claim("wrk_a", "wrk_a/0", jobs.PROTOCOL, jobs.NOW)
    shown = cli("job", "show", job.id, *data)
    assert "rows.prove is at work on wrk_a since 2027-01-15T08:00:00Z" in shown.out
    with store.write() as tx:
        tx.jobs.give_back(mine, "its worker fell silent", 0.0, most=3, counts=True)
    (found,) = cli("job", "list", *data, "--json").value["jobs"]
    assert (found["state"], found["position"], found["attempts"]) == ("queued", 1, 1)
    assert found["reason"] == "its worker fell silent"
    assert cli("job", "list", *data, "--json").value["workers"][0]["host"] == "elsewhere"
    everything = cli("job", "list", *data, "--request", job.request_id, "--json").value["jobs"]
    assert [item["id"] for item in everything] == [job.id]


def test_retry_and_cancel(cli, tmp_path, store, job):
    data = ["--data", tmp_path]
    with store.write() as tx:
        tx.jobs.claim("wrk_a", "wrk_a/0", jobs.PROTOCOL, jobs.NOW)
    assert cli("job", "retry", job.id, *data).code == 0
    assert jobs.get_job(store, job.id).state == "queued"
    assert cli("job", "cancel", job.id, "--reason", "wrong set", *data).code == 0
    found = jobs.get_job(store, job.id)
    assert (found.state, found.reason) == ("cancelled", "the operator cancelled it: wrong set")
    for command in (["cancel", job.id, "--reason", "again"], ["retry", job.id]):
        refused = cli("job", *command, *data)
        assert (refused.code, refused.out) == (3, "")
        assert f"{job.id} is cancelled" in refused.errors[0]
    assert cli("job", "show", "job_unknown", *data).code == 4


def test_a_folder_without_a_database_is_no_server(cli, tmp_path):
    for command in (["job", "list"], ["worker"]):
        refused = cli(*command, "--data", tmp_path / "nothing")
        assert refused.code == 2
        assert "holds no database" in refused.errors[0]
        assert not (tmp_path / "nothing").exists()


def test_doctor_sees_keys_workers_and_jobs_that_were_tried(cli, tmp_path, store, job):
    found = cli("doctor", "--data", tmp_path, "--json")
    assert found.code == 3
    checks = {item["check"]: item for item in found.value["checks"]}
    assert checks["workers"]["status"] == "broken"
    jobs.add_worker(store, "wrk_a")
    with store.write() as tx:
        mine = tx.jobs.claim("wrk_a", "wrk_a/0", jobs.PROTOCOL, jobs.NOW)
        tx.jobs.give_back(mine, "it died", 0.0, most=3, counts=True)
    (tmp_path / "server.key").write_text("key")
    (tmp_path / "server.key").chmod(0o644)
    found = cli("doctor", "--data", tmp_path, "--json")
    checks = [(item["check"], item["status"], item["detail"]) for item in found.value["checks"]]
    assert ("keys", "broken", "others can read server.key") in checks
    assert ("jobs", "note", f"{job.id} (rows.prove), attempt 1: it died") in checks
    (tmp_path / "server.key").chmod(0o600)
    assert cli("doctor", "--data", tmp_path).code == 0


def checks_of(found):
    return {item["check"]: (item["status"], item["detail"]) for item in found.value["checks"]}


def test_doctor_shows_what_is_stored_and_store_gc_cleans(cli, tmp_path):
    """Also without a server: on its folder, in one process."""
    data, blob = tmp_path / "server", b"a stray blob"
    desk = open_desk(Settings(data))
    stray = desk.blobs.put(blob)
    with desk.store.write() as tx:
        message = BeginUpload(digest="1" * 64, size=5_000_000, kind="test")
        uploads.begin(tx, desk, desk.org, message)
        tx.blobs.add("2" * 64, 7, desk.org.id)  # the index has it and the disk has not
    desk.store.close()
    seen = checks_of(cli("doctor", "--data", data, "--json"))
    assert seen["blob store"] == ("ok", str(data / "blobs"))
    assert seen["blobs"] == ("ok", "1, 0.0 MB")
    assert seen["uploads"][1].startswith("1 unfinished, 0.0 of 5.0 MB came")
    assert seen["garbage"] == ("note", "never collected")
    os.utime(data / "blobs" / stray[:2] / stray, (1000, 1000))
    told = cli("store", "gc", "--data", data, "--dry-run", "--json").value
    assert (told["strays"], told["missing"], told["bytes"]) == ([stray], ["2" * 64], len(blob))
    assert (data / "blobs" / stray[:2] / stray).exists()
    assert "1 that no row knows are gone" in cli("store", "gc", "--data", data).out
    assert not (data / "blobs" / stray[:2] / stray).exists()
    found = cli("doctor", "--data", data, "--json")
    assert checks_of(found)["garbage"][0] == "broken"
    assert "1 blobs are missing" in checks_of(found)["garbage"][1]


def test_doctor_says_that_the_bucket_is_away(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_REGION", "x")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "topsecret")
    monkeypatch.setenv("CLEARINGHOUSE_BLOB_URL", "s3://blobs/here")
    found = cli("doctor", "--data", tmp_path, "--json")
    status, detail = checks_of(found)["blob store"]
    assert (found.code, status) == (3, "broken")
    assert detail.startswith("s3://blobs/here: the blob store does not answer")
    assert "topsecret" not in found.out


def test_a_worker_of_another_database_version_does_not_start(tmp_path, store):
    with store._writer.begin() as connection:
        connection.exec_driver_sql("UPDATE schema_version SET version_num = '9999'")
    with WorkerCommand(tmp_path, f"sqlite:///{tmp_path / 'clearinghouse.db'}") as worker:
        assert worker.process.wait(timeout=60) == 2
        assert "9999" in worker.log.read_text()
