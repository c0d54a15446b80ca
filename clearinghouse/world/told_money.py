"""Transfers that a log implies, and the reasons of those in a ledger: nothing moves unexplained.

| transfer | explained by |
|---|---|
| `open` | `request.opened`: the customer puts the escrow aside |
| `deposit`, `return`, `forfeit` | `ask.committed` and `deposit.settled`, by source |
| `order` | `order.settled`: what it earned, once the request's statement is logged |
| `fee` | the terms' share of what orders earned, rounded down |
| `award` | the award's document, whose digest and sum `award.decided` has |
| `pot` | the terms: all of it or nothing, to sources of the request |
| `refund` | what is left of the escrow |
| `freeze`, `withhold`, `ruling` | a dispute: its opening moves money aside, its end moves it on |

The order in which a ledger's transfers came is not in it; the digests of statements are, so what
was posted up to a statement is compared with its digest as well.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clearinghouse.log.entries import Entry
from clearinghouse.messages.intake import OpenRequest
from clearinghouse.money import MICRO
from clearinghouse.world.rows import Difference
from clearinghouse.world.told import Story, key_of

Amounts = Mapping[str, int]
Ledger = Mapping[str, Amounts]
"""By transfer what it changes, by account."""


@dataclass(frozen=True, slots=True)
class Due:
    """A transfer that must be in the ledger.

    Attributes:
        index: The entry that demands it.
        amounts: By account its change; of an amount that a dispute may have put aside, the one who
            gets it is `payee` and not among them.
        payee: Who gets `paid`, or the frozen account that is meant for it.
    """

    index: int
    amounts: Amounts
    payee: str = ""
    paid: int = 0


def due(
    story: Story, terms: Mapping[str, OpenRequest], awards: Mapping[str, Any]
) -> dict[str, Due]:
    """By name the transfers that the log demands.

    Args:
        story: The log.
        terms: By request its terms, whose digest is logged.
        awards: By request the award's document, likewise.
    """
    found: dict[str, Due] = {}
    earned: dict[str, list[_Earned]] = {}
    for index, entry in enumerate(story.entries):
        if entry.type == "request.opened":
            found |= _opened(index, entry)
        elif entry.type == "ask.committed":
            found |= _deposit(story, index, entry)
        elif entry.type == "deposit.settled":
            found |= _settled(story, index, entry)
        elif entry.type == "order.settled":
            earned.setdefault(entry.objects["request"], []).append(_earned(story, index, entry))
    settled = {request: index for index, request, _ in story.statements}
    for request, index in settled.items():
        found |= _orders(story.operator, index, request, earned.get(request, []), terms)
        if key_of(request, "award") in story.tables["document"]:
            found |= _awards(index, request, awards.get(request, {}))
    return found


def _opened(index: int, entry: Entry) -> dict[str, Due]:
    request, escrow = entry.objects["request"], _whole(entry.amounts.get("escrow_micro"))
    changes = {f"external:{entry.objects['owner']}": -escrow, f"escrow:{request}": escrow}
    return {f"{request}:open": Due(index, changes)}


def _owner(story: Story, source: str) -> str:
    row = story.tables["source"].get(source)
    return "" if row is None else str(row.values["org_id"])


def _deposit(story: Story, index: int, entry: Entry) -> dict[str, Due]:
    request, source = entry.objects["request"], entry.objects["source"]
    amount = _whole(entry.amounts.get("deposit_micro"))
    if not amount:
        return {}
    outside = f"external:{_owner(story, source)}"
    changes = {outside: -amount, f"deposit:{request}:{source}": amount}
    return {f"{request}:deposit:{source}": Due(index, changes)}


def _settled(story: Story, index: int, entry: Entry) -> dict[str, Due]:
    request, source = entry.objects["request"], entry.objects["source"]
    lost = _whole(entry.amounts["forfeited_micro"])
    amount = lost or _whole(entry.amounts["returned_micro"])
    to = f"forfeits:{story.operator}" if lost else f"external:{_owner(story, source)}"
    changes = {f"deposit:{request}:{source}": -amount, to: amount}
    return {f"{request}:{'forfeit' if lost else 'return'}:{source}": Due(index, changes)}


@dataclass(frozen=True, slots=True)
class _Earned:
    """What an order earned, by which entry, and whose it is."""

    index: int
    order: str
    payee: str
    amount: int


def _earned(story: Story, index: int, entry: Entry) -> _Earned:
    payee = f"org:{_owner(story, entry.objects['source'])}"
    amount = _whole(entry.amounts["earned_micro"])
    return _Earned(index, entry.objects["order"], payee, amount)


def _orders(
    operator: str,
    index: int,
    request: str,
    earned: Sequence[_Earned],
    terms: Mapping[str, OpenRequest],
) -> dict[str, Due]:
    escrow = f"escrow:{request}"
    found = {
        f"{request}:order:{item.order}": Due(
            item.index, {escrow: -item.amount}, item.payee, item.amount
        )
        for item in earned
        if item.amount
    }
    share = terms[request].fee_micro if request in terms else 0
    if fee := sum(item.amount for item in earned) * share // MICRO:
        found[f"{request}:fee"] = Due(index, {escrow: -fee, f"platform:{operator}": fee})
    return found


def _awards(index: int, request: str, document: Mapping[str, Any]) -> dict[str, Due]:
    owners = {item["run_id"]: item["org_id"] for item in document.get("considered", [])}
    found = {}
    for winner in document.get("winners", []):
        run, amount = str(winner["run_id"]), int(winner["amount_micro"])
        if amount:
            changes = {f"escrow:{request}": -amount}
            found[f"{request}:award:{run}"] = Due(index, changes, f"org:{owners.get(run)}", amount)
    return found


def differences(story: Story, wanted: Mapping[str, Due], ledger: Ledger) -> Iterator[Difference]:
    """Yield transfers that are missing, of other amounts, or without a reason."""
    for name, item in wanted.items():
        if name not in ledger:
            yield Difference("transfer", name, "", item.index, "it is there", "no such row")
        elif not _fits(item, ledger[name], story):
            told = json.dumps({**item.amounts, **({item.payee: item.paid} if item.payee else {})})
            words = json.dumps(dict(ledger[name]))
            yield Difference("posting", name, "amount_micro", item.index, told, words)
    for name, amounts in ledger.items():
        if name not in wanted and not _explained(name, amounts, story):
            words = json.dumps(dict(amounts))
            yield Difference("transfer", name, "", None, "nothing", f"moves {words}")


def _fits(item: Due, amounts: Amounts, story: Story) -> bool:
    rest = {account: amount for account, amount in amounts.items() if account not in item.amounts}
    if any(amounts.get(account) != amount for account, amount in item.amounts.items()):
        return False
    if not item.payee:
        return not rest
    if len(rest) != 1:
        return False
    ((account, amount),) = rest.items()
    return amount == item.paid and _is_for(account, item.payee, story)


def _is_for(account: str, payee: str, story: Story) -> bool:
    """Whether an account is the payee's, or holds money for it while a dispute is pending."""
    if account == payee:
        return True
    parts = account.split(":", 3)
    return parts[0] == "frozen" and parts[1] in story.disputes and parts[-1] == payee


