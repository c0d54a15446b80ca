"""Laws of the pieces: what epsilon means, drafted schemas, versions, request files, loading."""

import json
import math
import signal
import subprocess
import sys
import threading
from fractions import Fraction
from typing import get_args

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from clearinghouse.cli.doctor import satisfies
from clearinghouse.cli.epsilon import meaning
from clearinghouse.cli.loop import DOES, event_words, stopping
from clearinghouse.cli.preflight import synthetic
from clearinghouse.cli.request_file import read_request_file
from clearinghouse.cli.schema_draft import infer, outward
from clearinghouse.errors import InputError
from clearinghouse.features import bounds, encode
from clearinghouse.messages.intake import OpenRequest
from clearinghouse.messages.tasks import Task
from clearinghouse.schema import load_schema
from clearinghouse.tables import read_table, write_parquet

# ---------------------------------------------------------------- epsilon


@pytest.mark.parametrize("micro", [10_000, 100_000, 500_000, 1_000_000, 3_000_000, 20_000_000])
def test_epsilon_means_what_the_summed_distribution_says(micro: int) -> None:
    found, a = meaning(micro), math.exp(-micro / 1_000_000)
    reach = int(60 * 1_000_000 / micro) + 60
    chance = {k: (1 - a) / (1 + a) * a ** abs(k) for k in range(-reach, reach + 1)}
    assert math.isclose(sum(chance.values()), 1, abs_tol=1e-9)
    variance = sum(k * k * p for k, p in chance.items())
    assert math.isclose(found.sd, math.sqrt(variance), rel_tol=1e-6)

    def inside(k: int) -> float:
        return sum(p for x, p in chance.items() if abs(x) <= k)

    assert inside(found.half_width) >= 0.9 - 1e-12
    assert found.half_width == 0 or inside(found.half_width - 1) < 0.9
    # the best test between two neighbours, with even odds, is right half of 1 + total variation
    distance = sum(abs(p - chance.get(k - 1, 0.0)) for k, p in chance.items()) / 2
    assert (1 + distance) / 2 <= found.guess + 1e-9
    assert math.isclose(found.guess, math.exp(micro / 1e6) / (1 + math.exp(micro / 1e6)))


def test_epsilon_must_be_above_zero() -> None:
    with pytest.raises(ValueError, match="above 0"):
        meaning(0)


# ---------------------------------------------------------------- drafts of schemas


@given(st.lists(st.decimals(-(10**6), 10**6, places=3).map(Fraction), min_size=1, max_size=30))
def test_drafted_bounds_hold_every_value_and_are_wider(values: list[Fraction]) -> None:
    least, most = min(values), max(values)
    low, high = map(Fraction, outward(least, most))
    assert low < least or low == least == 0
    assert most < high
    spread = most - least or abs(most) or 1
    assert high - low <= 3 * spread  # wider, but of use


def test_a_draft_is_a_schema_that_its_table_obeys(cli, files, tmp_path) -> None:
    for name in ("cleveland", "va"):
        out = tmp_path / f"{name}.yaml"
        assert cli("schema", "infer", files / f"{name}.csv", "--out", out).code == 0
        text = out.read_text()
        schema = load_schema(out)
        assert read_table(files / f"{name}.csv", schema).n > 100
        assert text.startswith("# DRAFT made from the rows of a private table")
        marked = [line for line in text.splitlines() if "FROM ROWS" in line and "{" in line]
        assert len(marked) == len(schema.columns)
        assert schema.label.levels == ("0", "1")
        refused = cli("schema", "infer", files / f"{name}.csv", "--out", out)
        assert (refused.code, out.read_text()) == (2, text)


def test_a_draft_reads_parquet_like_csv(files, tmp_path) -> None:
    table = read_table(files / "cleveland.csv", load_schema(files / "schema.yaml"))
    write_parquet(table, tmp_path / "cleveland.parquet")
    from_csv, _ = infer(files / "cleveland.csv", "disease")
    from_parquet, _ = infer(tmp_path / "cleveland.parquet", "disease")
    assert from_parquet == from_csv


