"""What a submitter tries against the hospital: programs, swaps, leaks, graphs that mix rows.

The three holes of PySyft's own runner come first: rows through its outputs, files that change after
approval, and a host that is in reach.
"""

import hashlib
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from onsite_pair import ADA, BOB, VA, constant, graph

from clearinghouse.client.budget import unit_of
from clearinghouse.errors import ConflictError, InputError, NotFoundError, RefusedError
from clearinghouse.features import encode, features
from clearinghouse.onsite import carry, jail
from clearinghouse.onsite.box import Box
from clearinghouse.onsite.graphs import scan
from clearinghouse.onsite.jail import evaluate
from clearinghouse.onsite.lockdown import NOBODY
from clearinghouse.onsite.papers import JOB_FILE, MODEL_FILE, NOT_A_PROGRAM
from clearinghouse.signing import b64encode

PROBE = """
import json, os, sys, socket, subprocess, threading, time
from clearinghouse.onsite.lockdown import lock
answers, found, turn = os.fdopen(os.dup(1), "w"), {}, threading.Event()
def attempt(name, act):
    try:
        act()
        found[name] = "done"
    except OSError as error:
        found[name] = error.errno
def in_a_thread():
    turn.wait()
    attempt("thread", lambda: open("/etc/hostname"))
early = threading.Thread(target=in_a_thread)
early.start()
lock(os.getppid(), 1 << 20)
turn.set()
early.join()
attempt("read", lambda: open("/etc/hostname"))
attempt("write", lambda: open("probe.txt", "w"))
attempt("list", lambda: os.listdir("/"))
attempt("look", lambda: os.stat("/etc/hostname"))
attempt("socket", lambda: socket.socket())
attempt("unix socket", lambda: socket.socketpair())
attempt("fork", lambda: os.fork() or os._exit(0))
attempt("run", lambda: os.execv("/bin/true", ["true"]))
attempt("signal", lambda: os.kill(os.getppid(), 0))
attempt("pipe", lambda: os.pipe())
attempt("become", lambda: os.setuid(0))
answers.write(json.dumps(found) + "\\n")
answers.flush()
sys.stdin.read()
"""


def test_a_locked_process_reaches_nothing(tmp_path) -> None:
    """As hostile code would find it that took the runtime over: whatever it calls is refused."""
    path = os.pathsep.join(part for part in sys.path if part)
    child = subprocess.Popen(
        [sys.executable, "-c", PROBE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": path},
        cwd=tmp_path,
    )
    with child:
        assert child.stdout is not None
        found = json.loads(child.stdout.readline())
        lines = Path(f"/proc/{child.pid}/status").read_text().splitlines()
    status = {key: value.split() for key, _, value in (line.partition(":") for line in lines)}
    own = str(os.geteuid() or NOBODY)  # root becomes nobody
    assert status["Uid"] == [own] * 4
    assert (status["Seccomp"], status["NoNewPrivs"]) == (["2"], ["1"])
    assert set(found.values()) == {1}, found  # EPERM, in every thread
    assert len(found) == 12
    assert not (tmp_path / "probe.txt").exists()


def test_the_process_gets_no_environment_no_files_and_no_output(monkeypatch, tmp_path) -> None:
    """What the runner hands over, seen by a program put in the interpreter's place."""
    monkeypatch.setenv("DB_PASSWORD", "hunter2")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "open.txt").write_text("an open file of the hospital")
    spy = tmp_path / "spy"
    spy.write_text("#!/bin/sh\nenv\npwd\nls -l /proc/$$/fd | sed 's/.*-> //'\necho LEAK >&2\n")
    spy.chmod(spy.stat().st_mode | stat.S_IXUSR)
    with (tmp_path / "open.txt").open() as kept:
        os.set_inheritable(kept.fileno(), True)
        monkeypatch.setattr(jail.sys, "executable", str(spy))
        told = jail._answer(b"rows", 30.0).decode()
    assert "hunter2" not in told
    assert "open.txt" not in told
    names = {line.partition("=")[0] for line in told.splitlines() if "=" in line}
    assert names <= {*jail.ENVIRONMENT, "PYTHONPATH", "PWD", "SHLVL", "_", "OLDPWD"}
    assert "\n/\n" in told
    assert "/dev/null" in told  # its standard error
    assert "LEAK" not in told


