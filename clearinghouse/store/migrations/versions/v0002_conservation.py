"""Transfers that the database keeps at zero; disputes, attested outcomes, price history."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

SQLITE = (
    """
CREATE TRIGGER posting_counts AFTER INSERT ON posting BEGIN
UPDATE transfer SET total_micro = total_micro + NEW.amount_micro WHERE name = NEW.transfer;
UPDATE account SET balance_micro = balance_micro + NEW.amount_micro WHERE name = NEW.account;
END
""",
    """
CREATE TRIGGER posting_stays BEFORE UPDATE ON posting BEGIN
SELECT RAISE(ABORT, 'a posting is never changed');
END
""",
    """
CREATE TRIGGER posting_is_kept BEFORE DELETE ON posting BEGIN
SELECT RAISE(ABORT, 'a posting is never removed');
END
""",
    """
CREATE TRIGGER account_begins BEFORE INSERT ON account WHEN NEW.balance_micro <> 0 BEGIN
SELECT RAISE(ABORT, 'an account begins at zero');
END
""",
    """
CREATE TRIGGER account_follows BEFORE UPDATE ON account
WHEN NEW.name <> OLD.name OR NEW.balance_micro <>
(SELECT coalesce(sum(amount_micro), 0) FROM posting WHERE account = NEW.name) BEGIN
SELECT RAISE(ABORT, 'a balance is the sum of its postings');
END
""",
    """
CREATE TRIGGER transfer_begins BEFORE INSERT ON transfer WHEN NEW.total_micro <> 0 BEGIN
SELECT RAISE(ABORT, 'a transfer begins at zero');
END
""",
    """
CREATE TRIGGER transfer_follows BEFORE UPDATE ON transfer
WHEN NEW.name <> OLD.name OR NEW.total_micro <>
(SELECT coalesce(sum(amount_micro), 0) FROM posting WHERE transfer = NEW.name) BEGIN
SELECT RAISE(ABORT, 'a transfer is the sum of its postings');
END
""",
)

POSTGRESQL = (
    """
CREATE FUNCTION posting_counts() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
UPDATE transfer SET total_micro = total_micro + NEW.amount_micro WHERE name = NEW.transfer;
UPDATE account SET balance_micro = balance_micro + NEW.amount_micro WHERE name = NEW.account;
RETURN NULL;
END $$
""",
    """
CREATE FUNCTION ledger_refuses() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
RAISE EXCEPTION USING MESSAGE = TG_ARGV[0], ERRCODE = 'integrity_constraint_violation';
END $$
""",
    """
CREATE FUNCTION account_follows() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
IF TG_OP = 'UPDATE' AND NEW.name <> OLD.name OR NEW.balance_micro <>
(SELECT coalesce(sum(amount_micro), 0) FROM posting WHERE account = NEW.name) THEN
RAISE EXCEPTION 'a balance is the sum of its postings'
USING ERRCODE = 'integrity_constraint_violation';
END IF;
RETURN NEW;
END $$
""",
    """
CREATE FUNCTION transfer_follows() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
IF TG_OP = 'UPDATE' AND NEW.name <> OLD.name OR NEW.total_micro <>
(SELECT coalesce(sum(amount_micro), 0) FROM posting WHERE transfer = NEW.name) THEN
RAISE EXCEPTION 'a transfer is the sum of its postings'
USING ERRCODE = 'integrity_constraint_violation';
END IF;
RETURN NEW;
END $$
""",
    """
CREATE TRIGGER posting_counts AFTER INSERT ON posting
FOR EACH ROW EXECUTE FUNCTION posting_counts()
""",
    """
CREATE TRIGGER posting_stays BEFORE UPDATE OR DELETE ON posting
FOR EACH ROW EXECUTE FUNCTION ledger_refuses('a posting is never changed or removed')
""",
    """
CREATE TRIGGER posting_is_kept BEFORE TRUNCATE ON posting
FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuses('a posting is never removed')
""",
    """
CREATE TRIGGER account_follows BEFORE INSERT OR UPDATE ON account
FOR EACH ROW EXECUTE FUNCTION account_follows()
""",
    """
