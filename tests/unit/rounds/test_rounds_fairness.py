"""Whose turn it is: laws over made-up queues."""

from hypothesis import given, settings
from hypothesis import strategies as st

from clearinghouse.fairness import OVERDUE_S, WARM_S, Standing, Waiting, line

NOW = 10_000.0
JOBS = st.lists(
    st.builds(
        Waiting,
        st.uuids().map(str),
        st.sampled_from("abcd"),
        st.integers(0, 2),
        st.floats(NOW - 2 * OVERDUE_S, NOW),
        st.sampled_from(["", "me", "other"]),
    ),
    max_size=20,
)
STANDING = st.builds(
    Standing,
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 3)),
    st.dictionaries(st.sampled_from("abcd"), st.integers(1, 50)),
)


@given(JOBS, STANDING)
def test_everybody_stands_in_the_line_and_urgent_ones_first(jobs, standing):
    found = line(jobs, standing, NOW)
    assert sorted(found) == sorted(job.id for job in jobs)
    by_id = {job.id: job for job in jobs}

    def urgency(job):
        return 99 if NOW - job.since >= OVERDUE_S else job.priority

    urgencies = [urgency(by_id[name]) for name in found]
    assert urgencies == sorted(urgencies, reverse=True)


@given(JOBS, STANDING)
def test_among_equals_the_tenant_with_least_at_work_comes_first(jobs, standing):
    equals = [Waiting(job.id, job.tenant, 0, NOW, "") for job in jobs]
    found = line(equals, standing, NOW)
    by_id = {job.id: job.tenant for job in equals}
    ranks = [
        (standing.busy.get(by_id[name], 0), standing.served.get(by_id[name], 0)) for name in found
    ]
    assert ranks == sorted(ranks)


@given(JOBS, STANDING)
def test_only_a_run_that_is_warm_elsewhere_is_held_back_and_only_for_a_moment(jobs, standing):
    held = {job.id for job in jobs} - set(line(jobs, standing, NOW, "me"))
    assert held == {job.id for job in jobs if job.home == "other" and NOW - job.since < WARM_S}
    assert len(line(jobs, standing, NOW + WARM_S, "me")) == len(jobs)


@settings(max_examples=60)
@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(1, 12), min_size=2),
    st.integers(1, 3),
)
def test_no_tenant_gets_a_second_turn_before_every_other_got_one(counts, slots):
    """Work through the whole queue: between two turns of one tenant, all that wait have had one."""
    waiting = [
        Waiting(f"{tenant}{n:02}", tenant, 0, 0.0)
        for tenant in counts
        for n in range(counts[tenant])
    ]
    busy, served, at_work, turns = {}, {}, [], []
    while waiting:
        if len(at_work) == slots:
            busy[at_work.pop(0)] -= 1
        name = line(waiting, Standing(busy, served), 1.0)[0]
        job = next(job for job in waiting if job.id == name)
        waiting.remove(job)
        turns.append((job.tenant, {other.tenant for other in waiting} - {job.tenant}))
        at_work.append(job.tenant)
        busy[job.tenant] = busy.get(job.tenant, 0) + 1
        served[job.tenant] = len(turns)
    for place, (tenant, others) in enumerate(turns):
        following = [other for other, _ in turns[place + 1 :]]
        if tenant in following:
            between = set(following[: following.index(tenant)])
            assert others <= between
