"""Finishing what withdrawals and time began: bytes leave the disk, prices are computed again.

A withdrawal commits before this runs, and from then on nobody is served. This repeats until all is
gone, also after a crash: what is still to be done is in the database.
"""

from contextlib import suppress

from clearinghouse.canonical import canonical_bytes, digest
from clearinghouse.errors import TryAgainError
from clearinghouse.failpoints import reach
from clearinghouse.messages.results import ClearingView, PriceList, TargetView
from clearinghouse.rounds import grants, pricing, uploads
from clearinghouse.rounds.desk import Desk
from clearinghouse.rounds.levels import read_schema
from clearinghouse.rounds.pricing import Closed
from clearinghouse.store.records import Request
from clearinghouse.store.store import Tx

SWEPT = "swept"
"""The document that says a finished request's ciphertexts are gone."""

DAY_S = 86400
_CIPHERTEXTS = ("valset.checks", "target.", "score.")
_DELIVERIES = ("deliver.",)


def sweep(desk: Desk) -> None:
    """Do all that there is to do."""
    erase(desk)
    with desk.store.read() as tx:
        stale = tx.erasure.stale()
    for request_id in stale:
        reprice(desk, request_id)


def soon(desk: Desk) -> None:
    """Erase right after a withdrawal; what is not possible now the runner does later."""
    with suppress(TryAgainError):
        erase(desk)


def erase(desk: Desk) -> bool:
    """Remove what was withdrawn from the disk; whether nothing of it is left."""
    with desk.store.read() as tx:
        doomed, unerased = tx.erasure.doomed(), tx.erasure.unerased()
    if unerased:
        uploads.sweep(desk)
    for name in doomed:
        with desk.store.write() as tx:
            if tx.erasure.is_doomed(name):
                desk.blobs.remove(name)
                reach("blob.removed")
                tx.erasure.removed([name])
    is_clean = not (unerased or doomed) or desk.store.scrub()
    if is_clean:
        for source_id in unerased:
            with desk.store.write() as tx:
                _erased(tx, desk, source_id)
    return is_clean


def _erased(tx: Tx, desk: Desk, source_id: str) -> None:
    found = tx.grants.withdrawal(source_id)
    if found is None or found.erased is not None:
        return  # another process was quicker
    tx.erasure.erased(source_id, int(desk.clock.now()))
    objects = {"source": source_id, "owner": tx.cohorts.source(source_id).org_id}
    desk.record(tx, "source.erased", desk.org, objects=objects)


# ---------------------------------------------------------------- prices


def reprice(desk: Desk, request_id: str) -> None:
    """Compute a settled request's indicative prices again; firm ones stay as they were paid."""
    with desk.store.read() as tx:
        request = tx.requests.get(request_id)
        closed, before = _closed(tx, request)
        left = set(tx.grants.withdrawn(request.terms.source_ids))
    now = pricing.decide(closed)
    prices = []
    for old, new in zip(before.prices, now.prices, strict=True):
        kept = old if old.status == "firm" else new
        if old.source_id in left:
            flag = "its source was withdrawn since"
        else:
            flag = "" if old.status == "firm" else "computed again: a source was withdrawn since"
        prices.append(kept.model_copy(update={"flag": flag}))
    body = canonical_bytes(before.model_copy(update={"prices": prices}).model_dump()).decode()
    with desk.store.write() as tx:
        if request_id not in tx.erasure.stale():
            return
        tx.requests.replace(request_id, "prices", body)
        tx.erasure.fresh(request_id)
        desk.record(
            tx,
            "prices.revised",
            desk.org,
            objects={"request": request_id},
            hashes={"prices": digest(body.encode())},
        )


def _closed(tx: Tx, request: Request) -> tuple[Closed, PriceList]:
    """The clearing as it was, with nothing left to sell for sources that were withdrawn."""
    body = tx.requests.document(request.id, "clearing") or ""
    valset = tx.cohorts.valset(request.valset_id)
    target = TargetView.model_validate_json(tx.requests.document(request.id, "target") or "")
    clearing = ClearingView.model_validate_json(body)
    sold = {order.source_id for order in clearing.orders if order.units}
    left = set(tx.grants.withdrawn(request.terms.source_ids)) - sold
    capped = {
        name: [0] * len(supply) if name in left else supply
        for name, supply in target.capped.items()
    }
    closed = Closed(
        request.id,
        request.terms,
        request.terms_digest,
        read_schema(tx.cohorts.schema(valset.schema_id)),
        target.model_copy(update={"capped": capped}),
        clearing,
        grants.summaries(tx, request),
        digest(body.encode()),
    )
    return closed, PriceList.model_validate_json(tx.requests.document(request.id, "prices") or "")


# ---------------------------------------------------------------- retention


def due(desk: Desk) -> tuple[str, ...]:
    """Finished requests whose ciphertexts or deliveries have been kept long enough.

    While a dispute about a request is pending, all of its evidence stays.
    """
    settings = desk.settings
    soonest = min(settings.keep_ciphertexts_days, settings.keep_deliveries_days)
    with desk.store.read() as tx:
        ended = tx.erasure.finished_before(desk.clock.now() - soonest * DAY_S)
        return tuple(
            name
            for name in ended
            if tx.requests.document(name, SWEPT) is None and not tx.disputes.pending(name)
        )


def retain(desk: Desk) -> int:
    """Erase what was kept long enough; how many blobs. Validation sets stay: they are reused."""
    return sum(_retain(desk, request_id) for request_id in due(desk))


def _retain(desk: Desk, request_id: str) -> int:
    now, settings = desk.clock.now(), desk.settings
    with desk.store.write() as tx:
        ended = max(time.finished or 0.0 for time in tx.requests.step_times(request_id))
        age_days = (now - ended) / DAY_S
        kinds: tuple[str, ...] = ()
        if age_days > settings.keep_ciphertexts_days:
            kinds += _CIPHERTEXTS
        if age_days > settings.keep_deliveries_days:
            kinds += _DELIVERIES
        in_use = tx.erasure.sealed_blobs_in_use()
        chosen = {
            message.digest
            for message in tx.requests.messages(request_id)
            if message.kind.startswith(kinds) and message.digest not in in_use
        }
        gone = tx.erasure.doom(sorted(chosen)) if kinds else 0
        if gone:
            desk.record(
                tx,
                "request.erased",
                desk.org,
                objects={"request": request_id},
                amounts={"blobs": gone},
            )
        if len(kinds) == len(_CIPHERTEXTS) + len(_DELIVERIES):
            tx.requests.keep(request_id, SWEPT, "{}")
    return gone
