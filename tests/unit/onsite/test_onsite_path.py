"""The whole path on a real table: publish, submit, approve, run, share, collect; what is paid."""

import base64
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from onsite_pair import ADA, BOB, VA, constant, scores_of

from clearinghouse.canonical import parse_canonical
from clearinghouse.cli.main import run
from clearinghouse.errors import (
    BudgetExceededError,
    InputError,
    NotFoundError,
    RefusedError,
    VerificationError,
)
from clearinghouse.onsite.papers import ATTESTED, RELEASE_FILE
from dp.ledger import Ledger

COMMAND = [sys.executable, "-m", "clearinghouse.cli.main"]


@pytest.fixture
def cli(capsys, monkeypatch):
    monkeypatch.delenv("CLEARINGHOUSE_HOME", raising=False)

    def call(*arguments, code=0):
        errors = []
        found = run([*map(str, arguments), "--json"], errors.append)
        assert found == code, errors
        out = capsys.readouterr().out
        return json.loads(out) if code == 0 else errors[0]

    return call


def stored_answer(home: Path, key: str) -> dict:
    """The counts that the owner's ledger stored; asking it draws nothing."""
    (entry,) = [e for e in Ledger(home / "ledger.sqlite").entries() if e.key == key]

    def never() -> bytes:
        raise AssertionError("drawn again")

    return parse_canonical(
        Ledger(home / "ledger.sqlite").release(
            key, entry.body_digest, entry.cost_micro, never, entry.purpose
        )
    )


def counted(rows, scores, edges) -> np.ndarray:
    """Rows by label and bin, counted one by one."""
    counts = np.zeros((2, len(edges) - 1), int)
    for label, score in zip(rows.labels, scores, strict=True):
        place = max(b for b in range(len(edges) - 1) if edges[b] <= int(score * 1e6))
        counts[label, place] += 1
    return counts


def everything_in(*folders: Path) -> bytes:
    return b"\n".join(p.read_bytes() for f in folders for p in f.rglob("*") if p.is_file())


def test_the_whole_path_by_hand(cli, files, rows, schema, net, tmp_path) -> None:
    model = tmp_path / "net.onnx"
    model.write_bytes(net[1])
    va, ada, stick = tmp_path / "va", tmp_path / "ada", tmp_path / "stick"
    boxes = (tmp_path / "va_box", tmp_path / "ada_box")
    cli("init", "--role", "hospital", "--name", "VA", "--home", va)
    cli("init", "--role", "developer", "--name", "Ada", "--home", ada)

    # At epsilon 100 noise is 0 but for a chance of 1e-7: what comes must be the exact counts.
    terms = ("--schema", files / "schema.yaml", "--limit", "100", "--epsilon", "100")
    at = ("--email", VA, "--box", boxes[0], "--home", va)
    offered = cli("onsite", "publish", files / "va.csv", *terms, "--to", ADA, *at)
    cli("onsite", "carry", "--out", stick, "--for", ADA, "--home", va)
    mine = ("--email", ADA, "--box", boxes[1], "--home", ada)
    assert cli("onsite", "carry", "--in", stick, *mine)["copied"]
    sent = cli("onsite", "submit", model, "--hospital", VA, "--job", "net", "--home", ada)
    assert sent["hospital_key"] == offered["key_id"]
    cli("onsite", "carry", "--out", stick, "--home", ada)
    cli("onsite", "carry", "--in", stick, "--home", va)

    assert cli("onsite", "review", "--home", va)["jobs"][0]["job"] == "net"
    seen = cli("onsite", "review", "net", "--home", va)
    assert seen["operators"]["MatMul"] == 3
    assert (seen["epsilon"], seen["epsilon_left"], seen["approved"]) == ("100.00", "100.00", False)
    cli("onsite", "run", "net", "--home", va, code=3)  # nobody approved it
    cli("onsite", "approve", "net", "--home", va)
    cli("onsite", "share", "net", "--home", va, code=3)  # it was not run
    assert cli("budget", "show", "--home", va)["spent"] == "0.00"
    cli("onsite", "run", "net", "--home", va)
    (exact_file,) = (va / "private/onsite/exact").glob("*.json")
    exact = json.loads(exact_file.read_text())["counts"]
    assert cli("budget", "show", "--home", va)["spent"] == "0.00"  # a run alone costs nothing
    shared = cli("onsite", "share", "net", "--home", va)
    assert (shared["paid"], shared["spent"], shared["developer"]) == ("100.00", "100.00", ADA)

    cli("onsite", "carry", "--out", stick, "--for", ADA, "--home", va)
    cli("onsite", "carry", "--in", stick, "--home", ada)
    result = cli("onsite", "collect", "net", "--hospital", VA, "--home", ada)
    scores = scores_of(net[1], schema, rows)
    edges = [*range(0, 1_000_000, 125_000), 1_000_001]
    expected = counted(rows, scores, edges)
    assert exact["histogram"] == expected.ravel().tolist()
    assert result["counts"] == exact == stored_answer(va, exact_file.stem)
    assert result["signed_by"] == offered["key_id"]
    wins = sum(
        1.0 if p > n else 0.5 if p == n else 0.0
        for p in np.repeat(range(8), expected[1])
        for n in np.repeat(range(8), expected[0])
    )
    auc = wins / (expected[0].sum() * expected[1].sum())
    assert float(result["scores"]["auc"]) == pytest.approx(auc, abs=1e-6)
    women = rows.categories["sex"] == 0
    ill = women & (rows.labels == 1)
    (told,) = [g for g in result["groups"] if (g["attribute"], g["level"]) == ("sex", "women")]
    assert float(told["sensitivity"]) == pytest.approx((scores[ill] >= 0.5).mean(), abs=1e-6)

    (release,) = cli("budget", "show", "--home", va)["releases"]
    assert release["purpose"].startswith("on-site evaluation of model ")
    assert [c["what"] for c in release["counts"]] == ["histogram", "subgroup sex", "subgroup age"]
    lines = (files / "va.csv").read_bytes().splitlines()[1:]
    public = everything_in(*boxes, stick, ada)
    assert len(lines) == 200
    assert not [line for line in lines if line in public]  # not even in the hospital's own box
    review = boxes[0] / VA / "app_data/job/review"
    found = {path.name for path in review.rglob("*") if path.is_file()}
    assert found == {RELEASE_FILE, "state.yaml", "syft.pub.yaml"}  # no stdout, no stderr
    assert not exact_file.exists()


