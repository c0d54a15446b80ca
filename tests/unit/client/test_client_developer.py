from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from clearinghouse import cells
from clearinghouse.client.checks import open_delivery
from clearinghouse.client.developer import Developer, read_training_set, source_column
from clearinghouse.client.provider import Provider, SourceTerms, seal
from clearinghouse.client.recipes import recipe_source
from clearinghouse.client.sealed_body import write_body
from clearinghouse.errors import RefusedError
from clearinghouse.ids import new_id
from clearinghouse.messages.tasks import (
    DeliveryRef,
    ModelSubmitTask,
    ReceiveTask,
    Recipient,
    TaskView,
)
from clearinghouse.rows import RowProof, row_leaf
from secure_eval.integer_model import IntegerModel

LEVEL = ["sex"]
QUOTA = [12, 5, 9, 40]
REQUEST = new_id("req")


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
    assert found.check().real == 0
    assert not found.check().accepted


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
    assert len(bytes.fromhex(answer.nonce)) == 16


def test_records_that_several_sources_deliver_are_reported(connect, developer, heart):
    made = []
    for name in ("one", "copy"):
        keystore, transport = connect(name)
        terms = SourceTerms(32, 1, 1_000_000, 1_000_000)
        made.append(Provider(name, keystore, transport, heart(60, seed=5), terms))
        made[-1].publish()
    refs = [delivery(provider, developer, quota=[60] * 4)[0] for provider in made]
    checks = ask(developer, ReceiveTask(schema_id=developer.schema_id, deliveries=refs)).checks
    assert all(check.accepted for check in checks)
    for check in checks:
        assert "60 records came from another source too" in check.problems


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


def test_another_schema_is_refused(developer):
    with pytest.raises(RefusedError, match="another schema"):
        ask(developer, ReceiveTask(schema_id=new_id("sch"), deliveries=[]))
