"""A hospital that lies, with the real key holder's primitives, against the real server's pipeline.

It is refused at the first test after its lie; no later message is sent, and what it was sent by
then is uniform.
"""

import numpy as np
import pytest
from evil import N, Thief, rewritten
from scipy.stats import chi2

from clearinghouse import features
from clearinghouse.errors import RefusedError
from clearinghouse.log.entries import epsilon_by_owner, parse_entry
from clearinghouse.messages.intake import RequestView
from clearinghouse.messages.results import LogView, RunList, StatementView
from clearinghouse.rehearsal.budgets import check_epsilon, report_budget
from secure_eval import framing
from secure_eval.framing import Kind
from secure_eval.keyholder import KeyHolder
from secure_eval.packing import VECTOR_BYTES
from secure_eval.params import PARAMETERS

P = PARAMETERS.plain_modulus


def lying(world, lies, liar="h"):
    """The hospital's uploads of these kinds are changed on their way."""
    connect = world.connect

    def connected(name):
        keystore, transport = connect(name)
        if name == liar:
            put = transport.put_blob

            def put_blob(data, kind):
                if kind in lies:
                    thief = Thief(KeyHolder.load(keystore.path("he.key")))
                    data = lies[kind](thief, data)
                return put(data, kind)

            transport.put_blob = put_blob
        return keystore, transport

    world.connect = connected


def accounts(world):
    """Log, ledger and statement agree, whatever went wrong."""
    hospital = world.hospital
    entries = hospital.transport.get("/log/entries", LogView).entries
    parsed = [parse_entry(text.encode()) for text in entries]
    logged = epsilon_by_owner(parsed).get(hospital.org_id, 0)
    spent = hospital.budget.spent
    told = report_budget({"h": (spent, hospital.budget.limit)})
    check_epsilon({"h": logged}, {"h": (spent, hospital.budget.limit)}, told)
    path = f"/requests/{world.request_id}/statement"
    statement = hospital.transport.get(path, StatementView)
    assert statement.balanced
    assert statement.balances[f"escrow:{world.request_id}"] == 0
    return parsed


def sent(world, run_id=None):
    """(kind, bytes) of every blob that travelled in the request, or in one of its runs."""
    with world.desk.store.read() as tx:
        found = tx.requests.messages(world.request_id, run_id)
    return [(message.kind, world.desk.blobs.get(message.digest)) for message in found]


def kinds(world):
    """Kinds of all tasks that were ever created."""
    with world.desk.store.read() as tx:
        return {task.task.kind for task in tx.tasks.of(world.request_id)}


# ---------------------------------------------------------------- step 0: the upload


class Parts:
    """Where things are in a block of the tiny schema: sex x age cells, subgroup sex."""

    def __init__(self, schema):
        self.names = [feature.name for feature in features.features(schema)]
        count = len(self.names)
        self.ages = [i for i, name in enumerate(self.names) if name.startswith("age >=")]
        self.sexes = [self.names.index("sex = F"), self.names.index("sex = M")]
        self.labels, self.valid, self.cells = [count, count + 1], count + 2, count + 3


def move(thief, parts, where, row):
    """Row's 1 among these parts moves to the next of them."""
    held = [int(thief.slots(parts[part])[row]) for part in where]
    here = held.index(1)
    thief.set(where[here], row, 0)(parts)
    thief.set(where[(here + 1) % len(where)], row, 1)(parts)


def in_padding(thief, parts, at):
    thief.set(at.valid, N - 1, 1)(parts)


def column_in_padding(thief, parts, at):
    thief.set(0, N - 1, 7)(parts)


def bit_above_a_gap(thief, parts, at):
    row = int(np.flatnonzero(thief.slots(parts[at.ages[-2]])[:100] == 0)[0])
    thief.set(at.ages[-1], row, 1)(parts)


def other_cell(thief, parts, at):
    """The row's cell x label one-hot moves to another cell of the same label."""
    row = int(np.flatnonzero(thief.slots(parts[at.labels[1]])[:100])[0])
    move(thief, parts, [at.cells + 2 * cell + 1 for cell in range(4)], row)


