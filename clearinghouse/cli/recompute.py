"""A finished request computed again from the log and what its participants may read."""

import hashlib
from collections.abc import Mapping
from typing import Any

from clearinghouse.canonical import canonical_bytes, digest
from clearinghouse.cli.options import Result
from clearinghouse.cli.profile import Session, pick_request
from clearinghouse.client.transport import Transport
from clearinghouse.errors import InputError, RefusedError
from clearinghouse.messages.intake import RequestView, SchemaView, SummaryView, ValsetView
from clearinghouse.messages.results import (
    CheckpointView,
    ClearingView,
    LogView,
    StatementView,
    TargetView,
)
from clearinghouse.schema import Schema

PAGE = 500


def run(session: Session, request_id: str | None, log_key: str | None) -> Result:
    """Recompute clearing, payments and prices of a request, bit for bit.

    Raises:
        InputError: The solver is not installed here.
        RefusedError: The request is not done.
        VerificationError: Something differs.
    """
    session.org_id()
    wanted = pick_request(session.keystore, request_id)
    checks = recomputed(session.transport, wanted, log_key)
    value = {
        "request_id": wanted,
        "recomputed": True,
        "checks": [{"name": name, "detail": detail} for name, detail in checks],
    }
    lines = [f"  {number}  {name}: {text}" for number, (name, text) in enumerate(checks, start=1)]
    return value, "\n".join([f"{wanted}: computed again, everything is the same", *lines])


def recomputed(
    transport: Transport, request_id: str, log_key: str | None = None
) -> list[tuple[str, str]]:
    """Fetch everything that a participant may read and recompute it; see `run`."""
    try:
        from clearinghouse.rounds.recompute import Published, recompute
        from clearinghouse.store.records import Summary
    except ImportError as error:
        raise InputError(
            f"recomputing needs the solver ({error.name} is missing). "
            "Install eval-clearinghouse[server]"
        ) from None
    base = f"/requests/{request_id}"
    view = transport.get(base, RequestView)
    if view.state != "done":
        raise RefusedError(f"{request_id} is {view.state}, and only what is done is recomputed")
    valset = transport.get(f"/valsets/{view.terms.valset_id}", ValsetView)
    schema = transport.get(f"/schemas/{valset.schema_id}", SchemaView)
    summaries: Mapping[str, Summary] = {
        name: Summary(
            name,
            tuple(release.level),
            tuple(release.counts),
            release.epsilon_micro,
            _release_digest(release),
        )
        for name in view.terms.source_ids
        for release in [transport.get(f"/sources/{name}/summary", SummaryView)]
    }
    return recompute(
        Published(
            request_id,
            view.terms,
            Schema.from_dict(schema.body),
            transport.get(f"{base}/target", TargetView),
            transport.get(f"{base}/clearing", ClearingView),
            transport.get_text(f"{base}/certificate"),
            transport.get_text(f"{base}/prices"),
            transport.get(f"{base}/statement", StatementView),
            summaries,
            _log(transport, log_key),
        )
    )


def _log(transport: Transport, log_key: str | None) -> Any:
    """The whole log, once its entries hash to the signed head."""
    from clearinghouse.log import merkle
    from clearinghouse.log.verify import verify_entries

    entries: list[str] = []
    while True:
        page = transport.get("/log/entries", LogView, query=f"start={len(entries)}&limit={PAGE}")
        entries.extend(page.entries)
        if len(entries) >= page.size or not page.entries:
            break
    head = transport.get("/log/checkpoint", CheckpointView)
    lines = "".join(entry + "\n" for entry in entries).encode()
    leaves = "".join(merkle.leaf_hash(entry.encode()).hex() + "\n" for entry in entries)
    key = log_key or head.vkey
    return verify_entries(lines, leaves.encode(), head.checkpoint.encode(), key).entries


def _release_digest(release: SummaryView) -> str:
    """What the log must hold of a release: its salted commitment."""
    body = release.model_dump(mode="json", exclude={"salt"})
    if release.salt is None:
        return digest(body)
    return hashlib.sha256(bytes.fromhex(release.salt) + canonical_bytes(body)).hexdigest()
