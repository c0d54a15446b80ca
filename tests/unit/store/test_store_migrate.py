"""Migrations: they make the declared tables, keep rows up and down, and run only on request."""

import threading
from contextlib import contextmanager
from dataclasses import replace

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import MetaData, create_engine, inspect, text
from sqlmodel import SQLModel

from clearinghouse.errors import InputError
from clearinghouse.ids import new_id
from clearinghouse.log.entries import make_entry
from clearinghouse.signing import SigningKey
from clearinghouse.store import migrate
from clearinghouse.store.records import Org
from clearinghouse.store.store import Store
from clearinghouse.store.tables import SCHEMA_VERSION
from clearinghouse.store.versions import VERSION_TABLE

KEYS = [SigningKey.generate().verify_key for _ in range(2)]

NEXT = """
import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{head}"
branch_labels = None
depends_on = None


def upgrade():
    with op.batch_alter_table("org") as batch:
        batch.add_column(sa.Column("region", sa.Text(), nullable=False, server_default="unknown"))
    with op.batch_alter_table("posting") as batch:
        batch.drop_constraint(op.f("ck_posting_moves"), type_="check")
        batch.create_check_constraint(op.f("ck_posting_small"), "amount_micro < 1000000")
    op.execute("UPDATE org SET region = 'north' WHERE role = 'hospital'")
    {then}


def downgrade():
    with op.batch_alter_table("posting") as batch:
        batch.drop_constraint(op.f("ck_posting_small"), type_="check")
        batch.create_check_constraint(op.f("ck_posting_moves"), "amount_micro <> 0")
    with op.batch_alter_table("org") as batch:
        batch.drop_column("region")
"""


@contextmanager
def connected(url):
    opened = create_engine(url)
    try:
        with opened.begin() as connection:
            yield connection
    finally:
        opened.dispose()


def rows(url):
    """All rows of all tables, in an order of their own."""
    found = MetaData()
    with connected(url) as connection:
        found.reflect(connection)
        return {
            table.name: sorted(repr(tuple(row)) for row in connection.execute(table.select()))
            for table in found.sorted_tables
        }


def shape(url):
    """Everything that a database says about its tables: columns, checks, keys, indexes."""
    with connected(url) as connection:
        if connection.dialect.name == "sqlite":
            made = connection.execute(text("SELECT name, sql FROM sqlite_master")).all()
            lines = [
                (name, line.strip().rstrip(",").replace('"', ""))
                for name, sql in made
                for line in (sql or "").splitlines()
            ]
            return sorted(line for line in lines if line[0] != VERSION_TABLE)
        columns = connection.execute(
            text(
                "SELECT table_name, column_name, data_type, is_nullable, collation_name, "
                "column_default FROM information_schema.columns WHERE table_schema = 'public'"
            )
        ).all()
        rules = connection.execute(
            text(
                "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) "
                "FROM pg_constraint WHERE connamespace = 'public'::regnamespace"
            )
        ).all()
        indexes = connection.execute(
            text("SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = 'public'")
        ).all()
        triggers = connection.execute(
            text(
                "SELECT tgrelid::regclass::text, pg_get_triggerdef(oid) FROM pg_trigger "
                "WHERE NOT tgisinternal"
            )
        ).all()
        functions = connection.execute(
            text("SELECT proname, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace")
        ).all()
        found = [tuple(row) for row in (*columns, *rules, *indexes, *triggers, *functions)]
        return sorted(repr(row) for row in found if row[0] != VERSION_TABLE)


def next_version(folder, then="pass"):
    """A folder with one more migration."""
    folder.mkdir()
    (folder / "v9999_test.py").write_text(NEXT.format(head=SCHEMA_VERSION, then=then))
    return (folder,)


@pytest.fixture
def seeded_url(store, store_url, request_id, org_id):
    """A database of this version with a few rows that refer to one another."""
    with store.write() as tx:
        tx.ledger.transfer("t", request_id, {"external:a": -5, "org:b": 5})
        tx.log.append(b'{"a":1}')
        tx.set_meta("server_org", org_id)
    store.close()
    return store_url


def test_the_newest_migration_is_the_programs_version():
    assert migrate.known()[0] == SCHEMA_VERSION
    assert len(set(migrate.known())) == len(migrate.known())


