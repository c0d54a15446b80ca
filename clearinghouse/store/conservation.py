"""What the database itself forbids: money that appears, vanishes, or is written anew.

A transfer keeps the sum of its postings, and that sum must be the one value of the table `zero`
when a transaction commits: a foreign key that is checked at the end, the one kind of rule that
both databases check there. Postings are only ever added. Balances and sums are made by the
database as postings come, and nothing else may be written there.
"""

from typing import Any

from sqlalchemy import DDL, Table, event

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


def attach(zero: Table, last: Table) -> None:
    """Make the rules together with the tables.

    Args:
        zero: Gets its one row.
        last: The table that is made after all that the rules name.
    """
    event.listen(zero, "after_create", _ddl("INSERT INTO zero (value) VALUES (0)"))
    for dialect, statements in (("sqlite", SQLITE), ("postgresql", POSTGRESQL)):
        for statement in statements:
            rule = _ddl(statement.strip().replace("%", "%%"))
            event.listen(last, "after_create", rule.execute_if(dialect=dialect))


def _ddl(text: str) -> Any:
    return DDL(text)  # type: ignore[no-untyped-call]
