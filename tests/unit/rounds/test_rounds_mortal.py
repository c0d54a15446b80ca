"""kill -9 at every named point of API, worker, key agent, provider and developer, again and again.

The market completes whatever dies, and afterwards `check_world` finds nothing: log, ledger, epsilon
of every owner, blobs, receipts and jobs. Only where the key agent dies between its debit and its
answer a run is lost for good, and that is said.
"""

import random

import pytest
from killing import PROVIDERS, Mortals, check_journal

from clearinghouse.failpoints import POINTS
from clearinghouse.store.store import Store

FATAL = {"agent.charged", "agent.drawn"}
"""Points after which epsilon is spent and the answer is not drawn again: the run is lost."""

TASK = ("party.asked", "party.decided", "party.stored", "party.answered")


def kills(*points):
    return [point if "=" in point else f"{point}=kill" for point in points]


ONE_MARKET = {
    "api": kills(
        "api.writing=kill@6",
        "api.committed=kill@3",
        "api.stored=kill@2",
        "api.verified=kill@9",
        "move.queueing",
        "move.queued",
        "move.worked=kill@3",
        "move.writing=kill@2",
        "move.moved=kill@2",
    ),
    "worker": kills("job.claiming", "job.claimed", "job.computed", "job.finishing", "job.finished"),
    "h": kills("hospital.sealed", "agent.sealed", *TASK, "agent.opened", *TASK[1:]),
    "a": kills(
        "provider.registered",
        *TASK * 2,
        "provider.ordered",
        "provider.sealed",
        "provider.uploaded",
        *TASK[1:],
    ),
    "b": kills(*TASK * 2, "provider.uploaded"),
    "d": kills(*TASK * 2),
}


def check(market, view, expected="done"):
    """Whatever died, the request has ended as it should and the world is as it must be."""
    assert market.unexpected == [], market.told()
    assert view.state == expected, view.reason
    found = market.look()
    assert found.is_well, "\n".join(map(str, found.troubles))
    return found


def live(folder, deaths, url="", **options):
    """One market from its first registration to its end."""
    market = Mortals(folder, deaths, url, **options)
    try:
        view = market.finish(market.open(400), 480)
    finally:
        market.close()
    return market, view


@pytest.mark.timeout(900)
def test_forty_kills_in_one_market_lose_double_and_hide_nothing(tmp_path):
    market, view = live(tmp_path, ONE_MARKET)
    found = check(market, view)
    hits = market.hits()
    assert market.kills == len(hits) >= 40, (hits, market.deaths)
    assert found.notes == ()
    planned = {spec.partition("=")[0] for specs in ONE_MARKET.values() for spec in specs}
    assert set(hits) == planned
    check_journal(tmp_path / "api.log")


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("point", sorted(FATAL))
def test_an_agent_that_dies_after_its_debit_never_draws_again(tmp_path, point):
    """The epsilon is spent, the request ends with that reason, the customer gets its money back."""
    market, view = live(tmp_path, {"h": kills(point)})
    found = check(market, view, "failed")
    assert "never drawn again" in view.reason or "no answer" in view.reason, view.reason
    assert market.hits() == [point]
    assert found.notes == ()  # what was spent for nothing is in the log, too


KILLS = 200
OF_THE_OUTBOX = [name for name in POINTS if name.startswith("log.")]
CAPPED = ("he.began", "he.ended")
POINTS_OF = {
    "api": [name for name in POINTS if name.startswith(("api.", "blob.w", "move."))],
    "worker": [name for name in POINTS if name.startswith("job.")],
    "h": [*TASK, "agent.opened"],
    "d": [*TASK],
    **{
        name: [*TASK, *(point for point in POINTS if point.startswith("provider."))]
        for name in PROVIDERS
    },
}


def drawn(seed, url, *, in_process):
    """A schedule of deaths: for each role points in a drawn order, each at its first few times.

    A capped process dies for its worker, which lives on; so its point is the worker's last.
    """
    draw = random.Random(seed)
    found = {}
    points_of = POINTS_OF | ({"api": [*POINTS_OF["api"], *OF_THE_OUTBOX]} if url else {})
    for role, points in points_of.items():
        turns = 4 if role in ("api", "worker") else 2
        times = 6 if role == "worker" else 30
        found[role] = [f"{draw.choice(points)}=kill@{draw.randint(1, turns)}" for _ in range(times)]
    if not in_process:
        found["worker"].append(f"{CAPPED[seed % 2]}=kill@2")
    return found


ONCE = {"hospital.sealed", "agent.sealed", "provider.registered"}
"""Before the request: in the market of forty kills."""

BESIDE = {"onsite.released", "garbage.doomed", "blob.removed", "upload.kept", "upload.stored"}
"""Of other work than a market of this size has."""

WANTED = set(POINTS) - FATAL - ONCE - BESIDE
MARKETS = 16


@pytest.mark.long
@pytest.mark.timeout(4 * 3600)
def test_two_hundred_kills_lose_double_and_hide_nothing(tmp_path, postgres, postgres_template):
    """Markets of drawn deaths until 200 processes were killed and somebody died at every point.

    A failing seed is in the message.
    """
    total, hits = 0, set()
    for seed in range(MARKETS):
        url = postgres.make(postgres_template) if seed % 2 else ""
        found = one_drawn(tmp_path / str(seed), seed, url)
        if url:
            postgres.drop(url)
        total, hits = total + len(found), hits | set(found)
        print(f"seed {seed}: {len(found)} kills, {total} in all; not yet {WANTED - hits}")
        if total >= KILLS and hits >= WANTED:
            break
    assert total >= KILLS
    assert hits >= WANTED, WANTED - hits


def one_drawn(folder, seed, url):
    """One market of drawn deaths, checked; the points at which somebody died."""
    folder.mkdir()
    in_process = seed % 4 < 2
    market = Mortals(folder, drawn(seed, url, in_process=in_process), url, in_process=in_process)
    try:
        view = market.finish(market.open(900), 1800)
    finally:
        market.close()
    try:
        check(market, view)
    except AssertionError as error:
        raise AssertionError(f"seed {seed}, points {market.hits()}: {error}") from error
    if url:
        store = Store(url)
        with store.read() as tx:
            assert tx.jobs.open() == ()
        store.close()
    return market.hits()
