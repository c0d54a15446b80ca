"""Commands for those who check: a receipt, a log, a schema. All of them work offline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearinghouse.cli.options import Result
from clearinghouse.errors import InputError
from clearinghouse.money import format_money

if TYPE_CHECKING:
    from clearinghouse.log.replay import Replay
    from clearinghouse.log.story import RequestStory

MAX_RECEIPT_BYTES = 4 * 2**20


def verify_file(
    file: Path, log_key: str | None, witnesses: Sequence[str] = (), quorum: int | None = None
) -> Result:
    """Verify a receipt file.

    Args:
        file: The receipt.
        log_key: Verifier key of the log, from elsewhere.
        witnesses: Verifier keys of witnesses that the reader trusts.
        quorum: How many of them must have cosigned; all of them if not given.

    Raises:
        InputError: The file cannot be read.
        VerificationError: A check failed; the message names it.
    """
    try:
        with file.open("rb") as handle:
            text = handle.read(MAX_RECEIPT_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from None
    return check_receipt(text, str(file), log_key, witnesses, quorum)


def check_receipt(
    text: bytes,
    name: str,
    log_key: str | None = None,
    witnesses: Sequence[str] = (),
    quorum: int | None = None,
) -> Result:
    """Verify the bytes of a receipt, which people know by `name`; see `verify_file`.

    Raises:
        InputError: The quorum cannot be reached by the witnesses given.
        VerificationError: A check failed; the message names it.
    """
    from clearinghouse.log.audit_draw import is_drawn
    from clearinghouse.log.receipt import parse_receipt
    from clearinghouse.log.verify import ReceiptPolicy, verify_receipt

    demanded = len(witnesses) if quorum is None else quorum
    if not 0 <= demanded <= len(witnesses):
        raise InputError(
            f"--quorum {demanded} needs as many --witness keys; {len(witnesses)} are given"
        )
    policy = ReceiptPolicy(witnesses=tuple(witnesses), quorum=demanded)
    found = verify_receipt(text, trusted_log_key=log_key, policy=policy)
    lines = [f"  {check.number}  {check.name}: {check.detail}" for check in found.checks]
    trust = (
        f"trusting the log key embedded in the receipt ({found.log_fingerprint}); "
        "give --log-key to check against a key you know"
        if found.log_key_is_embedded
        else f"log key {found.log_fingerprint}, as you gave it"
    )
    envelope = parse_receipt(text).envelope
    in_draw = is_drawn(found.claim, envelope)
    value = {
        "verified": True,
        "drawn_for_audit": in_draw,
        "checks": [{"number": c.number, "name": c.name, "detail": c.detail} for c in found.checks],
        "model_sha256": found.claim.model_sha256,
        "metrics": {
            name: {"value": metric.value, "low": metric.low, "high": metric.high}
            for name, metric in found.claim.metrics.items()
        },
        "log_fingerprint": found.log_fingerprint,
        "log_key_is_embedded": found.log_key_is_embedded,
        "cosigned_at_s": found.cosigned_at_s,
    }
    if in_draw:
        lines.append("  the draw fell on this run: its model's owner was to replay it")
    return value, "\n".join([f"{name}: verified", *lines, trust])


def audit_log(directory: Path, log_key: str | None) -> Result:
    """Verify an exported log, replay it by the market's rules, and sum what each owner released.

    Raises:
        InputError: A file is missing.
        VerificationError: A check failed; the message names it.
    """
    from clearinghouse.log.replay import verify_replay
    from clearinghouse.log.verify import verify_log_directory

    found = verify_log_directory(directory, trusted_log_key=log_key)
    told = verify_replay(found.entries)
    epsilon = {owner: format_money(spent) for owner, spent in told.epsilon_by_owner.items()}
    rho = {data: _rho(told, data) for data in told.rho_by_data}
    requests = {name: _request(story) for name, story in told.requests.items()}
    number = len(found.checks) + 1
    lines = [f"{directory}: {len(found.entries)} entries verified"]
    lines += [f"  {check.number}  {check.name}: {check.detail}" for check in found.checks]
    lines.append(f"  {number}  replay by the market's rules: {len(requests)} requests")
    lines += [f"  epsilon released by {owner}: {spent}" for owner, spent in epsilon.items()]
    lines += [f"  rho released of {data}: {item['words']}" for data, item in rho.items()]
    lines += [f"  {name}: {story['words']}" for name, story in requests.items()]
    value = {
        "verified": True,
        "entries": len(found.entries),
        "log_fingerprint": found.log_fingerprint,
        "log_key_is_embedded": found.log_key_is_embedded,
        "epsilon_by_owner": epsilon,
        "rho_by_data": rho,
        "requests": requests,
    }
    return value, "\n".join(lines)


def _rho(told: Replay, data: str) -> dict[str, str]:
    """What was taken of a validation set's zCDP lane, and what both lanes mean together."""
    from clearinghouse.noise_laws import DELTA_WORDS, epsilon_of_rho

    rho, pure = told.rho_by_data[data], told.epsilon_by_data.get(data, 0)
    meant = format_money(pure + epsilon_of_rho(rho))
    words = (
        f"{format_money(rho)}; with the epsilon {format_money(pure)} of its pure lane that means "
        f"epsilon {meant} at delta 1e-6 ({DELTA_WORDS})"
    )
    return {"rho": format_money(rho), "epsilon": format_money(pure), "meant": meant, "words": words}


def _request(story: RequestStory) -> dict[str, Any]:
    """A request's story as recomputed from the log, and in one line."""
    state = {None: "running", False: "done", True: "failed"}[story.failed]
    scored = sum(model is not None for model in story.runs.values())
    words = (
        f"{state}; escrow {format_money(story.escrow_micro)}, "
        f"{len(story.commitments)} asks committed, {len(story.asks)} opened, "
        f"{len(story.deliveries)} deliveries, {scored} runs released, "
        f"{len(story.receipts)} receipts, purse paid {format_money(story.purse_micro)}"
    )
    return {
        "state": state,
        "escrow": format_money(story.escrow_micro),
        "asks": {source: format_money(ask) for source, ask in story.asks.items()},
        "deliveries": len(story.deliveries),
        "runs_released": scored,
        "receipts": len(story.receipts),
        "purse_paid": format_money(story.purse_micro),
        "words": words,
    }


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
        "regions": {regions.name: list(regions.stratum_names()) for regions in schema.regions},
    }
    words = (
        f"{file}: schema '{schema.name}', {len(schema.columns)} columns, "
        f"{value['features']} encrypted features, {len(schema.strata)} strata levels"
    )
    for name, regions in value["regions"].items():
        words += f"\n{name}: {len(regions)} regions of a public reference"
        words += "".join(f"\n  {region}" for region in regions)
    if table is not None:
        rows = read_table(table, schema)
        value["table"] = {"rows": rows.n, "warnings": list(rows.warnings)}
        words += f"\n{table}: {rows.n} rows obey it"
        words += "".join(f"\n  note: {warning}" for warning in rows.warnings)
    return value, words
