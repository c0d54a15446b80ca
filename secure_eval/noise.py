"""Noise that nobody can steer, under one of two laws (protocol section 5).

The key holder commits to a fresh random key before the evaluator's and the developer's nonces are
known; the noise then follows from all three, so no side can choose it. Draws use integers only: the
same on every machine.

Geometric: two-sided geometric integers. An arbiter who is given the key recomputes them, and their
ciphertext, bit for bit. Coins: sums of committed bits (`coins`), tested in every run. A table says
which by its number of coins per cell; all tables of a release follow one law.

Guarantee: geometric: each table is (epsilon + tiny)-differentially private under adding or removing
    one patient (who falls in one cell of it): P(X = v) is proportional to exp(-epsilon |v|). Coins:
    `coins`, `dp.coins`.
Assumes: SHAKE-256 with a secret 32-byte key is a random function; at most one run per key and
    nonces. Whoever knows the key knows the noise.
Proof: Ghosh, Roughgarden, Sundararajan, "Universally utility-maximizing privacy mechanisms", SIAM
    J. Comput. 41 (2012): the two-sided geometric mechanism. Thresholds are rounded down at 2^-128,
    which moves every probability by at most 2^-127, so delta <= cells * 2^-126.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import lru_cache
from math import exp, expm1
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from secure_eval.coins import MOST_COINS, CoinPlan
from secure_eval.nonces import NONCE_BYTES
from secure_eval.prg import Prg, joined

__all__ = [
    "MIN_EPSILON_MICRO",
    "NoiseLaw",
    "Table",
    "coin_plan",
    "commitment",
    "geometric",
    "geometric_variance",
    "noise_variance",
    "table_noise",
    "total_cells",
]

Integers = NDArray[np.int64]
NoiseLaw = Literal["geometric", "coins"]

MIN_EPSILON_MICRO = 1_000
_MAX_EPSILON_MICRO = 1_000_000_000
_BITS = 128
_KEY_BYTES = 32
_PRECISION = 60


@dataclass(frozen=True, slots=True)
class Table:
    """One table of a release.

    Attributes:
        name: unique within the release.
        n_cells: number of cells, at least 1.
        epsilon_micro: epsilon of this table in millionths, at least 1,000; None for no noise at
            all, which only a rehearsal allows.
        coins: committed coins per cell, an even number; 0 for the geometric law. With coins,
            epsilon is what was agreed for them, at the delta of the agreement.
    """

    name: str
    n_cells: int
    epsilon_micro: int | None
    coins: int = 0

    def __post_init__(self) -> None:
        if self.n_cells < 1:
            raise ValueError(f"table {self.name}: expected at least 1 cell, got {self.n_cells}")
        epsilon = self.epsilon_micro
        if epsilon is not None and not MIN_EPSILON_MICRO <= epsilon <= _MAX_EPSILON_MICRO:
            raise ValueError(
                f"table {self.name}: expected epsilon of {MIN_EPSILON_MICRO} to "
                f"{_MAX_EPSILON_MICRO} millionths, got {epsilon}"
            )
        if not 0 <= self.coins <= MOST_COINS or self.coins % 2:
            raise ValueError(
                f"table {self.name}: expected an even number of 0 to {MOST_COINS} coins, "
                f"got {self.coins}"
            )

    @property
    def law(self) -> NoiseLaw:
        """Which law the table's noise follows."""
        return "coins" if self.coins else "geometric"

    @property
    def variance(self) -> float:
        """Variance of the noise of one cell."""
        if not self.coins and self.epsilon_micro is None:
            return 0.0
        return noise_variance(self.epsilon_micro or 0, self.coins)


def total_cells(tables: Sequence[Table]) -> int:
    """Return the number of cells of all tables."""
    return sum(table.n_cells for table in tables)


def geometric_variance(epsilon: float) -> float:
    """Return the variance of two-sided geometric noise with parameter exp(-epsilon)."""
    if not epsilon > 0.0:
        raise ValueError(f"epsilon: expected a positive number, got {epsilon}")
    return 2 * exp(-epsilon) / expm1(-epsilon) ** 2


