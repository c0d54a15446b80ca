"""Grants at work: given, listed, and asked at every point of use; deny by default.

A use is checked in the transaction that makes it, so what was withdrawn before that transaction is
refused in it. Each use and each refusal is logged once for each order, recipient and act.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from clearinghouse import consent
from clearinghouse.canonical import digest
from clearinghouse.consent import DEVELOPERS, Act, Grant, Use
from clearinghouse.errors import InputError, NoGrantError, NotFoundError, RefusedError
from clearinghouse.ids import new_id
from clearinghouse.messages.consent import GiveGrant, GrantList, GrantView, UseView
from clearinghouse.messages.deliveries import Recipient
from clearinghouse.rounds.desk import Desk
from clearinghouse.rounds.levels import read_schema
from clearinghouse.schema import Schema
from clearinghouse.store.grants import UseRecord
from clearinghouse.store.records import Order, Org, Request, SchemaRecord, Source, Summary
from clearinghouse.store.store import Tx

_BEFORE_ORDERS = ("intake", "match", "clear")
MOST_SECONDS = 10 * 366 * 86400
"""A grant lasts ten years at most: consent that nobody can remember is none."""


def columns_of(schema: Schema) -> tuple[str, ...]:
    """Columns of a delivered record; rows are committed whole, so it is all but patients' ids."""
    return (*(column.name for column in schema.columns), schema.label.name)


def give(tx: Tx, desk: Desk, caller: Org, message: GiveGrant) -> GrantView:
    """Store a grant of a source's owner.

    Raises:
        NotFoundError: The source is not the caller's, or sender or recipient is unknown.
        RefusedError: The source was withdrawn.
        InputError: Columns, recipient or expiry do not fit.
    """
    source = tx.access.own_source(message.source_id, caller.id)
    if source.withdrawn:
        raise RefusedError(f"source {source.id} was withdrawn; nothing can be granted any more")
    _check(tx, source, message, desk.clock.now())
    grant = Grant(
        new_id("grt"),
        source.id,
        message.sender or caller.id,
        message.recipient,
        tuple(sorted(message.attributes)),
        message.purpose,
        message.expires,
    )
    tx.grants.add(grant, int(desk.clock.now()))
    objects = {"grant": grant.id, "source": source.id, "owner": caller.id, "sender": grant.sender}
    if grant.recipient != DEVELOPERS:
        objects["recipient"] = grant.recipient
    desk.record(
        tx,
        "grant.given",
        caller,
        objects=objects,
        hashes=_terms(grant.attributes, grant.purpose),
        amounts={"expires": grant.expires},
    )
    return view(tx, grant, caller.id, ())


def _check(tx: Tx, source: Source, message: GiveGrant, now: float) -> None:
    schema = read_schema(tx.cohorts.schema(source.schema_id))
    unknown = sorted(set(message.attributes) - set(columns_of(schema)))
    if unknown or len(set(message.attributes)) < len(message.attributes):
        raise InputError(
            f"attributes must be columns of the schema, each once: {', '.join(columns_of(schema))}"
        )
    if not now < message.expires <= now + MOST_SECONDS:
        raise InputError("expires must be in the future, at most ten years from now")
    for org_id in {message.sender, message.recipient} - {None, DEVELOPERS}:
        org = tx.parties.get(str(org_id))
        if org_id == message.recipient and org.role != "developer":
            raise InputError(f"{org.words} is no developer; records go to developers only")


def _terms(attributes: Sequence[str], purpose: str) -> dict[str, str]:
    """The part of a grant or a use that the log holds as hashes: it has no room for words."""
    return {"attributes": digest(sorted(attributes)), "purpose": digest(purpose)}


# ---------------------------------------------------------------- reading


def own_or_named(tx: Tx, grant_id: str, org_id: str) -> Grant:
    """A grant that an organisation gave or that names it.

    Raises:
        NotFoundError: It did not, and is not named; or there is none.
    """
    grant = tx.grants.get(grant_id)
    owner = tx.cohorts.source(grant.source_id).org_id
    if org_id not in (owner, grant.sender, grant.recipient):
        raise NotFoundError(f"no grant {grant_id}")
    return grant


