"""Peak memory of this process."""

from pathlib import Path

MEMORY = 64 << 20


def peak() -> int:
    """Peak resident bytes since `reset_peak`."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10


def reset_peak() -> int:
    """Start a new peak; return what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak()
