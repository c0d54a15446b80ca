"""What an epsilon means, in numbers that people can use. For display only; no noise is drawn."""

import math
from dataclasses import dataclass

CONFIDENCE = 0.9


@dataclass(frozen=True, slots=True)
class Meaning:
    """What two-sided geometric noise of one epsilon does to a count, and to an attacker.

    Attributes:
        sd: Standard deviation of the noise of one count.
        half_width: Smallest k with at most 10% chance that the noise is beyond +-k.
        guess: Most that someone with even odds beforehand can be right about whether one patient
            is in the table: e^epsilon / (1 + e^epsilon), Wasserman and Zhou 2010, theorem 2.4.
    """

    sd: float
    half_width: int
    guess: float


def meaning(epsilon_micro: int) -> Meaning:
    """What an epsilon of so many millionths means.

    The noise k has probability proportional to a^|k| with a = exp(-epsilon), so its variance is
    2a / (1-a)^2 and P(|noise| > k) = 2 a^(k+1) / (1 + a).

    Raises:
        ValueError: epsilon is not above 0.
    """
    if epsilon_micro <= 0:
        raise ValueError(f"epsilon must be above 0, not {epsilon_micro} millionths")
    epsilon = epsilon_micro / 1_000_000
    a = math.exp(-epsilon)
    sd = math.sqrt(2 * a) / -math.expm1(-epsilon)
    half = max(0, math.ceil(math.log((1 - CONFIDENCE) * (1 + a) / 2) / -epsilon) - 1)
    return Meaning(sd, half, 1 / (1 + a))