def noise_variance(epsilon_micro: int, coins: int = 0) -> float:
    """Return the exact variance of one cell's noise: of so many coins, or of the geometric law."""
    return coins / 4 if coins else geometric_variance(epsilon_micro / 1_000_000)


def coin_plan(tables: Sequence[Table]) -> CoinPlan | None:
    """Return the plan of a release's coins, None under the geometric law.

    Raises:
        ValueError: tables of both laws.
    """
    laws = {table.law for table in tables}
    if laws == {"coins"}:
        return CoinPlan(tuple((table.n_cells, table.coins) for table in tables))
    if "coins" in laws:
        raise ValueError("tables: all tables of a release follow one noise law")
    return None


def commitment(key: bytes) -> bytes:
    """Return the commitment (32 bytes) to a noise key, sent before any nonce is known."""
    return hashlib.sha256(joined("secure_eval noise key 1", key)).digest()


@lru_cache(maxsize=32)
def _thresholds(epsilon_micro: int) -> tuple[int, ...]:
    """Return t with P(|X| <= v) = t[v] / 2^128, rounded down; the last entry is 2^128.

    P(|X| <= v) = 1 - 2 a^(v+1) / (1 + a) for a = exp(-epsilon).
    """
    context = Context(prec=_PRECISION)
    ratio = context.exp(context.divide(Decimal(-epsilon_micro), Decimal(1_000_000)))
    scale = Decimal(1 << _BITS)
    tail = context.divide(context.multiply(Decimal(2), ratio), context.add(Decimal(1), ratio))
    result = []
    while (missing := int(context.multiply(tail, scale)) + 1) > 1:
        result.append((1 << _BITS) - missing)
        tail = context.multiply(tail, ratio)
    result.append(1 << _BITS)
    return tuple(result)


def geometric(stream: bytes, count: int, epsilon_micro: int) -> Integers:
    """Return two-sided geometric integers (count,) by exact inverse of the distribution function.

    Args:
        stream: 17 uniform bytes per integer: 128 bits for the magnitude, one bit for the sign.
        count: how many.
        epsilon_micro: epsilon in millionths.
    """
    thresholds = _thresholds(epsilon_micro)
    result = np.empty(count, np.int64)
    step = _BITS // 8 + 1
    for index in range(count):
        chunk = stream[step * index : step * (index + 1)]
        magnitude = bisect_right(thresholds, int.from_bytes(chunk[:-1], "little"))
        result[index] = -magnitude if chunk[-1] & 1 else magnitude
    return result


def table_noise(
    key: bytes, run_id: str, nonces: tuple[bytes, bytes], tables: Sequence[Table]
) -> Integers:
    """Return the noise (total cells,) of a release, table after table.

    Args:
        key: the committed noise key, 32 bytes.
        run_id: name of the run.
        nonces: the evaluator's and the developer's, 16 bytes each.
        tables: what is released.

    Raises:
        ValueError: a key or nonce of another length, two tables of one name, or two laws.
    """
    if len(key) != _KEY_BYTES or [len(nonce) for nonce in nonces] != [NONCE_BYTES] * 2:
        raise ValueError("noise: expected a 32-byte key and two 16-byte nonces")
    if len({table.name for table in tables}) != len(tables):
        raise ValueError("noise: two tables have the same name")
    plan = coin_plan(tables)
    if plan is not None:
        return plan.noise(plan.drawn(key, run_id), plan.flips(run_id, nonces))
    prg = Prg("noise", key, run_id, *nonces)
    parts = []
    for table in tables:
        if table.epsilon_micro is None:
            parts.append(np.zeros(table.n_cells, np.int64))
            continue
        stream = prg.stream(
            (_BITS // 8 + 1) * table.n_cells, table.name, table.n_cells, table.epsilon_micro
        )
        parts.append(geometric(stream, table.n_cells, table.epsilon_micro))
    return np.concatenate(parts)
