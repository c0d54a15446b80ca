"""No path through deliveries, scores, disputes, deadlines and failures leaves money or goods alone.

A state machine drives the real steps on a real database in any order that the server allows, and
checks after every act that the books sum to zero and nothing sits where it should not, and at the
end that who delivered was paid and who paid got what it paid for.
"""

import shutil
import tempfile
from pathlib import Path

import pytest
from desk_market import DeskMarket
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from clearinghouse.errors import InputError, RefusedError
from clearinghouse.messages.disputes import AnswerDispute, OpenDispute, ResolveDispute
from clearinghouse.rounds import disputes, pipeline, rulings
from clearinghouse.rounds.releases import catch
from valuation.ladders import bound as worth

KINDS = ("acceptance", "contest")


class Money(RuleBasedStateMachine):
    """One request from its clearing to its end, and its disputes beyond."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="money-"))
        self.step, self.runs, self.waiting = "deliver", {}, False

    @initialize(kind=st.sampled_from(KINDS), pot=st.sampled_from([0, 20_000]))
    def open(self, kind, pot):
        purse = {
            "kind": kind,
            "amount_micro": 1_000_001,
            "metric": "auc",
            "threshold_micro": 700_000,
            "confidence_micro": 900_000,
        }
        self.market = DeskMarket(self.folder / "server", purse=purse, fairness_pot_micro=pot)
        self.market.delivered = {}

    def teardown(self):
        if hasattr(self, "market"):
            self.finish()
            self.market.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    # ------------------------------------------------------------ the request

    @precondition(lambda self: self.step == "deliver")
    @rule(number=st.integers(0, 1), part=st.integers(0, 3), accepted=st.booleans())
    def deliver(self, number, part, accepted):
        units = self.market.orders[number].units
        self.market.deliver(number, units * part // 3, accepted)

    @precondition(lambda self: self.step == "deliver" and len(self.market.delivered) == 2)
    @rule()
    def confirm(self):
        self.market.confirm()
        self.step = "score"

    @precondition(lambda self: self.step == "score" and len(self.runs) < 2)
    @rule(point=st.sampled_from(["0.650000", "0.800000", "0.900000"]))
    def score(self, point):
        number = len(self.runs)
        bound = f"{float(point) - 0.05:.6f}"
        self.runs[number] = self.market.score(number, point, bound)

    @precondition(lambda self: self.step == "score")
    @rule()
    def settle(self):
        self.market.settle()
        self.step = "done"

    @precondition(lambda self: self.step in ("deliver", "score"))
    @rule()
    def fail(self):
        pipeline.fail(self.market.desk, self.market.request_id, "nobody goes on")
        self.step = "failed"

    # ------------------------------------------------------------ disputes

    def attempt(self, act):
        """What the server refuses changes nothing."""
        before = self.books()
        try:
            with self.market.write() as tx:
                return act(tx)
        except (RefusedError, InputError):
            assert self.books() == before
            return None

    @precondition(lambda self: self.step != "deliver")
    @rule(
        who=st.sampled_from(["hospital", "seller0", "seller1", "developer0", "developer1"]),
        subject=st.integers(0, 3),
        remedy=st.sampled_from(["refund", "forfeit", "pay"]),
    )
    def dispute(self, who, subject, remedy):
        market = self.market
        if subject >= 2 and subject - 2 not in self.runs:
            return
        caller = {
            "hospital": market.hospital,
            "seller0": market.sellers[0],
            "seller1": market.sellers[1],
            "developer0": market.developers[0],
            "developer1": market.developers[1],
        }[who]
        name = market.orders[subject].id if subject < 2 else self.runs[subject - 2].id
        message = OpenDispute(
            request_id=market.request_id,
            subject=name,
            reason="delivery" if subject < 2 else "score",
            remedy=remedy,
            words="no",
        )
        self.attempt(
            lambda tx: disputes.claim(tx, market.desk, caller, market.request(tx), message)
        )

    @precondition(lambda self: self.step == "score" and self.runs)
    @rule()
    def fail_a_test(self):
        """The hospital is suspended; its dispute opens by itself."""
        market, run = self.market, self.runs[0]

        def act(tx):
            if not any(item.subject == run.id for item in tx.disputes.pending(market.request_id)):
                catch(tx, market.desk, market.request(tx), run, "a test failed")

        self.attempt(act)

    def pending(self):
        with self.market.read() as tx:
            return tx.disputes.pending(self.market.request_id)

    @precondition(lambda self: self.waiting)
    @rule(number=st.integers(0, 5))
    def answer(self, number):
        found = self.pending()
        dispute = found[number % len(found)]
        market = self.market
        parties = [market.hospital, *market.sellers, *market.developers]
        (who,) = (org for org in parties if org.id == dispute.respondent_id)
        said = AnswerDispute(words="no")
        self.attempt(lambda tx: rulings.answer(tx, market.desk, who, dispute, said))

    @precondition(lambda self: self.waiting)
    @rule(number=st.integers(0, 5), outcome=st.sampled_from(["refund", "forfeit", "pay"]))
    def resolve(self, number, outcome):
        found = self.pending()
        dispute, market = found[number % len(found)], self.market
        ruling = ResolveDispute(outcome=outcome, words="so it is")
        self.attempt(lambda tx: rulings.resolve(tx, market.desk, market.desk.org, dispute, ruling))

    @precondition(lambda self: self.step == "done" and self.waiting and self.runs)
    @rule(number=st.integers(0, 5), shares=st.lists(st.integers(0, 4), min_size=2, max_size=2))
    def name_winners(self, number, shares):
        """Quarters of what is frozen; too many, for nobody or in another dispute: refused."""
        found = self.pending()
        dispute, market = found[number % len(found)], self.market
        frozen = sum(
            amount
            for name, amount in self.books().items()
            if name.startswith(f"frozen:{dispute.id}:")
        )
        prizes = {
            run.id: frozen * share // 4
            for share, run in zip(shares, self.runs.values(), strict=False)
            if share
        }
        ruling = ResolveDispute(outcome="award", words="so it is", prizes=prizes)
        before = {org.id: self.books().get(f"org:{org.id}", 0) for org in market.developers}
        act = lambda tx: rulings.resolve(tx, market.desk, market.desk.org, dispute, ruling)  # noqa: E731
        if self.attempt(act) is not None:
            for place, run in self.runs.items():
                owner = market.developers[place].id
                gained = self.books().get(f"org:{owner}", 0) - before[owner]
                assert gained == prizes.get(run.id, 0)

    @precondition(lambda self: self.waiting)
    @rule(days=st.sampled_from([1, 8, 31]))
    def wait(self, days):
        self.market.clock.advance(days * 86400)
        pipeline.due(self.market.desk)

    # ------------------------------------------------------------ what always holds

    def books(self):
        with self.market.read() as tx:
            return tx.ledger.balances("")

    @invariant()
    def money_is_conserved(self):
        if not hasattr(self, "market"):
            return
        books = self.books()
        assert sum(books.values()) == 0
        outside = [amount for name, amount in books.items() if name.startswith("external:")]
        assert all(amount <= 0 for amount in outside)
        with self.market.read() as tx:
            pending = {item.id for item in tx.disputes.pending(self.market.request_id)}
        self.waiting = bool(pending)  # as every act leaves it: what may be drawn next hangs on it
        for name in books:
            if name.startswith("frozen:"):
                assert name.split(":")[1] in pending  # nothing is frozen without a reason
            if name.startswith("escrow:"):
                assert self.step not in ("done", "failed")

    def finish(self):
        """Let every deadline pass; then goods and money must have changed hands together."""
        if self.step in ("deliver", "score"):
            pipeline.fail(self.market.desk, self.market.request_id, "given up")
            self.step = "failed"
        while self.pending():
            self.market.clock.advance(32 * 86400)
            pipeline.due(self.market.desk)
        self.money_is_conserved()
        books = self.books()
        assert not [name for name in books if name.startswith(("frozen:", "escrow:"))]
        self.check_goods()

    def check_goods(self):
        market = self.market
        with market.read() as tx:
            decided = {item.subject: item for item in tx.disputes.of(market.request_id)}
            disputed = set(decided)
            postings = tx.ledger.postings(market.request_id)
            orders = tx.orders.of(market.request_id)
            has_award = tx.requests.document(market.request_id, "award") is not None
        received = {}
        for posting in postings:
            if posting.account.startswith("org:"):
                received[posting.transfer, posting.account] = posting.amount_micro
        confirmed = bool(market.delivered) and self.step in ("done", "failed")
        for order in orders:
            name = (f"{market.request_id}:order:{order.id}",)
            paid = sum(v for (transfer, _), v in received.items() if (transfer,) == name)
            owed = worth(order.ladder, order.real or 0)
            if order.id in disputed:
                assert paid <= order.payment_micro
            elif confirmed and has_award:
                assert paid == owed  # goods and money, both or neither
            elif not order.real:
                assert paid == 0


def run(examples, steps):
    run_state_machine_as_test(
        Money,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_no_path_leaves_money_or_goods_on_one_side():
    run(12, 14)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", range(8))
def test_no_long_path_does_either(part):
    """400 examples in eight parts, so that what was done counts if the last ones are cut off."""
    run(50, 40)
