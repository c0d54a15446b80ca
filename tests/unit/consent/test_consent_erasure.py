"""What must be gone is gone from every file; what must stay verifiable verifies."""

import hashlib
import json
import os
import threading

import pytest
from consenting import EXACT
from sqlalchemy import create_engine, text

from clearinghouse.canonical import canonical_bytes, digest, open_commitment
from clearinghouse.client.pieces import LARGE_BYTES
from clearinghouse.errors import (
    InputError,
    NoGrantError,
    NotFoundError,
    TryAgainError,
    VerificationError,
)
from clearinghouse.log.verify import export_log, verify_log_directory
from clearinghouse.rounds import erasure, pipeline


def body_of(market, name):
    """What a source published: counts that nothing else holds by chance."""
    return market.providers[name].summary().model_dump(mode="json")


def release_of(market, name):
    (entry,) = [
        entry
        for entry in market.entries()
        if entry.type == "summary.released" and entry.objects["source"] == market.sources[name]
    ]
    return entry.hashes["release"]


def bytes_below(folder):
    return b"\0".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def rows_of(url):
    """Every row of every table, as text."""
    engine = create_engine(url)
    with engine.connect() as connection:
        tables = connection.execute(
            text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        ).scalars()
        found = [repr(connection.execute(text(f"SELECT * FROM {name}")).all()) for name in tables]
    engine.dispose()
    return "".join(found).encode()


def test_a_withdrawn_source_is_absent_from_database_blobs_and_home(build, store_url):
    market = build(store_url)
    provider = market.providers["a"]
    market.to("confirmed")
    body, release = body_of(market, "a"), release_of(market, "a")
    counts = json.dumps(body["counts"], separators=(",", ":")).encode()
    with market.desk.store.read() as tx:
        salt = tx.erasure.salt(market.sources["a"])
        blobs = tx.erasure.delivered_blobs([market.orders()["a"].id])
        sealed = [market.desk.blobs.get(name)[:200] for name in blobs]
    open_commitment(release, salt, body)  # with the salt it opens, so the search below can fail
    secrets = [counts, salt.hex().encode(), *sealed]
    own = [provider.keystore.read("rows.seed"), counts, provider.commitments.salts[0]]
    server, home = market.folder / "server", provider.keystore.directory

    def stored():
        rows = rows_of(store_url) if store_url.startswith("postgresql") else b""
        files = b"".join(path.read_bytes() for path in market.folder.glob("test.db*"))
        return rows + files + bytes_below(server)

    assert [secret for secret in secrets if secret not in stored()] == []
    assert counts in bytes_below(home)
    before = market.entries()
    provider.withdraw()
    assert [secret for secret in secrets if secret in stored()] == []
    assert [secret for secret in own if secret in bytes_below(home)] == []
    assert provider.budget.spent == EXACT  # what was spent stays spent
    assert market.entries()[: len(before)] == before
    check_brute_force(release, body)
    check_proofs(market)
    market.check_log()


def check_brute_force(release, body):
    """Whoever knows the body and guesses salts finds nothing: 32 random bytes are gone."""
    text = canonical_bytes(body)
    guesses = [b"", bytes(32), b"\xff" * 32, hashlib.sha256(text).digest()]
    guesses += [index.to_bytes(32, "big") for index in range(20_000)]
    assert release not in {hashlib.sha256(guess + text).hexdigest() for guess in guesses}
    assert release != digest(body)
    with pytest.raises(VerificationError):
        open_commitment(release, bytes(32), body)


def check_proofs(market):
    """The whole log is still one tree under its signed head."""
    desk = market.desk
    head = desk.head()
    with desk.store.read() as tx:
        entries = tx.log.entries(0, 1000)
    export_log(entries, head, desk.vkey, market.folder / "log")
    report = verify_log_directory(market.folder / "log", trusted_log_key=desk.vkey)
    assert report.entries[-1].type == "source.erased"


def test_a_reader_delays_erasure_and_the_next_sweep_finishes_it(market):
    """A journal that somebody still reads cannot be cut; nothing says erased before it is."""
    source = market.sources["a"]
    counts = json.dumps(body_of(market, "a")["counts"], separators=(",", ":")).encode()

    def journal():
        return b"".join(p.read_bytes() for p in (market.folder / "server").glob("*.db*"))

    with market.desk.store.read() as reader:
        assert source in reader.cohorts.summaries([source])
        market.providers["a"].withdraw()
        assert counts in journal()
        assert "source.erased" not in market.kinds()
    assert erasure.erase(market.desk) is True
    assert counts not in journal()
    assert market.kinds().count("source.erased") == 1
    erasure.sweep(market.desk)
    assert market.kinds().count("source.erased") == 1


