"""What a provider publishes and bids: sizes, the one summary, asks; and what it refuses to."""

import hashlib
import sqlite3

import numpy as np
import pytest
from selling import REQUEST, TERMS, view

from clearinghouse import cells
from clearinghouse.asks import ask_commitment, opens_ask
from clearinghouse.client import provider as provider_module
from clearinghouse.client.provider import Provider, SourceTerms
from clearinghouse.errors import (
    BudgetExceededError,
    ConflictError,
    InputError,
    ProtocolError,
    RefusedError,
)
from clearinghouse.ids import new_id
from clearinghouse.messages.tasks import AskCommitTask, AskRevealTask
from dp import size


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
