"""Messages that are dropped, lost on the way back, doubled, late or slow, and clocks that jump.

Whatever the network does, a market ends as one without faults: everything once, nothing stuck.
"""

import random
from collections import Counter
from contextlib import contextmanager, suppress

import httpx
import pytest
from consenting import make_app, make_market
from faulty import FATES, Faulty

from clearinghouse.client.loopback import app_client
from clearinghouse.client.transport import Transport
from clearinghouse.clock import FixedClock
from clearinghouse.errors import AuthenticationError, TryAgainError
from clearinghouse.messages.tasks import TaskList

ONCE = (
    "request.opened",
    "target.released",
    "inputs.frozen",
    "clearing.decided",
    "award.decided",
    "statement.settled",
    "request.closed",
)
TWICE = ("source.registered", "summary.released", "ask.committed", "ask.revealed")


@contextmanager
def behind_a_network(folder):
    """A gathered market whose calls go through a network that can be told to fail."""
    clock = FixedClock()
    app = make_app(folder, "", clock)
    app.state.runner.pool.start()
    with app_client(app) as direct:
        faulty = Faulty(direct._transport, clock)
        with httpx.Client(transport=faulty, trust_env=False) as client:
            yield make_market(folder, client, app, clock), faulty
    app.state.runner.pool.close()
    app.state.desk.store.close()


def work(market, faulty, fate):
    """Everybody answers, a third of the calls meet their fate; late ones arrive after others."""
    draw = random.Random(fate)
    parties = [*market.providers.values(), *market.developers.values()]
    for _ in range(60):
        if market.step() == "score":
            return
        for party in parties:
            faulty.fates = draw.choices(["", "", fate], k=40)
            with suppress(TryAgainError):
                market.answer(party)
            faulty.fates = []
            faulty.arrive()
        market.run()
    raise AssertionError(f"stuck in {market.step()}")


@pytest.mark.parametrize("fate", FATES)
def test_messages_that_fail_change_nothing_of_what_happens(tmp_path, fate):
    with behind_a_network(tmp_path) as (market, faulty):
        market.open()
        market.match()
        market.run()
        work(market, faulty, fate)
        market.settle()
        kinds = Counter(market.kinds())
        assert {kind: kinds[kind] for kind in ONCE} == dict.fromkeys(ONCE, 1)
        assert {kind: kinds[kind] for kind in TWICE} == dict.fromkeys(TWICE, 2)
        received = sum(order.sealed_blob is not None for order in market.orders().values())
        assert kinds["delivery.sealed"] == received
        assert kinds["delivery.received"] == 2 * received
        market.check_world()


@pytest.mark.parametrize("seconds", [3600.0, -3600.0])
def test_a_clock_that_jumps_refuses_calls_and_loses_nothing(tmp_path, seconds):
    """An hour between server and party: no signed call counts, in neither direction."""
    with behind_a_network(tmp_path) as (market, _):
        market.open()
        market.match()
        market.run()
        own = FixedClock(market.clock.now() + seconds)
        parties = [*market.providers.values(), *market.developers.values()]
        before = len(market.entries())
        for party in parties:
            known = party.transport
            party.transport = Transport(known.base_url, known.key, own, known.client, attempts=1)
            with pytest.raises(AuthenticationError):
                party.transport.get("/agent/tasks", TaskList)
        assert len(market.entries()) == before
        market.check_world()
        market.clock.advance(seconds)  # the server's clock is set to the others'
        market.finish()
        assert market.state()[0] in ("running", "done")
        market.check_world()
