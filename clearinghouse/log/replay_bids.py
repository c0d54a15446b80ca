"""Sealed bids in a replayed log: committed with their model, opened after the last score."""

from collections.abc import Iterator

from clearinghouse.asks import opens_ask
from clearinghouse.errors import InputError
from clearinghouse.log.entries import Entry
from clearinghouse.log.story import RequestStory
from clearinghouse.money import parse_money


def commit_bid(_index: int, entry: Entry, story: RequestStory) -> Iterator[str]:
    """Take a `bid.committed` entry and yield the rules it breaks."""
    model, owner = entry.objects["model"], entry.objects["owner"]
    if model not in story.models:
        yield f"{model} was never submitted to this request"
    if story.first_bid is not None:
        yield f"committed after bids were opened (entry {story.first_bid})"
    if any(known == owner for known, _ in story.bids.values()):
        yield f"{owner} has committed a bid already"
    story.bids.setdefault(model, (owner, entry.commit or ""))


def reveal_bid(index: int, entry: Entry, story: RequestStory) -> Iterator[str]:
    """Take a `bid.revealed` entry and yield the rules it breaks."""
    model, owner = entry.objects["model"], entry.objects["owner"]
    story.first_bid = index if story.first_bid is None else story.first_bid
    if story.award is not None:
        yield f"opened after the award (entry {story.award})"
    if model in story.opened_bids:
        yield f"the bid for {model} was opened before"
    story.opened_bids.add(model)
    try:
        ask = parse_money(entry.amounts["ask"], name="ask")
    except InputError as error:
        yield str(error)
        return
    known, commitment = story.bids.get(model, ("", ""))
    if not commitment:
        yield f"opens a bid for {model} that was never committed"
    elif known != owner:
        yield f"the bid for {model} is another developer's"
    else:
        salt = bytes.fromhex(entry.hashes["salt"])
        if not opens_ask(commitment, salt, entry.objects["request"], owner, ask):
            yield f"the bid for {model} is not the one that was committed"
