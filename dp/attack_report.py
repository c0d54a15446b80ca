"""The attack meter: every attack against an unprotected answer and against what the market gives.

The ledger attacked here is the real one, in a directory of its own; releases default to the
market's integer noise, and a caller may hand in whole release paths instead.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dp.attacks import (
    CONFIDENCE,
    Finding,
    Release,
    averaging,
    differencing,
    membership,
    reconstruct_from_distances,
    reconstruct_from_publications,
)
from dp.boosting import Board, boosting
from dp.ledger import Ledger
from dp.noise import geometric

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

QUESTIONS = 20
QUERIES = 200
BOARD_ROWS = 500


@dataclass(frozen=True, slots=True)
class Exhibit:
    """What is attacked: the rows of one owner and the public places they are counted in.

    Attributes:
        rows: (n, d) embedded rows.
        places: (n,) place of each row, 0 .. K - 1.
        codewords: (K, d) public point of each place.
        anchors: (m, d) points known to the attacker, m > d, for the attack on raw distances.
    """

    rows: Floats
    places: Integers
    codewords: Floats
    anchors: Floats


def attack_report(
    exhibit: Exhibit,
    *,
    epsilon_micro: int = 1_000_000,
    epsilon_score_micro: int = 1_000_000,
    runs: int = 2,
    trials: int = 400,
    boards: int = 20,
    release: Release | None = None,
    score_release: Release | None = None,
    confidence: float = CONFIDENCE,
) -> dict[str, Any]:
    """Run every attack, with intervals beside the bounds.

    Args:
        exhibit: What is attacked.
        epsilon_micro: Millionths of epsilon of a summary.
        epsilon_score_micro: Millionths of epsilon of one score run.
        runs: Score runs that a validation set's budget pays for.
        trials: Independent trials of each attack that tosses coins.
        boards: Fresh leaderboards that are attacked.
        release: The path from exact counts to the published summary; default the integer noise.
        score_release: The same for one score histogram, its epsilon included.
        confidence: Of every interval.

    Returns:
        Plain JSON values: `confidence`, `epsilon`, `holds` (nothing is surely above its bound) and
        `attacks`, a list of findings. Findings without a bound show what happens where nothing
        protects: they are there for comparison and no part of the market.
    """
    summary = release or _noised(epsilon_micro)
    score = score_release or _noised(epsilon_score_micro)
    with _ledgers(epsilon_micro) as owners:
        findings = [
            *_reconstructions(exhibit, summary, epsilon_micro / 1e6, confidence),
            *_memberships(
                exhibit,
                {"one published summary": (summary, epsilon_micro / 1e6)}
                | {"one score histogram": (score, epsilon_score_micro / 1e6)},
                trials,
                confidence,
            ),
            *_averages(epsilon_micro, owners, trials, confidence),
            *_differences(exhibit, epsilon_micro, owners, trials, confidence),
            *_boards(epsilon_score_micro, runs, boards, confidence),
        ]
    return {
        "confidence": confidence,
        "epsilon": epsilon_micro / 1e6,
        "epsilon_score": epsilon_score_micro / 1e6,
        "holds": all(finding.holds for finding in findings),
        "attacks": [finding.to_dict() for finding in findings],
    }


def attack_table(report: Mapping[str, Any]) -> str:
    """The report as text: success with its interval beside what theory allows."""
    lines = [
        f"{'attack':15} {'against':36} {'success':>8} {'interval':>15} {'bound':>6} {'blind':>6}"
        "  what is counted"
    ]
    for item in report["attacks"]:
        interval = f"[{item['low']:.3f}, {item['high']:.3f}]"
        bound = "none" if item["bound"] is None else f"{item['bound']:.3f}"
        lines.append(
            f"{item['attack']:15} {item['against']:36} {item['success']:8.3f} {interval:>15} "
            f"{bound:>6} {item['blind']:6.3f}  {item['measure']}"
            + ("" if item["holds"] else "  ABOVE ITS BOUND")
        )
    return "\n".join(lines)


# ---------------------------------------------------------------- the attacks, one by one


def _reconstructions(
    exhibit: Exhibit, release: Release, epsilon: float, confidence: float
) -> list[Finding]:
    return [
        reconstruct_from_distances(exhibit.rows, exhibit.anchors, confidence),
        reconstruct_from_publications(
            exhibit.rows, exhibit.places, exhibit.codewords, release, epsilon, confidence
        ),
    ]


def _memberships(
    exhibit: Exhibit,
    paths: Mapping[str, tuple[Release, float]],
    trials: int,
    confidence: float,
) -> list[Finding]:
    """The patient is one whose place is otherwise empty, if there is one: the easiest prey."""
    counts = _counts(exhibit)
    prey = int(counts.argmin())
    counts[prey] = max(0, counts[prey] - 1)
    return [
        membership(counts, prey, release, epsilon, trials, against=against, confidence=confidence)
        for against, (release, epsilon) in paths.items()
    ]


def _averages(
    epsilon_micro: int,
    owners: Callable[[], Ledger],
    trials: int,
    confidence: float,
) -> list[Finding]:
    epsilon = Fraction(epsilon_micro, 1_000_000)

    def fresh() -> Callable[[int], int]:
        return lambda count: int(geometric(count, epsilon))

    def stored() -> Callable[[int], int]:
        ledger = owners()
        return lambda count: int(_paid(ledger, "question", epsilon_micro, [count])[0])

    return [
        averaging(
            12,
            fresh,
            None,
            QUESTIONS,
            trials,
            against="fresh noise for every question",
            confidence=confidence,
        ),
        averaging(
            12,
            stored,
            float(epsilon),
            QUESTIONS,
            max(1, trials // 8),
            against="the ledger's stored answer",
            confidence=confidence,
        ),
    ]


def _differences(
    exhibit: Exhibit,
    epsilon_micro: int,
    owners: Callable[[], Ledger],
    trials: int,
    confidence: float,
) -> list[Finding]:
    counts = _counts(exhibit)
    places = (0, min(1, len(counts) - 1))
    epsilon = Fraction(epsilon_micro, 1_000_000)

    def exact() -> Release:
        return lambda values: values

    def twice() -> Release:
        return lambda values: geometric(values, epsilon)

    def stored() -> Release:
        ledger = owners()
        return lambda values: _paid(ledger, "summary", epsilon_micro, values)

    return [
        differencing(counts, places, make, claim, times, against=against, confidence=confidence)
        for against, make, claim, times in (
            ("two exact tables", exact, None, trials),
            ("two summaries, each paid for", twice, float(epsilon), trials),
            ("the source's one summary, asked twice", stored, float(epsilon), max(1, trials // 8)),
        )
    ]


def _boards(epsilon_micro: int, runs: int, boards: int, confidence: float) -> list[Finding]:
    epsilon = Fraction(epsilon_micro, 1_000_000)

    def exact() -> Board:
        return lambda right: int(right.sum())

    def budgeted() -> Board:
        left = runs

        def answer(right: NDArray[np.uint8]) -> int | None:
            nonlocal left
            if not left:
                return None
            left -= 1
            return int(geometric([int(right.sum())], epsilon)[0])

        return answer

    return [
        boosting(
            BOARD_ROWS,
            QUERIES,
            exact,
            boards,
            answers=QUERIES,
            epsilon=None,
            against="a board with exact answers",
            confidence=confidence,
        ),
        boosting(
            BOARD_ROWS,
            QUERIES,
            budgeted,
            boards,
            answers=runs,
            epsilon=runs * float(epsilon),
            against=f"{runs} budgeted runs, then refusal",
            confidence=confidence,
        ),
    ]


def _counts(exhibit: Exhibit) -> Integers:
    return np.bincount(exhibit.places, minlength=len(exhibit.codewords)).astype(np.int64)


def _noised(epsilon_micro: int) -> Release:
    return lambda counts: geometric(counts, Fraction(epsilon_micro, 1_000_000))


def _paid(ledger: Ledger, key: str, cost_micro: int, counts: ArrayLike) -> Integers:
    """Counts through the ledger: paid once, then replayed, whatever is asked under the key."""

    def draw() -> bytes:
        return geometric(counts, Fraction(cost_micro, 1_000_000)).astype("<i8").tobytes()

    return np.frombuffer(ledger.release(key, "body", cost_micro, draw, key), "<i8").astype(np.int64)


@contextmanager
def _ledgers(limit_micro: int) -> Iterator[Callable[[], Ledger]]:
    """Fresh ledgers with the limit of one release, in a directory that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="attack-meter-") as folder:
        made = 0

        def fresh() -> Ledger:
            nonlocal made
            made += 1
            return Ledger.open(Path(folder) / f"{made}.sqlite", limit_micro=limit_micro)

        yield fresh


__all__ = ["Exhibit", "attack_report", "attack_table"]