def view(tx: Tx, grant: Grant, org_id: str, uses: Sequence[UseRecord]) -> GrantView:
    """A grant with its uses, as an organisation may see them: the owner all, others their own."""
    owner = tx.cohorts.source(grant.source_id).org_id
    seen = [use for use in uses if use.grant_id == grant.id and org_id in (owner, use.org_id)]
    return GrantView(
        id=grant.id,
        source_id=grant.source_id,
        owner=owner,
        sender=grant.sender,
        recipient=grant.recipient,
        attributes=list(grant.attributes),
        purpose=grant.purpose,  # type: ignore[arg-type]
        given=tx.grants.given(grant.id),
        expires=grant.expires,
        withdrawn=grant.withdrawn,
        uses=[_use_view(use) for use in seen],
    )


def one(tx: Tx, grant_id: str, org_id: str) -> GrantView:
    """A grant as one of those it concerns sees it."""
    grant = own_or_named(tx, grant_id, org_id)
    return view(tx, grant, org_id, tx.grants.uses(source_id=grant.source_id))


def listing(tx: Tx, org_id: str, source_id: str | None) -> GrantList:
    """Every grant that concerns an organisation, with what was done under it."""
    grants = [
        grant
        for grant in tx.grants.concerning(org_id)
        if source_id is None or grant.source_id == source_id
    ]
    sources = sorted({grant.source_id for grant in grants})
    uses = {source: tx.grants.uses(source_id=source) for source in sources}
    own = [source for source in sources if tx.cohorts.source(source).org_id == org_id]
    refused = [use for source in own for use in uses[source] if not use.allowed]
    return GrantList(
        grants=[view(tx, grant, org_id, uses[grant.source_id]) for grant in grants],
        refused=[_use_view(use) for use in refused],
    )


def _use_view(use: UseRecord) -> UseView:
    return UseView(
        act=use.act,
        recipient=use.org_id,
        request_id=use.request_id,
        order_id=use.order_id,
        at=use.at,
        allowed=use.allowed,
        reason=use.reason,
    )


# ---------------------------------------------------------------- before the clearing


def attributes_of(tx: Tx, request: Request) -> tuple[str, ...]:
    """Columns that a request's deliveries hold."""
    valset = tx.cohorts.valset(request.valset_id)
    return _columns(tx.cohorts.schema(valset.schema_id))


@lru_cache(maxsize=64)
def _columns(record: SchemaRecord) -> tuple[str, ...]:
    return columns_of(read_schema(record))


def admitted(tx: Tx, request: Request) -> tuple[str, ...]:
    """The request's sources that may take part: not withdrawn, with a grant for one developer.

    Expiry is judged as of the beginning of the step that matches or clears, so that the answer does
    not change while inputs are computed; every later use is checked at its own time.
    """
    names = request.terms.source_ids
    withdrawn = tx.grants.withdrawn(names)
    grants = tx.grants.of(names)
    columns = attributes_of(tx, request)
    times = [time for time in tx.requests.step_times(request.id) if time.step in _BEFORE_ORDERS]
    at = times[-1].started
    found = []
    for name in names:
        if name in withdrawn or not grants[name]:
            continue
        owner = tx.cohorts.source(name).org_id
        uses = (
            Use(name, owner, org_id, columns, request.terms.purpose, at)
            for org_id in request.terms.developer_ids
        )
        if any(not consent.mismatches(grant, use) for use in uses for grant in grants[name]):
            found.append(name)
    return tuple(found)


def summaries(tx: Tx, request: Request) -> Mapping[str, Summary]:
    """The summaries that a clearing may look at."""
    return tx.cohorts.summaries(admitted(tx, request))


# ---------------------------------------------------------------- points of use


def check(tx: Tx, request: Request, source_id: str, recipient: str, now: float) -> Grant:
    """The grant that covers sending a source's records to a recipient at this moment.

    Raises:
        NoGrantError: None does, or the source was withdrawn.
    """
    source = tx.cohorts.source(source_id)
    if source.withdrawn:
        raise NoGrantError(f"source {source.id} was withdrawn by its owner")
    if recipient not in request.terms.developer_ids:
        raise NoGrantError(f"{recipient} is no developer of request {request.id}")
    use = Use(
        source.id,
        source.org_id,
        recipient,
        attributes_of(tx, request),
        request.terms.purpose,
        now,
    )
    return consent.find(tx.grants.of([source.id])[source.id], use)


