"""Witnesses and their cosignatures."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Change the tables."""
    op.create_table(
        "witness",
        sa.Column("vkey", TEXT, nullable=False),
        sa.Column("org_id", TEXT, nullable=True),
        sa.ForeignKeyConstraint(["org_id"], ["org.id"], name=op.f("fk_witness_org_id")),
        sa.PrimaryKeyConstraint("vkey", name=op.f("pk_witness")),
        sa.UniqueConstraint("org_id", name=op.f("uq_witness_org_id")),
    )
    op.create_table(
        "cosignature",
        sa.Column("size", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("vkey", TEXT, nullable=False),
        sa.Column("line", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["size"], ["checkpoint.size"], name=op.f("fk_cosignature_size")),
        sa.ForeignKeyConstraint(["vkey"], ["witness.vkey"], name=op.f("fk_cosignature_vkey")),
        sa.PrimaryKeyConstraint("size", "vkey", name=op.f("pk_cosignature")),
    )


def downgrade() -> None:
    """Change them back."""
    op.drop_table("cosignature")
    op.drop_table("witness")
