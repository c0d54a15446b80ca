"""Adaptive boosting of a leaderboard: learning the validation labels from the scores themselves.

The attacker submits random predictions, keeps those that scored above one half, turns the others
round and submits the majority (Blum and Hardt 2015, "The Ladder"). On labels that are pure chance
every honest model is right half of the time, so anything above one half was learned from the board.
"""

import math
import secrets
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from dp.attacks import ALARM, CONFIDENCE, Finding

Bits = NDArray[np.uint8]
Board = Callable[[Bits], int | None]
"""From right-or-wrong bits (n,) to the published number of right answers; None: refused."""


def boosting_bound(n: int, queries: int, epsilon: float | None) -> float:
    """Most that the mean of (accuracy on the board - true accuracy) can be, whatever is asked.

    The gap of a final answer chosen with I nats of information about n independent labels is at
    most sqrt(I / 2n) on average (Russo and Zou 2016; Xu and Raginsky 2017). The board gives away
    at most ln(n + 1) nats an answer, since an answer follows from one of n + 1 exact counts; and at
    most 2 n epsilon^2 in all where all answers together are epsilon-DP: exchanging one label is
    2 epsilon, which is (2 epsilon)^2 / 2 nats a label (Bun and Steinke 2016, proposition 1.4), and
    independent labels add by the chain rule. No gap exceeds one half.

    Args:
        n: Validation rows.
        queries: Answers that the board gives before it refuses.
        epsilon: Privacy loss of all answers together; None for exact answers.

    Raises:
        ValueError: n or queries is not positive.
    """
    if n < 1 or queries < 1:
        raise ValueError(f"expected rows and queries, got {n} and {queries}")
    nats = queries * math.log(n + 1)
    if epsilon is not None:
        nats = min(nats, 2 * n * epsilon**2)
    return min(0.5, math.sqrt(nats / (2 * n)))


def boost(n: int, queries: int, board: Board) -> float:
    """One attack on a fresh set of n random labels; the gap that it reaches.

    Returns:
        Share of labels that the attacker's last predictions get right, minus one half. Refused
        questions teach nothing, and without any answer the predictions are random.
    """
    labels = _bits(n)
    votes = np.zeros(n)
    for _ in range(queries):
        predictions = _bits(n)
        answer = board((predictions == labels).astype(np.uint8))
        if answer is not None:
            votes += (answer - n / 2) * (2.0 * predictions - 1.0)
    final = np.where(votes == 0, _bits(n), (votes > 0).astype(np.uint8))
    return float((final == labels).mean()) - 0.5


def boosting(
    n: int,
    queries: int,
    make_board: Callable[[], Board],
    trials: int,
    *,
    answers: int,
    epsilon: float | None,
    against: str,
    confidence: float = CONFIDENCE,
) -> Finding:
    """The attack on several fresh boards.

    Args:
        n: Validation rows.
        queries: Submissions that the attacker tries.
        make_board: Makes a fresh board.
        trials: Boards, at least 2.
        answers: Submissions that a board answers before it refuses.
        epsilon: Privacy loss of all its answers together; None for exact answers.
        against: What is attacked, in words.
        confidence: Of the interval (Student's t over boards).

    Raises:
        ValueError: Fewer than two trials.
    """
    if trials < 2:
        raise ValueError(f"expected at least two trials, got {trials}")
    gaps = np.array([boost(n, queries, make_board()) for _ in range(trials)])
    mean, error = float(gaps.mean()), float(gaps.std(ddof=1)) / math.sqrt(trials)
    reach = float(student.ppf((1 + confidence) / 2, trials - 1)) * error
    bound = boosting_bound(n, answers, epsilon)
    return Finding(
        "boosting",
        against,
        mean,
        mean - reach,
        mean + reach,
        mean - float(student.ppf(1 - ALARM, trials - 1)) * error,
        bound,
        0.0,
        trials,
        f"labels known beyond chance after {queries} submissions on {n} rows",
    )


def _bits(n: int) -> Bits:
    """Fair bits, n of them, from the operating system."""
    raw = np.frombuffer(secrets.token_bytes(-(-n // 8)), np.uint8)
    return np.unpackbits(raw)[:n]
