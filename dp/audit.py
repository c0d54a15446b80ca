"""Empirical lower bounds on a mechanism's epsilon: a claimed epsilon below the bound is false.

A bound at or below the claim proves nothing: it covers one pair of neighbours and the statistics
that were tried.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta

Data = TypeVar("Data")
Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""From the outputs of many runs, (runs, d), to one number a run."""

_GRID = 2.0**53
_THRESHOLDS = 100
_COORDINATES = 16
_CLEAR = 3.0


def epsilon_lower_bound(
    mechanism: Callable[[Data], ArrayLike],
    left: Data,
    right: Data,
    n: int,
    confidence: float,
    *,
    delta: float = 0.0,
    known: Sequence[Statistic] = (),
) -> float:
    """A number that epsilon is at least, with the given confidence.

    The mechanism runs n times on each of two neighbouring data sets. Half of the outputs choose
    one event {statistic >= t} or {statistic <= t}; the other half bound its two probabilities by
    Clopper-Pearson, and epsilon >= ln((P[event] - delta) / P'[event]).

    Statistics tried: the output itself or, for arrays, the coordinates whose mean or variance
    differ most, the sum, the projection on the difference of means, and the votes of all
    coordinates whose means differ clearly, weighted by their log odds; the direction in which the
    two sides are furthest apart for their spread, which meets noise that cells share; for float
    outputs also whether the number lies on the grid of 2**-53, which betrays naive float noise.
    Who knows the law of the noise knows better statistics still, and gives them as `known`.

    Guarantee:
        If the mechanism is (epsilon, delta)-DP for the pair, the result exceeds epsilon with
        probability at most 1 - confidence.
    Assumes:
        Runs are independent.
    Proof:
        The event is fixed given the first half, so hits in the second half are binomial; each of
        two one-sided bounds fails with probability (1 - confidence) / 2 (Jagielski, Ullman, Oprea
        2020; Clopper and Pearson 1934).

    Args:
        mechanism: From data to a number or an array of fixed shape.
        left: One data set.
        right: Its neighbour.
        n: Runs on each side, at least 100.
        confidence: Between 0 and 1, such as 0.999.
        delta: Claimed beside epsilon; 0 for a pure mechanism.
        known: Further statistics, from outputs (runs, d) to (runs,), such as the log likelihood
            ratio of the claimed law. The bound holds whatever they are.

    Returns:
        The bound, at least 0.

    Raises:
        ValueError: n, confidence or delta is out of range, or an output is empty or not finite.
    """
    if not 0 <= delta < 1:
        raise ValueError(f"delta must be in [0, 1), not {delta}")
    bound = partial(_log_ratio_bound, confidence=confidence, delta=delta)
    return _bounded(mechanism, left, right, n, confidence, bound, known)


def delta_lower_bound(
    mechanism: Callable[[Data], ArrayLike],
    left: Data,
    right: Data,
    n: int,
    confidence: float,
    *,
    epsilon: float = 0.0,
    known: Sequence[Statistic] = (),
) -> float:
    """A number that delta is at least at an epsilon, with the given confidence.

    For bounded noise, such as that of coins, which has a delta at every epsilon: at epsilon 0 it is
    the share of releases that tell the neighbours apart (total variation), which few runs show,
    while the ratio of two probabilities takes events that hardly ever come.

    Guarantee:
        If the mechanism is (epsilon, delta)-DP for the pair, the result exceeds delta with
        probability at most 1 - confidence.
    Assumes:
        Runs are independent.
    Proof:
        As `epsilon_lower_bound`, with delta >= P[event] - exp(epsilon) P'[event].

    Args:
        mechanism: From data to a number or an array of fixed shape.
        left: One data set.
        right: Its neighbour.
        n: Runs on each side, at least 100.
        confidence: Between 0 and 1, such as 0.999.
        epsilon: At which delta is bounded, at least 0.
        known: As for `epsilon_lower_bound`.

    Returns:
        The bound, at least 0.

    Raises:
        ValueError: As `epsilon_lower_bound`, or epsilon is below 0.
    """
    if not 0 <= epsilon < np.inf:
        raise ValueError(f"epsilon must be at least 0, not {epsilon}")
    bound = partial(_excess_bound, confidence=confidence, epsilon=epsilon)
    return _bounded(mechanism, left, right, n, confidence, bound, known)


_Bound = Callable[[NDArray[np.int64], NDArray[np.int64], int], NDArray[np.float64]]
"""From hits of one side and of the other in so many runs to what they prove."""


