"""What a log says happened, recomputed from its entries alone, and whether it may have happened.

`verify` shows that nobody changed the log; this shows that what it records follows the market's
rules: who may act, what must come first, what happens once. It needs no database and trusts no
operator, so an auditor's answer does not depend on what the operator's server says today.

| what | rule |
|---|---|
| acts | by the owner of the thing; decisions by the operator (the log's first organisation) |
| summaries | one release for each source, by its owner |
| sizes | one release for each source or set, by its owner |
| requests | on the owner's own sealed set, with an escrow; nothing after they are closed |
| asks | after the inputs are frozen; all committed before the first is opened; openings open them |
| clearing | once, on exactly the frozen inputs, after every opening |
| deliveries | after the clearing, by the source that sold; received as sealed |
| consent | see `consents`: no use without a grant that covers it then |
| begun | seeds and nonces committed once, before a release; of the request's own set |
| bids | committed with their model, opened after the last score, as committed |
| runs | of a model submitted to that request, as begun; one release each; no more than were fixed |
| rho | of a run: what the request fixed for each, and nothing of the pure lane beside it |
| receipts | name a run that was released, with its model and set; one each |
| audits | of a begun run that has ended, by its model's owner, once; also after the end |
| orders, deposits | see `replay_orders` |
| disputes | by who opens them, answered by the respondent, decided once by the operator, in time |
| end | one award, not above the escrow; a statement after it; then closed, once |
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from clearinghouse.asks import opens_ask
from clearinghouse.errors import InputError, VerificationError
from clearinghouse.log import consents, replay_end, replay_orders
from clearinghouse.log.consents import Consents
from clearinghouse.log.entries import Entry
from clearinghouse.log.entry_types import BY_OPERATOR, BY_OWNER, is_release
from clearinghouse.log.replay_bids import commit_bid, reveal_bid
from clearinghouse.log.replay_disputes import TYPES as DISPUTE_TYPES
from clearinghouse.log.replay_disputes import Disputes
from clearinghouse.log.run_rules import AFTERWARDS, Problems, RunRules
from clearinghouse.log.story import RequestStory
from clearinghouse.money import parse_money

MAX_VIOLATIONS = 100


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that an entry breaks."""

    index: int
    type: str
    problem: str

    def __str__(self) -> str:
        return f"entry {self.index} ({self.type}): {self.problem}"


@dataclass(frozen=True, slots=True)
class Replay:
    """What the entries amount to.

    Attributes:
        epsilon_by_owner: Taken from pure lanes by organisation, in millionths.
        epsilon_by_data: The same by source or validation set.
        rho_by_data: Taken from zCDP lanes by validation set, in millionths; only where any was.
        requests: Every request's story.
        violations: Rules that are broken, in order; at most `MAX_VIOLATIONS`.
    """

    epsilon_by_owner: Mapping[str, int]
    epsilon_by_data: Mapping[str, int]
    rho_by_data: Mapping[str, int]
    requests: Mapping[str, RequestStory]
    violations: tuple[Violation, ...]


def replay(entries: Iterable[Entry]) -> Replay:
    """Recompute what entries say, and name every entry that breaks a rule."""
    state = _State()
    violations: list[Violation] = []
    by_owner: dict[str, int] = {}
    by_data: dict[str, int] = {}
    rho: dict[str, int] = {}
    for index, entry in enumerate(entries):
        for problem in state.apply(index, entry):
            if len(violations) < MAX_VIOLATIONS:
                violations.append(Violation(index, entry.type, problem))
        if is_release(entry.type):
            owner = entry.objects["owner"]
            data = entry.objects.get("source") or entry.objects.get("valset") or owner
            by_owner[owner] = by_owner.get(owner, 0) + entry.epsilon_micro
            by_data[data] = by_data.get(data, 0) + entry.epsilon_micro
            if entry.rho_micro:
                rho[data] = rho.get(data, 0) + entry.rho_micro
    return Replay(by_owner, by_data, rho, state.requests, tuple(violations))


def verify_replay(entries: Iterable[Entry]) -> Replay:
    """Return what `replay` does, if no rule is broken.

    Raises:
        VerificationError: One is; the message names every violation by entry.
    """
    found = replay(entries)
    if found.violations:
        raise VerificationError("log: " + "; ".join(str(item) for item in found.violations[:10]))
    return found


