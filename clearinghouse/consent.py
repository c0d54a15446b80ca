"""Consent in words a machine can check: grants, and whether one of them covers a use.

A grant names, as contextual integrity asks (Nissenbaum 2004), who sends what about whom to whom,
for what, and until when. Nothing is allowed that no grant covers. The same function decides at
every point of use: on the server, on the provider's own machine, and when a log is replayed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from clearinghouse.errors import NoGrantError

Purpose = Literal["train models", "train models for care", "train models for research"]
"""What delivered records may be for. The list is part of the market's terms; nothing else is."""

PURPOSES: tuple[Purpose, ...] = get_args(Purpose)

PURPOSE_WORDS: Mapping[str, str] = {
    "train models": "models of any kind, also ones that are sold on",
    "train models for care": "models that the hospital which asked uses for its own patients",
    "train models for research": "models that are published and not sold",
}

DEVELOPERS = "developers"
"""The one class of recipients: every developer that a request for the purpose admits."""

DISCLOSURE = (
    "Delivered rows are a disclosure: whoever the grant names reads them in clear, and no epsilon "
    "protects them. Only the published counts are under differential privacy."
)
"""What a provider is told before it gives a grant."""

Act = Literal["ordered", "sealed", "read", "passed", "trained"]
"""The points of use, in order."""


@dataclass(frozen=True, slots=True)
class Grant:
    """One permission.

    Attributes:
        id: Its id.
        source_id: About whom: the patients of this source.
        sender: The organisation that may send; the source's owner, unless somebody else was
            granted to pass records on.
        recipient: The organisation that may receive, or `DEVELOPERS`.
        attributes: Columns that may be sent.
        purpose: What for.
        expires: Seconds since 1970; from then on it covers nothing.
        withdrawn: When it was withdrawn, or None.
    """

    id: str
    source_id: str
    sender: str
    recipient: str
    attributes: tuple[str, ...]
    purpose: str
    expires: int
    withdrawn: int | None = None


@dataclass(frozen=True, slots=True)
class Use:
    """What somebody is about to do with records.

    Attributes:
        source_id: Whose patients' records.
        sender: Who sends them.
        recipient: Who gets or has them: a developer that the request admits.
        attributes: Columns.
        purpose: What for.
        at: Seconds since 1970.
    """

    source_id: str
    sender: str
    recipient: str
    attributes: tuple[str, ...]
    purpose: str
    at: float


def is_within(purpose: str, allowed: str) -> bool:
    """Whether a purpose is the allowed one or a narrower one of the list."""
    return purpose in PURPOSES and (purpose == allowed or purpose.startswith(f"{allowed} for "))


def mismatches(grant: Grant, use: Use) -> tuple[str, ...]:
    """Why a grant does not cover a use; empty if it does."""
    found = []
    if grant.source_id != use.source_id:
        found.append(f"it is about {grant.source_id}, not {use.source_id}")
    if grant.sender != use.sender:
        found.append(f"it lets {grant.sender} send, not {use.sender}")
    if grant.recipient not in (use.recipient, DEVELOPERS):
        found.append(f"it names {grant.recipient}, not {use.recipient}")
    missing = sorted(set(use.attributes) - set(grant.attributes))
    if missing:
        found.append(f"it leaves out {', '.join(missing)}")
    if not is_within(use.purpose, grant.purpose):
        found.append(f"it is for '{grant.purpose}', not '{use.purpose}'")
    if use.at >= grant.expires:
        found.append("it has expired")
    if grant.withdrawn is not None:
        found.append("it was withdrawn")
    return tuple(found)


def find(grants: Iterable[Grant], use: Use) -> Grant:
    """The grant that covers a use; the smallest id if several do.

    Raises:
        NoGrantError: None does. The message says what is wrong with the one that comes closest.
    """
    known = sorted(grants, key=lambda grant: grant.id)
    reasons = [mismatches(grant, use) for grant in known]
    for grant, reason in zip(known, reasons, strict=True):
        if not reason:
            return grant
    raise NoGrantError(refusal(use, known, reasons))


def refusal(use: Use, known: Sequence[Grant], reasons: Sequence[tuple[str, ...]]) -> str:
    """Why none of these grants helps, in one sentence; between these parties rather than others."""
    if not known:
        return f"no grant of {use.source_id} exists, and without one nothing is delivered"

    def distance(pair: tuple[Grant, tuple[str, ...]]) -> tuple[int, bool, bool]:
        grant, reason = pair
        return (
            len(reason),
            grant.sender != use.sender,
            grant.recipient not in (use.recipient, DEVELOPERS),
        )

    grant, reason = min(zip(known, reasons, strict=True), key=distance)
    return f"no grant of {use.source_id} covers this; of {grant.id}: {'; '.join(reason)}"
