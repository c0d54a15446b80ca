"""Mistakes in a source file, in its table and in what is sold of it: named, at no cost."""

import os
from pathlib import Path

import pytest
import yaml
from refusals import UNKNOWN, refused

from clearinghouse.cli.profile import session
from clearinghouse.cli.provider import open_provider
from clearinghouse.errors import NoGrantError, RefusedError
from clearinghouse.messages.deliveries import DeliverTask, Recipient
from clearinghouse.messages.tasks import TaskView

SOURCE = {"name": "a", "table": "cleveland.csv", "schema": "schema.yaml", "price_per_record": "2"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"price_per_record": "cheap"}, ("price_per_record", "decimal", "'cheap'")),
        ({"price_per_record": "-1"}, ("price_per_record",)),
        ({"price_per_record": None}, ("price_per_record", "missing")),
        ({"table": "gone.csv"}, ("table", "gone.csv", "does not exist")),
        ({"size_class": 200}, ("size_class", "power of two", "128")),
        ({"size_class": 512}, ("512", "above the table's rows")),
        ({"epsilon": 0}, ("epsilon", "above 0")),
        ({"epsilon": "a lot"}, ("epsilon", "number")),
        ({"epsilon_limit": "0.5"}, ("epsilon_limit", "at least epsilon")),
        ({"epsilon_size": 0}, ("epsilon_size", "above 0")),
        ({"epsilon_size": "0.1", "size_class": 64}, ("epsilon_size", "exclude each other")),
        ({"epsilon_size": "0.1", "epsilon_limit": 1}, ("epsilon_limit", "epsilon_size")),
        ({"prise": 1}, ("prise", "Known keys")),
        ({"purposes": "all"}, ("purposes", "list")),
        ({"purposes": ["sell on"]}, ("purposes", "train models for care", "'sell on'")),
        ({"grants": "all"}, ("grants", "list")),
        ({"grants": [{"recipient": "ada"}]}, ("grants[0].recipient", "developers", "'ada'")),
        ({"grants": [{"purpose": "fun"}]}, ("grants[0].purpose", "train models", "'fun'")),
        ({"grants": [{"days": 0}]}, ("grants[0].days", "at least 1")),
        ({"grants": [{"days": 4000}]}, ("grants[0].days", "at most 3650")),
        ({"grants": [{"until": "2030"}]}, ("grants[0].until", "Known keys")),
        ({"grants": [], "purposes": ["train models"]}, ("purposes", "left out beside grants")),
    ],
)
def test_a_bad_source_file_names_its_key(cli, home, files, tmp_path, change, words) -> None:
    mine = home("provider")
    terms = {**SOURCE, "table": str(files / "cleveland.csv"), "schema": str(files / "schema.yaml")}
    terms = {key: value for key, value in {**terms, **change}.items() if value is not None}
    file = tmp_path / "source.yaml"
    file.write_text(yaml.safe_dump(terms))
    refused(cli("source", "preview", file), 2, str(file), *words)
    refused(cli("source", "register", file, "--home", mine), 2, str(file), *words)
    assert not (mine / "ledger.sqlite").exists()
    assert not (mine / "source.json").exists()


def test_a_table_that_breaks_the_schema_is_named_with_its_row(cli, files, tmp_path) -> None:
    table = tmp_path / "bad.csv"
    rows = (files / "cleveland.csv").read_text().splitlines()
    rows[3] = rows[3].replace(rows[3].split(",")[0], "999", 1)
    table.write_text("\n".join(rows))
    file = tmp_path / "source.yaml"
    file.write_text(
        yaml.safe_dump({**SOURCE, "table": str(table), "schema": str(files / "schema.yaml")})
    )
    refused(cli("source", "preview", file), 2, str(table), "row 3", "999")


def register_source(cli, home, files: Path, tmp_path: Path, **changes: object) -> tuple[Path, Path]:
    mine, file = home("provider", "seller"), tmp_path / "source.yaml"
    table = tmp_path / "table.csv"
    table.write_bytes((files / "cleveland.csv").read_bytes())
    terms = {**SOURCE, "table": str(table), "schema": str(files / "schema.yaml"), **changes}
    file.write_text(yaml.safe_dump(terms))
    assert cli("source", "register", file, "--home", mine).code == 0
    return mine, file


