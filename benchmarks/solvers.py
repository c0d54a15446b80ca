"""The clearing kernel beside POT's solvers, on the same instances; CPU seconds, growth curves."""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matching.clearing import clear, marginal_values

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

MICRO = 1_000_000
RESERVE = 6 * MICRO * 20 // 21
MEDIAN_ROWS = 30
REGULARISATION = 0.005
POT_CELLS = 12_000_000
"""POT needs a dense matrix of targets x (source, cell) pairs; larger ones are left out."""


@dataclass(frozen=True, slots=True)
class Instance:
    """A clearing problem: integer micro-money distances, target, supplies and asks."""

    distances: Ints
    target: Ints
    supplies: Ints
    asks: Ints

    @property
    def pairs(self) -> tuple[Ints, Ints]:
        """Sources and cells of everything that is offered."""
        source, cell = np.nonzero(self.supplies)
        return source, cell


def instance(sources: int, cells: int, units: int, seed: int) -> Instance:
    """Cells are points in the plane; sources of 30 rows (median) have tilted shares of them."""
    rng = np.random.default_rng(seed)
    points = rng.random((cells, 2)) * 3
    apart = np.sqrt(((points[:, None] - points[None]) ** 2).sum(axis=2))
    common = rng.dirichlet(np.full(cells, 2.0))
    sizes = np.exp(rng.normal(np.log(MEDIAN_ROWS), 0.7, sources)).astype(int) + 1
    supplies = np.array(
        [rng.multinomial(n, rng.dirichlet(common * cells * 0.5 + 1e-3)) for n in sizes]
    )
    wanted = rng.multinomial(units, rng.dirichlet(common * cells * 0.5 + 1e-3))
    asks = (rng.uniform(1.0, 2.9, sources) * 100).round().astype(np.int64) * 10_000
    return Instance(np.rint(apart * MICRO).astype(np.int64), wanted, supplies, asks)


def compare(
    sources: int, cells: int, units: int, *, pot: tuple[str, ...], seed: int = 0
) -> dict[str, Any]:
    """CPU times and objectives of the kernel and of some POT solvers on one instance."""
    case = instance(sources, cells, units, seed)
    clear(*_arguments(instance(5, 4, 10, 1)), reserve=RESERVE)  # numba compiles once
    marginal_values(clear(*_arguments(instance(5, 4, 10, 1)), reserve=RESERVE))
    plan, seconds = _timed(lambda: clear(*_arguments(case), reserve=RESERVE))
    values, value_seconds = _timed(lambda: marginal_values(plan))
    best = plan.objective / MICRO
    found: dict[str, Any] = {
        "sources": sources,
        "cells": cells,
        "units": units,
        "pairs": len(case.pairs[0]),
        "served": int(plan.quota.sum()),
        "winners": int((values > 0).sum()),
        "objective": best,
        "clear_s": seconds,
        "marginal_values_s": value_seconds,
        "pot": {},
    }
    if pot:
        _simplex(instance(5, 4, 10, 1), 0)  # loads POT
    for name in pot:
        size = (cells + 1) * (found["pairs"] + 1)
        if size > POT_CELLS:
            found["pot"][name] = {"skipped": f"a dense matrix of {size / 1e6:.0f} million numbers"}
            continue
        started = time.process_time()
        gain, note = _SOLVERS[name](case, found["served"])
        taken = time.process_time() - started
        found["pot"][name] = {
            "s": taken,
            "objective_error": None if gain is None else (gain - best) / max(1.0, abs(best)),
            "note": note,
        }
    return found


def _arguments(case: Instance) -> tuple[Ints, Ints, Ints, Ints]:
    return case.distances, case.target, case.supplies, case.asks


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.process_time()
    result = work()
    return result, time.process_time() - started


# ---------------------------------------------------------------- POT on the same instance


def _dense(case: Instance) -> tuple[Floats, Floats, Floats]:
    """Costs (targets, pairs) in money, units wanted, units offered."""
    source, cell = case.pairs
    costs = (case.distances[:, cell] + case.asks[source][None, :]) / MICRO
    return costs, case.target.astype(np.float64), case.supplies[source, cell].astype(np.float64)


