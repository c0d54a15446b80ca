"""Which schema version a database has."""

from sqlalchemy import Connection, inspect, text

VERSION_TABLE = "schema_version"
UNVERSIONED = "none"


def found_version(connection: Connection) -> str | None:
    """Return a database's schema version.

    Returns:
        None if the database is empty; UNVERSIONED if it has tables but no version.
    """
    names = set(inspect(connection).get_table_names())
    version = None
    if VERSION_TABLE in names:
        query = text(f"SELECT version_num FROM {VERSION_TABLE}")  # noqa: S608  a constant
        version = connection.execute(query).scalar()
    if version is not None:
        return str(version)
    return UNVERSIONED if names - {VERSION_TABLE} else None
