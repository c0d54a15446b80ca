"""A task has one answer: the same again is a retry, another is a conflict."""

import pytest

from clearinghouse.errors import ConflictError, NotFoundError, RefusedError
from clearinghouse.ids import new_id
from clearinghouse.messages.tasks import (
    AskCommitAnswer,
    AskCommitTask,
    AskRevealAnswer,
    AskRevealTask,
)

NOW = 1000.0


@pytest.fixture
def task_id(store, request_id, org_id):
    task = AskCommitTask(source_id=new_id("src"), frozen_digest="1" * 64)
    with store.write() as tx:
        return tx.tasks.create(request_id, org_id, task, subject="s", deadline=1100)


def answer(store, task_id, org_id, commitment="a" * 64, now=NOW):
    with store.write() as tx:
        return tx.tasks.answer(task_id, org_id, AskCommitAnswer(commitment=commitment), now)


def test_the_same_answer_again_is_a_retry(store, task_id, org_id):
    assert answer(store, task_id, org_id)
    assert not answer(store, task_id, org_id)
    assert not answer(store, task_id, org_id, now=5000.0)  # a late retry is still a retry
    with pytest.raises(ConflictError, match="another answer"):
        answer(store, task_id, org_id, commitment="b" * 64)
    with store.read() as tx:
        assert tx.tasks.get(task_id, org_id).answer == AskCommitAnswer(commitment="a" * 64)
        assert tx.tasks.open_for(org_id) == ()


def test_another_organisation_cannot_tell_the_task_exists(store, task_id, org_id):
    stranger = new_id("org")
    for call in (
        lambda tx: tx.tasks.get(task_id, stranger),
        lambda tx: tx.tasks.answer(task_id, stranger, AskCommitAnswer(commitment="a" * 64), NOW),
        lambda tx: tx.tasks.refuse(task_id, stranger, "no", NOW),
    ):
        with pytest.raises(NotFoundError) as foreign, store.write() as tx:
            call(tx)
        assert str(foreign.value) == f"no task {task_id}"
    with store.read() as tx:
        assert tx.tasks.get(task_id, org_id).state == "open"


def test_an_answer_of_another_kind_is_refused(store, task_id, org_id):
    wrong = AskRevealAnswer(ask_micro=1, salt="00" * 32)
    with pytest.raises(RefusedError, match=r"asks for ask\.commit"), store.write() as tx:
        tx.tasks.answer(task_id, org_id, wrong, NOW)


def test_deadlines(store, request_id, task_id, org_id):
    assert not _late(store, 1100.5)
    assert _late(store, 1101.0)
    with pytest.raises(RefusedError, match="deadline"):
        answer(store, task_id, org_id, now=1101.0)  # also before anybody has looked
    with store.write() as tx:
        assert tx.tasks.expire(1101.0) == (request_id,)
        assert tx.tasks.expire(1101.0) == ()
    with pytest.raises(RefusedError, match="deadline"):
        answer(store, task_id, org_id, now=1000.0)
    with store.read() as tx:
        assert tx.tasks.get(task_id, org_id).state == "expired"


def _late(store, now):
    with store.read() as tx:
        return tx.tasks.any_late(now)


def test_refusing_and_answering_exclude_each_other(store, task_id, org_id):
    with store.write() as tx:
        assert tx.tasks.refuse(task_id, org_id, "too dear", NOW)
        assert not tx.tasks.refuse(task_id, org_id, "too dear", NOW)
    with pytest.raises(ConflictError, match="refused before"):
        answer(store, task_id, org_id)
    with store.read() as tx:
        assert tx.tasks.get(task_id, org_id).reason == "too dear"


def test_asking_twice_gives_one_task(store, request_id, org_id, task_id):
    task = AskCommitTask(source_id=new_id("src"), frozen_digest="1" * 64)
    with store.write() as tx:
        again = tx.tasks.create(request_id, org_id, task, subject="s", deadline=9)
        other = tx.tasks.create(request_id, org_id, task, subject="t", deadline=9)
    assert again == task_id
    assert other != task_id


def test_withdrawn_tasks_take_no_answer(store, request_id, org_id, task_id):
    with store.write() as tx:
        task = AskRevealTask(source_id=new_id("src"))
        kept = tx.tasks.create(request_id, org_id, task, subject="t", deadline=1100)
        tx.tasks.void(request_id, ["s"])
    with pytest.raises(RefusedError, match="withdrawn"):
        answer(store, task_id, org_id)
    with store.read() as tx:
        assert [task.id for task in tx.tasks.open_for(org_id)] == [kept]


def test_an_ended_request_asks_nothing(store, request_id, org_id, task_id):
    with store.write() as tx:
        tx.requests.close(request_id, "done", "", NOW)
    with store.read() as tx:
        assert tx.tasks.open_for(org_id) == ()
