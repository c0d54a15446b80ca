"""Mistakes of people: one line that says what, where and what to do; a code; nothing written."""

import pytest
import yaml
from refusals import UNKNOWN, refused

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
    both = ("--packed", "--epsilon-size", "0.1")
    refused(cli(*known, *both), 2, "at most 585 rows", "--epsilon-size is to hide")
    assert not (mine / "he.key").exists()
    refused(cli(*known, "--runs", 900, "--limit", "0.6"), 2, "900 runs", "Seal for fewer")
    assert not (mine / "he.key").exists()
    sealed = cli(*known, "--limit", "2", "--runs", 20)
    assert sealed.code == 0
    assert "sealed for 20 runs" in sealed.out
    assert "coins noise" in sealed.out
    assert "all of them and one target mean epsilon 2.00 together at delta 1e-6" in sealed.out
    assert "delta, a chance of one in a million" in sealed.out
    told = cli("budget", "show", "--home", mine, "--json").value
    assert (told["sealed_for"]["left"], told["sealed_for"]["lane"]) == (20, "rho")
    assert float(told["sealed_for"]["sd"]) < float(told["sealed_for"]["geometric_sd"])
    assert told["lanes"]["epsilon"] == {"spent": "0.00", "limit": "0.50"}
    assert float(told["lanes"]["rho"]["limit"]) > 0
    words = cli("budget", "show", "--home", mine).out
    assert "20 left" in words
    half_width = told["sealed_for"]["auc_half_width_90"]
    assert f"an AUC near 0.8 within +-{half_width}" in words
    assert 0.1 < float(half_width) <= 0.5
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
    for option in (
        ("--limit", "3"),
        ("--size-class", "64"),
        ("--epsilon-target", "1"),
        ("--packed",),
        ("--runs", "21"),
    ):
        refused(cli(*seal, *option), 2, "this home sealed with")
    refused(cli(*seal, "--packed"), 2, "valset reseal --packed")
    refused(cli("valset", "seal", files / "cleveland.csv", "--home", mine), 3, "not the one")
    other = {**schema, "name": "other"}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(other))
    refused(cli(*seal, "--schema", tmp_path / "other.yaml"), 2, "differs from the schema 'heart'")


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