def test_migrations_make_the_declared_tables(empty_url):
    assert migrate.upgrade(empty_url) == SCHEMA_VERSION
    with connected(empty_url) as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": VERSION_TABLE, "compare_type": True}
        )
        assert compare_metadata(context, SQLModel.metadata) == []


def test_what_autogenerate_does_not_see_is_equal_too(empty_url, tmp_path, request):
    migrate.upgrade(empty_url)
    if empty_url.startswith("sqlite"):
        declared = f"sqlite:///{tmp_path / 'declared.db'}"
    else:
        declared = request.getfixturevalue("postgres").make()
    with connected(declared) as connection:
        SQLModel.metadata.create_all(connection)
    found = shape(empty_url)
    assert found == shape(declared)
    assert len(found) > 100
    with connected(declared) as connection:  # the comparison can fail
        connection.execute(text("DROP INDEX ix_nonce_expires"))
    assert found != shape(declared)


def test_up_and_down_keep_every_row(seeded_url, tmp_path):
    more = next_version(tmp_path / "more")
    before, made = rows(seeded_url), shape(seeded_url)
    assert len(before["posting"]) == 2
    assert migrate.upgrade(seeded_url, more=more) == "9999"
    after = rows(seeded_url)
    assert [row for row in after["org"] if "'north'" in row] == after["org"]
    unchanged = set(before) - {"org", VERSION_TABLE}
    assert {name: after[name] for name in unchanged} == {name: before[name] for name in unchanged}
    assert shape(seeded_url) != made
    with pytest.raises(InputError, match="schema version 9999, this program needs"):
        Store(seeded_url)  # the older program does not touch the newer database
    with pytest.raises(InputError, match="schema version 9999, which"):
        migrate.upgrade(seeded_url)
    assert migrate.downgrade(seeded_url, SCHEMA_VERSION, more=more) == SCHEMA_VERSION
    assert rows(seeded_url) == before
    assert {line for line in shape(seeded_url) if "ck_" in str(line)} == {
        line for line in made if "ck_" in str(line)
    }
    again = Store(seeded_url)
    with again.write() as tx:
        tx.log.append(b'{"b":2}')
    with again.read() as tx:
        assert tx.log.entries(1, 9) == (b'{"b":2}',)
    again.close()


def test_the_fourth_migration_finds_when_rows_were_committed(seeded_url, org_id):
    entry = '{"objects":{"source":"src_1"},"type":"source.registered"}'
    migrate.downgrade(seeded_url, "0004")
    with connected(seeded_url) as connection:
        connection.execute(
            text("INSERT INTO entry (position, body) VALUES (5, :body)"), {"body": entry.encode()}
        )
        connection.execute(
            text(
                "INSERT INTO source (id, org_id, name, schema_id, size_class, rows_root, leaves) "
                "VALUES ('src_1', :org, 'n', 'sch_1', 1, 'r', 2)"
            ),
            {"org": org_id},
        )
    migrate.upgrade(seeded_url)
    opened = Store(seeded_url)
    with opened.read() as tx:
        assert tx.cohorts.source("src_1").committed == 5
    opened.close()


def test_a_migration_that_fails_changes_nothing(seeded_url, tmp_path):
    more = next_version(tmp_path / "more", then='raise RuntimeError("power cut")')
    before, made = rows(seeded_url), shape(seeded_url)
    with pytest.raises(RuntimeError, match="power cut"):
        migrate.upgrade(seeded_url, more=more)
    assert (rows(seeded_url), shape(seeded_url)) == (before, made)
    Store(seeded_url).close()


def test_a_migration_that_breaks_references_is_refused(seeded_url, tmp_path):
    more = next_version(tmp_path / "more", then="op.execute('DELETE FROM org')")
    before = rows(seeded_url)
    with pytest.raises(Exception, match=r"refer to nothing|violates foreign key"):
        migrate.upgrade(seeded_url, more=more)
    assert rows(seeded_url) == before


def test_an_older_database_is_migrated_only_on_request(store_url):
    Store(store_url).close()
    with connected(store_url) as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '0000'"))
    with pytest.raises(InputError, match="schema version 0000, this program needs"):
        Store(store_url)
    with pytest.raises(InputError, match="does not know"):
        migrate.upgrade(store_url)
    with pytest.raises(InputError, match="does not know"):
        migrate.downgrade(store_url, "base")


