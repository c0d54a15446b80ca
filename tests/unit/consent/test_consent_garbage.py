"""Whatever a request still needs is named by a row, at every point of its life."""

from consenting import POINTS

from clearinghouse.rounds import erasure, garbage


def test_without_any_grace_a_market_misses_nothing(market):
    """The collector runs after every step of a request and takes the stray blob alone."""
    object.__setattr__(market.desk.settings, "garbage_grace_hours", 0)
    stray = market.desk.blobs.put(b"stray")
    for name in POINTS:
        getattr(market, f"_to_{name}")()
        assert garbage.collect(market.desk).unnamed == 0
    assert market.desk.blobs.find(stray) is None
    with market.desk.store.read() as tx:
        sealed = [tx.orders.of(market.request_id)[0].sealed_blob]
        assert sealed[0] in tx.references.named()
    market.settle()
    market.clock.advance(181 * 86400)
    erasure.retain(market.desk)
    erasure.sweep(market.desk)
    assert garbage.collect(market.desk).unnamed == 0
    market.check_log()
