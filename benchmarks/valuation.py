"""Clearing with all payments, exact and sampled values, against solvers and peers, as ratios.

Every comparison runs in one process on one thread, alternating, so that ratios mean something on a
shared machine. Peers that are no dependency (pyDVL) run in the Python named by PYDVL_PYTHON.
"""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import ot
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import coo_array

from benchmarks.hard_budget import budgets
from matching import Plan, clear, marginal_values
from matching.certificate import cell_prices, certify
from matching.ladder import price_ladders
from valuation import knn_shapley, sampled_shapley, semivalue

MICRO = 1_000_000
SIZES = ((40, 32), (1000, 64), (1000, 256), (10_000, 64))
REPEATS = 7
"""The least time of so many counts: other work on the machine only adds."""
LIMIT_S = 60.0
"""HiGHS gives up after so long."""
Market = tuple[Any, Any, Any, Any, int]
Result = TypeVar("Result")


def run(quick: bool) -> str:
    """All parts as Markdown."""
    parts = [
        clearing(SIZES[:2] if quick else SIZES),
        semivalues(),
        knn(1000 if quick else 5000),
        sampler(3 if quick else 6),
        budgets(20 if quick else 60, market),
    ]
    return "\n\n".join(parts)


def timed(call: Callable[[], Result], repeats: int = 1) -> tuple[float, Result]:
    """Least seconds over some repeats, and the last result."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        result = call()
        best = min(best, time.perf_counter() - start)
    return best, result


# ---------------------------------------------------------------- clearing


def market(sources: int, cells: int, seed: int = 0) -> Market:
    """Points in six dimensions, 40% of (source, cell) pairs supplied, twice as much as wanted."""
    rng = np.random.default_rng([seed, sources, cells])
    points = rng.normal(size=(cells, 6))
    apart = np.linalg.norm(points[:, None] - points[None], axis=2)
    distances = (apart * MICRO).astype(np.int64)
    supplies = (rng.random((sources, cells)) < 0.4) * rng.poisson(1.0, (sources, cells))
    wanted = min(2000, int(supplies.sum()) // 2)
    target = rng.multinomial(wanted, rng.dirichlet(np.ones(cells) * 0.5))
    return distances, target, supplies, rng.integers(MICRO, 3 * MICRO, sources), 5_714_285


def highs(market: Market, without: int | None = None) -> float:
    """The optimum by HiGHS on the condensed network: flows per cell pair, sales per pair."""
    distances, target, supplies, prices, reserve = market
    cells = len(target)
    s, c = np.nonzero(supplies)
    keep = s != (-1 if without is None else without)
    s, c = s[keep], c[keep]
    wanted = np.flatnonzero(target)
    flows = len(wanted) * cells
    gain = np.concatenate([(reserve - distances[wanted]).ravel(), -prices[s]]) / MICRO
    served = coo_array(
        (np.ones(flows), (np.repeat(np.arange(len(wanted)), cells), np.arange(flows))),
        shape=(len(wanted), flows + len(s)),
    )
    balance = coo_array(
        (
            np.concatenate([np.ones(flows), -np.ones(len(s))]),
            (np.concatenate([np.tile(np.arange(cells), len(wanted)), c]), np.arange(len(gain))),
        ),
        shape=(cells, len(gain)),
    )
    limits = np.column_stack(
        [np.zeros(len(gain)), np.concatenate([np.full(flows, np.inf), supplies[s, c]])]
    )
    result = linprog(
        -gain,
        A_ub=served.tocsr(),
        b_ub=target[wanted],
        A_eq=balance.tocsr(),
        b_eq=np.zeros(cells),
        bounds=limits,
        method="highs",
        options={"time_limit": LIMIT_S},
    )
    if result.status == 1:
        raise TimeoutError
    if result.status != 0:
        raise RuntimeError(result.message)
    return -float(result.fun) * MICRO


def emd(market: Market, without: int | None = None) -> float:
    """The optimum by POT's network simplex: one node per supplied pair, one outside node."""
    distances, target, supplies, prices, reserve = market
    s, c = np.nonzero(supplies)
    keep = s != (-1 if without is None else without)
    s, c = s[keep], c[keep]
    wanted = np.flatnonzero(target)
    cost = np.zeros((len(s) + 1, len(wanted) + 1))
    cost[:-1, :-1] = (distances[wanted][:, c].T + prices[s][:, None] - reserve) / MICRO
    have = np.append(supplies[s, c], target.sum()).astype(float)
    need = np.append(target[wanted], supplies[s, c].sum()).astype(float)
    plan = ot.emd(have, need, cost, numItermax=50_000_000)
    return -float((plan * cost).sum()) * MICRO


