"""Mistakes of people: one line that says what, where and what to do; a code; nothing written."""

import os
from pathlib import Path

import pytest
import yaml

from clearinghouse.cli.profile import session
from clearinghouse.cli.provider import open_provider
from clearinghouse.errors import NoGrantError, RefusedError
from clearinghouse.messages.deliveries import DeliverTask, Recipient
from clearinghouse.messages.tasks import TaskView

UNKNOWN = "0" * 20
NOUNS = {
    ("org", "show"): "org_",
    ("source", "show"): "src_",
    ("valset", "show"): "val_",
    ("request", "show"): "req_",
    ("run", "list"): "req_",
    ("model", "list"): "req_",
    ("price", "list"): "req_",
    ("receipt", "show"): "rcp_",
    ("run", "show"): "run_",
    ("model", "show"): "mod_",
}


def refused(outcome, code: int, *words: str) -> None:
    """One line, the code, every word in it, and nothing on stdout."""
    assert outcome.code == code, outcome.errors
    (message,) = outcome.errors
    assert "\n" not in message
    assert message.startswith("error: ")
    for word in words:
        assert word in message
    assert outcome.out == ""


@pytest.mark.parametrize("command", NOUNS, ids=" ".join)
def test_an_id_the_server_does_not_know_is_4(cli, home, command) -> None:
    mine = home("hospital")
    for text in (NOUNS[command] + UNKNOWN, "nonsense", "../orgs"):
        refused(cli(*command, text, "--home", mine), 4, text)


def test_a_server_that_is_away_is_5(cli, tmp_path) -> None:
    mine = tmp_path / "mine"
    away = "http://127.0.0.1:9"
    assert cli("init", "--role", "hospital", "--name", "x", "--server", away, "--home", mine)
    refused(cli("org", "register", "--home", mine), 5, "away", "later")
    assert not (mine / "organisation.json").exists()


def test_another_partys_call_is_refused(cli, home, server, tmp_path) -> None:
    mine = tmp_path / "unregistered"
    assert cli("init", "--role", "provider", "--name", "x", "--server", server, "--home", mine)
    refused(cli("source", "list", "--home", mine), 3, "org register")
    registered = home("provider", "registered")
    (registered / "signing.pem").write_bytes((mine / "signing.pem").read_bytes())
    refused(cli("source", "list", "--home", registered), 3, "org register", "doctor")


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701])
def test_a_home_that_others_can_read_is_refused(cli, home, mode) -> None:
    mine = home("hospital")
    mine.chmod(mode)
    refused(cli("org", "show", "--home", mine), 2, f"chmod 700 {mine}")
    mine.chmod(0o700)
    assert cli("org", "show", "--home", mine).code == 0


def test_a_folder_that_is_no_home_is_not_made_into_one(cli, tmp_path) -> None:
    refused(cli("org", "show", "--home", tmp_path / "no"), 2, "clearinghouse init")
    assert not (tmp_path / "no").exists()


def test_a_command_of_another_role_is_refused(cli, home, files) -> None:
    mine = home("developer")
    seal = ("valset", "seal", files / "va.csv", "--schema", files / "schema.yaml")
    refused(cli(*seal, "--home", mine), 2, "home of a developer", "--home")


def test_init_keeps_the_keys_and_refuses_another_name(cli, home, server) -> None:
    mine = home("hospital", "va")
    key = (mine / "signing.pem").read_bytes()
    again = ("init", "--home", mine, "--role", "hospital")
    assert cli(*again, "--name", "va", "--server", "https://example.org").code == 0
    assert (mine / "signing.pem").read_bytes() == key
    assert "https://example.org" in (mine / "profile.json").read_text()
    refused(cli(*again, "--name", "other"), 2, "already the home of hospital 'va'")
    assert (mine / ".gitignore").read_text() == "*\n"


def test_init_leaves_a_folder_with_other_files_alone(cli, tmp_path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / ".gitignore").write_text("mine\n")
    (tmp_path / "work.txt").write_text("mine\n")
    made = ("init", "--role", "hospital", "--name", "x", "--home", tmp_path)
    refused(cli(*made), 2, "other files", "--home")
    assert (tmp_path / ".gitignore").read_text() == "mine\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".gitignore", "work.txt"]


@pytest.mark.parametrize("address", ["foo", "ftp://x", "http://", "http://x/path"])
def test_an_address_that_is_none_is_refused(cli, tmp_path, address) -> None:
    made = ("init", "--role", "hospital", "--name", "x", "--home", tmp_path / "h")
    refused(cli(*made, "--server", address), 2, "--server")
    assert not (tmp_path / "h").exists()


def test_home_and_server_come_from_the_environment_too(cli, home, server, monkeypatch) -> None:
    mine = home("hospital", "va")
    monkeypatch.setenv("CLEARINGHOUSE_HOME", str(mine))
    assert cli("org", "show", "--json").value["name"] == "va"
    monkeypatch.setenv("CLEARINGHOUSE_SERVER", "http://127.0.0.1:9")
    refused(cli("org", "show"), 5)
    assert cli("org", "show", "--server", server).code == 0


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


