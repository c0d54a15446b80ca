"""A refused task says what the party's ledger was charged before."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the tables."""
    with op.batch_alter_table("task", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("spent_micro", sa.BigInteger(), nullable=False, server_default="0")
        )
    with op.batch_alter_table("task", schema=None) as batch_op:
        batch_op.alter_column("spent_micro", existing_type=sa.BigInteger(), server_default=None)


def downgrade() -> None:
    """Change them back."""
    with op.batch_alter_table("task", schema=None) as batch_op:
        batch_op.drop_column("spent_micro")