def test_what_was_published_cannot_change_and_a_price_can(cli, home, files, tmp_path) -> None:
    mine, file = register_source(cli, home, files, tmp_path)
    terms = yaml.safe_load(file.read_text())
    for change in (
        {"name": "b"},
        {"epsilon": "2.0"},
        {"size_class": 128},
        {"epsilon_limit": 3},
        {"purposes": ["train models for care"]},
    ):
        file.write_text(yaml.safe_dump({**terms, **change}))
        refused(cli("source", "register", file, "--home", mine), 2, "--home")
    file.write_text(yaml.safe_dump({**terms, "price_per_record": "3.00"}))
    again = cli("source", "register", file, "--home", mine, "--json")
    assert (again.code, again.value["spent"]) == (0, "1.00")
    assert '"ask_micro":3000000' in (mine / "source-terms.json").read_text()


def test_a_source_of_undeclared_size_publishes_a_noised_one(cli, home, files, tmp_path) -> None:
    terms = {"epsilon": "0.9", "epsilon_size": "0.1"}
    mine, file = register_source(cli, home, files, tmp_path, **terms)
    told = cli("budget", "show", "--home", mine, "--json").value
    assert [item["purpose"] for item in told["releases"]] == ["size", "summary"]
    assert (told["spent"], told["limit"]) == ("1.00", "1.00")
    shown = cli("source", "show", "--home", mine, "--json").value
    assert shown["size_class"] == told["size_class"]
    assert shown["leaves"] >= 512  # 303 rows, and room for the noise
    preview = cli("source", "preview", file).out
    assert "with noise, for epsilon 0.10 more" in preview


def test_a_damaged_ledger_is_said_so(cli, home, files, tmp_path) -> None:
    mine, _ = register_source(cli, home, files, tmp_path)
    for path in mine.glob("ledger.sqlite*"):
        path.unlink()
    (mine / "ledger.sqlite").write_bytes(b"not a database" * 100)
    refused(cli("budget", "show", "--home", mine), 3, "ledger.sqlite", "damaged")


def test_a_changed_or_absent_table_is_found_before_it_is_sold(cli, home, files, tmp_path) -> None:
    mine, _ = register_source(cli, home, files, tmp_path)
    table = tmp_path / "table.csv"
    whole = table.read_text()
    assert cli("source", "deliver", "--home", mine).code == 0
    table.write_text("\n".join(whole.splitlines()[:-1]))
    refused(cli("source", "deliver", "--home", mine), 2, "not the table that was committed")
    table.unlink()
    refused(cli("source", "deliver", "--home", mine), 2, str(table))
    found = cli("doctor", "--home", mine)
    assert (found.code, "is gone" in found.out) == (3, True)


def test_records_are_not_delivered_without_a_grant_of_this_home(cli, home, files, tmp_path) -> None:
    research = "train models for research"
    mine, _ = register_source(cli, home, files, tmp_path, purposes=[research])
    with session(mine, None, role="provider") as opened:
        provider = open_provider(opened)
        (grant,) = provider.consents.granted()
        recipient = Recipient(
            org_id="org_" + UNKNOWN,
            grant_id=grant.id,
            age_recipient=opened.keystore.age_recipient,
        )

        def order(purpose, columns=provider.consents.columns, who=recipient):
            task = DeliverTask(
                order_id="ord_" + UNKNOWN,
                source_id=provider.source_id,
                level=[],
                quota=[0, 0],
                draw_seed="00" * 32,
                purpose=purpose,
                attributes=list(columns),
                recipients=[who],
            )
            ids = {"id": "tsk_" + UNKNOWN, "request_id": "req_" + UNKNOWN}
            return provider.handle(TaskView(**ids, deadline=0, task=task))

        with pytest.raises(NoGrantError, match="it is for 'train models for research'"):
            order("train models")
        with pytest.raises(NoGrantError, match="all columns"):
            order(research, provider.consents.columns[1:])
        stranger = recipient.model_copy(update={"grant_id": "grt_" + UNKNOWN})
        with pytest.raises(NoGrantError, match="no grant of src_"):
            order(research, who=stranger)
        with pytest.raises(RefusedError, match="made no ask"):
            order(research)
        assert cli("grant", "withdraw", grant.id, "--home", mine).code == 0
        with pytest.raises(NoGrantError, match="it was withdrawn"):
            order(research)


