"""Matching: codebook, target, clearing flow, marginal values, match report; arrays in and out.

Importing the package costs nothing: the names below are looked up on first use, so that a process
which never clears a market loads neither numba nor POT.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matching.clearing import Plan, clear, marginal_values

__all__ = ["Plan", "clear", "marginal_values"]


def __getattr__(name: str) -> Any:
    """Load a public name from `matching.clearing` when it is first asked for."""
    if name in __all__:
        return getattr(import_module("matching.clearing"), name)
    raise AttributeError(f"module 'matching' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
