"""Backups of a SQLite database, taken while servers use it."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy.engine import make_url

from clearinghouse.errors import InputError
from clearinghouse.store import engine


def backup(url: str, path: Path) -> int:
    """Copy one state of a database into a new file, on the disk when this returns.

    Blobs are files of their own: copy their folder after this, so that none is missing.

    Args:
        url: The SQLite database.
        path: Where the copy goes; nothing may be there.

    Returns:
        Entries of the log in the copy.

    Raises:
        InputError: It is no SQLite database, or there is a file already, or the database
            is damaged or the disk full; then there is no file.
    """
    if not engine.is_sqlite(engine.database_url(url)):
        raise InputError("this backs up SQLite; for PostgreSQL use pg_dump or pg_basebackup")
    source = Path(make_url(url).database or "")
    if not source.is_file():
        raise InputError(f"there is no database {source}")
    if path.exists():
        raise InputError(f"{path} is there already; name a new file")
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.touch(mode=0o600)
    try:
        entries = _copy(source, fresh)
        fresh.replace(path)
    except sqlite3.Error as error:
        raise InputError(f"no backup was made: {error}") from error
    finally:
        fresh.unlink(missing_ok=True)
    return entries


def _copy(source: Path, target: Path) -> int:
    with closing(sqlite3.connect(source, timeout=engine.LOCK_WAIT_S)) as live:
        live.execute("PRAGMA query_only=ON")
        with closing(sqlite3.connect(target)) as copy:
            live.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, nothing beside it
            found = copy.execute("PRAGMA integrity_check").fetchone()[0]
            if found != "ok":
                raise InputError(f"no backup was made, the database is damaged: {found}")
            entries = int(copy.execute("SELECT count(*) FROM entry").fetchone()[0])
    handle = os.open(target, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    return entries
