"""A small market by hand: every party in a home of its own, every kind of act once as a process.

What only reads, or repeats, is called in this process, for speed.
"""

import json
import signal
import stat
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

SECONDS = 600
"""How long anybody waits for anybody; a busy machine needs much of it."""


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def write_yaml(path: Path, value: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(value))
    return path


def ok(outcome) -> Any:
    assert outcome.code == 0, outcome.errors
    return outcome.value


def join(shell, cli, server: str, folder: Path, role: str, name: str) -> Path:
    home = folder / name
    arguments = ("--role", role, "--name", name, "--server", server, "--home", home, "--json")
    made = ok(shell("init", *arguments))
    assert made["role"] == role
    org = ok(shell("org", "register", "--home", home, "--json"))
    assert ok(cli("org", "register", "--home", home, "--json")) == org
    (folder / f"{name}.json").write_text(json.dumps(org))
    return home


@pytest.fixture
def schema(files, tmp_path) -> Path:
    """The heart market's, with women and men its only strata.

    No order exceeds a stratum's rows then, whatever the noise: a source that falls short by more
    than noise explains loses its deposit, once in a thousand honest orders.
    """
    terms = yaml.safe_load((files / "schema.yaml").read_text())
    return write_yaml(tmp_path / "schema.yaml", {**terms, "strata": [["sex"]]})


def offer(
    shell, cli, files: Path, schema: Path, folder: Path, home: Path, price: str
) -> dict[str, Any]:
    """Preview, then register a source, and see that only the second spends."""
    terms = {
        "name": home.name,
        "table": str(files / f"{home.name}.csv"),
        "schema": str(schema),
        "price_per_record": price,
    }
    file = write_yaml(folder / f"{home.name}.yaml", terms)
    shown = ok(cli("source", "preview", file, "--json"))
    before = ok(cli("budget", "show", "--home", home, "--json"))
    assert (before["spent"], before["releases"]) == ("0.00", [])
    source = ok(shell("source", "register", file, "--home", home, "--json"))
    assert ok(cli("source", "register", file, "--home", home, "--json")) == source
    after = ok(cli("budget", "show", "--home", home, "--json"))
    assert after["spent"] == shown["epsilon"] == "1.00"
    assert source["published"] is True
    assert source["size_class"] == shown["size_class"] == 256
    return source


