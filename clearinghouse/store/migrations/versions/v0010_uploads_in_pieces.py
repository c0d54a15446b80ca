"""Uploads that come in pieces, and when a blob was last announced."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Change the tables."""
    op.create_table(
        "partial",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("org_id", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("received", sa.BigInteger(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "received >= 0 AND received <= size AND size > 0", name=op.f("ck_partial_received")
        ),
        sa.ForeignKeyConstraint(["org_id"], ["org.id"], name=op.f("fk_partial_org_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_partial")),
        sa.UniqueConstraint("org_id", "digest", name=op.f("uq_partial_org_id_digest")),
    )
    with op.batch_alter_table("blob", schema=None) as batch_op:
        batch_op.add_column(sa.Column("seen", sa.BigInteger(), nullable=False, server_default="0"))
    with op.batch_alter_table("blob", schema=None) as batch_op:
        batch_op.alter_column("seen", existing_type=sa.BigInteger(), server_default=None)


def downgrade() -> None:
    """Change them back."""
    with op.batch_alter_table("blob", schema=None) as batch_op:
        batch_op.drop_column("seen")
    op.drop_table("partial")
