"""One large upload over loopback that is cut at random points, and how the server's memory grows.

A relay stands between client and server and counts what the client sends. At each cut point it
drops the connection, kills the server with SIGKILL and starts it again, or does so to the client.

    python tests/support/upload_cuts.py --bytes 500000000 --seed 7
"""

import argparse
import contextlib
import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from ports import free_port

from clearinghouse.client.transport import Transport, make_client
from clearinghouse.clock import SystemClock
from clearinghouse.messages.intake import OrgView, RegisterOrg
from clearinghouse.signing import SigningKey

KINDS = ("network", "server", "client", "network", "server")
"""What is cut, in turn."""

SERVER = """
import sys
from pathlib import Path
from clearinghouse.serve import serve
from clearinghouse.settings import settings_from_environment
serve(settings_from_environment(Path(sys.argv[1])), port=int(sys.argv[2]),
      announce=lambda port: print(port, flush=True), log=open(sys.argv[3], "a"))
"""
CLIENT = """
import sys
from pathlib import Path
from clearinghouse.client.transport import Transport, make_client
from clearinghouse.clock import SystemClock
from clearinghouse.signing import SigningKey
url, key, data = sys.argv[1], SigningKey.load(Path(sys.argv[2])), Path(sys.argv[3]).read_bytes()
with make_client(url) as client:
    print(Transport(url, key, SystemClock(), client, attempts=60).put_blob(data, "test"))
"""


@dataclass
class Outcome:
    """What a run was like: sizes in bytes, growth over each server process' beginning."""

    size: int
    seed: int
    sent: int = 0
    growth: int = 0
    seconds: float = 0.0
    cuts: list[tuple[str, int]] = field(default_factory=list)
    is_whole: bool = False


class Relay:
    """Passes connections on to the server's port; acts when so many bytes came from clients."""

    def __init__(self, port: int) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port, self._target = self.listener.getsockname()[1], port
        self.sent, self.acts = 0, []  # acts: (at, what to do), in order
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                near.close()
                continue
            for source, target, counts in ((near, far, True), (far, near, False)):
                threading.Thread(
                    target=self._pump, args=(source, target, counts), daemon=True
                ).start()

    def _pump(self, source: socket.socket, target: socket.socket, counts: bool) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(2**16):
                act = self._count(len(chunk)) if counts else None
                target.sendall(chunk)
                if act is not None:
                    act()
                    break
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _count(self, size: int):
        with self._lock:
            self.sent += size
            if self.acts and self.sent >= self.acts[0][0]:
                return self.acts.pop(0)[1]
        return None


