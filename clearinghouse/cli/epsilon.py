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


def auc_half_width(patients: int, bins: int, sd: float) -> float:
    """Half of the 90% interval of an AUC near 0.8 whose histogram has noise of this deviation.

    For planning, before anything is known: half of the patients have each label and the scores
    fill the bins evenly. The sampling part is Hanley and McNeil's (1982); the noise adds, for each
    label, `bins` draws weighed by ranks that are spread evenly: sd^2 bins / 12 over the label's
    patients squared. A released score has its own interval (`secure_eval.score_intervals`).

    Raises:
        ValueError: There are fewer than 2 patients.
    """
    if patients < 2 or bins < 1:
        raise ValueError(f"expected at least 2 patients and a bin, got {patients} and {bins}")
    auc, each = 0.8, patients / 2
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    sampling = (auc * (1 - auc) + (each - 1) * (q1 - auc**2 + q2 - auc**2)) / each**2
    noise = 2 * sd**2 * bins / 12 / each**2
    return min(0.5, 1.645 * math.sqrt(sampling + noise))