@pytest.mark.timeout(1500)
def test_a_market_runs_by_hand_to_a_receipt_that_verifies(
    shell, cli, start, server, server_data, files, schema, tmp_path
) -> None:
    hospital = join(shell, cli, server, tmp_path, "hospital", "va")
    developer = join(cli, cli, server, tmp_path, "developer", "ada")
    providers = [
        join(cli, cli, server, tmp_path, "provider", name) for name in ("cleveland", "hungarian")
    ]
    sources = [
        offer(act, cli, files, schema, tmp_path, home, price)
        for act, home, price in zip((shell, cli), providers, ("2.00", "1.50"), strict=True)
    ]
    selling = [
        start("source", "deliver", "--watch", "--json", "--home", home) for home in providers
    ]
    sealing = ("valset", "seal", files / "va.csv", "--schema", schema)
    valset = ok(shell(*sealing, "--home", hospital, "--json"))
    assert ok(cli("valset", "seal", "--home", hospital, "--json"))["id"] == valset["id"]
    assert ok(cli("valset", "upload", "--home", hospital, "--json")) == valset

    request = {
        "sources": [source["id"] for source in sources],
        "developers": ["ada.json"],
        "records": 100,
        "tariff": "6.00",
        "purse": {"amount": "50.00", "metric": "auc", "threshold": 0.5, "confidence": 0.5},
        "deadlines": dict.fromkeys(("agent", "ask", "deliver", "model"), SECONDS),
    }
    file = write_yaml(tmp_path / "request.yaml", request)
    opened = ok(shell("request", "open", file, "--home", hospital, "--json"))
    assert ok(cli("request", "open", file, "--home", hospital, "--json"))["id"] == opened["id"]
    assert opened["most_micro"] == 650_000_000

    first = start("agent", "run", "--json", "--home", hospital)
    begun = interrupted_after_one_task(first)
    agent = start("agent", "run", "--until", opened["id"], "--json", "--home", hospital)
    open_delivery(shell, cli, developer, hospital, schema, opened["id"])
    offered = start(
        *("model", "submit", "logistic", "--schema", schema),
        *("--wait", "--request", opened["id"], "--json", "--home", developer),
    )
    agent_out, agent_errors = agent.communicate(timeout=SECONDS)
    assert agent.returncode == 0, agent_errors
    check_agent([*begun, *lines(agent_out)])
    model_out, model_errors = offered.communicate(timeout=SECONDS)
    assert offered.returncode == 0, model_errors
    (submitted,) = lines(model_out)[-1]["submitted"]

    shown = ok(cli("request", "show", "--wait", "--timeout", 5, "--json", "--home", hospital))
    assert shown["request"]["id"] == opened["id"]
    check_money(shown)
    for child in selling:
        child.send_signal(signal.SIGINT)
    for child in selling:
        out, errors = child.communicate(timeout=SECONDS)
        assert child.returncode == 0, errors
        kinds = [event.get("kind") for event in lines(out)[:-1]]
        acts = [kind for kind in kinds if kind not in ("show", "log.cosign")]
        assert acts == ["ask.commit", "ask.reveal", "deliver"]
        assert kinds.count("show") <= 1  # where another source sold more of some place
        assert lines(out)[-1] == {"event": "stopped", "answered": len(kinds)}

    check_outcomes(cli, hospital, shown)
    check_receipt(shell, cli, developer, submitted, tmp_path)
    check_developer(cli, developer, opened["id"], shown)
    again = ("model", "submit", "logistic", "--wait", "--request", opened["id"])
    assert ok(cli(*again, "--json", "--home", developer)) == {"submitted": []}  # it is over
    spent = cli("budget", "show", "--home", hospital).out
    assert "epsilon 1.50 of 3.00 spent" in spent
    told = ok(cli("budget", "show", "--home", hospital, "--json"))
    target, score = told["releases"]
    assert (target["purpose"], score["purpose"]) == ("target", "score")
    parts = {count["what"]: count["epsilon"] for count in score["counts"]}
    assert parts.pop("histogram") == "0.60"
    assert len(parts) == told["subgroups"] > 0
    assert told["runs"]["supported_at_epsilon_1"] == 1
    prices = ok(cli("price", "list", "--home", providers[0], "--json"))
    assert {price["source_id"] for price in prices["prices"]} == {s["id"] for s in sources}
    assert prices["currency"] == "EUR"
    check_quote(cli, providers[0], sources[0]["id"], tmp_path)
    check_dispute(cli, server_data, server, hospital, providers[0], shown)
    check_key(shell, cli, hospital, valset["id"], told)
    for home in (hospital, developer, *providers):
        assert stat.S_IMODE(home.stat().st_mode) == 0o700


def check_key(shell, cli, home: Path, valset: str, told: dict[str, Any]) -> None:
    """The hospital replays its own tests and target, then goes on under a new key."""
    audited = ok(shell("valset", "audit", "--home", home, "--json"))
    assert audited["valset_id"] == valset
    assert [item["what"] for item in audited["audits"]] == ["tests", "target"]
    assert {item["state"] for item in audited["audits"]} == {"cleared"}
    assert audited["problem"] == ""
    assert 0 < audited["openings_counted"] <= audited["openings_limit"] == 340, "the run's remain"
    words = cli("valset", "audit", "--home", home).out
    assert words.startswith("no tests or targets of this key are left to replay")
    assert "340 openings of the key count as not replayed; runs are cleared" in words
    again = ok(cli("valset", "reseal", "--home", home, "--json"))
    assert (again["replaces"], again["openings_counted"]) == (valset, 0)
    assert again["id"] != valset
    assert ok(cli("valset", "show", "--home", home, "--json"))["id"] == again["id"]
    spent = ok(cli("budget", "show", "--home", home, "--json"))
    assert spent["spent"] == told["spent"] == again["spent"]
    shown = cli("valset", "show", "--home", home).out
    assert "packed" not in shown
    assert "is spent as before" in cli("valset", "reseal", "--packed", "--home", home).out
    shown = cli("valset", "show", "--home", home).out
    assert "packed: at most 585 rows, for everybody to see, and scored by linear" in shown


