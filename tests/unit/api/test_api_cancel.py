"""A hospital ends one of its runs: its job stops, its epsilon stays spent, the request goes on."""

import jobs
import pytest

from clearinghouse.ids import new_id
from clearinghouse.rounds import queue
from clearinghouse.store.jobs import Wanted
from clearinghouse.store.records import Run


@pytest.fixture
def run(market, app):
    """A scoring run with a job at work, in a request that otherwise waits for its hospital."""
    market.wait_for_task()
    model = {"org_id": market.developer.org_id, "name": "m", "kind": "k", "digest": "4" * 64}
    made = Run(
        new_id("run"),
        market.request_id,
        "score",
        0,
        "running",
        "",
        "00",
        "00",
        new_id("mod"),
        {**model, "nonce": "00", "edges": [], "threshold_edge": 0, "columns": []},
        {},
    )
    desk = app.state.desk
    wanted = Wanted("score.begin", made.id, "to score", "k", "other", 0, 1000, "{}")
    jobs.add_worker(desk.store, "wrk_x")  # a worker that nobody knows is soon taken for dead
    with desk.store.write() as tx:
        tx.runs.add(made)
        tx.jobs.add(tx.requests.get(market.request_id), wanted, desk.clock.now())
        tx.jobs.claim("wrk_x", "wrk_x/0", "other", desk.clock.now())
    return made


def cancel(who, market, run_id, reason="enough"):
    return who.post(f"/v1/requests/{market.request_id}/runs/{run_id}/cancel", {"reason": reason})


def test_the_hospital_cancels_its_run_and_its_job(market, app, run):
    (view,) = market.hospital.get(f"/v1/requests/{market.request_id}/runs").json()["runs"]
    assert "score.begin is at work on wrk_x" in view["waiting_for"]
    for _ in range(2):
        assert cancel(market.hospital, market, run.id).status_code == 200
    (view,) = market.hospital.get(f"/v1/requests/{market.request_id}/runs").json()["runs"]
    assert (view["state"], view["waiting_for"]) == ("failed", "")
    assert view["reason"].startswith("cancelled by a hospital")
    assert view["reason"].endswith(": enough")
    with app.state.desk.store.read() as tx:
        job = next(job for job in tx.jobs.of(market.request_id) if job.subject == run.id)
        kinds = [entry for entry in tx.log.entries(0, 1000) if b'"run.released"' in entry]
    assert (job.state, job.owner) == ("cancelled", "")
    assert kinds == []  # its noise was never asked for, so nothing was spent
    view = market.hospital.get(f"/v1/requests/{market.request_id}").json()
    assert view["state"] == "running"


def test_nobody_else_does(market, run, problem):
    problem(cancel(market.developer, market, run.id), 409, "refused")
    problem(cancel(market.outsider, market, run.id), 404, "not-found")
    problem(cancel(market.hospital, market, new_id("run")), 404, "not-found")
    problem(cancel(market.hospital, market, run.id, ""), 422, "bad-input")


def test_a_released_score_stays(market, app, run, problem):
    with app.state.desk.store.write() as tx:
        tx.runs.release(run.id, {})
    problem(cancel(market.hospital, market, run.id), 409, "refused")
    assert queue.PROTOCOL != "other"
