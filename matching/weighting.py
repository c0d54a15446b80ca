"""Two more honest alternatives: the one source that fits best, and rows drawn by importance."""

from typing import cast

import numpy as np
from numpy.typing import NDArray

from matching.baselines import draw_random, use_all
from matching.discrepancy import Yardstick, bandwidth

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

COMPARED = 1000
"""At most so many rows of a source are compared with the validation rows."""
_LARGEST_RATIO = 50.0


def best_source(
    pool: Floats, sources: Integers, validation: Floats, rows: int, seed: int
) -> Integers:
    """Uniform rows of the one source whose rows are nearest to the validation rows.

    Nearest by unbiased MMD^2. A buyer who may look into every table would choose so. Where no
    source has `rows` rows, those with fewer give all that they have: no second source is asked.

    Args:
        pool: (N, d) embedded source rows.
        sources: (N,) number of each row's source.
        validation: (n, d) embedded validation rows.
        rows: Rows wanted.
        seed: Seed of the draws.

    Returns:
        At most `rows` sorted indices; none where no source has two rows or n < 2.

    Raises:
        ValueError: If there is not one source number for each row.
    """
    if sources.shape != (len(pool),):
        raise ValueError(f"sources: expected shape ({len(pool)},), got {sources.shape}")
    members = [np.flatnonzero(sources == source) for source in np.unique(sources)]
    members = [index for index in members if len(index) >= 2]
    if not members or len(validation) < 2:
        return np.zeros(0, np.int64)
    stick = Yardstick(validation, bandwidth(pool, validation))

    def apart(index: Integers) -> float:
        return stick.mmd_squared(pool[index[draw_random(len(index), COMPARED, seed)]])

    nearest = min(members, key=apart)
    return nearest[draw_random(len(nearest), rows, seed)]


def importance(pool: Floats, validation: Floats, rows: int, seed: int) -> Integers:
    """Rows drawn with chances in proportion to how much likelier they are in the customer's table.

    A logistic regression tells validation rows from pooled rows; its odds are the density ratio up
    to a constant (Bickel, Brueckner, Scheffer 2007). Odds are cut at 50 times their median, so
    that a few rows do not decide. Drawn without replacement, one after the other (Efraimidis and
    Spirakis 2006).

    Args:
        pool: (N, d) embedded source rows.
        validation: (n, d) embedded validation rows.
        rows: Rows wanted.
        seed: Seed of the draw.

    Returns:
        min(rows, N) sorted indices.
    """
    if rows >= len(pool):
        return use_all(len(pool))
    odds = _odds(pool, validation)
    odds = np.minimum(odds, _LARGEST_RATIO * np.median(odds))
    keys = np.random.default_rng(seed).exponential(size=len(pool)) / odds
    return np.sort(np.argsort(keys, kind="stable")[:rows]).astype(np.int64)


def _odds(pool: Floats, validation: Floats) -> Floats:
    """(N,) odds that a pooled row is a validation row; all 1 where there is nothing to learn."""
    if len(validation) == 0 or pool.shape[1] == 0:
        return np.ones(len(pool))
    # Imported here: it loads scikit-learn, which only a rehearsal's report needs.
    from sklearn.linear_model import LogisticRegression

    rows = np.vstack([pool, validation])
    spread = rows.std(axis=0)
    scaled = (rows - rows.mean(axis=0)) / np.where(spread > 1e-9, spread, 1.0)
    mine = np.r_[np.zeros(len(pool)), np.ones(len(validation))]
    model = LogisticRegression(C=0.1, class_weight="balanced", max_iter=500)
    log_odds = model.fit(scaled, mine).decision_function(scaled[: len(pool)])
    return cast(Floats, np.exp(np.clip(log_odds, -30.0, 30.0)))
