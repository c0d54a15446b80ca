"""Crafted ciphertexts through a whole server: every one is refused in words and nothing restarts.

The corpus is what kills, misleads or inflates the libraries' own parsers (measured: eleven bytes
end a process that loads them). Each is uploaded, sealed as a validation set and asked for in a
request, so that the server's worker has to read it. What the upload refuses already, because it
holds an object of SEAL or is compressed, is put behind it by hand.
"""

import gzip
import hashlib
import json
import os
import struct
import subprocess
import sys
import time

import httpx
import psutil
import pytest
import tenseal
import zstandard

from clearinghouse.blobs.disk import DiskStore
from clearinghouse.clock import SystemClock
from clearinghouse.errors import InputError
from clearinghouse.store.store import Store

URL = "http://testserver"
NOT_STORED = {
    "vector",
    "public context",
    "context without keys",
    "SEAL head of size 2^63",
    "SEAL zstd bomb",
    "gzip bomb",
    "private context",
}


def protobuf(number, body):
    """One length-delimited protobuf field of up to 127 bytes."""
    return bytes([number << 3 | 2, len(body)]) + body


def seal_header(body, compression=0, size=None):
    total = len(body) + 16 if size is None else size
    return struct.pack("<HBBBBHQ", 0xA15E, 16, 4, 3, compression, 0, total) + body


def corpus():
    context = tenseal.context(
        tenseal.SCHEME_TYPE.CKKS, 4096, coeff_mod_bit_sizes=[30, 30, 30], n_threads=1
    )
    context.global_scale = 2**25
    sizes, scale = b"\x0a\x01\x64", b"\x19" + struct.pack("<d", 2.0**40)
    zeros = zstandard.ZstdCompressor(level=1).compress(bytes(256 << 20))
    return {
        "nothing": b"",
        "zeros": bytes(100_000),
        "vector without ciphertexts": sizes + scale,
        "tensor without ciphertexts": protobuf(1, b"\x02\x02") + scale,
        "vector without sizes": protobuf(2, b"x" * 30) + scale,
        "tensor of a huge shape": protobuf(1, b"\x80\x80\x80\x80\x08" * 3) + scale,
        "vector": tenseal.ckks_vector(context, [0.1] * 8).serialize(),
        "public context": context.serialize(save_secret_key=False),
        "context without keys": protobuf(2, b"") + protobuf(1, seal_header(b"\1" * 30)),
        "SEAL head of size 2^63": seal_header(b"\0" * 40, size=2**63),
        "SEAL zstd bomb": seal_header(zeros, compression=2),
        "gzip bomb": gzip.compress(bytes(64 << 20), 1),
        "pickle": b"cposix\nsystem\n(S'true'\ntR.",
        "nested lists": b"[" * 200_000,
        "private context": context.serialize(save_secret_key=True),
    }


@pytest.fixture
def server(tmp_path):
    """A server with one worker slot; its process, address and data folder."""
    command = [sys.executable, "-m", "clearinghouse.cli.main", "serve", "--port", "0"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--data", str(tmp_path / "server"), "--workers", "1", "--json"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "CLEARINGHOUSE_PUBLIC_URL": URL},
        )
    try:
        yield process, json.loads(process.stdout.readline())["url"], tmp_path / "server"
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


def ended(market, request_id, seconds=120):
    end = time.monotonic() + seconds
    while True:
        view = market.hospital.get(f"/v1/requests/{request_id}").json()
        if view["state"] != "running":
            return view
        assert time.monotonic() < end, view["waiting_for"]
        time.sleep(0.1)


def asked(market, blob):
    """A request on a set whose keys and rows are these bytes."""
    sealed = market.hospital.post("/v1/valsets", market.valset(keys_blob=blob, upload_blobs=[blob]))
    assert sealed.status_code == 200, sealed.text
    terms = market.terms(valset_id=sealed.json()["id"])
    return market.hospital.post("/v1/requests", terms).json()["id"]


def test_crafted_bytes_end_their_request_and_nothing_else(server, market_on):
    process, url, data = server
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        store = Store(f"sqlite:///{data / 'clearinghouse.db'}")
        market = market_on(client, SystemClock(), store)
        before = psutil.Process(process.pid).memory_info().rss
        blobs = DiskStore(data / "blobs", max_bytes=2**20)
        requests = {}
        for name, blob in corpus().items():
            answer, digest = market.hospital.put(blob), hashlib.sha256(blob).hexdigest()
            assert answer.status_code == (422 if name in NOT_STORED else 201), (name, answer.text)
            if name in NOT_STORED:
                with pytest.raises(InputError):
                    blobs.put(blob)
                blobs.path(digest).parent.mkdir(exist_ok=True)
                blobs.path(digest).write_bytes(blob)
                with store.write() as tx:
                    tx.blobs.add(digest, len(blob), market.hospital.org_id)
            requests[name] = asked(market, digest)
        assert set(requests) > NOT_STORED
        for name, request_id in requests.items():
            view = ended(market, request_id)
            assert view["state"] == "failed", name
            assert view["reason"], name
            with store.read() as tx:
                (job,) = tx.jobs.of(request_id)
            # Refused by its first reader in words: the capped process did not even die.
            assert (job.kind, job.state, job.attempts) == ("valset.checks", "failed", 1), name
            assert job.error in ("ProtocolError", "InputError", "VerificationError"), (name, job)
        store.close()
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").json()["status"] == "ready"
        assert process.poll() is None
        assert psutil.Process(process.pid).memory_info().rss - before < 64 << 20