def _bounded(
    mechanism: Callable[[Data], ArrayLike],
    left: Data,
    right: Data,
    n: int,
    confidence: float,
    bound: _Bound,
    known: Sequence[Statistic],
) -> float:
    """Choose the event on one half of the runs and bound it on the other; at least 0."""
    if n < 100 or not 0 < confidence < 1:
        raise ValueError(
            f"n must be at least 100 and confidence in (0, 1), not {n} and {confidence}"
        )
    outputs = [_outputs(mechanism, data, n) for data in (left, right)]
    half = n // 2
    first = (outputs[0][:half], outputs[1][:half])
    second = (outputs[0][half:], outputs[1][half:])
    events = [_best_event(statistic, *first, bound) for statistic in (*_statistics(*first), *known)]
    _, (statistic, sign, threshold, swapped) = max(events, key=lambda scored: scored[0])
    hits = [int(np.sum(sign * statistic(part) >= sign * threshold)) for part in second]
    if swapped:
        hits.reverse()
    return max(0.0, float(bound(np.array(hits[0]), np.array(hits[1]), n - half)))


_Event = tuple[Statistic, int, float, bool]  # statistic, sign, threshold, swapped sides


def _outputs(mechanism: Callable[[Data], ArrayLike], data: Data, n: int) -> NDArray[np.float64]:
    """Run n times; outputs as rows, (n, d)."""
    rows = [np.asarray(mechanism(data), dtype=np.float64).ravel() for _ in range(n)]
    outputs = np.stack(rows)
    if outputs.shape[1] == 0 or not np.isfinite(outputs).all():
        raise ValueError("a mechanism must give finite numbers, at least one")
    return outputs


def _statistics(left: NDArray[np.float64], right: NDArray[np.float64]) -> Iterator[Statistic]:
    """Statistics worth trying, chosen from the first half of the outputs."""
    d = left.shape[1]
    means = left.mean(axis=0) - right.mean(axis=0)
    spreads = left.std(axis=0) - right.std(axis=0)
    leading = np.argsort(-np.abs(means))[:_COORDINATES].tolist()
    leading += np.argsort(-np.abs(spreads))[:_COORDINATES].tolist()
    directions = [np.eye(d)[i] for i in dict.fromkeys(leading)]
    if d > 1:
        directions += [np.ones(d), means, _apart_for_their_spread(left, right)]
        yield _vote(left, right)
    for direction in directions:
        yield _projection(direction)
    if any((part != np.floor(part)).any() for part in (left, right)):
        yield _off_grid


def _projection(direction: NDArray[np.float64]) -> Statistic:
    return lambda outputs: np.asarray(outputs @ direction, dtype=np.float64)


def _apart_for_their_spread(
    left: NDArray[np.float64], right: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Fisher's direction (d,): the inverse of the pooled covariance times the means' difference.

    A little is added to every variance, so that a direction without noise counts most, not nothing.
    """
    spread = np.cov(left, rowvar=False) + np.cov(right, rowvar=False)
    spread += np.eye(len(spread)) * (1e-9 * np.trace(spread) + 1e-12)
    return np.asarray(np.linalg.solve(spread, left.mean(axis=0) - right.mean(axis=0)))


def _vote(left: NDArray[np.float64], right: NDArray[np.float64]) -> Statistic:
    """Coordinates vote for a side by their log odds, as if they were independent.

    For independent two-sided geometric noise this is the likelihood ratio itself: it has two values
    a coordinate. Coordinates whose means do not differ clearly have no vote.
    """
    n = len(left)
    apart = left.mean(axis=0) - right.mean(axis=0)
    error = np.sqrt((left.var(axis=0) + right.var(axis=0)) / n) + 1e-12
    clear = np.flatnonzero(np.abs(apart) > _CLEAR * error)
    middle = (left.mean(axis=0) + right.mean(axis=0))[clear] / 2
    shares = [((part[:, clear] > middle).sum(axis=0) + 1) / (n + 2) for part in (left, right)]
    weights = [np.log(share / (1 - share)) for share in shares]
    difference = weights[0] - weights[1]
    return lambda outputs: np.asarray((outputs[:, clear] > middle) @ difference, np.float64)


def _off_grid(outputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """How many coordinates below 1/2 are no multiple of 2**-53.

    Adding 0 keeps all bits of a small float noise and adding 1 cuts them to the grid (Mironov
    2012), so naive float Laplace noise gives the value away.
    """
    scaled = outputs * _GRID
    off = (np.abs(outputs) < 0.5) & (scaled != np.floor(scaled))
    return np.asarray(off.sum(axis=1), dtype=np.float64)


def _best_event(
    statistic: Statistic,
    left: NDArray[np.float64],
    right: NDArray[np.float64],
    bound: _Bound,
) -> tuple[float, _Event]:
    """The threshold event with the largest bound on the first half."""
    a, b = np.sort(statistic(left)), np.sort(statistic(right))
    values = np.unique(np.concatenate([a, b]))
    if len(values) > _THRESHOLDS:
        # Closer at the ends, where rare events separate the two sides most.
        inner = np.linspace(0, len(values) - 1, _THRESHOLDS // 2)
        pooled = np.sort(np.concatenate([a, b]))
        shares = np.concatenate([np.geomspace(1e-4, 0.5, 25), 1 - np.geomspace(1e-4, 0.5, 25)])
        values = np.unique(
            np.concatenate(
                [values[inner.astype(int)], np.quantile(pooled, shares, method="nearest")]
            )
        )
    events: list[tuple[float, _Event]] = []
    for sign in (1, -1):
        if sign == 1:
            hits = [len(x) - np.searchsorted(x, values, side="left") for x in (a, b)]
        else:
            hits = [np.searchsorted(x, values, side="right") for x in (a, b)]
        for swapped in (False, True):
            over, under = (hits[1], hits[0]) if swapped else (hits[0], hits[1])
            bounds = bound(np.asarray(over), np.asarray(under), len(a))
            i = int(np.argmax(bounds))
            events.append((float(bounds[i]), (statistic, sign, float(values[i]), swapped)))
    return max(events, key=lambda scored: scored[0])


def _least_and_most(
    over: NDArray[np.int64], under: NDArray[np.int64], n: int, confidence: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The least P[event] and the largest P'[event] that n runs each allow (Clopper-Pearson)."""
    tail = (1 - confidence) / 2
    least = np.where(over > 0, beta.ppf(tail, np.maximum(over, 1), n - over + 1), 0.0)
    most = np.where(under < n, beta.ppf(1 - tail, under + 1, np.maximum(n - under, 1)), 1.0)
    return least, most


def _log_ratio_bound(
    over: NDArray[np.int64], under: NDArray[np.int64], n: int, *, confidence: float, delta: float
) -> NDArray[np.float64]:
    """Log of P[event] - delta over P'[event], at least."""
    least, most = _least_and_most(over, under, n, confidence)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.maximum(least - delta, 0.0)) - np.log(most), dtype=np.float64)


