"""Consent as the entries of a log tell it: no use without a grant that covers it then.

| what | rule |
|---|---|
| grants | by the owner of a registered source that was not withdrawn; withdrawn once, by it |
| uses | name a grant of that source for that recipient, columns and purpose, not expired, not withdrawn, while the request is open; sealed after ordered, read after sealed, trained after read |
| passing on | by who has read it itself, under a grant that lets it send; read after that under the same |
| deliveries | are sealed for somebody who may have them; who confirms records has read them |
| after a withdrawal | nothing of the source is asked, sealed or used; it is erased once |
"""  # noqa: E501  a table row is one line

from collections.abc import Iterator
from dataclasses import dataclass

from clearinghouse.canonical import digest
from clearinghouse.clock import seconds_of
from clearinghouse.consent import PURPOSES, is_within
from clearinghouse.log.entries import Entry

Problems = Iterator[str]

AFTER_CLOSE = frozenset(
    {
        "use.read",
        "use.passed",
        "use.trained",
        "use.refused",
        "deletion.confirmed",
        "model.flagged",
        "prices.revised",
        "request.erased",
    }
)
"""Entries that name a request and may follow its end."""

CONSENT = frozenset({"grant.given", "grant.withdrawn", "source.withdrawn", "source.erased"})
"""Entries about grants and sources; the others name a request."""

USES = ("use.ordered", "use.sealed", "use.read", "use.trained")
BY_OPERATOR = frozenset(
    {
        "use.ordered",
        "use.refused",
        "source.erased",
        "model.flagged",
        "prices.revised",
        "request.erased",
    }
)
BY_OWNER = frozenset({"grant.given", "grant.withdrawn", "source.withdrawn"})

PURPOSE_OF = {digest(purpose): purpose for purpose in PURPOSES}


@dataclass(slots=True)
class _Given:
    """A grant as its entry tells it."""

    source: str
    sender: str
    recipient: str | None
    attributes: str
    purpose: str
    expires: int
    is_over: bool = False


