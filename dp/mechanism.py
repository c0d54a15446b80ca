"""diffprivlib's geometric mechanism, without the rest of diffprivlib.

`import diffprivlib` loads scikit-learn, SciPy's statistics and pandas for its models: about a
second of processor time and 100 MB in every process that draws noise. The mechanism itself is three
of its files, which import NumPy, each other, and of scikit-learn one function that makes seeded
generators. They are run here as they are installed, under a name table of their own: neither
diffprivlib nor scikit-learn is loaded or changed for anyone else in this process. The function for
seeds refuses, so what is drawn here can only come from the operating system.
"""

import builtins
import importlib.util
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

_FILES = {
    "diffprivlib.utils": "utils.py",
    "diffprivlib.mechanisms.base": "mechanisms/base.py",
    "diffprivlib.mechanisms.geometric": "mechanisms/geometric.py",
}
_SEEDS = "sklearn.utils"

_lock = threading.Lock()


def geometric_mechanism() -> Any:
    """The class `diffprivlib.mechanisms.Geometric`; it draws from `secrets.SystemRandom` only.

    Raises:
        ImportError: diffprivlib is not installed, or this release of it is made otherwise.
    """
    with _lock:  # two threads would get two classes
        return _load()


@cache
def _load() -> Any:
    spec = importlib.util.find_spec("diffprivlib")  # finds it, runs nothing of it
    if spec is None or spec.origin is None:
        raise ImportError("diffprivlib is not installed")
    return _Table(Path(spec.origin).parent).module("diffprivlib.mechanisms.geometric").Geometric


class _Table:
    """Modules by name, for those alone that are in it."""

    def __init__(self, folder: Path) -> None:
        seeds = ModuleType(_SEEDS)
        seeds.check_random_state = _refuse  # type: ignore[attr-defined]
        self._folder = folder
        self._modules = {_SEEDS: seeds}
        self._builtins = {**vars(builtins), "__import__": self._import}

    def module(self, name: str) -> ModuleType:
        """One of the files as a module, run when it is first asked for."""
        if name not in self._modules:
            path = self._folder / _FILES[name]
            spec = importlib.util.spec_from_file_location(name, path)
            if spec is None or spec.loader is None:
                raise ImportError(f"{path} cannot be read")
            module = importlib.util.module_from_spec(spec)
            vars(module)["__builtins__"] = self._builtins
            spec.loader.exec_module(module)
            self._modules[name] = module
        return self._modules[name]

    def _import(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """What these files' import statements do."""
        if name in _FILES or name in self._modules:
            return self.module(name)
        if name.partition(".")[0] in ("diffprivlib", "sklearn"):
            raise ImportError(f"the mechanism of this diffprivlib needs {name}; 0.6.6 does not")
        return builtins.__import__(name, globals, locals, fromlist, level)


def _refuse(_seed: object) -> Any:
    raise ValueError("noise comes from the operating system; there is no seed")
