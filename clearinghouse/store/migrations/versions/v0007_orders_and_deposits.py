"""Price ladders, what orders earn and why they do not; the log index of every row commitment."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

_ORDERS = ("ladder", "earned_micro", "ground", "disputed", "offered")


def upgrade() -> None:
    """Change the tables; sources that are registered already are found in the log."""
    with op.batch_alter_table("source", schema=None) as batch_op:
        batch_op.add_column(sa.Column("committed", sa.BigInteger(), nullable=True))
        batch_op.create_check_constraint(
            op.f("ck_source_committed"), "committed IS NULL OR committed >= 0"
        )
    with op.batch_alter_table("orders", schema=None) as batch_op:
        batch_op.add_column(sa.Column("ladder", TEXT, nullable=True))
        batch_op.add_column(sa.Column("earned_micro", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("ground", TEXT, nullable=True))
        batch_op.add_column(sa.Column("disputed", TEXT, nullable=True))
        batch_op.add_column(sa.Column("offered", sa.BigInteger(), nullable=True))
        batch_op.create_check_constraint(
            op.f("ck_orders_earned"), "earned_micro IS NULL OR earned_micro >= 0"
        )
    connection = op.get_bind()
    for position, body in connection.execute(sa.text("SELECT position, body FROM entry")).all():
        entry = json.loads(bytes(body))
        if entry.get("type") == "source.registered":
            connection.execute(
                sa.text("UPDATE source SET committed = :position WHERE id = :source"),
                {"position": position, "source": entry["objects"]["source"]},
            )


def downgrade() -> None:
    """Change them back."""
    with op.batch_alter_table("orders", schema=None) as batch_op:
        batch_op.drop_constraint(op.f("ck_orders_earned"), type_="check")
        for name in reversed(_ORDERS):
            batch_op.drop_column(name)
    with op.batch_alter_table("source", schema=None) as batch_op:
        batch_op.drop_constraint(op.f("ck_source_committed"), type_="check")
        batch_op.drop_column("committed")
