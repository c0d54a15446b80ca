"""Lists the benchmarks, or runs some of them by name."""

import argparse
import ast
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

FOLDER = Path(__file__).parent


def available() -> dict[str, str]:
    """Benchmarks by name with the first line of what they measure; nothing is imported."""
    found = {}
    for path in sorted(FOLDER.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        if "run" in names and not path.stem.startswith("_"):
            found[path.stem] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; 2 where a name is unknown."""
    known = available()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks to run; all: all")
    parser.add_argument("--quick", action="store_true", help="fewer seeds and smaller sizes")
    chosen = parser.parse_args(arguments)
    if not chosen.names:
        print("Benchmarks (python -m benchmarks NAME... [--quick], or all):")
        for name, line in known.items():
            print(f"  {name:12} {line}")
        return 0
    names = list(known) if chosen.names == ["all"] else chosen.names
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    for name in names:
        started = time.perf_counter()
        print(f"== {name}: {known[name]}", flush=True)
        found = import_module(f"benchmarks.{name}").run(chosen.quick)
        for part in [found] if isinstance(found, str) else found:  # parts come as they are measured
            print(f"{part}\n", flush=True)
        print(f"-- {name} took {time.perf_counter() - started:.1f} s\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
