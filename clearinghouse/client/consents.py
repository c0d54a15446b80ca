"""A provider's grants on its own machine: the last gate before records are sealed.

The server checks grants too. This check does not trust it: what this machine did not grant, or has
taken back, is not sealed whatever the server asks for.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from clearinghouse import consent
from clearinghouse.client.budget import erase_answers
from clearinghouse.client.keystore import Keystore
from clearinghouse.client.transport import Transport
from clearinghouse.consent import DEVELOPERS, Grant, Purpose, Use
from clearinghouse.errors import NoGrantError, NotFoundError
from clearinghouse.messages.consent import GiveGrant, GrantView, Withdraw, WithdrawalView
from clearinghouse.messages.deliveries import DeliverTask, ShowTask
from clearinghouse.schema import Schema

DAY_S = 86400
_GRANTS, _GONE = "grants", "withdrawn"
_WIPED = ("rows.seed",)
_WIPED_FOLDERS = ("asks", "answers", "orders", "outbox")


@dataclass(frozen=True, slots=True)
class GrantTerms:
    """What a provider allows.

    Attributes:
        recipient: An organisation's id, or the class of all developers that a request admits.
        purpose: One of the market's list.
        attributes: Columns; none means all of the schema.
        days: How long, from when it is given.
        sender: Who may send; the owner itself if None. Another one may then pass records that it
            has received on to the recipient.
    """

    recipient: str = DEVELOPERS
    purpose: Purpose = "train models"
    attributes: tuple[str, ...] = ()
    days: int = 365
    sender: str | None = None


def record_columns(schema: Schema) -> tuple[str, ...]:
    """Columns of a delivered record; patients' ids are none of them."""
    return tuple(sorted((*(column.name for column in schema.columns), schema.label.name)))


class Consents:
    """What a provider granted, kept in its folder."""

    def __init__(self, keystore: Keystore, transport: Transport, columns: Sequence[str]) -> None:
        self.keystore, self.transport, self.columns = keystore, transport, tuple(columns)

    def give_first(self, source_id: str, terms: Sequence[GrantTerms]) -> None:
        """Give the grants that come with a source, each once, whatever breaks off in between."""
        known = self._known()
        for place, item in enumerate(terms):
            key = f"{source_id}.grant.{place}"
            if key not in known["given"]:
                known["given"][key] = self._message(source_id, item).model_dump()
                self.keystore.remember(_GRANTS, known)  # the expiry is fixed before it is sent
            if key not in known["sent"]:
                self._send(key, GiveGrant.model_validate(known["given"][key]), known)

    def give(self, source_id: str, terms: GrantTerms, key: str) -> GrantView:
        """Give one more grant under an idempotency key."""
        return self._send(key, self._message(source_id, terms), self._known())

    def withdraw(self, grant_id: str) -> WithdrawalView:
        """End a grant: here first, so that nothing is sealed under it even if the server is away.

        Raises:
            NotFoundError: It was not given here.
        """
        known = self._known()
        if grant_id not in known["grants"]:
            raise NotFoundError(f"no grant {grant_id} was given from this home")
        if known["grants"][grant_id]["withdrawn"] is None:
            known["grants"][grant_id]["withdrawn"] = int(self.transport.clock.now())
            self.keystore.remember(_GRANTS, known)
        return self.transport.post(
            f"/grants/{grant_id}/withdraw",
            Withdraw(),
            WithdrawalView,
            idempotency_key=f"{grant_id}.withdraw",
        )

    def granted(self) -> tuple[Grant, ...]:
        """Every grant given from here."""
        return tuple(
            Grant(**{**item, "attributes": tuple(item["attributes"])})
            for item in self._known()["grants"].values()
        )

    # ------------------------------------------------------------ checks

    def check_here(self, source_id: str) -> None:
        """Check that the source was not withdrawn on this machine.

        Raises:
            NoGrantError: It was.
        """
        if self.keystore.recall(_GONE) is not None:
            raise NoGrantError(f"source {source_id} was withdrawn by its owner")

    def check_delivery(self, task: DeliverTask, sender: str) -> None:
        """Check that every recipient of an order is covered by the grant that the order names.

        Raises:
            NoGrantError: One is not; nothing is sealed to anybody then.
        """
        self.check_here(task.source_id)
        granted = {grant.id: grant for grant in self.granted()}
        for recipient in task.recipients:
            use = Use(
                task.source_id,
                sender,
                recipient.org_id,
                tuple(self.columns),
                task.purpose,
                self.transport.clock.now(),
            )
            if set(task.attributes) != set(self.columns):
                raise NoGrantError("an order must be for all columns: rows are committed whole")
            named = granted.get(recipient.grant_id)
            consent.find([] if named is None else [named], use)

    def check_shown(self, task: ShowTask) -> None:
        """Check that tags of rows go to holders of grants only.

        Raises:
            NoGrantError: Somebody else is among the recipients.
        """
        granted = {grant.id: grant for grant in self.granted()}
        for recipient in task.recipients:
            named = granted.get(recipient.grant_id)
            known = [] if named is None else [named]
            purpose, sender = ("", "") if named is None else (named.purpose, named.sender)
            use = Use(
                task.source_id,
                sender,
                recipient.org_id,
                self.columns,
                purpose,
                self.transport.clock.now(),
            )
            consent.find(known, use)

    # ------------------------------------------------------------ leaving

    def leave(self, source_id: str, limit_micro: int) -> WithdrawalView:
        """Take the source back for good: nothing of it is sealed any more, here or there.

        Noted here first, then told to the server (again if it was away), then wiped: salts,
        answers, asks, the summary. The table is its owner's own; the ledger keeps what was spent.
        """
        self.keystore.remember(_GONE, {"source_id": source_id})
        view = self.transport.post(
            f"/sources/{source_id}/withdraw",
            Withdraw(),
            WithdrawalView,
            idempotency_key=f"{source_id}.withdraw",
        )
        self._wipe()
        erase_answers(self.keystore, limit_micro)
        return view

    def _wipe(self) -> None:
        """Remove all that opens a commitment or tells a row."""
        for name in _WIPED:
            self.keystore.forget(name)
        for folder in _WIPED_FOLDERS:
            shutil.rmtree(self.keystore.directory / folder, ignore_errors=True)

    # ------------------------------------------------------------ storage

    def _known(self) -> dict[str, Any]:
        known = self.keystore.recall(_GRANTS)
        return {"given": {}, "sent": [], "grants": {}} if known is None else dict(known)

    def _message(self, source_id: str, terms: GrantTerms) -> GiveGrant:
        return GiveGrant(
            source_id=source_id,
            recipient=terms.recipient,
            attributes=sorted(terms.attributes) or list(self.columns),
            purpose=terms.purpose,
            expires=int(self.transport.clock.now()) + terms.days * DAY_S,
            sender=terms.sender,
        )

    def _send(self, key: str, message: GiveGrant, known: dict[str, Any]) -> GrantView:
        view = self.transport.post("/grants", message, GrantView, idempotency_key=key)
        known["sent"].append(key)
        known["grants"][view.id] = {
            "id": view.id,
            "source_id": view.source_id,
            "sender": view.sender,
            "recipient": view.recipient,
            "attributes": sorted(view.attributes),
            "purpose": view.purpose,
            "expires": view.expires,
            "withdrawn": None,
        }
        self.keystore.remember(_GRANTS, known)
        return view
