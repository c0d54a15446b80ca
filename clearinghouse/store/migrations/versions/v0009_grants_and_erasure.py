"""Grants, their uses, withdrawals and what is to be erased."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Change the tables."""
    op.create_table(
        "doomed",
        sa.Column("digest", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_doomed")),
    )
    op.create_table(
        "salt",
        sa.Column("object_id", TEXT, nullable=False),
        sa.Column("salt", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("object_id", name=op.f("pk_salt")),
    )
    op.create_table(
        "grants",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("source_id", TEXT, nullable=False),
        sa.Column("sender", TEXT, nullable=False),
        sa.Column("recipient", TEXT, nullable=False),
        sa.Column("attributes", TEXT, nullable=False),
        sa.Column("purpose", TEXT, nullable=False),
        sa.Column("given", sa.BigInteger(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.Column("withdrawn", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["sender"], ["org.id"], name=op.f("fk_grants_sender")),
        sa.ForeignKeyConstraint(["source_id"], ["source.id"], name=op.f("fk_grants_source_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_grants")),
    )
    with op.batch_alter_table("grants", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_grants_recipient"), ["recipient"], unique=False)
        batch_op.create_index(batch_op.f("ix_grants_source_id"), ["source_id"], unique=False)

    op.create_table(
        "withdrawal",
        sa.Column("source_id", TEXT, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("erased", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["source_id"], ["source.id"], name=op.f("fk_withdrawal_source_id")),
        sa.PrimaryKeyConstraint("source_id", name=op.f("pk_withdrawal")),
    )
    op.create_table(
        "stale",
        sa.Column("request_id", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["request_id"], ["request.id"], name=op.f("fk_stale_request_id")),
        sa.PrimaryKeyConstraint("request_id", name=op.f("pk_stale")),
    )
    op.create_table(
        "grant_use",
        sa.Column("order_id", TEXT, nullable=False),
        sa.Column("org_id", TEXT, nullable=False),
        sa.Column("act", TEXT, nullable=False),
        sa.Column("allowed", sa.Boolean(), nullable=False),
        sa.Column("source_id", TEXT, nullable=False),
        sa.Column("request_id", TEXT, nullable=False),
        sa.Column("grant_id", TEXT, nullable=True),
        sa.Column("blob", TEXT, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.CheckConstraint(
            "(grant_id IS NULL) = (reason <> '')", name=op.f("ck_grant_use_outcome")
        ),
        sa.ForeignKeyConstraint(["grant_id"], ["grants.id"], name=op.f("fk_grant_use_grant_id")),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_grant_use_order_id")),
        sa.ForeignKeyConstraint(["org_id"], ["org.id"], name=op.f("fk_grant_use_org_id")),
        sa.ForeignKeyConstraint(
            ["request_id"], ["request.id"], name=op.f("fk_grant_use_request_id")
        ),
        sa.ForeignKeyConstraint(["source_id"], ["source.id"], name=op.f("fk_grant_use_source_id")),
        sa.PrimaryKeyConstraint("order_id", "org_id", "act", "allowed", name=op.f("pk_grant_use")),
    )
    with op.batch_alter_table("grant_use", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_grant_use_blob"), ["blob"], unique=False)
        batch_op.create_index(batch_op.f("ix_grant_use_request_id"), ["request_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_grant_use_source_id"), ["source_id"], unique=False)


def downgrade() -> None:
    """Change them back."""
    with op.batch_alter_table("grant_use", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_grant_use_source_id"))
        batch_op.drop_index(batch_op.f("ix_grant_use_request_id"))
        batch_op.drop_index(batch_op.f("ix_grant_use_blob"))

    op.drop_table("grant_use")
    op.drop_table("stale")
    op.drop_table("withdrawal")
    with op.batch_alter_table("grants", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_grants_source_id"))
        batch_op.drop_index(batch_op.f("ix_grants_recipient"))

    op.drop_table("grants")
    op.drop_table("salt")
    op.drop_table("doomed")
