"""Blobs: whole or absent, named by their hash, and never a secret key."""

import hashlib
import os

import pytest

from clearinghouse.blobs import BlobStore, TooLargeError, looks_secret
from clearinghouse.errors import InputError, NotFoundError


@pytest.fixture
def blobs(tmp_path):
    return BlobStore(tmp_path / "blobs", max_bytes=1000)


def files(blobs):
    return sorted(path.name for path in blobs.folder.rglob("*") if path.is_file())


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
    assert files(blobs) == [digest]
    assert blobs.put(b"") == hashlib.sha256(b"").hexdigest()


def test_a_blob_in_pieces_is_the_same_blob(blobs):
    assert send(blobs, [b"hel", b"", b"lo"], hashlib.sha256(b"hello").hexdigest()) == 5
    assert files(blobs) == [hashlib.sha256(b"hello").hexdigest()]


def test_other_bytes_than_named_leave_nothing(blobs):
    with pytest.raises(InputError, match="another SHA-256"):
        send(blobs, [b"hello"], "0" * 64)
    assert files(blobs) == []


def test_a_broken_off_upload_leaves_nothing(blobs):
    def pieces():
        yield b"hel"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        send(blobs, pieces(), "0" * 64)
    assert files(blobs) == []


def test_too_large_leaves_nothing(blobs):
    with pytest.raises(TooLargeError, match="at most 1000"):
        send(blobs, [bytes(1000), b"x"], "0" * 64)
    assert files(blobs) == []
    assert blobs.get(blobs.put(bytes(1000))) == bytes(1000)


def test_a_crash_is_swept_up(blobs):
    left, young = blobs.folder / "incoming" / "left", blobs.folder / "incoming" / "young"
    for path in (left, young):
        path.write_bytes(b"half")
    os.utime(left, (1000, 1000))
    os.utime(young, (4000, 4000))
    blobs.sweep(5000.0)
    assert files(blobs) == ["young"]


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_only_digests_are_names(blobs, name):
    with pytest.raises(InputError):
        blobs.get(name)


def test_unknown_and_damaged_blobs(blobs):
    with pytest.raises(NotFoundError):
        blobs.get("0" * 64)
    digest = blobs.put(b"hello")
    blobs.path(digest).write_bytes(b"jello")
    with pytest.raises(NotFoundError, match="damaged"):
        blobs.get(digest)


def test_secret_keys_are_refused_and_wiped(blobs, tmp_path):
    import pyrage

    from clearinghouse.signing import SigningKey
    from secure_eval.keyholder import KeyHolder

    pem, key_file = tmp_path / "key.pem", tmp_path / "he.key"
    SigningKey.generate().save(pem)
    holder = KeyHolder.generate()
    holder.save(key_file)
    age = str(pyrage.x25519.Identity.generate()).encode()
    seal_object = b"\x5e\xa1\x10\x04" + os.urandom(200)
    large = BlobStore(tmp_path / "large", max_bytes=2**24)
    for secret in (pem.read_bytes(), key_file.read_bytes(), age, b"# key\n" + age, seal_object):
        assert looks_secret(secret[:256])
        with pytest.raises(InputError, match="secret key"):
            large.put(secret)
        with pytest.raises(InputError, match="secret key"):
            send(large, [bytes([byte]) for byte in secret[:300]], "0" * 64)
    assert files(large) == []
    public = holder.public_keys()
    assert large.get(large.put(public)) == public
