"""`doctor`: what a party's machine needs, checked one by one, with what to do about each fault."""

import json
import re
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from clearinghouse.cli.options import Result, columns
from clearinghouse.errors import ClearinghouseError, RefusedError

DISTRIBUTION = "eval-clearinghouse"
OURS = ("clearinghouse", "matching", "secure_eval", "dp", "valuation", "api")
LEAST_PYTHON = (3, 11)
LEAST_DISK = 50 * 2**20
LITTLE_DISK = 2**30
MOST_SKEW_S = 30
"""Signed calls are refused when the clocks differ by a minute."""

_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*([^;]*)(?:;(.*))?")
_BOUND = re.compile(r"(>=|<=|==|<|>)\s*([0-9][0-9.]*)")

Status = Literal["ok", "note", "broken"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was looked at, how it is, and what to do."""

    check: str
    status: Status
    detail: str
    remedy: str = ""


def doctor(home: Path, server: str | None) -> Result:
    """Check everything that a party needs."""
    return report([*machine(), *_home(home), *_server(home, server)])


def machine() -> Iterator[Finding]:
    """What every part needs: interpreter, packages, names."""
    yield from _python()
    yield from _packages()
    yield from _names()


def report(found: list[Finding]) -> Result:
    """The findings for machines and for people."""
    value = {
        "healthy": not any(item.status == "broken" for item in found),
        "checks": [asdict(item) for item in found],
    }
    rows = [[item.status.upper(), item.check, item.detail] for item in found]
    lines = [columns([["", "check", "found"], *rows])]
    lines += [f"{item.check}: {item.remedy}" for item in found if item.remedy]
    if value["healthy"]:
        lines.append("nothing is broken")
    return value, "\n".join(lines)


def verdict(value: dict[str, object]) -> None:
    """Turn an unhealthy result into the exit code of a refusal.

    Raises:
        RefusedError: Something is broken.
    """
    checks = value["checks"]
    if not isinstance(checks, list) or value["healthy"]:
        return
    broken = [
        f"{item['check']} ({item['detail']})" for item in checks if item["status"] == "broken"
    ]
    raise RefusedError(f"{len(broken)} broken: {'; '.join(broken)}. Do what the table above says")


def _python() -> Iterator[Finding]:
    here = ".".join(map(str, sys.version_info[:3]))
    fits = sys.version_info >= LEAST_PYTHON
    yield Finding(
        "python",
        "ok" if fits else "broken",
        here,
        "" if fits else "install Python 3.11 or newer and make a new environment",
    )


def satisfies(found: str, bounds: str) -> bool:
    """Whether a version obeys bounds such as ">=1.5,<1.8"; release numbers only.

    A pre-release counts as its release: "2.0rc1" is at least "2".
    """
    have = _release(found)
    for sign, text in _BOUND.findall(bounds):
        want = _release(text)
        length = max(len(have), len(want))
        left, right = ((*part, *(0,) * (length - len(part))) for part in (have, want))
        holds = {
            ">=": left >= right,
            "<=": left <= right,
            "==": left == right,
            "<": left < right,
            ">": left > right,
        }[sign]
        if not holds:
            return False
    return True


def _release(text: str) -> tuple[int, ...]:
    found = re.match(r"[0-9]+(?:\.[0-9]+)*", text)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def _packages() -> Iterator[Finding]:
    """Every base requirement against what is installed; the good ones in one line."""
    try:
        needed = requires(DISTRIBUTION) or []
    except PackageNotFoundError:
        yield Finding(
            "packages",
            "broken",
            f"{DISTRIBUTION} is not installed, only its folder is on the path",
            "install it into an environment: pip install .",
        )
        return
    good = []
    for text in needed:
        match = _REQUIREMENT.fullmatch(text.strip())
        if match is None or match[3]:  # a marker: an extra that parties need not have
            continue
        name, bounds = match[1], match[2].strip()
        try:
            have = version(name)
        except PackageNotFoundError:
            yield Finding("packages", "broken", f"{name} is missing", _install(name, bounds))
            continue
        if not satisfies(have, bounds):
            words = f"{name} {have}, needed {bounds}"
            yield Finding("packages", "broken", words, _install(name, bounds))
            continue
        if name in ("scikit-learn", "scipy", "numpy", "tenseal"):
            good.append(f"{name} {have}")
    yield Finding("packages", "ok", ", ".join(good) or "none is right")
    has_onnx = find_spec("onnx") is not None
    yield Finding("onnx", "ok" if has_onnx else "note", _onnx(has_onnx))


def _install(name: str, bounds: str) -> str:
    return f"pip install '{name}{bounds.replace(' ', '')}'"


def _onnx(has_onnx: bool) -> str:
    if has_onnx:
        return f"onnx {version('onnx')}"
    return "not installed; only developers with .onnx files need the extra [onnx]"


def _names() -> Iterator[Finding]:
    """The six import names must all come from one place: ours."""
    home = Path(__file__).resolve().parents[2]
    strangers = []
    for name in OURS:
        spec = find_spec(name)
        origin = None if spec is None or spec.origin is None else Path(spec.origin).resolve()
        if origin is None or not origin.is_relative_to(home):
            strangers.append(f"{name} from {origin or 'nowhere'}")
    yield Finding(
        "import names",
        "broken" if strangers else "ok",
        ", ".join(strangers) or f"all {len(OURS)} are ours",
        "another package has this name: uninstall it, or use a fresh environment"
        if strangers
        else "",
    )


# ---------------------------------------------------------------- the home


def _home(home: Path) -> Iterator[Finding]:
    if not home.exists():
        yield Finding("home", "note", f"{home} does not exist yet", "run clearinghouse init")
        yield from _disk(Path.cwd())
        return
    mode = stat.S_IMODE(home.stat().st_mode)
    if mode & 0o077:
        yield Finding(
            "home", "broken", f"{home} has mode {mode:04o}", f"run chmod 700 {home}: it holds keys"
        )
    else:
        yield Finding("home", "ok", f"{home}, mode {mode:04o}")
    yield from _keys(home)
    yield from _disk(home)


def _keys(home: Path) -> Iterator[Finding]:
    from clearinghouse.cli.profile import PROFILE, read_profile
    from clearinghouse.signing import SigningKey

    if not (home / PROFILE).exists():
        yield Finding("profile", "note", "not set up", "run clearinghouse init")
        return
    exposed = [
        path.name
        for path in home.iterdir()
        if path.is_file() and path.suffix in (".pem", ".key", ".txt") and _open_to_others(path)
    ]
    if exposed:
        words = ", ".join(exposed)
        yield Finding("keys", "broken", f"other users can read {words}", f"run chmod 600 {words}")
        return
    try:
        profile = read_profile(home)
        key = SigningKey.load(home / "signing.pem")
    except (ClearinghouseError, OSError, ValueError) as error:
        yield Finding("profile", "broken", str(error), "restore the home from its backup")
        return
    yield Finding("profile", "ok", f"{profile.role} '{profile.name}', key {key.key_id}")
    yield from _table(home)
    from clearinghouse.cli.doctor_ledger import ledger

    yield from ledger(home)


def _table(home: Path) -> Iterator[Finding]:
    """Whether the table that was published or sealed is still where it was."""
    for name in ("source-terms.json", "valset-terms.json"):
        if not (home / name).is_file():
            continue
        table = Path(json.loads((home / name).read_bytes())["table"])
        if table.is_file():
            yield Finding("table", "ok", str(table))
        else:
            words = f"{table} is gone"
            yield Finding("table", "broken", words, "put the very same table back there")


def _open_to_others(path: Path) -> bool:
    return bool(stat.S_IMODE(path.stat().st_mode) & 0o077)


def _disk(place: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(place).free
    words = f"{free / 2**30:.1f} GiB free"
    if free < LEAST_DISK:
        yield Finding(
            "disk", "broken", words, "make room: keys, ledger and training sets need 50 MiB"
        )
    elif free < LITTLE_DISK:
        yield Finding(
            "disk", "note", words, "a server, or deliveries of many records, will need more"
        )
    else:
        yield Finding("disk", "ok", words)


# ---------------------------------------------------------------- the server


def _server(home: Path, server: str | None) -> Iterator[Finding]:
    from clearinghouse.cli.profile import PROFILE, check_server, read_profile

    address = server
    if address is None and (home / PROFILE).is_file():
        try:
            address = read_profile(home).server
        except ClearinghouseError:
            address = None  # said above
    if not address:
        yield Finding("server", "note", "no address is known", "give --server URL to init")
        return
    try:
        address = check_server(address)
    except ClearinghouseError as error:
        yield Finding("server", "broken", str(error), "correct the address")
        return
    yield from _ask(address)


def _ask(address: str) -> Iterator[Finding]:
    import httpx

    from clearinghouse.client.transport import make_client

    try:
        with make_client(address, timeout_s=10.0) as client:
            started = time.time()
            answer = client.get(f"{address}/healthz")
            ended = time.time()
    except httpx.HTTPError as error:
        yield Finding(
            "server",
            "broken",
            f"{address} does not answer ({type(error).__name__})",
            "check the address, your network and HTTPS_PROXY; or wait until it is back",
        )
        return
    if answer.status_code != 200:
        words = f"{address} answers with status {answer.status_code}"
        yield Finding("server", "broken", words, "check that the address is a clearinghouse's")
        return
    yield Finding("server", "ok", f"{address} answers in {1000 * (ended - started):.0f} ms")
    if address.startswith("http://") and client_is_far(address):
        yield Finding("transport", "note", "http without TLS", "use https outside this machine")
    yield from _clock(answer.headers.get("date"), started, ended)


def client_is_far(address: str) -> bool:
    """Whether an address is not this machine's own."""
    from urllib.parse import urlsplit

    return (urlsplit(address).hostname or "") not in ("localhost", "127.0.0.1", "::1")


def _clock(date: str | None, started: float, ended: float) -> Iterator[Finding]:
    """The server's Date header, whole seconds, against this clock."""
    if date is None:
        yield Finding("clock", "note", "the server does not say what time it is")
        return
    theirs = parsedate_to_datetime(date).timestamp()
    # the true time at the server is within [theirs, theirs + 1), while ours ran from start to end
    skew = max(0.0, started - (theirs + 1), theirs - ended)
    words = f"{skew:.0f} s apart from the server's"
    if skew > MOST_SKEW_S:
        yield Finding("clock", "broken", words, "set this machine's clock: signed calls expire")
    else:
        yield Finding("clock", "ok", words)
