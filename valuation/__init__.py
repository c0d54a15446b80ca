"""Valuation: semivalues, KNN values, sampled values, quotes, contests; arrays in and out."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from valuation.knn import knn_shapley
    from valuation.sampled import Estimate, Progress, sampled_shapley
    from valuation.semivalues import semivalue

_HOME = {
    "Estimate": "valuation.sampled",
    "Progress": "valuation.sampled",
    "knn_shapley": "valuation.knn",
    "sampled_shapley": "valuation.sampled",
    "semivalue": "valuation.semivalues",
}
__all__ = ["Estimate", "Progress", "knn_shapley", "sampled_shapley", "semivalue"]


def __getattr__(name: str) -> Any:
    """Load a public name from its module when it is first asked for."""
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'valuation' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
