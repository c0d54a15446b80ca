"""Processes that must not outlive the one that started them."""

import ctypes
import os
import signal
import sys

_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG, prctl(2)


def die_with(parent: int) -> None:
    """Ask the kernel to kill this process when `parent`, which started it, ends (Linux).

    Args:
        parent: Process id of the parent, as the parent itself gave it: if it has ended already,
            this process has another parent by now and ends here.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