def test_a_second_command_in_a_home_waits_its_turn(cli, home, files, tmp_path) -> None:
    import fcntl

    mine, _ = register_source(cli, home, files, tmp_path)
    handle = os.open(mine / "work.lock", os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        refused(cli("source", "deliver", "--home", mine), 5, "another command is at work")
    finally:
        os.close(handle)
    assert cli("source", "deliver", "--home", mine).code == 0


def spoil(rows: list[str], header: list[str], how: str) -> list[str]:
    """A table with one fault; the header is kept."""
    if how == "empty":
        return []
    if how == "out of bounds":
        return [",".join(["999", *rows[0].split(",")[1:]]), *rows[1:]]
    if how == "a value for no column":
        return [f"{row},7" for row in rows]
    if how == "all missing":
        at = header.index("cp")
        return [",".join([*(c := row.split(","))[:at], "", *c[at + 1 :]]) for row in rows]
    if how == "unknown label":
        return [",".join([*rows[0].split(",")[:-1], "7"]), *rows[1:]]
    raise AssertionError(how)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("empty", "no rows"),
        ("out of bounds", "outside the declared bounds"),
        ("a value for no column", "cells"),
        ("all missing", "missing"),
        ("unknown label", "not a declared level"),
    ],
)
def test_a_bad_table_publishes_nothing_and_costs_nothing(
    cli, home, files, tmp_path, how, words
) -> None:
    header, *rows = (files / "cleveland.csv").read_text().splitlines()
    table = tmp_path / "table.csv"
    table.write_text("\n".join([header, *spoil(rows, header.split(","), how)]) + "\n")
    nothing_happens(cli, home, tmp_path, table, files / "schema.yaml", words)


def test_a_repeated_patient_publishes_nothing_and_costs_nothing(cli, home, files, tmp_path) -> None:
    schema = yaml.safe_load((files / "schema.yaml").read_text())
    with_ids = tmp_path / "schema.yaml"
    with_ids.write_text(yaml.safe_dump({**schema, "patient_id": "patient"}))
    header, *rows = (files / "cleveland.csv").read_text().splitlines()
    table = tmp_path / "table.csv"
    ids = ["p1", "p2", "p1", *(f"q{i}" for i in range(len(rows) - 3))]
    lines = [f"{row},{name}" for row, name in zip(rows, ids, strict=True)]
    table.write_text("\n".join([f"{header},patient", *lines]) + "\n")
    nothing_happens(cli, home, tmp_path, table, with_ids, "patient")


def nothing_happens(cli, home, tmp_path: Path, table: Path, schema: Path, words: str) -> None:
    """A provider and a hospital are both refused in words, before anything leaves or is paid."""
    seller, clinic = home("provider", "seller"), home("hospital", "clinic")
    file = tmp_path / "source.yaml"
    terms = {**SOURCE, "table": str(table), "schema": str(schema)}
    file.write_text(yaml.safe_dump({key: value for key, value in terms.items() if value}))
    refused(cli("source", "preview", file), 2, words)
    refused(cli("source", "register", file, "--home", seller), 2, words)
    refused(cli("valset", "seal", table, "--schema", schema, "--home", clinic), 2, words)
    for place in (seller, clinic):
        left = {path.name for path in place.iterdir()}
        assert not left & {"ledger.sqlite", "source.json", "valset.json", "rows.seed"}
        told = cli("budget", "show", "--home", place, "--json").value
        assert (told["spent"], told["releases"]) == ("0.00", [])
