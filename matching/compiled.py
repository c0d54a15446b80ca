"""One way to compile an integer kernel, typed, and safe on a read-only installation.

The compiler is loaded at the first call of a kernel, not when its module is imported: most
processes of the Clearinghouse read prices or offer an API and never clear a market, and it takes
longer to load than the rest of this package.
"""

import threading
from collections.abc import Callable
from functools import update_wrapper
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., object])

_lock = threading.RLock()


def compiled(function: Function) -> Function:
    """Compile `function` to machine code on its first call and keep the result where possible.

    The machine code is kept beside the package or, if that folder is read-only, in the user's
    cache folder. Where neither can be written the function is compiled anew in each process
    instead of failing.
    """
    return cast(Function, _Kernel(function))


class _Kernel:
    """A function that is compiled when it is first called, with all kernels of its module."""

    def __init__(self, function: Callable[..., object]) -> None:
        self.py_func = function
        self._machine: Callable[..., Any] | None = None
        update_wrapper(self, function)

    def __call__(self, *arguments: object) -> object:
        return self._ready()(*arguments)

    def _ready(self) -> Callable[..., Any]:
        with _lock:
            if self._machine is None:
                self._machine = _compile(self.py_func)
                # Kernels call each other by their names in the module, and the compiler knows only
                # its own kind there.
                names = self.py_func.__globals__
                for name, value in list(names.items()):
                    if isinstance(value, _Kernel):
                        names[name] = value._ready()
            return self._machine


def _compile(function: Callable[..., object]) -> Callable[..., Any]:
    import numba

    try:
        return cast(Callable[..., Any], numba.njit(cache=True, nogil=True)(function))
    except RuntimeError:  # numba: "no locator available", nothing on this machine is writable
        return cast(Callable[..., Any], numba.njit(nogil=True)(function))
