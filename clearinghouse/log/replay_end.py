"""The end of a request in a replayed log: its award, its statements, and that it closes once."""

from collections.abc import Iterator

from clearinghouse.log.entries import Entry
from clearinghouse.log.replay_orders import check_closed
from clearinghouse.log.story import RequestStory


def award(index: int, entry: Entry, story: RequestStory) -> Iterator[str]:
    """Take an `award.decided` entry and yield the rules it breaks."""
    if story.award is not None:
        yield f"the purse was awarded at entry {story.award}"
    if story.clearing is None:
        yield "awarded before the clearing"
    purse = entry.amounts.get("purse_micro")
    if not isinstance(purse, int):
        yield "no purse is recorded"
    elif purse > story.escrow_micro:
        yield f"pays {purse} micro-units out of an escrow of {story.escrow_micro}"
    elif purse and not any(story.runs.values()):
        yield "pays a purse though no run was released"
    story.award = index if story.award is None else story.award
    story.purse_micro = purse if isinstance(purse, int) else 0


def settle(index: int, entry: Entry, story: RequestStory) -> Iterator[str]:
    """Take a `statement.settled` entry and yield the rules it breaks."""
    # Prices come with the award only; a request that ended early has a statement without.
    if "prices" in entry.hashes and story.award is None:
        yield "settled before the award"
    if "prices" in entry.hashes and story.statements:
        yield f"settled before, at entry {story.statements[0]}"
    story.statements.append(index)


def close(index: int, entry: Entry, story: RequestStory) -> Iterator[str]:
    """Take a `request.closed` entry and yield the rules it breaks."""
    failed = entry.amounts.get("failed")
    if failed not in (0, 1):
        yield "does not say whether the request failed"
    if not story.statements:
        yield "closed without a statement"
    elif failed == 0 and len(story.statements) > 1:
        yield f"has {len(story.statements)} statements"
    if failed == 0 and story.award is None:
        yield "closed as done without an award"
    elif failed == 0 and story.award is not None and story.statements[:1] < [story.award]:
        yield "its statement came before the award"
    yield from check_closed(story)
    story.closed = index if story.closed is None else story.closed
    story.failed = bool(failed)
