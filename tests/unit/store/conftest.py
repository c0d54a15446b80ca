"""A store on a fresh database: every test runs on SQLite and on PostgreSQL."""

import pytest

from clearinghouse.ids import new_id
from clearinghouse.messages.intake import OpenRequest, Purse
from clearinghouse.store.records import Org, Request, SchemaRecord, Valset
from clearinghouse.store.store import Store


@pytest.fixture
def store(store_url):
    opened = Store(store_url)
    yield opened
    opened.close()


def make_terms(valset_id, source_id, developer_id):
    return OpenRequest(
        valset_id=valset_id,
        source_ids=[source_id],
        developer_ids=[developer_id],
        records=10,
        currency="EUR",
        tariff_micro=6_000_000,
        distance_price_micro=1_000_000,
        share_cap_micro=1_500_000,
        fee_micro=50_000,
        epsilon_target_micro=500_000,
        epsilon_score_micro=1_000_000,
        purse=Purse(
            kind="acceptance",
            amount_micro=300_000_000,
            metric="auc",
            threshold_micro=700_000,
            confidence_micro=900_000,
        ),
    )


@pytest.fixture
def request_id(store):
    """A stored running request of `hospital`."""
    org = Org(new_id("org"), "h", "hospital", new_id("key"), "x", None)
    terms = make_terms(new_id("val"), new_id("src"), new_id("org"))
    request = Request(
        new_id("req"), org.id, terms.valset_id, terms, "0" * 64, "match", "running", "", 0
    )
    with store.write() as tx:
        tx.parties.add(org)
        tx.cohorts.add_schema(SchemaRecord("sch_1", "d", "{}"))
        tx.cohorts.add_valset(Valset(terms.valset_id, org.id, "sch_1", "{}"))
        tx.requests.add(request, [], 1000.0)
    return request.id


@pytest.fixture
def org_id(store, request_id):
    with store.read() as tx:
        return tx.requests.get(request_id).org_id
