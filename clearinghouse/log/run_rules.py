"""The rules of `replay` for what is opened of encrypted rows, from its tests to its audit.

A seed that is fixed in the log before the first message is what makes a replay of the run's
ciphertexts (`secure_eval.replay`) worth anything.
"""

from collections.abc import Iterator

from clearinghouse.canonical import digest
from clearinghouse.log.entries import Entry
from clearinghouse.log.story import RequestStory

__all__ = ["AFTERWARDS", "Problems", "RunRules"]

Problems = Iterator[str]

AFTERWARDS = frozenset({"run.audited"})
"""What may still be logged about a request that is closed."""


class RunRules:
    """What is known of sealed sets' tests, of runs and of receipts, over all requests."""

    def __init__(self) -> None:
        self.tested: set[str] = set()
        self.begun: dict[str, tuple[str, str | None]] = {}
        self.runs: set[str] = set()
        self.receipts: set[str] = set()
        self.owners: dict[str, str] = {}
        self.audited: set[str] = set()

    def _tests(self, _index: int, entry: Entry, story: RequestStory) -> Problems:
        valset = entry.objects["valset"]
        if (entry.objects["owner"], valset) != (story.owner, story.valset):
            yield "tests another set than the request's"
        if valset in self.tested:
            yield f"{valset} was tested before"
        self.tested.add(valset)

    def _begin(self, _index: int, entry: Entry, story: RequestStory) -> Problems:
        run, model = entry.objects["run"], entry.objects.get("model")
        if (entry.objects["owner"], entry.objects["valset"]) != (story.owner, story.valset):
            yield "begins on another set than the request's"
        if entry.objects["valset"] not in self.tested:
            yield "begins on a set that was never tested"
        if run in self.begun:
            yield f"{run} was begun before: its seed and nonce were fixed then"
        version = entry.amounts.get("protocol", 1)
        if not isinstance(version, int) or version < 1:
            yield "names no version of the scoring protocol"
        if model is not None:
            if model not in story.models:
                yield f"{model} was never submitted to this request"
            elif entry.hashes.get("model") != story.models[model]:
                yield f"{model} is begun as other bytes than were submitted"
            if "developer_nonce" not in entry.hashes:
                yield "names no commitment to the developer's nonce"
        self.begun.setdefault(run, (entry.objects["request"], model))

    def _run(self, _index: int, entry: Entry, story: RequestStory) -> Problems:
        run, model = entry.objects["run"], entry.objects["model"]
        if model not in story.models:
            yield f"{model} was never submitted to this request"
        elif entry.hashes.get("model", story.models[model]) != story.models[model]:
            yield f"{model} was scored as other bytes than were submitted"
        if story.award is not None:
            yield f"released after the award (entry {story.award})"
        if story.first_bid is not None:
            yield f"released after bids were opened (entry {story.first_bid})"
        if story.most_runs is not None and len(story.runs) >= story.most_runs:
            yield f"is released after all {story.most_runs} runs of the request were"
        yield from self._release_of(entry, story)
        if entry.rho_micro != story.rho_run_micro:
            yield f"takes {entry.rho_micro} of rho; the request says {story.rho_run_micro} a run"
        elif entry.rho_micro and entry.epsilon_micro:
            yield "is paid from both lanes of the owner's ledger"
        # A failed run costs epsilon and is logged, but there is nothing to give a receipt for.
        failed = entry.hashes["release"] == digest({"run": run, "failed": True})
        story.runs.setdefault(run, None if failed else model)

    def _release_of(self, entry: Entry, story: RequestStory) -> Problems:
        owner, valset = entry.objects["owner"], entry.objects.get("valset")
        if (owner, valset) != (story.owner, story.valset):
            yield "released from another set than the request's"
        run = entry.objects.get("run")
        if run is None:
            yield "names no run"
        elif run in self.runs:
            yield f"{run} was released before: its rows would pay twice"
        else:
            self.runs.add(run)
            begun = self.begun.get(run)
            if begun is None:
                yield f"{run} was released without having begun: its seed was never fixed"
            elif begun != (entry.objects["request"], entry.objects.get("model")):
                yield f"{run} was begun for another request or model"
        failed = run and entry.hashes["release"] == digest({"run": run, "failed": True})
        if "fault" in entry.objects and not failed:
            yield "names who is at fault in a run that did not fail"

    def _receipt(self, _index: int, entry: Entry, story: RequestStory) -> Problems:
        run, receipt = entry.objects.get("run", ""), entry.objects["receipt"]
        model = story.runs.get(run)
        if run not in story.runs:
            yield f"names {run or 'no run'}, which was not released before"
        elif model is None:
            yield f"names {run}, which failed"
        elif entry.objects.get("model") != model or entry.objects.get("valset") != story.valset:
            yield f"names another model or set than {run} was released for"
        if run in story.receipts:
            yield f"{run} has a receipt already"
        if receipt in self.receipts:
            yield f"{receipt} was issued before"
        self.receipts.add(receipt)
        story.receipts.setdefault(run, receipt)

    def _audit(self, _index: int, entry: Entry, _story: RequestStory) -> Problems:
        run, model = entry.objects["run"], entry.objects["model"]
        begun = self.begun.get(run)
        if begun is None:
            yield f"{run} was audited without having begun"
        elif begun != (entry.objects["request"], model):
            yield f"{run} was begun for another request or model"
        if self.owners.get(model) != entry.objects["owner"]:
            yield f"{model} is not that owner's model"
        if run not in self.runs:
            yield f"{run} was audited before it was released or failed"
        if run in self.audited:
            yield f"{run} was audited before"
        self.audited.add(run)
        if entry.amounts["reproduced"] not in (0, 1):
            yield "does not say whether the run was reproduced"
        elif entry.amounts["reproduced"] == 0 and "fault" not in entry.objects:
            yield "refutes a run without naming who is at fault"
