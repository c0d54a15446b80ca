"""Attacks on what the market publishes, run against ourselves, each beside the bound it may reach.

Every attacker here is as strong as its bound assumes: it knows the mechanism, the public schema and
everybody else's rows, and it guesses by likelihood. A success rate that is surely above its
bound therefore means a fault in the mechanism. A bound that is reached is no fault: it says how
much a release of that epsilon gives away.

Attackers toss their coins with the operating system's randomness, like the noise they attack.
"""

import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Release = Callable[[Integers], ArrayLike]
"""From exact counts (cells,) to what is published (cells,)."""

CONFIDENCE = 0.9
ALARM = 1e-6
"""Odds that a right mechanism is called broken."""

_COINS = secrets.SystemRandom()


@dataclass(frozen=True, slots=True)
class Finding:
    """How well one attack went.

    Attributes:
        attack: Which attack.
        against: What it had to work on.
        success: Share of trials won, or the mean of what `measure` names.
        low: Lower end of the interval around it.
        high: Upper end.
        least: The true rate is above this but for one time in a million.
        bound: The most that theory allows any attacker; None where nothing protects.
        blind: What an attacker without the data reaches.
        trials: Independent trials, or rows attacked.
        measure: What `success` counts, in words.
    """

    attack: str
    against: str
    success: float
    low: float
    high: float
    least: float
    bound: float | None
    blind: float
    trials: int
    measure: str

    @property
    def holds(self) -> bool:
        """Whether the result is compatible with the bound.

        Some attacks reach their bound exactly, so the shown interval lies above it now and then;
        a right mechanism fails here with a probability of at most 1e-6.
        """
        return self.bound is None or self.least <= self.bound

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values."""
        return {**asdict(self), "holds": self.holds}


def clopper_pearson(hits: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Exact two-sided interval for a probability (Clopper and Pearson 1934).

    Raises:
        ValueError: There is no trial, more hits than trials, or confidence is not in (0, 1).
    """
    if not 0 <= hits <= trials or trials < 1 or not 0 < confidence < 1:
        raise ValueError(f"expected 0 <= hits <= trials, trials >= 1, got {hits} of {trials}")
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, trials - hits + 1))
    high = 1.0 if hits == trials else float(beta.ppf(1 - tail, hits + 1, trials - hits))
    return low, high


def guess_bound(epsilon: float) -> float:
    """Most that any attacker guesses right, when a coin decides which of two neighbours was used.

    e^epsilon / (1 + e^epsilon): the operating point of epsilon-DP at equal error rates (Wasserman
    and Zhou 2010, theorem 2.4; Kairouz, Oh, Viswanath 2015).

    Raises:
        ValueError: epsilon is negative.
    """
    if not epsilon >= 0:
        raise ValueError(f"epsilon must be at least 0, not {epsilon}")
    return 1 / (1 + math.exp(-epsilon))


def share_finding(
    attack: str,
    against: str,
    hits: int,
    trials: int,
    bound: float | None,
    blind: float,
    measure: str,
    confidence: float = CONFIDENCE,
) -> Finding:
    """A finding about a share of trials, with its Clopper-Pearson interval."""
    low, high = clopper_pearson(hits, trials, confidence)
    least, _ = clopper_pearson(hits, trials, 1 - 2 * ALARM)
    return Finding(attack, against, hits / trials, low, high, least, bound, blind, trials, measure)


# ---------------------------------------------------------------- reconstruction from distances