ANSWERS = (
    "",
    "[]",
    '{"scores": [[0.5]], "operators": {}, "weights": 1}',  # of one row, where there are two
    '{"scores": [[0.5], [{}]], "operators": {}, "weights": 1}',
    '{"scores": [[0.5], [0.1]], "operators": {"Age 63, ill": 1}, "weights": 1}',
    '{"scores": [[0.5], [0.1]], "operators": [], "weights": 1}',
    '{"scores": [[0.5], [0.1]], "operators": {}, "weights": Infinity}',
    '{"scores": [[0.5], [0.1]], "operators": {}}',
    "[" * 100_000,
)


@pytest.mark.parametrize("answer", ANSWERS, ids=range(len(ANSWERS)))
def test_an_answer_of_another_form_is_not_used(answer, monkeypatch, tmp_path) -> None:
    """As a process would give it that was taken over by a graph."""
    (tmp_path / "answer").write_text(answer)
    spy = tmp_path / "spy"
    spy.write_text(f"#!/bin/sh\nexec cat {tmp_path}/answer\n")
    spy.chmod(0o700)
    monkeypatch.setattr(jail.sys, "executable", str(spy))
    with pytest.raises(RefusedError, match="malformed answer"):
        evaluate(b"model", np.zeros((2, 3)), ("no", "yes"))


def test_a_process_that_dies_or_hangs_is_one_refusal(monkeypatch, tmp_path) -> None:
    spy = tmp_path / "spy"
    monkeypatch.setattr(jail.sys, "executable", str(spy))
    cases = (("kill -SEGV $$", 300.0, "died"), ("exec sleep 300", 0.5, "took more than 0.5 s"))
    for script, wall_s, words in cases:
        spy.write_text(f"#!/bin/sh\n{script}\n")
        spy.chmod(0o700)
        with pytest.raises(RefusedError, match=words):
            evaluate(b"model", np.zeros((2, 3)), ("no", "yes"), wall_s=wall_s)


# ---------------------------------------------------------------- what a job may hold


def test_a_job_that_brings_a_program_is_refused(pair, schema) -> None:
    both = pair()
    both.developer.submit(constant(schema, 0.01), both.wish("job"))
    folder = both.inbox("job")
    good = (folder / "run.sh").read_bytes()
    (folder / "run.sh").write_text("#!/bin/sh\ncat /etc/passwd > outputs/x\n")
    both.to_hospital()
    for act in (both.hospital.review, both.hospital.approve):
        with pytest.raises(InputError, match=r"run\.sh of its own: no code of a submitter"):
            act("job")
    (folder / "run.sh").write_bytes(good)
    (folder / "code" / "main.py").write_text("print(open('p.csv').read())")
    both.to_hospital()
    with pytest.raises(InputError, match=r"holds 'code/main\.py'"):
        both.hospital.approve("job")
    with pytest.raises(RefusedError, match="not approved"):
        both.hospital.run("job")


def test_a_pickled_model_is_refused_on_both_sides(pair, schema) -> None:
    both = pair()
    pickled = b"\x80\x04\x95\x1c\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system"
    with pytest.raises(InputError, match="Python pickle"):
        both.developer.submit(pickled, both.wish("job"))
    both.developer.submit(constant(schema, 0.01), both.wish("job"))
    folder = both.inbox("job")
    manifest = json.loads((folder / "code" / JOB_FILE).read_bytes())
    manifest |= {"model_sha256": hashlib.sha256(pickled).hexdigest(), "model_bytes": len(pickled)}
    (folder / "code" / JOB_FILE).write_text(
        json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    )
    (folder / "code" / MODEL_FILE).write_text(b64encode(pickled))
    both.to_hospital()
    with pytest.raises(InputError, match="Python pickle"):
        both.hospital.approve("job")


