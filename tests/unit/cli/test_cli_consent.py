"""Consent by hand: giving and listing grants, what an open request would want, leaving, keeping."""

import json
from pathlib import Path

import pytest
import yaml

from clearinghouse.cli.open_requests import open_requests, request_words
from clearinghouse.client.consents import GrantTerms
from clearinghouse.client.keystore import Keystore
from clearinghouse.consent import DISCLOSURE

UNKNOWN = "0" * 20


@pytest.fixture
def seller(cli, home, files, tmp_path) -> Path:
    """The home of a provider whose source is registered, with the grant it gives by default."""
    mine, file = home("provider", "seller"), tmp_path / "source.yaml"
    table = tmp_path / "table.csv"
    table.write_bytes((files / "cleveland.csv").read_bytes())
    terms = {"name": "seller", "table": str(table), "schema": str(files / "schema.yaml")}
    file.write_text(yaml.safe_dump({**terms, "price_per_record": "2.00"}))
    assert cli("source", "register", file, "--home", mine).code == 0
    return mine


def refused(found, code: int, *words: str) -> None:
    assert found.code == code, found
    assert all(word in " ".join(found.errors) for word in words), found.errors


def test_grants_are_given_listed_and_refused_in_words(cli, home, seller) -> None:
    give = ("grant", "give", "--home", seller)
    ada = json.loads(cli("org", "show", "--home", home("developer", "ada"), "--json").out)["id"]
    refused(cli(*give, "--purpose", "sell on"), 2, "--purpose must be one of", "train models")
    refused(cli(*give, "--days", 0), 2, "--days")
    refused(cli(*give, "--days", 4000), 2, "--days")
    refused(cli(*give, "--recipient", "ada"), 4, "organisation")
    refused(cli(*give, "--recipient", f"org_{UNKNOWN}"), 4, "no organisation")
    refused(cli(*give, "--column", "income"), 2, "columns of the schema")
    refused(cli(*give, "--sender", "ada"), 4, "organisation")
    assert len(cli("grant", "list", "--home", seller, "--json").value["grants"]) == 1
    words = cli(*give, "--recipient", ada, "--purpose", "train models for care", "--days", 9).out
    assert DISCLOSURE in words
    assert f"{ada} may 'train models for care' with all columns for 9 days" in words
    onward = cli(*give, "--recipient", ada, "--sender", ada, "--column", "sex", "--json").value
    assert (onward["sender"], onward["attributes"]) == (ada, ["sex"])
    listed = cli("grant", "list", "--home", seller, "--json").value
    assert len(listed["grants"]) == 3
    assert listed["refused"] == []
    for grant in listed["grants"]:
        assert grant["uses"] == []
        assert grant["id"] in cli("grant", "list", "--home", seller).out
    ended = next(grant for grant in listed["grants"] if grant["recipient"] == ada)
    assert cli("grant", "withdraw", ended["id"], "--home", seller).code == 0
    refused(cli("grant", "withdraw", f"grt_{UNKNOWN}", "--home", seller), 4, "no grant")
    assert "withdrawn 20" in cli("grant", "list", "--home", seller).out


def test_who_has_no_source_gives_nothing_and_who_is_named_sees_its_grant(cli, home, seller) -> None:
    ada = home("developer", "ada")
    refused(cli("grant", "give", "--home", ada), 2, "--home")
    assert "no grant was given yet" in cli("grant", "list", "--home", ada).out
    bare = home("provider", "bare")
    refused(cli("grant", "give", "--home", bare), 3, "has no registered source")
    refused(cli("source", "withdraw", "--home", bare), 3, "has no registered source")
    name = json.loads(cli("org", "show", "--home", ada, "--json").out)["id"]
    assert cli("grant", "give", "--recipient", name, "--home", seller).code == 0
    (seen,) = cli("grant", "list", "--home", ada, "--json").value["grants"]
    assert seen["recipient"] == name