def test_a_crash_between_the_commit_and_the_disk_is_finished_later(market, monkeypatch):
    market.to("confirmed")
    with market.desk.store.read() as tx:
        blobs = tx.erasure.delivered_blobs([market.orders()["a"].id])
    with monkeypatch.context() as broken:
        broken.setattr(erasure, "erase", lambda _desk: None)
        market.providers["a"].withdraw()
    assert all(market.desk.blobs.path(name).exists() for name in blobs)
    for developer in market.developers.values():  # on the disk, and yet nobody gets it
        for name in blobs:
            with pytest.raises(NotFoundError):
                developer.transport.get_blob(name)
    erasure.sweep(market.desk)
    assert not any(market.desk.blobs.path(name).exists() for name in blobs)


def test_an_upload_that_was_not_finished_is_erased_as_well(market, monkeypatch):
    """Sealed records of which some pieces came: gone from the disk before anything says erased."""
    market.to("ordered")
    provider, data = market.providers["a"], os.urandom(LARGE_BYTES + 9 * 2**20)
    patch = provider.transport.patch

    def first_only(path, body, reply, *, query):
        if query != "offset=0":
            raise TryAgainError("cut")
        return patch(path, body, reply, query=query)

    with monkeypatch.context() as broken:
        broken.setattr(provider.transport, "patch", first_only)
        with pytest.raises(TryAgainError):
            provider.transport.put_blob(data, "delivery")
    staging = market.desk.blobs.staging
    (path,) = staging.partial.iterdir()
    assert path.read_bytes() == data[: 8 * 2**20]
    provider.withdraw()
    erasure.sweep(market.desk)
    assert "source.erased" in market.kinds()
    assert list(staging.partial.iterdir()) == []
    assert data[:64] not in bytes_below(market.folder / "server")


def test_bytes_that_come_again_are_not_removed(market, monkeypatch):
    """The same ciphertext uploaded by somebody else meanwhile stays theirs."""
    market.to("delivered")
    name = market.orders()["a"].sealed_blob
    data = market.desk.blobs.get(name)
    with monkeypatch.context() as broken:
        broken.setattr(erasure, "erase", lambda _desk: None)
        market.providers["a"].withdraw()
    assert market.developers["bob"].transport.put_blob(data, "again") == name
    erasure.sweep(market.desk)
    assert market.desk.blobs.get(name) == data


@pytest.mark.parametrize("moment", ["sealed", "delivered"])
def test_withdrawal_races_with_delivery(build, store_url, moment):
    """Whoever wins, the log has no use after the withdrawal and nobody reads afterwards."""
    market = build(store_url)
    market.to(moment)
    start, ended = threading.Barrier(4), threading.Event()
    late, errors = [], []

    def safely(act):
        def run():
            start.wait()
            try:
                act()
            except Exception as error:
                errors.append(error)

        return run

    def withdraw():
        market.providers["a"].withdraw()
        ended.set()

    def read(developer):
        for _ in range(40):
            gone = ended.is_set()
            blob = market.orders()["a"].sealed_blob or "0" * 64
            try:
                developer.transport.get_blob(blob)
            except (NoGrantError, NotFoundError, InputError):
                continue
            if gone:
                late.append(developer.name)

    def move():
        for _ in range(5):
            pipeline.advance(market.desk, market.request_id)

    readers = [lambda who=who: read(who) for who in market.developers.values()]
    acts = [withdraw, move, *readers]
    threads = [threading.Thread(target=safely(act)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert late == []
    assert [e for e in errors if "moved by another process" not in str(e)] == []
    market.finish()
    assert market.orders()["a"].real == 0
    assert market.orders()["b"].real > 0
    market.check_log()


def test_what_was_kept_long_enough_is_erased(market):
    """Deliveries after 90 days, ciphertexts after 180; the validation set stays."""
    market.to("confirmed")
    market.settle()
    store, day = market.desk.store, 86400
    with store.write() as tx:
        cipher = market.desk.blobs.put(b"a ciphertext of a round")
        tx.blobs.add(cipher, 23, market.hospital.id)
        tx.requests.moved(market.request_id, "score.digits", cipher, 23)
    sealed = market.orders()["b"].sealed_blob
    assert erasure.due(market.desk) == ()
    market.clock.advance(91 * day)
    assert erasure.due(market.desk) == (market.request_id,)
    assert erasure.retain(market.desk) == 4  # two sealed bodies, two proofs
    erasure.sweep(market.desk)
    assert not market.desk.blobs.path(sealed).exists()
    assert market.desk.blobs.path(cipher).exists()
    assert erasure.retain(market.desk) == 0
    market.clock.advance(90 * day)
    assert erasure.retain(market.desk) == 1
    erasure.sweep(market.desk)
    assert not market.desk.blobs.path(cipher).exists()
    assert erasure.due(market.desk) == ()
    told = [e.amounts["blobs"] for e in market.entries() if e.type == "request.erased"]
    assert told == [4, 1]
    market.check_log()
