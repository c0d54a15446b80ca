"""Whether the time of a token check tells how much of a token is right.

Each trial draws at random in which place the stored hash differs from the token's. All hashes are
made before the first is checked: writing one byte of a text just before it is read takes a time of
its own, by place and by processor, and a rank sum shows that before it shows anything of the
check. So under the claim "the time does not depend on the place" the two classes are exchangeable,
whatever else runs on the machine. The statistic is the rank sum (Mann-Whitney) of one class, which
is normal under the claim at these numbers. Beyond 7 standard deviations it raises the alarm:
falsely with odds of 2.6 in a million million for each of the two comparisons. It must see a
planted leak.
"""

import hashlib
import secrets
import time

import numpy as np
import pytest
from scipy.stats import norm, rankdata

from clearinghouse.apikeys import make_token, token_digest, token_matches

ALARM_SD = 7.0
TRIALS = 20_000


def deviation(check, places, trials):
    """The rank sum of the times for a hash that is wrong in the first of two places.

    Returns:
        It in standard deviations from what chance gives.
    """
    token = make_token()
    right = token_digest(token).encode()
    is_left = np.frombuffer(secrets.token_bytes(trials), np.uint8) % 2 == 0
    stored = []
    for first in is_left:
        digest = bytearray(right)
        digest[places[0] if first else places[1]] ^= 1  # one hex digit becomes another
        stored.append(digest.decode())
    times = np.empty(trials)
    clock = time.perf_counter_ns
    for index, wrong in enumerate(stored):
        start = clock()
        check(token, wrong)
        times[index] = clock() - start
    n, m = int(is_left.sum()), int((~is_left).sum())
    ranks = rankdata(times)
    mean, ties = n * (trials + 1) / 2, np.unique(times, return_counts=True)[1].astype(float)
    spread = n * m / 12 * (trials + 1 - (ties**3 - ties).sum() / (trials * (trials - 1)))
    return float((ranks[is_left].sum() - mean) / np.sqrt(spread))


def test_trust_timing_the_false_alarm_odds_are_as_stated():
    assert 2 * norm.sf(ALARM_SD) == pytest.approx(2.6e-12, rel=0.02)


@pytest.mark.parametrize("places", [(0, 63), (0, 31)])
def test_trust_timing_of_a_token_check_tells_nothing(places):
    assert abs(deviation(token_matches, places, TRIALS)) < ALARM_SD


def test_trust_timing_a_comparison_that_stops_early_is_seen():
    """The test can fail: this is what the check would be without constant time."""

    def leaky(token, digest):
        found = hashlib.sha256(token.encode()).hexdigest()
        for mine, theirs in zip(found, digest, strict=True):  # noqa: SIM110
            if mine != theirs:
                return False
        return True

    assert abs(deviation(leaky, (0, 63), 2_000)) > 2 * ALARM_SD
