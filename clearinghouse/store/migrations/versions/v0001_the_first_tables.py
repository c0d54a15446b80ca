"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Change the tables."""
    op.create_table(
        "account",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("balance_micro", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "balance_micro >= 0 OR substr(name, 1, 9) = 'external:'",
            name=op.f("ck_account_not_overdrawn"),
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_account")),
    )
    op.create_table(
        "blob",
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("size >= 0", name=op.f("ck_blob_size")),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_blob")),
    )
    op.create_table(
        "checkpoint",
        sa.Column("size", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("note", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("size", name=op.f("pk_checkpoint")),
    )
    op.create_table(
        "entry",
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_entry")),
    )
    op.create_table(
        "meta",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("value", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_meta")),
    )
    op.create_table(
        "node",
        sa.Column("level", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("level", "position", name=op.f("pk_node")),
    )
    op.create_table(
        "nonce",
        sa.Column("key_id", TEXT, nullable=False),
        sa.Column("nonce", TEXT, nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key_id", "nonce", name=op.f("pk_nonce")),
    )
    with op.batch_alter_table("nonce", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_nonce_expires"), ["expires"], unique=False)

    op.create_table(
        "org",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("role", TEXT, nullable=False),
        sa.Column("key_id", TEXT, nullable=False),
        sa.Column("public_key", TEXT, nullable=False),
        sa.Column("age_recipient", TEXT, nullable=True),
        sa.Column("suspended", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_org")),
        sa.UniqueConstraint("key_id", name=op.f("uq_org_key_id")),
    )
    op.create_table(
        "reply",
        sa.Column("org_id", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("body", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("org_id", "key", name=op.f("pk_reply")),
    )
    op.create_table(
        "schema",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("body", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schema")),
        sa.UniqueConstraint("digest", name=op.f("uq_schema_digest")),
    )
    op.create_table(
        "blob_access",
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("org_id", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["digest"], ["blob.digest"], name=op.f("fk_blob_access_digest")),
        sa.ForeignKeyConstraint(["org_id"], ["org.id"], name=op.f("fk_blob_access_org_id")),
        sa.PrimaryKeyConstraint("digest", "org_id", name=op.f("pk_blob_access")),
    )
    op.create_table(
        "source",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("org_id", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("schema_id", TEXT, nullable=False),
        sa.Column("size_class", sa.BigInteger(), nullable=False),
        sa.Column("rows_root", TEXT, nullable=False),
        sa.Column("leaves", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["org_id"], ["org.id"], name=op.f("fk_source_org_id")),
        sa.ForeignKeyConstraint(["schema_id"], ["schema.id"], name=op.f("fk_source_schema_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_source")),
    )
    with op.batch_alter_table("source", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_source_org_id"), ["org_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_source_schema_id"), ["schema_id"], unique=False)

    op.create_table(
        "valset",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("org_id", TEXT, nullable=False),
        sa.Column("schema_id", TEXT, nullable=False),
        sa.Column("body", TEXT, nullable=False),
        sa.Column("seed", TEXT, nullable=False),
        sa.Column("verdict", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["org_id"], ["org.id"], name=op.f("fk_valset_org_id")),
        sa.ForeignKeyConstraint(["schema_id"], ["schema.id"], name=op.f("fk_valset_schema_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_valset")),
    )
    with op.batch_alter_table("valset", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_valset_org_id"), ["org_id"], unique=False)

    op.create_table(
        "request",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("org_id", TEXT, nullable=False),
        sa.Column("valset_id", TEXT, nullable=False),
        sa.Column("terms", TEXT, nullable=False),
        sa.Column("terms_digest", TEXT, nullable=False),
        sa.Column("step", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("due", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["org_id"], ["org.id"], name=op.f("fk_request_org_id")),
        sa.ForeignKeyConstraint(["valset_id"], ["valset.id"], name=op.f("fk_request_valset_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_request")),
    )
    with op.batch_alter_table("request", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_request_due"), ["due"], unique=False)
        batch_op.create_index(batch_op.f("ix_request_org_id"), ["org_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_request_state"), ["state"], unique=False)

    op.create_table(
        "summary",
        sa.Column("source_id", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("level", TEXT, nullable=False),
        sa.Column("counts", TEXT, nullable=False),
        sa.Column("epsilon_micro", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("epsilon_micro > 0", name=op.f("ck_summary_epsilon_spent")),
        sa.ForeignKeyConstraint(["source_id"], ["source.id"], name=op.f("fk_summary_source_id")),
        sa.PrimaryKeyConstraint("source_id", name=op.f("pk_summary")),
    )
    op.create_table(
        "ask",
        sa.Column("request_id", TEXT, nullable=False),
        sa.Column("source_id", TEXT, nullable=False),
        sa.Column("commitment", TEXT, nullable=False),
        sa.Column("ask_micro", sa.BigInteger(), nullable=True),
        sa.Column("salt", TEXT, nullable=True),
        sa.CheckConstraint("ask_micro IS NULL OR ask_micro >= 0", name=op.f("ck_ask_ask")),
        sa.ForeignKeyConstraint(["request_id"], ["request.id"], name=op.f("fk_ask_request_id")),
        sa.ForeignKeyConstraint(["source_id"], ["source.id"], name=op.f("fk_ask_source_id")),
        sa.PrimaryKeyConstraint("request_id", "source_id", name=op.f("pk_ask")),
    )
    op.create_table(
        "document",
        sa.Column("request_id", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("body", TEXT, nullable=False),
        sa.ForeignKeyConstraint(
            ["request_id"], ["request.id"], name=op.f("fk_document_request_id")
        ),
        sa.PrimaryKeyConstraint("request_id", "kind", name=op.f("pk_document")),
    )
    op.create_table(
        "message",
        sa.Column("request_id", TEXT, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("run_id", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["request_id"], ["request.id"], name=op.f("fk_message_request_id")),
        sa.PrimaryKeyConstraint("request_id", "position", name=op.f("pk_message")),
    )
    with op.batch_alter_table("message", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_message_run_id"), ["run_id"], unique=False)

    op.create_table(
        "orders",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("request_id", TEXT, nullable=False),
        sa.Column("source_id", TEXT, nullable=False),
        sa.Column("quota", TEXT, nullable=False),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.Column("payment_micro", sa.BigInteger(), nullable=False),
        sa.Column("delivery_id", TEXT, nullable=False),
        sa.Column("sealed_blob", TEXT, nullable=True),
        sa.Column("real", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("payment_micro >= 0", name=op.f("ck_orders_payment")),
        sa.CheckConstraint(
            "real IS NULL OR (real >= 0 AND real <= units)", name=op.f("ck_orders_real")
        ),
        sa.ForeignKeyConstraint(["request_id"], ["request.id"], name=op.f("fk_orders_request_id")),
        sa.ForeignKeyConstraint(["source_id"], ["source.id"], name=op.f("fk_orders_source_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_orders")),
    )
    with op.batch_alter_table("orders", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_orders_request_id"), ["request_id"], unique=False)

    op.create_table(
        "party",
        sa.Column("request_id", TEXT, nullable=False),
        sa.Column("org_id", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["org_id"], ["org.id"], name=op.f("fk_party_org_id")),
        sa.ForeignKeyConstraint(["request_id"], ["request.id"], name=op.f("fk_party_request_id")),
        sa.PrimaryKeyConstraint("request_id", "org_id", name=op.f("pk_party")),
    )
    op.create_table(
        "posting",
        sa.Column("transfer", TEXT, nullable=False),
        sa.Column("account", TEXT, nullable=False),
        sa.Column("request_id", TEXT, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("amount_micro", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("amount_micro <> 0", name=op.f("ck_posting_moves")),
        sa.ForeignKeyConstraint(["account"], ["account.name"], name=op.f("fk_posting_account")),
        sa.ForeignKeyConstraint(["request_id"], ["request.id"], name=op.f("fk_posting_request_id")),
        sa.PrimaryKeyConstraint("transfer", "account", name=op.f("pk_posting")),
    )
    with op.batch_alter_table("posting", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_posting_request_id"), ["request_id"], unique=False)

    op.create_table(
        "receipt",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("request_id", TEXT, nullable=False),
        sa.Column("run_id", TEXT, nullable=False),
        sa.Column("body", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["request_id"], ["request.id"], name=op.f("fk_receipt_request_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_receipt")),
        sa.UniqueConstraint("run_id", name=op.f("uq_receipt_run_id")),
    )
    with op.batch_alter_table("receipt", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_receipt_request_id"), ["request_id"], unique=False)

    op.create_table(
        "run",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("request_id", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("seed", TEXT, nullable=False),
        sa.Column("nonce", TEXT, nullable=False),
        sa.Column("model_id", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("result", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["request_id"], ["request.id"], name=op.f("fk_run_request_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_run")),
    )
    with op.batch_alter_table("run", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_run_request_id"), ["request_id"], unique=False)

    op.create_table(
        "step",
        sa.Column("request_id", TEXT, nullable=False),
        sa.Column("step", TEXT, nullable=False),
        sa.Column("started", sa.Float(), nullable=False),
        sa.Column("finished", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["request_id"], ["request.id"], name=op.f("fk_step_request_id")),
        sa.PrimaryKeyConstraint("request_id", "step", name=op.f("pk_step")),
    )
    op.create_table(
        "task",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("request_id", TEXT, nullable=False),
        sa.Column("org_id", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("subject", TEXT, nullable=False),
        sa.Column("task", TEXT, nullable=False),
        sa.Column("deadline", sa.BigInteger(), nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("answer", TEXT, nullable=True),
        sa.Column("reason", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["org_id"], ["org.id"], name=op.f("fk_task_org_id")),
        sa.ForeignKeyConstraint(["request_id"], ["request.id"], name=op.f("fk_task_request_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_task")),
        sa.UniqueConstraint(
            "request_id",
            "kind",
            "subject",
            "org_id",
            name=op.f("uq_task_request_id_kind_subject_org_id"),
        ),
    )
    with op.batch_alter_table("task", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_task_org_id"), ["org_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_task_request_id"), ["request_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_task_state"), ["state"], unique=False)


def downgrade() -> None:
    """Change them back."""
    with op.batch_alter_table("task", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_task_state"))
        batch_op.drop_index(batch_op.f("ix_task_request_id"))
        batch_op.drop_index(batch_op.f("ix_task_org_id"))

    op.drop_table("task")
    op.drop_table("step")
    with op.batch_alter_table("run", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_run_request_id"))

    op.drop_table("run")
    with op.batch_alter_table("receipt", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_receipt_request_id"))

    op.drop_table("receipt")
    with op.batch_alter_table("posting", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_posting_request_id"))

    op.drop_table("posting")
    op.drop_table("party")
    with op.batch_alter_table("orders", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_orders_request_id"))

    op.drop_table("orders")
    with op.batch_alter_table("message", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_message_run_id"))

    op.drop_table("message")
    op.drop_table("document")
    op.drop_table("ask")
    op.drop_table("summary")
    with op.batch_alter_table("request", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_request_state"))
        batch_op.drop_index(batch_op.f("ix_request_org_id"))
        batch_op.drop_index(batch_op.f("ix_request_due"))

    op.drop_table("request")
    with op.batch_alter_table("valset", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_valset_org_id"))

    op.drop_table("valset")
    with op.batch_alter_table("source", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_source_schema_id"))
        batch_op.drop_index(batch_op.f("ix_source_org_id"))

    op.drop_table("source")
    op.drop_table("blob_access")
    op.drop_table("schema")
    op.drop_table("reply")
    op.drop_table("org")
    with op.batch_alter_table("nonce", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_nonce_expires"))

    op.drop_table("nonce")
    op.drop_table("node")
    op.drop_table("meta")
    op.drop_table("entry")
    op.drop_table("checkpoint")
    op.drop_table("blob")
    op.drop_table("account")