def allow(
    tx: Tx,
    desk: Desk,
    request: Request,
    order: Order,
    recipient: str,
    act: Act,
    blob: str = "",
) -> Grant | None:
    """Check a use and log it, or log its refusal; None means that it is refused."""
    now = desk.clock.now()
    made = UseRecord(order.id, recipient, act, order.source_id, request.id, None, "", int(now), "")
    try:
        grant = check(tx, request, order.source_id, recipient, now)
    except NoGrantError as error:
        record(tx, desk, request, replace(made, reason=str(error)))
        return None
    record(tx, desk, request, replace(made, grant_id=grant.id, blob=blob))
    return grant


def record(tx: Tx, desk: Desk, request: Request, use: UseRecord) -> bool:
    """Store and log a use or a refusal; False if it was there before."""
    if not tx.grants.use(use):
        return False
    objects = {
        "source": use.source_id,
        "request": use.request_id,
        "order": use.order_id,
        "recipient": use.org_id,
    }
    if use.grant_id is None:
        hashes = {"reason": digest(use.reason)}
        desk.record(tx, "use.refused", desk.org, objects=objects, hashes=hashes)
        return True
    actor = {
        "ordered": desk.org,
        "sealed": tx.parties.get(tx.cohorts.source(use.source_id).org_id),
    }.get(use.act) or tx.parties.get(use.org_id)
    desk.record(
        tx,
        f"use.{use.act}",
        actor,
        objects={**objects, "grant": use.grant_id},
        hashes=_terms(attributes_of(tx, request), request.terms.purpose),
    )
    return True


def record_passed(
    tx: Tx, desk: Desk, request: Request, use: UseRecord, actor: Org, purpose: str
) -> bool:
    """Store and log a use under a grant for onward transfer; False if it was there before."""
    if not tx.grants.use(use):
        return False
    objects = {
        "source": use.source_id,
        "request": use.request_id,
        "order": use.order_id,
        "recipient": use.org_id,
        "grant": str(use.grant_id),
    }
    hashes = _terms(attributes_of(tx, request), purpose)
    desk.record(tx, f"use.{use.act}", actor, objects=objects, hashes=hashes)
    return True


def recipients(tx: Tx, desk: Desk, request: Request, order: Order) -> list[Recipient]:
    """The developers that an order may be sealed to, by which grant; an order to nobody ends here.

    What the order would have delivered is then not paid for.
    """
    found = []
    for org_id in request.terms.developer_ids:
        grant = allow(tx, desk, request, order, org_id, "ordered")
        if grant is not None:
            found.append(_recipient(tx, org_id, grant))
    if not found:
        undo(tx, order)
    return found


def _recipient(tx: Tx, org_id: str, grant: Grant) -> Recipient:
    age = tx.parties.get(org_id).age_recipient or ""
    return Recipient(org_id=org_id, grant_id=grant.id, age_recipient=age)


def covered(tx: Tx, desk: Desk, request: Request, source_id: str) -> list[Recipient]:
    """The developers that may see something of a source's records now; nothing is logged."""
    found = []
    for org_id in request.terms.developer_ids:
        try:
            grant = check(tx, request, source_id, org_id, desk.clock.now())
        except NoGrantError:
            continue
        found.append(_recipient(tx, org_id, grant))
    return found


def undo(tx: Tx, order: Order) -> None:
    """An order that comes to nothing: it earns nothing, and who had sold breaks its promise."""
    tx.orders.delivered(order.id, None, 0)
    tx.orders.earned(order.id, 0, "undelivered" if order.offered == 1 else "")


def seal(tx: Tx, desk: Desk, request: Request, order: Order, blob: str) -> list[str]:
    """Let the developers that a grant covers now read a sealed body; their ids."""
    found = []
    ordered = {
        use.org_id
        for use in tx.grants.uses(order_id=order.id)
        if use.act == "ordered" and use.allowed
    }
    for org_id in request.terms.developer_ids:
        if org_id in ordered and allow(tx, desk, request, order, org_id, "sealed", blob):
            tx.blobs.allow(blob, org_id)
            found.append(org_id)
    return found


def order_of(tx: Tx, use: UseRecord) -> Order:
    """The order of a use."""
    return next(order for order in tx.orders.of(use.request_id) if order.id == use.order_id)
