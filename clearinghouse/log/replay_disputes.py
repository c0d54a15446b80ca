"""Disputes in a replayed log: who may open, answer and decide them, once and in time.

They may outlive their request, so they are checked apart from its own entries.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from clearinghouse.clock import seconds_of
from clearinghouse.log.entries import Entry
from clearinghouse.log.story import RequestStory

TYPES = ("dispute.opened", "dispute.answered", "dispute.resolved", "dispute.expired")


@dataclass(slots=True)
class DisputeStory:
    """One dispute as its entries tell it; indexes point into the log."""

    request: str
    subject: str
    opener: str
    respondent: str
    deadline: int
    answered: int | None = None
    decided: int | None = None


class Disputes:
    """All disputes so far."""

    def __init__(self) -> None:
        self.stories: dict[str, DisputeStory] = {}

    def apply(
        self, index: int, entry: Entry, operator: str, requests: Mapping[str, RequestStory]
    ) -> Iterator[str]:
        """Take an entry about a dispute and yield the rules it breaks."""
        dispute, request = entry.objects["dispute"], entry.objects["request"]
        if request not in requests:
            yield f"{request} was never opened"
        if entry.type == "dispute.opened":
            yield from self._open(entry, operator)
            return
        story = self.stories.get(dispute)
        if story is None:
            yield f"{dispute} was never opened"
            return
        if story.request != request:
            yield f"{dispute} is about {story.request}"
        if story.decided is not None:
            yield f"{dispute} was decided at entry {story.decided}"
        if entry.type == "dispute.answered":
            yield from _answer(index, entry, story)
        else:
            yield from _decide(index, entry, story, operator)
            yield from _prizes(entry, story, requests.get(request))

    def _open(self, entry: Entry, operator: str) -> Iterator[str]:
        objects = entry.objects
        if objects["dispute"] in self.stories:
            yield f"{objects['dispute']} is open already"
            return
        if entry.actor not in (objects["opener"], operator):
            yield f"made by {entry.actor}, not by who opens it"
        subject = objects.get("subject", "")
        if any(
            known.subject == subject and known.request == objects["request"]
            for known in self._pending()
        ):
            yield f"{subject} is disputed already"
        deadline = _whole(entry.amounts, "answer_by")
        if deadline < _seconds(entry):
            yield "its answer was due before it was opened"
        self.stories[objects["dispute"]] = DisputeStory(
            objects["request"], subject, objects["opener"], objects["respondent"], deadline
        )

    def _pending(self) -> list[DisputeStory]:
        return [story for story in self.stories.values() if story.decided is None]


def _answer(index: int, entry: Entry, story: DisputeStory) -> Iterator[str]:
    if entry.actor != story.respondent:
        yield f"answered by {entry.actor}, not by the respondent"
    if story.answered is not None:
        yield f"answered at entry {story.answered} already"
    if _seconds(entry) > story.deadline:
        yield "answered after the deadline"
    story.answered = index if story.answered is None else story.answered
    story.deadline = _whole(entry.amounts, "ruling_by")


def _decide(index: int, entry: Entry, story: DisputeStory, operator: str) -> Iterator[str]:
    if entry.actor != operator:
        yield f"decided by {entry.actor}, which is not the arbiter"
    if entry.type == "dispute.expired" and _seconds(entry) <= story.deadline:
        yield "expired before its deadline"
    if entry.amounts.get("upheld") not in (0, 1):
        yield "does not say whether the claim was upheld"
    if not all(isinstance(entry.amounts[name], int) for name in ("paid_micro", "returned_micro")):
        yield "does not say what moved"
    story.decided = index if story.decided is None else story.decided


def _prizes(entry: Entry, dispute: DisputeStory, request: RequestStory | None) -> Iterator[str]:
    """A ruling that names winners divides what is frozen of a purse among scored models."""
    named = sorted(name for name in entry.objects if name.startswith("winner_"))
    prizes = sorted(name for name in entry.amounts if name.startswith("prize_"))
    if not named and not prizes:
        return
    if prizes != [f"prize_{name.removeprefix('winner_')}_micro" for name in named]:
        yield "names other winners than prizes"
    if not dispute.subject.startswith("run_"):
        yield "names a winner in a dispute that is not about a score"
    for name in named:
        if request is not None and not request.runs.get(entry.objects[name]):
            yield f"gives a prize to {entry.objects[name]}, which was not scored in the request"
    total = sum(_whole(entry.amounts, name) for name in prizes)
    if total != entry.amounts["paid_micro"]:
        yield f"names prizes of {total} micro-units and pays {entry.amounts['paid_micro']}"
    if request is not None and total + request.earned_micro > request.escrow_micro:
        yield f"pays {total} micro-units out of an escrow of {request.escrow_micro}"


def _whole(amounts: Mapping[str, int | str], name: str) -> int:
    value = amounts[name]
    return value if isinstance(value, int) else 0


def _seconds(entry: Entry) -> int:
    return int(seconds_of(entry.time))
