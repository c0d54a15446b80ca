"""A release says what it took of its owner's zCDP lane."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the tables."""
    with op.batch_alter_table("release", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("rho_micro", sa.BigInteger(), nullable=False, server_default="0")
        )
    with op.batch_alter_table("release", schema=None) as batch_op:
        batch_op.alter_column("rho_micro", existing_type=sa.BigInteger(), server_default=None)
        batch_op.create_check_constraint(op.f("ck_release_rho"), "rho_micro >= 0")


def downgrade() -> None:
    """Change them back."""
    with op.batch_alter_table("release", schema=None) as batch_op:
        batch_op.drop_constraint(op.f("ck_release_rho"), type_="check")
        batch_op.drop_column("rho_micro")
