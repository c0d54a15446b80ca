"""A rehearsal on three hosts of one machine: three network namespaces joined by virtual cables.

    sudo .venv/bin/python scripts/three_hosts.py MARKET.yaml --out DIR

Needs Linux, root, and Debian's iproute2, nftables and postgresql. Nothing of it is left behind.

    api     PostgreSQL, `clearinghouse serve --workers 0 --no-sequencer`, `clearinghouse sequencer`
            with the log's key, and the providers and developers
    worker  `clearinghouse worker`: reaches the database, holds no key
    agent   the hospital's key agent: calls out, takes no connection (nftables: policy drop)

Every packet between worker and agent has to go through api's host, which forwards. While models are
scored the script looks at the agent's host: no socket listens; and with one planted there, a
connection from either other host still does not come through, while the agent's own calls do. At
the end every receipt and the log are verified by the commands a participant would use.
"""

import argparse
import ctypes
import json
import os
import pwd
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from clearinghouse.market import load_market, load_tables
from clearinghouse.rehearsal.command import rehearse, write
from clearinghouse.rehearsal.stage import Hosts, Stage
from clearinghouse.report.progress import Progress

PROGRAMS = Path("/usr/lib/postgresql")
API, WORKER, AGENT = "api", "worker", "agent"
ADDRESS = {API: "10.77.1.1", WORKER: "10.77.1.2", AGENT: "10.77.2.2"}
TOWARDS_AGENT = "10.77.2.1"
PLANTED = 4433
DATABASE = 5432
CLONE_NEWNET = 0x40000000
NO_DATABASE = f"""
table inet host {{
  chain in {{ type filter hook input priority 0;
             iifname "to-{AGENT}" tcp dport {DATABASE} drop; }}
}}
"""
NOTHING_IN = """
table inet host {
  chain in  { type filter hook input priority 0; policy drop;
              iif lo accept; ct state established,related accept; }
  chain on  { type filter hook forward priority 0; policy drop; }
}
"""


def run(*command: str, text: str | None = None) -> str:
    """Run a command; its output, or an end with its complaint."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


class Hosts3:
    """The three namespaces."""

    def __init__(self) -> None:
        mark = f"clr{os.getpid()}"
        self.names = {host: f"{mark}-{host}" for host in ADDRESS}

    def on(self, host: str) -> list[str]:
        """The command that leads onto a host."""
        return ["ip", "netns", "exec", self.names[host]]

    def ip(self, host: str, *arguments: str) -> None:
        """Run `ip` on a host."""
        run("ip", "-n", self.names[host], *arguments)

    def make(self) -> None:
        """Three hosts, two cables, routes through the first, and the third one's firewall."""
        for host in ADDRESS:
            run("ip", "netns", "add", self.names[host])
            self.ip(host, "link", "set", "lo", "up")
        for host, near in ((WORKER, ADDRESS[API]), (AGENT, TOWARDS_AGENT)):
            peer = ("peer", "name", "up0", "netns", self.names[host])
            self.ip(API, "link", "add", f"to-{host}", "type", "veth", *peer)
            for place, link, address in ((API, f"to-{host}", near), (host, "up0", ADDRESS[host])):
                self.ip(place, "address", "add", f"{address}/30", "dev", link)
                self.ip(place, "link", "set", link, "up")
            self.ip(host, "route", "add", "default", "via", near)
        run(*self.on(API), "sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
        run(*self.on(AGENT), "nft", "-f", "-", text=NOTHING_IN)
        run(*self.on(API), "nft", "-f", "-", text=NO_DATABASE)

    def remove(self) -> None:
        """Take them away; processes in them have ended before."""
        for name in self.names.values():
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)

    def listening(self, host: str) -> list[str]:
        """Sockets that wait for connections on a host."""
        return run(*self.on(host), "ss", "-Hltn").splitlines()

    def reaches(self, host: str, address: str, port: int) -> bool:
        """Whether a connection from a host comes through."""
        program = (
            "import socket, sys\n"
            "try: socket.create_connection((sys.argv[1], int(sys.argv[2])), 1).close()\n"
            "except OSError: sys.exit(1)\n"
        )
        command = [*self.on(host), sys.executable, "-c", program, address, str(port)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


@contextmanager
def postgres(hosts: Hosts3) -> Iterator[str]:
    """A database server on api's host; its address, for api and worker."""
    programs = next(iter(sorted(PROGRAMS.glob("*/bin"), key=lambda p: -int(p.parent.name))), None)
    if programs is None:
        raise SystemExit("no PostgreSQL here: apt-get install postgresql")
    user, password = pwd.getpwnam("postgres"), secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="clearinghouse-pg-") as name:
        folder = Path(name)
        (folder / "password").write_text(password)
        for path in (folder, folder / "password"):
            os.chown(path, user.pw_uid, user.pw_gid)
        as_user = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        run(
            *(*as_user, str(programs / "initdb"), "-D", f"{name}/data", "-U", "postgres"),
            *("--auth=scram-sha-256", f"--pwfile={name}/password", "--no-sync"),
        )
        with (folder / "data" / "pg_hba.conf").open("a") as rules:
            rules.write("host all all 10.77.1.0/30 scram-sha-256\n")
        options = {
            "listen_addresses": ADDRESS[API],
            "unix_socket_directories": name,
            "fsync": "off",  # it is thrown away in a minute
        }
        settings = [part for item in options.items() for part in ("-c", "=".join(item))]
        with (folder / "log").open("wb") as log:
            command = [*hosts.on(API), *as_user, str(programs / "postgres"), "-D", f"{name}/data"]
            process = subprocess.Popen([*command, *settings], stdout=log, stderr=log)
        try:
            until(lambda: hosts.reaches(WORKER, ADDRESS[API], DATABASE), "PostgreSQL", process)
            yield f"postgresql+psycopg://postgres:{password}@{ADDRESS[API]}:{DATABASE}/postgres"
        finally:
            process.terminate()
            process.wait(30)


