"""Uploads in pieces: resumed, counted, bounded, and nobody's to read before they are whole."""

import asyncio
import hashlib
import os

import pytest
from starlette.requests import ClientDisconnect, Request

import api.routes.uploads as upload_routes
from clearinghouse.blobs import StorageFullError
from clearinghouse.rounds import uploads

DATA = os.urandom(3000)
NAME = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def owner(party):
    return party("hospital")


@pytest.fixture
def files(app):
    """Names below the blob folder."""
    folder = app.state.desk.blobs.folder
    return lambda: sorted(path.name for path in folder.rglob("*") if path.is_file())


def ok(answer):
    assert answer.status_code == 200, answer.text
    return answer.json()


def stored(app, party):
    with app.state.desk.store.read() as tx:
        return tx.quotas.stored(party.org_id)


def settings(app, monkeypatch, **changes):
    """Other settings from here on."""
    for name, value in changes.items():
        object.__setattr__(app.state.desk.settings, name, value)


def test_in_pieces_of_any_size(owner, app, files):
    told = owner.begin(DATA)
    assert (told["received"], told["done"], told["size"]) == (0, False, 3000)
    for start, end in ((0, 1), (1, 1500), (1500, 1500), (1500, 2999)):
        told = ok(owner.patch(told["id"], start, DATA[start:end]))
        assert (told["received"], told["done"]) == (end, False)
        assert ok(owner.get(f"/v1/uploads/{told['id']}")) == told
        assert owner.get(f"/v1/blobs/{NAME}").status_code == 404
    upload_id = told["id"]
    told = ok(owner.patch(upload_id, 2999, DATA[2999:]))
    assert (told["id"], told["received"], told["done"]) == (None, 3000, True)
    assert owner.get(f"/v1/blobs/{NAME}").content == DATA
    assert files() == [NAME]
    assert stored(app, owner) == 3000
    assert owner.begin(DATA) == told
    assert owner.get(f"/v1/uploads/{upload_id}").status_code == 404


def test_an_upload_is_found_by_hash_and_goes_on_in_another_process(owner, app, files):
    """The hash so far is lost with the process, and computed again from the file."""
    told = owner.begin(DATA)
    ok(owner.patch(told["id"], 0, DATA[:1000]))
    app.state.desk.blobs.staging.hashes._kept.clear()
    again = owner.begin(DATA)
    assert (again["id"], again["received"]) == (told["id"], 1000)
    assert ok(owner.patch(told["id"], 1000, DATA[1000:]))["done"]
    assert files() == [NAME]


def test_another_offset_is_told_and_counts_nothing(owner, problem):
    told = owner.begin(DATA)
    ok(owner.patch(told["id"], 0, DATA[:1000]))
    for offset in (0, 999, 1001, 3000):
        detail = problem(owner.patch(told["id"], offset, DATA[:1000]), 409, "conflict")
        assert "1000 bytes are here" in detail
    for offset in ("-1", "x", ""):
        assert owner.patch(told["id"], offset, b"").status_code in (409, 422)
    assert owner.begin(DATA)["received"] == 1000


def test_other_bytes_than_signed_do_not_count(owner, problem, files):
    told = owner.begin(DATA)
    ok(owner.patch(told["id"], 0, DATA[:10]))
    answer = owner.patch(told["id"], 10, b"somebody else's", announced=DATA[10:])
    problem(answer, 401, "unauthenticated")
    assert owner.begin(DATA)["received"] == 10
    assert ok(owner.patch(told["id"], 10, DATA[10:]))["done"]


def test_another_whole_than_announced_is_forgotten(owner, app, problem, files):
    told = owner.begin(DATA)
    other = bytes(3000)
    ok(owner.patch(told["id"], 0, other[:1000]))
    assert "another SHA-256" in problem(
        owner.patch(told["id"], 1000, other[1000:]), 422, "bad-input"
    )
    assert stored(app, owner) == 0
    assert owner.get(f"/v1/uploads/{told['id']}").status_code == 404
    uploads.sweep(app.state.desk)
    assert files() == []
    assert owner.begin(DATA)["received"] == 0


