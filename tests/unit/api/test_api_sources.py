"""The list of sources: page by page, each source once, also for clients and for people."""

import pytest

from clearinghouse.client import listing
from clearinghouse.client.listing import list_sources
from clearinghouse.client.transport import Transport


@pytest.fixture
def ids(market):
    """Five more sources of the market's schema and one of another, in order."""
    other = {**market.hospital.get(f"/v1/schemas/{market.schema_id}").json()["body"], "name": "new"}
    other_id = market.hospital.post("/v1/schemas", {"body": other}).json()["id"]
    body = {"name": "more", "size_class": 1, "leaves": 2}
    made = [
        market.provider.post(
            "/v1/sources", {**body, "schema_id": schema_id, "rows_root": str(number) * 64}
        ).json()
        for number, schema_id in enumerate([market.schema_id] * 5 + [other_id])
    ]
    everything = sorted([market.source_id, *(item["id"] for item in made)])
    return everything, [name for name in everything if name != made[-1]["id"]]


def read(party, query):
    """All pages of a list, and how many sources each had."""
    found, sizes, cursor = [], [], ""
    while True:
        page = party.get(f"/v1/sources?{query}{cursor}").json()
        found += [item["id"] for item in page["sources"]]
        sizes.append(len(page["sources"]))
        if page["next_cursor"] is None:
            return found, sizes
        assert len(sizes) < 10
        cursor = f"&cursor={page['next_cursor']}"


@pytest.mark.parametrize(
    ("limit", "sizes"), [(1, [1] * 7), (2, [2, 2, 2, 1]), (7, [7]), (200, [7])]
)
def test_pages_have_every_source_once_in_order(market, ids, limit, sizes):
    assert read(market.outsider, f"limit={limit}") == (ids[0], sizes)
    of_schema = read(market.outsider, f"limit={limit}&schema_id={market.schema_id}")
    assert of_schema[0] == ids[1]
    states = market.outsider.get("/v1/sources?limit=200").json()["sources"]
    assert [item["id"] for item in states if item["published"]] == [market.source_id]


def test_what_is_no_page_is_refused(market, problem):
    for query in ("limit=0", "limit=201", "limit=x", "cursor=", "cursor=%00", "cursor=1.2"):
        problem(market.outsider.get(f"/v1/sources?{query}"), 422, "bad-input")


def test_a_client_reads_all_pages(market, ids, client, monkeypatch):
    monkeypatch.setattr(listing, "PAGE", 2)
    party = market.outsider
    transport = Transport("http://testserver", party.key, party.clock, client, attempts=1)
    assert [item.id for item in list_sources(transport)] == ids[0]
    assert [item.id for item in list_sources(transport, market.schema_id)] == ids[1]
