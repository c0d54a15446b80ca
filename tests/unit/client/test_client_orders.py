"""What a provider delivers: which rows, in what shape, sealed to whom, and in which turn."""

import hashlib

import numpy as np
import pyrage
import pytest
from selling import PRICE, deliver, named, sell, view

from clearinghouse import cells
from clearinghouse.canonical import canonical_bytes
from clearinghouse.client.sealed_body import entry_bytes, read_body, write_body
from clearinghouse.client.shown import read_shown, tag_of
from clearinghouse.errors import InputError, ProtocolError, RefusedError
from clearinghouse.ids import new_id
from clearinghouse.messages.deliveries import ReceiveTask, ShowTask
from clearinghouse.messages.tasks import AskRevealTask
from clearinghouse.rows import draw_key, verify_proofs


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