def test_a_repeat_is_replayed_and_what_the_budget_does_not_hold_is_refused_in_words(
    pair, schema
) -> None:
    both = pair(epsilon_micro=1_000_000, limit_micro=1_500_000)
    job = both.approved("first", constant(schema, 0.01))
    both.hospital.run("first")
    both.hospital.share("first")
    assert both.hospital.budget.spent == 1_000_000
    first = both.released("first")
    assert first.counts == stored_answer(both.hospital.keystore.directory, job.key)
    assert "replay" in ATTESTED

    both.hospital.share("first")  # again
    again = both.approved("same", constant(schema, 0.01))  # the same model under another name
    assert (again.key, again.sha256) == (job.key, job.sha256)
    both.hospital.share("same")  # not even run again
    assert both.released("same").counts == first.counts
    assert both.hospital.budget.spent == 1_000_000

    both.approved("other", constant(schema, 0.02))
    both.hospital.run("other")
    before = everything_in(both.hospital.keystore.directory / "private/onsite/exact")
    with pytest.raises(BudgetExceededError, match=r"costs epsilon 1\.00, and 0\.50 of 1\.50"):
        both.hospital.share("other")
    assert both.hospital.budget.spent == 1_000_000
    assert len(Ledger(both.hospital.keystore.directory / "ledger.sqlite").entries()) == 1
    assert before == everything_in(both.hospital.keystore.directory / "private/onsite/exact")
    with pytest.raises(NotFoundError, match="released nothing"):
        both.released("other")


def share_in_a_process(home: Path, job: str, failure: str) -> int:
    support = str(Path(__file__).parents[2] / "support")
    environment = {**os.environ, "CLEARINGHOUSE_FAIL": failure, "PYTHONPATH": support}
    command = [*COMMAND, "onsite", "share", job, "--home", str(home)]
    return subprocess.run(command, timeout=120, env=environment, check=False).returncode


@pytest.fixture(scope="module")
def home_with_runs(files, schema, tmp_path_factory) -> Path:
    """A hospital's home, made by the command, with two jobs that were run."""
    folder = tmp_path_factory.mktemp("crash")
    va, ada, stick = folder / "va", folder / "ada", folder / "stick"

    def call(*arguments) -> None:
        assert run([*map(str, arguments), "--json"], pytest.fail) == 0

    call("init", "--role", "hospital", "--name", "VA", "--home", va)
    call("init", "--role", "developer", "--name", "Ada", "--home", ada)
    at = ("--schema", files / "schema.yaml", "--email", VA, "--box", folder / "va_box")
    call("onsite", "publish", files / "va.csv", "--to", ADA, *at, "--home", va)
    call("onsite", "carry", "--out", stick, "--for", ADA, "--home", va)
    mine = ("--email", ADA, "--box", folder / "ada_box")
    call("onsite", "carry", "--in", stick, *mine, "--home", ada)
    for name, weight in (("late", 0.01), ("early", 0.02)):
        model = folder / f"{name}.onnx"
        model.write_bytes(constant(schema, weight))
        call("onsite", "submit", model, "--hospital", VA, "--job", name, "--home", ada)
    call("onsite", "carry", "--out", stick, "--home", ada)
    call("onsite", "carry", "--in", stick, "--home", va)
    for name in ("late", "early"):
        call("onsite", "approve", name, "--home", va)
        call("onsite", "run", name, "--home", va)
    return va


def releases_in(home: Path, job: str) -> list[Path]:
    return list(home.parent.glob(f"va_box/**/{job}/outputs/{RELEASE_FILE}"))


