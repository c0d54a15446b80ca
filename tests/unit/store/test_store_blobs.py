"""Blobs: whole or absent, named by their hash, never a secret key, never into the reserve.

One suite for every kind of store: a folder, and a bucket of a real S3 server.
"""

import gzip
import hashlib
import io
import json
import os
import time
import zipfile

import pytest
import zstandard

from clearinghouse.blobs import Staging, StorageFullError, TooLargeError, looks_secret
from clearinghouse.blobs.disk import DiskStore
from clearinghouse.blobs.place import BlobPlace
from clearinghouse.errors import InputError, NotFoundError, TryAgainError


@pytest.fixture(params=["disk", "s3"])
def place(request, tmp_path):
    url = request.getfixturevalue("bucket_url") if request.param == "s3" else ""
    return BlobPlace(tmp_path / "blobs", 1000, 0, url)


@pytest.fixture
def blobs(place):
    return place.open()


def left(blobs):
    """Names of all blobs and of all that is still on its way."""
    staged = [path.name for path in blobs.staging.incoming.iterdir()]
    return sorted([*(stored.digest for stored in blobs.listed()), *staged])


def send(blobs, pieces, digest):
    with blobs.upload() as upload:
        for piece in pieces:
            upload.write(piece)
        return upload.finish(digest)


def test_what_is_put_is_got(blobs):
    digest = blobs.put(b"hello")
    assert digest == hashlib.sha256(b"hello").hexdigest()
    assert blobs.get(digest) == b"hello"
    assert blobs.put(b"hello") == digest
    assert left(blobs) == [digest]
    empty = blobs.put(b"")
    assert (empty, blobs.get(empty), blobs.size(empty)) == (hashlib.sha256().hexdigest(), b"", 0)


def test_a_blob_in_pieces_is_the_same_blob(blobs):
    assert send(blobs, [b"hel", b"", b"lo"], hashlib.sha256(b"hello").hexdigest()) == 5
    assert left(blobs) == [hashlib.sha256(b"hello").hexdigest()]


def test_other_bytes_than_named_leave_nothing(blobs):
    with pytest.raises(InputError, match="another SHA-256"):
        send(blobs, [b"hello"], "0" * 64)
    assert left(blobs) == []


def test_a_broken_off_upload_leaves_nothing(blobs):
    def pieces():
        yield b"hel"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        send(blobs, pieces(), "0" * 64)
    assert left(blobs) == []


def test_too_large_leaves_nothing(blobs):
    with pytest.raises(TooLargeError, match="at most 1000"):
        send(blobs, [bytes(1000), b"x"], "0" * 64)
    assert left(blobs) == []
    assert blobs.get(blobs.put(bytes(1000))) == bytes(1000)


def test_a_blob_of_several_parts(place):
    """Larger than a part of a multi-part upload and than a chunk of a download."""
    blobs = BlobPlace(place.folder, 2**25, 0, place.url).open()
    data = os.urandom(2**20 + 1) * 17
    digest = blobs.put(data)
    assert blobs.size(digest) == len(data)
    assert blobs.get(digest) == data
    assert len(list(blobs.chunks(digest))) > 1


def test_removed_is_gone_and_may_come_again(blobs):
    digest, other = blobs.put(b"hello"), blobs.put(b"other")
    before = blobs.find(digest)
    assert abs(before.written - time.time()) < 3600
    assert (before.digest, before.size) == (digest, 5)
    blobs.remove(digest)
    blobs.remove(digest)
    assert blobs.find(digest) is None
    assert left(blobs) == [other]
    for act in (blobs.get, blobs.size, lambda name: list(blobs.chunks(name))):
        with pytest.raises(NotFoundError, match="no blob"):
            act(digest)
    assert blobs.put(b"hello") == digest
    assert blobs.get(digest) == b"hello"


def test_adopting_twice_does_no_harm(blobs):
    """A process dies between the two steps of an upload's end, and the next one repeats it."""
    path = blobs.staging.partial / "upl"
    digest = hashlib.sha256(b"hello").hexdigest()
    for _ in range(2):
        path.write_bytes(b"hello")
        blobs.adopt(path, digest)
        assert not path.exists()
    assert blobs.get(digest) == b"hello"


def test_another_process_sees_the_same(place, blobs):
    digest = blobs.put(b"hello")
    other = BlobPlace.from_json(place.to_json()).open()
    assert other.get(digest) == b"hello"
    assert left(other) == [digest]


def test_a_crash_is_swept_up(blobs):
    old, young = blobs.staging.incoming / "left", blobs.staging.incoming / "young"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (1000, 1000))
    os.utime(young, (4000, 4000))
    blobs.staging.sweep(5000.0)
    assert left(blobs) == ["young"]


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_only_digests_are_names(blobs, name):
    for act in (blobs.get, blobs.find, blobs.remove):
        with pytest.raises(InputError):
            act(name)


