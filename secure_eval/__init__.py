"""Blind scoring: integer models, the key holder (secret), the evaluator (public), openings.

Names are handed out lazily: importing this package, or the evaluator, loads neither the key holder
nor the rehearsal. Take what you need with `from secure_eval import rehearse`.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # not the rehearsal: to a reader of imports the server would then reach the key holder
    from secure_eval.checked import CheckedScoringRun
    from secure_eval.class_models import ClassModels
    from secure_eval.comparison import hidden_edges
    from secure_eval.evaluator import Opened, PublicKeys
    from secure_eval.from_onnx import classes_from_onnx, from_onnx, residual_from_onnx
    from secure_eval.from_sklearn import from_sklearn, residual_from_sklearn
    from secure_eval.histogram import Histogram
    from secure_eval.integer_model import Column, IntegerModel, IntegerTree
    from secure_eval.layout import Layout
    from secure_eval.noise import Table
    from secure_eval.params import PARAMETERS
    from secure_eval.quantise_residual import label_column
    from secure_eval.sklearn_classes import classes_from_sklearn
    from secure_eval.target import TargetOpening

_HOMES = {
    "PARAMETERS": "params",
    "CheckedScoringRun": "checked",
    "ClassModels": "class_models",
    "Column": "integer_model",
    "Histogram": "histogram",
    "IntegerModel": "integer_model",
    "IntegerTree": "integer_model",
    "Layout": "layout",
    "Opened": "evaluator",
    "PublicKeys": "evaluator",
    "Table": "noise",
    "TargetOpening": "target",
    "classes_from_onnx": "from_onnx",
    "classes_from_sklearn": "sklearn_classes",
    "from_onnx": "from_onnx",
    "from_sklearn": "from_sklearn",
    "hidden_edges": "comparison",
    "label_column": "quantise_residual",
    "rehearse": "rehearse",
    "rehearse_classes": "rehearse_classes",
    "residual_from_onnx": "from_onnx",
    "residual_from_sklearn": "from_sklearn",
}

__all__ = [
    "PARAMETERS",
    "CheckedScoringRun",
    "ClassModels",
    "Column",
    "Histogram",
    "IntegerModel",
    "IntegerTree",
    "Layout",
    "Opened",
    "PublicKeys",
    "Table",
    "TargetOpening",
    "classes_from_onnx",
    "classes_from_sklearn",
    "from_onnx",
    "from_sklearn",
    "hidden_edges",
    "label_column",
    "rehearse",
    "rehearse_classes",
    "residual_from_onnx",
    "residual_from_sklearn",
]


def __getattr__(name: str) -> Any:
    """Load and return a public name on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"secure_eval.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)


class _Package(ModuleType):
    """A package whose functions keep their names although submodules are called the same.

    The import system binds `from_sklearn`, `from_onnx` and `rehearse` to the submodules once these
    are loaded by any route; the functions are what users call.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and _HOMES.get(name) == name:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
