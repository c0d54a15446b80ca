"""Markets of consent, moved by hand."""

import pytest
from consenting import make_app, make_market

from clearinghouse.client.loopback import app_client
from clearinghouse.clock import FixedClock


@pytest.fixture
def clock():
    return FixedClock()


@pytest.fixture
def build(tmp_path, clock):
    """Makes a gathered market on a database."""
    opened = []

    def make(url="", **grants):
        app = make_app(tmp_path, url, clock)
        app.state.runner.pool.start()
        client = app_client(app)
        opened.append((app, client.__enter__(), client))
        markets.append(make_market(tmp_path, opened[-1][1], app, clock, **grants))
        return markets[-1]

    markets = []
    yield make
    for _, _, client in opened:
        client.__exit__(None, None, None)
    for market in markets:
        if "sqlite" in market.desk.settings.url:  # the other database is gone by now
            market.check_world()
    for app, _, _ in opened:
        app.state.runner.pool.close()
        app.state.desk.store.close()


@pytest.fixture
def market(build):
    return build()