def test_a_draft_knows_ids_odd_words_and_awkward_names(tmp_path) -> None:
    table, out = tmp_path / "t.csv", tmp_path / "t.yaml"
    rows = [
        f"{1000 + i},{i % 3},{'NA' if i == 5 else i / 10},free text {i},{i % 2}" for i in range(40)
    ]
    table.write_text("\n".join(["patient_id,grade: #1,dose,note,dead", *rows]) + "\n")
    value, text = infer(table, None)
    assert (value["patient_id"], value["label"], value["left_out"]) == (
        "patient_id",
        "dead",
        ["note"],
    )
    assert "empty the cells that hold NA" in text
    out.write_text(text)
    schema = load_schema(out)
    assert [column.name for column in schema.columns] == ["grade: #1", "dose"]
    assert schema.column("dose").missing is True


@pytest.mark.parametrize(
    ("text", "label", "words"),
    [
        ("", None, "no rows"),
        ("a,b\n", None, "no rows"),
        ("a,b\n1\n", None, "1 cells"),
        ("a,a\n1,2\n", None, "name of its own"),
        ("a,b\n1.5,2.5\n", None, "--label"),
        ("a,b\n1,0\n2,1\n", "c", "'c'"),
    ],
)
def test_a_table_without_a_draft_says_why(tmp_path, text, label, words) -> None:
    table = tmp_path / "t.csv"
    table.write_text(text)
    with pytest.raises(InputError, match=words):
        infer(table, label)


# ---------------------------------------------------------------- doctor


@pytest.mark.parametrize(
    ("version", "bounds", "good"),
    [
        ("1.7.2", ">=1.5,<1.8", True),
        ("1.8.0", ">=1.5,<1.8", False),
        ("1.8", "<1.8", False),
        ("1.10", ">=1.9", True),
        ("1.4.9", ">=1.5", False),
        ("0.3.18", "==0.3.18", True),
        ("0.3.19", "==0.3.18", False),
        ("3.0.0", "==3.0", True),
        ("2.0rc1", ">=2", True),
        ("5", "", True),
    ],
)
def test_versions_are_compared_by_number(version: str, bounds: str, good: bool) -> None:
    assert satisfies(version, bounds) is good


def test_a_healthy_machine_is_told_so(cli, home) -> None:
    found = cli("doctor", "--home", home("hospital"), "--json")
    assert (found.code, found.value["healthy"]) == (0, True)
    checks = {item["check"]: item["status"] for item in found.value["checks"]}
    wanted = ("python", "packages", "import names", "home", "profile", "server", "clock")
    assert [checks[name] for name in wanted] == ["ok"] * len(wanted)


def test_a_broken_machine_is_3_with_a_remedy_for_each_fault(cli, home) -> None:
    mine = home("hospital")
    (mine / "signing.pem").chmod(0o644)
    mine.chmod(0o755)
    found = cli("doctor", "--home", mine, "--server", "http://127.0.0.1:9", "--json")
    assert found.code == 3
    assert found.value["healthy"] is False
    broken = {c["check"]: c["remedy"] for c in found.value["checks"] if c["status"] == "broken"}
    assert set(broken) == {"home", "keys", "server"}
    assert broken["home"].startswith(f"run chmod 700 {mine}")
    assert broken["keys"] == "run chmod 600 signing.pem"


# ---------------------------------------------------------------- request files

IDS = {"sources": ["src_" + "a" * 20], "developers": ["org_" + "b" * 20]}
REQUEST = {**IDS, "records": 100, "tariff": "6.00"}


def request_file(tmp_path, value: dict[str, object]):
    path = tmp_path / "request.yaml"
    path.write_text(yaml.safe_dump(value))
    return path


