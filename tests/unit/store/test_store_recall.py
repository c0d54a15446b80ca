"""What is recalled is what the database says, and it is asked once."""

import pytest
from sqlalchemy import event

from clearinghouse.ids import new_id
from clearinghouse.messages.tasks import AskCommitAnswer, AskCommitTask, AskRevealTask
from clearinghouse.store.recall import Recall


@pytest.fixture
def subjects(store, request_id, org_id):
    """Four tasks of two kinds about two subjects, one of them answered."""
    names = [new_id("src"), new_id("src")]
    with store.write() as tx:
        for name in names:
            commit = AskCommitTask(source_id=name, frozen_digest="1" * 64)
            found = tx.tasks.create(request_id, org_id, commit, subject=name, deadline=1100)
            reveal = AskRevealTask(source_id=name)
            tx.tasks.create(request_id, org_id, reveal, subject=name, deadline=1100)
        tx.tasks.answer(found, org_id, AskCommitAnswer(commitment="a" * 64), 1000.0)
    return names


def questions(tx, request_id, org_id, subjects):
    yield tx.tasks.of(request_id)
    yield tx.tasks.of(request_id, "ask.commit")
    yield tx.tasks.of(request_id, "ask.reveal", "ask.commit")
    yield tx.tasks.of(request_id, "ask.reveal", subject=subjects[0])
    yield tx.tasks.of(request_id, subject=subjects[1])
    yield tx.tasks.of(request_id, "no such kind")
    yield tx.tasks.of(new_id("req"))
    yield tx.jobs.busy(request_id)
    yield tx.runs.of(request_id, "score"), tx.runs.of(request_id, "target")
    yield tx.runs.receipts(request_id), tx.asks.of(request_id), tx.orders.of(request_id)
    yield tx.parties.get(org_id)


def test_recalled_answers_are_the_databases(store, request_id, org_id, subjects):
    with store.read() as tx:
        plain = list(questions(tx, request_id, org_id, subjects))
        assert [len(found) for found in plain[:7]] == [4, 2, 4, 1, 2, 0, 0]
        recall = Recall(tx)
        assert list(questions(recall, request_id, org_id, subjects)) == plain
        assert list(questions(Recall(recall), request_id, org_id, subjects)) == plain


def test_the_database_is_asked_once(store, request_id, org_id, subjects):
    with store.read() as tx:
        recall, statements = Recall(tx), []
        connection = tx._session.connection()
        event.listen(connection, "before_cursor_execute", lambda *a: statements.append(a[2]))
        for _ in range(3):
            for kind in ("ask.commit", "ask.reveal"):
                for subject in subjects:
                    assert len(recall.tasks.of(request_id, kind, subject=subject)) == 1
            recall.jobs.busy(request_id)
            recall.runs.of(request_id, "score")
            recall.parties.get(org_id)
        assert len(statements) == 4
