import itertools
import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from clearinghouse import cells
from clearinghouse.canonical import digest
from clearinghouse.client.checks import open_delivery
from clearinghouse.client.developer import Developer, read_training_set, source_column
from clearinghouse.client.judged import Judged
from clearinghouse.client.provider import Provider, SourceTerms, seal
from clearinghouse.client.recipes import recipe_source
from clearinghouse.client.sealed_body import write_body
from clearinghouse.client.shown import Next, open_tag, read_shown, write_shown
from clearinghouse.errors import InputError, ProtocolError, RefusedError
from clearinghouse.ids import new_id
from clearinghouse.messages.deliveries import DeliveryRef, ReceiveTask, Recipient, ShownRef
from clearinghouse.messages.tasks import ModelSubmitTask, NonceRevealTask, TaskView
from clearinghouse.rows import RowProof, row_leaf
from secure_eval.integer_model import IntegerModel
from secure_eval.nonces import nonce_commitment

LEVEL = ["sex"]
QUOTA = [12, 5, 9, 40]
REQUEST = new_id("req")
COMMITTED = itertools.count(100)


@pytest.fixture
def sources(connect, heart):
    made = []
    for index, name in enumerate(("cleveland", "hungarian")):
        keystore, transport = connect(name)
        terms = SourceTerms(32, 1, 1_000_000, 1_000_000)
        made.append(Provider(name, keystore, transport, heart(60, seed=index), terms))
        made[-1].publish()
    return made


@pytest.fixture
def developer(connect, schema):
    keystore, transport = connect("gam")
    made = Developer("gam", keystore, transport, schema, recipe_source("gam", 7))
    made.register()
    return made


def recipient(developer):
    return Recipient(
        org_id=developer.org_id,
        grant_id=new_id("grt"),
        age_recipient=developer.keystore.age_recipient,
    )


def delivery(provider, developer, change=None, quota=QUOTA, **changed):
    """A delivery as the provider makes it; `change` alters its entries, `changed` its reference."""
    entries = provider.draw(LEVEL, quota, bytes(32))
    real = sum(entry.weight for entry in entries)
    if change is not None:
        entries = change(entries)
    order = new_id("ord")
    body = write_body(
        provider.schema,
        provider.commitments.size,
        order_id=order,
        source_id=provider.source_id,
        purpose="train",
        entries=entries,
    )
    sealed = seal(body, [recipient(developer)])
    ref = DeliveryRef(
        delivery_id=new_id("dlv"),
        order_id=order,
        source_id=provider.source_id,
        sealed_blob=provider.transport.put_blob(sealed, "delivery"),
        rows_root=provider.commitments.root.hex(),
        leaves=provider.commitments.size,
        level=LEVEL,
        quota=quota,
        real=real,
        ladder=[[place, 1_000_000 + place, units] for place, units in enumerate(quota) if units],
        committed=next(COMMITTED),
    )
    return ref.model_copy(update=changed), sealed


def opened(provider, developer, change=None, **changed):
    ref, sealed = delivery(provider, developer, change, **changed)
    return open_delivery(developer.schema, ref, sealed, developer.keystore)


def first_real(entries, **changes):
    index = next(i for i, entry in enumerate(entries) if entry.weight)
    return [*entries[:index], replace(entries[index], **changes), *entries[index + 1 :]]


def test_an_honest_delivery_is_accepted_whole(sources, developer):
    found = opened(sources[0], developer)
    assert found.faults == ()
    exact = cells.counts(sources[0].table, LEVEL)
    assert found.real == int(np.minimum(exact, QUOTA).sum())
    records = {tuple(record.items()) for record in sources[0].table.records()}
    assert {tuple(record.items()) for record in found.table.records()} <= records


def test_an_altered_record_is_found(sources, developer):
    def older(entries):
        real = next(entry for entry in entries if entry.weight)
        return first_real(entries, record={**real.record, "chol": "222"})

    found = opened(sources[0], developer, older)
    assert found.faults == ("1 records do not open their commitments",)
    assert found.table is None
    assert found.check(Judged(())).real == 0
    assert not found.check(Judged(())).accepted