def trilaterate(distances: ArrayLike, anchors: ArrayLike) -> Floats:
    """Rebuild points from their Euclidean distances to known anchors.

    Differences of squared distances are linear in the point, so d + 1 anchors in general position
    give it exactly; more of them average errors away.

    Args:
        distances: (n, m) distances of n unknown points to m anchors.
        anchors: (m, d) known points.

    Returns:
        (n, d) points; what the anchors cannot tell apart is left at their centre.

    Raises:
        ValueError: The shapes do not fit or there are fewer than two anchors.
    """
    known, apart = np.asarray(anchors, np.float64), np.asarray(distances, np.float64)
    if known.ndim != 2 or len(known) < 2 or apart.ndim != 2 or apart.shape[1] != len(known):
        raise ValueError(
            f"expected distances (n, m) and anchors (m, d), got {apart.shape}, {known.shape}"
        )
    centre = known.mean(axis=0)
    placed = known - centre
    norms = (placed**2).sum(axis=1)
    squared = apart**2
    left = 2 * (placed - placed.mean(axis=0))
    right = (norms - norms.mean())[None, :] - (squared - squared.mean(axis=1, keepdims=True))
    found, *_ = np.linalg.lstsq(left, right.T, rcond=1e-9)
    return cast(Floats, found.T + centre)


def rebuilt(guesses: Floats, rows: Floats, tolerance: float = 1e-3) -> NDArray[np.bool_]:
    """(n,) whether a guess gets every coordinate of its row to within the tolerance."""
    return np.asarray((np.abs(guesses - rows) <= tolerance).all(axis=1), np.bool_)


def reconstruct_from_distances(
    rows: Floats, anchors: Floats, confidence: float = CONFIDENCE
) -> Finding:
    """What a server would rebuild that held distances of patients to points it knows."""
    apart = np.sqrt(((rows[:, None, :] - anchors[None, :, :]) ** 2).sum(axis=2))
    hits = int(rebuilt(trilaterate(apart, anchors), rows).sum())
    return share_finding(
        "reconstruction",
        "raw distances to known points",
        hits,
        len(rows),
        None,
        0.0,
        "rows rebuilt in every column",
        confidence,
    )


def reconstruct_from_publications(
    rows: Floats,
    places: Integers,
    codewords: Floats,
    release: Release,
    epsilon: float,
    confidence: float = CONFIDENCE,
) -> Finding:
    """The same attack on what the market gives out: distances among codewords, and noisy counts.

    The server's distances are between codewords, which the schema fixes without any patient. The
    attacker trilaterates them (and gets the codewords back, which were public), then guesses each
    patient to lie at a codeword drawn by the noisy counts, the best it can do for a patient of
    whom it knows nothing.

    Proof of the bound: a row's guess depends on the row only through the release, so its chance is
    at most e^epsilon times the chance of the same attack on the counts without that row, which
    blind guessing over the pool measures here; it is at most 1.

    Args:
        rows: (n, d) embedded patients.
        places: (n,) place of each, 0 .. K - 1.
        codewords: (K, d) public points of the places.
        release: Publishes the counts (K,).
        epsilon: Its privacy loss.
        confidence: Of the interval.
    """
    n, size = len(rows), len(codewords)
    apart = np.sqrt(((codewords[:, None, :] - codewords[None, :, :]) ** 2).sum(axis=2))
    placed = trilaterate(apart, codewords) if size > 1 else codewords
    counts = np.bincount(places, minlength=size)
    hits = blind = 0
    for row in range(n):
        hits += _hit(placed, rows[row], np.asarray(release(counts)))
        without = counts.copy()
        without[places[row]] -= 1
        blind += _hit(placed, rows[row], np.asarray(release(without)))
    # The upper end of the blind rate, so that chance alone does not break the bound.
    most = clopper_pearson(blind, n, confidence)[1]
    return share_finding(
        "reconstruction",
        "published codewords and counts",
        hits,
        n,
        min(1.0, math.exp(epsilon) * most),
        blind / n,
        "rows rebuilt in every column",
        confidence,
    )


def _hit(placed: Floats, row: Floats, noisy: NDArray[np.int64]) -> bool:
    weights = np.maximum(np.asarray(noisy, np.float64), 0.0)
    if not weights.any():
        weights = np.ones(len(weights))
    place = _COINS.choices(range(len(weights)), weights=weights.tolist())[0]
    return bool(rebuilt(placed[place][None], row[None])[0])


# ---------------------------------------------------------------- one patient, one release


