import hashlib
import sqlite3

import numpy as np
import pyrage
import pytest

from clearinghouse import cells
from clearinghouse.asks import ask_commitment, opens_ask
from clearinghouse.canonical import canonical_bytes
from clearinghouse.client import provider as provider_module
from clearinghouse.client.consents import record_columns
from clearinghouse.client.keystore import Keystore
from clearinghouse.client.provider import Provider, SourceTerms
from clearinghouse.client.sealed_body import entry_bytes, read_body, write_body
from clearinghouse.client.shown import read_shown, tag_of
from clearinghouse.errors import (
    BudgetExceededError,
    ConflictError,
    InputError,
    ProtocolError,
    RefusedError,
)
from clearinghouse.ids import new_id
from clearinghouse.messages.deliveries import DeliverTask, ReceiveTask, Recipient, ShowTask
from clearinghouse.messages.tasks import AskCommitTask, AskRevealTask, TaskView
from clearinghouse.rows import draw_key, verify_proofs
from dp import size

TERMS = SourceTerms(64, 2_000_000, 1_000_000, 1_000_000)
REQUEST = new_id("req")
PRICE = 2_500_000


@pytest.fixture
def provider(connect, heart):
    keystore, transport = connect("cleveland")
    made = Provider("cleveland", keystore, transport, heart(90, seed=1), TERMS)
    made.publish()
    return made


def view(task, request_id=REQUEST):
    return TaskView(id=new_id("tsk"), request_id=request_id, deadline=2**33, task=task)


def deliver(
    provider, quota, recipients, level=("sex",), order=None, seed=bytes(32), skip=(), price=PRICE
):
    return DeliverTask(
        order_id=order or new_id("ord"),
        source_id=provider.source_id,
        level=list(level),
        quota=list(quota),
        skip=list(skip),
        ladder=[[place, price, units] for place, units in enumerate(quota) if units],
        draw_seed=seed.hex(),
        purpose="train models",
        attributes=list(record_columns(provider.schema)),
        recipients=[named(provider, recipient) for recipient in recipients],
    )


def named(provider, recipient):
    """A recipient by the provider's own grant."""
    (grant,) = provider.consents.granted()
    return recipient.model_copy(update={"grant_id": grant.id})


def sell(provider, quota, recipients, **others):
    provider.handle(view(AskCommitTask(source_id=provider.source_id, frozen_digest="0" * 64)))
    return provider.handle(view(deliver(provider, quota, recipients, **others)))


@pytest.fixture
def recipients(tmp_path):
    keystores = [Keystore.open(tmp_path / f"developer{i}") for i in range(2)]
    return keystores, [
        Recipient(org_id=new_id("org"), grant_id=new_id("grt"), age_recipient=k.age_recipient)
        for k in keystores
    ]


def test_registration_says_nothing_that_depends_on_the_rows(bench, connect, heart):
    posted = []
    for n in (64, 127):
        keystore, transport = connect(f"p{n}")
        Provider(f"p{n}", keystore, transport, heart(n, seed=n), TERMS).publish()
        posted.append(next(body for path, body in reversed(bench.posts) if path == "sources"))
    assert posted[0]["leaves"] == posted[1]["leaves"] == 128
    said = {name for name, value in posted[0].items() if value is not None}
    assert said == {"name", "schema_id", "size_class", "rows_root", "leaves"}


def test_an_undeclared_size_is_released_with_noise_and_paid_once(bench, connect, heart):
    """The noised n, class and leaves are published; n is not, and nothing else depends on it."""
    keystore, transport = connect("shy")
    terms = SourceTerms(None, 2_000_000, 800_000, 1_000_000, epsilon_size_micro=200_000)
    shy = Provider("shy", keystore, transport, heart(90, seed=1), terms)
    shy.publish()
    posted = next(body for path, body in reversed(bench.posts) if path == "sources")
    noised = posted["size_release"]["noised"]
    assert posted["size_class"] == size.size_class(noised, 200_000)
    assert posted["leaves"] == size.room(noised, 200_000)
    assert (shy.budget.spent, shy.budget.limit) == (1_000_000, 1_000_000)
    again = Provider("shy", keystore, transport, heart(90, seed=1), terms)
    assert again.publish() == shy.source_id
    assert again.size == shy.size
    with pytest.raises(ConflictError):
        Provider("shy", keystore, transport, heart(91, seed=1), terms).publish()