def check_quote(cli, home: Path, source_id: str, folder: Path) -> None:
    """A provider's own price, cleared again here; its history, statement and reputation."""
    quoted = ok(cli("price", "quote", "--check", "--home", home, "--json"))
    assert quoted["source_id"] == source_id
    assert "the same to the last micro-unit" in quoted["checked"]
    words = cli("price", "quote", source_id, "--home", home).out
    assert "without you the whole match is worth" in words
    past = ok(cli("price", "history", "--home", home, "--json"))
    assert past["currency"] == "EUR"
    assert [item["price"]["point_micro"] for item in past["prices"]] == [quoted["point_micro"]]
    page = folder / "statement.html"
    told = ok(cli("org", "statement", "--out", page, "--home", home, "--json"))
    assert sum(line["amount_micro"] for line in told["lines"]) == sum(told["balances"].values())
    assert told["name"] in page.read_text()
    found = ok(cli("org", "reputation", "--home", home, "--json"))
    assert [item["good"] for item in found["outcomes"]] == [True]
    assert found["standing_micro"] > 100_000
    (listed,) = (
        item
        for item in ok(cli("source", "list", "--home", home, "--json"))["sources"]
        if item["id"] == source_id
    )
    assert listed["standing_micro"] == found["standing_micro"]


def check_dispute(
    cli, data: Path, server: str, hospital: Path, provider: Path, shown: dict[str, Any]
) -> None:
    """The hospital disputes a delivery, the seller answers, the operator rules; money moves."""
    source = ok(cli("price", "quote", "--home", provider, "--json"))["source_id"]
    (order,) = (o for o in shown["clearing"]["orders"] if o["source_id"] == source)
    evidence = data.parent / "log"  # any file that is kept
    claim = ("--reason", "delivery", "--remedy", "refund", "--words", "labels look invented")
    opening = ("dispute", "open", order["order_id"], *claim, "--evidence", evidence)
    opened = ok(cli(*opening, "--home", hospital, "--json"))
    assert opened["frozen_micro"] == order["paid_micro"] > 0
    name = opened["id"]
    said = ok(
        cli("dispute", "answer", name, "--words", "they are not", "--home", provider, "--json")
    )
    assert said["state"] == "answered"
    end = time.monotonic() + SECONDS
    while not (found := ok(cli("dispute", "show", name, "--home", hospital, "--json")))["finding"]:
        assert time.monotonic() < end
        time.sleep(0.2)
    assert found["finding"]["verdict"] == "the proofs hold"
    ruling = ("--outcome", "pay", "--words", "the proofs hold", "--server", server)
    refused = cli("dispute", "resolve", name, *ruling, "--data", hospital)
    assert (refused.code, "server.key" in refused.errors[0]) == (2, True)
    done = ok(cli("dispute", "resolve", name, *ruling, "--data", data, "--json"))
    assert (done["state"], done["frozen_micro"]) == ("resolved", 0)
    assert done["ruling"]["paid_micro"] == order["paid_micro"]
    (mine,) = ok(cli("dispute", "list", "--home", provider, "--json"))["disputes"]
    assert mine["id"] == name
    assert "the claim fails" in cli("dispute", "show", name, "--home", provider).out


def open_delivery(shell, cli, home: Path, hospital: Path, schema: Path, request_id: str) -> None:
    """Wait for the delivery, look at it, open it: every record is proven."""
    end = time.monotonic() + SECONDS
    while not (found := ok(cli("delivery", "list", "--home", home, "--json"))["waiting"]):
        state = ok(cli("request", "show", request_id, "--json", "--home", hospital))["request"]
        assert state["state"] == "running", state
        assert time.monotonic() < end
        time.sleep(0.5)
    (waiting,) = found
    given = ("--schema", schema, "--home", home, "--json")
    (opened,) = ok(shell("delivery", "open", *given))["opened"]
    assert opened["request_id"] == waiting["request_id"] == request_id
    assert all(check["accepted"] for check in opened["checks"])
    assert sum(check["real"] for check in opened["checks"]) == waiting["records"]
    assert Path(opened["file"]).is_file()


