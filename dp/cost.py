"""What a release costs: two lanes in integer millionths that are never converted."""

import math
from dataclasses import dataclass
from fractions import Fraction

MICRO = 1_000_000


@dataclass(frozen=True, slots=True, order=False)
class Cost:
    """A charge in one or both lanes, in millionths, rounded up when made.

    The pure lane adds epsilons of pure releases (discrete Laplace); the zCDP lane adds rhos of
    Gaussian-like ones. They are kept apart: one pure epsilon counted as rho = epsilon**2 / 2, or
    the other way round, would waste most of a budget.

    Attributes:
        micro_epsilon: Pure lane, millionths of epsilon, at least 0.
        micro_rho: zCDP lane, millionths of rho, at least 0.
    """

    micro_epsilon: int = 0
    micro_rho: int = 0

    def __post_init__(self) -> None:
        for name, value in (("micro_epsilon", self.micro_epsilon), ("micro_rho", self.micro_rho)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"{name} must be a whole number of at least 0, not {value!r}")

    @classmethod
    def pure(cls, epsilon: Fraction | int | str) -> "Cost":
        """The cost of an epsilon-DP release."""
        return cls(micro_epsilon=_micro(epsilon, "epsilon"))

    @classmethod
    def zcdp(cls, rho: Fraction | int | str) -> "Cost":
        """The cost of a rho-zCDP release."""
        return cls(micro_rho=_micro(rho, "rho"))

    def __add__(self, other: "Cost") -> "Cost":
        """Sequential composition: each lane adds (Bun and Steinke 2016, lemma 1.7 for rho)."""
        return Cost(self.micro_epsilon + other.micro_epsilon, self.micro_rho + other.micro_rho)

    def fits(self, limit: "Cost") -> bool:
        """Whether neither lane is above the limit."""
        return self.micro_epsilon <= limit.micro_epsilon and self.micro_rho <= limit.micro_rho


def parallel(costs: "tuple[Cost, ...]") -> Cost:
    """The cost of one release over a public disjoint partition of the units: the largest per lane.

    Guarantee:
        Each unit's data enter one part only, so its loss is that part's (McSherry 2009, theorem 4).
    Assumes:
        The partition is fixed without the data and no unit is in two parts.
    """
    return Cost(
        max((cost.micro_epsilon for cost in costs), default=0),
        max((cost.micro_rho for cost in costs), default=0),
    )


def epsilon_of(rho: float, delta: float, most_order: float = math.inf) -> float:
    """An epsilon such that rho-zCDP implies (epsilon, delta)-DP.

    The minimum over a > 1 of rho a + (ln(1/delta) + (a - 1) ln(1 - 1/a) - ln a) / (a - 1)
    (Canonne, Kamath, Steinke 2020, proposition 12). Any a gives a valid epsilon, so an imperfect
    search is never unsafe.

    Args:
        rho: At least 0.
        delta: Between 0 and 1.
        most_order: Orders a that may be used: the bound of a truncated zCDP guarantee
            (Bun, Dwork, Rothblum, Steinke 2018), such as that of committed coins.

    Raises:
        ValueError: rho is negative, delta is not between 0 and 1, or most_order is not above 1.
    """
    if not rho >= 0 or not math.isfinite(rho) or not 0 < delta < 1 or not most_order > 1:
        raise ValueError(f"rho must be finite and >= 0 and delta in (0, 1), not {rho}, {delta}")
    if rho == 0:
        return 0.0

    def bound(log_excess: float) -> float:
        excess = math.exp(log_excess)  # a - 1
        a = 1 + excess
        tail = -math.log(delta) + excess * math.log(excess / a) - math.log(a)
        return rho * a + tail / excess

    # golden-section search; the bound has one valley in ln(a - 1)
    low, high = -20.0, min(30.0, math.log(most_order - 1))
    ratio = (math.sqrt(5) - 1) / 2
    for _ in range(120):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if bound(left) < bound(right):
            high = right
        else:
            low = left
    return max(0.0, bound((low + high) / 2))


def lanes(total_micro: int, delta: float, pure_micro: int, most_order: float = math.inf) -> Cost:
    """Split a budget of (total, delta) at its creation: what the pure lane gets, the rest in rho.

    Guarantee:
        Whatever is later spent within both lanes is (total_micro / 10**6, delta)-DP together.
    Proof:
        The pure lane is (E, 0)-DP and the zCDP lane (epsilon_of(rho), delta)-DP; basic composition
        adds them (Dwork et al. 2006), and rho is the largest number of millionths that fits.

    Args:
        total_micro: Millionths of epsilon that the whole budget may mean.
        delta: Of the zCDP lane; nothing is split off where it is 0.
        pure_micro: Millionths kept for pure releases, at most the total.
        most_order: As in `epsilon_of`.

    Raises:
        ValueError: pure_micro is not between 0 and the total.
    """
    if not 0 <= pure_micro <= total_micro:
        raise ValueError(f"expected 0 to {total_micro} pure millionths, got {pure_micro}")
    room = (total_micro - pure_micro) / MICRO
    if not room or not delta:
        return Cost(pure_micro, 0)
    low, high = 0, total_micro  # rho is below epsilon wherever delta is below 1/2
    while low < high:
        middle = (low + high + 1) // 2
        if epsilon_of(middle / MICRO, delta, most_order) <= room:
            low = middle
        else:
            high = middle - 1
    return Cost(pure_micro, low)


def _micro(value: Fraction | int | str, name: str) -> int:
    """Millionths, rounded up, of an exact number above 0."""
    exact = Fraction(value)
    if exact <= 0:
        raise ValueError(f"{name} must be above 0, not {value!r}")
    return -math.floor(-exact * MICRO)
