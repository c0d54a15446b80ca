"""One way to compile an integer kernel, typed, and safe on a read-only installation."""

from collections.abc import Callable
from typing import TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """Compile `function` to machine code on its first call and keep the result where possible.

    The machine code is kept beside the package or, if that folder is read-only, in the user's
    cache folder. Where neither can be written the function is compiled anew in each process
    instead of failing at import.
    """
    try:
        return cast(Function, numba.njit(cache=True, nogil=True)(function))
    except RuntimeError:  # numba: "no locator available", nothing on this machine is writable
        return cast(Function, numba.njit(nogil=True)(function))