def other_bits(thief, parts, at):
    """One-hot bits, but of another category than the row's cell and subgroup."""
    move(thief, parts, at.sexes, 5)


def two_labels(thief, parts, at):
    row = int(np.flatnonzero(thief.slots(parts[at.labels[1]])[:100])[0])
    thief.set(at.labels[0], row, 1)(parts)


def loud(thief, parts, at):
    thief.loud([0], 141, slice(0, 30))(parts)


UPLOAD_LIES = (
    in_padding,
    column_in_padding,
    bit_above_a_gap,
    other_cell,
    other_bits,
    two_labels,
    loud,
)


@pytest.fixture(scope="module")
def sellers(play):
    """A market whose hospitals are still to come."""
    world = play()
    world.gather_sellers()
    return world


@pytest.mark.parametrize("lie", UPLOAD_LIES, ids=lambda lie: lie.__name__)
def test_a_false_upload_is_refused_before_any_epsilon_is_spent(sellers, lie, monkeypatch):
    world, name = sellers, lie.__name__
    at = Parts(world.schema)

    def change(thief, data):
        return rewritten(data, Kind.UPLOAD_BLOCK, lambda parts: lie(thief, parts, at))

    lying(world, {"valset.block": change}, name)
    world.gather_hospital(name)
    hospital = world.hospital
    thief = Thief(KeyHolder.load(hospital.keystore.path("he.key")))

    def answer(checks):  # whatever noise they carry: the honest agent would refuse loud ones
        return thief.replies(checks, Kind.UPLOAD_CHECKS, Kind.UPLOAD_REPLIES)

    monkeypatch.setattr(hospital.agent, "valset_checks", answer)
    view = world.work([hospital])
    assert view.state == "failed"
    assert "failed its tests: UPLOAD_REPLIES: a test failed" in view.reason
    assert kinds(world) == {"valset.checks"}
    assert hospital.budget.spent == 0
    assert not [entry for entry in accounts(world) if entry.type == "target.released"]
    with pytest.raises(RefusedError, match="failed its tests"):
        hospital.transport.post("/requests", view.terms, RequestView)


def test_a_set_is_tested_once_for_all_requests(world):
    world.gather()
    hospital = world.hospital
    world.work([hospital], until=lambda view: view.step == "clear")
    first = sent(world)
    assert [kind for kind, _ in first].count("valset.checks") == 1
    terms = world.view().terms.model_copy(update={"records": 61})
    world.request_id = hospital.transport.post("/requests", terms, RequestView).id
    hospital.keystore.remember(f"requests/{world.request_id}", terms.model_dump())
    world.work([hospital], until=lambda view: view.step == "clear")  # which needs its sellers
    assert kinds(world) >= {"target.noise", "target.replies"}
    assert "valset.checks" not in kinds(world)


# ---------------------------------------------------------------- steps 3, 6 and 7: a run


def constant_digits(thief, data):
    def change(parts):
        for index in range(1, 53):
            parts[index] = thief.holder.encrypted(np.full(N, 14 if index < 40 else 32))

    return rewritten(data, Kind.DIGITS, change)


def false_character(thief, data):
    return rewritten(data, Kind.CHARACTERS, thief.set(3, 4, 5))


def false_sum(_thief, data):
    """One count more, in the first opened sum."""
    head, body = data[:-4], data[-4:]  # the last reply is a check of the others
    value = (int.from_bytes(body, "little") + 1) % P
    return head + value.to_bytes(4, "little")


TO_DIGITS = ["score.score", "score.digits.digits", "score.early_checks", "score.early.replies"]
TO_CHARACTERS = [
    *TO_DIGITS,
    "score.shares",
    "score.characters.characters",
    "score.final_checks",
    "score.final.replies",
]
TO_REPLIES = [*TO_CHARACTERS, "score.openings", "score.replies.replies"]