def test_more_than_announced_is_refused(owner, problem):
    told = owner.begin(DATA)
    problem(owner.patch(told["id"], 0, DATA + b"x"), 413, "bad-input")
    assert owner.begin(DATA)["received"] == 0
    problem(owner.patch(told["id"], 0, bytes(uploads.PIECE_BYTES + 1)), 413, "bad-input")


def test_a_secret_key_is_refused_also_in_small_pieces(owner, app, problem):
    pem = b"-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA==\n-----END PRIVATE KEY-----\n"
    told = owner.begin(pem)
    refused = [
        at
        for at in range(len(pem))
        if owner.patch(told["id"], at, pem[at : at + 1]).status_code == 422
    ]
    assert refused == [pem.index(b"PRIVATE KEY-----") + 15]
    (path,) = app.state.desk.blobs.staging.partial.iterdir()
    assert b"PRIVATE KEY-----" not in path.read_bytes()


def test_nobody_else_sees_ends_or_continues_it(owner, party, problem):
    told = owner.begin(DATA)
    other = party("hospital")
    path = f"/v1/uploads/{told['id']}"
    for answer in (other.get(path), other.patch(told["id"], 0, DATA), other.delete(path)):
        assert problem(answer, 404, "not-found") == f"no upload {told['id']}"
    assert other.begin(DATA)["id"] != told["id"]  # it cannot tell that another sends the same
    assert ok(owner.patch(told["id"], 0, DATA))["done"]
    assert problem(other.get(f"/v1/blobs/{NAME}"), 404, "not-found")


def test_room_in_the_quota_is_taken_at_once_and_given_back(owner, app, monkeypatch, problem):
    settings(app, monkeypatch, stored_bytes=5000)
    told = owner.begin(DATA)
    assert stored(app, owner) == 3000
    message = {"digest": "1" * 64, "size": 2001, "kind": "test"}
    problem(owner.post("/v1/uploads", message), 429, "quota-exceeded")
    problem(owner.put(bytes(2001)), 429, "quota-exceeded")
    assert owner.begin(DATA) == told
    ok(owner.delete(f"/v1/uploads/{told['id']}"))
    assert stored(app, owner) == 0
    assert ok(owner.post("/v1/uploads", message))["received"] == 0


def test_unfinished_uploads_are_bounded(owner, party, app, monkeypatch, problem):
    """By number and bytes for each organisation, and by bytes for all together."""
    message = {"digest": "1" * 64, "size": 2001, "kind": "test"}
    settings(app, monkeypatch, inflight_bytes=5000, partial_bytes=6000)
    owner.begin(DATA)
    assert "unfinished" in problem(owner.post("/v1/uploads", message), 429, "quota-exceeded")
    other = party("hospital")
    other.begin(DATA)
    third = party("hospital")
    problem(third.post("/v1/uploads", message | {"size": 1}), 507, "storage-full")
    settings(app, monkeypatch, inflight_bytes=2**30, partial_bytes=2**30)
    monkeypatch.setattr(uploads, "MOST_OPEN", 1)
    problem(owner.post("/v1/uploads", message), 429, "quota-exceeded")
    message["size"] = 2**20 + 1
    problem(third.post("/v1/uploads", message), 413, "bad-input")


@pytest.mark.parametrize(
    "changes", [{"size": 0}, {"size": 2**60}, {"digest": "G" * 64}, {"kind": "A"}, {"more": 1}]
)
def test_malformed_announcements(owner, changes, problem):
    message = {"digest": NAME, "size": 3000, "kind": "test"} | changes
    problem(owner.post("/v1/uploads", message), 422, "bad-input")


def test_announced_again_with_another_size(owner, problem):
    owner.begin(DATA)
    message = {"digest": NAME, "size": 2999, "kind": "test"}
    assert "3000 bytes before" in problem(owner.post("/v1/uploads", message), 409, "conflict")


def test_it_is_forgotten_a_day_after_its_last_piece(owner, app, clock, files):
    desk = app.state.desk
    told = owner.begin(DATA)
    clock.advance(23 * 3600)
    ok(owner.patch(told["id"], 0, DATA[:10]))
    clock.advance(23 * 3600)
    assert uploads.sweep(desk) == 0
    assert owner.begin(DATA)["received"] == 10
    clock.advance(2 * 3600)
    assert uploads.sweep(desk) == 1
    assert files() == []
    assert stored(app, owner) == 0
    assert owner.begin(DATA)["id"] != told["id"]


