"""Large uploads of a party: in pieces, on from where they broke off, also in another process."""

import hashlib
import json
import os
import re

import pytest
from starlette.responses import JSONResponse, Response

from clearinghouse.client import outbox, pieces, transport
from clearinghouse.client.keystore import Keystore
from clearinghouse.client.outbox import Outbox
from clearinghouse.client.provider import Provider, SourceTerms
from clearinghouse.client.sealed_rows import HospitalTerms, SealedRows
from clearinghouse.errors import ConflictError, ProtocolError, TryAgainError
from clearinghouse.schema import parse_schema
from clearinghouse.tables import from_records

DATA = os.urandom(1000)
NAME = hashlib.sha256(DATA).hexdigest()
LIMIT = 100


@pytest.fixture(autouse=True)
def small(monkeypatch, bench):
    """What is large here, and how much a piece holds."""
    for module in (transport, outbox, pieces):
        monkeypatch.setattr(module, "LARGE_BYTES", LIMIT)
    bench.piece_bytes = 300


@pytest.fixture
def sender(connect):
    _, made = connect("a")
    return made


def sent(bench):
    """Bytes that arrived in pieces."""
    return sum(len(part) for part in bench.parts.values())


def watch(transport, way):
    """What its progress says of blobs that go one way."""
    seen = []

    def progress(which, done, size):
        if which == way:
            seen.append((done, size))

    transport.progress = progress
    return seen


def test_what_comes_is_counted_against_what_was_announced(bench, sender):
    seen = watch(sender, "received")
    bench.blobs[NAME] = DATA
    assert sender.get_blob(NAME) == DATA
    assert seen[-1] == (1000, 1000)
    assert seen == sorted(seen)


def test_many_bytes_go_in_pieces_and_few_in_one_call(bench, sender):
    seen = watch(sender, "sent")
    assert sender.put_blob(DATA, "test") == NAME
    assert bench.blobs[NAME] == DATA
    assert seen == [(300, 1000), (600, 1000), (900, 1000), (1000, 1000)]
    few = sender.put_blob(DATA[:LIMIT], "test")
    assert bench.blobs[few] == DATA[:LIMIT]
    assert len(bench.parts) == 1


def test_what_is_there_is_not_sent_again(bench, sender):
    """Another process began it, or the answer to a piece got lost on the way."""
    sender.put_blob(DATA, "test")
    before = sent(bench)
    seen = watch(sender, "sent")
    assert sender.put_blob(DATA, "test") == NAME
    assert (sent(bench), seen) == (before, [])
    del bench.blobs[NAME]
    (part,) = bench.parts.values()
    del part[600:]
    assert sender.put_blob(DATA, "test") == NAME
    assert seen == [(900, 1000), (1000, 1000)]


def test_a_piece_that_counts_although_its_answer_was_lost(bench, sender, monkeypatch):
    """It is sent again at the old offset, refused, and the upload goes on behind it."""
    lost, told = [], bench.upload

    def forgetful(name):
        if bench.parts[name] and not lost:
            lost.append(name)
            return Response(status_code=503)
        return told(name)

    monkeypatch.setattr(bench, "upload", forgetful)
    assert sender.put_blob(DATA, "test") == NAME
    assert lost
    assert sent(bench) == 1000


def test_an_upload_that_gets_no_further_is_given_up(bench, sender, monkeypatch):
    def busy(*_arguments, **_more):
        raise ConflictError("another call is sending")

    monkeypatch.setattr(sender, "patch", busy)
    with pytest.raises(TryAgainError, match="no further"):
        sender.put_blob(DATA, "test")
    assert len(sender.pauses) == pieces.MOST_STUCK


@pytest.mark.parametrize(
    "lie",
    [
        {"digest": "0" * 64},
        {"size": 1001},
        {"received": 1001},
        {"piece_bytes": 0},
        {"id": None},
        {"done": True},
    ],
)
def test_a_server_that_tells_of_another_upload_is_not_believed(bench, sender, monkeypatch, lie):
    told = bench.upload

    def lying(name):
        return JSONResponse({**json.loads(told(name).body), **lie})

    monkeypatch.setattr(bench, "upload", lying)
    with pytest.raises(ProtocolError, match="another upload"):
        sender.put_blob(DATA, "test")


def test_the_outbox_sends_the_very_same_after_a_crash(bench, connect, sender, monkeypatch):
    keystore, _ = connect("a")

    def broken(*_ignored, **_more):
        raise KeyboardInterrupt

    made = []

    def make():
        made.append(os.urandom(1000))
        return made[-1]

    with monkeypatch.context() as killed:
        killed.setattr(sender, "patch", broken)
        with pytest.raises(KeyboardInterrupt):
            Outbox(keystore, sender).send("parcel", make, "test")
    name = Outbox(Keystore.open(keystore.directory), sender).send("parcel", make, "test")
    assert bench.blobs[name] == made[0]
    assert len(made) == 1
    assert Outbox(keystore, sender).kept("parcel") is None
    Outbox(keystore, sender).send("small", lambda: b"few", "test")
    assert list((keystore.directory / "outbox").iterdir()) == []


SCHEMA = parse_schema(
    {
        "name": "tiny",
        "label": {"name": "sick", "levels": ["no", "yes"]},
        "columns": {"sex": {"kind": "category", "levels": ["F", "M"]}},
        "strata": [["sex"]],
        "subgroups": ["sex"],
    },
    file="tiny",
)
ROWS = [{"sex": "FM"[i % 2], "sick": ("no", "yes")[i % 3 == 0]} for i in range(64)]


def test_a_sealing_that_was_killed_goes_on_with_the_same_ciphertexts(bench, connect, monkeypatch):
    """A second process uploads what is missing and registers the set that the first one sealed."""
    bench.piece_bytes = 2**18  # real ciphertexts, of megabytes

    def hospital():
        keystore, sender = connect("va")
        terms = HospitalTerms(size_class=64, epsilon_target_micro=500_000, limit_micro=10**7)
        return SealedRows("va", keystore, sender, from_records(SCHEMA, ROWS, file="rows"), terms)

    first = hospital()
    first.register()
    post, kills = first.transport.post, [KeyboardInterrupt]

    def killed(path, *rest, **more):
        if path == "/valsets" and kills:
            raise kills.pop()
        return post(path, *rest, **more)

    monkeypatch.setattr(first.transport, "post", killed)
    with pytest.raises(KeyboardInterrupt):
        first.seal()
    before = dict(bench.blobs)
    second = hospital()
    assert re.fullmatch("val_.*", second.seal())
    assert bench.blobs == before
    assert not list((second.keystore.directory / "outbox").iterdir())
    assert second.keystore.recall("private/sealing") is None
    assert second.keystore.read("private/order.bin") is not None
    assert hospital().seal() == second.seal()


def test_a_withdrawn_source_leaves_no_parcel(connect, bench):
    """Sealed records that were on their way are erased with all else."""
    keystore, sender = connect("a")
    terms = SourceTerms(size_class=64, ask_micro=1, epsilon_micro=10**6, limit_micro=10**7)
    provider = Provider("a", keystore, sender, from_records(SCHEMA, ROWS, file="rows"), terms)
    provider.publish()
    Outbox(keystore, sender).keep("ord_x", b"sealed records")
    provider.withdraw()
    assert not (keystore.directory / "outbox").exists()
