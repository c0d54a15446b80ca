"""Semivalues of the matching game in closed form.

The game. A coalition A of sources serves every target j from its best member:
U(A) = sum_j weights[j] x max of gains[j, A], U(empty) = 0. It is a sum over targets of maxima, and
a maximum is a sum of steps: with the gains of a target sorted falling, g_(1) >= g_(2) >= ..., the
step D_l = g_(l) - g_(l+1) is earned by any coalition that meets the first l sources. A source of
rank r <= l adds that step only if none of the other l - 1 came before, so

    value of rank r = sum over l >= r of D_l x c_l,    c_l = P(the other l - 1 are absent).

The kinds differ only in who is present when a source joins:

    shapley   a uniformly random order                                        c_l = 1 / l
    banzhaf   each other source with probability 1/2                          c_l = 2^-(l-1)
    loo       all other sources (leave-one-out)                               c_l = [l = 1]
    beta      each other source with probability t, t ~ Beta(beta, alpha)
                                              c_l = prod_{m < l-1} (alpha + m) / (alpha + beta + m)
    veto      a random order of sources and customer, nothing before the customer
                                                                              c_l = 1 / (l (l + 1))

`beta` follows Kwon and Zou, "Beta Shapley", AISTATS 2022: alpha = 16, beta = 1 stresses small
coalitions; alpha = beta = 1 is Shapley. `veto` is the Shapley value of the game with one more
player, the customer, without whom every coalition is worth nothing: the customer, who may always
walk away, keeps the rest of U(all). A monopolist gets half. It is a published reference, never a
price: it is not truthful.

Never sample this game: the closed form is exact and costs O(J S log S).
"""

from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

KINDS = ("shapley", "banzhaf", "loo", "beta", "veto")
# Sorting whole columns of a large market at once would need several times its memory.
_CHUNK = 1 << 20


def semivalue(
    gains: ArrayLike,
    weights: ArrayLike,
    kind: str = "shapley",
    *,
    alpha: float = 16,
    beta: float = 1,
) -> Floats:
    """Value of every source in the game of best gains.

    Args:
        gains: (J, S) finite numbers >= 0: what source s adds to one unit of target j alone.
        weights: (J,) finite numbers >= 0: units of each target.
        kind: shapley, banzhaf, loo, beta or veto, as defined in this module.
        alpha: First parameter of `beta`, > 0.
        beta: Second parameter of `beta`, > 0.

    Returns:
        (S,) float64 >= 0. Shapley values sum to U(all sources); equal sources get equal values
        and a source that adds nothing gets 0.

    Raises:
        ValueError: If a shape, a sign or the kind is wrong.
    """
    matrix, counts = _checked(gains, weights)
    chance = _absence(matrix.shape[1], kind, alpha, beta)
    total = np.zeros(matrix.shape[1])
    step = max(1, _CHUNK // max(matrix.shape[1], 1))
    for start in range(0, len(matrix), step):
        rows = slice(start, start + step)
        total += counts[rows] @ _per_target(matrix[rows], chance)
    return total


def contributions(
    gains: ArrayLike, kind: str = "shapley", *, alpha: float = 16, beta: float = 1
) -> Floats:
    """(J, S) value of every source at one unit of each target; see `semivalue`."""
    matrix, _ = _checked(gains, np.ones(len(np.asarray(gains))))
    return _per_target(matrix, _absence(matrix.shape[1], kind, alpha, beta))


def effective_targets(values: ArrayLike) -> Floats:
    """(S,) how many targets a source's value rests on: (sum)^2 / (sum of squares) over targets.

    Args:
        values: (J, S) weighted contributions per target. A source without value has 0.
    """
    array = np.asarray(values, np.float64)
    squares = (array**2).sum(axis=0)
    total = array.sum(axis=0) ** 2
    return cast(Floats, np.divide(total, squares, out=np.zeros(total.shape), where=squares > 0))


def _per_target(gains: Floats, chance: Floats) -> Floats:
    order = np.argsort(-gains, axis=1, kind="stable")
    falling = np.take_along_axis(gains, order, axis=1)
    steps = falling.copy()
    steps[:, :-1] -= falling[:, 1:]
    earned = np.cumsum((steps * chance)[:, ::-1], axis=1)[:, ::-1]
    values = np.empty_like(gains)
    np.put_along_axis(values, order, earned, axis=1)
    return values


def _absence(sources: int, kind: str, alpha: float, beta: float) -> Floats:
    """(S,) c_l for l = 1..S: chance that l - 1 given other sources are all absent."""
    rank = np.arange(1, sources + 1, dtype=np.float64)
    if kind == "shapley":
        return 1 / rank
    if kind == "banzhaf":
        return cast(Floats, np.exp2(1 - rank))
    if kind == "loo":
        return np.where(rank == 1, 1.0, 0.0)
    if kind == "veto":
        return 1 / (rank * (rank + 1))
    if kind == "beta":
        if not (alpha > 0 and beta > 0):
            raise ValueError(f"expected alpha > 0 and beta > 0, got {alpha} and {beta}")
        before = np.arange(max(sources - 1, 0))
        ratios = (alpha + before) / (alpha + beta + before)
        return cast(Floats, np.concatenate([np.ones(min(sources, 1)), np.cumprod(ratios)]))
    raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")


def _checked(gains: ArrayLike, weights: ArrayLike) -> tuple[Floats, Floats]:
    matrix = np.asarray(gains, np.float64)
    counts = np.asarray(weights, np.float64)
    if matrix.ndim != 2:
        raise ValueError(f"gains: expected shape (J, S), got {matrix.shape}")
    if counts.shape != matrix.shape[:1]:
        raise ValueError(f"weights: expected shape ({len(matrix)},), got {counts.shape}")
    for name, array in (("gains", matrix), ("weights", counts)):
        if not np.isfinite(array).all() or (array < 0).any():
            raise ValueError(f"{name}: expected finite numbers >= 0")
    return matrix, counts