def test_an_invented_record_with_its_own_leaf_is_found(sources, developer):
    def invented(entries):
        real = next(entry for entry in entries if entry.weight)
        record = {**real.record, "chol": "222"}
        leaf = row_leaf(bytes(32), record)
        proof = RowProof(real.proof.index, leaf, real.proof.path)
        return first_real(entries, record=record, salt=bytes(32), proof=proof)

    found = opened(sources[0], developer, invented)
    assert found.faults == ("1 records have no proof that leads to the source's root",)


def test_a_wrong_root_is_found(sources, developer):
    wrong = sources[1].commitments.root.hex()
    found = opened(sources[0], developer, rows_root=wrong)
    assert found.faults[0].endswith("no proof that leads to the source's root")
    assert opened(sources[0], developer, leaves=128).faults


def test_a_record_of_another_cell_is_found(sources, developer):
    def foreign(entries):
        row = int(np.flatnonzero(cells.places(sources[0].table, LEVEL) == 3)[-1])
        stranger = sources[0]._entry(0, row)
        taken = {entry.proof.index for entry in entries if entry.weight}
        assert stranger.proof.index not in taken
        return [stranger, *entries[1:]]

    quota = [12, 5, 9, 1]
    found = opened(sources[0], developer, foreign, quota=quota)
    assert found.faults in (
        ("1 records are of another cell than ordered",),
        (f"{found.ref.real + 1} records came and {found.ref.real} were announced",),
    )
    entries = sources[0].draw(LEVEL, quota, bytes(32))
    assert entries[0].weight  # so the stranger took a record's place, not a dummy's
    assert found.faults == ("1 records are of another cell than ordered",)


def test_a_row_delivered_twice_is_found(sources, developer):
    def twice(entries):
        places = [i for i, entry in enumerate(entries) if entry.weight and entry.place == 3]
        changed = list(entries)
        changed[places[1]] = changed[places[0]]
        return changed

    found = opened(sources[0], developer, twice)
    assert found.faults == ("1 committed rows were delivered more than once",)


def test_a_record_outside_the_schema_is_found_without_its_value(connect, developer, sources):
    provider = sources[0]
    row = int(np.flatnonzero(cells.places(provider.table, LEVEL) == 3)[0])
    provider._records[row]["chol"] = "99999"
    provider.keystore.write("rows.seed", bytes(range(32)))
    provider._commitments = None  # it commits to the wrong value, so commitment and proof hold
    quota = [0, 0, 0, int(cells.counts(provider.table, LEVEL)[3])]
    found = opened(provider, developer, quota=quota)
    assert len(found.faults) == 1
    assert "breaks the schema" in found.faults[0]
    assert "99999" not in found.faults[0]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"quota": [12, 5, 9, 39]}, "not its quota"),
        ({"ladder": [[0, 1, 12]]}, "prices of the order"),
        ({"quota": [12, 5, 9, 40, 0, 0]}, "strata level"),
        ({"real": 1}, "announced"),
        ({"order_id": new_id("ord")}, "another order"),
        ({"source_id": new_id("src")}, "another order"),
    ],
)
def test_a_delivery_that_is_not_what_was_announced_is_refused(sources, developer, changed, words):
    ref, sealed = delivery(sources[0], developer)
    ref = ref.model_copy(update=changed)
    found = open_delivery(developer.schema, ref, sealed, developer.keystore)
    assert any(words in fault for fault in found.faults)


def test_bytes_that_do_not_open_are_refused(sources, developer):
    ref, sealed = delivery(sources[0], developer)
    changed = bytearray(sealed)
    changed[-1] ^= 1
    for data in (bytes(changed), b"", b"age-encryption.org/v1\n", sealed[:-20]):
        found = open_delivery(developer.schema, ref, data, developer.keystore)
        assert found.faults == ("the sealed bytes do not open with this party's key",)
    for body in (b"{}", b"[]", b"\xff", b'{"records":[1]}'):
        again = seal(body, [recipient(developer)])
        assert open_delivery(developer.schema, ref, again, developer.keystore).faults


def ask(developer, task):
    return developer.answer(
        TaskView(id=new_id("tsk"), request_id=REQUEST, deadline=2**33, task=task)
    )


