"""OpenStack Swift with its S3 interface in one process, for tests; run by Debian's own Python.

    /usr/bin/python3 swift_program.py FOLDER BUCKET

Account, container, object and proxy server are the packaged ones, each on a port of loopback with
one ring of one device below FOLDER. A line `listening on URL` follows when the bucket is there.
"""

import eventlet

eventlet.monkey_patch()

import ctypes  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

from eventlet import wsgi  # noqa: E402
from swift.common import utils  # noqa: E402
from swift.common.ring import RingBuilder  # noqa: E402
from swift.common.storage_policy import POLICIES  # noqa: E402
from swift.common.swob import Request  # noqa: E402
from swift.common.wsgi import loadapp  # noqa: E402

BACKEND = """
[DEFAULT]
devices = {folder}/devices
mount_check = false
swift_dir = {folder}
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""
PROXY = """
[DEFAULT]
swift_dir = {folder}
[pipeline:main]
pipeline = {pipeline}
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
[filter:slo]
use = egg:swift#slo
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
"""
OPEN, GUARDED = "slo proxy-server", "catch_errors s3api tempauth slo proxy-server"


class Silence:
    """A log that nobody reads."""

    def write(self, _text):
        """Forget it."""


class Cache:
    """Stands in for memcached, which the sign-in asks for: one process has no need of more."""

    def __init__(self):
        """Nothing is kept."""
        self._kept = {}

    def get(self, key, **_options):
        """What is kept, or None."""
        return self._kept.get(key)

    def set(self, key, value, **_options):
        """Keep a value."""
        self._kept[key] = value

    def delete(self, key, **_options):
        """Forget it."""
        self._kept.pop(key, None)


def cached(app):
    """The application with a cache in every call."""
    cache = Cache()

    def call(env, start_response):
        env["swift.cache"] = cache
        return app(env, start_response)

    return call


def listen():
    """A port of loopback."""
    return eventlet.listen(("127.0.0.1", 0), backlog=128)


def ring(folder, name, port):
    """One replica on one device."""
    builder = RingBuilder(1, 1, 1)
    device = {"zone": 1, "region": 1, "weight": 1, "ip": "127.0.0.1", "port": port}
    device |= {"device": "sda", "replication_ip": "127.0.0.1", "replication_port": port}
    builder.add_dev(device)
    builder.rebalance(seed=1)
    builder.get_ring().save(str(folder / f"{name}.ring.gz"))


def serve(socket, app):
    """Answer calls in a green thread."""
    eventlet.spawn(wsgi.server, socket, app, log=Silence(), max_size=64)


def main(folder, bucket):
    """Make everything below the folder and serve until the caller ends us."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # die with who started us
    (folder / "devices" / "sda").mkdir(parents=True)
    utils.HASH_PATH_SUFFIX, utils.HASH_PATH_PREFIX = b"tests", b""
    utils.validate_hash_conf = lambda: None
    sockets = {kind: listen() for kind in ("account", "container", "object")}
    for kind, socket in sockets.items():
        ring(folder, kind, socket.getsockname()[1])
    for policy in POLICIES:
        policy.object_ring = None
    for kind, socket in sockets.items():
        conf = folder / f"{kind}.conf"
        conf.write_text(BACKEND.format(folder=folder, kind=kind))
        serve(socket, loadapp(str(conf)))
    apps = {}
    for name, pipeline in (("open", OPEN), ("guarded", GUARDED)):
        conf = folder / f"{name}.conf"
        conf.write_text(PROXY.format(folder=folder, pipeline=pipeline))
        apps[name] = loadapp(str(conf))
    made = Request.blank(f"/v1/AUTH_test/{bucket}", method="PUT").get_response(apps["open"])
    assert made.status_int in (201, 202), made.status
    front = listen()
    serve(front, cached(apps["guarded"]))
    print(f"listening on http://127.0.0.1:{front.getsockname()[1]}", flush=True)
    while os.getppid() != 1:
        eventlet.sleep(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
