"""How migrations run: inside the transaction that `clearinghouse.store.migrate` has opened."""

from typing import Any, Literal

from alembic import context
from sqlmodel import SQLModel

from clearinghouse.store import tables

attributes = context.config.attributes


def _render(kind: str, item: Any, _context: Any) -> str | Literal[False]:
    """Name the one text type in drafts of migrations."""
    return "TEXT" if kind == "type" and item is tables.TEXT else False


context.configure(
    connection=attributes["connection"],
    target_metadata=SQLModel.metadata,
    version_table=attributes["version_table"],
    render_as_batch=True,  # SQLite changes a table by writing it anew
    render_item=_render,
    transactional_ddl=True,
    compare_server_default=True,
)
context.run_migrations()
