"""Tasks over HTTP: waiting, answering once, refusing, running out of time."""

import asyncio
import json
import time
from dataclasses import replace

import pytest

from api.waits import Waits
from clearinghouse.rounds.desk import Bell

NOISE = {"answer": {"kind": "target.noise", "noise_blob": "0" * 64}}


def until(market, state, seconds=20):
    """The request once it has come to a state."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        view = market.hospital.get(f"/v1/requests/{market.request_id}").json()
        if view["state"] == state:
            return view
        time.sleep(0.02)
    raise AssertionError(view)


def test_a_request_says_what_it_waits_for(market):
    task = market.wait_for_task()
    view = market.hospital.get(f"/v1/requests/{market.request_id}").json()
    name = f"a hospital ({market.hospital.org_id})"
    assert view["waiting_for"] == [f"{name} to commit to the noise of the target"]
    assert (view["step"], view["state"], view["open_tasks"]) == ("match", "running", 1)
    assert task["task"]["kind"] == "target.commit"
    assert task["task"]["epsilon_micro"] == 500_000
    assert (task["task"]["cells"], task["task"]["labels"]) == (2, 2)
    entries = market.hospital.get("/v1/log/entries").json()["entries"]
    begun = json.loads(next(entry for entry in entries if '"type":"run.begun"' in entry))
    assert begun["hashes"]["nonce"] == task["task"]["nonce_commitment"]
    assert begun["hashes"]["seed"] == task["task"]["seed_commitment"]


def test_an_answer_names_an_uploaded_blob(market, problem):
    task = market.wait_for_task()
    path = f"/v1/agent/tasks/{task['id']}"
    assert "PUT it first" in problem(market.hospital.post(path, NOISE), 422, "bad-input")
    assert market.wait_for_task() == task


def test_a_refusal_of_the_hospital_ends_the_request(market):
    task = market.wait_for_task()
    path = f"/v1/agent/tasks/{task['id']}/refuse"
    assert market.hospital.post(path, {"reason": "not today"}).json() == {}
    view = until(market, "failed")
    assert view["reason"].endswith("refused target.commit: not today")
    assert view["waiting_for"] == []
    statement = market.provider.get(f"/v1/requests/{market.request_id}/statement").json()
    assert statement["balanced"]
    assert set(statement["balances"].values()) == {0}
    entries = market.hospital.get("/v1/log/entries").json()["entries"]
    assert '"type":"request.closed"' in entries[-1]


def test_silence_ends_the_request(market, clock):
    market.wait_for_task()
    clock.advance(86_401)
    view = until(market, "failed")
    assert view["reason"].endswith("did not answer target.commit in time")


def test_nonsense_from_the_hospital_ends_the_request(market):
    """Bytes that are no message fail the run; epsilon counts as spent, for the ledger says so."""
    task = market.wait_for_task()
    commit = {"answer": {"kind": "target.commit", "noise_commitment": "5" * 64}}
    market.hospital.post(f"/v1/agent/tasks/{task['id']}", commit)
    task = market.wait_for_task()
    answer = {"answer": {"kind": "target.noise", "noise_blob": market.blob}}
    path = f"/v1/agent/tasks/{task['id']}"
    assert market.hospital.post(path, answer).status_code == 200
    assert market.hospital.post(path, answer).status_code == 200
    view = until(market, "failed")
    assert view["reason"]
    entries = market.hospital.get("/v1/log/entries").json()["entries"]
    released = [entry for entry in entries if '"type":"target.released"' in entry]
    assert len(released) == 1
    assert '"epsilon_micro":500000' in released[0]
    assert f'"noise":"{"5" * 64}"' in released[0]


@pytest.mark.parametrize(("spent", "logged"), [(0, 0), (500_000, 1)])
def test_a_refusal_after_the_ledger_was_charged_is_logged(market, spent, logged):
    task = market.wait_for_task()
    path = f"/v1/agent/tasks/{task['id']}/refuse"
    message = {"reason": "broken", "spent_micro": spent}
    assert market.hospital.post(path, message).json() == {}
    until(market, "failed")
    entries = market.hospital.get("/v1/log/entries").json()["entries"]
    assert len([entry for entry in entries if '"type":"target.released"' in entry]) == logged


def test_waiting_ends_when_a_task_comes(market):
    market.wait_for_task()
    started = time.monotonic()
    assert market.developer.get("/v1/agent/tasks?wait=1").json() == {"tasks": []}
    assert 0.9 < time.monotonic() - started < 20


def test_a_task_wakes_its_own_party_alone(market, app):
    market.wait_for_task()
    desk = replace(app.state.desk, bell=Bell())  # the runner's rings are not this test's
    waits = Waits(desk)

    async def held(org_id):
        await waits.until_open(org_id, desk.bell.count, 60)
        return org_id

    async def ring():
        calls = {
            asyncio.create_task(held(party.org_id)) for party in (market.hospital, market.developer)
        }
        await asyncio.sleep(0)
        desk.bell.ring()
        done, pending = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        for call in pending:
            call.cancel()
        return [call.result() for call in done]

    assert asyncio.run(ring()) == [market.hospital.org_id]


def test_a_call_is_not_held_where_something_changed_meanwhile(market, app):
    desk = replace(app.state.desk, bell=Bell())
    seen = desk.bell.count
    desk.bell.ring()
    started = time.monotonic()
    asyncio.run(Waits(desk).until_open(market.developer.org_id, seen, 60))
    assert time.monotonic() - started < 50


def test_a_mistake_of_ours_ends_one_request_with_a_reason(monkeypatch, make_market):
    """A move that keeps failing is given up; the server and other requests live on."""
    from clearinghouse.rounds import match

    with monkeypatch.context() as broken:
        broken.setattr(match, "TargetCommitTask", None)
        market = make_market()
        view = until(market, "failed")
    assert view["reason"] == "the clearinghouse made a mistake (TypeError)"
    second = market.hospital.post("/v1/requests", market.terms(records=11)).json()
    market.request_id = second["id"]
    assert market.wait_for_task()["request_id"] == second["id"]


@pytest.mark.parametrize("message", [{}, {"answer": {"kind": "no such"}}, {"answer": None}])
def test_malformed_answers(market, message, problem):
    task = market.wait_for_task()
    answer = market.hospital.post(f"/v1/agent/tasks/{task['id']}", message)
    problem(answer, 422, "bad-input")


def test_an_answer_of_another_kind(market, problem):
    task = market.wait_for_task()
    answer = {"answer": {"kind": "ask.commit", "commitment": "0" * 64}}
    problem(market.hospital.post(f"/v1/agent/tasks/{task['id']}", answer), 409, "refused")
