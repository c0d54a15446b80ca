"""A process that gives up everything but memory and arithmetic, for good: no file, no network.

Linux on x86-64 only; elsewhere nothing is run at all. What was loaded before stays loaded; from
`lock` on the kernel refuses every system call that is not on a short list, so neither a file nor a
socket can be opened and no program started, whatever code the process is made to run.
"""

import ctypes
import os
import platform
import resource
import sys

from clearinghouse.lifeline import die_with

MEMORY_BYTES = 6 << 30
CPU_S = 900
NOBODY = 65534

ALLOWED = {
    "read": 0,
    "write": 1,
    "close": 3,
    "fstat": 5,
    "lseek": 8,
    "mmap": 9,
    "mprotect": 10,
    "munmap": 11,
    "brk": 12,
    "rt_sigaction": 13,
    "rt_sigprocmask": 14,
    "rt_sigreturn": 15,
    "readv": 19,
    "writev": 20,
    "sched_yield": 24,
    "mremap": 25,
    "madvise": 28,
    "getpid": 39,
    "exit": 60,
    "sysinfo": 99,
    "gettid": 186,
    "futex": 202,
    "sched_getaffinity": 204,
    "clock_gettime": 228,
    "clock_nanosleep": 230,
    "exit_group": 231,
    "getrandom": 318,
    "rseq": 334,
}
"""System calls by their number on x86-64."""

_X86_64 = 0xC000003E
_NO_NEW_PRIVILEGES, _DUMPABLE = 38, 4
_SECCOMP_CALL, _FILTER, _ALL_THREADS = 317, 1, 1
_LOAD, _EQUALS, _RETURN = 0x20, 0x15, 0x06
_KILL, _NOT_PERMITTED, _ALLOW = 0x80000000, 0x00050001, 0x7FFF0000


class _Step(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("if_true", ctypes.c_uint8),
        ("if_false", ctypes.c_uint8),
        ("value", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.POINTER(_Step)))


def can_lock() -> bool:
    """Whether this machine is one that `lock` was written for."""
    return sys.platform == "linux" and platform.machine() == "x86_64"


def lock(parent: int, answer_bytes: int) -> None:
    """Lock this process in. Call it when everything is imported and nothing foreign was read.

    Args:
        parent: Process id of the parent; this process ends with it.
        answer_bytes: Most that may be written to any file that is open already.

    Raises:
        OSError: The kernel refuses; the caller must stop.
    """
    if not can_lock():
        raise OSError("a process can be locked in on Linux on x86-64 only")
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    die_with(parent)  # a change of user forgets it, so not before
    limits = {
        resource.RLIMIT_AS: MEMORY_BYTES,
        resource.RLIMIT_CPU: CPU_S,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: answer_bytes,
        resource.RLIMIT_NOFILE: 16,
    }
    for what, wanted in limits.items():
        hard = resource.getrlimit(what)[1]
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(what, (most, most))
    kernel, program = ctypes.CDLL(None, use_errno=True), _program()
    # Threads that a library started before must not stay outside.
    if (
        kernel.prctl(_DUMPABLE, 0, 0, 0, 0)
        or kernel.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        or kernel.syscall(_SECCOMP_CALL, _FILTER, _ALL_THREADS, ctypes.byref(program))
    ):
        raise OSError(ctypes.get_errno(), "the kernel does not lock this process in")


def _program() -> _Program:
    """Another architecture is killed; a call on the list passes; all others are not permitted."""
    numbers = sorted(ALLOWED.values())
    steps = [
        (_LOAD, 0, 0, 4),
        (_EQUALS, 1, 0, _X86_64),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),
        *((_EQUALS, len(numbers) - i, 0, number) for i, number in enumerate(numbers)),
        (_RETURN, 0, 0, _NOT_PERMITTED),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return _Program(len(steps), (_Step * len(steps))(*(_Step(*step) for step in steps)))