def uniform(values, modulus, bins):
    """Chi-square against uniform; false alarm 1e-7."""
    counts = np.bincount(values * bins // modulus, minlength=bins)
    expected = len(values) / bins
    return float(((counts - expected) ** 2 / expected).sum()) < chi2.isf(1e-7, bins - 1)


def vectors(world, data, kind, count):
    holder = KeyHolder.load(world.hospital.keystore.path("he.key"))
    return [holder.vector(p, "x") for p in framing.decode(data, kind, [VECTOR_BYTES] * count)]


def is_suspended(world, view):
    """As the operator's note says, and as the server answers."""
    (note,) = view.notes
    assert "suspended until a dispute is settled" in note
    with pytest.raises(RefusedError, match="suspended"):
        world.hospital.transport.post("/requests", view.terms, RequestView)


def failed_test(world, run, words, messages):
    """A run that failed a test: nothing came of it, and what was sent by then is uniform."""
    assert run.state == "failed"
    assert words in run.reason
    assert f"({world.hospital.org_id}) failed a test" in run.reason
    assert (run.counts, run.scorecard, run.receipt) == ([], {}, None)
    found = sent(world, run.id)
    assert [kind for kind, _ in found] == messages
    assert "receipt.sign" not in kinds(world)
    (masked,) = vectors(world, found[0][1], Kind.SCORE, 1)
    assert uniform(masked, P, 64)
    return found


CHARACTERS = ("characters", false_character, "FINAL_REPLIES: a test failed", TO_CHARACTERS)
"""The same end one round earlier; that the lie is found is in `test_evil_agent_characters`."""


@pytest.mark.parametrize(
    ("what", "lie", "words", "messages"),
    [
        ("replies", false_sum, "the batch check failed", TO_REPLIES),
        pytest.param(*CHARACTERS, marks=pytest.mark.long),
    ],
)
def test_a_false_message_burns_the_run_and_suspends_the_hospital(world, what, lie, words, messages):
    honest = ["the target's replies"] if what == "replies" else []

    def later(thief, data):
        """The target is opened honestly; it has replies of the same kind, and they come first."""
        if honest:
            honest.pop()
            return data
        return lie(thief, data)

    lying(world, {what: later})
    world.gather()
    view = world.work(world.everybody)
    assert (view.state, view.reason) == ("done", ""), world.events
    hospital = world.hospital
    (run,) = hospital.transport.get(f"/requests/{world.request_id}/runs", RunList).runs
    found = failed_test(world, run, words, messages)
    share, proof = vectors(world, found[4][1], Kind.SHARES, 2)
    assert uniform(share, 32, 32)
    assert uniform(proof, P, 64)
    is_suspended(world, view)
    (burnt,) = [entry for entry in accounts(world) if entry.type == "run.released"]
    assert burnt.objects["run"] == run.id
    assert hospital.budget.spent == 1_500_000


def test_no_later_run_gets_a_message_from_then_on(world):
    """Two models: the first digits are false, so the second is never scored.

    What the hospital was asked in the other run before is waited for, and burnt if it answers.
    """
    world.recipes = ("logistic", "gam")
    lying(world, {"digits": constant_digits})
    world.gather()
    view = world.work(world.everybody)
    assert view.state == "done", world.events
    runs = world.hospital.transport.get(f"/requests/{world.request_id}/runs", RunList).runs
    assert [run.state for run in runs] == ["failed", "failed"]
    caught, other = sorted(runs, key=lambda run: "is suspended: " in run.reason)
    failed_test(world, caught, "EARLY_REPLIES: a test failed", TO_DIGITS)
    assert f"is suspended: {caught.id}: EARLY_REPLIES" in other.reason
    for run in runs:
        assert len(sent(world, run.id)) <= len(TO_DIGITS)
    assert "score.characters" not in kinds(world)
    is_suspended(world, view)
    answered = [run for run in runs if len(sent(world, run.id)) > 1]
    burnt = [entry for entry in accounts(world) if entry.type == "run.released"]
    assert {entry.objects["run"] for entry in burnt} == {run.id for run in answered}
    assert world.hospital.budget.spent == 500_000 + 1_000_000 * len(answered)
