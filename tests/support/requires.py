"""What some tests need from the machine: a Go compiler, PostgreSQL, an S3 server, a container tool.

A test module names its needs in `REQUIRES = ("go",)`. `tests/conftest.py` leaves out the tests of
needs that this machine lacks (`leave_out`) and says so in one line of the summary (`lines`).
`REQUIRE=go,postgres` in the environment turns an absence into a failure: a machine that is meant to
run these tests cannot lose them in silence.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

SWIFT = Path("/usr/lib/python3/dist-packages/swift/common/middleware/s3api/s3api.py")
GO_MOD = Path("/usr/share/gocode/src/golang.org/x/mod/sumdb")

_QUIET: Mapping[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
_found: dict[str, bool] = {}


def need(name: str, found: bool) -> bool:
    """Say whether this machine has `name`; returns `found`.

    Raises:
        pytest.UsageError: It has not, though REQUIRE demands it.
    """
    demanded = {part.strip() for part in os.environ.get("REQUIRE", "").split(",")}
    if not found and name in demanded:
        raise pytest.UsageError(f"REQUIRE={name}: this machine has no {name}")
    _found[name] = found
    return found


def has(name: str) -> bool:
    """Whether this machine has `name`."""
    return _found.get(name, False)


def leave_out(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests whose module REQUIRES what is absent (for pytest_collection_modifyitems)."""
    kept, dropped = [], []
    for item in items:
        names: Sequence[str] = getattr(getattr(item, "module", None), "REQUIRES", ())
        absent = [name for name in names if not _found.get(name, False)]
        (dropped if absent else kept).append(item)
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = kept


def lines() -> list[str]:
    """One line for each absent need, for the terminal summary."""
    return [
        f"left out: tests that need {name}, which this machine lacks (REQUIRE={name} demands it)"
        for name, found in sorted(_found.items())
        if not found
    ]


def _can_mount() -> bool:
    """Whether this user may mount a small file system."""
    with tempfile.TemporaryDirectory() as place:
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], **_QUIET)
        if made.returncode == 0:
            subprocess.run(["umount", place], check=True, **_QUIET)
        return made.returncode == 0


# Known to every run, also to a process that collects no tests itself.
need("tmpfs", shutil.which("mount") is not None and _can_mount())
need("s3", SWIFT.is_file())
need("chromium", shutil.which("chromium") is not None)
need("go", shutil.which("go") is not None and GO_MOD.is_dir())