def test_a_noised_size_beyond_the_budget_is_refused_and_free(bench, connect, heart):
    keystore, transport = connect("poor and shy")
    before = len(bench.posts)
    for epsilon, error in ((1_000_001, BudgetExceededError), (9_999, InputError)):
        terms = SourceTerms(None, 1, 1, 1_000_000, epsilon_size_micro=epsilon)
        shy = Provider("poor and shy", keystore, transport, heart(90), terms)
        with pytest.raises(error):
            shy.publish()
        assert shy.budget.spent == 0
    assert not [path for path, _ in bench.posts[before:] if path == "sources"]


def test_the_summary_is_published_once_and_replayed(bench, provider, connect, heart):
    sent = [body for path, body in bench.posts if path.endswith("/summary")]
    assert len(sent) == 1
    assert sent[0]["level"] == ["age", "sex"]
    assert len(sent[0]["counts"]) == 16
    keystore, transport = connect("cleveland")
    again = Provider("cleveland", keystore, transport, heart(90, seed=1), TERMS)
    assert again.publish() == provider.source_id
    assert again.summary() == provider.summary()
    assert [path for path, _ in bench.posts].count("sources") == 1
    assert (provider.budget.spent, provider.budget.limit) == (1_000_000, 1_000_000)


def test_the_summary_uses_the_finest_level_that_noise_leaves_room_for(schema):
    for size_class, expected in ((1, ()), (4, ()), (8, ("sex",)), (32, ("age", "sex"))):
        level = cells.finest_level(
            schema, epsilon_micro=1_000_000, size_class=size_class, share=0.5
        )
        assert level == expected


def test_summaries_are_noised_counts(connect, heart):
    # 16 tables of 16 cells: |noise| averages 0.85 at epsilon 1 with a standard deviation of 1.05,
    # so the mean of 256 draws has a standard error of 0.066 and leaves 0.4..1.4 with a chance
    # below 1e-10; no noise at all gives 0.
    errors = []
    for index in range(16):
        keystore, transport = connect(f"p{index}")
        made = Provider(f"p{index}", keystore, transport, heart(64, seed=index), TERMS)
        made.publish()
        exact = cells.counts(made.table, ["age", "sex"])
        errors.append(np.abs(np.array(made.summary().counts) - exact).mean())
    assert 0.4 < np.mean(errors) < 1.4


def test_epsilon_is_debited_before_noise_is_drawn(connect, heart, monkeypatch):
    keystore, transport = connect("crash")
    made = Provider("crash", keystore, transport, heart(64), TERMS)
    seen = []

    def crash(counts, epsilon):
        with sqlite3.connect(keystore.ledger_path) as other:
            seen.append(other.execute("SELECT spent FROM account WHERE lane='epsilon'").fetchone())
        raise KeyboardInterrupt

    monkeypatch.setattr(provider_module, "geometric", crash)
    with pytest.raises(KeyboardInterrupt):
        made.publish()
    assert seen == [(1_000_000,)]
    monkeypatch.undo()
    # The draw had begun: its cost is gone, and nothing can be had for free afterwards.
    with pytest.raises(RefusedError):
        Provider("crash", keystore, transport, heart(64), TERMS).publish()
    assert made.budget.spent == 1_000_000


def test_a_summary_above_the_limit_is_refused_and_free(connect, heart, bench):
    keystore, transport = connect("poor")
    terms = SourceTerms(64, 1, 1_000_000, 999_999)
    made = Provider("poor", keystore, transport, heart(64), terms)
    with pytest.raises(BudgetExceededError):
        made.publish()
    assert made.budget.spent == 0
    assert not [path for path, _ in bench.posts if path.endswith("/summary")]


def test_another_table_cannot_pass_for_the_committed_one(provider, connect, heart):
    keystore, transport = connect("cleveland")
    with pytest.raises(ProtocolError, match="not the one it committed to"):
        Provider("cleveland", keystore, transport, heart(90, seed=2), TERMS).publish()


def test_asks_open_their_commitment_and_nothing_else(provider):
    task = AskCommitTask(source_id=provider.source_id, frozen_digest="0" * 64)
    committed = provider.handle(view(task)).commitment
    assert provider.handle(view(task)).commitment == committed
    revealed = provider.handle(view(AskRevealTask(source_id=provider.source_id)))
    salt, source = bytes.fromhex(revealed.salt), provider.source_id
    assert revealed.ask_micro == 2_000_000
    assert len(salt) == 32
    plain = b"clearinghouse ask v1" + salt + REQUEST.encode() + source.encode() + b"2000000"
    assert committed == hashlib.sha256(plain).hexdigest()
    assert opens_ask(committed, salt, REQUEST, source, 2_000_000)
    assert not opens_ask(committed, salt, REQUEST, source, 2_000_001)
    assert not opens_ask(committed, salt, new_id("req"), source, 2_000_000)
    assert not opens_ask(committed, salt, REQUEST, new_id("src"), 2_000_000)
    assert not opens_ask(committed, bytes(32), REQUEST, source, 2_000_000)
    assert not opens_ask(committed, salt[:31], REQUEST, source, 2_000_000)
    other = provider.handle(view(task, new_id("req"))).commitment
    assert other != committed
    with pytest.raises(RefusedError):
        provider.handle(view(AskRevealTask(source_id=source), new_id("req")))
    with pytest.raises(ValueError):
        ask_commitment(salt, REQUEST, source, -1)


