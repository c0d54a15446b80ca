"""Log entries have an id before their position; receipts have drafts; requests name their end.

Until now every entry got its position in the transaction that wrote it, so that ids begin equal to
positions and nothing that refers to an entry changes.
"""

import json
from typing import Literal

import sqlalchemy as sa
from alembic import op

from clearinghouse.errors import InputError

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
WAITING = sa.text("position IS NULL")
DRAFTED = sa.text("draft IS NOT NULL")


def upgrade() -> None:
    """Change the tables."""
    with op.batch_alter_table("release", schema=None) as batch_op:
        batch_op.drop_constraint(op.f("fk_release_position"), type_="foreignkey")
    with op.batch_alter_table("release", schema=None) as batch_op:
        batch_op.alter_column("position", new_column_name="entry", existing_type=sa.BigInteger())
    with op.batch_alter_table("entry", schema=None) as batch_op:
        batch_op.alter_column("position", new_column_name="id", existing_type=sa.BigInteger())
    with op.batch_alter_table("entry", schema=None) as batch_op:
        batch_op.add_column(sa.Column("position", sa.BigInteger(), nullable=True))
    op.execute("UPDATE entry SET position = id")
    with op.batch_alter_table("entry", schema=None) as batch_op:
        batch_op.create_unique_constraint(op.f("uq_entry_position"), ["position"])
    op.create_index(
        op.f("ix_entry_waiting"),
        "entry",
        ["id"],
        sqlite_where=WAITING,
        postgresql_where=WAITING,
    )
    with op.batch_alter_table("release", schema=None) as batch_op:
        batch_op.create_foreign_key(op.f("fk_release_entry"), "entry", ["entry"], ["id"])
    anew: Literal["always", "never"] = "always" if _is_sqlite() else "never"
    with op.batch_alter_table("receipt", schema=None, recreate=anew) as batch_op:
        batch_op.add_column(sa.Column("draft", TEXT, nullable=True))
    op.create_index(
        op.f("ix_receipt_draft"),
        "receipt",
        ["id"],
        sqlite_where=DRAFTED,
        postgresql_where=DRAFTED,
    )
    with op.batch_alter_table("request", schema=None, recreate=anew) as batch_op:
        batch_op.add_column(sa.Column("closed", sa.BigInteger(), nullable=True))
    _count_from_here()
    _name_ends()


def _is_sqlite() -> bool:
    return op.get_bind().dialect.name == "sqlite"


def _count_from_here() -> None:
    """Let PostgreSQL give the next id."""
    connection = op.get_bind()
    if _is_sqlite():
        return
    last = connection.execute(sa.text("SELECT coalesce(max(id), 0) FROM entry")).scalar()
    op.execute(f"CREATE SEQUENCE entry_id_seq START WITH {int(last or 0) + 1} OWNED BY entry.id")
    op.execute("ALTER TABLE entry ALTER COLUMN id SET DEFAULT nextval('entry_id_seq')")


def _name_ends() -> None:
    """Find in the log how requests ended."""
    connection = op.get_bind()
    for number, body in connection.execute(sa.text("SELECT id, body FROM entry")).all():
        entry = json.loads(bytes(body))
        if entry.get("type") == "request.closed":
            connection.execute(
                sa.text("UPDATE request SET closed = :number WHERE id = :request"),
                {"number": number, "request": entry["objects"]["request"]},
            )


def downgrade() -> None:
    """Change them back.

    Raises:
        InputError: Entries wait for the sequencer, which the older version does not have.
    """
    connection = op.get_bind()
    if connection.execute(sa.text("SELECT 1 FROM entry WHERE position IS NULL")).first():
        raise InputError(
            "log entries wait for the sequencer: run clearinghouse sequencer --once first"
        )
    _refer_to_positions()
    with op.batch_alter_table("request", schema=None) as batch_op:
        batch_op.drop_column("closed")
    op.drop_index(op.f("ix_receipt_draft"), "receipt")
    with op.batch_alter_table("receipt", schema=None) as batch_op:
        batch_op.drop_column("draft")
    with op.batch_alter_table("release", schema=None) as batch_op:
        batch_op.alter_column("entry", new_column_name="position", existing_type=sa.BigInteger())
    op.drop_index(op.f("ix_entry_waiting"), "entry")
    if not _is_sqlite():
        op.execute("ALTER TABLE entry ALTER COLUMN id DROP DEFAULT")
        op.execute("DROP SEQUENCE entry_id_seq")
    op.execute("UPDATE entry SET id = -1 - position")  # out of the way of one another
    op.execute("UPDATE entry SET id = position")
    with op.batch_alter_table("entry", schema=None) as batch_op:
        batch_op.drop_constraint(op.f("uq_entry_position"), type_="unique")
    with op.batch_alter_table("entry", schema=None) as batch_op:
        batch_op.drop_column("position")
    with op.batch_alter_table("entry", schema=None) as batch_op:
        batch_op.alter_column("id", new_column_name="position", existing_type=sa.BigInteger())
    with op.batch_alter_table("release", schema=None) as batch_op:
        batch_op.create_foreign_key(
            op.f("fk_release_position"), "entry", ["position"], ["position"]
        )


def _refer_to_positions() -> None:
    with op.batch_alter_table("release", schema=None) as batch_op:
        batch_op.drop_constraint(op.f("fk_release_entry"), type_="foreignkey")
    for table, columns in (("org_key", ("added", "revoked")), ("source", ("committed",))):
        changed = sa.table(table, *(sa.column(name) for name in columns))
        places = {name: _position(changed.c[name]) for name in columns}
        op.execute(sa.update(changed).values(places))
    release = sa.table("release", sa.column("entry"))
    op.execute(sa.update(release).values(entry=-1 - _position(release.c.entry)))
    op.execute("UPDATE release SET entry = -1 - entry")


def _position(column: sa.ColumnClause[int]) -> sa.ColumnElement[int]:
    entry = sa.table("entry", sa.column("id"), sa.column("position"))
    found = sa.select(entry.c.position).where(entry.c.id == column).scalar_subquery()
    return sa.func.coalesce(found, column)