def test_an_agent_without_a_set_and_a_request_without_one_are_refused(cli, home, tmp_path) -> None:
    mine = home("hospital")
    refused(cli("agent", "run", "--home", mine), 3, "valset seal")
    refused(cli("request", "open", tmp_path / "r.yaml", "--home", mine), 3, "valset seal")
    refused(cli("request", "show", "--home", mine), 2, "req_")


def test_a_set_that_cannot_be_scored_or_changed_is_refused(cli, home, files, tmp_path) -> None:
    mine = home("hospital")
    schema = yaml.safe_load((files / "schema.yaml").read_text())
    many = {**schema, "label": {"name": "disease", "levels": list(range(17))}}
    (tmp_path / "many.yaml").write_text(yaml.safe_dump(many))
    seal = ("valset", "seal", files / "va.csv", "--home", mine)
    refused(cli(*seal), 2, "--schema")
    refused(cli(*seal, "--schema", tmp_path / "many.yaml"), 2, "at most 16")
    known = (*seal, "--schema", files / "schema.yaml")
    refused(cli(*known, "--size-class", 100), 2, "power of two", "64")
    refused(cli(*known, "--size-class", 1024), 2, "above the table's rows")
    refused(cli(*known, "--limit", "much"), 2, "--limit")
    refused(cli(*known, "--epsilon-target", "0"), 2, "--epsilon-target")
    assert not (mine / "he.key").exists()
    refused(cli(*known, "--runs", 900, "--limit", "0.6"), 2, "900 runs", "Seal for fewer")
    assert not (mine / "he.key").exists()
    sealed = cli(*known, "--limit", "2", "--runs", 20)
    assert sealed.code == 0
    assert "sealed for 20 runs" in sealed.out
    assert "coins noise" in sealed.out
    told = cli("budget", "show", "--home", mine, "--json").value
    assert (told["sealed_for"]["left"], told["sealed_for"]["lane"]) == (20, "rho")
    assert float(told["sealed_for"]["sd"]) < float(told["sealed_for"]["geometric_sd"])
    assert told["lanes"]["epsilon"] == {"spent": "0.00", "limit": "0.50"}
    assert float(told["lanes"]["rho"]["limit"]) > 0
    words = cli("budget", "show", "--home", mine).out
    assert "20 left" in words
    assert "at delta 1e-6" in words
    request = tmp_path / "request.yaml"
    ids = {"sources": ["src_" + UNKNOWN], "developers": ["org_" + UNKNOWN], "tariff": "1"}
    for terms, words in (
        ({"records": 10**8}, "records"),
        ({"records": 1, "deadlines": {"ask": 10**9}}, "deadlines.ask_s"),
        ({"records": 1, "epsilon": {"score": 1}}, "sealed for"),
        ({"records": 1}, "src_" + UNKNOWN),
    ):
        request.write_text(yaml.safe_dump({**ids, **terms}))
        found = cli("request", "open", request, "--home", mine)
        refused(found, 4 if words.startswith("src") else 2, words)
    for option, value in (
        ("--limit", "3"),
        ("--size-class", "64"),
        ("--epsilon-target", "1"),
        ("--runs", "21"),
    ):
        refused(cli(*seal, option, value), 2, "this home sealed with")
    refused(cli("valset", "seal", files / "cleveland.csv", "--home", mine), 3, "not the one")
    other = {**schema, "name": "other"}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(other))
    refused(cli(*seal, "--schema", tmp_path / "other.yaml"), 2, "differs from the schema 'heart'")


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


def test_a_model_that_is_none_is_refused_before_anything_is_asked(cli, home, files) -> None:
    mine = home("developer")
    schema = ("--schema", files / "schema.yaml", "--home", mine)
    for command in (("model", "submit"), ("model", "preflight")):
        more = schema if command[1] == "submit" else schema[:2]
        refused(cli(*command, "forest", *more), 2, "'forest'", "logistic, gam, trees")
        refused(cli(*command, "gone.onnx", *more), 2, "gone.onnx", "does not exist")
        (files / "cut.onnx").write_bytes(b"\x08\x07\x12")
        refused(cli(*command, files / "cut.onnx", *more), 2, "cut.onnx", "not an ONNX model")
        refused(cli(*command, "model.pkl", *more), 2, "model.pkl", "is a pickle, which could run")


def test_a_taken_port_is_said_so(shell, server, tmp_path) -> None:
    port = server.rsplit(":", 1)[1]
    done = shell("serve", "--data", tmp_path / "second", "--port", port)
    assert done.code == 2
    assert f"port {port}" in done.errors[-1]
    assert not any("Traceback" in line for line in done.errors)


def test_errors_are_json_where_json_was_asked_for(shell, tmp_path) -> None:
    done = shell("org", "show", "--json", cwd=tmp_path)
    assert done.code == 2
    assert done.errors[0].startswith('{"error": ".clearinghouse is no party')


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