def test_received_records_become_the_training_set_and_a_model(bench, sources, developer, schema):
    good, _ = delivery(sources[0], developer)
    bad, _ = delivery(sources[1], developer, lambda entries: first_real(entries, salt=bytes(32)))
    task = ReceiveTask(schema_id=developer.schema_id, deliveries=[good, bad])
    checks = ask(developer, task).checks
    assert [check.accepted for check in checks] == [True, False]
    path = developer.keystore.directory / "training_set.parquet"
    table = read_training_set(schema, path)
    assert table.n == checks[0].real == good.real
    names = pq.read_table(path).column(source_column(schema)).to_pylist()
    assert set(names) == {sources[0].source_id}
    submit = ModelSubmitTask(schema_id=developer.schema_id, published_bins=8)
    answer = ask(developer, submit)
    model = IntegerModel.from_json(bench.blobs[answer.model_blob])
    assert answer.name == "gam"
    assert len(model.bin_edges) <= 9
    # the nonce is opened once the digits passed: for this model, and nothing else was committed
    reveal = NonceRevealTask(
        run_id=new_id("run"),
        model_digest=answer.model_blob,
        nonce_commitment=answer.nonce_commitment,
    )
    nonce = bytes.fromhex(ask(developer, reveal).nonce)
    assert nonce_commitment(nonce).hex() == answer.nonce_commitment
    with pytest.raises(ProtocolError, match="for another model"):
        ask(developer, reveal.model_copy(update={"model_digest": "0" * 64}))
    with pytest.raises(RefusedError, match="no such nonce"):
        ask(developer, reveal.model_copy(update={"nonce_commitment": "0" * 64}))


def test_records_that_several_sources_deliver_are_reported(connect, developer, heart):
    made = []
    for name in ("one", "copy"):
        keystore, transport = connect(name)
        terms = SourceTerms(32, 1, 1_000_000, 1_000_000)
        made.append(Provider(name, keystore, transport, heart(60, seed=5), terms))
        made[-1].publish()
    refs = [delivery(provider, developer, quota=[60] * 4)[0] for provider in made]
    task = ReceiveTask(schema_id=developer.schema_id, deliveries=refs[::-1])
    copy, first = ask(developer, task).checks
    assert copy.accepted
    assert first.accepted
    assert (copy.earned_micro, copy.forfeits, first.copies) == (0, True, [])
    assert first.earned_micro > 60_000_000
    (told,) = copy.copies
    assert (told.source_id, told.rows) == (made[0].source_id, 60)
    assert "60 records are copies of an earlier source's" in copy.problems
    proof = developer.keystore.path(f"requests/{REQUEST}/copies/{told.evidence}.json").read_bytes()
    assert digest(proof) == told.evidence
    for row in json.loads(proof)["rows"]:  # each is two openings of one record
        for side, provider in (("original", made[0]), ("copy", made[1])):
            opening = RowProof.from_dict(
                {name: row[side][name] for name in ("index", "hash", "proof")}
            )
            opening.verify(provider.commitments.root, provider.commitments.size)
            assert row_leaf(bytes.fromhex(row[side]["salt"]), row["record"]) == opening.leaf
    path = developer.keystore.directory / "training_set.parquet"
    assert pq.read_metadata(path).num_rows == 60  # nobody trains on a copy


def test_an_undersold_victim_is_compared_by_its_tags(connect, developer, heart):
    """The thief sells everything, its victim nothing: tags show that the rows were committed."""
    made = []
    for name in ("victim", "thief"):
        keystore, transport = connect(name)
        terms = SourceTerms(32, 1, 1_000_000, 1_000_000)
        made.append(Provider(name, keystore, transport, heart(60, seed=5), terms))
        made[-1].publish()
    victim, thief = made
    seed = bytes(32)
    rows = victim.draw(LEVEL, [70] * 4, seed)
    told = [Next(e.place, e.record, e.salt, e.proof) if e.weight else e.place for e in rows]
    body = write_shown(seed, victim.source_id, told, victim.commitments.size)
    made_up = write_shown(seed, victim.source_id, [
        Next(e.place, e.record, bytes(32), e.proof) if e.weight else e.place for e in rows
    ], victim.commitments.size)  # fmt: skip
    ref = delivery(thief, developer, quota=[60] * 4)[0]
    for document, copied in ((body, 60), (made_up, 0)):
        sealed = seal(document, [recipient(developer)])
        shown = ShownRef(
            source_id=victim.source_id,
            shown_blob=victim.transport.put_blob(sealed, "shown"),
            rows_root=victim.commitments.root.hex(),
            leaves=victim.commitments.size,
            committed=ref.committed - 1,
        )
        task = ReceiveTask(
            schema_id=developer.schema_id, deliveries=[ref], draw_seed=seed.hex(), shown=[shown]
        )
        (check,) = ask(developer, task).checks
        assert sum(copies.rows for copies in check.copies) == copied
        assert check.forfeits == bool(copied)
        assert (check.earned_micro == 0) == bool(copied)