class Trial:
    """The processes of one run."""

    def __init__(self, folder: Path, size: int, seed: int, **settings: str) -> None:
        self.folder, self.settings = folder, settings
        self.outcome = Outcome(size, seed)
        self.port = free_port()
        self.relay = Relay(self.port)
        self.url = f"http://127.0.0.1:{self.relay.port}"
        self.key, self.data = folder / "key.pem", folder / "data"
        self._base = 0
        self.server = self.client = None
        self._done = threading.Event()

    def start_server(self) -> None:
        """Start it and note its memory once it takes calls."""
        settings = {"WORKERS": "0", "PUBLIC_URL": self.url, **self.settings}
        environment = {f"CLEARINGHOUSE_{name}": value for name, value in settings.items()}
        self.server = subprocess.Popen(
            [
                *(sys.executable, "-c", SERVER),
                *(str(self.folder / "server"), str(self.port), str(self.folder / "log")),
            ],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        assert self.server.stdout.readline().strip() == str(self.port)
        self._base = psutil.Process(self.server.pid).memory_info().rss

    def start_client(self) -> None:
        """Start a client that sends the file."""
        self.client = subprocess.Popen(
            [sys.executable, "-c", CLIENT, self.url, str(self.key), str(self.data)],
            stdout=subprocess.PIPE,
            text=True,
        )

    def cut(self, kind: str, at: int) -> None:
        """Do what a cut does."""
        self.outcome.cuts.append((kind, at))
        if kind == "server":
            self.server.send_signal(signal.SIGKILL)
            self.server.wait()
            self.server.stdout.close()
            self.start_server()
        elif kind == "client":
            self.client.send_signal(signal.SIGKILL)
            self.client.wait()
            self.start_client()

    def watch(self) -> None:
        """Note how much the server's memory grows."""
        while not self._done.wait(0.05):
            with contextlib.suppress(psutil.Error, AttributeError):
                rss = psutil.Process(self.server.pid).memory_info().rss
                self.outcome.growth = max(self.outcome.growth, rss - self._base)

    def run(self) -> Outcome:
        """Register, send, be cut, compare."""
        outcome = self.outcome
        digest = self._make()
        self.start_server()
        key = SigningKey.generate()
        key.save(self.key)
        with make_client(self.url) as client:
            transport = Transport(self.url, key, SystemClock(), client)
            message = RegisterOrg(
                name="h", role="hospital", public_key=key.verify_key.base64, age_recipient=None
            )
            transport.post("/orgs", message, OrgView)
            self._base = psutil.Process(self.server.pid).memory_info().rss
            points = sorted(random.Random(outcome.seed).sample(range(outcome.size), len(KINDS)))
            self.relay.sent = 0
            self.relay.acts = [
                (at, lambda kind=kind, at=at: self.cut(kind, at))
                for at, kind in zip(points, KINDS, strict=True)
            ]
            threading.Thread(target=self.watch, daemon=True).start()
            began = time.monotonic()
            self.start_client()
            answers = self._wait()
            outcome.seconds, outcome.sent = time.monotonic() - began, self.relay.sent
            self._done.set()
            outcome.is_whole = answers == digest and self._stored(transport, digest)
        return outcome

    def _make(self) -> str:
        whole, left = hashlib.sha256(), self.outcome.size
        with self.data.open("wb") as file:
            while left:
                chunk = os.urandom(min(left, 2**20))
                file.write(chunk)
                whole.update(chunk)
                left -= len(chunk)
        return whole.hexdigest()

    def _wait(self) -> str:
        """The last client's answer."""
        while True:
            client = self.client
            text, _ = client.communicate()
            if client is self.client and client.returncode == 0:
                return text.strip()
            assert client.returncode in (0, -signal.SIGKILL), "the client gave up"
            time.sleep(0.05)

    def _stored(self, transport: Transport, digest: str) -> bool:
        found = hashlib.sha256(transport.get_blob(digest)).hexdigest()
        staging = self.folder / "server" / "blobs"
        left = [*(staging / "partial").iterdir(), *(staging / "incoming").iterdir()]
        return found == digest and not left

    def close(self) -> None:
        """End everything."""
        self._done.set()
        self.relay.listener.close()
        for process in (self.client, self.server):
            if process is not None:
                process.kill()
                process.wait()
                process.stdout.close()


def upload_with_cuts(folder: Path, size: int, seed: int, **settings: str) -> Outcome:
    """Run one trial below `folder`."""
    trial = Trial(folder, size, seed, **settings)
    try:
        return trial.run()
    finally:
        trial.close()


def main() -> None:
    """Measure once and print a row for benchmarks/RESULTS.md."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bytes", type=int, default=500_000_000)
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="clearinghouse-cuts-") as name:
        found = upload_with_cuts(Path(name), given.bytes, given.seed)
    cuts = ", ".join(f"{kind} at {at / 1e6:.0f} MB" for kind, at in found.cuts)
    print(
        f"{found.size / 1e6:.0f} MB, seed {found.seed}: cuts {cuts}; {found.sent / 1e6:.1f} MB "
        f"sent in {found.seconds:.0f} s; the server grew by {found.growth / 1e6:.1f} MB at most; "
        f"whole: {found.is_whole}; load average {os.getloadavg()[0]:.1f}"
    )


if __name__ == "__main__":
    main()
