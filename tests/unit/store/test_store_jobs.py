"""The job table's laws, on both databases: claimed and finished once, by the newest claim."""

import threading

import jobs
import pytest

from clearinghouse.cause import Cause, because
from clearinghouse.errors import NotFoundError
from clearinghouse.store.store import Store

NOW = jobs.NOW


@pytest.fixture
def request_(store):
    return jobs.add_request(store)


def claim(store, owner="wrk_a", slot=None, protocol=jobs.PROTOCOL, now=NOW):
    with store.write() as tx:
        return tx.jobs.claim(owner, slot or f"{owner}/0", protocol, now)


def due(store):
    with store.read() as tx:
        return tx.requests.due()


def test_the_same_work_is_one_job(store, request_):
    first = jobs.add_job(store, request_, jobs.wanted())
    assert jobs.add_job(store, request_, jobs.wanted(), NOW + 5) == first
    assert jobs.add_job(store, jobs.add_request(store), jobs.wanted()).id != first.id


def test_four_workers_race_and_every_job_is_done_once(store, store_url, request_):
    count, taken = 40, []
    for number in range(count):
        jobs.add_job(store, request_, jobs.wanted(number))
    start = threading.Barrier(4)

    def work(name):
        own = Store(store_url)
        start.wait()
        try:
            while (job := claim(own, name)) is not None:
                with own.write() as tx:
                    assert tx.jobs.finish(job, name, NOW)
                taken.append((job.id, name))
        finally:
            own.close()

    threads = [threading.Thread(target=work, args=(f"wrk_{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == len({job for job, _ in taken}) == count
    with store.read() as tx:
        found = tx.jobs.of(request_.id)
    assert {job.state for job in found} == {"done"}
    assert {job.attempts for job in found} == {job.token for job in found} == {1}
    by = dict(taken)
    assert all(job.result == by[job.id] for job in found)


def test_a_late_result_is_refused_by_the_fencing_token(store, request_):
    jobs.add_job(store, request_, jobs.wanted())
    old = claim(store, "wrk_old")
    with store.write() as tx:
        assert tx.jobs.give_back(old, "its worker fell silent", NOW, most=3, counts=True)
    assert claim(store, "wrk_new") is None  # there is a pause before the next attempt
    new = claim(store, "wrk_new", now=NOW + 2)
    assert (new.id, new.token, new.attempts, new.owner) == (old.id, 2, 2, "wrk_new")
    with store.write() as tx:
        assert not tx.jobs.still(old)
        assert not tx.jobs.beat(old)
        assert not tx.jobs.finish(old, '"late"', NOW + 3)
        assert not tx.jobs.fail(old, "JobFailedError", "late", NOW + 3)
        assert not tx.jobs.give_back(old, "late", NOW + 3, most=3, counts=True)
        assert tx.jobs.beat(new)
    assert due(store) == ()
    with store.write() as tx:
        assert tx.jobs.finish(new, '"right"', NOW + 4)
        assert not tx.jobs.finish(new, '"twice"', NOW + 5)
    job = jobs.get_job(store, new.id)
    assert (job.state, job.result, job.owner, job.finished) == ("done", '"right"', "", NOW + 4)
    assert due(store) == (request_.id,)


def test_attempts_are_bounded_and_the_reason_stays(store, request_):
    jobs.add_job(store, request_, jobs.wanted())
    for attempt in range(1, 4):
        job = claim(store, now=NOW + 100 * attempt)
        assert job.attempts == attempt
        with store.write() as tx:
            assert tx.jobs.give_back(job, "it died", NOW + 100 * attempt, most=3, counts=True)
    assert claim(store, now=NOW + 900) is None
    job = jobs.get_job(store, job.id)
    assert (job.state, job.error) == ("failed", "JobFailedError")
    assert job.reason == "the job rows.prove was tried 3 times: it died"
    assert due(store) == (request_.id,)


def test_a_worker_that_is_stopped_costs_no_attempt(store, request_):
    jobs.add_job(store, request_, jobs.wanted())
    for turn in range(1, 6):
        job = claim(store)
        assert (job.attempts, job.token) == (1, turn)
        with store.write() as tx:
            assert tx.jobs.give_back(job, "stopped", NOW, most=3, counts=False)


def test_cancel_and_retry(store, request_):
    job = jobs.add_job(store, request_, jobs.wanted())
    mine = claim(store)
    with store.write() as tx:
        assert tx.jobs.retry(job.id)
        assert not tx.jobs.still(mine)
    again = claim(store)
    assert (again.attempts, again.token) == (1, 2)
    with store.write() as tx:
        assert tx.jobs.cancel_one(job.id, "enough", NOW)
        assert not tx.jobs.still(again)
        assert not tx.jobs.cancel_one(job.id, "enough", NOW)
        assert not tx.jobs.retry(job.id)
        assert not tx.jobs.finish(again, '"late"', NOW)
        with pytest.raises(NotFoundError):
            tx.jobs.cancel_one("job_none", "x", NOW)
    job = jobs.get_job(store, job.id)
    assert (job.state, job.reason, job.owner) == ("cancelled", "enough", "")
    assert due(store) == (request_.id,)


@pytest.mark.parametrize("at_work", [False, True])
def test_every_open_state_has_a_deadline(store, request_, at_work):
    job = jobs.add_job(store, request_, jobs.wanted(deadline_s=10))
    mine = claim(store) if at_work else None
    with store.write() as tx:
        assert not tx.jobs.any_late(NOW + 10)
        assert tx.jobs.expire(NOW + 10) == ()
        assert tx.jobs.any_late(NOW + 11)
        assert tx.jobs.expire(NOW + 11) == (request_.id,)
        assert mine is None or not tx.jobs.finish(mine, "{}", NOW + 12)
    job = jobs.get_job(store, job.id)
    assert job.state == "failed"
    assert f"it was {'running' if at_work else 'queued'}" in job.reason


def test_workers_leave_jobs_of_another_version(store, request_):
    jobs.add_job(store, request_, jobs.wanted(0, protocol="1"))
    other = jobs.add_job(store, request_, jobs.wanted(1, protocol="2"))
    assert claim(store, protocol="3") is None
    assert claim(store, protocol="2").id == other.id
    assert claim(store, protocol="2") is None
    assert claim(store, protocol="1") is not None


def test_a_newer_version_takes_over_what_an_older_one_wanted(store, request_):
    old = jobs.add_job(store, request_, jobs.wanted(0, protocol="1", key="a", subject="run_x"))
    at_work = claim(store, protocol="1")
    beside = jobs.add_job(store, request_, jobs.wanted(1, protocol="1", key="b", subject="run_y"))
    jobs.add_job(store, request_, jobs.wanted(0, protocol="2", key="c", subject="run_x"))
    assert jobs.get_job(store, old.id).state == "cancelled"
    assert "protocol 2" in jobs.get_job(store, old.id).reason
    assert jobs.get_job(store, beside.id).state == "queued"
    with store.write() as tx:
        assert not tx.jobs.finish(at_work, "{}", NOW)


def test_a_thousand_jobs_of_one_tenant_delay_another_by_one_turn(store, request_):
    for number in range(6):
        jobs.add_job(store, request_, jobs.wanted(number))
    other = jobs.add_request(store, "other")
    late = jobs.add_job(store, other, jobs.wanted(99), NOW + 1)
    urgent = jobs.add_job(store, request_, jobs.wanted(50, priority=1), NOW + 2)
    taken = []
    for _ in range(4):
        job = claim(store, now=NOW + 3)
        taken.append(job.id)
        with store.write() as tx:
            tx.jobs.finish(job, "{}", NOW + 3)
    assert taken[:2] == [urgent.id, late.id]
    with store.read() as tx:
        assert len(tx.jobs.line(jobs.PROTOCOL, NOW + 3)) == 4


def test_a_warm_run_waits_a_moment_for_the_process_that_has_it(store, request_):
    jobs.add_worker(store, "wrk_a")
    jobs.add_job(store, request_, jobs.wanted(0, subject="run_x"))
    first = claim(store, "wrk_a")
    with store.write() as tx:
        tx.jobs.finish(first, "{}", NOW)
    jobs.add_job(store, request_, jobs.wanted(1, subject="run_x"))
    assert claim(store, "wrk_b") is None
    assert claim(store, "wrk_a", slot="wrk_a/1") is None
    with store.write() as tx:
        tx.workers.remove("wrk_a")  # nobody waits for the dead
    assert claim(store, "wrk_b") is not None


def test_what_happens_while_a_request_is_looked_at_is_not_lost(store, request_):
    with store.write() as tx:
        tx.requests.mark_due(request_.id)
        looked_at = tx.requests.get(request_.id)
    with store.write() as tx, _call("c1"):
        tx.requests.mark_due(request_.id)  # an answer comes in between
    with store.write() as tx:
        tx.requests.rest(looked_at)
    assert due(store) == (request_.id,)
    with store.write() as tx:
        now = tx.requests.get(request_.id)
        assert now.cause == "c1"
        tx.requests.rest(now)
    assert due(store) == ()


def _call(name):
    return because(Cause(name))


def test_a_closed_request_leaves_no_open_job_and_no_argument(store, request_):
    jobs.add_job(store, request_, jobs.wanted(0, arguments='{"seed":"secret"}'))
    jobs.add_job(store, request_, jobs.wanted(1, arguments='{"seed":"secret"}'))
    mine = claim(store)
    with store.write() as tx:
        tx.jobs.forget(request_.id, NOW)
        assert not tx.jobs.finish(mine, "{}", NOW)
    with store.read() as tx:
        assert {job.state for job in tx.jobs.of(request_.id)} == {"cancelled"}
        assert {job.arguments for job in tx.jobs.of(request_.id)} == {""}
        assert tx.jobs.open() == ()


def test_numbers_for_scaling(store, request_):
    for number in range(3):
        jobs.add_job(store, request_, jobs.wanted(number), NOW + number)
    claim(store, now=NOW + 5)
    with store.read() as tx:
        found = {(d.kind, d.state): (d.count, d.oldest) for d in tx.jobs.depths()}
        assert tx.jobs.count_by_state() == {
            ("rows.prove", "queued"): 2,
            ("rows.prove", "running"): 1,
        }
    assert found == {
        ("rows.prove", "queued"): (2, NOW + 1),
        ("rows.prove", "running"): (1, NOW),
    }