def test_tables_without_a_version_are_left_alone(empty_url):
    with connected(empty_url) as connection:
        connection.execute(text("CREATE TABLE theirs (a int)"))
    for way in (Store, migrate.upgrade):
        with pytest.raises(InputError, match="schema version none"):
            way(empty_url)
    with connected(empty_url) as connection:
        assert inspect(connection).get_table_names() == ["theirs"]


def test_all_the_way_down_and_up_again(seeded_url):
    made = shape(seeded_url)
    assert migrate.downgrade(seeded_url, "base") == "base"
    assert set(rows(seeded_url)) == {VERSION_TABLE}
    opened = Store(seeded_url)
    with opened.read() as tx:
        assert tx.log.size() == 0
    opened.close()
    assert shape(seeded_url) == made


def test_processes_that_start_at_once_make_the_tables_once(empty_url):
    opened, errors = [], []

    def start():
        try:
            opened.append(Store(empty_url))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(opened), errors) == (4, [])
    for number, store in enumerate(opened):
        with store.write() as tx:
            tx.log.append(b"{}")
        with store.read() as tx:
            assert tx.log.size() == number + 1
        store.close()


def test_a_migration_waits_for_writers(store_url, tmp_path):
    more = next_version(tmp_path / "more")
    store = Store(store_url)
    done = []
    thread = threading.Thread(target=lambda: done.append(migrate.upgrade(store_url, more=more)))
    with store.write() as tx:
        tx.log.append(b"{}")
        thread.start()
        thread.join(0.5)
        assert done == []
        tx.log.append(b"[]")
    thread.join(20)
    assert done == ["9999"]
    assert len(rows(store_url)["entry"]) == 2
    store.close()


def test_a_draft_of_no_change_is_empty(tmp_path):
    written = migrate.draft("Nothing", "9998", tmp_path / "drafts")
    code = written.read_text()
    assert f"down_revision = '{SCHEMA_VERSION}'" in code
    assert "op." not in code


def test_every_amount_has_64_bits_and_every_text_one_order(ready_postgres):
    with connected(ready_postgres) as connection:
        columns = connection.execute(
            text(
                "SELECT column_name, data_type, collation_name FROM information_schema.columns "
                "WHERE table_schema = 'public' AND table_name <> :version"
            ),
            {"version": VERSION_TABLE},
        ).all()
    kinds = {kind for _, kind, _ in columns}
    assert kinds == {"text", "bigint", "boolean", "double precision", "bytea"}
    assert {order for _, kind, order in columns if kind == "text"} == {"C"}


def test_keys_and_uploads_that_were_there_before_are_known_after(store, store_url):
    """Organisations of the older version keep their key, at the index of its log entry."""
    orgs = [Org(new_id("org"), "h", "hospital", new_id("key"), "x", None) for _ in range(2)]
    entries = [
        make_entry("org.registered", now_s=0, actor=org.id, key=key.key_id, objects={"org": org.id},
                   hashes={"public_key": key.digest})
        for org, key in zip(orgs, KEYS, strict=True)
    ]  # fmt: skip
    with store.write() as tx:
        tx.log.append(b'{"type":"other"}')
        for org, key, entry in zip(orgs, KEYS, entries, strict=True):
            tx.parties.add(replace(org, key_id=key.key_id, public_key=key.base64))
            tx.parties.date_key(key.key_id, tx.log.append(entry.data))
        tx.blobs.add("d" * 64, 5, orgs[0].id)
    with store.read() as tx:
        before = [tx.parties.keys(org.id) for org in orgs]
    store.close()
    assert migrate.downgrade(store_url, "0003") == "0003"
    assert migrate.upgrade(store_url) == SCHEMA_VERSION
    again = Store(store_url)
    with again.read() as tx:
        assert [tx.parties.keys(org.id) for org in orgs] == before
        assert [key.added for keys in before for key in keys] == [1, 2]
        assert [tx.quotas.stored(org.id) for org in orgs] == [5, 0]
        assert tx.parties.by_key(KEYS[1].key_id).id == orgs[1].id
    again.close()
