"""Schema versions: a fresh database gets its tables, an older one changes only on request.

Both databases run the same migrations in one transaction under the write lock: a migration that
fails leaves the old version whole, two processes that start at once make the tables once, and no
transaction of a running server falls into the middle.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from alembic import command
from alembic.config import Config
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection

from clearinghouse.errors import InputError
from clearinghouse.store import engine
from clearinghouse.store.versions import VERSION_TABLE, found_version

MIGRATIONS = Path(__file__).parent / "migrations"


def upgrade(url: str, revision: str = "head", *, more: tuple[Path, ...] = ()) -> str:
    """Bring a database to a newer version; stop its servers and back it up before.

    Args:
        url: The database.
        revision: A version, or `head` for the newest.
        more: Folders with further migrations.

    Returns:
        The version that it has now.

    Raises:
        InputError: Its version is unknown, or a migration would leave rows that refer to nothing.
    """
    with _changing(url) as connection:
        config = _config(connection, more)
        _check_known(config, connection)
        command.upgrade(config, revision)
        return _after(connection)


def downgrade(url: str, revision: str, *, more: tuple[Path, ...] = ()) -> str:
    """Bring a database back to an older version; `base` removes every table with its rows.

    Returns:
        The version that it has now, or `base`.

    Raises:
        InputError: Its version is unknown, or a migration would leave rows that refer to nothing.
    """
    with _changing(url) as connection:
        config = _config(connection, more)
        _check_known(config, connection)
        command.downgrade(config, revision)
        return _after(connection)


def known(more: tuple[Path, ...] = ()) -> tuple[str, ...]:
    """Return the versions that this program can migrate, newest first."""
    return _known(_config(None, more))


def draft(message: str, revision: str, folder: Path) -> Path:
    """Write a migration from the newest version to the tables as the program now declares them.

    For developers: a draft is read, completed (changed CHECKs are not seen) and formatted before it
    moves to `migrations/versions`.

    Args:
        message: What it does, in a few words.
        revision: Its version, four digits.
        folder: Where to write it.
    """
    with TemporaryDirectory() as place, _changing(f"sqlite:///{place}/draft.db") as connection:
        config = _config(connection, (folder,))
        config.set_main_option("file_template", "v%%(rev)s_%%(slug)s")
        command.upgrade(config, "head")
        script = command.revision(
            config, message, autogenerate=True, rev_id=revision, version_path=str(folder)
        )
    if not isinstance(script, Script):
        raise InputError("no migration was drafted")
    return Path(script.path)


@contextmanager
def _changing(url: str) -> Iterator[Connection]:
    """A connection in one transaction that holds the write lock."""
    opened = engine.migrator(engine.database_url(url))
    try:
        with opened.begin() as connection:
            yield connection
    finally:
        opened.dispose()


def _config(connection: Connection | None, more: tuple[Path, ...]) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    folders = [str(folder) for folder in (MIGRATIONS / "versions", *more)]
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", "\n".join(folders).replace("%", "%%"))
    config.attributes["connection"] = connection
    config.attributes["version_table"] = VERSION_TABLE
    return config


def _known(config: Config) -> tuple[str, ...]:
    return tuple(item.revision for item in ScriptDirectory.from_config(config).walk_revisions())


def _check_known(config: Config, connection: Connection) -> None:
    """Refuse a database that another program, or a newer version of this one, wrote."""
    found = found_version(connection)
    if found is not None and found not in _known(config):
        raise InputError(
            f"the database has schema version {found}, which this program does not know"
        )


def _after(connection: Connection) -> str:
    if connection.dialect.name == "sqlite":
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
        if broken is not None:
            raise InputError(f"after this migration rows of {broken[0]} would refer to nothing")
    return found_version(connection) or "base"