def test_links_are_neither_read_nor_carried(pair, schema, files) -> None:
    both = pair()
    both.developer.submit(constant(schema, 0.01), both.wish("job"))
    both.to_hospital()
    there = both.inbox("job", "hospital")
    (there / "code" / MODEL_FILE).unlink()
    (there / "code" / MODEL_FILE).symlink_to(files / "va.csv")
    with pytest.raises(InputError, match="no plain file"):
        both.hospital.approve("job")
    public = both.hospital.box.dataset(VA, "validation")
    (public / "more.csv").symlink_to(files / "va.csv")
    (public / "tables").symlink_to(files)
    private = both.hospital.box.folder / VA / "private"
    (private / "rows.csv").write_bytes((files / "va.csv").read_bytes())
    both.to_developer()
    rows = (files / "va.csv").read_bytes().splitlines()[1:]
    for place in (both.stick, both.developer.box.folder):
        held = [p for p in place.rglob("*") if p.is_file() or p.is_symlink()]
        assert held
        assert not any(p.is_symlink() or "private" in p.parts for p in held)
        assert not any(row in p.read_bytes() for p in held for row in rows)


def test_nobody_writes_into_anothers_inbox(pair, schema, tmp_path) -> None:
    both = pair()
    forged = tmp_path / "forged" / VA / "app_data/job"
    for place in (f"inbox/{BOB}/v1/j/run.sh", f"review/{ADA}/v1/j/state.yaml"):
        (forged / place).parent.mkdir(parents=True)
        (forged / place).write_text("x")
    (forged / f"inbox/{ADA}/v1/mine").mkdir(parents=True)
    (forged / f"inbox/{ADA}/v1/mine/run.sh").write_text("x")
    (forged / f"inbox/{ADA}/syft.pub.yaml").write_text("rules: []")
    copied = carry.hospital_takes(both.hospital.box, tmp_path / "forged")
    assert copied == [f"{VA}/app_data/job/inbox/{ADA}/v1/mine/run.sh"]  # Bob was not admitted


# ---------------------------------------------------------------- between approval and run


def test_what_runs_is_the_copy_that_was_approved(pair, schema, rows) -> None:
    both = pair()
    job = both.approved("job", constant(schema, 0.03))
    other = Box(both.stick.parent / "evil_box", ADA)
    evil = type(both.developer)(both.developer.keystore, other)
    carry.developer_takes(other, both.stick)
    evil.submit(constant(schema, -0.03), both.wish("job"))  # well formed, and another model
    carry.developer_gives(other, both.stick)
    assert carry.hospital_takes(both.hospital.box, both.stick)
    inbox = both.inbox("job", "hospital")
    pwned = both.stick.parent / "pwned"
    (inbox / "run.sh").write_text(f"#!/bin/sh\ntouch {pwned}\n")

    both.hospital.run("job")
    home = both.hospital.keystore.directory
    ran = json.loads((home / f"private/onsite/exact/{job.key}.json").read_text())
    age = encode(schema, rows)[:, 0].astype(np.float32)
    high = np.float32(1) / (1 + np.exp(-np.float32(0.03) * age)) >= 0.875
    counts = np.array(ran["counts"]["histogram"]).reshape(2, 8)
    assert counts.sum(axis=0)[7] == high.sum() > 0
    assert ran["rows"] == unit_of(rows)
    assert not pwned.exists()
    with pytest.raises(InputError, match=r"run\.sh of its own"):
        both.hospital.approve("job")
    (inbox / "run.sh").write_bytes(NOT_A_PROGRAM)
    with pytest.raises(ConflictError, match="approved with another model"):
        both.hospital.approve("job")
    copy = next((home / "private/onsite/jobs").glob("*.onnx"))
    copy.write_bytes(constant(schema, -0.03))
    with pytest.raises(RefusedError, match="copy of job 'job' was changed"):
        both.hospital.run("job")


def test_a_table_that_changed_is_not_run_on(pair, schema, rows) -> None:
    both = pair()
    both.approved("job", constant(schema, 0.01))
    both.hospital._read = lambda: rows.take(np.arange(1, rows.n))
    with pytest.raises(RefusedError, match="not the one that 'validation' was published for"):
        both.hospital.run("job")
    with pytest.raises(NotFoundError, match="no job"):
        both.hospital.run("another")


# ---------------------------------------------------------------- what a graph may do