def test_draws_are_the_first_rows_of_each_cell_and_dummies_where_rows_run_out(provider):
    level = ["sex"]
    exact = cells.counts(provider.table, level)
    quota = [int(exact[0]) + 5, 3, int(exact[2]), 0]
    entries = provider.draw(level, quota, b"s" * 32)
    assert len(entries) == sum(quota)
    place_of = cells.places(provider.table, level)
    records = [canonical_bytes(record) for record in provider.table.records()]
    for place, need in enumerate(quota):
        mine = [entry for entry in entries if entry.place == place]
        real = [entry for entry in mine if entry.weight]
        assert len(mine) == need
        assert len(real) == min(need, int(exact[place]))
        rows = np.flatnonzero(place_of == place).tolist()
        leaves = provider.commitments.leaves
        hashes = [hashlib.sha256(text).digest() for text in records]
        expected = sorted(rows, key=lambda row: draw_key(b"s" * 32, hashes[row]))[: len(real)]
        assert [canonical_bytes(e.record) for e in real] == [records[row] for row in expected]
        assert [e.proof.leaf for e in real] == [leaves[row] for row in expected]
    assert provider.draw(level, quota, b"t" * 32) != entries


@pytest.mark.parametrize("quota", [[1, 2, 3], [1] * 5, []])
def test_a_quota_of_another_shape_is_refused(provider, quota):
    with pytest.raises(ProtocolError):
        provider.draw(["sex"], quota, bytes(32))
    with pytest.raises(InputError):
        provider.draw(["pain"], quota, bytes(32))


def test_dummies_have_the_shape_of_records(provider, schema):
    entries = provider.draw(["sex"], [40, 40, 40, 40], bytes(32))
    assert {entry.weight for entry in entries} == {0, 1}

    def body(some):
        return write_body(
            schema,
            provider.commitments.size,
            order_id="ord",
            source_id="src",
            purpose="p",
            entries=some,
        )

    real = [entry for entry in entries if entry.weight]
    dummies = [entry for entry in entries if not entry.weight]
    sizes = {len(body([entry])) for entry in entries}
    assert len(sizes) == 1
    few = min(len(real), len(dummies))
    assert len(body(real[:few])) == len(body(dummies[:few]))
    for dummy in dummies:
        assert set(dummy.record) == set(real[0].record)
        assert len(dummy.proof.path) == len(real[0].proof.path)
        assert set(dummy.record.values()) == {None}
    assert entry_bytes(schema, 128) == entry_bytes(schema, 64) + 67
    assert read_body(body(entries)).entries == tuple(entries)


def test_a_delivery_is_sealed_to_every_recipient_and_to_nobody_else(bench, provider, recipients):
    keystores, keys = recipients
    quota = [9, 60, 4, 7]
    answer = sell(provider, quota, keys)
    sealed = bench.blobs[answer.sealed_blob]
    bodies = {keystore.unseal(sealed) for keystore in keystores}
    assert len(bodies) == 1
    body = read_body(bodies.pop())
    assert len(body.entries) == sum(quota)
    assert body.purpose == "train models"
    real = sum(entry.weight for entry in body.entries)
    assert answer.real == real < sum(quota)
    root, size = provider.commitments.root, provider.commitments.size
    assert verify_proofs(bench.blobs[answer.proofs_blob], root=root, size=size, most=80) == real
    with pytest.raises(InputError):
        provider.keystore.unseal(sealed)
    with pytest.raises(pyrage.DecryptError):
        pyrage.decrypt(sealed, [pyrage.x25519.Identity.generate()])
    for record in provider.table.records():
        assert canonical_bytes(record) not in sealed
        assert canonical_bytes(record) not in bench.blobs[answer.proofs_blob]


