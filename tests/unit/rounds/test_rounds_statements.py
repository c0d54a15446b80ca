"""Statements: every line has its time and words, and all amounts are in one currency."""

import pytest
from desk_market import DeskMarket

from clearinghouse.errors import InputError
from clearinghouse.report.statement import statement_html, what_words
from clearinghouse.rounds import deposits, opening, statements


@pytest.fixture
def market(tmp_path):
    made = DeskMarket(tmp_path / "server")
    yield made
    made.close()


def of(market, org):
    with market.read() as tx:
        return statements.of_org(tx, org.id)


def opened(market, terms):
    with market.write() as tx:
        return opening.open_request(tx, market.desk, market.hospital, terms)


def test_a_deposit_is_dated_when_it_is_put_up_and_when_it_ends(market):
    (source, _), (seller, _) = market.sources, market.sellers
    begun = int(market.clock.now())
    with market.write() as tx:
        deposits.hold(tx, market.request(tx), source, 700, begun)
    market.clock.advance(60)
    with market.write() as tx:
        deposits.release(tx, market.desk, market.request(tx), source)
    found = of(market, seller)
    assert [(line.at_s, line.amount_micro, line.balance_micro) for line in found.lines] == [
        (begun, -700, -700),
        (begun + 60, 700, 0),
    ]
    assert [what_words(line).split(" (")[0] for line in found.lines] == [
        "deposit",
        "deposit returned",
    ]
    assert "deposit returned" in statement_html(found)


def test_every_act_of_a_whole_request_has_a_time(market):
    market.clock.advance(5)
    for number in range(2):
        market.deliver(number, market.orders[number].units)
    market.confirm()
    market.score(0)
    market.settle()
    lines = [line for org in (market.hospital, *market.sellers) for line in of(market, org).lines]
    assert len(lines) == 4  # put in, returned, and two deliveries
    assert min(line.at_s for line in lines) > 0


def test_the_books_have_one_currency(market):
    assert of(market, market.sellers[0]).currency == "EUR"
    other = market.terms.model_copy(update={"currency": "USD"})
    with pytest.raises(InputError, match="keeps its books in EUR, and the request is in USD"):
        opened(market, other)
    again = opened(market, market.terms)
    assert again.id != market.request_id
