"""Rules for what orders earn and what becomes of deposits, replayed from the log: see `replay`.

| what | rule |
|---|---|
| orders | settled once, as sealed; at most the claim, the bound, and what a recipient confirmed |
| lost deposits | only for a ground that the log shows |
| deposits | as much as was put up, once; all before the request is closed, but for frozen orders |
| frozen orders | only where every recipient that accepts found a ground |
| offered again | once, after the clearing, before anybody received anything |
| repriced | once, what was sealed before, right after units were offered again |
"""

from collections.abc import Iterator

from clearinghouse.log.entries import Entry
from clearinghouse.log.story import RequestStory

Problems = Iterator[str]
GROUNDS = ("unopened", "undelivered", "refused", "short", "copied")
"""Why a deposit is lost; the names of amounts that say so."""


def offer(index: int, _entry: Entry, story: RequestStory) -> Problems:
    """Units that somebody did not deliver are offered to others."""
    if story.clearing is None:
        yield "offered again before the clearing"
    if story.offered is not None:
        yield f"offered again before, at entry {story.offered}"
    if story.received:
        yield "offered again after deliveries were received"
    story.offered = index if story.offered is None else story.offered


def reprice(_index: int, entry: Entry, story: RequestStory) -> Problems:
    """A kept order gets the prices of a market without who failed; its claim rises with them."""
    order, delivery = entry.objects["order"], entry.objects["delivery"]
    if story.offered is None:
        yield "repriced though nothing was offered again"
    if story.received:
        yield "repriced after deliveries were received"
    if order in story.repriced:
        yield f"{order} was repriced before"
    story.repriced.add(order)
    sealed = story.sealed.get(delivery)
    if sealed is None:
        yield f"{delivery} was never sealed for this request"
        return
    units, real, claim = sealed
    story.sealed[delivery] = (units, real, claim + _number(entry, "raised_micro"))


def settle_order(_index: int, entry: Entry, story: RequestStory) -> Problems:
    """What one order earns."""
    order, delivery = entry.objects["order"], entry.objects["delivery"]
    if order in story.orders:
        yield f"{order} was settled before"
    sealed = story.sealed.get(delivery)
    if sealed is None:
        yield f"{delivery} was never sealed for this request"
        return
    units, real, claim = sealed
    told = {name: _number(entry, name) for name in ("units", "real", "claim_micro", "earned_micro")}
    found = [value for key, value in story.findings.items() if key[0] == delivery]
    accepted = [value for value in found if value["accepted"]]
    if told["units"] != units or told["claim_micro"] != claim:
        yield "settles another order than was sealed"
    if told["real"] > real:
        yield f"pays for {told['real']} records and {real} were proven"
    confirmed = [value["earned_micro"] if value["accepted"] else 0 for value in found]
    most = min([claim, _number(entry, "bound_micro"), *([max(confirmed)] if confirmed else [])])
    if told["earned_micro"] > most:
        yield f"earns {told['earned_micro']} micro-units where {most} are shown"
    if found and not accepted and (told["earned_micro"] or "refused" not in entry.amounts):
        yield "pays for a delivery that everybody who looked refused"
    if "refused" in entry.amounts and (accepted or not found):
        yield "counts as refused a delivery that somebody accepts"
    if "copied" in entry.amounts and not (accepted and all(v["forfeits"] for v in accepted)):
        yield "counts as copied what somebody accepts as original"
    ground = next((name for name in GROUNDS if name in entry.amounts), "")
    story.orders.setdefault(order, (entry.objects["source"], ground))
    story.earned_micro += told["earned_micro"]


def freeze_order(_index: int, entry: Entry, story: RequestStory) -> Problems:
    """An order's money waits for a dispute."""
    delivery = entry.objects["delivery"]
    found = [value for key, value in story.findings.items() if key[0] == delivery]
    accepted = [value for value in found if value["accepted"]]
    if not accepted or not all(value["grounds"] for value in accepted):
        yield f"freezes {entry.objects['order']} though a recipient found nothing against it"
    story.frozen_sources.add(entry.objects["source"])


def settle_deposit(_index: int, entry: Entry, story: RequestStory) -> Problems:
    """One deposit ends."""
    source = entry.objects["source"]
    returned, lost = (_number(entry, name) for name in ("returned_micro", "forfeited_micro"))
    held = story.deposits.get(source)
    if held is None:
        yield f"{source} has put up no deposit that is still held"
    elif returned + lost != held or (returned and lost):
        yield f"ends a deposit of {held} as {returned} returned and {lost} lost"
    grounds = [name for name in GROUNDS if name in entry.amounts]
    if bool(lost) != bool(grounds):
        yield "a deposit is lost exactly for a ground"
    for ground in grounds:
        if not _shown(ground, source, story):
            yield f"{source} loses its deposit as {ground}, which the log does not show"
    broken = [ground for name, ground in story.orders.values() if name == source and ground]
    if returned and broken:
        yield f"returns the deposit of {source} though its order is {broken[0]}"
    story.deposits.pop(source, None)


def _shown(ground: str, source: str, story: RequestStory) -> bool:
    if ground == "unopened":
        return story.clearing is not None and source not in story.asks
    if ground == "undelivered":
        return source in story.asks and not any(
            name == source and not told for name, told in story.orders.values()
        )
    return (source, ground) in story.orders.values()


def check_closed(story: RequestStory) -> Problems:
    """What must have ended when a request is closed."""
    held = sorted(set(story.deposits) - story.frozen_sources)
    if held:
        yield f"closed with deposits still held: {', '.join(held[:3])}"
    if story.earned_micro + story.purse_micro > story.escrow_micro:
        yield f"pays more than the escrow of {story.escrow_micro} micro-units"


def finding(entry: Entry) -> dict[str, int]:
    """What a recipient's entry says."""
    names = ("accepted", "earned_micro", "forfeits", "grounds")
    return {name: _number(entry, name) for name in names}


def _number(entry: Entry, name: str) -> int:
    value = entry.amounts.get(name, 0)
    return value if isinstance(value, int) else 0
