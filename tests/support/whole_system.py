"""The whole system as a state machine: every role acts in any order, messages fail, time jumps.

Hospital, two providers, two developers, an auditor and the operator on one database, with a fake
clock and a network in this process that drops, loses, doubles, delays and drags. Parties are the
real ones, and so are the server, its routes and its steps; only rows stay out of it: no ciphertext
is made, so the hospital's release is written as its step writes it and no model is scored. After
every act `check_world` must find nothing.
"""

import math
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from consenting import Market, make_app
from faulty import FATES, Faulty
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from clearinghouse.client.keystore import Keystore
from clearinghouse.client.loopback import app_client
from clearinghouse.client.transport import Transport
from clearinghouse.clock import FixedClock
from clearinghouse.errors import ClearinghouseError, RefusedError
from clearinghouse.log.witness import observe
from clearinghouse.messages.disputes import AnswerDispute, OpenDispute, ResolveDispute
from clearinghouse.messages.tasks import RefuseTask, TaskList
from clearinghouse.rounds import disputes, erasure, pipeline, rulings
from clearinghouse.world.check import check_world

PARTIES = ("a", "b", "ada", "bob")
MOVES = 12
REMEDIES = ("refund", "forfeit", "pay")
KINDS = ("ask.commit", "ask.reveal", "deliver", "show", "receive", "delete", "log.cosign")
"""What is answered; a model is never submitted, so nothing is scored."""