def across_rows(width: int) -> bytes:
    """Age over the largest age of all rows: in a batch, one row moves every score."""
    nodes = [
        helper.make_node("Gather", ["x", "first"], ["age"], axis=1),
        helper.make_node("ReduceMax", ["age"], ["top"], axes=[0], keepdims=1),
        helper.make_node("Div", ["age", "top"], ["p"]),
    ]
    return graph(nodes, [("first", np.array([0]))], width).SerializeToString()


def test_no_graph_mixes_rows(schema, rows) -> None:
    """Else one patient would move every count, and the noise would hide nothing."""
    from onnxruntime import InferenceSession

    model = across_rows(len(features(schema)))
    encoded = encode(schema, rows)[:40]
    moved = encoded.copy()
    moved[7, 0] = 89.0
    batch = InferenceSession(model, providers=["CPUExecutionProvider"])
    together = [batch.run(None, {"x": x.astype(np.float32)})[0] for x in (encoded, moved)]
    assert (together[0] != together[1]).sum() > 20  # as PySyft's runner would have it
    levels = schema.label.levels
    apart = [evaluate(model, x, levels).scores for x in (encoded, moved)]
    assert (np.delete(apart[0], 7) == np.delete(apart[1], 7)).all()


def test_a_row_on_which_a_graph_fails_is_counted_and_its_values_are_not_told(schema, rows) -> None:
    """An error of the runtime quotes values: it ends in the process, and the row scores lowest."""
    nodes = [
        helper.make_node("Gather", ["x", "first"], ["age"], axis=1),
        helper.make_node("Cast", ["age"], ["place"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "place"], ["p"], axis=0),
    ]
    table = np.linspace(0, 1, 60).astype(np.float32)
    constants = [("first", np.array([0])), ("table", table)]
    model = graph(nodes, constants, len(features(schema))).SerializeToString()
    encoded = encode(schema, rows)
    found = evaluate(model, encoded, schema.label.levels).scores[:, 0]
    failing = encoded[:, 0] >= 60
    assert (np.isnan(found) == failing).all()
    assert 0 < failing.sum() < rows.n


WIDTH = 3


def nodes_of(*operators, domain=""):
    names = ["x", *(f"t{i}" for i in range(len(operators) - 1)), "p"]
    return [
        helper.make_node(op, [names[i]], [names[i + 1]], domain=domain)
        for i, op in enumerate(operators)
    ]


def whole_division():
    cast = helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT64)
    return [
        cast,
        helper.make_node("Div", ["i", "i"], ["d"]),
        helper.make_node("Cast", ["d"], ["p"], to=1),
    ]


def external():
    model = graph(nodes_of("Relu"), [("w", np.zeros(2, np.float32))], WIDTH)
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    model.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")
    return model.SerializeToString()


def branch():
    body = helper.make_graph(
        nodes_of("Relu"), "b", [], [helper.make_tensor_value_info("p", TensorProto.FLOAT, None)]
    )
    node = helper.make_node("If", ["x"], ["p"], then_branch=body, else_branch=body)
    return graph([node], width=WIDTH).SerializeToString()


REFUSED = {
    "random numbers": (nodes_of("RandomNormalLike"), "RandomNormalLike is not run"),
    "a size from values": (nodes_of("NonZero"), "NonZero is not run"),
    "another maker's operator": (
        nodes_of("Evil", domain="com.evil"),
        r"com\.evil\.Evil is not run",
    ),
    "a runtime's own operator": (nodes_of("Gelu", domain="com.microsoft"), "is not run"),
    "a division of integers": (whole_division(), "on fractions only"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_graphs_of_other_operators_are_refused(name) -> None:
    nodes, words = REFUSED[name]
    with pytest.raises(ValueError, match=words):
        scan(graph(nodes, width=WIDTH).SerializeToString(), WIDTH)


def test_external_data_and_branches_are_refused() -> None:
    for data, words in ((external(), "external data"), (branch(), "subgraphs")):
        with pytest.raises(ValueError, match=words):
            scan(data, WIDTH)
    with pytest.raises(ValueError, match="other than the schema's 4 features"):
        scan(graph(nodes_of("Relu"), width=WIDTH).SerializeToString(), 4)
    good = scan(graph(nodes_of("Relu", "Sigmoid"), width=WIDTH).SerializeToString(), WIDTH)
    assert good.inputs == (("x", WIDTH, "<f4"),)