class Consents:
    """Grants, uses and withdrawals so far; handlers report problems and take the entry as it is."""

    def __init__(self) -> None:
        self.grants: dict[str, _Given] = {}
        self.withdrawn: dict[str, int] = {}
        self.erased: set[str] = set()
        self.done: set[tuple[str, str, str, str]] = set()
        """(act, request, source, recipient) of every use."""
        self.passed: dict[tuple[str, str, str], str] = {}
        """By (request, source, recipient): who passed records on to it."""
        self.last_left = -1
        """Index of the last entry by which a source or a grant left."""

    # ------------------------------------------------------------ grants and sources

    def take(self, index: int, entry: Entry, owner: str | None) -> Problems:
        """An entry about a grant or a source; `owner` is who registered the source."""
        source = entry.objects["source"]
        if entry.type.endswith(".withdrawn"):
            self.last_left = index
        if owner is None or entry.objects["owner"] != owner:
            yield f"{source} is no registered source of {entry.objects['owner']}"
        if entry.type == "grant.given":
            yield from self._given(entry, source)
        elif entry.type == "grant.withdrawn":
            yield from self._ended(entry, source)
        elif entry.type == "source.withdrawn":
            if source in self.withdrawn:
                yield f"{source} was withdrawn at entry {self.withdrawn[source]}"
            self.withdrawn.setdefault(source, index)
        else:
            if source not in self.withdrawn:
                yield f"{source} is erased and was never withdrawn"
            if source in self.erased:
                yield f"{source} is erased already"
            self.erased.add(source)

    def _given(self, entry: Entry, source: str) -> Problems:
        grant, expires = entry.objects["grant"], entry.amounts["expires"]
        if grant in self.grants:
            yield f"{grant} was given before"
        if source in self.withdrawn:
            yield f"{source} was withdrawn at entry {self.withdrawn[source]}"
        purpose = PURPOSE_OF.get(entry.hashes["purpose"], "")
        if not purpose:
            yield f"{grant} is for a purpose that is not on the list"
        if not isinstance(expires, int) or expires <= _seconds(entry.time):
            yield f"{grant} has expired before it was given"
        self.grants.setdefault(
            grant,
            _Given(
                source,
                entry.objects["sender"],
                entry.objects.get("recipient"),
                entry.hashes["attributes"],
                purpose,
                expires if isinstance(expires, int) else 0,
            ),
        )

    def _ended(self, entry: Entry, source: str) -> Problems:
        grant = self.grants.get(entry.objects["grant"])
        if grant is None or grant.source != source:
            yield f"{entry.objects['grant']} is no grant of {source}"
            return
        if grant.is_over:
            yield f"{entry.objects['grant']} was withdrawn before"
        grant.is_over = True

    # ------------------------------------------------------------ uses

    def refused(self, entry: Entry) -> None:
        """A use that was refused."""
        objects = entry.objects
        self.done.add((entry.type, objects["request"], objects["source"], objects["recipient"]))

    def use(self, entry: Entry, owner: str | None) -> Problems:
        """A use of a source's records; `owner` is who registered the source."""
        source, recipient = entry.objects["source"], entry.objects["recipient"]
        yield from self.gone(source)
        request = entry.objects["request"]
        if entry.type == "use.passed":
            yield from self._passed(entry)
        actor = {"use.sealed": owner, "use.read": recipient, "use.trained": recipient}
        if entry.type in actor and entry.actor != actor[entry.type]:
            yield f"made by {entry.actor}, who is not the one that does this"
        grant = self.grants.get(entry.objects["grant"])
        if grant is None:
            yield f"{entry.objects['grant']} was never given: a use without a grant"
        else:
            yield from self._covered(entry, grant, owner)
        place = USES.index(entry.type) if entry.type in USES else 0
        before = USES[max(place - 1, 0)]
        if before == "use.sealed" and (request, source, recipient) in self.passed:
            before = "use.passed"
        if place and (before, request, source, recipient) not in self.done:
            yield f"{recipient} was not '{before}' before"
        self.done.add((entry.type, request, source, recipient))

    def _covered(self, entry: Entry, grant: _Given, owner: str | None) -> Problems:
        name, recipient = entry.objects["grant"], entry.objects["recipient"]
        if grant.source != entry.objects["source"]:
            yield f"{name} is about {grant.source}"
        place = (entry.objects["request"], entry.objects["source"], recipient)
        sender = self.passed.get(place, owner)
        if grant.sender != sender:
            who = "the source's owner" if sender == owner else sender
            yield f"{name} lets {grant.sender} send, not {who}"
        if grant.recipient not in (None, recipient):
            yield f"{name} names {grant.recipient}, not {recipient}"
        if grant.attributes != entry.hashes["attributes"]:
            yield f"{name} is for other columns"
        if not is_within(PURPOSE_OF.get(entry.hashes["purpose"], ""), grant.purpose):
            yield f"{name} is for another purpose"
        if _seconds(entry.time) >= grant.expires:
            yield f"{name} has expired"
        if grant.is_over:
            yield f"{name} was withdrawn before"

    def _passed(self, entry: Entry) -> Problems:
        """That who passes records on has read them itself."""
        request, source = entry.objects["request"], entry.objects["source"]
        if ("use.read", request, source, entry.actor) not in self.done:
            yield f"{entry.actor} passes on records of {source} that it never read under a grant"
        self.passed.setdefault((request, source, entry.objects["recipient"]), entry.actor)

    def gone(self, source: str) -> Problems:
        """That nothing of a withdrawn source is used."""
        if source in self.withdrawn:
            yield f"{source} was withdrawn at entry {self.withdrawn[source]}"

    def sealed(self, request: str, source: str) -> Problems:
        """That what is sealed is for somebody who may have it."""
        yield from self.gone(source)
        if not any(done[:3] == ("use.sealed", request, source) for done in self.done):
            yield f"{source} is sealed for nobody who holds a grant"

    def received(self, entry: Entry, request: str, source: str) -> Problems:
        """That who confirms records was let read them."""
        if entry.amounts.get("real") and (
            ("use.read", request, source, entry.actor) not in self.done
        ):
            yield f"{entry.actor} confirms records of {source} that it never read under a grant"

    def modelled(self, entry: Entry, request: str) -> Problems:
        """That a developer says of all it has read whether it trained on it."""
        mine = {done for done in self.done if done[1] == request and done[3] == entry.actor}
        said = {source for act, _, source, _ in mine if act in ("use.trained", "use.refused")}
        for source in sorted({source for act, _, source, _ in mine if act == "use.read"} - said):
            yield f"{entry.actor} has read {source} and does not say whether it trained on it"

    def may_freeze_again(self, asks: int, frozen_at: int) -> bool:
        """Whether inputs may be frozen again: a source or grant left since, and no ask is in."""
        return not asks and self.last_left > frozen_at


def _seconds(time: str) -> int:
    return int(seconds_of(time))
