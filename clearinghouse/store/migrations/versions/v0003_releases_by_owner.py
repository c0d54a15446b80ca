"""Releases by owner, filled from the log."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
KINDS = ("size.released", "summary.released", "target.released", "run.released")


def upgrade() -> None:
    """Make the table, and take every release that the log holds."""
    table = op.create_table(
        "release",
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("owner", TEXT, nullable=False),
        sa.Column("data", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("request_id", TEXT, nullable=True),
        sa.Column("run_id", TEXT, nullable=True),
        sa.Column("epsilon_micro", sa.BigInteger(), nullable=False),
        sa.Column("time", TEXT, nullable=False),
        sa.CheckConstraint("epsilon_micro >= 0", name=op.f("ck_release_epsilon")),
        sa.ForeignKeyConstraint(["position"], ["entry.position"], name=op.f("fk_release_position")),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_release")),
    )
    op.create_index(op.f("ix_release_owner"), "release", ["owner"])
    connection = op.get_bind()
    entries = sa.table("entry", sa.column("position"), sa.column("body"))
    found = connection.execute(sa.select(entries.c.position, entries.c.body))
    rows = []
    for position, body in found:
        entry = json.loads(bytes(body))
        if entry["type"] not in KINDS:
            continue
        objects = entry["objects"]
        rows.append(
            {
                "position": position,
                "owner": objects["owner"],
                "data": objects.get("source") or objects.get("valset") or objects["owner"],
                "kind": entry["type"],
                "request_id": objects.get("request"),
                "run_id": objects.get("run"),
                "epsilon_micro": entry["amounts"]["epsilon_micro"],
                "time": entry["time"],
            }
        )
    if rows:
        op.bulk_insert(table, rows)


def downgrade() -> None:
    """Drop the table; the log keeps what it was made of."""
    op.drop_index(op.f("ix_release_owner"), "release")
    op.drop_table("release")