def interrupted_after_one_task(agent) -> list[dict[str, Any]]:
    """Ctrl-C after the first answer: the agent ends well, and what it did is done."""
    assert agent.stdout is not None
    first = agent.stdout.readline()
    agent.send_signal(signal.SIGINT)
    rest, errors = agent.communicate(timeout=SECONDS)
    assert agent.returncode == 0, errors
    *events, last = lines(first + rest)
    assert (last["event"], last["answered"], last["request_state"]) == (
        "stopped",
        len(events),
        None,
    )
    return events


def check_agent(events: list[dict[str, Any]]) -> None:
    """The agent said what it answered, and what each answer cost so far."""
    kinds = [event["kind"] for event in events[:-1]]
    wanted = ["target.noise", "target.replies", "score.digits", "score.characters"]
    wanted += ["score.replies", "receipt.sign"]
    assert [kind for kind in kinds if kind in wanted] == wanted
    assert [event["spent"] for event in events if "spent" in event] == ["0.50", "1.50", "1.50"]
    assert events[-1]["request_state"] == "done"


def check_money(shown: dict[str, Any]) -> None:
    """What the hospital pays is what the others get, and nobody sold more than was ordered."""
    statement, orders = shown["statement"], shown["clearing"]["orders"]
    assert statement["balanced"] is True
    assert sum(statement["balances"].values()) == 0
    assert sum(order["units"] for order in orders) <= 100
    assert all(0 <= order["real"] <= order["units"] for order in orders)
    paid = sum(order["paid_micro"] for order in orders)
    fee = sum(v for k, v in statement["balances"].items() if k.startswith("platform:"))
    won = sum(item["amount_micro"] for item in statement["award"]["winners"])
    pays = -sum(v for k, v in statement["balances"].items() if k.startswith("external:"))
    assert pays == paid + fee + won
    assert 0 < paid <= 600_000_000


def check_outcomes(cli, home: Path, shown: dict[str, Any]) -> None:
    """`request clear` and `request award` say what `request show` said."""
    cleared = ok(cli("request", "clear", "--home", home, "--json"))
    assert cleared == shown["clearing"]
    award = ok(cli("request", "award", "--home", home, "--json"))
    assert award == shown["statement"]["award"]
    told = cli("request", "award", "--home", home)
    assert award["reason"] in told.out


def check_receipt(shell, cli, home: Path, submitted: dict[str, Any], folder: Path) -> None:
    (run,) = ok(cli("run", "list", "--home", home, "--json"))["runs"]
    assert run["model_digest"] == submitted["sha256"]
    assert run["state"] == "released"
    assert ok(cli("run", "show", run["id"], "--home", home, "--json")) == run
    model = ok(cli("model", "show", run["model_id"], "--home", home, "--json"))
    assert (model["sha256"], model["run_id"]) == (run["model_digest"], run["id"])
    audited = ok(shell("run", "audit", run["id"], "--home", home, "--json"))
    assert (audited["reproduced"], audited["fault"], len(audited["messages"])) == (True, "none", 10)
    after = ok(cli("run", "show", run["id"], "--home", home, "--json"))["audit"]
    assert (after["state"], after["digest"]) == ("reproduced", audited["verdict_sha256"])
    file = folder / "receipt.txt"
    got = ok(cli("receipt", "show", run["receipt"], "--home", home, "--out", file, "--json"))
    found = ok(shell("verify", file, "--json"))
    assert found["verified"] is True
    assert found["model_sha256"] == submitted["sha256"]
    assert found["metrics"] == got["metrics"]
    text = file.read_text()
    middle = len(text) // 2  # within the signed statement
    file.write_text(text[:middle] + ("A" if text[middle] != "A" else "B") + text[middle + 1 :])
    assert cli("verify", file).code in (2, 3)


def check_developer(cli, home: Path, request_id: str, shown: dict[str, Any]) -> None:
    listed = ok(cli("delivery", "list", "--home", home, "--json"))
    (opened,) = listed["opened"]
    real = sum(order["real"] for order in shown["clearing"]["orders"])
    assert (listed["waiting"], opened["request_id"]) == ([], request_id)
    assert opened["records"] == real
    assert Path(opened["file"]).is_file()