class WholeSystem(RuleBasedStateMachine):
    """Requests from opening to settlement and beyond, under every fault that the network has."""

    url = ""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="system-"))
        self.clock, self.requests, self.acts = FixedClock(), [], 0
        self.seen = 0
        self._serve()
        self.market = Market(self.folder, self.client, self.app, self.clock)
        self.market.gather()

    def _serve(self):
        self.app = make_app(self.folder, self.url, self.clock)
        self.app.state.runner.pool.start()
        self.opened = app_client(self.app)
        self.faulty = Faulty(self.opened.__enter__()._transport, self.clock)
        self.client = httpx.Client(transport=self.faulty, trust_env=False)

    def _stop(self):
        self.client.close()
        self.opened.__exit__(None, None, None)
        self.app.state.runner.pool.close()
        self.app.state.desk.store.close()

    def teardown(self):
        self._stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def desk(self):
        return self.app.state.desk

    def party(self, name):
        return {**self.market.providers, **self.market.developers}[name]

    def state(self, request_id):
        with self.desk.store.read() as tx:
            return tx.requests.get(request_id)

    # ------------------------------------------------------------ the market

    @initialize(pot=st.sampled_from([0, 20_000]))
    def first(self, pot):
        self.requests.append(self.market.open(fairness_pot_micro=pot))

    @precondition(lambda self: len(self.requests) < 3)
    @rule(pot=st.sampled_from([0, 20_000]), records=st.sampled_from([10, 40]))
    def open(self, pot, records):
        """Another request, to the sources that are left; with one that left it is refused."""
        terms = {"fairness_pot_micro": pot, "records": records}
        with self.desk.store.read() as tx:
            found = [tx.cohorts.source(name) for name in self.market.sources.values()]
        left = [source.id for source in found if not source.withdrawn]
        if len(left) < len(found):
            with pytest.raises(RefusedError, match="was withdrawn by its owner"):
                self.market.open(**terms)
        if left:
            self.requests.append(self.market.open(source_ids=left, **terms))

    @rule(number=st.integers(0, 2))
    def match(self, number):
        """The hospital opens the target of a request that waits for it."""
        request_id = self.requests[number % len(self.requests)]
        request = self.state(request_id)
        if (request.step, request.state) == ("match", "running"):
            self.market.request_id = request_id
            self.market.match()

    @rule(who=st.sampled_from(PARTIES), fates=st.lists(st.sampled_from(("", *FATES)), max_size=6))
    def answer(self, who, fates):
        """A party answers what it is asked, over a network that fails."""
        self.faulty.fates = list(fates)
        with suppress(ClearinghouseError):  # the party tries again another time
            self.market.answer(self.party(who), kinds=KINDS)
        self.faulty.fates = []

    @rule(who=st.sampled_from(PARTIES))
    def refuse(self, who):
        """A party refuses its first task."""
        party = self.party(who)
        for view in party.transport.get("/agent/tasks", TaskList).tasks[:1]:
            message = RefuseTask(reason="not today", spent_micro=0)
            path = f"/agent/tasks/{view.id}/refuse"
            party.transport.send(path, message, idempotency_key=f"{view.id}.refuse")

    @rule()
    def move(self):
        """The server makes what moves it can."""
        for request_id in pipeline.due(self.desk):
            if self.state(request_id).step == "match":
                continue  # `match` writes what comes of this step
            for _ in range(MOVES):
                if not pipeline.advance(self.desk, request_id):
                    break
        erasure.sweep(self.desk)

    @rule()
    def arrive(self):
        """What was late arrives, in another order: it is answered like any repeated call."""
        assert all(status < 500 for status in self.faulty.arrive())

    # ------------------------------------------------------------ what changes its mind

    @rule(who=st.sampled_from(["a", "b"]), fates=st.lists(st.sampled_from(FATES), max_size=2))
    def publish_again(self, who, fates):
        self.faulty.fates = list(fates)
        with suppress(ClearinghouseError):
            self.party(who).publish()
        self.faulty.fates = []

    @precondition(lambda self: self.acts > 12)
    @rule(who=st.sampled_from(["a", "b"]))
    def withdraw(self, who):
        """A provider takes its source back for good."""
        with suppress(ClearinghouseError):  # it did before
            self.party(who).withdraw()

    # ------------------------------------------------------------ disputes

    @rule(who=st.sampled_from(["hospital", "a", "b"]), remedy=st.sampled_from(REMEDIES))
    def claim(self, who, remedy):
        caller_id = self.market.hospital.id if who == "hospital" else self.party(who).org_id
        with self.desk.store.read() as tx:
            orders = [order for name in self.requests for order in tx.orders.of(name)]
            if not orders:
                return
            order = orders[self.acts % len(orders)]
            request, caller = tx.requests.get(order.request_id), tx.parties.get(caller_id)
        message = OpenDispute(
            subject=order.id, reason="delivery", remedy=remedy, words="it is not so", receipts=[],
            evidence={},
        )  # fmt: skip
        self._try(lambda tx: disputes.claim(tx, self.desk, caller, request, message))

    @rule(outcome=st.sampled_from([None, "refund", "forfeit", "pay"]))
    def rule_or_answer(self, outcome):
        with self.desk.store.read() as tx:
            pending = [item for name in self.requests for item in tx.disputes.pending(name)]
            if not pending:
                return
            item = pending[0]
            respondent = tx.parties.get(item.respondent_id)
        if outcome is None:
            answer = AnswerDispute(words="it is so", evidence={})
            self._try(lambda tx: rulings.answer(tx, self.desk, respondent, item, answer))
        else:
            ruling = ResolveDispute(outcome=outcome, words="decided")
            self._try(lambda tx: rulings.resolve(tx, self.desk, self.desk.org, item, ruling))

    def _try(self, act):
        """Do something that the server may refuse."""
        with suppress(ClearinghouseError), self.desk.store.write() as tx:
            act(tx)

    # ------------------------------------------------------------ the operator, time, the auditor

    @rule()
    def restart(self):
        """The server stops between two transactions and starts again on the same folder."""
        self._stop()
        self._serve()
        self.market.app, self.market.client = self.app, self.client
        for name in PARTIES:
            self.party(name).transport.client = self.client

    @rule(seconds=st.sampled_from([-7200.0, -30.0, 1.0, 45.0, 3600.0, 90_000.0, 8 * 86_400.0]))
    def clock_jumps(self, seconds):
        self.clock.advance(seconds)

    @rule()
    def audit(self):
        """An auditor without an account looks at the log: it extends what it saw."""
        keystore = Keystore.open(self.folder / "auditor")
        transport = Transport(
            "http://testserver", keystore.signing_key, self.clock, self.client, attempts=1
        )
        observe(transport, keystore)

    @invariant()
    def the_world_is_as_it_must_be(self):
        self.acts += 1
        owners = {
            item.org_id: [item.keystore.ledger_place]
            for item in self.market.providers.values()
            if item.keystore.ledger_place.exists()
        }
        now = self.clock.now()
        found = check_world(self.desk.settings, now, ledgers=owners, grace_s=math.inf)
        troubles = [item for item in found.troubles if "after its deadline" not in item.words]
        assert not troubles, "\n".join(map(str, troubles))
        assert found.entries >= self.seen, "the log has shrunk"
        self.seen = found.entries
