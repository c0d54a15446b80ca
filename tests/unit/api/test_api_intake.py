"""What is declared must fit: schemas, sources, summaries, sealed sets, terms."""

import json

import pytest

from dp import size


def test_a_schema_has_one_id(market, party, schema, problem):
    again = party().post("/v1/schemas", {"body": schema}).json()
    assert again["id"] == market.schema_id
    assert again["body"] == schema
    loose = {**schema, "columns": {"sex": {"kind": "category", "levels": ["F", "M"]}}}
    assert "normal form" in problem(party().post("/v1/schemas", {"body": loose}), 422, "bad-input")
    problem(party().post("/v1/schemas", {"body": {"name": "x"}}), 422, "bad-input")


def test_a_summary_is_published_once(market, problem):
    path = f"/v1/sources/{market.source_id}/summary"
    assert market.provider.get(f"/v1/sources/{market.source_id}").json()["published"]
    assert market.provider.post(path, market.summary).status_code == 200
    other = {**market.summary, "counts": [11, 20, 15, 19]}
    problem(market.provider.post(path, other), 409, "conflict")
    entries = market.provider.get("/v1/log/entries").json()["entries"]
    released = [json.loads(entry) for entry in entries if "summary.released" in entry]
    assert len(released) == 1
    assert released[0]["amounts"] == {"epsilon_micro": 1_000_000}


@pytest.mark.parametrize(
    "change",
    [
        {"level": ["age"]},
        {"level": []},
        {"counts": [1, 2, 3]},
        {"epsilon_micro": 0},
        {"counts": [1, 2, 3, 2**40]},
        {"counts": [2**30, 2**30, 0, 0]},
    ],
)
def test_a_summary_must_fit_its_schema(market, change, problem):
    fresh = market.provider.post(
        "/v1/sources",
        {
            "name": "second",
            "schema_id": market.schema_id,
            "size_class": 4,
            "rows_root": "1" * 64,
            "leaves": 8,
        },
    ).json()
    path = f"/v1/sources/{fresh['id']}/summary"
    problem(market.provider.post(path, {**market.summary, **change}), 422, "bad-input")
    assert not market.provider.get(f"/v1/sources/{fresh['id']}").json()["published"]


def test_a_noised_size_is_logged_with_its_cost_and_decides_class_and_leaves(market, problem):
    cost = 100_000
    body = {
        "name": "shy",
        "schema_id": market.schema_id,
        "size_class": size.size_class(300, cost),
        "rows_root": "2" * 64,
        "leaves": size.room(300, cost),
        "size_release": {"noised": 300, "epsilon_micro": cost},
    }
    for change in (
        {"size_class": 2 * body["size_class"]},
        {"leaves": 2 * body["leaves"]},
        {"size_release": {"noised": 900, "epsilon_micro": cost}},
        {"size_release": {"noised": 300, "epsilon_micro": 9_999}},
    ):
        problem(market.provider.post("/v1/sources", {**body, **change}), 422, "bad-input")
    source = market.provider.post("/v1/sources", body).json()["id"]
    entries = market.provider.get("/v1/log/entries").json()["entries"]
    (released,) = [json.loads(entry) for entry in entries if "size.released" in entry]
    assert released["objects"] == {"source": source, "owner": market.provider.org_id}
    assert released["amounts"] == {"epsilon_micro": cost}


@pytest.mark.parametrize(
    "change",
    [{"size_class": 3}, {"leaves": 100}, {"leaves": 64}, {"rows_root": "xyz"}],
)
def test_a_source_declares_powers_of_two(market, change, problem):
    source = {
        "name": "x",
        "schema_id": market.schema_id,
        "size_class": 64,
        "rows_root": "1" * 64,
        "leaves": 128,
    }
    problem(market.provider.post("/v1/sources", {**source, **change}), 422, "bad-input")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", "bfv-1"),
        ("n_blocks", 2),
        ("columns", 3),
        ("labels", 3),
        ("cells", 1),
        ("groups", []),
        ("n", 100),
    ],
)
def test_a_sealed_set_has_the_shape_of_its_schema(market, field, value, problem):
    layout = {**market.valset()["layout"], field: value}
    problem(market.hospital.post("/v1/valsets", market.valset(layout=layout)), 422, "bad-input")


def test_a_sealed_set_names_blobs_that_are_there(market, problem):
    missing = market.valset(upload_blobs=["9" * 64])
    problem(market.hospital.post("/v1/valsets", missing), 422, "bad-input")


def test_terms_must_fit(market, party, problem):
    purse = market.terms()["purse"]
    for change in (
        {"source_ids": [market.source_id, market.source_id]},
        {"developer_ids": [market.developer.org_id] * 2},
        {"developer_ids": [market.provider.org_id]},
        {"tariff_micro": 0},
        {"fairness_pot_micro": 200_000},
        {"purse": {**purse, "confidence_micro": 1_000_000}},
        {"purse": {**purse, "confidence_micro": 400_000}},
        {"purse": {**purse, "threshold_micro": 1_000_001}},
        {"share_cap_micro": 1_000_000},
        {"records": 10_000_000, "tariff_micro": 2**50},
        {"distance_price_micro": 2**53 - 1},
        {"label_cost_micro": 2**53 - 1, "records": 100_000},
    ):
        answer = market.hospital.post("/v1/requests", market.terms(**change))
        problem(answer, 422, "bad-input")
    problem(
        market.hospital.post("/v1/requests", market.terms(source_ids=["src_" + "0" * 20])),
        404,
        "not-found",
    )


def test_an_unpublished_source_cannot_be_asked(market, problem):
    fresh = market.provider.post(
        "/v1/sources",
        {
            "name": "second",
            "schema_id": market.schema_id,
            "size_class": 4,
            "rows_root": "1" * 64,
            "leaves": 8,
        },
    ).json()
    answer = market.hospital.post("/v1/requests", market.terms(source_ids=[fresh["id"]]))
    problem(answer, 409, "refused")


def test_the_log_tells_of_all_of_it(market):
    market.wait_for_task()  # nothing moves on before it is answered
    entries = market.hospital.get("/v1/log/entries").json()
    kinds = [json.loads(entry)["type"] for entry in entries["entries"]]
    assert kinds == [
        "org.registered",  # the server itself
        *["org.registered"] * 4,
        "source.registered",
        "summary.released",
        "grant.given",
        "valset.sealed",
        "request.opened",
        "run.begun",
    ]
    assert entries["size"] == len(kinds)
    page = market.hospital.get("/v1/log/entries?start=5&limit=2").json()
    assert page["entries"] == entries["entries"][5:7]
