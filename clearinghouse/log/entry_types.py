"""Every entry type that there is: its step, its required fields, and who alone may write it."""

from collections.abc import Mapping
from dataclasses import dataclass

from clearinghouse.ids import Noun


@dataclass(frozen=True, slots=True)
class EntryType:
    """What an entry of one type must carry."""

    step: str
    objects: tuple[str, ...]
    hashes: tuple[str, ...] = ()
    amounts: tuple[str, ...] = ()
    commit: bool = False
    """Whether it is about something committed: required if true, absent otherwise."""


_RELEASE = ("epsilon_micro",)
_USE = ("grant", "source", "request", "order", "recipient")
_TERMS = ("attributes", "purpose")

CONSENT_TYPES: Mapping[str, EntryType] = {
    "grant.given": EntryType(
        "intake", ("grant", "source", "owner", "sender"), _TERMS, ("expires",)
    ),
    "grant.withdrawn": EntryType("intake", ("grant", "source", "owner")),
    "source.withdrawn": EntryType("intake", ("source", "owner")),
    "source.erased": EntryType("intake", ("source", "owner")),
    "use.ordered": EntryType("deliver", _USE, _TERMS),
    "use.sealed": EntryType("deliver", _USE, _TERMS),
    "use.read": EntryType("deliver", _USE, _TERMS),
    "use.passed": EntryType("deliver", _USE, _TERMS),
    "use.trained": EntryType("score", _USE, _TERMS),
    "use.refused": EntryType("deliver", ("source", "request", "order", "recipient"), ("reason",)),
    "deletion.confirmed": EntryType("deliver", ("request", "source"), (), ("records",)),
    "model.flagged": EntryType("score", ("request", "source", "model")),
    "prices.revised": EntryType("settle", ("request",), ("prices",)),
    "request.erased": EntryType("settle", ("request",), (), ("blobs",)),
}
"""Grants, what was done under them, and what was taken back."""
_ORDER = ("request", "order", "delivery", "source")
_MOVED = ("paid_micro", "returned_micro", "upheld")

ENTRY_TYPES: Mapping[str, EntryType] = {
    "org.registered": EntryType("intake", ("org",), ("public_key",)),
    "key.added": EntryType("intake", ("org", "key"), ("public_key",)),
    "key.revoked": EntryType("intake", ("org", "key")),
    "source.registered": EntryType("intake", ("source", "owner")),
    "size.released": EntryType("intake", ("owner",), ("release",), _RELEASE),
    "summary.released": EntryType("intake", ("source", "owner"), ("release",), _RELEASE),
    "valset.sealed": EntryType("intake", ("valset", "owner"), ("manifest",), commit=True),
    "model.submitted": EntryType("intake", ("model", "owner"), ("model",)),
    "bid.committed": EntryType("score", ("request", "model", "owner"), commit=True),
    "bid.revealed": EntryType("score", ("request", "model", "owner"), ("salt",), ("ask",)),
    "request.opened": EntryType("match", ("request", "valset", "owner"), ("terms",)),
    "checks.begun": EntryType("match", ("request", "valset", "owner"), ("seed",)),
    "run.begun": EntryType("match", ("request", "run", "valset", "owner"), ("seed", "nonce")),
    "target.released": EntryType("match", ("request", "owner"), ("release",), _RELEASE),
    "inputs.frozen": EntryType("clear", ("request",), ("inputs",)),
    "ask.committed": EntryType("clear", ("request", "source"), commit=True),
    "ask.revealed": EntryType("clear", ("request", "source"), ("salt",), ("ask",)),
    "clearing.decided": EntryType("clear", ("request",), ("inputs", "allocation")),
    "delivery.sealed": EntryType("deliver", ("request", "source", "delivery"), ("blob",)),
    "order.offered": EntryType("deliver", ("request",), ("orders",), ("units", "orders")),
    "order.repriced": EntryType("deliver", _ORDER, (), ("payment_micro", "raised_micro")),
    "order.settled": EntryType(
        "deliver",
        _ORDER,
        (),
        ("units", "real", "claim_micro", "bound_micro", "earned_micro"),
    ),
    "order.frozen": EntryType("deliver", _ORDER, ("findings",)),
    "deposit.settled": EntryType(
        "settle", ("request", "source"), (), ("returned_micro", "forfeited_micro")
    ),
    "delivery.received": EntryType("deliver", ("request", "delivery"), ("blob",)),
    "run.released": EntryType(
        "score", ("run", "model", "valset", "owner"), ("release", "transcript"), _RELEASE
    ),
    "receipt.issued": EntryType("score", ("receipt",), ("envelope",)),
    "run.audited": EntryType(
        "score", ("request", "run", "model", "owner"), ("verdict",), ("reproduced",)
    ),
    "award.decided": EntryType("settle", ("request",), ("award",)),
    "statement.settled": EntryType("settle", ("request",), ("statement",)),
    "request.closed": EntryType("settle", ("request",)),
    **CONSENT_TYPES,
    "dispute.opened": EntryType(
        "settle", ("dispute", "request", "opener", "respondent"), ("claim",), ("answer_by",)
    ),
    "dispute.answered": EntryType("settle", ("dispute", "request"), ("answer",), ("ruling_by",)),
    "dispute.resolved": EntryType("settle", ("dispute", "request"), ("ruling",), _MOVED),
    "dispute.expired": EntryType("settle", ("dispute", "request"), ("ruling",), _MOVED),
}

BY_OPERATOR = {
    "checks.begun",
    "run.begun",
    "target.released",
    "inputs.frozen",
    "clearing.decided",
    "order.offered",
    "order.repriced",
    "order.settled",
    "order.frozen",
    "deposit.settled",
    "run.released",
    "receipt.issued",
    "award.decided",
    "statement.settled",
    "request.closed",
}
"""What only the operator, the log's first organisation, may decide."""

BY_OWNER = {
    "source.registered",
    "size.released",
    "summary.released",
    "valset.sealed",
    "model.submitted",
    "bid.committed",
    "bid.revealed",
    "request.opened",
    "run.audited",
}
"""What only the owner that it names may do."""

# Nouns whose ids these names must hold wherever they occur.
OBJECT_NOUNS: Mapping[str, Noun] = {
    "org": "org",
    "owner": "org",
    "opener": "org",
    "respondent": "org",
    "dispute": "dsp",
    "key": "key",
    "source": "src",
    "valset": "val",
    "model": "mod",
    "request": "req",
    "delivery": "dlv",
    "order": "ord",
    "run": "run",
    "receipt": "rcp",
    "release": "rel",
    "grant": "grt",
    "schema": "sch",
    "sender": "org",
    "recipient": "org",
}


def is_release(entry_type: str) -> bool:
    """Whether entries of this type spend epsilon of their `owner`."""
    return ENTRY_TYPES[entry_type].amounts == _RELEASE