def test_what_is_out_of_turn_is_refused(provider, recipients):
    _, keys = recipients
    with pytest.raises(RefusedError, match="no ask"):
        provider.handle(view(deliver(provider, [1, 1, 1, 1], keys)))
    with pytest.raises(RefusedError, match="below the ask"):
        sell(provider, [1, 1, 1, 1], keys, price=1_999_999)
    with pytest.raises(RefusedError, match="do not fit"):
        provider.handle(view(deliver(provider, [1] * 4, keys).model_copy(update={"ladder": []})))
    with pytest.raises(RefusedError, match="second order"):
        sell(provider, [1, 1, 1, 1], keys, skip=[1, 0, 0, 0])
    first = new_id("ord")
    answer = sell(provider, [1, 1, 1, 1], keys, order=first)
    assert answer.claim_micro == 4 * PRICE
    with pytest.raises(RefusedError, match="second order"):
        sell(provider, [1, 1, 1, 1], keys)
    with pytest.raises(RefusedError, match="with other rows"):
        sell(provider, [2, 1, 1, 1], keys, order=first)
    with pytest.raises(RefusedError, match="not a source"):
        provider.handle(view(AskRevealTask(source_id=new_id("src"))))
    with pytest.raises(RefusedError, match="takes no receive"):
        provider.handle(view(ReceiveTask(schema_id=new_id("sch"), deliveries=[])))


def test_an_order_that_takes_over_follows_the_rows_of_the_first(bench, provider, recipients):
    keystores, keys = recipients
    first, again = [3, 4, 0, 6], [2, 0, 1, 3]

    def rows(answer):
        body = read_body(keystores[0].unseal(bench.blobs[answer.sealed_blob]))
        return [entry.proof.index for entry in body.entries if entry.weight]

    one = rows(sell(provider, first, keys))
    order = deliver(provider, again, keys, skip=first)
    two = rows(provider.handle(view(order)))
    assert not set(one) & set(two)
    both = provider.draw(["sex"], [a + b for a, b in zip(first, again, strict=True)], bytes(32))
    assert {entry.proof.index for entry in both if entry.weight} == {*one, *two}
    with pytest.raises(RefusedError, match="third order"):
        provider.handle(view(deliver(provider, again, keys, skip=again)))


def test_undersold_rows_are_shown_as_tags_of_a_size_that_tells_nothing(bench, provider, recipients):
    keystores, keys = recipients

    def shown(show):
        task = ShowTask(
            source_id=provider.source_id,
            level=["sex"],
            skip=[2, 2, 2, 2],
            show=show,
            draw_seed="00" * 32,
            recipients=[named(provider, key) for key in keys],
        )
        return keystores[1].unseal(bench.blobs[provider.handle(view(task)).shown_blob])

    with pytest.raises(RefusedError, match="no ask"):
        shown([1, 1, 1, 1])
    sell(provider, [2, 2, 2, 2], keys)
    many, few = shown([0, 60, 0, 0]), shown([60, 0, 0, 0])
    assert len(many) == len(few)  # there are not 60 rows in either place
    tags = read_shown(many, provider.source_id)
    following = [e for e in provider.draw(["sex"], [0, 62, 0, 0], bytes(32)) if e.weight][2:]
    known = {tag_of(bytes(32), provider.source_id, canonical_bytes(e.record)) for e in following}
    assert sum(tag.tag in known for tag in tags) == len(following) < 60
    for record in provider.table.records():
        assert canonical_bytes(record) not in many


def test_a_deposit_above_the_owners_limit_is_refused(connect, heart):
    keystore, transport = connect("careful")
    terms = SourceTerms(64, 2_000_000, 1_000_000, 1_000_000, deposit_micro=5)
    provider = Provider("careful", keystore, transport, heart(90, seed=1), terms)
    provider.publish()
    for amount in (5, 6):
        task = AskCommitTask(
            source_id=provider.source_id, frozen_digest="0" * 64, deposit_micro=amount
        )
        if amount > 5:
            with pytest.raises(RefusedError, match="deposit"):
                provider.handle(view(task))
        else:
            assert provider.handle(view(task)).commitment


def test_a_number_too_long_for_an_entry_is_refused_before_anything_is_committed(connect, schema):
    from clearinghouse.schema import parse_schema
    from clearinghouse.tables import from_records

    tiny = parse_schema(
        {
            "name": "tiny",
            "label": {"name": "y", "levels": ["0", "1"]},
            "columns": {"dose": {"kind": "number", "low": "0", "high": "1"}},
        },
        file="tiny",
    )
    table = from_records(tiny, [{"dose": "1e-60", "y": "1"}], file="made")
    keystore, transport = connect("tiny")
    with pytest.raises(InputError, match="column 'dose', row 1"):
        Provider("tiny", keystore, transport, table, SourceTerms(1, 1, 1, 1)).publish()
    assert keystore.read("rows.seed") is None