def _explained(name: str, amounts: Amounts, story: Story) -> bool:
    """Whether a transfer that no single entry demands has a reason in the log."""
    request, _, rest = name.partition(":")
    what, _, subject = rest.partition(":")
    if request not in story.tables["request"] or len(amounts) != 2:
        return False
    giver, receiver = sorted(amounts, key=amounts.__getitem__)
    escrow, dispute = f"escrow:{request}", subject.partition(":")[0]
    has_ended = any(about == request for _, about, _ in story.statements)
    if what == "refund":
        customer = f"external:{story.tables['request'][request].values['org_id']}"
        return has_ended and (giver, receiver) == (escrow, customer)
    if what == "pot":
        owner = f"org:{_owner(story, subject)}"
        return has_ended and giver == escrow and _is_for(receiver, owner, story)
    if what == "withhold":
        return giver == escrow and _frozen_by(receiver, dispute, story)
    if what == "freeze" and dispute == "deposit":
        source = subject.partition(":")[2]
        meant_for = f"external:{_owner(story, source)}"
        is_held = giver == f"deposit:{request}:{source}"
        return is_held and receiver != meant_for and _is_for(receiver, meant_for, story)
    if what == "freeze":
        return _frozen_by(receiver, dispute, story) and receiver.endswith(f":{giver}")
    if what == "ruling":
        return _frozen_by(giver, dispute, story) and story.disputes[dispute][1] is not None
    return False


def _frozen_by(account: str, dispute: str, story: Story) -> bool:
    return dispute in story.disputes and account.startswith(f"frozen:{dispute}:")


def sums(story: Story, terms: Mapping[str, OpenRequest], ledger: Ledger) -> Iterator[Difference]:
    """Yield sums that do not fit: the pot, rulings, and escrows of requests that have ended."""
    moved: dict[tuple[str, str], int] = {}
    left: dict[str, int] = {}
    for name, amounts in ledger.items():
        request, _, rest = name.partition(":")
        what, _, subject = rest.partition(":")
        about = subject.partition(":")[0] if what == "ruling" else request
        amount = sum(change for change in amounts.values() if change > 0)
        moved[what, about] = moved.get((what, about), 0) + amount
        left[request] = left.get(request, 0) + amounts.get(f"escrow:{request}", 0)
    for request, row in story.tables["request"].items():
        pot = moved.get(("pot", request), 0)
        whole = _pot(terms[request]) if request in terms else pot
        if pot not in (0, whole):
            key = f"{request}:pot"
            yield Difference("transfer", key, "amount_micro", row.index, f"0 or {whole}", str(pot))
        if row.values["ended"] and left.get(request):
            index, rest = row.index_of("ended"), str(left[request])
            yield Difference("account", f"escrow:{request}", "balance_micro", index, "0", rest)
    for index, entry in enumerate(story.entries):
        if entry.type in ("dispute.resolved", "dispute.expired"):
            dispute = entry.objects["dispute"]
            told = sum(_whole(entry.amounts[f"{name}_micro"]) for name in ("paid", "returned"))
            sent = moved.get(("ruling", dispute), 0)
            if told != sent:
                key = f"{entry.objects['request']}:ruling:{dispute}"
                yield Difference("transfer", key, "amount_micro", index, str(told), str(sent))


def _pot(terms: OpenRequest) -> int:
    return terms.records * terms.tariff_micro * terms.fairness_pot_micro // MICRO


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0