def clearing(sizes: tuple[tuple[int, int], ...]) -> str:
    """Clear and all payments, unit by unit, against naive re-solves, one per winner."""
    solve(market(10, 8))
    rows = [
        "| sources x cells | winners | clear | marginal values | all payments | certificate check "
        "| HiGHS, one solve | POT, one solve | naive HiGHS / ours | naive POT / ours |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for sources, cells in sizes:
        given = market(sources, cells)
        first, plan = timed(lambda given=given: solve(given), REPEATS)
        values, marginals = timed(lambda plan=plan: marginal_values(plan), REPEATS)
        ladders, _ = timed(lambda plan=plan: price_ladders(plan), REPEATS)
        dual = cell_prices(plan)
        check, _ = timed(lambda plan=plan, dual=dual: certify(plan, dual), REPEATS)
        winners = int((plan.units > 0).sum())
        cells_text = f"| {sources} x {cells} | {winners} | {ms(first)} | {ms(values)} "
        cells_text += f"| {ms(ladders)} | {ms(check)} "
        peers = [naive(solver, given, plan, marginals) for solver in (highs, emd)]
        cells_text += "".join(f"| {sign}{ms(peer)} " for sign, peer in peers)
        ratios = [(sign, peer * (winners + 1) / (first + ladders)) for sign, peer in peers]
        cells_text += "".join(f"| {sign}{ratio:,.0f}x " for sign, ratio in ratios)
        rows.append(cells_text + "|")
    note = (
        "Naive = one solve with everybody and one without each winner, extrapolated from one "
        "solve with and one without a winner, whose optimum and marginal value equal ours. Ours = "
        "clear and all payments, that is the price of every unit. "
        f"> : HiGHS was stopped after {LIMIT_S:.0f} s. nan: above 20 million arcs, POT was not run."
    )
    return "### Clearing and payments\n\n" + "\n".join(rows) + "\n\n" + note


def solve(given: Market) -> Plan:
    return clear(*given[:4], reserve=given[4])


def naive(
    solver: Callable[..., float], given: Market, plan: Plan, marginals: NDArray[np.int64]
) -> tuple[str, float]:
    """Seconds per solve by a peer, "> " before a lower bound, nan where it does not fit memory."""
    if solver is emd and np.count_nonzero(plan.supplies) * len(plan.target) > 20_000_000:
        return "", float("nan")
    source = int(np.flatnonzero(plan.units)[0])
    try:
        first, whole = timed(lambda: solver(given))
        second, rest = timed(lambda: solver(given, source))
    except TimeoutError:
        return "> ", LIMIT_S
    close = 1e-7 * plan.objective + 2
    assert abs(whole - plan.objective) <= close
    assert abs(plan.objective - rest - marginals[source]) <= close
    return "", (first + second) / 2


def ms(seconds: float) -> str:
    return f"{seconds * 1000:,.1f} ms"


# ---------------------------------------------------------------- values


def semivalues() -> str:
    rng = np.random.default_rng(1)
    lines = []
    for sources, targets in ((50, 500), (1000, 500), (1000, 5000)):
        gains, weights = rng.random((targets, sources)), np.full(targets, 1 / targets)
        took, values = timed(lambda g=gains, w=weights: semivalue(g, w), 3)
        error = abs(values.sum() - float(weights @ gains.max(axis=1)))
        lines.append(f"| {sources} x {targets} | {ms(took)} | {error:.1e} |")
    head = "| sources x targets | Shapley, exact | sum of values off by |\n|---|---|---|\n"
    return "### Semivalues in closed form\n\n" + head + "\n".join(lines)


PEER = """
import json, sys, time
import numpy as np
from pydvl.valuation import Dataset, KNNShapleyValuation
from sklearn.neighbors import KNeighborsClassifier
data = np.load(sys.argv[1])
train = Dataset(data["x"], data["y"]); test = Dataset(data["u"], data["v"])
model = KNeighborsClassifier(n_neighbors=5)
method = KNNShapleyValuation(model, test, progress=False)
start = time.perf_counter(); method.fit(train); took = time.perf_counter() - start
result = method.result
values = np.empty(len(data["y"])); values[result.indices] = result.values
print(json.dumps({"seconds": took, "values": values.tolist()}))
"""


def knn(records: int) -> str:
    rng = np.random.default_rng(2)
    x, u = rng.normal(size=(records, 8)), rng.normal(size=(500, 8))
    y, v = (x[:, 0] > 0).astype(int), (u[:, 0] > 0).astype(int)
    apart = np.sqrt(((x[:, None] - u[None]) ** 2).sum(-1))  # no ties: normal coordinates
    took, values = timed(lambda: knn_shapley(apart, y, v, 5), 2)
    text = f"### KNN-Shapley, {records} records x 500 targets, k = 5\n\nOurs {ms(took)}"
    peer = os.environ.get("PYDVL_PYTHON")
    if not peer:
        return text + "; pyDVL not run (PYDVL_PYTHON names no Python that has it)."
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.npz"
        np.savez(path, x=x, y=y, u=u, v=v)
        done = subprocess.run(
            [peer, "-c", PEER, str(path)], capture_output=True, text=True, check=False
        )
    if done.returncode:
        return text + "; pyDVL failed: " + done.stderr.strip().splitlines()[-1]
    told = json.loads(done.stdout.splitlines()[-1])
    apart_by = float(np.abs(np.array(told["values"]) - values).max())
    ratio = told["seconds"] / took
    return (
        f"{text} from distances; pyDVL {told['seconds']:.1f} s with its own distances "
        f"({ratio:.0f}x); largest difference of a value {apart_by:.1e}."
    )


def sampler(games: int) -> str:
    """Relative L2 error at equal numbers of utility calls, median over games."""
    rows = ["| game | calls | ours | plain permutations | ratio |", "|---|---|---|---|---|"]
    for name, make, players, limits in (
        ("ridge accuracy, 12 sources", ridge_game, 12, (500, 2000, 20_000)),
        ("best gains, 50 sources", gains_game, 50, (5000, 20_000)),
    ):
        for calls in limits:
            ours, plain = [], []
            for seed in range(games):
                utility, exact = make(seed, players)
                found = sampled_shapley(utility, players, calls, seed).values
                ours.append(relative(found, exact))
                plain.append(relative(permutations(utility, players, calls, seed), exact))
            a, b = float(np.median(ours)), float(np.median(plain))
            ratio = f"{b / a:.1f}x" if a > 1e-12 else "exact"
            rows.append(f"| {name} | {calls:,} | {a:.3f} | {b:.3f} | {ratio} |")
    return f"### Sampled values, {games} games each\n\n" + "\n".join(rows)


Utility = Callable[[frozenset[int]], float]


def ridge_game(seed: int, players: int) -> tuple[Utility, NDArray[np.float64]]:
    """Accuracy of a ridge classifier trained on the members' rows; exact by enumeration."""
    rng = np.random.default_rng([seed, 5])
    truth = rng.normal(size=6)
    tables = [rng.normal(size=(15, 6)) + rng.normal(size=6) * 0.5 for _ in range(players)]
    flips = rng.choice([0.0, 0.1, 0.4], players)
    labels = [
        np.sign(t @ truth + 1e-9) * np.where(rng.random(15) < f, -1, 1)
        for t, f in zip(tables, flips, strict=True)
    ]
    squares = np.array([t.T @ t for t in tables])
    products = np.array([t.T @ y for t, y in zip(tables, labels, strict=True)])
    rows = rng.normal(size=(200, 6))
    wanted = np.sign(rows @ truth)

    def utility(members: frozenset[int]) -> float:
        if not members:
            return 0.5
        chosen = sorted(members)
        weights = np.linalg.solve(squares[chosen].sum(0) + np.eye(6), products[chosen].sum(0))
        return float((np.sign(rows @ weights) == wanted).mean())

    known: dict[frozenset[int], float] = {}

    def remembered(members: frozenset[int]) -> float:
        if members not in known:
            known[members] = utility(members)
        return known[members]

    exact = sampled_shapley(remembered, players, 1 << players, 0).values
    return remembered, exact


def gains_game(seed: int, players: int) -> tuple[Utility, NDArray[np.float64]]:
    """The market's game of best gains; exact in closed form."""
    rng = np.random.default_rng([seed, 6])
    gains = rng.gamma(0.5, size=(100, players)) * rng.choice([0.3, 1.0, 2.0], players)

    def utility(members: frozenset[int]) -> float:
        return float(gains[:, list(members)].max(axis=1).mean()) if members else 0.0

    return utility, semivalue(gains, np.full(100, 0.01))


def permutations(utility: Utility, players: int, calls: int, seed: int) -> NDArray[np.float64]:
    """What everybody starts with: mean marginal contributions over random orders."""
    rng = np.random.default_rng([seed, 9])
    total = np.zeros(players)
    empty, everyone = utility(frozenset()), utility(frozenset(range(players)))
    orders = max(1, (calls - 2) // (players - 1))
    for _ in range(orders):
        before = empty
        members: frozenset[int] = frozenset()
        for place, player in enumerate(rng.permutation(players).tolist()):
            members |= {player}
            after = everyone if place == players - 1 else utility(members)
            total[player] += after - before
            before = after
    return total / orders


def relative(found: NDArray[np.float64], exact: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


if __name__ == "__main__":
    print(run(quick=False))