def _excess_bound(
    over: NDArray[np.int64], under: NDArray[np.int64], n: int, *, confidence: float, epsilon: float
) -> NDArray[np.float64]:
    """P[event] - exp(epsilon) P'[event], at least."""
    least, most = _least_and_most(over, under, n, confidence)
    return np.asarray(least - np.exp(epsilon) * most, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an audit of one release path found.

    Attributes:
        claimed: The epsilon that the path claims.
        bounds: Name of a pair of neighbours -> a number that epsilon is at least.
        off_grid: Published numbers that were no whole numbers; 0 for every path of the market.
        runs: Runs on each side of each pair.
        confidence: That no bound is false, for all pairs together.
    """

    claimed: float
    bounds: Mapping[str, float]
    off_grid: int
    runs: int
    confidence: float

    @property
    def worst(self) -> float:
        """The largest bound of all pairs."""
        return max(self.bounds.values())

    @property
    def passed(self) -> bool:
        """Whether nothing found contradicts the claim."""
        return self.worst <= self.claimed and self.off_grid == 0


def audit_release(
    release: Callable[[Data], ArrayLike],
    pairs: Mapping[str, tuple[Data, Data]],
    claimed: float,
    *,
    n: int,
    confidence: float,
    delta: float = 0.0,
    known: Callable[[Data, Data], Sequence[Statistic]] = lambda _left, _right: (),
) -> Verdict:
    """Audit a release path as a whole: from a table to the numbers that leave the owner.

    `release` must run everything that lies between: cells, noise, ledger, encoding. Give pairs that
    differ in kind: a full cell, an empty cell, the last row of a table, a one-row table.

    Guarantee:
        A path that is epsilon-DP for every pair fails with probability at most 1 - confidence.
        Passing proves nothing beyond these pairs and the statistics that were tried.
    Proof:
        Each pair is bounded at 1 - (1 - confidence) / (number of pairs); union bound.

    Args:
        release: From data to the published numbers, an array of fixed shape.
        pairs: Named neighbours: the second differs by one unit that was added or removed.
        claimed: Epsilon that the path claims, above 0.
        n: Runs on each side of each pair, at least 100.
        confidence: For all pairs together.
        delta: Claimed beside epsilon.
        known: From a pair to statistics that tell its sides apart, for who knows the law.

    Raises:
        ValueError: No pairs, or as `epsilon_lower_bound`.
    """
    if not pairs or not claimed > 0:
        raise ValueError(f"expected pairs and a claimed epsilon > 0, got {len(pairs)}, {claimed}")
    off_grid = 0

    def watched(data: Data) -> NDArray[np.float64]:
        nonlocal off_grid
        published = np.asarray(release(data), np.float64).ravel()
        off_grid += int((published != np.floor(published)).sum())
        return published

    each = 1 - (1 - confidence) / len(pairs)
    bounds = {
        name: epsilon_lower_bound(
            watched, left, right, n, each, delta=delta, known=known(left, right)
        )
        for name, (left, right) in pairs.items()
    }
    return Verdict(claimed, bounds, off_grid, n, confidence)