def until(
    is_there: Callable[[], bool], what: str, process: subprocess.Popen, seconds: float = 60
) -> None:
    """Wait for something that a process does."""
    end = time.monotonic() + seconds
    while not is_there():
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"{what} did not start")
        time.sleep(0.05)


def look_at_the_agent(hosts: Hosts3, server: tuple[str, int]) -> dict[str, object]:
    """What a connection to the agent's host meets, without and with a socket that waits for it."""
    found: dict[str, object] = {"listening": hosts.listening(AGENT)}
    program = f"import socket; s = socket.create_server(('', {PLANTED})); input()"
    planted = subprocess.Popen(
        [*hosts.on(AGENT), sys.executable, "-c", program], stdin=subprocess.PIPE
    )
    try:
        until(lambda: bool(hosts.listening(AGENT)), "the planted socket", planted)
        found["planted"] = len(hosts.listening(AGENT))
        # It is there: from its own host it answers. From the others nothing does.
        found["from_itself"] = hosts.reaches(AGENT, ADDRESS[AGENT], PLANTED)
        found["from_api"] = hosts.reaches(API, ADDRESS[AGENT], PLANTED)
        found["from_worker"] = hosts.reaches(WORKER, ADDRESS[AGENT], PLANTED)
        found["agent_to_server"] = hosts.reaches(AGENT, *server)
        found["agent_to_database"] = hosts.reaches(AGENT, ADDRESS[API], DATABASE)
    finally:
        planted.communicate(b"\n")
    return found


def verified(out: Path) -> dict[str, str]:
    """What a participant's own commands say of the receipts and the log."""
    command = [sys.executable, "-m", "clearinghouse.cli.main"]
    receipts = sorted((out / "receipts").glob("*.txt"))
    if not receipts:
        raise SystemExit("the rehearsal left no receipt")
    told = {path.name: run(*command, "verify", str(path)).strip() for path in receipts}
    told["log"] = run(*command, "log", "audit", str(out / "log")).strip()
    return told


def rehearse_on(hosts: Hosts3, market_path: Path, out: Path) -> dict[str, object]:
    """One rehearsal; what was seen of the agent's host meanwhile."""
    market = load_market(market_path)
    seen: dict[str, object] = {}

    def on_step(step: str, stage: Stage) -> None:
        if step == "deliver":
            host, _, port = stage.url.removeprefix("http://").partition(":")
            seen.update(look_at_the_agent(hosts, (host, int(port))))

    here = hosts.on(API)
    before = dict.fromkeys(("server", "sequencer", "providers", "developers"), here)
    before |= {"worker": hosts.on(WORKER), "agent": hosts.on(AGENT)}
    with Progress(enabled=False) as progress:
        findings = rehearse(
            market,
            load_tables(market),
            progress,
            on_step=on_step,
            hosts=Hosts(ADDRESS[API], before),
        )
    write(findings, out)
    return seen


def check(seen: dict[str, object]) -> None:
    """End with an error unless the agent's host was as it should be."""
    wanted = {
        "listening": [],
        "planted": 1,
        "from_itself": True,
        "from_api": False,
        "from_worker": False,
        "agent_to_server": True,
        "agent_to_database": False,
    }
    wrong = {name: seen.get(name) for name in wanted if seen.get(name) != wanted[name]}
    if wrong:
        raise SystemExit(f"the agent's host is not closed: {wrong}")


def main(arguments: Sequence[str]) -> None:
    """Make the hosts, rehearse, verify, print what was seen as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("market", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    if os.geteuid() != 0:
        raise SystemExit("network namespaces need root")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was made is removed then, too
    hosts, started = Hosts3(), time.monotonic()
    with ExitStack() as stack:
        stack.callback(hosts.remove)
        hosts.make()
        url = stack.enter_context(postgres(hosts))
        os.environ["CLEARINGHOUSE_REHEARSAL_DATABASE_URL"] = url
        with on_host(hosts.names[API]):
            seen = rehearse_on(hosts, options.market, options.out)
    check(seen)
    told = {"agent_host": seen, "verified": verified(options.out)}
    print(json.dumps({**told, "seconds": round(time.monotonic() - started, 1)}, indent=2))


@contextmanager
def on_host(name: str) -> Iterator[None]:
    """This thread is on that host meanwhile, as whoever looks at the market from there."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as before, open(f"/run/netns/{name}") as there:
        _enter(libc, there.fileno())
        try:
            yield
        finally:
            _enter(libc, before.fileno())


def _enter(libc: ctypes.CDLL, namespace: int) -> None:
    if libc.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


if __name__ == "__main__":
    main(sys.argv[1:])
