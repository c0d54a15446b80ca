"""Uploads: streamed, checked against their name, readable by who may."""

import asyncio
import hashlib

import pytest
from starlette.requests import ClientDisconnect, Request

import api.routes.blobs as blob_routes
from clearinghouse.blobs import TooLargeError


def stored(app):
    folder = app.state.desk.blobs.folder
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_up_and_down(party, app):
    provider = party()
    data = bytes(range(256)) * 2000
    digest = hashlib.sha256(data).hexdigest()
    assert provider.put(data).status_code == 201
    assert provider.put(data).status_code == 200
    answer = provider.get(f"/v1/blobs/{digest}")
    assert answer.content == data
    assert answer.headers["content-length"] == str(len(data))
    assert stored(app) == [digest]


def test_a_foreign_blob_is_not_there(party, problem):
    owner, other = party(), party()
    digest = hashlib.sha256(b"secret").hexdigest()
    owner.put(b"secret")
    foreign = problem(other.get(f"/v1/blobs/{digest}"), 404, "not-found")
    unknown = problem(other.get(f"/v1/blobs/{'0' * 64}"), 404, "not-found")
    assert foreign.replace(digest, "") == unknown.replace("0" * 64, "")
    assert other.put(b"secret").status_code == 201  # it cannot tell that another had it
    assert other.get(f"/v1/blobs/{digest}").content == b"secret"


def test_other_bytes_than_signed(party, client, app, problem):
    provider = party()
    digest = hashlib.sha256(b"announced").digest()
    path = f"/v1/blobs/{digest.hex()}?kind=test"
    headers = provider.headers("PUT", path, digest=digest)
    problem(client.put(path, content=b"something else", headers=headers), 422, "bad-input")
    assert stored(app) == []


def test_the_signature_must_cover_the_name(party, client, app, problem):
    """A signature over other bytes than the URL names is refused before the body is read."""
    provider = party()
    path = f"/v1/blobs/{hashlib.sha256(b'a').hexdigest()}?kind=test"
    headers = provider.headers("PUT", path, b"b")
    problem(client.put(path, content=b"a", headers=headers), 401, "unauthenticated")
    assert stored(app) == []


def test_too_large(party, app, problem):
    provider = party()
    problem(provider.put(bytes(2**20 + 1)), 413, "bad-input")
    assert stored(app) == []
    assert provider.put(bytes(2**20)).status_code == 201


@pytest.mark.parametrize(
    "path",
    [
        f"/v1/blobs/{'0' * 64}",
        f"/v1/blobs/{'0' * 64}?kind=A",
        f"/v1/blobs/{'0' * 64}?kind=" + "a" * 41,
        f"/v1/blobs/{'G' * 64}?kind=a",
        "/v1/blobs/abc?kind=a",
    ],
)
def test_malformed_names_and_kinds(party, client, path, problem):
    provider = party()
    answer = client.put(path, content=b"", headers=provider.headers("PUT", path))
    problem(answer, 422, "bad-input")


def test_a_secret_key_is_refused(party, app, problem):
    provider = party()
    pem = b"-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA==\n-----END PRIVATE KEY-----\n"
    assert "secret key" in problem(provider.put(pem), 422, "bad-input")
    assert stored(app) == []


def receive_parts(app, parts):
    """Let an upload receive these ASGI messages, one after the other."""

    async def receive():
        return parts.pop(0)

    async def upload():
        request = Request({"type": "http", "method": "PUT", "headers": []}, receive)
        with app.state.desk.blobs.upload() as opened:
            await blob_routes.receive(request, opened, app.state.desk.settings.blob_bytes)

    asyncio.run(upload())


def test_a_broken_off_upload_leaves_nothing(app):
    """The connection dies in the middle of the body."""
    part = {"type": "http.request", "body": bytes(2**16), "more_body": True}
    with pytest.raises(ClientDisconnect):
        receive_parts(app, [part, {"type": "http.disconnect"}])
    assert stored(app) == []


def test_a_body_without_end_is_cut_off(app):
    """No Content-Length announced it."""
    part = {"type": "http.request", "body": bytes(2**16), "more_body": True}
    parts = [part] * 1000
    with pytest.raises(TooLargeError):
        receive_parts(app, parts)
    assert len(parts) > 900
    assert stored(app) == []