class _State(RunRules):
    """The market so far.

    Handlers report problems, then take the entry as it is: a violation is reported where it is and
    not again at everything that follows from it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operator: str | None = None
        self.sources: dict[str, str] = {}
        self.published: set[str] = set()
        self.sized: set[str] = set()
        self.valsets: dict[str, str] = {}
        self.models: set[str] = set()
        self.deliveries: set[str] = set()
        self.consents = Consents()
        self.requests: dict[str, RequestStory] = {}
        self.disputes = Disputes()
        self._handlers: Mapping[str, Callable[[int, Entry], Problems]] = {
            "source.registered": self._source,
            "size.released": self._size,
            "summary.released": self._summary,
            "valset.sealed": self._valset,
            "request.opened": self._open,
            **dict.fromkeys(consents.CONSENT, self._consent),
        }
        self._moves: Mapping[str, Callable[[int, Entry, RequestStory], Problems]] = {
            "checks.begun": self._tests,
            "run.begun": self._begin,
            "target.released": self._target,
            "inputs.frozen": self._freeze,
            "ask.committed": self._commit,
            "ask.revealed": self._reveal,
            "clearing.decided": self._clear,
            "delivery.sealed": self._seal,
            "delivery.received": self._receive,
            "order.offered": replay_orders.offer,
            "order.repriced": replay_orders.reprice,
            "order.settled": replay_orders.settle_order,
            "order.frozen": replay_orders.freeze_order,
            "deposit.settled": replay_orders.settle_deposit,
            "model.submitted": self._model,
            "bid.committed": commit_bid,
            "bid.revealed": reveal_bid,
            "run.released": self._run,
            "receipt.issued": self._receipt,
            "run.audited": self._audit,
            "award.decided": replay_end.award,
            "statement.settled": replay_end.settle,
            "request.closed": replay_end.close,
            **dict.fromkeys((*consents.USES, "use.passed", "use.refused"), self._use),
        }

    def apply(self, index: int, entry: Entry) -> Problems:
        """Take an entry and yield the rules it breaks."""
        if self.operator is None:
            self.operator = entry.actor
        if entry.type in BY_OPERATOR | consents.BY_OPERATOR and entry.actor != self.operator:
            yield f"made by {entry.actor}, which is not the operator"
        if entry.type in BY_OWNER | consents.BY_OWNER and entry.actor != entry.objects["owner"]:
            yield f"made by {entry.actor}, not by the owner"
        if entry.type in DISPUTE_TYPES:
            yield from self.disputes.apply(index, entry, self.operator, self.requests)
            return
        if entry.type in self._handlers:
            yield from self._handlers[entry.type](index, entry)
            return
        request = entry.objects.get("request")
        if entry.type in self._moves and request is None:
            yield "names no request"
        if request is None:
            return
        story = self.requests.get(request)
        if story is None:
            yield f"{request} was never opened"
            return
        if story.closed is not None and entry.type not in AFTERWARDS | consents.AFTER_CLOSE:
            yield f"{request} was closed at entry {story.closed}"
        if entry.type in self._moves:
            yield from self._moves[entry.type](index, entry, story)

    # ------------------------------------------------------------ intake

    def _source(self, _index: int, entry: Entry) -> Problems:
        source = entry.objects["source"]
        if source in self.sources:
            yield f"{source} is registered already"
        self.sources.setdefault(source, entry.objects["owner"])

    def _summary(self, _index: int, entry: Entry) -> Problems:
        source = entry.objects["source"]
        if self.sources.get(source) != entry.objects["owner"]:
            yield f"{source} is no registered source of that owner"
        if source in self.published:
            yield f"{source} has released its summary already: its rows would pay twice"
        self.published.add(source)

    def _size(self, _index: int, entry: Entry) -> Problems:
        data = entry.objects.get("source") or entry.objects.get("valset", "")
        if {**self.sources, **self.valsets}.get(data) != entry.objects["owner"]:
            yield f"{data or 'no table'} is no source or sealed set of that owner"
        if data in self.sized:
            yield f"the size of {data} was released before: its rows would pay twice"
        self.sized.add(data)

    def _valset(self, _index: int, entry: Entry) -> Problems:
        valset = entry.objects["valset"]
        if valset in self.valsets:
            yield f"{valset} is sealed already"
        self.valsets.setdefault(valset, entry.objects["owner"])

    def _open(self, index: int, entry: Entry) -> Problems:
        request, valset = entry.objects["request"], entry.objects["valset"]
        if request in self.requests:
            yield f"{request} is open already"
            return
        owner = entry.objects["owner"]
        if self.valsets.get(valset) != owner:
            yield f"{valset} is no sealed set of that owner"
        escrow = entry.amounts.get("escrow_micro")
        if not isinstance(escrow, int):
            yield "no escrow is recorded"
            escrow = 0
        runs = entry.amounts.get("runs")
        most = runs if isinstance(runs, int) else None
        rho = entry.amounts.get("rho_run_micro", 0)
        self.requests[request] = RequestStory(
            owner, valset, escrow, index, most_runs=most, rho_run_micro=int(rho)
        )

    # ------------------------------------------------------------ consent

    def _consent(self, index: int, entry: Entry) -> Problems:
        yield from self.consents.take(index, entry, self.sources.get(entry.objects["source"]))

    def _use(self, _index: int, entry: Entry, story: RequestStory) -> Problems:
        if story.clearing is None:
            yield "used before the clearing"
        if entry.type == "use.refused":
            self.consents.refused(entry)
            return
        yield from self.consents.use(entry, self.sources.get(entry.objects["source"]))

    # ------------------------------------------------------------ match and clear

    def _target(self, index: int, entry: Entry, story: RequestStory) -> Problems:
        if story.target is not None:
            yield f"the target was released at entry {story.target}"
        yield from self._release_of(entry, story)
        story.target = index

    def _freeze(self, index: int, entry: Entry, story: RequestStory) -> Problems:
        if story.target is None:
            yield "no target was released before"
        asks = len(story.commitments)
        if story.frozen is None or self.consents.may_freeze_again(asks, story.frozen_at):
            story.frozen, story.frozen_at = entry.hashes["inputs"], index
        else:
            yield "the inputs were frozen before, and nobody left since"

    def _commit(self, _index: int, entry: Entry, story: RequestStory) -> Problems:
        source = entry.objects["source"]
        if story.frozen is None:
            yield "an ask was committed before the inputs were frozen"
        if story.first_opening is not None:
            yield f"committed after asks were opened (entry {story.first_opening})"
        if self.sources.get(source) != entry.actor:
            yield f"{source} is no registered source of {entry.actor}"
        if source not in self.published:
            yield f"{source} has not released its summary"
        if source in story.commitments:
            yield f"{source} has committed its ask already"
        yield from self.consents.gone(source)
        story.commitments.setdefault(source, entry.commit or "")
        deposit = entry.amounts.get("deposit_micro", 0)
        if isinstance(deposit, int) and deposit:
            story.deposits.setdefault(source, deposit)

    def _reveal(self, index: int, entry: Entry, story: RequestStory) -> Problems:
        source, salt = entry.objects["source"], bytes.fromhex(entry.hashes["salt"])
        story.first_opening = index if story.first_opening is None else story.first_opening
        if story.clearing is not None:
            yield f"opened after the clearing (entry {story.clearing})"
        if self.sources.get(source) != entry.actor:
            yield f"{source} is no registered source of {entry.actor}"
        if source in story.asks:
            yield f"{source} has opened its ask already"
        try:
            ask = parse_money(entry.amounts["ask"], name="ask")
        except InputError as error:
            yield str(error)
            return
        committed = story.commitments.get(source)
        if committed is None:
            yield f"{source} opens an ask that it never committed"
        elif not opens_ask(committed, salt, entry.objects["request"], source, ask):
            yield f"{source}'s ask is not the one it committed"
        story.asks.setdefault(source, ask)

    def _clear(self, index: int, entry: Entry, story: RequestStory) -> Problems:
        if story.clearing is not None:
            yield f"the request was cleared at entry {story.clearing}"
        if story.frozen is None:
            yield "cleared before its inputs were frozen"
        elif entry.hashes["inputs"] != story.frozen:
            yield "cleared on other inputs than the frozen ones"
        if not story.commitments:
            yield "cleared without a committed ask"
        story.clearing = index if story.clearing is None else story.clearing

    # ------------------------------------------------------------ deliver and score

    def _seal(self, _index: int, entry: Entry, story: RequestStory) -> Problems:
        source, delivery = entry.objects["source"], entry.objects["delivery"]
        if story.clearing is None:
            yield "delivered before the clearing"
        if source not in story.asks:
            yield f"{source} opened no ask here, so it sold nothing"
        if self.sources.get(source) != entry.actor:
            yield f"{source} is no registered source of {entry.actor}"
        if delivery in self.deliveries:
            yield f"{delivery} was sealed before"
        yield from self.consents.sealed(entry.objects["request"], source)
        units, real = entry.amounts.get("units"), entry.amounts.get("real")
        if not isinstance(units, int) or not isinstance(real, int) or real > units:
            yield "needs whole units, and real records up to them"
        self.deliveries.add(delivery)
        claim = entry.amounts.get("claim_micro", 0)
        if isinstance(units, int) and isinstance(real, int) and isinstance(claim, int):
            story.sealed.setdefault(delivery, (units, real, claim))
        story.deliveries.setdefault(delivery, (source, entry.hashes["blob"]))

    def _receive(self, _index: int, entry: Entry, story: RequestStory) -> Problems:
        delivery = entry.objects["delivery"]
        source, blob = story.deliveries.get(delivery, ("", ""))
        if not source:
            yield f"{delivery} was never sealed for this request"
        elif entry.hashes["blob"] != blob:
            yield f"{delivery} was received as other bytes than were sealed"
        if self.sources.get(source) == entry.actor:
            yield "the seller confirms its own delivery"
        if (delivery, entry.actor) in story.received:
            yield f"{entry.actor} has confirmed {delivery} already"
        yield from self.consents.received(entry, entry.objects["request"], source)
        story.received.add((delivery, entry.actor))
        story.findings.setdefault((delivery, entry.actor), replay_orders.finding(entry))

    def _model(self, _index: int, entry: Entry, story: RequestStory) -> Problems:
        model = entry.objects["model"]
        if story.clearing is None:
            yield "a model came before the clearing"
        if model in self.models:
            yield f"{model} was submitted before"
        self.models.add(model)
        self.owners.setdefault(model, entry.objects["owner"])
        yield from self.consents.modelled(entry, entry.objects["request"])
        story.models.setdefault(model, entry.hashes["model"])
