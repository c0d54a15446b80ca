"""The images, built and run without a Docker engine: buildah in chroot isolation, podman on runc.

Long: a base system is made by mmdebstrap, then every pinned package is fetched from its index.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import requires

requires.need(
    "containers",
    os.geteuid() == 0
    and all(shutil.which(tool) for tool in ("buildah", "mmdebstrap", "podman", "runc")),
)
REQUIRES = ("containers",)
pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]

ROOT = Path(__file__).resolve().parents[3]
PORT = 18766
CONFINED = (
    "--runtime=runc",
    "--read-only",
    "--tmpfs=/tmp",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--ulimit=nofile=1024:1024",
    "--ulimit=nproc=1024:1024",
)


class Engine:
    """buildah and podman on a store of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        place = ["--storage-driver", "vfs", "--root", str(folder / "store")]
        self.place = [*place, "--runroot", str(folder / "run")]

    def buildah(self, *arguments: str) -> str:
        return self._run("buildah", *self.place, *arguments)

    def podman(self, *arguments: str) -> str:
        return self._run("podman", *self.place, "--cgroup-manager", "cgroupfs", *arguments)

    def _run(self, *command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, f"{' '.join(command[:8])}: {done.stderr[-3000:]}"
        return done.stdout.strip()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine with both images; the base comes from the Debian mirror, not from a registry."""
    folder = tmp_path_factory.mktemp("images")
    made, base = Engine(folder), folder / "base.tar"
    packages = "python3,python3-venv,ca-certificates"
    subprocess.run(
        ["mmdebstrap", "--variant=minbase", f"--include={packages}", "bookworm", str(base)],
        check=True,
        capture_output=True,
    )
    container = made.buildah("from", "scratch")
    made.buildah("add", container, str(base), "/")
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    made.buildah("config", "--env", path, container)
    made.buildah("commit", "--rm", container, "localhost/base")
    for target in ("server", "party"):
        made.buildah(
            *("bud", "--isolation", "chroot", "--format", "docker"),
            *("--build-arg", "BASE_IMAGE=localhost/base", "--target", target),
            *("--ignorefile", "docker/.dockerignore", "-v", "/etc/ssl/certs:/etc/ssl/certs:ro"),
            *("-t", f"localhost/{target}", "-f", "docker/Dockerfile", "."),
        )
    yield made
    made.podman("rm", "--all", "--force", "--time", "5")
    shutil.rmtree(folder, ignore_errors=True)


def test_trust_containers_server_answers_as_nobody_on_a_read_only_root(engine: Engine) -> None:
    engine.podman(
        *("run", "-d", "--name", "api", "--network=host", *CONFINED),
        *("-e", "CLEARINGHOUSE_ORIGIN=container.test/log", "localhost/server"),
        *("serve", "--data", "/data/server", "--host", "127.0.0.1", "--port", str(PORT)),
        *("--workers", "0"),
    )
    url = f"http://127.0.0.1:{PORT}"
    end = time.monotonic() + 240
    while True:
        try:
            ready = httpx.get(f"{url}/readyz", trust_env=False, timeout=5)
            break
        except httpx.TransportError:
            assert time.monotonic() < end, engine.podman("logs", "api")
            time.sleep(0.5)
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")  # nobody does jobs
    # A worker of the same image, on the same volume, without any network.
    engine.podman(
        *("run", "-d", "--name", "worker", "--network=none", "--volumes-from=api", *CONFINED),
        *("localhost/server", "worker", "--data", "/data/server", "--slots", "1"),
    )
    while httpx.get(f"{url}/readyz", trust_env=False).json()["status"] != "ready":
        assert time.monotonic() < end, engine.podman("logs", "worker")
        time.sleep(0.5)
    view = httpx.get(f"{url}/v1/log/checkpoint", trust_env=False).json()
    assert view["checkpoint"].startswith("container.test/log\n1\n")
    assert engine.podman("exec", "api", "id", "-u") == "10001"
    tried = "touch /opt/x 2>/dev/null || touch /x 2>/dev/null || echo read-only"
    assert engine.podman("exec", "api", "sh", "-c", tried) == "read-only"
    for name in ("server", "party"):
        size = int(engine.podman("image", "inspect", "--format", "{{.Size}}", f"localhost/{name}"))
        print(f"{name}: {size / 1e6:.0f} MB")
    loaded = engine.podman(
        "exec", "api", "python", "-c", "import tenseal, numba, ot, obstore; print(1)"
    )
    assert loaded == "1"


def test_trust_containers_party_image_has_no_server_packages(engine: Engine) -> None:
    program = (
        "from importlib.util import find_spec as f; "
        "print([n for n in ('fastapi','sqlalchemy','uvicorn','matplotlib','ot') if f(n)])"
    )
    run = ("run", "--rm", "--network=none", *CONFINED)
    told = engine.podman(*run, "--entrypoint=python", "localhost/party", "-c", program)
    assert told == "[]"
    assert "verify" in engine.podman(*run, "localhost/party", "--help")
