"""A backup is one state of a live database; an old one cannot undo what was published."""

import threading

import pytest

from clearinghouse.errors import InputError
from clearinghouse.log import merkle
from clearinghouse.log.checkpoint import Checkpoint, parse_note, sign_checkpoint
from clearinghouse.signing import SigningKey
from clearinghouse.store import anchor
from clearinghouse.store.backup import backup
from clearinghouse.store.store import Store

KEY = SigningKey.from_raw(bytes(range(32)))


def grow(store, count, kind="e"):
    """Append entries and publish a checkpoint."""
    with store.read() as tx:
        size = tx.log.size()
    with store.write() as tx:
        for number in range(size, size + count):
            tx.log.append(f'"{kind}{number}"'.encode())
    with store.write() as tx:
        return tx.log.checkpoint("test.log", KEY)


def opened(url, published):
    """Open, look at the size of the log, close."""
    store = Store(url, published)
    with store.read() as tx:
        size = tx.log.size()
    store.close()
    return size


@pytest.fixture
def published(tmp_path):
    return tmp_path / "kept" / "server.checkpoint"


@pytest.fixture
def url(tmp_path, published):
    published.parent.mkdir()
    return f"sqlite:///{tmp_path / 'live.db'}"


def test_a_backup_is_one_whole_state_while_writers_write(url, tmp_path):
    store = Store(url)
    grow(store, 5)
    stop = threading.Event()

    def write():
        while not stop.is_set():
            grow(store, 1)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        sizes = [backup(url, tmp_path / f"{number}.db") for number in range(5)]
    finally:
        stop.set()
        thread.join()
    store.close()
    assert sizes == sorted(sizes)
    for number, size in enumerate(sizes):
        copy = Store(f"sqlite:///{tmp_path / f'{number}.db'}")
        with copy.read() as tx:
            assert tx.log.size() == size
            nodes = merkle.MemoryNodes()
            for start in range(0, size, 1000):
                for entry in tx.log.entries(start, 1000):
                    merkle.append(nodes, entry)
            assert merkle.root(nodes) == tx.log.root(size)
            assert parse_note(tx.log.last_checkpoint().encode()).checkpoint.size <= size
        copy.close()


def test_a_backup_overwrites_nothing_and_leaves_nothing_half_done(url, tmp_path):
    Store(url).close()
    path = tmp_path / "copy.db"
    assert backup(url, path) == 0
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(InputError, match="is there already"):
        backup(url, path)
    with pytest.raises(InputError, match="no database"):
        backup(f"sqlite:///{tmp_path / 'none.db'}", tmp_path / "other.db")
    with pytest.raises(InputError, match="pg_dump"):
        backup("postgresql://me:hush@host/x", tmp_path / "other.db")
    assert sorted(item.name for item in tmp_path.glob("*copy*")) == ["copy.db"]
    assert list(tmp_path.glob("*other*")) == []


def test_a_damaged_database_makes_no_backup(url, tmp_path):
    store = Store(url)
    grow(store, 400)
    store.close()
    live = tmp_path / "live.db"
    data = bytearray(live.read_bytes())
    for place in range(4096 * 5, len(data), 4096):
        data[place : place + 64] = b"\xff" * 64
    live.write_bytes(bytes(data))
    with pytest.raises(InputError, match="no backup was made"):
        backup(url, tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()


def test_a_database_older_than_what_was_published_is_refused(url, published, tmp_path):
    store = Store(url, published)
    grow(store, 3)
    backup(url, tmp_path / "old.db")
    grow(store, 2)
    store.close()
    assert opened(url, published) == 5
    old = f"sqlite:///{tmp_path / 'old.db'}"
    with pytest.raises(InputError, match=r"log has 3 entries, but a checkpoint of 5 was") as error:
        Store(old, published)
    assert str(published) in str(error.value)
    assert opened(url, published) == 5
    published.unlink()  # a decision of the operator, written down in docs/operate.md
    assert opened(old, published) == 3


def test_another_log_of_the_same_size_or_longer_is_refused(url, published, tmp_path):
    store = Store(url, published)
    grow(store, 3)
    store.close()
    for number, count in enumerate((3, 8)):
        other = f"sqlite:///{tmp_path / f'other{number}.db'}"
        fork = Store(other)
        grow(fork, count, kind="f")
        fork.close()
        with pytest.raises(InputError, match=rf"log has {count} entries, but its first 3 are not"):
            Store(other, published)


def test_entries_after_the_last_checkpoint_may_be_there_or_not(url, published, tmp_path):
    store = Store(url, published)
    grow(store, 3)
    backup(url, tmp_path / "old.db")
    with store.write() as tx:
        tx.log.append(b"{}")
    store.close()
    assert opened(url, published) == 4
    assert opened(f"sqlite:///{tmp_path / 'old.db'}", published) == 3


def test_a_checkpoint_is_kept_before_anyone_gets_it(store_url, published):
    published.parent.mkdir()
    store = Store(store_url, published)
    assert not published.exists()
    for size in (1, 2, 3):
        note = grow(store, 1)
        assert published.read_text() == note
        assert parse_note(note.encode()).checkpoint.size == size
    with store.write() as tx:  # signed already: the same note, the same file
        assert tx.log.checkpoint("test.log", KEY) == published.read_text()
    store.close()


def test_a_checkpoint_that_was_not_committed_is_not_kept(store_url, published):
    published.parent.mkdir()
    store = Store(store_url, published)
    kept = grow(store, 1)
    with pytest.raises(ZeroDivisionError):
        store.run(lambda tx: (tx.log.append(b"{}"), tx.log.checkpoint("test.log", KEY), 1 // 0))
    assert published.read_text() == kept
    store.close()


def test_a_lost_file_is_written_anew_from_the_database(store_url, published):
    published.parent.mkdir()
    store = Store(store_url, published)
    note = grow(store, 2)
    store.close()
    published.unlink()
    assert opened(store_url, published) == 2
    assert published.read_text() == note


def test_the_file_never_goes_back(tmp_path):
    path = tmp_path / "c"
    kept = anchor.Anchor(path)
    notes = [sign_checkpoint(Checkpoint("o", size, bytes(32)), KEY) for size in (5, 4, 6)]
    for note in notes:
        kept.keep(note)
    assert path.read_text() == notes[2]
    assert [item.name for item in tmp_path.iterdir()] == ["c"]


def test_a_damaged_file_is_not_taken_for_a_missing_one(url, published):
    store = Store(url, published)
    grow(store, 2)
    store.close()
    published.write_text("half a che")
    with pytest.raises(InputError, match="is not a checkpoint"):
        Store(url, published)