def test_a_request_takes_the_defaults_of_a_market(tmp_path) -> None:
    found = read_request_file(request_file(tmp_path, REQUEST), 500_000)
    terms = OpenRequest.model_validate_json(
        json.dumps(
            {
                **found.terms,
                "valset_id": "val_" + "c" * 20,
                "source_ids": found.source_ids,
                "developer_ids": found.developer_ids,
            }
        )
    )
    assert (terms.tariff_micro, terms.distance_price_micro) == (6_000_000, 1_000_000)
    assert (terms.share_cap_micro, terms.fee_micro, terms.fairness_pot_micro) == (
        1_500_000,
        50_000,
        0,
    )
    assert (terms.epsilon_target_micro, terms.epsilon_score_micro) == (500_000, 1_000_000)
    assert (terms.purse.amount_micro, terms.purse.threshold_micro) == (300_000_000, 700_000)
    assert terms.deadlines.agent_s == 86_400


def test_ids_come_from_files_too_and_all_means_all(tmp_path) -> None:
    ids = ["org_" + letter * 20 for letter in "xy"]
    (tmp_path / "orgs.json").write_text(json.dumps([{"id": text} for text in (*ids, ids[0])]))
    value = {**REQUEST, "developers": [*IDS["developers"], "orgs.json"], "sources": "all"}
    found = read_request_file(request_file(tmp_path, value), 500_000)
    assert found.source_ids is None
    assert found.developer_ids == (*IDS["developers"], *ids)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"records": 0}, "records"),
        ({"tariff": "0"}, "tariff"),
        ({"tariff": "six"}, "tariff"),
        ({"share_cap": 1}, "share_cap"),
        ({"fee": 2}, "fee"),
        ({"fairness_pot": 0.2}, "fairness_pot"),
        ({"currency": "euro"}, "currency"),
        ({"epsilon": {"target": 1.0}}, "epsilon.target"),
        ({"epsilon": {"score": 0}}, "epsilon.score"),
        ({"epsilon": {"sauce": 1}}, "epsilon.sauce"),
        ({"purse": {"metric": "f1"}}, "purse.metric"),
        ({"purse": {"kind": "gift"}}, "purse.kind"),
        ({"purse": {"kind": "contest", "prizes": [1, 2]}}, "purse.prizes"),
        ({"purse": {"fairness": {"attribute": "sex", "floor": 0}}}, "purse.fairness.floor"),
        ({"purse": {"kind": "procurement", "asks": {"a": "1.00"}}}, "purse.asks"),
        ({"scores_per_owner": 0}, "scores_per_owner"),
        ({"purse": {"confidence": 1}}, "purse.confidence"),
        ({"deadlines": {"agent": 0}}, "deadlines.agent"),
        ({"sources": []}, "sources"),
        ({"sources": ["cleveland"]}, "neither an id"),
        ({"developers": ["src_" + "a" * 20]}, "neither an id"),
        ({"tarif": "6"}, "tarif"),
    ],
)
def test_a_bad_request_file_names_its_key(tmp_path, change, words) -> None:
    with pytest.raises(InputError, match=words):
        read_request_file(request_file(tmp_path, {**REQUEST, **change}), 500_000)


# ---------------------------------------------------------------- preflight


@pytest.mark.parametrize("seed", range(3))
def test_made_up_rows_are_between_the_public_bounds(files, seed: int) -> None:
    schema = load_schema(files / "schema.yaml")
    table = synthetic(schema, 300, seed)
    rows, limits = encode(schema, table), bounds(schema)
    assert (rows >= limits[:, 0]).all()
    assert (rows <= limits[:, 1]).all()
    assert np.bincount(table.labels).tolist() == [150, 150]
    may_miss = [column.name for column in schema.columns if column.missing]
    missing = {name: np.isnan(values).mean() for name, values in table.numbers.items()}
    missing |= {name: (codes < 0).mean() for name, codes in table.categories.items()}
    assert {name for name, share in missing.items() if share} == set(may_miss)


