"""A market at the desk whose deliveries and scores are disputed: claims, rulings, checks."""

from contextlib import contextmanager

from desk_market import DeskMarket

from clearinghouse.log.entries import parse_entry
from clearinghouse.log.replay import replay
from clearinghouse.messages.disputes import OpenDispute, ResolveDispute
from clearinghouse.rounds import disputes, rulings
from valuation.ladders import bound


@contextmanager
def scored_market(folder):
    """Delivered (the second seller one record short), confirmed, and two models scored."""
    made = DeskMarket(folder)
    made.deliver(0, made.orders[0].units)
    made.deliver(1, made.orders[1].units - 1)
    made.confirm()
    made.runs = [made.score(0), made.score(1, "0.800000", "0.750000")]
    try:
        yield made
    finally:
        made.close()


def claim(market, caller, subject, reason="delivery", remedy="refund", **more):
    message = OpenDispute(
        request_id=market.request_id,
        subject=subject,
        reason=reason,
        remedy=remedy,
        words="the labels are invented",
        evidence={"finding": "7" * 64},
        **more,
    )
    with market.write() as tx:
        return disputes.claim(tx, market.desk, caller, market.request(tx), message)


def rule(market, dispute, outcome, caller=None, **more):
    with market.write() as tx:
        return rulings.resolve(
            tx,
            market.desk,
            caller or market.desk.org,
            tx.disputes.get(dispute.id),
            ResolveDispute(outcome=outcome, words="so it is", **more),
        )


def view(market, dispute):
    with market.read() as tx:
        return disputes.view(tx, tx.disputes.get(dispute.id))


def own(org):
    return f"org:{org.id}"


def paid(market, number):
    order = market.orders[number]
    return bound(order.ladder, order.units - number)


def check_log(market):
    with market.read() as tx:
        entries = [parse_entry(body) for body in tx.log.entries(0, 1000)]
    kinds = [entry.type for entry in entries]
    # The market was put together without its earlier steps; its disputes must be in order.
    wrong = [item for item in replay(entries).violations if item.type.startswith("dispute")]
    assert wrong == []
    return kinds
