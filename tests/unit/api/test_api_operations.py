"""What an operator sees of a server: ids of calls, numbers, readiness, spans, waiting in words."""

import json
import re
import threading

import jobs
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from api.app import create_app
from clearinghouse import traces
from clearinghouse.blobs import Staging
from clearinghouse.client.loopback import app_client
from clearinghouse.errors import TryAgainError
from clearinghouse.rounds import queue
from clearinghouse.settings import Settings


def numbers(client):
    """Every sample as {(name, labels): value}."""
    text = client.get("/metrics").text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


# ---------------------------------------------------------------- ids of calls


@pytest.mark.parametrize(
    ("given", "is_taken"),
    [("abc-1.2_X", True), ("x" * 64, True), ("x" * 65, False), ("a b", False), ('"', False)],
)
def test_a_call_has_an_id(client, given, is_taken):
    told = client.get("/healthz", headers={"X-Request-Id": given}).headers["x-request-id"]
    assert (told == given) == is_taken
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", told)


def test_every_answer_has_an_id_also_a_refusal(client):
    answers = [client.get(path) for path in ("/healthz", "/nowhere", "/v1/agent/tasks")]
    assert [answer.status_code for answer in answers] == [200, 404, 401]
    assert len({answer.headers["x-request-id"] for answer in answers}) == 3


def test_a_calls_id_reaches_the_job_that_it_led_to(market, app):
    """From the answer of a task to the job's row, whence its worker's log has it."""
    task = market.wait_for_noise_task()
    body = {"answer": {"kind": "target.noise", "noise_blob": market.blob}}
    path = f"/v1/agent/tasks/{task['id']}"
    answer = market.hospital.post(path, body)
    assert answer.status_code == 200
    call = answer.headers["x-request-id"]
    (job,) = wait_for_jobs(app, market)
    assert (job.kind, job.cause.split()) == ("target.checks", [call])


def wait_for_jobs(app, market, state="failed"):
    """The request's jobs, once the first of them is in this state."""
    desk, seen = app.state.desk, -1
    for _ in range(100):
        seen = desk.bell.wait(seen, 0.2)
        with desk.store.read() as tx:
            found = tx.jobs.of(market.request_id)
        if found and found[0].state == state:
            return found
    raise AssertionError(f"no job is {state}: {found}")


# ---------------------------------------------------------------- numbers and probes


def test_numbers_name_routes_and_kinds_and_no_ids(market, app, client):
    market.hospital.get(f"/v1/requests/{market.request_id}")
    market.hospital.get("/v1/requests/req_unknown")
    found = numbers(client)
    route = (("method", "GET"), ("route", "/v1/requests/{request_id}"))
    assert found["clearinghouse_calls_total", (*route, ("status", "200"))] == 1
    assert found["clearinghouse_calls_total", (*route, ("status", "404"))] == 1
    assert found["clearinghouse_call_seconds_count", route] == 2
    assert found["clearinghouse_requests", (("state", "running"),)] == 1
    assert found["clearinghouse_workers", (("protocol", queue.PROTOCOL), ("state", "working"))] == 1
    assert found["clearinghouse_worker_slots", ()] == 1
    assert found["clearinghouse_blob_bytes", ()] == len(b"ciphertext")
    assert found["clearinghouse_log_entries", ()] >= found["clearinghouse_log_unsigned_entries", ()]
    text = client.get("/metrics").text
    assert not re.search(r"[a-z]{3}_[0-9a-z]{20}|[0-9a-f]{64}", text)


def test_queue_depth_and_age_are_there_to_scale_by(tmp_path, clock):
    """A server without workers of its own: its jobs wait, and it says so."""
    app = create_app(Settings(tmp_path / "server", workers=0), clock)
    desk = app.state.desk
    request = jobs.add_request(desk.store)
    jobs.add_job(desk.store, request, jobs.wanted(), clock.now())
    jobs.add_job(desk.store, request, jobs.wanted(1), clock.now())
    clock.advance(90)
    with app_client(app) as client:
        client.base_url = "http://testserver"
        found = numbers(client)
        kind = (("kind", "rows.prove"),)
        assert found["clearinghouse_jobs_queued", kind] == 2
        assert found["clearinghouse_job_oldest_seconds", kind] == 90
        assert found["clearinghouse_worker_slots", ()] == 0
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        assert (
            f"0 workers of protocol {queue.PROTOCOL}, 2 jobs wait"
            in ready.json()["checks"]["workers"]["detail"]
        )
    desk.store.close()


@pytest.fixture
def fresh(app):
    """Every look at readiness is a new one."""
    app.state.readiness._kept = None
    return app.state.readiness


def test_ready_with_every_check(client, fresh):
    answer = client.get("/readyz")
    assert answer.status_code == 200
    checks = answer.json()["checks"]
    assert set(checks) == {"checkpoint", "database", "disk", "runner", "sequencer", "workers"}
    assert {check["state"] for check in checks.values()} == {"ok"}


