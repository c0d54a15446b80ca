"""Commands for those who check: a receipt, a log, a schema. All of them work offline."""

from pathlib import Path
from typing import Any

from clearinghouse.cli.options import Result
from clearinghouse.errors import InputError
from clearinghouse.money import format_money

MAX_RECEIPT_BYTES = 4 * 2**20


def verify_file(file: Path, log_key: str | None) -> Result:
    """Verify a receipt file.

    Raises:
        InputError: The file cannot be read.
        VerificationError: A check failed; the message names it.
    """
    try:
        with file.open("rb") as handle:
            text = handle.read(MAX_RECEIPT_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from None
    return check_receipt(text, str(file), log_key)


def check_receipt(text: bytes, name: str, log_key: str | None = None) -> Result:
    """Verify the bytes of a receipt, which people know by `name`.

    Raises:
        VerificationError: A check failed; the message names it.
    """
    from clearinghouse.log.verify import verify_receipt

    found = verify_receipt(text, trusted_log_key=log_key)
    lines = [f"  {check.number}  {check.name}: {check.detail}" for check in found.checks]
    trust = (
        f"trusting the log key embedded in the receipt ({found.log_fingerprint}); "
        "give --log-key to check against a key you know"
        if found.log_key_is_embedded
        else f"log key {found.log_fingerprint}, as you gave it"
    )
    value = {
        "verified": True,
        "checks": [{"number": c.number, "name": c.name, "detail": c.detail} for c in found.checks],
        "model_sha256": found.claim.model_sha256,
        "metrics": {
            name: {"value": metric.value, "low": metric.low, "high": metric.high}
            for name, metric in found.claim.metrics.items()
        },
        "log_fingerprint": found.log_fingerprint,
        "log_key_is_embedded": found.log_key_is_embedded,
    }
    return value, "\n".join([f"{name}: verified", *lines, trust])


def audit_log(directory: Path, log_key: str | None) -> Result:
    """Verify an exported log and sum what each owner released.

    Raises:
        InputError: A file is missing.
        VerificationError: A check failed; the message names it.
    """
    from clearinghouse.log.verify import verify_log_directory

    found = verify_log_directory(directory, trusted_log_key=log_key)
    epsilon = {owner: format_money(spent) for owner, spent in found.epsilon_by_owner.items()}
    lines = [f"{directory}: {len(found.entries)} entries verified"]
    lines += [f"  {check.number}  {check.name}: {check.detail}" for check in found.checks]
    lines += [f"  epsilon released by {owner}: {spent}" for owner, spent in epsilon.items()]
    value = {
        "verified": True,
        "entries": len(found.entries),
        "log_fingerprint": found.log_fingerprint,
        "log_key_is_embedded": found.log_key_is_embedded,
        "epsilon_by_owner": epsilon,
    }
    return value, "\n".join(lines)


def check_schema(file: Path, table: Path | None) -> Result:
    """Check a schema, and a table against it if one is given.

    Raises:
        InputError: Either breaks its rules; the message names file, place and remedy.
    """
    from clearinghouse.features import features
    from clearinghouse.schema import load_schema
    from clearinghouse.tables import read_table

    schema = load_schema(file)
    value: dict[str, Any] = {
        "schema": schema.name,
        "digest": schema.digest(),
        "columns": [column.name for column in schema.columns],
        "features": len(features(schema)),
        "strata": [list(level) for level in schema.strata],
    }
    words = (
        f"{file}: schema '{schema.name}', {len(schema.columns)} columns, "
        f"{value['features']} encrypted features, {len(schema.strata)} strata levels"
    )
    if table is not None:
        rows = read_table(table, schema)
        value["table"] = {"rows": rows.n, "warnings": list(rows.warnings)}
        words += f"\n{table}: {rows.n} rows obey it"
        words += "".join(f"\n  note: {warning}" for warning in rows.warnings)
    return value, words