CREATE TRIGGER transfer_follows BEFORE INSERT OR UPDATE ON transfer
FOR EACH ROW EXECUTE FUNCTION transfer_follows()
""",
)


def upgrade() -> None:
    """Change the tables."""
    op.create_table(
        "zero",
        sa.Column("value", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.CheckConstraint("value = 0", name=op.f("ck_zero_zero")),
        sa.PrimaryKeyConstraint("value", name=op.f("pk_zero")),
    )
    op.create_table(
        "transfer",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("total_micro", sa.BigInteger(), nullable=False),
        sa.Column("at_s", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["total_micro"],
            ["zero.value"],
            name=op.f("fk_transfer_total_micro"),
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_transfer")),
    )
    op.execute("INSERT INTO zero (value) VALUES (0)")
    op.execute(
        "INSERT INTO transfer (name, total_micro, at_s) "
        "SELECT transfer, sum(amount_micro), 0 FROM posting GROUP BY transfer"
    )
    op.create_table(
        "dispute",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("request_id", TEXT, nullable=False),
        sa.Column("opener_id", TEXT, nullable=False),
        sa.Column("respondent_id", TEXT, nullable=False),
        sa.Column("subject", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("remedy", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("opened_s", sa.BigInteger(), nullable=False),
        sa.Column("deadline", sa.BigInteger(), nullable=False),
        sa.Column("claim", TEXT, nullable=False),
        sa.Column("answer", TEXT, nullable=False),
        sa.Column("finding", TEXT, nullable=False),
        sa.Column("ruling", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["opener_id"], ["org.id"], name=op.f("fk_dispute_opener_id")),
        sa.ForeignKeyConstraint(["request_id"], ["request.id"], name=op.f("fk_dispute_request_id")),
        sa.ForeignKeyConstraint(
            ["respondent_id"], ["org.id"], name=op.f("fk_dispute_respondent_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dispute")),
    )
    with op.batch_alter_table("dispute", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_dispute_opener_id"), ["opener_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_dispute_request_id"), ["request_id"], unique=False)
        batch_op.create_index(
            batch_op.f("ix_dispute_respondent_id"), ["respondent_id"], unique=False
        )
        batch_op.create_index(batch_op.f("ix_dispute_state"), ["state"], unique=False)
        batch_op.create_index(batch_op.f("ix_dispute_subject"), ["subject"], unique=False)

    op.create_table(
        "outcome",
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("subject_id", TEXT, nullable=False),
        sa.Column("attester_id", TEXT, nullable=False),
        sa.Column("request_id", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("good", sa.Boolean(), nullable=False),
        sa.Column("at_s", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["attester_id"], ["org.id"], name=op.f("fk_outcome_attester_id")),
        sa.ForeignKeyConstraint(["request_id"], ["request.id"], name=op.f("fk_outcome_request_id")),
        sa.ForeignKeyConstraint(["subject_id"], ["org.id"], name=op.f("fk_outcome_subject_id")),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_outcome")),
    )
    with op.batch_alter_table("outcome", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_outcome_subject_id"), ["subject_id"], unique=False)

    op.create_table(
        "price",
        sa.Column("source_id", TEXT, nullable=False),
        sa.Column("request_id", TEXT, nullable=False),
        sa.Column("at_s", sa.BigInteger(), nullable=False),
        sa.Column("body", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["request_id"], ["request.id"], name=op.f("fk_price_request_id")),
        sa.ForeignKeyConstraint(["source_id"], ["source.id"], name=op.f("fk_price_source_id")),
        sa.PrimaryKeyConstraint("source_id", "request_id", name=op.f("pk_price")),
    )
    with op.batch_alter_table("price", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_price_at_s"), ["at_s"], unique=False)

    with op.batch_alter_table("posting", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_posting_account"), ["account"], unique=False)
        batch_op.create_foreign_key(
            batch_op.f("fk_posting_transfer"), "transfer", ["transfer"], ["name"]
        )

    for statement in POSTGRESQL if _is_postgresql() else SQLITE:
        op.execute(sa.text(statement.strip().replace(":", "\\:")))


def _is_postgresql() -> bool:
    return bool(op.get_bind().dialect.name == "postgresql")


def downgrade() -> None:
    """Change them back."""
    for statement in POSTGRESQL if _is_postgresql() else SQLITE:
        kind, name, table = _made(statement)
        if kind == "TRIGGER":
            op.execute(f"DROP TRIGGER {name}" + (f" ON {table}" if _is_postgresql() else ""))
    for statement in POSTGRESQL if _is_postgresql() else ():
        kind, name, _ = _made(statement)
        if kind == "FUNCTION":
            op.execute(f"DROP FUNCTION {name}()")
    with op.batch_alter_table("posting", schema=None) as batch_op:
        batch_op.drop_constraint(batch_op.f("fk_posting_transfer"), type_="foreignkey")
        batch_op.drop_index(batch_op.f("ix_posting_account"))

    with op.batch_alter_table("price", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_price_at_s"))

    op.drop_table("price")
    with op.batch_alter_table("outcome", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_outcome_subject_id"))

    op.drop_table("outcome")
    with op.batch_alter_table("dispute", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_dispute_subject"))
        batch_op.drop_index(batch_op.f("ix_dispute_state"))
        batch_op.drop_index(batch_op.f("ix_dispute_respondent_id"))
        batch_op.drop_index(batch_op.f("ix_dispute_request_id"))
        batch_op.drop_index(batch_op.f("ix_dispute_opener_id"))

    op.drop_table("dispute")
    op.drop_table("transfer")
    op.drop_table("zero")


def _made(statement: str) -> tuple[str, str, str]:
    """What a statement makes: TRIGGER or FUNCTION, its name, its table."""
    words = statement.split()
    table = words[words.index("ON") + 1] if words[1] == "TRIGGER" else ""
    return words[1], words[2].removesuffix("()"), table
