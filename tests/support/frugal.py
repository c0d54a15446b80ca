"""What makes a whole run cheap on two cores, whatever the shell says; nothing here is tested."""

import gc
import os
import sys
import tempfile
from pathlib import Path

MEMORY = Path("/dev/shm")
ROOM = 6 * 2**30
"""Free bytes of memory from which temporary files are kept there; a run needs about two GiB."""


def settle() -> None:
    """Set what this process and every program that it starts go by.

    One thread for linear algebra: the workers keep all cores busy, and threads that wait for one
    another in a busy loop cost more than the tests. Modules stay compiled: without, each of some
    hundred programs compiles all that it loads, and each worker rewrites every test.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    if "TMPDIR" not in os.environ and has_room():
        os.environ["TMPDIR"] = str(MEMORY)
        tempfile.tempdir = None  # found anew


def has_room() -> bool:
    """Whether temporary files may be in memory, where nobody waits for a disk at each commit.

    A process that is killed loses nothing there either: power cuts are no test's subject.
    """
    try:
        found = os.statvfs(MEMORY)
        lines = Path("/proc/meminfo").read_text().splitlines()
        (available,) = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError):
        return False
    return (
        os.access(MEMORY, os.W_OK)
        and not found.f_flag & os.ST_NOEXEC  # tests run programs from there
        and min(found.f_bavail * found.f_frsize, int(available) * 1024) >= ROOM
    )


def forget() -> None:
    """Tests and modules stay until the end: the collector need not look at them again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
