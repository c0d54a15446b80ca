"""Durable jobs, the workers that do them, and what happened to a request, counted."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Change the tables."""
    op.create_table(
        "worker",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("host", TEXT, nullable=False),
        sa.Column("place", TEXT, nullable=False),
        sa.Column("pid", sa.BigInteger(), nullable=False),
        sa.Column("begun", TEXT, nullable=False),
        sa.Column("protocol", TEXT, nullable=False),
        sa.Column("slots", sa.BigInteger(), nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("started", sa.Float(), nullable=False),
        sa.Column("seen", sa.Float(), nullable=False),
        sa.Column("beats", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_worker")),
    )
    op.create_table(
        "job",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("request_id", TEXT, nullable=False),
        sa.Column("org_id", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("subject", TEXT, nullable=False),
        sa.Column("words", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("protocol", TEXT, nullable=False),
        sa.Column("priority", sa.BigInteger(), nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("turn", sa.BigInteger(), nullable=False),
        sa.Column("owner", TEXT, nullable=False),
        sa.Column("slot", TEXT, nullable=False),
        sa.Column("beats", sa.BigInteger(), nullable=False),
        sa.Column("enqueued", sa.Float(), nullable=False),
        sa.Column("not_before", sa.Float(), nullable=False),
        sa.Column("started", sa.Float(), nullable=True),
        sa.Column("finished", sa.Float(), nullable=True),
        sa.Column("deadline", sa.BigInteger(), nullable=False),
        sa.Column("arguments", TEXT, nullable=False),
        sa.Column("result", TEXT, nullable=False),
        sa.Column("error", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("cause", TEXT, nullable=False),
        sa.CheckConstraint("(state = 'running') = (owner <> '')", name=op.f("ck_job_owner")),
        sa.CheckConstraint("attempts >= 0 AND token >= attempts", name=op.f("ck_job_attempts")),
        sa.ForeignKeyConstraint(["org_id"], ["org.id"], name=op.f("fk_job_org_id")),
        sa.ForeignKeyConstraint(["request_id"], ["request.id"], name=op.f("fk_job_request_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job")),
        sa.UniqueConstraint("request_id", "key", name=op.f("uq_job_request_id_key")),
    )
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_job_org_id"), ["org_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_job_request_id"), ["request_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_job_state"), ["state"], unique=False)

    with op.batch_alter_table("request", schema=None) as batch_op:
        batch_op.add_column(sa.Column("marks", sa.BigInteger(), nullable=False, server_default="0"))
        batch_op.add_column(sa.Column("cause", TEXT, nullable=False, server_default=""))
    # The defaults were for the rows that are there already.
    with op.batch_alter_table("request", schema=None) as batch_op:
        batch_op.alter_column("marks", server_default=None, existing_type=sa.BigInteger())
        batch_op.alter_column("cause", server_default=None, existing_type=TEXT)


def downgrade() -> None:
    """Change them back."""
    with op.batch_alter_table("request", schema=None) as batch_op:
        batch_op.drop_column("cause")
        batch_op.drop_column("marks")

    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_job_state"))
        batch_op.drop_index(batch_op.f("ix_job_request_id"))
        batch_op.drop_index(batch_op.f("ix_job_org_id"))

    op.drop_table("job")
    op.drop_table("worker")