def test_a_recipe_passes_preflight_and_nothing_is_spent(cli, files) -> None:
    found = cli("model", "preflight", "gam", "--schema", files / "schema.yaml", "--json")
    assert found.code == 0, found.errors
    assert found.value["exact_counts_match"] is True
    assert found.value["label_agreement"] >= 0.99
    assert found.value["epsilon_spent"] == "0.00"
    assert found.value["bytes_per_block"] > 1_000_000


# ---------------------------------------------------------------- simulation


def test_more_patients_find_the_best_model_more_often(cli, tmp_path) -> None:
    simulate = ("request", "simulate", "--json", "--home", tmp_path / "no", "--developers", 4)
    few, many = (cli(*simulate, "--patients", n).value["rules"] for n in (64, 100_000))
    for rule in ("acceptance", "contest"):
        assert math.isclose(sum(few[rule]["payout_by_true_rank"]), 1, abs_tol=1e-9)
        assert few[rule]["best_scores_best"] < 0.6 < 0.99 < many[rule]["best_scores_best"]
    assert many["acceptance"]["payout_by_true_rank"][0] > 0.99
    assert few["contest"]["top_band_size"] > few["acceptance"]["top_band_size"] == 1
    tender = cli(*simulate, "--patients", 500, "--threshold", 0.75).value["procurement"]
    assert 0.5 < tender["awarded"] < 1
    assert 0 < tender["best_wins"] < tender["awarded"]
    assert 0.3 < tender["expected_payment"] < 1
    plain = ("request", "simulate", "--home", tmp_path / "no", "--threshold", 0.95)
    assert "no model ever reaches" in cli(*plain, "--patients", 100_000).out
    assert cli(*simulate, "--patients", 64, "--least-ask", 2).code == 2
    refused = cli(*simulate)
    assert (refused.code, "--patients" in refused.errors[0]) == (2, True)
    assert cli(*simulate, "--patients", 64, "--best", 2).code == 2


# ---------------------------------------------------------------- loops and loading


def test_the_first_ctrl_c_asks_and_the_second_interrupts() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), stopping() as stop:  # noqa: PT012
        assert isinstance(stop, threading.Event)
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set()
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_every_kind_of_task_has_words() -> None:
    (union, _) = get_args(Task)
    kinds = {kind.model_fields["kind"].default for kind in get_args(union)}
    assert kinds == set(DOES)


def test_every_event_has_words() -> None:
    base = {"org": "va", "request": "req_1", "seconds": 0.5, "kind": "deliver"}
    assert "delivered" in event_words({**base, "event": "task"})
    refused = {**base, "event": "refused", "reason": "no room", "where": "a.py:1 f"}
    assert "REFUSED no room" in event_words(refused)
    assert "too late" in event_words({**base, "event": "late", "reason": "over"})
    assert "away" in event_words({"event": "waiting", "org": "va", "message": "away"})


def test_completion_scripts_complete(shell) -> None:
    for shell_name in ("bash", "zsh", "fish"):
        script = shell("completion", shell_name)
        assert script.code == 0
        assert "_CLEARINGHOUSE_COMPLETE" in script.out
    found = shell(
        _CLEARINGHOUSE_COMPLETE="complete_bash", COMP_WORDS="clearinghouse so", COMP_CWORD="1"
    )
    assert found.out.split() == ["source"]


HEAVY = {
    "numpy",
    "tenseal",
    "fastapi",
    "sklearn",
    "pyarrow",
    "httpx",
    "pyrage",
    "yaml",
}  # typer itself takes pydantic


@pytest.mark.parametrize(
    "arguments", [["--help"], ["source", "--help"], ["agent", "run", "--help"]]
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import json, sys\nfrom clearinghouse.cli.main import run\n"
        f"code = run({arguments!r}, print)\nprint(json.dumps([code, sorted(sys.modules)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    code_, loaded = json.loads(done.stdout.splitlines()[-1])
    assert code_ == 0
    assert not HEAVY & set(loaded)
    assert not [name for name in loaded if name.startswith("clearinghouse.client")]
