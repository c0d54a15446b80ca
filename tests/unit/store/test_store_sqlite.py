"""What only SQLite needs: a file that survives a power cut and a full disk."""

import pytest
from databases import fresh_sqlite

from clearinghouse.blobs import StorageFullError
from clearinghouse.store.store import Store


@pytest.fixture
def store(tmp_path):
    opened = Store(fresh_sqlite(tmp_path / "test.db"))
    yield opened
    opened.close()


def test_a_full_disk_leaves_nothing_and_passes(store):
    with store._writer.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
        connection.commit()
    with pytest.raises(StorageFullError), store.write() as tx:
        tx.log.append(b"x" * 2**20)
    with store._writer.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=1000000")
        connection.commit()
    with store.write() as tx:
        assert tx.log.append(b"x" * 2**20) == 0


def test_settings_of_the_file_survive_a_power_cut(store):
    with store._writer.connect() as connection:
        modes = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert modes == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