def test_the_reserve_stays_free(place, monkeypatch):
    """Refused before the first byte, and in the middle when others filled the disk meanwhile."""
    blobs = BlobPlace(place.folder, 1000, 500, place.url).open()
    free = [1400]
    monkeypatch.setattr(Staging, "free", lambda _self: free[0])
    with pytest.raises(StorageFullError, match="reserve"):
        blobs.put(bytes(901))
    digest = hashlib.sha256(bytes(600)).hexdigest()
    with blobs.upload(600) as upload:
        upload.write(bytes(300))
        free[0] = 700
        with pytest.raises(StorageFullError):
            upload.write(bytes(300))
    assert left(blobs) == []
    free[0] = 1400
    assert blobs.put(bytes(600)) == digest
    assert left(blobs) == [digest]


def test_damaged_bytes_are_not_given_out(tmp_path):
    blobs = DiskStore(tmp_path / "blobs", max_bytes=1000)
    digest = blobs.put(b"hello")
    blobs.path(digest).write_bytes(b"jello")
    with pytest.raises(NotFoundError, match="damaged"):
        blobs.get(digest)


def test_a_bucket_that_is_away_is_bad_luck(tmp_path, bucket_url, monkeypatch):
    """Nothing is said of where it is, and the bytes that came are not kept here."""
    monkeypatch.setenv("AWS_ENDPOINT", "http://127.0.0.1:9")
    blobs = BlobPlace(tmp_path / "blobs", 1000, 0, bucket_url).open()
    for act in (lambda: blobs.put(b"x"), lambda: blobs.find("0" * 64), lambda: left(blobs)):
        with pytest.raises(TryAgainError, match="does not answer") as caught:
            act()
        assert "127.0.0.1" not in str(caught.value)
    assert list(blobs.staging.incoming.iterdir()) == []


@pytest.mark.parametrize("url", ["file:///tmp", "http://host/bucket", "s3://"])
def test_only_buckets_are_urls(tmp_path, url):
    with pytest.raises(InputError, match="CLEARINGHOUSE_BLOB_URL"):
        BlobPlace(tmp_path, 1000, 0, url).open()


def private_contexts(folder):
    """Real private contexts of TenSEAL and SEAL, and the same in other things."""
    import tenseal

    context = tenseal.context(tenseal.SCHEME_TYPE.BFV, 4096, plain_modulus=1032193)
    whole = context.serialize(save_secret_key=True, save_relin_keys=False)
    secret_only = context.serialize(save_public_key=False, save_secret_key=True)
    assert tenseal.context_from(whole).is_private()
    context.secret_key().data.save(str(folder / "seal.key"))
    tensor = tenseal.bfv_vector(context, [1, 2, 3]).serialize()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("context", whole)
    inner = b"\x0a" + bytes(
        [0x80 | len(whole) & 127, len(whole) >> 7 & 127 | 128, len(whole) >> 14]
    )
    nested = [
        json.dumps({"x": "y" * 5000}).encode() + whole,
        b"\x0a\x05hello" * 100 + inner + whole,
        os.urandom(300) + (folder / "seal.key").read_bytes(),
        os.urandom(300) + tensor,
        gzip.compress(whole),
        zstandard.compress(whole),
        archive.getvalue(),
    ]
    return (whole, secret_only), nested


def test_secret_keys_are_refused_and_wiped(place, tmp_path):
    import pyrage

    from clearinghouse.signing import SigningKey
    from secure_eval.keyholder import KeyHolder

    pem, key_file = tmp_path / "key.pem", tmp_path / "he.key"
    SigningKey.generate().save(pem)
    holder = KeyHolder.generate()
    holder.save(key_file)
    age = str(pyrage.x25519.Identity.generate()).encode()
    seal_object = b"\x5e\xa1\x10\x04" + os.urandom(200)
    private, nested = private_contexts(tmp_path)
    large = BlobPlace(place.folder, 2**24, 0, place.url).open()
    for secret in (
        pem.read_bytes(),
        key_file.read_bytes(),
        age,
        b"# key\n" + age,
        seal_object,
        *private,
    ):
        assert looks_secret(secret[:256])
        with pytest.raises(InputError, match="secret key"):
            large.put(secret)
        with pytest.raises(InputError, match="secret key"):
            send(large, [bytes([byte]) for byte in secret[:300]], "0" * 64)
    for secret in nested:
        with pytest.raises(InputError, match=r"secret key|compressed file"):
            large.put(secret)
    # a sign that lies across the border of two chunks, far behind the first bytes
    whole, (context, _) = bytes(1000), private
    for cut in (1001, 1007, 1017):
        data = whole + context
        with pytest.raises(InputError, match="secret key"):
            send(large, [data[:cut], data[cut:]], "0" * 64)
    assert left(large) == []
    public = holder.public_keys()
    assert large.get(large.put(public)) == public
