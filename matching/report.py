"""How well selected rows match the customer's hold-out rows: distances, and the gap that is closed.

For rehearsals, which own every table; a production report has DP counts and the plan only. All
figures compare embedded rows (numbers divided by their public spread, categories one-hot / sqrt 2,
missing on a coordinate of its own), without the label.

    w2          2-Wasserstein distance, exact (POT's network simplex on squared distances)
    mmd         signed square root of the unbiased MMD^2 with an RBF kernel
    gap_closed  (random - method) / (random - validation) on the unbiased MMD^2: 0 is a random draw
                of as many rows, 1 is as close as the customer's own validation rows

The unbiased MMD^2 may be negative, and does not favour the side with more rows. A single draw of
`random` has the spread `gap_sd` on the same scale: one run's gap is not read closer than that.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import copysign, hypot, isfinite, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matching.baselines import CANDIDATES, draw_random, label_only, points_ot, use_all
from matching.discrepancy import Yardstick, bandwidth, wasserstein2
from matching.mmd_greedy import greedy_mmd
from matching.weighting import best_source, importance

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

RANDOM_DRAWS = 50
# Above these sizes a fixed uniform subsample stands for the rows; the unbiased MMD^2 stays
# unbiased, W2 grows slightly.
MMD_ROWS = 4000
W2_ROWS = 2000
_W2_DRAWS = 3


def signed_root(value: float) -> float:
    """Square root that keeps the sign."""
    return copysign(sqrt(abs(value)), value)


def gap_closed(
    random: float, method: float, validation: float, error: float
) -> tuple[float | None, str | None]:
    """(random - method) / (random - validation), or None and the reason why not.

    Args:
        random: Mean unbiased MMD^2 of random draws.
        method: Unbiased MMD^2 of the method's rows.
        validation: Unbiased MMD^2 of the customer's validation rows.
        error: Standard error of random - validation.
    """
    room = random - validation
    if not isfinite(room):
        return None, "too few rows of the sources or of the validation set to compare with"
    if not room > error:  # an unknown error (NaN, infinite) counts as too large
        return None, f"random rows fit as well: room {room:.4g}, standard error {error:.4g}"
    return (random - method) / room, None


@dataclass(frozen=True, slots=True)
class Cohorts:
    """Embedded rows of a rehearsal.

    Attributes:
        pool: (N, d) rows of all sources, in any fixed order.
        validation: (n, d) the customer's validation rows.
        holdout: (m, d) the customer's hold-out rows.
        pool_labels: (N,) labels.
        validation_labels: (n,) labels.
        pool_sources: (N,) number of the source of each pooled row, or None where it is not known;
            `best_source` is left out then.
    """

    pool: Floats
    validation: Floats
    holdout: Floats
    pool_labels: NDArray[Any]
    validation_labels: NDArray[Any]
    pool_sources: Integers | None = None


def match_report(
    cohorts: Cohorts, selections: Mapping[str, Integers], *, records: int, seed: int = 0
) -> dict[str, Any]:
    """Compare selections of pooled rows, and the baselines, with the hold-out rows.

    Args:
        cohorts: The rows.
        selections: Indices into the pool by method; `clearinghouse` is required, `noise_free` and
            others are measured alike. Indices may repeat.
        records: Rows wanted; the baselines get as many rows as the clearinghouse delivered, or
            this number where it delivered fewer than two.
        seed: Seed of draws and subsamples.

    Returns:
        Plain JSON values: `methods` {name: {w2, mmd, mmd_squared, gap_closed, rows, and `reason`
        where a figure is None}}, `random` with `gap_sd` as well; `validation` {w2, mmd};
        `denominator`, `denominator_error`, `bandwidth`; `subsampled` [names whose figures rest on
        a fixed subsample].

    Raises:
        ValueError: If `clearinghouse` is missing or the hold-out has fewer than two rows.
    """
    if "clearinghouse" not in selections:
        raise ValueError(f"selections: expected 'clearinghouse', got {sorted(selections)}")
    if len(cohorts.holdout) < 2:
        raise ValueError(f"holdout: expected at least two rows, got {len(cohorts.holdout)}")
    delivered = len(selections["clearinghouse"])
    rows = delivered if delivered >= 2 else records
    width = bandwidth(cohorts.pool, cohorts.holdout)
    stick = Yardstick(_thin(cohorts.holdout, MMD_ROWS, seed), width)
    scale = _scale(cohorts, stick, rows, seed)
    chosen = {**selections, **baselines(cohorts, rows, seed)}
    methods = {name: _measure(cohorts, stick, index, scale, seed) for name, index in chosen.items()}
    methods["random"] = _random_entry(cohorts, scale, rows, seed)
    return {
        "methods": methods,
        "validation": {
            "w2": _w2(cohorts.validation, cohorts.holdout, seed),
            "mmd": _number(scale.validation, signed_root),
        },
        "denominator": _number(scale.random - scale.validation),
        "denominator_error": _number(scale.error),
        "bandwidth": width,
        "subsampled": _subsampled(cohorts, chosen, rows),
    }


@dataclass(frozen=True, slots=True)
class _Scale:
    """Unbiased MMD^2 of random draws (mean and spread) and of the validation rows.

    `error` is the standard error of random - validation. Unknown figures are NaN.
    """

    random: float
    spread: float
    validation: float
    error: float


def _scale(cohorts: Cohorts, stick: Yardstick, rows: int, seed: int) -> _Scale:
    """Both ends of the gap; draws are of `rows` pooled rows, validation rows are taken as given."""
    size = len(cohorts.pool)
    random, spread = float("nan"), float("nan")
    if min(rows, size) >= 2:
        draws = (draw_random(size, min(rows, MMD_ROWS), seed + i) for i in range(RANDOM_DRAWS))
        drawn = np.array([stick.mmd_squared(cohorts.pool[index]) for index in draws])
        random, spread = float(drawn.mean()), float(drawn.std(ddof=1))
    own = _thin(cohorts.validation, MMD_ROWS, seed)
    if len(own) < 2:
        return _Scale(random, spread, float("nan"), float("nan"))
    error = hypot(stick.jackknife_error(own), spread / sqrt(RANDOM_DRAWS))
    return _Scale(random, spread, stick.mmd_squared(own), error)


def _subsampled(cohorts: Cohorts, chosen: Mapping[str, Integers], rows: int) -> list[str]:
    """Names whose figures rest on a fixed subsample: of their rows or of the pool."""
    sizes = {name: len(index) for name, index in chosen.items()}
    sizes["holdout"] = len(cohorts.holdout)
    names = {name for name, size in sizes.items() if size > W2_ROWS}
    if len(cohorts.pool) > max(CANDIDATES, 2 * rows):
        names.update({"points_ot", "greedy_mmd"})
    return sorted(names)


def _measure(
    cohorts: Cohorts, stick: Yardstick, index: Integers, scale: _Scale, seed: int
) -> dict[str, Any]:
    """Figures of one selection."""
    rows = cohorts.pool[index]
    w2 = _w2(rows, cohorts.holdout, seed)
    if len(rows) < 2:
        return _entry(w2, None, len(rows), None, "fewer than two rows")
    squared = stick.mmd_squared(_thin(rows, MMD_ROWS, seed))
    gap, reason = gap_closed(scale.random, squared, scale.validation, scale.error)
    return _entry(w2, squared, len(rows), gap, reason)


def _random_entry(cohorts: Cohorts, scale: _Scale, rows: int, seed: int) -> dict[str, Any]:
    """Means over the random draws; `gap_sd` is their spread in units of gap_closed."""
    size = min(rows, len(cohorts.pool))
    drawn = [draw_random(len(cohorts.pool), rows, seed + i) for i in range(_W2_DRAWS)]
    known = [_w2(cohorts.pool[index], cohorts.holdout, seed) for index in drawn if size]
    w2 = float(np.mean([value for value in known if value is not None])) if known else None
    if size < 2:
        return _entry(w2, None, size, None, "fewer than two rows") | {"gap_sd": None}
    gap, reason = gap_closed(scale.random, scale.random, scale.validation, scale.error)
    gap_sd = None if gap is None else scale.spread / (scale.random - scale.validation)
    return _entry(w2, scale.random, size, gap, reason) | {"gap_sd": gap_sd}


def _entry(
    w2: float | None, squared: float | None, rows: int, gap: float | None, reason: str | None
) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "w2": w2,
        "mmd": None if squared is None else signed_root(squared),
        "mmd_squared": squared,
        "gap_closed": gap,
        "rows": rows,
    }
    return entry if reason is None else entry | {"reason": reason}


def baselines(cohorts: Cohorts, rows: int, seed: int) -> dict[str, Integers]:
    """Indices of the other ways to choose rows; none of them reads the hold-out.

    `use_all` and `label_only` need no more than labels. `best_source`, `importance`, `greedy_mmd`
    and `points_ot` read every row of every source next to the validation rows, which no market
    with privacy can: they show what cells, noise and asks cost.
    """
    found = {
        "use_all": use_all(len(cohorts.pool)),
        "label_only": label_only(cohorts.pool_labels, cohorts.validation_labels, rows, seed),
        "points_ot": points_ot(cohorts.pool, cohorts.validation, rows, seed=seed),
        "importance": importance(cohorts.pool, cohorts.validation, rows, seed),
        "greedy_mmd": greedy_mmd(cohorts.pool, cohorts.validation, rows, seed=seed),
    }
    if cohorts.pool_sources is not None:
        found["best_source"] = best_source(
            cohorts.pool, cohorts.pool_sources, cohorts.validation, rows, seed
        )
    return found


def _w2(rows: Floats, holdout: Floats, seed: int) -> float | None:
    if len(rows) == 0:
        return None
    return wasserstein2(_thin(rows, W2_ROWS, seed), _thin(holdout, W2_ROWS, seed))


def _thin(rows: Floats, limit: int, seed: int) -> Floats:
    """The rows, or a fixed uniform subsample of `limit` of them."""
    return rows if len(rows) <= limit else rows[draw_random(len(rows), limit, seed)]


def _number(value: float, convert: Any = float) -> float | None:
    """A JSON number, or None where the value is not finite."""
    return convert(value) if isfinite(value) else None
