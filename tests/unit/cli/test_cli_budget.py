"""`budget show`, `budget attacks` and the runs that a set supports: offline, from a home alone."""

import json
import math

import pytest

from clearinghouse.cli import attacks as attacks_module
from clearinghouse.cli.budget import Books, plans
from clearinghouse.cli.doctor_ledger import ledger
from clearinghouse.cli.epsilon import auc_half_width, meaning
from clearinghouse.client.budget import Budget
from clearinghouse.client.keystore import Keystore
from clearinghouse.errors import RefusedError
from dp.noise import geometric

MICRO = 1_000_000
RUNS = [f"run_{letter * 20}" for letter in "abc"]


@pytest.fixture
def clinic(cli, tmp_path):
    """A hospital's home with a target, a score, and a score that broke off."""
    home = tmp_path / "clinic"
    assert cli("init", "--role", "hospital", "--name", "clinic", "--home", home).code == 0
    keys = Keystore.open(home)
    terms = {"table": "x", "size_class": 128, "epsilon_target_micro": MICRO // 2}
    keys.remember("valset-terms", {**terms, "limit_micro": 3 * MICRO})
    keys.remember("valset", {"layout": json.dumps({"groups": [["sex", 2], ["age", 4]]})})
    parts = (("histogram", 600_000), ("group:sex", 200_000), ("group:age", 200_000))
    tables = [{"name": name, "epsilon_micro": cost} for name, cost in parts]
    keys.remember(f"private/runs/{RUNS[1]}", {"kind": "score", "tables": tables})
    budget = Budget(keys.ledger_path, 3 * MICRO)
    budget.release(RUNS[0], {}, MICRO // 2, lambda: b"x", "target")
    budget.release(RUNS[1], {}, MICRO, lambda: b"x", "score")

    def breaks_off() -> bytes:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        budget.release(RUNS[2], {}, MICRO // 4, breaks_off, "score")
    return home


def test_each_release_says_how_wrong_it_is_and_what_it_gives_away(cli, clinic) -> None:
    told = cli("budget", "show", "--home", clinic, "--json").value
    assert (told["spent"], told["limit"], told["size_class"]) == ("1.75", "3.00", 128)
    target, score, lost = told["releases"]
    assert [item["state"] for item in told["releases"]] == ["answered", "answered", "started"]
    assert target["guess_at_most"] == f"{1 / (1 + math.exp(-0.5)):.4f}"
    (count,) = target["counts"]
    assert count["half_width_90"] == meaning(MICRO // 2).half_width
    assert count["percent_of_patients"] == f"{100 * count['half_width_90'] / 128:.1f}"
    assert [item["what"] for item in score["counts"]] == [
        "histogram",
        "subgroup sex",
        "subgroup age",
    ]
    assert sum(float(item["epsilon"]) for item in score["counts"]) == pytest.approx(1)
    assert lost["counts"] == []  # paid, and nothing left
    assert told["guess_at_most"] == f"{1 / (1 + math.exp(-1.75)):.4f}"
    words = cli("budget", "show", "--home", clinic).out
    for part in ("1.75 of 3.00 spent", "62.3%", "subgroup sex", "85.2%", "95.3%", "0 runs"):
        assert part in words


def test_plans_divide_what_is_left_and_stop_where_a_score_says_nothing() -> None:
    found = plans(Books(0, 3 * MICRO, (), 128), MICRO // 2, 2)
    assert found["supported_at_epsilon_1"] == 2
    first, second, *_ = found["plans"]
    assert (first["epsilon_each"], second["epsilon_each"]) == ("2.50", "1.25")
    for plan in found["plans"]:
        each = 2_500_000 // plan["runs"]
        assert plan["count_half_width_90"] == meaning(each - 2 * (each * 40 // 200)).half_width
        assert plan["law"] == "geometric"
        wide = float(plan["auc_half_width_90"]) > 0.15
        assert wide == (plan["runs"] > found["supported_within_auc_015"])
    assert plans(Books(3 * MICRO, 3 * MICRO, (), 128), MICRO // 2, 2)["plans"] == []
    assert [plans(Books(0, 3 * MICRO, (), n), 500_000, 0)["bins"] for n in (64, 512, 4096)] == [
        8,
        16,
        32,
    ]


def test_the_planned_auc_interval_has_both_parts() -> None:
    """Without noise it is Hanley and McNeil's; noise, few patients and many bins widen it."""
    exact = auc_half_width(1000, 8, 0.0)
    q1, q2 = 0.8 / 1.2, 2 * 0.64 / 1.8
    variance = (0.16 + 499 * (q1 - 0.64) + 499 * (q2 - 0.64)) / 500**2
    assert exact == pytest.approx(1.645 * math.sqrt(variance))
    assert auc_half_width(1000, 8, 14.0) > exact
    assert auc_half_width(100, 16, 2.0) > auc_half_width(100, 8, 2.0)
    assert auc_half_width(2, 8, 1.0) == 0.5
    with pytest.raises(ValueError, match="patients"):
        auc_half_width(1, 8, 1.0)


def test_a_simulated_request_says_how_many_runs_its_set_supports(cli, clinic, tmp_path) -> None:
    mine = cli("request", "simulate", "--home", clinic, "--json").value
    assert mine["patients"] == 128
    assert mine["runs"]["supported_at_epsilon_1"] == 0  # most of its budget is spent
    fresh = cli("request", "simulate", "--patients", 500, "--home", tmp_path, "--json").value
    assert fresh["runs"]["supported_at_epsilon_1"] == 2


def test_attacks_run_on_a_given_table_and_hold(cli, files, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(attacks_module, "QUICK", (60, 3))
    rows = (files / "cleveland.csv").read_text().splitlines()[:60]
    table = tmp_path / "rows.csv"
    table.write_text("\n".join(rows) + "\n")
    where = ("--table", table, "--schema", files / "schema.yaml", "--home", tmp_path)
    told = cli("budget", "attacks", *where, "--json")
    assert told.code == 0, told.errors
    assert told.value["holds"] is True
    seen = {item["attack"] for item in told.value["attacks"]}
    assert seen == {"reconstruction", "membership", "averaging", "differencing", "boosting"}
    raw = next(item for item in told.value["attacks"] if "raw distances" in item["against"])
    assert raw["success"] == 1.0
    assert raw["bound"] is None
    for item in told.value["attacks"]:
        assert item["low"] <= item["success"] <= item["high"]
    assert not list(tmp_path.glob("*.sqlite"))


def test_an_interval_above_its_bound_by_luck_is_told_apart_from_a_broken_one() -> None:
    item = {"bound": 0.731, "holds": True, "low": 0.742}
    rest = [{**item, "bound": None}, {**item, "low": 0.7}, {**item, "holds": False}]
    assert attacks_module._by_luck({"attacks": rest}) == []
    (words,) = attacks_module._by_luck({"attacks": [item, *rest]})
    assert words.startswith(
        "1 interval lies above its bound, as one in twenty does by luck; --full"
    )


def test_a_broken_release_ends_with_a_refusal(cli, files, tmp_path, monkeypatch) -> None:
    """Planted: a summary with a tenth of its noise."""
    monkeypatch.setattr(attacks_module, "QUICK", (400, 2))
    monkeypatch.setattr(
        attacks_module, "summary_path", lambda _: lambda counts: geometric(counts, 10)
    )
    rows = (files / "cleveland.csv").read_text().splitlines()[:30]
    table = tmp_path / "rows.csv"
    table.write_text("\n".join(rows) + "\n")
    where = ("--table", table, "--schema", files / "schema.yaml", "--home", tmp_path)
    found = cli("budget", "attacks", *where)
    assert found.code == 3
    assert "ABOVE ITS BOUND" in found.out
    assert "more often than epsilon allows" in found.errors[0]


def test_attacks_need_a_table(cli, clinic, tmp_path) -> None:
    found = cli("budget", "attacks", "--home", tmp_path)
    assert (found.code, found.out) == (2, "")
    assert "--table" in found.errors[0]
    found = cli("budget", "attacks", "--home", tmp_path, "--table", tmp_path)
    assert found.code == 2
    with pytest.raises(RefusedError):
        attacks_module.verdict({"holds": False})


def test_a_ledger_in_a_database_is_named_at_the_start_only(cli, clinic, tmp_path) -> None:
    start = ("init", "--role", "hospital", "--name", "clinic", "--home")
    url = "postgresql://owner:secret@127.0.0.1:9/books"
    refused = cli(*start, clinic, "--ledger", url)
    assert refused.code == 2
    assert "not moved" in refused.errors[0]
    assert "secret" not in refused.errors[0]
    fresh = tmp_path / "fresh"
    assert cli(*start, fresh, "--ledger", "sqlite:///x").code == 2
    assert cli(*start, fresh, "--ledger", url).code == 0
    assert cli(*start, fresh, "--ledger", url).code == 0
    assert Keystore.open(fresh).ledger_words == "postgresql://127.0.0.1:9/books"


@pytest.mark.parametrize("place", ["file", "database", "away"])
def test_doctor_reads_the_owners_ledger_wherever_it_is(cli, request, tmp_path, place) -> None:
    """Nothing of its password is shown; a database that is away is a fault with a remedy."""
    home, options = tmp_path / "home", []
    if place == "database":
        url = request.getfixturevalue("empty_postgres")
        options = ["--ledger", url.replace("+psycopg", "")]
    elif place == "away":
        options = ["--ledger", "postgresql://owner:secret@127.0.0.1:9/books"]
    cli("init", "--role", "hospital", "--name", "clinic", "--home", home, *options)
    assert [finding.status for finding in ledger(home)] == ["ok"] * (place != "file")
    keystore = Keystore.open(home)
    keystore.remember("valset-terms", {"limit_micro": 3_000_000, "size_class": 64})
    keystore.remember("unit", {"unit": "5" * 64})
    (found,) = ledger(home)
    assert keystore.ledger_words in found.detail
    if place == "away":
        assert found.status == "broken"
        assert "secret" not in found.detail + found.remedy
    else:
        assert found.status == "ok"
        assert "0.00 of 3.00 epsilon spent in 0 releases" in found.detail
