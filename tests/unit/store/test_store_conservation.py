"""Money is conserved by the database itself, whatever a wrong program writes."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlmodel import SQLModel

from clearinghouse.errors import ConflictError
from clearinghouse.store import engine, migrate
from clearinghouse.store.store import Store
from clearinghouse.store.tables import SCHEMA_VERSION, PostingRow, TransferRow


@pytest.fixture
def books(store, store_url, request_id):
    """An engine on a database with one transfer, as any program would open it."""
    with store.write() as tx:
        tx.ledger.transfer("t", request_id, {"external:a": -5, "org:b": 5}, at_s=7)
    opened = engine.writer(engine.database_url(store_url))
    yield opened
    opened.dispose()


def post(name, account, amount, request_id):
    return (
        "INSERT INTO posting (transfer, account, request_id, position, amount_micro) "
        f"VALUES ('{name}', '{account}', '{request_id}', 9, {amount})"
    )


WRONG = {
    "one side alone": ["INSERT INTO transfer VALUES ('u', 0, 0)", post("u", "org:b", 3, "{r}")],
    "sides that differ": [
        "INSERT INTO transfer VALUES ('u', 0, 0)",
        post("u", "org:b", 3, "{r}"),
        post("u", "external:a", -4, "{r}"),
    ],
    "a side added later": [post("t", "org:c", 1, "{r}")],
    "no transfer": [post("u", "org:b", 3, "{r}"), post("u", "external:a", -3, "{r}")],
    "a changed amount": ["UPDATE posting SET amount_micro = 6 WHERE account = 'org:b'"],
    "changed amounts": ["UPDATE posting SET amount_micro = 2 * amount_micro"],
    "another account": ["UPDATE posting SET account = 'external:a' WHERE account = 'org:b'"],
    "a removed side": ["DELETE FROM posting WHERE account = 'org:b'"],
    "all removed": ["DELETE FROM posting"],
    "a balance": ["UPDATE account SET balance_micro = 6 WHERE name = 'org:b'"],
    "balances that sum to zero": [
        "UPDATE account SET balance_micro = -6 WHERE name = 'external:a'",
        "UPDATE account SET balance_micro = 6 WHERE name = 'org:b'",
    ],
    "a rich new account": ["INSERT INTO account VALUES ('org:d', 1)"],
    "a transfer that claims balance": [
        "INSERT INTO transfer VALUES ('u', 0, 0)",
        post("u", "org:b", 3, "{r}"),
        "UPDATE transfer SET total_micro = 0 WHERE name = 'u'",
    ],
    "another zero": ["INSERT INTO zero VALUES (3)"],
    "a removed transfer": ["DELETE FROM transfer WHERE name = 't'"],
    "an overdrawn account": [
        "INSERT INTO transfer VALUES ('u', 0, 0)",
        post("u", "external:a", 6, "{r}"),
        post("u", "org:b", -6, "{r}"),
    ],
}


def run(books, statements):
    """All statements in one transaction."""
    with books.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def state(books):
    """All rows of the ledger."""
    with books.connect() as connection:
        return [
            connection.execute(text(f"SELECT * FROM {table} ORDER BY 1, 2")).all()
            for table in ("posting", "account", "transfer")
        ]


@pytest.mark.parametrize("name", WRONG)
def test_the_database_refuses(books, request_id, name):
    with books.begin() as connection:  # an account to post to
        connection.execute(text("INSERT INTO account VALUES ('org:c', 0)"))
    before = state(books)
    with pytest.raises(IntegrityError):
        run(books, [statement.replace("{r}", request_id) for statement in WRONG[name]])
    assert state(books) == before


def test_what_sums_to_zero_is_taken_in_any_order_and_counted_by_the_database(books, request_id):
    with books.begin() as connection:
        connection.execute(text("INSERT INTO transfer VALUES ('u', 0, 0)"))
        connection.execute(text(post("u", "org:b", 3, request_id)))
        connection.execute(text(post("u", "external:a", -3, request_id)))
    with books.connect() as connection:
        found = dict(connection.execute(text("SELECT name, balance_micro FROM account")).all())
    assert found == {"external:a": -8, "org:b": 8}


def test_postgresql_postings_are_not_truncated(books):
    if books.dialect.name == "sqlite":
        with books.connect() as connection:  # it has no such statement
            assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1
        return
    with pytest.raises(IntegrityError), books.begin() as connection:
        connection.execute(text("TRUNCATE posting CASCADE"))


def test_the_stores_own_transaction_fails_as_a_whole(store, request_id):
    one_side = PostingRow(
        transfer="u", account="org:b", request_id=request_id, position=0, amount_micro=1
    )

    def wrong(tx):
        tx.ledger.transfer("t", request_id, {"external:a": -5, "org:b": 5})
        for row in (TransferRow(name="u"), one_side):
            tx._session.add(row)
            tx._session.flush()

    with pytest.raises(ConflictError):
        store.run(wrong)
    with store.read() as tx:
        assert tx.ledger.balance("org:b") == 0


def test_older_books_are_taken_over_and_given_back(books, store, store_url, request_id):
    store.close()
    before = state(books)
    assert migrate.downgrade(store_url, "0001") == "0001"
    with books.connect() as connection:
        assert len(connection.execute(text("SELECT * FROM posting")).all()) == 2
        assert connection.execute(text("SELECT sum(balance_micro) FROM account")).scalar() == 0
    assert migrate.upgrade(store_url) == SCHEMA_VERSION
    posting, account, transfer = state(books)
    assert (posting, account) == (before[0], before[1])
    assert [(row.name, row.total_micro) for row in transfer] == [("t", 0)]
    with pytest.raises(IntegrityError), books.begin() as connection:
        connection.execute(text("DELETE FROM posting"))
    again = Store(store_url)
    with again.write() as tx:
        tx.ledger.transfer("v", request_id, {"external:a": -1, "org:b": 1})
        assert tx.ledger.balance("org:b") == 6
    again.close()


def test_every_table_of_the_ledger_is_guarded():
    assert {"zero", "transfer", "posting", "account"} <= set(SQLModel.metadata.tables)
