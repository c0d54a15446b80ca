"""Attack meter: what an attacker reaches on published numbers, beside what theory allows."""

import secrets
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.tasks import heart_tables
from clearinghouse.cli.attacks import exhibit, opened_path, summary_path
from clearinghouse.messages.tasks import NoiseTable
from clearinghouse.rounds.turns import noise_tables
from dp.attack_report import attack_report, attack_table
from dp.audit import Statistic, audit_release, delta_lower_bound, epsilon_lower_bound
from dp.audit_likelihood import Claimed, likelihood_ratio
from dp.coins import delta_of
from dp.noise import geometric
from dp.size import noised_size
from secure_eval.noise import Table as NoisedTable
from secure_eval.noise import table_noise

Ints = NDArray[np.int64]

MICRO = 1_000_000
CONFIDENCE = 0.999
SITE = "hungarian"
LEVEL = ("age", "sex")
RUNS = 2
"""Score runs that the default budget of a customer pays for, beside its target."""


def run(quick: bool) -> str:
    """The meter on one real hospital's rows, then audits of the release paths as a whole."""
    schema, tables = heart_tables()
    shown = exhibit(schema, tables[SITE], LEVEL)
    report = attack_report(
        shown,
        runs=RUNS,
        trials=400 if quick else 4000,
        boards=20 if quick else 100,
        release=summary_path(MICRO),
        score_release=opened_path("histogram", MICRO),
    )
    head = (
        f"{SITE}: {len(shown.rows)} patients, {shown.rows.shape[1]} coordinates, "
        f"{len(shown.codewords)} places; epsilon 1 for a summary and for a score run; "
        f"{report['confidence']:.0%} intervals"
    )
    foot = "nothing is surely above its bound" if report["holds"] else "A BOUND IS BROKEN"
    return "\n".join([head, attack_table(report), foot, "", *_audits(quick), *_run_audits(quick)])


def split_path(places: Ints) -> Ints:
    """A score run with two subgroups: (16 cells, then 4 and 8), one patient in one cell of each."""
    items = noise_tables(MICRO, 2, 8, (("sex", 2), ("age", 4)))
    sizes = [item.cells for item in items]
    exact = [np.bincount(places % size, minlength=size) for size in sizes]
    tables = [NoisedTable(item.name, item.cells, item.epsilon_micro) for item in items]
    return np.concatenate(exact) + _derived(tables)


def _derived(tables: list[NoisedTable]) -> Ints:
    nonces = (secrets.token_bytes(16), secrets.token_bytes(16))
    return table_noise(secrets.token_bytes(32), "run", nonces, tables)


def _audits(quick: bool) -> list[str]:
    """Lower bounds on epsilon for neighbours that differ in a full and in an empty cell."""
    n, confidence = (3000 if quick else 30_000), CONFIDENCE
    counts = np.array([40, 0, 7, 3])
    places = np.array([0, 0, 5, 9, 9, 9, 14], np.int64)
    rows = {"a full cell": (places, np.append(places, 9)), "an empty one": (places, places[:-1])}
    tables = {
        "a full cell": (counts, counts + np.eye(4, dtype=np.int64)[0]),
        "an empty one": (counts, counts + np.eye(4, dtype=np.int64)[1]),
    }
    lines = [f"audits of whole paths, claimed epsilon 1, {n} runs a side, confidence {confidence}"]
    for name, path, pairs in (
        ("summary", summary_path(MICRO), tables),
        ("target", opened_path("target", MICRO), tables),
        ("score with subgroups", split_path, rows),
        ("size", lambda counts: [noised_size(int(counts.sum()), MICRO)], tables),
        ("planted: half the noise", lambda values: geometric(values, 2), tables),
    ):
        verdict = audit_release(path, pairs, 1.0, n=n, confidence=confidence)
        bounds = ", ".join(f"{pair} >= {bound:.2f}" for pair, bound in verdict.bounds.items())
        judged = "passes" if verdict.passed else "CAUGHT" if "planted" in name else "FAILS"
        lines.append(f"  {name:24} {bounds}: {judged}")
    return lines


# ---------------------------------------------------------------- runs, by the law that they claim


def _run_audits(quick: bool) -> list[str]:
    """Runs of classes and of a number at epsilon 3, and coins at epsilon 0, each beside a fault."""
    n = 6000 if quick else 30_000
    lines = [f"audits of whole runs, the best event against the claimed law, {n} runs a side"]
    for name, labels, classes in (("three classes", 2, 3), ("a number in 3 strata", 3, 1)):
        items = noise_tables(3 * MICRO, labels, 4, (("sex", 2), ("age", 3)), classes=classes)
        for told, times in ((name, 1), ("planted: half the noise", 2)):
            found = epsilon_lower_bound(
                *_one_more(items, times), n, CONFIDENCE, known=_ratio(items)
            )
            caught = _judged(told, found > 3)
            lines.append(f"  {told:24} claimed epsilon 3, at least {found:.2f}: {caught}")
    (table,) = noise_tables(4 * MICRO, 3, 4, (), "coins")
    claimed = float(delta_of(table.coins, 0))
    for told, coins in (("coins", table.coins), ("planted: half the coins", table.coins // 2)):
        given = [table.model_copy(update={"coins": coins})]
        found = delta_lower_bound(*_one_more(given, 1), n, CONFIDENCE, known=_ratio([table]))
        caught = _judged(told, found > claimed)
        exact = float(delta_of(coins, 0))
        lines.append(
            f"  {told:24} {coins} a cell, exact delta at epsilon 0 {exact:.3f}: "
            f"claimed {claimed:.3f}, at least {found:.3f}: {caught}"
        )
    return lines


def _judged(told: str, above: bool) -> str:
    if "planted" in told:
        return "CAUGHT" if above else "NOT SEEN in so few runs"
    return "FAILS" if above else "passes"


def _exact(items: Sequence[NoiseTable], more: int) -> Ints:
    """One patient more or none in the first cell of each table."""
    return np.concatenate([more * np.eye(item.cells, dtype=np.int64)[0] for item in items])


def _one_more(items: Sequence[NoiseTable], times: int) -> tuple[Callable[[int], Ints], int, int]:
    """A run with so many times the epsilon that it claims, and two neighbours."""
    tables = [
        NoisedTable(item.name, item.cells, item.epsilon_micro * times, item.coins) for item in items
    ]
    return lambda more: _exact(items, more) + _derived(tables), 0, 1


def _ratio(items: Sequence[NoiseTable]) -> list[Statistic]:
    laws = [Claimed(item.cells, item.epsilon_micro, item.coins) for item in items]
    return [likelihood_ratio(laws, _exact(items, 0), _exact(items, 1))]