def membership(
    counts: ArrayLike,
    place: int,
    release: Release,
    epsilon: float | None,
    trials: int,
    *,
    against: str,
    confidence: float = CONFIDENCE,
) -> Finding:
    """Was this patient in the table? The attacker knows every other row and the patient's place.

    A coin decides whether the patient is in. The attacker sees the release and guesses "in" where
    the published count is nearer to the count with the patient: the likelihood-ratio test for
    two-sided geometric noise.

    Args:
        counts: (K,) exact counts without the patient.
        place: The patient's place.
        release: Publishes counts.
        epsilon: Claimed privacy loss, adding or removing one patient; None where none is claimed.
        trials: Independent releases.
        against: What is attacked, in words.
        confidence: Of the interval.
    """
    without = np.asarray(counts, np.int64)
    with_patient = without.copy()
    with_patient[place] += 1
    hits = 0
    for _ in range(_checked(trials)):
        inside = bool(secrets.randbits(1))
        published = np.asarray(release(with_patient if inside else without)).ravel()
        hits += (published[place] > without[place]) == inside
    return share_finding(
        "membership",
        against,
        hits,
        trials,
        None if epsilon is None else guess_bound(epsilon),
        0.5,
        "right guesses, in or out",
        confidence,
    )


def averaging(
    count: int,
    ask: Callable[[], Callable[[int], int]],
    epsilon: float | None,
    questions: int,
    trials: int,
    *,
    against: str,
    confidence: float = CONFIDENCE,
) -> Finding:
    """Ask the same question many times and take the mean: does the noise go away?

    Args:
        count: The exact count.
        ask: Starts a fresh owner; what it returns answers the question about a count.
        epsilon: Privacy loss that the owner claims for all answers together, or None.
        questions: Times the attacker asks.
        trials: Fresh owners.
        against: What is attacked, in words.
        confidence: Of the interval.

    Returns:
        How often the rounded mean is the exact count. One answer with two-sided geometric noise is
        exact with probability tanh(epsilon / 2), which is the bound, and stored answers keep it.
    """
    hits = 0
    for _ in range(_checked(trials)):
        owner = ask()
        mean = sum(owner(count) for _ in range(questions)) / questions
        hits += math.floor(mean + 0.5) == count
    return share_finding(
        "averaging",
        against,
        hits,
        trials,
        None if epsilon is None else math.tanh(epsilon / 2),
        0.0,
        f"exact count known after {questions} questions",
        confidence,
    )


def differencing(
    counts: ArrayLike,
    places: Sequence[int],
    ask: Callable[[], Release],
    epsilon: float | None,
    trials: int,
    *,
    against: str,
    confidence: float = CONFIDENCE,
) -> Finding:
    """Two releases, one with the patient and one without: which of two places is the patient's?

    The places are, say, one stratum with and without the disease. The attacker subtracts the
    second release from the first and takes the place with the larger difference.

    Proof of the bound: the patient is in the first release only. Exchanging its two places there
    is one removal and one addition, so the releases are 2 epsilon apart.

    Args:
        counts: (K,) exact counts without the patient.
        places: The two places.
        ask: Starts a fresh owner; what it returns publishes counts, twice.
        epsilon: Claimed privacy loss of one release, adding or removing one patient, or None.
        trials: Fresh owners.
        against: What is attacked, in words.
        confidence: Of the interval.
    """
    without = np.asarray(counts, np.int64)
    first, second = places
    hits = 0
    for _ in range(_checked(trials)):
        truth = secrets.randbits(1)
        with_patient = without.copy()
        with_patient[second if truth else first] += 1
        release = ask()
        apart = np.asarray(release(with_patient)) - np.asarray(release(without))
        gap = int(apart[second]) - int(apart[first])
        guess = secrets.randbits(1) if gap == 0 else int(gap > 0)
        hits += guess == truth
    return share_finding(
        "differencing",
        against,
        hits,
        trials,
        None if epsilon is None else guess_bound(2 * epsilon),
        0.5,
        "right guesses of the patient's label",
        confidence,
    )


def _checked(trials: int) -> int:
    if trials < 1:
        raise ValueError(f"expected at least one trial, got {trials}")
    return trials
