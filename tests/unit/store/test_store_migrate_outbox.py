"""The migration to the outbox: ids of entries stand where indexes stood, and back."""

import pytest
from sqlalchemy import create_engine, text

from clearinghouse.errors import InputError
from clearinghouse.ids import new_id
from clearinghouse.log.entries import make_entry
from clearinghouse.signing import SigningKey
from clearinghouse.store import migrate
from clearinghouse.store.records import Org, Source
from clearinghouse.store.store import Store
from clearinghouse.store.tables import SCHEMA_VERSION

KEY = SigningKey.generate().verify_key


def test_what_names_an_entry_by_id_names_it_by_index_before(store, store_url, request_id):
    """Version 0012 knew indexes only; on PostgreSQL ids are others."""
    org = Org(new_id("org"), "p", "provider", KEY.key_id, KEY.base64, None)
    closed = make_entry("request.closed", now_s=0, actor=org.id, key=org.key_id,
                        objects={"request": request_id}, amounts={"failed": 0})  # fmt: skip
    size = make_entry("size.released", now_s=0, actor=org.id, key=org.key_id,
                      objects={"owner": org.id}, hashes={"release": "0" * 64},
                      amounts={"epsilon_micro": 7})  # fmt: skip
    with store.write() as tx:
        tx.parties.add(org)
        tx.parties.date_key(org.key_id, tx.log.append(b'{"type":"org"}'))
        tx.cohorts.add_source(Source("src_1", org.id, "s", "sch_1", 1, "0" * 64, 2, False))
        tx.cohorts.date_source("src_1", tx.log.append(b'{"type":"source"}'))
        tx.releases.add(tx.log.append(size.data), size)
        tx.requests.date_end(request_id, tx.log.append(closed.data))
        tx.parties.revoke_key(org.key_id, tx.log.append(b'{"type":"revoked"}'))

    def seen(opened):
        with opened.read() as tx:
            (key,) = tx.parties.keys(org.id)
            (release,) = tx.releases.of(org.id)
            end = tx.requests.get(request_id).closed
            return (
                (key.added, key.revoked, key.is_revoked),
                tx.cohorts.source("src_1").place,
                (release.entry, release.epsilon_micro),
                tx.log.place(end),
            )

    expected = ((0, 4, True), 1, (2, 7), 3)
    assert seen(store) == expected
    store.close()
    assert migrate.downgrade(store_url, "0012") == "0012"
    engine = create_engine(store_url)
    with engine.begin() as connection:
        found = [
            connection.execute(text(query)).one()
            for query in (
                f"SELECT added, revoked FROM org_key WHERE id = '{org.key_id}'",
                "SELECT committed FROM source",
                "SELECT position FROM release",
                "SELECT count(*), min(position), max(position) FROM entry",
            )
        ]
    engine.dispose()
    assert [tuple(row) for row in found] == [(0, 4), (1,), (2,), (5, 0, 4)]
    assert migrate.upgrade(store_url) == SCHEMA_VERSION
    again = Store(store_url)
    assert seen(again) == expected
    with again.write() as tx:
        tx.log.append(b'{"type":"next"}')
    with again.read() as tx:
        assert tx.log.entries(5, 9) == (b'{"type":"next"}',)
    again.close()


def test_an_older_version_is_not_given_entries_that_wait(ready_postgres):
    opened = Store(ready_postgres)
    opened.sequencer, opened.sequencer_wait_s = None, 0.0
    with opened.write() as tx:
        tx.log.append(b"{}")
    with pytest.raises(InputError, match="run clearinghouse sequencer --once first"):
        migrate.downgrade(ready_postgres, "0012")
    assert opened.sequence() == 1
    opened.close()
    assert migrate.downgrade(ready_postgres, "0012") == "0012"
