"""A disk that is really full: 507 for bytes, room for the log, and recovery without a restart."""

import hashlib
import os
import subprocess
from contextlib import suppress

import pytest

from api.app import create_app
from clearinghouse.client.pieces import LARGE_BYTES
from clearinghouse.client.transport import Transport
from clearinghouse.errors import TryAgainError
from clearinghouse.settings import Settings

REQUIRES = ("tmpfs",)
MEBIBYTE = 2**20
DISK, RESERVE = 40 * MEBIBYTE, 16 * MEBIBYTE


@pytest.fixture
def disk(tmp_path):
    """A file system of its own, so small that it fills up."""
    place = tmp_path / "disk"
    place.mkdir()
    options = ["-o", f"size={DISK}", "tmpfs", str(place)]
    subprocess.run(["mount", "-t", "tmpfs", *options], check=True)
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def app(disk, clock):
    return create_app(Settings(disk / "server", in_process=True, disk_reserve_bytes=RESERVE), clock)


def disk_check(client, app):
    app.state.readiness._kept = None
    answer = client.get("/readyz")
    return answer.status_code, answer.json()["checks"]["disk"]["state"]


def left(app):
    """Files that are no whole blobs."""
    staging = app.state.desk.blobs.staging
    return [*staging.incoming.iterdir(), *staging.partial.iterdir()]


def test_uploads_stop_at_the_reserve_and_the_log_goes_on(disk, app, client, party, problem):
    owner, sizes = party("hospital"), []
    assert disk_check(client, app) == (200, "ok")
    while (answer := owner.put(os.urandom(4 * MEBIBYTE))).status_code == 201:
        sizes.append(4 * MEBIBYTE)
        assert len(sizes) < DISK // MEBIBYTE
    assert "reserve" in problem(answer, 507, "storage-full")
    assert sum(sizes) >= DISK - RESERVE - 8 * MEBIBYTE
    assert left(app) == []
    (disk / "other").write_bytes(bytes(6 * MEBIBYTE))  # somebody else's bytes: into the reserve
    assert disk_check(client, app) == (200, "degraded")
    problem(owner.put(b"small"), 507, "storage-full")
    before = app.state.desk.blobs.staging.free()
    assert before < RESERVE
    for number in range(20):  # calls that only record go on
        owner.api_key(["log:read"])
        assert owner.get(f"/v1/log/entries?start={number}").status_code == 200
    (disk / "other").unlink()
    assert disk_check(client, app) == (200, "ok")
    assert owner.put(b"small").status_code == 201


def test_a_large_upload_waits_for_room_and_goes_on_where_it_was(disk, app, client, party, clock):
    """The party's client gets bad luck, not a refusal; what came stays, and room lets it go on."""
    owner = party("hospital")
    data = os.urandom(LARGE_BYTES + 6 * MEBIBYTE)
    transport = Transport("http://testserver", owner.key, clock, client, attempts=1)
    sent = []

    def progress(way, done, _size):
        if way == "sent":
            sent.append(done)
            if done < len(data):  # the disk fills up behind the first piece
                (disk / "other").write_bytes(bytes(14 * MEBIBYTE))

    transport.progress = progress
    with pytest.raises(TryAgainError, match="reserve"):
        transport.put_blob(data, "test")
    assert sent == [8 * MEBIBYTE]
    (disk / "other").unlink()
    name = transport.put_blob(data, "test")
    assert sent == [8 * MEBIBYTE, len(data)]
    assert transport.get_blob(name) == data
    assert name == hashlib.sha256(data).hexdigest()
    assert left(app) == []


def test_a_disk_without_any_room_gives_507_and_recovers(disk, app, client, party, problem):
    """Even the reserve is gone, as when others share the disk: nothing half-written, no restart."""
    owner = party("hospital")
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(2**16)):
            pass
    problem(owner.put(b"small"), 507, "storage-full")
    status = {owner.post("/v1/schemas", {"body": {}}).status_code for _ in range(3)}
    assert status <= {422, 507}
    app.state.readiness._kept = None
    assert client.get("/readyz").status_code == 503
    filler.unlink()
    app.state.readiness._kept = None
    assert client.get("/readyz").status_code == 200
    assert owner.put(b"small").status_code == 201
    assert left(app) == []