def test_tags_tell_nothing_to_who_does_not_know_the_row(sources):
    """Missing rows look like present ones, and another request, source or place differs."""
    provider, other = sources
    entry = next(e for e in provider.draw(LEVEL, QUOTA, bytes(32)) if e.weight)
    item = Next(entry.place, entry.record, entry.salt, entry.proof)
    size, root = provider.commitments.size, provider.commitments.root

    def written(seed, source_id, rows):
        return read_shown(write_shown(seed, source_id, rows, size), source_id)

    first, second, gone = written(bytes(32), provider.source_id, [item, item, entry.place])
    assert first.tag == second.tag != gone.tag
    assert first.box != second.box  # equal rows share no key stream
    assert len(first.box) == len(gone.box)
    assert written(b"1" * 32, provider.source_id, [item])[0].tag != first.tag
    assert written(bytes(32), other.source_id, [item])[0].tag != first.tag
    salt, proof = open_tag(bytes(32), provider.source_id, second, entry.record, root, size)
    assert (salt, proof) == (entry.salt, entry.proof)
    changed = {**entry.record, "chol": "222"}
    assert open_tag(bytes(32), provider.source_id, first, changed, root, size) is None
    stolen = other.commitments.root
    assert open_tag(bytes(32), provider.source_id, first, entry.record, stolen, size) is None
    plain = write_shown(bytes(32), provider.source_id, [item], size)
    assert entry.salt.hex().encode() not in plain
    for bad in (b"{}", plain.replace(b"clearinghouse shown/1", b"x"), plain[:-3] + b"1]}"):
        with pytest.raises(InputError):
            read_shown(bad, provider.source_id)
    with pytest.raises(InputError):
        read_shown(plain, other.source_id)


def test_nothing_delivered_still_gives_a_model(bench, developer, schema):
    gone = DeliveryRef(
        delivery_id=new_id("dlv"),
        order_id=new_id("ord"),
        source_id=new_id("src"),
        sealed_blob="0" * 64,
        rows_root="0" * 64,
        leaves=2,
        level=[],
        quota=[0, 0],
        real=0,
    )
    with pytest.raises(RefusedError, match="nothing was received"):
        ask(developer, ModelSubmitTask(schema_id=developer.schema_id, published_bins=8))
    checks = ask(developer, ReceiveTask(schema_id=developer.schema_id, deliveries=[gone])).checks
    assert checks[0].problems == ["the sealed body is not there"]
    assert read_training_set(schema, developer.keystore.directory / "training_set.parquet") is None
    answer = ask(developer, ModelSubmitTask(schema_id=developer.schema_id, published_bins=8))
    model = IntegerModel.from_json(bench.blobs[answer.model_blob])
    assert model.low == model.high


def test_trees_are_not_sent_to_a_packed_set(connect, heart, schema, monkeypatch):
    developer = Developer("trees", *connect("trees"), schema, recipe_source("trees", 7))
    developer.register()
    task = ModelSubmitTask(schema_id=developer.schema_id, published_bins=8, packed=True)
    path = developer.training_path(REQUEST)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    monkeypatch.setattr(developer, "_allowed", lambda _request, _path: heart(120, seed=3))
    with pytest.raises(RefusedError, match="packed, and this model has trees"):
        ask(developer, task)
    assert ask(developer, task.model_copy(update={"packed": False})).name == "trees"


def test_another_schema_is_refused(developer):
    with pytest.raises(RefusedError, match="another schema"):
        ask(developer, ReceiveTask(schema_id=new_id("sch"), deliveries=[]))
