"""Disputes have numbers, so that two of one second have an order."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the tables."""
    with op.batch_alter_table("dispute", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("number", sa.BigInteger(), nullable=False, server_default="0")
        )
    with op.batch_alter_table("dispute", schema=None) as batch_op:
        batch_op.alter_column("number", existing_type=sa.BigInteger(), server_default=None)


def downgrade() -> None:
    """Change them back."""
    with op.batch_alter_table("dispute", schema=None) as batch_op:
        batch_op.drop_column("number")
