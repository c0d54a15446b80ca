"""Bounded fuzzing: cases from a seed that is printed, for so many seconds of this process.

`FUZZ_SECONDS` in the environment says how many; `FUZZ_SEED` repeats a run, `FUZZ_CASE` one case of
it. A run of so many seconds draws a seed of its own if none is given, so that a thousand runs see a
thousand times more; the default run has always the same cases.
"""

import os
import secrets
import time
from collections.abc import Callable, Iterator

import numpy as np

Random = np.random.Generator
SECONDS = 0.8
SEED = 2026


def cases(seconds: float | None = None) -> Iterator[tuple[str, Random]]:
    """Give (how to repeat it, its random numbers) until the processor time is used up."""
    limit = float(os.environ.get("FUZZ_SECONDS", SECONDS if seconds is None else seconds))
    drawn = secrets.randbits(48) if "FUZZ_SECONDS" in os.environ else SEED
    seed = int(os.environ.get("FUZZ_SEED", drawn))
    only = os.environ.get("FUZZ_CASE")
    begun, case = time.process_time(), int(only or 0)
    while case < 20 or time.process_time() - begun < limit:
        yield f"FUZZ_SEED={seed} FUZZ_CASE={case}", np.random.default_rng([seed, case])
        case += 1
        if only is not None:
            return


def fuzz(
    name: str,
    make: Callable[[Random], bytes],
    read: Callable[[bytes], None],
    tell: Callable[[str], None],
    seconds: float | None = None,
) -> dict[str, int]:
    """Read mutated bytes: a ValueError of one short line, or something that `read` found lawful.

    Returns:
        How many were "read" and "refused".
    """
    counts = {"read": 0, "refused": 0}
    how = ""
    for how, random in cases(seconds):
        data = make(random)
        try:
            read(data)
            counts["read"] += 1
        except ValueError as error:
            words = str(error)
            assert 0 < len(words) < 600, f"{name}: {how}: {words[:900]}"
            counts["refused"] += 1
        except BaseException as error:
            raise AssertionError(f"{name}: {how}: {type(error).__name__}: {error}") from error
    tell(f"\nfuzz {name}: {counts['read']} read, {counts['refused']} refused; last {how}")
    return counts