def test_a_source_that_leaves_is_wiped_and_keeps_what_it_spent(cli, seller) -> None:
    keys = Keystore.open(seller)
    assert keys.path("rows.seed").exists()
    left = cli("source", "withdraw", "--home", seller, "--yes", "--json")
    assert left.code == 0, left.errors
    assert left.value["withdrawn"]
    assert not keys.path("rows.seed").exists()
    told = cli("budget", "show", "--home", seller, "--json").value
    assert told["spent"] == "1.00"
    refused(cli("grant", "give", "--home", seller), 3, "was withdrawn by its owner")
    deliver = cli("source", "deliver", "--home", seller)
    assert (deliver.code == 0) <= ("0 tasks" in deliver.out)
    again = cli("source", "withdraw", "--home", seller, "--json").value
    assert again["withdrawn"] == left.value["withdrawn"]
    words = cli("source", "withdraw", "--home", seller).out
    assert "is withdrawn, and wiped here" in words
    shown = cli("source", "list", "--home", seller, "--json").value
    text = json.dumps(shown)
    assert left.value["source_id"] not in text or '"withdrawn": true' in text


def test_retention_says_what_is_kept_and_sweeps_what_is_due(cli, server_data, tmp_path) -> None:
    shown = cli("retention", "show", "--data", server_data, "--json")
    assert shown.code == 0, shown.errors
    assert (shown.value["keep_deliveries_days"], shown.value["keep_ciphertexts_days"]) == (90, 180)
    assert shown.value["due"] == []
    assert "stay 180 days, deliveries 90" in cli("retention", "show", "--data", server_data).out
    swept = cli("retention", "sweep", "--data", server_data, "--json")
    assert swept.value["blobs"] == 0
    for act in ("show", "sweep"):
        refused(cli("retention", act, "--data", tmp_path / "nowhere"), 2, "nowhere")


def test_a_preview_without_a_server_says_that_it_asked_nobody(cli, files, tmp_path) -> None:
    file = tmp_path / "source.yaml"
    terms = {"name": "x", "table": str(files / "va.csv"), "schema": str(files / "schema.yaml")}
    file.write_text(yaml.safe_dump({**terms, "price_per_record": "2.00"}))
    shown = cli("source", "preview", file, "--home", tmp_path / "none", "--json").value
    assert shown["open_requests"]["asked"] is False
    words = cli("source", "preview", file, "--home", tmp_path / "none").out
    assert "open requests were not asked for" in words


def test_a_preview_with_a_server_lists_no_request_where_none_is_open(cli, files, seller) -> None:
    terms = yaml.safe_load((seller.parent / "source.yaml").read_text())
    file = seller.parent / "again.yaml"
    file.write_text(yaml.safe_dump(terms))
    shown = cli("source", "preview", file, "--home", seller, "--json").value
    assert shown["open_requests"] == {"asked": True, "reason": "", "requests": []}
    assert (
        "no request of this schema is open today"
        in cli("source", "preview", file, "--home", seller).out
    )


def test_words_of_an_open_request_say_what_it_wants_and_whether_grants_cover_it() -> None:
    """The words; that the server lists open requests so is tested with a real market."""
    row = {
        "id": f"req_{UNKNOWN}",
        "records": 40,
        "tariff_micro": 6_000_000,
        "currency": "EUR",
        "purpose": "train models",
        "granted": False,
        "price_fits": True,
        "held_here": 7,
        "wanted": [{"cell": "sex F", "label": "yes", "records": 12}],
    }
    lines = request_words(
        {
            "asked": True,
            "requests": [row, {**row, "wanted": [], "granted": True, "price_fits": False}],
        }
    )
    assert "40 records, up to 6.00 EUR each, to 'train models'; YOUR GRANTS DO NOT" in lines[1]
    assert "wants 12 of sex F / yes" in lines[2]
    assert "your table holds 7 of these" in lines[3]
    assert lines[4].endswith("'train models'; YOUR PRICE IS ABOVE IT")
    assert "its target is not open yet" in lines[5]
    assert open_requests(None, None, [GrantTerms()], 0)["asked"] is False  # type: ignore[arg-type]