def test_one_call_at_a_time_has_the_file(owner, app, problem):
    desk = app.state.desk
    told = owner.begin(DATA)
    with desk.store.read() as tx:
        org = tx.parties.get(owner.org_id)
    _, piece = uploads.open_piece(desk, org, told["id"], 0)
    assert "another call" in problem(owner.patch(told["id"], 0, DATA), 409, "conflict")
    piece.write(b"what breaks off")
    piece.close()
    assert ok(owner.patch(told["id"], 0, DATA))["done"]


def test_a_file_that_became_a_blob_meanwhile_is_not_touched(owner, app, monkeypatch, problem):
    """A call opened it just before another call's last piece moved it to its place."""
    told = owner.begin(DATA)
    desk, opened = app.state.desk, os.open

    def late(path, *rest):
        found = opened(path, *rest)
        monkeypatch.undo()
        desk.blobs.adopt(path, NAME)
        return found

    desk.blobs.staging.partial.joinpath(told["id"]).write_bytes(DATA)
    monkeypatch.setattr(os, "open", late)
    problem(owner.patch(told["id"], 0, b""), 409, "conflict")
    assert desk.blobs.get(NAME) == DATA


def test_lost_bytes_are_sent_again(owner, app, problem, files):
    """The disk was replaced, or a backup has the row and not the file."""
    told = owner.begin(DATA)
    ok(owner.patch(told["id"], 0, DATA[:2000]))
    (app.state.desk.blobs.staging.partial / told["id"]).write_bytes(b"short")
    assert "lost" in problem(owner.patch(told["id"], 2000, DATA[2000:]), 409, "conflict")
    assert owner.begin(DATA)["received"] == 0
    assert ok(owner.patch(told["id"], 0, DATA))["done"]


def receive_parts(app, org, told, parts):
    """Let a piece be received from these ASGI messages, one after the other."""

    async def receive():
        return parts.pop(0)

    async def call():
        request = Request({"type": "http", "method": "PATCH", "headers": []}, receive)
        partial, piece = uploads.open_piece(app.state.desk, org, told["id"], told["received"])
        await upload_routes._take(request, app.state.desk, org, partial, piece, bytes(32))

    asyncio.run(call())


def test_a_piece_that_breaks_off_counts_nothing(owner, app):
    told = owner.begin(DATA)
    told = ok(owner.patch(told["id"], 0, DATA[:5]))
    with app.state.desk.store.read() as tx:
        org = tx.parties.get(owner.org_id)
    part = {"type": "http.request", "body": DATA[5:105], "more_body": True}
    with pytest.raises(ClientDisconnect):
        receive_parts(app, org, told, [part, {"type": "http.disconnect"}])
    (path,) = app.state.desk.blobs.staging.partial.iterdir()
    assert path.read_bytes() == DATA[:5]
    assert ok(owner.patch(told["id"], 5, DATA[5:]))["done"]


def test_a_full_disk_in_the_middle_is_507_and_passes(owner, app, monkeypatch, problem):
    """What came before stays; the same piece is taken when there is room again."""
    told = owner.begin(DATA)
    ok(owner.patch(told["id"], 0, DATA[:1000]))
    staging = app.state.desk.blobs.staging
    monkeypatch.setattr(type(staging), "free", lambda _self: staging.reserve_bytes + 1999)
    problem(owner.patch(told["id"], 1000, DATA[1000:]), 507, "storage-full")
    problem(owner.put(bytes(2000)), 507, "storage-full")
    problem(
        owner.post("/v1/uploads", {"digest": "1" * 64, "size": 2000, "kind": "t"}),
        507,
        "storage-full",
    )
    assert owner.get("/v1/keys").status_code == 200
    monkeypatch.undo()
    assert ok(owner.patch(told["id"], 1000, DATA[1000:]))["done"]
    with pytest.raises(StorageFullError):
        staging.check_room(2**62)