def test_unready_without_its_database(client, fresh, app, monkeypatch):
    def away():
        raise TryAgainError("away")

    monkeypatch.setattr(app.state.desk.store, "write", away)
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (503, "unready")
    assert answer.json()["checks"]["database"] == {"state": "down", "detail": "try-again"}
    monkeypatch.undo()
    fresh._kept = None
    assert client.get("/readyz").status_code == 200


def test_below_the_disk_reserve(client, app, monkeypatch):
    """Within the reserve uploads are refused, the rest goes on; near its end nothing does."""
    reserve = app.state.desk.settings.disk_reserve_bytes
    for part, status, state in ((0.9, 200, "degraded"), (0.1, 503, "down"), (1.1, 200, "ok")):
        app.state.readiness._kept = None
        monkeypatch.setattr(Staging, "free", lambda _self, part=part: int(part * reserve))
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["checks"]["disk"]["state"]) == (status, state)


def test_a_storm_of_probes_writes_once(client, fresh, app):
    with app.state.desk.store.read() as tx:
        before = tx.meta("probe")
    threads = [threading.Thread(target=client.get, args=("/readyz",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    looked = fresh._kept
    client.get("/readyz")
    assert fresh._kept is looked
    with app.state.desk.store.read() as tx:
        assert tx.meta("probe") != before


# ---------------------------------------------------------------- spans


@pytest.fixture
def spans():
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    traces.trace_with(provider)
    yield exporter.get_finished_spans
    traces.trace_with(None)


def test_one_trace_from_the_call_over_the_move_to_the_job(spans, market, app):
    task = market.wait_for_noise_task()
    body = {"answer": {"kind": "target.noise", "noise_blob": market.blob}}
    answer = market.hospital.post(f"/v1/agent/tasks/{task['id']}", body)
    call = answer.headers["x-request-id"]
    wait_for_jobs(app, market)
    app.state.runner.pool.drain(5.0)
    found = [item for item in spans() if item.attributes.get("clearinghouse.call") == call]
    by_name = {item.name: item for item in found if item.name != "move"}
    (first, *_) = moves = [item for item in found if item.name == "move"]
    api, job = by_name["api POST"], by_name["job target.checks"]
    assert api.attributes["clearinghouse.route"] == "/v1/agent/tasks/{task_id}"
    assert {item.context.trace_id for item in found} == {api.context.trace_id}
    assert first.parent.span_id == api.context.span_id
    assert job.parent.span_id in {item.context.span_id for item in moves}
    text = json.dumps([dict(item.attributes) for item in found])
    assert market.blob not in text


def test_without_a_provider_nothing_is_traced(market, app):
    assert traces._tracers == []
    task = market.wait_for_noise_task()
    body = {"answer": {"kind": "target.noise", "noise_blob": market.blob}}
    market.hospital.post(f"/v1/agent/tasks/{task['id']}", body)
    (job,) = wait_for_jobs(app, market)
    assert len(job.cause.split()) == 1


# ---------------------------------------------------------------- what it waits for


def test_a_request_says_what_its_jobs_wait_for(market, app, monkeypatch):
    """Queued, at work, tried again, ended: always with place, worker, times and reason."""
    app.state.runner.pool.draining.set()  # nobody takes the job now
    app.state.desk.job_bell.ring()
    task = market.wait_for_noise_task()
    body = {"answer": {"kind": "target.noise", "noise_blob": market.blob}}
    assert market.hospital.post(f"/v1/agent/tasks/{task['id']}", body).status_code == 200
    store, path = app.state.desk.store, f"/v1/requests/{market.request_id}"
    (job,) = wait_for_jobs(app, market, "queued")
    view = market.hospital.get(path).json()
    (told,) = view["waiting_for"]
    assert told.startswith(
        "the clearinghouse to test the target's noise (target.checks is number 1"
    )
    assert [item["position"] for item in view["jobs"]] == [1]
    now = app.state.desk.clock.now()
    jobs.add_worker(store, "wrk_x")
    with store.write() as tx:
        mine = tx.jobs.claim("wrk_x", "wrk_x/0", queue.PROTOCOL, now)
    (told,) = market.hospital.get(path).json()["waiting_for"]
    assert "target.checks is at work on wrk_x since 2027-01-15T" in told
    with store.write() as tx:
        tx.jobs.give_back(mine, "its worker fell silent", now, most=3, counts=True)
    (told,) = market.hospital.get(path).json()["waiting_for"]
    assert "waits for its next attempt, attempt 2: its worker fell silent" in told
    with store.write() as tx:
        tx.jobs.cancel_one(job.id, "the operator cancelled it: no", now)
    app.state.desk.bell.ring()
    jobs.wait_for(lambda: market.hospital.get(path).json()["state"] != "running")
    view = market.hospital.get(path).json()
    assert (view["state"], view["reason"]) == ("failed", "the operator cancelled it: no")
    (ended,) = market.hospital.get(f"{path}/jobs").json()["jobs"]
    assert (ended["state"], ended["position"]) == ("cancelled", 0)