def test_a_crash_between_debit_and_release_gives_the_same_answer(cli, home_with_runs) -> None:
    home = home_with_runs
    before = Ledger(home / "ledger.sqlite").balance()[0]
    assert share_in_a_process(home, "late", "onsite.released=kill") == -9
    assert releases_in(home, "late") == []
    entry = Ledger(home / "ledger.sqlite").entries()[-1]
    drawn = stored_answer(home, entry.key)
    shared = cli("onsite", "share", "late", "--home", home)
    assert shared["paid"] == "0.00"
    assert Ledger(home / "ledger.sqlite").balance()[0] == before + 1_000_000
    envelope = json.loads(releases_in(home, "late")[0].read_text())
    predicate = json.loads(base64.b64decode(envelope["payload"]))["predicate"]
    assert {t["name"]: t["counts"] for t in predicate["tables"]} == drawn


def test_a_crash_before_the_draw_loses_the_cost_and_is_never_drawn_again(
    cli, home_with_runs
) -> None:
    home = home_with_runs
    before = Ledger(home / "ledger.sqlite").balance()[0]
    assert share_in_a_process(home, "early", "agent.charged=kill") == -9
    message = cli("onsite", "share", "early", "--home", home, code=3)
    assert "no answer" in message
    assert "--repeat 1" in message
    assert Ledger(home / "ledger.sqlite").balance()[0] == before + 1_000_000
    assert releases_in(home, "early") == []


def test_only_the_hospitals_own_answer_to_this_job_is_believed(pair, schema) -> None:
    both = pair(limit_micro=3_000_000)
    both.approved("one", constant(schema, 0.01))
    both.approved("two", constant(schema, 0.02))
    for name in ("one", "two"):
        both.hospital.run(name)
        both.hospital.share(name)
    both.released("one")
    place = both.developer.box.folder / VA / "app_data/job/review" / ADA / "v1"
    mine, other = place / "one/outputs" / RELEASE_FILE, place / "two/outputs" / RELEASE_FILE
    good = mine.read_bytes()

    mine.write_bytes(other.read_bytes())  # signed, and of another job
    with pytest.raises(VerificationError, match="not the answer to this job"):
        both.developer.collect(VA, "one")
    for position in range(10, len(good), 97):  # one changed byte anywhere
        changed = bytearray(good)
        changed[position] ^= 1
        mine.write_bytes(bytes(changed))
        with pytest.raises((VerificationError, InputError)):
            both.developer.collect(VA, "one")
    mine.write_bytes(good)
    assert both.developer.collect(VA, "one").card.status == "ok"

    offer = both.developer.box.folder / VA / "public/syft_datasets/validation/offer.json"
    foreign = both.developer.keystore.signing_key.verify_key.base64
    text = offer.read_text()
    offer.write_text(text.replace(json.loads(text)["key"], foreign))
    with pytest.raises(RefusedError, match="another key than before"):
        both.developer.submit(constant(schema, 0.03), both.wish("three"))


def test_what_pysyft_itself_sees(pair, schema) -> None:
    from syft_datasets.dataset_manager import SyftDatasetManager
    from syft_job import JobClient, SyftJobConfig

    both = pair()
    both.approved("net", constant(schema, 0.01))
    box = both.hospital.box
    theirs = JobClient.from_config(SyftJobConfig(syftbox_folder=box.folder, current_user_email=VA))
    (seen,) = theirs.jobs
    assert (seen.name, seen.submitted_by, seen.status) == ("net", ADA, "pending")
    assert theirs.validate_submission(seen.job_submission_path) == (True, "")
    states = []
    both.hospital.run("net")
    states.append(next(iter(theirs.jobs)).status)
    both.hospital.share("net")
    done = next(iter(theirs.jobs))
    states.append(done.status)
    # "approved" would make PySyft's own runner start the run.sh that lies in the inbox
    assert states == ["pending", "done"]
    assert [path.name for path in done.output_paths] == [RELEASE_FILE]
    manager = SyftDatasetManager(syftbox_folder_path=both.developer.box.folder, email=ADA)
    (dataset,) = manager.get_all()
    assert (dataset.name, dataset.owner) == ("validation", VA)
    assert sorted(path.name for path in dataset.mock_files) == ["mock.csv", "offer.json"]
    with dataset.mock_files[0].open() as stream:
        assert len(list(csv.reader(stream))) >= 1


def test_an_answer_is_for_its_developer_alone(pair, schema) -> None:
    both = pair()
    both.hospital.box.allow("validation", BOB)
    both.approved("net", constant(schema, 0.01))
    both.hospital.run("net")
    _, path = both.hospital.share("net")
    datasite = both.hospital.box.folder / VA
    place = path.relative_to(datasite).as_posix()
    box = both.hospital.box
    assert box.readable(VA, ADA, [place]) == [place]
    for other in (BOB, "eve@models.org"):
        assert box.readable(VA, other, [place]) == []
        assert box.writable(VA, other, [place]) == []
    private = [
        p.relative_to(datasite).as_posix() for p in (datasite / "private").rglob("*") if p.is_file()
    ]
    assert private
    assert box.readable(VA, ADA, private) == []
    state = yaml.safe_load((path.parents[1] / "state.yaml").read_text())
    assert (state["status"], state["return_code"]) == ("done", 0)
