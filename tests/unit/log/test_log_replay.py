"""Replay: a whole market told by its entries."""

from dataclasses import replace

from told_market import ASKS, Market

from clearinghouse.canonical import digest
from clearinghouse.ids import new_id
from clearinghouse.log.replay import MAX_VIOLATIONS, replay, verify_replay


def test_log_replay_recomputes_a_whole_market(market: Market) -> None:
    found = verify_replay(market.entries)
    assert found.violations == ()
    assert found.epsilon_by_owner == {
        market.hospital.org: 1_250_000,
        **{seller.org: 1_000_000 for seller in market.sellers.values()},
    }
    assert found.epsilon_by_data == {
        market.valset: 1_250_000,
        **dict.fromkeys(market.sources.values(), 1_000_000),
    }
    story = found.requests[market.request]
    assert story.asks == {market.sources[name]: ask for name, ask in ASKS.items()}
    assert story.runs == {market.run: market.model}
    assert (story.escrow_micro, story.purse_micro) == (900_000_000, 300_000_000)
    assert story.closed == market.at("request.closed")
    assert story.failed is False


def test_log_replay_every_prefix_of_a_good_log_is_good(market: Market) -> None:
    """An auditor who comes in the middle of a market finds nothing wrong with it."""
    for size in range(len(market.entries)):
        assert replay(market.entries[:size]).violations == ()


def test_log_replay_a_request_that_failed_has_a_statement_but_no_award(market: Market) -> None:
    cut = market.entries[: market.at("clearing.decided")]
    plain = replace(market.statement(), hashes={"statement": digest(b"statement")})
    found = verify_replay([*cut, plain, market.close(failed=1)])
    assert found.requests[market.request].failed is True


def test_log_replay_a_failed_run_pays_epsilon_and_gets_no_receipt(market: Market) -> None:
    run = new_id("run")
    words = digest({"run": run, "failed": True})
    failed = [market.begin(run), market.release(run, words, fault=market.developer.org)]
    place = market.at("bid.revealed")
    entries = [*market.entries[:place], *failed, *market.entries[place:]]
    assert verify_replay(entries).epsilon_by_owner[market.hospital.org] == 2_000_000
    entries.insert(place + 2, market.receipt(run))
    found = replay(entries).violations
    assert [(item.index, item.problem) for item in found] == [
        (place + 2, f"names {run}, which failed")
    ]


def test_log_replay_leaving_out_any_entry_is_found_where_a_later_one_needs_it(
    market: Market,
) -> None:
    # Registrations are `verify_entries`' to miss (no key may act without); a confirmation, a
    # receipt and an end that have not come yet are no breach.
    may_lack = {
        "org.registered",
        "delivery.received",
        "receipt.issued",
        "bid.revealed",
        "request.closed",
        "dispute.answered",
        "dispute.resolved",
    }
    for place, entry in enumerate(market.entries[1:], start=1):
        rest = market.entries[:place] + market.entries[place + 1 :]
        assert bool(replay(rest).violations) == (entry.type not in may_lack), entry.type


def test_log_replay_reports_a_flood_up_to_its_limit(market: Market) -> None:
    flood = [market.close() for _ in range(MAX_VIOLATIONS + 50)]
    assert len(replay([*market.entries, *flood]).violations) == MAX_VIOLATIONS