def _with_outside(case: Instance) -> tuple[Floats, Floats, Floats]:
    """Balanced: a last column is the outside option, a last row takes unsold supply for nothing."""
    costs, wanted, offered = _dense(case)
    outside = np.full((len(wanted), 1), RESERVE / MICRO)
    balanced = np.vstack([np.hstack([costs, outside]), np.zeros((1, len(offered) + 1))])
    return balanced, np.append(wanted, offered.sum()), np.append(offered, wanted.sum())


def _gain(plan: Floats, costs: Floats) -> float:
    served = plan[: len(costs), : costs.shape[1]]
    return float((served * (RESERVE / MICRO - costs)).sum())


def _simplex(case: Instance, _served: int) -> tuple[float, str]:
    import ot

    balanced, wanted, offered = _with_outside(case)
    plan = ot.emd(wanted, offered, balanced, numItermax=100_000_000)
    return _gain(plan, _dense(case)[0]), "exact on floats; no marginal values"


def _sinkhorn(case: Instance, _served: int) -> tuple[float | None, str]:
    import ot

    balanced, wanted, offered = _with_outside(case)
    scale, total = balanced.max(), wanted.sum()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plan = ot.sinkhorn(
            wanted / total,
            offered / total,
            balanced / scale,
            REGULARISATION,
            numItermax=1000,
            stopThr=1e-7,
        )
    if not np.isfinite(plan).all():
        return None, "overflowed"
    missed = np.abs(plan.sum(axis=1) * total - wanted).sum()
    broken = np.abs(plan - np.rint(plan * total) / total)[: len(case.target)].sum() * total
    return (
        _gain(plan * total, _dense(case)[0]),
        f"demand missed by {missed:.2g} units, {broken:.0f} units split into fractions",
    )


def _partial(case: Instance, served: int) -> tuple[float, str]:
    import ot

    costs, wanted, offered = _dense(case)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plan = ot.partial.partial_wasserstein(wanted, offered, costs, m=served, numItermax=10**8)
    return _gain(plan, costs), "was told how many units to serve"


_SOLVERS: dict[str, Callable[[Instance, int], tuple[float | None, str]]] = {
    "network simplex": _simplex,
    "Sinkhorn": _sinkhorn,
    "partial": _partial,
}


def scale(quick: bool) -> list[dict[str, Any]]:
    """Growth over sources and cells; POT where its dense matrix is within reason."""
    everything = ("network simplex", "Sinkhorn", "partial")
    if quick:
        return [
            compare(100, 64, 1000, pot=everything),
            compare(300, 64, 2000, pot=everything),
            compare(1000, 64, 2000, pot=("network simplex",)),
            compare(1000, 256, 2000, pot=()),
        ]
    small = [compare(n, 64, 2000, pot=everything) for n in (100, 300, 1000)]
    large = [compare(n, 256, 2000, pot=everything) for n in (100, 300, 1000)]
    return [*small, *large, compare(1000, 256, 5000, pot=("network simplex",))]


def scale_table(cases: list[dict[str, Any]]) -> str:
    """The comparison as text."""
    lines = [
        f"{'sources x cells, units':>24} {'pairs':>7} {'winners':>7} {'clear':>9} "
        f"{'all values':>10}   POT on the same instance (error of its objective)"
    ]
    for case in cases:
        size = f"{case['sources']} x {case['cells']}, {case['units']}"
        pot = [_pot_words(name, found) for name, found in case["pot"].items()]
        lines.append(
            f"{size:>24} {case['pairs']:7} {case['winners']:7} {case['clear_s'] * 1000:6.0f} ms "
            f"{case['marginal_values_s'] * 1000:7.0f} ms   {'; '.join(pot) or 'not run'}"
        )
    return "\n".join(lines)


def _pot_words(name: str, found: dict[str, Any]) -> str:
    if "skipped" in found:
        return f"{name}: left out ({found['skipped']})"
    if found["objective_error"] is None:
        return f"{name} {found['s']:.2f} s, {found['note']}"
    return f"{name} {found['s']:.2f} s ({found['objective_error']:+.1e}; {found['note']})"
